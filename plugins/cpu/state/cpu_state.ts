/**
 * The state of the processor that is loaded: what the manuals name, and what the engine keeps.
 *
 * Stands at constant addresses from {@linkcode CPU_STATE}. Another processor is loaded by copying the
 * whole area out and in.
 *
 * @module
 */
import { Allocator, type Field32, type Field64 } from "./field.ts";
import { EventLog } from "./event.ts";
import { CPU_STATE, CPU_STATE_END, IMAGE_BYTES } from "./layout.ts";
import { SEGMENT_BYTES } from "./segment.ts";

export { DR6_BS, Event, EventLog, MonitorWait } from "./event.ts";
export { ENFORCED_MODES, Mode } from "./mode.ts";
export { Attr, Seg, SEGMENT_BYTES, SegmentField, SegmentUse } from "./segment.ts";

const at = new Allocator(CPU_STATE);

/** Constant addresses of the loaded processor's state. See the fields. */
export class CpuState {
  /** 32 general-purpose registers (R16–R31 are APX's), in machine encoding, 8 bytes each. */
  readonly registers: number = at.bytes(32 * 8, 64);
  /** RIP of the next instruction, whenever the dispatcher has control. Follows the registers. */
  readonly rip: Field64 = at.i64();
  /** RFLAGS without the arithmetic flags (bit 1 set). */
  readonly rflags: Field64 = at.i64();
  /** Eight bytes that are always 0: base or index "none". */
  readonly zero: number = at.bytes(8, 8);

  /** Kind of the lazily kept arithmetic flags, see `semantics/flags.ts`. */
  readonly flagsKind: Field32 = at.i32();
  /** Micro-op of the instruction that called into microcode. */
  readonly uop: Field32 = at.i32();
  /** First operand of the lazy flags. */
  readonly flagsA: Field64 = at.i64();
  /** Second operand of the lazy flags. */
  readonly flagsB: Field64 = at.i64();
  /** Instructions the processor may still retire before it must return. */
  readonly budget: Field32 = at.i32();
  /** The budget when the run began. */
  readonly budgetStart: Field32 = at.i32();
  /** Budget kept back while one instruction runs alone. */
  readonly held: Field32 = at.i32();
  /** Instructions that the run had retired when the program outside was last asked. */
  readonly retired: Field32 = at.i32();
  /** Budget kept back behind the present slice, see `engine/slice.ts`. */
  readonly sliceHeld: Field32 = at.i32();
  /** Budget that the present slice began with. */
  readonly sliceGranted: Field32 = at.i32();
  /** Instructions until the dispatcher next looks where the processor is. */
  readonly sliceLeft: Field32 = at.i32();
  /** Head of the compiled region that last ran out of budget. */
  readonly leftRegion: Field32 = at.i32();
  /** The block it would have gone on with. */
  readonly leftBefore: Field32 = at.i32();
  /** 1 while an instruction runs that began with RFLAGS.TF set. */
  readonly stepping: Field32 = at.i32();
  /** With {@linkcode Event.LIMIT}: most instructions that may still be retired. */
  readonly limit: Field32 = at.i32();
  /** Events delivered in this run; each costs one of the budget, so that a fault loop ends. */
  readonly deliveries: Field32 = at.i32();
  /** {@linkcode Event} bits. */
  readonly events: Field32 = at.i32();
  /** {@linkcode Mode} bits. */
  readonly mode: Field32 = at.i32();
  /** Current privilege level. */
  readonly cpl: Field32 = at.i32();
  /** Why the loop returns (see `engine/run.ts`). */
  readonly stop: Field32 = at.i32();
  /** Where the dispatcher stores the next block's address, to chain; 0 for nowhere. */
  readonly link: Field32 = at.i32();
  /** Why the last unwinding took place (see `microcode/unwind.ts`). */
  readonly unwind: Field32 = at.i32();
  /**
   * 1 from a page fault until it is unwound. Whoever sees it behind an access that may have met one returns at
   * once, as far as the dispatcher.
   */
  readonly faulted: Field32 = at.i32();

