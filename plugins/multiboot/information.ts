/**
 * What a multiboot loader tells the image (Multiboot Specification 0.6.96, section 3.3).
 *
 * @module
 */

import type { Vm } from "../../core/mod.ts";
import { type LoadPlan, reportMemory } from "../flat/mod.ts";

/** A module in guest memory. */
export interface LoadedModule {
  /** First guest physical address. */
  readonly start: number;
  /** First address behind it. */
  readonly end: number;
  /** Its text. */
  readonly text: string;
}

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
