/**
 * SVM and AVIC.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** The SVM unit. */
export interface SvmRoutines {
  // SVM (svm/*.ts).

  /** `(vmcb)`: #GP unless aligned and in memory; its memory address. */
  readonly vmcbAddress: Fn<[L], I>;
  /** `(vmcb, nextRip)`: VMRUN, all privileges checked. */
  readonly vmrun: Fn<[L, L]>;
  /** The same of the VMCB at a memory address: `(address, vmcb, nextRip)`. */
  readonly vmrunAt: Fn<[I, L, L]>;
  /** `(vmcbLow, vmcbHigh, registers, budget)`: a hypervisor's entry stub: VMLOAD, VMRUN, and all behind it. */
  readonly enterGuest: Fn<[I, I, I, I]>;
  /**
   * `(vmcbLow, vmcbHigh, registers, stop)`: the stub's other half, behind the #VMEXIT, which takes place now
   * if `stop` says that there was none.
   */
  readonly leaveGuestStub: Fn<[I, I, I, I]>;
  /** `(vmcb)`: VMLOAD. */
  readonly vmload: Fn<[L]>;
  /** `(vmcb)`: VMSAVE. */
  readonly vmsave: Fn<[L]>;

  /** `(code, info1, info2)`: #VMEXIT; the instruction or event has not taken place. nRIP is 0. */
  readonly vmexit: Fn<[L, L, L]>;
  /** `(code, info1, info2)`: #VMEXIT of the instruction at hand, with nRIP behind it. */
  readonly vmexitInstruction: Fn<[L, L, L]>;

  /** `()`: 1 if an intercepted PAUSE exits, after the filter has counted it (svm/pause_filter.ts). */
  readonly pauseExits: Fn<[], I>;

  /** `(linear, bytes)`: counts a locked access that locks the bus, or exits (microcode/bus_lock.ts). */
  readonly busLock: Fn<[L, I]>;

  // AVIC (svm/avic/*.ts). The guest's backing page is S.avicPage.

  /** `(page, offset)`: highest vector set in the eight registers at `offset`; −1 for none. */
  readonly avicHighest: Fn<[I, I], I>;
  /** `()`: works out PPR, and whether an interrupt is to be delivered. */
  readonly avicEvaluate: Fn<[]>;
  /** `()`: takes the winning interrupt into service: its vector. */
  readonly avicTake: Fn<[], I>;
  /** `()`: carries out what stands in ICR. */
  readonly avicSend: Fn<[]>;
  /** `(vector)`: requests an interrupt of the guest's own. */
  readonly avicSelf: Fn<[I]>;
  /** `(vector)`: a write of SELF_IPI. */
  readonly avicSelfIpi: Fn<[I]>;
  /** `(priority)`: a write of TPR; bits 7:0. */
  readonly avicWriteTpr: Fn<[I]>;
  /** `(address, bytes)`: load from the APIC page, its backing page standing at memory address. */
  readonly avicLoad: Fn<[I, I], L>;
  /** `(address, bytes, value)`: store to the APIC page. */
  readonly avicStore: Fn<[I, I, L]>;
  /** `(index)`: RDMSR of 800h–8FFh in x2AVIC mode: 1 and `S.exchange`, or 0 for #GP. */
  readonly avicReadMsr: Fn<[I], I>;
  /** `(index)`: WRMSR of `S.exchange` in x2AVIC mode: 1, or 0 for #GP. */
  readonly avicWriteMsr: Fn<[I], I>;
  /** `(apicId)`: rings the doorbell of the processor with that physical APIC ID, if there is one. */
  readonly ringDoorbell: Fn<[I]>;
}

/** Their signatures. */
export const SVM: Signatures<SvmRoutines> = {
  vmcbAddress: [[I64T], I32T],
  vmrun: [[I64T, I64T], undefined],
  vmrunAt: [[I32T, I64T, I64T], undefined],
  enterGuest: [[I32T, I32T, I32T, I32T], undefined],
  leaveGuestStub: [[I32T, I32T, I32T, I32T], undefined],
  vmload: [[I64T], undefined],
  vmsave: [[I64T], undefined],
  vmexit: [[I64T, I64T, I64T], undefined],
  vmexitInstruction: [[I64T, I64T, I64T], undefined],
  pauseExits: [[], I32T],
  busLock: [[I64T, I32T], undefined],
  avicHighest: [[I32T, I32T], I32T],
  avicEvaluate: [[], undefined],
  avicTake: [[], I32T],
  avicSend: [[], undefined],
  avicSelf: [[I32T], undefined],
  avicSelfIpi: [[I32T], undefined],
  avicWriteTpr: [[I32T], undefined],
  avicLoad: [[I32T, I32T], I64T],
  avicStore: [[I32T, I32T, I64T], undefined],
  avicReadMsr: [[I32T], I32T],
  avicWriteMsr: [[I32T], I32T],
  ringDoorbell: [[I32T], undefined],
};
