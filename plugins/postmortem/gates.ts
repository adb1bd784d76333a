/**
 * Gates of the interrupt descriptor table: what they say, and why an event could not go through one.
 *
 * @module
 */

import { systemTypeName } from "./bits.ts";
import type { GuestView } from "./guest_view.ts";
import { hex } from "./hexadecimal.ts";

/** An entry of the IDT, or of the interrupt vector table in real mode. */
export interface Gate {
  /** Vector, 0 to 255. */
  readonly vector: number;
  /** Linear address of the entry. */
  readonly address: bigint;
  /** Bytes of the entry: 4, 8 or 16. */
  readonly bytes: number;
  /** Type in words; `undefined` if the entry cannot be read. */
  readonly type: string | undefined;
  /** Code segment selector, or the segment in real mode. */
  readonly selector: number;
  /** Offset of the handler. */
  readonly offset: bigint;
  /** Privilege level from which INT n may use it. */
  readonly dpl: number;
  /** Whether it is present. */
  readonly present: boolean;
  /** Which entry of the interrupt stack table it uses; 0 for none. */
  readonly ist: number;
  /** Why an event cannot go through it; `undefined` if nothing is seen that would stop one. */
  readonly problem: string | undefined;
}

/** What an event brings along that matters to its gate. */
export interface GateUse {
  /** INT n and the like, which need the privilege. */
  readonly software: boolean;
  /** Whether an error code is pushed. */
  readonly errorCode: boolean;
}

type Fields = Omit<Gate, "problem">;

/** Looks at the gate of `vector` as delivery would. */
export function examineGate(view: GuestView, vector: number, use: GateUse): Gate {
  const { idt } = view.system;
  const bytes = view.real ? 4 : view.long ? 16 : 8;
  const start = vector * bytes;
  const address = view.long
    ? BigInt.asUintN(64, idt.base + BigInt(start))
    : idt.base + BigInt(start) & 0xffff_ffffn;
  const blank: Fields = {
    vector,
    address,
    bytes,
    type: undefined,
    selector: 0,
    offset: 0n,
    dpl: 0,
    present: false,
    ist: 0,
  };
  if (start + bytes - 1 > idt.limit) {
    const range = `${hex(start)} to ${hex(start + bytes - 1)}`;
    const problem = `gate ${vector} (bytes ${range} of the IDT) lies past its limit, ${
      hex(idt.limit)
    }`;
    return { ...blank, problem };
  }
  const low = view.read(address, bytes === 16 ? 8 : bytes);
  const high = bytes === 16 ? view.read(address + 8n, 8) : 0n;
  if (low === undefined || high === undefined) {
    const why = view.problem(address) ?? view.problem(address + 8n) ?? "it cannot be read";
    return { ...blank, problem: `gate ${vector} at ${hex(address)} is not mapped: ${why}` };
  }
  if (view.real) {
    const selector = Number(low >> 16n);
    return {
      ...blank,
      type: "vector",
      selector,
      offset: low & 0xffffn,
      present: true,
      problem: undefined,
    };
  }
  const type = Number(low >> 40n & 0x1fn);
  const gate: Fields = {
    ...blank,
    type: type > 15 ? `not a system descriptor (type byte ${hex(type)})` : systemTypeName(type),
    selector: Number(low >> 16n & 0xffffn),
    offset: (low & 0xffffn) | (low >> 32n & 0xffff_0000n) | (high & 0xffff_ffffn) << 32n,
    dpl: Number(low >> 45n & 3n),
    present: (low >> 47n & 1n) !== 0n,
    ist: bytes === 16 ? Number(low >> 32n & 7n) : 0,
  };
  return { ...gate, problem: gateProblem(view, gate, type, use) };
}

const GATE_TYPES: ReadonlySet<number> = new Set([5, 6, 7, 14, 15]);
const LONG_GATE_TYPES: ReadonlySet<number> = new Set([14, 15]);

/** The checks in the order in which the processor makes them (APM vol. 2, 8.7 and 8.9). */
function gateProblem(
  view: GuestView,
  gate: Fields,
  type: number,
  use: GateUse,
): string | undefined {
  const { vector } = gate;
  if (!(view.long ? LONG_GATE_TYPES : GATE_TYPES).has(type)) {
    return gate.present || type !== 0
      ? `gate ${vector} is no interrupt or trap gate: ${gate.type}`
      : `gate ${vector} is empty: not present`;
  }
  if (use.software && gate.dpl < view.cpl) {
    return `gate ${vector} has DPL ${gate.dpl}, and INT n came from CPL ${view.cpl}`;
  }
  if (!gate.present) return `gate ${vector} is not present`;
  if (type === 5) return undefined;
  const code = codeSegment(view, gate.selector);
  if (typeof code === "string") {
    return `gate ${vector} names code segment ${hex(gate.selector)}: ${code}`;
  }
  if (view.long && !view.canonical(gate.offset)) {
    return `gate ${vector} leads to ${hex(gate.offset)}, which is not canonical`;
  }
  return stackProblem(view, gate, code, use);
}

