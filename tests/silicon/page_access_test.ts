/**
 * Accesses that cross pages, addresses that are not canonical, physical addresses as they come out of
 * large pages, PDPTEs, PCIDs, and what a flush must make visible.
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, Efer, S, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, Place, verdict } from "./bench.ts";
import { code, dword, hex, qword } from "./code.ts";
import { PagePath, Pte } from "./page_path.ts";

const bench = new Bench({ memory: 0x100_0000 });
const ALL = Pte.P | Pte.RW | Pte.US;
/** Two pages in a row, in different places of memory. */
const FIRST = 0x80_0000n;
const SECOND = 0x90_0000n;
const LINEAR = 0xe0_0000_0000n;
/** Address of the second page. */
const BORDER = LINEAR + 0x1000n;

const first = new PagePath(bench, "long", LINEAR, FIRST, 4);
const second = new PagePath(bench, "long", BORDER, SECOND, 4);

function enter(cpl = 0): void {
  bench.long(cpl);
  bench.set64(first.root, BigInt(Place.TABLES + 0x1000) | 0x27n);
  bench.state.set(S.cr3, BigInt(first.root));
  bench.processor.refresh();
}

/** Maps the two pages with the given flags and enters 64-bit code. */
function map(one: bigint, two: bigint, cpl = 0): void {
  first.set(first.entries([ALL, ALL, ALL, one]));
  second.set(second.entries([ALL, ALL, ALL, two]));
  enter(cpl);
}

const PATTERN = Array.from({ length: 32 }, (_, k) => 0x11 + k);

/** Bytes around the border, sixteen on each side. */
function fillBorder(): void {
  bench.write(Number(FIRST) + 0xff0, PATTERN.slice(0, 16));
  bench.write(Number(SECOND), PATTERN.slice(16));
}

function border(): number[] {
  return [...bench.read(Number(FIRST) + 0xff0, 16), ...bench.read(Number(SECOND), 16)];
}

const LOADS = [
  [2, hex("66 8b 03")],
  [4, hex("8b 03")],
  [8, hex("48 8b 03")],
] as const;
const STORES = [
  [2, hex("66 89 03")],
  [4, hex("89 03")],
  [8, hex("48 89 03")],
] as const;

Deno.test("loads and stores across two pages, at every offset and width", () => {
  for (const [bytes, load] of LOADS) {
    for (let before = 1; before < bytes; before++) {
      map(ALL, ALL);
      fillBorder();
      bench.state.setRegister(3, BORDER - BigInt(before));
      bench.state.setRegister(0, 0n);
      assertEquals(bench.judge(load), "ok");
      const expected = PATTERN.slice(16 - before, 16 - before + bytes)
        .reduce((value, byte, k) => value | (BigInt(byte) << BigInt(8 * k)), 0n);
      assertEquals(bench.state.register(0), expected, `${bytes} bytes, ${before} before`);
    }
  }
  for (const [bytes, store] of STORES) {
    for (let before = 1; before < bytes; before++) {
      map(ALL, ALL);
      fillBorder();
      bench.state.setRegister(3, BORDER - BigInt(before));
      bench.state.setRegister(0, 0xa8a7_a6a5_a4a3_a2a1n);
      assertEquals(bench.judge(store), "ok");
      const expected = [...PATTERN];
      for (let k = 0; k < bytes; k++) expected[16 - before + k] = 0xa1 + k;
      assertEquals(border(), expected, `${bytes} bytes, ${before} before`);
    }
  }
});

