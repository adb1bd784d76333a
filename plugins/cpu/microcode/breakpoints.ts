/**
 * Hardware breakpoints: comparing addresses with DR0–DR3 as DR7 says (APM vol. 2, 13.1).
 *
 * While any is enabled, instructions run one by one (`Event.BREAKPOINTS`), and while one is for data,
 * every access takes the slow path, which asks here. Matches of an instruction gather in
 * `S.breakpointHits` and become one debug trap behind it.
 *
 * @module
 */
import { Event, Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64 } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { EventFormat, Vector } from "./raise.ts";
import { Cr4 } from "./registers.ts";

/** Bit of DR7.R/W that data breakpoints have, of writes (01b) and of reads and writes (11b). */
const DATA = 1;
/** R/Wn of a breakpoint for reads and writes; otherwise 00b is execution, 01b writes, 10b I/O. */
const READ_WRITE = 3;
const WRITE = 1;
const PORT = 2;

/** 1 if breakpoint `n` is enabled. */
function enabled(dr7: I32, n: number): I32 {
  return dr7.shrU(2 * n).and(3).ne(0);
}

/** R/Wn. */
function kindOf(dr7: I32, n: number): I32 {
  return dr7.shrU(16 + 4 * n).and(3);
}

/** 1 if a breakpoint for data is enabled. */
export function watchesData(f: FunctionBuilder): I32 {
  const dr7 = S.dr7.get(f).wrap();
  return [0, 1, 2, 3].map((n) => enabled(dr7, n).and(kindOf(dr7, n).and(DATA)))
    .reduce((any, one) => any.or(one));
}

/** `bits` of DR0–DR3 that match an access of `bytes` at `address`, as in DR6. */
function matches(
  f: FunctionBuilder,
  address: I64,
  bytes: I64,
  wanted: (kind: I32) => I32,
): I32 {
  const dr7 = S.dr7.get(f).wrap();
  const hits = f.variable(I32T, 0);
  for (let n = 0; n < 4; n++) {
    f.if(enabled(dr7, n).and(wanted(kindOf(dr7, n))), () => {
      // LENn: 1, 2, 8 or 4 bytes, from a multiple of that on.
      const length = dr7.shrU(18 + 4 * n).and(3);
      const span = length.eq(2).select(i32(7), length);
      const first = f.load64(0, S.dr + 8 * n).and(span.extendU().xor(-1));
      const inside = address.sub(first).leU(span.extendU());
      const before = first.sub(address).ltU(bytes);
      f.if(inside.or(before), () => hits.set(hits.get().or(1 << n)));
    });
  }
  return hits.get();
}

/** Gives the breakpoint functions their bodies. */
export function defineBreakpoints(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.codeBreakpoint, (f) => {
    // Hardware breakpoints are dropped while GIF is clear (APM vol. 2, table 15-10), as Bochs has it too.
    // kvm-unit-tests' host_rflags wants one at a VMRUN behind CLGI: under KVM, for which it was written, the
    // GIF that it clears is KVM's idea of its guest's, and the processor's own is set. KVM has that among
    // its errata (Documentation/virt/kvm/x86/errata.rst, "Nested virtualization features").
    // They are dropped by Intel's processors for the instruction behind MOV SS (SDM vol. 3A, 6.8.3). AMD's
    // take them there: the APM has no such rule, and KVM and kvm-unit-tests found it so.
    const shadow = S.intel.get(f).select(i32(Event.SHADOW_SS), i32(0));
    const held = S.events.get(f).and(shadow.or(Event.RESUME)).ne(0);
    f.if(held.or(S.gif.get(f).eqz()), () => f.return(0));
    const base = f.load32(0, segmentAddress(Seg.CS) + SegmentField.BASE).extendU();
    const rip = S.rip.get(f);
    const linear = S.mode.has(f, Mode.LONG).select(rip, rip.add(base).and(0xffff_ffff));
    const hits = matches(f, linear, i64(1), (kind) => kind.eqz());
    f.if(hits.eqz(), () => f.return(0));
    S.exception.set(f, Vector.DB | EventFormat.EXCEPTION | EventFormat.VALID);
    S.exceptionError.set(f, 0);
    S.exceptionAddress.set(f, hits.extendU());
    S.events.or(f, Event.EXCEPTION);
    f.return(1);
  });

  module.body(mc.dataBreakpoint, (f, linear, bytes, write) => {
    f.if(S.gif.get(f).eqz(), () => f.return());
    const hits = matches(
      f,
      linear,
      bytes.extendU(),
      (kind) => kind.eq(READ_WRITE).or(write.and(kind.eq(WRITE))),
    );
    S.breakpointHits.or(f, hits);
  });

  module.body(mc.portBreakpoint, (f, port, bytes) => {
    // R/W = 10b is undefined without debug extensions.
    f.if(S.gif.get(f).eqz().or(S.cr4.has(f, Cr4.DE).eqz()), () => f.return());
    const hits = matches(f, port.extendU(), bytes.extendU(), (kind) => kind.eq(PORT));
    S.breakpointHits.or(f, hits);
  });
}
