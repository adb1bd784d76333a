/**
 * CR4.VME and CR4.PVI: the interrupt flag of programs below IOPL, and INT n by the redirection bitmap
 * (APM vol. 2, 8.9 with its tables; SDM vol. 3B, 21.3 and 21.4, table 21-2).
 */
import { assertEquals } from "@std/assert";
import { Cr4, Rflags, S, Seg } from "../../plugins/cpu/mod.ts";
import { Bench, Place, verdict } from "./bench.ts";
import { code, hex, word } from "./code.ts";

const bench = new Bench();
const { state, processor } = bench;

/** Real segment of the program's code and stack. */
const CODE = 0x1000;
const STACK = 0x2000;
const IOPL3 = 0x3000;
const BITMAP = 0x88;

/** Virtual-8086 mode at 1000:0, stack 2000:1000, with `flags` besides VM; `vme` says whether CR4 has it. */
function virtual(flags: number, vme: boolean): void {
  bench.protect();
  bench.handlers(32);
  for (const n of [Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS, Seg.CS]) {
    const selector = n === Seg.CS ? CODE : STACK;
    const base = BigInt(selector << 4);
    state.setSegment(n, { selector, attributes: 0xf3, limit: 0xffff, base });
  }
  state.set(S.cr4, vme ? BigInt(Cr4.VME) : 0n);
  state.set32(S.cpl, 3);
  state.set(S.rip, 0n);
  state.setRegister(4, 0x1000n);
  bench.flags = flags | Rflags.VM;
  processor.refresh();
  // The redirection bitmap ends where the I/O bitmap begins.
  bench.set16(Place.TSS + 0x66, BITMAP + 32);
  bench.fill(Place.TSS + BITMAP, 33, 0xff);
  state.setSegment(Seg.TR, { ...state.segment(Seg.TR), limit: BITMAP + 32 });
}

/** Executes one instruction at 1000:0; what became of it. */
function judge(text: string | number[]): string {
  bench.write(CODE << 4, code(text));
  return verdict(bench.run(1));
}

/** RFLAGS, kept. */
function flags(): number {
  const value = bench.flags;
  bench.flags = value;
  return value;
}

const stack = (offset: number): number => bench.get16((STACK << 4) + offset);
const { VM, VIF, VIP, IF, TF } = Rflags;

Deno.test("CR4 has VME and PVI", () => {
  for (const model of ["zen4", "sapphire-rapids"] as const) {
    const other = new Bench({ model });
    other.long();
    // mov rax, CR4.PAE | VME | PVI; mov cr4, rax
    assertEquals(other.judge(hex("b8 23 00 00 00")), "ok");
    other.state.set(S.rip, BigInt(Place.CODE));
    other.state.setRegister(0, 0x23n);
    assertEquals(other.judge(hex("0f 22 e0")), "ok");
    assertEquals(other.state.get(S.cr4), 0x23n);
  }
});

Deno.test("CLI and STI in virtual-8086 mode", () => {
  // IOPL, VME, flags before; instruction; verdict, flags behind.
  const rows: readonly (readonly [number, boolean, number, string, string, number])[] = [
    [3, false, IF, "fa", "ok", 0],
    [3, true, IF | VIF, "fa", "ok", VIF],
    [3, false, 0, "fb", "ok", IF],
    [3, true, VIP, "fb", "ok", IF | VIP],
    [0, false, IF, "fa", "#13(0)", IF],
    [0, false, 0, "fb", "#13(0)", 0],
    [0, true, IF | VIF, "fa", "ok", IF],
    [2, true, IF | VIF | VIP, "fa", "ok", IF | VIP],
    [0, true, IF, "fb", "ok", IF | VIF],
    [1, true, 0, "fb", "ok", VIF],
    [0, true, IF | VIP, "fb", "#13(0)", IF | VIP],
  ];
  for (const [iopl, vme, before, text, expected, behind] of rows) {
    virtual(before | (iopl << 12), vme);
    const name = `${text} IOPL ${iopl} VME ${vme} ${before.toString(16)}`;
    assertEquals(judge(text), expected, name);
    if (expected === "ok") assertEquals(flags() & (IF | VIF | VIP), behind, name);
  }
});

