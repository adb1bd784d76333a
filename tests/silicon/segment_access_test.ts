/**
 * What segments allow: types, limits, expand-down, null segments, stack widths, limits of code.
 */
import { assertEquals } from "@std/assert";
import { Attr, S, Seg, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, Place, Sel, verdict } from "./bench.ts";
import { code, dword, hex } from "./code.ts";

const bench = new Bench();

/** Accesses through RBX: opcode, bytes, write. */
const ACCESSES = [
  ["8a 03", 1, false],
  ["66 8b 03", 2, false],
  ["8b 03", 4, false],
  ["88 03", 1, true],
  ["66 89 03", 2, true],
  ["89 03", 4, true],
  ["fe 03", 1, true], // inc byte [ebx]
  ["0f b7 03", 2, false], // movzx eax, word [ebx]
] as const;

/** Segment-override prefixes. */
const OVERRIDE = { ES: 0x26, SS: 0x36, DS: 0x3e, FS: 0x64, GS: 0x65 } as const;

/** APM vol. 2, 4.12–4.13: may `bytes` at `offset` be accessed through a segment? */
function allowed(
  attributes: number,
  limit: number,
  offset: number,
  bytes: number,
  write: boolean,
): boolean {
  if ((attributes & Attr.P) === 0) return false;
  const isCode = (attributes & Attr.CODE) !== 0;
  const bit1 = (attributes & Attr.WRITABLE) !== 0;
  if (isCode && (write || !bit1)) return false;
  if (!isCode && write && !bit1) return false;
  const last = offset + bytes - 1;
  if (isCode || (attributes & Attr.EXPAND_DOWN) === 0) return last <= limit;
  const top = (attributes & Attr.DB) !== 0 ? 0xffff_ffff : 0xffff;
  return offset > limit && last <= top;
}

Deno.test("types and limits of data accesses, byte by byte around every bound", () => {
  const wrong: string[] = [];
  const base = 0x10_0000;
  for (const [name, prefix] of Object.entries(OVERRIDE)) {
    const segment = Seg[name as keyof typeof OVERRIDE];
    for (let type = 0; type < 16; type++) {
      for (const big of [0, Attr.DB]) {
        for (const limit of [0, 2, 0xfff, 0xffff, 0xf_ffff]) {
          const offsets = new Set([0, 0xfffd, 0x1_0000]);
          for (let d = -4; d <= 3; d++) offsets.add(Math.max(0, limit + d));
          for (const offset of offsets) {
            for (const [text, bytes, write] of ACCESSES) {
              // What lies behind 4 GiB depends on the model.
              const attributes = Attr.P | Attr.S | type | big;
              bench.protect();
              const { state } = bench;
              state.setSegment(segment, { selector: 0x50, attributes, limit, base: BigInt(base) });
              bench.processor.refresh();
              state.setRegister(3, BigInt(offset));
              const is = bench.judge([prefix, ...hex(text)]);
              const fault = segment === Seg.SS ? "#12(0)" : "#13(0)";
              const expected = allowed(attributes, limit, offset, bytes, write) ? "ok" : fault;
              if (is !== expected && wrong.length < 8) {
                wrong.push(
                  `${name} type ${type} big ${big} limit ${limit.toString(16)} ` +
                    `offset ${offset.toString(16)} ${text}: ${is}, not ${expected}`,
                );
              }
            }
          }
        }
      }
    }
  }
  assertEquals(wrong.join("\n"), "");
});

Deno.test("through a null or absent segment nothing is accessed", () => {
  for (const [name, prefix] of Object.entries(OVERRIDE)) {
    const segment = Seg[name as keyof typeof OVERRIDE];
    if (segment === Seg.SS) continue;
    for (const attributes of [0, 0x13]) {
      bench.protect(3);
      const { state } = bench;
      state.setSegment(segment, { selector: 3, attributes, limit: 0xffff_ffff, base: 0n });
      bench.processor.refresh();
      state.setRegister(3, BigInt(Place.DATA));
      assertEquals(bench.judge([prefix, 0x8a, 0x03]), "#13(0)", name);
    }
  }
});

