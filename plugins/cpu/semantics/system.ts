/**
 * System instructions: control and debug registers, descriptor tables, MSRs, CPUID, HLT and the like
 * (APM vol. 3, ch. 4).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Efer, Rflags } from "../microcode/registers.ts";
import {
  attributesOf,
  Descriptor,
  dplOf,
  limitOf,
  SystemType,
  typeOf,
} from "../microcode/segments.ts";
import type { Field64 } from "../state/field.ts";
import {
  Attr,
  Event,
  Mode,
  S,
  Seg,
  SEGMENT_BYTES,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1, Misc2 } from "../svm/intercepts.ts";
import { type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { exitGuest, intercept } from "./intercept.ts";

/** Raises #GP(0) unless CPL is 0. */
export function privileged(i: Instruction): void {
  i.faultIf(S.cpl.get(i.f).ne(0), Vector.GP, 0);
}

/** Raises #UD in real and virtual-8086 mode. */
export function protectedOnly(i: Instruction): void {
  if (i.code === 64) return;
  i.faultIf(S.mode.has(i.f, Mode.REAL), Vector.UD);
}

/** UMIP: SGDT, SIDT, SLDT, STR and SMSW are privileged. */
function checkUmip(i: Instruction): void {
  const { f } = i;
  i.faultIf(S.cr4.has(f, Cr4.UMIP).and(S.cpl.get(f).ne(0)), Vector.GP, 0);
}

const ended = (emit: (i: Instruction) => void, needs: Partial<Semantics> = {}): Semantics => ({
  ...needs,
  code: true,
  ends: true,
  emit: (i) => {
    emit(i);
    if (!i.ended) i.leave();
  },
});

// Control registers.

/** Takes #VMEXIT for MOV to or from control register `n` of intercept half `shift`. */
function interceptRegister(i: Instruction, word: number, shift: number, code: number): void {
  const { f } = i;
  const n = i.immediate().wrap().and(15);
  const wanted = S.guestMode.get(f).and(interceptWord(f, word).shrU(n.add(shift)).and(1));
  f.if(
    wanted,
    () => {
      // EXITINFO1: 63 = MOV CR, 3:0 the register (APM vol. 2, 15.8.1).
      const gpr = i.registerNumber(shift === 16 ? 1 : 0).and(15);
      const flag = word === InterceptWord.CR ? i64(1n << 63n) : i64(0);
      exitGuest(i, n.add(code), flag.or(gpr.extendU()));
    },
    undefined,
    "unlikely",
  );
}

const CRS: readonly (readonly [number, Field64])[] = [
  [0, S.cr0],
  [2, S.cr2],
  [3, S.cr3],
  [4, S.cr4],
];

function existingCr(i: Instruction): I32 {
  const n = i.immediate().wrap();
  const exists = n.eq(0).or(n.eq(2)).or(n.eq(3)).or(n.eq(4)).or(n.eq(8));
  i.faultIf(exists.eqz(), Vector.UD);
  privileged(i);
  return n;
}

const movFromCr = ended((i) => {
  const { f } = i;
  const n = existingCr(i);
  interceptRegister(i, InterceptWord.CR, 0, SvmExit.CR_READ);
  const value = f.variable(I64T, 0);
  for (const [number, field] of CRS) f.if(n.eq(number), () => value.set(field.get(f)));
  f.if(n.eq(8), () => {
    // With V_INTR_MASKING CR8 is the virtual TPR (APM vol. 2, 15.21.1).
    const masking = S.guestMode.get(f).and(S.intControl.has(f, V_INTR_MASKING));
    value.set(masking.select(S.intControl.get(f).and(15).extendU(), S.cr8.get(f)));
  });
  i.write(0, value.get());
});

const V_INTR_MASKING = 0x100_0000;

/** A selective CR0 write is one that changes more than TS and MP. */
function interceptSelective(i: Instruction, value: I64): void {
  const { f } = i;
  const changed = S.cr0.get(f).xor(value).has(0xffff_ffff & ~(Cr0.TS | Cr0.MP));
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.CR0_SEL_WRITE).ne(0))
    .and(changed);
  f.if(wanted, () => exitGuest(i, i32(SvmExit.CR0_SEL_WRITE)), undefined, "unlikely");
}

