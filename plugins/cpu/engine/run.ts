/**
 * The dispatcher: finds the block at RIP, runs it, and looks at events in between.
 *
 * @module
 */
import { canonical } from "../memory/canonical.ts";
import { type Microcode, Service, Unwind } from "../microcode/microcode.ts";
import { Vector } from "../microcode/raise.ts";
import { DebugCtl, Rflags } from "../microcode/registers.ts";
import { Counter, tally } from "../state/counters.ts";
import { DR6_BS, Event, Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { disturbed } from "../state/disturbed.ts";
import { BLOCK_BUCKETS, BUCKETS } from "../state/layout.ts";
import { Pin } from "../vmx/controls.ts";
import { jumpSlot } from "../memory/slots.ts";
import { logFill } from "../memory/tlb.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  I64T,
  type Tag,
} from "../wasm/mod.ts";
import { ALONE_MODE, BlockHeader, MicroOp } from "./block_layout.ts";
import { HANDLER, jumpEntry } from "./links.ts";
import { beginSlice, endSlice } from "./slice.ts";

/** Why the loop returned. */
export const Stop = {
  /** The budget is used up. */
  BUDGET: 1,
  /** The processor is halted, and nothing pending wakes it. */
  HALT: 2,
  /** A #VMEXIT to a hypervisor outside. */
  VMEXIT: 3,
  /** Shutdown: a fault while a double fault was being delivered. */
  SHUTDOWN: 4,
  /** The program outside asked for it. */
  REQUEST: 5,
  /** INIT was taken: the processor is in its state after INIT, and its owner says what follows. */
  INIT: 6,
} as const;
/** One of {@linkcode Stop}. */
export type Stop = typeof Stop[keyof typeof Stop];

const CS_BASE = segmentAddress(Seg.CS) + SegmentField.BASE;
const CS_LIMIT = segmentAddress(Seg.CS) + SegmentField.LIMIT;

/** Number of the bucket for code at memory address `code`; the same as `bucketOf` in blocks.ts. */
function bucket(code: I32): I32 {
  return code.xor(code.shrU(13)).and(BUCKETS - 1).shl(2);
}

const EXCLUSIVE = Event.SHADOW | Event.SINGLE_STEP | Event.ALONE | Event.BREAKPOINTS |
  Event.RESUME | Event.BRANCHES | Event.MTF;

