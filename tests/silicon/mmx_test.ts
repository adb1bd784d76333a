/**
 * When MMX instructions may be executed (SDM vol. 3A, 12.1 and 12.5), what they leave of the x87 state, and
 * faults of their operands. What they compute is in the recorded vectors.
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, S, Vector } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench();
const { DATA } = Place;

/** Runs `code` with RBX at the data; the first exception, if there is one. */
function run(code: string, prepare: () => void = () => {}, on = bench): number | undefined {
  on.long();
  on.state.setRegister(3, BigInt(DATA));
  on.state.setRegister(7, BigInt(DATA));
  on.state.set(S.cr4, on.state.get(S.cr4) | BigInt(Cr4.OSFXSR));
  on.state.set32(S.fpuControl, 0x37f);
  on.state.set32(S.fpuStatus, 0);
  on.state.set32(S.fpuTag, 0xffff);
  prepare();
  return on.execute(hex(`${code} f4`), 10).events[0]?.vector;
}

const CODES = [
  ..."0f fc c1,0f fc 03,0f 6e c0,0f 7f 03,0f 77,0f 71 d1 03,0f c4 c0 01".split(","),
  ..."0f d7 c1,0f e7 03,0f f7 c1,f3 0f d6 c1,f2 0f d6 c1".split(","),
];

Deno.test("#UD with CR0.EM, #NM with CR0.TS, #MF for a pending exception, in that order", () => {
  const with0 = (bits: number, status = 0) => (): void => {
    bench.state.set(S.cr0, bench.state.get(S.cr0) | BigInt(bits));
    bench.state.set32(S.fpuStatus, status);
    if (status !== 0) bench.state.set32(S.fpuControl, 0x37e);
  };
  for (const code of CODES) {
    assertEquals(run(code), undefined, code);
    assertEquals(run(code, with0(Cr0.MP)), undefined, code);
    assertEquals(run(code, with0(Cr0.EM | Cr0.TS, 0x8081)), Vector.UD, code);
    assertEquals(run(code, with0(Cr0.TS, 0x8081)), Vector.NM, code);
    assertEquals(run(code, with0(0, 0x8081)), Vector.MF, code);
  }
});

Deno.test("instructions of a processor without MMX, SSE or SSE2 are #UD", () => {
  const without = new Bench({ features: { mmx: false, sse: false } });
  for (const code of CODES) assertEquals(run(code, () => {}, without), Vector.UD, code);
  const withoutSsse3 = new Bench({ features: { ssse3: false } });
  assertEquals(run("0f 38 00 c1"), undefined);
  assertEquals(run("0f 38 00 c1", () => {}, withoutSsse3), Vector.UD);
  const withMmx = new Bench({ features: { sse: false } });
  assertEquals(run("0f fc c1", () => {}, withMmx), undefined);
  assertEquals(run("0f e0 c1", () => {}, withMmx), Vector.UD);
  assertEquals(run("0f d4 c1", () => {}, withMmx), Vector.UD);
});

Deno.test("an operand that faults leaves the x87 state as it is", () => {
  const absent = 0x60_0000;
  const entry = Place.TABLES + 0x2000 + 8 * 3;
  const before = bench.get64(entry);
  bench.set64(entry, 0n);
  try {
    for (const code of ["0f fc 03", "0f 6f 03", "0f 7f 03", "0f e7 03", "0f f7 c1"]) {
      for (const into of [0, 1, 7]) {
        bench.fill(absent - 16, 16, 0);
        const vector = run(code, () => {
          bench.state.setRegister(3, BigInt(absent - into));
          bench.state.setRegister(7, BigInt(absent - into));
          bench.state.set32(S.fpuStatus, 0x3800);
          for (let n = 0; n < 8; n++) bench.state.setAt(S.st + 16 * n, 0x8080_8080_8080_8080n);
        });
        assertEquals(vector, Vector.PF, `${code}, ${into} bytes before the page`);
        assertEquals([S.fpuStatus, S.fpuTag].map((field) => bench.state.get32(field)), [
          0x3800,
          0xffff,
        ]);
        assertEquals(bench.read(absent - 16, 16), new Uint8Array(16));
      }
    }
    // Bytes that are not selected need not be there.
    const none = run("0f f7 c1", () => {
      bench.state.setRegister(7, BigInt(absent));
      for (let n = 0; n < 8; n++) bench.state.setAt(S.st + 16 * n, 0n);
    });
    assertEquals(none, undefined);
  } finally {
    bench.set64(entry, before);
  }
});
