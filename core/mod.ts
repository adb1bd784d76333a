/**
 * The core of Trapline: virtual machines, and the hooks and slots through which plugins make them.
 *
 * The core runs vCPUs and dispatches their exits. It knows no processor, no hypervisor and no device:
 * those are plugins. A plugin is a plain object ({@linkcode Plugin}) that registers handlers for hooks
 * ({@linkcode Hook}), provides and uses slots ({@linkcode Slot}), and declares its state. All hooks
 * that the core calls are `…Hook` constants of this module.
 *
 * @example A guest's debug-exit port as a plugin, and a VM that has it
 * ```ts ignore
 * import { createVm, type Plugin } from "@trapline/trapline/core";
 *
 * const debugExit: Plugin = {
 *   name: "debug-exit",
 *   version: "1.0.0",
 *   setup(ctx) {
 *     ctx.registerPio({
 *       name: "debug exit",
 *       base: 0xf4,
 *       length: 4,
 *       write: (_offset, _size, value) => ctx.vm.stop({ reason: "exit-code", code: value }),
 *     });
 *   },
 * };
 *
 * const vm = await createVm({ memory: 64 * 2 ** 20, plugins: [...machine, debugExit] });
 * const result = await vm.run();
 * console.log(result.reason);
 * ```
 *
 * Limits: guest physical memory of at most 2^52 bytes; 128 exit reasons and 64 kinds of request in a
 * process; one thread, on which vCPUs take turns. Snapshots and migration are not here: declared state
 * and {@linkcode Vendor.saveVcpu} are what they will be made of.
 *
 * @module
 */

export * from "./clock.ts";
export * from "./cpuid.ts";
export * from "./create.ts";
export { Claim, type IoRegion, type MmioRegion } from "./device.ts";
export * from "./errors.ts";
export { EventQueue, PendingException, Vector } from "./event.ts";
export * from "./exit.ts";
export * from "./hook.ts";
export * from "./hook_points.ts";
export type { HookEntry } from "./hook_order.ts";
export * from "./hooks.ts";
export * from "./host_memory.ts";
export * from "./image.ts";
export * from "./inhibit.ts";
export type { InjectedEvent } from "./inject.ts";
export * from "./interrupt.ts";
export * from "./memory.ts";
export * from "./memory_layout.ts";
export * from "./mmio.ts";
export * from "./msr.ts";
export * from "./oscillator.ts";
export * from "./pio.ts";
export * from "./plugin.ts";
export { Plugins } from "./plugins.ts";
export { Points } from "./points.ts";
export type { Range } from "./range_map.ts";
export * from "./registers.ts";
export * from "./registration.ts";
export * from "./request.ts";
export * from "./result.ts";
export { beginExit, endExit, handleExit } from "./run.ts";
export { Pace } from "./runner.ts";
export type { Saved } from "./saved.ts";
export * from "./scheduler.ts";
export * from "./second_level.ts";
export * from "./slot.ts";
export type { StateDefinition, VcpuState, VmState } from "./state.ts";
export * from "./system_state.ts";
export * from "./timer.ts";
export * from "./vcpu.ts";
export * from "./vendor.ts";
export * from "./vm.ts";
