/**
 * Shadow stacks on near and far transfers, events, and by their own instructions (SDM vol. 1, 17.2; vol. 2).
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, S } from "../../plugins/cpu/mod.ts";
import { descriptor, gate, Place, Sel, selectorFor } from "./bench.ts";
import { CetBench, Control, Msrs, Shadow } from "./cet_bench.ts";

const TOP = Shadow.USER + 0x1000;
const SUPERVISOR_TOP = Shadow.SUPERVISOR + 0x1000;
const bench = new CetBench();
const { state } = bench;
const RSP = 4;

function user(bits: 64 | 32 = 64, control: number = Control.SHADOW): void {
  bench.long(3, bits);
  bench.fill(Shadow.USER, 0x2000, 0);
  bench.enable({ user: control });
  bench.ssp = TOP;
}

function supervisor(control: number = Control.SHADOW): void {
  bench.long(0);
  bench.fill(Shadow.SUPERVISOR, 0x2000, 0);
  bench.enable({ supervisor: control, user: Control.SHADOW });
  bench.ssp = SUPERVISOR_TOP;
}

const rip = (): number => Number(state.rip);

Deno.test("CALL pushes the return address on both stacks, RET compares them", () => {
  user();
  assertEquals(bench.one("e8 fb 00 00 00"), "ok");
  assertEquals([rip(), bench.ssp], [Place.CODE + 0x100, TOP - 8]);
  assertEquals(bench.get64(TOP - 8), BigInt(Place.CODE + 5));
  assertEquals(bench.one("c3"), "ok");
  assertEquals([rip(), bench.ssp], [Place.CODE + 5, TOP]);
});

Deno.test("RET to another address than the shadow stack's is #CP(1) and changes nothing", () => {
  for (const code of ["c3", "c2 10 00"]) {
    user();
    assertEquals(bench.one("e8 fb 00 00 00"), "ok");
    const rsp = state.register(RSP);
    bench.set64(Number(rsp), BigInt(Place.CODE));
    assertEquals(bench.one(code), "#21(1)");
    assertEquals([state.register(RSP), bench.ssp, rip()], [rsp, TOP - 8, Place.CODE + 0x100]);
  }
});

Deno.test("RET n drops its bytes from the stack alone", () => {
  user();
  assertEquals(bench.one("e8 fb 00 00 00"), "ok");
  const rsp = state.register(RSP);
  assertEquals(bench.one("c2 10 00"), "ok");
  assertEquals([state.register(RSP), bench.ssp], [rsp + 0x18n, TOP]);
});

Deno.test("a CALL of what follows it is no call to the shadow stack; an indirect one is", () => {
  user();
  assertEquals(bench.one("e8 00 00 00 00"), "ok");
  assertEquals(bench.ssp, TOP);
  state.setRegister(3, state.rip + 2n);
  assertEquals(bench.one("ff d3"), "ok");
  assertEquals(bench.ssp, TOP - 8);
});

Deno.test("outside of 64-bit mode a return address has four bytes, with any operand size", () => {
  for (
    const [call, ret, length] of [
      ["e8 fb 00 00 00", "c3", 5],
      ["66 e8 fc 00", "66 c3", 4],
    ] as const
  ) {
    bench.protect(3, { cr3: 0x5_0000, cr4: Cr4.PSE });
    for (let k = 0; k < 4; k++) bench.set32(0x5_0000 + 4 * k, k * 0x40_0000 | 0xe7);
    bench.set32(0x5_0004, 0x40_00e5);
    state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.CET));
    bench.msr(Msrs.U_CET, Control.SHADOW);
    state.set(S.rip, 0x8000n);
    bench.processor.refresh();
    bench.ssp = TOP;
    assertEquals(bench.one(call), "ok");
    assertEquals(bench.ssp, TOP - 4);
    assertEquals(bench.get32(TOP - 4), 0x8000 + length);
    assertEquals(bench.one(ret), "ok");
    assertEquals([bench.ssp, rip()], [TOP, 0x8000 + length]);
  }
});

/** Entry of the page directory of the user's shadow stack, and what CALL with SSP in it makes of it at CPL 3. */
const PAGES: readonly (readonly [name: string, flags: number, error: string])[] = [
  ["a user shadow-stack page", 0xe5, "ok"],
  ["a writable page", 0xe7, "#14(47)"],
  ["a clean page", 0xa5, "#14(47)"],
  ["a supervisor shadow-stack page", 0xe1, "#14(47)"],
  ["a page that is not present", 0xe4, "#14(46)"],
];

