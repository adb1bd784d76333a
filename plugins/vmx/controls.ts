/**
 * VM-execution, exit and entry controls: fitted to what the processor allows, and worked out from the
 * state of the vCPU, never changed bit by bit.
 *
 * @module
 */
import { EntryControl, ExitControl, Pin, Primary, Secondary, Vmcs, VmxMsr } from "../cpu/mod.ts";
import type { HostCpu } from "./host.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";

/** What of a vCPU's state decides on its controls. */
export interface ControlState {
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
/** CR3 exits are on by default; under EPT the guest's CR3 is its own. */
const NOT_WANTED = Primary.CR3_LOAD | Primary.CR3_STORE;

/** Controls fitted to one model of processor. */
export interface Controls {
  readonly pin: number;
  readonly primary: number;
  readonly secondary: number;
  readonly exit: number;
  readonly entry: number;
}

/**
 * The controls this hypervisor needs, with the bits that the processor insists on.
 *
 * @throws {Error} If the processor lacks one of them; the message names the field and the bits.
 */
export function fitControls(host: HostCpu): Controls {
  const fit = (name: string, index: number, wanted: number, unwanted = 0): number => {
    const { must, may } = host.capability(index);
    if ((wanted & ~may) !== 0) {
      const bits = ((wanted & ~may) >>> 0).toString(16);
      throw new Error(`the processor does not allow ${name} controls ${bits}h`);
    }
    if ((must & unwanted) !== 0) {
      const bits = ((must & unwanted) >>> 0).toString(16);
      throw new Error(`the processor insists on ${name} controls ${bits}h`);
    }
    return wanted | must;
  };
  return {
    pin: fit("pin-based", VmxMsr.TRUE_PIN, PIN),
    primary: fit("primary", VmxMsr.TRUE_PRIMARY, PRIMARY, NOT_WANTED),
    secondary: fit("secondary", VmxMsr.SECONDARY, SECONDARY),
    exit: fit("exit", VmxMsr.TRUE_EXIT, EXIT),
    entry: fit("entry", VmxMsr.TRUE_ENTRY, ENTRY),
  };
}

/** Writes what never changes for a vCPU. */
export function writeControls(vmcs: LoadedVmcs, controls: Controls): void {
  vmcs.set32(Vmcs.PIN_CONTROLS, controls.pin);
  vmcs.set32(Vmcs.SECONDARY_CONTROLS, controls.secondary);
  vmcs.set32(Vmcs.EXIT_CONTROLS, controls.exit);
}

/** The primary controls that `state` asks for. */
export function primaryControls(controls: Controls, state: ControlState): number {
  return controls.primary | (state.interruptWindow ? Primary.INTERRUPT_WINDOW : 0) |
    (state.nmiWindow ? Primary.NMI_WINDOW : 0);
}

/** The entry controls that `state` asks for. */
export function entryControls(controls: Controls, state: ControlState): number {
  return controls.entry | (state.longMode ? EntryControl.IA32E_GUEST : 0);
}
