/**
 * Vector instructions in a loop that is compiled leave what the interpreter leaves: registers, MXCSR,
 * memory; and a fault in the middle of the loop is at its instruction.
 */
import { assert, assertEquals } from "@std/assert";
import { Cr0, Cr4, S, Xcr0 } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { code } from "./code.ts";

const ROUNDS = 3000;
const RCX = 1, RDI = 7;

/** A loop of RCX rounds; each moves RDI on by 16. */
const LOOP = code(
  "66 0f fe c1", // paddd xmm0, xmm1
  "f2 0f 58 d3", // addsd xmm2, xmm3
  "f2 0f 59 da", // mulsd xmm3, xmm2
  "66 0f 70 e0 1b", // pshufd xmm4, xmm0, 1bh
  "0f 29 27", // movaps [rdi], xmm4
  "0f 57 67 f0", // xorps xmm4, [rdi-16]
  "f2 0f 2c c2", // cvttsd2si eax, xmm2
  "66 0f 3a 22 e8 02", // pinsrd xmm5, eax, 2
  "c5 d4 58 f4", // vaddps ymm6, ymm5, ymm4
  "c4 e2 cd b8 fe", // vfmadd231pd ymm7, ymm6, ymm6
  "66 0f ef ec", // pxor xmm5, xmm4
  "48 83 c7 10", // add rdi, 16
  "48 ff c9", // dec rcx
);
const PROGRAM = [...LOOP, 0x75, 256 - (LOOP.length + 2), 0xf4];

interface Left {
  readonly vectors: readonly bigint[];
  readonly mxcsr: number;
  readonly rip: bigint;
  readonly rdi: bigint;
  readonly memory: readonly number[];
  readonly events: readonly number[];
}

function run(tier: 1 | 2, from: number): { left: Left; compiled: number } {
  const bench = new Bench({ model: "max", tier });
  bench.long();
  const { state } = bench;
  const cr4 = Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
  state.set(S.cr4, state.get(S.cr4) | BigInt(cr4));
  state.set(S.xcr0, BigInt(Xcr0.X87 | Xcr0.SSE | Xcr0.AVX));
  bench.processor.refresh();
  state.setRegister(RCX, BigInt(ROUNDS));
  state.setRegister(RDI, BigInt(from));
  state.setAt(S.vectors + 64, 0x0000_0003_0000_0001n);
  state.setAt(S.vectors + 3 * 64, 0x3ff0_0000_1000_0000n);
  const { events } = bench.execute(PROGRAM, 20 * ROUNDS);
  return {
    left: {
      vectors: Array.from(
        { length: 8 * 4 },
        (_, k) => state.at(S.vectors + 64 * (k >> 2) + 8 * (k & 3)),
      ),
      mxcsr: state.get32(S.mxcsr),
      rip: state.rip,
      rdi: state.register(RDI),
      memory: [...bench.read(Place.DATA, 0x100), ...bench.read(0x7f_f000, 0x1000)],
      events: events.map(({ vector }) => vector),
    },
    compiled: bench.processors.regions.compiled,
  };
}

Deno.test("a compiled loop of vector instructions ends as the interpreted one", () => {
  const interpreted = run(1, 0x10_0000);
  const compiled = run(2, 0x10_0000);
  assertEquals(interpreted.compiled, 0);
  assert(compiled.compiled > 0);
  assertEquals(compiled.left, interpreted.left);
  assertEquals(interpreted.left.rdi, BigInt(0x10_0000 + 16 * ROUNDS));
  assert((interpreted.left.mxcsr & 0x20) !== 0);
});

Deno.test("a fault in a compiled loop leaves the state of before its instruction", () => {
  // The last mapped page ends a thousand rounds on.
  const from = 0x80_0000 - 16 * 1000;
  const interpreted = run(1, from);
  const compiled = run(2, from);
  assert(compiled.compiled > 0);
  assertEquals(compiled.left, interpreted.left);
  assertEquals(interpreted.left.events[0], 14);
  assertEquals(interpreted.left.rdi, 0x80_0000n);
  assertEquals(interpreted.left.rip, BigInt(Place.CODE + LOOP.indexOf(0x29) - 1));
});

Deno.test("a compiled loop that is come to with SSE switched off faults at its first SSE instruction", () => {
  const loop = code(
    "48 83 c7 10", // add rdi, 16
    "f2 0f 59 da", // mulsd xmm3, xmm2
    "48 ff c9", // dec rcx
  );
  const outcome = (tier: 1 | 2): readonly unknown[] => {
    const bench = new Bench({ model: "max", tier });
    bench.long();
    const { state } = bench;
    state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.OSFXSR));
    bench.processor.refresh();
    const { events } = bench.execute([...loop, 0xeb, 256 - (loop.length + 2)], 4 * ROUNDS);
    assertEquals(events, []);
    assertEquals(bench.processors.regions.compiled > 0, tier === 2);
    state.set(S.cr0, state.get(S.cr0) | BigInt(Cr0.TS));
    bench.processor.refresh();
    const after = bench.run(4 * ROUNDS);
    return [after.events[0]?.vector, state.rip, state.register(RDI), state.register(RCX)];
  };
  const left = outcome(1);
  assertEquals(left[0], 7);
  assertEquals(outcome(2), left);
});