/** The DPL that a handler in this segment runs at, or what is wrong with the segment. */
function codeSegment(view: GuestView, selector: number): number | string {
  if ((selector & 0xfffc) === 0) return "a null selector";
  const { gdt, ldt } = view.system;
  const local = (selector & 4) !== 0;
  const table = local ? { base: ldt.base, limit: ldt.limit } : gdt;
  const offset = selector & 0xfff8;
  const name = local ? "LDT" : "GDT";
  if (local && (ldt.attributes & 0x80) === 0) return "there is no LDT";
  if (offset + 7 > table.limit) return `past the ${name}'s limit, ${hex(table.limit)}`;
  const address = table.base + BigInt(offset);
  const descriptor = view.read(address, 8);
  if (descriptor === undefined) {
    return `its descriptor at ${hex(address)} cannot be read: ${
      view.problem(address) ?? "no memory"
    }`;
  }
  const access = Number(descriptor >> 40n & 0xffn);
  if ((access & 0x18) !== 0x18) return "not a code segment";
  if ((access & 0x80) === 0) return "not present";
  const size = Number(descriptor >> 53n & 3n);
  if (view.long && size !== 1) return "not a 64-bit code segment, which long mode wants";
  const dpl = (access >> 5) & 3;
  if (dpl > view.cpl) return `its DPL ${dpl} is above CPL ${view.cpl}`;
  return (access & 4) !== 0 ? view.cpl : dpl;
}

/** Whether the frame can be pushed where it would go. */
function stackProblem(
  view: GuestView,
  gate: Fields,
  newCpl: number,
  use: GateUse,
): string | undefined {
  const top = handlerStack(view, gate, newCpl);
  if (top === undefined || typeof top === "string") return top;
  const { linear, source } = top;
  const slot = view.long ? 8n : (gate.type ?? "").startsWith("16-bit") ? 2n : 4n;
  const privilege = newCpl < view.cpl;
  const words = (view.long || privilege ? 5n : 3n) + (use.errorCode ? 1n : 0n);
  for (const address of [linear - slot, linear - slot * words]) {
    const problem = view.problem(BigInt.asUintN(64, address), { write: true });
    if (problem === undefined) continue;
    return `no frame can be pushed for gate ${gate.vector} on the stack at ${
      hex(linear)
    } (${source}): ` +
      problem;
  }
  return undefined;
}

/**
 * Linear address of the top of the stack that a handler gets, or what keeps it from getting one;
 * `undefined` if it cannot be told.
 */
function handlerStack(
  view: GuestView,
  gate: Fields,
  newCpl: number,
): { linear: bigint; source: string } | string | undefined {
  const { tr, gdt } = view.system;
  const fromTss = (offset: number, size: number): bigint | undefined =>
    view.read(tr.base + BigInt(offset), size);
  if (view.long) {
    const ist = gate.ist !== 0;
    if (!ist && newCpl === view.cpl) {
      return { linear: view.vcpu.regs.rsp & ~0xfn, source: "RSP" };
    }
    const offset = ist ? 0x1c + 8 * gate.ist : 4 + 8 * newCpl;
    const source = ist ? `IST${gate.ist} of the TSS` : `RSP${newCpl} of the TSS`;
    if (offset + 7 > tr.limit) return `gate ${gate.vector} wants ${source}, past the TSS's limit`;
    const linear = fromTss(offset, 8);
    if (linear === undefined) return `gate ${gate.vector} wants ${source}, which cannot be read`;
    return { linear: linear & ~0xfn, source };
  }
  if (newCpl === view.cpl) return { linear: view.rsp, source: "SS:ESP" };
  const wide = (tr.attributes & 8) !== 0;
  const size = wide ? 4 : 2;
  const offset = wide ? 4 + 8 * newCpl : 2 + 4 * newCpl;
  const source = `SS${newCpl}:ESP${newCpl} of the TSS`;
  const pointer = fromTss(offset, size);
  const selector = fromTss(offset + size, 2);
  if (pointer === undefined || selector === undefined) {
    return `gate ${gate.vector} wants ${source}, which cannot be read`;
  }
  if ((selector & 4n) !== 0n) return undefined;
  const descriptor = view.read(gdt.base + (selector & 0xfff8n), 8);
  if (descriptor === undefined) return undefined;
  const base = (descriptor >> 16n & 0xff_ffffn) | (descriptor >> 56n & 0xffn) << 24n;
  return { linear: base + pointer & 0xffff_ffffn, source };
}