Deno.test("PUSHF and POPF in virtual-8086 mode", () => {
  // PUSHF: IOPL, VME, flags, operand prefix, verdict, image.
  const pushes: readonly (readonly [number, boolean, number, string, string, number])[] = [
    [3, false, IF, "", "ok", IF | IOPL3],
    [3, true, VIF, "", "ok", IOPL3],
    [0, false, IF, "", "#13(0)", 0],
    [0, true, IF, "", "ok", IOPL3],
    [1, true, VIF, "", "ok", IF | IOPL3],
    [0, true, VIF, "66", "#13(0)", 0],
  ];
  for (const [iopl, vme, before, prefix, expected, image] of pushes) {
    virtual(before | (iopl << 12), vme);
    const name = `PUSHF ${prefix} IOPL ${iopl} VME ${vme} ${before.toString(16)}`;
    assertEquals(judge(`${prefix} 9c`), expected, name);
    if (expected === "ok") assertEquals(stack(0xffe), image | 2, name);
  }
  // POPF: IOPL, VME, flags, image, prefix, verdict, flags behind.
  const pops: readonly (readonly [
    number,
    boolean,
    number,
    number,
    string,
    string,
    number,
  ])[] = [
    [3, false, 0, IF, "", "ok", IF],
    [3, true, VIF, IF, "", "ok", IF | VIF],
    [0, false, 0, 0, "", "#13(0)", 0],
    [0, true, IF, 0, "", "ok", IF],
    [0, true, 0, IF, "", "ok", VIF],
    [0, true, VIF, IOPL3, "", "ok", 0],
    [0, true, VIP, IF, "", "#13(0)", 0],
    [0, true, VIP, 0, "", "ok", VIP],
    [0, true, 0, TF, "", "#13(0)", 0],
    [0, true, 0, IF, "66", "#13(0)", 0],
  ];
  for (const [iopl, vme, before, image, prefix, expected, behind] of pops) {
    virtual(before | (iopl << 12), vme);
    bench.set16((STACK << 4) + 0x1000, image);
    const name = `POPF ${prefix} IOPL ${iopl} VME ${vme} ${before.toString(16)} ${
      image.toString(16)
    }`;
    assertEquals(judge(`${prefix} 9d`), expected, name);
    if (expected !== "ok") continue;
    assertEquals(flags() & (IF | VIF | VIP | IOPL3), behind | (iopl << 12), name);
    assertEquals(state.register(4) & 0xffffn, 0x1002n, name);
  }
});

Deno.test("IRET in virtual-8086 mode", () => {
  const rows: readonly (readonly [
    number,
    boolean,
    number,
    number,
    string,
    string,
    number,
  ])[] = [
    [3, false, 0, IF, "", "ok", IF],
    [0, false, 0, 0, "", "#13(0)", 0],
    [0, true, IF, IF, "", "ok", IF | VIF],
    [0, true, IF | VIF, IOPL3, "", "ok", IF],
    [0, true, VIP, IF, "", "#13(0)", 0],
    [0, true, 0, TF, "", "#13(0)", 0],
    [0, true, 0, IF, "66", "#13(0)", 0],
  ];
  for (const [iopl, vme, before, image, prefix, expected, behind] of rows) {
    virtual(before | (iopl << 12), vme);
    const top = (STACK << 4) + 0x1000;
    bench.set16(top, 0x1234);
    bench.set16(top + 2, 0x1800);
    bench.set16(top + 4, image);
    if (prefix !== "") {
      bench.set32(top, 0x1234);
      bench.set32(top + 4, 0x1800);
      bench.set32(top + 8, image);
    }
    const name = `IRET ${prefix} IOPL ${iopl} VME ${vme} ${before.toString(16)} ${
      image.toString(16)
    }`;
    assertEquals(judge(`${prefix} cf`), expected, name);
    if (expected !== "ok") continue;
    assertEquals(flags() & (IF | VIF | VIP | IOPL3 | VM), behind | (iopl << 12) | VM, name);
    assertEquals([state.rip, state.segment(Seg.CS).selector], [0x1234n, 0x1800], name);
  }
});

