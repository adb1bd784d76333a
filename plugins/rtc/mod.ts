/**
 * The real-time clock of a PC with its CMOS RAM: an MC146818 at ports 70h and 71h.
 *
 * Time of day and calendar (BCD or binary, 12 or 24 hours, with the century at 32h), the periodic, the
 * alarm and the update-ended interrupt on line 8, SET and UIP are there, and 114 bytes of RAM. It runs
 * on VM time from the date that it is given, so that a run with a deterministic clock sees the same
 * dates each time.
 *
 * The RAM is as PC firmware leaves it: sizes of base and extended memory (15h to 18h, 30h, 31h, in KiB;
 * 34h and 35h, above 16 MiB in units of 64 KiB; 5Bh to 5Dh, above 4 GiB in the same), equipment (14h),
 * and the checksum over 10h to 2Dh (2Eh, 2Fh).
 *
 * Limits: daylight saving (DSE) and the square-wave pin have no effect. Bit 7 of port 70h, which masks
 * NMI on a PC, has none either: no device here asserts NMI.
 *
 * @example A clock that starts at a date of one's own
 * ```ts
 * import { rtc } from "@trapline/trapline/rtc";
 *
 * const plugin = rtc({ date: new Date("2030-01-01T00:00:00Z") });
 * console.assert(plugin.name === "rtc");
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  Oscillator,
  type Plugin,
  resetHook,
  type Timer,
  vcpuCreatedHook,
  type Vm,
} from "../../core/mod.ts";
import { Mc146818, RTC_FREQUENCY, type RtcSaved } from "./mc146818.ts";

/** Options of {@linkcode rtc}. */
export interface RtcOptions {
  /** The date at VM time 0, to the second; 1 January 2026, 0:00 UTC, if not given. */
  readonly date?: Date;
}

const INDEX_PORT = 0x70;
const INDEX = 0x7f;
const LINE = 8;

const DEFAULT_DATE: number = Date.UTC(2026, 0, 1);

/** Bytes of RAM that firmware keeps. */
const Cmos = {
  EQUIPMENT: 0x14,
  BASE_MEMORY: 0x15,
  EXTENDED_MEMORY: 0x17,
  CHECKSUM_FIRST: 0x10,
  CHECKSUM_LAST: 0x2d,
  CHECKSUM: 0x2e,
  EXTENDED_MEMORY_ACTUAL: 0x30,
  MEMORY_ABOVE_16M: 0x34,
  MEMORY_ABOVE_4G: 0x5b,
} as const;

/** A mathematics coprocessor and a PS/2 mouse port; no floppy drives. */
const EQUIPMENT = 0x06;

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** What the plugin keeps. */
class State {
  readonly chip: Mc146818;
  index = 0;

  constructor(seconds: number) {
    this.chip = new Mc146818(seconds);
  }
}

/** Bytes of RAM from `start` on, up to `end` or the first hole. */
function ramFrom(vm: Vm, start: number, end: number): number {
  let at = start;
  while (at < end) {
    const slot = vm.memory.lookup(at);
    if (slot === undefined || slot.readonly) break;
    at = Math.min(end, slot.gpa + slot.size);
  }
  return at - start;
}

/** Writes what firmware knows of the machine into the RAM. */
function describeMachine(vm: Vm, put: (register: number, value: number) => void): void {
  const bytes = new Uint8Array(128);
  const set = (register: number, value: number, length: number): void => {
    for (let i = 0; i < length; i++) bytes[register + i] = Math.floor(value / 2 ** (8 * i)) & 0xff;
  };
  const upper = ramFrom(vm, MIB, 4 * GIB);
  const extended = Math.min(Math.floor(upper / KIB), 0xffff);
  set(Cmos.EQUIPMENT, EQUIPMENT, 1);
  set(Cmos.BASE_MEMORY, Math.floor(ramFrom(vm, 0, 640 * KIB) / KIB), 2);
  set(Cmos.EXTENDED_MEMORY, extended, 2);
  set(Cmos.EXTENDED_MEMORY_ACTUAL, extended, 2);
  set(Cmos.MEMORY_ABOVE_16M, Math.floor(Math.max(0, upper - 15 * MIB) / (64 * KIB)), 2);
  set(Cmos.MEMORY_ABOVE_4G, Math.floor(ramFrom(vm, 4 * GIB, 1024 * GIB) / (64 * KIB)), 3);
  let sum = 0;
  for (let i: number = Cmos.CHECKSUM_FIRST; i <= Cmos.CHECKSUM_LAST; i++) sum += bytes[i] as number;
  // The checksum, alone, has its high byte first.
  bytes[Cmos.CHECKSUM] = sum >> 8;
  bytes[Cmos.CHECKSUM + 1] = sum & 0xff;
  for (const [first, last] of [[0x10, 0x31], [0x34, 0x35], [0x5b, 0x5d]] as const) {
    for (let i = first; i <= last; i++) put(i, bytes[i] as number);
  }
}

/**
 * The real-time clock as a plugin.
 *
 * @throws {ArgumentError} If the date is not a date, or not of the years 1 to 9999.
 */
export function rtc(options: RtcOptions = {}): Plugin {
  const seconds = Math.floor((options.date?.getTime() ?? DEFAULT_DATE) / 1000);
  const year = new Date(seconds * 1000).getUTCFullYear();
  if (!(year >= 1 && year <= 9999)) {
    throw new ArgumentError("rtc: the date is not one of the years 1 to 9999");
  }
  return {
    name: "rtc",
    version: "1.0.0",
    description: "An MC146818 real-time clock and CMOS RAM at 70h",
    setup(ctx) {
      const { vm } = ctx;
      const oscillator = new Oscillator(RTC_FREQUENCY);
      const now = (): number => oscillator.cyclesAt(vm.clock.current.now());
      const state = ctx.vmState<State>({
        name: "rtc",
        version: 1,
        init: () => new State(seconds),
        save: ({ chip, index }) => ({ chip: chip.save(), index }),
        load(saved) {
          const { chip, index } = saved as { chip: RtcSaved; index: number };
          const made = new State(seconds);
          made.chip.load(chip);
          made.index = index;
          return made;
        },
      }).current;
      const { chip } = state;

      let line = chip.level;
      const timer: Timer = ctx.createTimer("real-time clock", () => update());
      /** Drives the line to what the pin is, and comes back when it rises. */
      const update = (): void => {
        const cycles = now();
        const next = chip.nextInterrupt(cycles);
        if (chip.level !== line) {
          line = chip.level;
          vm.setIrqLine(LINE, line);
        }
        if (next === Infinity) timer.cancel();
        else timer.arm(oscillator.timeOf(next));
      };

      ctx.registerPio({
        name: "real-time clock",
        base: INDEX_PORT,
        length: 2,
        width: 1,
        read(offset) {
          // The index cannot be read back.
          if (offset === 0) return 0xff;
          const value = chip.read(state.index, now());
          update();
          return value;
        },
        write(offset, _size, value) {
          if (offset === 0) {
            state.index = value & INDEX;
            return;
          }
          chip.write(state.index, value, now());
          update();
        },
      });
      ctx.on(vcpuCreatedHook, (vcpu) => {
        // RAM is there by now, and nobody has written to the clock.
        if (vcpu.index === 0) {
          describeMachine(vm, (register, value) => chip.preset(register, value));
        }
      });
      ctx.on(resetHook, () => {
        chip.reset(now());
        state.index = 0;
        update();
      });
      update();
    },
  };
}