for (const [name, flags, error] of PAGES) {
  Deno.test(`a shadow stack at CPL 3 in ${name}: ${error}`, () => {
    user();
    bench.mapPage(2, Shadow.USER, flags);
    bench.processor.refresh();
    assertEquals(bench.one("e8 fb 00 00 00"), error);
    assertEquals(bench.ssp, error === "ok" ? TOP - 8 : TOP);
  });
}

Deno.test("a table above that is not writable makes no shadow-stack page", () => {
  user();
  const pdpt = bench.get64(Place.TABLES + 0x1000);
  bench.set64(Place.TABLES + 0x1000, pdpt & ~2n);
  bench.processor.refresh();
  assertEquals(bench.one("e8 fb 00 00 00"), "#14(7)");
  bench.set64(Place.TABLES + 0x1000, pdpt | 2n);
  user();
});

Deno.test("pops are reads: bit 6 of the error code is set, bit 1 is not", () => {
  user();
  assertEquals(bench.one("e8 fb 00 00 00"), "ok");
  bench.mapPage(2, Shadow.USER, 0xe7);
  bench.processor.refresh();
  assertEquals(bench.one("c3"), "#14(45)");
});

Deno.test("software cannot write to a shadow stack, and can read it", () => {
  user();
  assertEquals(bench.one("48 a1 f8 0f 40 00 00 00 00 00"), "ok");
  assertEquals(bench.one("48 a3 f8 0f 40 00 00 00 00 00"), "#14(7)");
  supervisor();
  assertEquals(bench.one("48 a3 f8 0f 60 00 00 00 00 00"), "#14(3)");
});

Deno.test("CR4.CET needs CR0.WP, and CR0.WP stays while it is set", () => {
  bench.long(0);
  state.setRegister(0, BigInt(Cr4.PAE | Cr4.CET));
  assertEquals(bench.one("0f 22 e0"), "ok");
  state.setRegister(0, state.get(S.cr0) & ~BigInt(Cr0.WP));
  assertEquals(bench.one("0f 22 c0"), "#13(0)");
  bench.long(0);
  state.set(S.cr0, state.get(S.cr0) & ~BigInt(Cr0.WP));
  bench.processor.refresh();
  state.setRegister(0, BigInt(Cr4.PAE | Cr4.CET));
  assertEquals(bench.one("0f 22 e0"), "#13(0)");
});

/** MSR, value, whether it can be written. */
const WRITES: readonly (readonly [number, bigint, boolean])[] = [
  [Msrs.U_CET, 0x3fn, true],
  [Msrs.S_CET, 0x7fff_ffff_f43fn, true],
  [Msrs.S_CET, 0x8000_0000_0000_0000n, false],
  [Msrs.U_CET, 0x800n, true],
  [Msrs.U_CET, 0xc00n, false],
  [Msrs.U_CET, 0x40n, false],
  [Msrs.S_CET, 0x200n, false],
  [Msrs.PL0_SSP, 0x1004n, true],
  [Msrs.PL3_SSP, 1n, false],
  [Msrs.PL2_SSP, 2n, false],
  [Msrs.PL1_SSP, 0x0080_0000_0000_0000n, true],
  [Msrs.PL1_SSP, 0x0100_0000_0000_0000n, false],
  [Msrs.SSP_TABLE, 0x1001n, true],
  [Msrs.SSP_TABLE, 0x0100_0000_0000_0000n, false],
  [0x6a1, 0n, false],
  [0x6a3, 0n, false],
];

Deno.test("the MSRs refuse reserved bits and addresses that are not canonical or aligned", () => {
  for (const [index, value, good] of WRITES) {
    const what = `${index.toString(16)} ${value.toString(16)}`;
    assertEquals(bench.processor.writeMsr(index, value), good, what);
    if (good) assertEquals(bench.readMsr(index), value, what);
  }
});

