/**
 * Last-branch records, single steps of branches, and their virtualization (APM vol. 2, 13.1.6, 15.23).
 */
import { assertEquals } from "@std/assert";
import { Control, InterceptWord, Misc1, Msr, S, Save, VirtExt } from "../../plugins/cpu/mod.ts";
import { Place, Sel } from "./bench.ts";
import { hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const LBR = 1n;
const BTF = 2n;
const CODE = BigInt(Place.CODE);
const TARGET = CODE + 0x40n;

const bench = new SvmBench({ outside: { ...refuseOutside(), cpuid: () => {} } });

const msr = (index: number): bigint => bench.processor.readMsr(index)!;
const branch = (): [bigint, bigint] => [
  msr(Msr.LAST_BRANCH_FROM_IP),
  msr(Msr.LAST_BRANCH_TO_IP),
];
const interrupt = (): [bigint, bigint] => [
  msr(Msr.LAST_INT_FROM_IP),
  msr(Msr.LAST_INT_TO_IP),
];

/** Long mode with records of a known past. */
function enter(control = LBR): void {
  bench.long();
  bench.handlers(64);
  const { state } = bench;
  state.set(S.lastBranchFrom, 0x11n);
  state.set(S.lastBranchTo, 0x22n);
  state.set(S.lastIntFrom, 0x33n);
  state.set(S.lastIntTo, 0x44n);
  assertEquals(bench.processor.writeMsr(Msr.DEBUGCTL, control), true);
  for (const n of [0, 1, 2, 3]) state.setRegister(n, TARGET);
}

/** Branches by name: code at {@linkcode CODE}, how many instructions, where they lead; none if not taken. */
const FORMS: readonly (readonly [string, string, bigint | undefined, (() => void)?])[] = [
  ["JMP rel8", "eb 3e", TARGET],
  ["JMP rel32", "e9 3b 00 00 00", TARGET],
  ["JMP to the next instruction", "eb 00", CODE + 2n],
  ["JMP to itself", "eb fe", CODE],
  ["JMP r", "ff e0", TARGET],
  ["JMP m", "ff 23", TARGET, () => bench.state.setRegister(3, BigInt(Place.DATA))],
  ["CALL rel32", "e8 3b 00 00 00", TARGET],
  ["CALL r", "ff d0", TARGET],
  ["RET", "c3", TARGET, () => bench.set64(bench.stack(0) - 8, TARGET)],
  ["RET n", "c2 08 00", TARGET, () => bench.set64(bench.stack(0) - 8, TARGET)],
  ["Jcc taken", "74 3e", TARGET, () => bench.flags = 0x42],
  ["Jcc not taken", "74 3e", undefined, () => bench.flags = 2],
  ["LOOP taken", "e2 3e", TARGET],
  ["LOOP not taken", "e2 3e", undefined, () => bench.state.setRegister(1, 1n)],
  ["JRCXZ taken", "e3 3e", TARGET, () => bench.state.setRegister(1, 0n)],
  ["JRCXZ not taken", "e3 3e", undefined],
  ["RETF", "48 cb", TARGET, () => pushFar(2)],
  ["IRET", "48 cf", TARGET, () => pushFar(5)],
  ["JMP far", "48 ff 2b", TARGET, () => farPointer()],
  ["CALL far", "48 ff 1b", TARGET, () => farPointer()],
  ["SYSCALL", "0f 05", TARGET, () => {
    bench.processor.writeMsr(Msr.STAR, 0x0023_0018_0000_0000n);
    bench.processor.writeMsr(Msr.LSTAR, TARGET);
  }],
  ["SYSRET", "48 0f 07", TARGET, () => bench.state.setRegister(11, 2n)],
  ["NOP", "90", undefined],
  ["MOV", "89 c8", undefined],
  ["REP MOVS", "f3 a4", undefined, () => {
    bench.state.setRegister(1, 3n);
    bench.state.setRegister(6, BigInt(Place.DATA));
    bench.state.setRegister(7, BigInt(Place.DATA));
  }],
];

function pushFar(words: number): void {
  const values = [TARGET, BigInt(Sel.CODE64), 2n, BigInt(bench.stack(0)), BigInt(Sel.DATA)];
  const rsp = bench.stack(0) - 8 * words;
  for (let k = 0; k < words; k++) bench.set64(rsp + 8 * k, values[k]!);
}

function farPointer(): void {
  bench.state.setRegister(3, BigInt(Place.DATA));
  bench.set64(Place.DATA, TARGET);
  bench.set16(Place.DATA + 8, Sel.CODE64);
}

const STACKED: Readonly<Record<string, number>> = { "RET": 1, "RET n": 1, "RETF": 2, "IRET": 5 };

function prepare(name: string, setup?: () => void): void {
  const words = STACKED[name];
  if (words !== undefined) bench.state.setRegister(4, BigInt(bench.stack(0) - 8 * words));
  bench.set64(Place.DATA, TARGET);
  bench.state.set(S.efer, bench.state.get(S.efer) | 1n);
  setup?.();
}

Deno.test("each branch is recorded, from itself to where it leads", () => {
  for (const [name, code, target, setup] of FORMS) {
    enter();
    prepare(name, setup);
    const { events } = bench.execute(hex(code), 1);
    assertEquals(events, [], name);
    assertEquals(branch(), target === undefined ? [0x11n, 0x22n] : [CODE, target], name);
    assertEquals(interrupt(), [0x33n, 0x44n], name);
    assertEquals(msr(Msr.DEBUGCTL), LBR, name);
    if (target !== undefined) assertEquals(bench.state.get(S.rip), target, name);
    // Without LBR nothing is.
    enter(0n);
    prepare(name, setup);
    bench.execute(hex(code), 1);
    assertEquals(branch(), [0x11n, 0x22n], name);
  }
});

Deno.test("an exception records the interrupted instruction, and keeps the branch before it", () => {
  for (
    const [code, vector, offset] of [
      ["0f 0b", 6, 0n],
      ["90 0f 0b", 6, 1n],
      ["cd 42", 0x42, 0n],
      ["cc", 3, 0n],
    ] as const
  ) {
    enter();
    bench.execute(hex(code), 3);
    assertEquals(interrupt(), [0x11n, 0x22n], code);
    assertEquals(branch(), [CODE + offset, BigInt(bench.handler(vector))], code);
  }
});

Deno.test("so does an interrupt", () => {
  enter();
  bench.outside.acknowledge = () => {
    bench.processor.setInterruptLine(false);
    return 0x42;
  };
  bench.flags = 0x202;
  bench.processor.setInterruptLine(true);
  bench.execute(hex("90"), 2);
  assertEquals(interrupt(), [0x11n, 0x22n]);
  assertEquals(branch(), [CODE, BigInt(bench.handler(0x42))]);
});

Deno.test("#DB leaves the records alone and ends recording", () => {
  for (const cause of ["step", "breakpoint", "INT1"] as const) {
    enter(LBR | BTF);
    if (cause === "step") bench.flags = 0x102;
    if (cause === "breakpoint") {
      bench.state.setAt(S.dr, TARGET);
      bench.state.set(S.dr7, 0x401n);
      bench.processor.refresh();
    }
    const { events } = bench.execute(hex(cause === "INT1" ? "f1" : "eb 3e"), 2);
    assertEquals(events.map(({ vector }) => vector), [1], cause);
    assertEquals(branch(), cause === "INT1" ? [0x11n, 0x22n] : [CODE, TARGET], cause);
    assertEquals(interrupt(), [0x33n, 0x44n], cause);
    assertEquals(msr(Msr.DEBUGCTL), 0n, cause);
  }
});

Deno.test("BTF: TF traps behind branches only", () => {
  for (const [name, code, target, setup] of FORMS) {
    // IRET, SYSCALL and SYSRET change TF itself.
    if (["IRET", "SYSCALL", "SYSRET"].includes(name)) continue;
    enter(BTF);
    prepare(name, setup);
    bench.flags = bench.flags | 0x100;
    const { events } = bench.execute(hex(code), 1);
    const [event] = events;
    const ran = bench.run(event === undefined && target !== undefined ? 1 : 0).events;
    const first = event ?? ran[0];
    assertEquals(first?.vector, target === undefined ? undefined : 1, name);
    if (target === undefined) continue;
    assertEquals(first?.rip, target, name);
    assertEquals(bench.state.get(S.dr6), 0xffff_4ff0n, name);
  }
});

Deno.test("the records cannot be written, and DebugCtl has two bits", () => {
  bench.long();
  for (const index of [0x1db, 0x1dc, 0x1dd, 0x1de]) {
    assertEquals(bench.processor.writeMsr(index, 0n), false);
  }
  for (let bit = 0; bit < 64; bit++) {
    const known = bit < 2;
    const ignored = bit >= 7 && bit <= 10;
    const written = bench.processor.writeMsr(Msr.DEBUGCTL, 1n << BigInt(bit));
    assertEquals(written, known || ignored, `bit ${bit}`);
    if (written) assertEquals(msr(Msr.DEBUGCTL), known ? 1n << BigInt(bit) : 0n);
  }
  bench.processor.writeMsr(Msr.DEBUGCTL, 0n);
});

/** A loop with calls: ecx times; leaves a sum in RAX. */
const LOOP = "31 c0 b9 64 00 00 00 e8 05 00 00 00 e2 f9 eb 05 90 01 c8 c3 90 f4";

Deno.test("a program ends the same with records and without", () => {
  const results = [0n, LBR].map((control) => {
    enter(control);
    bench.processor.wake();
    bench.execute(hex(LOOP), 10_000);
    return [bench.state.register(0), bench.state.register(1), bench.state.get(S.rip), bench.flags];
  });
  assertEquals(results[0], results[1]);
  assertEquals(results[0]![0], 5050n);
});

// Guests.

const WITHOUT = new SvmBench({
  outside: { ...refuseOutside(), cpuid: () => {} },
  features: { lbr_virt: false },
});

const GUEST = BigInt(SvmPlace.GUEST_CODE);
const FIELDS = [Save.DBGCTL, Save.BR_FROM, Save.BR_TO, Save.LASTEXCPFROM, Save.LASTEXCPTO] as const;
const HOST = [S.debugCtl, S.lastBranchFrom, S.lastBranchTo, S.lastIntFrom, S.lastIntTo] as const;

Deno.test("LBR virtualization switches all five", () => {
  for (const [lab, enabled] of [[bench, true], [bench, false], [WITHOUT, true]] as const) {
    lab.guest();
    lab.guestHandlers();
    const on = lab === bench && enabled;
    if (enabled) lab.setControl32(Control.VIRT_EXT, VirtExt.LBR);
    for (const [k, offset] of FIELDS.entries()) {
      lab.setControl64(offset, k === 0 ? LBR : BigInt(0x1000 * k));
    }
    // The host records as well.
    for (const [k, field] of HOST.entries()) lab.state.set(field, k === 0 ? 0n : BigInt(k));
    // jmp +2; ud2, in whose handler the guest halts.
    assertEquals(lab.enter("eb 02 90 90 0f 0b"), "78");
    const saved = FIELDS.map((offset) => lab.control64(offset));
    const handler = BigInt(lab.guestHandler(6));
    assertEquals(
      saved,
      on
        ? [LBR, GUEST + 4n, handler, GUEST, GUEST + 4n]
        : [LBR, 0x1000n, 0x2000n, 0x3000n, 0x4000n],
    );
    assertEquals(HOST.map((field) => lab.state.get(field)), [0n, 1n, 2n, 3n, 4n]);
  }
});

Deno.test("without it guest and host share them", () => {
  WITHOUT.guest();
  WITHOUT.state.set(S.debugCtl, LBR);
  for (const field of HOST.slice(1)) WITHOUT.state.set(field, 0n);
  WITHOUT.processor.refresh();
  assertEquals(WITHOUT.enter("eb 02 90 90 f4"), "78");
  assertEquals(HOST.map((field) => WITHOUT.state.get(field)), [LBR, GUEST, GUEST + 4n, 0n, 0n]);
  WITHOUT.state.set(S.debugCtl, 0n);
});

Deno.test("an intercepted branch, and the exit, are no branches", () => {
  bench.guest();
  bench.setControl32(Control.VIRT_EXT, VirtExt.LBR);
  bench.setControl64(Save.DBGCTL, LBR);
  bench.orControl32(InterceptWord.MISC1, Misc1.IRET);
  bench.state.set(S.debugCtl, LBR);
  bench.state.set(S.lastBranchFrom, 7n);
  bench.processor.refresh();
  assertEquals(bench.enter("48 cf"), "74");
  assertEquals(bench.control64(Save.BR_FROM), 0n);
  assertEquals(bench.state.get(S.lastBranchFrom), 7n);
  assertEquals(bench.state.get(S.debugCtl), LBR);
  bench.state.set(S.debugCtl, 0n);
});
