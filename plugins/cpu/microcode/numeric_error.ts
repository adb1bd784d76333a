/**
 * x87 exceptions told by a pin, as PCs have done since there were coprocessors (CR0.NE clear; APM vol. 2,
 * 3.1.1; SDM vol. 1, 8.7.2 and appendix D).
 *
 * The instruction that waits for the exception to be dealt with asserts FERR#, and the processor freezes in
 * front of it until an interrupt comes. The board's handler asserts IGNNE#, under which instructions go on
 * past the exception, until there is none any more.
 *
 * @module
 */
import { Event, S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1 } from "../svm/intercepts.ts";
import { type Microcode, Unwind } from "./microcode.ts";
import { ripOf } from "./raise.ts";

/** Gives the function its body. */
export function defineNumericError(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.freeze, (f) => {
    const wanted = interceptWord(f, InterceptWord.MISC1).and(Misc1.FERR_FREEZE).ne(0);
    f.if(S.guestMode.get(f).and(wanted), () => {
      f.call(mc.vmexit, SvmExit.FERR_FREEZE, 0, 0);
      f.call(mc.unwindTo, Unwind.VMEXIT);
    });
    f.if(f.call(mc.numericError).eqz(), () => f.call(mc.unimplemented, S.uop.get(f)));
    S.rip.set(f, ripOf(f, S.uop.get(f)));
    S.monitorWait.set(f, 0);
    S.events.or(f, Event.HALTED);
    f.call(mc.unwindTo, Unwind.LEFT);
  });
}
