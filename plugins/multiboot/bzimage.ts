/**
 * Linux kernels for x86 in the form of bzImage (Linux, `Documentation/arch/x86/boot.rst`, boot protocol
 * 2.06 and later).
 *
 * @module
 */

import { ArgumentError, type Image, type MemoryRange, type Vcpu, type Vm } from "../../core/mod.ts";
import {
  enterLong64,
  enterProtected32,
  hex,
  type ImageLoader,
  type ImageOptions,
  ImageReader,
  LoadPlan,
  placeIdentityTables,
  reportMemory,
} from "../flat/mod.ts";

/** Offsets of the fields of the setup header, in the file and in the boot parameters alike. */
const Header = {
  FIRST: 0x1f1,
  SETUP_SECTORS: 0x1f1,
  BOOT_FLAG: 0x1fe,
  /** The length of the header, from 202h on, is the operand of the jump at 200h. */
  JUMP: 0x201,
  MAGIC: 0x202,
  VERSION: 0x206,
  LOADER_TYPE: 0x210,
  LOAD_FLAGS: 0x211,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  COMMAND_LINE: 0x228,
  INITRD_ADDRESS_MAX: 0x22c,
  EXTENDED_LOAD_FLAGS: 0x236,
  COMMAND_LINE_SIZE: 0x238,
  PREFERRED_ADDRESS: 0x258,
  INIT_SIZE: 0x260,
} as const;

/** Offsets of further fields of the boot parameters, the "zero page". */
const Parameters = {
  ALTERNATIVE_MEMORY: 0x1e0,
  E820_ENTRIES: 0x1e8,
  E820_TABLE: 0x2d0,
  BYTES: 0x1000,
} as const;

const SECTOR = 512;
const PAGE = 4096;
const MIB = 2 ** 20;
const BOOT_FLAG = 0xaa55;
/** `HdrS`. */
const MAGIC = 0x5372_6448;
/** The first version with the length of the command line. */
const LEAST_VERSION = 0x0206;
/** The first version with a preferred address. */
const WITH_ADDRESS = 0x020a;
/** The first version with extended flags. */
const WITH_64_BITS = 0x020c;
/** Setup sectors of the oldest kernels, which say 0. */
const OLD_SETUP_SECTORS = 4;
/** Load flags: the kernel proper goes to 1 MiB and beyond. */
const LOADED_HIGH = 0x01;
/** Extended flags: the 64-bit entry point, 200h behind the 32-bit one, is there. */
const KERNEL_64 = 0x01;
const ENTRY_64 = 0x200;
/** A loader without a number of its own. */
const UNKNOWN_LOADER = 0xff;
const E820_MOST = 128;
const E820_ENTRY = 20;

/** Selectors of the protocol: __BOOT_CS and __BOOT_DS. */
const BOOT_CODE = 0x10;
const BOOT_DATA = 0x18;

/** How a kernel is entered. */
export interface BzImageOptions extends ImageOptions {
  /** Width of the entry point; 64 if the kernel has one, if not given. */
  readonly entry?: 32 | 64;
}

/** What the header says. */
interface Kernel {
  readonly setup: Uint8Array;
  readonly bytes: Uint8Array;
  readonly address: number;
  readonly size: number;
  readonly has64: boolean;
  readonly initrdMost: number;
  readonly commandLineMost: number;
}

/** Whether a file begins as bzImages do. */
export function isBzImage(bytes: Uint8Array): boolean {
  if (bytes.length < Header.VERSION + 2) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint16(Header.BOOT_FLAG, true) === BOOT_FLAG &&
    view.getUint32(Header.MAGIC, true) === MAGIC;
}

/** Linux kernels in the form of bzImage. */
export const bzImageLoader: ImageLoader = {
  name: "bzImage",
  requires: ["flat"],
  recognizes: isBzImage,
  load: bzImage,
};

/**
 * A Linux kernel, entered by the 64-bit or the 32-bit boot protocol: firmware and the kernel's own
 * real-mode code are passed over. The boot parameters hold the memory map, the command line, and one
 * module at most as the initial RAM disk, which is placed behind the kernel.
 *
 * @throws {ImageError} If the file is no bzImage, is broken or too old; and, when it is loaded, if it
 * or the RAM disk does not fit into memory. Nothing is written then.
 * @throws {ArgumentError} If the command line holds a NUL, is longer than the kernel takes, there are
 * several modules, or the kernel has no entry point of the width asked for.
 */
export function bzImage(bytes: Uint8Array, options: BzImageOptions = {}): Image {
  const reader = new ImageReader(options.name ?? "vmlinuz", bytes);
  const kernel = readKernel(reader);
  const { name } = reader;
  const { commandLine = "", modules = [], entry = kernel.has64 ? 64 : 32 } = options;
  const line = new TextEncoder().encode(commandLine);
  const wrong = (message: string): Error => new ArgumentError(`image "${name}": ${message}`);
  if (line.includes(0)) throw wrong("the command line holds a NUL, which ends it for the guest");
  if (line.length > kernel.commandLineMost) {
    throw wrong(`the command line has ${line.length} bytes, of at most ${kernel.commandLineMost}`);
  }
  if (modules.length > 1) throw wrong("a Linux kernel takes one initial RAM disk");
  if (entry === 64 && !kernel.has64) throw wrong("it has no 64-bit entry point");
  const [initrd] = modules;
  return {
    name,
    load(vm) {
      const plan = new LoadPlan(vm, name);
      const { address, size } = kernel;
      plan.place({ what: "the kernel", gpa: address, bytes: kernel.bytes, size });
      const ramdisk = placeRamdisk(plan, reader, kernel, initrd?.bytes);
      const lineAt = plan.placeFree("the command line", new Uint8Array([...line, 0]), 16);
      const parameters = bootParameters(vm, kernel, lineAt, ramdisk);
      const parametersAt = plan.placeFree("the boot parameters", parameters, PAGE);
      const table = descriptorTable(entry);
      const gdt = { gpa: plan.placeFree("the descriptor table", table, 16), size: table.length };
      const cr3 = entry === 64 ? placeIdentityTables(vm, plan) : 0;
      plan.write();
      const vcpu = vm.vcpus[0] as Vcpu;
      if (entry === 64) enterLong64(vcpu, address + ENTRY_64, gdt, cr3);
      else enterProtected32(vcpu, address, gdt);
      useBootSelectors(vcpu);
      vcpu.regs.rsi = BigInt(parametersAt);
    },
  };
}

