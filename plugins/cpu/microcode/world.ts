/**
 * What follows from a guest's state, left in force while its host is the program outside.
 *
 * Such a host executes nothing between an exit and the next entry, so the mode word, the TLB context and what goes
 * with them stay the guest's. Where the next entry is into the same guest, and nothing has changed that they
 * follow from, they need not be worked out again. Whatever works them out or chooses a context in between
 * says that they are no longer known.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, type I64, i64 } from "../wasm/mod.ts";
import { Cr4, DebugCtl, Dr7, Efer, Rflags } from "./registers.ts";

/** Bits of RFLAGS that the mode follows from; EFER.LMA, which is kept with them, is none of RFLAGS's. */
const MODAL = Rflags.TF | Rflags.VM | Rflags.AC;
/** With these more than state that is switched decides. */
const INTRICATE = Cr4.CET | Cr4.PKE | Cr4.PKS;

/** What the mode follows from that need not be as it was where the registers were last saved. */
function modal(f: FunctionBuilder): I64 {
  return S.rflags.get(f).and(MODAL).or(S.efer.get(f).and(Efer.LMA));
}

/** An exit, with the state still that of guest `key`: it is what is in force. */
export function keepInForce(f: FunctionBuilder, key: I64): void {
  const simple = S.rflags.has(f, Rflags.TF)
    .or(S.dr7.has(f, Dr7.ENABLES))
    .or(S.debugCtl.has(f, DebugCtl.LBR | DebugCtl.BTF))
    .or(S.cr4.has(f, INTRICATE))
    .eqz();
  S.inForce.set(f, simple.select(key, i64(0)));
  S.inForceModal.set(f, modal(f));
  S.inForceXcr0.set(f, S.xcr0.get(f));
}

/**
 * An entry that has loaded the state of guest `key`, of which control registers, segments and privilege are as they
 * were when it left: 1 if what is in force is right.
 */
export function isInForce(f: FunctionBuilder, key: I64): I32 {
  return S.inForce.get(f).eq(key)
    .and(S.inForceModal.get(f).eq(modal(f)))
    .and(S.inForceXcr0.get(f).eq(S.xcr0.get(f)))
    .and(S.dr7.has(f, Dr7.ENABLES).eqz())
    .and(S.debugCtl.has(f, DebugCtl.LBR | DebugCtl.BTF).eqz());
}

/** Nothing is known to be in force. */
export function forgetInForce(f: FunctionBuilder): void {
  S.inForce.set(f, 0);
}
