/**
 * A function of a PCI device: its configuration space and what its base address registers map (PCI
 * Local Bus Specification 3.0, chapter 6).
 *
 * @module
 */

import {
  ArgumentError,
  defineHook,
  defineKeyedHook,
  type Hook,
  type IoRegion,
  type KeyedHook,
  OverlapError,
  type PluginContext,
  type Registration,
} from "../../core/mod.ts";

/** Offsets in configuration space, header type 0. */
export const PciRegister = {
  /** Vendor, 16 bits. */
  VENDOR: 0x00,
  /** Device, 16 bits. */
  DEVICE: 0x02,
  /** Command, 16 bits. */
  COMMAND: 0x04,
  /** Status, 16 bits. */
  STATUS: 0x06,
  /** Revision, 8 bits, and class code, 24 bits above it. */
  REVISION: 0x08,
  /** Header type: bit 7 for several functions. */
  HEADER_TYPE: 0x0e,
  /** Six base address registers of 32 bits. */
  BAR0: 0x10,
  /** Subsystem vendor and subsystem, 16 bits each. */
  SUBSYSTEM: 0x2c,
  /** First capability. */
  CAPABILITIES: 0x34,
  /** Interrupt line, which software notes here. */
  INTERRUPT_LINE: 0x3c,
  /** Interrupt pin: 0 none, 1 to 4 for INTA# to INTD#. */
  INTERRUPT_PIN: 0x3d,
} as const;

/** Bits of the command register. */
export const PciCommand = {
  /** Answers at its I/O ports. */
  IO: 0x0001,
  /** Answers at its memory. */
  MEMORY: 0x0002,
  /** May reach memory itself. */
  MASTER: 0x0004,
  /** INTx is not asserted. */
  INTERRUPT_DISABLE: 0x0400,
} as const;

const COMMAND_WRITABLE = 0x0547;
const STATUS_INTERRUPT = 0x0008;
const STATUS_CAPABILITIES = 0x0010;
const BAR_IO = 0x1;
const CONFIG_BYTES = 256;
const FIRST_CAPABILITY = 0x40;
const BARS = 6;

/** What a base address register maps. */
export interface PciBar {
  /** Its number, 0 to 5. */
  readonly index: number;
  /** Ports, or memory with an address of 32 bits. */
  readonly kind: "io" | "memory";
  /** Number of ports or bytes, a power of two: at least 4 ports, or 16 bytes. */
  readonly size: number;
  /** Widest access, as in `IoRegion`. */
  readonly width?: 1 | 2 | 4;
  /** As in `IoRegion`. */
  readonly read?: NonNullable<IoRegion["read"]>;
  /** As in `IoRegion`. */
  readonly write?: NonNullable<IoRegion["write"]>;
}

/** A capability in the list of a function. */
export interface PciCapability {
  /** Its identity, 8 bits. */
  readonly id: number;
  /** What follows the two bytes of the list, with its initial value. */
  readonly bytes: Uint8Array;
  /** Which bits of that software may write, as long as `bytes`; none if not given. */
  readonly writable?: Uint8Array;
}

/** What a function is. */
export interface PciFunctionOptions {
  /** Name, for messages. */
  readonly name: string;
  /** Device number on the bus, 0 to 31. */
  readonly device: number;
  /** Function number, 0 to 7; 0 if not given. */
  readonly function?: number;
  /** Vendor, 16 bits. */
  readonly vendorId: number;
  /** Device, 16 bits. */
  readonly deviceId: number;
  /** Revision, 8 bits; 0 if not given. */
  readonly revision?: number;
  /** Class, subclass and programming interface, 24 bits. */
  readonly classCode: number;
  /** Subsystem's vendor and number, 16 bits each; 0 if not given. */
  readonly subsystem?: readonly [vendor: number, device: number];
  /** Whether the device has further functions; `false` if not given. */
  readonly multifunction?: boolean;
  /** Interrupt pin, 0 (none, if not given) to 4. */
  readonly interruptPin?: number;
  /** Base address registers. */
  readonly bars?: readonly PciBar[];
  /** Capabilities, in the order of the list. */
  readonly capabilities?: readonly PciCapability[];
  /** Registers of the device's own: initial values and which bits software may write, by offset. */
  readonly registers?: readonly (readonly [offset: number, value: number, writable: number])[];
  /** Called after software has written configuration space, with the first and last byte. */
  readonly written?: (first: number, last: number) => void;
}

/**
 * What is on the bus, by device number (bits 7:3) and function (bits 2:0): whoever wants to be asked
 * registers with {@linkcode addPciFunction}.
 */
export const pciFunctionHook: KeyedHook<() => PciFunction | undefined, "first"> = defineKeyedHook({
  name: "pci-function",
  kind: "first",
  arity: 0,
  keys: 256,
});

