/**
 * What is undefined and what faults: the list of invalid encodings, each row of the table of map 4 with
 * all values of ND and NF, REX2 with every opcode, modes and XCR0.
 */
import { assert, assertEquals } from "@std/assert";
import { UnimplementedError } from "../../../core/mod.ts";
import { Cr4, S } from "../../../plugins/cpu/mod.ts";
import { Place } from "../bench.ts";
import { hex, qword } from "../code.ts";
import { ApxBench } from "./apx_bench.ts";
import { NOT_REPORTED, readList, type Row, rows } from "./lists.ts";

const bench = new ApxBench();
const UNDEFINED = "#6";

/** Registers such that memory operands of any of them are there, aligned, and divisions do not fault. */
function prepare(): void {
  bench.start();
  for (let n = 0; n < 32; n++) bench.state.setRegister(n, BigInt(Place.DATA + 0x100));
  bench.state.setRegister(4, BigInt(Place.DATA + 0x800));
  bench.state.setRegister(2, 0n);
  bench.fill(Place.DATA, 0x1000, 1);
}

Deno.test("each line of the list of invalid encodings is undefined, each control is not", () => {
  for (const { code, columns, name } of readList("invalid.tsv")) {
    prepare();
    const [expected] = columns;
    if (expected === "UD") {
      assertEquals(bench.judge(code), UNDEFINED, name);
      continue;
    }
    // INVPCID is given no type that there is, SVM is off, and VMCALL is an Intel instruction.
    if (/invpcid|vmcall|vmrun|jmpabs|mov rax, qword ptr/.test(expected!)) continue;
    assertEquals(bench.judge(code), "ok", name);
  }
});

Deno.test("JMPABS goes to its immediate, and faults on one that is not canonical", () => {
  for (const prefix of ["", "2e", "64"]) {
    prepare();
    const target = 0x12_3456n;
    assertEquals(bench.judge([...hex(`${prefix} d5 00 a1`), ...qword(target)]), "ok");
    assertEquals(bench.state.rip, target);
  }
  prepare();
  assertEquals(bench.judge([...hex("d5 00 a1"), ...qword(1n << 47n)]), "#13(0)");
  assertEquals(bench.state.rip, BigInt(Place.CODE));
  // Without REX2 A1 is MOV from an absolute address.
  prepare();
  assertEquals(bench.judge([...hex("48 a1"), ...qword(BigInt(Place.DATA))]), "ok");
  assertEquals(bench.state.register(0), 0x0101_0101_0101_0101n);
});

/** RAO-INT, which the table leaves out. */
const RAO_INT = 0xfc;

/** An EVEX map-4 instruction with all register extensions 0, but for V. */
function encode(
  { opcode, pp, group }: Pick<Row, "opcode" | "pp" | "group">,
  w: number,
  nd: number,
  nf: number,
  register: boolean,
  v = 0,
): number[] {
  const modrm = (register ? 0xc3 : 0x03) | (group < 0 ? 1 : group) << 3;
  const p1 = (w << 7) | ((~v & 15) << 3) | 4 | pp;
  return [0x62, 0xf4, p1, (nd << 4) | 8 | (nf << 2), opcode, modrm, 1, 0, 0, 0];
}

