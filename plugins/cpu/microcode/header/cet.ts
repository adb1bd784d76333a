/**
 * Shadow stacks and indirect-branch tracking.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What control-flow enforcement consists of. */
export interface CetRoutines {
  /** `(linear, bits, mmuIndex)`: load from a shadow stack. */
  readonly shadowLoad: Fn<[L, I, I], L>;
  /** `(linear, bits, value, mmuIndex)`: store to a shadow stack. */
  readonly shadowStore: Fn<[L, I, L, I]>;
  /** `(bits, value)`: near CALL: pushes a return address on the shadow stack. */
  readonly shadowPush: Fn<[I, L]>;
  /** `(bits, target)`: near RET: #CP unless `target` is on top of the shadow stack; drops it. */
  readonly shadowPop: Fn<[I, L]>;
  /**
   * `(cpl, how, ssp, cs, lip)`: a far call or an event enters code at privilege `cpl`, from `cs` and linear
   * address `lip`. `how` is of `ShadowEntry`; `ssp` is where the other stack begins, if there is one. The
   * last thing that may fault of what enters.
   */
  readonly enterShadow: Fn<[I, I, L, I, L]>;
  /**
   * `(cs, lip, how)`: RETF or IRET goes back to `cs` and linear address `lip`. `how` is of `ShadowReturn`.
   * The last thing that may fault of what returns.
   */
  readonly leaveShadow: Fn<[I, L, I]>;
  /** `()`: IRET to virtual-8086 mode gives the shadow stack of CPL 0 back. */
  readonly leaveShadowToVirtual: Fn<[]>;
  /** `(at, mmuIndex)`: clears the busy bit of the token at `at`, if it is one; 1 if it was. */
  readonly releaseShadow: Fn<[L, I], I>;
  /** `(ssp, mmuIndex, cs, lip, old)`: pushes a far return address on a shadow stack; the new pointer. */
  readonly pushShadowFrame: Fn<[L, I, I, L, L], L>;
  /** `()`: an instruction that is no ENDBRANCH stands where one is awaited. Does not return. */
  readonly missedEndbranch: Fn<[]>;
  /** `(index)`: reads an MSR of control-flow enforcement to `S.exchange`; 0 if there is none of that index. */
  readonly readCetMsr: Fn<[I], I>;
  /** `(index)`: writes one from `S.exchange`; 0 if it cannot be written. */
  readonly writeCetMsr: Fn<[I], I>;
}

/** Their signatures. */
export const CET: Signatures<CetRoutines> = {
  shadowLoad: [[I64T, I32T, I32T], I64T],
  shadowStore: [[I64T, I32T, I64T, I32T], undefined],
  shadowPush: [[I32T, I64T], undefined],
  shadowPop: [[I32T, I64T], undefined],
  enterShadow: [[I32T, I32T, I64T, I32T, I64T], undefined],
  leaveShadow: [[I32T, I64T, I32T], undefined],
  leaveShadowToVirtual: [[], undefined],
  releaseShadow: [[I64T, I32T], I32T],
  pushShadowFrame: [[I64T, I32T, I32T, I64T, I64T], I64T],
  missedEndbranch: [[], undefined],
  readCetMsr: [[I32T], I32T],
  writeCetMsr: [[I32T], I32T],
};
