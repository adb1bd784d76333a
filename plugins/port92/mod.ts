/**
 * System control port A of the PS/2 and every PC since: fast A20 and fast reset at port 92h.
 *
 * Bit 0 going from 0 to 1 asks for a reset; on a PC it pulses INIT, and firmware finds that it was for
 * a reset. Bit 1 is the A20 gate. The other bits read back.
 *
 * Limits: the gate masks nothing, as the processor has no A20M# pin. Software that turns A20 on finds it
 * on; {@linkcode a20Slot} has the level for who wants to show it.
 *
 * @example
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { port92 } from "@trapline/trapline/port92";
 *
 * using machine = scriptedVm({ plugins: [port92()] });
 * console.assert(machine.vm.pio.read(0x92, 1) === 2); // A20 is on
 * ```
 *
 * @module
 */

import { defineSlot, type Plugin, resetHook, type Slot } from "../../core/mod.ts";

/** The A20 gate. */
export interface A20Gate {
  /** Whether address bit 20 is let through. */
  enabled: boolean;
}

/** The gate, which the keyboard controller also drives. */
export const a20Slot: Slot<A20Gate> = defineSlot("a20");

const PORT = 0x92;
const FAST_RESET = 0x01;
const A20 = 0x02;

/** What the plugin keeps; the gate is on as firmware leaves it. */
interface State extends A20Gate {
  /** Bits other than A20. */
  bits: number;
}

/** System control port A as a plugin. */
export function port92(): Plugin {
  return {
    name: "port92",
    version: "1.0.0",
    description: "System control port A at 92h: A20 gate and fast reset",
    provides: [a20Slot],
    setup(ctx) {
      const state = ctx.vmState<State>({
        name: "port92",
        version: 1,
        init: () => ({ enabled: true, bits: 0 }),
        save: ({ enabled, bits }) => ({ enabled, bits }),
        load: (saved) => ({ ...saved as unknown as State }),
      }).current;
      ctx.provide(a20Slot, state);
      ctx.registerPio({
        name: "system control port A",
        base: PORT,
        length: 1,
        width: 1,
        read: () => state.bits | (state.enabled ? A20 : 0),
        write(_offset, _size, value) {
          const rises = (value & ~state.bits & FAST_RESET) !== 0;
          state.bits = value & ~A20;
          state.enabled = (value & A20) !== 0;
          if (rises) ctx.vm.stop({ reason: "reset" });
        },
      });
      ctx.on(resetHook, () => {
        state.bits = 0;
        state.enabled = true;
      });
    },
  };
}