function readKernel(reader: ImageReader): Kernel {
  if (!isBzImage(reader.bytes)) {
    throw reader.error("setup header", Header.MAGIC, 'no "HdrS" and 55h AAh before it');
  }
  const version = reader.u16(Header.VERSION, "version");
  const shown = `${version >> 8}.${(version & 0xff).toString().padStart(2, "0")}`;
  if (version < LEAST_VERSION) {
    throw reader.error("version", Header.VERSION, `boot protocol ${shown} is older than 2.06`);
  }
  if ((reader.u8(Header.LOAD_FLAGS, "loadflags") & LOADED_HIGH) === 0) {
    throw reader.error("loadflags", Header.LOAD_FLAGS, "bit 0: a zImage, which goes to 64 KiB");
  }
  const sectors = reader.u8(Header.SETUP_SECTORS, "setup_sects") || OLD_SETUP_SECTORS;
  const start = (1 + sectors) * SECTOR;
  if (start >= reader.size) {
    throw reader.error(
      "setup_sects",
      Header.SETUP_SECTORS,
      `${sectors} sectors go beyond the file's end, ${hex(reader.size)}`,
    );
  }
  const headerEnd = Header.MAGIC + reader.u8(Header.JUMP, "jump");
  const bytes = reader.bytes.subarray(start);
  const newer = version >= WITH_ADDRESS;
  const address = newer ? reader.size64(Header.PREFERRED_ADDRESS, "pref_address") : MIB;
  const initSize = newer ? reader.u32(Header.INIT_SIZE, "init_size") : 0;
  const flags = version >= WITH_64_BITS ? reader.u16(Header.EXTENDED_LOAD_FLAGS, "xloadflags") : 0;
  return {
    setup: reader.bytes.subarray(Header.FIRST, headerEnd),
    bytes,
    address,
    size: Math.max(initSize, bytes.length),
    has64: (flags & KERNEL_64) !== 0,
    initrdMost: reader.u32(Header.INITRD_ADDRESS_MAX, "initrd_addr_max"),
    commandLineMost: reader.u32(Header.COMMAND_LINE_SIZE, "cmdline_size"),
  };
}

/** Places the RAM disk behind the kernel. */
function placeRamdisk(
  plan: LoadPlan,
  reader: ImageReader,
  { address, size, initrdMost }: Kernel,
  bytes: Uint8Array | undefined,
): MemoryRange {
  if (bytes === undefined || bytes.length === 0) return { gpa: 0, size: 0 };
  const gpa = plan.placeFree("the initial RAM disk", bytes, PAGE, address + size);
  const end = gpa + bytes.length - 1;
  if (end <= initrdMost) return { gpa, size: bytes.length };
  throw reader.error(
    "initrd_addr_max",
    Header.INITRD_ADDRESS_MAX,
    `the initial RAM disk would end at ${hex(end)}, beyond ${hex(initrdMost)}`,
  );
}

function bootParameters(
  vm: Vm,
  { setup }: Kernel,
  commandLine: number,
  ramdisk: MemoryRange,
): Uint8Array {
  const bytes = new Uint8Array(Parameters.BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(setup, Header.FIRST);
  bytes[Header.LOADER_TYPE] = UNKNOWN_LOADER;
  view.setUint32(Header.COMMAND_LINE, commandLine, true);
  view.setUint32(Header.RAMDISK_IMAGE, ramdisk.gpa, true);
  view.setUint32(Header.RAMDISK_SIZE, ramdisk.size, true);
  const { upper, map } = reportMemory(vm);
  view.setUint32(Parameters.ALTERNATIVE_MEMORY, upper, true);
  const entries = map.slice(0, E820_MOST);
  bytes[Parameters.E820_ENTRIES] = entries.length;
  entries.forEach(({ gpa, size, type }, i) => {
    const at = Parameters.E820_TABLE + E820_ENTRY * i;
    view.setBigUint64(at, BigInt(gpa), true);
    view.setBigUint64(at + 8, BigInt(size), true);
    view.setUint32(at + 16, type, true);
  });
  return bytes;
}

/** Descriptors of flat segments, as in `enterProtected32` and `enterLong64`, at the protocol's selectors. */
function descriptorTable(bits: 32 | 64): Uint8Array {
  const bytes = new Uint8Array(BOOT_DATA + 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(BOOT_CODE, bits === 64 ? 0x00af_9b00_0000_ffffn : 0x00cf_9b00_0000_ffffn, true);
  view.setBigUint64(BOOT_DATA, 0x00cf_9300_0000_ffffn, true);
  return bytes;
}

function useBootSelectors(vcpu: Vcpu): void {
  const vendor = vcpu.vm.vendor.current;
  const state = vendor.getSystemState(vcpu);
  state.cs = { ...state.cs, selector: BOOT_CODE };
  for (const name of ["ds", "es", "ss", "fs", "gs"] as const) {
    state[name] = { ...state[name], selector: BOOT_DATA };
  }
  vendor.setSystemState(vcpu, state);
}
