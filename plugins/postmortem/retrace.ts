/**
 * The last instructions of a run, by running it again: a run is a function of its configuration, so the
 * same machine reaches the same end, and can be stopped right before it and watched step by step.
 *
 * @module
 */

import { type RunResult, TraplineError, type Vcpu, type Vm } from "../../core/mod.ts";
import { disassemble, type Disassembled, type RecentEvent } from "../cpu/mod.ts";
import { describeEvent, recentEvents, sameCause } from "./chain.ts";
import { examineGate } from "./gates.ts";
import { GuestView } from "./guest_view.ts";

/** An instruction that a vCPU executed, or tried to. */
export interface ExecutedInstruction {
  /** The vCPU. */
  readonly vcpuId: number;
  /** RIP. */
  readonly rip: bigint;
  /** Its linear address as `main+1fh`; only where the `symbols` plugin knows it. */
  readonly place?: string;
  /** Its bytes, or those that are there; empty where nothing can be read. */
  readonly bytes: readonly number[];
  /** The instruction as text, a direct target with its name; `undefined` where there is none, or none that the processor knows. */
  readonly text: string | undefined;
  /** General registers that it changed, with their new values. */
  readonly changes: Readonly<Record<string, bigint>>;
  /** Exceptions and interrupts that came with it, in words. */
  readonly events: readonly string[];
}

/** Longest instruction. */
const INSTRUCTION_BYTES = 15;
const NAMES = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"] as const;
/** More steps than instructions were asked for: those that end in an exception do not retire. */
const EXTRA_STEPS = 8;

/**
 * The last instructions of a run that has ended.
 *
 * @param makeVm Makes a VM of the same configuration as that of the run, not run yet. It is closed again.
 * What it is given from outside while it runs must be the same, too, which for a terminal it never is.
 * @param result How the run ended.
 * @param count How many instructions, at least 1.
 * @throws {TraplineError} If the second run ended elsewhere than the first.
 */
export async function retrace(
  makeVm: () => Promise<Vm>,
  result: RunResult,
  count: number,
): Promise<ExecutedInstruction[]> {
  using vm = await makeVm();
  const before = Math.max(0, result.instructions - count);
  if (before > 0) {
    const first = await vm.run({ instructions: before });
    if (first.reason !== "limit") {
      throw new TraplineError(`the second run ended after ${first.instructions} instructions`);
    }
  }
  const found: ExecutedInstruction[] = [];
  const steps = result.instructions - before + EXTRA_STEPS;
  for (let k = 0; k < steps && vm.instructions < result.instructions; k++) {
    const end = step(vm, found);
    if (end.reason === "limit") continue;
    if (end.reason === result.reason) return found.slice(-count);
    throw new TraplineError(`the second run ended differently: ${end.reason}`);
  }
  // What ends a run without retiring: a fault that cannot be delivered, something that is not built. A
  // halt is only noticed when there is nothing more to do.
  if (result.reason !== "limit" && result.reason !== "stopped") {
    const end = step(vm, result.reason === "halted" ? [] : found);
    if (end.reason !== result.reason) {
      throw new TraplineError(`the second run went on, with ${end.reason}`);
    }
  }
  return found.slice(-count);
}

/** What of a vCPU is compared before and after a step. */
interface Snapshot extends CodeAt {
  readonly instructions: number;
  readonly registers: readonly bigint[];
  readonly events: readonly RecentEvent[];
}

function snapshot(vcpu: Vcpu): Snapshot {
  return {
    ...readAt(new GuestView(vcpu), vcpu.regs.rip),
    instructions: vcpu.instructions,
    registers: Array.from({ length: 32 }, (_, n) => vcpu.regs.get(n)),
    events: recentEvents(vcpu),
  };
}

/** Runs one instruction of whichever vCPU is due, and adds to `found` what it did. */
function step(vm: Vm, found: ExecutedInstruction[]): RunResult {
  const before = vm.vcpus.map(snapshot);
  const end = vm.runSync({ instructions: 1 });
  const failed = "vcpuId" in end ? vm.vcpus.findIndex(({ id }) => id === end.vcpuId) : -1;
  const moved = vm.vcpus.findIndex((vcpu, k) => vcpu.instructions !== before[k]!.instructions);
  const k = Math.max(0, moved >= 0 ? moved : failed);
  addStep(vm.vcpus[k]!, before[k]!, found);
  return end;
}

