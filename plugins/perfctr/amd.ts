/**
 * AMD's registers: six core counters in MSRs C001_0200h on, of which the first four are in C001_0000h to
 * C001_0007h as well (APM vol. 2, 13.2.1).
 *
 * @module
 */
import {
  type PluginContext,
  UnimplementedError,
  type Vcpu,
  type VcpuState,
} from "../../core/mod.ts";
import { COUNTER_MASK, masked, type Source } from "./counter.ts";
import type { CounterRegisters, CounterUnit } from "./unit.ts";

/** Core counters. */
export const AMD_COUNTERS = 6;
/** Those that the older MSRs reach. */
const LEGACY = 4;
const PERF_EVT_SEL0 = 0xc001_0000;
const PERF_CTR0 = 0xc001_0004;
/** Selection and counter take turns from here on. */
const CORE_SEL0 = 0xc001_0200;

/** Bits 31:0 of PERF_EVT_SEL. */
const EvtSel = {
  EVENT: 0x0000_00ff,
  USR: 0x0001_0000,
  OS: 0x0002_0000,
  INT: 0x0010_0000,
  EN: 0x0040_0000,
  /** 21 and 19. */
  RESERVED: 0x0028_0000,
} as const;
/** Bits 63:32: the event's bits 11:8; 63:36 are reserved here, as there are no guest-only counters. */
const EVENT_HIGH = 0xf;

/** Events that are counted, at all privilege levels, with no unit mask, edge or comparison. */
const EVENTS: Readonly<Record<number, Source>> = {
  0x76: "cycles",
  0xc0: "instructions",
  0xc2: "branches",
  0xc3: "mispredicted",
};

/** What an enabled selection counts. Throws `UnimplementedError` if it is nothing that is counted. */
function sourceOf(lo: number, hi: number): Source | undefined {
  if ((lo & EvtSel.EN) === 0) return undefined;
  const plain = EvtSel.EVENT | EvtSel.INT | COUNTER_MASK;
  const source = EVENTS[lo & EvtSel.EVENT];
  const levels = EvtSel.EN | EvtSel.OS | EvtSel.USR;
  if (source === undefined || (lo & ~plain) !== levels || hi !== 0) {
    const event = ((hi & EVENT_HIGH) << 8) | (lo & EvtSel.EVENT);
    throw new UnimplementedError(
      `no performance counter counts event ${event.toString(16)}h as PERF_EVT_SEL ` +
        `${hi.toString(16)}_${(lo >>> 0).toString(16).padStart(8, "0")}h selects it`,
    );
  }
  return masked(source, lo >>> 24);
}

/** The selections of one vCPU. */
export class AmdRegisters implements CounterRegisters {
  /** Two words a counter. */
  readonly words: Uint32Array = new Uint32Array(2 * AMD_COUNTERS);

  /** See {@linkcode CounterRegisters}. */
  sources(): readonly (Source | undefined)[] {
    return Array.from(
      { length: AMD_COUNTERS },
      (_, n) => sourceOf(this.words[2 * n]!, this.words[2 * n + 1]!),
    );
  }

  /** See {@linkcode CounterRegisters}. */
  interrupts(n: number): boolean {
    const wanted = EvtSel.EN | EvtSel.INT;
    return (this.words[2 * n]! & wanted) === wanted;
  }

  /** There is no status to note it in. */
  overflowed(): void {}

  /** Sets a selection; false if a reserved bit is set. */
  select(n: number, lo: number, hi: number): boolean {
    if ((lo & EvtSel.RESERVED) !== 0 || (hi & ~EVENT_HIGH) !== 0) return false;
    sourceOf(lo, hi);
    this.words[2 * n] = lo;
    this.words[2 * n + 1] = hi;
    return true;
  }

  /** The counter that ECX of RDPMC names; negative for none. */
  counterOf(ecx: number): number {
    return ecx >>> 0 < AMD_COUNTERS ? ecx : -1;
  }
}

/** Registers the MSRs. */
export function registerAmd(
  ctx: PluginContext,
  unit: VcpuState<CounterUnit>,
  registers: (vcpu: Vcpu) => AmdRegisters,
): void {
  const selection = (name: string, base: number, counter: number): void => {
    ctx.registerMsr({
      name,
      base,
      read(access, vcpu) {
        const { words } = registers(vcpu);
        access.lo = words[2 * counter]!;
        access.hi = words[2 * counter + 1]!;
        return true;
      },
      write(access, vcpu) {
        const { lo, hi } = access;
        if (!registers(vcpu).select(counter, lo, hi)) return false;
        unit.of(vcpu).apply();
        return true;
      },
    });
  };
  const count = (name: string, base: number, counter: number): void => {
    ctx.registerMsr({
      name,
      base,
      read(access, vcpu) {
        const value = unit.of(vcpu).read(counter);
        access.lo = value >>> 0;
        access.hi = Math.floor(value / 2 ** 32);
        return true;
      },
      write(access, vcpu) {
        // Bits 63:48 do not exist.
        unit.of(vcpu).write(counter, (access.hi & 0xffff) * 2 ** 32 + (access.lo >>> 0));
        return true;
      },
    });
  };
  for (let n = 0; n < AMD_COUNTERS; n++) {
    if (n < LEGACY) {
      selection("PERF_EVT_SEL", PERF_EVT_SEL0 + n, n);
      count("PERF_CTR", PERF_CTR0 + n, n);
    }
    selection("PERF_CTL", CORE_SEL0 + 2 * n, n);
    count("PERF_CTR", CORE_SEL0 + 2 * n + 1, n);
  }
}
