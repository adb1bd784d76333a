/**
 * ELF executables with an entry point for Xen's PVH mode, as Linux and others have it (Xen,
 * `docs/misc/pvh.pandoc` and `public/arch-x86/hvm/start_info.h`).
 *
 * @module
 */

import { ArgumentError, type Image, type Vcpu, type Vm } from "../../core/mod.ts";
import {
  enterProtected32,
  hex,
  ImageError,
  type ImageLoader,
  type ImageOptions,
  ImageReader,
  LoadPlan,
  placeDescriptors,
  reportMemory,
} from "../flat/mod.ts";
import { isElf, readElf } from "./elf.ts";

/** The note's owner, with the NUL that is counted, and its type: XEN_ELFNOTE_PHYS32_ENTRY. */
const OWNER = "Xen\0";
const PHYS32_ENTRY = 18;
const NOTE_HEADER = 12;

/** What the start information begins with. */
const MAGIC = 0x336e_c578;
/** The first version with a memory map. */
const VERSION = 1;
const START_INFO = 56;
const MODULE = 32;
const MAP_ENTRY = 24;
const PAGE = 4096;
const MIB = 2 ** 20;

/** The entry point that a note of the file names; `undefined` if none does. */
function noteEntry(reader: ImageReader): number | undefined {
  for (const { offset, size } of readElf(reader).notes) {
    const end = offset + size;
    for (let at = offset; at + NOTE_HEADER <= end;) {
      const nameSize = reader.u32(at, "n_namesz");
      const contentSize = reader.u32(at + 4, "n_descsz");
      const type = reader.u32(at + 8, "n_type");
      const name = at + NOTE_HEADER;
      const content = name + Math.ceil(nameSize / 4) * 4;
      at = content + Math.ceil(contentSize / 4) * 4;
      if (type !== PHYS32_ENTRY || at > end) continue;
      const owner = new TextDecoder().decode(reader.bytes.subarray(name, name + nameSize));
      if (owner === OWNER && contentSize >= 4) return reader.u32(content, "PHYS32_ENTRY");
    }
  }
  return undefined;
}

/** ELF executables with an entry point for PVH. */
export const pvhLoader: ImageLoader = {
  name: "PVH",
  requires: ["flat"],
  recognizes(bytes) {
    if (!isElf(bytes)) return false;
    try {
      return noteEntry(new ImageReader("", bytes)) !== undefined;
    } catch (error) {
      // What is wrong with an ELF file, the loader of those says.
      if (error instanceof ImageError) return false;
      throw error;
    }
  },
  load: pvh,
};

/**
 * An ELF executable of 32 or 64 bits with the note XEN_ELFNOTE_PHYS32_ENTRY.
 *
 * It is entered there in 32-bit protected mode without paging, with the address of the start
 * information in EBX: the memory map, the command line, and the modules, the first of which is Linux's
 * initial RAM disk. They follow the image at pages.
 *
 * @throws {ImageError} If the file is not such an executable, or broken; and, when it is loaded, if it
 * or its modules do not fit into memory. Nothing is written then.
 * @throws {ArgumentError} If a text holds a NUL.
 */
export function pvh(bytes: Uint8Array, options: ImageOptions = {}): Image {
  const reader = new ImageReader(options.name ?? "vmlinux", bytes);
  const { name } = reader;
  const { segments } = readElf(reader);
  const entry = noteEntry(reader);
  if (entry === undefined) {
    throw reader.error("notes", undefined, "none is XEN_ELFNOTE_PHYS32_ENTRY of Xen");
  }
  const within = segments.some(({ physical, size }) =>
    entry >= physical && entry < physical + size
  );
  if (!within) {
    throw reader.error("PHYS32_ENTRY", undefined, `${hex(entry)} is not in a segment of the file`);
  }
  const { commandLine = "", modules = [] } = options;
  for (const text of [commandLine, ...modules.map((module) => module.text ?? "")]) {
    if (text.includes("\0")) throw new ArgumentError(`image "${name}": a text holds a NUL`);
  }
  return {
    name,
    load(vm) {
      const plan = new LoadPlan(vm, name);
      let next = MIB;
      for (const { index, header, physical, bytes, size } of segments) {
        plan.place({ what: `segment ${index}`, offset: header, gpa: physical, bytes, size });
        next = Math.max(next, physical + size);
      }
      const placed = modules.map(({ bytes, text = "" }, i) => {
        const gpa = plan.placeFree(`module ${i}`, bytes, PAGE, next);
        next = gpa + bytes.length;
        return { gpa, size: bytes.length, text };
      });
      const information = placeStartInfo(vm, plan, commandLine, placed);
      const gdt = placeDescriptors(plan, 32);
      plan.write();
      const vcpu = vm.vcpus[0] as Vcpu;
      enterProtected32(vcpu, entry, gdt);
      vcpu.regs.rbx = BigInt(information);
    },
  };
}

function placeStartInfo(
  vm: Vm,
  plan: LoadPlan,
  commandLine: string,
  modules: readonly { readonly gpa: number; readonly size: number; readonly text: string }[],
): number {
  const { map } = reportMemory(vm);
  const texts = [commandLine, ...modules.map(({ text }) => text)]
    .map((text) => new TextEncoder().encode(`${text}\0`));
  const mapAt = START_INFO + MODULE * modules.length;
  const textsAt = mapAt + MAP_ENTRY * map.length;
  const bytes = new Uint8Array(texts.reduce((sum, { length }) => sum + length, textsAt));
  const view = new DataView(bytes.buffer);
  const gpa = plan.placeFree("the start information", bytes, 8);
  const put64 = (offset: number, value: number) => view.setBigUint64(offset, BigInt(value), true);
  const addresses: number[] = [];
  let end = textsAt;
  for (const text of texts) {
    bytes.set(text, end);
    addresses.push(gpa + end);
    end += text.length;
  }
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(12, modules.length, true);
  put64(16, modules.length === 0 ? 0 : gpa + START_INFO);
  put64(24, addresses[0] as number);
  put64(40, gpa + mapAt);
  view.setUint32(48, map.length, true);
  modules.forEach((module, i) => {
    const at = START_INFO + MODULE * i;
    put64(at, module.gpa);
    put64(at + 8, module.size);
    put64(at + 16, addresses[1 + i] as number);
  });
  map.forEach((entry, i) => {
    const at = mapAt + MAP_ENTRY * i;
    put64(at, entry.gpa);
    put64(at + 8, entry.size);
    view.setUint32(at + 16, entry.type, true);
  });
  return gpa;
}