Deno.test("across two pages the fault names the page that failed, and nothing is written", () => {
  const at = BORDER - 3n;
  const missing = Pte.US | Pte.RW;
  const readOnly = Pte.P | Pte.US;
  const cases: [string, bigint, bigint, string, bigint][] = [
    ["48 8b 03", missing, ALL, "#14(0)", at],
    ["48 8b 03", ALL, missing, "#14(0)", BORDER],
    ["48 8b 03", missing, missing, "#14(0)", at],
    ["48 89 03", missing, ALL, "#14(2)", at],
    ["48 89 03", ALL, missing, "#14(2)", BORDER],
    ["48 89 03", readOnly, ALL, "#14(3)", at],
    ["48 89 03", ALL, readOnly, "#14(3)", BORDER],
    ["48 01 03", ALL, readOnly, "#14(3)", BORDER], // add [rbx], rax
    ["48 87 03", ALL, missing, "#14(2)", BORDER], // xchg [rbx], rax
    ["48 ff 03", readOnly, ALL, "#14(3)", at], // inc qword [rbx]
    ["f0 48 0f b1 0b", ALL, readOnly, "#14(3)", BORDER], // lock cmpxchg [rbx], rcx
  ];
  for (const [text, one, two, result, cr2] of cases) {
    map(one, two);
    fillBorder();
    bench.state.setRegister(3, at);
    bench.state.setRegister(0, 0xa8a7_a6a5_a4a3_a2a1n);
    const outcome = bench.execute(hex(text));
    assertEquals(verdict(outcome), result, text);
    assertEquals(outcome.events[0]!.cr2, cr2, text);
    assertEquals(border(), PATTERN, text);
    assertEquals(bench.state.register(0), 0xa8a7_a6a5_a4a3_a2a1n, text);
    assertEquals(bench.state.rip, BigInt(Place.CODE), text);
  }
});

Deno.test("a push across two pages leaves the stack pointer alone when it faults", () => {
  for (const text of ["50", "ff 33", "e8 00 00 00 00", "9c", "c8 00 00 00"]) {
    map(ALL, Pte.US | Pte.RW);
    bench.state.setRegister(4, BORDER + 3n);
    bench.state.setRegister(3, BigInt(Place.DATA));
    const outcome = bench.execute(hex(text));
    assertEquals(verdict(outcome), "#14(2)", text);
    assertEquals(outcome.events[0]!.cr2, BORDER, text);
    assertEquals(bench.state.register(4), BORDER + 3n, text);
  }
});

Deno.test("an instruction across two pages: it runs, or the fetch of its second half faults", () => {
  // mov eax, 11223344h, begun 1 to 4 bytes before the border.
  const bytes = hex("b8 44 33 22 11 f4");
  for (let before = 1; before <= 4; before++) {
    const put = (): void => {
      bench.write(Number(FIRST) + 0x1000 - before, bytes.slice(0, before));
      bench.write(Number(SECOND), bytes.slice(before));
    };
    const go = (): ReturnType<Bench["run"]> => {
      bench.state.set(S.rip, BORDER - BigInt(before));
      bench.state.setRegister(0, 0n);
      return bench.run(1);
    };
    map(ALL, ALL);
    put();
    assertEquals(verdict(go()), "ok");
    assertEquals(bench.state.register(0), 0x1122_3344n);
    map(ALL, ALL | Pte.NX, 3);
    let outcome = go();
    assertEquals(verdict(outcome), "#14(15)");
    assertEquals(outcome.events[0]!.cr2, BORDER);
    assertEquals(outcome.events[0]!.rip, BORDER - BigInt(before));
    map(ALL, 0n);
    outcome = go();
    assertEquals(verdict(outcome), "#14(10)");
    assertEquals(outcome.events[0]!.cr2, BORDER);
    // The first page fails first.
    map(0n, 0n);
    outcome = go();
    assertEquals(outcome.events[0]!.cr2, BORDER - BigInt(before));
  }
});

