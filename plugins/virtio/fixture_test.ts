// A driver of virtio devices, as the tests of this folder have it; no tests are here.

import { assert, assertEquals } from "@std/assert";
import { irqLineHook, type Plugin, type Vm } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { pci } from "../pci/mod.ts";

/** A descriptor as a test writes it. */
export interface Buffer {
  readonly gpa: number;
  readonly length: number;
  readonly write?: boolean;
}

const DESCRIPTORS = 0x1_0000;
const QUEUE_STRIDE = 0x4000;

/** Finds the device in a slot by its capabilities, and drives it. */
export class Driver {
  readonly vm: Vm;
  readonly #slot: number;
  /** Addresses by type of capability. */
  readonly places: Map<number, number> = new Map();
  /** Levels of interrupt lines, as they changed. */
  readonly edges: string[];
  #next: number[] = [];

  constructor(vm: Vm, slot: number, edges: string[]) {
    this.vm = vm;
    this.#slot = slot;
    this.edges = edges;
    const bar = this.config(0x10, 4) & ~15;
    for (let at = this.config(0x34, 1); at !== 0; at = this.config(at + 1, 1)) {
      if (this.config(at, 1) === 9) {
        this.places.set(this.config(at + 3, 1), (bar >>> 0) + this.config(at + 8, 4));
      }
    }
  }

  config(offset: number, size: number): number {
    this.vm.pio.write(0xcf8, 4, 0x8000_0000 + this.#slot * 0x800 + (offset & ~3));
    return this.vm.pio.read(0xcfc + (offset & 3), size);
  }

  #common(offset: number): number {
    const base = this.places.get(1);
    assert(base !== undefined);
    return base + offset;
  }

  get(offset: number, size: number): number {
    return this.vm.mmio.read(this.#common(offset), size);
  }

  set(offset: number, size: number, value: number): void {
    this.vm.mmio.write(this.#common(offset), size, value, 0);
  }

  isr(): number {
    return this.vm.mmio.read(this.places.get(3) ?? 0, 1);
  }

  deviceConfig(offset: number, size: number): number {
    return this.vm.mmio.read((this.places.get(4) ?? 0) + offset, size);
  }

  /** Goes through the initialization of section 3.1.1; returns the features offered, bits 31:0. */
  start(queueSize = 8): number {
    this.set(0x14, 1, 0);
    this.set(0x14, 1, 1);
    this.set(0x14, 1, 3);
    this.set(0, 4, 0);
    const offered = this.get(4, 4);
    this.set(8, 4, 0);
    this.set(0xc, 4, offered);
    this.set(8, 4, 1);
    this.set(0xc, 4, 1);
    this.set(0x14, 1, 0x0b);
    assertEquals(this.get(0x14, 1), 0x0b);
    const queues = this.get(0x12, 2);
    this.#next = new Array<number>(queues).fill(0);
    for (let queue = 0; queue < queues; queue++) {
      this.set(0x16, 2, queue);
      this.set(0x18, 2, queueSize);
      const base = this.queueBase(queue);
      this.vm.memory.fill(base, QUEUE_STRIDE, 0);
      for (const [i, part] of [0, 0x1000, 0x2000].entries()) {
        this.set(0x20 + 8 * i, 4, base + part);
        this.set(0x24 + 8 * i, 4, 0);
      }
      this.set(0x1c, 2, 1);
    }
    this.set(0x14, 1, 0x0f);
    return offered;
  }

  queueBase(queue: number): number {
    return DESCRIPTORS + QUEUE_STRIDE * queue;
  }

  /** Writes descriptor `index` at `table`. */
  describe(
    table: number,
    index: number,
    buffer: Buffer,
    next: number | undefined,
    flags = 0,
  ): void {
    const { memory } = this.vm;
    const at = table + 16 * index;
    memory.writeU32(at, buffer.gpa);
    memory.writeU32(at + 4, 0);
    memory.writeU32(at + 8, buffer.length);
    memory.writeU16(at + 12, flags | (next === undefined ? 0 : 1) | (buffer.write ? 2 : 0));
    memory.writeU16(at + 14, next ?? 0);
  }

  /** Makes a chain available, whose first descriptor is `head`. */
  offer(queue: number, head: number): void {
    const { memory } = this.vm;
    const ring = this.queueBase(queue) + 0x1000;
    const index = this.#next[queue] as number;
    memory.writeU16(ring + 4 + 2 * (index % 8), head);
    this.#next[queue] = index + 1;
    memory.writeU16(ring + 2, index + 1);
  }

  notify(queue: number): void {
    const base = this.places.get(2);
    assert(base !== undefined);
    this.vm.mmio.write(base + 4 * queue, 2, queue, 0);
  }

  /** Sends buffers as one chain from descriptor 0 on; returns the entry of the used ring. */
  send(queue: number, buffers: readonly Buffer[]): { id: number; length: number } {
    const table = this.queueBase(queue);
    buffers.forEach((buffer, i) =>
      this.describe(table, i, buffer, i + 1 < buffers.length ? i + 1 : undefined)
    );
    this.offer(queue, 0);
    this.notify(queue);
    return this.used(queue, (this.#next[queue] as number) - 1);
  }

  /** The index of the used ring. */
  usedIndex(queue: number): number {
    return this.vm.memory.readU16(this.queueBase(queue) + 0x2002);
  }

  used(queue: number, index: number): { id: number; length: number } {
    const at = this.queueBase(queue) + 0x2004 + 8 * (index % 8);
    return { id: this.vm.memory.readU32(at), length: this.vm.memory.readU32(at + 4) };
  }
}

/** A VM with a device, and a driver for it. */
export function drive(plugin: Plugin, slot: number): Driver & Disposable {
  const edges: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => void edges.push(`${line} ${level ? "up" : "down"}`));
    },
  };
  const machine = scriptedVm({ plugins: [watcher, pci(), plugin] });
  const driver = new Driver(machine.vm, slot, edges);
  return Object.assign(driver, { [Symbol.dispose]: () => machine[Symbol.dispose]() });
}
