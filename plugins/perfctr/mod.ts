/**
 * The performance counters that every AMD64 processor has: four of them, in MSRs C001_0000h to
 * C001_0007h (APM vol. 2, 13.2.1).
 *
 * @example
 * ```ts
 * import { perfCounters } from "@trapline/trapline/perfctr";
 *
 * console.assert(perfCounters().name === "perfctr");
 * ```
 *
 * Limits: what can be counted is retired instructions (event C0h) at all privilege levels. To enable a
 * counter with any other selection, or with an interrupt on overflow, stops the vCPU with an
 * `UnimplementedError` that names what was selected. There are neither the six core counters (MSRs
 * C001_0200h on) nor RDPMC; CPUID reports none of them.
 *
 * @module
 */

import { type MsrAccess, type Plugin, UnimplementedError, type Vcpu } from "../../core/mod.ts";

const COUNTERS = 4;
const PERF_EVT_SEL0 = 0xc001_0000;
const PERF_CTR0 = 0xc001_0004;

/** Bits 31:0 of PERF_EVT_SEL. */
const EvtSel = {
  EVENT: 0x0000_00ff,
  USR: 0x0001_0000,
  OS: 0x0002_0000,
  EN: 0x0040_0000,
  /** 21 and 19. */
  RESERVED: 0x0028_0000,
} as const;
/** Bits 63:32: the event's bits 11:8; 63:36 are reserved here, as there are no guest-only counters. */
const EVENT_HIGH = 0xf;
/** Retired instructions. */
const RETIRED_INSTRUCTIONS = 0xc0;
/** What counts them: that event with no unit mask, edge or comparison, at all levels, enabled. */
const COUNT_INSTRUCTIONS = EvtSel.EN | EvtSel.OS | EvtSel.USR | RETIRED_INSTRUCTIONS;

const MODULUS = 2 ** 48;

/** One counter of a vCPU. */
interface Counter {
  /** PERF_EVT_SEL, bits 31:0. */
  lo: number;
  /** PERF_EVT_SEL, bits 63:32. */
  hi: number;
  /** What it counts from: its value, less what had been retired if it is enabled. */
  start: number;
}

/** The counters as a plugin. */
export function perfCounters(): Plugin {
  return {
    name: "perfctr",
    version: "1.0.0",
    description: "Four performance counters of an AMD64 processor, for retired instructions",
    setup(ctx) {
      const state = ctx.vcpuState<Counter[]>({
        name: "counters",
        version: 1,
        init: () => Array.from({ length: COUNTERS }, () => ({ lo: 0, hi: 0, start: 0 })),
        // The count of retired instructions need not go along with the counters.
        save: (counters, vcpu) =>
          counters.map((counter) => ({ ...counter, start: valueOf(counter, vcpu) })),
        load: (saved, vcpu) =>
          (saved as unknown as Counter[]).map((counter) => {
            const copy = { ...counter };
            setValue(copy, vcpu, counter.start);
            return copy;
          }),
      });
      const counter = (access: MsrAccess, vcpu: Vcpu): Counter =>
        state.of(vcpu)[access.index & (COUNTERS - 1)]!;

      ctx.registerMsr({
        name: "PERF_EVT_SEL",
        base: PERF_EVT_SEL0,
        length: COUNTERS,
        read(access, vcpu) {
          const { lo, hi } = counter(access, vcpu);
          access.lo = lo;
          access.hi = hi;
          return true;
        },
        write(access, vcpu) {
          const { lo, hi } = access;
          if ((lo & EvtSel.RESERVED) !== 0 || (hi & ~EVENT_HIGH) !== 0) return false;
          if ((lo & EvtSel.EN) !== 0 && (lo !== COUNT_INSTRUCTIONS || hi !== 0)) {
            throw unimplemented(lo, hi);
          }
          const chosen = counter(access, vcpu);
          const value = valueOf(chosen, vcpu);
          chosen.lo = lo;
          chosen.hi = hi;
          setValue(chosen, vcpu, value);
          return true;
        },
      });
      ctx.registerMsr({
        name: "PERF_CTR",
        base: PERF_CTR0,
        length: COUNTERS,
        read(access, vcpu) {
          const value = valueOf(counter(access, vcpu), vcpu);
          access.lo = value >>> 0;
          access.hi = Math.floor(value / 2 ** 32);
          return true;
        },
        write(access, vcpu) {
          // Bits 63:48 do not exist.
          const value = (access.hi & 0xffff) * 2 ** 32 + (access.lo >>> 0);
          setValue(counter(access, vcpu), vcpu, value);
          return true;
        },
      });
    },
  };
}

function enabled(counter: Counter): boolean {
  return (counter.lo & EvtSel.EN) !== 0;
}

function valueOf(counter: Counter, vcpu: Vcpu): number {
  if (!enabled(counter)) return counter.start;
  return (counter.start + vcpu.instructions) % MODULUS;
}

function setValue(counter: Counter, vcpu: Vcpu, value: number): void {
  const start = enabled(counter) ? value - vcpu.instructions : value;
  counter.start = start < 0 ? start + MODULUS : start;
}

function unimplemented(lo: number, hi: number): UnimplementedError {
  const event = ((hi & EVENT_HIGH) << 8) | (lo & EvtSel.EVENT);
  return new UnimplementedError(
    `no performance counter counts event ${event.toString(16)}h as PERF_EVT_SEL ` +
      `${hi.toString(16)}_${(lo >>> 0).toString(16).padStart(8, "0")}h selects it`,
  );
}
