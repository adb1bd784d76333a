/**
 * Virtio devices on the PCI bus (Virtual I/O Device Version 1.2, sections 2 and 4.1): the modern
 * interface.
 *
 * @module
 */

import { type PluginContext, resetHook, TraplineError, type Vm } from "../../core/mod.ts";
import { addPciFunction, type PciCapability, type PciFunction } from "../pci/mod.ts";
import { Queue, type QueueSaved } from "./queue.ts";

/** What a device of some type is. */
export interface VirtioDevice {
  /** Name, for messages. */
  readonly name: string;
  /** Its type (section 5): 2 a block device, 3 a console. */
  readonly type: number;
  /** Class code for PCI, 24 bits. */
  readonly classCode: number;
  /** Features of its type, bits 31:0. */
  readonly features: number;
  /** The largest number of descriptors of each queue, powers of two. */
  readonly queues: readonly number[];
  /** The configuration of its type. */
  readonly config: Uint8Array;
  /** The driver says that there are buffers in a queue. */
  notified(queue: number, device: VirtioFunction): void;
}

/** Bits of the device status (2.1). */
export const VirtioStatus = {
  /** The driver has seen the device. */
  ACKNOWLEDGE: 0x01,
  /** It knows how to drive it. */
  DRIVER: 0x02,
  /** It is ready. */
  DRIVER_OK: 0x04,
  /** Features are agreed on. */
  FEATURES_OK: 0x08,
  /** The device has met something that it cannot go on from. */
  DEVICE_NEEDS_RESET: 0x40,
  /** The driver has given up. */
  FAILED: 0x80,
} as const;

const VENDOR = 0x1af4;
/** The first of the devices' numbers, to which their type is added. */
const FIRST_DEVICE = 0x1040;
const REVISION = 1;

/** Feature bits 63:32: VIRTIO_F_VERSION_1. */
const VERSION_1 = 0x01;
/** Feature bit 28: buffers may be tables of descriptors. */
const INDIRECT = 0x1000_0000;

/** What is where in the function's memory. */
const Layout = {
  BAR: 0,
  COMMON: 0x0000,
  COMMON_LENGTH: 0x38,
  ISR: 0x1000,
  CONFIG: 0x2000,
  NOTIFY: 0x3000,
  SIZE: 0x4000,
} as const;
/** Bytes from one queue's notification to the next one's. */
const NOTIFY_STEP = 4;

/** Types of the vendor's capabilities (4.1.4). */
const Capability = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4 } as const;
const VENDOR_CAPABILITY = 9;

/** Offsets of the common configuration (4.1.4.3). */
const Common = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  STATUS: 0x14,
  GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFFSET: 0x1e,
  QUEUE_ADDRESSES: 0x20,
} as const;
const NO_VECTOR = 0xffff;

/** Interrupt status: buffers came back, the configuration changed. */
const ISR_QUEUE = 0x01;
const ISR_CONFIG = 0x02;

/** The state of a device, as plain data. */
export type VirtioSaved = {
  /** Status, interrupt status, the three selections, and the driver's features in two halves. */
  readonly registers: readonly number[];
  /** The queues. */
  readonly queues: readonly QueueSaved[];
};

/** A virtio device in a VM. */
export class VirtioFunction {
  /** The VM. */
  readonly vm: Vm;
  /** Its queues. */
  readonly queues: readonly Queue[];
  readonly #device: VirtioDevice;
  #function: PciFunction | undefined;
  #status = 0;
  #isr = 0;
  #deviceSelect = 0;
  #driverSelect = 0;
  #driverFeatures: [low: number, high: number] = [0, 0];
  #queueSelect = 0;

  /** Made by {@linkcode addVirtioDevice}. */
  constructor(vm: Vm, device: VirtioDevice) {
    this.vm = vm;
    this.#device = device;
    this.queues = device.queues.map((most) => new Queue(vm.memory, most));
  }

