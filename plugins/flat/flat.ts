/**
 * Flat binaries: bytes that go to an address as they are.
 *
 * @module
 */

import { ArgumentError, type Image, type Vcpu, type Vm } from "../../core/mod.ts";
import {
  descriptorTable,
  enterLong64,
  enterProtected32,
  enterReal,
  identityTables,
  identityTableSize,
} from "./entry.ts";
import { hex, ImageError } from "./error.ts";
import { LoadPlan } from "./plan.ts";

/** General registers that an image can be given values in. */
export type GprName =
  | "rax"
  | "rcx"
  | "rdx"
  | "rbx"
  | "rsp"
  | "rbp"
  | "rsi"
  | "rdi"
  | "r8"
  | "r9"
  | "r10"
  | "r11"
  | "r12"
  | "r13"
  | "r14"
  | "r15";

/**
 * How a flat binary is entered: the mode, and where.
 *
 * - `"real"`: real mode at `segment`:`offset`. Without an offset that is the binary's first byte, seen
 *   from the segment; without a segment, from segment 0.
 * - `"protected32"`: 32-bit protected mode without paging, at `address`, or the first byte.
 * - `"long64"`: 64-bit mode with memory mapped one to one, at `address`, or the first byte.
 */
export type FlatEntry =
  | { readonly mode: "real"; readonly segment?: number; readonly offset?: number }
  | { readonly mode: "protected32"; readonly address?: number }
  | { readonly mode: "long64"; readonly address?: number };

/** Options of {@linkcode flat}. */
export interface FlatOptions {
  /** Name of the image, for messages; `"flat"` if not given. */
  readonly name?: string;
  /** Guest physical address of the first byte; 7C00h, where a BIOS puts a boot sector, if not given. */
  readonly address?: number;
  /** How it is entered; in real mode if not given. */
  readonly entry?: FlatEntry;
  /**
   * What general registers hold on entry. The others are 0, but for DL in real mode: 80h, by which a
   * BIOS names the first disk.
   */
  readonly registers?: Readonly<Partial<Record<GprName, bigint>>>;
}

/** Where a BIOS puts a boot sector. */
const BOOT_SECTOR = 0x7c00;
const FIRST_DISK = 0x80n;

/**
 * A flat binary as an image.
 *
 * Descriptor and page tables for the modes that need them are put where there is room.
 *
 * @throws {ArgumentError} If an option is out of range, or the entry is not in the binary.
 * @throws {ImageError} If the binary is empty, and, when it is loaded, if it does not fit into memory.
 */
export function flat(bytes: Uint8Array, options: FlatOptions = {}): Image {
  const { name = "flat", address = BOOT_SECTOR, entry = { mode: "real" } } = options;
  if (bytes.length === 0) throw new ImageError(name, "the file", 0, "it is empty");
  if (!Number.isSafeInteger(address) || address < 0 || address >= 2 ** 52) {
    throw new ArgumentError(`image "${name}": address ${address} is not one of 52 bits`);
  }
  const start = entryOf(name, address, bytes.length, entry);
  const registers = Object.entries(options.registers ?? {}) as [GprName, bigint][];
  return {
    name,
    load(vm) {
      const plan = new LoadPlan(vm, name);
      plan.place({ what: "the binary", gpa: address, bytes, size: bytes.length });
      const vcpu = vm.vcpus[0] as Vcpu;
      const enter = prepare(vm, plan, vcpu, start);
      plan.write();
      enter();
      for (const [register, value] of registers) vcpu.regs[register] = value;
    },
  };
}

type Start =
  | { readonly mode: "real"; readonly segment: number; readonly offset: number }
  | { readonly mode: "protected32" | "long64"; readonly address: number };

/** Fills in what was not given, and checks that the entry is in the binary. */
function entryOf(name: string, address: number, size: number, entry: FlatEntry): Start {
  const inside = (linear: number): void => {
    if (linear >= address && linear < address + size) return;
    throw new ArgumentError(
      `image "${name}": entry ${hex(linear)} is not in the binary, which is at ${
        hex(address)
      } to ` +
        hex(address + size - 1),
    );
  };
  if (entry.mode !== "real") {
    const { mode, address: linear = address } = entry;
    inside(linear);
    if (mode === "protected32" && linear >= 2 ** 32) {
      throw new ArgumentError(`image "${name}": entry ${hex(linear)} is not one of 32 bits`);
    }
    return { mode, address: linear };
  }
  const { segment = 0 } = entry;
  const offset = entry.offset ?? address - segment * 16;
  for (const [what, value] of [["segment", segment], ["offset", offset]] as const) {
    if (!Number.isInteger(value) || value < 0 || value > 0xffff) {
      throw new ArgumentError(
        `image "${name}": ${what} ${value} of the entry is not one of 16 bits`,
      );
    }
  }
  inside(segment * 16 + offset);
  return { mode: "real", segment, offset };
}

/** Places what the mode needs, and returns what sets the vCPU's registers afterwards. */
function prepare(vm: Vm, plan: LoadPlan, vcpu: Vcpu, start: Start): () => void {
  if (start.mode === "real") {
    return () => {
      enterReal(vcpu, start.segment, start.offset);
      vcpu.regs.rdx = FIRST_DISK;
    };
  }
  const { address } = start;
  if (start.mode === "protected32") {
    const gdt = placeDescriptors(plan, 32);
    return () => enterProtected32(vcpu, address, gdt);
  }
  const gdt = placeDescriptors(plan, 64);
  const cr3 = placeIdentityTables(vm, plan);
  return () => enterLong64(vcpu, address, gdt, cr3);
}

/** Places the table of `descriptorTable` and returns where it is. */
export function placeDescriptors(plan: LoadPlan, bits: 32 | 64): { gpa: number; size: number } {
  const table = descriptorTable(bits);
  return { gpa: plan.placeFree("the descriptor table", table, 8), size: table.length };
}

/**
 * Places page tables that map all memory and at least 4 GiB to the same addresses, and returns where
 * their top level is.
 */
export function placeIdentityTables(vm: Vm, plan: LoadPlan): number {
  const last = LoadPlan.ram(vm).at(-1);
  const end = last === undefined ? 0 : last.gpa + last.size;
  const tables = new Uint8Array(identityTableSize(end));
  const gpa = plan.placeFree("the page tables", tables, 4096);
  tables.set(identityTables(gpa, end));
  return gpa;
}
