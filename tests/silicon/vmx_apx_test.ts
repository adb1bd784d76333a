/**
 * APX and MSR_IMM in VMX non-root operation: exits 84 and 85, register numbers of five bits, the extended
 * instruction information, and what XSAVE needs of VMX.
 */
import { assertEquals } from "@std/assert";
import { Cr4, Msr, Primary, S, Secondary, Vmcs, Xcr0 } from "../../plugins/cpu/mod.ts";
import { evex, rex2 } from "./apx/encode.ts";
import { code, dword } from "./code.ts";
import { At, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab("diamond-rapids");
const { bench } = lab;
const standard = standardFields();

const APX_ON: Fields = { [Vmcs.GUEST_CR4]: BigInt(Cr4.PAE | Cr4.VMXE | Cr4.OSXSAVE) };
const primary = (bits: number, more: Fields = {}): Fields => ({
  [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) | BigInt(bits >>> 0),
  ...APX_ON,
  ...more,
});
const secondary = (bits: number): Fields =>
  primary(Primary.SECONDARY, { [Vmcs.SECONDARY_CONTROLS]: bits >>> 0 });

/** Runs guest code on `where` with APX in XCR0; the exit as text. */
function run(
  bytes: string | readonly number[],
  fields: Fields = APX_ON,
  registers: Readonly<Record<number, bigint>> = {},
  where = lab,
): string {
  const { state } = where.bench;
  where.start();
  where.bench.write(At.GUEST, [...code(bytes), 0xf4]);
  where.prepare(fields);
  state.set(S.xcr0, BigInt(Xcr0.X87 | Xcr0.SSE | Xcr0.APX));
  for (const [n, value] of Object.entries(registers)) state.setRegister(Number(n), value);
  return exitText(where.enter());
}

const length = (): number => Number(lab.read(Vmcs.EXIT_INSTRUCTION_LENGTH));
const legacy = (): string => lab.read(Vmcs.EXIT_INSTRUCTION_INFO).toString(16);
const extended = (): string => lab.read(Vmcs.EXTENDED_INSTRUCTION_INFO).toString(16);

/** RDMSR (pp 3) or WRMSRNS (pp 2) with an immediate. */
const immediate = (pp: number, register: number, msr: number): number[] =>
  code(evex({ map: 7, pp, wide: 0, low: 8, defaults: -1 }, 0xf6, 0, register, 0), dword(msr));

Deno.test("exits 84 and 85: the MSR is the qualification, the register in both informations", () => {
  for (const [pp, name] of [[3, "RDMSR_IMMEDIATE"], [2, "WRMSRNS_IMMEDIATE"]] as const) {
    for (const register of [0, 7, 12, 16, 20, 31]) {
      const bytes = immediate(pp, register, 0x1234);
      assertEquals(run(bytes), `${name} 1234`);
      assertEquals(length(), bytes.length);
      assertEquals(extended(), (BigInt(register) << 16n).toString(16));
      assertEquals(legacy(), ((register & 15) << 3).toString(16));
    }
    // The index is zero-extended.
    assertEquals(run(immediate(pp, 20, 0xc000_0102)), `${name} c0000102`);
    assertEquals(run(immediate(pp, 20, 0x830)), `${name} 830`);
  }
  // VEX: c4 e7 7b f6 c3 = rdmsr rbx, imm32.
  assertEquals(run("c4 e7 7b f6 c3 74 01 00 00"), "RDMSR_IMMEDIATE 174");
  assertEquals([legacy(), extended()], ["18", "30000"]);
});

Deno.test("the ordinary MSR bitmaps decide on them", () => {
  const fields = primary(Primary.MSR_BITMAPS, { [Vmcs.MSR_BITMAP]: At.SCRATCH });
  bench.fill(At.SCRATCH, 0x1000, 0);
  const index = Msr.KERNEL_GS_BASE;
  const both = code(immediate(2, 20, index), immediate(3, 29, index));
  assertEquals(run(both, fields, { 20: 0x1234_5678_9abcn }), "HLT");
  assertEquals(bench.state.register(29), 0x1234_5678_9abcn);
  const bit = (part: number): void =>
    bench.write(At.SCRATCH + part + ((index & 0x1fff) >> 3), [1 << (index & 7)]);
  bit(0x400);
  assertEquals(run(immediate(3, 29, index), fields), "RDMSR_IMMEDIATE c0000102");
  assertEquals(run(immediate(2, 29, index), fields), "HLT");
  bit(0xc00);
  assertEquals(run(immediate(2, 29, index), fields), "WRMSRNS_IMMEDIATE c0000102");
  // In neither range.
  assertEquals(run(immediate(3, 29, 0x2000), fields), "RDMSR_IMMEDIATE 2000");
});

Deno.test("extended instruction information has registers of five bits", () => {
  const rbx = BigInt(At.DATA);
  const none = { index: 0x400n, base: 0x800n } as const;
  /** Address size 64 in 3:2, segment DS in 9:7. */
  const memory = (scale: number, index: number | undefined, base: number | undefined): bigint =>
    BigInt(scale) | 8n | (3n << 7n) |
    (index === undefined ? none.index : BigInt(index) << 24n) |
    (base === undefined ? none.base : BigInt(base) << 32n);
  const rows: readonly (readonly [number[], string, bigint])[] = [
    // vmclear [r20 + r29*4 + 8]
    [
      [0x66, ...rex2(1, 0xc7, 0, 6, { base: 20, index: 29, scale: 2, displacement: 8 })],
      "VMCLEAR 8",
      memory(2, 29, 20),
    ],
    // vmptrld [r31]
    [
      rex2(1, 0xc7, 0, 6, { base: 31, index: 4, scale: 0, displacement: 0 }),
      "VMPTRLD",
      memory(0, undefined, 31),
    ],
    // vmread r17, r25; vmwrite r25, r17
    [rex2(1, 0x78, 0, 25, 17), "VMREAD", 0x10n | (17n << 16n) | (25n << 40n)],
    [rex2(1, 0x79, 0, 25, 17), "VMWRITE", 0x10n | (17n << 16n) | (25n << 40n)],
    // vmread [r16], r30
    [
      rex2(1, 0x78, 0, 30, { base: 16, index: 4, scale: 0, displacement: 0 }),
      "VMREAD",
      memory(0, undefined, 16) | (30n << 40n),
    ],
    // invvpid r24, [rbx], promoted to map 4
    [
      evex(
        { map: 4, pp: 2, wide: 0, low: 8, defaults: -1 },
        0xf1,
        24,
        { base: 3, index: 4, scale: 0, displacement: 0 },
        0,
      ),
      "INVVPID",
      memory(0, undefined, 3) | (24n << 40n),
    ],
  ];
  for (const [bytes, exit, info] of rows) {
    assertEquals(run(bytes, APX_ON, { 3: rbx }), exit);
    assertEquals(extended(), info.toString(16), exit);
    assertEquals(length(), bytes.length);
  }
  // The 32-bit field has the four low bits: base and index of VMCLEAR [r20 + r29*4 + 8].
  run(rows[0]![0]);
  assertEquals(legacy(), (2 | (2 << 7) | (3 << 15) | (13 << 18) | (4 << 23)).toString(16));
  // sgdt [r19]: the extended field has no place for which instruction it was.
  const at19 = { base: 19, index: 4, scale: 0, displacement: 0 };
  assertEquals(run(rex2(1, 0x01, 0, 3, at19), secondary(Secondary.DESCRIPTOR_TABLES)), "GDTR_IDTR");
  assertEquals(extended(), memory(0, undefined, 19).toString(16));
  assertEquals(Number.parseInt(legacy(), 16) >>> 28, 3);
  // str r26
  assertEquals(run(rex2(1, 0x00, 0, 1, 26), secondary(Secondary.DESCRIPTOR_TABLES)), "LDTR_TR");
  assertEquals(extended(), (0x10n | (26n << 16n)).toString(16));
  // outsb from FS: no registers
  assertEquals(run("64 6e", primary(Primary.UNCONDITIONAL_IO), { 2: 0n }), "IO 10");
  assertEquals(extended(), (8n | (4n << 7n)).toString(16));
});

Deno.test("qualifications of control and debug registers have the register in 12:8", () => {
  const load = primary(Primary.CR3_LOAD | Primary.CR3_STORE | Primary.MOV_DR);
  assertEquals(run(rex2(1, 0x22, 0, 3, 20), load), "CR_ACCESS 1403");
  assertEquals(run(rex2(1, 0x20, 0, 3, 31), load), "CR_ACCESS 1f13");
  assertEquals(run(rex2(1, 0x21, 0, 7, 16), load), "DR_ACCESS 1017");
  assertEquals(run(rex2(1, 0x23, 0, 0, 27), load), "DR_ACCESS 1b00");
});

Deno.test("R16–R31 survive entries and exits", () => {
  const value = (n: number): bigint => 0x0101_0101_0101_0101n * BigInt(n);
  const registers = Object.fromEntries(
    Array.from({ length: 16 }, (_, k) => [16 + k, value(16 + k)]),
  );
  // add r16, r31
  assertEquals(run(rex2(0, 0x03, 1, 16, 31), APX_ON, registers), "HLT");
  const { state } = bench;
  assertEquals(state.register(16), value(16) + value(31));
  for (let n = 17; n < 32; n++) assertEquals(state.register(n), value(n));
  assertEquals(lab.enter(false).result, "exit");
  for (let n = 17; n < 32; n++) assertEquals(state.register(n), value(n));
});

Deno.test("XSETBV always exits; XSAVES and XRSTORS are undefined without their control", () => {
  assertEquals(run("31 c9 31 d2 b8 03 00 00 00 0f 01 d1"), "XSETBV");
  assertEquals(length(), 3);
  const undefinedExits = { [Vmcs.EXCEPTION_BITMAP]: 1 << 6 };
  // xsaves [rbx] and xrstors [rbx], of the area at DATA
  const bytes = "0f c7 2b  0f c7 1b";
  const registers = { 0: 7n, 2: 0n, 3: BigInt(At.DATA) };
  assertEquals(run(bytes, { ...APX_ON, ...undefinedExits }, registers), "EXCEPTION_OR_NMI");
  const on = { ...secondary(Secondary.XSAVES), ...undefinedExits };
  assertEquals(run(bytes, on, registers), "HLT");
  assertEquals(run("0f c7 1b", { ...APX_ON, ...undefinedExits }, registers), "EXCEPTION_OR_NMI");
});

Deno.test("without APX there is no extended field, and the other has the register", () => {
  const plain = new VmxLab("sapphire-rapids", { wrmsrns: true, msr_imm: true });
  assertEquals(run("c4 c7 7a f6 c1 30 08 00 00", {}, {}, plain), "WRMSRNS_IMMEDIATE 830");
  assertEquals(plain.read(Vmcs.EXIT_INSTRUCTION_INFO), 9n << 3n);
  assertEquals(plain.vmwrite(Vmcs.EXTENDED_INSTRUCTION_INFO, 1), "VMfail 12");
});
