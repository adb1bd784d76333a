/**
 * Multiboot images, and plain executables handed over in the same way.
 *
 * @module
 */

import { ArgumentError, type Image, type Vcpu } from "../../core/mod.ts";
import {
  enterLong64,
  enterProtected32,
  hex,
  type ImageModule,
  type ImageOptions,
  ImageReader,
  LoadPlan,
  type Piece,
  placeDescriptors,
  placeIdentityTables,
} from "../flat/mod.ts";
import { type Elf, physicalEntry, readElf } from "./elf.ts";
import { readAddresses, readHeader } from "./header.ts";
import { type LoadedModule, placeInformation } from "./information.ts";

/** What EAX holds when a multiboot loader has handed over. */
const LOADER_MAGIC = 0x2bad_b002n;

/** As QEMU's is a path, so that a guest that looks for a program's name finds it has the form of one. */
const DEFAULT_NAME = "kernel.elf";

const PAGE = 4096;
const MIB = 2 ** 20;

/** What of a file goes where, and how it is entered. */
interface Parts {
  readonly bits: 32 | 64;
  readonly pieces: readonly Piece[];
  readonly entry: number;
}

/**
 * A multiboot 1 image (Multiboot Specification 0.6.96).
 *
 * The file is an ELF executable for the i386 or for x86-64, or of any format if its header has address
 * fields. It is entered in 32-bit protected mode in the state of the specification's section 3.2, as
 * QEMU's loader does it: EAX = 2BADB002h, EBX = address of the information, CS = 08h and the other
 * segment registers 10h, flat, from a descriptor table that is there; CR0 = 11h, CR4 and EFER 0,
 * interrupts off. The information holds memory sizes and map, the command line with the image's name in
 * front, the modules and the loader's name; with the descriptor table it lies from 64 KiB on, or where
 * the image leaves room, never in the first page. Modules follow the image from 1 MiB on, at pages.
 *
 * @throws {ImageError} If the file is not a multiboot image, is broken, or demands what is not there; and,
 * when it is loaded, if it or its modules do not fit into memory. Nothing is written then.
 * @throws {ArgumentError} If a text holds a NUL.
 */
export function multiboot(bytes: Uint8Array, options: ImageOptions = {}): Image {
  const reader = new ImageReader(options.name ?? DEFAULT_NAME, bytes);
  const header = readHeader(reader);
  if (header.hasAddresses) {
    const { piece, entry } = readAddresses(reader, header);
    return imageOf(reader.name, { bits: 32, pieces: [piece], entry }, options);
  }
  const elf = readElf(reader);
  const top = elf.segments.at(-1);
  if (top !== undefined && top.physical + top.size > 2 ** 32) {
    throw reader.error(
      `p_paddr of segment ${top.index}`,
      top.header,
      `${hex(top.physical)}: code of 32 bits cannot reach it`,
    );
  }
  const entry = physicalEntry(reader, elf);
  return imageOf(reader.name, { bits: 32, pieces: piecesOf(elf), entry }, options);
}

/**
 * An ELF executable without a multiboot header.
 *
 * One for the i386 is entered exactly as {@linkcode multiboot} does it. One for x86-64 is entered in
 * 64-bit mode with memory mapped one to one, the address of the same information in RBX and, as the
 * first argument of a C function, in RDI, and 2BADB002h in RAX; its segments must have the same virtual
 * and physical addresses.
 *
 * Throws as {@linkcode multiboot} does.
 */
export function elf(bytes: Uint8Array, options: ImageOptions = {}): Image {
  const reader = new ImageReader(options.name ?? DEFAULT_NAME, bytes);
  const file = readElf(reader);
  const entry = physicalEntry(reader, file);
  if (file.bits === 64) {
    for (const { index, header, virtual, physical } of file.segments) {
      if (virtual === BigInt(physical)) continue;
      throw reader.error(
        `p_vaddr of segment ${index}`,
        header + 16,
        `${virtual.toString(16).toUpperCase()}h is not its physical address, ${
          hex(physical)
        }, and ` +
          "without a multiboot header memory is mapped one to one",
      );
    }
  }
  return imageOf(reader.name, { bits: file.bits, pieces: piecesOf(file), entry }, options);
}

function piecesOf({ segments }: Elf): Piece[] {
  return segments.map(({ index, header, physical, bytes, size }) => ({
    what: `segment ${index}`,
    offset: header,
    gpa: physical,
    bytes,
    size,
  }));
}

function imageOf(name: string, parts: Parts, options: ImageOptions): Image {
  const { commandLine = "", modules = [] } = options;
  const line = `${programName(name)}${commandLine === "" ? "" : ` ${commandLine}`}`;
  checkText(name, "command line", line);
  modules.forEach(({ text = "" }, i) => checkText(name, `text of module ${i}`, text));
  const { bits, pieces, entry } = parts;
  const end = pieces.reduce((most, { gpa, size }) => Math.max(most, gpa + size), MIB);
  return {
    name,
    load(vm) {
      const plan = new LoadPlan(vm, name);
      for (const piece of pieces) plan.place(piece);
      const loaded = placeModules(plan, modules, end);
      const information = placeInformation(vm, plan, line, loaded);
      const gdt = placeDescriptors(plan, bits);
      const cr3 = bits === 64 ? placeIdentityTables(vm, plan) : 0;
      plan.write();
      const vcpu = vm.vcpus[0] as Vcpu;
      if (bits === 64) {
        enterLong64(vcpu, entry, gdt, cr3);
        vcpu.regs.rdi = BigInt(information);
      } else {
        enterProtected32(vcpu, entry, gdt);
      }
      vcpu.regs.rax = LOADER_MAGIC;
      vcpu.regs.rbx = BigInt(information);
    },
  };
}

/** The image's name as a word, for the front of the command line. */
function programName(name: string): string {
  return name.trim().replaceAll(/\s+/g, "_") || DEFAULT_NAME;
}

function checkText(name: string, what: string, text: string): void {
  if (!text.includes("\0")) return;
  throw new ArgumentError(`image "${name}": the ${what} holds a NUL, which ends it for the guest`);
}

/** Places the modules at pages, one behind the other, from `from` on. */
function placeModules(
  plan: LoadPlan,
  modules: readonly ImageModule[],
  from: number,
): LoadedModule[] {
  let next = from;
  return modules.map(({ bytes, text = "" }, i) => {
    const what = text === "" ? `module ${i}` : `module ${i} "${text}"`;
    const start = plan.placeFree(what, bytes, PAGE, next);
    const end = start + bytes.length;
    next = end;
    return { start, end, text };
  });
}
