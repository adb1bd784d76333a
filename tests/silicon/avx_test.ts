/**
 * When AVX may be used, what VEX allows, what is cleared above results, accesses under masks, gathers, and
 * the upper halves in XSAVE areas (SDM vol. 1, 13–14; vol. 2, 2.3).
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, S, Xcr0 } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench({ model: "max" });
const RAX = 0, RDX = 2, RDI = 7;
const NM = "#7", UD = "#6", GP = "#13(0)";
const ALL: number = Xcr0.X87 | Xcr0.SSE | Xcr0.AVX;

function start(cr0 = 0, osxsave = true, xcr0 = ALL): void {
  bench.long();
  const { state } = bench;
  const cr4 = Cr4.OSFXSR | Cr4.OSXMMEXCPT | (osxsave ? Cr4.OSXSAVE : 0);
  state.set(S.cr4, state.get(S.cr4) | BigInt(cr4));
  state.set(S.cr0, state.get(S.cr0) | BigInt(cr0));
  state.set(S.xcr0, BigInt(xcr0));
  bench.processor.refresh();
  state.setRegister(RDI, BigInt(Place.DATA));
  bench.fill(Place.DATA, 0x2000, 0x11);
  for (let n = 0; n < 16; n++) set(n, [0n, 0n, 0n, 0n]);
}

/** Quadword `quad` (0–3) of vector register `n`. */
const at = (n: number, quad: number): number => S.vectors + 64 * n + 8 * quad;

function set(n: number, quads: readonly bigint[]): void {
  for (const [k, value] of quads.entries()) bench.state.setAt(at(n, k), BigInt.asUintN(64, value));
}

const get = (n: number): bigint[] => [0, 1, 2, 3].map((quad) => bench.state.at(at(n, quad)));

const VADDPS = "c5 f4 58 c2";
const VPADDB = "c5 f5 fc c2";
const VMOVUPS = "c5 fc 10 07";

Deno.test("CR0.TS, CR4.OSXSAVE and XCR0 decide whether AVX is #NM or #UD; CR0.EM does not count", () => {
  const rows: readonly (readonly [number, boolean, number, string])[] = [
    [0, true, ALL, "ok"],
    [Cr0.EM, true, ALL, "ok"],
    [Cr0.TS, true, ALL, NM],
    [0, false, ALL, UD],
    [Cr0.TS, false, ALL, UD],
    [0, true, Xcr0.X87 | Xcr0.SSE, UD],
    [0, true, Xcr0.X87, UD],
    [Cr0.TS, true, Xcr0.X87 | Xcr0.SSE, UD],
  ];
  for (const [cr0, osxsave, xcr0, expected] of rows) {
    for (const code of [VADDPS, VPADDB, VMOVUPS, "c5 f8 77", "c5 f8 ae 57 00"]) {
      start(cr0, osxsave, xcr0);
      bench.set32(Place.DATA, 0x1f80);
      assertEquals(bench.judge(hex(code)), expected, `${code}, CR0 ${cr0}, XCR0 ${xcr0}`);
    }
  }
  // CR4.OSFXSR does not count either.
  start();
  bench.state.set(S.cr4, bench.state.get(S.cr4) & ~BigInt(Cr4.OSFXSR));
  bench.processor.refresh();
  assertEquals(bench.judge(hex(VADDPS)), "ok");
});

