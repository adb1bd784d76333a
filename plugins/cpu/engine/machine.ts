/**
 * A machine: one WebAssembly memory with host physical memory in it, and the processors that share it.
 *
 * @module
 */
import { UnimplementedError } from "../../../core/mod.ts";
import { clearWindows } from "../memory/windows.ts";
import { Event, S as ImportedS } from "../state/cpu_state.ts";
import {
  CHUNK_SHIFT,
  CPU_AREA_BYTES,
  CPU_AREAS,
  CPU_STATE,
  CPU_STATE_END,
  MAX_CPUS,
  RAM,
  TLB_NEVER,
} from "../state/layout.ts";
import { INDEX_BYTES } from "../state/tlb_layout.ts";
import { BlockHeader, MICRO_OP_BYTES, MicroOp } from "./block_layout.ts";
import { Blocks } from "./blocks.ts";
import { MAX_INSTRUCTION_BYTES } from "../decode/decoder.ts";
import { writeFloatConstants } from "../semantics/float/lanes.ts";
import { fillAvicTables } from "../svm/avic/access_table.ts";
import { SvmFeature } from "../svm/features.ts";
import { StateView } from "../state/view.ts";
import {
  implementedCr4,
  linearAddressBits,
  microcodeFeatures,
  supportedXcr0,
  supportedXss,
} from "../isa_features.ts";
import type { ProcessorModel } from "../models.ts";
import { writeFieldTable } from "../vmx/fields.ts";
import { ExitInformation } from "../vmx/host_stub.ts";
import { resetProcessor } from "./reset.ts";
import { Monitors } from "./monitors.ts";
import { WalkClock } from "./walk_clock.ts";
import { Handlers, TABLE_SIZE } from "./handlers.ts";
import type { CodeCache } from "./code_cache.ts";
import { DEFAULT_CODE_LIMIT, Regions, type Tier } from "./regions.ts";
import { NO_OUTSIDE, type Outside } from "./outside.ts";
import { PhysicalMemory } from "./physical_memory.ts";
import { Stop } from "./run.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const S = ImportedS;

/** An address that none equals. */
const NOWHERE = 0xffff_ffff_ffff_ffffn;
const CHUNK = 1 << CHUNK_SHIFT;
const PAGE = 0x1000;
const WASM_PAGE = 0x1_0000;
// Words that are looked at around every exit. V8 folds a constant of the module itself into compiled code; an
// imported one it loads and checks at each use.
const RETIRED = S.retired.address >> 2;
const TSC_START = S.tscStart.address >> 2;
const EVENTS = S.events.address >> 2;
const BUDGET_START = S.budgetStart.address >> 2;
const DELIVERIES = S.deliveries.address >> 2;
const SLICE_HELD = S.sliceHeld.address >> 2;
const TIMER_HELD = S.timerHeld.address >> 2;

/** Imports by which the interpreter asks the program outside. */
const OUTSIDE_IMPORTS: readonly string[] = [
  "deviceRead",
  "deviceWrite",
  "portRead",
  "portWrite",
  "cpuid",
  "msrRead",
  "msrWrite",
  "counterRead",
  "acknowledge",
  "setTaskPriority",
];

/** Functions that are called too often to be looked up by name. */
interface EntryPoints {
  readonly run: (budget: number) => number;
  readonly enterGuest: (low: number, high: number, registers: number, budget: number) => void;
  readonly enterVmx: (registers: number, launch: number, budget: number) => number;
  readonly vmread: (encoding: number) => number;
  readonly vmwrite: (encoding: number, low: number, high: number) => number;
}

/** Sizes of a machine. */
export interface MachineOptions {
  /** Bytes of host physical memory that can be in use at one time. */
  readonly memoryBytes: number;
  /** Number of processors. */
  readonly cpus: number;
  /** What kind they are. */
  readonly model: ProcessorModel;
  /** Which tiers run; `"auto"` if not given. */
  readonly tier?: Tier;
  /** Most bytes of WebAssembly compiled from guest code at one time. */
  readonly codeLimit?: number | undefined;
  /** Where compiled code is kept for other machines. */
  readonly codeCache?: CodeCache | undefined;
  /** Whether runs, and exits inside of them, are timed; not if not given. It costs some 0.1 µs for each. */
  readonly timed?: boolean | undefined;
  /** Seed of their random numbers, 32 bits; 0 if not given. */
  readonly seed?: number;
}

