/**
 * The interval timer of a PC: an 8254 at ports 40h to 43h, and port 61h.
 *
 * All six modes, binary and decimal counting, latches and the read-back command are there. Counter 0
 * drives interrupt line 0, which stays high between its ticks, as the 8259s ask for; counter 2 is the
 * speaker's, with GATE at bit 0 and OUT at bit 5 of port 61h, and bit 4 there toggles with the refresh
 * of memory. It counts 1193182 times a second of VM time.
 *
 * The counters do not count until they are programmed. PC firmware leaves counter 0 ticking 18.2 times
 * a second; ask for that with `ticking`. A guest that halts with interrupts on then never halts for
 * good.
 *
 * Limits: ticks that a guest was too slow for are not sent again; nothing makes a sound.
 *
 * @example
 * ```ts
 * import { pit } from "@trapline/trapline/pit";
 *
 * const plugin = pit({ ticking: true });
 * console.assert(plugin.name === "pit");
 * ```
 *
 * @module
 */

import { Oscillator, type Plugin, resetHook, type Timer } from "../../core/mod.ts";
import { Channel, type ChannelSaved, Control } from "./channel.ts";

/** Cycles of the clock input in a second. */
export const PIT_FREQUENCY = 1_193_182;

/** Options of {@linkcode pit}. */
export interface PitOptions {
  /** Whether counter 0 ticks 18.2 times a second from power-up on; `false` if not given. */
  readonly ticking?: boolean;
}

/** Counters. */
const TICK = 0;
const SPEAKER = 2;

const FIRST_PORT = 0x40;
const CONTROL_PORT = 3;
const PORT_B = 0x61;

/** Bits of port 61h. */
const PortB = { GATE: 0x01, WRITABLE: 0x0f, REFRESH: 0x10, OUT: 0x20 } as const;

/** The interrupt line of counter 0. */
const LINE = 0;

/** Control word of the read-back command, and what it latches; both are active low. */
const READ_BACK = 3;
const READ_BACK_NO_COUNT = 0x20;
const READ_BACK_NO_STATUS = 0x10;

/** What firmware programs counter 0 with: both bytes, mode 2. The count is 0, the largest. */
const FIRMWARE_CONTROL = 0x34;

/** Cycles from one refresh of memory to the next: what firmware programs counter 1 with. */
const REFRESH_CYCLES = 18;

/** The timer's state, as plain data. */
type PitSaved = { readonly channels: readonly ChannelSaved[]; readonly portB: number };

/** The three counters and port 61h. */
class Pit {
  readonly channels: readonly Channel[] = [true, true, false].map((gate) => new Channel(gate));
  portB = 0;

  save(): PitSaved {
    return { channels: this.channels.map((channel) => channel.save()), portB: this.portB };
  }

  load(saved: PitSaved): void {
    for (const [k, channel] of saved.channels.entries()) this.channels[k]?.load(channel);
    this.portB = saved.portB;
  }
}

/** The interval timer as a plugin. */
export function pit(options: PitOptions = {}): Plugin {
  const { ticking = false } = options;
  return {
    name: "pit",
    version: "1.0.0",
    description: "An 8254 interval timer at 40h, and port 61h",
    setup(ctx) {
      const { vm } = ctx;
      const oscillator = new Oscillator(PIT_FREQUENCY);
      const cycles = (): number => oscillator.cyclesAt(vm.clock.current.now());
      const powerUp = (): Pit => {
        const made = new Pit();
        if (ticking) {
          const channel = made.channels[TICK]!;
          channel.setControl(FIRMWARE_CONTROL);
          channel.write(0, cycles());
          channel.write(0, cycles());
        }
        return made;
      };
      const state = ctx.vmState<Pit>({
        name: "pit",
        version: 1,
        init: powerUp,
        save: (chip) => chip.save(),
        load(saved) {
          const chip = new Pit();
          chip.load(saved as PitSaved);
          return chip;
        },
      });
      const chip = state.current;
      const channel = (index: number): Channel => chip.channels[index]!;

      let line = false;
      /** Cycle of the next change of OUT. */
      let due = Infinity;
      const timer: Timer = ctx.createTimer("8254 counter 0", () => update());
      /** Drives the line to what OUT is, and comes back when it changes. */
      const update = (): void => {
        const now = cycles();
        const level = channel(TICK).output(now);
        // In mode 2 it is low for one cycle, and at an exit, or by a real clock, time goes on by more: that it
        // fell and rose again is an edge all the same.
        const changed = now >= due;
        if (changed && level === line) vm.setIrqLine(LINE, !level);
        if (changed || level !== line) {
          line = level;
          vm.setIrqLine(LINE, level);
        }
        due = channel(TICK).nextChange(now);
        if (due === Infinity) timer.cancel();
        else timer.arm(oscillator.timeOf(due));
      };

      const control = (word: number): void => {
        const now = cycles();
        const select = word >> Control.SELECT_SHIFT;
        if (select === READ_BACK) {
          for (const [k, each] of chip.channels.entries()) {
            if ((word & (2 << k)) === 0) continue;
            if ((word & READ_BACK_NO_COUNT) === 0) each.latchCount(now);
            if ((word & READ_BACK_NO_STATUS) === 0) each.latchStatus(now);
          }
          return;
        }
        const access = (word >> Control.ACCESS_SHIFT) & 3;
        if (access === 0) channel(select).latchCount(now);
        else channel(select).setControl(word);
      };

      ctx.registerPio({
        name: "8254",
        base: FIRST_PORT,
        length: 4,
        width: 1,
        // The control register cannot be read.
        read: (offset) => offset === CONTROL_PORT ? 0xff : channel(offset).read(cycles()),
        write(offset, _size, value) {
          if (offset === CONTROL_PORT) control(value);
          else channel(offset).write(value, cycles());
          update();
        },
      });
      ctx.registerPio({
        name: "port 61h",
        base: PORT_B,
        length: 1,
        width: 1,
        read() {
          const now = cycles();
          const refresh = (Math.floor(now / REFRESH_CYCLES) & 1) !== 0 ? PortB.REFRESH : 0;
          return chip.portB | refresh | (channel(SPEAKER).output(now) ? PortB.OUT : 0);
        },
        write(_offset, _size, value) {
          chip.portB = value & PortB.WRITABLE;
          channel(SPEAKER).setGate((value & PortB.GATE) !== 0, cycles());
        },
      });
      ctx.on(resetHook, () => {
        chip.load(powerUp().save());
        update();
      });
      update();
    },
  };
}