/** Gives the dispatcher's functions their bodies. */
export function defineRun(mc: Microcode, tag: Tag): void {
  const { module } = mc;

  module.body(mc.findJump, (f, rip) => {
    const { hit, block } = jumpEntry(f, rip);
    f.if(hit, () => f.return(block()), undefined, "likely");
    f.return(0);
  });

  module.body(mc.tryFetch, (f, low, high) => {
    const linear = low.extendU().or(high.extendU().shl(32));
    const address = f.variable(I32T, 0);
    f.tryCatch(tag, () => address.set(f.call(mc.fetch, linear)), () => {});
    f.return(address.get());
  });

  /** Looks through the bucket of the code at `code`. */
  const search = (
    f: FunctionBuilder,
    code: I32,
    rip: I64,
    linear: I64,
    csBase: I32,
    csLimit: I32,
    mode: I32,
    found: (block: I32) => void,
  ): void => {
    const block = f.variable(I32T, f.load32(bucket(code), BLOCK_BUCKETS));
    f.while(() => block.get().ne(0), () => {
      const at = block.get();
      const same = f.load32(at, BlockHeader.CODE).eq(code)
        .and(f.load32(at, BlockHeader.MODE).eq(mode))
        .and(f.load64(at, BlockHeader.RIP).eq(rip))
        .and(f.load32(at, BlockHeader.CS_BASE).eq(csBase))
        .and(f.load32(at, BlockHeader.CS_LIMIT).eq(csLimit));
      f.if(same, () => {
        const second = f.load32(at, BlockHeader.CODE2);
        f.if(second.eqz(), () => found(at), () => {
          const next = linear.and(~0xfff).add(0x1000);
          f.if(f.call(mc.fetch, next).eq(second), () => found(at));
        });
      });
      block.set(f.load32(at, BlockHeader.NEXT));
    });
  };

  module.body(mc.findBlock, (f, alone) => {
    const rip = S.rip.get(f);
    const plain = S.mode.get(f);
    const mode = plain.or(alone.select(i32(ALONE_MODE), i32(0)));
    const entry = S.jumpCache.get(f).add(jumpSlot(rip.wrap()));
    f.if(
      f.load64(entry).eq(rip).and(f.load32(entry, 12).eq(mode)),
      () => {
        const block = f.load32(entry, 8);
        // An invalidated block may still be in the cache.
        f.if(f.load32(block, BlockHeader.MODE).eq(mode), () => f.return(block));
      },
      undefined,
      "likely",
    );
    const long = plain.and(Mode.LONG).ne(0);
    const linear = f.variable(I64T, rip);
    const csBase = f.variable(I32T, 0);
    const csLimit = f.variable(I32T, 0);
    f.if(long, () => {
      f.if(canonical(f, rip).eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    }, () => {
      const limit = f.load32(0, CS_LIMIT);
      f.if(rip.gtU(limit.extendU()), () => f.call(mc.raiseError, Vector.GP, 0));
      csBase.set(f.load32(0, CS_BASE));
      f.if(plain.and(Mode.FLAT_CS).eqz(), () => csLimit.set(limit));
      linear.set(rip.add(csBase.get().extendU()).and(0xffff_ffff));
    });
    tally(f, Counter.SEARCHES);
    const code = f.call(mc.fetch, linear.get());
    const enter = (block: I32): void => {
      logFill(f, S.tlbContext.get(f), entry);
      f.store64(entry, rip);
      f.store32(entry, block, 8);
      f.store32(entry, mode, 12);
      f.return(block);
    };
    search(f, code, rip, linear.get(), csBase.get(), csLimit.get(), mode, enter);
    S.unwind.set(f, 0);
    const block = f.call(mc.decode, code, alone);
    f.if(block.ne(0), () => enter(block));
    f.return(0);
  });

  module.body(mc.afterUnwind, (f) => {
    const why = S.unwind.get(f);
    const rip = S.rip.get(f);
    const branches = S.branches.get(f);
    f.call(mc.settle);
    f.if(why.eq(Unwind.LEFT), () => {
      S.rip.set(f, rip);
      S.branches.set(f, branches);
    });
    f.if(why.eq(Unwind.EXCEPTION), () => S.events.or(f, Event.EXCEPTION));
    f.if(why.eq(Unwind.RESTART), () => S.events.or(f, Event.ALONE));
  });

  /** What follows an instruction that ran alone: the end of shadow and RF, and traps. */
  const afterAlone = module.define("afterAlone", [I32T, I32T], undefined, (f, block, exits) => {
    // What has left or entered a guest was no branch in either.
    const transferred = f.variable(I32T, 0);
    f.if(
      S.events.has(f, Event.BRANCHES).and(S.exits.get(f).eq(exits)),
      () => transferred.set(f.call(mc.recordBranch, block)),
      undefined,
      "unlikely",
    );
    f.if(S.events.has(f, Event.SHADOW), () => {
      S.events.clear(f, Event.SHADOW | Event.SHADOW_SS);
    });
    f.if(S.events.has(f, Event.RESUME), () => {
      S.events.clear(f, Event.RESUME);
      f.if(S.events.has(f, Event.RESUME_NEW).eqz(), () => {
        S.rflags.set(f, S.rflags.get(f).and(~Rflags.RF));
      });
    });
    // Behind MOV SS there is no single-step trap, and what it met of breakpoints waits.
    // With DebugCtl.BTF only branches are stepped.
    const unstepped = S.debugCtl.has(f, DebugCtl.BTF).and(transferred.get().eqz());
    const stepped = S.stepping.get(f).and(S.events.has(f, Event.SHADOW_SS).eqz())
      .and(unstepped.eqz());
    S.trapBits.or(f, stepped.select(i32(DR6_BS), i32(0)).or(S.breakpointHits.get(f)));
    f.if(S.events.has(f, Event.MTF), () => S.events.or(f, Event.MTF_PENDING));
    const trap = S.trapBits.get(f).ne(0).select(i32(Event.TRAP), i32(0));
    S.events.set(f, S.events.get(f).and(~Event.ALONE).or(trap));
    S.stepping.set(f, 0);
    S.breakpointHits.set(f, 0);
  });

  /** What follows an instruction that came to no end. */
  const unwound = module.define("unwound", [], undefined, (f) => {
    f.call(mc.afterUnwind);
    S.budget.set(f, S.budget.get(f).add(S.held.get(f)));
    S.held.set(f, 0);
    S.stepping.set(f, 0);
    S.link.set(f, 0);
  });

  module.body(mc.run, (f, budget) => {
    S.budget.set(f, budget);
    S.budgetStart.set(f, budget);
    S.held.set(f, 0);
    S.deliveries.set(f, 0);
    S.sliceHeld.set(f, 0);
    S.sliceGranted.set(f, 0);
    S.timerHeld.set(f, 0);
    f.if(
      S.pinControls.has(f, Pin.PREEMPTION_TIMER),
      () => f.call(mc.splitBudget),
      undefined,
      "unlikely",
    );
    S.link.set(f, 0);
    f.loop((restart) => {
      f.tryCatch(tag, () => {
        f.loop((next) => {
          S.uop.set(f, 0);
          disturbed.set(f, 0);
          tally(f, Counter.DISPATCHES);
          endSlice(f);
          f.if(
            S.events.get(f).ne(0),
            () => {
              const verdict = f.call(mc.service);
              f.if(verdict.eq(Service.STOP), () => f.return(S.stop.get(f)));
              // What was delivered may use the budget up.
              const leaves = S.events.has(f, Event.EXIT).or(S.budget.get(f).gtS(0));
              f.if(verdict.eq(Service.AGAIN), () => {
                S.link.set(f, 0);
                f.branchIf(leaves, next);
              });
              // An exception that waits is of the instruction, and behind its breakpoints. Where the budget
              // is used up nothing more happens: a handler of #DB may have a breakpoint at its start.
              const looksForPoints = S.events.get(f).and(Event.BREAKPOINTS | Event.EXCEPTION)
                .eq(Event.BREAKPOINTS).and(S.budget.get(f).gtS(0));
              f.if(
                looksForPoints,
                () => f.branchIf(f.call(mc.codeBreakpoint), next),
                undefined,
                "unlikely",
              );
            },
            undefined,
            "unlikely",
          );
          const left = S.budget.get(f);
          f.if(
            left.leS(0),
            () => {
              f.if(S.timerHeld.get(f).ne(0), () => {
                // Not the budget's end, but the preemption timer's.
                S.budget.set(f, left.add(S.timerHeld.get(f)));
                S.timerHeld.set(f, 0);
                f.call(mc.splitBudget);
                f.branch(next);
              });
              S.stop.set(f, Stop.BUDGET);
              f.return(Stop.BUDGET);
            },
            undefined,
            "unlikely",
          );

          const alone = f.variable(I32T, S.events.has(f, EXCLUSIVE));
          const block = f.variable(I32T, f.call(mc.findBlock, alone.get()));
          f.if(
            block.get().eqz(),
            () => {
              f.call(mc.afterUnwind);
              f.branch(next);
            },
            undefined,
            "unlikely",
          );
          const count = f.load16(block.get(), BlockHeader.COUNT);
          f.if(
            alone.get().eqz().and(count.gtS(left)),
            () => {
              // Stop exactly where the budget ends: the rest is run one by one.
              alone.set(1);
              block.set(f.call(mc.findBlock, 1));
              f.if(block.get().eqz(), () => {
                f.call(mc.afterUnwind);
                f.branch(next);
              });
            },
            undefined,
            "unlikely",
          );
          f.if(alone.get(), () => {
            S.stepping.set(f, S.events.has(f, Event.SINGLE_STEP));
            S.breakpointHits.set(f, 0);
            S.held.set(f, left.sub(1));
            S.budget.set(f, 0);
          }, () => {
            beginSlice(mc, f, block.get());
            S.budget.set(f, S.budget.get(f).sub(f.load16(block.get(), BlockHeader.COUNT)));
            const link = S.link.get(f);
            f.if(link.ne(0), () => f.store32(link, block.get()));
          }, "unlikely");
          S.link.set(f, 0);
          const first = block.get().add(BlockHeader.BYTES);
          const exits = f.variable(I32T, S.exits.get(f)).get();
          f.callIndirect(HANDLER, f.load16(first, MicroOp.HANDLER), [
            first,
            S.budget.get(f),
            S.flagsKind.get(f),
            S.flagsA.get(f),
            S.flagsB.get(f),
          ]);
          f.if(
            S.faulted.get(f),
            () => {
              S.faulted.set(f, 0);
              f.call(unwound);
              f.branch(next);
            },
            undefined,
            "unlikely",
          );
          f.if(
            alone.get(),
            () => {
              S.budget.set(f, S.budget.get(f).add(S.held.get(f)));
              S.held.set(f, 0);
              f.call(afterAlone, block.get(), exits);
              S.link.set(f, 0);
            },
            undefined,
            "unlikely",
          );
          f.branch(next);
        });
      }, () => {
        f.call(unwound);
        f.branch(restart);
      });
    });
  });
}
