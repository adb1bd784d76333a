/**
 * VMRUN's consistency checks (APM vol. 2, 15.5.1): what makes a VMCB illegal; and what it loads of a VMCB
 * that the clean bits do not say is cached (15.15). What is cached has been checked.
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { canonicalized } from "../memory/canonical.ts";
import { CetControl } from "../microcode/cet.ts";
import { validCetControl } from "../microcode/cet_msr.ts";
import { CR0_WRITABLE, reservedCr4 } from "../microcode/control.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { EFER_IMPLEMENTED, validPat } from "../microcode/msr.ts";
import { EventFormat, Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Dr6, Dr7, Efer, Rflags } from "../microcode/registers.ts";
import { Attr, S, SEGMENT_BYTES, SegmentField } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64 } from "../wasm/mod.ts";
import { AVIC_PHYSICAL_MAX_INDEX, AvicMaxId } from "./avic/layout.ts";
import { SvmFeature, SvmFeature2 } from "./features.ts";
import { InterceptWord, Misc1, Misc2 } from "./intercepts.ts";
import { Clean, Control, IntControl, Save, SaveSegment } from "./vmcb.ts";
import { CET_STATE, Image } from "./world_image.ts";

/**
 * Bytes of the I/O and MSR permission maps. The I/O map has a bit for each of 64 Ki ports, and three
 * more for an access that begins in the last.
 */
const IOPM_BYTES = 0x2001;
const MSRPM_BYTES = 0x2000;

/** Segments in the order in which they stand in the state. */
const SEGMENTS: readonly number[] = [Save.ES, Save.CS, Save.SS, Save.DS];

/**
 * Vectors below 32 that are no exception of any processor here, so that type 3 cannot inject them: 2 is the
 * NMI's, 29 (#VC) belongs to SEV-ES. 21 (#CP) is one where there are shadow stacks.
 */
const NOT_EXCEPTIONS: number = [2, 9, 15, 20, 22, 23, 24, 25, 26, 27, 29, 31]
  .reduce((set, vector) => set | (1 << vector), 0);

/**
 * Loads the groups of `dirty` (`Clean`) from the VMCB at memory address `vmcb` into the cached state, and
 * yields 1 if there is something illegal in them, alone or together with what is cached. Where that is so
 * the cache is of no more use.
 */
