/**
 * The VMX-preemption timer (SDM vol. 3, 26.5.1): counts down in non-root operation at the rate of one tick
 * for every 2^{@linkcode TIMER_RATE} of the time-stamp counter.
 *
 * As time is the count of retired instructions, its expiry is a place in the budget of a run: the part of
 * the budget behind it is held back, and when the part before it is used up the timer has expired.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Event, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I64, i64 } from "../wasm/mod.ts";
import { endSlice } from "../engine/slice.ts";
import { TIMER_RATE } from "./capabilities.ts";
import { ExitControl, Pin } from "./controls.ts";
import { readField32, Vmcs, writeField } from "./fields.ts";

/** Ticks of the time-stamp counter, without a guest's offset, until the timer expires. */
function remaining(f: FunctionBuilder, mc: Microcode): I64 {
  return S.timerDeadline.get(f).sub(f.call(mc.readHostTsc));
}

/** Gives the timer's functions their bodies. */
export function defineTimer(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.startTimer, (f) => {
    f.if(S.pinControls.has(f, Pin.PREEMPTION_TIMER).eqz(), () => f.return());
    const ticks = readField32(f, Vmcs.PREEMPTION_TIMER).extendU();
    const now = f.call(mc.readHostTsc).shrU(TIMER_RATE);
    S.timerDeadline.set(f, now.add(ticks).shl(TIMER_RATE));
    f.call(mc.splitBudget);
  });

  module.body(mc.splitBudget, (f) => {
    const left = remaining(f, mc);
    f.if(left.leS(0), () => {
      S.events.or(f, Event.VMX_TIMER);
      f.return();
    });
    endSlice(f);
    const budget = S.budget.get(f);
    f.if(left.ltS(budget.extendS()), () => {
      S.timerHeld.set(f, budget.sub(left.wrap()));
      S.budget.set(f, left.wrap());
    });
  });
}

/** Saves what is left of the timer, where the exit controls ask for it. */
export function saveTimer(f: FunctionBuilder, mc: Microcode): void {
  f.if(readField32(f, Vmcs.EXIT_CONTROLS).and(ExitControl.SAVE_TIMER).ne(0), () => {
    const now = f.call(mc.readHostTsc).shrU(TIMER_RATE);
    const left = S.timerDeadline.get(f).shrU(TIMER_RATE).sub(now);
    writeField(f, Vmcs.PREEMPTION_TIMER, left.gtS(0).select(left, i64(0)));
  });
}
