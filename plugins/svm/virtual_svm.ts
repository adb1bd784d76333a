/**
 * What of SVM a guest has for itself: EFER.SVME, the global interrupt flag, and its SVM MSRs.
 *
 * @module
 */
import {
  CpuidResult,
  cpuidSlot,
  defineRequest,
  eventRequest,
  type SlotRef,
  type Vcpu,
  type VcpuRequest,
  type Vm,
} from "../../core/mod.ts";
import { Clean, Control, type ExtendedStateSwitch, IntControl, Save, VirtExt } from "../cpu/mod.ts";
import type { HltInterceptPolicy } from "./policy/hlt.ts";
import {
  type InstructionInterceptInput,
  type InstructionInterceptPolicy,
  POLICY_INTERCEPTS,
} from "./policy/instruction_intercepts.ts";
import { emulatedGifHook } from "./svm_guest.ts";
import type { Vmcb } from "./vmcb.ts";

/** The intercepts that the guest's CPUID or EFER decides on are to be worked out again. */
export const interceptsRequest: VcpuRequest = defineRequest("recalculate-intercepts");

/** CPUID 8000_000Ah EDX bits that let a guest execute SVM instructions of its own. */
const VIRTUAL_VMLOAD = 1 << 15;
const VIRTUAL_GIF = 1 << 16;
const IDLE_HLT = 1 << 30;

/** Makers in CPUID leaf 0 whose processors are AMD's kind, as EBX. */
const AMD_COMPATIBLE: ReadonlySet<number> = new Set([
  0x6874_7541, // AuthenticAMD
  0x6f67_7948, // HygonGenuine
]);

/** What VMLOAD and VMSAVE move: FS, GS, LDTR, TR, then STAR to SYSENTER_EIP. First byte and bytes. */
const MOVED: readonly (readonly [number, number])[] = [
  [Save.FS, 16],
  [Save.GS, 16],
  [Save.LDTR, 16],
  [Save.TR, 16],
  [Save.STAR, Save.SYSENTER_EIP + 8 - Save.STAR],
];

/** What the hypervisor decides on once for all vCPUs. */
export interface SvmSettings {
  /** Whether guests have SVM: CPUID shows it, and EFER.SVME can be set. */
  readonly nested: boolean;
  /** Which of the guest's SVM instructions exit. */
  readonly instructions: SlotRef<InstructionInterceptPolicy>;
  /** Which HLTs exit. */
  readonly hlt: SlotRef<HltInterceptPolicy>;
  /** Who switches XCR0 and R16–R31 around entries. */
  readonly extended: SlotRef<ExtendedStateSwitch>;
}

/** One vCPU's own SVM state. */
export class VirtualSvm implements InstructionInterceptInput {
  readonly settings: SvmSettings;
  /** Bits of `Misc2` that the policy set, and STGI while its exit is waited for. */
  intercepts = 0;
  /** CPUID leaf 0 names another maker than AMD or Hygon; as of the last recalculation. */
  intelCompatible = false;
  /** The processor can execute a guest's VMLOAD and VMSAVE. */
  readonly virtualVmload: boolean;
  /** The processor has a GIF for the guest. */
  readonly virtualGif: boolean;
  readonly #idleHlt: boolean;
  /** The parts of the VMCB that VMLOAD and VMSAVE move, with their offsets. */
  readonly moved: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
  /** VM_CR. */
  vmCr = 0;
  /** VM_HSAVE_PA, bits 31:0. */
  hsaveLo = 0;
  /** VM_HSAVE_PA, bits 63:32. */
  hsaveHi = 0;
  /** Bits 63:32 of SYSENTER_ESP and SYSENTER_EIP of an Intel-compatible guest. */
  readonly #sysenterHi: Uint32Array = new Uint32Array(2);
  #svme = false;
  #gif = true;
  readonly #vcpu: Vcpu;
  readonly #vmcb: Vmcb;

