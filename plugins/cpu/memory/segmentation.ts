/**
 * Effective addresses, segment limits and types (APM vol. 2, 4.11–4.12).
 *
 * @module
 */
import { MicroOp } from "../engine/block_layout.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { Vector } from "../microcode/raise.ts";
import { Mode, S, Seg, SEGMENT_BYTES, SegmentField, SegmentUse } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";

/** Address of segment register `n`, known at run time only. */
export function segmentPointer(n: I32): I32 {
  return n.mul(SEGMENT_BYTES).add(S.segments);
}

function emitOffset(f: FunctionBuilder, uop: I32): I64 {
  const addressing = f.load8(uop, MicroOp.ADDRESSING);
  const base = f.load64(f.load16(uop, MicroOp.BASE));
  const index = f.load64(f.load16(uop, MicroOp.INDEX_REG)).shl(addressing.and(3).extendU());
  const sum = base.add(index).add(f.load64(uop, MicroOp.DISPLACEMENT));
  // 16, 32 or 64 bits are kept.
  const bits = i32(16).shl(addressing.shrU(2).and(3));
  return sum.and(i64(-1).shrU(i32(64).sub(bits).extendU()));
}

/** Gives the addressing functions their bodies. */
export function defineSegmentation(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.effectiveOffset, (f, uop) => f.return(emitOffset(f, uop)));

  module.body(mc.effectiveAddress, (f, uop, bytes, access) => {
    const segment = f.load8(uop, MicroOp.ADDRESSING).shrU(4).and(7);
    f.returnCall(mc.segmentAddress, segment, emitOffset(f, uop), bytes, access);
  });

  module.body(mc.segmentAddress, (f, segment, offset, bytes, access) => {
    const pointer = segmentPointer(segment);
    f.if(S.mode.has(f, Mode.LONG), () => {
      const based = segment.geU(Seg.FS);
      f.return(offset.add(f.choose(
        I64T,
        based,
        () => f.load64(pointer, SegmentField.BASE),
        () => 0,
      )));
    });
    const use = f.load32(pointer, SegmentField.USE);
    const fault = (): void => {
      f.if(segment.eq(Seg.SS), () => f.call(mc.raiseError, Vector.SS, 0));
      f.call(mc.raiseError, Vector.GP, 0);
    };
    // READ is bit 0 and WRITE bit 1, as are the two accesses.
    f.if(use.shrU(access).and(1).eqz(), fault, undefined, "unlikely");
    const limit = f.load32(pointer, SegmentField.LIMIT).extendU();
    const last = offset.add(bytes.extendU()).sub(1);
    const beyond = f.choose(
      I32T,
      use.and(SegmentUse.EXPAND_DOWN).eqz(),
      () => last.gtU(limit),
      () => {
        const top = use.and(SegmentUse.BIG).ne(0).select(i64(0xffff_ffff), i64(0xffff));
        return offset.leU(limit).or(last.gtU(top));
      },
      "likely",
    );
    f.if(beyond, fault, undefined, "unlikely");
    f.return(f.load64(pointer, SegmentField.BASE).add(offset).and(0xffff_ffff));
  });
}
