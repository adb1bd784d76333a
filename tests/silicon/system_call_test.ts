/**
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT where the vendors differ (APM vol. 3; SDM vol. 2).
 */
import { assertEquals } from "@std/assert";
import { Attr, Efer, S, Seg } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const AMD = new Bench({ model: "zen4" });
const INTEL = new Bench({ model: "sapphire-rapids" });

const SYSCALL = hex("0f 05");
const SYSRET = hex("0f 07");
const SYSRETQ = hex("48 0f 07");
const SYSENTER = hex("0f 34");
const SYSEXIT = hex("0f 35");
const SYSEXITQ = hex("48 0f 35");

/** Not canonical. */
const NOWHERE = 0x8000_0000_0000n;
const TARGET = BigInt(Place.HANDLERS);

/** STAR: SYSCALL to selector 8, SYSRET from 20h. */
function star({ state }: Bench): void {
  state.set(S.star, 0x0020_0008_0000_8000n);
  state.set(S.lstar, TARGET);
  state.set(S.cstar, TARGET);
  state.set(S.sfmask, 0n);
}

const in64 = (cpl: number) => (bench: Bench): void => bench.long(cpl);
const compat = (cpl: number) => (bench: Bench): void => bench.long(cpl, 32);
const legacy = (cpl: number) => (bench: Bench): void => {
  bench.protect(cpl);
  bench.state.set(S.efer, BigInt(Efer.SCE));
  bench.processor.refresh();
};

/** Code, where, and what each vendor makes of it. */
const EXISTENCE:
  readonly (readonly [string, readonly number[], (bench: Bench) => void, string, string])[] = [
    ["SYSCALL in 64-bit mode", SYSCALL, in64(3), "ok", "ok"],
    ["SYSCALL in compatibility mode", SYSCALL, compat(3), "ok", "#6"],
    ["SYSCALL in protected mode", SYSCALL, legacy(3), "ok", "#6"],
    ["SYSRET in 64-bit mode", SYSRET, in64(0), "ok", "ok"],
    ["SYSRET in compatibility mode", SYSRET, compat(0), "ok", "#6"],
    ["SYSRET in protected mode", SYSRET, legacy(0), "ok", "#6"],
    ["SYSRET of a user", SYSRET, in64(3), "#13(0)", "#13(0)"],
    ["SYSENTER in 64-bit mode", SYSENTER, in64(3), "#6", "ok"],
    ["SYSENTER in compatibility mode", SYSENTER, compat(3), "#6", "ok"],
    ["SYSENTER in protected mode", SYSENTER, legacy(3), "ok", "ok"],
    ["SYSEXIT in 64-bit mode", SYSEXIT, in64(0), "#6", "ok"],
    ["SYSEXIT to 64-bit mode", SYSEXITQ, in64(0), "#6", "ok"],
    ["SYSEXIT in protected mode", SYSEXIT, legacy(0), "ok", "ok"],
    ["SYSEXIT of a user in protected mode", SYSEXIT, legacy(3), "#13(0)", "#13(0)"],
  ];

for (const [name, code, mode, amd, intel] of EXISTENCE) {
  Deno.test(name, () => {
    for (const [bench, outcome] of [[AMD, amd], [INTEL, intel]] as const) {
      mode(bench);
      star(bench);
      const { state } = bench;
      state.set(S.sysenterCs, 8n);
      state.set(S.sysenterEip, TARGET);
      state.set(S.sysenterEsp, 0x9000n);
      state.setRegister(1, TARGET);
      state.setRegister(2, TARGET);
      state.setRegister(11, 2n);
      assertEquals(bench.judge(code), outcome);
    }
  });
}

Deno.test("SYSRET to an address that is not canonical faults at CPL 0 with Intel, at CPL 3 with AMD", () => {
  for (const [bench, cpl] of [[AMD, 3], [INTEL, 0]] as const) {
    bench.long(0);
    star(bench);
    bench.state.setRegister(1, NOWHERE);
    bench.state.setRegister(11, 2n);
    const { events } = bench.execute(SYSRETQ, 2);
    assertEquals(events[0]?.vector, 13);
    assertEquals(bench.state.get32(S.cpl), cpl);
  }
});