Deno.test("AMD's have no branch tracking in them; without the feature there are none", () => {
  const amd = new CetBench({ model: "max" });
  assertEquals(amd.processor.writeMsr(Msrs.U_CET, 3n), true);
  assertEquals(amd.processor.writeMsr(Msrs.U_CET, 4n), false);
  assertEquals(amd.processor.writeMsr(Msrs.S_CET, 0x1000n), false);
  const none = new CetBench({ features: { shstk: false, ibt: false } });
  assertEquals(none.readMsr(Msrs.U_CET), undefined);
  assertEquals(none.readMsr(Msrs.PL0_SSP), undefined);
  none.long();
  none.state.setRegister(0, BigInt(Cr4.PAE | Cr4.CET));
  assertEquals(none.one("0f 22 e0"), "#13(0)");
  const tracking = new CetBench({ features: { shstk: false } });
  assertEquals(tracking.processor.writeMsr(Msrs.U_CET, 4n), true);
  assertEquals(tracking.processor.writeMsr(Msrs.U_CET, 1n), false);
  assertEquals(tracking.readMsr(Msrs.PL0_SSP), undefined);
});

// Instructions.

Deno.test("RDSSP reads SSP, and is a NOP where there is no shadow stack", () => {
  user();
  state.setRegister(0, -1n & 0xffff_ffff_ffff_ffffn);
  assertEquals(bench.one("f3 0f 1e c8"), "ok");
  assertEquals(state.register(0), BigInt(TOP));
  state.setRegister(0, -1n & 0xffff_ffff_ffff_ffffn);
  assertEquals(bench.one("f3 48 0f 1e c8"), "ok");
  assertEquals(state.register(0), BigInt(TOP));
  bench.long(3);
  state.setRegister(0, 0x1234_5678_9abc_def0n);
  assertEquals(bench.one("f3 0f 1e c8"), "ok");
  assertEquals(state.register(0), 0x1234_5678_9abc_def0n);
});

Deno.test("INCSSP moves SSP by up to 255 elements and looks at both ends", () => {
  for (const [code, element] of [["f3 0f ae e8", 4], ["f3 48 0f ae e8", 8]] as const) {
    user();
    bench.ssp = TOP - 0x800;
    state.setRegister(0, 0x1_0010n);
    assertEquals(bench.one(code), "ok");
    assertEquals(bench.ssp, TOP - 0x800 + 0x10 * element);
    // The last element is beyond the region: at the top of it.
    bench.ssp = 0x60_0000 - 8 * element;
    state.setRegister(0, 8n);
    assertEquals(bench.one(code), "ok");
    bench.ssp = 0x60_0000 - 8 * element;
    state.setRegister(0, 9n);
    assertEquals(bench.one(code), "#14(45)");
    bench.ssp = 0x60_0000;
    state.setRegister(0, 0n);
    assertEquals(bench.one(code), "#14(45)");
  }
});

/** Instructions that are undefined without a shadow stack at the current level. */
const UNDEFINED = ["f3 48 0f ae e8", "f3 0f 01 ea", "f3 0f 01 2b", "0f 38 f6 03", "f3 0f 01 e8"];

Deno.test("without a shadow stack its instructions are undefined", () => {
  for (const code of [...UNDEFINED, "66 0f 38 f5 03", "f3 0f ae 33"]) {
    bench.long(3);
    state.setRegister(3, BigInt(Shadow.USER));
    assertEquals(bench.one(code), "#6", code);
  }
  const none = new CetBench({ features: { shstk: false } });
  for (const code of [...UNDEFINED, "66 0f 38 f5 03", "f3 0f ae 33"]) {
    none.long(0);
    assertEquals(none.one(code), "#6", code);
  }
});

Deno.test("RSTORSSP takes the stack of a token, SAVEPREVSSP leaves one on the old stack", () => {
  user();
  const other = Shadow.USER + 0x2000;
  // A token of the other stack: its top, with the bit of 64-bit mode.
  bench.set64(other - 8, BigInt(other | 1));
  state.setRegister(3, BigInt(other - 8));
  bench.flags = 0x8d5;
  assertEquals(bench.one("f3 0f 01 2b"), "ok");
  assertEquals(bench.ssp, other - 8);
  assertEquals(bench.get64(other - 8), BigInt(TOP | 3));
  assertEquals(bench.flags & 0x8d5, 0);
  assertEquals(bench.one("f3 0f 01 ea"), "ok");
  assertEquals(bench.ssp, other);
  assertEquals(bench.get64(TOP - 8), BigInt(TOP | 1));
  // And back.
  state.setRegister(3, BigInt(TOP - 8));
  assertEquals(bench.one("f3 0f 01 2b"), "ok");
  assertEquals(bench.ssp, TOP - 8);
});

