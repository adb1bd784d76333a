/**
 * Checks on the VMX controls (SDM vol. 3, 27.2.1).
 *
 * @module
 */
import { ExitControl, Pin, Primary, Secondary, Tertiary, Vmcs } from "../../plugins/cpu/mod.ts";
import { control, type EntryCheck, type VmcsView } from "./vmcs_view.ts";

/** Highest and lowest place in the address space of an MSR list. */
function badList(v: VmcsView, count: number, address: number): boolean {
  const entries = v.at(count);
  if (entries === 0n) return false;
  const at = v.at(address);
  return v.bad(at, 16n) || v.bad(at + 16n * entries - 1n, 1n);
}

function badEptPointer(v: VmcsView): boolean {
  const pointer = v.at(Vmcs.EPT_POINTER);
  const capability = v.capability(0xc);
  const type = pointer & 7n;
  const levels = (pointer >> 3n) & 7n;
  const typeAllowed = (type === 0n && (capability & 0x100n) !== 0n) ||
    (type === 6n && (capability & 0x4000n) !== 0n);
  const levelsAllowed = (levels === 3n && (capability & 0x40n) !== 0n) ||
    (levels === 4n && (capability & 0x80n) !== 0n);
  const flags = ((pointer & 0x40n) !== 0n && (capability & 0x20_0000n) === 0n) ||
    ((pointer & 0x80n) !== 0n && (capability & 0x80_0000n) === 0n);
  return !typeAllowed || !levelsAllowed || flags || (pointer & 0xf00n) !== 0n ||
    pointer >> v.physicalBits !== 0n;
}

const SOFTWARE: ReadonlySet<number> = new Set([4, 5, 6]);

