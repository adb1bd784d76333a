/**
 * XCR0, CR4.OSXSAVE, XGETBV, XSETBV and the XSAVE family (SDM vol. 1, ch. 13), with the components of
 * PKRU and APX.
 */
import { assert, assertEquals } from "@std/assert";
import { Cr0, Cr4, type IsaFeatureName, Msr, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench({ features: { apx: true } });
const OSXSAVE = BigInt(Cr4.OSXSAVE);
const PKRU = 0x200n;
const APX = 0x8_0000n;
const AREA = Place.DATA;
const COMPACTED = 1n << 63n;

const RAX = 0, RCX = 1, RDX = 2, RDI = 7;
const XGETBV = hex("0f 01 d0");
const XSETBV = hex("0f 01 d1");
/** The instructions on the area at RDI. */
const ON_AREA = {
  XSAVE: hex("0f ae 27"),
  XRSTOR: hex("0f ae 2f"),
  XSAVEOPT: hex("0f ae 37"),
  XRSTORS: hex("0f c7 1f"),
  XSAVEC: hex("0f c7 27"),
  XSAVES: hex("0f c7 2f"),
} as const;
type OnArea = keyof typeof ON_AREA;

function start(xcr0 = 3n | APX, cpl = 0): void {
  bench.long(cpl);
  bench.state.set(S.cr4, bench.state.get(S.cr4) | OSXSAVE);
  bench.state.set(S.xcr0, xcr0);
  bench.processor.refresh();
  for (let n = 16; n < 32; n++) bench.state.setRegister(n, 0n);
  bench.fill(AREA, 0x1000, 0xee);
}

function setPair(value: bigint): void {
  bench.state.setRegister(RAX, value & 0xffff_ffffn);
  bench.state.setRegister(RDX, value >> 32n);
}

function pair(): bigint {
  return bench.state.register(RAX) | (bench.state.register(RDX) << 32n);
}

/** Runs one of the instructions with EDX:EAX = `mask`. */
function area(name: OnArea, mask = -1n, at: number = AREA): string {
  bench.state.set(S.rip, BigInt(Place.CODE));
  bench.state.setRegister(RDI, BigInt(at));
  setPair(BigInt.asUintN(64, mask));
  return bench.judge(ON_AREA[name]);
}

function setEgprs(seed: bigint): void {
  for (let n = 16; n < 32; n++) bench.state.setRegister(n, seed * BigInt(n));
}

const egprs = (): bigint[] => Array.from({ length: 16 }, (_, k) => bench.state.register(16 + k));
const stored = (at: number): bigint[] =>
  Array.from({ length: 16 }, (_, k) => bench.get64(at + 8 * k));

/** An area in which nothing is present. */
function emptyArea(format = 0n, present = 0n): void {
  bench.fill(AREA, 0x1000, 0);
  bench.set32(AREA + 24, 0x1f80);
  bench.set64(AREA + 512, present);
  bench.set64(AREA + 520, format);
}

Deno.test("without CR4.OSXSAVE the whole family is undefined", () => {
  for (const [name, code] of Object.entries({ ...ON_AREA, XGETBV, XSETBV })) {
    for (const cpl of [0, 3]) {
      bench.long(cpl);
      assertEquals(bench.judge(code), "#6", name);
    }
  }
});

Deno.test("CR4.OSXSAVE is reserved where there is no XSAVE", () => {
  const without = new Bench({ features: { xsave: false } });
  without.long();
  without.state.setRegister(RAX, without.state.get(S.cr4) | OSXSAVE);
  assertEquals(without.judge(hex("0f 22 e0")), "#13(0)");
  bench.long();
  bench.state.setRegister(RAX, bench.state.get(S.cr4) | OSXSAVE);
  assertEquals(bench.judge(hex("0f 22 e0")), "ok");
  assertEquals(bench.state.get(S.cr4) & OSXSAVE, OSXSAVE);
});

Deno.test("XSETBV takes what CPUID 0Dh reports, from CPL 0", () => {
  const rows: readonly (readonly [bigint, number, number, string])[] = [
    [1n, 0, 0, "ok"],
    [3n, 0, 0, "ok"],
    [1n | APX, 0, 0, "ok"],
    [3n | APX, 0, 0, "ok"],
    // x87 state cannot be disabled.
    [0n, 0, 0, "#13(0)"],
    [2n, 0, 0, "#13(0)"],
    [APX, 0, 0, "#13(0)"],
    [7n, 0, 0, "ok"],
    [1n | PKRU, 0, 0, "ok"],
    [7n | PKRU | APX, 0, 0, "ok"],
    // AVX needs SSE.
    [5n, 0, 0, "#13(0)"],
    // MPX, AVX-512 and bits in the upper half do not exist here.
    [0x19n, 0, 0, "#13(0)"],
    [0xe7n, 0, 0, "#13(0)"],
    [1n | 1n << 62n, 0, 0, "#13(0)"],
    // There is no XCR1.
    [1n, 1, 0, "#13(0)"],
    [1n, 0, 3, "#13(0)"],
  ];
  for (const [value, index, cpl, expected] of rows) {
    start(1n, cpl);
    bench.state.setRegister(RCX, BigInt(index));
    setPair(value);
    assertEquals(bench.judge(XSETBV), expected, `XCR${index} := ${value.toString(16)}`);
    assertEquals(bench.state.get(S.xcr0), expected === "ok" ? value : 1n);
  }
  const without = new Bench();
  without.long();
  without.state.set(S.cr4, without.state.get(S.cr4) | OSXSAVE);
  without.state.setRegister(RAX, 3n | APX);
  assertEquals(without.judge(XSETBV), "#13(0)");
});

Deno.test("XGETBV reads XCR0, and which components are in use", () => {
  start();
  bench.state.setRegister(RCX, 0n);
  assertEquals(bench.judge(XGETBV), "ok");
  assertEquals(pair(), 3n | APX);
  for (let n = 15; n < 33; n++) {
    start();
    if (n < 32) bench.state.setRegister(n, 1n << BigInt(n));
    bench.state.setRegister(RCX, 1n);
    assertEquals(bench.judge(XGETBV), "ok");
    assertEquals((pair() & APX) !== 0n, n >= 16 && n < 32, `R${n}`);
  }
  // What XCR0 does not enable is not reported.
  start(3n);
  setEgprs(1n);
  bench.state.setRegister(RCX, 1n);
  assertEquals(bench.judge(XGETBV), "ok");
  assertEquals(pair() & APX, 0n);
  start();
  bench.state.setRegister(RCX, 2n);
  assertEquals(bench.judge(XGETBV), "#13(0)");
});

Deno.test("faults of the family: #NM, alignment, privilege", () => {
  for (const name of Object.keys(ON_AREA) as OnArea[]) {
    start();
    emptyArea(name === "XRSTORS" ? COMPACTED | 1n : 0n);
    assertEquals(area(name), "ok", name);
    assertEquals(area(name, -1n, AREA + 8), "#13(0)", name);
    bench.state.set(S.cr0, bench.state.get(S.cr0) | BigInt(Cr0.TS));
    assertEquals(area(name), "#7", name);
    start(3n | APX, 3);
    emptyArea(name === "XRSTORS" ? COMPACTED | 1n : 0n);
    assertEquals(area(name), name === "XSAVES" || name === "XRSTORS" ? "#13(0)" : "ok", name);
  }
});

Deno.test("XSAVE puts R16–R31 at 960 and XRSTOR takes them from there", () => {
  start();
  setEgprs(0x0123_4567_89abn);
  const before = egprs();
  bench.set64(AREA + 512, 1n << 40n);
  assertEquals(area("XSAVE", APX), "ok");
  assertEquals(stored(AREA + 960), before);
  // Bits of XSTATE_BV that were not asked for stay; nothing else is written.
  assertEquals(bench.get64(AREA + 512), 1n << 40n | APX);
  assertEquals(bench.get64(AREA + 520), 0xeeee_eeee_eeee_eeeen);
  assertEquals(bench.get64(AREA), 0xeeee_eeee_eeee_eeeen);
  assertEquals(bench.get64(AREA + 576), 0xeeee_eeee_eeee_eeeen);
  assertEquals(bench.get64(AREA + 1088), 0xeeee_eeee_eeee_eeeen);

  emptyArea(0n, APX);
  for (let k = 0; k < 16; k++) bench.set64(AREA + 960 + 8 * k, BigInt(1000 + k));
  assertEquals(area("XRSTOR", APX), "ok");
  assertEquals(egprs(), Array.from({ length: 16 }, (_, k) => BigInt(1000 + k)));
  // Not asked for, not changed; asked for and not present, initialised.
  emptyArea();
  assertEquals(area("XRSTOR", 3n), "ok");
  assertEquals(egprs()[0], 1000n);
  assertEquals(area("XRSTOR", APX), "ok");
  assertEquals(egprs(), Array.from({ length: 16 }, () => 0n));
});

Deno.test("XSAVE of unused registers writes them, XSAVEOPT does not", () => {
  for (const name of ["XSAVE", "XSAVEOPT"] as const) {
    start();
    bench.set64(AREA + 512, APX);
    assertEquals(area(name, APX), "ok");
    assertEquals(bench.get64(AREA + 512), 0n);
    assertEquals(bench.get64(AREA + 960), name === "XSAVE" ? 0n : 0xeeee_eeee_eeee_eeeen);
  }
});

Deno.test("in compacted form R16–R31 follow the header", () => {
  for (const name of ["XSAVEC", "XSAVES"] as const) {
    start();
    setEgprs(0x1111n);
    const before = egprs();
    assertEquals(area(name, APX), "ok");
    assertEquals(bench.get64(AREA + 512), APX);
    assertEquals(bench.get64(AREA + 520), COMPACTED | APX);
    assertEquals(stored(AREA + 576), before);
    assertEquals(bench.get64(AREA + 576 + 128), 0xeeee_eeee_eeee_eeeen);
    setEgprs(3n);
    emptyHeader();
    assertEquals(area("XRSTOR", APX), "ok");
    assertEquals(egprs(), before);
    setEgprs(5n);
    assertEquals(area("XRSTORS", APX), "ok");
    assertEquals(egprs(), before);
    // Registers that are all zero are not in use and not written.
    start();
    assertEquals(area(name, APX), "ok");
    assertEquals(bench.get64(AREA + 512), 0n);
    assertEquals(bench.get64(AREA + 520), COMPACTED | APX);
    assertEquals(bench.get64(AREA + 576), 0xeeee_eeee_eeee_eeeen);
  }
});

/** Bytes 63:16 of the header, which XSAVEC does not write, must be zero for XRSTOR. */
function emptyHeader(): void {
  bench.fill(AREA + 528, 48, 0);
}

/** An area's place of PKRU: in standard form, and in compacted form with and without AVX's in front. */
const PKRU_PLACES: readonly (readonly [OnArea, bigint, number])[] = [
  ["XSAVE", PKRU, 832],
  ["XSAVE", PKRU | 4n, 832],
  ["XSAVEOPT", PKRU, 832],
  ["XSAVEC", PKRU, 576],
  ["XSAVEC", PKRU | 4n, 832],
  ["XSAVES", PKRU | 4n, 832],
];

Deno.test("PKRU is saved where CPUID says, and restored", () => {
  const { state } = bench;
  for (const [name, mask, place] of PKRU_PLACES) {
    start(7n | PKRU | APX);
    state.set(S.pkru, 0x5555_5554n);
    bench.fill(AREA + 512, 64, 0);
    assertEquals(area(name, mask), "ok");
    assertEquals(bench.get64(AREA + 512) & PKRU, PKRU, name);
    assertEquals(bench.get64(AREA + place), 0x5555_5554n, name);
    assertEquals(bench.get64(AREA + place + 8), 0xeeee_eeee_eeee_eeeen);
    // The upper half of the component is reserved, and ignored.
    bench.set32(AREA + place + 4, 0x1234_5678);
    bench.set32(AREA + 24, 0x1f80);
    state.set(S.pkru, 1n);
    assertEquals(area("XRSTOR", mask), "ok");
    assertEquals(state.get(S.pkru), 0x5555_5554n, name);
  }
  // APX's component comes behind it.
  start(7n | PKRU | APX);
  setEgprs(0x77n);
  assertEquals(area("XSAVEC", PKRU | APX), "ok");
  assertEquals(stored(AREA + 576 + 8), egprs());
});

Deno.test("PKRU is in use while it is not 0; XRSTOR initialises it to 0", () => {
  const { state } = bench;
  for (const value of [0n, 1n, 0x8000_0000n]) {
    start(7n | PKRU);
    state.set(S.pkru, value);
    state.setRegister(RCX, 1n);
    assertEquals(bench.judge(XGETBV), "ok");
    assertEquals((pair() & PKRU) !== 0n, value !== 0n);
    bench.set64(AREA + 512, PKRU);
    assertEquals(area("XSAVEOPT", PKRU), "ok");
    assertEquals(bench.get64(AREA + 512), value === 0n ? 0n : PKRU);
    assertEquals(bench.get32(AREA + 832), value === 0n ? 0xeeee_eeee : Number(value));
  }
  start(7n | PKRU);
  state.set(S.pkru, 4n);
  emptyArea();
  assertEquals(area("XRSTOR", 7n), "ok");
  assertEquals(state.get(S.pkru), 4n);
  assertEquals(area("XRSTOR", PKRU), "ok");
  assertEquals(state.get(S.pkru), 0n);
});

Deno.test("rights that XRSTOR loads hold for the next access", () => {
  const { state } = bench;
  const read = hex("8a 04 25 00 00 40 00"); // mov al, [400000h]
  for (
    const [rights, expected] of [[0x400n, "#14(25)"], [0n, "ok"], [0x400n, "#14(25)"]] as const
  ) {
    start(7n | PKRU, 3);
    state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.PKE));
    bench.set64(Place.TABLES + 0x2000 + 8 * 2, 0x40_00e7n | (5n << 59n));
    bench.processor.refresh();
    // The TLB has the page, with the other rights.
    state.set(S.pkru, rights ^ 0x400n);
    bench.processor.flushTlbs();
    bench.judge(read);
    emptyArea(0n, PKRU);
    bench.set64(AREA + 832, rights);
    assertEquals(area("XRSTOR", PKRU), "ok");
    bench.state.set(S.rip, BigInt(Place.CODE));
    assertEquals(bench.judge(read), expected);
  }
});

