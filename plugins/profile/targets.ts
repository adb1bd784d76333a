/**
 * What an exit is aimed at: a port, an MSR, a page, a CPUID leaf. One row for each exit reason that has
 * a target.
 *
 * @module
 */

import {
  ExitReason,
  exitTargets,
  Gpr,
  PAGE_SIZE,
  type Vcpu,
  Vector,
  type VmExit,
} from "../../core/mod.ts";
import { Key } from "./counts.ts";
import { msrName } from "./msr_names.ts";

/** What kind of thing a target is. */
export type TargetKind =
  /** An I/O port. */
  | "port"
  /** A page of guest physical memory, in which a device is. */
  | "mmio"
  /** A page of guest physical memory that has no translation. */
  | "gpa"
  /** A CPUID leaf and subleaf. */
  | "cpuid"
  /** A model-specific register. */
  | "msr"
  /** The number of a hypercall. */
  | "hypercall"
  /** The vector of an exception or interrupt. */
  | "vector"
  /** A control register. */
  | "cr"
  /** A debug register. */
  | "dr"
  /** The vendor's own exit code. */
  | "vendor-code"
  /** Something of the vendor's own, in its own words. */
  | "vendor"
  /** The reason says it all. */
  | "none";

/** The target of the exit looked at last; filled in anew for each, so that none is allocated. */
export class TargetWords {
  /** Bits of {@linkcode Key} that belong to the target. */
  flags = 0;
  /** Bits 31:0. */
  lo = 0;
  /** Bits 63:32, or the subleaf. */
  hi = 0;
}

interface TargetRow {
  readonly kind: TargetKind;
  /** Fills in `out`, which is all zero. */
  readonly find: (out: TargetWords, exit: VmExit, vcpu: Vcpu) => void;
}

/** Leaves whose answer depends on ECX (SDM vol. 2A, CPUID; APM vol. 3, appendix E). */
const LEAVES_WITH_SUBLEAVES: ReadonlySet<number> = new Set(
  [0x4, 0x7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x20, 0x23, 0x24]
    .concat(
      [0x8000_001d, 0x8000_0020, 0x8000_0026],
    ),
);

/** Whether CPUID's answer for `leaf` depends on the subleaf. */
export function hasSubleaves(leaf: number): boolean {
  return LEAVES_WITH_SUBLEAVES.has(leaf >>> 0);
}

const access = (exit: VmExit): number => exit.write ? Key.WRITE : 0;

function page(out: TargetWords, gpa: number): void {
  const first = gpa - gpa % PAGE_SIZE;
  out.lo = first | 0;
  out.hi = Math.floor(first / 2 ** 32);
}

const PORT: TargetRow = {
  kind: "port",
  find(out, exit) {
    out.lo = exit.port;
    out.flags = access(exit) | (exit.string ? Key.STRING : 0);
  },
};

const MSR: TargetRow = {
  kind: "msr",
  find(out, exit) {
    out.lo = exit.msr;
  },
};

const VECTOR: TargetRow = {
  kind: "vector",
  find(out, exit) {
    out.lo = exit.vector;
  },
};

const VENDOR_CODE: TargetRow = {
  kind: "vendor-code",
  find(out, exit) {
    out.lo = exit.vendorCodeLo;
    out.hi = exit.vendorCodeHi;
  },
};

const NONE: TargetRow = { kind: "none", find() {} };

function register(kind: "cr" | "dr"): TargetRow {
  return {
    kind,
    find(out, exit) {
      out.lo = exit.register;
      out.flags = access(exit);
    },
  };
}

const TABLE: { readonly [reason: number]: TargetRow } = {
  [ExitReason.IO]: PORT,
  [ExitReason.MMIO]: {
    kind: "mmio",
    find(out, exit) {
      page(out, exit.gpa);
      out.flags = access(exit);
    },
  },
  [ExitReason.NESTED_PAGE_FAULT]: {
    kind: "gpa",
    find(out, exit) {
      page(out, exit.gpa);
      const { errorCode } = exit;
      out.flags = (errorCode & 2) !== 0 ? Key.WRITE : (errorCode & 16) !== 0 ? Key.FETCH : 0;
    },
  },
  [ExitReason.CPUID]: {
    kind: "cpuid",
    find(out, exit) {
      out.lo = exit.leaf;
      // Elsewhere ECX holds whatever the guest left in it.
      if (hasSubleaves(exit.leaf)) out.hi = exit.subleaf;
    },
  },
  [ExitReason.RDMSR]: MSR,
  [ExitReason.WRMSR]: MSR,
  [ExitReason.HYPERCALL]: {
    kind: "hypercall",
    find(out, _exit, vcpu) {
      out.lo = vcpu.regs.lo(Gpr.RAX);
    },
  },
  [ExitReason.EXCEPTION]: VECTOR,
  [ExitReason.SOFTWARE_INTERRUPT]: VECTOR,
  [ExitReason.SIPI]: VECTOR,
  [ExitReason.CR_ACCESS]: register("cr"),
  [ExitReason.DR_ACCESS]: register("dr"),
  [ExitReason.FAIL_ENTRY]: VENDOR_CODE,
  [ExitReason.OTHER]: VENDOR_CODE,
};