  constructor(vcpu: Vcpu, vmcb: Vmcb, settings: SvmSettings) {
    this.#vcpu = vcpu;
    this.#vmcb = vmcb;
    this.settings = settings;
    this.moved = MOVED.map(([offset, length]) => ({
      offset,
      bytes: vmcb.bytes.subarray(offset, offset + length),
    }));
    const features = hostFeatures(vcpu);
    this.virtualVmload = (features & VIRTUAL_VMLOAD) !== 0;
    this.virtualGif = (features & VIRTUAL_GIF) !== 0;
    this.#idleHlt = (features & IDLE_HLT) !== 0;
    // Set once and never cleared: while the instruction is intercepted they mean nothing.
    if (this.virtualVmload) vmcb.set32(Control.VIRT_EXT, VirtExt.VMLOAD_VMSAVE);
    if (this.virtualGif) vmcb.set32(Control.INT_CONTROL, IntControl.V_GIF_ENABLE);
    this.gif = true;
    this.restart();
  }

  /** Starts from the policy's first intercepts, as when the VMCB is made. */
  restart(): void {
    this.intercepts = this.settings.instructions.current.initial(this) & POLICY_INTERCEPTS;
    this.#vcpu.request(interceptsRequest);
  }

  /** Whether HLT exits only if no virtual interrupt or NMI is pending. */
  get idleHlt(): boolean {
    return this.settings.hlt.current.idleOnly(this.#idleHlt);
  }

  /** EFER.SVME as the guest sees it. */
  get svme(): boolean {
    return this.#svme;
  }

  set svme(value: boolean) {
    if (value === this.#svme) return;
    this.#svme = value;
    // A guest without SVM has no GIF: it is as if set (KVM's svm_set_efer). What it held back is due.
    if (!value && !this.gif) {
      this.gif = true;
      this.#vcpu.request(eventRequest);
    }
    if (this.settings.instructions.current.followsSvme) this.#vcpu.request(interceptsRequest);
  }

  /** The guest's global interrupt flag. */
  get gif(): boolean {
    if (!this.virtualGif) return this.#gif;
    return (this.#vmcb.get32(Control.INT_CONTROL) & IntControl.V_GIF) !== 0;
  }

  set gif(value: boolean) {
    if (!this.virtualGif) {
      if (value === this.#gif) return;
      this.#gif = value;
      this.#vcpu.vm.hooks.point(emulatedGifHook).call(this.#vcpu, value);
      return;
    }
    const rest = this.#vmcb.get32(Control.INT_CONTROL) & ~IntControl.V_GIF;
    this.#vmcb.set32(Control.INT_CONTROL, rest | (value ? IntControl.V_GIF : 0));
    this.#vmcb.dirty(Clean.INTERRUPTS);
  }

  /** Looks at CPUID as the guest sees it. */
  readCpuid(vm: Vm): void {
    const intelCompatible = !AMD_COMPATIBLE.has(vm.cpuid(0, 0, this.#vcpu).ebx >>> 0);
    if (intelCompatible === this.intelCompatible) return;
    const fields = [Save.SYSENTER_ESP, Save.SYSENTER_EIP];
    const high = fields.map((field) => this.sysenterHi(field));
    this.intelCompatible = intelCompatible;
    fields.forEach((field, k) => this.setSysenter(field, this.#vmcb.get32(field), high[k]!));
  }

  /**
   * Bits 63:32 of SYSENTER_ESP or SYSENTER_EIP, given by its place in the VMCB. AMD's processors have
   * no 64-bit SYSENTER; for a guest that is told it has Intel's, software keeps the high halves and
   * the VMCB has the low ones alone, as in KVM.
   */
  sysenterHi(field: number): number {
    if (!this.intelCompatible) return this.#vmcb.get32(field + 4);
    return this.#sysenterHi[Number(field === Save.SYSENTER_EIP)]!;
  }

  /** Writes SYSENTER_ESP or SYSENTER_EIP. */
  setSysenter(field: number, lo: number, hi: number): void {
    const own = this.intelCompatible;
    this.#vmcb.set32(field, lo);
    this.#vmcb.set32(field + 4, own ? 0 : hi);
    this.#sysenterHi[Number(field === Save.SYSENTER_EIP)] = own ? hi : 0;
  }

  /** RESET; INIT, too, clears EFER.SVME and sets GIF. */
  reset(init: boolean): void {
    this.svme = false;
    this.gif = true;
    if (!init) this.vmCr = this.hsaveLo = this.hsaveHi = 0;
    this.restart();
  }
}

/** CPUID 8000_000Ah EDX of the processor, whatever the guest is shown. */
function hostFeatures(vcpu: Vcpu): number {
  const result = new CpuidResult();
  result.leaf = 0x8000_000a;
  vcpu.vm.slots.ref(cpuidSlot).current.read(result, vcpu);
  return result.edx;
}
