/**
 * Hardware task switches (APM vol. 2, 12.3; SDM vol. 3A, 8.3): by far JMP and CALL, through task gates,
 * by events and by IRET, what is saved and loaded, and what is refused.
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  InterceptWord,
  Misc1,
  S,
  Save,
  Seg,
  Stop,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { Bench, descriptor, gate, Place, Sel, selectorFor } from "./bench.ts";
import { hex } from "./code.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

/** Selectors and places of the old task, the new task, and a gate to it. */
const OLD = 0xf8;
const NEW = 0x108;
const GATE = 0x110;
const NEW_TSS = 0x5000;
const NEW_CODE = 0x1_1000;
const NEW_STACK = 0x3_8000;
/** Types of descriptors. */
const TSS16 = 1;
const TSS32 = 9;
const BUSY = 2;

const FLAGS_NT = 0x4000;

const bench = new Bench();

interface TaskOptions {
  readonly bits?: 16 | 32;
  readonly flags?: number;
  readonly cs?: number;
  readonly ss?: number;
  readonly ds?: number;
  readonly es?: number;
  readonly ldt?: number;
  readonly trap?: boolean;
  readonly ip?: number;
  readonly limit?: number;
}

/** Values of EAX, ECX, EDX, EBX, EBP, ESI, EDI in the new task. */
const VALUES = [0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777];

/** Writes the new task's TSS and its descriptor. */
function newTask(on: Bench, options: TaskOptions = {}): void {
  const { bits = 32, flags = 2, ldt = 0, trap = false, ip = NEW_CODE } = options;
  const { cs = Sel.CODE32, ss = Sel.DATA, ds = Sel.DATA, es = Sel.DATA } = options;
  const wide = bits === 32;
  const bytes = bits / 8;
  const put = (at: number, value: number): void =>
    wide ? on.set32(NEW_TSS + at, value) : on.set16(NEW_TSS + at, value);
  on.fill(NEW_TSS, 0x80, 0);
  const [eax, ecx, edx, ebx, ebp, esi, edi] = VALUES as [number, ...number[]];
  const registers = [eax, ecx, edx, ebx, wide ? NEW_STACK : 0x7000, ebp, esi, edi];
  const first = wide ? 0x20 : 0x0e;
  [ip, flags, ...registers].forEach((value, k) => put(first + k * bytes, value!));
  const selectors = wide ? [es, cs, ss, ds, ds, ds, ldt] : [es, cs, ss, ds, ldt];
  selectors.forEach((value, k) => put((wide ? 0x48 : 0x22) + k * bytes, value));
  if (wide) {
    on.set32(NEW_TSS + 0x1c, 0);
    on.set16(NEW_TSS + 0x64, Number(trap));
  }
  const limit = options.limit ?? (wide ? 0x67 : 0x2b);
  const access = 0x80 | (wide ? TSS32 : TSS16);
  on.setDescriptor(NEW, descriptor({ base: NEW_TSS, limit, access, flags: 0 }));
  on.setDescriptor(GATE, gate(NEW, 0, 0x85));
}

/** The old task: 32-bit code at CPL 0 with its descriptor busy in the GDT. */
function oldTask(on: Bench, cpl = 0): void {
  on.protect(cpl);
  on.setDescriptor(OLD, descriptor({ base: Place.TSS, limit: 0x67, access: 0x8b, flags: 0 }));
  on.write(NEW_CODE, [0xf4]);
  on.state.set(S.dr7, 0x4ffn);
}

const typeIn = (on: Bench, selector: number): number =>
  Number((on.getDescriptor(selector) >> 40n) & 15n);

/** Far JMP (EAh), far CALL (9Ah). */
const far = (opcode: number, selector: number): number[] => [
  opcode,
  ...[0, 0, 0, 0],
  ...[selector & 0xff, selector >> 8],
];
const JMP = 0xea;
const CALL = 0x9a;

