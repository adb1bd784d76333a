/**
 * What of system management mode is in no register that software sees, to be saved with a vCPU.
 *
 * @module
 */
import { Event, S } from "../state/cpu_state.ts";
import type { StateView } from "../state/view.ts";

/** Bytes that an SMI puts aside inside the processor. */
export const SMM_ASIDE_BYTES = 256;

/** System management mode of a processor; plain data. */
export interface SmmState {
  /** Whether it is in SMM. */
  readonly inside: boolean;
  /** Whether an SMI is latched. */
  readonly pending: boolean;
  /** SMBASE. */
  readonly base: number;
  /** HWCR.SMMLOCK. */
  readonly locked: boolean;
  /** Whether the last SMI interrupted a halt. */
  readonly halted: boolean;
  /** RFLAGS at the last SMI. */
  readonly flags: bigint;
  /** What it has put aside, in the processor's own order. */
  readonly aside: Uint8Array;
}

/** Reads it from the state of the processor that is loaded, which is in `bytes`. */
export function readSmmState(state: StateView, bytes: Uint8Array): SmmState {
  return {
    inside: state.get32(S.smm) !== 0,
    pending: (state.get32(S.events) & Event.SMI) !== 0,
    base: state.get32(S.smbase) >>> 0,
    locked: state.get32(S.smmLocked) !== 0,
    halted: state.get32(S.smmHalted) !== 0,
    flags: state.get(S.smmFlags),
    aside: bytes.slice(S.smmAside, S.smmAside + SMM_ASIDE_BYTES),
  };
}

/** Writes it. */
export function writeSmmState(state: StateView, bytes: Uint8Array, value: SmmState): void {
  state.set32(S.smm, Number(value.inside));
  state.set32(S.smbase, value.base | 0);
  state.set32(S.smmLocked, Number(value.locked));
  state.set32(S.smmHalted, Number(value.halted));
  state.set(S.smmFlags, value.flags);
  bytes.set(value.aside, S.smmAside);
  const events = state.get32(S.events) & ~Event.SMI;
  state.set32(S.events, events | (value.pending ? Event.SMI : 0));
  state.set32(S.physicalMap, state.get32(value.inside ? S.smmMap : S.hostMap));
}