  /** What the program outside made of an instruction (`Outcome` in microcode/outside.ts). */
  readonly outcome: Field32 = at.i32();
  /** Exception to be delivered, in the format of EVENTINJ 31:0 (APM vol. 2, 15.20). */
  readonly exception: Field32 = at.i32();
  /** Its error code. */
  readonly exceptionError: Field32 = at.i32();
  /** Linear address of a page fault, or the bits a #DB adds to DR6. */
  readonly exceptionAddress: Field64 = at.i64();
  /** Event being delivered through the IDT, in the same format; 0 if none. */
  readonly delivering: Field32 = at.i32();
  /** Error code of the event being delivered. */
  readonly deliveringError: Field32 = at.i32();
  /** 1 while NMIs are blocked until IRET. */
  readonly nmiBlocked: Field32 = at.i32();
  /** Vector that an interrupt acknowledge cycle returns. */
  readonly intrVector: Field32 = at.i32();
  /** Debug trap bits for DR6 (with {@linkcode Event.TRAP}). */
  readonly trapBits: Field32 = at.i32();
  /** Breakpoints that the instruction at hand has met, as in DR6. */
  readonly breakpointHits: Field32 = at.i32();
  /**
   * Not 0 while the stack is accessed implicitly: a bad address is then a stack fault. Bit 0 is 1, the
   * bits above are its error code.
   */
  readonly stackAccess: Field32 = at.i32();

  /** Eight segment registers and NEXT, of {@linkcode SEGMENT_BYTES}, by {@linkcode Seg}. */
  readonly segments: number = at.bytes(9 * SEGMENT_BYTES, 32);
  /** GDTR base and limit. */
  readonly gdtBase: Field64 = at.i64();
  /** GDTR limit. */
  readonly gdtLimit: Field32 = at.i32();
  /** IDTR limit. */
  readonly idtLimit: Field32 = at.i32();
  /** IDTR base. */
  readonly idtBase: Field64 = at.i64();

  /** CR0 */
  readonly cr0: Field64 = at.i64();
  /** CR2 */
  readonly cr2: Field64 = at.i64();
  /** CR3 */
  readonly cr3: Field64 = at.i64();
  /** CR4 */
  readonly cr4: Field64 = at.i64();
  /** CR8: task priority class. */
  readonly cr8: Field64 = at.i64();
  /** 64 less the bits of a linear address: 16, or 7 with 5-level paging on. */
  readonly canonicalShift: Field64 = at.i64();
  /** The same with as many bits as the processor can have. */
  readonly widestShift: Field64 = at.i64();
  /** PKRU: rights of protection keys for user pages, two bits each: AD, WD. */
  readonly pkru: Field64 = at.i64();
  /** PKRS (6E1h): the same for supervisor pages. */
  readonly pkrs: Field64 = at.i64();
  /** SSP, the shadow stack pointer of the privilege level at hand. */
  readonly ssp: Field64 = at.i64();
  /** S_CET (6A2h): control-flow enforcement at CPL 0–2, its tracker included. */
  readonly sCet: Field64 = at.i64();
  /** INTERRUPT_SSP_TABLE_ADDR (6A8h), AMD's ISST_ADDR. */
  readonly sspTable: Field64 = at.i64();
  /** U_CET (6A0h): control-flow enforcement at CPL 3. */
  readonly uCet: Field64 = at.i64();
  /** PL0_SSP–PL3_SSP (6A4h–6A7h), 8 bytes each. */
  readonly plSsp: number = at.bytes(4 * 8, 8);
  /**
   * Page that the last store to a shadow stack was in, with its MMU index in the low bits; belongs to
   * {@linkcode CpuState.shadowContext}.
   */
  readonly shadowPage: Field64 = at.i64();
  /** TLB context of that translation. */
  readonly shadowContext: Field32 = at.i32();
  /** What added to an address in the page makes a memory address. */
  readonly shadowDelta: Field32 = at.i32();
  /** XSS (DA0h). */
  readonly xss: Field64 = at.i64();
  /** Bits that XSS can have. */
  readonly xssSupported: Field64 = at.i64();
  /** 1 while branches are counted. */
  readonly countsBranches: Field32 = at.i32();
  /** 1 while nothing is known of where indirect branches go: the next one is mispredicted. */
  readonly unpredicted: Field32 = at.i32();
  /** Branches retired while they were counted. */
  readonly branches: Field64 = at.i64();
  /** Of these, those that were mispredicted. */
  readonly mispredicted: Field64 = at.i64();
  /** State of the random-number generator. */
  readonly random: Field64 = at.i64();
  /** 1 if MONITOR has armed a wait, and no store has come since. */
  readonly monitorArmed: Field32 = at.i32();
  /** Not 0 if the last halt is MWAIT's (`MonitorWait`). */
  readonly monitorWait: Field32 = at.i32();
  /** With `MonitorWait.TIMER`: most ticks that it lasts. */
  readonly monitorTicks: Field32 = at.i32();
  /** What is added to the time-stamp counter to make MPERF (E7h). */
  readonly mperfOffset: Field64 = at.i64();
  /** The same for APERF (E8h). */
  readonly aperfOffset: Field64 = at.i64();
  /** Features that microcode looks at (`MicrocodeFeature`). */
  readonly features: Field32 = at.i32();
  /** Bits that CR4 has on this processor. */
  readonly cr4Implemented: Field64 = at.i64();
  /** EFER (MSR C000_0080h) */
  readonly efer: Field64 = at.i64();
  /** XCR0 */
  readonly xcr0: Field64 = at.i64();
  /** Bits that XCR0 can have; 0 where there is no XSAVE. */
  readonly xcr0Supported: Field64 = at.i64();
  /** DR0–DR3 (8 bytes each). */
  readonly dr: number = at.bytes(4 * 8, 8);
  /** DR6 */
  readonly dr6: Field64 = at.i64();
  /** DR7 */
  readonly dr7: Field64 = at.i64();
  /** The four PAE page-directory-pointer entries, loaded with CR3 (8 bytes each). */
  readonly pdptes: number = at.bytes(4 * 8, 8);