const movToCr = ended((i) => {
  const { f, mc } = i;
  const n = existingCr(i);
  interceptRegister(i, InterceptWord.CR, 16, SvmExit.CR_WRITE);
  const value = i.unsigned(1);
  f.if(n.eq(0), () => interceptSelective(i, value));
  i.spill();
  f.if(n.eq(0), () => f.call(mc.writeCr0, value));
  f.if(n.eq(2), () => S.cr2.set(f, value));
  f.if(n.eq(3), () => f.call(mc.writeCr3, value));
  f.if(n.eq(4), () => f.call(mc.writeCr4, value));
  f.if(n.eq(8), () => {
    i.faultIf(value.has(~0xf), Vector.GP, 0);
    const masking = S.guestMode.get(f).and(S.intControl.has(f, V_INTR_MASKING));
    f.if(
      masking,
      () => S.intControl.set(f, S.intControl.get(f).and(~0xff).or(value.wrap())),
      () => S.cr8.set(f, value),
    );
  });
});

// Debug registers.

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
function debugRegister(i: Instruction): I32 {
  const { f } = i;
  const n = i.immediate().wrap();
  i.faultIf(n.gtU(7), Vector.UD);
  const alias = n.eq(4).or(n.eq(5));
  i.faultIf(alias.and(S.cr4.has(f, Cr4.DE)), Vector.UD);
  privileged(i);
  return alias.select(n.add(2), n);
}

/** DR7.GD: any access is a #DB with DR6.BD. */
function generalDetect(i: Instruction): void {
  const { f } = i;
  f.if(
    S.dr7.has(f, 0x2000),
    () => {
      S.exceptionAddress.set(f, 0x2000);
      i.raise(Vector.DB);
    },
    undefined,
    "unlikely",
  );
}

const movFromDr = ended((i) => {
  const { f } = i;
  const n = debugRegister(i);
  generalDetect(i);
  interceptRegister(i, InterceptWord.DR, 0, SvmExit.DR_READ);
  const value = f.choose(
    I64T,
    n.ltU(4),
    () => f.load64(n.shl(3), S.dr),
    () => n.eq(6).select(S.dr6.get(f), S.dr7.get(f)),
  );
  i.write(0, value);
});

const movToDr = ended((i) => {
  const { f, mc } = i;
  const n = debugRegister(i);
  generalDetect(i);
  interceptRegister(i, InterceptWord.DR, 16, SvmExit.DR_WRITE);
  const value = i.unsigned(1);
  f.if(n.ltU(4), () => f.store64(n.shl(3), value, S.dr), () => {
    i.faultIf(value.shrU(32).ne(0), Vector.GP, 0);
    f.if(
      n.eq(6),
      () => S.dr6.set(f, value.and(0xe00f).or(DR6_FIXED)),
      () => {
        S.dr7.set(f, value.and(0xffff_2bff).or(DR7_FIXED));
        f.call(mc.updateMode);
      },
    );
  });
});

/** Bits of DR6 that read as ones. */
const DR6_FIXED = 0xffff_0ff0;
/** Bit of DR7 that reads as one. */
const DR7_FIXED = 0x400;

const clts = ended((i) => {
  const { f } = i;
  privileged(i);
  intercept(i, InterceptWord.CR, 0x1_0000, SvmExit.CR_WRITE);
  S.cr0.set(f, S.cr0.get(f).and(~Cr0.TS));
});

const smsw = ended((i) => {
  const { f } = i;
  checkUmip(i);
  intercept(i, InterceptWord.CR, 1, SvmExit.CR_READ);
  i.write(0, S.cr0.get(f));
}, { operandSize: true });

/** LMSW sets PE, MP, EM and TS, and cannot clear PE. */
const lmsw = ended((i) => {
  const { f, mc } = i;
  privileged(i);
  const source = i.unsigned(0).and(15);
  intercept(i, InterceptWord.CR, 0x1_0000, SvmExit.CR_WRITE);
  // LMSW takes the selective intercept whatever it changes.
  intercept(i, InterceptWord.MISC1, Misc1.CR0_SEL_WRITE, SvmExit.CR0_SEL_WRITE);
  const old = S.cr0.get(f);
  i.spill();
  f.call(mc.writeCr0, old.and(~0xe).or(source));
});

// Descriptor tables.

