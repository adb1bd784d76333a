/**
 * VM entry's checks on the VMX controls (SDM vol. 3, 27.2.1): one that fails is VMfailValid(7).
 *
 * @module
 */
import { Cr0 } from "../microcode/registers.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { capability, EptVpid, hasCapability, notAllowed, VmxMsr } from "./capabilities.ts";
import { EptPointer, ExitControl, Pin, Primary, Secondary, Tertiary } from "./controls.ts";
import { readField, readField32, Vmcs } from "./fields.ts";
import { illegalAddress } from "./region.ts";

/** Types of events: bits 10:8 of interruption information (table 25-17). */
export const EventType = {
  EXTERNAL: 0,
  RESERVED: 1,
  NMI: 2,
  EXCEPTION: 3,
  SOFTWARE: 4,
  PRIVILEGED_EXCEPTION: 5,
  SOFTWARE_EXCEPTION: 6,
  OTHER: 7,
} as const;

const PAGE = 0x1000;
/** Most bytes of an instruction. */
const LONGEST = 15;
/** Largest number of CR3-target values. */
const CR3_TARGETS = 4;
/** Where TPR stands in the virtual-APIC page. */
const VTPR = 0x80;

/** The controls in force with these VMCS settings: secondary and tertiary count only if activated. */
export interface Controls {
  readonly pin: I32;
  readonly primary: I32;
  readonly secondary: I32;
  readonly tertiary: I32;
}

/** Reads the execution controls of the current VMCS. */
export function readControls(f: FunctionBuilder): Controls {
  const primary = readField32(f, Vmcs.PRIMARY_CONTROLS);
  const secondary = readField32(f, Vmcs.SECONDARY_CONTROLS);
  const tertiary = readField32(f, Vmcs.TERTIARY_CONTROLS);
  return {
    pin: readField32(f, Vmcs.PIN_CONTROLS),
    primary,
    secondary: primary.ltS(0).select(secondary, i32(0)),
    tertiary: primary.and(Primary.TERTIARY).ne(0).select(tertiary, i32(0)),
  };
}

const on = (controls: I32, bit: number): I32 => controls.and(bit).ne(0);

/** 1 if `pointer` may not be an EPT pointer on this processor. */
export function illegalEptPointer(f: FunctionBuilder, pointer: I64): I32 {
  const type = pointer.wrap().and(EptPointer.TYPE);
  const levels = pointer.shrU(EptPointer.LEVELS_SHIFT).wrap().and(7);
  const five = levels.eq(4).and(hasCapability(f, VmxMsr.EPT_VPID, EptVpid.LEVELS_5));
  const flags = pointer.has(EptPointer.ACCESSED_DIRTY)
    .and(hasCapability(f, VmxMsr.EPT_VPID, EptVpid.ACCESSED_DIRTY).eqz());
  const shadow = pointer.has(EptPointer.SUPERVISOR_SHADOW_STACK)
    .and(hasCapability(f, VmxMsr.EPT_VPID, EptVpid.SUPERVISOR_SHADOW_STACK).eqz());
  return type.eqz().or(type.eq(6)).eqz()
    .or(levels.eq(3).or(five).eqz())
    .or(flags)
    .or(shadow)
    .or(illegalAddress(f, pointer.and(~0xff), PAGE));
}

/** 1 if a list of `count` 16-byte MSR entries at `address` is not aligned or not in the address space. */
function illegalList(f: FunctionBuilder, count: number, address: number): I32 {
  const entries = readField(f, count);
  const at = readField(f, address);
  const last = at.add(entries.shl(4)).sub(1);
  return entries.ne(0).and(illegalAddress(f, at, 16).or(illegalAddress(f, last, 1)));
}