export function loadGroups(f: FunctionBuilder, vmcb: I32, dirty: I32, nested: I32): I32 {
  const get = (offset: number): I64 => f.load64(vmcb, offset);
  const image = S.guestImage;
  const put = (at: number, value: I64): void => f.store64(0, value, image + at);
  const illegal = f.variable(I32T, 0);
  const refuse = (...checks: I32[]): void =>
    illegal.set(checks.reduce((any, check) => any.or(check), illegal.get()));
  const group = (bits: number, then: () => void): void => f.if(dirty.and(bits), then);
  const physicalBits = S.physicalBits.get(f).extendU();
  const notImplemented = (bits: number): bigint => ~BigInt(bits);
  // Illegal is a map that extends to an address "greater than or equal to" the limit (15.5.1). That is
  // taken of the address behind it: a map that ends exactly at the limit extends to it, which is what
  // kvm-unit-tests expect of processors.
  const beyond = (address: I64, bytes: number): I32 =>
    address.and(~0xfff).add(bytes).shrU(physicalBits).ne(0);

  group(Clean.INTERCEPTS, () => {
    refuse(f.load32(vmcb, InterceptWord.MISC2).and(Misc2.VMRUN).eqz());
    for (let at = 0; at < 24; at += 8) f.store64(0, get(at), S.cachedIntercepts + at);
    S.cachedTscOffset.set(f, get(Control.TSC_OFFSET));
  });
  group(Clean.PERMISSION_MAPS, () => {
    const [io, msr] = [get(Control.IOPM_BASE_PA), get(Control.MSRPM_BASE_PA)];
    refuse(beyond(io, IOPM_BYTES), beyond(msr, MSRPM_BYTES));
    S.iopm.set(f, io.and(~0xfff));
    S.msrpm.set(f, msr.and(~0xfff));
  });
  group(Clean.NESTED, () => {
    const [cr3, pat] = [get(Control.N_CR3), get(Save.G_PAT)];
    refuse(nested.and(cr3.shrU(physicalBits).ne(0).or(validPat(pat).eqz())));
    S.nestedCr3.set(f, cr3);
    put(Image.PAT, pat);
  });
  group(Clean.CONTROL_REGISTERS, () => {
    const [efer, cr0] = [get(Save.EFER), get(Save.CR0)];
    const [cr3, cr4] = [get(Save.CR3), get(Save.CR4)];
    const longEnabled = efer.has(Efer.LME).and(cr0.has(Cr0.PG));
    refuse(
      efer.has(Efer.SVME).eqz(),
      efer.has(notImplemented(EFER_IMPLEMENTED)),
      cr0.has(Cr0.CD).eqz().and(cr0.has(Cr0.NW)),
      cr0.shrU(32).ne(0),
      cr3.shrU(physicalBits).ne(0),
      cr4.and(reservedCr4(f)).ne(0),
      cr4.has(Cr4.CET).and(cr0.has(Cr0.WP).eqz()),
      longEnabled.and(cr4.has(Cr4.PAE).eqz()),
      longEnabled.and(cr0.has(Cr0.PE).eqz()),
    );
    // Bits of CR0 that do not exist read as they always do, and EFER.LMA follows from LME and CR0.PG, as it
    // does everywhere else: the manual checks LME and PG and says nothing of an LMA that contradicts them.
    put(Image.CR0, cr0.and(CR0_WRITABLE).or(Cr0.ET));
    put(Image.CR3, cr3);
    put(Image.CR4, cr4);
    put(Image.EFER, efer.and(~Efer.LMA).or(longEnabled.select(i64(Efer.LMA), i64(0))));
  });
  group(Clean.DEBUG_REGISTERS, () => {
    const [dr6, dr7] = [get(Save.DR6), get(Save.DR7)];
    refuse(dr6.shrU(32).ne(0), dr7.shrU(32).ne(0));
    put(Image.DR6, dr6.and(Dr6.WRITABLE).or(Dr6.FIXED));
    put(Image.DR7, dr7.and(Dr7.WRITABLE).or(Dr7.FIXED));
  });
  group(Clean.TABLES, () => {
    const limit = (table: number): I32 => f.load32(vmcb, table + SaveSegment.LIMIT).and(0xffff);
    const base = (table: number): I64 => canonicalized(f, get(table + SaveSegment.BASE));
    f.store32(0, limit(Save.GDTR), image + Image.GDT_LIMIT);
    f.store32(0, limit(Save.IDTR), image + Image.IDT_LIMIT);
    put(Image.GDT_BASE, base(Save.GDTR));
    put(Image.IDT_BASE, base(Save.IDTR));
  });
  group(Clean.SEGMENTS, () => {
    // Bases are sign-extended from the highest bit that is translated, not checked (15.5.1).
    SEGMENTS.forEach((offset, k) => {
      const at = image + Image.SEGMENTS + k * SEGMENT_BYTES;
      const first = f.load32(vmcb, offset);
      f.store32(0, first.and(0xffff), at + SegmentField.SELECTOR);
      f.store32(0, first.shrU(16).and(0xfff), at + SegmentField.ATTRIBUTES);
      f.store32(0, f.load32(vmcb, offset + SaveSegment.LIMIT), at + SegmentField.LIMIT);
      const base = canonicalized(f, get(offset + SaveSegment.BASE));
      f.store64(0, base, at + SegmentField.BASE);
    });
    f.store32(0, f.load8(vmcb, Save.CPL).and(3), image + Image.CPL);
  });
  group(Clean.CET, () => {
    f.if(
      S.features.has(f, MicrocodeFeature.SHSTK),
      () => {
        const control = get(Save.S_CET);
        refuse(validCetControl(f, control).eqz());
        put(CET_STATE + (S.sCet.address - S.ssp.address), control);
        put(CET_STATE, canonicalized(f, get(Save.SSP)));
        const table = CET_STATE + (S.sspTable.address - S.ssp.address);
        put(table, canonicalized(f, get(Save.ISST_ADDR)));
      },
      undefined,
      "unlikely",
    );
  });
  group(Clean.CR2, () => put(Image.CR2, get(Save.CR2)));
  group(Clean.SEGMENTS | Clean.CONTROL_REGISTERS, () => {
    const both = codeAttributes(f).and(Attr.L | Attr.DB).eq(Attr.L | Attr.DB);
    refuse(longActive(f).and(both));
    // What segments may be used for is worked out anew.
    f.store32(0, 2, image + Image.USES);
  });
  return illegal.get();
}

/** Attributes of CS, and 1 if long mode is active, in the cached state. */
function codeAttributes(f: FunctionBuilder): I32 {
  const at = S.guestImage + Image.SEGMENTS + SEGMENT_BYTES;
  return f.load32(0, at + SegmentField.ATTRIBUTES);
}
function longActive(f: FunctionBuilder): I32 {
  return f.load32(0, S.guestImage + Image.EFER).and(Efer.LMA).ne(0);
}