const storeTable = (base: Field64, limit: I32Field, bit: number, code: number): Semantics =>
  ended((i) => {
    const { f } = i;
    checkUmip(i);
    intercept(i, InterceptWord.MISC1, bit, code);
    const bits = i.width(0);
    i.store(16, i.addressAt(i64(0), 2, 1), limit.get(f).extendU());
    i.store(bits, i.addressAt(i64(2), bits / 8, 1), base.get(f));
  }, { addressSize: true });

type I32Field = { get(f: Instruction["f"]): I32; set(f: Instruction["f"], value: I32): void };

const loadTable = (base: Field64, limit: I32Field, bit: number, code: number): Semantics =>
  ended((i) => {
    const { f } = i;
    privileged(i);
    intercept(i, InterceptWord.MISC1, bit, code);
    const bits = i.width(0);
    const newLimit = i.load(16, i.addressAt(i64(0), 2, 0)).wrap();
    const wide = i.load(bits, i.addressAt(i64(2), bits / 8, 0));
    // With 16-bit operands only 24 bits of the base count.
    const newBase = i.form.bits === 16 ? wide.and(0xff_ffff) : wide;
    if (i.code === 64) {
      i.faultIf(newBase.shl(16).shrS(16).ne(newBase), Vector.GP, 0);
    }
    limit.set(f, newLimit);
    base.set(f, newBase);
  }, { addressSize: true, operandSize: true });

const storeSelector = (segment: number, bit: number, code: number): Semantics =>
  ended((i) => {
    const { f } = i;
    protectedOnly(i);
    checkUmip(i);
    intercept(i, InterceptWord.MISC1, bit, code);
    const selector = f.load32(0, segmentAddress(segment) + SegmentField.SELECTOR).extendU();
    if (i.isMemory(0)) i.store(16, i.address(2, 1), selector);
    else i.write(0, selector);
  });

const lldt = ended((i) => {
  protectedOnly(i);
  privileged(i);
  const selector = i.unsigned(0).wrap();
  intercept(i, InterceptWord.MISC1, Misc1.LDTR_WRITE, SvmExit.LDTR_WRITE);
  i.spill();
  i.f.call(i.mc.loadLdt, selector);
});

const ltr = ended((i) => {
  protectedOnly(i);
  privileged(i);
  const selector = i.unsigned(0).wrap();
  intercept(i, InterceptWord.MISC1, Misc1.TR_WRITE, SvmExit.TR_WRITE);
  i.spill();
  i.f.call(i.mc.loadTask, selector);
});

/** Sets ZF alone. */
function setZero(i: Instruction, zero: I32): void {
  i.flagsValue(i.flagBits().and(~Rflags.ZF).or(zero.select(i32(Rflags.ZF), i32(0))));
}

/** Looks a descriptor up without faulting: `found` gets it if the selector is inside its table. */
function lookUp(i: Instruction, selector: I32, found: (descriptor: I64) => void): void {
  const { f, mc } = i;
  const ldtr = segmentAddress(Seg.LDTR);
  const local = selector.and(4).ne(0);
  const usable = f.load32(0, ldtr + SegmentField.ATTRIBUTES).and(Attr.P).ne(0);
  const limit = local.select(f.load32(0, ldtr + SegmentField.LIMIT), S.gdtLimit.get(f));
  const base = local.select(f.load64(0, ldtr + SegmentField.BASE), S.gdtBase.get(f));
  const inside = selector.and(0xfffc).ne(0)
    .and(local.eqz().or(usable))
    .and(selector.or(7).leU(limit));
  f.if(inside, () => {
    found(f.call(mc.systemLoad, base.add(selector.and(0xfff8).extendU()), 64));
  });
}

const bitSet = (types: readonly number[]): number =>
  types.reduce((set, type) => set | (1 << type), 0);

/** System types LSL accepts: those with a limit. */
const WITH_LIMIT: readonly number[] = [
  SystemType.TSS16_AVAILABLE,
  SystemType.LDT,
  SystemType.TSS16_BUSY,
  SystemType.TSS32_AVAILABLE,
  SystemType.TSS32_BUSY,
];
/** System types LAR accepts besides. */
const GATES: readonly number[] = [
  SystemType.CALL_GATE16,
  SystemType.TASK_GATE,
  SystemType.CALL_GATE32,
];
/** 16-bit types do not exist in long mode. */
const NOT_LONG: readonly number[] = [
  SystemType.TSS16_AVAILABLE,
  SystemType.TSS16_BUSY,
  SystemType.CALL_GATE16,
  SystemType.TASK_GATE,
];

