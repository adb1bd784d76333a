/**
 * What a multiboot loader tells the image (Multiboot Specification 0.6.96, section 3.3).
 *
 * @module
 */

import { type MemoryRange, type Vm, withoutHoles } from "../../core/mod.ts";
import { LoadPlan } from "../flat/mod.ts";

/** A module in guest memory. */
export interface LoadedModule {
  /** First guest physical address. */
  readonly start: number;
  /** First address behind it. */
  readonly end: number;
  /** Its text. */
  readonly text: string;
}

/** A range of guest physical memory, and what it is for. */
export interface MemoryMapEntry extends MemoryRange {
  /** 1 for RAM that the guest may use, 2 for what it may not. */
  readonly type: 1 | 2;
}

/** The memory as a multiboot image is told of it. */
export interface MemoryReport {
  /** KiB of RAM from address 0 on, at most 640. */
  readonly lower: number;
  /** KiB of RAM from 1 MiB on, up to the first hole. */
  readonly upper: number;
  /** Everything, by ascending address. */
  readonly map: readonly MemoryMapEntry[];
}

const AVAILABLE = 1;
const RESERVED = 2;

const MIB = 2 ** 20;
/** From 640 KiB to 1 MiB a PC has video memory and firmware. */
const LEGACY: MemoryRange = { gpa: 0xa_0000, size: 0x6_0000 };

/** Bits of the flags: which fields are valid. */
const HAS_MEMORY = 1 << 0;
const HAS_COMMAND_LINE = 1 << 2;
const HAS_MODULES = 1 << 3;
const HAS_MEMORY_MAP = 1 << 6;
const HAS_LOADER_NAME = 1 << 9;

/** Size of the structure, with the fields that stay 0. */
const STRUCTURE = 120;
const MODULE = 16;
/** With the size field, which does not count itself. */
const MAP_ENTRY = 24;

const LOADER_NAME = "trapline";

/** Describes the memory of `vm`. */
export function reportMemory(vm: Vm): MemoryReport {
  const ram = LoadPlan.ram(vm);
  const kib = (start: number, limit: number): number => {
    const range = ram.find(({ gpa, size }) => gpa <= start && start < gpa + size);
    return range === undefined
      ? 0
      : Math.floor((Math.min(range.gpa + range.size, limit) - start) / 1024);
  };
  const map: MemoryMapEntry[] = [
    ...withoutHoles(ram, [LEGACY]).map((range) => ({ ...range, type: AVAILABLE } as const)),
    ...vm.memory.slots.filter((slot) => slot.readonly && !within(slot, LEGACY))
      .map(({ gpa, size }) => ({ gpa, size, type: RESERVED } as const)),
    { ...LEGACY, type: RESERVED },
  ];
  map.sort((a, b) => a.gpa - b.gpa);
  return { lower: kib(0, LEGACY.gpa), upper: kib(MIB, 2 ** 32), map };
}

function within(inner: MemoryRange, outer: MemoryRange): boolean {
  return inner.gpa >= outer.gpa && inner.gpa + inner.size <= outer.gpa + outer.size;
}

/**
 * Places the information where there is room, and returns its address.
 *
 * @throws {ImageError} If there is no room.
 */
export function placeInformation(
  vm: Vm,
  plan: LoadPlan,
  commandLine: string,
  modules: readonly LoadedModule[],
): number {
  const { lower, upper, map } = reportMemory(vm);
  const strings = [commandLine, LOADER_NAME, ...modules.map(({ text }) => text)]
    .map((text) => new TextEncoder().encode(`${text}\0`));
  const modulesAt = STRUCTURE;
  const mapAt = modulesAt + MODULE * modules.length;
  const stringsAt = mapAt + MAP_ENTRY * map.length;
  const bytes = new Uint8Array(strings.reduce((sum, { length }) => sum + length, stringsAt));
  const view = new DataView(bytes.buffer);
  const gpa = plan.placeFree("the multiboot information", bytes, 8);

  const addresses: number[] = [];
  let end = stringsAt;
  for (const text of strings) {
    bytes.set(text, end);
    addresses.push(gpa + end);
    end += text.length;
  }
  const [commandLineAt = 0, loaderNameAt = 0, ...textsAt] = addresses;
  const put = (offset: number, value: number) => view.setUint32(offset, value, true);
  put(0, HAS_MEMORY | HAS_COMMAND_LINE | HAS_MODULES | HAS_MEMORY_MAP | HAS_LOADER_NAME);
  put(4, lower);
  put(8, upper);
  put(16, commandLineAt);
  put(20, modules.length);
  put(24, gpa + modulesAt);
  put(44, MAP_ENTRY * map.length);
  put(48, gpa + mapAt);
  put(64, loaderNameAt);
  modules.forEach(({ start, end }, i) => {
    const at = modulesAt + MODULE * i;
    put(at, start);
    put(at + 4, end);
    put(at + 8, textsAt[i] as number);
  });
  map.forEach((entry, i) => {
    const at = mapAt + MAP_ENTRY * i;
    put(at, MAP_ENTRY - 4);
    view.setBigUint64(at + 4, BigInt(entry.gpa), true);
    view.setBigUint64(at + 12, BigInt(entry.size), true);
    put(at + 20, entry.type);
  });
  return gpa;
}
