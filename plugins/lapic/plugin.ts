/**
 * The plugin.
 *
 * @module
 */

import {
  ArgumentError,
  eventRequest,
  ExitAction,
  exitHook,
  ExitReason,
  hostMemorySlot,
  initRequest,
  interruptControllerSlot,
  msiHook,
  MsrAccess,
  PAGE_SIZE,
  type Plugin,
  type PluginContext,
  type Registration,
  requestHook,
  resetHook,
  type Vcpu,
  vcpuCreatedHook,
} from "../../core/mod.ts";
import { picOutputHook, picSlot } from "../pic/mod.ts";
import { DEFAULT_APIC_BASE, LapicMode, MSR_APIC_BASE } from "./base.ts";
import type { LapicBoard, LapicSaved } from "./board.ts";
import { ApicBus } from "./bus.ts";
import { registerCpuid } from "./cpuid.ts";
import {
  collectRequestsHook,
  deliverInterruptHook,
  endOfInterruptHook,
  eoiMessageHook,
  lapicChangedHook,
  lapicSlot,
  taskPriorityHook,
} from "./hooks.ts";
import { LapicInhibits } from "./inhibits.ts";
import { Lapic } from "./lapic.ts";
import { ApicMessage } from "./message.ts";
import { PAGE_WORDS } from "./page.ts";
import { type LapicFeatures, LapicRegister, type LapicVendor, RegisterMap } from "./registers.ts";
import { acceptInit, acceptStartup } from "./startup.ts";
import { ApicTimer } from "./timer.ts";
import { X2APIC_MSR, X2APIC_MSRS } from "./x2apic_msrs.ts";

/** Options of {@linkcode lapic}. */
export interface LapicOptions {
  /** Whose local APIC it is like; `"amd"` if not given. */
  readonly vendor?: LapicVendor;
  /** Whether there is an x2APIC mode; `true` if not given. */
  readonly x2apic?: boolean;
  /** Whether the timer has a TSC-deadline mode; `false` if not given. */
  readonly tscDeadline?: boolean;
  /** Whether there is an LVT entry for corrected machine checks, Intel's only; `false` if not given. */
  readonly cmci?: boolean;
  /** Whether EOI messages can be suppressed, Intel's only; `false` if not given. */
  readonly eoiSuppression?: boolean;
  /** Whether there is the extended APIC register space, AMD's only; `false` if not given. */
  readonly extended?: boolean;
  /**
   * Nanoseconds in a cycle of the clock that the timer counts, a positive integer; 1 if not given, as
   * in KVM.
   */
  readonly busCycle?: number;
  /**
   * The shortest period of the timer, in nanoseconds, a positive integer; 200,000 if not given, as in
   * KVM. A guest that asks for a shorter one would get nothing done between its interrupts.
   */
  readonly shortestPeriod?: number;
}

/** IA32_TSC_DEADLINE. */
const MSR_TSC_DEADLINE = 0x6e0;
/** The time-stamp counter. */
const MSR_TSC = 0x10;

/** Message-signalled interrupts go to FEEx_xxxxh. */
const MSI_WINDOW = 0xfee;

/** CPUID leaf with the size of physical addresses in bits 7:0 of EAX. */
const CPUID_ADDRESS_SIZES = 0x8000_0008;
/** What it is where CPUID does not say: the architecture's limit. */
const MOST_PHYSICAL_BITS = 52;

/** What an access reads that nobody answers. */
const NOWHERE = 0xffff_ffff;
/** The vector of an acknowledge cycle that nobody answers. */
const FLOATING = 0xff;

/**
 * The local APICs of all vCPUs, as a plugin.
 *
 * @throws {ArgumentError} If an option is out of range, or one that the vendor does not have.
 */
export function lapic(options: LapicOptions = {}): Plugin {
  const features = featuresOf(options);
  const { busCycle = 1, shortestPeriod = 200_000 } = options;
  for (const [name, value] of Object.entries({ busCycle, shortestPeriod })) {
    if (Number.isSafeInteger(value) && value > 0) continue;
    throw new ArgumentError(`lapic: ${name} ${value} is not a positive integer`);
  }
  return {
    name: "lapic",
    version: "1.0.0",
    description: "Local APICs: xAPIC and x2APIC, with timers, IPIs and INIT/SIPI",
    requires: [hostMemorySlot],
    optional: [picSlot],
    provides: [lapicSlot, interruptControllerSlot],
    setup: (ctx) => setUp(ctx, features, busCycle, shortestPeriod),
  };
}

function featuresOf(options: LapicOptions): LapicFeatures {
  const { vendor = "amd", x2apic = true, tscDeadline = false } = options;
  const { cmci = false, eoiSuppression = false, extended = false } = options;
  const wrong = vendor === "amd"
    ? cmci ? "cmci" : eoiSuppression ? "eoiSuppression" : undefined
    : extended
    ? "extended"
    : undefined;
  if (wrong !== undefined) throw new ArgumentError(`lapic: ${vendor} has no "${wrong}"`);
  return { vendor, x2apic, tscDeadline, cmci, eoiSuppression, extended };
}