Deno.test("64-bit mode: no limits, no types, and bases of FS and GS alone", () => {
  for (const [name, prefix] of Object.entries(OVERRIDE)) {
    const segment = Seg[name as keyof typeof OVERRIDE];
    for (const attributes of [0, 0x90, 0x99, 0x97]) {
      bench.long(0);
      const { state } = bench;
      state.setSegment(segment, { selector: 0, attributes, limit: 0, base: 0x1_0000n });
      bench.processor.refresh();
      bench.set32(Place.DATA, 0x1111_1111);
      bench.set32(Place.DATA + 0x1_0000, 0x2222_2222);
      state.setRegister(3, BigInt(Place.DATA));
      const based = segment >= Seg.FS;
      assertEquals(bench.judge([prefix, ...hex("ff 03")]), "ok", name);
      assertEquals(bench.get32(Place.DATA), based ? 0x1111_1111 : 0x1111_1112, name);
      assertEquals(bench.get32(Place.DATA + 0x1_0000), based ? 0x2222_2223 : 0x2222_2222, name);
    }
  }
});

Deno.test("effective addresses wrap at their size before the base is added", () => {
  // 16-bit: [bx + si] with BX = FFFF, SI = 3 is offset 2.
  bench.real();
  let { state } = bench;
  bench.set16(0x2_0002, 0xabcd);
  state.setSegment(Seg.DS, { selector: 0x2000, attributes: 0x93, limit: 0xffff, base: 0x2_0000n });
  bench.processor.refresh();
  state.setRegister(3, 0xffffn);
  state.setRegister(6, 3n);
  assertEquals(bench.judge(hex("8b 00")), "ok");
  assertEquals(state.register(0) & 0xffffn, 0xabcdn);
  // 32-bit: EBX + disp.
  bench.protect();
  ({ state } = bench);
  bench.set32(0x2_0002, 0x1234_5678);
  state.setSegment(Seg.DS, { selector: 8, attributes: 0xc93, limit: 0xffff_ffff, base: 0x2_0000n });
  bench.processor.refresh();
  state.setRegister(3, 0xffff_fff0n);
  assertEquals(bench.judge(hex("8b 43 12")), "ok");
  assertEquals(state.register(0), 0x1234_5678n);
  // The linear address wraps at 4 GiB.
  bench.protect();
  ({ state } = bench);
  state.setSegment(Seg.DS, {
    selector: 8,
    attributes: 0xc93,
    limit: 0xffff_ffff,
    base: 0xffff_0000n,
  });
  bench.processor.refresh();
  state.setRegister(3, 0x3_0002n);
  assertEquals(bench.judge(hex("8b 03")), "ok");
  assertEquals(state.register(0), 0x1234_5678n);
  // 64-bit code with a 67 prefix: 32 bits, zero-extended.
  bench.long();
  ({ state } = bench);
  state.setRegister(3, 0xffff_ffff_0002_0002n);
  assertEquals(bench.judge(hex("67 8b 03")), "ok");
  assertEquals(state.register(0), 0x1234_5678n);
});

/** SS with `attributes` and `limit` at 100000h. */
function stackSegment(attributes: number, limit: number, pointer: number): void {
  bench.protect();
  const { state } = bench;
  state.setSegment(Seg.SS, { selector: Sel.DATA, attributes, limit, base: 0x10_0000n });
  state.setRegister(4, BigInt(pointer));
  state.setRegister(5, BigInt(pointer));
  bench.processor.refresh();
}

Deno.test("16-bit stacks use SP and keep the upper half of ESP; 32-bit stacks use ESP", () => {
  const cases: [string, number, number][] = [
    // code, SP after it in a 16-bit stack from 5678_0000h, in a 32-bit one from 5678_0000h
    ["50", 0x5678_fffc, 0x5677_fffc],
    ["66 50", 0x5678_fffe, 0x5677_fffe],
    ["68 01 00 00 00", 0x5678_fffc, 0x5677_fffc],
    ["60", 0x5678_ffe0, 0x5677_ffe0], // pusha
    ["9c", 0x5678_fffc, 0x5677_fffc],
    ["e8 00 00 00 00", 0x5678_fffc, 0x5677_fffc],
    ["58", 0x5678_0004, 0x5678_0004],
    ["66 58", 0x5678_0002, 0x5678_0002],
    ["61", 0x5678_0020, 0x5678_0020], // popa
    ["c8 10 00 00", 0x5678_ffec, 0x5677_ffec], // enter 16, 0
  ];
  for (const [text, narrow, wide] of cases) {
    stackSegment(0x893, 0xffff_ffff, 0x5678_0000);
    assertEquals(bench.judge(hex(text)), "ok", text);
    assertEquals(bench.state.register(4), BigInt(narrow), text);
    // Physical memory ends below 5678_0000h, so the wide one is based to land in it.
    stackSegment(0xc93, 0xffff_ffff, 0x5678_0000);
    bench.state.setSegment(Seg.SS, {
      selector: Sel.DATA,
      attributes: 0xc93,
      limit: 0xffff_ffff,
      base: BigInt(0x1_0000_0000 - 0x5678_0000 + 0x10_0000),
    });
    bench.processor.refresh();
    assertEquals(bench.judge(hex(text)), "ok", text);
    assertEquals(bench.state.register(4), BigInt(wide), text);
  }
});