function addStep(vcpu: Vcpu, before: Snapshot, found: ExecutedInstruction[]): void {
  const after = new GuestView(vcpu);
  const events = newEvents(before.events, recentEvents(vcpu))
    .filter((event, k, all) => all[k + 1] === undefined || !sameCause(event, all[k + 1]!));
  const words = events.map((event) => describeEvent(after, event));
  const changes = changesSince(before, vcpu);
  const handler = handlerOf(before, after, events);
  if (handler === undefined) {
    found.push({ ...instructionAt(before, vcpu), changes, events: words });
    return;
  }
  // The instruction at RIP did not retire; the first one of the handler did.
  const last = found.at(-1);
  const fault = events.some(({ type }) => type === "exception");
  if (fault) found.push({ ...instructionAt(before, vcpu), changes: {}, events: words });
  else if (last !== undefined) {
    found[found.length - 1] = { ...last, events: [...last.events, ...words] };
  }
  if (handler === vcpu.regs.rip) return;
  found.push({ ...instructionAt(readAt(after, handler), vcpu), changes, events: [] });
}

/** Where the handler begins that ran instead of the instruction at RIP; `undefined` if none did. */
function handlerOf(
  { rip }: Snapshot,
  after: GuestView,
  events: readonly RecentEvent[],
): bigint | undefined {
  const instead = events.findLast((event) =>
    event.delivered && event.rip === rip && event.type !== "software"
  );
  if (instead === undefined) return undefined;
  const errorCode = instead.errorCode !== undefined;
  return examineGate(after, instead.vector, { software: false, errorCode }).offset;
}

function changesSince(before: Snapshot, { regs }: Vcpu): Record<string, bigint> {
  const changes: Record<string, bigint> = {};
  before.registers.forEach((old, n) => {
    const value = regs.get(n);
    if (value !== old) changes[NAMES[n] ?? `R${n}`] = value;
  });
  return changes;
}

/** Code as a vCPU sees it. */
interface CodeAt {
  readonly view: GuestView;
  readonly rip: bigint;
  readonly linear: bigint;
  readonly bytes: readonly number[];
}

function readAt(view: GuestView, rip: bigint): CodeAt {
  const linear = view.linear(view.system.cs, rip);
  const read = view.bytes(linear, INSTRUCTION_BYTES);
  const end = read.indexOf(null);
  return { view, rip, linear, bytes: (end < 0 ? read : read.slice(0, end)) as number[] };
}

function instructionAt(
  { view, linear, rip, bytes }: CodeAt,
  vcpu: Vcpu,
): Omit<ExecutedInstruction, "changes" | "events"> {
  const decoded = disassemble(new Uint8Array(bytes), view.codeBits, rip);
  const place = view.place(linear);
  return {
    vcpuId: vcpu.id,
    rip,
    ...(place === undefined ? {} : { place }),
    bytes: decoded === undefined ? bytes : bytes.slice(0, decoded.length),
    text: decoded === undefined ? undefined : withTarget(view, decoded),
  };
}

function withTarget(view: GuestView, { text, target }: Disassembled): string {
  const place = target === undefined ? undefined : view.place(view.linear(view.system.cs, target));
  return place === undefined ? text : `${text} (${place})`;
}

/** Those of `after` that are not in `before`: both are windows over one growing list. */
function newEvents(before: readonly RecentEvent[], after: readonly RecentEvent[]): RecentEvent[] {
  for (let common = Math.min(before.length, after.length); common > 0; common--) {
    const tail = before.slice(-common);
    if (tail.every((event, k) => sameEvent(event, after[k]!))) return after.slice(common);
  }
  return [...after];
}

function sameEvent(a: RecentEvent, b: RecentEvent): boolean {
  return a.vector === b.vector && a.type === b.type && a.rip === b.rip && a.cr2 === b.cr2 &&
    a.errorCode === b.errorCode && a.delivered === b.delivered;
}