/** Tokens that RSTORSSP refuses, and the error. */
const TOKENS: readonly (readonly [name: string, value: number, error: string])[] = [
  ["of 32-bit code", Shadow.USER + 0x2000, "#21(4)"],
  ["that is a previous SSP", (Shadow.USER + 0x2000) | 3, "#21(4)"],
  ["of another place", (Shadow.USER + 0x2010) | 1, "#21(4)"],
  ["behind a hole", (Shadow.USER + 0x2004) | 1, "ok"],
];

for (const [name, token, error] of TOKENS) {
  Deno.test(`RSTORSSP with a token ${name}: ${error}`, () => {
    user();
    const place = Shadow.USER + 0x1ff8;
    bench.set64(place, BigInt(token));
    state.setRegister(3, BigInt(place));
    assertEquals(bench.one("f3 0f 01 2b"), error);
    if (error === "ok") assertEquals(bench.flags & 1, 1);
    else assertEquals([bench.ssp, bench.get64(place)], [TOP, BigInt(token)]);
  });
}

Deno.test("RSTORSSP and SAVEPREVSSP refuse what is not aligned or no token", () => {
  user();
  state.setRegister(3, BigInt(Shadow.USER + 4));
  assertEquals(bench.one("f3 0f 01 2b"), "#13(0)");
  bench.ssp = TOP - 4;
  assertEquals(bench.one("f3 0f 01 ea"), "#13(0)");
  bench.ssp = TOP - 8;
  bench.set64(TOP - 8, BigInt(TOP | 1));
  assertEquals(bench.one("f3 0f 01 ea"), "#13(0)");
  bench.set64(TOP - 8, BigInt(TOP + 0x100 | 3));
  bench.flags = 1;
  assertEquals(bench.one("f3 0f 01 ea"), "#13(0)");
});

Deno.test("in compatibility mode SAVEPREVSSP drops the hole that CF tells of", () => {
  user(32);
  const other = Shadow.USER + 0x1800;
  bench.set64(other, BigInt(TOP | 2));
  bench.set32(other + 8, 0);
  bench.ssp = other;
  bench.flags = 1;
  assertEquals(bench.one("f3 0f 01 ea"), "ok");
  assertEquals(bench.ssp, other + 12);
  assertEquals(bench.get64(TOP - 8), BigInt(TOP));
  bench.ssp = other;
  bench.set32(other + 8, 1);
  assertEquals(bench.one("f3 0f 01 ea"), "#13(0)");
});

Deno.test("WRSS writes where WR_SHSTK_EN allows it, and only to shadow stacks", () => {
  user();
  state.setRegister(3, BigInt(TOP - 8));
  state.setRegister(0, 0x1122_3344_5566_7788n);
  assertEquals(bench.one("48 0f 38 f6 03"), "#6");
  user(64, Control.SHADOW | Control.WRITE);
  state.setRegister(3, BigInt(TOP - 8));
  state.setRegister(0, 0x1122_3344_5566_7788n);
  assertEquals(bench.one("48 0f 38 f6 03"), "ok");
  assertEquals(bench.get64(TOP - 8), 0x1122_3344_5566_7788n);
  bench.set64(TOP - 8, 0n);
  assertEquals(bench.one("0f 38 f6 03"), "ok");
  assertEquals(bench.get64(TOP - 8), 0x5566_7788n);
  state.setRegister(3, BigInt(TOP - 4));
  assertEquals(bench.one("48 0f 38 f6 03"), "#13(0)");
  state.setRegister(3, BigInt(Place.DATA));
  assertEquals(bench.one("48 0f 38 f6 03"), "#14(47)");
});

Deno.test("WRUSS writes to shadow stacks of CPL 3, for CPL 0 alone", () => {
  supervisor();
  state.setRegister(3, BigInt(TOP - 8));
  state.setRegister(0, 0x77n);
  assertEquals(bench.one("66 48 0f 38 f5 03"), "ok");
  assertEquals(bench.get64(TOP - 8), 0x77n);
  state.setRegister(3, BigInt(SUPERVISOR_TOP - 8));
  assertEquals(bench.one("66 48 0f 38 f5 03"), "#14(47)");
  user();
  assertEquals(bench.one("66 48 0f 38 f5 03"), "#13(0)");
});

