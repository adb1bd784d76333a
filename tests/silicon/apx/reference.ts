/**
 * An evaluator for APX programs: what each instruction does, in plain arithmetic on unbounded integers.
 * Written from the manuals' operation sections; it shares nothing with the processor.
 *
 * @module
 */
import { parse } from "./parse.ts";
import { common, oneByte, twoByte } from "./reference/legacy.ts";
import { promoted } from "./reference/promoted.ts";
import { Fault, type ReferenceState, Step, type Verdict } from "./reference/step.ts";
import { threeOperands } from "./reference/three_operands.ts";

export { holds, type ReferenceState, type Verdict } from "./reference/step.ts";

/**
 * Carries out the instruction at the start of `bytes`. `undefined` if it is none that this evaluator
 * knows. A fault leaves the state as it was, which the caller has a copy of.
 */
export function evaluate(bytes: readonly number[], state: ReferenceState): Verdict | undefined {
  const p = parse(bytes);
  if (p === undefined) return undefined;
  const step = new Step(state, p);
  const rip = state.rip;
  try {
    let known: boolean;
    if (p.kind === "rex2") {
      known = p.map === 0 ? common(step) || oneByte(step) : twoByte(step);
    } else if (p.kind === "evex" && p.map === 4) known = promoted(step) || common(step);
    else known = threeOperands(step);
    if (!known) return undefined;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { fault: error.message, undefinedFlags: 0 };
  }
  if (state.rip === rip) state.rip = rip + BigInt(p.length);
  return { undefinedFlags: step.undefinedFlags };
}