/** 1 if the controls of the current VMCS, but for what is to be injected, are not consistent. */
export function illegalControls(f: FunctionBuilder, mc: Microcode): I32 {
  const { pin, primary, secondary, tertiary } = readControls(f);
  const exit = readField32(f, Vmcs.EXIT_CONTROLS);
  const page = (encoding: number): I32 => illegalAddress(f, readField(f, encoding), PAGE);
  const shadow = on(primary, Primary.TPR_SHADOW);
  const virtualNmis = on(pin, Pin.VIRTUAL_NMIS);
  const vid = on(secondary, Secondary.VIRTUAL_INTERRUPTS);
  const accesses = on(secondary, Secondary.VIRTUALIZE_APIC_ACCESSES);
  const ept = on(secondary, Secondary.EPT);
  const posted = on(pin, Pin.POSTED_INTERRUPTS);
  const needShadow = Secondary.VIRTUALIZE_X2APIC | Secondary.APIC_REGISTERS |
    Secondary.VIRTUAL_INTERRUPTS;
  const needEpt = Secondary.UNRESTRICTED_GUEST | Secondary.PML | Secondary.MODE_BASED_EXECUTE;
  const both = Secondary.VIRTUALIZE_APIC_ACCESSES | Secondary.VIRTUALIZE_X2APIC;
  const ipi = on(tertiary, Tertiary.IPI_VIRTUALIZATION);
  const table = readField(f, Vmcs.PID_POINTER_TABLE);
  const lastPointer = table.add(readField(f, Vmcs.LAST_PID_POINTER_INDEX).shl(3));
  const functions = readField(f, Vmcs.VM_FUNCTION_CONTROLS);
  const checks: I32[] = [
    notAllowed(f, pin, VmxMsr.TRUE_PIN),
    notAllowed(f, primary, VmxMsr.TRUE_PRIMARY),
    notAllowed(f, secondary, VmxMsr.SECONDARY),
    on(primary, Primary.TERTIARY).and(
      readField(f, Vmcs.TERTIARY_CONTROLS).has(capability(f, VmxMsr.TERTIARY).xor(-1)),
    ),
    readField32(f, Vmcs.CR3_TARGET_COUNT).gtU(CR3_TARGETS),
    on(primary, Primary.IO_BITMAPS).and(page(Vmcs.IO_BITMAP_A).or(page(Vmcs.IO_BITMAP_B))),
    on(primary, Primary.MSR_BITMAPS).and(page(Vmcs.MSR_BITMAP)),
    shadow.and(page(Vmcs.VIRTUAL_APIC_ADDRESS)),
    thresholdCounts(primary, secondary).and(illegalThreshold(f, mc, accesses)),
    on(pin, Pin.NMI).eqz().and(virtualNmis),
    virtualNmis.eqz().and(on(primary, Primary.NMI_WINDOW)),
    accesses.and(page(Vmcs.APIC_ACCESS_ADDRESS)),
    shadow.eqz().and(on(secondary, needShadow).or(ipi)),
    secondary.and(both).eq(both),
    vid.and(on(pin, Pin.EXTERNAL_INTERRUPT).eqz()),
    posted.and(
      vid.eqz()
        .or(on(exit, ExitControl.ACKNOWLEDGE_INTERRUPT).eqz())
        .or(readField(f, Vmcs.POSTED_INTERRUPT_VECTOR).has(0xff00))
        .or(illegalAddress(f, readField(f, Vmcs.POSTED_INTERRUPT_DESCRIPTOR), 64)),
    ),
    on(secondary, Secondary.VPID).and(readField32(f, Vmcs.VPID).eqz()),
    ept.and(illegalEptPointer(f, readField(f, Vmcs.EPT_POINTER))),
    ept.eqz().and(on(secondary, needEpt)),
    on(secondary, Secondary.PML).and(page(Vmcs.PML_ADDRESS)),
    on(secondary, Secondary.VM_FUNCTIONS).and(
      functions.has(capability(f, VmxMsr.VMFUNC).xor(-1))
        .or(functions.has(1).and(ept.eqz().or(page(Vmcs.EPTP_LIST_ADDRESS)))),
    ),
    on(secondary, Secondary.SHADOW_VMCS).and(
      page(Vmcs.VMREAD_BITMAP).or(page(Vmcs.VMWRITE_BITMAP)),
    ),
    on(secondary, Secondary.TSC_SCALING).and(readField(f, Vmcs.TSC_MULTIPLIER).eqz()),
    // The manual asks for no alignment but that of an entry.
    ipi.and(illegalAddress(f, table, 8).or(illegalAddress(f, lastPointer, 1))),
    notAllowed(f, exit, VmxMsr.TRUE_EXIT),
    on(exit, ExitControl.SAVE_TIMER).and(on(pin, Pin.PREEMPTION_TIMER).eqz()),
    illegalList(f, Vmcs.EXIT_MSR_STORE_COUNT, Vmcs.EXIT_MSR_STORE_ADDRESS),
    illegalList(f, Vmcs.EXIT_MSR_LOAD_COUNT, Vmcs.EXIT_MSR_LOAD_ADDRESS),
    notAllowed(f, readField32(f, Vmcs.ENTRY_CONTROLS), VmxMsr.TRUE_ENTRY),
    illegalList(f, Vmcs.ENTRY_MSR_LOAD_COUNT, Vmcs.ENTRY_MSR_LOAD_ADDRESS),
  ];
  return checks.reduce((any, check) => any.or(check));
}

