/**
 * What the hypervisor keeps for one vCPU: its VMCS, its registers, and what is in neither.
 *
 * @module
 */
import { Gpr, type HostMemory, REGISTER_SLOTS, REGISTER_WORDS, type Vcpu } from "../../core/mod.ts";
import {
  CetMsr,
  Cr0,
  Cr4,
  Efer,
  type Field64,
  Interruptibility,
  type IsaFeatureName,
  linearAddressBits,
  PendingDebug,
  type Processor,
  ProcessorBranchCounts,
  ProcessorCet,
  resetXsave,
  Rflags,
  S,
  type SwitchedCet,
  Vmcs,
} from "../cpu/mod.ts";
import {
  type Controls,
  type ControlState,
  updateControls,
  writeControls,
  type WrittenControls,
} from "./controls.ts";
import type { ExtendedPageTables } from "./ept.ts";
import { type HostCpu, UNSWITCHED } from "./host.ts";
import { LoadedVmcs } from "./loaded_vmcs.ts";
import { VmxMovingGuest } from "./moving_guest.ts";
import { MsrBitmap } from "./msr_bitmap.ts";
import type { PolicyRefs } from "./policy/refs.ts";
import { TaskPriority } from "./task_priority.ts";
import type { ApicVirtualization, VmxGuest } from "./vmx_guest.ts";

const RFLAGS = 2 * Gpr.RFLAGS;

/**
 * CR0 bits that are the hypervisor's: all but TS and MP, which a guest that switches tasks changes often
 * and nothing depends on. Reads give the shadow.
 */
const CR0_MASK = 0xffff_ffff & ~(Cr0.TS | Cr0.MP);
/** Bits of CR0 and CR4 that VMX operation insists on whatever the guest has (SDM vol. 3, 24.8). */
const CR0_FIXED = Cr0.NE;
const CR4_FIXED = Cr4.VMXE;
/** A VMCS link pointer to nothing. */
const NO_LINK = 0xffff_ffff_ffff_ffffn;

/** Where the VMCS has S_CET and the interrupt SSP table. */
function switchedCet(vmcs: LoadedVmcs): SwitchedCet {
  const place = (index: number): number =>
    index === CetMsr.S_CET ? Vmcs.GUEST_S_CET : Vmcs.GUEST_INTERRUPT_SSP_TABLE;
  return {
    lo: (index) => vmcs.get32(place(index)),
    hi: (index) => vmcs.high(place(index)),
    set: (index, lo, hi) => vmcs.setHalves(place(index), lo, hi),
  };
}

