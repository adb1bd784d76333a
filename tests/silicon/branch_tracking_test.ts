/**
 * Indirect-branch tracking: which branches await an ENDBRANCH, what may stand there, and what suppresses it
 * (SDM vol. 1, 17.3).
 */
import { assertEquals } from "@std/assert";
import { S } from "../../plugins/cpu/mod.ts";
import { Place, Sel, selectorFor } from "./bench.ts";
import { CetBench, Control, Msrs } from "./cet_bench.ts";

const bench = new CetBench();
const { state } = bench;
const TARGET = Place.CODE + 0x100;
const ENDBR64 = [0xf3, 0x0f, 0x1e, 0xfa];
const ENDBR32 = [0xf3, 0x0f, 0x1e, 0xfb];
const NOP = [0x90];

function user(control: number = Control.TRACK, bits: 64 | 32 = 64): void {
  bench.long(3, bits);
  bench.enable({ user: control });
  state.setRegister(3, BigInt(TARGET));
  bench.set64(Place.DATA, BigInt(TARGET));
  bench.write(TARGET, NOP);
}

const control = (): number => Number(bench.readMsr(Msrs.U_CET));

/** Branches, whether the target has to be an ENDBRANCH without NO_TRACK_EN, and with it. */
const BRANCHES: readonly (readonly [name: string, code: string, plain: boolean, en: boolean])[] = [
  ["JMP rbx", "ff e3", true, true],
  ["CALL rbx", "ff d3", true, true],
  ["JMP [mem]", "ff 24 25 00 00 02 00", true, true],
  ["CALL [mem]", "ff 14 25 00 00 02 00", true, true],
  ["NOTRACK JMP rbx", "3e ff e3", true, false],
  ["NOTRACK CALL rbx", "3e ff d3", true, false],
  ["NOTRACK JMP [mem]", "3e ff 24 25 00 00 02 00", true, false],
  ["JMP rbx with CS", "2e ff e3", true, true],
  ["JMP rbx with DS and CS", "3e 2e ff e3", true, true],
  ["JMP rel", "e9 fb 00 00 00", false, false],
  ["CALL rel", "e8 fb 00 00 00", false, false],
];

for (const [name, code, plain, enabled] of BRANCHES) {
  Deno.test(`${name} ${plain ? "awaits" : "does not await"} an ENDBRANCH`, () => {
    for (const [bit, awaits] of [[0, plain], [Control.NO_TRACK, enabled]] as const) {
      user(Control.TRACK | bit);
      assertEquals(bench.one(code), "ok");
      assertEquals((control() & Control.TRACKER) !== 0, awaits);
      assertEquals(Number(state.rip), TARGET);
      const { events } = bench.run(1);
      assertEquals(
        events.map(({ vector, errorCode }) => [vector, errorCode])[0],
        awaits ? [21, 3] : undefined,
      );
      // The fault leaves the tracker as it is, for software to see and to change.
      assertEquals((control() & Control.TRACKER) !== 0, awaits);
      assertEquals(Number(state.rip), awaits ? TARGET : TARGET + 1);
    }
    user(0);
    assertEquals(bench.one(code), "ok");
    assertEquals(bench.run(1).events.length, 0);
  });
}

Deno.test("RET and RETF are not tracked", () => {
  user();
  bench.set64(Number(state.register(4)) - 8, BigInt(TARGET));
  state.setRegister(4, state.register(4) - 8n);
  assertEquals(bench.one("c3"), "ok");
  assertEquals(bench.run(1).events.length, 0);
});

/** What stands at the target, in 64-bit and in 32-bit code: the first event, and the tracker behind. */
const TARGETS: readonly (readonly [readonly number[], string, string])[] = [
  [ENDBR64, "ok", "#21(3)"],
  [ENDBR32, "#21(3)", "ok"],
  [NOP, "#21(3)", "#21(3)"],
  [[0x0f, 0x0b], "#21(3)", "#21(3)"],
  [[0xf3, 0x0f, 0x1e, 0xf9], "#21(3)", "#21(3)"],
  [[0xcc], "#3", "#3"],
];

Deno.test("an ENDBRANCH of the code's own size ends the wait, INT3 is let through", () => {
  for (const bits of [64, 32] as const) {
    for (const [bytes, long, legacy] of TARGETS) {
      user(Control.TRACK, bits);
      assertEquals(bench.one("ff e3"), "ok");
      bench.write(TARGET, bytes);
      const [event] = bench.run(1).events;
      const expected = bits === 64 ? long : legacy;
      const error = event?.errorCode === undefined ? "" : `(${event.errorCode})`;
      assertEquals(event === undefined ? "ok" : `#${event.vector}${error}`, expected);
      assertEquals((control() & Control.TRACKER) === 0, expected === "ok");
    }
  }
});

Deno.test("where nothing is awaited ENDBRANCH is a NOP", () => {
  user();
  for (const code of ["f3 0f 1e fa", "f3 0f 1e fb"]) assertEquals(bench.one(code), "ok");
  assertEquals(control(), Control.TRACK);
});

