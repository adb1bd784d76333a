/**
 * When SSE may be used, how its memory operands have to lie, MXCSR, and FXSAVE and FXRSTOR (APM vol. 2,
 * ch. 11; SDM vol. 3, 2.5 and 14).
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, Efer, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench();
const OSFXSR = BigInt(Cr4.OSFXSR);
const RAX = 0, RDI = 7;
const NM = "#7", UD = "#6", GP = "#13(0)";

function start(cr0 = 0, osfxsr = true, cpl = 0): void {
  bench.long(cpl);
  const { state } = bench;
  if (osfxsr) state.set(S.cr4, state.get(S.cr4) | OSFXSR);
  state.set(S.cr0, state.get(S.cr0) | BigInt(cr0));
  bench.processor.refresh();
  state.setRegister(RDI, BigInt(Place.DATA));
  bench.fill(Place.DATA, 0x2000, 0x11);
}

/** Quadword `half` of vector register `n`. */
const at = (n: number, half: number): number => S.vectors + 64 * n + 8 * half;

Deno.test("CR0.EM, CR0.TS and CR4.OSFXSR decide whether an SSE instruction is #UD or #NM", () => {
  // CR0, OSFXSR, PADDB xmm0, xmm1, MOVUPS xmm0, [rdi], MOVNTI, FXSAVE, LDMXCSR
  const rows: readonly (readonly [number, boolean, string, string, string])[] = [
    [0, true, "ok", "ok", "ok"],
    [Cr0.MP, true, "ok", "ok", "ok"],
    [0, false, UD, "ok", "ok"],
    [Cr0.EM, true, UD, "ok", NM],
    [Cr0.TS, true, NM, "ok", NM],
    [Cr0.TS | Cr0.EM, true, UD, "ok", NM],
    [Cr0.TS, false, UD, "ok", NM],
  ];
  for (const [cr0, osfxsr, vector, general, fx] of rows) {
    const name = `CR0 ${cr0.toString(16)}, OSFXSR ${osfxsr}`;
    for (const code of ["66 0f fc c1", "0f 10 07", "0f 11 07", "0f ae 17", "0f 50 c1"]) {
      start(cr0, osfxsr);
      bench.set32(Place.DATA, 0x1f80);
      assertEquals(bench.judge(hex(code)), vector, `${name}: ${code}`);
    }
    start(cr0, osfxsr);
    assertEquals(bench.judge(hex("0f c3 07")), general, `${name}: movnti`);
    start(cr0, osfxsr);
    assertEquals(bench.judge(hex("0f ae 07")), fx, `${name}: fxsave`);
  }
});

Deno.test("16 bytes in memory have to be aligned, but for the moves that say so", () => {
  const rows: readonly (readonly [string, string, string])[] = [
    ["movaps xmm0, m", "0f 28 07", GP],
    ["movaps m, xmm0", "0f 29 07", GP],
    ["movdqa xmm0, m", "66 0f 6f 07", GP],
    ["movntdq m, xmm0", "66 0f e7 07", GP],
    ["paddb xmm0, m", "66 0f fc 07", GP],
    ["andps xmm0, m", "0f 54 07", GP],
    ["psllw xmm0, m", "66 0f f1 07", GP],
    ["movups xmm0, m", "0f 10 07", "ok"],
    ["movups m, xmm0", "0f 11 07", "ok"],
    ["movdqu xmm0, m", "f3 0f 6f 07", "ok"],
    ["movdqu m, xmm0", "f3 0f 7f 07", "ok"],
    ["movsd xmm0, m64", "f2 0f 10 07", "ok"],
    ["movss xmm0, m32", "f3 0f 10 07", "ok"],
    ["movq xmm0, m64", "f3 0f 7e 07", "ok"],
    ["movhps xmm0, m64", "0f 16 07", "ok"],
  ];
  for (const [name, code, misaligned] of rows) {
    for (const offset of [0, 1, 8, 16]) {
      start();
      bench.state.setRegister(RDI, BigInt(Place.DATA + offset));
      assertEquals(bench.judge(hex(code)), offset % 16 === 0 ? "ok" : misaligned, name);
    }
  }
});

Deno.test("a store across two pages of which the second is missing leaves the first as it was", () => {
  start();
  const last = 0x7f_fffc;
  bench.fill(last, 4, 0x22);
  bench.state.setRegister(RDI, BigInt(last));
  bench.state.setAt(at(0, 0), -1n);
  assertEquals(bench.judge(hex("0f 11 07")), "#14(2)");
  assertEquals(bench.state.get(S.cr2), 0x80_0000n);
  assertEquals(bench.get32(last), 0x2222_2222);
  start();
  bench.state.setRegister(RDI, BigInt(last));
  assertEquals(bench.judge(hex("0f 10 07")), "#14(0)");
  assertEquals(bench.state.get(S.cr2), 0x80_0000n);
});

