/**
 * Micro-ops that are no instruction: the end of a block, and what the decoder found instead of one.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import type { Semantics } from "./instruction.ts";

/** Names of the pseudo micro-ops; none is a mnemonic. */
export const Pseudo = {
  /** Goes on behind a block that ended without a transfer of control. */
  END: ".end",
  /** The same behind an instruction that the dispatcher has to look at events after. */
  BOUNDARY: ".boundary",
  /** Bytes that are no instruction: #UD. */
  UNDEFINED: ".undefined",
  /** More than 15 bytes, or bytes beyond the limit of CS: #GP(0). */
  TOO_LONG: ".too-long",
  /** An instruction that is not implemented: stops the machine. */
  UNIMPLEMENTED: ".unimplemented",
} as const;

/** Pseudo micro-ops by name. */
export const PSEUDO: Readonly<Record<string, Semantics>> = {
  [Pseudo.END]: { ends: true, emit: (i) => i.branchTaken() },
  [Pseudo.BOUNDARY]: { ends: true, emit: (i) => i.leave() },
  [Pseudo.UNDEFINED]: { ends: true, emit: (i) => i.raise(Vector.UD) },
  [Pseudo.TOO_LONG]: { ends: true, emit: (i) => i.raiseError(Vector.GP, 0) },
  [Pseudo.UNIMPLEMENTED]: {
    ends: true,
    emit: (i) => {
      i.spill();
      i.f.call(i.mc.unimplemented, i.recordAddress());
      i.f.unreachable();
    },
  },
};
