/**
 * Test doubles for those who test plugins: host memory in one array, and a vendor whose guest is a
 * script in TypeScript. They execute no machine code.
 *
 * @example A device under test
 * ```ts
 * import type { Plugin } from "@trapline/trapline/core";
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 *
 * const seen: number[] = [];
 * const device: Plugin = {
 *   name: "device",
 *   version: "1.0.0",
 *   setup: (ctx) => {
 *     ctx.registerPio({
 *       name: "device",
 *       base: 0x80,
 *       length: 1,
 *       write: (_offset, _size, value) => void seen.push(value),
 *     });
 *   },
 * };
 * using machine = scriptedVm({
 *   plugins: [device],
 *   guest: function* () {
 *     yield 10; // ten instructions that do not exit
 *     yield (exit) => exit.setIo(0x80, 1, true, 0x42);
 *   },
 * });
 * machine.vm.runSync();
 * console.assert(seen[0] === 0x42);
 * ```
 *
 * @module
 */

export * from "./flat_memory.ts";
export * from "./scripted_vendor.ts";
export * from "./scripted_vm.ts";