/** LAR and LSL: loads what `value` makes of the descriptor if it may be seen, and sets ZF. */
const loadFromDescriptor = (
  types: readonly number[],
  value: (descriptor: I64) => I64,
): Semantics =>
  ended((i) => {
    const { f } = i;
    protectedOnly(i);
    const selector = i.unsigned(1).wrap();
    i.spill();
    const visible = f.variable(I32T, 0);
    const result = f.variable(I64T, 0);
    lookUp(i, selector, (descriptor) => {
      const type = typeOf(descriptor);
      const dpl = dplOf(descriptor);
      const cpl = S.cpl.get(f);
      const segment = descriptor.has(Descriptor.S);
      const longTypes = types.filter((t) => !NOT_LONG.includes(t));
      const allowed = S.efer.has(f, Efer.LMA).select(i32(bitSet(longTypes)), i32(bitSet(types)));
      const system = allowed.shrU(type).and(1);
      const conforming = segment.and(type.and(Attr.CODE | Attr.EXPAND_DOWN).eq(12));
      const reachable = conforming.or(dpl.geU(cpl).and(dpl.geU(selector.and(3))));
      visible.set(segment.or(system).and(reachable));
      result.set(value(descriptor));
    });
    f.if(visible.get(), () => i.write(0, result.get()));
    setZero(i, visible.get());
  });

const lar = loadFromDescriptor(
  [...WITH_LIMIT, ...GATES],
  (descriptor) => descriptor.shrU(32).and(0x00ff_ff00),
);
const lsl = loadFromDescriptor(WITH_LIMIT, (descriptor) => limitOf(descriptor).extendU());

/** VERR and VERW. */
const verify = (write: boolean): Semantics =>
  ended((i) => {
    const { f } = i;
    protectedOnly(i);
    const selector = i.unsigned(0).wrap();
    i.spill();
    const fits = f.variable(I32T, 0);
    lookUp(i, selector, (descriptor) => {
      const attributes = attributesOf(descriptor);
      const code = attributes.and(Attr.CODE).ne(0);
      const bit1 = attributes.and(Attr.WRITABLE).ne(0);
      const dpl = dplOf(descriptor);
      const reachable = dpl.geU(S.cpl.get(f)).and(dpl.geU(selector.and(3)));
      const conforming = code.and(attributes.and(Attr.EXPAND_DOWN).ne(0));
      const segment = descriptor.has(Descriptor.S);
      fits.set(
        write
          ? segment.and(code.eqz()).and(bit1).and(reachable)
          : segment.and(code.eqz().or(bit1)).and(conforming.or(reachable)),
      );
    });
    setZero(i, fits.get());
  });

const arpl: Semantics = {
  code: true,
  emit: (i) => {
    protectedOnly(i);
    const source = i.unsigned(1);
    const value = i.modifyUnsigned(0);
    const lower = value.and(3).ltU(source.and(3));
    i.write(0, lower.select(value.and(~3).or(source.and(3)), value));
    setZero(i, lower);
  },
};

// MSRs, time, identification.

const rdmsr = ended((i) => {
  const { f, mc } = i;
  privileged(i);
  const index = i.reg(Reg.RCX, 32).wrap();
  interceptMsr(i, index, 0);
  i.spill();
  i.faultIf(f.call(mc.readMsr, index).eqz(), Vector.GP, 0);
  i.setReg(Reg.RAX, 32, f.load32(0, S.exchange).extendU());
  i.setReg(Reg.RDX, 32, f.load32(0, S.exchange + 4).extendU());
});

const wrmsr = ended((i) => {
  const { f, mc } = i;
  privileged(i);
  const index = i.reg(Reg.RCX, 32).wrap();
  interceptMsr(i, index, 1);
  i.spill();
  f.store32(0, i.reg(Reg.RAX, 32).wrap(), S.exchange);
  f.store32(0, i.reg(Reg.RDX, 32).wrap(), S.exchange + 4);
  i.faultIf(f.call(mc.writeMsr, index).eqz(), Vector.GP, 0);
});

function interceptMsr(i: Instruction, index: I32, write: number): void {
  const { f, mc } = i;
  const guarded = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.MSR).ne(0));
  f.if(
    guarded,
    () => {
      f.if(f.call(mc.msrIntercepted, index, write), () => {
        exitGuest(i, i32(SvmExit.MSR), write);
      });
    },
    undefined,
    "unlikely",
  );
}

