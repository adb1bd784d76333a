/**
 * Bus locks of a guest. With the bus-lock threshold of SVM (APM vol. 2, 15.14.5) they are counted, and the
 * one too many is not executed; with the bus-lock detection of VMX (SDM vol. 3, 26.2) each exits behind its
 * instruction.
 *
 * A locked access is a bus lock if it spans two cache lines or is not to memory (7.3.3). Memory counts as
 * write-back whatever the page tables and MTRRs say of its type, for this processor has no caches. Where
 * the manual lets a processor lock the bus at smaller boundaries than a line's, this one does not. Setting
 * an accessed bit in a descriptor locks nothing: tables that make it misaligned are not looked for.
 *
 * @module
 */
import { Access } from "../memory/walk.ts";
import { Event, S } from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32 } from "../wasm/mod.ts";
import { type Microcode, Unwind } from "./microcode.ts";
import { Cr0, Rflags } from "./registers.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { SvmFeature } from "../svm/features.ts";
import { InterceptWord, Misc3 } from "../svm/intercepts.ts";
import { Control } from "../svm/vmcb.ts";

/** Bytes of a line of the first-level data cache. */
const LINE = 64;

/** VMRUN: the counter comes from the control block at memory address `vmcb`. */
export function startBusLocks(f: FunctionBuilder, vmcb: I32): void {
  const counted = S.svmFeatures.has(f, SvmFeature.BUS_LOCK_THRESHOLD)
    .and(f.load32(vmcb, InterceptWord.MISC3).and(Misc3.BUS_LOCK).ne(0));
  const left = f.load16(vmcb, Control.BUS_LOCK_COUNT).add(1);
  S.busLocks.set(f, counted.select(left, i32(0)));
}

/** #VMEXIT: what is left goes back. */
export function stopBusLocks(f: FunctionBuilder, vmcb: I32): void {
  const left = S.busLocks.get(f);
  f.if(left, () => f.store16(vmcb, left.sub(1), Control.BUS_LOCK_COUNT), undefined, "unlikely");
}

/** Gives the counting function its body. */
export function defineBusLock(mc: Microcode): void {
  mc.module.body(mc.busLock, (f, linear, bytes) => {
    const mmu = S.mmu.get(f);
    // An access that faults locks nothing: #AC is the access's own to raise, #PF comes here.
    const checked = mmu.eq(MmuIndex.USER).and(S.cr0.has(f, Cr0.AM)).and(S.rflags.has(f, Rflags.AC));
    const misaligned = linear.wrap().and(bytes.sub(1)).ne(0);
    f.if(checked.and(misaligned), () => f.return());
    f.call(mc.probeStore, linear, bytes);
    const split = linear.wrap().and(LINE - 1).add(bytes).gtU(LINE);
    const outside = f.call(mc.physical, f.call(mc.translate, linear, Access.WRITE, mmu)).eqz();
    f.if(split.or(outside).eqz(), () => f.return());
    // What runs again must not be counted twice.
    f.call(mc.needAlone);
    f.if(S.nonRoot.get(f), () => {
      S.events.or(f, Event.BUS_LOCK);
      f.return();
    });
    const left = S.busLocks.get(f);
    f.if(left.eq(1), () => {
      f.call(mc.vmexit, SvmExit.BUS_LOCK, 0, 0);
      f.call(mc.unwindTo, Unwind.VMEXIT);
    });
    S.busLocks.set(f, left.sub(1));
  });
}
