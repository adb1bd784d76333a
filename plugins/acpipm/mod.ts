/**
 * The power management registers of a PC: the fixed hardware of the ACPI specification, and with them
 * switching the machine off and letting it sleep.
 *
 * | offset | register                                                                               |
 * | ------ | -------------------------------------------------------------------------------------- |
 * | 0, 2   | PM1 status and enable: timer carry, global lock, power button, RTC                     |
 * | 4      | PM1 control: SCI_EN, which is always on, SLP_TYP and SLP_EN                            |
 * | 8      | PM timer, 24 or 32 bits, 3.579545 MHz of VM time                                       |
 *
 * (ACPI specification 6.5, section 4.8.3.) The registers are at 600h; firmware finds and moves them by the
 * configuration space of PCI function 1.3, 8086h:7113h (Intel 82371AB), if the base is a multiple of 64, as
 * that can tell no other, and the board has a PCI bus. ACPI tables tell where they were at first. To write SLP_EN with the sleep type of
 * S5, {@linkcode SLEEP_TYPE_S5}, ends the run with reason `"powered-off"`. With that of S3,
 * {@linkcode SLEEP_TYPE_S3}, the vCPUs lose their power and RAM keeps it, until the alarm of the real-time
 * clock is due if RTC_EN is set: RTC_STS follows line 8, which is the clock's. Then WAK_STS is set, everything but
 * RAM is reset, and {@linkcode wakeHook} is called, for the firmware to go back to the operating system. The
 * interrupt, SCI, is line 9, level-triggered.
 *
 * Limits: there is no legacy mode, so that SCI_EN cannot be cleared; no sleep states but S3 and S5, others are
 * ignored; no general-purpose events; nobody presses the power button.
 *
 * @example
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { acpiPm } from "@trapline/trapline/acpipm";
 *
 * using machine = scriptedVm({ plugins: [acpiPm()] });
 * console.assert(machine.vm.pio.read(0x604, 2) === 1); // SCI_EN
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  defineHook,
  defineSlot,
  type Hook,
  type IoRegion,
  irqLineHook,
  MpState,
  Oscillator,
  OverlapError,
  type Plugin,
  type Registration,
  resetHook,
  type Slot,
  type Timer,
  type Vm,
} from "../../core/mod.ts";
import { addPowerFunction, POWER_FUNCTION_UNIT } from "./piix4.ts";

/** Cycles of the PM timer in a second (ACPI specification, 4.8.3.3). */
export const PM_TIMER_FREQUENCY = 3_579_545;

/** SLP_TYP, bits 12:10 of PM1 control, that switches the machine off. */
export const SLEEP_TYPE_S5 = 0;

/** SLP_TYP that lets all but RAM lose its power. */
export const SLEEP_TYPE_S3 = 1;

/**
 * The machine wakes from S3: vCPUs and devices have been reset, RAM is as it was. Firmware goes on at
 * the waking vector of the operating system (ACPI specification 6.5, 16.3.1).
 */
export const wakeHook: Hook<(vm: Vm) => void, "each"> = defineHook({
  name: "acpi-wake",
  kind: "each",
  arity: 1,
});

/** What ACPI tables tell of the registers. */
export interface AcpiPm {
  /** First port; PM1 status and enable. */
  readonly base: number;
  /** Interrupt line of SCI. */
  readonly sci: number;
  /** Whether the PM timer has 32 bits instead of 24. */
  readonly wide: boolean;
}

/** The power management registers, for those who describe the machine to a guest. */
export const acpiPmSlot: Slot<AcpiPm> = defineSlot("acpi-pm");

/** Options of {@linkcode acpiPm}. */
export interface AcpiPmOptions {
  /** First of its twelve ports, a multiple of 4 from 0 to FFF4h; 600h if not given. */
  readonly base?: number;
  /** Width of the PM timer; 32 if not given. */
  readonly timerBits?: 24 | 32;
}

/** Offsets of the registers, and how many ports there are. */
export const PmRegister = {
  /** PM1 status, 16 bits. */
  STATUS: 0,
  /** PM1 enable, 16 bits. */
  ENABLE: 2,
  /** PM1 control, 16 bits. */
  CONTROL: 4,
  /** PM timer, 32 bits. */
  TIMER: 8,
  /** Number of ports. */
  PORTS: 12,
} as const;

const SCI = 9;
/** The line of the real-time clock. */
const CLOCK_LINE = 8;

/** Bits of PM1 status and enable. */
const TIMER_CARRY = 0x0001;
const CLOCK_ALARM = 0x0400;
const WAKE = 0x8000;
const STATUS_BITS = 0x8721;
const ENABLE_BITS = 0x0521;

/** Bits of PM1 control. */
const SCI_ENABLE = 0x0001;
const SLEEP_TYPE_SHIFT = 10;
const SLEEP_ENABLE = 0x2000;
const CONTROL_KEPT = 0x1c02;

/** What is kept. */
interface Registers {
  status: number;
  enable: number;
  control: number;
  /** In S3. */
  asleep: boolean;
  /** Until which cycle the timer's carry has been looked at. */
  checked: number;
}

/**
 * The power management registers as a plugin.
 *
 * @throws {ArgumentError} If the base is not a multiple of 4 from 0 to FFF4h.
 */