Deno.test("addresses that are not canonical: a general-protection fault, or a stack fault with RSP or RBP", () => {
  const LOW = 0x0000_8000_0000_0100n;
  const HIGH = 0xffff_7fff_ffff_fff8n;
  const cases: [string, string][] = [
    ["8a 03", "#13(0)"], // mov al, [rbx]
    ["88 03", "#13(0)"],
    ["48 01 03", "#13(0)"],
    ["f0 48 0f b1 0b", "#13(0)"],
    ["48 8b 04 24", "#12(0)"], // mov rax, [rsp]
    ["48 89 45 00", "#12(0)"], // mov [rbp], rax
    ["48 8b 44 1d 00", "#12(0)"], // mov rax, [rbp + rbx], RBX being 0 for this one
    ["50", "#12(0)"],
    ["58", "#12(0)"],
    ["9c", "#12(0)"],
    ["9d", "#12(0)"],
    ["c3", "#12(0)"],
    ["e8 00 00 00 00", "#12(0)"],
    ["ff 13", "#13(0)"], // call [rbx]
    ["ff 33", "#13(0)"], // push [rbx]
    ["c9", "#12(0)"], // leave
    ["c8 08 00 00", "#12(0)"], // enter 8, 0
    ["48 cb", "#12(0)"], // far ret
    ["48 cf", "#12(0)"], // iretq
    ["0f a9", "#12(0)"], // pop gs
    ["48 ff 2b", "#13(0)"], // jmp far [rbx]
    ["ff e3", "#13(0)"], // jmp rbx
    ["ff d3", "#13(0)"], // call rbx
    ["a4", "#13(0)"], // movsb
    ["aa", "#13(0)"],
    ["ac", "#13(0)"],
    ["d7", "#13(0)"], // xlat
    ["0f ae 3b", "#13(0)"], // clflush
    ["0f 01 13", "#13(0)"], // lgdt [rbx]
    ["65 8a 03", "#13(0)"], // gs:
    ["3e 8b 45 00", "#12(0)"], // an ignored DS prefix does not change that
    ["36 8a 03", "#13(0)"], // nor does an ignored SS prefix
  ];
  for (const address of [LOW, HIGH]) {
    for (const [text, result] of cases) {
      bench.long(0);
      const { state } = bench;
      for (const n of [3, 4, 5, 6, 7]) state.setRegister(n, address);
      if (text === "48 8b 44 1d 00") state.setRegister(3, 0n);
      assertEquals(bench.judge(hex(text)), result, `${text} at ${address.toString(16)}`);
      assertEquals(state.rip, BigInt(Place.CODE), text);
      assertEquals(state.register(4), address, text);
    }
  }
});

Deno.test("an access whose last byte leaves the canonical range faults, though its first does not", () => {
  const top = new PagePath(bench, "long", 0x7fff_ffff_f000n, FIRST, 4);
  const bottom = new PagePath(bench, "long", 0xffff_8000_0000_0000n, SECOND, 4);
  for (
    const [text, result] of [
      ["48 8b 03", "#13(0)"],
      ["48 89 03", "#13(0)"],
      ["48 01 03", "#13(0)"],
      ["48 8b 45 00", "#12(0)"],
      ["58", "#12(0)"],
    ] as const
  ) {
    // They share the tables below the root.
    bottom.set(bottom.entries([ALL, ALL, ALL, ALL]));
    top.set(top.entries([ALL, ALL, ALL, ALL]));
    enter();
    for (const n of [3, 4, 5]) bench.state.setRegister(n, 0x7fff_ffff_fffcn);
    assertEquals(bench.judge(hex(text)), result, text);
  }
});

Deno.test("a branch or return to an address that is not canonical faults before it is taken", () => {
  bench.long(0);
  bench.set64(bench.stack(0) - 8, 0x8000_0000_0000n);
  bench.state.setRegister(4, BigInt(bench.stack(0) - 8));
  assertEquals(bench.judge(hex("c3")), "#13(0)");
  assertEquals(bench.state.register(4), BigInt(bench.stack(0) - 8));
  assertEquals(bench.state.rip, BigInt(Place.CODE));
});

Deno.test("running past the canonical range: the next instruction faults", () => {
  const top = new PagePath(bench, "long", 0x7fff_ffff_f000n, FIRST, 4);
  top.set(top.entries([ALL, ALL, ALL, ALL]));
  bench.write(Number(FIRST) + 0xffe, [0x90, 0x90]);
  enter();
  bench.state.set(S.rip, 0x7fff_ffff_fffen);
  const { events } = bench.run(5);
  assertEquals(events[0]!.vector, 13);
  assertEquals(events[0]!.rip, 0x8000_0000_0000n);
  assertEquals(bench.processor.retired, 2);
});

