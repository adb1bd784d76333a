/**
 * What a processor without a feature does with its instructions: #UD, or whatever older processors made
 * of the same bytes; and with the bits of CR4 that come with it: #GP.
 */
import { assertEquals } from "@std/assert";
import { Cr4, type IsaFeatureName, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

/** Features, and instructions that are undefined without them. */
const INSTRUCTIONS: readonly (readonly [IsaFeatureName, string])[] = [
  ["popcnt", "f3 0f b8 c1"],
  ["movbe", "0f 38 f0 03"],
  ["movbe", "0f 38 f1 03"],
  ["adx", "66 0f 38 f6 c1"],
  ["adx", "f3 0f 38 f6 c1"],
  ["smap", "0f 01 ca"],
  ["smap", "0f 01 cb"],
  ["rdtscp", "0f 01 f9"],
  ["lahf_lm", "9f"],
  ["lahf_lm", "9e"],
  ["fsgsbase", "f3 48 0f ae c0"],
  ["bmi1", "c4 e2 70 f2 c1"],
  ["bmi2", "c4 e2 73 f6 c1"],
];

/** Features, and the bit of CR4 that exists with them. */
const CONTROL: readonly (readonly [IsaFeatureName, number])[] = [
  ["smap", Cr4.SMAP],
  ["smep", Cr4.SMEP],
  ["umip", Cr4.UMIP],
  ["fsgsbase", Cr4.FSGSBASE],
  ["pcid", Cr4.PCIDE],
  ["xsave", Cr4.OSXSAVE],
];

/** What `code` comes to on a processor that has the feature or not. */
function judge(bench: Bench, code: string, prepare = (): void => {}): string {
  bench.long();
  bench.state.set(S.cr4, bench.state.get(S.cr4) | BigInt(Cr4.FSGSBASE));
  bench.state.setRegister(1, 0x10n);
  bench.state.setRegister(3, BigInt(Place.DATA));
  prepare();
  return bench.judge(hex(code));
}

for (const feature of new Set([...INSTRUCTIONS, ...CONTROL].map(([name]) => name))) {
  Deno.test(`without ${feature} its instructions are undefined and its bit of CR4 is reserved`, () => {
    for (const on of [true, false]) {
      const bench = new Bench({ model: "max", features: { [feature]: on } });
      for (const [name, code] of INSTRUCTIONS) {
        if (name === feature) assertEquals(judge(bench, code), on ? "ok" : "#6", code);
      }
      for (const [name, bit] of CONTROL) {
        if (name !== feature) continue;
        const value = (): void => bench.state.setRegister(0, BigInt(Cr4.PAE | bit));
        assertEquals(judge(bench, "0f 22 e0", value), on ? "ok" : "#13(0)");
      }
    }
  });
}

Deno.test("without their features TZCNT is BSF and LZCNT is BSR", () => {
  for (
    const [feature, code, with_, without] of [
      ["abm", "f3 0f bd c1", 27n, 4n],
      ["bmi1", "f3 0f bc c1", 4n, 4n],
    ] as const
  ) {
    for (const on of [true, false]) {
      const bench = new Bench({ model: "max", features: { [feature]: on } });
      assertEquals(judge(bench, code), "ok");
      assertEquals(bench.state.register(0), on ? with_ : without);
      // Of 0 the older instructions set ZF and leave the register, the newer ones set CF.
      assertEquals(judge(bench, code, () => bench.state.setRegister(1, 0n)), "ok");
      assertEquals(bench.flags & 0x41, on ? 1 : 0x40);
    }
  }
});
