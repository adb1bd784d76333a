/**
 * The hypervisor's side of one host processor: its own state, and what of a guest's is left on it.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import {
  Attr,
  Cr0,
  Cr4,
  Efer,
  Msr,
  type Processor,
  ProcessorExtendedState,
  S,
  Seg,
  SvmFeature,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** Nobody answers what the host itself would ask outside. */
const NOBODY = {
  deviceRead: (): void => {},
  deviceWrite: (): void => {},
  portRead: (): number => 0xffff_ffff,
  portWrite: (): void => {},
  cpuid: (): void => {},
  msrRead: (): boolean => false,
  msrWrite: (): boolean => false,
  acknowledge: (): number => -1,
};

/**
 * Throws an `Error` if a processor has no SVM, and with that no VM_CR (APM vol. 2, 15.4), or no nested
 * paging, without which guests here have no memory.
 */
export function requireSvm(processor: Processor): void {
  if (processor.readMsr(Msr.VM_CR) === undefined) {
    throw new Error("the processor has no SVM: choose a model of cpu() that has");
  }
  if ((processor.state.get32(S.svmFeatures) & SvmFeature.NESTED_PAGING) === 0) {
    throw new Error("the processor has no nested paging: leave cpu() its feature npt");
  }
}

/** Brings a processor to where a 64-bit kernel has it before it enables SVM, and enables SVM. */
function startHost(processor: Processor, memory: HostMemory): number {
  processor.attach(NOBODY, 0);
  processor.reset();
  const { state } = processor;
  const code = Attr.P | Attr.S | Attr.CODE | Attr.WRITABLE | Attr.ACCESSED | Attr.L | Attr.G;
  state.setSegment(Seg.CS, { selector: 0x10, attributes: code, limit: 0xffff_ffff, base: 0n });
  state.set(S.cr0, BigInt(Cr0.PG | Cr0.PE) & 0xffff_ffffn | BigInt(Cr0.WP | Cr0.NE | Cr0.ET));
  state.set(S.cr4, BigInt(Cr4.PAE | Cr4.PGE));
  state.set(S.efer, BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE));
  // Host interrupts are on, so that a physical interrupt makes the guest exit.
  state.set(S.rflags, 0x202n);
  processor.refresh();
  processor.setHostOutside(true);
  const hsave = memory.alloc(0x1000);
  const efer = BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE | Efer.SVME);
  const enabled = processor.writeMsr(Msr.EFER, efer) &&
    processor.writeMsr(Msr.VM_HSAVE_PA, BigInt(hsave));
  if (!enabled) throw new Error("the processor refused to enable SVM");
  return hsave;
}

/** One host processor under this hypervisor. */
export class HostCpu {
  /** The processor. */
  readonly processor: Processor;
  /** Host physical address of its host save area. */
  readonly hsave: number;
  /** XCR0 and R16–R31, which software switches. */
  readonly extended: ProcessorExtendedState;
  /** The guest CPU whose debug registers and extended state are loaded. */
  owner: GuestCpu | undefined = undefined;

  constructor(processor: Processor, memory: HostMemory) {
    this.processor = processor;
    this.hsave = startHost(processor, memory);
    this.extended = new ProcessorExtendedState(processor);
  }

  /**
   * Makes `guest` the one whose registers are loaded that neither VMRUN nor the entry stub switches:
   * DR0–DR3, x87, SSE and AVX state, PKRU, U_CET and PL0_SSP to PL3_SSP, XSS. XCR0 and R16–R31 are the extended-state policy's.
   */
  adopt(guest: GuestCpu): void {
    if (this.owner === guest) return;
    this.release();
    const { state } = this.processor;
    for (const [k, value] of guest.debugAddresses.entries()) state.setAt(S.dr + 8 * k, value);
    this.processor.xsave = guest.xsave;
    guest.cet.load(this.processor);
    guest.branches.load(this.processor);
    this.owner = guest;
  }

  /** Saves what {@linkcode HostCpu.adopt} loaded. */
  release(): void {
    const guest = this.owner;
    if (guest === undefined) return;
    const { state } = this.processor;
    for (let k = 0; k < 4; k++) guest.debugAddresses[k] = state.at(S.dr + 8 * k);
    guest.xsave = this.processor.xsave;
    guest.cet.put();
    guest.branches.put();
    this.owner = undefined;
  }
}
