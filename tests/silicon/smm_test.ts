/**
 * System management mode: the state-save areas, the registers of the handler, RSM's checks, what waits while
 * SMM lasts, auto-halt restart, SMBASE (APM vol. 2, ch. 10; SDM vol. 3C, ch. 33).
 */
import { assertEquals } from "@std/assert";
import {
  type CpuModel,
  Cr0,
  Cr4,
  Efer,
  Msr,
  readProcessorState,
  S,
  Seg,
  Stop,
  writeProcessorState,
} from "../../plugins/cpu/mod.ts";
import { Bench, Place, Sel, verdict } from "./bench.ts";
import { hex } from "./code.ts";

const SMBASE = 0x3_0000;
const HANDLER = 0x8000;
const RSM = "0f aa";
const INTEL: CpuModel = "sapphire-rapids";

const benches = { amd: new Bench(), intel: new Bench({ model: INTEL }) } as const;
type Maker = keyof typeof benches;

/** What register `n` holds. */
const R = (n: number): bigint => 0x0111_0000_2222_0000n * BigInt(n + 1);

/** Long mode with values of their own in every register that is saved, about to execute `code`. */
function prepare(bench: Bench, code = "90 f4", handler = "f4"): void {
  bench.long();
  const { state, processor } = bench;
  for (let n = 0; n < 16; n++) if (n !== 4) state.setRegister(n, R(n));
  state.setRegister(4, 0x3_1f00n);
  state.set(S.dr6, 0xffff_0ff1n);
  state.setSegment(Seg.FS, { ...state.segment(Seg.FS), base: 0x7fff_1234_5678n });
  state.setSegment(Seg.GS, { ...state.segment(Seg.GS), base: 0xffff_8000_0000_1000n });
  state.setSegment(Seg.LDTR, {
    selector: 0x140,
    attributes: 0x82,
    limit: 0x1ff,
    base: 0xffff_9000_0000_4000n,
  });
  bench.flags = 0x8d7;
  processor.refresh();
  bench.write(Place.CODE, hex(code));
  bench.write(SMBASE + HANDLER, hex(handler));
  bench.fill(SMBASE + 0xfc00, 0x400, 0x5a);
}

/** Sends an SMI and runs. */
function smi(bench: Bench, budget = 1000): ReturnType<Bench["run"]> {
  bench.processor.raiseSmi();
  return bench.run(budget);
}