  /** STAR (C000_0081h) */
  readonly star: Field64 = at.i64();
  /** LSTAR (C000_0082h) */
  readonly lstar: Field64 = at.i64();
  /** CSTAR (C000_0083h) */
  readonly cstar: Field64 = at.i64();
  /** SFMASK (C000_0084h) */
  readonly sfmask: Field64 = at.i64();
  /** KernelGSBase (C000_0102h) */
  readonly kernelGsBase: Field64 = at.i64();
  /** SYSENTER_CS (174h) */
  readonly sysenterCs: Field64 = at.i64();
  /** SYSENTER_ESP (175h) */
  readonly sysenterEsp: Field64 = at.i64();
  /** SYSENTER_EIP (176h) */
  readonly sysenterEip: Field64 = at.i64();
  /** PAT (277h) */
  readonly pat: Field64 = at.i64();
  /** TSC_AUX (C000_0103h) */
  readonly tscAux: Field64 = at.i64();
  /** TSC at the moment the run began; TSC = this + instructions retired since. */
  readonly tscStart: Field64 = at.i64();
  /** What WRMSR to the TSC has added to it. */
  readonly tscAdjust: Field64 = at.i64();
  /** Offset that RDTSC adds in guest mode (VMCB TSC_OFFSET). */
  readonly tscOffset: Field64 = at.i64();
  /** DebugCtl (1D9h) */
  readonly debugCtl: Field64 = at.i64();
  /** LastBranchFromIP (1DBh) */
  readonly lastBranchFrom: Field64 = at.i64();
  /** LastBranchToIP (1DCh) */
  readonly lastBranchTo: Field64 = at.i64();
  /** LastIntFromIP (1DDh) */
  readonly lastIntFrom: Field64 = at.i64();
  /** LastIntToIP (1DEh) */
  readonly lastIntTo: Field64 = at.i64();
  /** APIC base (1Bh) */
  readonly apicBase: Field64 = at.i64();

