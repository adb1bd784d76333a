/**
 * Multiboot 2 images (Multiboot2 Specification version 2.0).
 *
 * @module
 */

import { ArgumentError, type Image, type Vcpu, type Vm } from "../../core/mod.ts";
import {
  enterProtected32,
  hex,
  type ImageLoader,
  type ImageOptions,
  ImageReader,
  LoadPlan,
  type Piece,
  placeDescriptors,
  reportMemory,
} from "../flat/mod.ts";
import { physicalEntry, readElf } from "./elf.ts";

const MAGIC = 0xe852_50d6;
/** What EAX holds when a loader has handed over. */
const LOADER_MAGIC = 0x36d7_6289n;
/** The header begins in this much of the file, at a multiple of 8. */
const SEARCHED = 32_768;
const ALIGN = 8;
const HEADER = 16;
const TAG_HEADER = 8;
/** Architecture: 32-bit protected mode of the i386. */
const I386 = 0;

/** Tags of the header (section 3.1.3 on). */
const HeaderTag = {
  END: 0,
  INFORMATION_REQUEST: 1,
  ADDRESS: 2,
  ENTRY: 3,
  CONSOLE: 4,
  FRAMEBUFFER: 5,
  MODULE_ALIGNMENT: 6,
  EFI_BOOT_SERVICES: 7,
  EFI_I386_ENTRY: 8,
  EFI_AMD64_ENTRY: 9,
  RELOCATABLE: 10,
} as const;
/** The loader may ignore the tag. */
const OPTIONAL = 1;
/** Tags that say nothing to a loader that is not EFI, does not move images and has one kind of console. */
const IGNORED: ReadonlySet<number> = new Set([
  HeaderTag.CONSOLE,
  HeaderTag.MODULE_ALIGNMENT,
  HeaderTag.EFI_BOOT_SERVICES,
  HeaderTag.EFI_I386_ENTRY,
  HeaderTag.EFI_AMD64_ENTRY,
  HeaderTag.RELOCATABLE,
]);

/** Tags of the information (section 3.6). */
const InfoTag = { END: 0, COMMAND_LINE: 1, LOADER: 2, MODULE: 3, MEMORY: 4, MAP: 6 } as const;
const PROVIDED: ReadonlySet<number> = new Set(Object.values(InfoTag));
const MAP_ENTRY = 24;

const LOADER_NAME = "trapline";
const PAGE = 4096;
const MIB = 2 ** 20;

/** Where the header is: the first with a right checksum; -1 if there is none. */
function findHeader(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const last = Math.min(bytes.length, SEARCHED) - HEADER;
  for (let offset = 0; offset <= last; offset += ALIGN) {
    if (view.getUint32(offset, true) !== MAGIC) continue;
    let sum = 0;
    for (let i = 0; i < HEADER; i += 4) sum += view.getUint32(offset + i, true);
    if (sum % 2 ** 32 === 0) return offset;
  }
  return -1;
}

/** Multiboot 2 images. */
export const multiboot2Loader: ImageLoader = {
  name: "multiboot 2",
  requires: ["flat"],
  recognizes: (bytes) => findHeader(bytes) >= 0,
  load: multiboot2,
};

/** What the tags of a header say. */
interface Header {
  readonly offset: number;
  /** Fields of the address tag, and where they are. */
  readonly addresses: { readonly at: number; readonly fields: readonly number[] } | undefined;
  readonly entry: { readonly at: number; readonly address: number } | undefined;
}

/**
 * A multiboot 2 image: an ELF executable for the i386 or for x86-64, or a file of any format whose header
 * has the address and the entry tag.
 *
 * It is entered in 32-bit protected mode as a multiboot 1 image is, with 36D76289h in EAX and the address
 * of the information in EBX: command line, loader's name, modules, memory sizes and map. Modules follow
 * the image at pages.
 *
 * @throws {ImageError} If the file is no such image, is broken, or demands what is not there; and, when
 * it is loaded, if it or its modules do not fit into memory. Nothing is written then.
 * @throws {ArgumentError} If a text holds a NUL.
 */
export function multiboot2(bytes: Uint8Array, options: ImageOptions = {}): Image {
  const reader = new ImageReader(options.name ?? "kernel.elf", bytes);
  const { name } = reader;
  const header = readHeader(reader);
  const { pieces, entry } = readPieces(reader, header);
  const { commandLine = "", modules = [] } = options;
  for (const text of [commandLine, ...modules.map((module) => module.text ?? "")]) {
    if (text.includes("\0")) throw new ArgumentError(`image "${name}": a text holds a NUL`);
  }
  return {
    name,
    load(vm) {
      const plan = new LoadPlan(vm, name);
      let next = MIB;
      for (const piece of pieces) {
        plan.place(piece);
        next = Math.max(next, piece.gpa + piece.size);
      }
      const placed = modules.map(({ bytes, text = "" }, i) => {
        const start = plan.placeFree(`module ${i}`, bytes, PAGE, next);
        next = start + bytes.length;
        return { start, end: next, text };
      });
      const information = describe(vm, commandLine, placed);
      const gpa = plan.placeFree("the multiboot information", information, ALIGN);
      const gdt = placeDescriptors(plan, 32);
      plan.write();
      const vcpu = vm.vcpus[0] as Vcpu;
      enterProtected32(vcpu, entry, gdt);
      vcpu.regs.rax = LOADER_MAGIC;
      vcpu.regs.rbx = BigInt(gpa);
    },
  };
}

