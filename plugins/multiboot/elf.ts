/**
 * ELF executables (Tool Interface Standard, "Executable and Linking Format", version 1.2, and the
 * System V ABI for 64 bits), as far as a loader needs them.
 *
 * @module
 */

import { hex, type ImageReader } from "../flat/mod.ts";

const MAGIC = [0x7f, 0x45, 0x4c, 0x46] as const;

const CLASS_32 = 1;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const CURRENT = 1;
const ET_EXEC = 2;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_INTERP = 3;
const PT_NOTE = 4;
/** The number of program headers is elsewhere, because there are so many. */
const PN_XNUM = 0xffff;

const TYPES: readonly string[] = [
  "no executable",
  "a relocatable object: link it",
  "",
  "position-independent: link it at a fixed address",
  "a core dump",
];

/** A part of the file that is to be in memory. */
export interface ElfSegment {
  /** Its place in the table of program headers. */
  readonly index: number;
  /** Where in the file its program header is, in bytes. */
  readonly header: number;
  /** Its address to the program, 64 bits. */
  readonly virtual: bigint;
  /** Its physical address. */
  readonly physical: number;
  /** What the file has of it; the rest is zero. */
  readonly bytes: Uint8Array;
  /** Its size in memory in bytes. */
  readonly size: number;
}

/** What an ELF file says. */
export interface Elf {
  /** Width of the file's addresses. */
  readonly bits: 32 | 64;
  /** Address of the first instruction, as the program sees it. */
  readonly entry: bigint;
  /** Where in the file that is said, in bytes. */
  readonly entryField: number;
  /** The segments with a size in memory, by ascending physical address. */
  readonly segments: readonly ElfSegment[];
  /** The places of its notes in the file, in bytes. */
  readonly notes: readonly ElfNotes[];
}

/** A table of notes in a file, in bytes. */
export interface ElfNotes {
  /** Where it begins. */
  readonly offset: number;
  /** Its size. */
  readonly size: number;
}

/** Offsets of the fields that differ in place or width. */
interface Layout {
  readonly bits: 32 | 64;
  readonly machine: number;
  readonly phoff: number;
  readonly phentsize: number;
  readonly phnum: number;
  readonly headerSize: number;
  readonly offset: number;
  readonly vaddr: number;
  readonly paddr: number;
  readonly filesz: number;
  readonly memsz: number;
}

const LAYOUT_32: Layout = {
  bits: 32,
  machine: EM_386,
  phoff: 28,
  phentsize: 42,
  phnum: 44,
  headerSize: 32,
  offset: 4,
  vaddr: 8,
  paddr: 12,
  filesz: 16,
  memsz: 20,
};

const LAYOUT_64: Layout = {
  bits: 64,
  machine: EM_X86_64,
  phoff: 32,
  phentsize: 54,
  phnum: 56,
  headerSize: 56,
  offset: 8,
  vaddr: 16,
  paddr: 24,
  filesz: 32,
  memsz: 40,
};

const ENTRY = 24;

/** Whether a file begins as ELF files do. */
export function isElf(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, i) => bytes[i] === byte);
}

/**
 * Reads an executable for the i386 or for x86-64.
 *
 * @throws {ImageError} If it is not one, leaves the file, or makes no sense.
 */
export function readElf(reader: ImageReader): Elf {
  if (!isElf(reader.bytes)) throw reader.error("ELF magic", 0, "it is not 7Fh 'E' 'L' 'F'");
  const layout = readIdentity(reader);
  const { bits } = layout;
  const word = (offset: number, field: string): number =>
    bits === 64 ? reader.size64(offset, field) : reader.u32(offset, field);
  const wide = (offset: number, field: string): bigint =>
    bits === 64 ? reader.u64(offset, field) : BigInt(reader.u32(offset, field));

  const entry = wide(ENTRY, "e_entry");
  const table = word(layout.phoff, "e_phoff");
  const headerSize = reader.u16(layout.phentsize, "e_phentsize");
  const count = reader.u16(layout.phnum, "e_phnum");
  if (count === 0) throw reader.error("e_phnum", layout.phnum, "there are no program headers");
  if (count === PN_XNUM) {
    throw reader.error("e_phnum", layout.phnum, "a table of 65535 or more is not supported");
  }
  if (headerSize !== layout.headerSize) {
    throw reader.error("e_phentsize", layout.phentsize, `${headerSize}, not ${layout.headerSize}`);
  }
  if (table + count * headerSize > reader.size) {
    throw reader.error(
      "e_phoff",
      layout.phoff,
      `${count} program headers at ${hex(table)} go beyond the file's end, ${hex(reader.size)}`,
    );
  }

  const segments: ElfSegment[] = [];
  const notes: ElfNotes[] = [];
  for (let index = 0; index < count; index++) {
    const header = table + index * headerSize;
    const type = reader.u32(header, "p_type");
    if (type === PT_INTERP) {
      throw reader.error(`p_type of segment ${index}`, header, "it asks for a dynamic linker");
    }
    if (type === PT_NOTE) {
      const offset = word(header + layout.offset, `p_offset of segment ${index}`);
      const size = word(header + layout.filesz, `p_filesz of segment ${index}`);
      // Notes are no part of the program: those that are not there tell nothing.
      if (offset + size <= reader.size) notes.push({ offset, size });
    }
    if (type !== PT_LOAD) continue;
    const segment = readSegment(reader, layout, index, header, word, wide);
    if (segment.size > 0) segments.push(segment);
  }
  if (segments.length === 0) {
    throw reader.error("e_phnum", layout.phnum, "no segment is to be loaded (PT_LOAD)");
  }
  segments.sort((a, b) => a.physical - b.physical);
  checkApart(reader, layout, segments);
  return { bits, entry, entryField: ENTRY, segments, notes };
}

