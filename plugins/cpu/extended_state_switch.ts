/**
 * Who switches the state that neither an entry nor the entry stub does and that software may leave alone:
 * XCR0, and R16–R31 of APX. The same for SVM and VMX, neither of which knows of them.
 *
 * @module
 */
import { defineSlot, Gpr, type Slot, type Vcpu } from "../../core/mod.ts";
import type { Processor } from "./engine/processor.ts";
import { Xcr0 as ImportedXcr0 } from "./microcode/registers.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Xcr0 = ImportedXcr0;

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
  /** The last thing before VMRUN, VMLAUNCH or VMRESUME. */
  enter(host: HostExtendedState, guest: GuestExtendedState): void;
  /** The first thing behind the exit, before anything looks at the guest's registers. */
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
  "extended-state",
  () => xcr0Only,
);

/** Words of R16–R31 in a storage of registers. */
const EXTENDED = 2 * (Gpr.R15 + 1);
const EXTENDED_END = EXTENDED + 32;

/** The extended state of a processor whose host is the program outside. */
export class ProcessorExtendedState implements HostExtendedState {
  readonly #processor: Processor;

  /** That of `processor`. */
  constructor(processor: Processor) {
    this.#processor = processor;
  }

  /** See {@linkcode HostExtendedState.xcr0}. */
  get xcr0(): number {
    return this.#processor.xcr0;
  }

  set xcr0(value: number) {
    this.#processor.xcr0 = value;
  }

  /** The processor's registers, if XCR0 lets software at R16–R31. */
  #registers(): Uint32Array {
    if ((this.xcr0 & Xcr0.APX) === 0) {
      throw new Error("the host met #UD: an access to R16–R31 with XCR0[19] clear");
    }
    return this.#processor.registerStorage;
  }

  /** See {@linkcode HostExtendedState.loadExtendedRegisters}. */
  loadExtendedRegisters(storage: Uint32Array): void {
    const own = this.#registers();
    for (let k = EXTENDED; k < EXTENDED_END; k++) own[k] = storage[k]!;
  }

  /** See {@linkcode HostExtendedState.storeExtendedRegisters}. */
  storeExtendedRegisters(storage: Uint32Array): void {
    const own = this.#registers();
    for (let k = EXTENDED; k < EXTENDED_END; k++) storage[k] = own[k]!;
  }
}
