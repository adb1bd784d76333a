/**
 * What a guest has of its own where the processor gives it to it: a GIF (APM vol. 2, 15.33.2), VMLOAD and
 * VMSAVE of guest physical addresses (15.33.1), NMIs (15.21.10).
 *
 * @module
 */
import { Efer } from "../microcode/registers.ts";
import { Event, S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32 } from "../wasm/mod.ts";
import { SvmFeature } from "./features.ts";
import { IntControl, VirtExt } from "./vmcb.ts";

/** 1 if STGI and CLGI work on V_GIF: in a guest for which that is enabled. */
export function hasVirtualGif(f: FunctionBuilder): I32 {
  return S.guestMode.get(f).and(S.intControl.has(f, IntControl.V_GIF_ENABLE))
    .and(S.svmFeatures.has(f, SvmFeature.VGIF));
}

/** 1 unless V_GIF holds virtual interrupts back. Physical ones do not ask it. */
export function virtualGifOpen(f: FunctionBuilder): I32 {
  return hasVirtualGif(f).eqz().or(S.intControl.has(f, IntControl.V_GIF));
}

/** 1 in a guest for which virtual VMLOAD and VMSAVE are enabled, whether or not they can be used. */
function virtualVmloadEnabled(f: FunctionBuilder): I32 {
  return S.guestMode.get(f).and(S.virtExt.has(f, VirtExt.VMLOAD_VMSAVE))
    .and(S.svmFeatures.has(f, SvmFeature.VIRTUAL_VMSAVE_VMLOAD));
}

/** 1 if the host can have them: it is in long mode and uses nested paging. */
function virtualVmloadPossible(f: FunctionBuilder): I32 {
  return S.nestedPaging.get(f).and(S.hostEfer.has(f, Efer.LMA));
}

/** 1 if rAX of VMLOAD and VMSAVE is a guest physical address. */
export function hasVirtualVmload(f: FunctionBuilder): I32 {
  return virtualVmloadEnabled(f).and(virtualVmloadPossible(f));
}

/** 1 if VMLOAD and VMSAVE exit though they are not intercepted, because they cannot be had. */
export function virtualVmloadExits(f: FunctionBuilder): I32 {
  return virtualVmloadEnabled(f).and(virtualVmloadPossible(f).eqz());
}

/** 1 in a guest for which virtual NMIs are enabled. */
export function hasVirtualNmi(f: FunctionBuilder): I32 {
  return S.guestMode.get(f).and(S.intControl.has(f, IntControl.V_NMI_ENABLE))
    .and(S.svmFeatures.has(f, SvmFeature.VNMI));
}

/** Marks a virtual NMI for the dispatcher if one is pending and none is being handled. */
export function offerVirtualNmi(f: FunctionBuilder): void {
  const pending = S.intControl.get(f).and(IntControl.V_NMI | IntControl.V_NMI_MASK);
  f.if(hasVirtualNmi(f).and(pending.eq(IntControl.V_NMI)), () => S.events.or(f, Event.VNMI));
}

/**
 * IRET: the next NMI may come. Where NMIs are virtual, only those are meant: the manual has IRET clear
 * V_NMI_MASK and says nothing of physical NMIs, which the guest's handler did not get.
 */
export function unblockNmis(f: FunctionBuilder): void {
  f.if(hasVirtualNmi(f), () => {
    S.intControl.clear(f, IntControl.V_NMI_MASK);
    offerVirtualNmi(f);
  }, () => S.nmiBlocked.set(f, 0));
}
