/**
 * A high precision event timer block at FED0_0000h (IA-PC HPET Specification 1.0a).
 *
 * A main counter of 64 bits that counts 100 MHz of VM time, and three timers, each one-shot or periodic,
 * of 32 or 64 bits, edge- or level-triggered on one of the lines 20 to 23, or sent as a message (FSB).
 *
 * Limits: the legacy replacement routes are not there, and the capability says so: the 8254 and the
 * clock keep lines 0 and 8.
 *
 * @example
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { hpet } from "@trapline/trapline/hpet";
 *
 * using machine = scriptedVm({ plugins: [hpet()] });
 * const { mmio } = machine.vm;
 * console.assert(mmio.read(0xfed0_0004, 4) === 10_000_000); // femtoseconds of a cycle
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  defineSlot,
  Oscillator,
  PAGE_SIZE,
  type Plugin,
  resetHook,
  type Slot,
  type Timer,
} from "../../core/mod.ts";
import { Hpet, HPET_FREQUENCY, type HpetSaved } from "./hpet.ts";

export { HPET_FREQUENCY, HPET_ROUTES, HPET_TIMERS } from "./hpet.ts";

/** What ACPI tables tell of the block. */
export interface HpetPlace {
  /** First guest physical address. */
  readonly base: number;
}

/** The block, for those who describe the machine to a guest. */
export const hpetSlot: Slot<HpetPlace> = defineSlot("hpet");

/** Options of {@linkcode hpet}. */
export interface HpetOptions {
  /** Where its registers are, a multiple of 4096; FED0_0000h if not given. */
  readonly base?: number;
}

/** Bytes of registers. */
const LENGTH = 0x400;

/**
 * A high precision event timer as a plugin.
 *
 * @throws {ArgumentError} If the base is not a multiple of 4096.
 */
export function hpet(options: HpetOptions = {}): Plugin {
  const { base = 0xfed0_0000 } = options;
  if (!Number.isSafeInteger(base) || base < 0 || base % PAGE_SIZE !== 0) {
    throw new ArgumentError(`hpet: base ${base} is not a multiple of ${PAGE_SIZE}`);
  }
  return {
    name: "hpet",
    version: "1.0.0",
    description: `A high precision event timer at ${base.toString(16).toUpperCase()}h`,
    provides: [hpetSlot],
    setup(ctx) {
      const { vm } = ctx;
      ctx.provide(hpetSlot, { base });
      const oscillator = new Oscillator(HPET_FREQUENCY);
      const now = (): number => oscillator.cyclesAt(vm.clock.current.now());
      const make = (): Hpet =>
        new Hpet({
          line: (line, level) => vm.setIrqLine(line, level),
          message: (address, data) => void vm.sendMsi(address, data),
        });
      const block = ctx.vmState<Hpet>({
        name: "hpet",
        version: 1,
        init: make,
        save: (state) => state.save(),
        load(saved) {
          const state = make();
          state.load(saved as HpetSaved);
          return state;
        },
      }).current;
      const timer: Timer = ctx.createTimer("high precision event timer", () => {
        block.update(now());
        schedule();
      });
      const schedule = (): void => {
        const next = block.nextMatch;
        if (next === Infinity) timer.cancel();
        else timer.arm(oscillator.timeOf(next));
      };
      ctx.registerMmio({
        name: "high precision event timer",
        base,
        length: LENGTH,
        // Narrow accesses are not in the specification; they see the bytes of the register.
        read: (offset, size) =>
          size === 4 && offset % 4 === 0
            ? block.read(offset, now())
            : block.read(offset & ~3, now()) >>> (8 * (offset & 3)),
        read64(offset, out) {
          const cycles = now();
          out[0] = block.read(offset, cycles);
          out[1] = block.read(offset + 4, cycles);
        },
        write(offset, size, value) {
          if (size !== 4 || offset % 4 !== 0) return;
          block.update(now());
          block.write(offset, value, now());
          schedule();
        },
      });
      ctx.on(resetHook, () => {
        block.reset(now());
        timer.cancel();
      });
      schedule();
    },
  };
}
