/**
 * What the dispatcher does between blocks: exceptions, traps, interrupts, halts, in the order of
 * APM vol. 2, table 8-8.
 *
 * @module
 */
import { Stop } from "../engine/run.ts";
import { Event, MonitorWait, S } from "../state/cpu_state.ts";
import { InterceptWord, interceptWord, Misc1 } from "../svm/intercepts.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { virtualGifOpen } from "../svm/virtual.ts";
import { IntControl } from "../svm/vmcb.ts";
import { Pin } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { type FunctionBuilder, type I32, i32, I32T, i64 } from "../wasm/mod.ts";
import { chargeDelivery } from "./interrupt.ts";
import { type Microcode, Service } from "./microcode.ts";
import { VmCr } from "./msr.ts";
import { EventFormat, Vector } from "./raise.ts";
import { Cr0, Dr7, Rflags } from "./registers.ts";

/** Error code of the #SX that INIT is redirected to. */
const SX_INIT = 1;

/** Exceptions that make a double fault of another of them: #DE, #TS, #NP, #SS, #GP, #CP. */
const CONTRIBUTORY = (1 << Vector.DE) | (1 << Vector.TS) | (1 << Vector.NP) | (1 << Vector.SS) |
  (1 << Vector.GP) | (1 << Vector.CP);

const contributory = (vector: I32): I32 => i32(CONTRIBUTORY).shrU(vector).and(1);

/**
 * Exceptions in a row without an event window between them, a boundary at which interrupts are looked for:
 * raised by the delivery of one another, or debug traps of a delivery.
 */
function countWindowless(f: FunctionBuilder, mc: Microcode, trap: I32): void {
  const now = f.call(mc.readHostTsc);
  const behindDelivery = trap.and(now.eq(S.windowlessTsc.get(f)));
  const row = S.delivering.get(f).ne(0).or(behindDelivery);
  S.windowless.set(f, row.select(S.windowless.get(f), i32(0)).add(1));
  S.windowlessTsc.set(f, now);
}

/** More of them than any delivery has that comes to an end, be it a shutdown. */
const ENDLESS = 8;

/** 1 if an exception raises itself again and again: each then costs budget, for the run to end. */
function isEndless(f: FunctionBuilder): I32 {
  return S.delivering.get(f).ne(0).and(S.windowless.get(f).gtU(ENDLESS));
}

