/**
 * Why did my VM die? Remembers what a VM did last and, when a run has ended, says why and shows the
 * state that it left: the exceptions that led to a triple fault and the gates that they could not go
 * through, registers with their bits by name, the code and the stack, the page walks entry by entry,
 * the last exits, and where it was seen most often.
 *
 * Works with every vendor. Where the VM's processors are those of the `cpu` plugin, the chain of
 * exceptions comes from them; without them that part stays empty. With the `symbols` plugin, addresses
 * have names.
 *
 * @example
 * ```ts ignore
 * import { createVm } from "@trapline/trapline/core";
 * import { examine, formatPostMortem, postMortem } from "@trapline/trapline/postmortem";
 *
 * using vm = await createVm({ memory: 64 * 2 ** 20, plugins: [...machine, postMortem()], images });
 * const result = await vm.run({ instructions: 1e9 });
 * if (result.reason !== "exit-code") console.error(formatPostMortem(examine(vm, result)));
 * ```
 *
 * {@linkcode retrace} adds the last instructions, which it finds by running the same machine again.
 *
 * Limits: gates are examined in the state in which the run ended, as far as faults of delivery can be
 * foreseen without one; hardware task switches are not. Instructions that the processor does not know
 * are shown as bytes.
 *
 * @module
 */

import {
  afterExitHook,
  ArgumentError,
  defineSlot,
  ExitReason,
  observeExitHook,
  type Plugin,
  type RunEnd,
  type Slot,
  type Vm,
} from "../../core/mod.ts";
import { processorsSlot } from "../cpu/mod.ts";
import { symbolsSlot } from "../symbols/mod.ts";
import { Recorder } from "./recorder.ts";
import { makeReport, type PostMortem } from "./report.ts";

export type { ReturnAddress } from "./calls.ts";
export type { ChainLink } from "./chain.ts";
export { formatPostMortem } from "./format.ts";
export type { Gate } from "./gates.ts";
export type { CpuMode } from "./guest_view.ts";
export type { ExitRecord, HotSpot } from "./recorder.ts";
export type { OtherVcpu } from "./others.ts";
export { type ExecutedInstruction, retrace } from "./retrace.ts";
export {
  type CodeBytes,
  type CodeLine,
  type NamedWalk,
  POST_MORTEM_VERSION,
  type PostMortem,
  type StackWords,
} from "./report.ts";

/** Options of {@linkcode postMortem}. */
export interface PostMortemOptions {
  /** How many of the last exits to remember, 1 to 65536; 16 if not given. */
  readonly exits?: number;
}

/** Makes reports on a VM. */
export interface PostMortemExaminer {
  /** The report on a run that ended in `end`. Never throws. */
  examine(end: RunEnd): PostMortem;
}

/** Who remembers what a VM did last. */
export const postMortemSlot: Slot<PostMortemExaminer> = defineSlot("postmortem");

/**
 * Remembers what a VM did last, for {@linkcode examine}.
 *
 * @throws {ArgumentError} If the number of exits is not an integer from 1 to 65536.
 */
export function postMortem(options: PostMortemOptions = {}): Plugin {
  const { exits = 16 } = options;
  if (!Number.isInteger(exits) || exits < 1 || exits > 65536) {
    throw new ArgumentError(`postmortem: exits ${exits} is not an integer from 1 to 65536`);
  }
  return {
    name: "postmortem",
    version: "1.0.0",
    description: "Says why a VM died",
    optional: ["cpu", processorsSlot, symbolsSlot],
    provides: [postMortemSlot],
    setup(ctx) {
      const recorder = new Recorder(exits);
      ctx.on(observeExitHook, (vcpu, exit) => recorder.exit(vcpu, exit));
      // A guest that never exits is seen when its slice of the run is over.
      ctx.on(afterExitHook, (vcpu, exit) => {
        if (exit.reason === ExitReason.BUDGET) recorder.sample(vcpu);
      });
      ctx.provide(postMortemSlot, { examine: (end) => makeReport(ctx.vm, end, recorder) });
    },
  };
}

/**
 * The report on a VM whose run ended in `end`. Never throws: what cannot be told is left out and named
 * in the report. Without the plugin there are no last exits and no samples.
 */
export function examine(vm: Vm, end: RunEnd): PostMortem {
  return vm.slots.filled(postMortemSlot)
    ? vm.slots.ref(postMortemSlot).current.examine(end)
    : makeReport(vm, end, undefined);
}