Deno.test("a processor has as much of the family as its features say", () => {
  const rows: readonly (readonly [IsaFeatureName, readonly OnArea[]])[] = [
    ["xsaveopt", ["XSAVEOPT"]],
    ["xsavec", ["XSAVEC", "XSAVES", "XRSTORS"]],
    ["xsaves", ["XSAVES", "XRSTORS"]],
    ["xgetbv1", []],
  ];
  for (const [feature, undefinedOnes] of rows) {
    const other = new Bench({ features: { [feature]: false } });
    other.long();
    other.state.set(S.cr4, other.state.get(S.cr4) | OSXSAVE);
    for (const [name, code] of Object.entries(ON_AREA)) {
      const format = name === "XRSTORS" ? COMPACTED : 0n;
      other.fill(AREA, 0x400, 0);
      other.set32(AREA + 24, 0x1f80);
      other.set64(AREA + 520, format);
      other.state.set(S.rip, BigInt(Place.CODE));
      other.state.setRegister(RDI, BigInt(AREA));
      const expected = undefinedOnes.includes(name as OnArea) ? "#6" : "ok";
      assertEquals(other.judge(code), expected, `${name} without ${feature}`);
    }
    other.state.set(S.rip, BigInt(Place.CODE));
    other.state.setRegister(RCX, 1n);
    assertEquals(other.judge(XGETBV), feature === "xgetbv1" ? "#13(0)" : "ok");
    const xss = feature === "xsaves" || feature === "xsavec" ? undefined : 0n;
    assertEquals(other.processor.readMsr(Msr.XSS), xss);
  }
});

