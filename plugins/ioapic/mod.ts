/**
 * The I/O APIC: takes the lines that devices drive and sends what its redirection table says to local
 * APICs.
 *
 * It is at FEC0_0000h with 24 pins for lines 0 to 23. The timer's line 0 is at pin 2, as on a PC, and
 * pin 0 is the output of the 8259s. Edge- and level-triggered entries are there with remote IRR and
 * EOI messages, all destination modes and message types of local APICs, and the EOI register from
 * version 20h on.
 *
 * Limits: a message that no local APIC accepts is not tried again until the line, the entry or an EOI
 * changes something; there is no interrupt remapping.
 *
 * @example
 * ```ts
 * import { ioapic } from "@trapline/trapline/ioapic";
 *
 * const second = ioapic({ name: "ioapic2", base: 0xfec0_1000, firstLine: 24 });
 * console.assert(second.name === "ioapic2");
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  defineSlot,
  irqLineHook,
  PAGE_SIZE,
  type Plugin,
  resetHook,
  type Slot,
} from "../../core/mod.ts";
import {
  eoiMessageHook,
  lapicSlot,
  levelVectorsChangedHook,
  levelVectorsHook,
} from "../lapic/mod.ts";
import { picOutputHook, picSlot } from "../pic/mod.ts";
import { IoApic, type IoApicSaved } from "./ioapic.ts";

export { IoApic, type IoApicSaved, Redirection } from "./ioapic.ts";

/** Options of {@linkcode ioapic}. */
export interface IoApicOptions {
  /** Name of the plugin, for a VM with several; `"ioapic"` if not given. */
  readonly name?: string;
  /** Where its registers are, a multiple of 4096; FEC0_0000h if not given. */
  readonly base?: number;
  /** The line at its first pin; 0 if not given. */
  readonly firstLine?: number;
  /** How many pins, 1 to 32; 24 if not given. */
  readonly pins?: number;
  /** Version, 11h (if not given) or 20h, which has an EOI register. */
  readonly version?: 0x11 | 0x20;
}

/** The redirection table, for those who look or deliver interrupts in its place. */
export const ioapicSlot: Slot<IoApic> = defineSlot("ioapic");

const DEFAULT_BASE = 0xfec0_0000;
/** Line of the timer, and the pin that it is at on a PC. */
const TIMER_LINE = 0;
const TIMER_PIN = 2;
/** Pin of the 8259s' output on a PC. */
const PIC_PIN = 0;

/**
 * An I/O APIC as a plugin. The one that has line 0 provides {@linkcode ioapicSlot}.
 *
 * @throws {ArgumentError} If an option is out of range.
 */
export function ioapic(options: IoApicOptions = {}): Plugin {
  const { name = "ioapic", base = DEFAULT_BASE, firstLine = 0, pins = 24, version = 0x11 } =
    options;
  if (!Number.isSafeInteger(base) || base < 0 || base % PAGE_SIZE !== 0) {
    throw new ArgumentError(`${name}: base ${base} is not a multiple of ${PAGE_SIZE}`);
  }
  if (!Number.isInteger(firstLine) || firstLine < 0) {
    throw new ArgumentError(`${name}: firstLine ${firstLine} is not a line`);
  }
  if (!Number.isInteger(pins) || pins < 1 || pins > 32) {
    throw new ArgumentError(`${name}: pins ${pins} is not an integer from 1 to 32`);
  }
  const first = firstLine === 0;
  return {
    name,
    version: "1.0.0",
    description: `An I/O APIC with ${pins} pins at ${base.toString(16).toUpperCase()}h`,
    requires: ["lapic", lapicSlot],
    optional: [picSlot],
    provides: first ? [ioapicSlot] : [],
    setup(ctx) {
      const bus = ctx.use(lapicSlot);
      const make = (): IoApic => new IoApic(version, pins, (message) => bus.current.send(message));
      const state = ctx.vmState<IoApic>({
        name: "ioapic",
        version: 1,
        init: make,
        save: (chip) => chip.save(),
        load(saved) {
          const chip = make();
          chip.load(saved as IoApicSaved);
          return chip;
        },
      });
      const chip = state.current;
      if (first) ctx.provide(ioapicSlot, chip);
      ctx.on(irqLineHook, (line, level) => {
        // Line 2 is the cascade of the 8259s, and no device's.
        const pin = line === TIMER_LINE ? TIMER_PIN - firstLine : line - firstLine;
        if (pin >= 0 && pin < pins && line !== TIMER_PIN) chip.setPin(pin, level);
      });
      if (first) ctx.on(picOutputHook, (level) => chip.setPin(PIC_PIN, level));
      ctx.on(eoiMessageHook, (_vcpu, vector) => chip.end(vector));
      const changed = ctx.vm.hooks.point(levelVectorsChangedHook);
      ctx.on(levelVectorsHook, (vcpu, vectors) => {
        const own = bus.current.of(vcpu);
        chip.levelVectors(vectors, (message) => bus.current.matches(own, message));
      });
      ctx.on(resetHook, () => {
        chip.reset();
        changed.call();
      });
      ctx.registerMmio({
        name: "I/O APIC",
        base,
        length: PAGE_SIZE,
        read: (offset) => chip.read(offset),
        write(offset, _size, value) {
          chip.write(offset, value);
          changed.call();
        },
      });
    },
  };
}