  /** The guest whose mode and TLB context are in force though its host is loaded; 0 for none (`microcode/world.ts`). */
  readonly inForce: Field64 = at.i64();
  /** What the mode follows from of its RFLAGS and EFER. */
  readonly inForceModal: Field64 = at.i64();
  /** XCR0 when it left. */
  readonly inForceXcr0: Field64 = at.i64();
  /** Bits of a physical address (MAXPHYADDR). */
  readonly physicalBits: Field32 = at.i32();
  /** Base of the chunk map of the physical address space the processor is attached to. */
  readonly physicalMap: Field32 = at.i32();
  /** The chunk map in force outside of guest mode, and the one in force in it: the same but on a spare. */
  readonly hostMap: Field32 = at.i32();
  /** See {@linkcode CpuState.hostMap}. */
  readonly guestMap: Field32 = at.i32();
  /** The one in force in system management mode. */
  readonly smmMap: Field32 = at.i32();
  /** Counts choices of TLB contexts, to find the least recent. */
  readonly contextClock: Field32 = at.i32();
  /** Base of the active TLB context. */
  readonly tlbContext: Field32 = at.i32();
  /** Base of the context that was last chosen for tag 0, the host's; 0 if none was. */
  readonly hostContext: Field32 = at.i32();
  /** The same for any other tag. */
  readonly guestContext: Field32 = at.i32();
  /** Read array for data accesses at the current privilege. */
  readonly tlbRead: Field32 = at.i32();
  /** Instruction TLB for the current privilege. */
  readonly tlbFetch: Field32 = at.i32();
  /** Jump cache of the active TLB context. */
  readonly jumpCache: Field32 = at.i32();
  /** Index of the data TLB for the current privilege (`MmuIndex`). */
  readonly mmu: Field32 = at.i32();
  /** Address bits that are reserved in an entry of a page table: 51:MAXPHYADDR. */
  readonly reservedPte: Field64 = at.i64();
  /** Number of this processor. */
  readonly cpuIndex: Field32 = at.i32();
  /** 1 if the last page walk was for an instruction fetch. */
  readonly fetching: Field32 = at.i32();
  /** 1 while instruction bytes are fetched for a report only: a nested fault is then no exit. */
  readonly peeking: Field32 = at.i32();

