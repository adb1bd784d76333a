/**
 * The hypervisor's side of one host processor: its own state, the VMCS that is current on it, and what
 * of a guest's is left on it.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import {
  Attr,
  Cr0,
  Cr4,
  Efer,
  type Field64,
  type Processor,
  ProcessorExtendedState,
  S,
  Seg,
  Vmcs,
  VMCS_BYTES,
  VmxMsr,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import { HostApic, type HostApicBoard } from "./host_apic.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";

/** IA32_FEATURE_CONTROL: locked, VMX outside of SMX. */
const FEATURE_CONTROL = 0x3a;
const VMX_ENABLED = 0x5n;
/** Selectors of the host; that of TR may not be 0 (SDM vol. 3, 27.2.3). */
const HOST_CS = 0x10;
const HOST_TR = 0x18;

/**
 * What neither a VMCS nor the entry stub switches, and a guest may change without an exit. KVM keeps the
 * MSRs among them loaded until the host itself needs its own (its user-return MSRs).
 */
export const UNSWITCHED: readonly Field64[] = [
  S.cr2,
  S.dr6,
  S.star,
  S.lstar,
  S.cstar,
  S.sfmask,
  S.kernelGsBase,
  S.pkrs,
];

/** One host processor under this hypervisor, in VMX operation. */
export class HostCpu {
  /** The processor. */
  readonly processor: Processor;
  /** Its local APIC. */
  readonly apic: HostApic;
  /** VMCS revision identifier (SDM vol. 3, A.1). */
  readonly revision: number;
  /** XCR0 and R16–R31, which software switches. */
  readonly extended: ProcessorExtendedState;
  /** The guest CPU whose registers of {@linkcode UNSWITCHED} and extended state are loaded. */
  owner: GuestCpu | undefined = undefined;
  /** The current VMCS. */
  #current: LoadedVmcs | undefined;
  readonly #memory: HostMemory;
  readonly #vmxon: number;

  constructor(processor: Processor, memory: HostMemory, board: HostApicBoard) {
    this.processor = processor;
    this.#memory = memory;
    this.apic = new HostApic(processor, board);
    processor.attach(this.apic, 0);
    startHost(processor);
    this.extended = new ProcessorExtendedState(processor);
    this.revision = Number(readMsr(processor, VmxMsr.BASIC) & 0x7fff_ffffn);
    this.#vmxon = memory.alloc(VMCS_BYTES);
    memory.writeU32(this.#vmxon, this.revision);
    processor.vmxon(this.#vmxon);
  }

  /** A capability MSR: bits that must be set, and bits that may be. */
  capability(index: number): { readonly must: number; readonly may: number } {
    const value = readMsr(this.processor, index);
    return { must: Number(value & 0xffff_ffffn) | 0, may: Number(value >> 32n) | 0 };
  }

  /** VMCLEAR: the VMCS is in memory, clear, and active nowhere. */
  clear(vmcs: LoadedVmcs): void {
    this.processor.vmclear(vmcs.hpa);
    if (this.#current === vmcs) this.#current = undefined;
    vmcs.launched = false;
    vmcs.host = undefined;
  }

  /** VMPTRLD, behind a VMCLEAR where it was active before. */
  makeCurrent(vmcs: LoadedVmcs): void {
    if (this.#current === vmcs) return;
    if (vmcs.host !== undefined && vmcs.host !== this) vmcs.host.clear(vmcs);
    this.processor.vmptrld(vmcs.hpa);
    this.#current = vmcs;
    vmcs.host = this;
  }

  /** The host-state area: where VM exits lead (SDM vol. 3, 25.5). */
  writeHostState(vmcs: LoadedVmcs): void {
    const { state } = this.processor;
    vmcs.set64(Vmcs.HOST_CR0, state.get(S.cr0));
    vmcs.set64(Vmcs.HOST_CR3, state.get(S.cr3));
    vmcs.set64(Vmcs.HOST_CR4, state.get(S.cr4));
    vmcs.set64(Vmcs.HOST_EFER, state.get(S.efer));
    vmcs.set64(Vmcs.HOST_PAT, state.get(S.pat));
    vmcs.set32(Vmcs.HOST_CS_SELECTOR, HOST_CS);
    vmcs.set32(Vmcs.HOST_TR_SELECTOR, HOST_TR);
  }

  /** Makes `guest` the one whose registers are loaded that hardware does not switch. */
  adopt(guest: GuestCpu): void {
    if (this.owner === guest) return;
    this.release();
    const { state } = this.processor;
    for (const [k, value] of guest.debugAddresses.entries()) state.setAt(S.dr + 8 * k, value);
    for (const [k, field] of UNSWITCHED.entries()) state.set(field, guest.unswitched[k]!);
    this.processor.xsave = guest.xsave;
    guest.cet.load(this.processor);
    guest.branches.load(this.processor);
    this.owner = guest;
    guest.adopter = this;
  }

  /** Saves what {@linkcode HostCpu.adopt} loaded. */
  release(): void {
    const guest = this.owner;
    if (guest === undefined) return;
    const { state } = this.processor;
    for (let k = 0; k < 4; k++) guest.debugAddresses[k] = state.at(S.dr + 8 * k);
    for (const [k, field] of UNSWITCHED.entries()) guest.unswitched[k] = state.get(field);
    guest.xsave = this.processor.xsave;
    guest.cet.put();
    guest.branches.put();
    this.owner = undefined;
    guest.adopter = undefined;
  }

  /** Leaves VMX operation and gives the processor back. */
  free(): void {
    this.processor.detach();
    this.processor.setHostOutside(false);
    this.#memory.free(this.#vmxon);
  }
}

function readMsr(processor: Processor, index: number): bigint {
  const value = processor.readMsr(index);
  if (value === undefined) {
    throw new Error("the processor has no VMX: choose a model of cpu() that has");
  }
  return value;
}

/** Brings a processor to where a 64-bit kernel has it before it enters VMX operation. */
function startHost(processor: Processor): void {
  processor.reset();
  const { state } = processor;
  const code = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.L | Attr.G;
  state.setSegment(Seg.CS, { selector: HOST_CS, attributes: code, limit: 0xffff_ffff, base: 0n });
  state.set(S.cr0, BigInt(Cr0.PG | Cr0.PE) & 0xffff_ffffn | BigInt(Cr0.WP | Cr0.NE | Cr0.ET));
  state.set(S.cr4, BigInt(Cr4.PAE | Cr4.PGE | Cr4.VMXE));
  state.set(S.efer, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE));
  state.set(S.rflags, 2n);
  processor.refresh();
  processor.setHostOutside(true);
  readMsr(processor, VmxMsr.BASIC);
  if (!processor.writeMsr(FEATURE_CONTROL, VMX_ENABLED)) {
    const value = processor.readMsr(FEATURE_CONTROL) ?? 0n;
    if ((value & VMX_ENABLED) !== VMX_ENABLED) throw new Error("VMX is locked off");
  }
}
