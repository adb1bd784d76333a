/**
 * The symbol table of an ELF file (System V ABI, chapter 4, "Sections" and "Symbol Table").
 *
 * @module
 */

import { ImageReader } from "../flat/mod.ts";
import { isElf, readElf } from "./elf.ts";

/** A name that an ELF file has for an address. */
export interface ElfSymbol {
  /** The name. */
  readonly name: string;
  /** Its address, as the program sees it. */
  readonly address: bigint;
  /** Bytes that it names; 0 if the file does not say. */
  readonly size: bigint;
}

/** Offsets of fields in the file's header, in section headers and in symbols. */
interface Layout {
  readonly wide: boolean;
  readonly sectionTable: number;
  readonly sectionEntry: number;
  readonly sectionCount: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  readonly symbolBytes: number;
  readonly value: number;
  readonly symbolSize: number;
  readonly info: number;
  readonly section: number;
}

const LAYOUT_32: Layout = {
  wide: false,
  sectionTable: 32,
  sectionEntry: 46,
  sectionCount: 48,
  offset: 16,
  size: 20,
  link: 24,
  symbolBytes: 16,
  value: 4,
  symbolSize: 8,
  info: 12,
  section: 14,
};

const LAYOUT_64: Layout = {
  wide: true,
  sectionTable: 40,
  sectionEntry: 58,
  sectionCount: 60,
  offset: 24,
  size: 32,
  link: 40,
  symbolBytes: 24,
  value: 8,
  symbolSize: 16,
  info: 4,
  section: 6,
};

const SHT_SYMTAB = 2;
/** STT_NOTYPE, STT_OBJECT, STT_FUNC: what names a place in memory. */
const NAMES_PLACES: ReadonlySet<number> = new Set([0, 1, 2]);
const SHN_UNDEF = 0;
/** Section numbers from here on stand for something else, such as SHN_ABS. */
const SHN_LORESERVE = 0xff00;

/**
 * The symbols of an ELF executable that name code or data. Where a segment is loaded at another address
 * than the program sees it at, its symbols are there twice, for a kernel runs at physical addresses until
 * it has switched paging on.
 *
 * @param name For messages.
 * @returns The symbols in the file's order; none if the file is no ELF file or has been stripped.
 * @throws {ImageError} If it is an ELF file that cannot be loaded, or its symbol table is broken.
 */
export function elfSymbols(bytes: Uint8Array, name = "image"): ElfSymbol[] {
  if (!isElf(bytes)) return [];
  const reader = new ImageReader(name, bytes);
  const { bits, segments } = readElf(reader);
  const layout = bits === 64 ? LAYOUT_64 : LAYOUT_32;
  const found: ElfSymbol[] = [];
  for (const symbol of readSymbols(reader, layout)) {
    found.push(symbol);
    const { address } = symbol;
    const home = segments.find(({ virtual, size }) =>
      address >= virtual && address < virtual + BigInt(size)
    );
    if (home === undefined || home.virtual === BigInt(home.physical)) continue;
    found.push({ ...symbol, address: address - home.virtual + BigInt(home.physical) });
  }
  return found;
}

function* readSymbols(reader: ImageReader, layout: Layout): Generator<ElfSymbol> {
  const word = (offset: number, field: string): number =>
    layout.wide ? reader.size64(offset, field) : reader.u32(offset, field);
  const wide = (offset: number, field: string): bigint =>
    layout.wide ? reader.u64(offset, field) : BigInt(reader.u32(offset, field));
  const table = word(layout.sectionTable, "e_shoff");
  if (table === 0) return;
  const entry = reader.u16(layout.sectionEntry, "e_shentsize");
  const count = reader.u16(layout.sectionCount, "e_shnum");
  const header = (index: number): number => table + index * entry;
  for (let index = 0; index < count; index++) {
    const at = header(index);
    const of = (field: string) => `${field} of section ${index}`;
    if (reader.u32(at + 4, of("sh_type")) !== SHT_SYMTAB) continue;
    const start = word(at + layout.offset, of("sh_offset"));
    const size = word(at + layout.size, of("sh_size"));
    if (start + size > reader.size) {
      throw reader.error(of("sh_size"), at + layout.size, "the symbols go beyond the file's end");
    }
    const strings = header(reader.u32(at + layout.link, of("sh_link")));
    const names = word(strings + layout.offset, "sh_offset of the symbols' names");
    const namesEnd = names + word(strings + layout.size, "sh_size of the symbols' names");
    if (namesEnd > reader.size) {
      throw reader.error("the symbols' names", names, "they go beyond the file's end");
    }
    for (let k = 0; (k + 1) * layout.symbolBytes <= size; k++) {
      const symbol = start + k * layout.symbolBytes;
      const what = `symbol ${k}`;
      const type = reader.u8(symbol + layout.info, what) & 15;
      const section = reader.u16(symbol + layout.section, what);
      if (!NAMES_PLACES.has(type) || section === SHN_UNDEF || section >= SHN_LORESERVE) continue;
      const nameAt = names + reader.u32(symbol, what);
      if (nameAt >= namesEnd) throw reader.error(what, symbol, "its name is not in the file");
      const name = textAt(reader.bytes, nameAt, namesEnd);
      if (name === "") continue;
      yield {
        name,
        address: wide(symbol + layout.value, what),
        size: wide(symbol + layout.symbolSize, what),
      };
    }
  }
}

const DECODER = new TextDecoder();

/** The text up to the next NUL. */
function textAt(bytes: Uint8Array, start: number, limit: number): string {
  const end = bytes.subarray(start, limit).indexOf(0);
  return DECODER.decode(bytes.subarray(start, end < 0 ? limit : start + end));
}
