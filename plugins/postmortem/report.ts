/**
 * The report on a VM whose run has ended, as plain data.
 *
 * @module
 */

import {
  MpState,
  type RunEnd,
  type SystemState,
  UnhandledExitError,
  type Vcpu,
  type Vm,
} from "../../core/mod.ts";
import { disassemble, type PageWalk, type RecentEvent } from "../cpu/mod.ts";
import { type ReturnAddress, returnAddresses } from "./calls.ts";
import { type ChainLink, recentEvents, undelivered } from "./chain.ts";
import { type CpuMode, GuestView } from "./guest_view.ts";
import type { ExitRecord, HotSpot, Recorder } from "./recorder.ts";
import { type OtherVcpu, otherVcpus } from "./others.ts";
import type { ExecutedInstruction } from "./retrace.ts";
import { judge } from "./verdict.ts";

/** Version of the data that {@linkcode PostMortem} describes; raised when a field changes. */
export const POST_MORTEM_VERSION = 1;

/** An instruction as text. */
export interface CodeLine {
  /** Its linear address. */
  readonly linear: bigint;
  /** The instruction. */
  readonly text: string;
  /** Where it jumps or calls to, a linear address; `undefined` if that is not in the instruction. */
  readonly target: bigint | undefined;
}

/** Bytes of code around an instruction. */
export interface CodeBytes {
  /** Linear address of the instruction. */
  readonly linear: bigint;
  /** What lies before it; `null` for bytes that cannot be read. */
  readonly before: readonly (number | null)[];
  /** From its first byte on. */
  readonly from: readonly (number | null)[];
  /** How many of {@linkcode CodeBytes.from} belong to it; 0 if that is not known. */
  readonly length: number;
  /** The instructions that begin there, as text. */
  readonly instructions: readonly CodeLine[];
}

/** A walk through the page tables. */
export interface NamedWalk {
  /** Of which register the linear address is: RIP, RSP or CR2. */
  readonly of: "RIP" | "RSP" | "CR2";
  /** The linear address. */
  readonly linear: bigint;
  /** The walk; `undefined` while paging is off. */
  readonly walk: PageWalk | undefined;
  /** Why the address cannot be reached; `undefined` if it can. */
  readonly problem: string | undefined;
}

/** What lies on top of the stack. */
export interface StackWords {
  /** Linear address of the first word. */
  readonly linear: bigint;
  /** Bytes of a word. */
  readonly width: 2 | 4 | 8;
  /** The words; `null` for those that cannot be read. */
  readonly words: readonly (bigint | null)[];
}

/** Why a VM's run ended, and the state that it left. */
export interface PostMortem {
  /** `"trapline-post-mortem"`. */
  readonly schema: "trapline-post-mortem";
  /** {@linkcode POST_MORTEM_VERSION}. */
  readonly version: number;
  /** How the run ended. */
  readonly ending: RunEnd["reason"];
  /** Why, in one line. */
  readonly verdict: string;
  /** What else is worth saying, a sentence each. */
  readonly notes: readonly string[];
  /** The vCPU that the rest is about. */
  readonly vcpuId: number;
  /** Instructions that the VM has retired. */
  readonly instructions: number;
  /** Exits that the VM has taken. */
  readonly exits: number;
  /** The vCPU's mode; `undefined` if its state could not be read. */
  readonly mode: CpuMode | undefined;
  /** Current privilege level. */
  readonly cpl: number | undefined;
  /** General registers, RIP and RFLAGS by name. R16 to R31 are there if any of them is not 0. */
  readonly registers: Readonly<Record<string, bigint>>;
  /** System registers. */
  readonly system: SystemState | undefined;
  /** The other vCPUs. */
  readonly others: readonly OtherVcpu[];
  /** The events that could not be delivered, in order. */
  readonly chain: readonly ChainLink[];
  /** The events before them, newest last, as far as the processor remembers. */
  readonly events: readonly RecentEvent[];
  /** The code at RIP. */
  readonly code: CodeBytes | undefined;
  /** How the addresses that matter are translated. */
  readonly walks: readonly NamedWalk[];
  /** The top of the stack. */
  readonly stack: StackWords | undefined;
  /** Calls that have not returned, as far as the stack shows them, innermost first. */
  readonly calls: readonly ReturnAddress[];
  /** Where the vCPU was seen, most often first; samples are taken while it runs without exits. */
  readonly hotSpots: readonly HotSpot[];
  /** The VM's last exits, oldest first. */
  readonly lastExits: readonly ExitRecord[];
  /** The VM's last instructions, oldest first; empty unless `retrace` was asked for them. */
  readonly lastInstructions: readonly ExecutedInstruction[];
  /**
   * Names of the linear addresses in the report that have one, `main+1fh`, by address in hexadecimal
   * with `0x` in front.
   */
  readonly places: Readonly<Record<string, string>>;
  /** Parts of the report that could not be made, and why. */
  readonly missing: readonly string[];
}

