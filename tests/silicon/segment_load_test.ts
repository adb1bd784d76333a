/**
 * Loads of segment registers, generated: every descriptor type, DPL, RPL, CPL and present bit, for every
 * register, against the rules of APM vol. 2, 4.10 and 4.13.
 */
import { assertEquals } from "@std/assert";
import { Attr, S, Seg } from "../../plugins/cpu/mod.ts";
import { Bench, descriptor, FREE_SELECTOR, Place, Sel, selectorFor, verdict } from "./bench.ts";
import { code, dword, hex, word } from "./code.ts";

const bench = new Bench();

/** Registers by the number in ModRM.reg of 8E. */
const REGISTERS = [
  ["ES", Seg.ES],
  ["SS", Seg.SS],
  ["DS", Seg.DS],
  ["FS", Seg.FS],
  ["GS", Seg.GS],
] as const;

/** MOV Sreg, AX. */
const move = (register: number): number[] => [0x8e, 0xc0 | (register << 3)];

/** What loading `selector` with `value` into `register` does at `cpl`. */
function expectedLoad(register: number, value: bigint, selector: number, cpl: number): string {
  const access = Number((value >> 40n) & 0xffn);
  const type = access & 15;
  const rpl = selector & 3;
  const dpl = (access >> 5) & 3;
  const error = (selector & 0xfffc).toString(16);
  const segment = (access & 0x10) !== 0;
  const isCode = (type & 8) !== 0;
  const present = (access & 0x80) !== 0;
  if (register === Seg.SS) {
    const writable = segment && !isCode && (type & 2) !== 0;
    if (!writable || rpl !== cpl || dpl !== cpl) return `#13(${error})`;
    return present ? "ok" : `#12(${error})`;
  }
  const readable = segment && (!isCode || (type & 2) !== 0);
  if (!readable) return `#13(${error})`;
  const conforming = isCode && (type & 4) !== 0;
  if (!conforming && (rpl > dpl || cpl > dpl)) return `#13(${error})`;
  return present ? "ok" : `#11(${error})`;
}

/** Base, limit and flags that tell descriptors apart. */
function marked(access: number): bigint {
  return descriptor({
    base: 0x1234_5000 + access * 0x101,
    limit: 0x4_3210 ^ access,
    access,
    flags: access & 1 ? 0xd : 0x5,
  });
}

type Mode = "protected" | "compatibility" | "64-bit";

function enter(mode: Mode, cpl: number): void {
  if (mode === "protected") bench.protect(cpl);
  else bench.long(cpl, mode === "64-bit" ? 64 : 32);
}

function checkLoad(
  mode: Mode,
  [name, register]: typeof REGISTERS[number],
  access: number,
  rpl: number,
  cpl: number,
): string | undefined {
  const value = marked(access);
  const selector = FREE_SELECTOR | rpl;
  bench.setDescriptor(selector, value);
  enter(mode, cpl);
  const { state } = bench;
  const before = state.segment(register);
  state.setRegister(0, BigInt(selector));
  const is = bench.judge(move(register));
  const expected = expectedLoad(register, value, selector, cpl);
  const where = `${mode} ${name} access ${access.toString(16)} rpl ${rpl} cpl ${cpl}`;
  if (is !== expected) return `${where}: ${is}, not ${expected}`;
  const after = state.segment(register);
  const inTable = bench.getDescriptor(selector);
  if (expected !== "ok") {
    if (inTable !== value) return `${where}: descriptor changed`;
    return JSON.stringify(after, text) === JSON.stringify(before, text)
      ? undefined
      : `${where}: register changed`;
  }
  const accessed = access | 1;
  const granular = (access & 1) !== 0;
  const limit = 0x4_3210 ^ access;
  const loaded = {
    selector,
    attributes: accessed | ((granular ? 0xd : 0x5) << 8),
    limit: granular ? ((limit << 12) | 0xfff) >>> 0 : limit,
    base: BigInt(0x1234_5000 + access * 0x101),
  };
  if (JSON.stringify(after, text) !== JSON.stringify(loaded, text)) {
    return `${where}: loaded ${JSON.stringify(after, text)}`;
  }
  return inTable === (value | (1n << 40n)) ? undefined : `${where}: not marked as accessed`;
}

const text = (_: string, value: unknown): unknown =>
  typeof value === "bigint" ? value.toString(16) : value;

