/**
 * Slices: the dispatcher regains control every so many instructions, whatever the budget.
 *
 * Blocks that are linked run on without the dispatcher for as long as the budget lasts. Three things need it
 * more often: finding out where the processor spends its time, for which one look per slice is a fair
 * sample; compiled loops, which V8 replaces by faster code only when they are entered anew; and windows into
 * memory (`memory/windows.ts`), which are moved to where they are missed. So the dispatcher hands the budget
 * out in slices and holds back the rest. A guest cannot tell: instructions are charged to the budget as
 * ever, and the end of a slice is not an event.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T } from "../wasm/mod.ts";
import { MAX_BLOCK_INSTRUCTIONS, MAX_REGION_INSTRUCTIONS } from "./block_layout.ts";

/** Puts what was held back to the budget again, and counts what has been used of the slice. */
export function endSlice(f: FunctionBuilder): void {
  const granted = S.sliceGranted.get(f);
  f.if(granted.ne(0), () => {
    const left = S.budget.get(f);
    S.sliceLeft.set(f, S.sliceLeft.get(f).sub(granted).add(left));
    S.budget.set(f, left.add(S.sliceHeld.get(f)));
    S.sliceHeld.set(f, 0);
    S.sliceGranted.set(f, 0);
  });
}

/** Hands out what is left of the slice; at its end, tells where the processor is: at `block`. */
export function beginSlice(mc: Microcode, f: FunctionBuilder, block: I32): void {
  const slice = f.variable(I32T, S.sliceLeft.get(f));
  // The block at hand must fit in, and a compiled region all the way to where it looks at the budget again.
  f.if(
    slice.get().ltS(MAX_BLOCK_INSTRUCTIONS + MAX_REGION_INSTRUCTIONS),
    () => {
      slice.set(f.call(mc.sample, block));
      S.sliceLeft.set(f, slice.get());
      f.call(mc.moveWindows, slice.get());
    },
    undefined,
    "unlikely",
  );
  const budget = S.budget.get(f);
  const granted = slice.get().ltS(budget).select(slice.get(), budget);
  S.sliceGranted.set(f, granted);
  S.sliceHeld.set(f, budget.sub(granted));
  S.budget.set(f, granted);
}
