/**
 * The parts of a vector instruction, and where its exceptions begin and end.
 *
 * @module
 */
import { S } from "../../state/cpu_state.ts";
import { type FunctionBuilder, type I32, reference } from "../../wasm/mod.ts";
import type { Fn } from "../unit.ts";

/** What functions on vectors are told: how many lanes they are to compute, and how parts join. */
export const Part = {
  /** The number of lanes. */
  LANES: 0xf,
  /** Exceptions of the part before are kept. */
  CONTINUES: 0x10,
  /** Another part follows: nothing is raised yet. */
  MORE: 0x20,
} as const;

/** `()`: the exceptions that lanes have met go to MXCSR; raises #XM for one that is not masked. */
export const finish: Fn<[]> = reference("float.finish", [], undefined);

/** Begins an instruction's exceptions, unless this is not its first part. */
export function begin(f: FunctionBuilder, part: I32): void {
  f.if(part.and(Part.CONTINUES).eqz(), () => S.laneExceptions.set(f, 0));
}

/** Ends them, unless another part follows. */
export function end(f: FunctionBuilder, part: I32): void {
  f.if(part.and(Part.MORE).eqz(), () => f.call(finish));
}