/** The interrupt pin of some function changed its level, or a function with one has left. */
export const pciPinHook: Hook<() => void, "each"> = defineHook({
  name: "pci-pin",
  kind: "each",
  arity: 0,
});

/**
 * Puts a function on the bus; it leaves with the plugin whose context is given, which names the plugin
 * `pci` in its `requires`.
 *
 * @throws {ArgumentError} If its place is taken or an option is out of range.
 */
export function addPciFunction(ctx: PluginContext, options: PciFunctionOptions): PciFunction {
  const { hooks } = ctx.vm;
  const pins = hooks.point(pciPinHook);
  const made = new PciFunction(ctx, options, () => pins.call());
  const other = hooks.keyedPoint(pciFunctionHook).get(made.address)?.();
  if (other !== undefined) {
    throw new ArgumentError(
      `pci: "${options.name}" and "${other.options.name}" are both device ${options.device}, ` +
        `function ${options.function ?? 0}`,
    );
  }
  ctx.on(pciFunctionHook, made.address, () => made);
  ctx.onLeave(() => pins.call());
  return made;
}

/** A function that is on the bus. Made by {@linkcode addPciFunction}. */
export class PciFunction {
  /** What it is. */
  readonly options: PciFunctionOptions;
  readonly #ctx: PluginContext;
  readonly #pinChanged: () => void;
  readonly #config: Uint8Array;
  readonly #writable: Uint8Array = new Uint8Array(CONFIG_BYTES);
  readonly #initial: Uint8Array;
  /** What is mapped, by base address register, and where. */
  readonly #mapped: ({ base: number; registration: Registration } | undefined)[] = [];
  readonly #capabilityOffsets: number[] = [];
  #interrupt = false;
  #pin = false;

