/**
 * Each encoding of the list runs: against the evaluator where it is arithmetic, against what is said
 * here where it is a system instruction, and is undefined where CPUID does not report it.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Prng } from "../../vectors/prng.ts";
import { Attr, Cr4, S, Seg } from "../../../plugins/cpu/mod.ts";
import { descriptor, FREE_SELECTOR, Place, Sel } from "../bench.ts";
import { ApxBench } from "./apx_bench.ts";
import { type Line, readList } from "./lists.ts";

const bench = new ApxBench();
const ENCODINGS = readList("encodings.tsv");
const SEED = 0x5eed_0019;
/** Random states for each encoding. */
const ROUNDS = 6;

/** Mnemonics of features that CPUID does not report: VMX, CET, USER_MSR, AMX, AVX-512 and others. */
const NOT_REPORTED = new RegExp(
  "^(vmwrite|vmclear|vmxon|invept|invvpid|enqcmds?|wruss[dq]|wrss[dq]|urdmsr|uwrmsr|" +
    "incsspq|ptwrite|kmov[bwdq]|sttilecfg|tileloadd|tilestored|" +
    "v[a-z0-9]+)$",
);
/** Instructions of x87 with a memory operand. */
const X87 = /^(fld|fstp|fild)$/;
/** Instructions of SSE that have a general-purpose register or a memory operand. */
const VECTOR = new RegExp(
  "^(ldmxcsr|movd|pinsrw|movups|movaps|movdqu|pxor|movntdq|fxsave64|fxrstor|" +
    "cvtsi2sd|cvttss2si|addps|sqrtsd)$",
);

const mnemonic = ({ columns }: Line): string =>
  columns[0]!.replace(/^\{[a-z0-9]+\} /, "").split(" ")[0]!;

const set = (n: number, value: bigint | number): void => bench.state.setRegister(n, BigInt(value));
const get = (n: number): bigint => bench.state.register(n);

/** A system instruction: what stands in registers and memory before, and what is to be found behind. */
interface SystemCase {
  readonly before?: () => void;
  readonly after?: () => void;
}

const DATA = Place.DATA;
const RSP = 4;
/** SYSENTER_CS. */
const MSR = 0x174;
/** The selectors of a call to LAR and LSL, and what their descriptors hold. */
const CODE64_RIGHTS = 0xa0_9b00n;
const LIMIT = 0xffff_ffffn;