Deno.test("SETSSBSY takes PL0_SSP's stack, CLRSSBSY gives one back", () => {
  supervisor();
  const token = Shadow.SUPERVISOR + 0xff8;
  bench.msr(Msrs.PL0_SSP, token);
  assertEquals(bench.one("f3 0f 01 e8"), "#21(5)");
  bench.set64(token, BigInt(token));
  assertEquals(bench.one("f3 0f 01 e8"), "ok");
  assertEquals([bench.ssp, bench.get64(token)], [token, BigInt(token | 1)]);
  assertEquals(bench.one("f3 0f 01 e8"), "#21(5)");
  state.setRegister(3, BigInt(token));
  bench.flags = 0x8d5;
  assertEquals(bench.one("f3 0f ae 33"), "ok");
  assertEquals([bench.ssp, bench.get64(token)], [0, BigInt(token)]);
  assertEquals(bench.flags & 0x8d5, 0);
  assertEquals(bench.one("f3 0f ae 33"), "ok");
  assertEquals(bench.flags & 0x8d5, 1);
  bench.msr(Msrs.PL0_SSP, token + 4);
  assertEquals(bench.one("f3 0f 01 e8"), "#13(0)");
  bench.long(3);
  bench.enable({ supervisor: Control.SHADOW });
  assertEquals(bench.one("f3 0f 01 e8"), "#13(0)");
});

// Far transfers and events.

const TOKEN = Shadow.SUPERVISOR + 0xff8;

/** CPL 3 with a shadow stack, and one at CPL 0 whose token is free. */
function both(): void {
  user();
  bench.enable({ user: Control.SHADOW, supervisor: Control.SHADOW });
  bench.fill(Shadow.SUPERVISOR, 0x2000, 0);
  bench.ssp = TOP;
  bench.msr(Msrs.PL0_SSP, TOKEN);
  bench.set64(TOKEN, BigInt(TOKEN));
  bench.handlers(64);
}

Deno.test("an event from CPL 3 takes the inner stack, IRET gives it back", () => {
  both();
  bench.write(bench.handler(6), [0x48, 0xcf]);
  const { events } = bench.execute([0x0f, 0x0b], 1);
  assertEquals(events.length, 1);
  assertEquals([bench.ssp, bench.get64(TOKEN)], [TOKEN, BigInt(TOKEN | 1)]);
  assertEquals(bench.readMsr(Msrs.PL3_SSP), BigInt(TOP));
  assertEquals(bench.run(1).events.length, 0);
  assertEquals([bench.ssp, bench.get64(TOKEN)], [TOP, BigInt(TOKEN)]);
  assertEquals(rip(), Place.CODE);
});

/** Tokens of an inner stack that is not to be had. */
const BUSY_TOKENS: readonly (readonly [string, number, bigint])[] = [
  ["a busy one", TOKEN, BigInt(TOKEN | 1)],
  ["no token", TOKEN, 0n],
  ["one that is not aligned", TOKEN + 4, BigInt(TOKEN + 4)],
  ["one that is not at the end of 32 bytes", TOKEN - 8, BigInt(TOKEN - 8)],
];

for (const [name, place, value] of BUSY_TOKENS) {
  Deno.test(`an event from CPL 3 that finds ${name}: #GP(0)`, () => {
    both();
    bench.set64(TOKEN, 0n);
    bench.set64(place, value);
    bench.msr(Msrs.PL0_SSP, place);
    const { events } = bench.execute([0x0f, 0x0b], 2);
    // The exception of the delivery meets the same, and so does the double fault.
    assertEquals(events.map(({ vector }) => vector), [6, 13, 8]);
    assertEquals(events[1]!.errorCode, 0);
  });
}

Deno.test("AMD's processors have no such rule of 32 bytes", () => {
  const amd = new CetBench({ model: "max" });
  amd.long(3);
  amd.enable({ user: Control.SHADOW, supervisor: Control.SHADOW });
  amd.msr(Msrs.PL0_SSP, TOKEN - 8);
  amd.set64(TOKEN - 8, BigInt(TOKEN - 8));
  amd.handlers(64);
  assertEquals(amd.execute([0x0f, 0x0b], 2).events.length, 1);
  assertEquals(amd.ssp, TOKEN - 8);
});