/** What the processor holds of the new task. */
function current(on: Bench): Record<string, unknown> {
  const { state } = on;
  const register = (n: number): number => Number(state.register(n));
  return {
    tr: state.segment(Seg.TR).selector,
    busy: state.segment(Seg.TR).attributes & BUSY,
    registers: [0, 1, 2, 3, 5, 6, 7].map(register),
    esp: register(4),
    segments: [Seg.ES, Seg.CS, Seg.SS, Seg.DS].map((n) => state.segment(n).selector),
    ts: Number(state.get(S.cr0)) & 8,
    local: Number(state.get(S.dr7)) & 0x1ff,
  };
}

const EXPECTED = {
  tr: NEW,
  busy: BUSY,
  registers: VALUES,
  esp: NEW_STACK,
  segments: [Sel.DATA, Sel.CODE32, Sel.DATA, Sel.DATA],
  ts: 8,
  local: 0xaa,
};

for (
  const [name, opcode, selector] of [
    ["JMP to a TSS", JMP, NEW],
    ["JMP through a task gate", JMP, GATE],
    ["CALL of a TSS", CALL, NEW],
    ["CALL through a task gate", CALL, GATE],
  ] as const
) {
  Deno.test(`${name}: one task is saved, the other goes on where it was`, () => {
    oldTask(bench);
    newTask(bench);
    for (const n of [0, 1, 2, 3, 5, 6, 7]) bench.state.setRegister(n, BigInt(0xa000_0000 + n));
    bench.state.set(S.rflags, 0xcd7n);
    bench.write(Place.CODE, far(opcode, selector));
    const { stop } = bench.run(10);
    assertEquals(stop, Stop.HALT);
    assertEquals(current(bench), EXPECTED);
    assertEquals(bench.state.get(S.rip), BigInt(NEW_CODE + 1));
    assertEquals(bench.processor.retired, 2);
    const nested = opcode === CALL;
    assertEquals(bench.flags, nested ? FLAGS_NT | 2 : 2);
    // The old task's TSS.
    assertEquals(bench.get32(Place.TSS + 0x20), Place.CODE + 7);
    assertEquals(bench.get32(Place.TSS + 0x24), 0xcd7);
    for (const n of [0, 1, 2, 3, 5, 6, 7]) {
      assertEquals(bench.get32(Place.TSS + 0x28 + 4 * n), 0xa000_0000 + n);
    }
    assertEquals(bench.get32(Place.TSS + 0x28 + 16), bench.stack(0));
    const saved = [0, 1, 2, 3, 4, 5].map((k) => bench.get16(Place.TSS + 0x48 + 4 * k));
    assertEquals(saved, [Sel.DATA, Sel.CODE32, Sel.DATA, Sel.DATA, Sel.DATA, Sel.DATA]);
    // Who is busy, and the way back.
    assertEquals(typeIn(bench, NEW), TSS32 | BUSY);
    assertEquals(typeIn(bench, OLD), nested ? TSS32 | BUSY : TSS32);
    assertEquals(bench.get16(NEW_TSS), nested ? OLD : 0);
  });
}

Deno.test("IRET with NT goes back, and the task that ends is no longer busy", () => {
  oldTask(bench);
  newTask(bench);
  bench.write(NEW_CODE, [0x40, 0xcf, 0x40, 0xcf]); // inc eax; iret; inc eax; iret
  const call = far(CALL, NEW);
  bench.write(Place.CODE, [...call, ...call, 0xf4]);
  bench.state.setRegister(0, 5n);
  const { stop } = bench.run(20);
  assertEquals(stop, Stop.HALT);
  assertEquals(bench.processor.retired, 7);
  assertEquals(bench.state.get(S.rip), BigInt(Place.CODE + 15));
  assertEquals(bench.state.register(0), 5n);
  assertEquals(bench.state.segment(Seg.TR).selector, OLD);
  assertEquals([typeIn(bench, OLD), typeIn(bench, NEW)], [TSS32 | BUSY, TSS32]);
  // The second call went on behind the first IRET; what it left is in its TSS.
  assertEquals(bench.get32(NEW_TSS + 0x28), VALUES[0]! + 2);
  assertEquals(bench.get32(NEW_TSS + 0x20), NEW_CODE + 4);
  assertEquals(bench.get32(NEW_TSS + 0x24) & FLAGS_NT, 0);
});