Deno.test("stack pushes and pops beyond the limit are stack faults that change nothing", () => {
  const cases: [string, number, number, string][] = [
    // code, limit, SP, result; 16-bit stack
    ["50", 0xffff, 2, "#12(0)"], // dword at FFFEh
    ["50", 0xffff, 4, "ok"],
    ["66 50", 0xffff, 1, "#12(0)"],
    ["66 50", 0xffff, 0, "ok"],
    ["50", 0xff, 0, "#12(0)"],
    ["50", 0xff, 0x100, "ok"],
    ["58", 0xff, 0xfd, "#12(0)"],
    ["58", 0xff, 0xfc, "ok"],
    ["58", 0xffff, 0xfffe, "#12(0)"],
    ["60", 0xff, 0x1e, "#12(0)"],
    ["61", 0xff, 0xf0, "#12(0)"],
    ["c3", 0xff, 0xfe, "#12(0)"],
    ["c9", 0xff, 0xfe, "#12(0)"],
    ["c8 02 01 00", 0x1ff, 0x104, "#12(0)"], // enter 100h, 0: the new top must be writable
    ["9d", 0xff, 0xfe, "#12(0)"],
    ["cb", 0xff, 0xf9, "#12(0)"],
    ["cf", 0xff, 0xf5, "#12(0)"],
  ];
  for (const [text, limit, pointer, result] of cases) {
    stackSegment(0x93, limit, pointer);
    const { state } = bench;
    assertEquals(bench.judge(hex(text)), result, `${text} ${pointer.toString(16)}`);
    if (result === "ok") continue;
    assertEquals(state.register(4), BigInt(pointer), text);
    assertEquals(state.register(5), BigInt(pointer), text);
    assertEquals(state.rip, BigInt(Place.CODE), text);
  }
});

Deno.test("an expand-down stack: what is above the limit is usable", () => {
  stackSegment(0x97 | Attr.DB, 0xfff, 0x1008);
  assertEquals(bench.judge(hex("50")), "ok");
  stackSegment(0x97 | Attr.DB, 0xfff, 0x1002);
  assertEquals(bench.judge(hex("50")), "#12(0)");
  stackSegment(0x97, 0xfff, 0);
  assertEquals(bench.judge(hex("50")), "ok");
  assertEquals(bench.state.register(4), 0xfffcn);
});

Deno.test("real mode: data at FFFFh, the stack at 1, and code past FFFFh", () => {
  bench.real();
  bench.state.setRegister(3, 0xffffn);
  assertEquals(bench.judge(hex("8b 07")), "#13");
  bench.real();
  bench.state.setRegister(3, 0xffffn);
  assertEquals(bench.judge(hex("36 8b 07")), "#12");
  bench.real();
  bench.state.setRegister(4, 1n);
  assertEquals(bench.judge(hex("50")), "#12");
  // With 32-bit addresses beyond 64 KiB as well.
  bench.real();
  bench.state.setRegister(3, 0x1_0000n);
  assertEquals(bench.judge(hex("67 8a 03")), "#13");
  // IP runs from FFFFh on into the limit.
  bench.real(0xfffe);
  bench.write(0xfffe, [0x90, 0x90]);
  const { events } = bench.run(4);
  assertEquals(events[0]?.vector, 13);
  assertEquals(events[0]?.rip, 0x1_0000n);
  // An instruction that begins inside and ends outside.
  bench.real(0xfffe);
  bench.write(0xfffe, hex("b8 34 12"));
  assertEquals(bench.run(1).events[0]?.vector, 13);
});

/** A 16-bit code segment at `Place.CODE` with the given limit, entered at offset 0. */
function codeSegment(limit: number, attributes = 0x9b): void {
  bench.protect();
  const { state } = bench;
  state.setSegment(Seg.CS, {
    selector: Sel.CODE16,
    attributes,
    limit,
    base: BigInt(Place.CODE),
  });
  state.set(S.rip, 0n);
  bench.processor.refresh();
}