function readIdentity(reader: ImageReader): Layout {
  const fileClass = reader.u8(4, "EI_CLASS");
  if (fileClass !== CLASS_32 && fileClass !== CLASS_64) {
    throw reader.error("EI_CLASS", 4, `${fileClass} is neither 1 (32 bits) nor 2 (64 bits)`);
  }
  const layout = fileClass === CLASS_64 ? LAYOUT_64 : LAYOUT_32;
  const check = (value: number, wanted: number, field: string, offset: number, what = ""): void => {
    if (value !== wanted) throw reader.error(field, offset, `${value}, not ${wanted}${what}`);
  };
  check(reader.u8(5, "EI_DATA"), LITTLE_ENDIAN, "EI_DATA", 5, " (little-endian)");
  check(reader.u8(6, "EI_VERSION"), CURRENT, "EI_VERSION", 6);
  const type = reader.u16(16, "e_type");
  const reason = TYPES[type];
  check(type, ET_EXEC, "e_type", 16, reason === undefined ? "" : `: the file is ${reason}`);
  const processor = fileClass === CLASS_64 ? " (x86-64)" : " (i386)";
  check(reader.u16(18, "e_machine"), layout.machine, "e_machine", 18, processor);
  check(reader.u32(20, "e_version"), CURRENT, "e_version", 20);
  return layout;
}

function readSegment(
  reader: ImageReader,
  layout: Layout,
  index: number,
  header: number,
  word: (offset: number, field: string) => number,
  wide: (offset: number, field: string) => bigint,
): ElfSegment {
  const at = (name: "offset" | "vaddr" | "paddr" | "filesz" | "memsz") =>
    [header + layout[name], `p_${name} of segment ${index}`] as const;
  const offset = word(...at("offset"));
  const virtual = wide(...at("vaddr"));
  const physical = word(...at("paddr"));
  const fileSize = word(...at("filesz"));
  const size = word(...at("memsz"));
  const refuse = (name: "paddr" | "filesz" | "memsz", message: string): Error => {
    const [field, what] = at(name);
    return reader.error(what, field, message);
  };
  if (fileSize > size) {
    throw refuse("filesz", `${hex(fileSize)} is more than its size in memory, ${hex(size)}`);
  }
  if (offset + fileSize > reader.size && fileSize > 0) {
    throw refuse(
      "filesz",
      `${hex(fileSize)} bytes at ${hex(offset)} go beyond the file's end, ${hex(reader.size)}`,
    );
  }
  if (physical + size > 2 ** (layout.bits === 64 ? 52 : 32)) {
    const width = layout.bits === 64 ? 52 : 32;
    throw refuse("paddr", `${hex(size)} bytes at ${hex(physical)} leave ${width} bits of address`);
  }
  const bytes = reader.bytes.subarray(offset, offset + fileSize);
  return { index, header, virtual, physical, bytes, size };
}

function checkApart(reader: ImageReader, layout: Layout, segments: readonly ElfSegment[]): void {
  for (let i = 1; i < segments.length; i++) {
    const [below, above] = [segments[i - 1] as ElfSegment, segments[i] as ElfSegment];
    if (below.physical + below.size <= above.physical) continue;
    throw reader.error(
      `p_paddr of segment ${above.index}`,
      above.header + layout.paddr,
      `${hex(above.physical)} lies in segment ${below.index}, which is at ${
        hex(below.physical)
      } to ` +
        hex(below.physical + below.size - 1),
    );
  }
}

/**
 * Physical address of the first instruction: the entry as an address of the program or, if it is in
 * no segment as such, as a physical address.
 *
 * @throws {ImageError} If it is in what the file has of no segment.
 */
export function physicalEntry(reader: ImageReader, elf: Elf): number {
  const { entry, segments } = elf;
  for (const { virtual, physical, bytes } of segments) {
    const offset = entry - virtual;
    if (offset >= 0n && offset < BigInt(bytes.length)) return physical + Number(offset);
  }
  for (const { physical, bytes } of segments) {
    const offset = entry - BigInt(physical);
    if (offset >= 0n && offset < BigInt(bytes.length)) return Number(entry);
  }
  const address = `${entry.toString(16).toUpperCase()}h`;
  throw reader.error("e_entry", elf.entryField, `${address} is not in a segment of the file`);
}
