/**
 * Extended state: XCR0, and the XSAVE area in standard and compacted form (SDM vol. 1, ch. 13).
 *
 * Seven components exist: x87 (0), SSE (1) and, where the processor has them, the upper halves of
 * YMM0–YMM15 (2), PKRU (9), for XSAVES the MSRs of control-flow enforcement of CPL 3 (11) and of the others
 * (12), and APX's R16–R31 (19). The legacy region always has its place in an area; in compacted form the
 * components behind the header follow each other in this order. In standard form PKRU stands where a Zen 3
 * has it, behind the upper halves: processors with AVX-512 have it further up.
 *
 * @module
 */
import { Mode, registerAddress, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { canonicalForAny } from "../memory/canonical.ts";
import { PL_SSP } from "./cet.ts";
import { validCetControl } from "./cet_msr.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Xcr0, Xss } from "./registers.ts";

/** Offsets in an XSAVE area (SDM vol. 1, 13.4; the place of APX's component: CPUID (0Dh,19) EBX). */
export const XsaveArea = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FDP: 16,
  MXCSR: 24,
  MXCSR_MASK: 28,
  ST: 32,
  XMM: 160,
  XSTATE_BV: 512,
  XCOMP_BV: 520,
  /** Extended region of an area in compacted form. */
  COMPACTED: 576,
  /** PKRU's component in standard form (CPUID (0Dh,9) EBX). */
  PKRU: 832,
  /** APX's component in standard form. */
  APX: 960,
} as const;

/** Bytes of AVX's component: the upper halves of sixteen registers. Its place in standard form is 240h. */
export const AVX_BYTES = 256;
/** Bytes of PKRU's component, of which the upper four are reserved. */
export const PKRU_BYTES = 8;
/** Bytes of the component of CPL 3's control-flow enforcement: U_CET and PL3_SSP. */
export const CET_U_BYTES = 16;
/** Bytes of that of the others: PL0_SSP, PL1_SSP and PL2_SSP. */
export const CET_S_BYTES = 24;
/** Bytes of APX's component: R16–R31. */
export const APX_BYTES = 128;

/** XCOMP_BV bit 63: the area is in compacted form. */
export const COMPACTED: bigint = 1n << 63n;

/** MXCSR after RESET. */
const MXCSR_INITIAL = 0x1f80;
/** Bits that MXCSR has (MXCSR_MASK); the rest is reserved. */
export const MXCSR_BITS = 0xffff;
/** x87 control and tag word after FNINIT. */
const FCW_INITIAL = 0x37f;
const FTW_INITIAL = 0xffff;
/** TOP in the status word. */
const FSW_TOP = 0x3800;

/** What tells the instructions apart that save; bits of an operand of `saveExtended`. */
export const SaveHow = {
  /** Components in their initial configuration are not written: XSAVEOPT, XSAVEC, XSAVES. */
  OPTIMIZED: 1,
  /** The compacted form: XSAVEC, XSAVES. */
  COMPACTED: 2,
  /** Components of XSS as well: XSAVES. */
  SUPERVISOR: 4,
} as const;

/** 1 for each component of `bits` in `value`. */
const has = (value: I64, bit: number): I32 => value.has(bit);

/** `count` quadwords, as a loop. */
function eachQuad(f: FunctionBuilder, count: I32 | number, body: (offset: I32) => void): void {
  const offset = f.variable(I32T, 0);
  const end = (typeof count === "number" ? i32(count) : count).shl(3);
  f.while(() => offset.get().ltU(end), () => {
    body(offset.get());
    offset.set(offset.get().add(8));
  });
}

/** XMM registers that the legacy region holds in the mode at hand. */
function xmmCount(f: FunctionBuilder): I32 {
  return S.mode.has(f, Mode.LONG).select(i32(16), i32(8));
}

/** An area has ST0 first; where that and what follows it stand among the registers by physical number. */
function registerOffset(f: FunctionBuilder, offset: I32): I32 {
  return S.fpuStatus.get(f).and(FSW_TOP).shrU(7).add(offset).and(127);
}