/** CR4.TSD keeps RDTSC from anyone but CPL 0. */
function checkTsd(i: Instruction): void {
  const { f } = i;
  i.faultIf(S.cr4.has(f, Cr4.TSD).and(S.cpl.get(f).ne(0)), Vector.GP, 0);
}

function readTime(i: Instruction): void {
  i.spill();
  const now = i.f.call(i.mc.readTsc);
  i.setReg(Reg.RAX, 32, now.and(0xffff_ffff));
  i.setReg(Reg.RDX, 32, now.shrU(32));
}

const rdtsc = ended((i) => {
  checkTsd(i);
  intercept(i, InterceptWord.MISC1, Misc1.RDTSC, SvmExit.RDTSC);
  readTime(i);
});

const rdtscp = ended((i) => {
  checkTsd(i);
  intercept(i, InterceptWord.MISC2, Misc2.RDTSCP, SvmExit.RDTSCP);
  readTime(i);
  i.setReg(Reg.RCX, 32, S.tscAux.get(i.f));
});

const cpuid = ended((i) => {
  const { f, mc } = i;
  intercept(i, InterceptWord.MISC1, Misc1.CPUID, SvmExit.CPUID);
  i.outside(() => f.call(mc.cpuid, i.reg(Reg.RAX, 32).wrap(), i.reg(Reg.RCX, 32).wrap()));
  for (const [k, n] of [Reg.RAX, Reg.RBX, Reg.RCX, Reg.RDX].entries()) {
    i.setReg(n, 32, f.load32(0, S.exchange + 4 * k).extendU());
  }
});

// Interrupt flag, halting, caches.

/** CLI and STI need CPL at most IOPL; in virtual-8086 mode IOPL 3. */
function checkIopl(i: Instruction): void {
  const { f } = i;
  const flags = S.rflags.get(f);
  const iopl = flags.shrU(12).wrap().and(3);
  const inProtected = S.cr0.has(f, Cr0.PE);
  i.faultIf(inProtected.and(S.cpl.get(f).gtU(iopl)), Vector.GP, 0);
}

const cli: Semantics = {
  emit: (i) => {
    checkIopl(i);
    S.rflags.set(i.f, S.rflags.get(i.f).and(~Rflags.IF));
  },
};

/** STI holds interrupts off for one more instruction if they were disabled. */
const sti = ended((i) => {
  const { f } = i;
  checkIopl(i);
  f.if(S.rflags.has(f, Rflags.IF).eqz(), () => {
    S.rflags.set(f, S.rflags.get(f).or(Rflags.IF));
    i.event(Event.SHADOW_NEW);
  });
});

const hlt = ended((i) => {
  privileged(i);
  intercept(i, InterceptWord.MISC1, Misc1.HLT, SvmExit.HLT);
  i.event(Event.HALTED);
});

const pause = ended((i) => intercept(i, InterceptWord.MISC1, Misc1.PAUSE, SvmExit.PAUSE));

const cacheControl = (word: number, mask: number, code: number): Semantics =>
  ended((i) => {
    privileged(i);
    intercept(i, word, mask, code);
  });

/** CLFLUSH: nothing is cached, but the address must be readable. */
const clflush: Semantics = {
  emit: (i) => {
    i.load(8, i.address(1, 0));
  },
};

const invlpg = ended((i) => {
  privileged(i);
  const { f, mc } = i;
  const offset = i.offset();
  // The linear address, without checks: INVLPG of an address nobody may use does nothing.
  const base = f.load64(i.segment().mul(SEGMENT_BYTES), S.segments + SegmentField.BASE);
  const linear = i.code !== 64
    ? offset.add(base).and(0xffff_ffff)
    : offset.add(i.segment().geU(Seg.FS).select(base, i64(0)));
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.INVLPG).ne(0));
  f.if(wanted, () => exitGuest(i, i32(SvmExit.INVLPG), linear), undefined, "unlikely");
  f.call(mc.flushPage, linear);
});

/** RSM outside of system-management mode, which does not exist here. */
const rsm = ended((i) => {
  intercept(i, InterceptWord.MISC1, Misc1.RSM, SvmExit.RSM);
  i.raise(Vector.UD);
});

// 64-bit bases, SMAP, system calls.

const swapgs = ended((i) => {
  const { f } = i;
  privileged(i);
  const at = segmentAddress(Seg.GS) + SegmentField.BASE;
  const base = f.load64(0, at);
  f.store64(0, S.kernelGsBase.get(f), at);
  S.kernelGsBase.set(f, base);
});

