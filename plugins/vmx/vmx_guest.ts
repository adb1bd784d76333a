/**
 * What the hypervisor shows to plugins that build upon it: a vCPU's control structure, the local APICs of
 * the host's processors, and the hooks that it calls.
 *
 * @module
 */
import {
  defineHook,
  defineKeyedHook,
  defineSlot,
  type Hook,
  type KeyedHook,
  type Slot,
  type Vcpu,
} from "../../core/mod.ts";
import type { MsrBitmap } from "./msr_bitmap.ts";

/** What the processors have for guests' local APICs (SDM vol. 3, A.3). */
export interface VmxCapabilities {
  /** TPR shadow. */
  readonly tprShadow: boolean;
  /** Virtualize APIC accesses: the APIC-access page. */
  readonly apicAccesses: boolean;
  /** Virtualize x2APIC mode. */
  readonly x2apic: boolean;
  /** APIC-register virtualization. */
  readonly registers: boolean;
  /** Virtual-interrupt delivery. */
  readonly virtualInterrupts: boolean;
  /** Process posted interrupts. */
  readonly postedInterrupts: boolean;
  /** IPI virtualization. */
  readonly ipis: boolean;
}

/** What of a vCPU's local APIC hardware does. It takes effect at the next entry. */
export interface ApicVirtualization {
  /** The TPR shadow is used: the hypervisor's own, where there is a local APIC. */
  tprShadow: boolean;
  /** Bits of the secondary controls that are set besides the hypervisor's own. */
  secondary: number;
  /** Posted interrupts are processed. */
  postedInterrupts: boolean;
  /** IPIs are virtualized. */
  ipis: boolean;
}

/**
 * Fields of a VMCS, by their encodings. Whoever reads or writes one makes the VMCS current on a
 * processor, which must not be done while another processor executes: that is, from what an instruction
 * that is emulated meets.
 */
export interface VmcsFields {
  /** Low 32 bits of a field. */
  get32(field: number): number;
  /** Writes a field of at most 32 bits, or a wider one with zeros above. */
  set32(field: number, value: number): void;
  /** A whole field. */
  get64(field: number): bigint;
  /** Writes a 64-bit or natural-width field by halves. */
  setHalves(field: number, lo: number, hi: number): void;
  /** Writes an address below 2^53. */
  setAddress(field: number, address: number): void;
}

/** One vCPU under VMX. */
export interface VmxGuest {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its VMCS. */
  readonly vmcs: VmcsFields;
  /** Its MSR bitmap. */
  readonly msrBitmap: MsrBitmap;
  /** What of its local APIC hardware does. */
  readonly apic: ApicVirtualization;
  /** Set to drop all translations of the guest at its next entry (INVEPT). */
  flush: boolean;
  /**
   * Lets reads and writes of x2APIC MSRs pass, those of `reads` and `writes` and no others; without
   * arguments, those that the TPR shadow allows.
   */
  passX2apic(reads?: readonly number[], writes?: readonly number[]): void;
}

/** The hypervisor, for plugins that build upon it. */
export interface Vmx {
  /** What the processors have. Known from the first vCPU on. */
  readonly capabilities: VmxCapabilities;
  /** What it keeps for a vCPU: there from `vcpuCreatedHook` on. */
  of(vcpu: Vcpu): VmxGuest;
  /** Physical APIC ID of host processor `pcpu`; all are in x2APIC mode. */
  hostId(pcpu: number): number;
  /**
   * Sends an interrupt to host processor `pcpu`, as the host's own local APIC does. In guest mode the
   * processor takes it there; otherwise {@linkcode hostInterruptHook} is called at once.
   */
  interrupt(pcpu: number, vector: number): void;
  /** The same for the host processor with a physical APIC ID, if there is one. */
  interruptId(id: number, vector: number): void;
  /** Whether an interrupt that was sent to host processor `pcpu` waits until it is in guest mode again. */
  interruptWaits(pcpu: number, vector: number): boolean;
  /** Whether the vCPU's processor is in guest mode with it: its turn is over, and it has not exited. */
  inGuest(vcpu: Vcpu): boolean;
  /**
   * Drops the translation of a page that {@linkcode privatePageHook} answered for, for all vCPUs: at the
   * next access the hook is asked again.
   *
   * @param gpa Any guest physical address in the page, below 2^52.
   */
  dropPrivatePage(gpa: number): void;
}

/** The hypervisor; provided by the `vmx` plugin. */
export const vmxSlot: Slot<Vmx> = defineSlot("vmx");

/**
 * The guest accessed a guest physical address that has no memslot. Answers the host physical address of
 * a page of the hypervisor's own to map there, readable and writable; without an answer the access is
 * emulated.
 */
export const privatePageHook: Hook<(vcpu: Vcpu, gpa: number) => number | undefined, "first"> =
  defineHook({ name: "vmx-private-page", kind: "first", arity: 2 });

/**
 * A host processor took an interrupt, which made the guest exit or came while none was running. The key
 * is the vector; the argument is the number of the processor. An interrupt that nobody listens to has no
 * effect.
 */
export const hostInterruptHook: KeyedHook<(pcpu: number) => void, "each"> = defineKeyedHook({
  name: "vmx-host-interrupt",
  kind: "each",
  arity: 1,
  keys: 256,
});