  /** SVM: 1 while in guest mode. */
  readonly guestMode: Field32 = at.i32();
  /** SVM: global interrupt flag. */
  readonly gif: Field32 = at.i32();
  /** SVM: 1 if the host is the program outside, so that #VMEXIT leaves the loop. */
  readonly hostOutside: Field32 = at.i32();
  /** SVM: memory address of the host save area in use. */
  readonly hostArea: Field32 = at.i32();
  /** SVM: the host's state while a guest runs, see `svm/world_image.ts`. */
  readonly hostImage: number = at.bytes(IMAGE_BYTES, 16);
  /** SVM: state of the guest of {@linkcode CpuState.cachedVmcb}. */
  readonly guestImage: number = at.bytes(IMAGE_BYTES, 16);
  /** SVM: physical address of the VMCB that is cached, plus 1; 0 for none. */
  readonly cachedVmcb: Field64 = at.i64();
  /** SVM: its ASID. */
  readonly cachedAsid: Field32 = at.i32();
  /** SVM: whether it has nested paging. */
  readonly cachedNested: Field32 = at.i32();
  /** SVM: its six intercept words. */
  readonly cachedIntercepts: number = at.bytes(24, 8);
  /** SVM: its TSC offset. */
  readonly cachedTscOffset: Field64 = at.i64();
  /** SVM: memory address of the current VMCB. */
  readonly vmcb: Field32 = at.i32();
  /** SVM: physical address of the current VMCB. */
  readonly vmcbPhysical: Field64 = at.i64();
  /** SVM: intercept words 000h–014h of the VMCB in use. */
  readonly intercepts: number = at.bytes(6 * 4, 8);
  /** SVM: VMCB 060h (V_TPR, V_IRQ, V_INTR_MASKING …), low half. */
  readonly intControl: Field32 = at.i32();
  /** SVM: VMCB 060h, high half (V_INTR_VECTOR). */
  readonly intVector: Field32 = at.i32();
  /** SVM: 1 if nested paging is on. */
  readonly nestedPaging: Field32 = at.i32();
  /** SVM: 1 if the guest mode execute trap (GMET) is on. */
  readonly guestModeTrap: Field32 = at.i32();
  /** SVM: host RFLAGS.IF at VMRUN. */
  readonly hostIf: Field32 = at.i32();
  /** SVM: N_CR3. */
  readonly nestedCr3: Field64 = at.i64();
  /** SVM: physical address of the I/O permission map. */
  readonly iopm: Field64 = at.i64();
  /** SVM: physical address of the MSR permission map. */
  readonly msrpm: Field64 = at.i64();
  /** SVM: EFER and CR4 of the host, which rule nested page walks. */
  readonly hostEfer: Field64 = at.i64();
  /** SVM: CR4 of the host. */
  readonly hostCr4: Field64 = at.i64();
  /** SVM: CR0 of the host. */
  readonly hostCr0: Field64 = at.i64();
  /** SVM: CR3 of the host. */
  readonly hostCr3: Field64 = at.i64();
  /** SVM: host save area (MSR C001_0117h). */
  readonly hsavePa: Field64 = at.i64();
  /** SVM: VM_CR (C001_0114h). */
  readonly vmCr: Field64 = at.i64();
  /** SVM: the TSC ratio (C000_0104h), with 32 fraction bits. */
  readonly tscRatio: Field64 = at.i64();
  /** SVM: event that VMRUN injects, in the format of EVENTINJ 31:0, with {@linkcode Event.INJECT}. */
  readonly injection: Field32 = at.i32();
  /** SVM: its error code. */
  readonly injectionError: Field32 = at.i32();
  /** SVM: the RIP it pushes. */
  readonly injectionRip: Field64 = at.i64();
  /** SVM: guest ASID in use. */
  readonly asid: Field32 = at.i32();
  /** SVM: VMCB 0B8h: 0 LBR virtualization, 1 VMLOAD and VMSAVE virtualization. */
  readonly virtExt: Field32 = at.i32();
  /** SVM: features, as CPUID 8000_000Ah EDX reports them. */
  readonly svmFeatures: Field32 = at.i32();
  /** SVM: features, as CPUID 8000_000Ah ECX reports them. */
  readonly svmFeatures2: Field32 = at.i32();
  /**
   * SVM: 1 more than the bus locks that the guest may still make; VMX: 1 if they exit. 0 if nobody wants
   * to know.
   */
  readonly busLocks: Field32 = at.i32();
  /** SVM: PAUSEs that the filter still lets pass. */
  readonly pauseCount: Field32 = at.i32();
  /** SVM: what that starts from; 0 if PAUSE is not filtered. */
  readonly pauseReload: Field32 = at.i32();
  /** SVM: most cycles between PAUSEs that count; 0 if any number does. */
  readonly pauseThreshold: Field32 = at.i32();
  /** SVM: time of the last PAUSE. */
  readonly pauseTime: Field64 = at.i64();
  /** SVM: exit code of the exit that {@linkcode Event.VMEXIT_TRAP} announces. */
  readonly trapCode: Field32 = at.i32();
  /** SVM: its EXITINFO1. */
  readonly trapInfo1: Field64 = at.i64();
  /** SVM: its EXITINFO2. */
  readonly trapInfo2: Field64 = at.i64();
  /** Number of processors in the machine. */
  readonly cpuCount: Field32 = at.i32();
  /** This processor's physical APIC ID, by which doorbells find it. */
  readonly apicId: Field32 = at.i32();
  /** AVIC: memory address of the backing page; 0 while AVIC is off. */
  readonly avicPage: Field32 = at.i32();
  /** AVIC: AVIC_PHYSICAL_MAX_INDEX. */
  readonly avicMaxIndex: Field32 = at.i32();
  /** AVIC: guest physical address of the APIC page in xAVIC mode; all ones otherwise. */
  readonly avicBar: Field64 = at.i64();
  /** AVIC: physical address of the logical APIC ID table. */
  readonly avicLogicalTable: Field64 = at.i64();
  /** AVIC: physical address of the physical APIC ID table. */
  readonly avicPhysicalTable: Field64 = at.i64();
  /** AVIC: linear page of the cached translation to the APIC page; all ones for none. */
  readonly avicTlbPage: Field64 = at.i64();
  /** AVIC: TLB context that the translation belongs to. */
  readonly avicTlbContext: Field32 = at.i32();
  /** AVIC: memory address of the backing page it leads to. */
  readonly avicTlbTarget: Field32 = at.i32();
  /** SVM: #VMEXITs taken since the processor was made. */
  readonly exits: Field32 = at.i32();