Deno.test("a 16-bit TSS has 16-bit registers and no FS, GS or CR3", () => {
  oldTask(bench);
  newTask(bench, { bits: 16, ip: 0x4000, cs: Sel.CODE16, ss: Sel.DATA16 });
  bench.write(0x4000, [0xf4]);
  bench.state.setRegister(1, 0xffff_eeeen);
  bench.write(Place.CODE, far(JMP, NEW));
  assertEquals(bench.run(10).stop, Stop.HALT);
  const { registers: [eax, ecx], segments, esp } = current(bench) as {
    registers: number[];
    segments: number[];
    esp: number;
  };
  assertEquals([eax, ecx! & 0xffff, esp & 0xffff], [0x1111, 0x2222, 0x7000]);
  assertEquals(segments, [Sel.DATA, Sel.CODE16, Sel.DATA16, Sel.DATA]);
  assertEquals(bench.state.segment(Seg.FS).selector, 0);
  // Back into a 32-bit task from it.
  oldTask(bench);
  newTask(bench, { bits: 16, ip: 0x4000, cs: Sel.CODE16, ss: Sel.DATA16 });
  bench.write(0x4000, [0xcf]); // iret
  bench.write(Place.CODE, [...far(CALL, NEW), 0xf4]);
  assertEquals(bench.run(10).stop, Stop.HALT);
  assertEquals(bench.state.get(S.rip), BigInt(Place.CODE + 8));
  assertEquals(bench.get16(NEW_TSS + 0x0e), 0x4001);
});

Deno.test("an event through a task gate: the link, the error code, RF and the way back", () => {
  for (const withError of [false, true]) {
    oldTask(bench);
    newTask(bench);
    bench.handlers(32);
    const vector = withError ? Vector.GP : Vector.UD;
    bench.set64(Place.IDT + 8 * vector, gate(NEW, 0, 0x85));
    // ud2, or a selector beyond the table into DS.
    bench.state.setRegister(0, 0x7ff8n);
    bench.write(Place.CODE, withError ? [0x8e, 0xd8, 0xf4] : [0x0f, 0x0b, 0xf4]);
    const { stop, events } = bench.run(10);
    assertEquals(stop, Stop.HALT);
    assertEquals(events.map(({ vector, delivered }) => [vector, delivered]), [[vector, true]]);
    assertEquals(current(bench), { ...EXPECTED, esp: withError ? NEW_STACK - 4 : NEW_STACK });
    if (withError) assertEquals(bench.get32(NEW_STACK - 4), 0x7ff8);
    assertEquals([bench.get16(NEW_TSS), bench.flags], [OLD, FLAGS_NT | 2]);
    assertEquals(bench.get32(Place.TSS + 0x20), Place.CODE);
    assertEquals(bench.get32(Place.TSS + 0x24) & 0x1_0000, 0x1_0000);
  }
});

Deno.test("the TSS's T bit makes a debug trap before the first instruction", () => {
  oldTask(bench);
  newTask(bench, { trap: true });
  bench.handlers(32);
  bench.write(Place.CODE, far(JMP, NEW));
  const { events } = bench.run(10);
  assertEquals(events.map(({ vector, rip }) => [vector, rip]), [[Vector.DB, BigInt(NEW_CODE)]]);
  assertEquals(Number(bench.state.get(S.dr6)) & 0xe00f, 0x8000);
});

/** Selectors of segments that tests make wrong. */
const WRONG = 0x118;

