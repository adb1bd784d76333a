/**
 * Micro-ops that are no instruction: the end of a block, what the decoder found instead of one, and what it
 * puts in front of one.
 *
 * Branches are counted before they are carried out; `microcode/raise.ts` takes it back of one that
 * faults. All branches are predicted rightly, as nothing is executed ahead, but an indirect one that follows a barrier
 * (IBPB), whose target cannot be known.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { S } from "../state/cpu_state.ts";
import { isQuiet } from "../state/disturbed.ts";
import type { FunctionBuilder } from "../wasm/mod.ts";
import type { Semantics } from "./instruction.ts";

/** Names of the pseudo micro-ops; none is a mnemonic. */
export const Pseudo = {
  /** Goes on behind a block that ended without a transfer of control. */
  END: ".end",
  /** The same behind an instruction that may have done anything: events are looked at. */
  BOUNDARY: ".boundary",
  /** Counts the branch behind it. */
  COUNT: ".count",
  /** The same for a jump or call to where a register or memory says. */
  COUNT_INDIRECT: ".count-indirect",
  /** Bytes that are no instruction: #UD. */
  UNDEFINED: ".undefined",
  /** More than 15 bytes, or bytes beyond the limit of CS: #GP(0). */
  TOO_LONG: ".too-long",
  /** Anything where an ENDBRANCH is awaited: #CP, unless the page is one of legacy code. */
  NO_ENDBRANCH: ".no-endbranch",
  /** An instruction that is not implemented: stops the machine. */
  UNIMPLEMENTED: ".unimplemented",
} as const;

function countBranch(f: FunctionBuilder): void {
  S.branches.set(f, S.branches.get(f).add(1));
}

/** Pseudo micro-ops by name. */
export const PSEUDO: Readonly<Record<string, Semantics>> = {
  [Pseudo.END]: { ends: true, emit: (i) => i.branchTaken() },
  [Pseudo.BOUNDARY]: {
    ends: true,
    emit: (i) => {
      i.f.if(isQuiet(i.f), () => i.branchTaken(), undefined, "likely");
      i.leave();
    },
  },
  [Pseudo.COUNT]: { emit: ({ f }) => countBranch(f) },
  [Pseudo.COUNT_INDIRECT]: {
    emit: ({ f }) => {
      countBranch(f);
      S.mispredicted.set(f, S.mispredicted.get(f).add(S.unpredicted.get(f).extendU()));
      S.unpredicted.set(f, 0);
    },
  },
  [Pseudo.UNDEFINED]: { ends: true, emit: (i) => i.raise(Vector.UD) },
  [Pseudo.TOO_LONG]: { ends: true, emit: (i) => i.raiseError(Vector.GP, 0) },
  [Pseudo.NO_ENDBRANCH]: {
    ends: true,
    emit: (i) => {
      i.spill();
      i.f.call(i.mc.missedEndbranch);
      i.f.unreachable();
    },
  },
  [Pseudo.UNIMPLEMENTED]: {
    ends: true,
    emit: (i) => {
      i.spill();
      i.f.call(i.mc.unimplemented, i.recordAddress());
      i.f.unreachable();
    },
  },
};
