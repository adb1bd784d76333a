/**
 * A virtio block device (Virtual I/O Device Version 1.2, section 5.2).
 *
 * @module
 */

import { ArgumentError, type GuestMemory, type Plugin } from "../../core/mod.ts";
import { addVirtioDevice, type VirtioFunction } from "./device.ts";
import { type Chain, gather, QueueError, scatter, totalLength } from "./queue.ts";

/** Where a disk's contents are. Offsets and lengths are bytes, multiples of 512. */
export interface DiskImage {
  /** Size in bytes, a multiple of 512. */
  readonly size: number;
  /** Fills `target` with what is at `offset`. */
  read(offset: number, target: Uint8Array): void;
  /** Puts `source` at `offset`; without it the disk is read-only. */
  write?(offset: number, source: Uint8Array): void;
  /** Makes what was written last. */
  flush?(): void;
}

/** Options of {@linkcode virtioBlk}. */
export interface VirtioBlkOptions {
  /** Name of the plugin, for a VM with several; `"virtioblk"` if not given. */
  readonly name?: string;
  /** Device number on the PCI bus, 2 to 31; 4 if not given. */
  readonly slot?: number;
  /** What it tells as its serial number, of which the guest sees 20 bytes; empty if not given. */
  readonly serial?: string;
}

const TYPE = 2;
/** Mass storage, of another kind. */
const CLASS = 0x01_8000;
/** Bytes of a sector. */
export const SECTOR = 512;
/** Heads, sectors of a track, and cylinders of ATA's geometry. */
const HEADS = 16;
const TRACK = 63;
const LEAST_CYLINDERS = 2;
const MOST_CYLINDERS = 16_383;
const QUEUE_SIZE = 256;
const CONFIG_BYTES = 24;
const SERIAL_BYTES = 20;

/** Feature bits. */
const Feature = {
  SEGMENTS: 0x004,
  GEOMETRY: 0x010,
  READ_ONLY: 0x020,
  BLOCK_SIZE: 0x040,
  FLUSH: 0x200,
} as const;
/** Pieces of data in a request: what a queue has room for beside header and status. */
const MOST_SEGMENTS: number = QUEUE_SIZE - 2;

/** Types of requests. */
const Request = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8 } as const;
const HEADER = 16;
/** How a request came out. */
const Outcome = { OK: 0, IO_ERROR: 1, UNSUPPORTED: 2 } as const;

/** A disk in memory: writes stay in the array. */
export function memoryDisk(bytes: Uint8Array): DiskImage {
  return {
    size: bytes.length,
    read: (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
    write: (offset, source) => bytes.set(source, offset),
  };
}

/**
 * A virtio block device as a plugin.
 *
 * @throws {ArgumentError} If the disk is empty or not of whole sectors of 512 bytes.
 */
export function virtioBlk(disk: DiskImage, options: VirtioBlkOptions = {}): Plugin {
  const { name = "virtioblk", slot = 4, serial = "" } = options;
  if (!Number.isSafeInteger(disk.size) || disk.size <= 0 || disk.size % SECTOR !== 0) {
    throw new ArgumentError(`${name}: ${disk.size} bytes are not whole sectors of ${SECTOR}`);
  }
  return {
    name,
    version: "1.0.0",
    description: "A virtio block device on the PCI bus",
    requires: ["pci"],
    setup(ctx) {
      const { memory } = ctx.vm;
      addVirtioDevice(ctx, slot, {
        name,
        type: TYPE,
        classCode: CLASS,
        features: Feature.SEGMENTS | Feature.GEOMETRY | Feature.BLOCK_SIZE | Feature.FLUSH |
          (disk.write === undefined ? Feature.READ_ONLY : 0),
        queues: [QUEUE_SIZE],
        config: configuration(disk),
        notified: (_queue, device) => serve(memory, disk, serial, device),
      });
    },
  };
}

function configuration(disk: DiskImage): Uint8Array {
  const bytes = new Uint8Array(CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(disk.size / SECTOR), true);
  view.setUint32(12, MOST_SEGMENTS, true);
  // Code that addresses sectors by cylinder, head and sector wants some geometry, as all BIOSes guess it.
  const cylinders = Math.floor(disk.size / SECTOR / (HEADS * TRACK));
  view.setUint16(16, Math.min(Math.max(cylinders, LEAST_CYLINDERS), MOST_CYLINDERS), true);
  view.setUint8(18, HEADS);
  view.setUint8(19, TRACK);
  view.setUint32(20, SECTOR, true);
  return bytes;
}

function serve(memory: GuestMemory, disk: DiskImage, serial: string, device: VirtioFunction): void {
  const [queue] = device.queues;
  if (queue === undefined) return;
  let served = false;
  for (let chain = queue.take(); chain !== undefined; chain = queue.take()) {
    queue.give(chain, carryOut(memory, disk, serial, chain));
    served = true;
  }
  if (served) device.interrupt(queue);
}

/** Carries out a request; returns how many bytes were written to the guest. */
function carryOut(memory: GuestMemory, disk: DiskImage, serial: string, chain: Chain): number {
  const { readable, writable } = chain;
  const room = totalLength(writable) - 1;
  if (totalLength(readable) < HEADER || room < 0) {
    throw new QueueError("virtio block device: a request without header or status");
  }
  const sent = gather(memory, readable);
  const view = new DataView(sent.buffer);
  const type = view.getUint32(0, true);
  const sector = view.getUint32(12, true) * 2 ** 32 + view.getUint32(8, true);
  const offset = sector * SECTOR;
  const within = (length: number): boolean => length % SECTOR === 0 && offset + length <= disk.size;
  let outcome: number = Outcome.OK;
  let written = 0;
  switch (type) {
    case Request.IN:
      if (within(room)) {
        const bytes = new Uint8Array(room);
        disk.read(offset, bytes);
        written = scatter(memory, writable, bytes);
      } else {
        outcome = Outcome.IO_ERROR;
      }
      break;
    case Request.OUT: {
      const data = sent.subarray(HEADER);
      if (disk.write !== undefined && within(data.length)) disk.write(offset, data);
      else outcome = Outcome.IO_ERROR;
      break;
    }
    case Request.FLUSH:
      disk.flush?.();
      break;
    case Request.GET_ID: {
      const text = new Uint8Array(Math.min(SERIAL_BYTES, room));
      new TextEncoder().encodeInto(serial, text);
      written = scatter(memory, writable, text);
      break;
    }
    default:
      outcome = Outcome.UNSUPPORTED;
  }
  scatter(memory, writable, Uint8Array.of(outcome), room);
  return written + 1;
}