function setUp(
  ctx: PluginContext,
  features: LapicFeatures,
  busCycle: number,
  shortestPeriod: number,
): void {
  const { vm } = ctx;
  const memory = ctx.use(hostMemorySlot).current;
  const pic = ctx.useOptional(picSlot);
  const pages: number[] = [];
  const collectPoint = vm.hooks.point(collectRequestsHook);
  const deliverPoint = vm.hooks.point(deliverInterruptHook);
  const changedPoint = vm.hooks.point(lapicChangedHook);
  const priorityPoint = vm.hooks.point(taskPriorityHook);
  const messagePoint = vm.hooks.point(eoiMessageHook);
  const endPoint = vm.hooks.point(endOfInterruptHook);
  /** While the plugin or a vCPU is being made its local APIC cannot be asked for. */
  let ready = false;
  const announced = (vcpu: Vcpu): boolean => ready && vm.vcpus[vcpu.index] === vcpu;

  const board: LapicBoard = {
    features,
    map: new RegisterMap(features),
    message: new ApicMessage(),
    physicalBits: (vcpu) => vm.cpuid(CPUID_ADDRESS_SIZES, 0, vcpu).eax & 0xff || MOST_PHYSICAL_BITS,
    splitIcr: features.vendor === "amd",
    collect: (vcpu) => collectPoint.call(vcpu),
    send: (message, sender) => bus.send(message, sender),
    deliver: (vcpu, vector) => deliverPoint.call(vcpu, vector) === true,
    changed(lapic, change) {
      if (!announced(lapic.vcpu)) return;
      window.update();
      inhibits.changed(lapic, change);
      changedPoint.call(lapic.vcpu, change);
    },
    taskPriorityChanged: (vcpu, priority) => priorityPoint.call(vcpu, priority),
    ended(vcpu, vector, level) {
      endPoint.call(vcpu, vector);
      if (level) messagePoint.call(vcpu, vector);
    },
    externalInterrupt: () => pic.current?.output ?? false,
    externalAcknowledge: () => pic.current?.acknowledge() ?? FLOATING,
    ticksUntilTsc: (vcpu, low, high) => ticksUntil(vcpu, low, high),
  };

  const make = (vcpu: Vcpu): Lapic => {
    const hpa = memory.alloc(PAGE_SIZE);
    pages.push(hpa);
    const bytes = memory.view(hpa, PAGE_SIZE);
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, PAGE_WORDS);
    const timer = ctx.createTimer(`APIC timer of vCPU ${vcpu.id}`, () => {
      own.timer.fired();
      own.lvt.fire(LapicRegister.LVT_TIMER);
    });
    const now = (): number => vm.clock.current.now();
    const own = new Lapic(
      vcpu,
      board,
      hpa,
      words,
      new ApicTimer(timer, busCycle, shortestPeriod, now),
    );
    return own;
  };

  const state = ctx.vcpuState<Lapic>({
    name: "lapic",
    version: 1,
    init(vcpu) {
      const own = make(vcpu);
      own.reset(false);
      return own;
    },
    save: (own) => own.save(),
    load(saved, vcpu) {
      const own = make(vcpu);
      own.load(saved as LapicSaved);
      return own;
    },
  });
  const bus = new ApicBus(vm.vcpus, board, (vcpu) => state.of(vcpu));
  const inhibits = new LapicInhibits(ctx, bus);
  const window = new RegisterWindow(ctx, bus);
  ctx.onLeave(() => {
    for (const hpa of pages) memory.free(hpa);
  });

  ctx.provide(lapicSlot, bus);
  ctx.provide(interruptControllerSlot, {
    hasInterrupt(vcpu) {
      const own = state.of(vcpu);
      return own.externalInterrupt || own.deliverable >= 0;
    },
    hasInjectable(vcpu) {
      const own = state.of(vcpu);
      return own.externalInterrupt || (!vcpu.accelerated && own.deliverable >= 0);
    },
    acknowledge: (vcpu) => state.of(vcpu).acknowledge(),
    taskPriority: (vcpu) => state.of(vcpu).taskPriority >> 4,
    setTaskPriority: (vcpu, priority) => state.of(vcpu).setTaskPriority(priority << 4),
    waitsForTaskPriority: (vcpu) => state.of(vcpu).waitsForTaskPriority,
  });

  const announce = (vcpu: Vcpu): void => {
    window.update();
    inhibits.changed(state.of(vcpu), "reset");
    changedPoint.call(vcpu, "reset");
  };
  ready = true;
  window.update();
  for (const vcpu of vm.vcpus) {
    announce(vcpu);
    vcpu.request(eventRequest);
  }
  ctx.on(vcpuCreatedHook, announce);
  ctx.on(resetHook, () => {
    for (const vcpu of vm.vcpus) state.of(vcpu).reset(false);
  });
  ctx.on(requestHook, initRequest.id, (vcpu) => acceptStartup(vcpu, state.of(vcpu)));
  // The processor held an INIT back, and now it takes it.
  ctx.on(exitHook, ExitReason.INIT, (vcpu) => {
    acceptInit(vcpu, state.of(vcpu));
    return ExitAction.RESUME;
  });
  ctx.on(picOutputHook, (level) => {
    for (const vcpu of vm.vcpus) state.of(vcpu).lvt.setPin(0, level);
  });
  ctx.on(msiHook, (address, data) => {
    if (Math.floor(address / 0x10_0000) !== MSI_WINDOW) return undefined;
    board.message.setMsi(address, data);
    return bus.send(board.message) > 0;
  });
  registerMsrs(ctx, features, (vcpu) => state.of(vcpu));
  registerCpuid(ctx, features, bus);
}