/** Physical address that a load meets outside of memory. */
function outsideAddress(run: () => void): number {
  let address = -1;
  const { deviceRead } = bench.outside;
  bench.outside.deviceRead = (at) => {
    address = at;
  };
  try {
    run();
  } finally {
    bench.outside.deviceRead = deviceRead;
  }
  return address;
}

Deno.test("physical addresses of large pages: all address bits, and none of the PAT bit", () => {
  const physical = 0xa5a5_0000_0000n;
  const cases: [PagePath, bigint, bigint][] = [
    [new PagePath(bench, "long", 0xe0_0123_4567n, physical, 2), 0x3fff_ffffn, 0x123_4567n],
    [new PagePath(bench, "long", 0xe0_0123_4567n, physical, 3), 0x1f_ffffn, 0x3_4567n],
    [new PagePath(bench, "long", 0xe0_0123_4567n, physical, 4), 0xfffn, 0x567n],
  ];
  for (const [path, , offset] of cases) {
    const large = path.depth < 4;
    for (const pat of [0n, large ? 0x1000n : 0x80n]) {
      const flags = Array<bigint>(path.depth).fill(ALL);
      const entries = path.entries(flags);
      entries[path.depth - 1]! |= pat;
      path.set(entries);
      enter();
      bench.state.setRegister(3, path.linear);
      const address = outsideAddress(() => bench.execute(hex("8a 03")));
      assertEquals(BigInt(address), physical + offset, `${path.depth} levels`);
    }
  }
});

Deno.test("PSE-36: bits 20:13 of a 4 MiB page's entry are address bits 39:32", () => {
  const path = new PagePath(bench, "legacy", 0x8012_3456n, 0n, 1);
  for (let bit = 13; bit <= 20; bit++) {
    path.set([0xc0_0087n | (1n << BigInt(bit))]);
    bench.set32(path.root, 0xe7);
    bench.protect(0, { cr3: path.root, cr4: Cr4.PSE });
    bench.state.setRegister(3, path.linear);
    const address = outsideAddress(() => bench.execute(hex("8a 03")));
    assertEquals(address, 0xd2_3456 + 2 ** (32 + bit - 13));
  }
});

Deno.test("without CR4.PSE the PS bit of legacy tables is ignored", () => {
  const path = new PagePath(bench, "legacy", 0x80c0_7123n, FIRST, 2);
  path.set([path.entry(0, ALL | Pte.PS), path.entry(1, ALL)]);
  // Code in 4 KiB pages: a table for the first 4 MiB.
  const low = new PagePath(bench, "legacy", 0n, 0n, 2);
  for (let k = 0; k < 0x100; k++) bench.set32(0x11_0000 + 4 * k, (k << 12) | 7);
  bench.set32(low.root, 0x11_0007);
  bench.protect(0, { cr3: path.root, cr4: 0 });
  bench.set32(Number(FIRST) + 0x123, 0x1234_5678);
  bench.state.setRegister(3, path.linear);
  assertEquals(bench.judge(hex("8b 03")), "ok");
  assertEquals(bench.state.register(0), 0x1234_5678n);
});

/** Each way to flush: code, and what registers it needs. RBX is the linear address. */
const FLUSHES: readonly {
  readonly name: string;
  readonly code: number[];
  readonly count: number;
}[] = [
  { name: "INVLPG", code: hex("0f 01 3b"), count: 1 },
  { name: "INVLPG of another byte", code: hex("0f 01 bb ff 0f 00 00"), count: 1 },
  { name: "MOV CR3", code: hex("0f 20 d8 0f 22 d8"), count: 2 },
  {
    name: "changing CR4.PGE",
    code: hex("0f 20 e0 0f ba f8 07 0f 22 e0"),
    count: 3,
  },
  { name: "changing CR4.PSE", code: hex("0f 20 e0 0f ba f8 04 0f 22 e0"), count: 3 },
];