/** A machine. Most of it is for the parts of this plugin; users meet `Processor` and `HostMemory`. */
export class Machine {
  /** The whole memory. */
  readonly memory: WebAssembly.Memory;
  /** The memory as bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The memory as 32-bit words. */
  readonly words: Int32Array<ArrayBuffer>;
  /** The memory as 64-bit words, for what is off every hot path. */
  readonly longs: BigUint64Array<ArrayBuffer>;
  /** Interpreter functions by name. */
  readonly exports: Record<string, CallableFunction>;
  /** Those of them that are called at every exit. */
  readonly entries: EntryPoints;
  /** Physical memory and its address spaces. */
  readonly physical: PhysicalMemory;
  /** Decoded blocks. */
  readonly blocks: Blocks;
  /** Compiled regions. */
  readonly regions: Regions;
  /** What the processors monitor. */
  readonly monitors: Monitors;
  /** State of the loaded processor. */
  readonly state: StateView;
  /** Handlers. */
  readonly handlers: Handlers;
  /** Words 0–7 handed to and from {@linkcode Outside}. */
  readonly exchange: Int32Array<ArrayBuffer>;
  /** Words that `Processor.exitInformation` gives out. */
  readonly exitInformation: Uint32Array<ArrayBuffer>;
  /** Number of processors. */
  readonly cpus: number;
  /** What kind they are. */
  readonly model: ProcessorModel;
  /** Milliseconds in runs and, of those, in the program outside, if they are timed. */
  readonly times: { inside: number; outside: number } = { inside: 0, outside: 0 };
  /** How long page walks take. */
  readonly walkClock: WalkClock = new WalkClock();
  readonly #timed: boolean;
  readonly #seed: number;
  #loaded = 0;
  #running = false;
  readonly #owners: Outside[];
  #outside: Outside = NO_OUTSIDE;

  constructor(options: MachineOptions) {
    const { memoryBytes, cpus, model } = options;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > MAX_CPUS) {
      throw new RangeError(`cpus: ${cpus} is not a number of processors from 1 to ${MAX_CPUS}`);
    }
    const chunks = Math.ceil(memoryBytes / CHUNK);
    // One page more, so that an access that begins in the last byte stays inside.
    const bytes = RAM + chunks * CHUNK + WASM_PAGE;
    if (!(memoryBytes > 0) || bytes > 0x1_0000_0000) {
      const most = Math.floor((0x1_0000_0000 - RAM - WASM_PAGE) / (1 << 20));
      throw new RangeError(`memory: ${memoryBytes} bytes cannot be had; the most is ${most} MiB`);
    }
    const pages = bytes / WASM_PAGE;
    this.cpus = cpus;
    this.model = model;
    this.#seed = (options.seed ?? 0) >>> 0;
    this.#timed = options.timed ?? false;
    this.#owners = Array.from({ length: cpus }, () => NO_OUTSIDE);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    // The memory is not declared shared, so neither is its buffer.
    const buffer = this.memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(buffer);
    this.words = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.longs = new BigUint64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
    this.exchange = new Int32Array(buffer, S.exchange, 8);
    this.exitInformation = new Uint32Array(buffer, S.exitInformation, ExitInformation.WORDS);
    const table = new WebAssembly.Table({ initial: TABLE_SIZE, element: "anyfunc" });
    const imports = this.#imports();
    this.handlers = new Handlers(this.memory, table, this.#timed ? this.#timing(imports) : imports);
    this.exports = this.handlers.exports;
    const { run, enterGuest, vmxHostEnter, vmxHostRead, vmxHostWrite } = this.exports;
    this.entries = {
      run: run as EntryPoints["run"],
      enterGuest: enterGuest as EntryPoints["enterGuest"],
      enterVmx: vmxHostEnter as EntryPoints["enterVmx"],
      vmread: vmxHostRead as EntryPoints["vmread"],
      vmwrite: vmxHostWrite as EntryPoints["vmwrite"],
    };
    this.blocks = new Blocks(buffer, this.handlers, cpus, model.isa);
    this.physical = new PhysicalMemory(this.bytes, this.words, RAM + chunks * CHUNK, this.blocks);
    this.regions = new Regions(buffer, this.handlers, this.blocks, {
      tier: options.tier ?? "auto",
      codeLimit: options.codeLimit ?? DEFAULT_CODE_LIMIT,
      codeCache: options.codeCache,
    });
    this.monitors = new Monitors(
      this.words,
      this.blocks,
      cpus,
      () => this.#loaded,
      (cpu) => this.#owners[cpu]!.woken?.(),
    );
    this.state = new StateView(this.words, this.longs);
    this.bytes.fill(0xff, TLB_NEVER, TLB_NEVER + INDEX_BYTES);
    fillAvicTables(this.bytes, (model.svmFeatures & SvmFeature.EXTLVT_AVIC_ACCESS) !== 0);
    writeFieldTable(this.bytes);
    writeFloatConstants(this.bytes);
    for (let cpu = 0; cpu < cpus; cpu++) this.#reset(cpu);
    this.#load(0);
  }