Deno.test("XRSTOR refuses headers that cannot be", () => {
  const rows: readonly (readonly [string, bigint, bigint, number, string])[] = [
    // Name, XCOMP_BV, XSTATE_BV, XCR0 without APX, verdict.
    ["standard", 0n, APX | 3n, 0, "ok"],
    ["a component that XCR0 does not enable", 0n, APX, 1, "#13(0)"],
    ["AVX", 0n, 4n, 0, "#13(0)"],
    ["standard with XCOMP_BV", APX, APX, 0, "#13(0)"],
    ["compacted", COMPACTED | APX, APX, 0, "ok"],
    ["compacted, not enabled", COMPACTED | APX, 0n, 1, "#13(0)"],
    ["present without a place", COMPACTED | 1n, APX, 0, "#13(0)"],
  ];
  for (const [name, format, present, without, expected] of rows) {
    start(without === 0 ? 3n | APX : 3n);
    emptyArea(format, present);
    assertEquals(area("XRSTOR"), expected, name);
  }
  start();
  emptyArea();
  bench.set64(AREA + 528, 1n);
  assertEquals(area("XRSTOR"), "#13(0)", "bytes 23:16");
  emptyArea();
  bench.set64(AREA + 536, 1n);
  assertEquals(area("XRSTOR"), "ok", "bytes 31:24 in standard form");
  emptyArea(COMPACTED);
  bench.set64(AREA + 568, 1n);
  assertEquals(area("XRSTOR"), "#13(0)", "bytes 63:16 in compacted form");
  emptyArea();
  assertEquals(area("XRSTORS"), "#13(0)", "XRSTORS of the standard form");
  emptyArea();
  bench.set32(AREA + 24, 0x1_0000);
  assertEquals(area("XRSTOR", 2n), "#13(0)", "MXCSR");
  assertEquals(area("XRSTOR", 1n), "ok", "MXCSR that is not loaded");
});