function readHeader(reader: ImageReader): Header {
  const offset = findHeader(reader.bytes);
  if (offset < 0) {
    throw reader.error(
      "multiboot 2 header",
      undefined,
      `no magic E85250D6h with a right checksum in the first ${SEARCHED} of ${reader.size} bytes`,
    );
  }
  const architecture = reader.u32(offset + 4, "architecture");
  if (architecture !== I386) {
    throw reader.error("architecture", offset + 4, `${architecture} is not 0, the i386`);
  }
  const end = offset + reader.u32(offset + 8, "header_length");
  let addresses: Header["addresses"];
  let entry: Header["entry"];
  for (let at = offset + HEADER; at < end;) {
    const type = reader.u16(at, "type of a tag");
    const optional = (reader.u16(at + 2, "flags of a tag") & OPTIONAL) !== 0;
    const size = reader.u32(at + 4, "size of a tag");
    if (size < TAG_HEADER) throw reader.error("size of a tag", at + 4, `${size} is less than 8`);
    const fields = Array.from(
      { length: (size - TAG_HEADER) >> 2 },
      (_, i) => reader.u32(at + TAG_HEADER + 4 * i, `field ${i} of tag ${type}`),
    );
    if (type === HeaderTag.END) return { offset, addresses, entry };
    if (type === HeaderTag.ADDRESS && fields.length >= 4) addresses = { at, fields };
    else if (type === HeaderTag.ENTRY && fields.length >= 1) {
      entry = { at, address: fields[0] as number };
    } else if (!optional && !IGNORED.has(type)) {
      const missing = type === HeaderTag.INFORMATION_REQUEST
        ? fields.find((wanted) => !PROVIDED.has(wanted))
        : -1;
      if (missing !== undefined) throw reader.error("header tag", at, demand(type, missing));
    }
    at += Math.ceil(size / ALIGN) * ALIGN;
  }
  throw reader.error("header_length", offset + 8, "the header has no end tag");
}

/** What a tag demands that cannot be had, in words. */
function demand(type: number, information: number): string {
  if (type === HeaderTag.FRAMEBUFFER) return "it demands a video mode";
  if (type === HeaderTag.INFORMATION_REQUEST) {
    return `it demands information of type ${information}`;
  }
  return `it demands what tag ${type} asks for`;
}

function readPieces(
  reader: ImageReader,
  { offset, addresses, entry }: Header,
): { pieces: readonly Piece[]; entry: number } {
  if (addresses === undefined) {
    const elf = readElf(reader);
    const pieces = elf.segments.map(({ index, header, physical, bytes, size }) => ({
      what: `segment ${index}`,
      offset: header,
      gpa: physical,
      bytes,
      size,
    }));
    const top = elf.segments.at(-1);
    if (top !== undefined && top.physical + top.size > 2 ** 32) {
      const beyond = `${hex(top.physical)}: code of 32 bits cannot reach it`;
      throw reader.error(`p_paddr of segment ${top.index}`, top.header, beyond);
    }
    return { pieces, entry: entry?.address ?? physicalEntry(reader, elf) };
  }
  const { at } = addresses;
  const [header = 0, load = 0, loadEnd = 0, bssEnd = 0] = addresses.fields;
  const wrong = (message: string): Error => reader.error("address tag", at, message);
  if (entry === undefined) throw wrong("there is no entry tag with it");
  // A load address of all ones is that of the file's beginning.
  const start = load === 0xffff_ffff ? 0 : offset - (header - load);
  const gpa = load === 0xffff_ffff ? header - offset : load;
  const length = loadEnd === 0 ? reader.size - start : loadEnd - gpa;
  const size = bssEnd === 0 ? length : bssEnd - gpa;
  if (start < 0 || gpa < 0) throw wrong("the image would begin before the file does");
  if (length <= 0 || start + length > reader.size) {
    throw wrong(`the image goes beyond the file's end, ${hex(reader.size)}`);
  }
  if (size < length) throw wrong(`bss_end_addr ${hex(bssEnd)} is before the data's end`);
  if (entry.address < gpa || entry.address >= gpa + length) {
    throw reader.error("entry tag", entry.at, `${hex(entry.address)} is not in the image`);
  }
  const bytes = reader.bytes.subarray(start, start + length);
  return { pieces: [{ what: "the image", offset: at, gpa, bytes, size }], entry: entry.address };
}

/** The information: a size, and tags at multiples of 8. */
function describe(
  vm: Vm,
  commandLine: string,
  modules: readonly { readonly start: number; readonly end: number; readonly text: string }[],
): Uint8Array {
  const { lower, upper, map } = reportMemory(vm);
  const bytes: number[] = [0, 0, 0, 0, 0, 0, 0, 0];
  const words = (...values: readonly number[]): number[] =>
    values.flatMap((value) => [0, 8, 16, 24].map((shift) => value >>> shift & 0xff));
  const wide = (value: number): number[] => words(value >>> 0, Math.floor(value / 2 ** 32));
  const text = (value: string): number[] => [...new TextEncoder().encode(`${value}\0`)];
  const tag = (type: number, content: readonly number[]): void => {
    bytes.push(...words(type, TAG_HEADER + content.length), ...content);
    while (bytes.length % ALIGN !== 0) bytes.push(0);
  };
  tag(InfoTag.COMMAND_LINE, text(commandLine));
  tag(InfoTag.LOADER, text(LOADER_NAME));
  for (const module of modules) {
    tag(InfoTag.MODULE, [...words(module.start, module.end), ...text(module.text)]);
  }
  tag(InfoTag.MEMORY, words(lower, upper));
  const entries = map.flatMap(({ gpa, size, type }) => [
    ...wide(gpa),
    ...wide(size),
    ...words(type, 0),
  ]);
  tag(InfoTag.MAP, [...words(MAP_ENTRY, 0), ...entries]);
  tag(InfoTag.END, []);
  bytes.splice(0, 4, ...words(bytes.length));
  return Uint8Array.from(bytes);
}