Deno.test("SYSRET loads all of SS with Intel, its selector with AMD", () => {
  for (const [bench, attributes] of [[AMD, 0x93], [INTEL, 0xcf3]] as const) {
    bench.long(0);
    star(bench);
    bench.state.setSegment(Seg.SS, { selector: 0, attributes: 0x93, limit: 0x1234, base: 0n });
    bench.state.setRegister(1, TARGET);
    bench.state.setRegister(11, 2n);
    assertEquals(bench.judge(SYSRETQ), "ok");
    const ss = bench.state.segment(Seg.SS);
    assertEquals(ss.selector, 0x2b);
    assertEquals(ss.attributes, attributes);
  }
});

Deno.test("Intel's SYSENTER and SYSEXIT in long mode have 64-bit addresses and their selectors", () => {
  const high = 0x7fff_1234_5000n;
  INTEL.long(3);
  const { state } = INTEL;
  state.set(S.sysenterCs, 0x10n);
  state.set(S.sysenterEip, high);
  state.set(S.sysenterEsp, high + 0x100n);
  INTEL.flags = 0x202;
  assertEquals(INTEL.judge(SYSENTER), "ok");
  assertEquals([state.rip, state.register(4)], [high, high + 0x100n]);
  assertEquals(state.get32(S.cpl), 0);
  assertEquals(state.segment(Seg.CS).selector, 0x10);
  assertEquals(state.segment(Seg.CS).attributes & (Attr.L | Attr.DB), Attr.L);
  assertEquals(state.segment(Seg.SS).selector, 0x18);
  assertEquals(INTEL.flags & 0x200, 0);
  for (
    const [code, cs, ss, long] of [[SYSEXIT, 0x23, 0x2b, false], [
      SYSEXITQ,
      0x33,
      0x3b,
      true,
    ]] as const
  ) {
    INTEL.long(0);
    state.set(S.sysenterCs, 0x10n);
    state.setRegister(1, high + 0x200n);
    state.setRegister(2, high);
    assertEquals(INTEL.judge(code), "ok");
    const width = long ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
    assertEquals([state.rip, state.register(4)], [high & width, (high + 0x200n) & width]);
    assertEquals([state.segment(Seg.CS).selector, state.segment(Seg.SS).selector], [cs, ss]);
    assertEquals((state.segment(Seg.CS).attributes & Attr.L) !== 0, long);
    assertEquals(state.get32(S.cpl), 3);
  }
  for (const register of [1, 2]) {
    INTEL.long(0);
    state.set(S.sysenterCs, 0x10n);
    state.setRegister(1, TARGET);
    state.setRegister(2, TARGET);
    state.setRegister(register, NOWHERE);
    assertEquals(INTEL.judge(SYSEXITQ), "#13(0)");
  }
});

Deno.test("a null SYSENTER_CS is #GP(0)", () => {
  INTEL.long(3);
  INTEL.state.set(S.sysenterCs, 3n);
  assertEquals(INTEL.judge(SYSENTER), "#13(0)");
  AMD.protect(3);
  AMD.state.set(S.sysenterCs, 3n);
  assertEquals(AMD.judge(SYSENTER), "#13(0)");
});

Deno.test("SYSENTER_CS keeps 32 bits on Intel's processors and 64 on AMD's", () => {
  for (const [lab, kept] of [[INTEL, 0x9abc_def0n], [AMD, 0x1234_5678_9abc_def0n]] as const) {
    lab.long(0);
    lab.state.setRegister(0, 0x9abc_def0n);
    lab.state.setRegister(1, 0x174n);
    lab.state.setRegister(2, 0x1234_5678n);
    assertEquals(lab.judge(hex("0f 30")), "ok");
    assertEquals(lab.state.get(S.sysenterCs), kept);
  }
});