Deno.test("what a flush makes visible: entries made stronger, weaker, absent, or led elsewhere", () => {
  const marker = (page: bigint, value: number): void => bench.set32(Number(page) + 0x10, value);
  for (const { name, code: flush, count } of FLUSHES) {
    for (const global of [0n, Pte.G]) {
      if (global !== 0n && name === "MOV CR3") continue;
      const run = (change: bigint, access: string): string => {
        first.set(first.entries([ALL, ALL, ALL, ALL | global | Pte.A | Pte.D]));
        enter();
        const { state } = bench;
        marker(FIRST, 0x1111_1111);
        marker(SECOND, 0x2222_2222);
        state.setRegister(3, LINEAR);
        state.setRegister(1, 0n);
        // Make the translation known, for reading and writing.
        assertEquals(verdict(bench.execute(hex("89 4b 20 8b 4b 10"), 2)), "ok");
        bench.set64(first.entryAddress(3), change);
        const outcome = bench.execute(code(flush, access), count + 1);
        return `${verdict(outcome)} ${state.register(1).toString(16)}`;
      };
      const what = `${name}${global === 0n ? "" : ", global page"}`;
      const { page } = second;
      assertEquals(run(page | ALL | global, "8b 4b 10"), "ok 22222222", what);
      assertEquals(run(0n, "8b 4b 10"), "#14(0) 11111111", what);
      assertEquals(run(FIRST | Pte.P, "89 4b 10"), "#14(3) 11111111", what);
      // Dirty bits that software cleared are set again.
      run(FIRST | ALL | global, "89 4b 10");
      assertEquals(bench.get64(first.entryAddress(3)) & (Pte.A | Pte.D), Pte.A | Pte.D, what);
    }
  }
});

/** mov rax, cr0; btc eax, 16; mov cr0, rax */
const TOGGLE_WP = hex("0f 20 c0 0f ba f8 10 0f 22 c0");

Deno.test("CR0.WP counts at once, and drops no translation but those that it forbids", () => {
  const readOnly = Pte.P | Pte.US;
  for (const other of [false, true]) {
    first.set(first.entries([ALL, ALL, ALL, readOnly | Pte.A | Pte.D]));
    enter();
    const { state } = bench;
    bench.set32(Number(FIRST) + 0x10, 0x1111_1111);
    bench.set32(Number(SECOND) + 0x10, 0x2222_2222);
    state.setRegister(3, LINEAR);
    const run = (code: number[], count: number): string => {
      state.set(S.rip, BigInt(Place.CODE));
      return verdict(bench.execute(code, count));
    };
    // Read with WP set, then written with WP clear: by the instruction behind it, and by a later one.
    assertEquals(run(hex("8b 4b 10"), 1), "ok");
    assertEquals(run(code(TOGGLE_WP, "89 4b 14"), 4), "ok");
    assertEquals(run(hex("89 4b 18"), 1), "ok");
    if (other) bench.set64(first.entryAddress(3), SECOND | readOnly);
    assertEquals(run(code(TOGGLE_WP, "89 4b 14"), 4), "#14(3)");
    // A change of the entry without a flush: what could be written is read anew, what was only read is not.
    assertEquals(run(hex("8b 4b 10"), 1), "ok");
    assertEquals(state.register(1), other ? 0x2222_2222n : 0x1111_1111n);
    assertEquals(run(code(TOGGLE_WP, TOGGLE_WP, "8b 4b 10"), 7), "ok");
    bench.set64(first.entryAddress(3), FIRST | readOnly);
    assertEquals(run(code(TOGGLE_WP, TOGGLE_WP, "8b 4b 10"), 7), "ok");
    assertEquals(state.register(1), other ? 0x2222_2222n : 0x1111_1111n);
  }
});

