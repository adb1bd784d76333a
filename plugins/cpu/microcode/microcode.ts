/**
 * The header of the processor's microcode: every WebAssembly function that instructions call.
 *
 * Bodies are in the files named beside each group. The interpreter's module defines them; a module
 * compiled later imports those it calls by the same names.
 *
 * @module
 */
import { I32T, I64T } from "../wasm/mod.ts";
import type { AnyToken, FunctionRef, I32, I64, ModuleBuilder, TypeToken } from "../wasm/mod.ts";

type I = TypeToken<I32>;
type L = TypeToken<I64>;
type Fn<P extends readonly AnyToken[], R extends AnyToken | undefined = undefined> = FunctionRef<
  P,
  R
>;

/** Why the stack was unwound (`S.unwind`). */
export const Unwind = {
  /** An exception is to be delivered: `S.exception*`. */
  EXCEPTION: 1,
  /** The instruction is to run again, alone in its block. */
  RESTART: 2,
  /** A #VMEXIT has been taken in the middle of an instruction. */
  VMEXIT: 3,
  /** The program outside has dealt with the instruction and set RIP. */
  LEFT: 4,
} as const;

/** What {@linkcode Microcode.service} asks of the dispatcher. */
export const Service = {
  /** Nothing is in the way of the next instruction. */
  GO_ON: 0,
  /** The loop returns, with `S.stop`. */
  STOP: 1,
  /** An event was delivered or has left the guest: others may follow before the next instruction. */
  AGAIN: 2,
} as const;

/** What the program outside supplies (engine/imports.ts). */
export interface Outside {
  /** `(index)`: gives chunk `index` of physical memory its backing; its address, or 0. */
  readonly allocateChunk: Fn<[I], I>;
  /** `(paLow, paHigh, bytes)`: reads a device; the result is in `S.exchange`. */
  readonly deviceRead: Fn<[I, I, I]>;
  /** `(paLow, paHigh, bytes)`: writes a device; the value is in `S.exchange`. */
  readonly deviceWrite: Fn<[I, I, I]>;
  /** `(port, bytes)`: reads a port. */
  readonly portRead: Fn<[I, I], I>;
  /** `(port, bytes, value)`: writes a port. */
  readonly portWrite: Fn<[I, I, I]>;
  /** `(leaf, subleaf)`: CPUID; the four registers are in `S.exchange`. */
  readonly cpuid: Fn<[I, I]>;
  /** `(index)`: RDMSR of an MSR the processor does not keep itself: 1 and `S.exchange`, or 0 for #GP. */
  readonly msrRead: Fn<[I], I>;
  /** `(index)`: WRMSR; the value is in `S.exchange`. 1, or 0 for #GP. */
  readonly msrWrite: Fn<[I], I>;
  /** `(codeAddress, alone)`: decodes the block at RIP; its address, or 0 after raising. */
  readonly decode: Fn<[I, I], I>;
  /** `(address, bytes)`: memory that holds decoded code is about to be written. */
  readonly codeWritten: Fn<[I, I]>;
  /** `(uop)`: the instruction has to be the last of its block from now on. */
  readonly isolate: Fn<[I]>;
  /** `(uop)`: the instruction of a micro-op is not implemented; does not return. */
  readonly unimplemented: Fn<[I]>;
  /** `()`: INTA cycle: the vector. */
  readonly acknowledge: Fn<[], I>;
  /** `(priority)`: CR8 was written, and not the virtual one. */
  readonly setTaskPriority: Fn<[I]>;
}

/** What the microcode itself consists of. */
export interface Routines {
  // Exceptions and unwinding (microcode/raise.ts).