for (const mode of ["protected", "compatibility", "64-bit"] as const) {
  Deno.test(`MOV to each segment register in ${mode} mode: every access byte, RPL and CPL`, () => {
    const wrong: string[] = [];
    for (const register of REGISTERS) {
      for (let access = 0; access < 256 && wrong.length < 8; access++) {
        for (let rpl = 0; rpl < 4; rpl++) {
          for (let cpl = 0; cpl < 4; cpl++) {
            const found = checkLoad(mode, register, access, rpl, cpl);
            if (found !== undefined) wrong.push(found);
          }
        }
      }
    }
    assertEquals(wrong.join("\n"), "");
  });
}

Deno.test("null selectors: allowed but in SS, where 64-bit mode allows them below CPL 3 with a matching RPL", () => {
  for (const mode of ["protected", "compatibility", "64-bit"] as const) {
    for (const [name, register] of REGISTERS) {
      for (let rpl = 0; rpl < 4; rpl++) {
        for (let cpl = 0; cpl < 4; cpl++) {
          enter(mode, cpl);
          bench.state.setRegister(0, BigInt(rpl));
          const is = bench.judge(move(register));
          const allowed = register !== Seg.SS || (mode === "64-bit" && cpl !== 3 && rpl === cpl);
          const where = `${mode} ${name} ${rpl} at ${cpl}`;
          assertEquals(is, allowed ? "ok" : "#13(0)", where);
          if (!allowed) continue;
          const { selector, attributes, base } = bench.state.segment(register);
          assertEquals(selector, rpl, where);
          assertEquals(attributes & Attr.P, 0, where);
          // The processor reports NullSelectClearsBase.
          assertEquals(base, 0n, where);
        }
      }
    }
  }
});

Deno.test("selectors beyond the limit of their table, byte by byte", () => {
  for (let limit = FREE_SELECTOR - 1; limit <= FREE_SELECTOR + 8; limit++) {
    bench.setDescriptor(FREE_SELECTOR, descriptor({ access: 0x92 }));
    bench.protect();
    bench.state.set32(S.gdtLimit, limit);
    bench.state.setRegister(0, BigInt(FREE_SELECTOR));
    assertEquals(bench.judge(move(Seg.DS)), limit >= FREE_SELECTOR + 7 ? "ok" : "#13(100)");
  }
  // The same in an LDT, and an LDT that is not there.
  bench.set64(Place.LDT + 8, descriptor({ access: 0x92 }));
  for (let limit = 7; limit <= 16; limit++) {
    bench.protect();
    bench.state.setSegment(Seg.LDTR, {
      selector: 0x50,
      attributes: 0x82,
      limit,
      base: BigInt(Place.LDT),
    });
    bench.processor.refresh();
    bench.state.setRegister(0, 0x0cn);
    assertEquals(bench.judge(move(Seg.DS)), limit >= 15 ? "ok" : "#13(c)");
  }
  bench.protect();
  bench.state.setRegister(0, 0x0cn);
  assertEquals(bench.judge(move(Seg.DS)), "#13(c)");
  bench.protect();
  bench.state.setRegister(0, 0x04n);
  assertEquals(bench.judge(move(Seg.DS)), "#13(4)");
});

Deno.test("CS cannot be loaded by MOV, and there are no registers 6 and 7", () => {
  for (const register of [1, 6, 7]) {
    for (const mode of ["protected", "64-bit"] as const) {
      enter(mode, 0);
      assertEquals(bench.judge(move(register)), "#6");
      assertEquals(bench.judge([0x8c, 0xc0 | (register << 3)]), register === 1 ? "ok" : "#6");
    }
  }
});

/** Instructions that load a segment register, with what they read the selector from. */
const LOADERS: readonly (readonly [string, number, number[], "stack" | "memory"])[] = [
  ["POP ES", Seg.ES, hex("07"), "stack"],
  ["POP SS", Seg.SS, hex("17"), "stack"],
  ["POP DS", Seg.DS, hex("1f"), "stack"],
  ["POP FS", Seg.FS, hex("0f a1"), "stack"],
  ["POP GS", Seg.GS, hex("0f a9"), "stack"],
  ["LES", Seg.ES, hex("c4 03"), "memory"],
  ["LDS", Seg.DS, hex("c5 03"), "memory"],
  ["LSS", Seg.SS, hex("0f b2 03"), "memory"],
  ["LFS", Seg.FS, hex("0f b4 03"), "memory"],
  ["LGS", Seg.GS, hex("0f b5 03"), "memory"],
  ["MOV from memory", Seg.DS, hex("8e 5b 04"), "memory"],
];