/** All of them. */
export const CONTROL_CHECKS: readonly EntryCheck[] = [
  control("pin-based controls are allowed", (v) => v.refused(Vmcs.PIN_CONTROLS, 0xd)),
  control("primary controls are allowed", (v) => v.refused(Vmcs.PRIMARY_CONTROLS, 0xe)),
  control(
    "secondary controls are allowed",
    (v) => v.primary(Primary.SECONDARY) && v.refused(Vmcs.SECONDARY_CONTROLS, 0xb),
  ),
  control(
    "tertiary controls are allowed",
    (v) =>
      v.primary(Primary.TERTIARY) &&
      v.has(Vmcs.TERTIARY_CONTROLS, BigInt.asUintN(64, ~v.capability(0x12))),
  ),
  control(
    "CR3-target count is at most 4",
    (v) => v.at(Vmcs.CR3_TARGET_COUNT) > ((v.capability(5) >> 16n) & 0x1ffn),
  ),
  control(
    "I/O bitmaps",
    (v) =>
      v.primary(Primary.IO_BITMAPS) && (v.badPage(Vmcs.IO_BITMAP_A) || v.badPage(Vmcs.IO_BITMAP_B)),
  ),
  control("MSR bitmap", (v) => v.primary(Primary.MSR_BITMAPS) && v.badPage(Vmcs.MSR_BITMAP)),
  control(
    "virtual-APIC page",
    (v) => v.primary(Primary.TPR_SHADOW) && v.badPage(Vmcs.VIRTUAL_APIC_ADDRESS),
  ),
  control(
    "TPR threshold has 4 bits",
    (v) =>
      v.primary(Primary.TPR_SHADOW) && !v.secondary(Secondary.VIRTUAL_INTERRUPTS) &&
      v.has(Vmcs.TPR_THRESHOLD, 0xffff_fff0),
  ),
  control("TPR threshold is not above VTPR", (v) => {
    if (!v.primary(Primary.TPR_SHADOW) || v.secondary(Secondary.VIRTUAL_INTERRUPTS)) return false;
    if (v.secondary(Secondary.VIRTUALIZE_APIC_ACCESSES)) return false;
    const vtpr = v.memory((v.at(Vmcs.VIRTUAL_APIC_ADDRESS) & ~0xfffn) + 0x80n) ?? -1n;
    return (v.at(Vmcs.TPR_THRESHOLD) & 15n) > ((vtpr >> 4n) & 15n);
  }),
  control("virtual NMIs need NMI exiting", (v) => !v.pin(Pin.NMI) && v.pin(Pin.VIRTUAL_NMIS)),
  control(
    "NMI-window exiting needs virtual NMIs",
    (v) => !v.pin(Pin.VIRTUAL_NMIS) && v.primary(Primary.NMI_WINDOW),
  ),
  control(
    "APIC-access page",
    (v) => v.secondary(Secondary.VIRTUALIZE_APIC_ACCESSES) && v.badPage(Vmcs.APIC_ACCESS_ADDRESS),
  ),
  control(
    "the virtual APIC needs the TPR shadow",
    (v) =>
      !v.primary(Primary.TPR_SHADOW) &&
      (v.secondary(Secondary.VIRTUALIZE_X2APIC) || v.secondary(Secondary.APIC_REGISTERS) ||
        v.secondary(Secondary.VIRTUAL_INTERRUPTS) || v.tertiary(Tertiary.IPI_VIRTUALIZATION)),
  ),
  control(
    "x2APIC mode excludes virtualized APIC accesses",
    (v) =>
      v.secondary(Secondary.VIRTUALIZE_X2APIC) && v.secondary(Secondary.VIRTUALIZE_APIC_ACCESSES),
  ),
  control(
    "virtual interrupts need external-interrupt exiting",
    (v) => v.secondary(Secondary.VIRTUAL_INTERRUPTS) && !v.pin(Pin.EXTERNAL_INTERRUPT),
  ),
  control(
    "posted interrupts need virtual interrupts",
    (v) => v.pin(Pin.POSTED_INTERRUPTS) && !v.secondary(Secondary.VIRTUAL_INTERRUPTS),
  ),
  control(
    "posted interrupts need acknowledging on exit",
    (v) => v.pin(Pin.POSTED_INTERRUPTS) && !v.exit(ExitControl.ACKNOWLEDGE_INTERRUPT),
  ),
  control(
    "posted-interrupt vector has 8 bits",
    (v) => v.pin(Pin.POSTED_INTERRUPTS) && v.has(Vmcs.POSTED_INTERRUPT_VECTOR, 0xff00),
  ),
  control(
    "posted-interrupt descriptor",
    (v) => v.pin(Pin.POSTED_INTERRUPTS) && v.bad(v.at(Vmcs.POSTED_INTERRUPT_DESCRIPTOR), 64n),
  ),
  control("VPID is not 0", (v) => v.secondary(Secondary.VPID) && v.at(Vmcs.VPID) === 0n),
  control("EPT pointer", (v) => v.secondary(Secondary.EPT) && badEptPointer(v)),
  control("PML needs EPT", (v) => v.secondary(Secondary.PML) && !v.secondary(Secondary.EPT)),
  control("PML page", (v) => v.secondary(Secondary.PML) && v.badPage(Vmcs.PML_ADDRESS)),
  control("unrestricted guests need EPT", (v) => v.unrestricted && !v.secondary(Secondary.EPT)),
  control(
    "mode-based execute control needs EPT",
    (v) => v.secondary(Secondary.MODE_BASED_EXECUTE) && !v.secondary(Secondary.EPT),
  ),
  control(
    "VM functions are allowed",
    (v) =>
      v.secondary(Secondary.VM_FUNCTIONS) &&
      v.has(Vmcs.VM_FUNCTION_CONTROLS, BigInt.asUintN(64, ~v.capability(0x11))),
  ),
  control(
    "EPTP switching needs EPT and its list",
    (v) =>
      v.secondary(Secondary.VM_FUNCTIONS) && v.has(Vmcs.VM_FUNCTION_CONTROLS, 1) &&
      (!v.secondary(Secondary.EPT) || v.badPage(Vmcs.EPTP_LIST_ADDRESS)),
  ),
  control(
    "VMREAD and VMWRITE bitmaps",
    (v) =>
      v.secondary(Secondary.SHADOW_VMCS) &&
      (v.badPage(Vmcs.VMREAD_BITMAP) || v.badPage(Vmcs.VMWRITE_BITMAP)),
  ),
  control(
    "TSC multiplier is not 0",
    (v) => v.secondary(Secondary.TSC_SCALING) && v.at(Vmcs.TSC_MULTIPLIER) === 0n,
  ),
  control("PID-pointer table", (v) => {
    if (!v.tertiary(Tertiary.IPI_VIRTUALIZATION)) return false;
    const table = v.at(Vmcs.PID_POINTER_TABLE);
    return v.bad(table, 8n) || v.bad(table + 8n * v.at(Vmcs.LAST_PID_POINTER_INDEX), 1n);
  }),
  control("exit controls are allowed", (v) => v.refused(Vmcs.EXIT_CONTROLS, 0xf)),
  control(
    "saving the preemption timer needs the timer",
    (v) => v.exit(ExitControl.SAVE_TIMER) && !v.pin(Pin.PREEMPTION_TIMER),
  ),
  control(
    "MSR-store list",
    (v) => badList(v, Vmcs.EXIT_MSR_STORE_COUNT, Vmcs.EXIT_MSR_STORE_ADDRESS),
  ),
  control(
    "MSR-load list of exits",
    (v) => badList(v, Vmcs.EXIT_MSR_LOAD_COUNT, Vmcs.EXIT_MSR_LOAD_ADDRESS),
  ),
  control("entry controls are allowed", (v) => v.refused(Vmcs.ENTRY_CONTROLS, 0x10)),
  control(
    "MSR-load list of entries",
    (v) => badList(v, Vmcs.ENTRY_MSR_LOAD_COUNT, Vmcs.ENTRY_MSR_LOAD_ADDRESS),
  ),
  control("event type 1 is reserved", (v) => v.event?.type === 1),
  control("an event of type 7 has vector 0", (v) => v.event?.type === 7 && v.event.vector !== 0),
  control("an NMI has vector 2", (v) => v.event?.type === 2 && v.event.vector !== 2),
  control("an exception has a vector up to 31", (v) => v.event?.type === 3 && v.event.vector > 31),
  control(
    "an error code goes with exceptions in protected mode",
    (v) =>
      v.event !== undefined && v.has(Vmcs.ENTRY_INTERRUPTION_INFO, 0x800) &&
      (v.event.type !== 3 || (v.unrestricted && !v.protectedGuest)),
  ),
  control(
    "reserved bits of the event",
    (v) => v.event !== undefined && v.has(Vmcs.ENTRY_INTERRUPTION_INFO, 0x7fff_f000),
  ),
  control(
    "an error code has 16 bits",
    (v) =>
      v.event !== undefined && v.has(Vmcs.ENTRY_INTERRUPTION_INFO, 0x800) &&
      v.has(Vmcs.ENTRY_EXCEPTION_ERROR, 0xffff_0000),
  ),
  control(
    "an instruction has up to 15 bytes",
    (v) =>
      v.event !== undefined && SOFTWARE.has(v.event.type) &&
      v.at(Vmcs.ENTRY_INSTRUCTION_LENGTH) > 15n,
  ),
];
