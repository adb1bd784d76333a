/**
 * Records what a real processor makes of single vector instructions.
 *
 *     deno task vectors:record:simd
 *
 * Needs x86-64 Linux and gcc. Forms whose feature the processor does not have are left out; the file is
 * to be recorded where all are there.
 *
 * @module
 */
import { SIMD_FORMS } from "./forms.ts";
import { type SimdResult, writeSimd } from "./file.ts";
import { ARITHMETIC, caseCode, caseCount, initialState } from "./inputs.ts";

const STATE_BYTES = 96 + 4 * 8 + 8 + 64;
const TEST_BYTES = 16 + STATE_BYTES;
const RESULT_BYTES = STATE_BYTES + 8;
const SIGFPE = 8;

function compile(): string {
  const program = Deno.makeTempFileSync({ prefix: "simd-record-" });
  const source = new URL("./record.c", import.meta.url).pathname;
  const { code, stderr } = new Deno.Command("gcc", {
    args: ["-O1", "-mavx", "-o", program, source],
  })
    .outputSync();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return program;
}

async function main(): Promise<void> {
  const info = await Deno.readTextFile("/proc/cpuinfo");
  const features = new Set(/^flags\s*: (.*)$/m.exec(info)?.[1]?.split(" "));
  const processor = ["vendor_id", "cpu family", "model"]
    .map((field) => new RegExp(`^${field}\\s*: (.*)$`, "m").exec(info)?.[1]).join(" ");
  const forms = SIMD_FORMS.filter(({ feature }) => features.has(feature));
  const count = forms.reduce((sum, form) => sum + caseCount(form), 0);
  const input = new Uint8Array(4 + count * TEST_BYTES);
  const view = new DataView(input.buffer);
  view.setUint32(0, count, true);
  let at = 4;
  for (const form of forms) {
    for (let k = 0; k < caseCount(form); k++) {
      const code = caseCode(form, k);
      const state = initialState(form, k);
      input.set(code, at);
      input[at + 15] = code.length;
      input.set(state.vectors, at + 16);
      for (const [n, value] of state.registers.entries()) {
        view.setBigUint64(at + 112 + 8 * n, value, true);
      }
      view.setBigUint64(at + 136, BigInt(state.flags | 0x202), true);
      view.setUint32(at + 144, state.mxcsr, true);
      input.set(state.memory, at + 152);
      at += TEST_BYTES;
    }
  }
  const program = compile();
  const child = new Deno.Command(program, { stdin: "piped", stdout: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  const written = writer.write(input).then(() => writer.close());
  const { code, stdout } = await child.output();
  await written;
  Deno.removeSync(program);
  if (code !== 0 || stdout.length !== count * RESULT_BYTES) {
    throw new Error(`the recorder ended with status ${code} after ${stdout.length} bytes`);
  }
  const out = new DataView(stdout.buffer);
  const results = new Map<string, SimdResult[]>();
  at = 0;
  for (const form of forms) {
    const list: SimdResult[] = [];
    for (let k = 0; k < caseCount(form); k++) {
      const signal = out.getUint32(at + STATE_BYTES, true);
      if (signal !== 0 && signal !== SIGFPE) {
        throw new Error(`${form.name}, case ${k}: signal ${signal}`);
      }
      list.push({
        vectors: stdout.slice(at, at + 96),
        registers: [0, 1, 2].map((n) => out.getBigUint64(at + 96 + 8 * n, true)),
        flags: out.getUint32(at + 120, true) & ARITHMETIC,
        mxcsr: out.getUint32(at + 128, true),
        memory: stdout.slice(at + 136, at + 200),
        faulted: signal === SIGFPE,
      });
      at += RESULT_BYTES;
    }
    results.set(form.name, list);
  }
  const bytes = await writeSimd(processor, results);
  console.log(`${forms.length} forms, ${count} cases, ${bytes} bytes, on ${processor}`);
}

if (import.meta.main) await main();