  /**
   * {@linkcode addPciFunction}'s own.
   *
   * @throws {ArgumentError} If an option is out of range.
   */
  constructor(ctx: PluginContext, options: PciFunctionOptions, pinChanged: () => void) {
    this.options = options;
    this.#ctx = ctx;
    this.#pinChanged = pinChanged;
    checkOptions(options);
    this.#initial = this.#describe();
    this.#config = ctx.vmState<Uint8Array>({
      name: `pci ${options.device}.${options.function ?? 0}`,
      version: 1,
      init: () => this.#initial.slice(),
      save: (bytes) => bytes.slice(),
      load: (saved) => (saved as Uint8Array).slice(),
    }).current;
    this.#map();
  }

  /** Function and device number: bits 2:0 and 7:3. */
  get address(): number {
    return this.options.device << 3 | (this.options.function ?? 0);
  }

  /** Whether its interrupt pin is asserted. */
  get pin(): boolean {
    return this.#pin;
  }

  /** Where the bytes of capability `index` lie, past the two of the list. */
  capabilityOffset(index: number): number {
    return this.#capabilityOffsets[index] as number;
  }

  /** Reads 1, 2 or 4 bytes of configuration space, which must not cross a doubleword. */
  read(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value << 8 | (this.#config[offset + i] as number);
    return value >>> 0;
  }

  /** Writes 1, 2 or 4 bytes of configuration space as software does. */
  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      const mask = this.#writable[offset + i] as number;
      const byte = value >>> (8 * i) & 0xff;
      this.#config[offset + i] = (this.#config[offset + i] as number) & ~mask | byte & mask;
    }
    this.#map();
    this.#updatePin();
    this.options.written?.(offset, offset + size - 1);
  }

  /** Sets bytes of configuration space whatever software may write. */
  set(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#config[offset + i] = value >>> (8 * i) & 0xff;
  }

  /** Asserts or deasserts the interrupt pin. */
  setInterrupt(asserted: boolean): void {
    this.#interrupt = asserted;
    this.#updatePin();
  }

  /** RESET. */
  reset(): void {
    this.#config.set(this.#initial);
    this.#interrupt = false;
    this.#map();
    this.#updatePin();
  }

  #describe(): Uint8Array {
    const bytes = new Uint8Array(CONFIG_BYTES);
    const { options } = this;
    const put = (offset: number, size: number, value: number, writable = 0): void => {
      for (let i = 0; i < size; i++) {
        bytes[offset + i] = value >>> (8 * i) & 0xff;
        this.#writable[offset + i] = writable >>> (8 * i) & 0xff;
      }
    };
    put(PciRegister.VENDOR, 2, options.vendorId);
    put(PciRegister.DEVICE, 2, options.deviceId);
    put(PciRegister.COMMAND, 2, 0, COMMAND_WRITABLE);
    put(PciRegister.REVISION, 4, options.classCode << 8 | (options.revision ?? 0));
    put(PciRegister.HEADER_TYPE, 1, options.multifunction === true ? 0x80 : 0);
    put(PciRegister.SUBSYSTEM, 2, options.subsystem?.[0] ?? 0);
    put(PciRegister.SUBSYSTEM + 2, 2, options.subsystem?.[1] ?? 0);
    put(PciRegister.INTERRUPT_LINE, 1, 0, 0xff);
    put(PciRegister.INTERRUPT_PIN, 1, options.interruptPin ?? 0);
    for (const { index, kind, size } of options.bars ?? []) {
      put(PciRegister.BAR0 + 4 * index, 4, kind === "io" ? BAR_IO : 0, -size);
    }
    for (const [offset, value, writable] of options.registers ?? []) {
      put(offset, 1, value, writable);
    }
    let next = FIRST_CAPABILITY;
    let link: number = PciRegister.CAPABILITIES;
    for (const { id, bytes: content, writable } of options.capabilities ?? []) {
      bytes[link] = next;
      bytes[next] = id;
      bytes.set(content, next + 2);
      if (writable !== undefined) this.#writable.set(writable, next + 2);
      this.#capabilityOffsets.push(next + 2);
      link = next + 1;
      next = (next + 2 + content.length + 3) & ~3;
      put(PciRegister.STATUS, 2, STATUS_CAPABILITIES);
    }
    if (next > CONFIG_BYTES) {
      throw new ArgumentError(`pci: "${options.name}": capabilities leave configuration space`);
    }
    return bytes;
  }

  /** Where a base address register says that its range is; `undefined` where it is nowhere. */
  #baseOf({ index, kind, size }: PciBar): number | undefined {
    const command = this.read(PciRegister.COMMAND, 2);
    const enabled = (command & (kind === "io" ? PciCommand.IO : PciCommand.MEMORY)) !== 0;
    const value = this.read(PciRegister.BAR0 + 4 * index, 4);
    const base = (value & -size) >>> 0;
    // All ones is what a write to find out the size leaves; 0 is a range that has no place yet.
    if (!enabled || base === 0 || base === -size >>> 0) return undefined;
    return kind === "io" && base + size > 0x1_0000 ? undefined : base;
  }

  #map(): void {
    for (const bar of this.options.bars ?? []) {
      const base = this.#baseOf(bar);
      const mapped = this.#mapped[bar.index];
      if (mapped?.base === base) continue;
      mapped?.registration.remove();
      this.#mapped[bar.index] = base === undefined ? undefined : this.#register(bar, base);
    }
  }

  #register(bar: PciBar, base: number): { base: number; registration: Registration } | undefined {
    const region: IoRegion = {
      name: `${this.options.name} BAR ${bar.index}`,
      base,
      length: bar.size,
      ...(bar.width === undefined ? {} : { width: bar.width }),
      ...(bar.read === undefined ? {} : { read: bar.read }),
      ...(bar.write === undefined ? {} : { write: bar.write }),
    };
    try {
      const registration = bar.kind === "io"
        ? this.#ctx.registerPio(region)
        : this.#ctx.registerMmio(region);
      return { base, registration };
    } catch (error) {
      // Software has put it where something else answers, which is there first.
      if (error instanceof OverlapError) return undefined;
      throw error;
    }
  }

  #updatePin(): void {
    const status = this.read(PciRegister.STATUS, 2) & ~STATUS_INTERRUPT;
    this.set(PciRegister.STATUS, 2, status | (this.#interrupt ? STATUS_INTERRUPT : 0));
    const masked = (this.read(PciRegister.COMMAND, 2) & PciCommand.INTERRUPT_DISABLE) !== 0;
    const pin = this.#interrupt && !masked;
    if (pin === this.#pin) return;
    this.#pin = pin;
    this.#pinChanged();
  }
}

function checkOptions(options: PciFunctionOptions): void {
  const { name, device, bars = [], interruptPin = 0 } = options;
  const wrong = (what: string): Error => new ArgumentError(`pci: "${name}": ${what}`);
  const inRange = (value: number, most: number): boolean =>
    Number.isInteger(value) && value >= 0 && value <= most;
  if (!inRange(device, 31)) throw wrong(`device ${device} is not an integer from 0 to 31`);
  if (!inRange(options.function ?? 0, 7)) throw wrong(`function ${options.function} is not 0 to 7`);
  if (!inRange(interruptPin, 4)) throw wrong(`interrupt pin ${interruptPin} is not 0 to 4`);
  for (const { index, kind, size } of bars) {
    const least = kind === "io" ? 4 : 16;
    if (!inRange(index, BARS - 1)) throw wrong(`base address register ${index} is not 0 to 5`);
    if (!inRange(size, 2 ** 31) || size < least || (size & (size - 1)) !== 0) {
      throw wrong(`size ${size} of base address register ${index} is not a power of two`);
    }
  }
}