/** Reasons beyond the core's own are a vendor's. */
const DEFINED: number = Object.keys(ExitReason).length;
const ROWS: TargetRow[] = Array.from({ length: DEFINED }, (_, reason) => TABLE[reason] ?? NONE);

function rowOf(reason: number): TargetRow {
  return ROWS[reason] ?? VENDOR_CODE;
}

/** Puts the target of an exit into `out`. */
export function findTarget(out: TargetWords, exit: VmExit, vcpu: Vcpu): void {
  out.flags = 0;
  out.lo = 0;
  out.hi = 0;
  const own = exitTargets(exit.reason);
  if (own === undefined) {
    rowOf(exit.reason).find(out, exit, vcpu);
    return;
  }
  const target = own.of(exit);
  out.lo = target | 0;
  out.hi = Math.floor(target / 2 ** 32);
}

/** A target as people and programs want it. */
export interface Target {
  /** What kind of thing it is. */
  readonly kind: TargetKind;
  /** Port, MSR, leaf, address, vector …; 0 for kind `none`. */
  readonly value: number;
  /** For CPUID, the subleaf where the leaf has any. */
  readonly subleaf?: number;
  /** What the access was, where there can be different ones. */
  readonly access?: "read" | "write" | "fetch";
  /** For ports, whether a string instruction accessed it. */
  readonly string?: boolean;
  /** What is there: the device at the port or page, the MSR's name, the exception's mnemonic. */
  readonly name?: string;
  /** All of it in words, without the name. */
  readonly text: string;
}

const EXCEPTION_NAMES: readonly string[] = (() => {
  const names: string[] = [];
  for (const [name, vector] of Object.entries(Vector)) names[vector] = `#${name}`;
  return names;
})();

/** A number with the `h` of the manuals. */
export function hex(value: number): string {
  return `${value.toString(16)}h`;
}

const ACCESS_TEXT = { read: "read", write: "write", fetch: "fetch from" } as const;

/** Turns what {@linkcode findTarget} found back into words. `vcpu` knows which devices are where. */
export function describeTarget(
  reason: number,
  flags: number,
  lo: number,
  hi: number,
  vcpu: Vcpu,
): Target {
  const own = exitTargets(reason);
  const kind = own === undefined
    ? rowOf(reason).kind
    : own.describe === undefined
    ? "none"
    : "vendor";
  if ((flags & Key.ANY_TARGET) !== 0) return { kind, value: 0, text: "all others" };
  const value = hi * 2 ** 32 + lo;
  const way = (flags & Key.WRITE) !== 0 ? "write" : (flags & Key.FETCH) !== 0 ? "fetch" : "read";
  const named = (name: string | undefined) => name === undefined ? {} : { name };
  switch (kind) {
    case "port": {
      const string = (flags & Key.STRING) !== 0;
      const mnemonic = `${way === "write" ? "out" : "in"}${string ? "s" : ""}`;
      const device = vcpu.vm.pio.regions.find(holds(lo))?.name;
      const text = `${mnemonic.padEnd(3)} ${hex(lo)}`;
      return { kind, value, access: way, string, ...named(device), text };
    }
    case "mmio": {
      const device = vcpu.vm.mmio.regions.find(holds(value, PAGE_SIZE))?.name;
      return { kind, value, access: way, ...named(device), text: `${way} page ${hex(value)}` };
    }
    case "gpa":
      return { kind, value, access: way, text: `${ACCESS_TEXT[way]} page ${hex(value)}` };
    case "cpuid": {
      const subleaf = hasSubleaves(lo) ? { subleaf: hi } : {};
      const text = `leaf ${hex(lo)}${hasSubleaves(lo) ? `, subleaf ${hex(hi)}` : ""}`;
      return { kind, value: lo, ...subleaf, text };
    }
    case "msr": {
      const registered = vcpu.vm.msrs.ranges.find(holds(lo))?.name;
      return { kind, value, ...named(msrName(lo) ?? registered), text: `MSR ${hex(lo)}` };
    }
    case "hypercall":
      return { kind, value, text: `number ${lo}` };
    case "vector": {
      const name = reason === ExitReason.EXCEPTION ? EXCEPTION_NAMES[lo] : undefined;
      return { kind, value, ...named(name), text: `vector ${lo}` };
    }
    case "cr":
    case "dr":
      return { kind, value, access: way, text: `${way} ${kind.toUpperCase()}${lo}` };
    case "vendor-code":
      return { kind, value, text: `code ${hex(value)}` };
    case "vendor":
      return { kind, value, ...own?.describe?.(value) ?? { text: "" } };
    case "none":
      return { kind, value, text: "" };
  }
}

/** Whether a range has an address in `address` to `address + length - 1`. */
function holds(address: number, length = 1): (range: { base: number; length: number }) => boolean {
  return (range) => range.base < address + length && address < range.base + range.length;
}
