/**
 * Intel's architectural performance monitoring, version 2: four general counters and three of fixed
 * events (SDM vol. 3B, 20.2).
 *
 * @module
 */
import {
  type CpuidResult,
  type PluginContext,
  UnimplementedError,
  type Vcpu,
  type VcpuState,
} from "../../core/mod.ts";
import { COUNTER_MASK, masked, type Source } from "./counter.ts";
import type { CounterRegisters, CounterUnit } from "./unit.ts";

const GENERAL = 4;
const FIXED = 3;
/** All counters: the general ones first. */
export const INTEL_COUNTERS: number = GENERAL + FIXED;

const PMC0 = 0xc1;
const PERF_EVT_SEL0 = 0x186;
const FIXED_CTR0 = 0x309;
const FIXED_CTR_CTRL = 0x38d;
const GLOBAL_STATUS = 0x38e;
const GLOBAL_CTRL = 0x38f;
const GLOBAL_OVF_CTRL = 0x390;

/** Bits of IA32_PERFEVTSEL. */
const EvtSel = {
  /** Event and unit mask. */
  EVENT: 0xffff,
  USR: 0x1_0000,
  OS: 0x2_0000,
  PIN_CONTROL: 0x8_0000,
  INT: 0x10_0000,
  /** Any thread: of version 3. */
  RESERVED: 0x20_0000,
  EN: 0x40_0000,
} as const;

/** Architectural events that are counted, by unit mask and event (table 20-1). */
const EVENTS: Readonly<Record<number, Source>> = {
  0x003c: "cycles",
  0x00c0: "instructions",
  0x00c4: "branches",
  0x00c5: "mispredicted",
  0x013c: "cycles",
};
/** CPUID 0Ah EBX: references and misses of the last-level cache are not there. */
const UNAVAILABLE = 0x18;
/** Events of the fixed counters: instructions, core cycles, reference cycles. */
const FIXED_EVENTS: readonly Source[] = ["instructions", "cycles", "cycles"];

/** A fixed counter's four bits: at CPL 0 (0), at others (1), interrupt (3). */
const Fixed = { LEVELS: 3, PMI: 8, RESERVED: 0x444, BITS: 12 } as const;

/** GLOBAL_CTRL and GLOBAL_STATUS: general counters in 3:0, fixed ones in 34:32. */
const GENERAL_BITS: number = 2 ** GENERAL - 1;
const FIXED_BITS: number = 2 ** FIXED - 1;
/** GLOBAL_OVF_CTRL 63:62 clear what never is set here: CondChgd and OvfBuffer. */
const OVF_HIGH: number = FIXED_BITS | 0xc000_0000;

function sourceOf(select: number): Source | undefined {
  if ((select & EvtSel.EN) === 0) return undefined;
  const source = EVENTS[select & EvtSel.EVENT];
  const plain = EvtSel.EVENT | EvtSel.INT | EvtSel.PIN_CONTROL | COUNTER_MASK;
  if (source === undefined || (select & ~plain) !== (EvtSel.EN | EvtSel.OS | EvtSel.USR)) {
    throw unimplemented("IA32_PERFEVTSEL", select);
  }
  return masked(source, select >>> 24);
}

function fixedSource(control: number, n: number): Source | undefined {
  const levels = (control >>> (4 * n)) & Fixed.LEVELS;
  if (levels === 0) return undefined;
  if (levels !== Fixed.LEVELS) throw unimplemented("IA32_FIXED_CTR_CTRL", control);
  return FIXED_EVENTS[n];
}

function unimplemented(name: string, value: number): UnimplementedError {
  return new UnimplementedError(
    `no performance counter counts what ${name} ${(value >>> 0).toString(16)}h selects`,
  );
}

/** The control registers of one vCPU. */
export class IntelRegisters implements CounterRegisters {
  /** IA32_PERFEVTSEL, FIXED_CTR_CTRL, GLOBAL_CTRL low and high, GLOBAL_STATUS low and high. */
  readonly words: Uint32Array = new Uint32Array(GENERAL + 5);

  constructor() {
    this.words[GENERAL + 1] = GENERAL_BITS;
  }

  /** FIXED_CTR_CTRL. */
  get fixedControl(): number {
    return this.words[GENERAL]!;
  }

