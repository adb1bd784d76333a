/**
 * Shadow stacks and branch tracking across a task switch (SDM vol. 3A, 8.2.1 and 8.3; vol. 2, CALL and IRET).
 *
 * What can be refused on behalf of the old task is done in its name; the rest is the new task's own.
 *
 * @module
 */
import { S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  I64T,
  type Variable,
} from "../wasm/mod.ts";
import {
  CetControl,
  cetOn,
  controlOf,
  CpError,
  PL_SSP,
  shadowMmu,
  shadowStackOn,
  trackFar,
} from "./cet.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr4 } from "./registers.ts";
import { acquireShadow, linearRip } from "./shadow_stack.ts";

/** Place of SSP in a 32-bit TSS, and the limit that one needs to have it. */
export const TSS_SSP = 0x68;
/** See {@linkcode TSS_SSP}. */
export const TSS_SSP_LIMIT = 0x6b;

const CS_SELECTOR = segmentAddress(Seg.CS) + SegmentField.SELECTOR;

/** What the old task leaves for the new one. */
export interface TaskShadow {
  /** 1 if the old task's place is to be pushed on the new task's shadow stack. */
  readonly pushes: Variable<I32>;
  /** 1 if the new task's place has been popped, and is to be compared. */
  readonly verifies: Variable<I32>;
  /** SSP: the old task's, to be pushed; or the one popped. */
  readonly ssp: Variable<I64>;
  /** CS, likewise. */
  readonly cs: Variable<I64>;
  /** Linear address of the instruction, likewise. */
  readonly lip: Variable<I64>;
}

/** The old task's part. `nests` for CALL and events, `returns` for IRET, neither for JMP. */
export function leaveTask(
  mc: Microcode,
  f: FunctionBuilder,
  cpl: I32,
  rip: I64,
  nests: I32,
  returns: I32,
): TaskShadow {
  const task: TaskShadow = {
    pushes: f.variable(I32T, 0),
    verifies: f.variable(I32T, 0),
    ssp: f.variable(I64T, 0),
    cs: f.variable(I64T, 0),
    lip: f.variable(I64T, 0),
  };
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => {
      const old = S.cpl.get(f);
      const ssp = S.ssp.get(f);
      f.if(shadowStackOn(f, old), () => {
        const mmu = shadowMmu(old);
        f.if(nests, () => {
          f.if(cpl.ltU(old).and(old.eq(3)), () => PL_SSP[3].set(f, ssp), () => {
            task.pushes.set(1);
            task.ssp.set(ssp);
            task.cs.set(f.load32(0, CS_SELECTOR).extendU());
            task.lip.set(linearRip(f, rip));
          });
        });
        f.if(returns, () => {
          const token = f.variable(I64T, ssp);
          f.if(cpl.eq(old).or(cpl.ltU(3)), () => {
            task.ssp.set(f.call(mc.shadowLoad, ssp, 64, mmu));
            task.lip.set(f.call(mc.shadowLoad, ssp.add(8), 64, mmu));
            task.cs.set(f.call(mc.shadowLoad, ssp.add(16), 64, mmu));
            token.set(ssp.add(24));
            task.verifies.set(1);
          }, () => task.ssp.set(PL_SSP[3].get(f)));
          f.call(mc.releaseShadow, token.get(), mmu);
          S.ssp.set(f, 0);
        });
      });
    },
    undefined,
    "unlikely",
  );
  return task;
}

/**
 * The new task's part, once its segments are loaded. `error` is that of an invalid TSS, `newSsp` what its TSS
 * has, `virtual` 1 if it is one of virtual-8086 mode.
 */
export function enterTask(
  mc: Microcode,
  f: FunctionBuilder,
  task: TaskShadow,
  returns: I32,
  newSsp: I64,
  virtual: I32,
  error: I32,
): void {
  f.if(
    S.cr4.has(f, Cr4.CET),
    () => {
      const cpl = S.cpl.get(f);
      const invalid = (condition: I32): void =>
        f.if(condition, () => f.call(mc.raiseError, Vector.TS, error));
      const either = CetControl.SHADOW_STACK | CetControl.ENDBRANCH;
      invalid(virtual.and(controlOf(f, cpl).has(either)));
      const on = shadowStackOn(f, cpl);
      f.if(returns, () => {
        const violation = (condition: I32): void =>
          f.if(condition, () => f.call(mc.raiseError, Vector.CP, CpError.FAR_RETURN));
        f.if(task.verifies.get(), () => {
          const cs = f.load32(0, CS_SELECTOR).extendU();
          const lip = linearRip(f, S.rip.get(f));
          violation(task.cs.get().ne(cs).or(task.lip.get().ne(lip)));
        });
        f.if(on, () => {
          const ssp = task.ssp.get();
          violation(ssp.has(3).or(ssp.shrU(32).ne(0)));
          S.ssp.set(f, ssp);
        });
      }, () => {
        f.if(on, () => {
          const mmu = shadowMmu(cpl);
          invalid(newSsp.has(7));
          acquireShadow(mc, f, newSsp, i32(0), mmu);
          const next = f.variable(I64T, newSsp);
          f.if(task.pushes.get(), () => {
            const { cs, lip, ssp } = task;
            next.set(
              f.call(mc.pushShadowFrame, newSsp, mmu, cs.get().wrap(), lip.get(), ssp.get()),
            );
          });
          S.ssp.set(f, next.get());
        });
        f.if(cetOn(f), () => trackFar(f, cpl));
        f.call(mc.updateMode);
      });
    },
    undefined,
    "unlikely",
  );
}
