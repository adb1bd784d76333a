/**
 * A Linux kernel for firmware to start: fw_cfg's items for it, as QEMU's `-kernel` fills them
 * (`hw/i386/x86.c`). The option ROM `linuxboot.bin`, which comes with QEMU, copies what they hold to where
 * they say, and enters the kernel's real-mode code, as a boot loader does (Linux,
 * `Documentation/arch/x86/boot.rst`, "The real-mode kernel header").
 *
 * @module
 */

import { ArgumentError, type Vm } from "../../core/mod.ts";

/** A kernel, and what it is to be handed. */
export interface FwCfgKernel {
  /** The bzImage. */
  readonly image: Uint8Array;
  /** Its command line; empty if not given. */
  readonly commandLine?: string;
  /** Its initial RAM disk. */
  readonly initrd?: Uint8Array;
}

/** Items of a kernel, by their keys; numbers have 32 bits, the least significant byte first. */
export const KernelItem = {
  /** Where the protected-mode kernel goes. */
  KERNEL_ADDRESS: 0x07,
  /** Its bytes. */
  KERNEL_SIZE: 0x08,
  /** Where the initial RAM disk goes. */
  INITRD_ADDRESS: 0x0a,
  /** Its bytes. */
  INITRD_SIZE: 0x0b,
  /** The protected-mode kernel. */
  KERNEL_DATA: 0x11,
  /** The initial RAM disk. */
  INITRD_DATA: 0x12,
  /** Where the command line goes. */
  COMMAND_LINE_ADDRESS: 0x13,
  /** Its bytes, with the zero behind it. */
  COMMAND_LINE_SIZE: 0x14,
  /** The command line. */
  COMMAND_LINE_DATA: 0x15,
  /** Where the real-mode code goes. */
  SETUP_ADDRESS: 0x16,
  /** Its bytes. */
  SETUP_SIZE: 0x17,
  /** The real-mode code. */
  SETUP_DATA: 0x18,
} as const;

/** Offsets of fields of the setup header. */
const Header = {
  SETUP_SECTORS: 0x1f1,
  MAGIC: 0x202,
  VERSION: 0x206,
  LOADER_TYPE: 0x210,
  LOAD_FLAGS: 0x211,
  RAMDISK_IMAGE: 0x218,
  RAMDISK_SIZE: 0x21c,
  HEAP_END: 0x224,
  COMMAND_LINE: 0x228,
  INITRD_ADDRESS_MAX: 0x22c,
  BYTES: 0x230,
} as const;

const SECTOR = 512;
const PAGE = 4096;
const MIB = 2 ** 20;
const FOUR_GIB = 2 ** 32;
/** `HdrS`. */
const MAGIC = 0x5372_6448;
/** The first version with a command line by pointer, and with a heap. */
const LEAST_VERSION = 0x0202;
/** The first version that says how high the RAM disk may be. */
const WITH_INITRD_MAX = 0x0203;
/** How high it may be before that. */
const OLD_INITRD_MAX = 0x37ff_ffff;
const OLD_SETUP_SECTORS = 4;
const LOADED_HIGH = 0x01;
const CAN_USE_HEAP = 0x80;
/** The boot loader's number that QEMU has. */
const QEMU_LOADER = 0xb0;
/** Where the real-mode code goes, with its heap behind it up to the command line. */
const SETUP_AT = 0x1_0000;
const COMMAND_LINE_AT = 0x2_0000;
/** Bytes of its stack, in front of the command line. */
const STACK = 0x200;
/** Memory at the top that is left to the firmware, for its tables. */
const FIRMWARE_TOP: number = MIB / 4;

/**
 * Makes the items of a kernel, by key, for a machine.
 *
 * @throws {ArgumentError} If it is no bzImage of boot protocol 2.02 or later, or the command line holds a
 * NUL; the function that is returned, if the RAM disk does not fit into memory.
 */
export function kernelItems(kernel: FwCfgKernel): (vm: Vm) => ReadonlyMap<number, Uint8Array> {
  const { image, initrd = new Uint8Array() } = kernel;
  const line = new TextEncoder().encode(`${kernel.commandLine ?? ""}\0`);
  if (line.indexOf(0) !== line.length - 1) {
    throw new ArgumentError("fw_cfg: the command line holds a NUL, which ends it for the guest");
  }
  const header = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < Header.BYTES || header.getUint32(Header.MAGIC, true) !== MAGIC) {
    throw new ArgumentError("fw_cfg: the kernel is no bzImage");
  }
  const version = header.getUint16(Header.VERSION, true);
  if (version < LEAST_VERSION || (image[Header.LOAD_FLAGS]! & LOADED_HIGH) === 0) {
    throw new ArgumentError("fw_cfg: the kernel is no bzImage of boot protocol 2.02 or later");
  }
  const setupSize = (1 + (image[Header.SETUP_SECTORS]! || OLD_SETUP_SECTORS)) * SECTOR;
  const protectedKernel = image.subarray(setupSize);
  const initrdMost = version < WITH_INITRD_MAX
    ? OLD_INITRD_MAX
    : header.getUint32(Header.INITRD_ADDRESS_MAX, true);
  return (vm) => {
    const initrdAt = placeInitrd(vm, initrd.length, initrdMost, MIB + protectedKernel.length);
    const setup = image.slice(0, setupSize);
    const fields = new DataView(setup.buffer);
    setup[Header.LOADER_TYPE] = QEMU_LOADER;
    setup[Header.LOAD_FLAGS]! |= CAN_USE_HEAP;
    fields.setUint16(Header.HEAP_END, COMMAND_LINE_AT - SETUP_AT - STACK, true);
    fields.setUint32(Header.COMMAND_LINE, COMMAND_LINE_AT, true);
    fields.setUint32(Header.RAMDISK_IMAGE, initrdAt, true);
    fields.setUint32(Header.RAMDISK_SIZE, initrd.length, true);
    return new Map([
      [KernelItem.KERNEL_ADDRESS, number32(MIB)],
      [KernelItem.KERNEL_SIZE, number32(protectedKernel.length)],
      [KernelItem.KERNEL_DATA, protectedKernel],
      [KernelItem.INITRD_ADDRESS, number32(initrdAt)],
      [KernelItem.INITRD_SIZE, number32(initrd.length)],
      [KernelItem.INITRD_DATA, initrd],
      [KernelItem.COMMAND_LINE_ADDRESS, number32(COMMAND_LINE_AT)],
      [KernelItem.COMMAND_LINE_SIZE, number32(line.length)],
      [KernelItem.COMMAND_LINE_DATA, line],
      [KernelItem.SETUP_ADDRESS, number32(SETUP_AT)],
      [KernelItem.SETUP_SIZE, number32(setup.length)],
      [KernelItem.SETUP_DATA, setup],
    ]);
  };
}

/** Where a RAM disk goes: as high as it may, below the memory that firmware keeps. */
function placeInitrd(vm: Vm, size: number, most: number, least: number): number {
  if (size === 0) return 0;
  const ram = vm.memory.slots
    .filter(({ readonly, gpa, size }) => !readonly && gpa + size <= FOUR_GIB)
    .reduce((top, { gpa, size }) => Math.max(top, gpa + size), 0);
  const end = Math.min(most + 1, ram - FIRMWARE_TOP);
  const at = Math.floor((end - size) / PAGE) * PAGE;
  if (at >= least) return at;
  throw new ArgumentError(
    `fw_cfg: the initial RAM disk has ${size} bytes, too many for the memory`,
  );
}

function number32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
