/**
 * As much of ELF32 as it takes to put a guest into a peer's memory.
 *
 * @module
 */

/** A part of an image that goes to memory. */
export interface Segment {
  /** Where it goes: a physical address. */
  readonly address: number;
  /** What goes there. Memory behind it is zero. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** An image's entry, segments and symbols. */
export interface Elf {
  /** Where 32-bit execution begins. */
  readonly entry: number;
  /** What goes to memory. */
  readonly segments: readonly Segment[];
  /** Addresses by name. */
  readonly symbols: ReadonlyMap<string, number>;
}

const PT_LOAD = 1;
const SHT_SYMTAB = 2;

/** Reads an image that is known to be one: those of `examples/guests` are checked where they are built. */
export function readElf(image: Uint8Array<ArrayBuffer>): Elf {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const u32 = (at: number) => view.getUint32(at, true);
  const u16 = (at: number) => view.getUint16(at, true);
  const segments: Segment[] = [];
  for (let i = 0, at = u32(28); i < u16(44); i++, at += 32) {
    const offset = u32(at + 4), size = u32(at + 16);
    if (u32(at) !== PT_LOAD || size === 0) continue;
    segments.push({ address: u32(at + 12), bytes: image.slice(offset, offset + size) });
  }
  const sections = u32(32);
  const text = (at: number) => new TextDecoder().decode(image.subarray(at, image.indexOf(0, at)));
  const symbols = new Map<string, number>();
  for (let i = 0; i < u16(48); i++) {
    const section = sections + 40 * i;
    if (u32(section + 4) !== SHT_SYMTAB) continue;
    const names = u32(sections + 40 * u32(section + 24) + 16);
    const first = u32(section + 16), end = first + u32(section + 20);
    for (let at = first; at < end; at += 16) symbols.set(text(names + u32(at)), u32(at + 4));
  }
  return { entry: u32(24), segments, symbols };
}

/** Where {@linkcode multibootInfo} goes. */
export const INFO_ADDRESS = 0x5000;

/** What EAX holds on entry (Multiboot Specification 0.6.96, 3.2). */
export const LOADER_MAGIC = 0x2badb002;

/** A multiboot information structure that holds a command line and nothing else. */
export function multibootInfo(commandLine: string): Uint8Array<ArrayBuffer> {
  const HAS_COMMAND_LINE = 4, SIZE = 64;
  const line = new TextEncoder().encode(commandLine);
  const bytes = new Uint8Array(SIZE + (line.length + 4 & ~3));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HAS_COMMAND_LINE, true);
  view.setUint32(16, INFO_ADDRESS + SIZE, true);
  bytes.set(line, SIZE);
  return bytes;
}