  /** Whether GLOBAL_CTRL lets counter `n` count. */
  #enabled(n: number): boolean {
    const [word, bit] = n < GENERAL ? [GENERAL + 1, n] : [GENERAL + 2, n - GENERAL];
    return ((this.words[word]! >>> bit) & 1) !== 0;
  }

  /** See {@linkcode CounterRegisters}. */
  sources(): readonly (Source | undefined)[] {
    return Array.from({ length: INTEL_COUNTERS }, (_, n) => {
      const source = n < GENERAL
        ? sourceOf(this.words[n]!)
        : fixedSource(this.fixedControl, n - GENERAL);
      return this.#enabled(n) ? source : undefined;
    });
  }

  /** See {@linkcode CounterRegisters}. */
  interrupts(n: number): boolean {
    if (!this.#enabled(n)) return false;
    if (n >= GENERAL) return ((this.fixedControl >>> (4 * (n - GENERAL))) & Fixed.PMI) !== 0;
    const wanted = EvtSel.EN | EvtSel.INT;
    return (this.words[n]! & wanted) === wanted;
  }

  /** See {@linkcode CounterRegisters}. */
  overflowed(n: number): void {
    const [word, bit] = n < GENERAL ? [GENERAL + 3, n] : [GENERAL + 4, n - GENERAL];
    this.words[word]! |= 1 << bit;
  }

  /** The counter that ECX of RDPMC names, with bit 30 a fixed one; negative for none. */
  counterOf(ecx: number): number {
    const number = (ecx & 0x3fff_ffff) >>> 0;
    if ((ecx >>> 30) === 1) return number < FIXED ? GENERAL + number : -1;
    return ecx >>> 0 < GENERAL ? number : -1;
  }
}

/** Leaf 0Ah: version, counters and their widths, events that are not there. */
export function fillMonitoring(result: CpuidResult): CpuidResult {
  result.eax = 2 | (GENERAL << 8) | (48 << 16) | (7 << 24);
  result.ebx = UNAVAILABLE;
  result.ecx = 0;
  result.edx = FIXED | (48 << 5);
  return result;
}

/** Registers the MSRs. */
export function registerIntel(
  ctx: PluginContext,
  unit: VcpuState<CounterUnit>,
  registers: (vcpu: Vcpu) => IntelRegisters,
): void {
  /** Registers of control: where their words are, and which bits there are. */
  const control = (
    name: string,
    base: number,
    word: number,
    bits: readonly [lo: number, hi: number],
    high?: number,
  ): void => {
    ctx.registerMsr({
      name,
      base,
      read(access, vcpu) {
        const { words } = registers(vcpu);
        access.lo = words[word]!;
        access.hi = high === undefined ? 0 : words[high]!;
        return true;
      },
      write(access, vcpu) {
        if ((access.lo & ~bits[0]) !== 0 || (access.hi & ~bits[1]) !== 0) return false;
        const { words } = registers(vcpu);
        const own = unit.of(vcpu);
        own.settle();
        const old = [words[word]!, high === undefined ? 0 : words[high]!] as const;
        words[word] = access.lo;
        if (high !== undefined) words[high] = access.hi;
        try {
          own.apply();
        } catch (error) {
          words[word] = old[0];
          if (high !== undefined) words[high] = old[1];
          throw error;
        }
        return true;
      },
    });
  };
  const counter = (name: string, base: number, n: number, wide: boolean): void => {
    ctx.registerMsr({
      name,
      base,
      read(access, vcpu) {
        const value = unit.of(vcpu).read(n);
        access.lo = value >>> 0;
        access.hi = Math.floor(value / 2 ** 32);
        return true;
      },
      write(access, vcpu) {
        // A general counter takes 32 bits and extends their sign (SDM vol. 3B, 20.2.6).
        const hi = wide ? access.hi : access.lo >> 31;
        if (wide && hi >>> 16 !== 0) return false;
        unit.of(vcpu).write(n, (hi & 0xffff) * 2 ** 32 + (access.lo >>> 0));
        return true;
      },
    });
  };
  const selectable = ~EvtSel.RESERVED;
  for (let n = 0; n < GENERAL; n++) {
    control("IA32_PERFEVTSEL", PERF_EVT_SEL0 + n, n, [selectable, 0]);
    counter("IA32_PMC", PMC0 + n, n, false);
  }
  for (let n = 0; n < FIXED; n++) counter("IA32_FIXED_CTR", FIXED_CTR0 + n, GENERAL + n, true);
  const fixedBits = (2 ** Fixed.BITS - 1) & ~Fixed.RESERVED;
  control("IA32_FIXED_CTR_CTRL", FIXED_CTR_CTRL, GENERAL, [fixedBits, 0]);
  control(
    "IA32_PERF_GLOBAL_CTRL",
    GLOBAL_CTRL,
    GENERAL + 1,
    [GENERAL_BITS, FIXED_BITS],
    GENERAL + 2,
  );
  ctx.registerMsr({
    name: "IA32_PERF_GLOBAL_STATUS",
    base: GLOBAL_STATUS,
    read(access, vcpu) {
      unit.of(vcpu).settle();
      const { words } = registers(vcpu);
      access.lo = words[GENERAL + 3]!;
      access.hi = words[GENERAL + 4]!;
      return true;
    },
  });
  ctx.registerMsr({
    name: "IA32_PERF_GLOBAL_OVF_CTRL",
    base: GLOBAL_OVF_CTRL,
    read(access) {
      access.lo = access.hi = 0;
      return true;
    },
    write(access, vcpu) {
      if ((access.lo & ~GENERAL_BITS) !== 0 || (access.hi & ~OVF_HIGH) !== 0) return false;
      unit.of(vcpu).settle();
      const { words } = registers(vcpu);
      words[GENERAL + 3]! &= ~access.lo;
      words[GENERAL + 4]! &= ~access.hi;
      return true;
    },
  });
}