function checkFsgsbase(i: Instruction): void {
  i.faultIf(S.cr4.has(i.f, Cr4.FSGSBASE).eqz(), Vector.UD);
}

const readBase = (segment: number): Semantics => ({
  emit: (i) => {
    checkFsgsbase(i);
    i.write(0, i.f.load64(0, segmentAddress(segment) + SegmentField.BASE));
  },
});

const writeBase = (segment: number): Semantics => ({
  emit: (i) => {
    checkFsgsbase(i);
    const base = i.unsigned(0);
    i.faultIf(base.shl(16).shrS(16).ne(base), Vector.GP, 0);
    i.f.store64(0, base, segmentAddress(segment) + SegmentField.BASE);
  },
});

const setAc = (value: boolean): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    i.faultIf(S.cpl.get(f).ne(0).or(S.mode.has(f, Mode.REAL)), Vector.UD);
    const flags = S.rflags.get(f);
    S.rflags.set(f, value ? flags.or(Rflags.AC) : flags.and(~Rflags.AC));
    f.call(mc.updateMode);
  });

const microcoded = (emit: (i: Instruction) => void): Semantics => ({
  operandSize: true,
  ends: true,
  emit: (i) => {
    i.spillOnce();
    emit(i);
    i.leaveAsIs();
  },
});

/** WAIT: #NM if the coprocessor is marked as switched out. */
const fwait: Semantics = {
  emit: (i) => {
    const both = Cr0.MP | Cr0.TS;
    i.faultIf(S.cr0.get(i.f).and(both).eq(both), Vector.NM);
  },
};

/** System instructions by mnemonic. */
export const SYSTEM: Readonly<Record<string, Semantics>> = {
  MOVFROMCR: movFromCr,
  MOVTOCR: movToCr,
  MOVFROMDR: movFromDr,
  MOVTODR: movToDr,
  CLTS: clts,
  SMSW: smsw,
  LMSW: lmsw,
  SGDT: storeTable(S.gdtBase, S.gdtLimit, Misc1.GDTR_READ, SvmExit.GDTR_READ),
  SIDT: storeTable(S.idtBase, S.idtLimit, Misc1.IDTR_READ, SvmExit.IDTR_READ),
  LGDT: loadTable(S.gdtBase, S.gdtLimit, Misc1.GDTR_WRITE, SvmExit.GDTR_WRITE),
  LIDT: loadTable(S.idtBase, S.idtLimit, Misc1.IDTR_WRITE, SvmExit.IDTR_WRITE),
  SLDT: storeSelector(Seg.LDTR, Misc1.LDTR_READ, SvmExit.LDTR_READ),
  STR: storeSelector(Seg.TR, Misc1.TR_READ, SvmExit.TR_READ),
  LLDT: lldt,
  LTR: ltr,
  LAR: lar,
  LSL: lsl,
  VERR: verify(false),
  VERW: verify(true),
  ARPL: arpl,
  RSM: rsm,
  RDMSR: rdmsr,
  WRMSR: wrmsr,
  RDTSC: rdtsc,
  RDTSCP: rdtscp,
  CPUID: cpuid,
  CLI: cli,
  STI: sti,
  HLT: hlt,
  PAUSE: pause,
  INVD: cacheControl(InterceptWord.MISC1, Misc1.INVD, SvmExit.INVD),
  WBINVD: cacheControl(InterceptWord.MISC2, Misc2.WBINVD, SvmExit.WBINVD),
  CLFLUSH: clflush,
  INVLPG: invlpg,
  SWAPGS: swapgs,
  RDFSBASE: readBase(Seg.FS),
  RDGSBASE: readBase(Seg.GS),
  WRFSBASE: writeBase(Seg.FS),
  WRGSBASE: writeBase(Seg.GS),
  CLAC: setAc(false),
  STAC: setAc(true),
  FWAIT: fwait,
  SYSCALL: microcoded((i) => i.f.call(i.mc.systemCall, i.nextRip())),
  SYSRET: microcoded((i) => i.f.call(i.mc.systemReturn, i.bits)),
  SYSENTER: microcoded((i) => i.f.call(i.mc.systemEnter)),
  SYSEXIT: microcoded((i) => i.f.call(i.mc.systemExit)),
};