/** A field of the save area: 8, 16, 32 or 64 bits. */
function saved(bench: Bench, offset: number, bits: number, base = SMBASE): bigint {
  const bytes = bench.read(base + offset, bits / 8);
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function setSaved(bench: Bench, offset: number, bits: number, value: bigint): void {
  bench.write(
    SMBASE + offset,
    Array.from({ length: bits / 8 }, (_, k) => Number((value >> BigInt(8 * k)) & 0xffn)),
  );
}

type Row = readonly [name: string, offset: number, bits: number, value: bigint];

const FLAT_DATA = 0xc093n;
const FLAT_CODE64 = 0xa09bn;
const LONG_CR0 = 0x8000_0000n | BigInt(Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP);
const LONG_EFER = BigInt(Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE);

const segment = (
  name: string,
  offset: number,
  [selector, attributes, limit, base]: readonly [number, bigint, bigint, bigint],
): Row[] => [
  [`${name} selector`, offset, 16, BigInt(selector)],
  [`${name} attributes`, offset + 2, 16, attributes],
  [`${name} limit`, offset + 4, 32, limit],
  [`${name} base`, offset + 8, 64, base],
];
const data = (base: bigint) => [Sel.DATA, FLAT_DATA, 0xffff_ffffn, base] as const;

/** APM vol. 2, table 10-1. */
const AMD_ROWS: readonly Row[] = [
  ...segment("ES", 0xfe00, data(0n)),
  ...segment("CS", 0xfe10, [Sel.CODE64, FLAT_CODE64, 0xffff_ffffn, 0n]),
  ...segment("SS", 0xfe20, data(0n)),
  ...segment("DS", 0xfe30, data(0n)),
  ...segment("FS", 0xfe40, data(0x7fff_1234_5678n)),
  ...segment("GS", 0xfe50, data(0xffff_8000_0000_1000n)),
  ["GDTR limit", 0xfe64, 16, 0xfffn],
  ["GDTR base", 0xfe68, 64, BigInt(Place.GDT)],
  ...segment("LDTR", 0xfe70, [0x140, 0x82n, 0x1ffn, 0xffff_9000_0000_4000n]),
  ["IDTR limit", 0xfe84, 16, 0n],
  ["IDTR base", 0xfe88, 64, BigInt(Place.IDT)],
  ...segment("TR", 0xfe90, [0xf8, 0x8bn, 0x67n, BigInt(Place.TSS)]),
  ["I/O restart dword", 0xfec0, 32, 0n],
  ["I/O restart", 0xfec8, 8, 0n],
  ["auto-halt restart", 0xfec9, 8, 0n],
  ["EFER", 0xfed0, 64, LONG_EFER],
  ["SVM guest", 0xfed8, 64, 0n],
  ["SVM guest's VMCB", 0xfee0, 64, 0n],
  ["SVM guest's virtual interrupt", 0xfee8, 64, 0n],
  ["revision", 0xfefc, 32, 0x3_0064n],
  ["SMBASE", 0xff00, 32, BigInt(SMBASE)],
  ["CR4", 0xff48, 64, BigInt(Cr4.PAE)],
  ["CR3", 0xff50, 64, BigInt(Place.TABLES)],
  ["CR0", 0xff58, 64, LONG_CR0],
  ["DR7", 0xff60, 64, 0x400n],
  ["DR6", 0xff68, 64, 0xffff_0ff1n],
  ["RFLAGS", 0xff70, 64, 0x8d7n],
  ["RIP", 0xff78, 64, BigInt(Place.CODE)],
  ...[15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5].map((n, k): Row => [
    `R${n}`,
    0xff80 + 8 * k,
    64,
    R(n),
  ]),
  ["RSP", 0xffd8, 64, 0x3_1f00n],
  ["RBX", 0xffe0, 64, R(3)],
  ["RDX", 0xffe8, 64, R(2)],
  ["RCX", 0xfff0, 64, R(1)],
  ["RAX", 0xfff8, 64, R(0)],
];

/** SDM vol. 3C, table 33-3. */
const INTEL_ROWS: readonly Row[] = [
  ["CR0", 0xfff8, 64, LONG_CR0],
  ["CR3", 0xfff0, 64, BigInt(Place.TABLES)],
  ["RFLAGS", 0xffe8, 64, 0x8d7n],
  ["EFER", 0xffe0, 64, LONG_EFER],
  ["RIP", 0xffd8, 64, BigInt(Place.CODE)],
  ["DR6", 0xffd0, 64, 0xffff_0ff1n],
  ["DR7", 0xffc8, 64, 0x400n],
  ["TR", 0xffc4, 32, 0xf8n],
  ["LDTR", 0xffc0, 32, 0x140n],
  ...["GS", "FS", "DS", "SS"].map((name, k): Row => [name, 0xffbc - 4 * k, 32, BigInt(Sel.DATA)]),
  ["CS", 0xffac, 32, BigInt(Sel.CODE64)],
  ["ES", 0xffa8, 32, BigInt(Sel.DATA)],
  ["IO_MISC", 0xffa4, 32, 0n],
  ["RDI", 0xff94, 64, R(7)],
  ["RSI", 0xff8c, 64, R(6)],
  ["RBP", 0xff84, 64, R(5)],
  ["RSP", 0xff7c, 64, 0x3_1f00n],
  ["RBX", 0xff74, 64, R(3)],
  ["RDX", 0xff6c, 64, R(2)],
  ["RCX", 0xff64, 64, R(1)],
  ["RAX", 0xff5c, 64, R(0)],
  ...[8, 9, 10, 11, 12, 13, 14, 15].map((n, k): Row => [`R${n}`, 0xff54 - 8 * k, 64, R(n)]),
  ["auto-halt restart", 0xff02, 16, 0n],
  ["I/O restart", 0xff00, 16, 0n],
  ["revision", 0xfefc, 32, 0x3_0101n],
  ["SMBASE", 0xfef8, 32, BigInt(SMBASE)],
  ["enable EPT", 0xfee0, 32, 0n],
  ["LDTR base", 0xfe9c, 32, 0x4000n],
  ["IDTR base", 0xfe94, 32, BigInt(Place.IDT)],
  ["GDTR base", 0xfe8c, 32, BigInt(Place.GDT)],
  ["CR4", 0xfe40, 32, BigInt(Cr4.PAE)],
  ["IDTR base, high", 0xfdd8, 32, 0n],
  ["LDTR base, high", 0xfdd4, 32, 0xffff_9000n],
  ["GDTR base, high", 0xfdd0, 32, 0n],
];

const ROWS = { amd: AMD_ROWS, intel: INTEL_ROWS } as const;
/** Offset and width by the name of the row. */
function place(maker: Maker, name: string): readonly [number, number] {
  const row = ROWS[maker].find(([n]) => n === name);
  if (row === undefined) throw new Error(name);
  return [row[1], row[2]];
}

for (const maker of ["amd", "intel"] as const) {
  const bench = benches[maker];
  const { processor, state } = bench;

  Deno.test(`${maker}: an SMI saves the state where the manual has it`, () => {
    prepare(bench);
    assertEquals(smi(bench).stop, Stop.HALT);
    for (const [name, offset, bits, value] of ROWS[maker]) {
      assertEquals(saved(bench, offset, bits).toString(16), value.toString(16), name);
    }
  });

  Deno.test(`${maker}: the handler begins with the registers of the manual's table`, () => {
    prepare(bench);
    state.set(S.cr0, state.get(S.cr0) | BigInt(Cr0.TS | Cr0.EM));
    state.set(S.dr7, 0x401n);
    processor.refresh();
    smi(bench);
    assertEquals(state.rip, BigInt(HANDLER + 1));
    assertEquals(bench.flags, 2);
    bench.flags = 2;
    assertEquals(state.get(S.cr0), BigInt(Cr0.ET | Cr0.NE | Cr0.WP));
    assertEquals([state.get(S.cr4), state.get(S.efer), state.get(S.dr7)], [0n, 0n, 0x400n]);
    const limit = 0xffff_ffff;
    const base = BigInt(SMBASE);
    const code = state.segment(Seg.CS);
    assertEquals({ ...code, attributes: 0 }, { selector: 0x3000, attributes: 0, limit, base });
    for (const n of [Seg.DS, Seg.ES, Seg.FS, Seg.GS, Seg.SS]) {
      const { selector, limit: end, base: start } = state.segment(n);
      assertEquals([selector, end, start], [0, limit, 0n]);
    }
    assertEquals(state.get32(S.cpl), 0);
    // General registers are the interrupted program's; CR3 is as it was.
    assertEquals(state.register(0), R(0));
    assertEquals(state.get(S.cr3), BigInt(Place.TABLES));
  });

  Deno.test(`${maker}: the handler reaches all of 4 GiB, and writes its own code segment`, () => {
    // mov dword [cs:100h], 12345678h; mov eax, 200000h; mov [eax], 9ABCDEF0h (32-bit address); hlt
    const handler = "66 2e c7 06 00 01 78 56 34 12  66 b8 00 00 20 00  67 66 c7 00 f0 de bc 9a f4";
    prepare(bench, "90 f4", handler);
    assertEquals(verdict(smi(bench)), "ok");
    assertEquals(bench.get32(SMBASE + 0x100), 0x1234_5678);
    assertEquals(bench.get32(0x20_0000), 0x9abc_def0);
  });

  Deno.test(`${maker}: RSM brings everything back`, () => {
    prepare(bench, "f4", `31 c0 31 db 31 d2 bc 00 40 0f 01 16 00 00 ${RSM}`);
    const before = Array.from({ length: 16 }, (_, n) => state.register(n));
    const segments = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => state.segment(n));
    const registers = [S.cr0, S.cr3, S.cr4, S.efer, S.dr6, S.dr7, S.gdtBase, S.idtBase];
    const values = registers.map((field) => state.get(field));
    const outcome = smi(bench);
    assertEquals([outcome.stop, state.rip], [Stop.HALT, BigInt(Place.CODE + 1)]);
    assertEquals(Array.from({ length: 16 }, (_, n) => state.register(n)), before);
    assertEquals([0, 1, 2, 3, 4, 5, 6, 7].map((n) => state.segment(n)), segments);
    assertEquals(registers.map((field) => state.get(field)), values);
    assertEquals(bench.flags, 0x8d7);
    assertEquals([state.get32(S.smm), state.get32(S.nmiBlocked)], [0, 0]);
    assertEquals(state.get32(S.gdtLimit), 0xfff);
  });

  Deno.test(`${maker}: RSM from and to each privilege, and to compatibility, protected and real mode`, () => {
    const modes: readonly (readonly [string, () => void])[] = [
      ["CPL 3", () => bench.long(3)],
      ["compatibility", () => bench.long(0, 32)],
      ["protected, CPL 2", () => bench.protect(2)],
      ["real", () => bench.real(Place.CODE - 0x4000)],
    ];
    for (const [name, mode] of modes) {
      mode();
      bench.write(SMBASE + HANDLER, hex(RSM));
      const rip = state.rip;
      bench.write(Number(rip), hex("90 eb fe"));
      const kept = [S.cpl, S.mode].map((field) => state.get32(field));
      const flags = bench.flags;
      bench.flags = flags;
      assertEquals(verdict(smi(bench, 4)), "ok", name);
      assertEquals(state.rip, rip + 1n, name);
      assertEquals([S.cpl, S.mode].map((field) => state.get32(field)), kept, name);
    }
  });

  Deno.test(`${maker}: what the handler writes into the area is what RSM loads`, () => {
    prepare(bench, "f4", "f4");
    smi(bench);
    const rows: readonly (readonly [string, bigint])[] = [
      ["RAX", 0xdead_beef_0000_1234n],
      ["R15", 0x15n],
      ["RIP", BigInt(Place.CODE + 0x100)],
      ["RFLAGS", 0x203n],
    ];
    for (const [name, value] of rows) setSaved(bench, ...place(maker, name), value);
    setSaved(bench, ...place(maker, "SMBASE"), 0x12_0000n);
    bench.write(SMBASE + HANDLER + 1, hex(RSM));
    bench.write(Place.CODE + 0x100, hex("90 f4"));
    processor.wake();
    assertEquals(bench.run(10).stop, Stop.HALT);
    assertEquals([state.register(0), state.register(15)], [0xdead_beef_0000_1234n, 0x15n]);
    assertEquals(state.rip, BigInt(Place.CODE + 0x102));
    assertEquals(bench.flags, 0x203);
    bench.flags = 0x202;
    // The next one finds its handler, and the area, elsewhere.
    bench.write(0x12_0000 + HANDLER, hex("f4"));
    processor.wake();
    smi(bench);
    const [offset, bits] = place(maker, "RIP");
    assertEquals(saved(bench, offset, bits, 0x12_0000), BigInt(Place.CODE + 0x102));
    const { selector, base } = state.segment(Seg.CS);
    assertEquals([selector, base], [0x2000, 0x12_0000n]);
  });

  Deno.test(`${maker}: RSM shuts down on what cannot be`, () => {
    const cr4 = BigInt(Cr4.PAE);
    const rows: readonly (readonly [string, string, bigint])[] = [
      ["PG without PE", "CR0", LONG_CR0 & ~1n],
      ["NW without CD", "CR0", LONG_CR0 | BigInt(Cr0.NW)],
      ["CR0[63:32]", "CR0", LONG_CR0 | (1n << 40n)],
      ["CR3 beyond the physical address", "CR3", 1n << 51n],
      ["a reserved bit of CR4", "CR4", cr4 | (1n << 15n)],
      ["CR4 bit 31", "CR4", cr4 | (1n << 31n)],
      ["DR6[63:32]", "DR6", 1n << 32n],
      ["DR7[63:32]", "DR7", 1n << 63n],
      ["a reserved bit of EFER", "EFER", LONG_EFER | 2n],
      ["long mode without PAE", "CR4", 0n],
      ["another revision", "revision", 0x3_0063n],
    ];
    for (const [name, field, value] of rows) {
      prepare(bench, "f4", "f4");
      smi(bench);
      setSaved(bench, ...place(maker, field), value);
      bench.write(SMBASE + HANDLER + 1, hex(RSM));
      processor.wake();
      assertEquals(bench.run(10).stop, Stop.SHUTDOWN, name);
    }
    if (maker === "intel") return;
    // 64-bit code with a default size of 32 bits.
    prepare(bench, "f4", "f4");
    smi(bench);
    setSaved(bench, 0xfe12, 16, FLAT_CODE64 | 0x4000n);
    bench.write(SMBASE + HANDLER + 1, hex(RSM));
    processor.wake();
    assertEquals(bench.run(10).stop, Stop.SHUTDOWN);
  });

  Deno.test(`${maker}: RSM puts LMA and RFLAGS.VM right`, () => {
    prepare(bench, "f4", "f4");
    smi(bench);
    setSaved(bench, ...place(maker, "EFER"), LONG_EFER & ~BigInt(Efer.LMA));
    setSaved(bench, ...place(maker, "RFLAGS"), 0x2_0002n);
    bench.write(SMBASE + HANDLER + 1, hex(RSM));
    processor.wake();
    assertEquals(bench.run(10).stop, Stop.HALT);
    assertEquals(state.get(S.efer), LONG_EFER);
    assertEquals(bench.flags, 2);
    bench.flags = 2;
  });

  Deno.test(`${maker}: outside of SMM RSM is undefined, at any privilege`, () => {
    for (const cpl of [0, 3]) {
      bench.long(cpl);
      assertEquals(bench.judge(hex(RSM)), "#6");
    }
    bench.real();
    assertEquals(bench.judge(hex(RSM)), "#6");
  });

  Deno.test(`${maker}: an SMI in SMM waits for RSM, and one is latched, not two`, () => {
    prepare(bench, "90 f4", `ff 06 00 01 90 90 ${RSM}`);
    bench.set16(0x100, 0);
    processor.raiseSmi();
    bench.run(2);
    assertEquals([state.get32(S.smm), bench.get16(0x100)], [1, 1]);
    processor.raiseSmi();
    processor.raiseSmi();
    assertEquals(bench.run(100).stop, Stop.HALT);
    assertEquals([bench.get16(0x100), state.rip], [2, BigInt(Place.CODE + 2)]);
  });

  Deno.test(`${maker}: an SMI comes before an NMI, which waits in SMM until RSM`, () => {
    prepare(bench, "90 f4", `90 90 ${RSM}`);
    bench.handlers(64);
    processor.raiseNmi();
    const { events, stop } = smi(bench);
    assertEquals([stop, events.map(({ vector }) => vector)], [Stop.HALT, [2]]);
    // Nothing of the program had been executed.
    assertEquals(events[0]!.rip, BigInt(Place.CODE));
    assertEquals(state.rip, BigInt(bench.handler(2) + 1));
    assertEquals(state.get32(S.nmiBlocked), 1);
  });

  Deno.test(`${maker}: an IRET in SMM lets NMIs in; blocking of before comes back with RSM`, () => {
    // The real-mode table has vector 2 at 0:9000h, an IRET. pushf; push cs; push next; iret
    prepare(bench, "90 f4", `bc 00 60 9c 0e 68 0b 80 cf 90 90 90 90 90 ${RSM}`);
    bench.set32(8, 0x9000);
    bench.write(0x9000, hex("cf"));
    state.set(S.idtBase, 0n);
    state.set32(S.idtLimit, 0x3ff);
    processor.raiseNmi();
    processor.raiseSmi();
    const { events } = bench.run(100);
    assertEquals(events.map(({ vector }) => vector), [2]);
    assertEquals(events[0]!.rip, 0x800bn);
    // It had been blocked before: it is again behind RSM, and a new one waits.
    prepare(bench, "90 90 f4", `bc 00 60 9c 0e 68 0b 80 cf 90 90 90 90 90 ${RSM}`);
    state.set32(S.nmiBlocked, 1);
    assertEquals(smi(bench).stop, Stop.HALT);
    assertEquals(state.get32(S.nmiBlocked), 1);
  });

  Deno.test(`${maker}: an SMI in a halt: the halt goes on unless the handler says otherwise`, () => {
    const [offset, bits] = place(maker, "auto-halt restart");
    prepare(bench, "f4 90 90 f4", `90 ${RSM}`);
    assertEquals(bench.run(100).stop, Stop.HALT);
    assertEquals(smi(bench).stop, Stop.HALT);
    assertEquals(saved(bench, offset, bits), 1n);
    assertEquals(state.rip, BigInt(Place.CODE + 1));
    assertEquals(processor.retired, 2);
    // Cleared, the program goes on behind HLT.
    bench.write(
      SMBASE + HANDLER,
      hex(
        `2e c6 06 ${(offset & 0xff).toString(16).padStart(2, "0")} ${
          (offset >> 8).toString(16)
        } 00 ${RSM}`,
      ),
    );
    assertEquals(smi(bench).stop, Stop.HALT);
    assertEquals(state.rip, BigInt(Place.CODE + 4));
  });

  Deno.test(`${maker}: an SMI waits behind STI and MOV SS`, () => {
    for (const code of ["fb 90 f4", "8e d1 90 f4"]) {
      prepare(bench, code);
      state.setRegister(1, BigInt(Sel.DATA));
      assertEquals(bench.run(1).stop, Stop.BUDGET);
      smi(bench);
      const length = hex(code).length - 1;
      assertEquals(saved(bench, ...place(maker, "RIP")), BigInt(Place.CODE + length), code);
    }
  });

  Deno.test(`${maker}: INIT waits in SMM`, () => {
    prepare(bench, "90 f4", `90 90 90 ${RSM}`);
    processor.raiseSmi();
    bench.run(1);
    assertEquals([processor.mindsInit, processor.takesInit], [true, false]);
    processor.raiseInit();
    assertEquals(bench.run(2).stop, Stop.BUDGET);
    assertEquals(bench.run(10).stop, Stop.INIT);
    assertEquals(state.get32(S.smm), 0);
  });

  Deno.test(`${maker}: memory that is there in SMM alone is the handler's`, () => {
    const own = new Bench(maker === "amd" ? {} : { model: INTEL });
    const HIDDEN = 0x7_0000;
    const SPACE = { HANDLERS: 2, PROGRAMS: 1 } as const;
    prepare(
      own,
      "8a 03 c6 03 11 90 8a 23 f4",
      `66 26 67 a1 00 00 07 00 66 26 67 c7 05 00 00 07 00
      78 56 34 12 ${RSM}`,
    );
    own.processors.mapAlias(SPACE.HANDLERS, 0, 0x80_0000, own.base);
    own.processors.unmapAlias(SPACE.PROGRAMS, HIDDEN, 0x1000);
    own.processor.setSmmSpace(SPACE.HANDLERS);
    own.write(HIDDEN, hex("44 33 22 11"));
    const accesses: string[] = [];
    own.outside.deviceRead = (low) => void accesses.push(`read ${low.toString(16)}`);
    own.outside.deviceWrite = (low) => void accesses.push(`write ${low.toString(16)}`);
    own.processor.state.setRegister(3, BigInt(HIDDEN));
    // mov al, [rbx]; mov byte [rbx], 11h; the SMI: mov eax, [70000h]; mov dword [70000h], 12345678h
    own.run(2);
    assertEquals(smi(own).stop, Stop.HALT);
    assertEquals(accesses, ["read 70000", "write 70000", "read 70000"]);
    assertEquals(own.get32(HIDDEN), 0x1234_5678);
    const [offset, bits] = place(maker, "RAX");
    assertEquals(saved(own, offset, bits) & 0xffn, 0xffn);
  });

  Deno.test(`${maker}: a vCPU's SMM is saved in the middle of a handler, and goes on elsewhere`, () => {
    const [one, two] = [0, 1].map(() => new Bench(maker === "amd" ? {} : { model: INTEL }));
    const handler = `ff 06 00 01 ff 06 00 01 ${RSM}`;
    const benches = [one!, two!];
    for (const each of benches) prepare(each, "90 f4", handler);
    const from = one!.processor;
    from.raiseSmi();
    one!.run(1);
    from.raiseSmi();
    const { smmState } = from;
    assertEquals([smmState.inside, smmState.pending, smmState.base], [true, true, SMBASE]);
    const to = two!.processor;
    for (let at = 0; at < 0x4_0000; at += 0x1000) two!.write(at, one!.read(at, 0x1000));
    writeProcessorState(to, readProcessorState(from), 2n);
    for (let n = 0; n < 16; n++) to.state.setRegister(n, from.state.register(n));
    to.state.set(S.rip, from.state.rip);
    to.smmState = smmState;
    for (const each of benches) assertEquals(each.run(100).stop, Stop.HALT);
    // Four times: the one that was latched came behind RSM.
    assertEquals(two!.get16(0x100), one!.get16(0x100));
    assertEquals(two!.processor.state.rip, from.state.rip);
    assertEquals(to.state.get32(S.smm), 0);
    for (let n = 0; n < 16; n++) assertEquals(to.state.register(n), from.state.register(n));
    assertEquals(to.smmState.pending, false);
  });

  Deno.test(`${maker}: code in the area that was executed before is what the SMI stores there`, () => {
    const [offset] = place(maker, "RCX");
    const at = SMBASE + offset;
    prepare(bench, "ff d3 ff d3 f4", RSM);
    bench.write(at, hex("90 90 c3"));
    state.setRegister(0, 0n);
    state.setRegister(3, BigInt(at));
    // inc eax; ret
    state.setRegister(1, 0xc3c0ffn);
    bench.run(4);
    assertEquals([state.rip, state.register(0)], [BigInt(Place.CODE + 2), 0n]);
    smi(bench);
    assertEquals([state.rip, state.register(0)], [BigInt(Place.CODE + 5), 1n]);
  });
}