Deno.test("a flush of code: the next instruction comes from the page that is mapped now", () => {
  for (const { name, code: flush, count } of FLUSHES) {
    if (name.includes("another")) continue;
    first.set(first.entries([ALL, ALL, ALL, ALL]));
    enter();
    const { state } = bench;
    // Both pages begin with the flush; what follows differs.
    bench.write(Number(FIRST), code(flush, "b9 01 00 00 00 f4"));
    bench.write(Number(SECOND), code(flush, "b9 02 00 00 00 f4"));
    state.setRegister(3, LINEAR);
    state.set(S.rip, LINEAR);
    assertEquals(bench.run(count + 2).stop, Stop.HALT, name);
    assertEquals(state.register(1), 1n);
    bench.processor.wake();
    bench.set64(first.entryAddress(3), SECOND | ALL);
    state.set(S.rip, LINEAR);
    assertEquals(bench.run(count + 2).stop, Stop.HALT, name);
    assertEquals(state.register(1), 2n, name);
  }
});

Deno.test("INVLPG of any address in a large page drops all of it", () => {
  const path = new PagePath(bench, "long", LINEAR, FIRST, 3);
  path.set(path.entries([ALL, ALL, ALL]));
  enter();
  const { state } = bench;
  bench.set32(Number(FIRST), 1);
  bench.set32(0xa0_0000, 2);
  state.setRegister(3, LINEAR);
  bench.execute(hex("8b 0b"));
  assertEquals(state.register(1), 1n);
  bench.set64(path.entryAddress(2), 0xa0_0000n | ALL | Pte.PS);
  // invlpg [rbx + 123456h]; mov ecx, [rbx]
  bench.execute(code("0f 01 bb", dword(0x12_3456), "8b 0b"), 2);
  assertEquals(state.register(1), 2n);
});

Deno.test("INVLPG of the page that an instruction runs over into: it is read from there anew", () => {
  const third = 0xb0_0000;
  // The pages are in different pieces of 1 GiB, so that no large page could hold both.
  const before = new PagePath(bench, "long", LINEAR - 0x1000n, FIRST, 4);
  const behind = new PagePath(bench, "long", LINEAR, SECOND, 4);
  for (const path of [before, behind]) path.set(path.entries([ALL, ALL, ALL, ALL]));
  enter();
  const { state } = bench;
  // mov ecx, 1 or 2, with the last three bytes of the immediate in the next page; hlt
  bench.write(Number(FIRST) + 0xffe, hex("b9 01"));
  bench.write(Number(SECOND), hex("00 00 00 f4"));
  bench.write(third, hex("00 00 01 f4"));
  const run = (): bigint => {
    bench.processor.wake();
    state.set(S.rip, LINEAR - 2n);
    assertEquals(bench.run(2).stop, Stop.HALT);
    return state.register(1);
  };
  assertEquals(run(), 1n);
  bench.processor.wake();
  bench.set64(behind.entryAddress(3), BigInt(third) | ALL);
  state.setRegister(3, LINEAR);
  state.set(S.rip, BigInt(Place.CODE));
  bench.execute(hex("0f 01 3b"));
  assertEquals(run(), 0x0100_0001n);
});

Deno.test("INVLPG in a large page: code in it comes from where it is mapped now", () => {
  const path = new PagePath(bench, "long", LINEAR, FIRST, 3);
  path.set(path.entries([ALL, ALL, ALL]));
  enter();
  const { state } = bench;
  bench.write(Number(FIRST) + 0x5000, hex("b9 01 00 00 00 f4"));
  bench.write(0xa0_5000, hex("b9 02 00 00 00 f4"));
  const run = (): bigint => {
    bench.processor.wake();
    state.set(S.rip, LINEAR + 0x5000n);
    assertEquals(bench.run(2).stop, Stop.HALT);
    return state.register(1);
  };
  assertEquals(run(), 1n);
  bench.processor.wake();
  bench.set64(path.entryAddress(2), 0xa0_0000n | ALL | Pte.PS);
  state.setRegister(3, LINEAR + 0x1f_f000n);
  state.set(S.rip, BigInt(Place.CODE));
  bench.execute(hex("0f 01 3b"));
  assertEquals(run(), 2n);
});