Deno.test("POP, LES and the like load by the same rules, and a fault leaves everything", () => {
  for (const [name, register, bytes, from] of LOADERS) {
    for (let access = 0x80; access < 0x100; access++) {
      for (const rpl of [0, 3]) {
        for (const cpl of [0, 3]) {
          const value = marked(access);
          const selector = FREE_SELECTOR | rpl;
          bench.setDescriptor(selector, value);
          bench.protect(cpl);
          const { state } = bench;
          const top = bench.stack(cpl) - 16;
          bench.set32(top, selector | 0xffff_0000);
          bench.write(Place.DATA, code(dword(0xaabb_ccdd), word(selector)));
          state.setRegister(4, BigInt(top));
          state.setRegister(3, BigInt(Place.DATA));
          state.setRegister(0, 0x1111n);
          const is = bench.judge(bytes);
          const where = `${name} access ${access.toString(16)} rpl ${rpl} cpl ${cpl}`;
          const expected = expectedLoad(register, value, selector, cpl);
          assertEquals(is, expected, where);
          const done = expected === "ok";
          assertEquals(state.register(4), BigInt(top + (done && from === "stack" ? 4 : 0)), where);
          const loads = name.startsWith("L");
          assertEquals(state.register(0), done && loads ? 0xaabb_ccddn : 0x1111n, where);
          if (done) assertEquals(state.segment(register).selector, selector, where);
        }
      }
    }
  }
});

Deno.test("PUSH of a segment register, and MOV from one: widths", () => {
  bench.protect(3);
  const { state } = bench;
  const data = selectorFor(Sel.DATA, 3);
  bench.set32(bench.stack(3) - 4, 0xffff_ffff);
  bench.execute(hex("1e"));
  assertEquals(bench.get32(bench.stack(3) - 4), data);
  bench.protect(3);
  bench.set32(bench.stack(3) - 4, 0xffff_ffff);
  bench.execute(hex("66 1e"));
  assertEquals(state.register(4), BigInt(bench.stack(3) - 2));
  assertEquals(bench.get16(bench.stack(3) - 2), data);
  // A 32-bit register is zero-extended, memory gets 16 bits.
  bench.protect(3);
  state.setRegister(0, 0xffff_ffffn);
  bench.execute(hex("8c d8"));
  assertEquals(state.register(0), BigInt(data));
  bench.protect(3);
  state.setRegister(0, 0xffff_ffffn);
  bench.execute(hex("66 8c d8"));
  assertEquals(state.register(0), 0xffff_0000n | BigInt(data));
  bench.protect(3);
  bench.set32(Place.DATA, 0xffff_ffff);
  state.setRegister(3, BigInt(Place.DATA));
  bench.execute(hex("8c 1b"));
  assertEquals(bench.get32(Place.DATA), (0xffff_0000 | data) >>> 0);
});

Deno.test("in real mode any selector goes: base × 16, limit and attributes stay (unreal mode)", () => {
  for (const [name, register] of REGISTERS) {
    bench.real();
    const { state } = bench;
    const big = { selector: 0, attributes: 0xc93, limit: 0xffff_ffff, base: 0n };
    state.setSegment(register, big);
    bench.processor.refresh();
    state.setRegister(0, 0xabcdn);
    assertEquals(bench.judge(move(register)), "ok", name);
    assertEquals(state.segment(register), { ...big, selector: 0xabcd, base: 0xa_bcd0n }, name);
  }
});

Deno.test("marking a descriptor as accessed faults if its page is read-only, with nothing loaded", () => {
  bench.setDescriptor(FREE_SELECTOR, descriptor({ access: 0x92 }));
  bench.long(0);
  // The GDT through a page of its own: linear 40_0000_1000h, read-only.
  const { state } = bench;
  bench.set64(Place.TABLES + 0x1000 + 8 * 256, BigInt(Place.TABLES + 0x3000) | 3n);
  bench.set64(Place.TABLES + 0x3000, BigInt(Place.TABLES + 0x4000) | 3n);
  bench.set64(Place.TABLES + 0x4000 + 8, 0x1001n);
  state.set(S.gdtBase, 0x40_0000_1000n);
  bench.processor.refresh();
  state.setRegister(0, BigInt(FREE_SELECTOR));
  const outcome = bench.execute(move(Seg.DS));
  assertEquals(verdict(outcome), "#14(3)");
  assertEquals(state.segment(Seg.DS).selector, Sel.DATA);
});
