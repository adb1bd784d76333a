// ELF files and memory for the tests of this folder; no tests are here.

import { assertEquals, assertThrows } from "@std/assert";
import type { Image, MemoryRange, Plugin } from "../../core/mod.ts";
import { type FlatMemory, scriptedVm } from "../../core/testing/mod.ts";
import { ImageError } from "../flat/mod.ts";

/** What a segment of a test's ELF file is. */
export interface SegmentFixture {
  /** Virtual address; the physical one if not given. */
  readonly virtual?: bigint;
  readonly physical: number;
  readonly bytes: Uint8Array;
  /** Size in memory; that of the bytes if not given. */
  readonly size?: number;
  /** PT_LOAD if not given. */
  readonly type?: number;
}

/** What a test's ELF file is. */
export interface ElfFixture {
  readonly bits?: 32 | 64;
  readonly entry?: bigint;
  readonly segments?: readonly SegmentFixture[];
}

/** Where the parts of a file are, in bytes. */
export const HEADER_32 = 52;
export const PROGRAM_HEADER_32 = 32;
export const HEADER_64 = 64;
export const PROGRAM_HEADER_64 = 56;

const MIB = 2 ** 20;

/** The words of a multiboot header with these flags, and address fields if there are any. */
export function multibootHeader(flags: number, addresses: readonly number[] = []): Uint8Array {
  const words = [0x1bad_b002, flags, -(0x1bad_b002 + flags) >>> 0, ...addresses];
  return new Uint8Array(new Uint32Array(words).buffer);
}

/** Some code behind a multiboot header. */
export function kernel(flags = 3): Uint8Array {
  const bytes = new Uint8Array(64).fill(0x90);
  bytes.set(multibootHeader(flags));
  return bytes;
}

/** An ELF executable; by default a multiboot kernel of one segment at 1 MiB. */
export function elfFile(fixture: ElfFixture = {}): Uint8Array {
  const { bits = 32, segments = [{ physical: MIB, bytes: kernel() }] } = fixture;
  const wide = bits === 64;
  const [headerSize, entrySize] = wide
    ? [HEADER_64, PROGRAM_HEADER_64]
    : [HEADER_32, PROGRAM_HEADER_32];
  const dataAt = Math.ceil((headerSize + entrySize * segments.length) / 16) * 16;
  const total = segments.reduce(
    (sum, { bytes }) => sum + Math.ceil(bytes.length / 16) * 16,
    dataAt,
  );
  const file = new Uint8Array(total);
  const view = new DataView(file.buffer);
  const u16 = (at: number, value: number) => view.setUint16(at, value, true);
  const u32 = (at: number, value: number) => view.setUint32(at, value, true);
  const word = (at: number, value: bigint) =>
    wide ? view.setBigUint64(at, value, true) : u32(at, Number(value));

  file.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1]);
  u16(16, 2);
  u16(18, wide ? 62 : 3);
  u32(20, 1);
  const first = segments[0];
  word(24, fixture.entry ?? (first?.virtual ?? BigInt(first?.physical ?? 0)) + 12n);
  word(wide ? 32 : 28, BigInt(headerSize));
  u16(wide ? 52 : 40, headerSize);
  u16(wide ? 54 : 42, entrySize);
  u16(wide ? 56 : 44, segments.length);
  let data = dataAt;
  segments.forEach(({ virtual, physical, bytes, size, type }, i) => {
    const at = headerSize + entrySize * i;
    const words = [BigInt(data), virtual ?? BigInt(physical), BigInt(physical)];
    words.push(BigInt(bytes.length), BigInt(size ?? bytes.length));
    u32(at, type ?? 1);
    words.forEach((value, j) => word(wide ? at + 8 + 8 * j : at + 4 + 4 * j, value));
    file.set(bytes, data);
    data += Math.ceil(bytes.length / 16) * 16;
  });
  return file;
}

/** A copy of a file with a little-endian number written into it. */
export function patch(file: Uint8Array, offset: number, size: number, value: number): Uint8Array {
  const copy = file.slice();
  for (let i = 0; i < size; i++) copy[offset + i] = Math.floor(value / 2 ** (8 * i)) & 0xff;
  return copy;
}

/** What a wrong image is to be refused with. */
export interface Refusal {
  readonly field: string;
  readonly offset: number | undefined;
  readonly message: string;
}

/** Checks that making an image fails as expected. */
export function assertRefused(make: () => unknown, refusal: Refusal, name: string): void {
  const error = assertThrows(make, ImageError, refusal.message);
  assertEquals([error.field, error.offset], [refusal.field, refusal.offset], name);
}

/** Checks that loading an image fails as expected, and that memory is as it was. */
export function assertLoadRefused(
  image: Image,
  memory: number | readonly MemoryRange[],
  refusal: Refusal,
  plugins: readonly Plugin[] = [],
): void {
  using machine = scriptedVm({ memory, plugins });
  const { vm } = machine;
  const { changes } = vm.hostMemory.current as FlatMemory;
  const before = changes.length;
  assertRefused(() => image.load(vm), refusal, refusal.message);
  assertEquals(changes.length, before, "memory was written");
}
