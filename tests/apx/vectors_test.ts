/**
 * Every line of the lists of encodings, valid and invalid, on the bare processor and under each hypervisor:
 * registers, flags, memory, system registers and the exception are the same, and what the evaluator of the
 * bare processor's tests says where that knows the instruction.
 */
import { assert, assertEquals } from "@std/assert";
import {
  access,
  ApxBench,
  assertSame,
  DATA,
  PROGRAM,
  type Snapshot,
} from "../silicon/apx/apx_bench.ts";
import { type Line, readList } from "../silicon/apx/lists.ts";
import { evaluate, type ReferenceState } from "../silicon/apx/reference.ts";
import { Prng } from "../vectors/prng.ts";
import { ALL_HOSTS } from "./long_guest.ts";
import { CODE64, FREE_TASK, Stepper } from "./stepper.ts";

const SEED = 0x5eed_0084;
console.log(`seed ${SEED.toString(16)}`);

/** Makes states in which an instruction has a defined result. */
const bench = new ApxBench();
const steppers = ALL_HOSTS.map((host) => new Stepper(host));

/** Registers with which system instructions succeed; with random ones most fault. */
const PRESETS: Readonly<Record<string, Readonly<Record<number, number>>>> = {
  "mov ds, r16d": { 16: 0 },
  "fnstcw word ptr [r19]": { 19: DATA },
  "fldcw word ptr [r20]": { 20: DATA },
  "clflush byte ptr [r18]": { 18: DATA },
  "lgdt [r16]": { 16: DATA },
  "sidt [r17]": { 17: DATA },
  "lmsw r17w": { 17: 0xb },
  "lldt r18w": { 18: 0 },
  "ltr r19w": { 19: FREE_TASK },
  "lar r16d, r17d": { 17: CODE64 },
  "lsl r18, r19d": { 19: CODE64 },
  "mov cr4, r17": { 17: 0x4_00a0 },
  "wrmsrns 0x174, rax": { 0: 0x25 },
  "wrmsrns -1073741696, rcx": { 1: 0x501 },
  "rdmsr": { 1: 0x174 },
  // With a good address VMRUN exits under svm, whose guests always have EFER.SVME set in hardware; with a
  // bad one the processor raises #GP before.
  "ok: vmrun rax": { 0: DATA },
};

/** VMCALL is a call to a hypervisor where there is one that takes it. */
const NOT_ALIKE = /vmcall/;

/** A state in which `code` is about to be executed. */
function stateFor(code: readonly number[], text: string, random: Prng): Snapshot {
  bench.start();
  bench.randomize(random);
  bench.arrange(code, random);
  for (const [n, value] of Object.entries(PRESETS[text] ?? {})) {
    bench.state.setRegister(Number(n), BigInt(value));
  }
  const before = bench.snapshot();
  before.memory.fill(0x90, PROGRAM - DATA);
  before.memory.set(code, PROGRAM - DATA);
  return before;
}

/** What the evaluator makes of it; `undefined` if it does not know the instruction. */
function evaluated(code: readonly number[], before: Snapshot, name: string) {
  const memory = before.memory.slice();
  const { flags, rip } = before;
  const state: ReferenceState = {
    registers: [...before.registers],
    flags,
    rip,
    ...access(memory, name),
  };
  let verdict;
  try {
    verdict = evaluate(code, state);
  } catch (error) {
    // An access outside of the data that is watched, which only instructions with presets make.
    if (!(error instanceof RangeError)) throw error;
  }
  if (verdict === undefined) return undefined;
  return {
    verdict,
    after: { registers: state.registers, flags: state.flags, rip: state.rip, memory },
  };
}

/**
 * Runs one line everywhere; whether the evaluator knows it, and the vector it raised, or −1. The evaluator
 * knows nothing of encodings that are undefined.
 */
function everywhere(
  { code, columns, name }: Line,
  random: Prng,
  valid: boolean,
): { readonly known: boolean; readonly vector: number } {
  const before = stateFor(code, columns[0]!, random);
  const expected = valid ? evaluated(code, before, name) : undefined;
  let first:
    | { outcome: string; vector: number; after: Snapshot; system: unknown; extended: Uint8Array }
    | undefined;
  for (const stepper of steppers) {
    const label = `${stepper.host}: ${name}`;
    stepper.restore();
    stepper.load(before);
    const outcome = stepper.run(1);
    const vector = stepper.vector();
    const found = {
      outcome,
      vector,
      after: stepper.snapshot(),
      system: stepper.system(),
      extended: stepper.extended(),
    };
    first ??= found;
    assertEquals([outcome, vector], [first.outcome, first.vector], label);
    assertSame(found.after, first.after, 0, label);
    assertEquals(found.system, first.system, label);
    const differs = found.extended.findIndex((byte, k) => byte !== first!.extended[k]);
    assertEquals(differs, -1, `${label}: byte ${differs} of extended state`);
    assertEquals(stepper.written, steppers[0]!.written, label);
    if (expected === undefined) continue;
    const { verdict, after } = expected;
    const fault = verdict.fault === undefined ? -1 : Number(/^#(\d+)/.exec(verdict.fault)![1]);
    assertEquals([outcome, vector], ["limit", fault], label);
    if (fault < 0) assertSame(found.after, after, verdict.undefinedFlags, label);
  }
  return { known: expected !== undefined, vector: first!.vector };
}

Deno.test("every encoding of the list does the same under every hypervisor", () => {
  let known = 0;
  const lines = readList("encodings.tsv");
  for (const [number, line] of lines.entries()) {
    known += Number(everywhere(line, new Prng(SEED, number), true).known);
  }
  assert(known > 850, `${known} of ${lines.length} known to the evaluator`);
  // The one line that writes MSR 830h.
  assertEquals(steppers[0]!.written.length, 1);
});

Deno.test("every line of the list of invalid encodings is undefined under every hypervisor", () => {
  for (const [number, line] of readList("invalid.tsv").entries()) {
    const [expected] = line.columns;
    if (NOT_ALIKE.test(expected!)) continue;
    const { vector } = everywhere(line, new Prng(SEED, 0x1_0000 + number), false);
    if (expected === "UD") assertEquals(vector, 6, line.name);
  }
});
