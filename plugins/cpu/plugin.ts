/**
 * The plugin: a host's processors and its memory.
 *
 * @module
 */
import {
  ArgumentError,
  cpuidSlot,
  defineSlot,
  type HostMemory,
  hostMemorySlot,
  type Plugin,
  type Slot,
} from "../../core/mod.ts";
import { processorCpuid } from "./cpuid.ts";
import { registerBank } from "./msrs/bank.ts";
import { registerMiscEnable } from "./msrs/misc_enable.ts";
import type { BlockStatistics } from "./engine/blocks.ts";
import { MachineMemory } from "./engine/host_memory.ts";
import { Machine } from "./engine/machine.ts";
import type { IsaFeatureName } from "./isa_features.ts";
import { Processor } from "./engine/processor.ts";
import type { CodeCache } from "./engine/code_cache.ts";
import { type EngineStatistics, engineStatistics } from "./engine/statistics.ts";
import type { RegionStatistics, Tier } from "./engine/regions.ts";
import {
  type CpuModel,
  type FeatureChoice,
  type ProcessorModel,
  processorModel,
} from "./models.ts";
import { MAX_CPUS, RAM } from "./state/layout.ts";

const MIB = 1 << 20;
/** What hypervisors need besides the guest's RAM: tables, control blocks. */
const SLACK: number = 48 * MIB;
/** Most memory one machine can have in use: what WebAssembly addresses, less our own part. */
const MOST_MEMORY: number = Math.floor((2 ** 32 - RAM) / (2 * MIB)) * 2 * MIB - 2 * MIB;

/** The processors of a host. */
export interface Processors {
  /** How many there are for vCPUs. */
  readonly count: number;
  /** Family, model and stepping as CPUID 1 EAX reports them; RDX after RESET. */
  readonly signature: number;
  /** Optional parts of the instruction set that they have. */
  readonly isa: ReadonlySet<IsaFeatureName>;
  /** Bits of a physical address that they have. */
  readonly physicalBits: number;
  /** Processor `index`, from 0 on. */
  get(index: number): Processor;
  /** One more processor, which no vCPU runs on: what a hypervisor emulates instructions with. */
  readonly spare: Processor;
  /**
   * In physical address space `space` (1–3), maps `bytes` at `start` to host memory at `host`. Where it
   * is `readonly`, which it is not if not given, writes are a device's.
   */
  mapAlias(space: number, start: number, bytes: number, host: number, readonly?: boolean): void;
  /** Takes such a mapping away. */
  unmapAlias(space: number, start: number, bytes: number): void;
  /** What the decoder has done. */
  readonly blocks: Readonly<BlockStatistics>;
  /** What has happened to compiled regions so far. */
  readonly regions: Readonly<RegionStatistics>;
  /** What all of it has come to, in numbers. */
  readonly statistics: EngineStatistics;
  /** Forms of instructions met so far, by key; for tools that measure coverage. */
  readonly forms: ReadonlySet<string>;
  /** Pairs of forms that blocks ended in, and how many blocks; for tools that choose what to fuse. */
  readonly pairs: readonly FormPair[];
}

/** Two forms of instructions in a row at the end of blocks. */
export interface FormPair {
  /** Key of the first form. */
  readonly first: string;
  /** Key of the second. */
  readonly second: string;
  /** Number of decoded blocks that ended in them. */
  readonly blocks: number;
}

/** The processors; provided by the `cpu` plugin. */
export const processorsSlot: Slot<Processors> = defineSlot("processors");

/** Options of {@linkcode cpu}. */
export interface CpuOptions {
  /**
   * Bytes of memory that can be in use at one time, at most about 3.9 GiB. If not given: what has been
   * reserved when the first vCPU is made (a VM's RAM), and some more.
   */
  readonly memory?: number;
  /** Which processor; `"zen4"` if not given. */
  readonly model?: CpuModel;
  /** Features to switch on or off against what the model has. */
  readonly features?: FeatureChoice;
  /** Bits of a physical address (MAXPHYADDR), from 36 to 52; 48 if not given. */
  readonly physicalBits?: number;
  /**
   * How guest code is run: `1` by the interpreter alone, `2` all of it compiled as soon as it is met, which
   * is for tests; `"auto"`, if not given, compiles what runs often. A guest cannot tell.
   */
  readonly tier?: Tier;
  /**
   * Most bytes of WebAssembly that are compiled from guest code at one time; 32 MiB if not given. V8 makes
   * about twice as much machine code of it.
   */
  readonly codeLimit?: number;
  /**
   * Where compiled code is kept for other machines and later runs; nowhere if not given. A machine of the
   * same model and memory that runs the same guest finds its code there. A guest cannot tell.
   */
  readonly codeCache?: CodeCache;
  /**
   * Whether runs, and exits that are handled inside of them, are timed, for `Processors.statistics`; not if
   * not given. Each then takes some 0.1 µs longer.
   */
  readonly timed?: boolean;
  /** What the random numbers of RDRAND and RDSEED start from, 32 bits; 0 if not given. */
  readonly seed?: number;
}

/**
 * The software processor: as many processors as the VM has been given, a spare one, and host physical
 * memory.
 *
 * Throws `ArgumentError` for an amount of memory, a model or a choice of features that cannot be.
 */