Deno.test("an event at CPL 0 pushes CS, LIP and SSP; IRET compares them", () => {
  supervisor();
  bench.handlers(64);
  bench.write(bench.handler(6), [0x48, 0xcf]);
  assertEquals(bench.execute([0x0f, 0x0b], 1).events.length, 1);
  assertEquals(bench.ssp, SUPERVISOR_TOP - 24);
  assertEquals([8, 16, 24].map((at) => Number(bench.get64(SUPERVISOR_TOP - at))), [
    selectorFor(Sel.CODE64, 0),
    Place.CODE,
    SUPERVISOR_TOP,
  ]);
  assertEquals(bench.run(1).events.length, 0);
  assertEquals([bench.ssp, rip()], [SUPERVISOR_TOP, Place.CODE]);
  for (const at of [8, 16, 24]) {
    supervisor();
    bench.handlers(64);
    bench.write(bench.handler(6), [0x48, 0xcf]);
    bench.execute([0x0f, 0x0b], 1);
    bench.set64(SUPERVISOR_TOP - at, bench.get64(SUPERVISOR_TOP - at) ^ 1n);
    const [event] = bench.run(1).events;
    assertEquals([event?.vector, event?.errorCode], [21, 2], `${at}`);
  }
});

Deno.test("where SSP is a multiple of 4 the frame stands below a hole of zeros", () => {
  supervisor();
  bench.handlers(64);
  bench.set32(SUPERVISOR_TOP - 8, 0xffff_ffff);
  bench.ssp = SUPERVISOR_TOP - 4;
  bench.execute([0x0f, 0x0b], 1);
  assertEquals(bench.ssp, SUPERVISOR_TOP - 32);
  assertEquals(bench.get32(SUPERVISOR_TOP - 8), 0);
  assertEquals(Number(bench.get64(SUPERVISOR_TOP - 32)), SUPERVISOR_TOP - 4);
});

Deno.test("an event by an IST entry takes the stack of the interrupt SSP table", () => {
  supervisor();
  bench.handlers(64);
  bench.write(bench.handler(6), [0x48, 0xcf]);
  const low = bench.get64(Place.IDT + 16 * 6);
  bench.set64(Place.IDT + 16 * 6, low | (3n << 32n));
  bench.set64(Place.TSS + 0x24 + 16, BigInt(bench.stack(1)));
  bench.msr(Msrs.SSP_TABLE, Place.DATA);
  bench.set64(Place.DATA + 24, BigInt(TOKEN - 0x400));
  bench.set64(TOKEN - 0x400, BigInt(TOKEN - 0x400));
  bench.execute([0x0f, 0x0b], 1);
  assertEquals(bench.ssp, TOKEN - 0x400 - 24);
  assertEquals(Number(bench.get64(TOKEN - 0x400)), TOKEN - 0x400 | 1);
  assertEquals(Number(bench.get64(TOKEN - 0x400 - 24)), SUPERVISOR_TOP);
  assertEquals(bench.run(1).events.length, 0);
  assertEquals(bench.ssp, SUPERVISOR_TOP);
  assertEquals(Number(bench.get64(TOKEN - 0x400)), TOKEN - 0x400);
  bench.set64(Place.IDT + 16 * 6, low);
});

Deno.test("a far CALL pushes a frame, RETF compares it and is #CP(2) if it differs", () => {
  for (const at of [0, 8, 16, 24]) {
    user();
    state.setRegister(3, BigInt(Place.DATA));
    bench.set32(Place.DATA, Place.CODE + 0x100);
    bench.set16(Place.DATA + 4, selectorFor(Sel.CODE64, 3));
    assertEquals(bench.one("ff 1b"), "ok");
    assertEquals([rip(), bench.ssp], [Place.CODE + 0x100, TOP - 24]);
    assertEquals(Number(bench.get64(TOP - 16)), Place.CODE + 2);
    if (at !== 0) bench.set64(TOP - at, bench.get64(TOP - at) ^ 2n);
    assertEquals(bench.one("cb"), at === 0 ? "ok" : "#21(2)");
    assertEquals(bench.ssp, at === 0 ? TOP : TOP - 24);
  }
});

Deno.test("a far CALL by a gate to CPL 0 takes the inner stack, RETF gives it back", () => {
  both();
  bench.setDescriptor(0x100, gate(Sel.CODE64, Place.CODE + 0x200, 0xec));
  bench.set64(Place.GDT + 0x108, 0n);
  state.setRegister(3, BigInt(Place.DATA));
  bench.set32(Place.DATA, 0);
  bench.set16(Place.DATA + 4, 0x103);
  bench.write(Place.CODE + 0x200, [0x48, 0xcb]);
  assertEquals(bench.one("ff 1b"), "ok");
  assertEquals([bench.ssp, Number(bench.get64(TOKEN))], [TOKEN, TOKEN | 1]);
  assertEquals(bench.readMsr(Msrs.PL3_SSP), BigInt(TOP));
  assertEquals(bench.run(1).events.length, 0);
  assertEquals([bench.ssp, Number(bench.get64(TOKEN)), rip()], [TOP, TOKEN, Place.CODE + 2]);
});