Deno.test("x87 and SSE state round trips", () => {
  for (const save of ["XSAVE", "XSAVEC", "XSAVES"] as const) {
    start();
    const { state } = bench;
    state.set32(S.fpuControl, 0x27f);
    state.set32(S.fpuStatus, 0x1800);
    state.set32(S.fpuTag, 0xfff0);
    state.set32(S.fpuOpcode, 0x123);
    state.set(S.fpuInstruction, 0x1234_5678n);
    state.set(S.fpuData, 0x8765_4321n);
    state.set32(S.mxcsr, 0x1fa0);
    for (let k = 0; k < 16; k++) {
      state.setAt(S.vectors + 64 * k, BigInt(k * 7 + 1));
      state.setAt(S.vectors + 64 * k + 8, BigInt(k * 9 + 1));
    }
    for (let k = 0; k < 8; k++) state.setAt(S.st + 16 * k, BigInt(k + 77));
    assertEquals(area(save, 3n), "ok");
    emptyHeader();
    if (save === "XSAVE") bench.set64(AREA + 520, 0n);
    if (save === "XSAVE") bench.set64(AREA + 512, 3n);
    assertEquals(bench.get16(AREA), 0x27f);
    assertEquals(bench.get16(AREA + 4), 3);
    assertEquals(bench.get64(AREA + 160 + 16 * 5), 36n);
    assertEquals(bench.get64(AREA + 160 + 16 * 5 + 8), 46n);
    // Everything to its initial configuration, and back.
    const area1 = bench.read(AREA, 576);
    bench.fill(AREA, 576, 0);
    bench.set32(AREA + 24, 0x1f80);
    assertEquals(area("XRSTOR", 3n), "ok");
    assertEquals(state.get32(S.fpuControl), 0x37f);
    assertEquals(state.get32(S.mxcsr), 0x1f80);
    assertEquals(state.at(S.vectors + 64 * 15), 0n);
    bench.state.setRegister(RCX, 1n);
    bench.state.set(S.rip, BigInt(Place.CODE));
    assertEquals(bench.judge(XGETBV), "ok");
    assertEquals(pair(), 0n);
    bench.write(AREA, area1);
    assertEquals(area("XRSTOR", 3n), "ok");
    assertEquals(state.get32(S.fpuTag) & 0xffff, 0xfff0);
    assertEquals(state.get32(S.fpuOpcode), 0x123);
    assertEquals(state.get(S.fpuInstruction), 0x1234_5678n);
    assertEquals(state.get(S.fpuData), 0x8765_4321n);
    assertEquals(state.get32(S.mxcsr), 0x1fa0);
    assertEquals(state.at(S.vectors + 64 * 15 + 8), 136n);
    assertEquals(state.at(S.st + 16 * 7), 84n);
  }
});