export function acpiPm(options: AcpiPmOptions = {}): Plugin {
  const { base = 0x600, timerBits = 32 } = options;
  if (!Number.isInteger(base) || base < 0 || base > 0xfff4 || base % 4 !== 0) {
    throw new ArgumentError(`acpi pm: base ${base} is not a multiple of 4 from 0 to ${0xfff4}`);
  }
  return {
    name: "acpipm",
    version: "1.0.0",
    description: "The ACPI power management registers, with the PM timer, sleep and power-off",
    provides: [acpiPmSlot],
    optional: ["pci"],
    setup(ctx) {
      const { vm } = ctx;
      ctx.provide(acpiPmSlot, { base, sci: SCI, wide: timerBits === 32 });
      const oscillator = new Oscillator(PM_TIMER_FREQUENCY);
      const modulus = 2 ** timerBits;
      /** The carry is a change of the highest bit. */
      const half = modulus / 2;
      const now = (): number => oscillator.cyclesAt(vm.clock.current.now());
      const state = ctx.vmState<Registers>({
        name: "registers",
        version: 2,
        init: () => ({ status: 0, enable: 0, control: 0, asleep: false, checked: 0 }),
        save: (registers) => ({ ...registers }),
        load: (saved) => ({ ...saved as unknown as Registers }),
      }).current;

      let line = false;
      const timer: Timer = ctx.createTimer("PM timer carry", () => update());
      const update = (): void => {
        const cycles = now();
        if (Math.floor(cycles / half) !== Math.floor(state.checked / half)) {
          state.status |= TIMER_CARRY;
        }
        state.checked = cycles;
        const level = (state.status & state.enable & ENABLE_BITS) !== 0;
        if (level !== line) {
          line = level;
          vm.setIrqLine(SCI, level);
        }
        if ((state.enable & TIMER_CARRY) === 0 || (state.status & TIMER_CARRY) !== 0) {
          timer.cancel();
        } else {
          timer.arm(oscillator.timeOf((Math.floor(cycles / half) + 1) * half));
        }
      };

      const sleep = (): void => {
        state.asleep = true;
        for (const vcpu of vm.vcpus) vcpu.mpState = MpState.SUSPENDED;
        wakeIfDue();
      };
      /** In S3, the enabled bits of PM1 status are what wakes. */
      let waking = false;
      const wakeIfDue = (): void => {
        if (!state.asleep || (state.status & state.enable & CLOCK_ALARM) === 0) return;
        waking = true;
        vm.resetKeepingMemory();
      };
      ctx.on(irqLineHook, (line, level) => {
        if (line !== CLOCK_LINE || !level) return;
        state.status |= CLOCK_ALARM;
        if (state.asleep) wakeIfDue();
        else update();
      });

      const register = (offset: number): number => {
        switch (offset & ~1) {
          case PmRegister.STATUS:
            update();
            return state.status;
          case PmRegister.ENABLE:
            return state.enable;
          case PmRegister.CONTROL:
            return state.control | SCI_ENABLE;
          case PmRegister.TIMER:
            return now() % modulus & 0xffff;
          case PmRegister.TIMER + 2:
            return Math.floor(now() % modulus / 0x1_0000);
          default:
            return 0;
        }
      };
      const write = (offset: number, value: number, mask: number): void => {
        switch (offset) {
          case PmRegister.STATUS:
            update();
            // Ones clear.
            state.status &= ~(value & mask & STATUS_BITS);
            break;
          case PmRegister.ENABLE:
            state.enable = (state.enable & ~mask | value & mask) & ENABLE_BITS;
            break;
          case PmRegister.CONTROL: {
            state.control = (state.control & ~mask | value & mask) & CONTROL_KEPT;
            const type = (state.control >> SLEEP_TYPE_SHIFT) & 7;
            if ((value & mask & SLEEP_ENABLE) === 0) break;
            if (type === SLEEP_TYPE_S5) vm.stop({ reason: "powered-off" });
            if (type === SLEEP_TYPE_S3) sleep();
            break;
          }
        }
        update();
      };

      const ports: Omit<IoRegion, "base"> = {
        name: "ACPI power management",
        length: PmRegister.PORTS,
        read(offset, size) {
          if (size === 1) return register(offset) >> (8 * (offset & 1));
          if (size === 2) return register(offset);
          // Both halves at one time.
          return offset === PmRegister.TIMER
            ? now() % modulus
            : register(offset) | register(offset + 2) << 16;
        },
        write(offset, size, value) {
          if (size === 1) {
            const shift = 8 * (offset & 1);
            write(offset & ~1, value << shift, 0xff << shift);
            return;
          }
          write(offset, value & 0xffff, 0xffff);
          if (size === 4) write(offset + 2, value >>> 16, 0xffff);
        },
      };
      let registered: { readonly base: number; readonly registration: Registration } | undefined;
      const moveTo = (base: number | undefined): void => {
        if (registered?.base === base) return;
        registered?.registration.remove();
        registered = undefined;
        if (base === undefined) return;
        try {
          registered = { base, registration: ctx.registerPio({ ...ports, base }) };
        } catch (error) {
          // Firmware has put them where something else answers, which is there first.
          if (!(error instanceof OverlapError)) throw error;
        }
      };
      if (base % POWER_FUNCTION_UNIT === 0) addPowerFunction(ctx, base, moveTo);
      else ctx.registerPio({ ...ports, base });
      const wakes = vm.hooks.point(wakeHook);
      ctx.on(resetHook, () => {
        // What woke the machine can be read behind it.
        state.status = waking ? (state.status & CLOCK_ALARM) | WAKE : 0;
        state.enable = state.control = 0;
        state.asleep = false;
        update();
      });
      ctx.on(resetHook, (vm) => {
        if (!waking) return;
        waking = false;
        wakes.call(vm);
      }, { stage: "post" });
      update();
    },
  };
}
