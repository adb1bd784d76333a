/**
 * Who may access a port: IOPL and the TSS's bitmap (APM vol. 2, 12.2.4), and in guest mode the I/O
 * permission map (15.10).
 *
 * @module
 */
import { Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type I32, i32, I32T, type I64 } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Rflags } from "./registers.ts";

/** Offset of the bitmap's own offset in a 32-bit or 64-bit TSS. */
const BITMAP_BASE = 0x66;

/** Gives the port functions their bodies. */
export function definePort(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.checkPort, (f, port, bytes) => {
    const flags = S.rflags.get(f);
    const iopl = flags.shrU(12).wrap().and(3);
    const protectedMode = S.mode.has(f, Mode.REAL).eqz();
    const restricted = flags.has(Rflags.VM).or(protectedMode.and(S.cpl.get(f).gtU(iopl)));
    f.if(restricted.eqz(), () => f.return(), undefined, "likely");
    const tr = segmentAddress(Seg.TR);
    const limit = f.load32(0, tr + SegmentField.LIMIT);
    const denied = (): void => f.call(mc.raiseError, Vector.GP, 0);
    // A 16-bit TSS has no bitmap.
    const type = f.load32(0, tr + SegmentField.ATTRIBUTES).and(15);
    f.if(type.and(8).eqz().or(limit.ltU(BITMAP_BASE + 1)), denied);
    const base = f.load64(0, tr + SegmentField.BASE);
    const bitmap = f.call(mc.systemLoad, base.add(BITMAP_BASE), 16).wrap();
    const at = bitmap.add(port.shrU(3));
    // Two bytes are always read, so that an access may straddle them.
    f.if(at.add(1).gtU(limit), denied);
    const bits = f.call(mc.systemLoad, base.add(at.extendU()), 16).wrap().shrU(port.and(7));
    const mask = i32(1).shl(bytes).sub(1);
    f.if(bits.and(mask).ne(0), denied);
  });

  module.body(mc.portIntercepted, (f, port, bytes) => {
    const at = S.iopm.get(f).add(port.shrU(3).extendU());
    const byte = (pa: I64): I32 => f.call(mc.readPhysical, pa).wrap().and(0xff);
    // An access at the end of a byte, or of the whole map, reads on: the map has three pages. They follow
    // each other in physical memory only, so the next byte is looked up.
    const bits = f.variable(I32T, byte(at));
    f.if(port.and(7).add(bytes).gtU(8), () => {
      bits.set(bits.get().or(byte(at.add(1)).shl(8)));
    });
    f.return(bits.get().shrU(port.and(7)).and(i32(1).shl(bytes).sub(1)).ne(0));
  });
}
