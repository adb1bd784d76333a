/**
 * The header that makes a file a multiboot 1 image (Multiboot Specification 0.6.96, section 3.1).
 *
 * @module
 */

import { hex, type ImageReader, type Piece } from "../flat/mod.ts";

const MAGIC = 0x1bad_b002;

/** The header lies in this much of the file, all of it. */
const SEARCHED = 8192;
const ALIGN = 4;
const SIZE = 12;
/** With the address fields. */
const LONG_SIZE = 32;

/** Modules on page boundaries. */
const FLAG_PAGE_ALIGN = 1 << 0;
/** Memory sizes and the map. */
const FLAG_MEMORY = 1 << 1;
/** A video mode. */
const FLAG_VIDEO = 1 << 2;
/** Flags that a loader must know; the others it may ignore. */
const REQUIRED = 0xffff;
/** The address fields are there and count. */
const FLAG_ADDRESSES = 1 << 16;

/** A multiboot header. */
export interface MultibootHeader {
  /** Where in the file it is, in bytes. */
  readonly offset: number;
  /** Whether it says where the image goes, in place of what the file's own format says. */
  readonly hasAddresses: boolean;
}

/** Where a header is, and whether its checksum is right. */
export interface FoundHeader {
  /** Where in the file it is, in bytes. */
  readonly offset: number;
  /** Whether magic, flags and checksum add up to 0. */
  readonly sound: boolean;
}

/** The first header with a right checksum or, if there is none, the first magic. */
export function findHeader(bytes: Uint8Array): FoundHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const last = Math.min(bytes.length, SEARCHED) - SIZE;
  let broken: FoundHeader | undefined;
  for (let offset = 0; offset <= last; offset += ALIGN) {
    if (view.getUint32(offset, true) !== MAGIC) continue;
    const sum = MAGIC + view.getUint32(offset + 4, true) + view.getUint32(offset + 8, true);
    if (sum % 2 ** 32 === 0) return { offset, sound: true };
    broken ??= { offset, sound: false };
  }
  return broken;
}

/**
 * Reads the header.
 *
 * @throws {ImageError} If there is none, its checksum is wrong, or it demands what cannot be had.
 */
export function readHeader(reader: ImageReader): MultibootHeader {
  const found = findHeader(reader.bytes);
  if (found === undefined) {
    throw reader.error(
      "multiboot header",
      undefined,
      `no magic 1BADB002h at a multiple of 4 in the first ${SEARCHED} of ${reader.size} bytes`,
    );
  }
  const { offset, sound } = found;
  const flags = reader.u32(offset + 4, "multiboot flags");
  if (!sound) {
    throw reader.error(
      "multiboot checksum",
      offset + 8,
      `${hex(reader.u32(offset + 8, "multiboot checksum"))}, not ${hex(-(MAGIC + flags) >>> 0)}`,
    );
  }
  if ((flags & FLAG_VIDEO) !== 0) {
    throw reader.error("multiboot flags", offset + 4, "bit 2: it demands a video mode");
  }
  const unknown = flags & REQUIRED & ~(FLAG_PAGE_ALIGN | FLAG_MEMORY);
  if (unknown !== 0) {
    const bit = 31 - Math.clz32(unknown & -unknown);
    throw reader.error("multiboot flags", offset + 4, `bit ${bit}: it demands what is not defined`);
  }
  const hasAddresses = (flags & FLAG_ADDRESSES) !== 0;
  if (hasAddresses && offset + LONG_SIZE > SEARCHED) {
    throw reader.error(
      "multiboot header",
      offset,
      `its address fields go beyond the first ${SEARCHED} bytes`,
    );
  }
  return { offset, hasAddresses };
}

/** What the address fields say: the image is one piece. */
export interface AddressedImage {
  /** The whole image. */
  readonly piece: Piece;
  /** Physical address of the first instruction. */
  readonly entry: number;
}

/**
 * Reads the address fields of a header that has them (section 3.1.3).
 *
 * @throws {ImageError} If they contradict each other or leave the file.
 */
export function readAddresses(reader: ImageReader, header: MultibootHeader): AddressedImage {
  const at = (name: string, place: number): [value: number, offset: number] => {
    const offset = header.offset + place;
    return [reader.u32(offset, name), offset];
  };
  const [headerAddress, headerField] = at("header_addr", 12);
  const [loadAddress, loadField] = at("load_addr", 16);
  const [loadEnd, loadEndField] = at("load_end_addr", 20);
  const [bssEnd, bssEndField] = at("bss_end_addr", 24);
  const [entry, entryField] = at("entry_addr", 28);

  const start = header.offset - (headerAddress - loadAddress);
  if (loadAddress > headerAddress) {
    throw reader.error("load_addr", loadField, `${hex(loadAddress)} is above header_addr`);
  }
  if (start < 0) {
    throw reader.error(
      "header_addr",
      headerField,
      `${hex(headerAddress)}: the image would begin ${-start} bytes before the file does`,
    );
  }
  const length = loadEnd === 0 ? reader.size - start : loadEnd - loadAddress;
  if (length < header.offset + LONG_SIZE - start) {
    throw reader.error("load_end_addr", loadEndField, `${hex(loadEnd)} is before the header's end`);
  }
  if (start + length > reader.size) {
    throw reader.error(
      "load_end_addr",
      loadEndField,
      `${hex(loadEnd)}: ${hex(length)} bytes from ${hex(start)} on go beyond the file's end, ` +
        hex(reader.size),
    );
  }
  const size = bssEnd === 0 ? length : bssEnd - loadAddress;
  if (size < length) {
    throw reader.error("bss_end_addr", bssEndField, `${hex(bssEnd)} is before the data's end`);
  }
  if (loadAddress + size > 2 ** 32) {
    throw reader.error("load_addr", loadField, `${hex(loadAddress)}: the image leaves 4 GiB`);
  }
  if (entry < loadAddress || entry >= loadAddress + length) {
    throw reader.error("entry_addr", entryField, `${hex(entry)} is not in the image`);
  }
  const bytes = reader.bytes.subarray(start, start + length);
  return { piece: { what: "the image", offset: loadField, gpa: loadAddress, bytes, size }, entry };
}