const SYSTEM: Readonly<Record<string, SystemCase>> = {
  "mov ds, r16d": {
    before: () => set(16, 0),
    after: () => assertEquals(bench.state.segment(Seg.DS).selector, 0),
  },
  "fnstcw word ptr [r19]": {
    before: () => {
      set(19, DATA);
      bench.state.set32(S.fpuControl, 0x27f);
    },
    after: () => assertEquals(bench.get16(DATA), 0x27f),
  },
  "fldcw word ptr [r20]": {
    before: () => {
      set(20, DATA);
      bench.set16(DATA, 0x37b);
    },
    after: () => assertEquals(bench.state.get32(S.fpuControl), 0x37b),
  },
  "mov r17d, ss": { after: () => assertEquals(get(17), BigInt(Sel.DATA)) },
  "mov r17, cs": { after: () => assertEquals(get(17), BigInt(Sel.CODE64)) },
  "clflush byte ptr [r18]": { before: () => set(18, DATA) },
  "lgdt [r16]": {
    before: () => {
      set(16, DATA);
      bench.set16(DATA, 0x77);
      bench.set64(DATA + 2, 0x1234n);
    },
    after: () => {
      assertEquals(bench.state.get(S.gdtBase), 0x1234n);
      assertEquals(bench.state.get32(S.gdtLimit), 0x77);
    },
  },
  "sidt [r17]": {
    before: () => set(17, DATA),
    after: () => assertEquals(bench.get64(DATA + 2), BigInt(Place.IDT)),
  },
  "invlpg byte ptr [r18]": {},
  "smsw r16d": { after: () => assertEquals(get(16), bench.state.get(S.cr0)) },
  "lmsw r17w": {
    before: () => set(17, 0xb),
    after: () => assertEquals(bench.state.get(S.cr0) & 0xen, 0xan),
  },
  "sldt r16d": { after: () => assertEquals(get(16), 0n) },
  "lldt r18w": {
    before: () => set(18, 0),
    after: () => assertEquals(bench.state.segment(Seg.LDTR).attributes & Attr.P, 0),
  },
  "ltr r19w": {
    before: () => {
      set(19, FREE_SELECTOR);
      bench.setDescriptor(FREE_SELECTOR, descriptor({ access: 0x89, limit: 0x67, flags: 0 }));
      bench.set64(Place.GDT + FREE_SELECTOR + 8, 0n);
    },
    after: () => assertEquals(bench.state.segment(Seg.TR).selector, FREE_SELECTOR),
  },
  "lar r16d, r17d": {
    before: () => set(17, Sel.CODE64),
    after: () => assertEquals(get(16) & 0xf0_ff00n, CODE64_RIGHTS),
  },
  "lsl r18, r19d": {
    before: () => set(19, Sel.CODE64),
    after: () => assertEquals(get(18), LIMIT),
  },
  "mov cr4, r17": {
    before: () => set(17, bench.state.get(S.cr4) | BigInt(Cr4.PGE)),
    after: () => assertEquals(bench.state.get(S.cr4) & BigInt(Cr4.PGE), BigInt(Cr4.PGE)),
  },
  "mov r18, cr8": {
    before: () => bench.state.set(S.cr8, 5n),
    after: () => assertEquals(get(18), 5n),
  },
  "mov r19, dr7": { after: () => assertEquals(get(19), 0x400n) },
  // Without shadow stacks this is a NOP.
  "rdsspq r17": { before: () => set(17, 77), after: () => assertEquals(get(17), 77n) },
  "rdrand r16": {
    before: () => set(16, 0),
    after: () => assertNotEquals(get(16), 0n),
  },
  "rdseed r17d": {
    before: () => set(17, -1n),
    after: () => assert(get(17) < 2n ** 32n),
  },
  "{evex} invpcid rax, [rbx]": {
    before: () => {
      set(0, 2);
      set(3, DATA);
      bench.fill(DATA, 16, 0);
    },
  },
  "clflushopt byte ptr [r17]": { before: () => set(17, DATA) },
  "rdmsr rax, 0x174": {
    before: () => bench.processor.writeMsr(MSR, 0x1_0000_0023n),
    after: () => assertEquals(get(0), 0x1_0000_0023n),
  },
  "rdmsr r16, 0x174": {
    before: () => bench.processor.writeMsr(MSR, 0x1_0000_0024n),
    after: () => assertEquals(get(16), 0x1_0000_0024n),
  },
  "wrmsrns 0x174, rax": {
    before: () => set(0, 0x2_0000_0025n),
    after: () => assertEquals(bench.processor.readMsr(MSR), 0x2_0000_0025n),
  },
  "wrmsrns 0x830, r15": {
    before: () => {
      set(15, 0x1_0000_00fdn);
      bench.outside.msrWrite = (index) => {
        const [low, high] = bench.processor.exchange;
        written.push(index, low!, high!);
        return true;
      };
    },
    after: () => assertEquals(written.splice(0), [0x830, 0xfd, 1]),
  },
  // EFER, by its index with the upper half clear.
  "wrmsrns -1073741696, rcx": {
    before: () => set(1, bench.state.get(S.efer) & ~1n),
    after: () => assertEquals(bench.state.get(S.efer) & 1n, 0n),
  },
  "rdmsr": {
    before: () => set(1, MSR),
    after: () => assertEquals(get(0), (bench.processor.readMsr(MSR) ?? 0n) & 0xffff_ffffn),
  },
};
const written: number[] = [];

type Class = "arithmetic" | "not reported" | "x87" | "system" | "vector";

