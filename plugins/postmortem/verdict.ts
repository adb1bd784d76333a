/**
 * Why a run ended, in words: one line, and what else is worth saying.
 *
 * @module
 */

import {
  describeRunEnd,
  PluginError,
  type RunEnd,
  UnimplementedError,
  type Vcpu,
} from "../../core/mod.ts";
import { type ChainLink, isFetch } from "./chain.ts";
import type { GuestView } from "./guest_view.ts";
import { codeHints, faultHints } from "./hints.ts";
import { hex } from "./hexadecimal.ts";
import type { ExitRecord, HotSpot } from "./recorder.ts";

/** What a verdict is drawn from. */
export interface Evidence {
  /** How the run ended. */
  readonly end: RunEnd;
  /** The vCPU that it is about. */
  readonly vcpu: Vcpu;
  /** Its state; `undefined` if that could not be read. */
  readonly view: GuestView | undefined;
  /** Events that it could not deliver. */
  readonly chain: readonly ChainLink[];
  /** The VM's last exits. */
  readonly exits: readonly ExitRecord[];
  /** Where the vCPU was seen. */
  readonly hotSpots: readonly HotSpot[];
}

/** One line, and further sentences. */
export interface Verdict {
  /** Why the run ended. */
  readonly verdict: string;
  /** What else is worth saying, a sentence each. */
  readonly notes: readonly string[];
}

/** Draws the conclusion. */
export function judge(evidence: Evidence): Verdict {
  switch (evidence.end.reason) {
    case "shutdown":
      return tripleFault(evidence);
    case "halted":
      return halted(evidence, evidence.end.interruptsEnabled);
    case "limit":
      return {
        verdict: `the run's limit was reached ${whereabouts(evidence)}`,
        notes: [...busy(evidence), ...lost(evidence)],
      };
    case "stopped":
      return {
        verdict: `stopped ${whereabouts(evidence)}: ${evidence.end.detail}`,
        notes: [...busy(evidence), ...lost(evidence)],
      };
    case "error":
      return failed(evidence.end.error);
    default:
      return { verdict: describeRunEnd(evidence.end), notes: [] };
  }
}

function lost({ view }: Evidence): string[] {
  return view === undefined ? [] : codeHints(view);
}

function whereabouts({ vcpu, view }: Evidence): string {
  const mode = view === undefined ? "" : `, in ${view.mode} at CPL ${view.cpl}`;
  return `with vCPU ${vcpu.id} at ${ripText(view, vcpu.regs.rip)}${mode}`;
}

function ripText(view: GuestView | undefined, rip: bigint): string {
  return view?.ripText(rip) ?? `RIP ${hex(rip)}`;
}

function tripleFault({ vcpu, view, chain }: Evidence): Verdict {
  const [first, ...rest] = chain;
  if (first === undefined) {
    return {
      verdict: `triple fault on vCPU ${vcpu.id} at ${ripText(view, vcpu.regs.rip)}`,
      notes: ["The processor has no record of the exceptions that led there."],
    };
  }
  const notes = rest.map(({ what, problem }) => `That gave ${what}: ${problem}.`);
  notes.push("With no handler to go to, the processor shut down.");
  if (view !== undefined && isFetch(view, first.event)) {
    notes.push(
      "There is no code at RIP: a jump, call or return led there. After a call, the word on top of " +
        "the stack says from where.",
    );
  }
  if (view !== undefined) notes.push(...faultHints(view, first));
  return { verdict: `triple fault: ${first.what}; ${first.problem}`, notes };
}

const HLT = 0xf4;

function halted(evidence: Evidence, interruptsEnabled: boolean): Verdict {
  const { vcpu, view } = evidence;
  const { vm } = vcpu;
  const { rip } = vcpu.regs;
  // HLT has retired: RIP is behind it.
  const [before] = view?.bytes(view.rip - 1n, 1) ?? [];
  const at = before === HLT ? `by HLT at ${ripText(view, rip - 1n)}` : `at ${ripText(view, rip)}`;
  const notes: string[] = [];
  if (interruptsEnabled) {
    notes.push(
      "Interrupts are on, but no timer is armed and nothing outside the VM can raise one: " +
        "an interrupt would have to come from a device that waits for nothing.",
    );
  } else {
    notes.push(
      "With RFLAGS.IF clear only an NMI, SMI, INIT or RESET would wake it, and nothing sends one.",
    );
    if (vm.interruptController.current.hasInterrupt(vcpu)) {
      notes.push(
        "An interrupt is waiting at the interrupt controller; STI before HLT would take it.",
      );
    }
  }
  const flag = interruptsEnabled ? "on" : "off";
  return { verdict: `vCPU ${vcpu.id} halted for good ${at}, interrupts ${flag}`, notes };
}

/** Samples below which nothing is concluded from them. */
const ENOUGH_SAMPLES = 8;
/** Bytes of code that are taken for one loop. */
const LOOP_BYTES = 4096n;
/** Exits that look alike before they are called polling. */
const ENOUGH_EXITS = 8;

/** What keeps a vCPU busy. */
function busy({ vcpu, view, exits, hotSpots }: Evidence): string[] {
  const notes: string[] = [];
  const samples = hotSpots.reduce((sum, spot) => sum + spot.samples, 0);
  if (samples >= ENOUGH_SAMPLES) {
    const rips = hotSpots.map(({ rip }) => rip);
    const low = rips.reduce((a, b) => (a < b ? a : b));
    const high = rips.reduce((a, b) => (a > b ? a : b));
    const [top] = hotSpots;
    if (high - low < LOOP_BYTES) {
      const where = low === high
        ? `are at ${ripText(view, low)}`
        : `lie between ${ripText(view, low)} and ${ripText(view, high)}`;
      notes.push(`It loops: all of the last ${samples} samples of vCPU ${vcpu.id} ${where}.`);
    } else if (top !== undefined) {
      notes.push(`${top.samples} of the last ${samples} samples are at ${ripText(view, top.rip)}.`);
    }
  }
  const own = exits.filter(({ vcpuId }) => vcpuId === vcpu.id);
  const last = own.at(-1);
  const ago = last === undefined ? vcpu.vm.instructions : vcpu.vm.instructions - last.instructions;
  if (last === undefined && exits.length > 0) {
    notes.push(`None of the VM's last ${exits.length} exits is its own.`);
  } else if (last === undefined) notes.push(`It never exited in ${count(ago)}.`);
  else if (ago > 100_000) notes.push(`Its last exit was ${count(ago)} ago.`);
  else if (own.length >= ENOUGH_EXITS && own.every((exit) => exit.rip === last.rip)) {
    notes.push(
      `It polls: the last ${own.length} exits are all ${last.reason} (${last.detail}) from ` +
        `${ripText(view, last.rip)}.`,
    );
  }
  return notes;
}

function count(instructions: number): string {
  const grouped = instructions.toString().replace(/\B(?=(\d{3})+$)/g, ",");
  return instructions === 1 ? "1 instruction" : `${grouped} instructions`;
}

function failed(error: Error): Verdict {
  const notes: string[] = [];
  const cause = error instanceof PluginError ? error.cause : error;
  if (cause instanceof UnimplementedError) {
    notes.push("This is a limit of the framework, not necessarily a fault of the guest.");
  } else if (error instanceof PluginError) {
    notes.push(`Plugin "${error.plugin}" threw; the VM is whole and can be inspected.`);
  }
  return { verdict: `error: ${error.message}`, notes };
}
