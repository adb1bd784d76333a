/**
 * VM-execution, exit and entry controls: fitted to what the processor allows, and worked out from the
 * state of the vCPU, never changed bit by bit.
 *
 * @module
 */
import {
  EntryControl as ImportedEntryControl,
  ExitControl,
  Pin as ImportedPin,
  Primary as ImportedPrimary,
  Secondary,
  Tertiary as ImportedTertiary,
  Vmcs,
  VmxMsr,
} from "../cpu/mod.ts";
import type { HostCpu } from "./host.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import type { ApicVirtualization, VmxCapabilities } from "./vmx_guest.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Primary = ImportedPrimary;
const Pin = ImportedPin;
const Tertiary = ImportedTertiary;
const EntryControl = ImportedEntryControl;

/** What of a vCPU's state decides on its controls. */
export interface ControlState {
  /** What of its local APIC hardware does. */
  readonly apic: ApicVirtualization;
  /** What can be exchanged. */
  readonly policies: PolicyRefs;
  /** Waiting until the guest can take an interrupt. */
  interruptWindow: boolean;
  /** Waiting until it can take an NMI. */
  nmiWindow: boolean;
  /** EFER.LMA of the guest. */
  longMode: boolean;
}

const PIN = Pin.EXTERNAL_INTERRUPT | Pin.NMI | Pin.VIRTUAL_NMIS;
const PRIMARY = Primary.HLT | Primary.MWAIT | Primary.MONITOR | Primary.RDPMC |
  Primary.UNCONDITIONAL_IO | Primary.MSR_BITMAPS | Primary.TSC_OFFSETTING | Primary.CR8_LOAD |
  Primary.CR8_STORE | Primary.SECONDARY;
const SECONDARY = Secondary.EPT | Secondary.UNRESTRICTED_GUEST | Secondary.VPID |
  Secondary.RDTSCP | Secondary.WBINVD;
const EXIT = ExitControl.HOST_64BIT | ExitControl.SAVE_DEBUG | ExitControl.SAVE_PAT |
  ExitControl.LOAD_PAT | ExitControl.SAVE_EFER | ExitControl.LOAD_EFER;
const ENTRY = EntryControl.LOAD_DEBUG | EntryControl.LOAD_PAT | EntryControl.LOAD_EFER;
/** Of the exit controls, what is used where there is one: external interrupts come with their vector. */
const EXIT_IF_ALLOWED = ExitControl.ACKNOWLEDGE_INTERRUPT | ExitControl.LOAD_CET;
/** Of the entry controls. */
const ENTRY_IF_ALLOWED = EntryControl.LOAD_CET;
/** Of the secondary ones: without these a guest cannot execute XSAVES, XRSTORS and INVPCID. */
const SECONDARY_IF_ALLOWED = Secondary.XSAVES | Secondary.INVPCID;
/** With the TPR shadow MOV to and from CR8 need no exits. */
const CR8_EXITS = Primary.CR8_LOAD | Primary.CR8_STORE;
/** CR3 exits are on by default; under EPT the guest's CR3 is its own. */
const NOT_WANTED = Primary.CR3_LOAD | Primary.CR3_STORE;

/** Controls fitted to one model of processor. */
export interface Controls {
  readonly pin: number;
  readonly primary: number;
  readonly secondary: number;
  readonly exit: number;
  readonly entry: number;
  /** Exceptions that exit, a bit each. */
  readonly exceptions: number;
  /** The secondary control by which bus locks exit; 0 where there is none. */
  readonly busLockDetection: number;
  /** What else there is, for local APICs. */
  readonly capabilities: VmxCapabilities;
}

/** Controls that change with the state of a vCPU, as the VMCS has them. */
export interface WrittenControls {
  pin: number;
  primary: number;
  secondary: number;
  tertiary: number;
  entry: number;
}

/**
 * The controls this hypervisor needs, with the bits that the processor insists on; `exceptions` exit, a bit
 * each.
 *
 * @throws {Error} If the processor lacks one of them; the message names the field and the bits.
 */