Deno.test("VEX does not go with other prefixes, with a register in vvvv that is none, or with a wrong L or W", () => {
  const rows: readonly (readonly [string, string])[] = [
    ["66 c5 f4 58 c2", UD],
    ["f3 c5 f4 58 c2", UD],
    ["f0 c5 f4 58 c2", UD],
    ["48 c5 f4 58 c2", UD],
    ["67 c5 fc 10 07", "ok"],
    // VSQRTPS has no second source: vvvv has to be 1111.
    ["c5 fc 51 c2", "ok"],
    ["c5 f4 51 c2", UD],
    // L: VPINSRW and VMOVD are of 128 bits, VPERMQ is of 256; scalars do not care.
    ["c5 f1 c4 c2 00", "ok"],
    ["c5 f5 c4 c2 00", UD],
    ["c5 f9 6e c2", "ok"],
    ["c5 fd 6e c2", UD],
    ["c4 e3 fd 00 c2 1b", "ok"],
    ["c4 e3 f9 00 c2 1b", UD],
    ["c5 f6 58 c2", "ok"],
    ["c5 f2 58 c2", "ok"],
    // W: VPERMQ has W = 1, VPERMD W = 0.
    ["c4 e3 7d 00 c2 1b", UD],
    ["c4 e2 75 36 c2", "ok"],
    ["c4 e2 f5 36 c2", UD],
    // Maps 0 and 4 have nothing here.
    ["c4 e0 74 58 c2", UD],
    ["c4 e4 74 58 c2", UD],
  ];
  for (const [code, expected] of rows) {
    start();
    assertEquals(bench.judge(hex(code)), expected, code);
  }
});

Deno.test("outside of 64-bit mode VEX is LES and LDS unless ModRM.mod would be 3", () => {
  bench.protect();
  const { state } = bench;
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.OSXSAVE));
  state.set(S.xcr0, BigInt(ALL));
  bench.processor.refresh();
  set(1, [1n, 2n, 3n, 4n]);
  set(2, [10n, 20n, 30n, 40n]);
  assertEquals(bench.judge(hex("c5 f5 d4 c2")), "ok");
  assertEquals(get(0), [11n, 22n, 33n, 44n]);
  // VEX.vvvv has no fourth bit, and W counts where an instruction has it.
  assertEquals(bench.judge(hex("c4 e3 fd 00 c2 1b")), "ok");
  assertEquals(get(0), [40n, 30n, 20n, 10n]);
});

Deno.test("128-bit forms clear the upper half, legacy forms keep it, VZEROUPPER and VZEROALL clear", () => {
  start();
  set(0, [1n, 2n, 3n, 4n]);
  set(1, [5n, 6n, 7n, 8n]);
  assertEquals(bench.judge(hex("66 0f d4 c1")), "ok");
  assertEquals(get(0), [6n, 8n, 3n, 4n]);
  assertEquals(bench.judge(hex("c5 f9 d4 c1")), "ok");
  assertEquals(get(0), [11n, 14n, 0n, 0n]);
  assertEquals(bench.judge(hex("c5 f8 77")), "ok");
  assertEquals(get(1), [5n, 6n, 0n, 0n]);
  set(9, [1n, 1n, 1n, 1n]);
  assertEquals(bench.judge(hex("c5 fc 77")), "ok");
  assertEquals([get(0), get(1), get(9)].flat(), Array(12).fill(0n));
});

Deno.test("VMOVAPS and VMOVNTPS want all their bytes aligned, other memory operands do not", () => {
  for (
    const [code, bytes] of [["c5 f8 28 07", 16], ["c5 fc 28 07", 32], ["c5 fc 2b 07", 32]] as const
  ) {
    for (const offset of [0, 8, 16, 32]) {
      start();
      bench.state.setRegister(RDI, BigInt(Place.DATA + offset));
      assertEquals(bench.judge(hex(code)), offset % bytes === 0 ? "ok" : GP, `${code}, ${offset}`);
    }
  }
  start();
  bench.state.setRegister(RDI, BigInt(Place.DATA + 1));
  assertEquals(bench.judge(hex("c5 f4 58 07")), "ok");
  assertEquals(bench.judge(hex("c5 f5 fc 07")), "ok");
});

/** The first page that is not there. */
const MISSING = 0x80_0000;

Deno.test("a store of 32 bytes across two pages of which the second is missing stores nothing", () => {
  start();
  bench.fill(MISSING - 16, 16, 0x22);
  bench.state.setRegister(RDI, BigInt(MISSING - 16));
  assertEquals(bench.judge(hex("c5 fc 11 07")), "#14(2)");
  assertEquals(bench.state.get(S.cr2), BigInt(MISSING));
  assertEquals(bench.get64(MISSING - 16), 0x2222_2222_2222_2222n);
});

