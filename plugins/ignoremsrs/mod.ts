/**
 * MSRs that nobody has read as 0 and take any value, instead of raising #GP: what KVM's module parameter
 * `ignore_msrs` does. For guests that expect an MSR of some processor and cannot do without an answer.
 *
 * @example
 * ```ts
 * import { ignoreMsrs } from "@trapline/trapline/ignoremsrs";
 *
 * const plugin = ignoreMsrs({ log: (text) => console.error(text) });
 * console.assert(plugin.name === "ignore-msrs");
 * ```
 *
 * Limits: values written are lost. An MSR that is there and refuses a value refuses it still.
 *
 * @module
 */

import { type Plugin, unknownMsrHook } from "../../core/mod.ts";

/** Options of {@linkcode ignoreMsrs}. */
export interface IgnoreMsrsOptions {
  /** Hears of each MSR once for reads and once for writes, in one line without a line feed. */
  readonly log?: (text: string) => void;
}

/** The plugin. */
export function ignoreMsrs(options: IgnoreMsrsOptions = {}): Plugin {
  const { log = () => {} } = options;
  return {
    name: "ignore-msrs",
    version: "1.0.0",
    description: "Reads and writes of MSRs that do not exist, without #GP",
    setup(ctx) {
      const seen = { read: new Set<number>(), write: new Set<number>() };
      // A plugin that knows better has been asked before.
      ctx.on(unknownMsrHook, (access, vcpu) => {
        // The host asks what there is; that is no guest's mistake.
        if (access.host) return undefined;
        const { index, write, lo, hi } = access;
        const met = write ? seen.write : seen.read;
        if (!met.has(index)) {
          met.add(index);
          const value = `${digits(hi)}_${digits(lo)}h`;
          log(
            `vCPU ${vcpu.id}: there is no MSR ${index.toString(16)}h; ` +
              (write ? `${value}, written to it, is lost` : "it reads as 0"),
          );
        }
        access.lo = 0;
        access.hi = 0;
        return true;
      }, { stage: "post" });
    },
  };
}

function digits(half: number): string {
  return (half >>> 0).toString(16).padStart(8, "0");
}
