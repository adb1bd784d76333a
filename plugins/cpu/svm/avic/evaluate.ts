/**
 * Which interrupt AVIC would deliver, and delivering it (APM vol. 2, 15.29.5 and 16.6).
 *
 * Hardware looks at IRR when VMRUN loads a guest, when a doorbell arrives, and when the guest writes
 * TPR, CR8 or EOI. A write to IRR that nobody announces is not noticed before one of these.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Event, S } from "../../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T } from "../../wasm/mod.ts";
import { ApicOffset } from "./layout.ts";

/** Registers of IRR, ISR and TMR. */
const VECTOR_REGISTERS = 8;

/** Address, in the page at `page`, of the register of the set at `offset` that `vector` is in. */
export function vectorRegister(page: I32, offset: number, vector: I32): I32 {
  return page.add(offset).add(vector.shrU(5).shl(4));
}

/** Bit of `vector` in its register. */
export function vectorBit(vector: I32): I32 {
  return i32(1).shl(vector.and(31));
}

const classOf = (priority: I32): I32 => priority.shrU(4).and(15);

/** Gives the evaluation functions their bodies. */
export function defineEvaluation(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.avicHighest, (f, page, offset) => {
    const k = f.variable(I32T, VECTOR_REGISTERS);
    f.while(() => k.get().ne(0), () => {
      k.set(k.get().sub(1));
      const bits = f.load32(page.add(offset).add(k.get().shl(4)));
      f.if(bits.ne(0), () => f.return(k.get().shl(5).add(i32(31).sub(bits.clz()))));
    });
    f.return(-1);
  });

  module.body(mc.avicEvaluate, (f) => {
    const page = S.avicPage.get(f);
    f.if(page.eqz(), () => f.return());
    const ppr = f.variable(I32T, 0);
    emitPriority(mc, f, page, (value) => ppr.set(value));
    f.store32(page, ppr.get(), ApicOffset.PPR);
    const requested = f.call(mc.avicHighest, page, ApicOffset.IRR);
    const wins = requested.geS(0).and(classOf(requested).gtU(classOf(ppr.get())));
    const rest = S.events.get(f).and(~Event.AVIC);
    S.events.set(f, rest.or(wins.select(i32(Event.AVIC), i32(0))));
  });

  // Called with an interrupt that wins: from IRR to ISR, and on to what is pending behind it.
  module.body(mc.avicTake, (f) => {
    const page = S.avicPage.get(f);
    const vector = f.call(mc.avicHighest, page, ApicOffset.IRR);
    const requests = vectorRegister(page, ApicOffset.IRR, vector);
    f.store32(requests, f.load32(requests).and(vectorBit(vector).xor(-1)));
    const inService = vectorRegister(page, ApicOffset.ISR, vector);
    f.store32(inService, f.load32(inService).or(vectorBit(vector)));
    f.call(mc.avicEvaluate);
    f.return(vector);
  });
}

/**
 * PPR from V_TPR and ISR. It is V_TPR in the VMCB that counts, not the page's TPR: VMRUN does not bring
 * the two together, only a guest's write to one of them does (seen on hardware by the KVM patch
 * "Sync TPR from LAPIC into V_TPR even if AVIC is active"). They differ in the subclass alone otherwise.
 */
function emitPriority(
  mc: Microcode,
  f: FunctionBuilder,
  page: I32,
  set: (ppr: I32) => void,
): void {
  const taskClass = S.intControl.get(f).and(15);
  const task = f.load32(page, ApicOffset.TPR).and(0xff);
  const serviced = f.call(mc.avicHighest, page, ApicOffset.ISR);
  const servicedClass = serviced.ltS(0).select(i32(0), classOf(serviced));
  const current = classOf(task).eq(taskClass).select(task, taskClass.shl(4));
  set(taskClass.geU(servicedClass).select(current, servicedClass.shl(4)));
}