  #imports(): Record<string, WebAssembly.ImportValue> {
    // The owner of a processor may change; which processor runs, changes all the time.
    const outside = (): Outside => this.#outside;
    return {
      allocateChunk: (index: number) => this.physical.touched(index),
      deviceRead: (low: number, high: number, bytes: number) =>
        outside().deviceRead((high >>> 0) * 0x1_0000_0000 + (low >>> 0), bytes),
      deviceWrite: (low: number, high: number, bytes: number) =>
        outside().deviceWrite((high >>> 0) * 0x1_0000_0000 + (low >>> 0), bytes),
      portRead: (port: number, bytes: number) => outside().portRead(port, bytes),
      portWrite: (port: number, bytes: number, value: number) =>
        outside().portWrite(port, bytes, value >>> 0),
      cpuid: (leaf: number, subleaf: number) => outside().cpuid(leaf >>> 0, subleaf >>> 0),
      msrRead: (index: number) => Number(outside().msrRead(index >>> 0)),
      msrWrite: (index: number) => Number(outside().msrWrite(index >>> 0)),
      counterRead: (index: number) => Number(outside().counterRead?.(index >>> 0) ?? false),
      decode: (code: number, alone: number) => this.blocks.build(code >>> 0, alone !== 0),
      codeWritten: (address: number, bytes: number) => this.blocks.written(address >>> 0, bytes),
      codeStored: (address: number, bytes: number, uop: number) =>
        Number(this.blocks.stored(address >>> 0, bytes, uop >>> 0)),
      monitor: (address: number) => this.monitors.arm(address >>> 0),
      sample: (block: number) => this.regions.sample(block >>> 0),
      walkClock: (end: number) => this.walkClock.read(end),
      isolate: (uop: number) => this.blocks.isolate(uop >>> 0),
      unimplemented: (uop: number) => this.#unimplemented(uop >>> 0),
      numericError: () => Number(outside().numericError?.() ?? false),
      acknowledge: () => outside().acknowledge(),
      setTaskPriority: (priority: number) => outside().setTaskPriority?.(priority),
    };
  }

  /** The same imports, with those that go to the program outside timed. */
  #timing(imports: Record<string, WebAssembly.ImportValue>): typeof imports {
    const timed = { ...imports };
    for (const name of OUTSIDE_IMPORTS) {
      const call = imports[name] as (...values: number[]) => number;
      timed[name] = (...values: number[]) => {
        const start = performance.now();
        try {
          return call(...values);
        } finally {
          this.times.outside += performance.now() - start;
        }
      };
    }
    return timed;
  }

  #unimplemented(uop: number): never {
    const bytes = Array.from(this.#recordBytes(uop), (byte) => byte.toString(16).padStart(2, "0"));
    const name = this.blocks.unimplementedName(uop);
    // Everything has been stored; giving the instruction up makes RIP point at it.
    this.exports.settle!();
    // An instruction that is there calls this for an exception that it would have to tell by a pin.
    const what = name === ""
      ? "the FERR# pin: an x87 exception is pending with CR0.NE clear, at"
      : `the ${name} instruction`;
    throw new UnimplementedError(
      `the processor does not implement ${what} ${bytes.join(" ")} (${this.#where()})`,
    );
  }

  #where(): string {
    return `RIP ${this.state.rip.toString(16)}h`;
  }

  /** Up to 15 bytes from the instruction of micro-op `uop` on, to the end of its page. */
  #recordBytes(uop: number): Uint8Array {
    const index = this.bytes[uop + MicroOp.INDEX]!;
    const block = uop - index * MICRO_OP_BYTES - BlockHeader.BYTES;
    const code = this.words[(block + BlockHeader.CODE) >> 2]! >>> 0;
    const start = code + (this.words[(uop + MicroOp.HANDLER) >> 2]! >>> 16);
    const end = Math.min(start + MAX_INSTRUCTION_BYTES, (start | (PAGE - 1)) + 1);
    return this.bytes.slice(start, end);
  }

  /** The processor that is loaded. */
  get loaded(): number {
    return this.#loaded;
  }

  #area(cpu: number): number {
    return CPU_AREAS + cpu * CPU_AREA_BYTES;
  }

  /** Where the general registers of a processor that is not loaded are saved. */
  savedAddress(cpu: number): number {
    return this.#area(cpu) + S.registers - CPU_STATE;
  }

  /** Loads processor `cpu`, saving the one that is loaded. */
  load(cpu: number): void {
    if (cpu === this.#loaded) return;
    const size = CPU_STATE_END - CPU_STATE;
    this.bytes.copyWithin(this.#area(this.#loaded), CPU_STATE, CPU_STATE + size);
    this.#load(cpu);
  }

  #load(cpu: number): void {
    const area = this.#area(cpu);
    this.bytes.copyWithin(CPU_STATE, area, area + CPU_STATE_END - CPU_STATE);
    clearWindows(this.bytes);
    this.#loaded = cpu;
    this.#outside = this.#owners[cpu]!;
  }

  /** Says who answers what processor `cpu` asks, and which physical address space it is attached to. */
  attach(cpu: number, outside: Outside, space: number): void {
    this.load(cpu);
    this.#owners[cpu] = outside;
    this.#outside = outside;
    const map = this.physical.chunkMap(space);
    this.state.set32(S.physicalMap, map);
    this.state.set32(S.hostMap, map);
    this.state.set32(S.guestMap, map);
    this.state.set32(S.smmMap, map);
    this.flushTlbs();
  }

  /** Drops all translations of the loaded processor. */
  flushTlbs(): void {
    this.exports.flushContexts!(0, 0n, 2);
  }

  /** Works out what follows from segments and control registers, after they were written from outside. */
  refresh(): void {
    this.exports.refreshSegments!();
    this.exports.updateMode!();
  }

  #begin(): number {
    this.#running = true;
    return this.#timed ? performance.now() : 0;
  }

  #end(start: number): void {
    this.#running = false;
    if (this.#timed) this.times.inside += performance.now() - start;
  }

  /** As {@linkcode Machine.run}, through a hypervisor's entry stub. */
  enterGuest(low: number, high: number, registers: number, budget: number): void {
    const start = this.#begin();
    try {
      this.entries.enterGuest(low, high, registers, budget);
      this.#end(start);
    } catch (error) {
      this.#end(start);
      this.abandon();
      // The host is back all the same, and the guest's state is in the VMCB.
      this.exports.leaveGuestStub!(low, high, registers, Stop.REQUEST);
      throw error;
    }
  }

  /** VMLAUNCH or VMRESUME through a hypervisor's entry stub. Negative: VMfail. */
  enterVmx(registers: number, launch: number, budget: number): number {
    const start = this.#begin();
    try {
      const result = this.entries.enterVmx(registers, launch, budget);
      this.#end(start);
      return result;
    } catch (error) {
      this.#end(start);
      this.abandon();
      // The host is back all the same, and the guest's state is in the VMCS.
      this.exports.vmxHostLeave!(registers);
      throw error;
    }
  }

  /** After something was thrown through a run: back to the start of the instruction. */
  abandon(): void {
    this.exports.settle!();
    const { state } = this;
    const budget = state.get32(S.budget) + state.get32(S.held) + state.get32(S.timerHeld) +
      state.get32(S.sliceHeld);
    state.set32(S.budget, budget);
    state.set32(S.sliceHeld, 0);
    state.set32(S.sliceGranted, 0);
    state.set32(S.held, 0);
    state.set32(S.timerHeld, 0);
  }

  /** Instructions retired in the current or last run; the one at hand, if any, does not count. */
  get retired(): number {
    const word = (address: number): number => this.words[address >> 2]!;
    const charged = word(S.budgetStart.address) - word(S.budget.address) - word(S.held.address) -
      word(S.timerHeld.address) - word(S.sliceHeld.address) - word(S.deliveries.address);
    const uop = word(S.uop.address) >>> 0;
    if (uop === 0) return charged;
    const index = this.bytes[uop + MicroOp.INDEX]!;
    const block = uop - index * MICRO_OP_BYTES - BlockHeader.BYTES;
    const count = this.words[(block + BlockHeader.COUNT) >> 2]! & 0xffff;
    return charged - (count - this.bytes[uop + MicroOp.ORDINAL]!);
  }

  /** The same where the program outside is asked, by an instruction that does not count yet. */
  get retiredOutside(): number {
    return this.words[RETIRED]!;
  }

  /**
   * From inside a run, asked by an instruction: at most `count` more instructions, the one at hand included. What
   * has to be taken from the budget comes from what is held back behind the present slice, if there is as much;
   * else the dispatcher takes it.
   */
  limit(count: number): void {
    const { state, words } = this;
    const over = words[BUDGET_START]! - words[DELIVERIES]! - words[RETIRED]! - count;
    if (over <= 0) return;
    if (over <= words[SLICE_HELD]! && words[TIMER_HELD] === 0) {
      words[SLICE_HELD]! -= over;
      words[BUDGET_START]! -= over;
      return;
    }
    state.set32(S.limit, Math.max(0, Math.min(count - 1, 0x4000_0000)));
    state.set32(S.events, state.get32(S.events) | Event.LIMIT);
  }

  /** Sets the time-stamp counter of the loaded processor to `ticks` now. */
  setTsc(ticks: number): void {
    this.goOn(ticks, this.#running ? this.retired : 0);
  }

  /** The same where `retired` instructions of the run are behind; yields the pending events. */
  goOn(ticks: number, retired: number): number {
    const { words } = this;
    const start = ticks - retired;
    const high = start / 0x1_0000_0000;
    words[TSC_START] = start;
    // Stored, it loses its fraction; what is below 0 has to be rounded down.
    words[TSC_START + 1] = start < 0 ? Math.floor(high) : high;
    return words[EVENTS]!;
  }

  /** Runs the loaded processor for at most `budget` instructions; why it stopped. */
  run(budget: number): number {
    const start = this.#begin();
    try {
      return this.entries.run(budget);
    } finally {
      this.#end(start);
    }
  }

  /** What INIT and RESET do besides: whatever a guest had is gone. */
  leaveGuestMode(): void {
    const { state } = this;
    for (const field of [S.nestedPaging, S.asid, S.intControl, S.avicPage, S.busLocks]) {
      state.set32(field, 0);
    }
    state.set(S.tscOffset, 0n);
    state.set(S.avicBar, NOWHERE);
    state.set32(S.physicalMap, state.get32(S.hostMap));
    this.exports.selectContext!(0);
  }

  /** Sets processor `cpu` to the state after RESET (APM vol. 2, 14.1.3). */
  #reset(cpu: number): void {
    this.bytes.fill(0, CPU_STATE, CPU_STATE_END);
    this.words[S.cpuIndex.address >> 2] = cpu;
    this.words[S.cpuCount.address >> 2] = this.cpus;
    this.words[S.apicId.address >> 2] = cpu;
    this.longs[S.avicBar.address >> 3] = NOWHERE;
    this.longs[S.avicTlbPage.address >> 3] = NOWHERE;
    for (const field of [S.physicalMap, S.hostMap, S.guestMap, S.smmMap]) {
      this.words[field.address >> 2] = this.physical.chunkMap(0);
    }
    this.words[S.svmFeatures.address >> 2] = this.model.svmFeatures;
    this.words[S.svmFeatures2.address >> 2] = this.model.svmFeatures2;
    this.words[S.intel.address >> 2] = Number(this.model.vendor === "intel");
    for (const [k, value] of this.model.vmxMsrs.entries()) {
      this.longs[(S.vmxMsrs >> 3) + k] = value;
    }
    const { isa, vendor, physicalBits } = this.model;
    this.words[S.physicalBits.address >> 2] = physicalBits;
    this.longs[S.reservedPte.address >> 3] = (1n << 52n) - (1n << BigInt(physicalBits));
    this.longs[S.xcr0Supported.address >> 3] = BigInt(supportedXcr0(isa));
    this.longs[S.xssSupported.address >> 3] = BigInt(supportedXss(isa));
    this.longs[S.widestShift.address >> 3] = BigInt(64 - linearAddressBits(isa));
    this.longs[S.random.address >> 3] = BigInt(this.#seed) << 16n | BigInt(cpu);
    this.words[S.features.address >> 2] = microcodeFeatures(isa);
    this.longs[S.cr4Implemented.address >> 3] = BigInt(implementedCr4(isa, vendor) >>> 0);
    resetProcessor(this.state, false, this.model.signature);
    this.exports.selectContext!(0);
    this.refresh();
    this.bytes.copyWithin(this.#area(cpu), CPU_STATE, CPU_STATE_END);
    this.#loaded = cpu;
  }
}
