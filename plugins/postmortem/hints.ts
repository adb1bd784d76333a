/**
 * What the state of a guest that died suggests: mistakes that look alike every time.
 *
 * @module
 */

import { disassemble } from "../cpu/mod.ts";
import { type ChainLink, isFetch } from "./chain.ts";
import type { GuestView } from "./guest_view.ts";
import { hex } from "./hexadecimal.ts";

const PAGE_FAULT = 14;
const GENERAL_PROTECTION = 13;
const PAGE = 4096n;
const PRESENT = 1;
const ZEROS = 16;
const INSTRUCTION_BYTES = 15;

/** What the first exception of a chain, and the state that it was in, suggest; a sentence each. */
export function faultHints(view: GuestView, first: ChainLink): string[] {
  const { event } = first;
  const found: string[] = [];
  if (event.vector === PAGE_FAULT && !isFetch(view, event)) {
    const { cr2 } = event;
    const absent = ((event.errorCode ?? 0) & PRESENT) === 0;
    const below = BigInt.asUintN(64, view.rsp - cr2);
    if (absent && below <= PAGE && view.problem(view.rsp, { write: true }) !== undefined) {
      found.push("CR2 is where RSP is: the stack has run out of its pages, or was never set up.");
    } else if (absent && below > 0n && below <= PAGE) {
      found.push("CR2 is right below RSP: the stack has run out of its pages.");
    } else if (cr2 < PAGE) {
      const offset = cr2 === 0n ? "" : `, or a field ${hex(cr2)} bytes behind one`;
      found.push(`CR2 is in the first page: a null pointer${offset}.`);
    }
  }
  if (event.vector === GENERAL_PROTECTION && view.codeBits === 64) {
    found.push(...oddAddresses(view, event.rip));
  }
  const { idt } = view.system;
  if (!view.real && idt.limit < (view.long ? 16 : 8) - 1) {
    found.push(`The IDT has room for no gate (limit ${hex(idt.limit)}): no LIDT has loaded one.`);
  }
  return [...found, ...codeHints(view)];
}

/** What the code at RIP suggests. */
export function codeHints(view: GuestView): string[] {
  return view.bytes(view.rip, ZEROS).every((byte) => byte === 0)
    ? ["There is nothing but zeros at RIP: execution has left the program."]
    : [];
}

/** Registers with which the instruction at `rip` addresses memory, and that hold no such address. */
function oddAddresses(view: GuestView, rip: bigint): string[] {
  const read = view.bytes(view.linear(view.system.cs, rip), INSTRUCTION_BYTES);
  const end = read.indexOf(null);
  const bytes = new Uint8Array((end < 0 ? read : read.slice(0, end)) as number[]);
  const [, inside = ""] = /\[([^\]]*)\]/.exec(disassemble(bytes, 64, rip)?.text ?? "") ?? [];
  const { regs } = view.vcpu;
  return [...inside.matchAll(/\br(?:[a-z]{2}|\d+)\b/g)].flatMap(([name]) => {
    const value = regs.get(registerNumber(name));
    return view.canonical(value)
      ? []
      : [`${name.toUpperCase()} holds ${hex(value)}, which is not canonical and no address.`];
  });
}

const NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];

function registerNumber(name: string): number {
  const number = NAMES.indexOf(name);
  return number >= 0 ? number : Number(name.slice(1));
}
