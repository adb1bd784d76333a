/**
 * Processors with fewer and more bits of physical address than usual: what is reserved in entries of page
 * tables and in CR3 begins at MAXPHYADDR (APM vol. 2, 5.3.2, 5.4.1; SDM vol. 3A, 5.1.4).
 */
import { assertEquals } from "@std/assert";
import { type CpuModel, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

/** mov rax, [rbx]; mov cr3, rax */
const LOAD = hex("48 8b 03");
const TO_CR3 = hex("0f 22 d8");

/** Reads through a page directory whose first entry has a bit set; and a CR3 with it. */
function withBit(bench: Bench, bit: number): readonly [entry: string, cr3: string] {
  const entry = Place.TABLES + 0x2000;
  bench.long(0);
  const plain = bench.get64(entry);
  bench.state.setRegister(0, bench.state.get(S.cr3) | (1n << BigInt(bit)));
  const cr3 = bench.judge(TO_CR3);
  bench.long(0);
  // The third 2 MiB, where neither code nor tables are.
  bench.set64(entry + 16, (plain + 0x40_0000n) | (1n << BigInt(bit)));
  bench.state.setRegister(3, 0x40_0000n);
  return [bench.judge(LOAD), cr3];
}

for (const model of ["max", "max-intel"] as const satisfies readonly CpuModel[]) {
  for (const physicalBits of [36, 39, 46, 52]) {
    Deno.test(`${model}: bits from ${physicalBits} on are reserved in entries and in CR3`, () => {
      const bench = new Bench({ model, physicalBits });
      for (let bit = physicalBits; bit < 52; bit++) {
        assertEquals(withBit(bench, bit), ["#14(9)", "#13(0)"], `bit ${bit}`);
      }
      for (let bit = 36; bit < physicalBits; bit++) {
        bench.long(0);
        bench.state.setRegister(0, bench.state.get(S.cr3) | (1n << BigInt(bit)));
        assertEquals(bench.judge(TO_CR3), "ok", `bit ${bit}`);
      }
    });
  }
}