Deno.test("a non-canonical operand is #GP, or #SS in the stack segment", () => {
  start();
  bench.state.setRegister(RDI, 1n << 47n);
  assertEquals(bench.judge(hex("0f 28 07")), GP);
  start();
  bench.state.setRegister(5, 1n << 47n);
  assertEquals(bench.judge(hex("0f 28 45 00")), "#12(0)");
});

Deno.test("LDMXCSR refuses reserved bits, STMXCSR stores it", () => {
  for (const [value, expected] of [[0xffff, "ok"], [0x1_0000, GP], [0x8000_1f80, GP]] as const) {
    start();
    bench.set32(Place.DATA, value);
    assertEquals(bench.judge(hex("0f ae 17")), expected, value.toString(16));
    assertEquals(bench.state.get32(S.mxcsr), expected === "ok" ? value : 0x1f80);
    assertEquals(bench.judge(hex("0f ae 5f 04")), "ok");
    assertEquals(bench.get32(Place.DATA + 4), expected === "ok" ? value : 0x1f80);
  }
});

Deno.test("an unmasked exception is #XM with CR4.OSXMMEXCPT and #UD without, and MXCSR tells it", () => {
  for (const [cr4, expected] of [[Cr4.OSXMMEXCPT, "#19"], [0, UD]] as const) {
    start();
    const { state } = bench;
    state.set(S.cr4, state.get(S.cr4) | BigInt(cr4));
    // DIVSD of 1 by 0 with ZM clear.
    state.set32(S.mxcsr, 0x1d80);
    state.setAt(at(0, 0), 0x3ff0_0000_0000_0000n);
    state.setAt(at(1, 0), 0n);
    assertEquals(bench.judge(hex("f2 0f 5e c1")), expected);
    assertEquals(state.get32(S.mxcsr), 0x1d84);
    assertEquals(state.at(at(0, 0)), 0x3ff0_0000_0000_0000n);
    assertEquals(state.get(S.rip), BigInt(Place.CODE));
  }
});

Deno.test("a page fault of the operand comes before any exception of the arithmetic", () => {
  start();
  bench.state.set32(S.mxcsr, 0);
  bench.state.setAt(at(0, 0), 0x7ff0_0000_0000_0001n);
  bench.state.setRegister(RDI, 0x80_0000n);
  assertEquals(bench.judge(hex("f2 0f 58 07")), "#14(0)");
  assertEquals(bench.state.get32(S.mxcsr), 0);
});

Deno.test("MASKMOVDQU stores where the mask says, and touches nothing if it says nowhere", () => {
  start();
  bench.state.setAt(at(0, 0), 0x0102_0304_0506_0708n);
  bench.state.setAt(at(0, 1), -1n);
  bench.state.setAt(at(1, 0), 0x8000_0000_0000_0080n);
  bench.state.setAt(at(1, 1), 0x7f7f_7f7f_7f7f_7f7fn);
  assertEquals(bench.judge(hex("66 0f f7 c1")), "ok");
  assertEquals(bench.get64(Place.DATA), 0x0111_1111_1111_1108n);
  assertEquals(bench.get64(Place.DATA + 8), 0x1111_1111_1111_1111n);
  bench.state.setAt(at(1, 0), 0n);
  bench.state.setRegister(RDI, 0x4000_0000n);
  assertEquals(bench.judge(hex("66 0f f7 c1")), "ok");
});

Deno.test("vectors outside of 64-bit mode: eight registers, segments with limits", () => {
  bench.protect();
  bench.state.set(S.cr4, bench.state.get(S.cr4) | OSFXSR);
  bench.processor.refresh();
  bench.state.setRegister(RDI, BigInt(Place.DATA));
  bench.set64(Place.DATA, 0x1234n);
  assertEquals(bench.judge(hex("66 0f 6f 3f")), "ok");
  assertEquals(bench.state.at(at(7, 0)), 0x1234n);
  bench.real();
  bench.state.set(S.cr4, OSFXSR);
  bench.processor.refresh();
  bench.state.setRegister(RDI, 0xfff0n);
  bench.write(0x6000, hex("0f 10 3d"));
  assertEquals(bench.judge(hex("0f 10 3d")), "ok");
  bench.state.setRegister(RDI, 0xfff1n);
  assertEquals(bench.judge(hex("0f 10 3d")), "#13");
});