  /** `(vector)`: raises a fault without error code. Does not return. */
  readonly raise: Fn<[I]>;
  /** `(vector, error)`: raises an exception with an error code. Does not return. */
  readonly raiseError: Fn<[I, I]>;
  /** `(linear, error)`: raises #PF. Does not return. */
  readonly pageFault: Fn<[L, I]>;
  /** `(kind)`: unwinds to the dispatcher. Does not return. */
  readonly unwindTo: Fn<[I]>;
  /** `()`: makes RIP and RFLAGS in the state what the program outside expects to see. */
  readonly beforeOutside: Fn<[]>;
  /** `()`: takes over what it changed; unwinds if it raised an exception or went elsewhere. */
  readonly afterOutside: Fn<[]>;
  /** `()`: gives up the instruction at hand: RIP and budget as before it. */
  readonly settle: Fn<[]>;
  /** `()`: unwinds with {@linkcode Unwind.RESTART} unless the instruction is the last of its block. */
  readonly needAlone: Fn<[]>;

  // Events (microcode/events.ts, microcode/interrupt.ts).

  /** `()`: deals with a pending event; one of {@linkcode Service}. */
  readonly service: Fn<[], I>;
  /** `(event, error, returnRip)`: delivers an event through the IDT (or the real-mode table). */
  readonly deliver: Fn<[I, I, L]>;
  /** `()`: what has to be done after the stack was unwound. */
  readonly afterUnwind: Fn<[]>;

  // Breakpoints (microcode/breakpoints.ts).

  /** `()`: 1 if the instruction at RIP has a breakpoint; the #DB is then pending. */
  readonly codeBreakpoint: Fn<[], I>;
  /** `(linear, bytes, write)`: notes the breakpoints that an access meets. */
  readonly dataBreakpoint: Fn<[L, I, I]>;
  /** `(port, bytes)`: notes the breakpoints that an access to a port meets. */
  readonly portBreakpoint: Fn<[I, I]>;

  // Last-branch records (microcode/last_branch.ts).

  /** `(block)`: the one instruction of the block has been executed; 1 if it transferred control. */
  readonly recordBranch: Fn<[I], I>;
  /** `(event, from)`: an event has been delivered that interrupted the instruction at `from`. */
  readonly recordEvent: Fn<[I, L]>;

  // Control registers, MSRs, ports (microcode/control.ts, microcode/msr.ts, microcode/port.ts).

  /** `(n, value)`: raises #GP unless `value` may be moved to CRn as the processor is now. */
  readonly checkCr: Fn<[I, L]>;
  /** `(value)`: MOV to CR0 of a checked value. */
  readonly writeCr0: Fn<[L]>;
  /** `(value)`: MOV to CR3 of a checked value; #GP for bad PAE entries. */
  readonly writeCr3: Fn<[L]>;
  /** `(value)`: MOV to CR4 of a checked value; #GP for bad PAE entries. */
  readonly writeCr4: Fn<[L]>;
  /** `(cr3)`: loads the four PAE page-directory-pointer entries; 0 if one of them is bad. */
  readonly readPdptes: Fn<[L], I>;
  /** `(index)`: RDMSR: 1 and `S.exchange`, or 0 for #GP. */
  readonly readMsr: Fn<[I], I>;
  /** `(index)`: WRMSR of `S.exchange`: 1, or 0 for #GP. */
  readonly writeMsr: Fn<[I], I>;
  /** `()`: the time-stamp counter as RDTSC reads it. */
  readonly readTsc: Fn<[], L>;
  /** `(port, bytes)`: raises #GP unless IOPL or the TSS's bitmap allows the access. */
  readonly checkPort: Fn<[I, I]>;
  /** `(port, bytes)`: 1 if the I/O permission map intercepts the access. */
  readonly portIntercepted: Fn<[I, I], I>;
  /** `(index, write)`: 1 if the MSR permission map intercepts the access. */
  readonly msrIntercepted: Fn<[I, I], I>;
  /** `(nextRip)`: SYSCALL. */
  readonly systemCall: Fn<[L]>;
  /** `(bits)`: SYSRET. */
  readonly systemReturn: Fn<[I]>;
  /** `()`: SYSENTER. */
  readonly systemEnter: Fn<[]>;
  /** `()`: SYSEXIT. */
  readonly systemExit: Fn<[]>;

  // Extended state (microcode/extended_state.ts).

