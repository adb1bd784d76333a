/**
 * What the hypervisor keeps for one vCPU: its VMCB, its registers, and what is in neither.
 *
 * @module
 */
import { type HostMemory, REGISTER_SLOTS, REGISTER_WORDS, type Vcpu } from "../../core/mod.ts";
import {
  CetMsr,
  Clean,
  Control as ImportedControl,
  Efer,
  IntControl as ImportedIntControl,
  linearAddressBits,
  ProcessorBranchCounts,
  ProcessorCet,
  type Processors,
  resetXsave,
  Save,
  type SwitchedCet,
  VMCB_BYTES,
} from "../cpu/mod.ts";
import { type InterceptState, recalculateIntercepts } from "./controls.ts";
import { type SvmSettings, VirtualSvm } from "./virtual_svm.ts";
import type { NestedPageTables } from "./nested_paging.ts";
import { SvmMovingGuest } from "./moving_guest.ts";
import { type IoPermissionMap, MsrPermissionMap } from "./permission_maps.ts";
import type { AcceleratedTaskPriority, SvmGuest } from "./svm_guest.ts";
import { Vmcb } from "./vmcb.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Control = ImportedControl;
const IntControl = ImportedIntControl;

/** Where the VMCB has S_CET and the interrupt SSP table. */
function switchedCet(vmcb: Vmcb): SwitchedCet {
  const place = (index: number): number => index === CetMsr.S_CET ? Save.S_CET : Save.ISST_ADDR;
  return {
    lo: (index) => vmcb.get32(place(index)),
    hi: (index) => vmcb.get32(place(index) + 4),
    set: (index, lo, hi) => {
      vmcb.set32(place(index), lo);
      vmcb.set32(place(index) + 4, hi);
      vmcb.dirty(Clean.CET);
    },
  };
}

/** One vCPU under this hypervisor. */
export class GuestCpu implements InterceptState, SvmGuest {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its VMCB. */
  readonly vmcb: Vmcb;
  /** Its MSR permission map. */
  readonly msrpm: MsrPermissionMap;
  /** Host physical address of its register storage. */
  readonly registersHpa: number;
  /** Its register storage, as words. */
  readonly registers: Uint32Array;
  /** ASID in use: one per vCPU, the same on every processor. */
  readonly asid: number;
  /** DR0–DR3 while it is not on a processor. */
  readonly debugAddresses: bigint[] = [0n, 0n, 0n, 0n];
  /** XCR0; the guest cannot change it without an exit. */
  xcr0Low = 1;
  /** Bits of a linear address that its processors have at most. */
  readonly linearBits: number;
  /** Bits of a physical address that they have. */
  readonly physicalBits: number;
  /** TSC_AUX, 32 bits; loaded at every entry. */
  tscAux = 0;
  /** x87, SSE and AVX state and PKRU while it is not on a processor. */
  xsave: Uint8Array = resetXsave();
  /** Counts its branches. */
  readonly branches: ProcessorBranchCounts = new ProcessorBranchCounts();
  /** For accesses to device memory. */
  readonly moving: SvmMovingGuest;
  /** Control-flow enforcement. */
  readonly cet: ProcessorCet;
  /** APIC base as the guest sees it. */
  apicBase = 0xfee0_0800n;
  /** Waiting until the guest can take an interrupt. */
  interruptWindow = false;
  /** Waiting until the guest lowers its task priority. */
  taskPriorityWindow = false;
  /** See {@linkcode SvmGuest}. */
  readonly taskPriority: AcceleratedTaskPriority = { syncs: true, keepsIntercept: false };
  /** Waiting for IRET to unmask NMIs. */
  iretWindow = false;
  /** An NMI was delivered, and IRET has not been executed since. */
  nmiMasked = false;
  /** Enter for one instruction only: the shadow that blocks an NMI lasts no longer. */
  stepForNmi = false;
  /** What of SVM the guest has for itself. */
  readonly svm: VirtualSvm;
  /** The processor it ran on last; −1 if none. */
  lastProcessor = -1;
  /** All translations of the guest have to be dropped at the next entry. */
  flush = true;
  readonly #memory: HostMemory;

