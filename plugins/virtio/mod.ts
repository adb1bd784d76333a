/**
 * Virtio devices on the PCI bus: a block device and a console, by the modern interface (Virtual I/O
 * Device Version 1.2).
 *
 * Split virtqueues with indirect descriptors are there; requests are carried out as soon as the driver
 * tells of them, in no time. Where a driver's queue makes no sense the device asks for a reset
 * (DEVICE_NEEDS_RESET), as the specification has it. {@linkcode addVirtioDevice} is for devices of other
 * types.
 *
 * Limits: no legacy or transitional interface (drivers since Linux 4.0 need none), no packed queues, no
 * event indexes, interrupts by INTx only, and no access to the registers through configuration space.
 *
 * @example A disk in memory
 * ```ts
 * import { memoryDisk, virtioBlk } from "@trapline/trapline/virtio";
 *
 * const plugin = virtioBlk(memoryDisk(new Uint8Array(2 ** 20)), { serial: "scratch" });
 * console.assert(plugin.name === "virtioblk");
 * ```
 *
 * @module
 */

export { type DiskImage, memoryDisk, SECTOR, virtioBlk, type VirtioBlkOptions } from "./blk.ts";
export { ConsoleInput, virtioConsole, type VirtioConsoleOptions } from "./console.ts";
export {
  addVirtioDevice,
  type VirtioDevice,
  VirtioFunction,
  type VirtioSaved,
  VirtioStatus,
} from "./device.ts";
export {
  type Chain,
  gather,
  type Piece,
  Queue,
  QueueError,
  type QueueSaved,
  scatter,
  totalLength,
} from "./queue.ts";