  /** `()`: components that are not in their initial configuration (XINUSE). */
  readonly xinuse: Fn<[], L>;
  /** `(value)`: XSETBV of XCR0; raises #GP for bits that cannot be. */
  readonly writeXcr0: Fn<[L]>;
  /** `(area, wanted, how)`: saves the `wanted` components that XCR0 enables, see `SaveHow`. */
  readonly saveExtended: Fn<[L, L, I]>;
  /** `(area, wanted, supervisor)`: XRSTOR, or XRSTORS with `supervisor` 1. */
  readonly restoreExtended: Fn<[L, L, I]>;

  // SVM (svm/*.ts).

  /** `(vmcb)`: #GP unless aligned and in memory; its memory address. */
  readonly vmcbAddress: Fn<[L], I>;
  /** `(vmcb, nextRip)`: VMRUN, all privileges checked. */
  readonly vmrun: Fn<[L, L]>;
  /** `(vmcbLow, vmcbHigh, registers, budget)`: a hypervisor's entry stub: VMLOAD, VMRUN, and running. */
  readonly enterGuest: Fn<[I, I, I, I], I>;
  /** `(vmcbLow, vmcbHigh, registers)`: the stub's other half, behind the #VMEXIT. */
  readonly leaveGuestStub: Fn<[I, I, I]>;
  /** `(code)`: #VMEXIT between two instructions, for a reason from outside. */
  readonly forceExit: Fn<[I]>;
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

  /** `(linear, bytes)`: counts a locked access if it locks the bus; exits if it may not (svm/bus_lock.ts). */
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
  /** `(registers, launch, budget)`: VM entry and running; a stop reason, or negative if it failed. */
  readonly vmxHostEnter: Fn<[I, I, I], I>;
  /** `(registers)`: behind the exit, which is an external interrupt's if there was none yet. */
  readonly vmxHostLeave: Fn<[I]>;

  // Segments and far transfers (microcode/segments.ts, microcode/far.ts).

  /** `(segment, selector)`: loads ES, SS, DS, FS or GS as MOV and POP do. */
  readonly loadSegment: Fn<[I, I]>;
  /** `(segment, selector)`: loads a segment register as real and virtual-8086 mode do. */
  readonly loadRealSegment: Fn<[I, I]>;
  /** `(segment, selector, descriptor)`: sets a segment register from a descriptor, unchecked. */
  readonly setSegment: Fn<[I, I, L]>;
  /** `()`: works out what each segment may be used for, after they were written from outside. */
  readonly refreshSegments: Fn<[]>;
  /** `(segment, selector)`: makes a segment register null and unusable. */
  readonly clearSegment: Fn<[I, I]>;
  /** `(selector, vector, ext)`: the descriptor; raises `vector` with the selector beyond the limit. */
  readonly readDescriptor: Fn<[I, I, I], L>;
  /** `(selector, descriptor)`: sets the accessed bit of a descriptor in its table. */
  readonly markAccessed: Fn<[I, L]>;
  /** `(selector)`: LLDT. */
  readonly loadLdt: Fn<[I]>;
  /** `(selector)`: LTR. */
  readonly loadTask: Fn<[I]>;
  /** `(selector, offset)`: far JMP. */
  readonly jumpFar: Fn<[I, L]>;
  /** `(selector, offset, bits, returnRip)`: far CALL. */
  readonly callFar: Fn<[I, L, I, L]>;
  /** `(bits, release)`: far RET. */
  readonly returnFar: Fn<[I, I]>;
  /** `(bits)`: IRET. */
  readonly returnInterrupt: Fn<[I]>;
  /**
   * `(selector, how, rip, flags, error, ext)`: switches to the task of TSS `selector`, saving `rip` and
   * `flags` in the old one; `how` is of `TaskSwitch`.
   */
  readonly switchTask: Fn<[I, I, L, L, I, I]>;

  // Blocks (engine/run.ts).