  /** 1 in system management mode. */
  readonly smm: Field32 = at.i32();
  /** SMBASE: where the handler's code segment begins. */
  readonly smbase: Field32 = at.i32();
  /** 1 if HWCR.SMMLOCK is set: SMIs are not intercepted, and the MSRs of SMM are locked. */
  readonly smmLocked: Field32 = at.i32();
  /** 1 if the last SMI interrupted a halt. */
  readonly smmHalted: Field32 = at.i32();
  /** RFLAGS at the last SMI. */
  readonly smmFlags: Field64 = at.i64();
  /** What an SMI puts aside inside the processor, until RSM (8 bytes each; smm/unit.ts has the list). */
  readonly smmAside: number = at.bytes(32 * 8, 8);

  /** 1 if this is an Intel processor (VMX), 0 if it is AMD's (SVM). */
  readonly intel: Field32 = at.i32();
  /** VMX: 1 in VMX operation. */
  readonly vmxOn: Field32 = at.i32();
  /** VMX: 1 in VMX non-root operation. */
  readonly nonRoot: Field32 = at.i32();
  /** VMX: memory address of the region of the current VMCS; 0 for none. */
  readonly vmcs: Field32 = at.i32();
  /** VMX: the current VMCS itself, as it is in a region. */
  readonly vmcsData: number = at.bytes(0x600, 8);
  /** VMX: what the entry stub of a host outside has read of it (`ExitInformation`). */
  readonly exitInformation: number = at.bytes(8 * 4, 8);
  /**
   * VMX: the guest's segments as the last VM exit found them on the processor, which are those of the current
   * VMCS unless its guest-state area was written.
   */
  readonly savedSegments: number = at.bytes(8 * SEGMENT_BYTES, 16);
  /** VMX: 1 and whether they were those of real or virtual-8086 mode (2); 0 if there are none. */
  readonly savedMode: Field32 = at.i32();
  /** VMX: the guest's CPL then. */
  readonly savedCpl: Field32 = at.i32();
  /** VMX: the host's segments, as the current VMCS has them, if they are known. */
  readonly hostSegments: number = at.bytes(8 * SEGMENT_BYTES, 16);
  /** VMX: 1 if {@linkcode CpuState.hostSegments} is what a VM exit loads. */
  readonly hostSegmentsKnown: Field32 = at.i32();
  /** VMX: what of it was written since the last VM entry that found nothing wrong (`VmcsGroup`). */
  readonly vmcsWritten: Field32 = at.i32();
  /** VMX: physical address of the current VMCS; all ones for none. */
  readonly vmcsPointer: Field64 = at.i64();
  /** VMX: physical address of the VMXON region. */
  readonly vmxonPointer: Field64 = at.i64();
  /** VMX: IA32_FEATURE_CONTROL (3Ah). */
  readonly featureControl: Field64 = at.i64();
  /** VMX: the capability MSRs from 480h on, 8 bytes each. */
  readonly vmxMsrs: number = at.bytes(0x14 * 8, 8);
  /** VMX: pin-based controls in force. */
  readonly pinControls: Field32 = at.i32();
  /** VMX: primary controls in force; 0 outside of non-root operation. */
  readonly primaryControls: Field32 = at.i32();
  /** VMX: secondary controls in force; 0 unless activated. */
  readonly secondaryControls: Field32 = at.i32();
  /** VMX: tertiary controls in force (31:0); 0 unless activated. */
  readonly tertiaryControls: Field32 = at.i32();
  /** VMX: the EPT pointer in force. */
  readonly eptPointer: Field64 = at.i64();
  /** VMX: the event being delivered with the internal bits that tell its kind (with `delivering`). */
  readonly deliveringKind: Field32 = at.i32();
  /** VMX: length of the instruction whose event is being delivered or that VM entry injects. */
  readonly injectionLength: Field32 = at.i32();
  /** VMX: whether NMIs were blocked at VM entry: with virtual NMIs `nmiBlocked` is of those. */
  readonly hostNmiBlocked: Field32 = at.i32();
  /** VMX: TSC (before offset and scaling) at which the preemption timer expires. */
  readonly timerDeadline: Field64 = at.i64();
  /** VMX: part of the budget that lies behind the expiry of the preemption timer. */
  readonly timerHeld: Field32 = at.i32();
  /** VMX: linear address that is being translated, for EPT violations. */
  readonly walkLinear: Field64 = at.i64();
  /** VMX: memory address of the virtual-APIC page; 0 without the TPR shadow. */
  readonly vapic: Field32 = at.i32();
  /** VMX: physical address of the APIC-access page, plus 1; 0 for none. */
  readonly apicAccess: Field64 = at.i64();
  /** VMX: TSC at the last PAUSE, and at the first one of its loop. */
  readonly pauseLast: Field64 = at.i64();
  /** See {@linkcode CpuState.pauseLast}. */
  readonly pauseFirst: Field64 = at.i64();