Deno.test("INT n goes to the program or to the monitor, as VME, IOPL and the bitmap say", () => {
  const VECTOR = 0x35;
  // IOPL, VME, bit of the bitmap, flags before; where it goes; image of the flags, flags behind.
  const rows: readonly (readonly [
    number,
    boolean,
    number,
    number,
    string,
    number,
    number,
  ])[] = [
    [3, false, 0, IF, "monitor", 0, 0],
    [0, false, 0, IF, "#13(0)", 0, 0],
    [0, true, 1, IF, "#13(0)", 0, 0],
    [3, true, 1, IF, "monitor", 0, 0],
    [3, true, 0, IF | VIF | TF, "program", IF | IOPL3 | TF, VIF],
    [0, true, 0, IF | VIF, "program", IF | IOPL3, IF],
    [1, true, 0, IF, "program", IOPL3, IF],
  ];
  for (const [iopl, vme, bit, before, where, image, behind] of rows) {
    virtual(before | (iopl << 12), vme);
    if (bit === 0) bench.write(Place.TSS + BITMAP + (VECTOR >> 3), [0xff & ~(1 << (VECTOR & 7))]);
    bench.write(4 * VECTOR, [...word(0x4321), ...word(0x1900)]);
    const name = `IOPL ${iopl} VME ${vme} bit ${bit}`;
    bench.write(CODE << 4, hex("cd 35"));
    const outcome = bench.run(1);
    if (where === "program") {
      assertEquals([state.rip, state.segment(Seg.CS).selector], [0x4321n, 0x1900], name);
      assertEquals([stack(0xffa), stack(0xffc), stack(0xffe)], [2, CODE, image | 2], name);
      assertEquals(state.register(4) & 0xffffn, 0xffan, name);
      const now = flags() & (IF | VIF | TF | VM | IOPL3);
      assertEquals(now, behind | VM | (iopl << 12), name);
      continue;
    }
    const [first] = outcome.events;
    if (where === "monitor") {
      assertEquals([first!.vector, first!.type], [VECTOR, "software"], name);
      assertEquals(flags() & VM, 0, name);
    } else assertEquals(verdict(outcome), where, name);
  }
});

Deno.test("a redirection bitmap beyond the TSS is #GP(0); INT3 and INTO do not ask it", () => {
  virtual(0, true);
  state.setSegment(Seg.TR, { ...state.segment(Seg.TR), limit: BITMAP + 5 });
  assertEquals(judge("cd 35"), "#13(0)");
  virtual(0, true);
  state.setSegment(Seg.TR, { ...state.segment(Seg.TR), limit: 0x66 });
  assertEquals(judge("cd 35"), "#13(0)");
  virtual(0, true);
  bench.fill(Place.TSS + BITMAP, 32, 0);
  bench.write(CODE << 4, hex("cc"));
  const [event] = bench.run(1).events;
  assertEquals([event!.vector, flags() & VM], [3, 0]);
});

Deno.test("a fault while the program's stack is written leaves everything as it was", () => {
  virtual(VIF, true);
  bench.fill(Place.TSS + BITMAP, 32, 0);
  state.setSegment(Seg.SS, { ...state.segment(Seg.SS), limit: 0xffd });
  assertEquals(judge("cd 35"), "#12(0)");
});

Deno.test("PVI: CLI and STI at CPL 3 in protected, compatibility and 64-bit mode", () => {
  const modes: readonly (readonly [string, () => void])[] = [
    ["protected", () => bench.protect(3)],
    ["compatibility", () => bench.long(3, 32)],
    ["64-bit", () => bench.long(3)],
  ];
  const rows: readonly (readonly [number, boolean, number, string, string, number])[] = [
    [0, false, IF, "fa", "#13(0)", IF],
    [3, true, IF | VIF, "fa", "ok", VIF],
    [0, true, IF | VIF, "fa", "ok", IF],
    [0, true, IF, "fb", "ok", IF | VIF],
    [2, true, IF | VIP, "fb", "#13(0)", 0],
    // PUSHF and POPF know nothing of it.
    [0, true, IF, "9c", "ok", IF],
  ];
  for (const [name, mode] of modes) {
    for (const [iopl, pvi, before, text, expected, behind] of rows) {
      mode();
      state.set(S.cr4, state.get(S.cr4) | (pvi ? BigInt(Cr4.PVI) : 0n));
      bench.flags = before | (iopl << 12);
      processor.refresh();
      assertEquals(bench.judge(hex(text)), expected, `${name} ${text} IOPL ${iopl}`);
      if (expected === "ok") assertEquals(flags() & (IF | VIF | VIP), behind, `${name} ${text}`);
    }
  }
  // Not at CPL 1 and 2.
  bench.protect(2);
  state.set(S.cr4, BigInt(Cr4.PVI));
  bench.flags = IF;
  processor.refresh();
  assertEquals(bench.judge(hex("fa")), "#13(0)");
});