/** 1 if there is something illegal in what no clean bit covers, alone or together with the cached state. */
export function illegalOthers(mc: Microcode, f: FunctionBuilder, vmcb: I32, nested: I32): I32 {
  const control = f.load32(vmcb, Control.INT_CONTROL);
  const misc1 = f.load32(0, S.cachedIntercepts + InterceptWord.MISC1);
  const code64 = longActive(f).and(codeAttributes(f).and(Attr.L).ne(0));
  const virtualNmi = control.and(IntControl.V_NMI_ENABLE).ne(0)
    .and(S.svmFeatures.has(f, SvmFeature.VNMI));
  const illegal = f.variable(
    I32T,
    f.load32(vmcb, Control.ASID).eqz()
      .or(illegalEvent(f, f.load32(vmcb, Control.EVENTINJ), code64))
      .or(nested.and(S.cr0.has(f, Cr0.PG).eqz()))
      .or(virtualNmi.and(misc1.and(Misc1.NMI).eqz())),
  );
  // There is no shadow stack in virtual-8086 mode.
  f.if(
    f.load32(0, S.guestImage + Image.CR4).and(Cr4.CET),
    () => {
      const virtual = f.load64(vmcb, Save.RFLAGS).has(Rflags.VM);
      const on = S.uCet.has(f, CetControl.SHADOW_STACK);
      illegal.set(illegal.get().or(virtual.and(on)));
    },
    undefined,
    "unlikely",
  );
  f.if(
    control.and(IntControl.AVIC | IntControl.X2AVIC),
    () => illegal.set(illegal.get().or(illegalAvic(mc, f, vmcb, nested.ne(0)))),
    undefined,
    "unlikely",
  );
  return illegal.get();
}

/**
 * 1 if EVENTINJ asks for an event that cannot be (APM vol. 2, 15.20). Of those impossible in a mode the
 * manual names #BR in 64-bit mode (`long`), where BOUND does not exist; nor does INTO, so #OF is refused
 * alike.
 */
function illegalEvent(f: FunctionBuilder, event: I32, long: I32): I32 {
  const vector = event.and(0xff);
  const type = event.and(EventFormat.TYPE);
  const reserved = type.eq(0x100).or(type.geU(0x500));
  const exception = type.eq(EventFormat.EXCEPTION);
  const noCp = vector.eq(Vector.CP).and(S.features.has(f, MicrocodeFeature.SHSTK).eqz());
  const noVector = vector.gtU(31).or(i32(NOT_EXCEPTIONS).shrU(vector).and(1)).or(noCp);
  const noInstruction = long.and(vector.eq(Vector.OF).or(vector.eq(Vector.BR)));
  return event.shrU(31).and(reserved.or(exception.and(noVector.or(noInstruction))));
}

/**
 * 1 if AVIC is asked for in a way that cannot be (APM vol. 2, 15.29.2–15.29.5). The manual names no exit
 * code for these, so they are taken to be among the illegal states. It also says that AVIC needs nested
 * paging and not what happens without; that is refused as well, and so is a backing page in no memory.
 */
function illegalAvic(mc: Microcode, f: FunctionBuilder, vmcb: I32, nested: I32): I32 {
  const control = f.load32(vmcb, Control.INT_CONTROL);
  const has = (bit: number): I32 => S.svmFeatures.has(f, bit);
  const avic = control.and(IntControl.AVIC).ne(0);
  const x2 = control.and(IntControl.X2AVIC).ne(0);
  const extended = S.svmFeatures2.has(f, SvmFeature2.X2AVIC_EXT);
  const get = (offset: number): I64 => f.load64(vmcb, offset);
  const pointer = (address: I64): I32 =>
    address.and(0xfff).ne(0).or(address.shrU(S.physicalBits.get(f).extendU()).ne(0));
  const table = get(Control.AVIC_PHYSICAL_TABLE);
  const index = table.wrap().and(AVIC_PHYSICAL_MAX_INDEX);
  const highest = x2.select(
    extended.select(i32(AvicMaxId.X2AVIC_EXTENDED), i32(AvicMaxId.X2AVIC)),
    // 255 is not a guest's, but may be the last index: its entry is reserved.
    i32(AvicMaxId.XAVIC + 1),
  );
  const xavicPointers = pointer(get(Control.AVIC_LOGICAL_TABLE))
    .or(pointer(get(Control.AVIC_APIC_BAR)));
  const wrong = has(SvmFeature.AVIC).eqz()
    .or(nested.eqz())
    .or(index.gtU(highest))
    .or(pointer(get(Control.AVIC_BACKING_PAGE)))
    .or(pointer(table.and(~0xfffn)))
    .or(x2.eqz().and(xavicPointers))
    .or(f.call(mc.physical, get(Control.AVIC_BACKING_PAGE)).eqz());
  return avic.select(wrong.or(x2.and(has(SvmFeature.X2AVIC).eqz())), x2);
}