  /** `(alone)`: the block at RIP; 0 if raising was necessary, with `S.unwind` set. */
  readonly findBlock: Fn<[I], I>;
  /** `(rip)`: the block at `rip` if the jump cache has it, else 0. */
  readonly findJump: Fn<[L], I>;
  /** `(linearLow, linearHigh)`: as `fetch`, but 0 instead of raising, with `S.unwind` set. */
  readonly tryFetch: Fn<[I, I], I>;
  /** `(budget)`: runs; returns the stop reason. */
  readonly run: Fn<[I], I>;

  // Lazy flags (semantics/flags.ts).

  /** `(kind, a, b)`: OF SF ZF AF PF CF in their RFLAGS positions. */
  readonly flagsValue: Fn<[I, L, L], I>;
  /** `()`: RFLAGS from the state, which must have been spilled. */
  readonly readFlags: Fn<[], L>;
  /** `(value)`: sets all of RFLAGS (bit 1 forced) and what follows from them. */
  readonly writeFlags: Fn<[L]>;

  // Memory (memory/*.ts).

  /** `(pa)`: memory address of a physical address, 0 if it is no memory. */
  readonly physical: Fn<[L], I>;
  /** `(pa)`: 64 bits at a physical address; all ones where there is no memory. */
  readonly readPhysical: Fn<[L], L>;
  /** `(gpa, access)`: guest physical to host physical address under nested paging. */
  readonly nestedTranslate: Fn<[L, I], L>;
  /** `(gpa, error, isTable)`: #VMEXIT(NPF). Does not return. */
  readonly nestedFault: Fn<[L, I, I]>;
  /** `(linear, access, mmuIndex)`: physical address, with the TLB filled; raises. */
  readonly translate: Fn<[L, I, I], L>;
  /** `(linear)`: memory address of the code at a linear address; raises. */
  readonly fetch: Fn<[L], I>;
  /** `()`: empties the active TLB context. */
  readonly flushTlb: Fn<[]>;
  /** `(linear)`: drops the translations of one page. */
  readonly flushPage: Fn<[L]>;
  /** `()`: drops the jump cache. */
  readonly flushJumps: Fn<[]>;
  /** `()`: recomputes CPL, mode word and TLB pointers from the segment and control registers. */
  readonly updateMode: Fn<[]>;
  /** `(tag)`: makes the TLB context of `tag` the active one. */
  readonly selectContext: Fn<[I]>;
  /** `(tag, linear, how)`: flushes contexts: `how` 0 a page of `tag`, 1 all of `tag`, 2 everything. */
  readonly flushContexts: Fn<[I, L, I]>;
  /** `(linear, bits, mmuIndex)`: load that missed the TLB. */
  readonly slowLoad: Fn<[L, I, I], L>;
  /** `(linear, bits, mmuIndex)`: load for a read-modify-write that missed the TLB. */
  readonly slowLoadForWrite: Fn<[L, I, I], L>;
  /** `(linear, bits, value, mmuIndex)`: store that missed the TLB. */
  readonly slowStore: Fn<[L, I, L, I]>;
  /** `(linear)` at the current privilege: one for each width. */
  readonly load8: Fn<[L], L>;
  /** 16 bits, zero-extended. */
  readonly load16: Fn<[L], L>;
  /** 32 bits, zero-extended. */
  readonly load32: Fn<[L], L>;
  /** 64 bits. */
  readonly load64: Fn<[L], L>;
  /** `(linear, value)` */
  readonly store8: Fn<[L, L]>;
  /** 16 bits. */
  readonly store16: Fn<[L, L]>;
  /** 32 bits. */
  readonly store32: Fn<[L, L]>;
  /** 64 bits. */
  readonly store64: Fn<[L, L]>;
  /** `(linear, bits)`: implicit supervisor load (descriptor tables, TSS). */
  readonly systemLoad: Fn<[L, I], L>;
  /** `(linear, bits, value)`: implicit supervisor store. */
  readonly systemStore: Fn<[L, I, L]>;
  /** `(linear, bytes)`: checks that a store at the current privilege will not fault. */
  readonly probeStore: Fn<[L, I]>;
  /** `(uop)`: offset of a general memory operand, cut to its address size. */
  readonly effectiveOffset: Fn<[I], L>;
  /** `(uop, bytes, access)`: linear address of a general memory operand, checked. */
  readonly effectiveAddress: Fn<[I, I, I], L>;
  /** `(segment, offset, bytes, access)`: linear address, limit and type checked. */
  readonly segmentAddress: Fn<[I, L, I, I], L>;
}