Deno.test("FXSAVE and FXRSTOR carry x87 and SSE state, in both formats", () => {
  for (const wide of [true, false]) {
    start();
    const { state } = bench;
    const prefix = wide ? "48 " : "";
    state.set32(S.fpuControl, 0x27f);
    state.set32(S.fpuStatus, 0x3800);
    state.set32(S.fpuTag, 0x3fff);
    state.set32(S.fpuOpcode, 0x123);
    state.set(S.fpuInstruction, 0x1234_5678_9abcn);
    state.set(S.fpuData, 0x2345_6789_abcdn);
    state.set32(S.mxcsr, 0x3f82);
    // TOP is 7, so that ST0 is the last of the registers.
    const st0 = S.st + 16 * 7;
    state.setAt(st0, 0x8000_0000_0000_0001n);
    state.setAt(st0 + 8, 0x4000n);
    for (let n = 0; n < 16; n++) {
      state.setAt(at(n, 0), BigInt(n));
      state.setAt(at(n, 1), ~BigInt(n));
    }
    assertEquals(bench.judge(hex(prefix + "0f ae 07")), "ok");
    assertEquals(bench.get64(Place.DATA), 0x0123_0080_3800_027fn);
    assertEquals(bench.get64(Place.DATA + 8), wide ? 0x1234_5678_9abcn : 0x5678_9abcn);
    assertEquals(bench.get64(Place.DATA + 16), wide ? 0x2345_6789_abcdn : 0x6789_abcdn);
    assertEquals(bench.get32(Place.DATA + 24), 0x3f82);
    assertEquals(bench.get32(Place.DATA + 28), 0xffff);
    assertEquals(bench.get64(Place.DATA + 32), 0x8000_0000_0000_0001n);
    assertEquals(bench.get16(Place.DATA + 40), 0x4000);
    for (let n = 0; n < 16; n++) {
      assertEquals(bench.get64(Place.DATA + 160 + 16 * n), BigInt(n));
      assertEquals(bench.get64(Place.DATA + 168 + 16 * n), BigInt.asUintN(64, ~BigInt(n)));
    }
    assertEquals(bench.get64(Place.DATA + 512), 0x1111_1111_1111_1111n);
    state.set32(S.mxcsr, 0x1f80);
    state.set32(S.fpuTag, 0xffff);
    for (let n = 0; n < 16; n++) state.setAt(at(n, 0), 99n);
    state.setAt(at(3, 2), 0x77n);
    assertEquals(bench.judge(hex(prefix + "0f ae 0f")), "ok");
    assertEquals(state.get32(S.mxcsr), 0x3f82);
    assertEquals(state.get32(S.fpuTag), 0x3fff);
    assertEquals(state.get(S.fpuInstruction), wide ? 0x1234_5678_9abcn : 0x5678_9abcn);
    for (let n = 0; n < 16; n++) assertEquals(state.at(at(n, 0)), BigInt(n));
    // What is above the XMM registers is not part of it.
    assertEquals(state.at(at(3, 2)), 0x77n);
  }
});

Deno.test("FXSAVE wants 16-byte alignment, FXRSTOR an MXCSR without reserved bits", () => {
  for (const code of ["0f ae 07", "0f ae 0f"]) {
    start();
    bench.state.setRegister(RDI, BigInt(Place.DATA + 8));
    assertEquals(bench.judge(hex(code)), GP);
  }
  start();
  bench.set32(Place.DATA + 24, 0x1_0000);
  bench.state.setAt(at(0, 0), 5n);
  assertEquals(bench.judge(hex("0f ae 0f")), GP);
  assertEquals(bench.state.at(at(0, 0)), 5n);
});

Deno.test("EFER.FFXSR leaves the XMM registers out in 64-bit code at CPL 0 alone", () => {
  for (
    const [cpl, ffxsr, saved] of [[0, true, false], [3, true, true], [0, false, true]] as const
  ) {
    start(0, true, cpl);
    if (ffxsr) bench.state.set(S.efer, bench.state.get(S.efer) | BigInt(Efer.FFXSR));
    bench.state.setAt(at(0, 0), 5n);
    assertEquals(bench.judge(hex("0f ae 07")), "ok");
    assertEquals(bench.get64(Place.DATA + 160), saved ? 5n : 0x1111_1111_1111_1111n);
  }
});

Deno.test("without the feature an instruction is undefined", () => {
  const without = new Bench({ features: { sse2: false } });
  without.long();
  without.state.set(S.cr4, without.state.get(S.cr4) | OSFXSR);
  without.processor.refresh();
  assertEquals(without.judge(hex("66 0f fc c1")), UD);
  assertEquals(without.judge(hex("0f 54 c1")), "ok");
  assertEquals(without.state.register(RAX), 0n);
});