Deno.test("INVLPG of an address that is not canonical, or not mapped, does nothing", () => {
  bench.long(0);
  for (const address of [0x8000_0000_0000n, 0x7000_0000_0000n]) {
    bench.long(0);
    bench.state.setRegister(3, address);
    assertEquals(bench.judge(hex("0f 01 3b")), "ok");
  }
  bench.long(3);
  assertEquals(bench.judge(hex("0f 01 3b")), "#13(0)");
});

Deno.test("CR3: bits beyond the physical address, and bit 63 with and without PCIDs", () => {
  const load = (value: bigint, pcide: boolean): string => {
    bench.long(0);
    if (pcide) {
      bench.state.set(S.cr4, BigInt(Cr4.PAE | Cr4.PCIDE));
      bench.processor.refresh();
    }
    bench.state.setRegister(0, value);
    return bench.judge(hex("0f 22 d8"));
  };
  const root = BigInt(Place.TABLES);
  assertEquals(load(root, false), "ok");
  assertEquals(load(root | 0x18n, false), "ok");
  for (let bit = 48n; bit < 64n; bit++) {
    assertEquals(load(root | (1n << bit), false), "#13(0)", `bit ${bit}`);
    assertEquals(bench.state.get(S.cr3), root);
    if (bit < 63n) assertEquals(load(root | (1n << bit), true), "#13(0)", `bit ${bit}`);
  }
  assertEquals(load(root | (1n << 63n) | 5n, true), "ok");
  assertEquals(bench.state.get(S.cr3), root | 5n);
});

Deno.test("CR4.PCIDE: only in long mode, only with PCID 0, and CR0.PG cannot be cleared then", () => {
  const set = (): string => bench.judge(hex("0f 22 e0"));
  bench.long(0);
  bench.state.setRegister(0, BigInt(Cr4.PAE | Cr4.PCIDE));
  assertEquals(set(), "ok");
  bench.long(0);
  bench.state.set(S.cr3, BigInt(Place.TABLES) | 1n);
  bench.state.setRegister(0, BigInt(Cr4.PAE | Cr4.PCIDE));
  assertEquals(set(), "#13(0)");
  bench.protect(0);
  bench.state.setRegister(0, BigInt(Cr4.PAE | Cr4.PCIDE));
  assertEquals(set(), "#13(0)");
  bench.long(0, 32);
  bench.state.set(S.cr4, BigInt(Cr4.PAE | Cr4.PCIDE));
  bench.state.setRegister(0, BigInt(Cr0.PE));
  assertEquals(bench.judge(hex("0f 22 c0")), "#13(0)");
});

/** PAE tables: one to one below 1 GiB through root entry 0, the root at `root`. */
function paeTables(root: number, flags = 1n): void {
  bench.set64(root, 0x18_0000n | flags);
  for (let k = 1; k < 4; k++) bench.set64(root + 8 * k, 0n);
  for (let k = 0; k < 8; k++) bench.set64(0x18_0000 + 8 * k, BigInt(k * 0x20_0000) | 0xe7n);
}

Deno.test("PDPTEs are checked when CR3 is loaded, each reserved bit of each present entry", () => {
  const root = 0x10_0020;
  for (let entry = 0; entry < 4; entry++) {
    for (let bit = 1; bit < 64; bit++) {
      const reserved = (0xffff_0000_0000_01e6n >> BigInt(bit)) & 1n;
      const software = bit >= 9 && bit <= 11 || bit === 3 || bit === 4;
      if (reserved === 0n && !software) continue;
      for (const present of [0n, 1n]) {
        paeTables(0x10_0000);
        paeTables(root);
        if (present === 0n && entry === 0) continue;
        const value = entry === 0 ? 0x18_0001n : 0x19_0000n | present;
        bench.set64(root + 8 * entry, value | (1n << BigInt(bit)));
        bench.protect(0, { cr3: 0x10_0000, cr4: Cr4.PAE, efer: Efer.NXE });
        bench.state.setRegister(0, BigInt(root));
        const expected = reserved === 1n && present === 1n ? "#13(0)" : "ok";
        assertEquals(bench.judge(hex("0f 22 d8")), expected, `entry ${entry} bit ${bit}`);
        assertEquals(bench.state.get(S.cr3), expected === "ok" ? BigInt(root) : 0x10_0000n);
      }
    }
  }
});

