/**
 * System instructions beside the old ones: who may execute them, what their operands have to be, and what
 * they do (APM vol. 3; SDM vol. 2).
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Cr4, type FeatureChoice, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const features: FeatureChoice = { monitor: true };
const bench = new Bench({ model: "max", features });

/** No page is there. */
const ABSENT = 0x900_0000n;

type Registers = { readonly [name in "rax" | "rbx" | "rcx" | "rdx"]?: bigint };
const NUMBERS = { rax: 0, rcx: 1, rdx: 2, rbx: 3 } as const;

interface Row {
  readonly name: string;
  readonly code: string;
  readonly outcome: string;
  readonly cpl?: number;
  readonly cr4?: number;
  readonly registers?: Registers;
  /** Quadwords at data, where RBX points unless it is given. */
  readonly data?: readonly bigint[];
}

function judge(
  { code, cpl = 0, cr4 = 0, registers = {}, data = [] }: Omit<Row, "name" | "outcome">,
): string {
  bench.long(cpl);
  const { state } = bench;
  state.set(S.cr4, state.get(S.cr4) | BigInt(cr4));
  for (const n of Object.values(NUMBERS)) state.setRegister(n, 0n);
  state.setRegister(NUMBERS.rbx, BigInt(Place.DATA));
  for (const [name, value] of Object.entries(registers)) {
    state.setRegister(NUMBERS[name as keyof Registers], value);
  }
  for (const [k, value] of data.entries()) bench.set64(Place.DATA + 8 * k, value);
  bench.processor.refresh();
  return bench.judge(hex(code));
}

const INVPCID = "66 0f 38 82 03";
const MONITOR = "0f 01 c8";
const MWAIT = "0f 01 c9";
const MONITORX = "0f 01 fa";
const MWAITX = "0f 01 fb";
const CLZERO = "0f 01 fc";
const RDPRU = "0f 01 fd";
const RDPKRU = "0f 01 ee";
const WRPKRU = "0f 01 ef";