/** Everything an instruction can call. */
export interface Microcode extends Outside, Routines {
  /** The module under construction. */
  readonly module: ModuleBuilder;
}

type SignatureOf<F> = F extends FunctionRef<infer P, infer R> ? readonly [P, R] : never;

const OUTSIDE: { [K in keyof Outside]: SignatureOf<Outside[K]> } = {
  allocateChunk: [[I32T], I32T],
  deviceRead: [[I32T, I32T, I32T], undefined],
  deviceWrite: [[I32T, I32T, I32T], undefined],
  portRead: [[I32T, I32T], I32T],
  portWrite: [[I32T, I32T, I32T], undefined],
  cpuid: [[I32T, I32T], undefined],
  msrRead: [[I32T], I32T],
  msrWrite: [[I32T], I32T],
  decode: [[I32T, I32T], I32T],
  codeWritten: [[I32T, I32T], undefined],
  isolate: [[I32T], undefined],
  unimplemented: [[I32T], undefined],
  acknowledge: [[], I32T],
  setTaskPriority: [[I32T], undefined],
};

const ROUTINES: { [K in keyof Routines]: SignatureOf<Routines[K]> } = {
  raise: [[I32T], undefined],
  raiseError: [[I32T, I32T], undefined],
  pageFault: [[I64T, I32T], undefined],
  unwindTo: [[I32T], undefined],
  beforeOutside: [[], undefined],
  afterOutside: [[], undefined],
  settle: [[], undefined],
  needAlone: [[], undefined],
  service: [[], I32T],
  deliver: [[I32T, I32T, I64T], undefined],
  afterUnwind: [[], undefined],
  codeBreakpoint: [[], I32T],
  dataBreakpoint: [[I64T, I32T, I32T], undefined],
  portBreakpoint: [[I32T, I32T], undefined],
  recordBranch: [[I32T], I32T],
  recordEvent: [[I32T, I64T], undefined],
  checkCr: [[I32T, I64T], undefined],
  xinuse: [[], I64T],
  writeXcr0: [[I64T], undefined],
  saveExtended: [[I64T, I64T, I32T], undefined],
  restoreExtended: [[I64T, I64T, I32T], undefined],
  writeCr0: [[I64T], undefined],
  writeCr3: [[I64T], undefined],
  writeCr4: [[I64T], undefined],
  readPdptes: [[I64T], I32T],
  readMsr: [[I32T], I32T],
  writeMsr: [[I32T], I32T],
  readTsc: [[], I64T],
  checkPort: [[I32T, I32T], undefined],
  portIntercepted: [[I32T, I32T], I32T],
  msrIntercepted: [[I32T, I32T], I32T],
  systemCall: [[I64T], undefined],
  systemReturn: [[I32T], undefined],
  systemEnter: [[], undefined],
  systemExit: [[], undefined],
  vmcbAddress: [[I64T], I32T],
  vmrun: [[I64T, I64T], undefined],
  enterGuest: [[I32T, I32T, I32T, I32T], I32T],
  leaveGuestStub: [[I32T, I32T, I32T], undefined],
  forceExit: [[I32T], undefined],
  pauseExits: [[], I32T],
  busLock: [[I64T, I32T], undefined],
  vmload: [[I64T], undefined],
  vmsave: [[I64T], undefined],
  vmexit: [[I64T, I64T, I64T], undefined],
  vmexitInstruction: [[I64T, I64T, I64T], undefined],
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
  vmxExit: [[I32T, I64T], undefined],
  vmxExitFault: [[I32T, I64T], undefined],
  vmxExitEvent: [[I32T, I32T, I64T], undefined],
  vmxExitInterrupt: [[I32T], undefined],
  vmxException: [[I32T, I32T], I32T],
  vmxBeforeTraps: [[], I32T],
  vmxAfterTraps: [[], I32T],
  listReadMsr: [[I32T], I32T],
  listWriteMsr: [[I32T], I32T],
  vmxPortIntercepted: [[I32T, I32T], I32T],
  vmxMsrIntercepted: [[I32T, I32T], I32T],
  vmcsFieldIntercepted: [[I64T, I32T], I32T],
  memoryInformation: [[I32T], I32T],
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
  loadSegment: [[I32T, I32T], undefined],
  loadRealSegment: [[I32T, I32T], undefined],
  setSegment: [[I32T, I32T, I64T], undefined],
  refreshSegments: [[], undefined],
  clearSegment: [[I32T, I32T], undefined],
  readDescriptor: [[I32T, I32T, I32T], I64T],
  markAccessed: [[I32T, I64T], undefined],
  loadLdt: [[I32T], undefined],
  loadTask: [[I32T], undefined],
  jumpFar: [[I32T, I64T], undefined],
  callFar: [[I32T, I64T, I32T, I64T], undefined],
  returnFar: [[I32T, I32T], undefined],
  returnInterrupt: [[I32T], undefined],
  switchTask: [[I32T, I32T, I64T, I64T, I32T, I32T], undefined],
  findBlock: [[I32T], I32T],
  findJump: [[I64T], I32T],
  tryFetch: [[I32T, I32T], I32T],
  run: [[I32T], I32T],
  flagsValue: [[I32T, I64T, I64T], I32T],
  readFlags: [[], I64T],
  writeFlags: [[I64T], undefined],
  physical: [[I64T], I32T],
  readPhysical: [[I64T], I64T],
  nestedTranslate: [[I64T, I32T], I64T],
  nestedFault: [[I64T, I32T, I32T], undefined],
  translate: [[I64T, I32T, I32T], I64T],
  fetch: [[I64T], I32T],
  flushTlb: [[], undefined],
  flushPage: [[I64T], undefined],
  flushJumps: [[], undefined],
  updateMode: [[], undefined],
  selectContext: [[I32T], undefined],
  flushContexts: [[I32T, I64T, I32T], undefined],
  slowLoad: [[I64T, I32T, I32T], I64T],
  slowLoadForWrite: [[I64T, I32T, I32T], I64T],
  slowStore: [[I64T, I32T, I64T, I32T], undefined],
  load8: [[I64T], I64T],
  load16: [[I64T], I64T],
  load32: [[I64T], I64T],
  load64: [[I64T], I64T],
  store8: [[I64T, I64T], undefined],
  store16: [[I64T, I64T], undefined],
  store32: [[I64T, I64T], undefined],
  store64: [[I64T, I64T], undefined],
  systemLoad: [[I64T, I32T], I64T],
  systemStore: [[I64T, I32T, I64T], undefined],
  probeStore: [[I64T, I32T], undefined],
  effectiveOffset: [[I32T], I64T],
  effectiveAddress: [[I32T, I32T, I32T], I64T],
  segmentAddress: [[I32T, I64T, I32T, I32T], I64T],
};

type Declare = (
  name: string,
  params: readonly AnyToken[],
  result: AnyToken | undefined,
) => FunctionRef;

function declareAll<T>(table: object, declare: Declare): T {
  const entries = Object.entries(table) as [string, readonly [AnyToken[], AnyToken | undefined]][];
  return Object.fromEntries(
    entries.map(([name, [params, result]]) => [name, declare(name, params, result)]),
  ) as T;
}

/** Declares the microcode in the module that defines it; the bodies are still to be given. */
export function declareMicrocode(module: ModuleBuilder): Microcode {
  const outside = declareAll<Outside>(
    OUTSIDE,
    (name, params, result) => module.import(name, params, result),
  );
  const routines = declareAll<Routines>(
    ROUTINES,
    (name, params, result) => module.declare(name, params, result, true),
  );
  return { module, ...outside, ...routines };
}