Deno.test("SYSCALL puts SSP aside and clears it, SYSRET takes it back", () => {
  both();
  bench.processor.writeMsr(0xc000_0081, BigInt(Sel.CODE64) << 32n);
  bench.processor.writeMsr(0xc000_0082, BigInt(Place.CODE + 0x100));
  assertEquals(bench.one("0f 05"), "ok");
  assertEquals([bench.ssp, bench.readMsr(Msrs.PL3_SSP)], [0, BigInt(TOP)]);
  bench.msr(Msrs.PL3_SSP, TOP - 0x10);
  assertEquals(bench.one("48 0f 07"), "ok");
  assertEquals(bench.ssp, TOP - 0x10);
});

Deno.test("SYSENTER and SYSEXIT do the same", () => {
  both();
  bench.processor.writeMsr(0x174, BigInt(Sel.CODE64));
  bench.processor.writeMsr(0x175, BigInt(bench.stack(0)));
  bench.processor.writeMsr(0x176, BigInt(Place.CODE + 0x100));
  assertEquals(bench.one("0f 34"), "ok");
  assertEquals([bench.ssp, bench.readMsr(Msrs.PL3_SSP)], [0, BigInt(TOP)]);
  state.setRegister(2, BigInt(Place.CODE));
  state.setRegister(1, BigInt(bench.stack(3)));
  assertEquals(bench.one("48 0f 35"), "ok");
  assertEquals(bench.ssp, TOP);
});

Deno.test("IRET to virtual-8086 mode is #GP(0) with a shadow stack or tracking at CPL 3", () => {
  for (const [control, error] of [[0, "ok"], [1, "#13(0)"], [4, "#13(0)"]] as const) {
    bench.protect(0);
    state.set(S.cr4, BigInt(Cr4.CET));
    bench.msr(Msrs.U_CET, control);
    bench.msr(Msrs.S_CET, 0);
    bench.processor.refresh();
    const sp = Number(state.register(RSP)) - 36;
    state.setRegister(RSP, BigInt(sp));
    const values = [0x1000, 0x100, 0x2_0002, 0x1000, 0x200, 0, 0, 0, 0];
    for (const [k, value] of values.entries()) bench.set32(sp + 4 * k, value);
    assertEquals(bench.one("cf"), error);
  }
});

// Task switches.

const OLD_TSS = 0x3000;
const NEW_TSS = 0x3400;

/** A far JMP (ea) or CALL (9a) to a task of CPL 0 with a shadow stack. */
function switchTask(opcode: "ea" | "9a", limit = 0x6b, access = 0x89): string {
  bench.protect(0, { cr3: 0x5_0000, cr4: Cr4.PSE });
  for (let k = 0; k < 4; k++) bench.set32(0x5_0000 + 4 * k, k * 0x40_0000 | 0xe7);
  // One page of 4 MiB is both regions'.
  bench.set32(0x5_0004, 0x40_00e1);
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.CET));
  bench.msr(Msrs.S_CET, Control.SHADOW);
  bench.msr(Msrs.U_CET, 0);
  bench.processor.refresh();
  bench.fill(Shadow.SUPERVISOR, 0x2000, 0);
  bench.ssp = SUPERVISOR_TOP;
  bench.setDescriptor(0xf8, descriptor({ base: OLD_TSS, limit: 0x6b, access: 0x8b, flags: 0 }));
  bench.setDescriptor(0x100, descriptor({ base: NEW_TSS, limit, access, flags: 0 }));
  bench.fill(NEW_TSS, 0x70, 0);
  bench.set32(OLD_TSS + 0x1c, 0x5_0000);
  bench.set32(NEW_TSS + 0x1c, 0x5_0000);
  bench.set32(NEW_TSS + 0x20, Place.CODE + 0x100);
  bench.set32(NEW_TSS + 0x24, 2);
  bench.set32(NEW_TSS + 0x38, 0x3_0800);
  for (const at of [0x48, 0x50, 0x54, 0x58, 0x5c]) bench.set32(NEW_TSS + at, Sel.DATA);
  bench.set32(NEW_TSS + 0x4c, Sel.CODE32);
  bench.set32(NEW_TSS + 0x68, TOKEN);
  bench.set64(TOKEN, BigInt(TOKEN));
  return bench.one(`${opcode} 00 00 00 00 00 01`);
}

