/**
 * Descriptor tables: loading and storing their registers, and looking into them with LAR, LSL, VERR,
 * VERW and ARPL (APM vol. 3, ch. 4).
 *
 * @module
 */
import { canonicalForAny } from "../memory/canonical.ts";
import { Vector } from "../microcode/raise.ts";
import { Efer, Rflags } from "../microcode/registers.ts";
import {
  attributesOf,
  Descriptor,
  dplOf,
  limitOf,
  SystemType,
  typeOf,
} from "../microcode/segments.ts";
import { Attr, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import type { Field64 } from "../state/field.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc1 } from "../svm/intercepts.ts";
import { type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { intercept } from "./intercept.ts";
import { checkUmip, ended, privileged, protectedOnly } from "./privilege.ts";

const storeTable = (base: Field64, limit: I32Field, bit: number, code: number): Semantics =>
  ended((i) => {
    const { f, mc } = i;
    checkUmip(i);
    intercept(i, InterceptWord.MISC1, bit, code);
    const bits = i.width(0);
    // Two stores, of which the second must not fault.
    i.spill();
    f.call(mc.probeStore, i.addressAt(i64(0), 2 + bits / 8, 1), 2 + bits / 8);
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
      i.faultIf(canonicalForAny(i.f, newBase).eqz(), Vector.GP, 0);
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
  intercept(i, InterceptWord.MISC1, Misc1.LDTR_WRITE, SvmExit.LDTR_WRITE);
  const selector = i.unsigned(0).wrap();
  i.spill();
  i.f.call(i.mc.loadLdt, selector);
});

const ltr = ended((i) => {
  protectedOnly(i);
  privileged(i);
  intercept(i, InterceptWord.MISC1, Misc1.TR_WRITE, SvmExit.TR_WRITE);
  const selector = i.unsigned(0).wrap();
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

/** Instructions on descriptor tables by mnemonic. */
export const DESCRIPTOR_TABLES: Readonly<Record<string, Semantics>> = {
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
};