const ROWS: readonly Row[] = [
  {
    name: "INVPCID of everything",
    code: INVPCID,
    outcome: "ok",
    registers: { rax: 2n },
    data: [0n, 0n],
  },
  { name: "INVPCID by a user", code: INVPCID, outcome: "#13(0)", cpl: 3, registers: { rax: 2n } },
  {
    name: "INVPCID of type 4",
    code: INVPCID,
    outcome: "#13(0)",
    registers: { rax: 4n },
    data: [0n, 0n],
  },
  {
    name: "INVPCID of a type that is large",
    code: INVPCID,
    outcome: "#13(0)",
    registers: { rax: 1n << 32n },
    data: [0n, 0n],
  },
  {
    name: "INVPCID with reserved bits",
    code: INVPCID,
    outcome: "#13(0)",
    registers: { rax: 3n },
    data: [0x1000n, 0n],
  },
  {
    name: "INVPCID of a PCID, without PCIDs",
    code: INVPCID,
    outcome: "#13(0)",
    registers: { rax: 1n },
    data: [5n, 0n],
  },
  {
    name: "INVPCID of PCID 0, without PCIDs",
    code: INVPCID,
    outcome: "ok",
    registers: { rax: 1n },
    data: [0n, 0n],
  },
  {
    name: "INVPCID of a PCID",
    code: INVPCID,
    outcome: "ok",
    cr4: Cr4.PCIDE,
    registers: { rax: 1n },
    data: [5n, 0n],
  },
  {
    name: "INVPCID of an address that is not canonical",
    code: INVPCID,
    outcome: "#13(0)",
    registers: { rax: 0n },
    data: [0n, 0x0200_0000_0000_0000n],
  },
  {
    name: "INVPCID of an address canonical for 57 bits",
    code: INVPCID,
    outcome: "ok",
    registers: { rax: 0n },
    data: [0n, 0x0080_0000_0000_0000n],
  },
  {
    name: "INVPCID with its operand nowhere",
    code: INVPCID,
    outcome: "#14(0)",
    registers: { rax: 2n, rbx: ABSENT },
  },
  { name: "INVPCID of a register", code: "66 0f 38 82 c3", outcome: "#6" },
  { name: "INVPCID without its prefix", code: "0f 38 82 03", outcome: "#6" },
  { name: "MONITOR", code: MONITOR, outcome: "ok", registers: { rax: BigInt(Place.DATA) } },
  { name: "MONITOR by a user", code: MONITOR, outcome: "#6", cpl: 3 },
  { name: "MONITOR with extensions", code: MONITOR, outcome: "#13(0)", registers: { rcx: 1n } },
  { name: "MONITOR of nothing", code: MONITOR, outcome: "#14(0)", registers: { rax: ABSENT } },
  { name: "MWAIT", code: MWAIT, outcome: "ok" },
  { name: "MWAIT with interrupts as events", code: MWAIT, outcome: "ok", registers: { rcx: 1n } },
  { name: "MWAIT with other extensions", code: MWAIT, outcome: "#13(0)", registers: { rcx: 2n } },
  { name: "MWAIT by a user", code: MWAIT, outcome: "#6", cpl: 3 },
  {
    name: "MONITORX by a user",
    code: MONITORX,
    outcome: "ok",
    cpl: 3,
    registers: { rax: BigInt(Place.DATA) },
  },
  {
    name: "MONITORX of nothing",
    code: MONITORX,
    outcome: "#14(4)",
    cpl: 3,
    registers: { rax: ABSENT },
  },
  { name: "MWAITX by a user", code: MWAITX, outcome: "ok", cpl: 3, registers: { rcx: 3n } },
  { name: "MWAITX with other extensions", code: MWAITX, outcome: "#13(0)", registers: { rcx: 4n } },
  { name: "CLFLUSHOPT", code: "66 0f ae 3b", outcome: "ok", cpl: 3 },
  {
    name: "CLFLUSHOPT of nothing",
    code: "66 0f ae 3b",
    outcome: "#14(4)",
    cpl: 3,
    registers: { rbx: ABSENT },
  },
  { name: "CLWB", code: "66 0f ae 33", outcome: "ok", cpl: 3 },
  {
    name: "CLWB of nothing",
    code: "66 0f ae 33",
    outcome: "#14(4)",
    cpl: 3,
    registers: { rbx: ABSENT },
  },
  {
    name: "CLZERO of nothing",
    code: CLZERO,
    outcome: "#14(6)",
    cpl: 3,
    registers: { rax: ABSENT },
  },
  { name: "WBNOINVD", code: "f3 0f 09", outcome: "ok" },
  { name: "WBNOINVD by a user", code: "f3 0f 09", outcome: "#13(0)", cpl: 3 },
  { name: "RDPRU by a user", code: RDPRU, outcome: "ok", cpl: 3 },
  { name: "RDPRU by a user with CR4.TSD", code: RDPRU, outcome: "#6", cpl: 3, cr4: Cr4.TSD },
  { name: "RDPRU with CR4.TSD", code: RDPRU, outcome: "ok", cr4: Cr4.TSD },
  { name: "RDPKRU, off", code: RDPKRU, outcome: "#6" },
  { name: "RDPKRU by a user", code: RDPKRU, outcome: "ok", cpl: 3, cr4: Cr4.PKE },
  {
    name: "RDPKRU with ECX",
    code: RDPKRU,
    outcome: "#13(0)",
    cr4: Cr4.PKE,
    registers: { rcx: 1n },
  },
  {
    name: "RDPKRU with the upper half of RCX",
    code: RDPKRU,
    outcome: "ok",
    cr4: Cr4.PKE,
    registers: { rcx: 1n << 32n },
  },
  { name: "RDPKRU with a prefix", code: `f3 ${RDPKRU}`, outcome: "#6", cr4: Cr4.PKE },
  { name: "WRPKRU, off", code: WRPKRU, outcome: "#6" },
  { name: "WRPKRU by a user", code: WRPKRU, outcome: "ok", cpl: 3, cr4: Cr4.PKE },
  {
    name: "WRPKRU with ECX",
    code: WRPKRU,
    outcome: "#13(0)",
    cr4: Cr4.PKE,
    registers: { rcx: 1n },
  },
  {
    name: "WRPKRU with EDX",
    code: WRPKRU,
    outcome: "#13(0)",
    cr4: Cr4.PKE,
    registers: { rdx: 1n },
  },
  { name: "SERIALIZE by a user", code: "0f 01 e8", outcome: "ok", cpl: 3 },
  { name: "RDPID by a user", code: "f3 0f c7 f8", outcome: "ok", cpl: 3 },
  { name: "RDRAND with a lock", code: "f0 48 0f c7 f0", outcome: "#6" },
];

for (const row of ROWS) {
  Deno.test(row.name, () => assertEquals(judge(row), row.outcome));
}

