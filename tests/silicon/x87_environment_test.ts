/**
 * The x87 environment in memory (SDM vol. 1, figures 8-9 to 8-12), the pointers in it, and faults of
 * memory operands, which come before anything changes.
 */
import { assertEquals } from "@std/assert";
import { S, Seg, Vector } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench();
const { DATA } = Place;

/** Words of 16 bits from `address` on. */
const halves = (address: number, count: number): number[] =>
  Array.from({ length: count }, (_, k) => bench.get16(address + 2 * k));
/** Words of 32 bits. */
const words = (address: number, count: number): number[] =>
  Array.from({ length: count }, (_, k) => bench.get32(address + 4 * k));

/** Real mode with DS at 2A5F0h, running `code` at 0:6000h. */
function real(code: string, prepare: () => void): void {
  bench.real(0x6000);
  const data = { selector: 0x2a5f, attributes: 0x93, limit: 0xffff, base: 0x2_a5f0n };
  bench.state.setSegment(Seg.DS, data);
  prepare();
  const { events } = bench.execute(hex(`${code} f4`), 20);
  assertEquals(events, []);
}
const REAL_DATA = 0x2_a5f0;

Deno.test("real mode: pointers are linear, in both formats, and come back", () => {
  // fninit; fld dword [1010h]; fnstenv [1020h]; fnstenv dword [1040h]
  real("db e3 d9 06 10 10 d9 36 20 10 66 d9 36 40 10", () => bench.set32(REAL_DATA + 0x1010, 0));
  const from = 0x6002;
  const operand = REAL_DATA + 0x1010;
  const opcode = 0x106;
  assertEquals(halves(REAL_DATA + 0x1020, 7), [
    ...[0x37f, 0x3800, 0x7fff],
    ...[from, opcode | (from >> 16) << 12],
    ...[operand & 0xffff, (operand >> 16) << 12],
  ]);
  assertEquals(words(REAL_DATA + 0x1040, 7), [
    ...[0xffff_037f, 0xffff_3800, 0xffff_7fff],
    ...[0xffff_0000 + from, opcode | (from >> 16) << 12],
    ...[(0xffff_0000 | (operand & 0xffff)) >>> 0, (operand >> 16) << 12],
  ]);
  for (const load of ["d9 26 20 10", "66 d9 26 40 10"]) {
    real(`db e3 ${load} 66 d9 36 60 10`, () => {});
    assertEquals(words(REAL_DATA + 0x1060, 7), words(REAL_DATA + 0x1040, 7), load);
  }
});

Deno.test("32-bit protected mode: offsets and selectors", () => {
  bench.protect();
  bench.state.setRegister(3, BigInt(DATA));
  // fninit; fild word ss:[ebx+10h]; fnstenv [ebx+20h]; fnstenv word [ebx+40h]
  const code = hex("db e3 36 df 43 10 d9 73 20 66 d9 73 40 f4");
  assertEquals(bench.execute(code, 10).events, []);
  const cs = bench.state.segment(Seg.CS).selector;
  const ss = bench.state.segment(Seg.SS).selector;
  assertEquals(words(DATA + 0x2c, 4), [
    Place.CODE + 2,
    cs | 0x743 << 16,
    DATA + 0x10,
    (0xffff_0000 | ss) >>> 0,
  ]);
  assertEquals(halves(DATA + 0x46, 4), [
    (Place.CODE + 2) & 0xffff,
    cs,
    (DATA + 0x10) & 0xffff,
    ss,
  ]);
});

Deno.test("FNSTENV masks all exceptions, FNSAVE leaves what FNINIT leaves, FRSTOR brings all back", () => {
  bench.long();
  bench.state.setRegister(3, BigInt(DATA));
  bench.set16(DATA, 0x27e);
  // fninit; fld1; fldpi; fldcw [rbx], which unmasks IE; fnstenv [rbx+20h]; fnstcw [rbx+2]
  const first = "db e3 d9 e8 d9 eb d9 2b d9 73 20 d9 7b 02";
  // fldcw [rbx]; fnsave [rbx+80h]; fnstenv [rbx+40h]; frstor [rbx+80h]; fnsave [rbx+180h]
  const second = "d9 2b dd b3 80 00 00 00 d9 73 40 dd a3 80 00 00 00 dd b3 80 01 00 00";
  assertEquals(bench.execute(hex(`${first} ${second} f4`), 20).events, []);
  assertEquals([bench.get16(DATA + 0x20), bench.get16(DATA + 2)], [0x27e, 0x27f]);
  assertEquals(words(DATA + 0x40, 7), [
    ...[0xffff_037f, 0xffff_0000, 0xffff_ffff, 0, 0, 0, 0xffff_0000],
  ]);
  assertEquals(halves(DATA + 0x80, 5), [0x27e, 0xffff, 0x3000, 0xffff, 0x0fff]);
  assertEquals(bench.get64(DATA + 0x80 + 28), 0xc90f_daa2_2168_c235n);
  assertEquals(bench.get64(DATA + 0x80 + 38), 1n << 63n);
  assertEquals(bench.read(DATA + 0x180, 108), bench.read(DATA + 0x80, 108));
});

Deno.test("an operand that faults leaves memory, stack, status and pointers as they are", () => {
  const absent = 0x60_0000;
  const snapshot = (): unknown[] => [
    bench.state.get32(S.fpuStatus),
    bench.state.get32(S.fpuTag),
    bench.state.get(S.fpuInstruction),
    bench.state.get32(S.fpuOpcode),
  ];
  // Each is tried with its last byte in a page that is not there, and some with their first.
  const stores: [string, number][] = [
    ["d9 1b", 4], // fstp dword
    ["dd 1b", 8], // fstp qword
    ["db 3b", 10], // fstp tbyte
    ["df 33", 10], // fbstp
    ["df 3b", 8], // fistp qword
    ["d9 03", 4], // fld dword
    ["db 2b", 10], // fld tbyte
    ["d8 03", 4], // fadd dword
    ["d9 33", 28], // fnstenv
    ["dd 33", 108], // fnsave
    ["d9 23", 28], // fldenv
    ["dd 23", 108], // frstor
  ];
  const entry = Place.TABLES + 0x2000 + 8 * 3;
  const before = bench.get64(entry);
  bench.set64(entry, 0n);
  try {
    for (const [code, bytes] of stores) {
      for (const into of [0, 1, bytes - 1]) {
        const begin = "db e3 d9 eb d9 e8 de c1";
        bench.long();
        assertEquals(bench.execute(hex(`${begin} f4`), 10).events, []);
        const was = snapshot();
        bench.long();
        bench.state.setRegister(3, BigInt(absent - into));
        bench.fill(absent - 0x100, 0x100, 0);
        const { events } = bench.execute(hex(`${begin} ${code} f4`), 10);
        assertEquals(events[0]?.vector, Vector.PF, `${code} ${into} bytes before the page`);
        assertEquals(snapshot(), was, code);
        assertEquals(bench.read(absent - 0x100, 0x100), new Uint8Array(0x100), code);
      }
    }
  } finally {
    bench.set64(entry, before);
  }
});
