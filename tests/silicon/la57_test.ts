/**
 * Addresses of 57 bits: five levels of tables, and what is canonical with CR4.LA57 on, off, and on
 * processors that do not have it (SDM vol. 1, 3.3.7.1; vol. 3A, 4.5).
 */
import { assertEquals } from "@std/assert";
import { Cr4, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex, little } from "./code.ts";

const PML5 = 0x5_0000;
const PML4 = 0x5_1000;
const DIRECTORIES = 0x5_2000;
const TABLE = 0x5_3000;

/** Canonical for 57 bits only, and for none. */
const HIGH = 0x00ab_cdef_0000_0000n;
const NEVER = 0x0200_0000_0000_0000n;

const bench = new Bench({ model: "max" });
const narrow = new Bench({ model: "max", features: { la57: false } });

/** Long mode with five levels; the lower half of 48 bits as ever, and 2 MiB at HIGH. */
function five(cpl = 0): void {
  bench.long(cpl);
  const at = (level: number): number => Number((HIGH >> BigInt(12 + 9 * (level - 1))) & 0x1ffn);
  for (const table of [PML5, PML4, DIRECTORIES, TABLE]) bench.fill(table, 0x1000, 0);
  bench.set64(PML5, BigInt(Place.TABLES) | 0x27n);
  bench.set64(PML5 + 8 * at(5), BigInt(PML4) | 0x27n);
  bench.set64(PML4 + 8 * at(4), BigInt(DIRECTORIES) | 0x27n);
  bench.set64(DIRECTORIES + 8 * at(3), BigInt(TABLE) | 0x27n);
  bench.set64(TABLE + 8 * at(2), 0x40_00e7n);
  const { state } = bench;
  state.set(S.cr3, BigInt(PML5));
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.LA57));
  bench.processor.refresh();
}

/** mov rax, [rbx] */
const LOAD = hex("48 8b 03");

Deno.test("an address of 57 bits goes through five levels", () => {
  five();
  bench.set64(0x40_0120, 0x1234_5678_9abc_def0n);
  bench.state.setRegister(3, HIGH + 0x120n);
  assertEquals(bench.judge(LOAD), "ok");
  assertEquals(bench.state.register(0), 0x1234_5678_9abc_def0n);
  // Code runs there, too: mov eax, 7
  bench.write(0x40_0200, hex("b8 07 00 00 00"));
  bench.state.setRegister(3, HIGH + 0x200n);
  assertEquals(bench.execute(hex("ff e3"), 2).events, []);
  assertEquals(bench.state.register(0), 7n);
});

Deno.test("a level that is not there or has a reserved bit is a page fault", () => {
  five();
  bench.state.setRegister(3, HIGH + (1n << 48n));
  assertEquals(bench.judge(LOAD), "#14(0)");
  assertEquals(bench.state.get(S.cr2), HIGH + (1n << 48n));
  five();
  const top = PML5 + 8 * Number((HIGH >> 48n) & 0x1ffn);
  // Bit 7 of a PML5E is reserved, and so is what lies beyond the physical address.
  for (const bit of [7n, 50n]) {
    five();
    bench.set64(top, bench.get64(top) | (1n << bit));
    bench.state.setRegister(3, HIGH);
    assertEquals(bench.judge(LOAD), "#14(9)", `bit ${bit}`);
  }
});

/** What an access to `address` comes to, through RBX, and through RBP with the stack segment. */
function accesses(on: boolean, address: bigint): readonly string[] {
  return [LOAD, hex("48 8b 45 00")].map((code, k) => {
    if (on) five();
    else bench.long();
    bench.state.setRegister(k === 0 ? 3 : 5, address);
    return bench.judge(code);
  });
}

Deno.test("what is canonical depends on CR4.LA57 for accesses", () => {
  for (const address of [HIGH, -0x0080_0000_0000_0000n, 0x0000_8000_0000_0000n]) {
    const wide = BigInt.asUintN(64, address);
    assertEquals(accesses(false, wide), ["#13(0)", "#12(0)"], wide.toString(16));
    const [first, second] = accesses(true, wide);
    assertEquals([first === "#13(0)", second === "#12(0)"], [false, false]);
  }
  for (const address of [NEVER, 0x0100_0000_0000_0000n, 0x8000_0000_0000_0000n]) {
    assertEquals(accesses(true, address), ["#13(0)", "#12(0)"], address.toString(16));
  }
});

Deno.test("near branches go where CR4.LA57 lets them", () => {
  // jmp rbx
  for (const [on, outcome] of [[false, "#13(0)"], [true, "ok"]] as const) {
    if (on) five();
    else bench.long();
    bench.state.setRegister(3, HIGH);
    assertEquals(bench.judge(hex("ff e3")), outcome);
  }
  five();
  bench.state.setRegister(3, NEVER);
  assertEquals(bench.judge(hex("ff e3")), "#13(0)");
});

Deno.test("base registers take 57 bits where the processor has them, whatever CR4 says", () => {
  const MSRS = [0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0082, 0xc000_0083, 0x175, 0x176];
  for (const [own, wide] of [[bench, true], [narrow, false]] as const) {
    for (const msr of MSRS) {
      assertEquals(own.processor.writeMsr(msr, HIGH), wide, msr.toString(16));
      assertEquals(own.processor.writeMsr(msr, NEVER), false);
      assertEquals(own.processor.writeMsr(msr, 0x1000n), true);
    }
    for (const [base, good] of [[0x7fff_ffff_0000n, true], [HIGH, wide], [NEVER, false]] as const) {
      own.long();
      own.write(Place.DATA, [...little(0xffff, 2), ...little(base, 8)]);
      own.state.setRegister(3, BigInt(Place.DATA));
      // lgdt [rbx], lidt [rbx]
      assertEquals(own.judge(hex("0f 01 13")), good ? "ok" : "#13(0)");
      own.long();
      own.state.setRegister(3, BigInt(Place.DATA));
      assertEquals(own.judge(hex("0f 01 1b")), good ? "ok" : "#13(0)");
      // wrfsbase rbx
      own.long();
      own.state.set(S.cr4, own.state.get(S.cr4) | BigInt(Cr4.FSGSBASE));
      own.state.setRegister(3, base);
      assertEquals(own.judge(hex("f3 48 0f ae d3")), good ? "ok" : "#13(0)");
    }
  }
});

Deno.test("CR4.LA57 changes outside of long mode only, and is reserved without the feature", () => {
  const value = BigInt(Cr4.PAE | Cr4.LA57);
  for (const [own, legacy] of [[bench, "ok"], [narrow, "#13(0)"]] as const) {
    own.long();
    own.state.setRegister(0, value);
    assertEquals(own.judge(hex("0f 22 e0")), "#13(0)");
    own.protect();
    own.state.setRegister(0, value);
    assertEquals(own.judge(hex("0f 22 e0")), legacy);
  }
  five();
  bench.state.setRegister(0, BigInt(Cr4.PAE));
  assertEquals(bench.judge(hex("0f 22 e0")), "#13(0)", "nor can it be cleared");
});
