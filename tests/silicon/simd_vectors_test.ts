/**
 * Vector instructions recorded on a real processor, run on ours: registers, flags, MXCSR, memory, #XM.
 */
import { assertEquals } from "@std/assert";
import { Cr4, S, Xcr0 } from "../../plugins/cpu/mod.ts";
import { readSimd, type SimdResult } from "../vectors/simd/file.ts";
import { SIMD_FORMS, type SimdForm } from "../vectors/simd/forms.ts";
import { ARITHMETIC, caseCode, initialState } from "../vectors/simd/inputs.ts";
import { Bench, Place, verdict } from "./bench.ts";

const CR4 = BigInt(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE);

function hex(bytes: Uint8Array | readonly number[]): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The same bytes as one number, most significant first. */
const number = (bytes: Uint8Array): string => hex(bytes.slice().reverse());

function setVector(bench: Bench, n: number, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let k = 0; k < 4; k++) {
    bench.state.setAt(S.vectors + 64 * n + 8 * k, view.getBigUint64(8 * k, true));
  }
}

function vector(bench: Bench, n: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(32));
  for (let k = 0; k < 4; k++) {
    view.setBigUint64(8 * k, bench.state.at(S.vectors + 64 * n + 8 * k), true);
  }
  return new Uint8Array(view.buffer);
}

const HLT = 0xf4;
/** A jump to itself. */
const SPIN = [0xeb, 0xfe];
/** Instructions of tier 2 from look to look, or a few more: code that a look finds is compiled. */
const SLICE = 512;

/** Relative error that the manuals allow RCPPS and RSQRTPS, twice: silicon has one of its own. */
const ERROR = 2 * 1.5 * 2 ** -12;

/** Puts what was recorded in place of each single of `is` that is near enough to it. */
function approximate(is: Uint8Array, recorded: Uint8Array): void {
  const ours = new DataView(is.buffer);
  const theirs = new DataView(recorded.buffer, recorded.byteOffset);
  for (let at = 0; at < 32; at += 4) {
    const value = theirs.getFloat32(at, true);
    const error = Math.abs(ours.getFloat32(at, true) - value);
    if (error <= ERROR * Math.abs(value)) ours.setUint32(at, theirs.getUint32(at, true), true);
  }
}

/** Runs case `k`; what differs from what was recorded, or "". */
function difference(
  bench: Bench,
  form: SimdForm,
  k: number,
  recorded: SimdResult,
  compiled: boolean,
): string {
  const { state } = bench;
  if (compiled) {
    state.set(S.rip, BigInt(Place.HANDLERS));
    bench.execute(SPIN, SLICE / 8);
  }
  const before = initialState(form, k);
  for (let n = 0; n < 3; n++) setVector(bench, n, before.vectors.subarray(32 * n, 32 * n + 32));
  for (let n = 0; n < 3; n++) state.setRegister(n, before.registers[n]!);
  state.setRegister(7, BigInt(Place.DATA));
  state.set32(S.mxcsr, before.mxcsr);
  bench.flags = before.flags;
  bench.write(Place.DATA, before.memory);
  state.set(S.rip, BigInt(Place.CODE));
  // An instruction that is run alone is never compiled.
  const became = compiled
    ? verdict(bench.execute([...caseCode(form, k), HLT], 0x1_0000))
    : bench.judge(caseCode(form, k));
  bench.processor.wake();
  const wrong: string[] = [];
  const compare = (what: string, is: string, expected: string): void => {
    if (is !== expected) wrong.push(`${what} is ${is}, recorded ${expected}`);
  };
  compare("verdict", became, recorded.faulted ? "#19" : "ok");
  const vectors = [0, 1, 2].map((n) => vector(bench, n));
  if (form.approximate) approximate(vectors[0]!, recorded.vectors);
  for (let n = 0; n < 3; n++) {
    compare(`ymm${n}`, number(vectors[n]!), number(recorded.vectors.subarray(32 * n, 32 * n + 32)));
    compare(`register ${n}`, state.register(n).toString(16), recorded.registers[n]!.toString(16));
  }
  compare("flags", (bench.flags & ARITHMETIC).toString(16), recorded.flags.toString(16));
  compare("MXCSR", state.get32(S.mxcsr).toString(16), recorded.mxcsr.toString(16));
  compare("memory", hex(bench.read(Place.DATA, 64)), hex(recorded.memory));
  if (wrong.length === 0) return "";
  const operands = [0, 1, 2].map((n) => number(before.vectors.subarray(32 * n, 32 * n + 32)));
  return `${form.name}, case ${k} (${hex(caseCode(form, k))}, MXCSR ${
    before.mxcsr.toString(16)
  }):\n  ${wrong.join("\n  ")}\n  operands ${operands.join("\n           ")}\n  memory   ${
    number(before.memory.subarray(0, 32))
  }`;
}

/**
 * Which cases are run in a tier. In the second each is compiled, which takes its time: one in seven of those
 * whose code depends on a constant, others of each form.
 */
type Chosen = (form: SimdForm, index: number, k: number) => boolean;
const TIERS: readonly (readonly [tier: 1 | 2, chosen: Chosen])[] = [
  [1, () => true],
  [2, ({ constants }, index, k) => constants.length > 0 && (index + k) % 7 === 0],
];

for (const [tier, chosen] of TIERS) {
  Deno.test(`tier ${tier}: vector instructions do what was recorded on silicon`, async () => {
    const recorded = await readSimd();
    const bench = new Bench({ model: "max", tier });
    bench.long(0);
    bench.state.set(S.cr4, CR4);
    bench.state.set(S.xcr0, BigInt(Xcr0.X87 | Xcr0.SSE | Xcr0.AVX));
    bench.processor.refresh();
    const filter = Deno.env.get("SIMD_FORM");
    const differences: string[] = [];
    const bad = new Map<string, number>();
    let count = 0;
    for (const [index, form] of SIMD_FORMS.entries()) {
      if (filter !== undefined && !form.name.includes(filter)) continue;
      for (const [k, result] of recorded.get(form.name)!.entries()) {
        if (!chosen(form, index, k)) continue;
        count++;
        const found = difference(bench, form, k, result, tier === 2);
        if (found === "") continue;
        const times = (bad.get(form.name) ?? 0) + 1;
        bad.set(form.name, times);
        if (times === 1) differences.push(found);
      }
    }
    const summary = Array.from(bad, ([name, times]) => `${name}: ${times}`).join(", ");
    assertEquals(differences.slice(0, 12).join("\n"), "", summary);
    if (filter === undefined && count < 1000) throw new Error(`only ${count} cases were run`);
    const { compiled } = bench.processors.statistics.regions;
    if (tier === 2 && compiled < count) {
      throw new Error(`only ${compiled} of ${count} were compiled`);
    }
  });
}