  constructor(
    vcpu: Vcpu,
    memory: HostMemory,
    iopm: IoPermissionMap,
    tables: NestedPageTables,
    settings: SvmSettings,
    { isa, physicalBits }: Processors,
  ) {
    this.linearBits = linearAddressBits(isa);
    this.physicalBits = physicalBits;
    this.vcpu = vcpu;
    this.#memory = memory;
    this.asid = vcpu.index + 1;
    this.vmcb = new Vmcb(memory, memory.alloc(VMCB_BYTES));
    this.msrpm = new MsrPermissionMap(memory);
    this.registersHpa = memory.alloc(0x1000);
    const storage = memory.view(this.registersHpa, REGISTER_SLOTS * 8);
    this.registers = new Uint32Array(storage.buffer, storage.byteOffset, REGISTER_WORDS);
    this.cet = new ProcessorCet(isa, this.linearBits, switchedCet(this.vmcb));
    this.svm = new VirtualSvm(vcpu, this.vmcb, settings);
    this.moving = new SvmMovingGuest(this);
    this.#initialise(iopm, tables);
  }

  /** See {@linkcode InterceptState}. */
  get instructionIntercepts(): number {
    return this.svm.intercepts;
  }

  /** See {@linkcode InterceptState}. */
  get idleHlt(): boolean {
    return this.svm.idleHlt;
  }

  /** What never changes, or starts from a value of its own (KVM's init_vmcb). */
  #initialise(iopm: IoPermissionMap, tables: NestedPageTables): void {
    const { vmcb } = this;
    vmcb.setAddress(Control.IOPM_BASE_PA, iopm.hpa);
    vmcb.setAddress(Control.MSRPM_BASE_PA, this.msrpm.hpa);
    vmcb.set32(Control.ASID, this.asid);
    vmcb.set32(Control.NESTED_CONTROL, 1);
    vmcb.setAddress(Control.N_CR3, tables.root);
    recalculateIntercepts(vmcb, this);
  }

  /** Puts the intercepts to what the state asks for. */
  recalculate(): void {
    recalculateIntercepts(this.vmcb, this);
  }

  /** XCR0, of which no bit of the upper half exists. */
  get xcr0(): bigint {
    return BigInt(this.xcr0Low);
  }

  set xcr0(value: bigint) {
    this.xcr0Low = Number(value);
  }

  /** EFER as the guest sees it: the processor always has SVME set. */
  get efer(): bigint {
    const efer = this.vmcb.get64(Save.EFER);
    return this.svm.svme ? efer : efer & ~BigInt(Efer.SVME);
  }

  set efer(value: bigint) {
    this.svm.svme = this.svm.settings.nested && (value & BigInt(Efer.SVME)) !== 0n;
    this.vmcb.set64(Save.EFER, value | BigInt(Efer.SVME));
    this.vmcb.dirty(Clean.CONTROL_REGISTERS);
  }

  /** The task priority class: V_TPR. */
  get cr8(): number {
    return this.vmcb.get32(Control.INT_CONTROL) & 15;
  }

  set cr8(value: number) {
    const rest = this.vmcb.get32(Control.INT_CONTROL) & ~IntControl.V_TPR;
    this.vmcb.set32(Control.INT_CONTROL, rest | value);
    this.vmcb.dirty(Clean.INTERRUPTS);
  }

  /** Whether the next instruction is in the shadow of STI or MOV SS. */
  get interruptShadow(): boolean {
    return (this.vmcb.get32(Control.INT_STATE) & 1) !== 0;
  }

  set interruptShadow(value: boolean) {
    this.vmcb.set32(Control.INT_STATE, Number(value));
  }

  /** Whether an event waits to be injected. */
  get injecting(): boolean {
    return (this.vmcb.get32(Control.EVENTINJ) & 0x8000_0000) !== 0;
  }

  /** What is added to the processor's time-stamp counter. */
  get tscOffset(): bigint {
    return this.vmcb.get64(Control.TSC_OFFSET);
  }

  set tscOffset(value: bigint) {
    this.vmcb.set64(Control.TSC_OFFSET, value);
    this.vmcb.dirty(Clean.INTERCEPTS);
  }

  /** Gives its memory back. */
  free(): void {
    this.#memory.free(this.vmcb.hpa);
    this.msrpm.free();
    this.#memory.free(this.registersHpa);
  }
}
