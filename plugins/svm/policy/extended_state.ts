/**
 * Who switches the state that neither VMRUN nor the entry stub does and that software may leave alone:
 * XCR0, and R16–R31 of APX.
 *
 * @module
 */
import { defineSlot, type Slot, type Vcpu } from "../../../core/mod.ts";

/** A host processor around an entry, with interrupts off, as the hypervisor's code sees it. */
export interface HostExtendedState {
  /** XCR0, bits 31:0; setting it is XSETBV. */
  xcr0: number;
  /**
   * MOV of R16–R31 from the storage of a vCPU's registers (`REGISTER_WORDS` words).
   *
   * @throws {Error} That the host met #UD, if XCR0[19] is clear.
   */
  loadExtendedRegisters(storage: Uint32Array): void;
  /**
   * MOV of R16–R31 to such a storage.
   *
   * @throws {Error} That the host met #UD, if XCR0[19] is clear.
   */
  storeExtendedRegisters(storage: Uint32Array): void;
}

/** What belongs to the vCPU that is entered. */
export interface GuestExtendedState {
  /** The vCPU. */
  readonly vcpu: Vcpu;
  /** Its XCR0, bits 31:0. */
  readonly xcr0Low: number;
  /** The storage of its registers. */
  readonly registers: Uint32Array;
}

/** Switches extended state around entries. Only called on processors that have XSAVE. */
export interface ExtendedStateSwitch {
  /** For listings. */
  readonly name: string;
  /** The last thing before VMRUN. */
  enter(host: HostExtendedState, guest: GuestExtendedState): void;
  /** The first thing behind #VMEXIT, before anything looks at the guest's registers. */
  exit(host: HostExtendedState, guest: GuestExtendedState): void;
}

/** XCR0 and nothing else, as a hypervisor does that knows nothing of APX. */
export const xcr0Only: ExtendedStateSwitch = Object.freeze({
  name: "XCR0 only",
  enter(host: HostExtendedState, guest: GuestExtendedState): void {
    if (host.xcr0 !== guest.xcr0Low) host.xcr0 = guest.xcr0Low;
  },
  exit(): void {},
});

/** Who switches extended state. */
export const extendedStateSlot: Slot<ExtendedStateSwitch> = defineSlot(
  "svm-extended-state",
  () => xcr0Only,
);
