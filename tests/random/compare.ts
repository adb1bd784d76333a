/**
 * What differs between the outcomes of one program on two hosts.
 *
 * @module
 */
import type { ControlFlowState, Segment, SystemState } from "../../core/mod.ts";
import type { Outcome } from "./hosts.ts";

/** Names of registers by number. */
export const REGISTERS: readonly string[] = [
  ...["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"],
  ...Array.from({ length: 24 }, (_, n) => `R${n + 8}`),
  ...["RIP", "RFLAGS"],
];

/** What belongs to time, or to the processor model, and not to the program. */
const NOT_COMPARED: readonly (keyof SystemState)[] = ["tscOffset", "apicBase"];

const hex = (value: bigint | number): string => `${value.toString(16)}h`;

/** A part of the system state as text. */
export function printSystem(value: SystemState[keyof SystemState]): string {
  if (value === undefined) return "none";
  if (typeof value !== "object") return typeof value === "boolean" ? String(value) : hex(value);
  if ("ssp" in value) return printControlFlow(value);
  if (!("selector" in value)) return `${hex(value.base)} limit ${hex(value.limit)}`;
  return printSegment(value);
}

/** Of a segment that may not be used only the selector counts. */
function printSegment({ selector, base, limit, attributes }: Segment): string {
  if ((attributes & 0x80) === 0) return `${hex(selector)} (not usable)`;
  return `${hex(selector)} base ${hex(base)} limit ${hex(limit)} attributes ${hex(attributes)}`;
}

function printControlFlow({ uCet, sCet, ssp, plSsp, sspTable, xss }: ControlFlowState): string {
  const stacks = `SSP ${hex(ssp)} of ${plSsp.map(hex).join(", ")}, table ${hex(sspTable)}`;
  return `U_CET ${hex(uCet)} S_CET ${hex(sCet)} ${stacks} XSS ${hex(xss)}`;
}

const MOST_BYTES = 4;

/** Lines that say where two memories differ: the first bytes, and how many there are. */
function memoryDifferences(expected: Uint8Array, actual: Uint8Array): string[] {
  const lines: string[] = [];
  let bytes = 0;
  for (let at = 0; at < expected.length; at++) {
    const [a, b] = [expected[at]!, actual[at]!];
    if (a !== b && bytes++ < MOST_BYTES) lines.push(`memory ${hex(at)}: ${hex(a)}, here ${hex(b)}`);
  }
  if (bytes > MOST_BYTES) lines.push(`${bytes} bytes of memory in all`);
  return lines;
}

/** Whether two memories hold the same. */
function sameMemory(a: Uint8Array, b: Uint8Array): boolean {
  const words = (bytes: Uint8Array) =>
    new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const [one, other] = [words(a), words(b)];
  for (let k = 0; k < one.length; k++) if (one[k] !== other[k]) return false;
  return true;
}

/** Lines that say what differs; none if nothing does. */
export function differences(expected: Outcome, actual: Outcome): string[] {
  const lines: string[] = [];
  const compare = (what: string, a: string, b: string): void => {
    if (a !== b) lines.push(`${what}: ${a}, here ${b}`);
  };
  compare("end", expected.reason, actual.reason);
  compare("instructions", String(expected.instructions), String(actual.instructions));
  for (const [n, name] of REGISTERS.entries()) {
    const [a, b] = [expected.registers[n]!, actual.registers[n]!];
    if (a !== b) compare(name, hex(a), hex(b));
  }
  for (const name of Object.keys(expected.system) as (keyof SystemState)[]) {
    if (NOT_COMPARED.includes(name)) continue;
    compare(name, printSystem(expected.system[name]), printSystem(actual.system[name]));
  }
  if (!sameMemory(expected.memory, actual.memory)) {
    lines.push(...memoryDifferences(expected.memory, actual.memory));
  }
  return lines;
}