export function cpu(options: CpuOptions = {}): Plugin {
  const { memory } = options;
  checkMemory(memory);
  const model = processorModel(options.model, options.features, options.physicalBits);
  return {
    name: "cpu",
    version: "0.1.0",
    description: "software x86-64 processors with SVM or VMX, and the host's memory",
    provides: [hostMemorySlot, processorsSlot, cpuidSlot],
    setup(ctx) {
      const { processors } = ctx.vm;
      checkProcessors(processors);
      const host = new LazyHost(processors, memory, model, options);
      ctx.provide(hostMemorySlot, host.memory);
      ctx.provide(processorsSlot, host);
      ctx.provide(cpuidSlot, processorCpuid(model));
      const msrs = registerBank(ctx, model);
      if (model.vendor === "intel") registerMiscEnable(ctx, msrs);
    },
  };
}

/** Processors and memory without a VM: for tests, tools, and those who write a hypervisor from scratch. */
export interface Host {
  /** The processors. */
  readonly processors: Processors;
  /** The memory they share. */
  readonly memory: HostMemory;
}

/** Options of {@linkcode createHost}. */
export interface HostOptions extends CpuOptions {
  /** How many processors; 1 if not given. */
  readonly processors?: number;
}

/**
 * Makes a host.
 *
 * @throws {ArgumentError} If there cannot be so many processors, so much memory, or such a model.
 */
export function createHost(options: HostOptions = {}): Host {
  const { processors = 1, memory } = options;
  checkMemory(memory);
  checkProcessors(processors);
  const model = processorModel(options.model, options.features, options.physicalBits);
  const host = new LazyHost(processors, memory, model, options);
  return { processors: host, memory: host.memory };
}

function checkMemory(memory: number | undefined): void {
  if (memory === undefined || (memory > 0 && memory <= MOST_MEMORY)) return;
  throw new ArgumentError(
    `cpu: memory of ${memory} bytes; it can be from 1 byte to ${MOST_MEMORY / MIB} MiB`,
  );
}

function checkProcessors(count: number): void {
  if (Number.isInteger(count) && count > 0 && count < MAX_CPUS) return;
  throw new ArgumentError(`cpu: ${count} processors; there can be from 1 to ${MAX_CPUS - 1}`);
}

/** A machine that is made when something first needs it, so that it is as large as what was reserved. */
class LazyHost implements Processors {
  readonly memory: HostMemory;
  readonly count: number;
  readonly signature: number;
  readonly isa: ReadonlySet<IsaFeatureName>;
  readonly physicalBits: number;
  readonly #model: ProcessorModel;
  readonly #seed: number;
  readonly #reserved: MachineMemory;
  readonly #limit: number | undefined;
  #machine: Machine | undefined;
  #processors: Processor[] = [];

  readonly #tier: Tier;
  readonly #options: CpuOptions;

  constructor(
    count: number,
    limit: number | undefined,
    model: ProcessorModel,
    options: CpuOptions,
  ) {
    const { tier = "auto", seed = 0 } = options;
    this.#tier = tier;
    this.#seed = seed;
    this.#options = options;
    this.count = count;
    this.signature = model.signature;
    this.isa = model.isa;
    this.physicalBits = model.physicalBits;
    this.#model = model;
    this.#limit = limit;
    this.#reserved = new MachineMemory(() => this.#made(), () => this.#machine);
    this.memory = this.#reserved;
  }

  #made(): Machine {
    if (this.#machine !== undefined) return this.#machine;
    const memoryBytes = this.#limit ?? sizeClass(this.#reserved.reserved + SLACK);
    const machine = new Machine({
      memoryBytes,
      cpus: this.count + 1,
      model: this.#model,
      tier: this.#tier,
      seed: this.#seed,
      codeLimit: this.#options.codeLimit,
      codeCache: this.#options.codeCache,
      timed: this.#options.timed,
    });
    this.#machine = machine;
    this.#reserved.backAll(machine);
    this.#processors = Array.from(
      { length: this.count + 1 },
      (_, index) => new Processor(machine, index),
    );
    return machine;
  }

  get(index: number): Processor {
    this.#made();
    const processor = index < this.count ? this.#processors[index] : undefined;
    if (processor === undefined) {
      throw new ArgumentError(`no processor ${index}: there are ${this.count}`);
    }
    return processor;
  }

  get spare(): Processor {
    this.#made();
    return this.#processors[this.count]!;
  }

  mapAlias(space: number, start: number, bytes: number, host: number, readonly = false): void {
    this.#made().physical.mapAlias(space, start, bytes, host, readonly);
  }

  unmapAlias(space: number, start: number, bytes: number): void {
    this.#made().physical.unmapAlias(space, start, bytes);
  }

  get blocks(): Readonly<BlockStatistics> {
    return this.#made().blocks.statistics;
  }

  get regions(): Readonly<RegionStatistics> {
    return this.#made().regions.statistics;
  }

  get statistics(): EngineStatistics {
    return engineStatistics(this.#made());
  }

  get forms(): ReadonlySet<string> {
    return this.#made().handlers.used;
  }

  get pairs(): readonly FormPair[] {
    return this.#made().handlers.pairsMet();
  }
}

/** The next power of two from 64 MiB on: machines of one size share their compiled interpreter. */
function sizeClass(bytes: number): number {
  let size = 64 * MIB;
  while (size < bytes && size < MOST_MEMORY) size *= 2;
  return Math.min(size, MOST_MEMORY);
}