Deno.test("AMD's SMM_BASE is SMBASE; SMMLOCK locks it and SMM_CTL", () => {
  const bench = new Bench({
    outside: { ...benches.amd.outside, msrRead: () => true, msrWrite: () => true },
  });
  const { processor, state } = bench;
  prepare(bench);
  assertEquals(processor.readMsr(Msr.SMM_BASE), BigInt(SMBASE));
  assertEquals(processor.writeMsr(Msr.SMM_BASE, 1n << 32n), false);
  assertEquals(processor.writeMsr(Msr.SMM_BASE, 0x14_0000n), true);
  bench.write(0x14_0000 + HANDLER, hex("f4"));
  smi(bench);
  assertEquals(state.segment(Seg.CS).base, 0x14_0000n);
  bench.long();
  assertEquals(processor.readMsr(Msr.SMM_CTL), undefined);
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 0x20n), false);
  // DISMISS: the SMI that was latched is gone.
  processor.raiseSmi();
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 1n), true);
  bench.write(Place.CODE, hex("90 90 f4"));
  assertEquals(bench.run(10).stop, Stop.HALT);
  assertEquals([state.get32(S.smm), state.rip], [0, BigInt(Place.CODE + 3)]);
  // ENTER has SMIs and NMIs wait, EXIT lets them in.
  bench.long();
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 2n), true);
  assertEquals([state.get32(S.smm), state.get32(S.nmiBlocked)], [1, 1]);
  processor.raiseSmi();
  assertEquals(processor.takesSmi, false);
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 8n), true);
  assertEquals([state.get32(S.smm), state.get32(S.nmiBlocked)], [0, 0]);
  assertEquals(processor.takesSmi, true);
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 1n), true);
  // HWCR.SMMLOCK.
  assertEquals(processor.writeMsr(Msr.HWCR, 0x0100_0001n), true);
  assertEquals(processor.writeMsr(Msr.SMM_BASE, 0x15_0000n), false);
  assertEquals(processor.writeMsr(Msr.SMM_CTL, 1n), false);
  assertEquals(processor.writeMsr(Msr.HWCR, 0x0100_0000n), true);
  assertEquals(processor.writeMsr(Msr.SMM_BASE, 0x15_0000n), false);
  processor.reset();
  assertEquals(processor.readMsr(Msr.SMM_BASE), BigInt(SMBASE));
  assertEquals(processor.writeMsr(Msr.SMM_BASE, 0x15_0000n), true);
});

Deno.test("there is no VMX operation in SMM", () => {
  const bench = benches.intel;
  // mov eax, 2000h; mov cr4, eax: #GP, with an empty table.
  prepare(bench, "90 f4", "66 b8 00 20 00 00 0f 22 e0 f4");
  assertEquals(verdict(smi(bench)), "#13");
});