Deno.test("a page that the bitmap calls legacy is let through, and tracking suppressed until an ENDBRANCH", () => {
  for (const disabled of [0, Control.SUPPRESS_DISABLE]) {
    const bits = Control.TRACK | Control.LEGACY | disabled;
    user(bits | Place.DATA);
    const page = TARGET >> 12;
    bench.fill(Place.DATA, 0x40, 0);
    bench.set64(Place.DATA + 0x800, BigInt(TARGET));
    assertEquals(bench.one("ff e3"), "ok");
    assertEquals(bench.run(1).events[0]?.vector, 21);
    user(bits | Place.DATA);
    bench.write(Place.DATA + (page >> 3), [1 << (page & 7)]);
    assertEquals(bench.one("ff e3"), "ok");
    assertEquals(bench.run(1).events.length, 0);
    assertEquals(Number(state.rip), TARGET + 1);
    const suppressed = disabled === 0 ? Control.SUPPRESS : 0;
    assertEquals(control() & 0xfff, bits | suppressed);
    // Suppressed, a branch is not tracked at all.
    assertEquals(bench.one("ff e3"), "ok");
    assertEquals((control() & Control.TRACKER) !== 0, suppressed === 0);
    bench.write(TARGET, ENDBR64);
    assertEquals(bench.run(1).events.length, 0);
    assertEquals(control() & 0xfff, bits);
    bench.fill(Place.DATA, 0x40, 0);
  }
});

Deno.test("a bitmap that is not there is a page fault", () => {
  user(Control.TRACK | Control.LEGACY | 0x1000_0000);
  assertEquals(bench.one("ff e3"), "ok");
  assertEquals(bench.run(1).events[0]?.vector, 14);
});

Deno.test("an event awaits an ENDBRANCH of the kernel, and leaves the program's tracker as it was", () => {
  user();
  bench.enable({ user: Control.TRACK, supervisor: Control.TRACK | Control.SUPPRESS });
  bench.handlers(64);
  assertEquals(bench.one("ff e3"), "ok");
  // The fault of the missing ENDBRANCH itself goes to the kernel, which has none either: a double fault.
  const { events } = bench.run(2);
  assertEquals(events.map(({ vector }) => vector).slice(0, 2), [21, 21]);
  assertEquals(control(), Control.TRACK | Control.TRACKER);
  user();
  bench.enable({ user: Control.TRACK, supervisor: Control.TRACK | Control.SUPPRESS });
  bench.handlers(64);
  bench.write(bench.handler(6), ENDBR64);
  assertEquals(bench.execute([0x0f, 0x0b], 1).events.length, 1);
  assertEquals(Number(bench.readMsr(Msrs.S_CET)), Control.TRACK | Control.TRACKER);
  assertEquals(bench.run(1).events.length, 0);
  assertEquals(Number(bench.readMsr(Msrs.S_CET)), Control.TRACK);
});

Deno.test("far JMP and CALL, SYSCALL and SYSENTER await one, whatever suppresses or precedes them", () => {
  const far = (code: string): void => {
    user(Control.TRACK | Control.SUPPRESS | Control.NO_TRACK);
    bench.set32(Place.DATA, TARGET);
    bench.set16(Place.DATA + 4, selectorFor(Sel.CODE64, 3));
    state.setRegister(3, BigInt(Place.DATA));
    assertEquals(bench.one(code), "ok");
    assertEquals(control() & (Control.TRACKER | Control.SUPPRESS), Control.TRACKER);
  };
  far("3e ff 2b");
  far("3e ff 1b");
  for (const code of ["0f 05", "0f 34"]) {
    user();
    bench.enable({ user: Control.TRACK, supervisor: Control.TRACK | Control.SUPPRESS });
    bench.processor.writeMsr(0xc000_0081, BigInt(Sel.CODE64) << 32n);
    bench.processor.writeMsr(0xc000_0082, BigInt(TARGET));
    bench.processor.writeMsr(0x174, BigInt(Sel.CODE64));
    bench.processor.writeMsr(0x176, BigInt(TARGET));
    assertEquals(bench.one(code), "ok");
    assertEquals(Number(bench.readMsr(Msrs.S_CET)), Control.TRACK | Control.TRACKER);
    assertEquals(bench.run(1).events[0]?.errorCode, 3);
  }
});

Deno.test("a loop of tracked calls with a shadow stack runs the same in every tier", () => {
  // mov ecx, 1000; lea rbx, [f]; l: call rbx; dec ecx; jnz l; hlt; f: endbr64; ret
  const code = [
    ...[0xb9, 0xe8, 0x03, 0, 0, 0x48, 0x8d, 0x1d, 7, 0, 0, 0],
    ...[0xff, 0xd3, 0xff, 0xc9, 0x75, 0xfa, 0xf4],
    ...[...ENDBR64, 0xc3],
  ];
  for (const tier of [1, 2, "auto"] as const) {
    const one = new CetBench({ tier });
    for (const bits of [0, Control.TRACK, Control.SHADOW, Control.TRACK | Control.SHADOW]) {
      one.long(0);
      one.enable({ supervisor: bits });
      one.ssp = 0x60_1000;
      assertEquals(one.execute(code, 100_000).events.length, 0);
      assertEquals([one.state.register(1), Number(one.state.rip)], [0n, Place.CODE + 19]);
      assertEquals(one.ssp, 0x60_1000);
      assertEquals(Number(one.readMsr(Msrs.S_CET)), bits);
    }
    assertEquals(one.state.get(S.ssp), 0x60_1000n);
  }
});
