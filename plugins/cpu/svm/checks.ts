/**
 * VMRUN's consistency checks (APM vol. 2, 15.5.1): what makes a VMCB illegal.
 *
 * @module
 */
import { reservedCr4 } from "../microcode/control.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { EFER_IMPLEMENTED, validPat } from "../microcode/msr.ts";
import { EventFormat, Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Efer } from "../microcode/registers.ts";
import { Attr, S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import { AVIC_PHYSICAL_MAX_INDEX, AvicMaxId } from "./avic/layout.ts";
import { SvmFeature, SvmFeature2 } from "./features.ts";
import { InterceptWord, Misc1, Misc2 } from "./intercepts.ts";
import { Control, IntControl, Save, SaveSegment } from "./vmcb.ts";

/**
 * Bytes of the I/O and MSR permission maps. The I/O map has a bit for each of 64 Ki ports, and three
 * more for an access that begins in the last.
 */
const IOPM_BYTES = 0x2001;
const MSRPM_BYTES = 0x2000;

/**
 * Vectors below 32 that are no exception of this processor, so that type 3 cannot inject them: 2 is the
 * NMI's, 21 (#CP) and 29 (#VC) belong to shadow stacks and SEV-ES, which it does not have.
 */
const NOT_EXCEPTIONS: number = [2, 9, 15, 20, 21, 22, 23, 24, 25, 26, 27, 29, 31]
  .reduce((set, vector) => set | (1 << vector), 0);

/** 1 if the VMCB at memory address `vmcb` is illegal. */
export function illegalVmcb(mc: Microcode, f: FunctionBuilder, vmcb: I32): I32 {
  const get = (offset: number): I64 => f.load64(vmcb, offset);
  const efer = get(Save.EFER);
  const cr0 = get(Save.CR0);
  const cr3 = get(Save.CR3);
  const cr4 = get(Save.CR4);
  const csAttributes = f.load16(vmcb, Save.CS + SaveSegment.ATTRIBUTES);
  const physicalBits = S.physicalBits.get(f).extendU();
  // Illegal is a map that extends to an address "greater than or equal to" the limit (15.5.1). That is
  // taken of the address behind it: a map that ends exactly at the limit extends to it, which is what
  // kvm-unit-tests expect of processors.
  const beyond = (address: I64, bytes: number): I32 =>
    address.and(~0xfff).add(bytes).shrU(physicalBits).ne(0);

  const longEnabled = efer.has(Efer.LME).and(cr0.has(Cr0.PG));
  const longCode = csAttributes.and(Attr.L | Attr.DB).eq(Attr.L | Attr.DB);
  const notImplemented = (bits: number): bigint => ~BigInt(bits);
  const checks: I32[] = [
    efer.has(Efer.SVME).eqz(),
    efer.has(notImplemented(EFER_IMPLEMENTED)),
    cr0.has(Cr0.CD).eqz().and(cr0.has(Cr0.NW)),
    cr0.shrU(32).ne(0),
    cr3.shrU(physicalBits).ne(0),
    cr4.and(reservedCr4(f)).ne(0),
    get(Save.DR6).shrU(32).ne(0),
    get(Save.DR7).shrU(32).ne(0),
    longEnabled.and(cr4.has(Cr4.PAE).eqz()),
    longEnabled.and(cr0.has(Cr0.PE).eqz()),
    longEnabled.and(cr4.has(Cr4.PAE)).and(longCode),
    f.load32(vmcb, InterceptWord.MISC2).and(Misc2.VMRUN).eqz(),
    f.load32(vmcb, Control.ASID).eqz(),
    beyond(get(Control.IOPM_BASE_PA), IOPM_BYTES),
    beyond(get(Control.MSRPM_BASE_PA), MSRPM_BYTES),
    illegalEvent(
      f.load32(vmcb, Control.EVENTINJ),
      longEnabled.and(csAttributes.and(Attr.L).ne(0)),
    ),
  ];
  const nested = f.load32(vmcb, Control.NESTED_CONTROL).and(1);
  checks.push(
    nested.and(S.cr0.has(f, Cr0.PG).eqz()),
    nested.and(get(Control.N_CR3).shrU(physicalBits).ne(0)),
    nested.and(validPat(get(Save.G_PAT)).eqz()),
  );
  const virtualNmi = f.load32(vmcb, Control.INT_CONTROL).and(IntControl.V_NMI_ENABLE).ne(0)
    .and(S.svmFeatures.has(f, SvmFeature.VNMI));
  checks.push(
    virtualNmi.and(f.load32(vmcb, InterceptWord.MISC1).and(Misc1.NMI).eqz()),
  );
  checks.push(illegalAvic(mc, f, vmcb, nested.ne(0)));
  return checks.reduce((any, check) => any.or(check));
}

/**
 * 1 if EVENTINJ asks for an event that cannot be (APM vol. 2, 15.20). Of those impossible in a mode the
 * manual names #BR in 64-bit mode (`long`), where BOUND does not exist; nor does INTO, so #OF is refused
 * alike.
 */
function illegalEvent(event: I32, long: I32): I32 {
  const vector = event.and(0xff);
  const type = event.and(EventFormat.TYPE);
  const reserved = type.eq(0x100).or(type.geU(0x500));
  const exception = type.eq(EventFormat.EXCEPTION);
  const noVector = vector.gtU(31).or(i32(NOT_EXCEPTIONS).shrU(vector).and(1));
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