  /** Connects it with its place on the bus. {@linkcode addVirtioDevice}'s own. */
  connect(pciFunction: PciFunction): void {
    this.#function = pciFunction;
    pciFunction.setInterrupt(this.#isr !== 0);
  }

  /** Whether the driver is ready and the device has not given up. */
  get ready(): boolean {
    const { DRIVER_OK, DEVICE_NEEDS_RESET } = VirtioStatus;
    return (this.#status & (DRIVER_OK | DEVICE_NEEDS_RESET)) === DRIVER_OK;
  }

  /** Features that the driver has accepted, bits 31:0. */
  get features(): number {
    return this.#driverFeatures[0];
  }

  /** Tells the driver that buffers came back in a queue, if it wants to know. */
  interrupt(queue: Queue): void {
    if (queue.wantsInterrupt) this.#raise(ISR_QUEUE);
  }

  #raise(bits: number): void {
    this.#isr |= bits;
    this.#function?.setInterrupt(true);
  }

  /** Reads the function's memory. */
  read(offset: number, size: number): number {
    if (offset >= Layout.NOTIFY) return 0;
    if (offset >= Layout.CONFIG) return this.#readConfig(offset - Layout.CONFIG, size);
    if (offset === Layout.ISR) {
      const value = this.#isr;
      this.#isr = 0;
      this.#function?.setInterrupt(false);
      return value;
    }
    return offset < Layout.COMMON_LENGTH ? this.#readCommon(offset) : 0;
  }

  #readConfig(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value << 8 | (this.#device.config[offset + i] ?? 0);
    }
    return value;
  }

  #readCommon(offset: number): number {
    const queue = this.queues[this.#queueSelect];
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        return this.#deviceSelect;
      case Common.DEVICE_FEATURE:
        return this.#offered(this.#deviceSelect);
      case Common.DRIVER_FEATURE_SELECT:
        return this.#driverSelect;
      case Common.DRIVER_FEATURE:
        return this.#driverFeatures[this.#driverSelect] ?? 0;
      case Common.CONFIG_VECTOR:
      case Common.QUEUE_VECTOR:
        return NO_VECTOR;
      case Common.NUM_QUEUES:
        return this.queues.length;
      case Common.STATUS:
        return this.#status;
      case Common.GENERATION:
        return 0;
      case Common.QUEUE_SELECT:
        return this.#queueSelect;
      case Common.QUEUE_SIZE:
        return queue?.size ?? 0;
      case Common.QUEUE_ENABLE:
        return queue?.enabled === true ? 1 : 0;
      case Common.QUEUE_NOTIFY_OFFSET:
        return this.#queueSelect;
      default:
        return queue?.addresses[(offset - Common.QUEUE_ADDRESSES) >> 2] ?? 0;
    }
  }

  #offered(half: number): number {
    if (half === 0) return (this.#device.features | INDIRECT) >>> 0;
    return half === 1 ? VERSION_1 : 0;
  }

  /** Writes the function's memory. */
  write(offset: number, _size: number, value: number): void {
    if (offset >= Layout.NOTIFY) {
      if (offset % NOTIFY_STEP === 0) this.#notify((offset - Layout.NOTIFY) / NOTIFY_STEP);
      return;
    }
    // The configurations here have no fields for the driver to write.
    if (offset < Layout.COMMON_LENGTH) this.#writeCommon(offset, value);
  }

  #writeCommon(offset: number, value: number): void {
    const queue = this.queues[this.#queueSelect];
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        this.#deviceSelect = value;
        return;
      case Common.DRIVER_FEATURE_SELECT:
        this.#driverSelect = value;
        return;
      case Common.DRIVER_FEATURE:
        if (this.#driverSelect < 2) this.#driverFeatures[this.#driverSelect] = value;
        return;
      case Common.STATUS:
        if (value === 0) this.reset();
        else this.#setStatus(value);
        return;
      case Common.QUEUE_SELECT:
        this.#queueSelect = value;
        return;
      case Common.QUEUE_SIZE:
        queue?.resize(value);
        return;
      case Common.QUEUE_ENABLE:
        if (queue !== undefined && value === 1) queue.enabled = true;
        return;
    }
    const half = (offset - Common.QUEUE_ADDRESSES) >> 2;
    if (half >= 0 && queue !== undefined) queue.addresses[half] = value;
  }

  /** The driver goes on by setting bits; features are agreed on if it took no others than were offered. */
  #setStatus(value: number): void {
    const [low, high] = this.#driverFeatures;
    const agreed = (low & ~this.#offered(0)) === 0 && high === VERSION_1;
    const refused = agreed ? 0 : VirtioStatus.FEATURES_OK;
    const before = this.ready;
    this.#status = value & ~refused | this.#status & VirtioStatus.DEVICE_NEEDS_RESET;
    // What was made available before has waited for this.
    if (!before) { for (const queue of this.queues.keys()) this.#notify(queue); }
  }

  #notify(queue: number): void {
    if (queue >= this.queues.length) return;
    this.attempt(() => this.#device.notified(queue, this));
  }

  /**
   * Does something with queues, if the driver is ready. Where queues or buffers make no sense the device
   * needs a reset, and says so.
   */
  attempt(action: () => void): void {
    if (!this.ready) return;
    try {
      action();
    } catch (error) {
      if (!(error instanceof TraplineError)) throw error;
      this.#status |= VirtioStatus.DEVICE_NEEDS_RESET;
      this.#raise(ISR_CONFIG);
    }
  }

  /** A reset, by the driver or with the machine. */
  reset(): void {
    this.#status = this.#isr = 0;
    this.#deviceSelect = this.#driverSelect = this.#queueSelect = 0;
    this.#driverFeatures = [0, 0];
    for (const queue of this.queues) queue.reset();
    this.#function?.setInterrupt(false);
  }

  /** The state. */
  save(): VirtioSaved {
    const selects = [this.#deviceSelect, this.#driverSelect, this.#queueSelect];
    return {
      registers: [this.#status, this.#isr, ...selects, ...this.#driverFeatures],
      queues: this.queues.map((queue) => queue.save()),
    };
  }

  /** Takes what {@linkcode VirtioFunction.save} returned. */
  load({ registers, queues }: VirtioSaved): void {
    const [status = 0, isr = 0, device = 0, driver = 0, queue = 0, low = 0, high = 0] = registers;
    this.#status = status;
    this.#isr = isr;
    this.#deviceSelect = device;
    this.#driverSelect = driver;
    this.#queueSelect = queue;
    this.#driverFeatures = [low, high];
    for (const [i, saved] of queues.entries()) this.queues[i]?.load(saved);
  }
}

function word(value: number): number[] {
  return [value & 0xff, value >> 8 & 0xff, value >> 16 & 0xff, value >>> 24];
}

function capability(type: number, offset: number, length: number, more: readonly number[] = []) {
  const size = 16 + more.length;
  const bytes = [size, type, Layout.BAR, 0, 0, 0, ...word(offset), ...word(length), ...more];
  return { id: VENDOR_CAPABILITY, bytes: Uint8Array.from(bytes) } satisfies PciCapability;
}

/**
 * Puts a virtio device on the PCI bus; it leaves with the plugin whose context is given.
 *
 * Throws `ArgumentError` if its place on the bus is taken.
 *
 * @param slot Its device number on the bus.
 */
export function addVirtioDevice(
  ctx: PluginContext,
  slot: number,
  device: VirtioDevice,
): VirtioFunction {
  const make = (): VirtioFunction => new VirtioFunction(ctx.vm, device);
  const made = ctx.vmState<VirtioFunction>({
    name: "virtio",
    version: 1,
    init: make,
    save: (state) => state.save(),
    load(saved) {
      const state = make();
      state.load(saved as VirtioSaved);
      return state;
    },
  }).current;
  const notifyLength = NOTIFY_STEP * device.queues.length;
  made.connect(addPciFunction(ctx, {
    name: device.name,
    device: slot,
    vendorId: VENDOR,
    deviceId: FIRST_DEVICE + device.type,
    revision: REVISION,
    classCode: device.classCode,
    subsystem: [VENDOR, device.type],
    interruptPin: 1,
    bars: [{
      index: Layout.BAR,
      kind: "memory",
      size: Layout.SIZE,
      read: (offset, size) => made.read(offset, size),
      write: (offset, size, value) => made.write(offset, size, value),
    }],
    capabilities: [
      capability(Capability.COMMON, Layout.COMMON, Layout.COMMON_LENGTH),
      capability(Capability.NOTIFY, Layout.NOTIFY, notifyLength, word(NOTIFY_STEP)),
      capability(Capability.ISR, Layout.ISR, 1),
      capability(Capability.DEVICE, Layout.CONFIG, device.config.length),
    ],
  }));
  ctx.on(resetHook, () => made.reset());
  return made;
}