/** One vCPU under this hypervisor. */
export class GuestCpu implements ControlState, VmxGuest {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its VMCS. */
  readonly vmcs: LoadedVmcs;
  /** Its MSR bitmap. */
  readonly msrBitmap: MsrBitmap;
  /** Host physical address of its register storage. */
  readonly registersHpa: number;
  /** Its register storage, as words. */
  readonly registers: Uint32Array;
  /** VPID in use: one per vCPU, the same on every processor. */
  readonly vpid: number;
  /** DR0–DR3 while it is not on a processor. */
  readonly debugAddresses: bigint[] = [0n, 0n, 0n, 0n];
  /** Values of {@linkcode UNSWITCHED} while it is not on a processor. */
  readonly unswitched: bigint[] = UNSWITCHED.map(() => 0n);
  /** x87 and SSE state while it is not on a processor. */
  xsave: Uint8Array = resetXsave();
  /** Counts its branches. */
  readonly branches: ProcessorBranchCounts = new ProcessorBranchCounts();
  /** For accesses to device memory. */
  readonly moving: VmxMovingGuest;
  /** Control-flow enforcement. */
  readonly cet: ProcessorCet;
  /** The processor that holds those three. */
  adopter: HostCpu | undefined = undefined;
  /** XCR0, bits 31:0; the guest cannot change it without an exit. */
  xcr0Low = 1;
  /** Bits of a linear address that its processors have at most. */
  readonly linearBits: number;
  /** TSC_AUX, 32 bits; loaded at every entry. */
  tscAux = 0;
  /** CR8, bits 3:0. */
  cr8 = 0;
  /** APIC base as the guest sees it. */
  apicBase = 0xfee0_0800n;
  /** Waiting until the guest can take an interrupt. */
  interruptWindow = false;
  /** Waiting until it can take an NMI. */
  nmiWindow = false;
  /** EFER 31:0, of which no bit above exists: the guest cannot change it without an exit. */
  eferLow = 0;
  /** EFER.LMA. */
  longMode = false;
  /** What of its local APIC hardware does. */
  readonly apic: ApicVirtualization = {
    tprShadow: false,
    secondary: 0,
    postedInterrupts: false,
    ipis: false,
  };
  /** What can be exchanged. */
  readonly policies: PolicyRefs;
  /** Its task priority, where there is a local APIC. */
  readonly taskPriority: TaskPriority;
  /** An event is in the VM-entry interruption-information field. */
  injecting = false;
  /** Interruptibility state as the VMCS has it (SDM vol. 3, table 25-3). */
  interruptibility = 0;
  /** The processor it ran on last; −1 if none. */
  lastProcessor = -1;
  /** All translations of the guest have to be dropped at the next entry. */
  flush = true;
  readonly #memory: HostMemory;
  readonly #controls: Controls;
  readonly #written: WrittenControls = {
    pin: -1,
    primary: -1,
    secondary: -1,
    tertiary: 0,
    entry: -1,
  };
  /** x2APIC MSRs of which reads or writes pass. */
  #passed: readonly number[] = [];

  constructor(
    vcpu: Vcpu,
    memory: HostMemory,
    tables: ExtendedPageTables,
    controls: Controls,
    policies: PolicyRefs,
    home: () => HostCpu,
    isa: ReadonlySet<IsaFeatureName>,
  ) {
    this.vcpu = vcpu;
    this.linearBits = linearAddressBits(isa);
    this.#memory = memory;
    this.#controls = controls;
    this.policies = policies;
    this.vpid = vcpu.index + 1;
    this.vmcs = new LoadedVmcs(memory, home);
    this.moving = new VmxMovingGuest(this);
    this.cet = new ProcessorCet(isa, this.linearBits, switchedCet(this.vmcs));
    this.msrBitmap = new MsrBitmap(memory);
    this.taskPriority = new TaskPriority(this.vmcs, this.apic, controls.capabilities);
    this.registersHpa = memory.alloc(0x1000);
    const storage = memory.view(this.registersHpa, REGISTER_SLOTS * 8);
    this.registers = new Uint32Array(storage.buffer, storage.byteOffset, REGISTER_WORDS);
    this.#initialise(tables);
  }

  /** What never changes, or starts from a value of its own (KVM's init_vmcs). */
  #initialise(tables: ExtendedPageTables): void {
    const { vmcs } = this;
    writeControls(vmcs, this.#controls);
    vmcs.setAddress(Vmcs.MSR_BITMAP, this.msrBitmap.hpa);
    vmcs.setAddress(Vmcs.EPT_POINTER, tables.pointer);
    vmcs.set32(Vmcs.VPID, this.vpid);
    vmcs.set64(Vmcs.LINK_POINTER, NO_LINK);
    vmcs.set32(Vmcs.EXCEPTION_BITMAP, this.#controls.exceptions);
    vmcs.set32(Vmcs.CR0_MASK, CR0_MASK);
    // Every change of CR4 decides on what the guest may use.
    vmcs.set32(Vmcs.CR4_MASK, 0xffff_ffff);
    this.recalculate();
  }

  /** Puts the controls to what the state asks for. */
  recalculate(): void {
    updateControls(this.vmcs, this.#controls, this, this.#written);
  }

  /** See `VmxGuest.passX2apic`. */
  passX2apic(
    reads: readonly number[] = this.taskPriority.msrs,
    writes: readonly number[] = this.taskPriority.msrs,
  ): void {
    const { msrBitmap } = this;
    for (const index of this.#passed) msrBitmap.set(index, true, true);
    this.#passed = [...new Set([...reads, ...writes])];
    for (const index of this.#passed) {
      msrBitmap.set(index, !reads.includes(index), !writes.includes(index));
    }
  }

  /** CR0 as the guest sees it. */
  get cr0(): bigint {
    const own = this.vmcs.get32(Vmcs.GUEST_CR0) & ~CR0_MASK;
    return BigInt((own | (this.vmcs.get32(Vmcs.CR0_SHADOW) & CR0_MASK)) >>> 0);
  }

  set cr0(value: bigint) {
    this.storeCr0(Number(value & 0xffff_ffffn));
  }

  /** Sets CR0 as the guest sees it, bits 31:0. */
  storeCr0(low: number): void {
    this.vmcs.set32(Vmcs.GUEST_CR0, (low | CR0_FIXED) >>> 0);
    this.vmcs.set32(Vmcs.CR0_SHADOW, low);
  }

  /** CR4 as the guest sees it. */
  get cr4(): bigint {
    return BigInt(this.vmcs.get32(Vmcs.CR4_SHADOW));
  }

  set cr4(value: bigint) {
    this.storeCr4(Number(value & 0xffff_ffffn));
  }

  /** Sets CR4 as the guest sees it, bits 31:0. */
  storeCr4(low: number): void {
    this.vmcs.set32(Vmcs.GUEST_CR4, (low | CR4_FIXED) >>> 0);
    this.vmcs.set32(Vmcs.CR4_SHADOW, low);
  }

  /** XCR0, of which no bit of the upper half exists. */
  get xcr0(): bigint {
    return BigInt(this.xcr0Low);
  }

  set xcr0(value: bigint) {
    this.xcr0Low = Number(value);
  }

  /** EFER. */
  get efer(): bigint {
    return BigInt(this.eferLow);
  }

  set efer(value: bigint) {
    this.eferLow = Number(value & 0xffff_ffffn);
    this.vmcs.set32(Vmcs.GUEST_EFER, this.eferLow);
    this.longMode = (value & BigInt(Efer.LMA)) !== 0n;
    this.recalculate();
  }

  /** Whether the next instruction is in the shadow of STI or MOV SS. */
  get interruptShadow(): boolean {
    return (this.interruptibility & (Interruptibility.STI | Interruptibility.MOV_SS)) !== 0;
  }

  // Which of the two began it is not told. Where interrupts are disabled it was not STI, and an entry
  // insists on that (SDM vol. 3, 27.3.1.5).
  set interruptShadow(value: boolean) {
    const rest = this.interruptibility & ~(Interruptibility.STI | Interruptibility.MOV_SS);
    const enabled = (this.registers[RFLAGS]! & Rflags.IF) !== 0;
    const shadow = enabled ? Interruptibility.STI : Interruptibility.MOV_SS;
    this.#setInterruptibility(rest | (value ? shadow : 0));
  }

  /** Puts right what an entry asks of a guest that was single-stepped over STI or MOV SS. */
  pendSingleStep(): void {
    if (!this.interruptShadow || (this.registers[RFLAGS]! & Rflags.TF) === 0) return;
    const pending = this.vmcs.get32(Vmcs.GUEST_PENDING_DEBUG);
    this.vmcs.set32(Vmcs.GUEST_PENDING_DEBUG, pending | PendingDebug.BS);
  }

  /** NMIs are blocked until IRET, which hardware sees by itself. */
  get nmiMasked(): boolean {
    return (this.interruptibility & Interruptibility.NMI) !== 0;
  }

  set nmiMasked(value: boolean) {
    const rest = this.interruptibility & ~Interruptibility.NMI;
    this.#setInterruptibility(rest | (value ? Interruptibility.NMI : 0));
  }

  #setInterruptibility(value: number): void {
    if (value === this.interruptibility) return;
    this.interruptibility = value;
    this.vmcs.set32(Vmcs.GUEST_INTERRUPTIBILITY, value);
  }

  /** Where a register of {@linkcode UNSWITCHED} is now: on a processor, or in memory. */
  #holder(field: Field64): Processor | number {
    return this.adopter?.processor ?? UNSWITCHED.indexOf(field);
  }

  /** Low 32 bits of a register that hardware does not switch. */
  unswitchedLo(field: Field64): number {
    const holder = this.#holder(field);
    if (typeof holder !== "number") return holder.state.low(field);
    return Number(this.unswitched[holder]! & 0xffff_ffffn);
  }

  /** High 32 bits. */
  unswitchedHi(field: Field64): number {
    const holder = this.#holder(field);
    if (typeof holder !== "number") return holder.state.high(field);
    return Number(this.unswitched[holder]! >> 32n);
  }

  /** Writes a register that hardware does not switch. */
  setUnswitched(field: Field64, lo: number, hi: number): void {
    const holder = this.#holder(field);
    if (typeof holder !== "number") holder.state.setHalves(field, lo, hi);
    else this.unswitched[holder] = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  }

  /** The address of the last page fault, which VMX leaves to software. */
  setCr2(lo: number, hi: number): void {
    this.setUnswitched(S.cr2, lo, hi);
  }

  /** Gives its memory back. */
  free(): void {
    this.vmcs.free();
    this.msrBitmap.free();
    this.#memory.free(this.registersHpa);
  }
}