Deno.test("the limit of CS ends execution to the byte", () => {
  // Ten instructions of one byte, then three of two.
  bench.write(Place.CODE, code(Array<number>(10).fill(0x40), "8b c0 8b c0 8b c0", "f4"));
  for (let limit = 0; limit < 17; limit++) {
    codeSegment(limit);
    const { stop, events } = bench.run(20);
    const whole = Math.min(limit + 1, 10) + Math.max(0, Math.min(3, Math.floor((limit - 9) / 2)));
    assertEquals(bench.processor.retired, limit === 16 ? 14 : whole, `limit ${limit}`);
    if (limit === 16) assertEquals(stop, Stop.HALT);
    else assertEquals(`${events[0]!.vector} ${events[0]!.errorCode}`, "13 0", `limit ${limit}`);
  }
});

Deno.test("branches beyond the limit of CS fault at the branch", () => {
  const branches: [string, boolean][] = [
    ["eb 7e", true], // jmp short 80h
    ["e9 7d 00", true],
    ["74 7e", true], // jz
    ["75 7e", false],
    ["e8 7d 00", true],
    ["e2 7e", true], // loop
    ["ff e3", true], // jmp bx
    ["ff d3", true],
    ["c3", true],
  ];
  for (const [text, faults] of branches) {
    bench.write(Place.CODE, hex(text));
    codeSegment(0x40);
    const { state } = bench;
    state.setRegister(1, 5n);
    state.setRegister(3, 0x80n);
    bench.set32(bench.stack(0) - 4, 0x80);
    state.setRegister(4, BigInt(bench.stack(0) - 4));
    bench.flags = 0x40;
    const outcome = bench.run(1);
    assertEquals(verdict(outcome), faults ? "#13(0)" : "ok", text);
    if (!faults) continue;
    assertEquals(outcome.events[0]!.rip, 0n, text);
    assertEquals(state.register(4), BigInt(bench.stack(0) - 4), text);
    assertEquals(state.register(1), 5n, text);
  }
});

Deno.test("decoded code does not outlive the limit it was decoded under", () => {
  // A loop at 20h reached by a jump from 0; run under a large limit first.
  bench.write(Place.CODE, hex("eb 1e"));
  bench.write(Place.CODE + 0x20, hex("40 40 40 40 eb fa"));
  codeSegment(0xffff);
  bench.run(100);
  for (const limit of [0x1f, 0x21, 0x23, 0x24]) {
    codeSegment(limit);
    const { events } = bench.run(100);
    const [first] = events;
    assertEquals(`${first?.vector} ${first?.errorCode}`, "13 0", `limit ${limit.toString(16)}`);
    assertEquals(first!.rip, limit === 0x1f ? 0n : BigInt(limit + (limit === 0x24 ? 0 : 1)));
  }
  // And a fault decoded under a small one is gone under a large one.
  codeSegment(0xffff);
  assertEquals(bench.run(100).events, []);
  // The jump itself, from code that stays in the cache.
  codeSegment(0x1f);
  assertEquals(bench.run(1).events[0]?.rip, 0n);
});

Deno.test("code runs from any present code segment, whatever its readability", () => {
  bench.write(Place.CODE, hex("40 f4"));
  codeSegment(0xff, 0x99);
  assertEquals(bench.run(2).stop, Stop.HALT);
  // But it cannot be read through CS.
  bench.write(Place.CODE, code("2e 8a 07"));
  codeSegment(0xff, 0x99);
  assertEquals(verdict(bench.run(1)), "#13(0)");
  codeSegment(0xff, 0x9b);
  bench.state.setRegister(3, 0n);
  assertEquals(verdict(bench.run(1)), "ok");
});

Deno.test("operand and address sizes follow CS.D and the prefixes", () => {
  // mov (e)ax, imm: the immediate's width shows the operand size.
  bench.write(Place.CODE, code("b8", dword(0x1111_2222)));
  codeSegment(0xff);
  bench.run(1);
  assertEquals(bench.state.rip, 3n);
  bench.write(Place.CODE, code("66 b8", dword(0x1111_2222)));
  codeSegment(0xff);
  bench.run(1);
  assertEquals(bench.state.rip, 6n);
  bench.protect();
  bench.execute(code("66 b8", dword(0x1111_2222)));
  assertEquals(bench.state.rip, BigInt(Place.CODE + 4));
  bench.protect();
  bench.execute(code("67 a0", dword(0x1111_2222)));
  assertEquals(bench.state.rip, BigInt(Place.CODE + 4));
});