/** Stores x87 state in the format of FXSAVE64 and XSAVE. */
export function storeX87(mc: Microcode, f: FunctionBuilder, area: I64): void {
  f.call(mc.store16, area, S.fpuControl.get(f).extendU());
  f.call(mc.store16, area.add(XsaveArea.FSW), S.fpuStatus.get(f).extendU());
  const tags = f.variable(I32T, 0);
  for (let k = 0; k < 8; k++) {
    const used = S.fpuTag.get(f).shrU(2 * k).and(3).ne(3);
    tags.set(tags.get().or(used.shl(k)));
  }
  f.call(mc.store16, area.add(XsaveArea.FTW), tags.get().extendU());
  f.call(mc.store16, area.add(XsaveArea.FOP), S.fpuOpcode.get(f).extendU());
  f.call(mc.store64, area.add(XsaveArea.FIP), S.fpuInstruction.get(f));
  f.call(mc.store64, area.add(XsaveArea.FDP), S.fpuData.get(f));
  eachQuad(f, 16, (offset) => {
    const quad = f.load64(registerOffset(f, offset), S.st);
    f.call(mc.store64, area.add(XsaveArea.ST).add(offset.extendU()), quad);
  });
}

/** Stores MXCSR and its mask. */
export function storeMxcsr(mc: Microcode, f: FunctionBuilder, area: I64): void {
  f.call(mc.store32, area.add(XsaveArea.MXCSR), S.mxcsr.get(f).extendU());
  f.call(mc.store32, area.add(XsaveArea.MXCSR_MASK), MXCSR_BITS);
}

/** Offset in the state of the quadword at an offset in a list of XMM registers. */
const vectorOffset = (offset: I32): I32 => offset.shrU(4).shl(6).or(offset.and(8));

/** Stores the XMM registers of the mode. */
export function storeSse(mc: Microcode, f: FunctionBuilder, area: I64): void {
  eachQuad(f, xmmCount(f).shl(1), (offset) => {
    const half = f.load64(vectorOffset(offset), S.vectors);
    f.call(mc.store64, area.add(XsaveArea.XMM).add(offset.extendU()), half);
  });
}

/** Loads x87 state. */
export function loadX87(mc: Microcode, f: FunctionBuilder, area: I64): void {
  S.fpuControl.set(f, f.call(mc.load16, area).wrap());
  S.fpuStatus.set(f, f.call(mc.load16, area.add(XsaveArea.FSW)).wrap());
  const tags = f.call(mc.load8, area.add(XsaveArea.FTW)).wrap();
  const full = f.variable(I32T, 0);
  for (let k = 0; k < 8; k++) {
    const empty = tags.shrU(k).and(1).eqz();
    full.set(full.get().or(empty.select(i32(3 << (2 * k)), i32(0))));
  }
  S.fpuTag.set(f, full.get());
  S.fpuOpcode.set(f, f.call(mc.load16, area.add(XsaveArea.FOP)).wrap().and(0x7ff));
  S.fpuInstruction.set(f, f.call(mc.load64, area.add(XsaveArea.FIP)));
  S.fpuData.set(f, f.call(mc.load64, area.add(XsaveArea.FDP)));
  eachQuad(f, 16, (offset) => {
    const quad = f.call(mc.load64, area.add(XsaveArea.ST).add(offset.extendU()));
    // A register has 80 bits; what stands behind them in the area is reserved.
    const kept = offset.and(8).ne(0).select(quad.and(0xffff), quad);
    f.store64(registerOffset(f, offset), kept, S.st);
  });
}

/** Loads the XMM registers of the mode. */
export function loadSse(mc: Microcode, f: FunctionBuilder, area: I64): void {
  eachQuad(f, xmmCount(f).shl(1), (offset) => {
    const quad = f.call(mc.load64, area.add(XsaveArea.XMM).add(offset.extendU()));
    f.store64(vectorOffset(offset), quad, S.vectors);
  });
}

