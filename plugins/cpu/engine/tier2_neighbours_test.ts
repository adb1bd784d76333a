import { assertEquals } from "@std/assert";
import type { Form } from "../decode/form.ts";
import { registerAddress, S } from "../state/cpu_state.ts";
import { MICRO_OP_BYTES, MicroOp } from "./block_layout.ts";
import { Records } from "./records.ts";
import type { RegionBlock } from "./region_graph.ts";
import { neighboursOf } from "./tier2_neighbours.ts";

const LOAD: Form = {
  name: "MOV",
  bits: 32,
  operands: [{ kind: "R", bits: 32 }, { kind: "M", bits: 32 }],
  address: "b64",
  addressBits: 64,
  code: 64,
  stack: 64,
  rep: 0,
};

/** Offsets of loads at fixed addresses among their neighbours, `undefined` for one that has none. */
function offsets(addresses: readonly bigint[]): (number | undefined)[] {
  const memory = new ArrayBuffer(0x1000);
  const view = new DataView(memory);
  const ops = addresses.map((address, k) => {
    const record = 0x100 + k * MICRO_OP_BYTES;
    view.setUint16(record + MicroOp.REG0, registerAddress(k), true);
    view.setUint16(record + MicroOp.BASE, S.zero, true);
    view.setUint16(record + MicroOp.INDEX_REG, S.zero, true);
    view.setBigInt64(record + MicroOp.DISPLACEMENT, BigInt.asIntN(64, address), true);
    return { record, form: LOAD };
  });
  const block: RegionBlock = {
    address: 0,
    rip: 0n,
    count: ops.length,
    ops,
    taken: undefined,
    next: undefined,
    jumps: [],
  };
  const found = neighboursOf(block, new Records(memory), true, true, () => true);
  return addresses.map((_, k) => found.get(k)?.offset);
}

Deno.test("loads at fixed addresses are told apart by their distance", () => {
  for (const base of [0x40_0000n, 0x7fff_ffff_0000n, 0xffff_8880_0000_0000n]) {
    assertEquals(offsets([base + 8n, base, base + 0x1000n]), [8, 0, undefined]);
  }
});

Deno.test("addresses of 57 bits that a number cannot hold have no neighbours", () => {
  const base = 0xff11_0000_0000_0000n;
  assertEquals(offsets([base, base + 4n, base + 12n]), [undefined, undefined, undefined]);
});