Deno.test("map 4 has the instructions of the table with the ND and NF that it allows", () => {
  const table = rows();
  assert(table.length > 300);
  const defined = new Set<string>();
  const key = (r: Row, w: number, nd: number, nf: number, register: boolean): string =>
    `${r.opcode} ${r.pp} ${r.group} ${w} ${nd} ${nf} ${register}`;
  for (const row of table) {
    for (const register of [true, false]) {
      if (!row.forms.includes(register ? "R" : "M")) continue;
      for (const w of row.wides) {
        for (const nd of [0, 1]) {
          for (const nf of [0, 1]) {
            // Bits of the condition of CCMP stand where NF would: any value is one.
            if (row.allows(nd, nf)) defined.add(key(row, w, nd, nf, register));
          }
        }
      }
    }
  }
  const groups = new Set(table.filter(({ group }) => group >= 0).map(({ opcode }) => opcode));
  const absent = table.filter(({ mnemonic }) =>
    NOT_REPORTED.test(mnemonic) && mnemonic !== "INVPCID"
  );
  let undefinedCount = 0;
  for (let opcode = 0; opcode < 256; opcode++) {
    if (opcode === RAO_INT) continue;
    for (let pp = 0; pp < 4; pp++) {
      for (const group of groups.has(opcode) ? [0, 1, 2, 3, 4, 5, 6, 7] : [-1]) {
        for (const register of [true, false]) {
          for (let bits = 0; bits < 8; bits++) {
            const [w, nd, nf] = [bits & 1, (bits >> 1) & 1, bits >> 2];
            const row = { opcode, pp, group } as Row;
            const there = defined.has(key(row, w, nd, nf, register)) &&
              !absent.some((a) => a.opcode === opcode && a.pp === pp);
            prepare();
            const outcome = bench.judge(encode(row, w, nd, nf, register));
            const name = `${
              opcode.toString(16)
            } pp ${pp} /${group} W${w} ND${nd} NF${nf} ${register}`;
            assertEquals(outcome === UNDEFINED, !there, `${name}: ${outcome}`);
            if (!there) undefinedCount++;
          }
        }
      }
    }
  }
  assert(undefinedCount > 1000);
});

Deno.test("V must be all ones where it names nothing", () => {
  for (const row of rows()) {
    if (NOT_REPORTED.test(row.mnemonic) || /^C(CMP|TEST)/.test(row.mnemonic)) continue;
    const register = row.forms.includes("R");
    for (const nf of [0, 1]) {
      if (!row.allows(0, nf)) continue;
      prepare();
      const outcome = bench.judge(encode(row, row.wides[0]!, 0, nf, register, 5));
      assertEquals(outcome, UNDEFINED, `${row.mnemonic} ${row.opcode.toString(16)}`);
    }
  }
});

Deno.test("REX2 goes with the opcodes that it goes with", () => {
  const rowsOf = [[4, 7, 0xa, 0xe], [3, 8]];
  const invalid = [
    "06 07 0e 0f 16 17 1e 1f 26 27 2e 2f 36 37 3e 3f 60 61 62 64 65 66 67 82 9a c4 c5 ce d4 d5 f0 f2 f3",
    "04 0a 0c 0f 24 25 26 27 7a 7b",
  ].map((text) => new Set(hex(text)));
  for (const map of [0, 1]) {
    for (let opcode = 0; opcode < 256; opcode++) {
      if (map === 0 && opcode === 0xa1) continue;
      const code = [0xd5, map << 7, opcode, 0x03, 0, 0, 0, 0];
      prepare();
      const expected = rowsOf[map]!.includes(opcode >> 4) || invalid[map]!.has(opcode);
      if (!expected) {
        const name = `map ${map} ${opcode.toString(16)}`;
        const legacy = map === 0 ? [opcode, 3, 0, 0, 0, 0] : [0x0f, opcode, 3, 0, 0, 0, 0];
        assertEquals(outcomeOf(code), outcomeOf(legacy), name);
      } else assertEquals(bench.judge(code), UNDEFINED, `map ${map} ${opcode.toString(16)}`);
    }
  }
});

bench.outside.portRead = () => 0;
bench.outside.portWrite = () => {};

/** What becomes of `code` from the same state; units that are not there are one outcome. */
function outcomeOf(code: readonly number[]): string {
  prepare();
  try {
    return bench.judge(code);
  } catch (error) {
    assert(error instanceof UnimplementedError);
    bench.processor.reset();
    return "unimplemented";
  }
}