Deno.test("a task begins on the shadow stack of its TSS, which needs room for SSP", () => {
  assertEquals(switchTask("ea"), "ok");
  assertEquals([bench.ssp, Number(bench.get64(TOKEN))], [TOKEN, TOKEN | 1]);
  assertEquals(switchTask("ea", 0x67), "#10(100)");
  assertEquals(switchTask("ea", 0x6b, 0x81), "#10(100)");
});

Deno.test("a task that nests has the old one's place on its shadow stack, IRET compares it", () => {
  for (const changed of [false, true]) {
    assertEquals(switchTask("9a"), "ok");
    assertEquals(bench.ssp, TOKEN - 24);
    assertEquals([8, 16, 24].map((at) => Number(bench.get64(TOKEN - at))), [
      Sel.CODE32,
      Place.CODE + 7,
      SUPERVISOR_TOP,
    ]);
    if (changed) bench.set64(TOKEN - 16, 0n);
    assertEquals(bench.one("cf"), changed ? "#21(2)" : "ok");
    assertEquals(Number(bench.get64(TOKEN)), TOKEN);
    if (!changed) assertEquals([bench.ssp, rip()], [SUPERVISOR_TOP, Place.CODE + 7]);
  }
});

// Extended state.

Deno.test("XSAVES and XRSTORS carry the MSRs as components 11 and 12", () => {
  supervisor();
  const area = Place.DATA + 0x1000;
  bench.fill(area, 0x400, 0);
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.OSXSAVE));
  bench.processor.refresh();
  assertEquals(bench.processor.writeMsr(0xda0, 0x2000n), false);
  bench.msr(0xda0, 0x1800);
  const values = [0x1000, 0x2000, 0x3000, 0x4000];
  for (const [k, value] of values.entries()) bench.msr(Msrs.PL0_SSP + k, value);
  state.setRegister(3, BigInt(area));
  state.setRegister(0, 0x1800n);
  state.setRegister(2, 0n);
  assertEquals(bench.one("0f c7 2b"), "ok");
  assertEquals(bench.get64(area + 512), 0x1800n);
  assertEquals(bench.get64(area + 520), 0x1800n | (1n << 63n));
  const words = [0, 8, 16, 24, 32].map((at) => Number(bench.get64(area + 576 + at)));
  assertEquals(words, [Control.SHADOW, 0x4000, 0x1000, 0x2000, 0x3000]);
  for (let k = 0; k < 4; k++) bench.msr(Msrs.PL0_SSP + k, 0);
  assertEquals(bench.one("0f c7 1b"), "ok");
  assertEquals([0, 1, 2, 3].map((k) => Number(bench.readMsr(Msrs.PL0_SSP + k))), values);
  // What an MSR would not take, XRSTORS does not.
  bench.set64(area + 576, 0x40n);
  assertEquals(bench.one("0f c7 1b"), "#13(0)");
  bench.set64(area + 576, 1n);
  bench.set64(area + 584, 1n);
  assertEquals(bench.one("0f c7 1b"), "#13(0)");
  // A component without a place in the area is initialised.
  bench.set64(area + 512, 0n);
  bench.set64(area + 584, 0n);
  assertEquals(bench.one("0f c7 1b"), "ok");
  assertEquals([0, 1, 2, 3].map((k) => Number(bench.readMsr(Msrs.PL0_SSP + k))), [0, 0, 0, 0]);
  assertEquals(bench.readMsr(Msrs.U_CET), 0n);
});

Deno.test("code is compiled without a shadow stack, with one, and without again", () => {
  const fast = new CetBench({ tier: 2 });
  // mov ecx, 4000; l: call f; dec ecx; jnz l; hlt; f: ret
  const code = [0xb9, 0xa0, 0x0f, 0, 0, 0xe8, 5, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4, 0xc3];
  for (const control of [0, Control.SHADOW, 0]) {
    fast.long(0);
    fast.enable({ supervisor: control });
    fast.ssp = SUPERVISOR_TOP;
    fast.execute(code, 100_000);
    assertEquals(fast.state.register(1), 0n);
    assertEquals(fast.ssp, SUPERVISOR_TOP);
  }
});