/** Refused on behalf of the old task: nothing has changed. */
const REFUSED: readonly (readonly [string, number, number, () => void, number?])[] = [
  ["a busy TSS", Vector.GP, NEW, () => {
    bench.setDescriptor(NEW, bench.getDescriptor(NEW) | (2n << 40n));
  }],
  ["a TSS that is not present", Vector.NP, NEW, () => {
    bench.setDescriptor(NEW, bench.getDescriptor(NEW) & ~(0x80n << 40n));
  }],
  ["a TSS that is too short", Vector.TS, NEW, () => newTask(bench, { limit: 0x66 })],
  ["a 16-bit TSS that is too short", Vector.TS, NEW, () => {
    newTask(bench, { bits: 16, limit: 0x2a });
  }],
  ["a gate that is not present", Vector.NP, GATE, () => {
    bench.setDescriptor(GATE, gate(NEW, 0, 0x05));
  }, GATE],
  ["a gate to a TSS in the LDT", Vector.GP, NEW | 4, () => {
    bench.setDescriptor(GATE, gate(NEW | 4, 0, 0x85));
  }, GATE],
  ["a gate to what is no TSS", Vector.GP, Sel.DATA, () => {
    bench.setDescriptor(GATE, gate(Sel.DATA, 0, 0x85));
  }, GATE],
];

for (const [name, vector, error, change, selector = NEW] of REFUSED) {
  Deno.test(`refused before the switch: ${name}`, () => {
    oldTask(bench);
    newTask(bench);
    change();
    bench.write(Place.CODE, far(JMP, selector));
    const { events } = bench.run(10);
    const [first] = events;
    assertEquals([first?.vector, first?.errorCode], [vector, error]);
    assertEquals(first?.rip, BigInt(Place.CODE));
    assertEquals(bench.state.segment(Seg.TR).selector, OLD);
    assertEquals(bench.get32(Place.TSS + 0x20), 0);
  });
}

Deno.test("the privilege of a TSS and of a gate counts, not that of what is behind the gate", () => {
  for (
    const [selector, cpl, dpl, fits] of [
      [NEW, 3, 0, false],
      [NEW, 3, 3, true],
      [GATE, 3, 0, false],
      [GATE, 3, 3, true],
      [GATE, 1, 2, true],
    ] as const
  ) {
    oldTask(bench, cpl);
    newTask(bench);
    const at = selector === NEW ? NEW : GATE;
    bench.setDescriptor(at, bench.getDescriptor(at) | (BigInt(dpl) << 45n));
    bench.write(Place.CODE, far(JMP, selector));
    const { stop, events } = bench.run(10);
    if (fits) assertEquals([stop, bench.state.get32(S.cpl)], [Stop.HALT, 0]);
    else assertEquals([events[0]?.vector, events[0]?.errorCode], [Vector.GP, selector]);
  }
});

Deno.test("IRET to a task that is not busy, or to none, is an invalid TSS", () => {
  for (const link of [NEW, 0, Sel.DATA, NEW | 4]) {
    oldTask(bench);
    newTask(bench);
    bench.set16(Place.TSS, link);
    bench.state.set(S.rflags, BigInt(FLAGS_NT | 2));
    bench.write(Place.CODE, [0xcf]);
    const { events } = bench.run(10);
    assertEquals([events[0]?.vector, events[0]?.errorCode], [Vector.TS, link & 0xfffc]);
  }
});

/** Wrong in the new task: the switch has taken place, and RIP is at its first instruction. */
const INVALID: readonly (readonly [string, TaskOptions, number, number, () => void])[] = [
  ["CS null", { cs: 0 }, Vector.TS, 0, () => {}],
  ["CS a data segment", { cs: Sel.DATA }, Vector.TS, Sel.DATA, () => {}],
  ["CS of another privilege", { cs: Sel.CODE32 | 3 }, Vector.TS, Sel.CODE32, () => {}],
  ["CS not present", { cs: WRONG }, Vector.NP, WRONG, () => {
    bench.setDescriptor(WRONG, descriptor({ access: 0x1b }));
  }],
  ["SS null", { ss: 0 }, Vector.TS, 0, () => {}],
  ["SS read-only", { ss: WRONG }, Vector.TS, WRONG, () => {
    bench.setDescriptor(WRONG, descriptor({ access: 0x91 }));
  }],
  ["SS of another privilege", { ss: Sel.DATA | 3 }, Vector.TS, Sel.DATA, () => {}],
  ["SS not present", { ss: WRONG }, Vector.SS, WRONG, () => {
    bench.setDescriptor(WRONG, descriptor({ access: 0x13 }));
  }],
  ["DS not present", { ds: WRONG }, Vector.NP, WRONG, () => {
    bench.setDescriptor(WRONG, descriptor({ access: 0x13 }));
  }],
  ["DS not readable", { ds: WRONG }, Vector.TS, WRONG, () => {
    bench.setDescriptor(WRONG, descriptor({ access: 0x99 }));
  }],
  ["DS beyond the table", { ds: 0x7ff8 }, Vector.TS, 0x7ff8, () => {}],
  ["an LDT that is none", { ldt: Sel.DATA }, Vector.TS, Sel.DATA, () => {}],
  ["an LDT in the LDT", { ldt: WRONG | 4 }, Vector.TS, WRONG | 4, () => {}],
];