Deno.test("the extended prefixes exist in 64-bit mode with OSXSAVE and XCR0[19] only", () => {
  const [rex2, evex] = [hex("d5 10 89 c0"), hex("62 f4 7c 08 01 c8")];
  for (const code of [rex2, evex]) {
    bench.start();
    assertEquals(bench.judge(code), "ok");
    bench.start(false);
    assertEquals(bench.judge(code), UNDEFINED);
    bench.start();
    bench.state.set(S.cr4, bench.state.get(S.cr4) & ~BigInt(Cr4.OSXSAVE));
    bench.processor.refresh();
    assertEquals(bench.judge(code), UNDEFINED);
  }
  // In compatibility mode D5 is AAD, and 62 is BOUND.
  bench.long(0, 32);
  bench.state.set(S.cr4, bench.state.get(S.cr4) | BigInt(Cr4.OSXSAVE));
  bench.state.set(S.xcr0, 0x8_0003n);
  bench.processor.refresh();
  bench.state.setRegister(0, 0x0203n);
  assertEquals(bench.judge(hex("d5 0a")), "ok");
  assertEquals(bench.state.register(0), 23n);
});

Deno.test("XSETBV takes effect on the next instruction, in a block that has run before", () => {
  // Loop twice: XSETBV of ESI or EDI, then MOV R16D, EAX.
  const code = hex("31 c9 31 d2 89 f0 0f 01 d1 d5 10 89 c0 48 87 f7 eb f0");
  bench.start();
  bench.state.setRegister(6, 0x8_0003n);
  bench.state.setRegister(7, 0x8_0003n);
  assertEquals(bench.execute(code, 30).events.length, 0);
  bench.state.set(S.rip, BigInt(Place.CODE));
  bench.state.setRegister(6, 0x8_0003n);
  bench.state.setRegister(7, 3n);
  const { events: [event] } = bench.run(30);
  assertEquals(event?.vector, 6);
  assertEquals(event?.rip, BigInt(Place.CODE + 9));
});

Deno.test("PUSH2 and POP2 want a stack pointer that is a multiple of 16", () => {
  for (const code of [hex("62 f4 7c 18 ff f3"), hex("62 f4 7c 18 8f c3")]) {
    for (const off of [0, 1, 8, 15]) {
      prepare();
      bench.state.setRegister(4, BigInt(Place.DATA + 0x800 + off));
      assertEquals(bench.judge(code), off === 0 ? "ok" : "#13(0)");
    }
  }
  // A stack outside of the address space is a stack fault, and nothing changes.
  prepare();
  bench.state.setRegister(4, 1n << 47n);
  assertEquals(bench.judge(hex("62 f4 7c 18 8f c3")), "#12(0)");
});

Deno.test("CFCMOV suppresses faults of memory that it does not touch, CMOV and CCMP do not", () => {
  const absent = 0x80_0000n;
  const rows: readonly (readonly [string, string, string])[] = [
    // Code with [RBX]; without the condition; with it. ZF is clear, so Z is false and NZ is true.
    ["62 f4 fc 08 44 03", "ok", "cfcmovz rax, [rbx]"],
    ["62 f4 fc 08 45 03", "#14(0)", "cfcmovnz rax, [rbx]"],
    ["62 f4 fc 0c 44 03", "ok", "cfcmovz [rbx], rax"],
    ["62 f4 fc 0c 45 03", "#14(2)", "cfcmovnz [rbx], rax"],
    ["62 f4 f4 1c 44 03", "ok", "cfcmovz rcx, rax, [rbx]"],
    ["62 f4 f4 1c 45 03", "#14(0)", "cfcmovnz rcx, rax, [rbx]"],
    ["62 f4 f4 18 44 03", "#14(0)", "cmovz rcx, rax, [rbx]"],
    ["62 f4 84 04 39 03", "#14(0)", "ccmpz [rbx], rax"],
  ];
  for (const [code, expected, name] of rows) {
    prepare();
    bench.state.setRegister(3, absent);
    bench.flags = 0;
    assertEquals(bench.judge(hex(code)), expected, name);
  }
});

Deno.test("a fault in an instruction with a new destination leaves it as it was", () => {
  prepare();
  bench.state.setRegister(3, 0x80_0000n);
  bench.state.setRegister(17, 99n);
  // add r17, [rbx], rax
  assertEquals(bench.judge(hex("62 f4 f4 10 01 03")), "#14(0)");
  assertEquals(bench.state.register(17), 99n);
  assertEquals(bench.state.rip, BigInt(Place.CODE));
});