Deno.test("VMASKMOVPS touches only what its mask names", () => {
  const negative = 1n << 63n | 1n << 31n;
  start();
  bench.fill(MISSING - 16, 16, 0x22);
  bench.state.setRegister(RDI, BigInt(MISSING - 16));
  set(1, [negative, negative, 0n, 0n]);
  assertEquals(bench.judge(hex("c4 e2 75 2c 07")), "ok");
  assertEquals(get(0), [0x2222_2222_2222_2222n, 0x2222_2222_2222_2222n, 0n, 0n]);
  // A fault of the last element keeps the first from being stored.
  set(1, [1n << 31n, 0n, 0n, 1n << 63n]);
  set(0, [5n, 6n, 7n, 8n]);
  assertEquals(bench.judge(hex("c4 e2 75 2e 07")), "#14(2)");
  assertEquals(bench.state.get(S.cr2), BigInt(MISSING + 12));
  assertEquals(bench.get32(MISSING - 16), 0x2222_2222);
  bench.state.set(S.rip, BigInt(Place.CODE));
  set(1, [1n << 31n, 0n, 0n, 0n]);
  assertEquals(bench.judge(hex("c4 e2 75 2e 07")), "ok");
  assertEquals(bench.get64(MISSING - 16), 0x2222_2222_0000_0005n);
});

Deno.test("gathers load what the mask names, from scaled indices, and clear the mask", () => {
  start();
  for (let k = 0; k < 64; k++) bench.set32(Place.DATA + 4 * k, 0x100 + k);
  // VPGATHERDD ymm0, [rdi + ymm1*4], ymm2
  set(0, [-1n, -1n, -1n, -1n]);
  set(1, [0x0000_0001_0000_0002n, 0x0000_0003_0000_0004n, 0x0000_0005_0000_0006n, 0x7n]);
  set(2, [0x8000_0000_8000_0000n, 0x0000_0000_8000_0000n, -1n, -1n]);
  assertEquals(bench.judge(hex("c4 e2 6d 90 04 8f")), "ok");
  assertEquals(get(0), [
    0x0000_0101_0000_0102n,
    0xffff_ffff_0000_0104n,
    0x0000_0105_0000_0106n,
    0x0000_0100_0000_0107n,
  ]);
  assertEquals(get(2), [0n, 0n, 0n, 0n]);
  // VPGATHERQD xmm0, [rdi + ymm1*8], xmm2: four elements, and nothing above.
  set(1, [1n, 2n, 3n, BigInt.asUintN(64, -1n)]);
  set(2, [-1n, -1n, 0n, 0n]);
  set(0, [0n, 0n, 9n, 9n]);
  bench.set32(Place.DATA - 8, 0x99);
  assertEquals(bench.judge(hex("c4 e2 6d 91 04 cf")), "ok");
  assertEquals(get(0), [0x0000_0104_0000_0102n, 0x0000_0099_0000_0106n, 0n, 0n]);
  // VGATHERDPD xmm0, [rdi + xmm1*1], xmm2: two elements by the low indices.
  set(1, [0x0000_0008_0000_0000n, -1n, 0n, 0n]);
  set(2, [-1n, -1n, 0n, 0n]);
  assertEquals(bench.judge(hex("c4 e2 e9 92 04 0f")), "ok");
  assertEquals(get(0), [0x0000_0101_0000_0100n, 0x0000_0103_0000_0102n, 0n, 0n]);
});

Deno.test("a gather that faults keeps what it has loaded, with that of its mask cleared", () => {
  start();
  set(0, [-1n, -1n, 0n, 0n]);
  set(1, [0x0000_0000_0000_0000n, 0x0000_0001_0080_0000n, 0n, 0n]);
  set(2, [-1n, -1n, 0n, 0n]);
  assertEquals(bench.judge(hex("c4 e2 69 90 04 0f")), "#14(0)");
  assertEquals(get(0), [0x1111_1111_1111_1111n, BigInt.asUintN(64, -1n), 0n, 0n]);
  assertEquals(get(2), [0n, BigInt.asUintN(64, -1n), 0n, 0n]);
  assertEquals(bench.state.rip, BigInt(Place.CODE));
});

