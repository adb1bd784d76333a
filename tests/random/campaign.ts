/**
 * Random programs on all hosts, one after the other, each outcome held against those of the others.
 *
 * @module
 */
import { differences } from "./compare.ts";
import { At, LOG_BYTES, LOG_ENTRY_BYTES } from "./machine.ts";
import { Host, type HostChoice, HOSTS, type Outcome } from "./hosts.ts";
import { makeProgram, type Program } from "./program.ts";

/** What a program left on one host that it did not on another. */
export interface Finding {
  readonly seed: number;
  readonly expected: string;
  readonly actual: string;
  readonly lines: readonly string[];
}

/** What to run. */
export interface CampaignOptions {
  readonly vendors: readonly HostChoice["vendor"][];
  /** Every how manyth seed also runs compiled, and with virtual APICs; 0 for none. */
  readonly slow: number;
}

/** Counts of what happened so far. */
export interface Tally {
  programs: number;
  instructions: number;
  /** Programs that ran on the slow hosts, too. */
  slow: number;
  /** Programs that both families were held to. */
  neutral: number;
  /** Programs that did not come to their halt: in a shutdown, or still running when time was up. */
  unfinished: number;
  /** Exceptions and software interrupts that handlers logged, in the last rounds of each. */
  logged: number;
}

/** The hosts, and what they have run. */
export class Campaign implements Disposable {
  readonly tally: Tally = {
    programs: 0,
    instructions: 0,
    slow: 0,
    neutral: 0,
    unfinished: 0,
    logged: 0,
  };
  readonly #hosts: readonly Host[];
  readonly #slow: number;

  constructor({ vendors, slow }: CampaignOptions) {
    this.#slow = slow;
    const chosen = HOSTS.filter((host) => vendors.includes(host.vendor));
    this.#hosts = chosen.filter((host) => slow !== 0 || host.slow !== true).map((choice) =>
      new Host(choice)
    );
  }

  [Symbol.dispose](): void {
    for (const host of this.#hosts) host[Symbol.dispose]();
  }

  /** Runs the program of a seed everywhere. */
  check(seed: number): Finding[] {
    const program = makeProgram(seed);
    const findings: Finding[] = [];
    const slow = this.#slow !== 0 && seed % this.#slow === 0;
    const firsts: Partial<Record<HostChoice["family"], { name: string; outcome: Outcome }>> = {};
    for (const host of this.#hosts) {
      const { name, family } = host.choice;
      if (host.choice.slow === true && !slow) continue;
      const outcome = host.run(program, seed);
      const first = firsts[family];
      if (first === undefined) {
        firsts[family] = { name, outcome };
        continue;
      }
      this.#compare(seed, first, { name, outcome }, findings);
    }
    const { amd, intel } = firsts;
    if (amd !== undefined && intel !== undefined && program.neutral) {
      this.#compare(seed, amd, intel, findings);
    }
    const first = amd ?? intel;
    if (first !== undefined) this.#count(program, first.outcome, slow);
    return findings;
  }

  #compare(
    seed: number,
    a: { name: string; outcome: Outcome },
    b: { name: string; outcome: Outcome },
    findings: Finding[],
  ): void {
    const lines = differences(a.outcome, b.outcome);
    if (lines.length > 0) findings.push({ seed, expected: a.name, actual: b.name, lines });
  }

  #count(program: Program, outcome: Outcome, slow: boolean): void {
    const { tally } = this;
    tally.programs++;
    tally.instructions += outcome.instructions;
    if (slow) tally.slow++;
    if (program.neutral) tally.neutral++;
    if (outcome.reason !== "halted") tally.unfinished++;
    tally.logged += loggedIn(outcome.memory);
  }
}

/** Entries that handlers have left in the log: those with a vector, or anything behind it. */
function loggedIn(memory: Uint8Array): number {
  let entries = 0;
  for (let at = At.LOG; at < At.LOG + LOG_BYTES; at += LOG_ENTRY_BYTES) {
    if (memory.subarray(at, at + LOG_ENTRY_BYTES).some((byte) => byte !== 0)) entries++;
  }
  return entries;
}
