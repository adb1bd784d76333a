/**
 * System management mode.
 *
 * @module
 */
import { I32T } from "../../wasm/mod.ts";
import type { Fn, I, Signatures } from "./signature.ts";

/** What enters and leaves system management mode (smm/unit.ts). */
export interface SmmRoutines {
  /** `()`: takes an SMI. */
  readonly enterSmm: Fn<[]>;
  /** `()`: RSM. Where the save area holds what cannot be, the processor shuts down. */
  readonly leaveSmm: Fn<[]>;
  /** `(bits)`: a write of SMM_CTL; 1, or 0 for #GP. */
  readonly controlSmm: Fn<[I], I>;
}

/** Their signatures. */
export const SMM: Signatures<SmmRoutines> = {
  enterSmm: [[], undefined],
  leaveSmm: [[], undefined],
  controlSmm: [[I32T], I32T],
};