function registerMsrs(
  ctx: PluginContext,
  features: LapicFeatures,
  of: (vcpu: Vcpu) => Lapic,
): void {
  ctx.registerMsr({
    name: "APIC base",
    base: MSR_APIC_BASE,
    read(access, vcpu) {
      const own = of(vcpu);
      access.lo = own.baseLow;
      access.hi = own.baseHigh;
      return true;
    },
    write: (access, vcpu) => of(vcpu).writeBase(access.lo, access.hi, access.host),
  });
  ctx.registerMsr({
    name: "x2APIC",
    base: X2APIC_MSR,
    length: X2APIC_MSRS,
    read(access, vcpu) {
      const own = of(vcpu);
      if (own.mode !== LapicMode.X2APIC) return false;
      const offset = (access.index - X2APIC_MSR) << 4;
      const value = own.readX2(offset);
      if (value < 0) return false;
      access.lo = value;
      access.hi = own.readX2High(offset);
      return true;
    },
    write(access, vcpu) {
      const own = of(vcpu);
      if (own.mode !== LapicMode.X2APIC) return false;
      return own.writeX2((access.index - X2APIC_MSR) << 4, access.lo, access.hi);
    },
  });
  if (!features.tscDeadline) return;
  ctx.registerMsr({
    name: "TSC deadline",
    base: MSR_TSC_DEADLINE,
    read(access, vcpu) {
      const { timer } = of(vcpu);
      access.lo = timer.tscLow;
      access.hi = timer.tscHigh;
      return true;
    },
    write(access, vcpu) {
      of(vcpu).writeTscDeadline(access.lo, access.hi);
      return true;
    },
  });
}

const tscAccess = new MsrAccess();
tscAccess.index = MSR_TSC;
tscAccess.host = true;

/** Ticks until the guest's time-stamp counter, which counts ticks, is at a value. */
function ticksUntil(vcpu: Vcpu, low: number, high: number): number {
  if (!vcpu.vm.msrs.access(tscAccess, vcpu)) return 0;
  const { lo, hi } = tscAccess;
  return ((high >>> 0) - (hi >>> 0)) * 0x1_0000_0000 + ((low >>> 0) - (lo >>> 0));
}

/**
 * The places in memory where registers are. Each local APIC has its own, all of which are the same
 * until a guest moves one. Where memory or another device is in the way, that is what is there, as
 * with KVM: accesses to memory do not come by here.
 */
class RegisterWindow {
  readonly #ctx: PluginContext;
  readonly #bus: ApicBus;
  readonly #regions: Map<number, Registration> = new Map();

  constructor(ctx: PluginContext, bus: ApicBus) {
    this.#ctx = ctx;
    this.#bus = bus;
  }

  /** Registers the places that are in use, and takes back those that are not any more. */
  update(): void {
    const { vm } = this.#ctx;
    const wanted = new Set([DEFAULT_APIC_BASE]);
    for (const vcpu of vm.vcpus) wanted.add(this.#bus.of(vcpu).base);
    for (const [base, region] of this.#regions) {
      if (wanted.has(base)) continue;
      region.remove();
      this.#regions.delete(base);
    }
    for (const base of wanted) {
      if (this.#regions.has(base)) continue;
      const taken = vm.memory.firstIn(base, PAGE_SIZE) ?? vm.mmio.firstIn(base, PAGE_SIZE);
      if (taken === undefined) this.#regions.set(base, this.#register(base));
    }
  }

  #register(base: number): Registration {
    const bus = this.#bus;
    /** The local APIC of a vCPU, if it has its registers here. */
    const here = (vcpu: Vcpu | undefined): Lapic | undefined => {
      const own = vcpu && bus.of(vcpu);
      return own?.mode === LapicMode.XAPIC && own.base === base ? own : undefined;
    };
    return this.#ctx.registerMmio({
      name: "local APIC",
      base,
      length: PAGE_SIZE,
      // Only aligned accesses of 4 bytes are defined (APM vol. 2, 16.3.2). Parts of a register can be
      // read, other bytes are zero; what else is written is dropped, as with KVM.
      read(offset, _size, vcpu) {
        const own = here(vcpu);
        if (own === undefined) return NOWHERE;
        const byte = offset & 15;
        return byte < 4 ? own.read(offset & 0xff0) >>> (8 * byte) : 0;
      },
      write(offset, size, value, vcpu) {
        if (size === 4 && (offset & 15) === 0) here(vcpu)?.write(offset, value);
      },
    });
  }
}