Deno.test("PDPTEs in use are those of the last load: memory may change behind them", () => {
  paeTables(0x10_0000);
  bench.set64(0x10_0008, 0x18_0001n);
  bench.protect(0, { cr3: 0x10_0000, cr4: Cr4.PAE });
  const { state } = bench;
  bench.set64(0x10_0008, 0n);
  state.setRegister(3, 0x4000_0000n);
  assertEquals(bench.judge(hex("8a 03")), "ok");
  // INVLPG does not read them again either.
  state.set(S.rip, BigInt(Place.CODE));
  assertEquals(verdict(bench.execute(hex("0f 01 3b 8a 03"), 2)), "ok");
  for (const reload of ["0f 20 d8 0f 22 d8", "0f 20 e0 0f ba f8 07 0f 22 e0"]) {
    paeTables(0x10_0000);
    bench.set64(0x10_0008, 0x18_0001n);
    bench.protect(0, { cr3: 0x10_0000, cr4: Cr4.PAE });
    bench.set64(0x10_0008, 0n);
    state.setRegister(3, 0x4000_0000n);
    assertEquals(verdict(bench.execute(code(reload, "8a 03"), 4)), "#14(0)", reload);
  }
});

Deno.test("turning PAE paging on reads the PDPTEs, and bad ones keep it off", () => {
  for (const flags of [1n, 3n]) {
    paeTables(0x10_0000, flags);
    bench.protect(0);
    const { state } = bench;
    state.set(S.cr3, 0x10_0000n);
    state.set(S.cr4, BigInt(Cr4.PAE));
    bench.processor.refresh();
    state.setRegister(0, 0x8000_0011n);
    assertEquals(bench.judge(hex("0f 22 c0")), flags === 1n ? "ok" : "#13(0)");
    assertEquals((state.get(S.cr0) & 0x8000_0000n) !== 0n, flags === 1n);
  }
});

Deno.test("legacy paging uses 32 linear bits: tables at the top wrap to the bottom", () => {
  paeTables(0x10_0000);
  bench.protect(0, { cr3: 0x10_0000, cr4: Cr4.PAE });
  // GDT at FFFF_FFF8h: the second descriptor is at linear 0.
  bench.set64(0, 0x00cf_9300_0000_ffffn);
  bench.state.set(S.gdtBase, 0xffff_fff8n);
  bench.state.setRegister(0, 8n);
  assertEquals(bench.judge(hex("8e d8")), "ok");
  bench.set64(0, 0n);
});

Deno.test("in compatibility mode the tables' 64-bit bases count, even across a page", () => {
  // A GDT in the upper half whose second entry crosses into the next page.
  const one = new PagePath(bench, "long", 0xffff_ff80_0000_0000n, FIRST, 4);
  const two = new PagePath(bench, "long", 0xffff_ff80_0000_1000n, SECOND, 4);
  one.set(one.entries([ALL, ALL, ALL, ALL]));
  two.set(two.entries([ALL, ALL, ALL, ALL]));
  const bytes = qword(0x00cf_9300_0000_ffffn);
  bench.write(Number(FIRST) + 0xffc, bytes.slice(0, 4));
  bench.write(Number(SECOND), bytes.slice(4));
  bench.long(0, 32);
  bench.set64(one.root, BigInt(Place.TABLES + 0x1000) | 0x27n);
  const { state } = bench;
  state.set(S.cr3, BigInt(one.root));
  state.set(S.gdtBase, 0xffff_ff80_0000_0ff4n);
  bench.processor.refresh();
  state.setRegister(0, 8n);
  assertEquals(bench.judge(hex("8e d8")), "ok");
});
