/**
 * Raising exceptions: recorded in the state, then the stack is unwound to the dispatcher, which
 * finds out where the instruction began and delivers.
 *
 * @module
 */
import { dropWindows } from "../memory/windows.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64, type Tag } from "../wasm/mod.ts";
import { BlockHeader, MICRO_OP_BYTES, MicroOp, Serviced } from "../engine/block_layout.ts";
import { type Microcode, Unwind } from "./microcode.ts";

/** Exception vectors (APM vol. 2, 8.2). */
export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XF: 19,
  CP: 21,
  SX: 30,
} as const;

/** Fields of the EVENTINJ format (APM vol. 2, 15.20). */
export const EventFormat = {
  /** Type 3: exception, in bits 10:8. */
  EXCEPTION: 0x300,
  /** Type 2: NMI. */
  NMI: 0x200,
  /** Type 4: software interrupt. */
  SOFTWARE: 0x400,
  /** Type 0: external interrupt. */
  EXTERNAL: 0,
  /** Mask of the type. */
  TYPE: 0x700,
  /** An error code is to be pushed. */
  ERROR: 0x800,
  /** Valid. */
  VALID: 0x8000_0000,
} as const;

/** Memory address of the header of the block that micro-op `uop` belongs to. */
export function blockOf(f: FunctionBuilder, uop: I32): I32 {
  return uop.sub(f.load8(uop, MicroOp.INDEX).mul(MICRO_OP_BYTES)).sub(BlockHeader.BYTES);
}

/** RIP of the instruction that micro-op `uop` belongs to. */
export function ripOf(f: FunctionBuilder, uop: I32): I64 {
  return f.load64(blockOf(f, uop), BlockHeader.RIP).add(f.load16(uop, MicroOp.OFFSET).extendU());
}

/** RIP behind the instruction at hand. */
export function nextRipOf(f: FunctionBuilder): I64 {
  const uop = S.uop.get(f);
  return ripOf(f, uop).add(f.load8(uop, MicroOp.LENGTH).extendU());
}

/** Gives the raising functions their bodies. */
export function defineRaise(mc: Microcode, tag: Tag): void {
  const { module } = mc;

  module.body(mc.unwindTo, (f, kind) => {
    S.stackAccess.set(f, 0);
    S.unwind.set(f, kind);
    f.throw(tag);
  });

  const record = (f: FunctionBuilder, event: I32, error: I32 | number) => {
    S.exception.set(f, event);
    S.exceptionError.set(f, error);
    S.stackAccess.set(f, 0);
    S.unwind.set(f, Unwind.EXCEPTION);
  };

  module.body(mc.raise, (f, vector) => {
    record(f, vector.or(EventFormat.EXCEPTION).or(EventFormat.VALID), 0);
    f.throw(tag);
  });

  module.body(mc.raiseError, (f, vector, error) => {
    record(
      f,
      vector.or(EventFormat.EXCEPTION).or(EventFormat.ERROR).or(EventFormat.VALID),
      error,
    );
    f.throw(tag);
  });

  module.body(mc.pageFault, (f, linear, error) => {
    // A page fault drops what is known of its address (SDM vol. 3, 4.10.4.1).
    dropWindows(f, S.tlbContext.get(f));
    S.exceptionAddress.set(f, linear);
    const { EXCEPTION, ERROR, VALID } = EventFormat;
    record(f, i32(Vector.PF | EXCEPTION | ERROR | VALID), error);
    S.faulted.set(f, 1);
  });

  module.body(mc.unwindFault, (f) => {
    S.faulted.set(f, 0);
    f.throw(tag);
  });

  module.body(mc.settle, (f) => {
    const uop = S.uop.get(f);
    f.if(uop.ne(0), () => {
      const block = blockOf(f, uop);
      S.rip.set(f, ripOf(f, uop));
      // The whole block was charged on entry; what has not retired is given back.
      const left = f.load16(block, BlockHeader.COUNT).sub(f.load8(uop, MicroOp.ORDINAL));
      S.budget.set(f, S.budget.get(f).add(left));
      // A branch that has been counted has one micro-op more before it than there are instructions.
      const counted = f.load8(uop, MicroOp.INDEX).ne(f.load8(uop, MicroOp.ORDINAL));
      S.branches.set(f, S.branches.get(f).sub(counted.extendU()));
      S.uop.set(f, 0);
    });
  });

  // What a device or a write into code does must be visible to the very next instruction, so an
  // instruction that does either has to be the last of its block, where it is seen whether that goes on. If it is
  // not, nothing has happened yet: it is run again alone, and the decoder will end blocks there from now on,
  // for as long as it is needed.
  module.body(mc.needAlone, (f) => {
    const uop = S.uop.get(f);
    f.if(uop.ne(0), () => {
      const block = blockOf(f, uop);
      const last = f.load8(uop, MicroOp.ORDINAL).add(1).eq(f.load16(block, BlockHeader.COUNT));
      const serviced = f.load32(block, BlockHeader.SERVICED).ne(Serviced.NO);
      f.if(last.and(serviced).eqz(), () => {
        f.call(mc.isolate, uop);
        f.call(mc.unwindTo, Unwind.RESTART);
      });
      f.store32(block, Serviced.USED, BlockHeader.SERVICED);
    });
  });
}