  /** Deliveries in a row with no instruction retired between them, and the TSC behind the last. */
  readonly deliveryRow: Field32 = at.i32();
  /** See {@linkcode CpuState.deliveryRow}. */
  readonly deliveryTsc: Field64 = at.i64();
  /** Exceptions begun in a row without an event window between them, and the TSC at the last. */
  readonly windowless: Field32 = at.i32();
  /** See {@linkcode CpuState.windowless}. */
  readonly windowlessTsc: Field64 = at.i64();
  /** x87 control word, status word and tag word (u32 each). */
  readonly fpuControl: Field32 = at.i32();
  /** x87 status word. */
  readonly fpuStatus: Field32 = at.i32();
  /** x87 tag word (full, 2 bits a register). */
  readonly fpuTag: Field32 = at.i32();
  /** 1 while IGNNE# has pending x87 exceptions ignored, as CR0.NE is clear. */
  readonly ignoreNumericErrors: Field32 = at.i32();
  /** x87 opcode of the last instruction (11 bits). */
  readonly fpuOpcode: Field32 = at.i32();
  /** Where the last x87 instruction stood. */
  readonly fpuInstruction: Field64 = at.i64();
  /** Where its memory operand stood. */
  readonly fpuData: Field64 = at.i64();
  /** Selectors of the two: CS in 15:0, that of the operand's segment in 31:16. */
  readonly fpuSelectors: Field32 = at.i32();
  /** Second result of a function of the x87 unit; nothing lasts in it. */
  readonly fpuSecond: Field64 = at.i64();
  /** MXCSR */
  readonly mxcsr: Field32 = at.i32();
  /** Exceptions that the lanes of the vector instruction at hand have met so far, as in MXCSR 5:0. */
  readonly laneExceptions: Field32 = at.i32();
  /** x87 registers by physical number, 16 bytes each; MM0–MM7 are their low halves. */
  readonly st: number = at.bytes(8 * 16, 16);
  /** 32 vector registers, 64 bytes each. */
  readonly vectors: number = at.bytes(32 * 64, 64);
  /** Registers handed to and from the program outside for one CPUID, MSR or I/O access. */
  readonly exchange: number = at.bytes(8 * 4, 8);
  /** Events that delivery was begun of, since the processor was made. */
  readonly eventCount: Field32 = at.i32();
  /** The last sixteen of them, see {@linkcode EventLog}. */
  readonly eventLog: number = at.bytes(EventLog.ENTRIES * EventLog.BYTES, 8);
  /** First address past the state. */
  readonly end: number = at.next;
}

/** The one layout of the loaded processor's state. */
export const S: CpuState = new CpuState();

if (S.end > CPU_STATE_END) throw new Error("the processor state has outgrown its area");

/** Address of general-purpose register `n` (0–31). */
export function registerAddress(n: number): number {
  return S.registers + 8 * n;
}

/** Address of vector register `n` (0–31). */
export function vectorAddress(n: number): number {
  return S.vectors + 64 * n;
}

/** Address of segment register `n` ({@linkcode Seg}). */
export function segmentAddress(n: number): number {
  return S.segments + SEGMENT_BYTES * n;
}

/** Address of MMX register `n` (0–7): the low half of the x87 register of that physical number. */
export function mmxAddress(n: number): number {
  return S.st + 16 * n;
}