Deno.test("an area that runs into a page that is not there faults and changes nothing", () => {
  start();
  setEgprs(9n);
  // The bench maps 8 MiB; the last component would stand behind it.
  const edge = 0x80_0000 - 0x400;
  bench.fill(edge, 0x400, 0x11);
  assert(area("XSAVE", APX | 3n, edge).startsWith("#14"));
  assertEquals(bench.read(edge, 0x400).every((byte) => byte === 0x11), true);
  bench.fill(edge, 0x400, 0);
  bench.set64(edge + 512, APX | 3n);
  const before = egprs();
  const vector = bench.state.at(S.vectors);
  assert(area("XRSTOR", APX | 3n, edge).startsWith("#14"));
  assertEquals(egprs(), before);
  assertEquals(bench.state.at(S.vectors), vector);
});

Deno.test("XSS exists with XSAVE, and has no bits", () => {
  start();
  assertEquals(bench.processor.readMsr(Msr.XSS), 0n);
  assertEquals(bench.processor.writeMsr(Msr.XSS, 0n), true);
  assertEquals(bench.processor.writeMsr(Msr.XSS, 0x100n), false);
});

Deno.test("a program enables APX and finds zeros, and its values again after disabling it", () => {
  start(3n);
  bench.state.setRegister(RCX, 0n);
  setPair(3n | APX);
  assertEquals(bench.judge(XSETBV), "ok");
  assertEquals(egprs(), Array.from({ length: 16 }, () => 0n));
  setEgprs(2n);
  setPair(3n);
  assertEquals(bench.judge(XSETBV), "ok");
  setPair(3n | APX);
  assertEquals(bench.judge(XSETBV), "ok");
  assertEquals(egprs()[3], 38n);
});