/** Gives the functions of extended state their bodies. */
export function defineExtendedState(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.xinuse, (f) => {
    const bits = f.variable(I64T, 0);
    const any = f.variable(I64T, 0);
    const gather = (address: number, quads: number): void => {
      any.set(0);
      eachQuad(f, quads, (offset) => any.set(any.get().or(f.load64(offset, address))));
    };
    const mark = (inUse: I32, component: number): void => {
      f.if(inUse, () => bits.set(bits.get().or(component)));
    };
    gather(S.st, 16);
    const initial = S.fpuControl.get(f).eq(FCW_INITIAL)
      .and(S.fpuStatus.get(f).eqz())
      .and(S.fpuTag.get(f).eq(FTW_INITIAL))
      .and(S.fpuOpcode.get(f).eqz())
      .and(any.get().or(S.fpuInstruction.get(f)).or(S.fpuData.get(f)).eqz());
    mark(initial.eqz(), Xcr0.X87);
    any.set(0);
    const at = f.variable(I32T, 0);
    f.while(() => at.get().ltU(16 * 64), () => {
      const register = at.get();
      const both = f.load64(register, S.vectors).or(f.load64(register, S.vectors + 8));
      any.set(any.get().or(both));
      at.set(register.add(64));
    });
    mark(any.get().ne(0), Xcr0.SSE);
    any.set(0);
    at.set(0);
    f.while(() => at.get().ltU(16 * 64), () => {
      const register = at.get();
      const both = f.load64(register, S.vectors + 16).or(f.load64(register, S.vectors + 24));
      any.set(any.get().or(both));
      at.set(register.add(64));
    });
    mark(any.get().ne(0), Xcr0.AVX);
    mark(S.pkru.get(f).ne(0), Xcr0.PKRU);
    mark(S.uCet.get(f).or(PL_SSP[3].get(f)).ne(0), Xss.CET_U);
    gather(S.plSsp, CET_S_BYTES / 8);
    mark(any.get().ne(0), Xss.CET_S);
    gather(registerAddress(16), APX_BYTES / 8);
    mark(any.get().ne(0), Xcr0.APX);
    f.return(bits.get());
  });

  module.body(mc.writeXcr0, (f, value) => {
    const bad = value.and(S.xcr0Supported.get(f).xor(-1)).ne(0).or(value.has(Xcr0.X87).eqz())
      .or(value.has(Xcr0.AVX).and(value.has(Xcr0.SSE).eqz()));
    f.if(bad, () => f.call(mc.raiseError, Vector.GP, 0));
    S.xcr0.set(f, value);
    f.call(mc.updateMode);
  });

  // Saving. Everything is known to be writable by then.

  const storeAvx = (f: FunctionBuilder, area: I64): void => {
    eachQuad(f, xmmCount(f).shl(1), (offset) => {
      const half = f.load64(vectorOffset(offset), S.vectors + 16);
      f.call(mc.store64, area.add(XsaveArea.COMPACTED).add(offset.extendU()), half);
    });
  };
  const storeApx = (f: FunctionBuilder, area: I64): void => {
    eachQuad(f, APX_BYTES / 8, (offset) => {
      f.call(mc.store64, area.add(offset.extendU()), f.load64(offset, registerAddress(16)));
    });
  };

  /** Where a component stands: in standard form in its own place, in compacted form behind `before`. */
  const place = (own: number, before: I32, compacted: I32): I32 =>
    compacted.select(before, i32(own));
  const avxEnd = (components: I64): I32 =>
    has(components, Xcr0.AVX).mul(AVX_BYTES).add(XsaveArea.COMPACTED);
  const pkruOffset = (components: I64, compacted: I32): I32 =>
    place(XsaveArea.PKRU, avxEnd(components), compacted);
  const pkruEnd = (components: I64, compacted: I32): I32 =>
    has(components, Xcr0.PKRU).select(
      pkruOffset(components, compacted).add(PKRU_BYTES),
      avxEnd(components),
    );
  // Those of XSS are only ever in areas of compacted form.
  const cetSOffset = (components: I64, compacted: I32): I32 =>
    pkruEnd(components, compacted).add(has(components, Xss.CET_U).mul(CET_U_BYTES));
  const cetEnd = (components: I64, compacted: I32): I32 =>
    cetSOffset(components, compacted).add(has(components, Xss.CET_S).mul(CET_S_BYTES));
  const cetUAt = (area: I64, components: I64, compacted: I32): I64 =>
    area.add(pkruEnd(components, compacted).extendU());
  const cetSAt = (area: I64, components: I64, compacted: I32): I64 =>
    area.add(cetSOffset(components, compacted).extendU());
  const apxOffset = (components: I64, compacted: I32): I32 =>
    place(XsaveArea.APX, cetEnd(components, compacted), compacted);
  /** Bytes of an area that an instruction reaches, by the components it has room for. */
  const extent = (components: I64, compacted: I32): I32 =>
    has(components, Xcr0.APX).select(
      apxOffset(components, compacted).add(APX_BYTES),
      cetEnd(components, compacted),
    );
  const pkruAt = (area: I64, components: I64, compacted: I32): I64 =>
    area.add(pkruOffset(components, compacted).extendU());
  const apxAt = (area: I64, components: I64, compacted: I32): I64 =>
    area.add(apxOffset(components, compacted).extendU());

  module.body(mc.saveExtended, (f, area, wanted, how) => {
    const supervisor = how.and(SaveHow.SUPERVISOR).ne(0).select(S.xss.get(f), i64(0));
    const requested = wanted.and(S.xcr0.get(f).or(supervisor));
    const compacted = how.and(SaveHow.COMPACTED).ne(0);
    f.call(mc.probeStore, area, extent(requested, compacted));
    const inUse = f.variable(I64T, f.call(mc.xinuse));
    // In compacted form MXCSR belongs to the SSE component and keeps it in use.
    f.if(compacted.and(S.mxcsr.get(f).ne(MXCSR_INITIAL)), () => {
      inUse.set(inUse.get().or(Xcr0.SSE));
    });
    const present = requested.and(inUse.get());
    const optimized = how.and(SaveHow.OPTIMIZED).ne(0);
    const written = optimized.select(present, requested);
    f.if(has(written, Xcr0.X87), () => storeX87(mc, f, area));
    // XSAVE and XSAVEOPT write MXCSR whenever SSE or AVX is asked for.
    const standardMxcsr = has(requested, Xcr0.SSE | Xcr0.AVX);
    f.if(compacted.select(has(written, Xcr0.SSE), standardMxcsr), () => {
      storeMxcsr(mc, f, area);
    });
    f.if(has(written, Xcr0.SSE), () => storeSse(mc, f, area));
    f.if(has(written, Xcr0.AVX), () => storeAvx(f, area));
    f.if(has(written, Xcr0.PKRU), () => {
      f.call(mc.store64, pkruAt(area, requested, compacted), S.pkru.get(f));
    });
    f.if(has(written, Xss.CET_U), () => {
      const at = cetUAt(area, requested, compacted);
      f.call(mc.store64, at, S.uCet.get(f));
      f.call(mc.store64, at.add(8), PL_SSP[3].get(f));
    });
    f.if(has(written, Xss.CET_S), () => {
      const at = cetSAt(area, requested, compacted);
      for (let cpl = 0; cpl < 3; cpl++) {
        f.call(mc.store64, at.add(8 * cpl), PL_SSP[cpl]!.get(f));
      }
    });
    f.if(has(written, Xcr0.APX), () => storeApx(f, apxAt(area, requested, compacted)));
    const header = area.add(XsaveArea.XSTATE_BV);
    f.if(compacted, () => {
      f.call(mc.store64, header, present);
      f.call(mc.store64, area.add(XsaveArea.XCOMP_BV), requested.or(COMPACTED));
    }, () => {
      const kept = f.call(mc.load64, header).and(requested.xor(-1));
      f.call(mc.store64, header, kept.or(present));
    });
  });

  // Restoring.

  const initX87 = (f: FunctionBuilder): void => {
    S.fpuControl.set(f, FCW_INITIAL);
    S.fpuStatus.set(f, 0);
    S.fpuTag.set(f, FTW_INITIAL);
    S.fpuOpcode.set(f, 0);
    S.fpuInstruction.set(f, 0);
    S.fpuData.set(f, 0);
    f.fill(S.st, 0, 128);
  };
  const loadAvx = (f: FunctionBuilder, area: I64): void => {
    eachQuad(f, xmmCount(f).shl(1), (offset) => {
      const half = f.call(mc.load64, area.add(XsaveArea.COMPACTED).add(offset.extendU()));
      f.store64(vectorOffset(offset), half, S.vectors + 16);
    });
  };
  const initAvx = (f: FunctionBuilder): void => {
    eachQuad(f, xmmCount(f).shl(1), (offset) => {
      f.store64(vectorOffset(offset), 0, S.vectors + 16);
    });
  };
  const initSse = (f: FunctionBuilder): void => {
    eachQuad(f, xmmCount(f).shl(1), (offset) => f.store64(vectorOffset(offset), 0, S.vectors));
  };
  /** As WRPKRU does: the TLB holds what may be accessed, not the keys. */
  const setPkru = (f: FunctionBuilder, value: I64): void => {
    f.if(S.pkru.get(f).ne(value), () => {
      S.pkru.set(f, value);
      f.call(mc.flushTlb);
    });
  };
  const loadApx = (f: FunctionBuilder, area: I64): void => {
    eachQuad(f, APX_BYTES / 8, (offset) => {
      f.store64(offset, f.call(mc.load64, area.add(offset.extendU())), registerAddress(16));
    });
  };

  module.body(mc.restoreExtended, (f, area, wanted, supervisor) => {
    const fault = (condition: I32): void =>
      f.if(condition, () => f.call(mc.raiseError, Vector.GP, 0), undefined, "unlikely");
    const enabled = S.xcr0.get(f).or(supervisor.select(S.xss.get(f), i64(0)));
    const present = f.call(mc.load64, area.add(XsaveArea.XSTATE_BV));
    const format = f.call(mc.load64, area.add(XsaveArea.XCOMP_BV));
    const compacted = format.ltS(0);
    const rest = (from: number): I32 => {
      const any = f.variable(I64T, 0);
      for (let at = from; at < 64; at += 8) {
        any.set(any.get().or(f.call(mc.load64, area.add(XsaveArea.XSTATE_BV + at))));
      }
      return any.get().ne(0);
    };
    f.if(compacted, () => {
      const components = format.and(~COMPACTED);
      fault(components.and(enabled.xor(-1)).ne(0));
      fault(present.and(components.xor(-1)).ne(0));
      fault(rest(16));
    }, () => {
      fault(supervisor);
      fault(format.ne(0));
      fault(present.and(enabled.xor(-1)).ne(0));
      fault(f.call(mc.load64, area.add(XsaveArea.XSTATE_BV + 16)).ne(0));
    });
    const requested = wanted.and(enabled);
    // In compacted form a component that has no place in the area is initialised.
    const loaded = requested.and(present);
    const initialised = requested.and(present.xor(-1));
    const standardMxcsr = has(requested, Xcr0.SSE | Xcr0.AVX);
    const mxcsrIn = compacted.select(has(loaded, Xcr0.SSE), standardMxcsr);
    const mxcsr = f.variable(I32T, MXCSR_INITIAL);
    f.if(mxcsrIn, () => {
      mxcsr.set(f.call(mc.load32, area.add(XsaveArea.MXCSR)).wrap());
      fault(mxcsr.get().and(~MXCSR_BITS).ne(0));
    });
    // Both ends of what will be read are touched first: an area reaches into two pages at most.
    f.call(mc.load8, area);
    // In compacted form it is the components with a place in the area that decide where the others are.
    const places = compacted.select(format.and(~COMPACTED), loaded);
    const last = extent(places, compacted).sub(1).extendU();
    f.call(mc.load8, area.add(last));

    const uCet = f.variable(I64T, 0);
    const ssps = [0, 1, 2, 3].map(() => f.variable(I64T, 0));
    const readSsp = (cpl: number, at: I64): void => {
      const value = f.call(mc.load64, at);
      fault(canonicalForAny(f, value).eqz().or(value.has(3)));
      ssps[cpl]!.set(value);
    };
    f.if(
      has(loaded, Xss.CET_U),
      () => {
        const at = cetUAt(area, places, compacted);
        uCet.set(f.call(mc.load64, at));
        fault(validCetControl(f, uCet.get()).eqz());
        readSsp(3, at.add(8));
      },
      undefined,
      "unlikely",
    );
    f.if(
      has(loaded, Xss.CET_S),
      () => {
        const at = cetSAt(area, places, compacted);
        for (let cpl = 0; cpl < 3; cpl++) readSsp(cpl, at.add(8 * cpl));
      },
      undefined,
      "unlikely",
    );

    f.if(has(loaded, Xcr0.X87), () => loadX87(mc, f, area));
    f.if(has(initialised, Xcr0.X87), () => initX87(f));
    const mxcsrOut = has(requested, Xcr0.SSE).or(compacted.eqz().and(standardMxcsr));
    f.if(mxcsrOut, () => S.mxcsr.set(f, mxcsr.get()));
    f.if(has(loaded, Xcr0.SSE), () => loadSse(mc, f, area));
    f.if(has(initialised, Xcr0.SSE), () => initSse(f));
    f.if(has(loaded, Xcr0.AVX), () => loadAvx(f, area));
    f.if(has(initialised, Xcr0.AVX), () => initAvx(f));
    // XRSTORS is CPL 0's, for which none of them is in force at once.
    f.if(has(requested, Xss.CET_U), () => {
      S.uCet.set(f, uCet.get());
      PL_SSP[3].set(f, ssps[3]!.get());
    });
    f.if(has(requested, Xss.CET_S), () => {
      for (let cpl = 0; cpl < 3; cpl++) PL_SSP[cpl]!.set(f, ssps[cpl]!.get());
    });
    const key = f.variable(I64T, 0);
    f.if(has(loaded, Xcr0.PKRU), () => {
      key.set(f.call(mc.load32, pkruAt(area, places, compacted)));
    });
    f.if(has(loaded, Xcr0.APX), () => loadApx(f, apxAt(area, places, compacted)));
    f.if(has(initialised, Xcr0.APX), () => f.fill(registerAddress(16), 0, APX_BYTES));
    // Last, as it can take away what the rest is read with: all of the area is read under the old keys.
    f.if(has(requested, Xcr0.PKRU), () => setPkru(f, key.get()));
  });
}
