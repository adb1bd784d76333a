/**
 * Whether what was known of the code behind an instruction may be wrong.
 *
 * An instruction that may ask the program outside goes on with the next one without the dispatcher, like
 * any other, where nothing has happened that would keep the dispatcher from going on there: there is no event,
 * and nothing of what blocks are found by has changed.
 *
 * @module
 */
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";
import { S } from "./cpu_state.ts";
import { Field32 } from "./field.ts";
import { DISTURBED } from "./layout.ts";

/**
 * 1 if since the dispatcher last chose a block one was dropped, a translation, or the mode was worked out
 * anew. It is the machine's, not one processor's: who is asked outside may load another.
 */
export const disturbed: Field32 = new Field32(DISTURBED);

/** 1 if the next instruction can follow without a look at anything. */
export function isQuiet(f: FunctionBuilder): I32 {
  return S.events.get(f).or(disturbed.get(f)).eqz();
}
