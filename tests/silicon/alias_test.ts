/**
 * Physical address spaces that are made of pieces of host memory: mapping and unmapping parts of what was
 * mapped as a whole.
 */
import { assertEquals } from "@std/assert";
import { Bench } from "./bench.ts";
import { hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";

const SPACE = 1;
const CHUNK = 0x20_0000;
const START = CHUNK;

let devices = 0;
const bench = new Bench({
  outside: {
    ...refuseOutside(),
    deviceRead: () => {
      devices++;
      bench.processor.exchange[0] = 0x5555;
      bench.processor.exchange[1] = 0;
    },
  },
});

/** 32 bits at `address`, as a processor reads them; `undefined` if there is no memory. */
function read(address: number): number | undefined {
  bench.protect();
  bench.state.setRegister(3, BigInt(address));
  devices = 0;
  assertEquals(bench.judge(hex("8b 03")), "ok");
  return devices > 0 ? undefined : Number(bench.state.register(0));
}

/** Fills every page of the chunk with its address. */
function fill(): void {
  for (let at = START; at < START + CHUNK; at += 0x1000) bench.set32(at, at);
}

Deno.test("pages can be taken out of a chunk, and the rest stays", () => {
  fill();
  // Before anything has touched the chunk, and after.
  for (const [page, bytes] of [[0x5000, 0x1000], [0x1f_e000, 0x2000], [0, 0x3000]] as const) {
    bench.processors.unmapAlias(SPACE, START + page, bytes);
    for (const at of [page, page + bytes - 0x1000]) assertEquals(read(START + at), undefined);
    for (const at of [page - 0x1000, page + bytes]) {
      if (at < 0 || at >= CHUNK) continue;
      assertEquals(read(START + at), START + at);
    }
  }
  assertEquals(read(START + 0x8000), START + 0x8000);
  assertEquals(read(START - 4), 0);
});

Deno.test("pages can be put elsewhere within a chunk, and the rest stays", () => {
  const other = new Bench({ memory: 0x80_0000 });
  for (let at = 0x40_0000; at < 0x60_0000; at += 0x1000) other.set32(at, at);
  other.processors.mapAlias(SPACE, 0x40_3000, 0x1000, other.base + 0x40_9000);
  const readOther = (address: number): number => {
    other.protect();
    other.state.setRegister(3, BigInt(address));
    assertEquals(other.judge(hex("8b 03")), "ok");
    return Number(other.state.register(0));
  };
  assertEquals(readOther(0x40_3000), 0x40_9000);
  assertEquals(readOther(0x40_2000), 0x40_2000);
  assertEquals(readOther(0x40_4000), 0x40_4000);
  assertEquals(readOther(0x5f_f000), 0x5f_f000);
});

Deno.test("a whole chunk is taken away as one, also if it is in pieces", () => {
  bench.processors.unmapAlias(SPACE, START, CHUNK);
  for (const at of [0, 0x8000, CHUNK - 0x1000]) assertEquals(read(START + at), undefined);
  bench.processors.mapAlias(SPACE, START, CHUNK, bench.base + START);
  for (const at of [0, 0x5000, CHUNK - 0x1000]) assertEquals(read(START + at), START + at);
});
