/**
 * Virtual interrupts (SDM vol. 3, 30.1–30.2): TPR, PPR, EOI and self-IPI virtualization, evaluation and
 * delivery. RVI and SVI are live in the VMCS field of the guest's interrupt status.
 *
 * Evaluation takes place at VM entry, for TPR, EOI and self-IPI virtualization, and when posted interrupts
 * are processed; a bit of VIRR that nothing announces is not noticed.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Event, S } from "../../state/cpu_state.ts";
import { vectorBit, vectorRegister } from "../../svm/avic/evaluate.ts";
import { ApicOffset } from "../../svm/avic/layout.ts";
import { type FunctionBuilder, type I32, i32 } from "../../wasm/mod.ts";
import { Primary, Secondary } from "../controls.ts";
import { VmxExit } from "../exit_reasons.ts";
import { fieldOffset, readField32, Vmcs, writeField32 } from "../fields.ts";

const SVI_SHIFT = 8;

/** Requesting virtual interrupt: bits 7:0 of the guest's interrupt status. */
function rvi(f: FunctionBuilder): I32 {
  return readField32(f, Vmcs.GUEST_INTERRUPT_STATUS).and(0xff);
}

/** Servicing virtual interrupt: bits 15:8. */
function svi(f: FunctionBuilder): I32 {
  return readField32(f, Vmcs.GUEST_INTERRUPT_STATUS).shrU(SVI_SHIFT).and(0xff);
}

function setStatus(f: FunctionBuilder, requesting: I32, servicing: I32): void {
  writeField32(f, Vmcs.GUEST_INTERRUPT_STATUS, requesting.or(servicing.shl(SVI_SHIFT)));
}

/** The highest vector of a set in the virtual-APIC page; 0 for none. */
function highest(f: FunctionBuilder, mc: Microcode, offset: number): I32 {
  const vector = f.call(mc.avicHighest, S.vapic.get(f), offset);
  return vector.ltS(0).select(i32(0), vector);
}

/** 1 if virtual-interrupt delivery is on. */
export function deliversVirtual(f: FunctionBuilder): I32 {
  return S.secondaryControls.has(f, Secondary.VIRTUAL_INTERRUPTS);
}

/** Has a VM exit taken behind the instruction at hand. */
export function exitBehind(f: FunctionBuilder, reason: number, qualification: I32): void {
  S.trapCode.set(f, reason);
  S.trapInfo1.set(f, qualification.extendU());
  S.events.or(f, Event.VMEXIT_TRAP);
}

/** Gives the functions of virtual interrupts their bodies. */
export function defineVirtualInterrupts(mc: Microcode): void {
  const { module } = mc;

  const updatePpr = module.define("vapicPpr", [], undefined, (f) => {
    const page = S.vapic.get(f);
    const tpr = f.load32(page, ApicOffset.TPR).and(0xff);
    const servicing = svi(f).and(0xf0);
    const ppr = tpr.and(0xf0).geU(servicing).select(tpr, servicing);
    f.store32(page, ppr, ApicOffset.PPR);
  });

  const evaluate = module.define("vapicEvaluate", [], undefined, (f) => {
    const ppr = f.load32(S.vapic.get(f), ApicOffset.PPR).and(0xf0);
    const wins = rvi(f).and(0xf0).gtU(ppr)
      .and(S.primaryControls.has(f, Primary.INTERRUPT_WINDOW).eqz());
    const rest = S.events.get(f).and(~Event.VMX_INTERRUPT);
    S.events.set(f, rest.or(wins.select(i32(Event.VMX_INTERRUPT), i32(0))));
  });

  // Behind an entry, and whenever VTPR has been written.
  module.body(mc.vapicTpr, (f) => {
    f.if(deliversVirtual(f), () => {
      f.call(updatePpr);
      f.call(evaluate);
    }, () => {
      const threshold = readField32(f, Vmcs.TPR_THRESHOLD).and(15);
      const priority = f.load32(S.vapic.get(f), ApicOffset.TPR).shrU(4).and(15);
      f.if(threshold.gtU(priority), () => exitBehind(f, VmxExit.TPR_BELOW_THRESHOLD, i32(0)));
    });
  });

  module.body(mc.vapicEoi, (f) => {
    const page = S.vapic.get(f);
    const vector = svi(f);
    const at = vectorRegister(page, ApicOffset.ISR, vector);
    f.store32(at, f.load32(at).and(vectorBit(vector).xor(-1)));
    setStatus(f, rvi(f), highest(f, mc, ApicOffset.ISR));
    f.call(updatePpr);
    // The four bitmaps stand in a row, as the fields do.
    const bitmaps = S.vmcsData + fieldOffset(Vmcs.EOI_EXIT_BITMAP0);
    const exits = f.load32(vector.shrU(5).shl(2), bitmaps).and(vectorBit(vector));
    f.if(
      exits,
      () => exitBehind(f, VmxExit.VIRTUALIZED_EOI, vector),
      () => f.call(evaluate),
    );
  });

  module.body(mc.vapicRequest, (f, vector) => {
    const at = vectorRegister(S.vapic.get(f), ApicOffset.IRR, vector);
    f.store32(at, f.load32(at).or(vectorBit(vector)));
    const old = rvi(f);
    setStatus(f, old.gtU(vector).select(old, vector), svi(f));
    f.call(evaluate);
  });

  module.body(mc.vapicTake, (f) => {
    const page = S.vapic.get(f);
    const vector = rvi(f);
    const service = vectorRegister(page, ApicOffset.ISR, vector);
    f.store32(service, f.load32(service).or(vectorBit(vector)));
    f.store32(page, vector.and(0xf0), ApicOffset.PPR);
    const request = vectorRegister(page, ApicOffset.IRR, vector);
    f.store32(request, f.load32(request).and(vectorBit(vector).xor(-1)));
    setStatus(f, highest(f, mc, ApicOffset.IRR), vector);
    S.events.clear(f, Event.VMX_INTERRUPT);
    f.return(vector);
  });
}