/** Gives the event functions their bodies. */
export function defineEvents(mc: Microcode): void {
  const { module } = mc;

  /** Takes a #VMEXIT if in guest mode with `bit` of an intercept word set; then has it looked again. */
  const interceptOr = (
    f: FunctionBuilder,
    word: number,
    mask: number | I32,
    code: number | I32,
    otherwise: () => void,
  ): void => {
    const intercepted = S.guestMode.get(f).and(interceptWord(f, word).and(mask).ne(0));
    f.if(intercepted, () => {
      f.call(mc.vmexit, i32(code).extendU(), 0, 0);
      f.return(Service.AGAIN);
    });
    otherwise();
  };

  const shutdown = module.define("shutdown", [], I32T, (f) => {
    S.delivering.set(f, 0);
    f.if(S.nonRoot.get(f), () => {
      f.call(mc.vmxExit, VmxExit.TRIPLE_FAULT, 0);
      f.return(Service.AGAIN);
    });
    interceptOr(f, InterceptWord.MISC1, Misc1.SHUTDOWN, SvmExit.SHUTDOWN, () => {
      S.events.or(f, Event.SHUTDOWN);
      S.stop.set(f, Stop.SHUTDOWN);
    });
    f.return(Service.STOP);
  });

  /** `(trap)`: 1 for a debug trap behind an instruction or a delivery. */
  const exception = module.define("exception", [I32T], I32T, (f, trap) => {
    const event = f.variable(I32T, S.exception.get(f));
    const error = f.variable(I32T, S.exceptionError.get(f));
    // Real mode pushes no error codes; an intercept is still told one (15.12.15).
    f.if(S.cr0.has(f, Cr0.PE).eqz(), () => event.set(event.get().and(~EventFormat.ERROR)));
    const vector = event.get().and(0xff);
    countWindowless(f, mc, trap);
    f.if(S.nonRoot.get(f), () => {
      f.if(f.call(mc.vmxException, event.get(), error.get()), () => f.return(Service.AGAIN));
      f.if(f.call(mc.vmxNotify, trap), () => f.return(Service.AGAIN));
    });
    // A delivery that came to nothing costs as much as one that was completed.
    f.if(isEndless(f), () => chargeDelivery(f, mc), undefined, "unlikely");
    // DR6 and DR7 change before the intercept is looked at (APM vol. 2, 15.12.2). GD is cleared so that
    // the handler can use the debug registers.
    f.if(vector.eq(Vector.DB), () => {
      S.dr6.set(f, S.dr6.get(f).and(~0xf).or(S.exceptionAddress.get(f)));
      S.dr7.set(f, S.dr7.get(f).and(~Dr7.GD));
    });
    // The intercept of the exception itself counts before it is combined with the one at hand. RFLAGS.TF is
    // saved as it is: only a delivery clears it. kvm-unit-tests' svm_exception_test, which enters each guest
    // with the flags of the last exit, takes TF from its intercepted single step into the next guest. By
    // itself it ends in a #DB there; in its list the handler that host_rflags left behind takes that.
    const bit = i32(1).shl(vector);
    const intercepted = S.guestMode.get(f)
      .and(vector.ltU(32))
      .and(interceptWord(f, InterceptWord.EXCEPTIONS).and(bit).ne(0));
    f.if(intercepted, () => {
      const address = vector.eq(Vector.PF).select(S.exceptionAddress.get(f), i64(0));
      f.call(mc.vmexit, vector.add(SvmExit.EXCEPTION).extendU(), error.get().extendU(), address);
      f.return(Service.AGAIN);
    });
    const first = S.delivering.get(f);
    f.if(first.and(EventFormat.TYPE).eq(EventFormat.EXCEPTION).and(first.ne(0)), () => {
      const before = first.and(0xff);
      f.if(before.eq(Vector.DF), () => f.return(f.call(shutdown)));
      const both = contributory(before).and(contributory(vector));
      const afterPage = before.eq(Vector.PF).and(
        contributory(vector).or(vector.eq(Vector.PF)),
      );
      f.if(both.or(afterPage), () => {
        event.set(Vector.DF | EventFormat.EXCEPTION | EventFormat.ERROR | EventFormat.VALID);
        error.set(0);
        f.if(S.nonRoot.get(f), () => {
          // A double fault is not reported as one that came up during a delivery (SDM vol. 3, 28.2.4).
          const delivering = S.delivering.get(f);
          S.delivering.set(f, 0);
          f.if(f.call(mc.vmxException, event.get(), 0), () => f.return(Service.AGAIN));
          S.delivering.set(f, delivering);
        });
        const mask = 1 << Vector.DF;
        interceptOr(
          f,
          InterceptWord.EXCEPTIONS,
          mask,
          SvmExit.EXCEPTION + Vector.DF,
          () => {},
        );
      });
    });
    const taken = event.get().and(0xff);
    f.if(taken.eq(Vector.PF), () => S.cr2.set(f, S.exceptionAddress.get(f)));
    f.call(mc.deliver, event.get(), error.get(), S.rip.get(f));
    f.return(Service.AGAIN);
  });

  module.body(mc.service, (f) => {
    f.if(S.events.has(f, Event.LIMIT), () => {
      S.events.clear(f, Event.LIMIT);
      const limit = S.limit.get(f);
      const held = S.timerHeld.get(f);
      const over = S.budget.get(f).add(held).sub(limit);
      f.if(over.gtS(0), () => {
        const left = S.budget.get(f);
        S.budget.set(f, left.ltS(limit).select(left, limit));
        S.timerHeld.set(f, left.ltS(limit).select(limit.sub(left), i32(0)));
        // What is taken away has not been retired.
        S.budgetStart.set(f, S.budgetStart.get(f).sub(over));
      });
    });
    f.if(S.events.has(f, Event.EXIT), () => {
      S.events.clear(f, Event.EXIT);
      S.stop.set(f, Stop.VMEXIT);
      f.return(Service.STOP);
    });
    f.if(S.events.has(f, Event.EXCEPTION), () => {
      const over = isEndless(f).and(S.budget.get(f).leS(0));
      f.if(over, () => f.return(Service.AGAIN), undefined, "unlikely");
      S.events.clear(f, Event.EXCEPTION);
      f.return(f.call(exception, 0));
    });
    f.if(S.events.has(f, Event.INJECT), () => {
      S.events.clear(f, Event.INJECT);
      const event = S.injection.get(f);
      f.call(mc.deliver, event, S.injectionError.get(f), S.injectionRip.get(f));
      // An NMI that VMRUN injects blocks no others (APM vol. 2, 15.20).
      const isNmi = event.and(EventFormat.TYPE).eq(EventFormat.NMI);
      f.if(isNmi.and(S.guestMode.get(f).eqz()), () => S.nmiBlocked.set(f, 1));
      f.return(Service.AGAIN);
    });
    f.if(S.events.has(f, Event.SHUTDOWN), () => {
      S.stop.set(f, Stop.SHUTDOWN);
      f.return(Service.STOP);
    });
    f.if(S.events.has(f, Event.SHADOW_NEW), () => {
      S.events.set(f, S.events.get(f).and(~Event.SHADOW_NEW).or(Event.SHADOW));
    });
    f.if(S.events.has(f, Event.RESUME_NEW), () => {
      S.events.set(f, S.events.get(f).and(~Event.RESUME_NEW).or(Event.RESUME));
    });
    f.if(S.nonRoot.get(f), () => {
      f.if(f.call(mc.vmxBeforeTraps), () => f.return(Service.AGAIN));
      // Of all events only a start-up IPI counts, and it comes as an exit (SDM vol. 3, 26.2 and 27.7.2).
      f.if(S.events.has(f, Event.WAIT_SIPI), () => {
        S.stop.set(f, Stop.HALT);
        f.return(Service.STOP);
      });
    });
    f.if(S.events.has(f, Event.TRAP).and(S.events.has(f, Event.SHADOW_SS).eqz()), () => {
      S.events.clear(f, Event.TRAP);
      S.exception.set(f, Vector.DB | EventFormat.EXCEPTION | EventFormat.VALID);
      S.exceptionError.set(f, 0);
      S.exceptionAddress.set(f, S.trapBits.get(f).extendU());
      S.trapBits.set(f, 0);
      f.return(f.call(exception, 1));
    });
    // Behind a debug trap of the same instruction, which an exit would lose; the exit loses nothing.
    f.if(S.events.has(f, Event.VMEXIT_TRAP), () => {
      S.events.clear(f, Event.VMEXIT_TRAP);
      const code = S.trapCode.get(f).extendU();
      f.call(mc.vmexit, code, S.trapInfo1.get(f), S.trapInfo2.get(f));
      f.return(Service.AGAIN);
    });
    f.if(S.events.has(f, Event.DOORBELL), () => {
      // To a processor in host mode a doorbell is nothing; VMRUN looks at IRR anyway.
      S.events.clear(f, Event.DOORBELL);
      f.call(mc.avicEvaluate);
    });
    // Ahead of every other interrupt (APM vol. 2, 10.3.1), and no exit to VMX's hosts. It waits while GIF is
    // clear, behind STI and MOV SS as KVM has it, and in SMM until RSM.
    const smi = S.events.has(f, Event.SMI).and(S.smm.get(f).eqz()).and(S.gif.get(f))
      .and(S.events.has(f, Event.SHADOW).eqz());
    f.if(
      smi,
      () => {
        // One that is intercepted stays pending (APM vol. 2, table 15-14); SMMLOCK has none intercepted.
        const mask = S.smmLocked.get(f).select(i32(0), i32(Misc1.SMI));
        interceptOr(f, InterceptWord.MISC1, mask, SvmExit.SMI, () => {
          f.call(mc.enterSmm);
          f.return(Service.AGAIN);
        });
      },
      undefined,
      "unlikely",
    );
    f.if(S.nonRoot.get(f), () => {
      f.if(f.call(mc.vmxAfterTraps), () => f.return(Service.AGAIN));
    });
    // In VMX root operation INIT stays pending (SDM vol. 3, 24.8), and so it does in SMM.
    f.if(
      S.events.has(f, Event.INIT).and(S.gif.get(f)).and(S.vmxOn.get(f).or(S.smm.get(f)).eqz()),
      () => {
        // APM vol. 2, table 15-12.
        interceptOr(f, InterceptWord.MISC1, Misc1.INIT, SvmExit.INIT, () => {
          S.events.clear(f, Event.INIT);
          f.if(S.vmCr.has(f, VmCr.R_INIT), () => {
            const event = EventFormat.EXCEPTION | EventFormat.ERROR | EventFormat.VALID;
            S.exception.set(f, Vector.SX | event);
            S.exceptionError.set(f, SX_INIT);
            f.return(f.call(exception, 0));
          });
          S.stop.set(f, Stop.INIT);
          f.return(Service.STOP);
        });
      },
      undefined,
      "unlikely",
    );
    const open = S.gif.get(f).and(S.events.has(f, Event.SHADOW).eqz());
    const enabled = S.rflags.has(f, Rflags.IF);
    f.if(S.events.has(f, Event.NMI).and(open).and(S.nmiBlocked.get(f).eqz()), () => {
      interceptOr(f, InterceptWord.MISC1, Misc1.NMI, SvmExit.NMI, () => {
        S.events.clear(f, Event.NMI);
        const event = Vector.NMI | EventFormat.NMI | EventFormat.VALID;
        f.call(mc.deliver, event, 0, S.rip.get(f));
        S.nmiBlocked.set(f, 1);
        f.return(Service.AGAIN);
      });
    });
    f.if(
      S.events.has(f, Event.VNMI).and(open).and(virtualGifOpen(f)),
      () => {
        // Both change before the interrupt table is read (APM vol. 2, 15.21.10).
        S.events.clear(f, Event.VNMI);
        const control = S.intControl.get(f).and(~IntControl.V_NMI).or(IntControl.V_NMI_MASK);
        S.intControl.set(f, control);
        const event = Vector.NMI | EventFormat.NMI | EventFormat.VALID;
        f.call(mc.deliver, event, 0, S.rip.get(f));
        f.return(Service.AGAIN);
      },
      undefined,
      "unlikely",
    );
    f.if(S.events.has(f, Event.INTR).and(open), () => {
      // With V_INTR_MASKING the host's IF masks physical interrupts (APM vol. 2, 15.21.1).
      const hostMasks = S.guestMode.get(f)
        .and(S.intControl.has(f, IntControl.V_INTR_MASKING));
      f.if(hostMasks.select(S.hostIf.get(f), enabled), () => {
        interceptOr(f, InterceptWord.MISC1, Misc1.INTR, SvmExit.INTR, () => {
          const vector = f.call(mc.acknowledge);
          // Nobody answers: the line was withdrawn.
          f.if(vector.ltS(0), () => {
            S.events.clear(f, Event.INTR);
            f.return(Service.AGAIN);
          });
          f.call(mc.deliver, vector.or(EventFormat.VALID), 0, S.rip.get(f));
          f.return(Service.AGAIN);
        });
      });
    });
    const virtual = open.and(enabled).and(virtualGifOpen(f));
    f.if(S.events.has(f, Event.AVIC).and(virtual), () => {
      const vector = f.call(mc.avicTake);
      f.call(mc.deliver, vector.or(EventFormat.VALID), 0, S.rip.get(f));
      f.return(Service.AGAIN);
    });
    f.if(S.events.has(f, Event.VINTR).and(virtual), () => {
      const control = S.intControl.get(f);
      const priority = control.shrU(16).and(15);
      const wins = control.and(IntControl.V_IGN_TPR).ne(0).or(priority.gtU(control.and(15)));
      f.if(wins, () => {
        interceptOr(f, InterceptWord.MISC1, Misc1.VINTR, SvmExit.VINTR, () => {
          S.intControl.clear(f, IntControl.V_IRQ);
          S.events.clear(f, Event.VINTR);
          const vector = S.intVector.get(f).and(0xff);
          f.call(mc.deliver, vector.or(EventFormat.VALID), 0, S.rip.get(f));
          f.return(Service.AGAIN);
        });
      });
    });
    f.if(S.events.has(f, Event.HALTED), () => {
      const broken = S.monitorWait.has(f, MonitorWait.MASKED).and(S.events.has(f, Event.INTR));
      f.if(broken, () => {
        S.events.clear(f, Event.HALTED);
        f.return(Service.GO_ON);
      });
      // VMX's preemption timer goes on in a halt, and time passes with it (SDM vol. 3, 26.5.1).
      f.if(S.pinControls.has(f, Pin.PREEMPTION_TIMER), () => {
        S.budget.set(f, 0);
        f.return(Service.GO_ON);
      });
      S.stop.set(f, Stop.HALT);
      f.return(Service.STOP);
    });
    f.return(Service.GO_ON);
  });
}
