/** What `deno task kvm:compare` is made of, tried where there is a `/dev/kvm`. */
import { assert, assertEquals } from "@std/assert";
import { resetSystemState } from "../../core/mod.ts";
import { hex } from "../silicon/code.ts";
import { SystemCallError } from "./libc.ts";
import { Exit, KvmMachine } from "./machine.ts";
import { type Difference, QUIRKS } from "./quirks.ts";

function open(): KvmMachine | undefined {
  try {
    return new KvmMachine(0x1_0000);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    console.log(`not tried: ${error.message}`);
    return undefined;
  }
}

Deno.test("KVM stops behind every instruction, and gives the state that was put in", () => {
  using machine = open();
  if (machine === undefined) return;
  machine.memory.set(hex("b8 05 00 83 c0 07 8e d8"), 0x1000); // mov ax, 5; add ax, 7; mov ds, ax
  const system = resetSystemState();
  system.cs = { selector: 0, base: 0n, limit: 0xffff, attributes: 0x9b };
  system.idt.limit = 0x3ff;
  const registers = new Array<bigint>(34).fill(0n).with(32, 0x1000n).with(33, 2n);
  machine.load({ registers: registers.with(11, 0x1_2345_6789n), system });
  const seen: [bigint, bigint][] = [];
  for (let k = 0; k < 3; k++) {
    assertEquals(machine.step(), Exit.DEBUG);
    const { registers } = machine.state();
    seen.push([registers[0]!, registers[32]!]);
  }
  assertEquals(seen, [[5n, 0x1003n], [12n, 0x1006n], [12n, 0x1008n]]);
  const { registers: after, system: { cs, ds, idt } } = machine.state();
  assertEquals([after[11], cs, idt], [0x1_2345_6789n, system.cs, system.idt]);
  assertEquals([ds.selector, ds.base], [12, 0xc0n]);
});

Deno.test("what is known of KVM is told from what is not", () => {
  const difference: Difference = {
    field: "RSP",
    ours: "2bf00h",
    theirs: "bf00h",
    mode: "64-bit, ring 0",
    after: "compatibility 16-bit, ring 3",
    name: "iretq",
    text: "iretq",
  };
  const known = (change: Partial<Difference>): boolean =>
    QUIRKS.some(({ applies }) => applies({ ...difference, ...change }));
  assert(known({}));
  assert(!known({ theirs: "bf08h" }));
  assert(!known({ name: "mov", text: "mov esp, eax" }));
  assert(known({ field: "RFLAGS", ours: "3002h", theirs: "2h" }));
  assert(!known({ field: "RFLAGS", ours: "3002h", theirs: "3h" }));
  const cs = (attributes: string) => `8h base 0h limit ffffffffh attributes ${attributes}h`;
  assert(known({ field: "cs", ours: cs("a9b"), theirs: cs("a9a") }));
  assert(!known({ field: "cs", ours: cs("a9b"), theirs: cs("c9a") }));
});