/** Makes the report. Never throws: what cannot be told is in {@linkcode PostMortem.missing}. */
export function makeReport(vm: Vm, end: RunEnd, recorder: Recorder | undefined): PostMortem {
  const missing: string[] = [];
  const attempt = <T>(what: string, make: () => T, otherwise: T): T => {
    try {
      return make();
    } catch (error) {
      missing.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
      return otherwise;
    }
  };
  const vcpu = concerned(vm, end);
  const view = attempt("system registers", () => new GuestView(vcpu), undefined);
  const seen = attempt("events", () => recentEvents(vcpu), []);
  const chain = view === undefined || end.reason !== "shutdown"
    ? []
    : attempt("chain of exceptions", () => undelivered(view, seen), []);
  const lastExits = attempt("last exits", () => recorder?.exits ?? [], []);
  const hotSpots = attempt("samples", () => recorder?.hotSpots(vcpu.id) ?? [], []);
  const { verdict, notes } = attempt(
    "verdict",
    () => judge({ end, vcpu, view, chain, exits: lastExits, hotSpots }),
    { verdict: `the run ended: ${end.reason}`, notes: [] },
  );
  const inView = <T>(what: string, make: (view: GuestView) => T, otherwise: T): T =>
    view === undefined ? otherwise : attempt(what, () => make(view), otherwise);
  const stack = inView("stack", stackOf, undefined);
  const calls = inView("calls", returnAddresses, []);
  const rips = [
    vcpu.regs.rip,
    ...seen.map(({ rip }) => rip),
    ...lastExits.map(({ rip }) => rip),
    ...hotSpots.map(({ rip }) => rip),
  ];
  const code = inView("code", (view) => codeAt(view, end), undefined);
  const places = inView("names", (view) =>
    placesOf(view, [
      ...rips.map((rip) => view.linear(view.system.cs, rip)),
      ...chain.map(({ gate }) => gate.offset),
      ...stack?.words ?? [],
      ...code?.instructions.flatMap(({ linear, target }) => [linear, target]) ?? [],
      ...calls.flatMap(({ address, call, target }) => [address, call, target]),
    ]), {});
  return {
    schema: "trapline-post-mortem",
    version: POST_MORTEM_VERSION,
    ending: end.reason,
    verdict,
    notes,
    vcpuId: vcpu.id,
    instructions: vm.instructions,
    exits: vm.exits,
    mode: view?.mode,
    cpl: view?.cpl,
    registers: attempt("registers", () => registersOf(vcpu), {}),
    system: view?.system,
    others: attempt("other vCPUs", () => otherVcpus(vcpu), []),
    chain,
    events: seen,
    code,
    walks: inView("page walks", (view) => walksOf(view, seen), []),
    stack,
    calls,
    hotSpots,
    lastExits,
    lastInstructions: [],
    places,
    missing,
  };
}

/** Names of those addresses that have one. */
function placesOf(
  view: GuestView,
  addresses: readonly (bigint | null | undefined)[],
): Record<string, string> {
  const found: Record<string, string> = {};
  for (const address of addresses) {
    const place = address === null || address === undefined ? undefined : view.place(address);
    if (place !== undefined) found[placeKey(address!)] = place;
  }
  return found;
}

