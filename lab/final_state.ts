/**
 * What a guest leaves behind, in a form that can be compared.
 *
 * @module
 */
import { PAGE_SIZE, type Vm } from "../core/mod.ts";

/** Names of the general registers, RIP and RFLAGS, by their numbers in `Registers`; others are `r8` on. */
const NAMES: readonly string[] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
const SLOTS = 34;
const RIP = 32;

function registerName(index: number): string {
  return NAMES[index] ?? (index === RIP ? "rip" : index === RIP + 1 ? "rflags" : `r${index}`);
}

/** Registers of one vCPU: names and values, hexadecimal with `0x` in front. */
export interface VcpuState {
  /** Id of the vCPU. */
  readonly vcpu: number;
  /** General and system registers by name. */
  readonly registers: Readonly<Record<string, string>>;
}

/** The end of a run. */
export interface FinalState {
  /** SHA-256 of all guest memory, in the order of addresses. */
  readonly memory: string;
  /** Registers of each vCPU. */
  readonly vcpus: readonly VcpuState[];
}

/** A final state with what is needed to say where two differ. */
export interface DetailedState extends FinalState {
  /** A digest of each page, by its guest physical address. */
  readonly pages: ReadonlyMap<number, number>;
}

function text(value: unknown): string {
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (typeof value !== "object" || value === null) return String(value);
  // Vendors make their objects with members in whatever order.
  const members = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
  return members.map(([key, part]) =>
    `${key} ${typeof part === "number" ? `0x${part.toString(16)}` : text(part)}`
  ).join(", ");
}

/** FNV-1a over 32-bit words. */
function digest(page: Uint32Array): number {
  let value = 0x811c_9dc5;
  for (const word of page) value = Math.imul(value ^ word, 0x0100_0193);
  return value;
}

/** Looks at everything a guest left. */
export async function finalState(vm: Vm): Promise<DetailedState> {
  const slots = [...vm.memory.slots].sort((a, b) => a.gpa - b.gpa);
  const all = new Uint8Array(slots.reduce((sum, { size }) => sum + size, 0));
  const pages = new Map<number, number>();
  let at = 0;
  for (const { gpa, size } of slots) {
    vm.memory.read(gpa, all.subarray(at, at + size));
    for (let offset = 0; offset < size; offset += PAGE_SIZE) {
      const page = new Uint32Array(all.buffer, at + offset, PAGE_SIZE / 4);
      pages.set(gpa + offset, digest(page));
    }
    at += size;
  }
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  return {
    memory: [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    pages,
    vcpus: vm.vcpus.map((vcpu) => {
      const registers: Record<string, string> = {};
      for (let k = 0; k < SLOTS; k++) registers[registerName(k)] = text(vcpu.regs.get(k));
      const system = vm.vendor.current.getSystemState(vcpu);
      for (const [name, value] of Object.entries(system)) registers[name] = text(value);
      return { vcpu: vcpu.id, registers };
    }),
  };
}

/** Where two final states differ. */
export interface StateDifference {
  /** Pages whose contents differ. */
  readonly pages: number;
  /** Guest physical address of the first of them; `null` if there is none. */
  readonly firstPage: number | null;
  /** Registers that differ. */
  readonly registers: readonly {
    /** Id of the vCPU. */
    readonly vcpu: number;
    /** The register. */
    readonly name: string;
    /** Its value in the first state. */
    readonly before: string;
    /** Its value in the second. */
    readonly after: string;
  }[];
}

/** Compares two final states. */
export function stateDifference(a: DetailedState, b: DetailedState): StateDifference {
  const differing = [...a.pages].filter(([gpa, value]) => b.pages.get(gpa) !== value);
  const registers = a.vcpus.flatMap(({ vcpu, registers }, k) => {
    const others = b.vcpus[k]?.registers ?? {};
    return Object.entries(registers)
      .filter(([name, value]) => others[name] !== value)
      .map(([name, before]) => ({ vcpu, name, before, after: others[name] ?? "" }));
  });
  return { pages: differing.length, firstPage: differing[0]?.[0] ?? null, registers };
}