Deno.test("CLZERO clears the line that rAX points into, and no more", () => {
  bench.fill(Place.DATA, 256, 0xff);
  assertEquals(judge({ code: CLZERO, registers: { rax: BigInt(Place.DATA + 0x7f) } }), "ok");
  const bytes = bench.read(Place.DATA, 256);
  assertEquals(bytes.findIndex((byte) => byte === 0), 0x40);
  assertEquals(bytes.lastIndexOf(0), 0x7f);
  assert(bytes.subarray(0x40, 0x80).every((byte) => byte === 0));
});

Deno.test("RDPID has TSC_AUX in all bits of the register", () => {
  bench.long();
  bench.processor.setTscAux(0x8765_4321);
  bench.state.setRegister(0, -1n);
  assertEquals(bench.judge(hex("f3 0f c7 f8")), "ok");
  assertEquals(bench.state.register(0), 0x8765_4321n);
});

Deno.test("RDPRU reads MPERF and APERF, which are MSRs E7h and E8h; other registers are 0", () => {
  for (const [ecx, msr] of [[0n, 0xe7], [1n, 0xe8]] as const) {
    bench.long();
    const { state, processor } = bench;
    assertEquals(processor.writeMsr(msr, 0x12_3456_0000n), true);
    state.setRegister(1, ecx);
    assertEquals(bench.judge(hex(RDPRU)), "ok");
    assertEquals(state.register(2), 0x12n);
    assert(state.register(0) - 0x3456_0000n < 0x1000n);
  }
  assertEquals(judge({ code: RDPRU, registers: { rcx: 2n, rax: 7n, rdx: 7n } }), "ok");
  assertEquals([bench.state.register(0), bench.state.register(2)], [0n, 0n]);
});

/** RDRAND RAX, 64 bits, eight times. */
function numbers(seed?: number): bigint[] {
  const own = new Bench({ model: "max", ...(seed === undefined ? {} : { seed }) });
  return Array.from({ length: 8 }, () => {
    own.long();
    own.flags = 0x8d5;
    assertEquals(own.judge(hex("48 0f c7 f0")), "ok");
    assertEquals(own.flags & 0x8d5, 1, "CF alone");
    return own.state.register(0);
  });
}

Deno.test("random numbers differ, come with CF, and are those of the seed", () => {
  const first = numbers();
  assertEquals(new Set(first).size, 8);
  assertEquals(numbers(), first);
  assertEquals(numbers(0), first);
  assertNotEquals(numbers(1), first);
  // Each bit is 1 about half of the time.
  const ones = first.reduce((sum, value) => sum + value.toString(2).replaceAll("0", "").length, 0);
  assert(ones > 200 && ones < 312, `${ones} of 512 bits`);
});

Deno.test("random numbers have the size of their operand", () => {
  for (
    const [code, kept] of [
      ["66 0f c7 f0", 0xffff_ffff_ffff_0000n],
      ["0f c7 f0", 0n],
      ["66 0f c7 f8", 0xffff_ffff_ffff_0000n],
      ["0f c7 f8", 0n],
    ] as const
  ) {
    assertEquals(judge({ code, registers: { rax: -1n } }), "ok");
    const value = bench.state.register(0);
    const mask = kept === 0n ? 0xffff_ffff_0000_0000n : kept;
    assertEquals(value & mask, kept, code);
    assertNotEquals(value & 0xffffn, 0xffffn, code);
  }
});

Deno.test("INVPCID drops a translation that has changed", () => {
  const entry = Place.TABLES + 0x2000 + 8 * 3;
  const before = bench.get64(entry);
  // mov eax, [600000h]; a changed entry is not looked at until it is dropped.
  const load = hex("8b 04 25 00 00 60 00");
  for (const [type, pcid] of [[0n, 0n], [1n, 0n], [2n, 0n], [3n, 0n]] as const) {
    bench.long();
    bench.set64(entry, before);
    bench.set32(0x60_0000, 0x1111_1111);
    bench.set32(0x40_0000, 0x2222_2222);
    bench.processor.flushTlbs();
    const { state } = bench;
    const run = (code: readonly number[]): void => {
      assertEquals(bench.judge(code), "ok");
    };
    run(load);
    bench.set64(entry, 0x40_00e7n);
    run(load);
    assertEquals(state.register(0), 0x1111_1111n);
    bench.set64(Place.DATA, pcid);
    bench.set64(Place.DATA + 8, 0x60_0000n);
    state.setRegister(0, type);
    state.setRegister(3, BigInt(Place.DATA));
    run(hex(INVPCID));
    run(load);
    assertEquals(state.register(0), 0x2222_2222n, `type ${type}`);
  }
  bench.set64(entry, before);
});
