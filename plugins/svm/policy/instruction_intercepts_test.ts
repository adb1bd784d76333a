import { assertEquals } from "@std/assert";
import { Misc2 } from "../../cpu/mod.ts";
import {
  POLICY_INTERCEPTS,
  recalculatedOnSvmeToggle as policy,
  STGI_CLGI,
  VMLOAD_VMSAVE,
} from "./instruction_intercepts.ts";

/** What becomes of a pair of intercepts: set, clear, or as it was. */
type Outcome = "set" | "clear" | "same";

/** The decision table: SVME, Intel-compatible, virtual VMLOAD, virtual GIF; `undefined` is any. */
const TABLE: readonly (readonly [
  svme: boolean,
  intelCompatible: boolean | undefined,
  virtualVmload: boolean | undefined,
  virtualGif: boolean | undefined,
  vmload: Outcome,
  stgi: Outcome,
])[] = [
  [false, undefined, undefined, undefined, "set", "set"],
  [true, true, undefined, false, "set", "same"],
  [true, true, undefined, true, "set", "clear"],
  [true, false, false, false, "same", "same"],
  [true, false, false, true, "same", "clear"],
  [true, false, true, false, "clear", "same"],
  [true, false, true, true, "clear", "clear"],
];

const BOTH = [false, true];
const among = (value: boolean | undefined): boolean[] => value === undefined ? BOTH : [value];

function apply(current: number, pair: number, outcome: Outcome): number {
  return outcome === "set" ? pair : outcome === "clear" ? 0 : current & pair;
}

Deno.test("every row of the decision table, from every state of the intercepts", () => {
  let cases = 0;
  for (const [svme, compatible, vmload, gif, vmloadOutcome, stgiOutcome] of TABLE) {
    for (const intelCompatible of among(compatible)) {
      for (const virtualVmload of among(vmload)) {
        for (const virtualGif of among(gif)) {
          const input = { svme, intelCompatible, virtualVmload, virtualGif };
          assertEquals(policy.initial(input), POLICY_INTERCEPTS);
          for (let bits = 0; bits < 16; bits++) {
            const current = (bits & 1 ? Misc2.VMLOAD : 0) | (bits & 2 ? Misc2.VMSAVE : 0) |
              (bits & 4 ? Misc2.STGI : 0) | (bits & 8 ? Misc2.CLGI : 0);
            const wanted = apply(current, VMLOAD_VMSAVE, vmloadOutcome) |
              apply(current, STGI_CLGI, stgiOutcome);
            assertEquals(policy.recalculate(current, input), wanted, JSON.stringify(input));
            cases++;
          }
        }
      }
    }
  }
  // Every combination of the four is in exactly one row.
  assertEquals(cases, 16 * 16);
});