export function fitControls(host: HostCpu, exceptions: number): Controls {
  const fit = (name: string, index: number, wanted: number, unwanted = 0, maybe = 0): number => {
    const { must, may } = host.capability(index);
    if ((wanted & ~may) !== 0) {
      const bits = ((wanted & ~may) >>> 0).toString(16);
      throw new Error(`the processor does not allow ${name} controls ${bits}h`);
    }
    if ((must & unwanted) !== 0) {
      const bits = ((must & unwanted) >>> 0).toString(16);
      throw new Error(`the processor insists on ${name} controls ${bits}h`);
    }
    return wanted | must | (maybe & may);
  };
  const pin = host.capability(VmxMsr.TRUE_PIN).may;
  const primary = host.capability(VmxMsr.TRUE_PRIMARY).may;
  const secondary = host.capability(VmxMsr.SECONDARY).may;
  // All 64 bits of this one are allowed 1-settings (SDM vol. 3, A.3.4).
  const tertiary = (primary & Primary.TERTIARY) !== 0 ? host.capability(VmxMsr.TERTIARY).must : 0;
  return {
    pin: fit("pin-based", VmxMsr.TRUE_PIN, PIN),
    primary: fit("primary", VmxMsr.TRUE_PRIMARY, PRIMARY, NOT_WANTED),
    secondary: fit("secondary", VmxMsr.SECONDARY, SECONDARY, 0, SECONDARY_IF_ALLOWED),
    exit: fit("exit", VmxMsr.TRUE_EXIT, EXIT, 0, EXIT_IF_ALLOWED),
    entry: fit("entry", VmxMsr.TRUE_ENTRY, ENTRY, 0, ENTRY_IF_ALLOWED),
    exceptions,
    busLockDetection: secondary & Secondary.BUS_LOCK_DETECTION,
    capabilities: {
      tprShadow: (primary & Primary.TPR_SHADOW) !== 0,
      apicAccesses: (secondary & Secondary.VIRTUALIZE_APIC_ACCESSES) !== 0,
      x2apic: (secondary & Secondary.VIRTUALIZE_X2APIC) !== 0,
      registers: (secondary & Secondary.APIC_REGISTERS) !== 0,
      virtualInterrupts: (secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0,
      postedInterrupts: (pin & Pin.POSTED_INTERRUPTS) !== 0,
      ipis: (tertiary & Tertiary.IPI_VIRTUALIZATION) !== 0,
    },
  };
}

/** Writes what never changes for a vCPU. */
export function writeControls(vmcs: LoadedVmcs, controls: Controls): void {
  vmcs.set32(Vmcs.EXIT_CONTROLS, controls.exit);
}

/** Writes what `state` asks for, where that is not what `written` says. */
export function updateControls(
  vmcs: LoadedVmcs,
  controls: Controls,
  state: ControlState,
  written: WrittenControls,
): void {
  const { apic } = state;
  const pin = controls.pin | (apic.postedInterrupts ? Pin.POSTED_INTERRUPTS : 0);
  let primary = controls.primary | (state.interruptWindow ? Primary.INTERRUPT_WINDOW : 0) |
    (state.nmiWindow ? Primary.NMI_WINDOW : 0);
  if (apic.tprShadow) primary = (primary & ~CR8_EXITS) | Primary.TPR_SHADOW;
  const tertiary = apic.ipis ? Tertiary.IPI_VIRTUALIZATION : 0;
  if (tertiary !== 0) primary |= Primary.TERTIARY;
  const detection = state.policies.busLock.current.exits ? controls.busLockDetection : 0;
  const secondary = controls.secondary | apic.secondary | detection;
  const entry = controls.entry | (state.longMode ? EntryControl.IA32E_GUEST : 0);
  if (pin !== written.pin) vmcs.set32(Vmcs.PIN_CONTROLS, written.pin = pin);
  if (primary !== written.primary) vmcs.set32(Vmcs.PRIMARY_CONTROLS, written.primary = primary);
  if (secondary !== written.secondary) {
    vmcs.set32(Vmcs.SECONDARY_CONTROLS, written.secondary = secondary);
  }
  if (tertiary !== written.tertiary) {
    vmcs.set32(Vmcs.TERTIARY_CONTROLS, written.tertiary = tertiary);
  }
  if (entry !== written.entry) vmcs.set32(Vmcs.ENTRY_CONTROLS, written.entry = entry);
}
