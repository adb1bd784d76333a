/**
 * The interrupt controllers of a PC: two cascaded 8259As with their edge/level control registers.
 *
 * They take what devices drive with `vm.setIrqLine` on lines 0 to 15 and interrupt the first vCPU.
 * They are at ports 20h, 21h, A0h, A1h, 4D0h and 4D1h, and by themselves the provider of the core's
 * slot for the interrupt controller. Where a local APIC is that, load `pic({ wiring: "apic" })`: it
 * finds the pair in {@linkcode picSlot} and hears of its output from {@linkcode picOutputHook}, and
 * delivers it as an ExtINT.
 *
 * All of the chip is there that an x86 can use: priorities that are fixed or rotate, specific,
 * non-specific and automatic EOI, edge and level triggering, special mask mode, special fully nested
 * mode, polling, and the default IR7 for a request that went away. An input must stay high until it
 * is acknowledged, as the data sheet asks; pulsing a line is not enough.
 *
 * Since no firmware runs before an image that is loaded directly, the controllers start programmed as
 * PC firmware leaves them, and all lines masked.
 *
 * Limits: MCS-80/85 mode is not built; to acknowledge an interrupt in it stops the vCPU with an
 * `UnimplementedError`. Buffered mode has no effect.
 *
 * @example
 * ```ts
 * import { pic } from "@trapline/trapline/pic";
 *
 * const plugin = pic({ base: [0x20, 0x28], mask: 0xffff & ~(1 << 4 | 1 << 2) });
 * console.assert(plugin.name === "pic");
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  defineHook,
  defineSlot,
  eventRequest,
  type Hook,
  interruptControllerSlot,
  irqLineHook,
  type Plugin,
  resetHook,
  type Slot,
  vcpuCreatedHook,
} from "../../core/mod.ts";
import { PicPair, type PicPairSaved } from "./pair.ts";

/** The pair, for whoever takes its interrupts. */
export interface Pic {
  /** Level of the output, the INTR line. */
  readonly output: boolean;
  /**
   * Carries out the INTA cycles and returns the vector, 0 to 255. With nothing to deliver it is the
   * one of line 7 or 15: a spurious interrupt, which is not in service.
   *
   * Throws `UnimplementedError` in MCS-80/85 mode.
   */
  acknowledge(): number;
}

/** The pair of 8259s. */
export const picSlot: Slot<Pic> = defineSlot("pic");

/** The output of the pair of 8259s, the INTR line, changed its level. */
export const picOutputHook: Hook<(level: boolean) => void, "each"> = defineHook({
  name: "pic-output",
  kind: "each",
  arity: 1,
});

/** Options of {@linkcode pic}. */
export interface PicOptions {
  /**
   * What the output is connected to: `"cpu"`, the interrupt pin of the first vCPU (if not given), or
   * `"apic"`, whatever uses {@linkcode picSlot}.
   */
  readonly wiring?: "cpu" | "apic";
  /** Vectors of lines 0 and 8 at power-up; 08h and 70h if not given. Multiples of 8. */
  readonly base?: readonly [number, number];
  /** Lines that are masked at power-up, bit n for line n; all but the cascade, 2, if not given. */
  readonly mask?: number;
}

/** Every line but that of the slave. */
const DEFAULT_MASK = 0xfffb;

/**
 * The pair of 8259s as a plugin.
 *
 * @throws {ArgumentError} If an option is out of range.
 */
export function pic(options: PicOptions = {}): Plugin {
  const { wiring = "cpu", base = [0x08, 0x70], mask = DEFAULT_MASK } = options;
  for (const vector of base) {
    if (!Number.isInteger(vector) || vector < 0 || vector > 0xf8 || vector % 8 !== 0) {
      throw new ArgumentError(`pic: base ${vector} is not a multiple of 8 from 0 to 248`);
    }
  }
  if (!Number.isInteger(mask) || mask < 0 || mask > 0xffff) {
    throw new ArgumentError(`pic: mask ${mask} is not a number of 16 bits`);
  }
  const alone = wiring === "cpu";
  return {
    name: "pic",
    version: "1.0.0",
    description: "Two cascaded 8259A interrupt controllers at 20h and A0h",
    provides: alone ? [picSlot, interruptControllerSlot] : [picSlot],
    setup(ctx) {
      const { vm } = ctx;
      const point = vm.hooks.point(picOutputHook);
      const changed = (level: boolean): void => {
        if (alone && level) vm.vcpus[0]?.request(eventRequest);
        point.call(level);
      };
      const state = ctx.vmState<PicPair>({
        name: "pic",
        version: 1,
        init() {
          const pair = new PicPair(changed);
          pair.program(base, mask);
          return pair;
        },
        save: (pair) => pair.save(),
        load(saved) {
          const pair = new PicPair(changed);
          pair.load(saved as PicPairSaved);
          return pair;
        },
      });
      const pair = state.current;

      ctx.provide(picSlot, pair);
      if (alone) {
        ctx.provide(interruptControllerSlot, {
          hasInterrupt: (vcpu) => vcpu.index === 0 && pair.output,
          acknowledge: () => pair.acknowledge(),
        });
        ctx.on(vcpuCreatedHook, (vcpu) => {
          if (vcpu.index === 0 && pair.output) vcpu.request(eventRequest);
        });
      }
      ctx.on(irqLineHook, (line, level) => pair.setLine(line, level));
      ctx.on(resetHook, () => pair.program(base, mask));

      for (const [chip, port] of [[pair.master, 0x20], [pair.slave, 0xa0]] as const) {
        ctx.registerPio({
          name: `8259 ${port === 0x20 ? "master" : "slave"}`,
          base: port,
          length: 2,
          width: 1,
          read: (offset) => chip.read(offset),
          write: (offset, _size, value) => chip.write(offset, value),
        });
      }
      ctx.registerPio({
        name: "8259 edge/level control",
        base: 0x4d0,
        length: 2,
        width: 1,
        read: (offset) => pair.readElcr(offset),
        write: (offset, _size, value) => pair.writeElcr(offset, value),
      });
    },
  };
}
