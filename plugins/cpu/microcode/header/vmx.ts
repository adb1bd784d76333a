/**
 * VMX, the virtual APIC of its guests, and entries by a host that is the program outside.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** The VMX unit. */
export interface VmxRoutines {
  // VMX (vmx/*.ts). What an instruction of VMX operation yields is the arithmetic flags it sets.

  /** `(error)`: VMfail: to the current VMCS if there is one. */
  readonly vmxFail: Fn<[I], I>;
  /** `(pointer)`: VMXON outside of VMX operation. */
  readonly vmxon: Fn<[L], I>;
  /** `()`: VMXOFF. */
  readonly vmxoff: Fn<[]>;
  /** `(pointer)`: VMCLEAR. */
  readonly vmclear: Fn<[L], I>;
  /** `(pointer)`: VMPTRLD. */
  readonly vmptrld: Fn<[L], I>;
  /** `(region, encoding)`: VMREAD from the VMCS at a memory address (0 for none) into `S.exchange`. */
  readonly vmread: Fn<[I, L], I>;
  /** `(region, encoding, value)`: VMWRITE. */
  readonly vmwrite: Fn<[I, L, L], I>;
  /** `(launch)`: VMLAUNCH (1) or VMRESUME (0); negative if the state is another one now. */
  readonly vmxEnter: Fn<[I], I>;
  /** `(reason, qualification)`: a VM entry has failed: loads the host. */
  readonly vmxEntryFailed: Fn<[I, L]>;
  /** `()`: leaves non-root operation for the host of the current VMCS. */
  readonly vmxLoadHost: Fn<[]>;
  /** `()`: makes the TLB context of the guest's VPID and EPT pointer the active one. */
  readonly selectGuestContext: Fn<[]>;
  /** `(reason, qualification)`: VM exit; the instruction at hand, if any, has not taken place. */
  readonly vmxExit: Fn<[I, L]>;
  /** `(reason, qualification)`: the same from within an access, saving RF as set. Does not return. */
  readonly vmxExitFault: Fn<[I, L]>;
  /** `(event, error, qualification)`: VM exit for an exception or NMI. */
  readonly vmxExitEvent: Fn<[I, I, L]>;
  /** `(information)`: VM exit for an external interrupt. */
  readonly vmxExitInterrupt: Fn<[I]>;
  /** `(event, error)`: takes the VM exit if the exception bitmap asks for one: 1, else 0. */
  readonly vmxException: Fn<[I, I], I>;
  /**
   * `(trap)`: an exception or debug trap is about to be delivered: takes the VM exit if there has been no
   * event window for too long: 1, else 0.
   */
  readonly vmxNotify: Fn<[I], I>;
  /** `()`: exits that come before debug traps: 1 if one was taken. */
  readonly vmxBeforeTraps: Fn<[], I>;
  /** `()`: exits that come behind debug traps: 1 if one was taken. */
  readonly vmxAfterTraps: Fn<[], I>;
  /** `(index)`: RDMSR for a list of a VM exit: as `readMsr`, and 0 whatever goes wrong. */
  readonly listReadMsr: Fn<[I], I>;
  /** `(index)`: WRMSR for a list of a VM entry or exit. */
  readonly listWriteMsr: Fn<[I], I>;
  /** `(port, bytes)`: 1 if an access exits. */
  readonly vmxPortIntercepted: Fn<[I, I], I>;
  /** `(index, write)`: 1 if an access exits. */
  readonly vmxMsrIntercepted: Fn<[I, I], I>;
  /** `(encoding, write)`: 1 if VMREAD or VMWRITE exits by the shadow-VMCS bitmaps. */
  readonly vmcsFieldIntercepted: Fn<[L, I], I>;
  /** `(uop)`: a memory operand as in the VM-exit instruction information. */
  readonly memoryInformation: Fn<[I], I>;
  /** `(uop)`: the same as in the extended VM-exit instruction information. */
  readonly extendedMemoryInformation: Fn<[I], L>;
  /** `()`: starts the preemption timer, if it is on. */
  readonly startTimer: Fn<[]>;
  /** `()`: holds back the part of the budget that lies behind the timer's expiry. */
  readonly splitBudget: Fn<[]>;
  /** `()`: the time-stamp counter without a guest's offset and scale. */
  readonly readHostTsc: Fn<[], L>;
  /** `(gpa, access)`: guest physical to host physical address under EPT. */
  readonly eptTranslate: Fn<[L, I], L>;
  /** `()`: empties the active TLB context if it belongs to another EPT pointer. */
  readonly matchEptContext: Fn<[]>;
  /** `(type, pointer, high)`: INVEPT. */
  readonly invept: Fn<[L, L, L], I>;
  /** `(type, vpid, linear)`: INVVPID. */
  readonly invvpid: Fn<[L, L, L], I>;
  /** `()`: VMFUNC: 1 if it has exited. */
  readonly vmfunc: Fn<[], I>;

  // The virtual APIC of a VMX guest (vmx/apic/*.ts). Its page is S.vapic.