/** 1 if the TPR threshold is in force, which is compared with what is in memory. */
export function thresholdCounts(primary: I32, secondary: I32): I32 {
  return on(primary, Primary.TPR_SHADOW).and(on(secondary, Secondary.VIRTUAL_INTERRUPTS).eqz());
}

/** The TPR threshold has four bits and, where TPR is not in the APIC-access page, is not above TPR. */
function illegalThreshold(f: FunctionBuilder, mc: Microcode, accesses: I32): I32 {
  const threshold = readField32(f, Vmcs.TPR_THRESHOLD);
  const apic = readField(f, Vmcs.VIRTUAL_APIC_ADDRESS);
  const tpr = f.call(mc.readPhysical, apic.and(~0xfff).add(VTPR)).wrap().shrU(4).and(15);
  return threshold.and(~15).ne(0).or(accesses.eqz().and(threshold.and(15).gtU(tpr)));
}

/** 1 if the VM-entry interruption information asks for an event that cannot be (27.2.1.3). */
export function illegalEvent(f: FunctionBuilder, secondary: I32): I32 {
  const event = readField32(f, Vmcs.ENTRY_INTERRUPTION_INFO);
  const vector = event.and(0xff);
  const type = event.shrU(8).and(7);
  const is = (kind: number): I32 => type.eq(kind);
  const withError = event.and(0x800).ne(0);
  const real = on(secondary, Secondary.UNRESTRICTED_GUEST)
    .and(readField(f, Vmcs.GUEST_CR0).has(Cr0.PE).eqz());
  const software = is(EventType.SOFTWARE).or(is(EventType.SOFTWARE_EXCEPTION))
    .or(is(EventType.PRIVILEGED_EXCEPTION));
  const wrong = is(EventType.RESERVED)
    .or(is(EventType.OTHER).and(vector.ne(0)))
    .or(is(EventType.NMI).and(vector.ne(2)))
    .or(is(EventType.EXCEPTION).and(vector.gtU(31)))
    .or(withError.and(is(EventType.EXCEPTION).eqz().or(real)))
    .or(event.and(0x7fff_f000).ne(0))
    .or(withError.and(readField(f, Vmcs.ENTRY_EXCEPTION_ERROR).shrU(16).ne(0)))
    .or(software.and(readField32(f, Vmcs.ENTRY_INSTRUCTION_LENGTH).gtU(LONGEST)));
  return event.ltS(0).and(wrong);
}