/** The key of an address in {@linkcode PostMortem.places}. */
export function placeKey(address: bigint): string {
  return `0x${address.toString(16)}`;
}

/** The vCPU that an end is about; the first if it is about none. */
function concerned(vm: Vm, end: RunEnd): Vcpu {
  const id = "vcpuId" in end ? end.vcpuId : undefined;
  const named = vm.vcpus.find((vcpu) => vcpu.id === id);
  const state = end.reason === "halted" ? MpState.HALTED : MpState.RUNNABLE;
  return named ?? vm.vcpus.find((vcpu) => vcpu.mpState === state) ?? vm.vcpus[0]!;
}

const GPR_NAMES = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"] as const;

function registersOf(vcpu: Vcpu): Record<string, bigint> {
  const { regs } = vcpu;
  const found: Record<string, bigint> = {};
  for (let i = 0; i < 16; i++) found[GPR_NAMES[i] ?? `R${i}`] = regs.get(i);
  found.RIP = regs.rip;
  found.RFLAGS = regs.rflags;
  const extended = Array.from({ length: 16 }, (_, i) => regs.get(16 + i));
  if (extended.some((value) => value !== 0n)) {
    for (const [i, value] of extended.entries()) found[`R${16 + i}`] = value;
  }
  return found;
}

const CODE_BYTES = 16;

function codeAt(view: GuestView, end: RunEnd): CodeBytes {
  const { exit } = view.vcpu;
  // Only an exit that nobody handled is at the instruction at RIP.
  const atExit = end.reason === "error" && end.error instanceof UnhandledExitError;
  const from = view.bytes(view.rip, CODE_BYTES);
  const instructions = codeLines(view, from);
  const first = instructions[1]?.linear ?? view.rip;
  return {
    linear: view.rip,
    before: view.bytes(view.rip - BigInt(CODE_BYTES), CODE_BYTES),
    from,
    length: atExit ? exit.instructionLength : Number(first - view.rip),
    instructions,
  };
}

/** The instructions in bytes at RIP, up to what cannot be read or is none. */
function codeLines(view: GuestView, from: readonly (number | null)[]): CodeLine[] {
  const end = from.indexOf(null);
  const bytes = new Uint8Array((end < 0 ? from : from.slice(0, end)) as number[]);
  const lines: CodeLine[] = [];
  for (let at = 0; at < bytes.length;) {
    const rip = view.vcpu.regs.rip + BigInt(at);
    const decoded = disassemble(bytes.subarray(at), view.codeBits, rip);
    if (decoded === undefined) break;
    const { text, length, target } = decoded;
    lines.push({
      linear: view.rip + BigInt(at),
      text,
      target: target === undefined ? undefined : view.linear(view.system.cs, target),
    });
    at += length;
  }
  return lines;
}

const PAGE_FAULT = 14;

function walksOf(view: GuestView, events: readonly RecentEvent[]): NamedWalk[] {
  const named = (of: NamedWalk["of"], linear: bigint): NamedWalk => ({
    of,
    linear,
    walk: view.paging ? view.walk(linear) : undefined,
    problem: view.problem(linear, { fetch: of === "RIP" }),
  });
  const walks = [named("RIP", view.rip), named("RSP", view.rsp)];
  const { cr2 } = view.system;
  const faulted = events.some((event) => event.vector === PAGE_FAULT);
  if (view.paging && (faulted || cr2 !== 0n) && cr2 !== view.rip) walks.push(named("CR2", cr2));
  return walks;
}

const STACK_WORDS = 8;

function stackOf(view: GuestView): StackWords {
  const { width, rsp: linear } = view;
  const words = Array.from(
    { length: STACK_WORDS },
    (_, k) => view.read(BigInt.asUintN(64, linear + BigInt(k * width)), width) ?? null,
  );
  return { linear, width, words };
}