for (const [name, options, vector, error, prepare] of INVALID) {
  Deno.test(`in the new task: ${name}`, () => {
    oldTask(bench);
    newTask(bench, options);
    prepare();
    bench.handlers(32);
    bench.write(Place.CODE, far(JMP, NEW));
    const { events } = bench.run(10);
    const [first] = events;
    assertEquals([first?.vector, first?.errorCode], [vector, error]);
    assertEquals(first?.rip, BigInt(NEW_CODE));
    assertEquals(bench.state.segment(Seg.TR).selector, NEW);
    assertEquals(bench.get32(Place.TSS + 0x20), Place.CODE + 7);
  });
}

Deno.test("a task at CPL 3, and one in virtual-8086 mode", () => {
  oldTask(bench);
  const [cs, ss] = [selectorFor(Sel.CODE32, 3), selectorFor(Sel.DATA, 3)];
  newTask(bench, { cs, ss, ds: ss, es: ss });
  bench.write(NEW_CODE, [0x40, 0xcc]); // inc eax; int3
  bench.handlers(32);
  bench.write(Place.CODE, far(JMP, NEW));
  bench.run(2);
  assertEquals(bench.state.get32(S.cpl), 3);
  assertEquals(bench.state.register(0), BigInt(VALUES[0]! + 1));

  oldTask(bench);
  newTask(bench, { flags: 0x2_0002, cs: 0x1100, ss: 0x200, ds: 0x300, ip: 0 });
  bench.write(NEW_CODE, [0x40, 0xf4]); // inc ax; hlt
  bench.write(Place.CODE, far(JMP, NEW));
  bench.run(2);
  assertEquals([bench.state.get32(S.cpl), bench.state.get(S.rip)], [3, 1n]);
  assertEquals(bench.state.segment(Seg.SS).base, 0x2000n);
});

Deno.test("the SVM intercept: which task, and what made the switch", () => {
  const svm = new SvmBench();
  const RETURN = 1n << 36n;
  const JUMP = 1n << 38n;
  for (
    const [code, nt, info] of [
      [far(JMP, NEW), false, JUMP],
      [far(CALL, GATE), false, 0n],
      [[0xcf], true, RETURN],
    ] as const
  ) {
    svm.guest("protected");
    newTask(svm);
    if (nt) {
      svm.set16(Place.TSS, NEW);
      svm.setDescriptor(NEW, svm.getDescriptor(NEW) | (2n << 40n));
      svm.orControl64(Save.RFLAGS, FLAGS_NT);
    }
    svm.setSegment(Save.TR, OLD, 0x8b, 0x67, BigInt(Place.TSS));
    svm.setControl32(InterceptWord.MISC1, Misc1.TASK_SWITCH | Misc1.SHUTDOWN);
    svm.write(Place.CODE, hex("0f 01 da 0f 01 d8 f4")); // vmload; vmrun; hlt
    svm.write(SvmPlace.GUEST_CODE, code);
    svm.state.setRegister(0, BigInt(svm.vmcb));
    svm.run(10);
    assertEquals(svm.control64(Control.EXITCODE), 0x7dn);
    assertEquals(svm.control64(Control.EXITINFO1), BigInt(NEW));
    assertEquals(svm.control64(Control.EXITINFO2), info);
    assertEquals(svm.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE));
    assertEquals(svm.get32(Place.TSS + 0x20), 0);
  }
});
