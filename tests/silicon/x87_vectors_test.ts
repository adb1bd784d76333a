/**
 * x87 and MMX instructions recorded on a real processor, run on ours: registers, tags, control and status word,
 * pointers, memory operands and RFLAGS.
 */
import { assertEquals } from "@std/assert";
import { Cr4, S, type Tier } from "../../plugins/cpu/mod.ts";
import { same } from "../vectors/x87/compare.ts";
import { checkSum, load, normalized } from "../vectors/x87/file.ts";
import { FORMS, inputOf } from "../vectors/x87/forms.ts";
import {
  CODE_BASE,
  INPUT_BASE,
  OUTPUT_BASE,
  programOf,
  Record,
  REGISTER_BYTES,
  State,
} from "../vectors/x87/layout.ts";
import { Bench } from "./bench.ts";

const HLT = 0xf4;
/** Interpreted, and every fourth form compiled, which takes a while for each. */
const BENCHES: readonly (readonly [Tier, Bench, number])[] = [
  [1, new Bench({ tier: 1 }), 1],
  [2, new Bench({ tier: 2 }), 4],
];
const recorded = await load();

/** Runs a form on its records and yields what it left. */
function run(bench: Bench, index: number): Uint8Array<ArrayBuffer> {
  const { code, count, name } = FORMS[index]!;
  const program = programOf(code, count);
  program[program.length - 1] = HLT;
  const input = inputOf(index);
  bench.long();
  bench.state.set(S.cr4, bench.state.get(S.cr4) | BigInt(Cr4.OSFXSR));
  bench.write(INPUT_BASE, input);
  bench.fill(OUTPUT_BASE, input.length, 0);
  assertEquals(Number(bench.state.get(S.rip)), CODE_BASE);
  const { events } = bench.execute(program, 100 * count);
  assertEquals(events, [], name);
  return normalized(bench.read(OUTPUT_BASE, input.length) as Uint8Array<ArrayBuffer>);
}

/** A record as text. */
function describe(record: Uint8Array<ArrayBuffer>): string {
  const view = new DataView(record.buffer, record.byteOffset);
  const hex = (value: number | bigint, digits: number): string =>
    value.toString(16).padStart(digits, "0");
  const word = (at: number): string => hex(view.getUint16(at, true), 4);
  const real = (at: number): string => `${word(at + 8)}:${hex(view.getBigUint64(at, true), 16)}`;
  const registers = Array.from({ length: 8 }, (_, n) => n)
    .map((n) => real(State.REGISTERS + REGISTER_BYTES * n));
  const pointers = [State.INSTRUCTION, State.SELECTOR, State.DATA, State.DATA_SELECTOR]
    .map((at) => hex(view.getUint32(at, true), 8));
  return `control ${word(0)} status ${word(4)} tags ${word(8)} pointers ${pointers.join(" ")} ` +
    `R0-R7 ${registers.join(" ")} memory ${real(Record.MEMORY)} flags ${word(Record.FLAGS)}`;
}

Deno.test("the x87 vectors are of the programs and operands that are generated now", () => {
  assertEquals(recorded.header.forms, FORMS.map(({ name }, index) => [name, checkSum(index)]));
});

for (const [tier, bench, step] of BENCHES) {
  Deno.test(`recorded x87 and MMX instructions do in tier ${tier} what they did on silicon`, () => {
    const differences: string[] = [];
    for (const [index, form] of FORMS.entries()) {
      if (index % step !== 0) continue;
      const { name, count } = form;
      const left = run(bench, index);
      const before = normalized(inputOf(index));
      const expected = recorded.outputs[index]!;
      for (let k = 0; k < count; k++) {
        const record = (records: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
          records.subarray(k * Record.BYTES, (k + 1) * Record.BYTES);
        if (same(form, record(left), record(expected))) continue;
        differences.push(
          `${name}, record ${k}\n  before   ${describe(record(before))}\n  recorded ${
            describe(record(expected))
          }\n` +
            `  is       ${describe(record(left))}`,
        );
        break;
      }
    }
    assertEquals(differences.slice(0, 10).join("\n"), "");
  });
}
