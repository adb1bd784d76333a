/**
 * Virtual-8086 mode extensions: software interrupts that the 8086 program handles itself, and its interrupt
 * flag (CR4.VME; APM vol. 2, 8.9; SDM vol. 3B, 21.3).
 *
 * @module
 */
import { Access } from "../memory/walk.ts";
import { registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr4, Rflags } from "./registers.ts";

/** Offset of the I/O bitmap's own offset in a 32-bit TSS; the redirection bitmap is right in front of it. */
const BITMAP_BASE = 0x66;
const REDIRECTION_BYTES = 32;

/** 1 in virtual-8086 mode with an IOPL below 3. */
export function belowIopl(f: FunctionBuilder): I32 {
  const flags = S.rflags.get(f);
  return flags.has(Rflags.VM).and(flags.and(Rflags.IOPL).ne(Rflags.IOPL));
}

/** Flags as an 8086 program below IOPL sees them: IF is VIF, and IOPL 3. */
function virtualized(flags: I64, below: I32): I64 {
  const interrupt = flags.has(Rflags.VIF).extendU().mul(Rflags.IF);
  return below.select(flags.and(~Rflags.IF).or(Rflags.IOPL).or(interrupt), flags);
}

/** Gives the functions of virtual-8086 mode extensions their bodies. */
export function defineVirtual8086(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.redirectInterrupt, (f, vector, returnRip) => {
    const fault = (): void => f.call(mc.raiseError, Vector.GP, 0);
    const below = belowIopl(f);
    const toMonitor = (): void => {
      f.if(below, fault);
      f.return(0);
    };
    f.if(S.cr4.has(f, Cr4.VME).eqz(), toMonitor);
    const tr = segmentAddress(Seg.TR);
    const limit = f.load32(0, tr + SegmentField.LIMIT);
    f.if(limit.ltU(BITMAP_BASE + 1), fault);
    const base = f.load64(0, tr + SegmentField.BASE);
    const end = f.call(mc.systemLoad, base.add(BITMAP_BASE), 16).wrap();
    const at = end.sub(REDIRECTION_BYTES).add(vector.shrU(3));
    f.if(at.gtU(limit), fault);
    const byte = f.call(mc.systemLoad, base.add(at.extendU()), 8).wrap();
    f.if(byte.shrU(vector.and(7)).and(1), toMonitor);

    // Through the table at address 0, as the 8086 does it, on the program's own stack.
    const entry = f.call(mc.systemLoad, vector.shl(2).extendU(), 32);
    const flags = f.call(mc.readFlags);
    const cs = f.load32(0, segmentAddress(Seg.CS) + SegmentField.SELECTOR).extendU();
    const rsp = f.load64(0, registerAddress(4));
    const values = [virtualized(flags, below), cs, returnRip];
    for (const [k, value] of values.entries()) {
      const offset = rsp.sub(2 * (k + 1)).and(0xffff);
      const linear = f.call(mc.segmentAddress, Seg.SS, offset, 2, Access.WRITE);
      S.stackAccess.set(f, 1);
      f.call(mc.slowStore, linear, 16, value, S.mmu.get(f));
      S.stackAccess.set(f, 0);
    }
    f.store64(0, rsp.and(~0xffff).or(rsp.sub(6).and(0xffff)), registerAddress(4));
    S.rip.set(f, entry.and(0xffff));
    const interrupt = below.select(i32(Rflags.VIF), i32(Rflags.IF)).extendU();
    const cleared = interrupt.or(Rflags.TF | Rflags.RF);
    f.call(mc.writeFlags, flags.and(cleared.xor(-1)));
    f.call(mc.loadRealSegment, Seg.CS, entry.shrU(16).wrap());
    // As with every delivery the step ends in no trap.
    S.stepping.set(f, 0);
    f.return(1);
  });
}