  /** `()`: TPR virtualization: VTPR has been written, or an entry made. */
  readonly vapicTpr: Fn<[]>;
  /** `()`: EOI virtualization. */
  readonly vapicEoi: Fn<[]>;
  /** `(vector)`: requests a virtual interrupt and evaluates. */
  readonly vapicRequest: Fn<[I]>;
  /** `()`: takes the requesting virtual interrupt into service: its vector. */
  readonly vapicTake: Fn<[], I>;
  /** `(offset)`: instruction fetch from the APIC-access page. Does not return. */
  readonly vapicFetch: Fn<[I]>;
  /** `(offset, bytes)`: load from the APIC-access page. */
  readonly vapicLoad: Fn<[I, I], L>;
  /** `(offset, bytes, value)`: store to the APIC-access page. */
  readonly vapicStore: Fn<[I, I, L]>;
  /** `(offset)`: what follows a write of a register of the virtual-APIC page. */
  readonly vapicWritten: Fn<[I]>;
  /** `(index)`: RDMSR of 800h–8FFh: `Virtualized` (vmx/apic/accesses.ts), and `S.exchange`. */
  readonly vapicReadMsr: Fn<[I], I>;
  /** `(index)`: WRMSR of `S.exchange`: `Virtualized`. */
  readonly vapicWriteMsr: Fn<[I], I>;
  /** `(command, target)`: IPI virtualization of an ICR write: 1 if it was sent. */
  readonly vapicSendIpi: Fn<[I, I], I>;
  /** `()`: the notification vector has arrived: takes posted interrupts over. */
  readonly processPosted: Fn<[]>;

  // VMX for a host that is the program outside (vmx/host_stub.ts).

  /** `(operation, low, high)`: VMXON, VMCLEAR or VMPTRLD. */
  readonly vmxHostPointer: Fn<[I, I, I], I>;
  /** `(encoding)`: VMREAD into `S.exchange`. */
  readonly vmxHostRead: Fn<[I], I>;
  /** `(encoding, low, high)`: VMWRITE. */
  readonly vmxHostWrite: Fn<[I, I, I], I>;
  /** `(vpid, type, low, high)`: INVVPID (1) of a VPID or INVEPT (0) of an EPT pointer. */
  readonly vmxHostInvalidate: Fn<[I, I, I, I], I>;
  /** `(registers, launch, budget)`: VM entry, running, `vmxHostLeave`: 0, or negative if there was no entry. */
  readonly vmxHostEnter: Fn<[I, I, I], I>;
  /**
   * `(registers)`: behind the exit, which is an external interrupt's if there was none yet: the guest's
   * registers and exit information are read.
   */
  readonly vmxHostLeave: Fn<[I]>;
}

/** Their signatures. */
export const VMX: Signatures<VmxRoutines> = {
  vmxFail: [[I32T], I32T],
  vmxon: [[I64T], I32T],
  vmxoff: [[], undefined],
  vmclear: [[I64T], I32T],
  vmptrld: [[I64T], I32T],
  vmread: [[I32T, I64T], I32T],
  vmwrite: [[I32T, I64T, I64T], I32T],
  vmxEnter: [[I32T], I32T],
  vmxEntryFailed: [[I32T, I64T], undefined],
  vmxLoadHost: [[], undefined],
  selectGuestContext: [[], undefined],
  vmxExit: [[I32T, I64T], undefined],
  vmxExitFault: [[I32T, I64T], undefined],
  vmxExitEvent: [[I32T, I32T, I64T], undefined],
  vmxExitInterrupt: [[I32T], undefined],
  vmxException: [[I32T, I32T], I32T],
  vmxNotify: [[I32T], I32T],
  vmxBeforeTraps: [[], I32T],
  vmxAfterTraps: [[], I32T],
  listReadMsr: [[I32T], I32T],
  listWriteMsr: [[I32T], I32T],
  vmxPortIntercepted: [[I32T, I32T], I32T],
  vmxMsrIntercepted: [[I32T, I32T], I32T],
  vmcsFieldIntercepted: [[I64T, I32T], I32T],
  memoryInformation: [[I32T], I32T],
  extendedMemoryInformation: [[I32T], I64T],
  startTimer: [[], undefined],
  splitBudget: [[], undefined],
  readHostTsc: [[], I64T],
  eptTranslate: [[I64T, I32T], I64T],
  matchEptContext: [[], undefined],
  invept: [[I64T, I64T, I64T], I32T],
  invvpid: [[I64T, I64T, I64T], I32T],
  vmfunc: [[], I32T],
  vapicTpr: [[], undefined],
  vapicEoi: [[], undefined],
  vapicRequest: [[I32T], undefined],
  vapicTake: [[], I32T],
  vapicFetch: [[I32T], undefined],
  vapicLoad: [[I32T, I32T], I64T],
  vapicStore: [[I32T, I32T, I64T], undefined],
  vapicWritten: [[I32T], undefined],
  vapicReadMsr: [[I32T], I32T],
  vapicWriteMsr: [[I32T], I32T],
  vapicSendIpi: [[I32T, I32T], I32T],
  processPosted: [[], undefined],
  vmxHostPointer: [[I32T, I32T, I32T], I32T],
  vmxHostRead: [[I32T], I32T],
  vmxHostWrite: [[I32T, I32T, I32T], I32T],
  vmxHostInvalidate: [[I32T, I32T, I32T, I32T], I32T],
  vmxHostEnter: [[I32T, I32T, I32T], I32T],
  vmxHostLeave: [[I32T], undefined],
};
