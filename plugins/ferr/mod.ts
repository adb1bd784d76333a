/**
 * x87 exceptions as PCs report them: FERR# becomes IRQ 13, and a write to port F0h ends the interrupt and has
 * the processors go on past the exception (IGNNE#) until its handler has cleared it. Software that leaves
 * CR0.NE clear relies on it, as DOS programs do.
 *
 * Port F1h, by which an 80287 was reset, does the same as F0h, as chip sets of today have it.
 *
 * Limits: IGNNE# goes to all processors, as there is one line on the board. Guests of hypervisors get #MF
 * instead or stop with an error, as the pin is the host's.
 *
 * @example
 * ```ts
 * import { ferr } from "@trapline/trapline/ferr";
 *
 * console.assert(ferr().name === "ferr");
 * ```
 *
 * @module
 */

import { type Plugin, resetHook } from "../../core/mod.ts";
import { numericErrorHook, processorsSlot } from "../cpu/mod.ts";

const IRQ = 13;
const PORT = 0xf0;
/** F0h clears the request; F1h resets a coprocessor. */
const PORTS = 2;

/** FERR# and IGNNE# as a plugin. */
export function ferr(): Plugin {
  return {
    name: "ferr",
    version: "1.0.0",
    description: "x87 exceptions as IRQ 13, ended at port F0h",
    requires: ["cpu", processorsSlot],
    setup(ctx) {
      const { vm } = ctx;
      const processors = ctx.use(processorsSlot);
      const latch = ctx.vmState<{ asserted: boolean }>({
        name: "ferr",
        version: 1,
        init: () => ({ asserted: false }),
        save: ({ asserted }) => ({ asserted }),
        load: (saved) => ({ ...saved as { asserted: boolean } }),
      }).current;
      const drive = (level: boolean): void => {
        latch.asserted = level;
        vm.setIrqLine(IRQ, level);
      };
      ctx.on(numericErrorHook, () => {
        drive(true);
        return true;
      });
      ctx.registerPio({
        name: "coprocessor error",
        base: PORT,
        length: PORTS,
        width: 1,
        read: () => 0xff,
        write() {
          if (!latch.asserted) return;
          drive(false);
          const { count } = processors.current;
          for (let k = 0; k < count; k++) processors.current.get(k).ignoreNumericErrors();
        },
      });
      ctx.on(resetHook, () => drive(false));
    },
  };
}