function classOf(line: Line): Class {
  const name = mnemonic(line);
  if (line.columns[0]! in SYSTEM) return "system";
  if (NOT_REPORTED.test(name)) return "not reported";
  if (VECTOR.test(name)) return "vector";
  return X87.test(name) ? "x87" : "arithmetic";
}

const linesOf = (wanted: Class): readonly Line[] =>
  ENCODINGS.filter((line) => classOf(line) === wanted);

Deno.test("each encoding of arithmetic, moves and branches does what the evaluator does", () => {
  console.log(`seed ${SEED.toString(16)}`);
  for (const [number, { code, name }] of linesOf("arithmetic").entries()) {
    for (let round = 0; round < ROUNDS; round++) {
      const random = new Prng(SEED, number * ROUNDS + round);
      bench.start();
      bench.randomize(random);
      bench.arrange(code, random);
      assert(bench.compare(code, name), `${name}: the evaluator does not know it`);
    }
  }
});

Deno.test("each encoding of a system instruction does what its row says", () => {
  const lines = linesOf("system");
  assertEquals(lines.map(({ columns }) => columns[0]!).sort(), Object.keys(SYSTEM).sort());
  for (const { code, columns, name } of lines) {
    const { before, after } = SYSTEM[columns[0]!]!;
    bench.standardTables();
    bench.start();
    before?.();
    const { rip } = bench.state;
    assertEquals(bench.judge(code), "ok", name);
    assertEquals(bench.state.rip, rip + BigInt(code.length), name);
    after?.();
  }
});

Deno.test("vector instructions take R16–R31 as address and as operand", () => {
  const lines = linesOf("vector");
  assertEquals(lines.length, 14);
  for (const { code, columns, name } of lines) {
    bench.start();
    bench.fill(DATA, 0x1000, 0);
    // With any of R0–R15 in its place the address would not be canonical, or the value another.
    for (let n = 0; n < 16; n++) if (n !== RSP) set(n, 0x5aaa_0000_0000_0000n);
    for (let n = 16; n < 32; n++) set(n, DATA + 0x100);
    // R18 is an index, R20 has an odd displacement.
    set(18, 0x20);
    assertEquals(bench.judge(code), "ok", name);
    const [, destination, general] = /^(?:movd|pinsrw) xmm(\d), r(\d+)d/.exec(columns[0]!) ?? [];
    if (general === undefined) continue;
    const lane = columns[0]!.startsWith("pinsrw") ? 48n : 0n;
    const value = bench.state.at(S.vectors + 64 * Number(destination));
    assertEquals((value >> lane) & 0xffffn, BigInt(DATA + 0x100) & 0xffffn, name);
  }
});

Deno.test("encodings of features that CPUID does not report are undefined", () => {
  for (const { code, name } of linesOf("not reported")) {
    bench.start();
    assertEquals(bench.judge(code), "#6", name);
  }
});

Deno.test("x87 instructions take R16–R31 in their addresses", () => {
  const lines = linesOf("x87");
  assertEquals(lines.length, 3);
  for (const { code, name } of lines) {
    bench.start();
    bench.fill(DATA, 0x1000, 0);
    // With any of R0–R15 in its place the address would not be canonical.
    for (let n = 0; n < 16; n++) if (n !== RSP) set(n, 0x5aaa_0000_0000_0000n);
    for (let n = 16; n < 32; n++) set(n, DATA + 0x100);
    assertEquals(bench.judge(code), "ok", name);
    assertEquals(bench.state.get(S.fpuData), BigInt(DATA + 0x100), name);
  }
});

Deno.test("without APX in XCR0 every encoding with REX2 or EVEX is undefined", () => {
  for (const { code, name } of ENCODINGS) {
    if (!code.some((byte) => byte === 0xd5 || byte === 0x62) || /^(c4|0f|f[23]0f)/.test(name)) {
      continue;
    }
    bench.start(false);
    assertEquals(bench.judge(code), "#6", name);
  }
});