Deno.test("the registers of a gather differ, and it has a SIB byte", () => {
  const rows: readonly (readonly [string, string])[] = [
    ["c4 e2 6d 90 04 8f", "ok"],
    ["c4 e2 7d 90 04 8f", UD],
    ["c4 e2 75 90 04 8f", UD],
    ["c4 e2 6d 90 04 87", UD],
    ["c4 e2 6d 90 07", UD],
    ["c4 e2 6d 90 c1", UD],
    // Register 4 is an index, too.
    ["c4 e2 6d 90 04 a7", "ok"],
  ];
  for (const [code, expected] of rows) {
    start();
    assertEquals(bench.judge(hex(code)), expected, code);
  }
});

Deno.test("XSAVE areas hold the upper halves at 240h; APX's component follows them when compacted", () => {
  const AREA = Place.DATA;
  const run = (code: string, mask: bigint): void => {
    bench.state.set(S.rip, BigInt(Place.CODE));
    bench.state.setRegister(RAX, mask & 0xffff_ffffn);
    bench.state.setRegister(RDX, mask >> 32n);
    assertEquals(bench.judge(hex(code)), "ok", code);
  };
  for (const compacted of [false, true]) {
    start(0, true, ALL | Xcr0.APX);
    bench.fill(AREA, 0x1000, 0);
    for (let n = 0; n < 16; n++) set(n, [1n, 2n, BigInt(100 + n), BigInt(200 + n)]);
    bench.state.setRegister(16, 77n);
    run(compacted ? "0f c7 27" : "0f ae 27", 7n | BigInt(Xcr0.APX));
    assertEquals(bench.get64(AREA + 512) & ~1n, 6n | BigInt(Xcr0.APX));
    for (let n = 0; n < 16; n++) {
      assertEquals(bench.get64(AREA + 576 + 16 * n), BigInt(100 + n));
      assertEquals(bench.get64(AREA + 584 + 16 * n), BigInt(200 + n));
    }
    assertEquals(bench.get64(AREA + (compacted ? 832 : 960)), 77n);
    for (let n = 0; n < 16; n++) set(n, [1n, 2n, 5n, 5n]);
    bench.state.setRegister(16, 0n);
    run("0f ae 2f", 7n | BigInt(Xcr0.APX));
    assertEquals(get(3), [1n, 2n, 103n, 203n]);
    assertEquals(bench.state.register(16), 77n);
    // What is asked for and not in the area is cleared.
    bench.set64(AREA + 512, 2n);
    run("0f ae 2f", 4n);
    assertEquals(get(3), [1n, 2n, 0n, 0n]);
  }
});

Deno.test("XCR0 takes AVX only with SSE, and always x87", () => {
  const rows: readonly (readonly [bigint, string])[] = [[7n, "ok"], [3n, "ok"], [5n, GP], [6n, GP]];
  for (const [value, expected] of rows) {
    start();
    bench.state.setRegister(RAX, value);
    bench.state.setRegister(RDX, 0n);
    bench.state.setRegister(1, 0n);
    assertEquals(bench.judge(hex("0f 01 d1")), expected, value.toString());
  }
});

Deno.test("without their features AVX2, FMA and F16C are undefined, and what is AVX is not", () => {
  const without = new Bench({
    features: { xsave: true, avx: true, avx2: false, fma: false, f16c: false },
  });
  without.long();
  without.state.set(S.cr4, without.state.get(S.cr4) | BigInt(Cr4.OSXSAVE));
  without.state.set(S.xcr0, BigInt(ALL));
  without.processor.refresh();
  for (
    const [code, expected] of [
      [VADDPS, "ok"],
      [VPADDB, UD],
      ["c5 f1 fc c2", "ok"],
      ["c4 e2 71 98 c2", UD],
      ["c4 e2 79 13 c2", UD],
    ] as const
  ) assertEquals(without.judge(hex(code)), expected, code);
});
