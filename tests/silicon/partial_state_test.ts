/**
 * A fault late in an instruction or event leaves the state of before: the accessed bit of a descriptor in a
 * read-only page, the second half of what is stored.
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  EventFormat,
  InterceptWord,
  Save,
  SaveSegment,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { descriptor, FREE_SELECTOR, Place, Sel, selectorFor } from "./bench.ts";
import { Pf, Pte } from "./page_path.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();

/** Code segments that have not been accessed, for CPL 0 and 3. */
const FRESH = FREE_SELECTOR;
const FRESH_USER = FREE_SELECTOR + 8;
const TARGET = BigInt(SvmPlace.GUEST_CODE + 0x100);

/** A guest whose GDT stands in a read-only page; page faults exit. */
function prepare(cpl = 0): void {
  bench.guest("long", cpl);
  bench.guestHandlers();
  bench.setDescriptor(FRESH, descriptor({ access: 0x9a, flags: 0xa }));
  bench.setDescriptor(FRESH_USER, descriptor({ access: 0xfa, flags: 0xa }));
  const entry = bench.pageEntry(SvmPlace.GUEST_TABLES, Place.GDT);
  bench.set64(entry, bench.get64(entry) & ~Pte.RW);
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
  bench.state.setRegister(3, BigInt(SvmPlace.GUEST_DATA));
}

function frame(...words: readonly bigint[]): void {
  const rsp = SvmPlace.GUEST_STACK - 8 * words.length;
  for (const [k, word] of words.entries()) bench.set64(rsp + 8 * k, word);
  bench.setControl64(Save.RSP, rsp);
}

const data = BigInt(Sel.DATA);
const userData = BigInt(selectorFor(Sel.DATA, 3));

Deno.test("far transfers to a segment whose accessed bit cannot be set change nothing", () => {
  const far = (selector: number) => (): void => {
    bench.set64(SvmPlace.GUEST_DATA, TARGET);
    bench.set16(SvmPlace.GUEST_DATA + 8, selector);
  };
  const stack = BigInt(SvmPlace.GUEST_STACK);
  const cases: readonly (readonly [string, string, number, () => void])[] = [
    ["JMP far", "48 ff 2b", FRESH, far(FRESH)],
    ["CALL far", "48 ff 1b", FRESH, far(FRESH)],
    ["RETF", "48 cb", FRESH, () => frame(TARGET, BigInt(FRESH))],
    ["IRET", "48 cf", FRESH, () => frame(TARGET, BigInt(FRESH), 2n, stack, data)],
    [
      "RETF to CPL 3",
      "48 cb",
      FRESH_USER,
      () => frame(TARGET, BigInt(FRESH_USER + 3), stack, userData),
    ],
    [
      "IRET to CPL 3",
      "48 cf",
      FRESH_USER,
      () => frame(TARGET, BigInt(FRESH_USER + 3), 2n, stack, userData),
    ],
  ];
  for (const [name, code, selector, setup] of cases) {
    prepare();
    setup();
    const before = bench.block;
    assertEquals(bench.enter(code), "4e", name);
    assertEquals(bench.info, [BigInt(Pf.P | Pf.RW), BigInt(Place.GDT + selector + 5)], name);
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400), name);
    // And goes through once it can be.
    const entry = bench.pageEntry(SvmPlace.GUEST_TABLES, Place.GDT);
    bench.set64(entry, bench.get64(entry) | Pte.RW);
    bench.write(Number(TARGET), [0xf4]);
    bench.host();
    bench.state.setRegister(3, BigInt(SvmPlace.GUEST_DATA));
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.GP);
    const exit = selector === FRESH ? "78" : "4d";
    assertEquals(bench.resume(), exit, name);
    assertEquals(bench.control64(Save.RIP), TARGET, name);
  }
});

Deno.test("nor does an event whose handler is in such a segment", () => {
  for (const [cpl, inject] of [[0, true], [3, true], [0, false], [3, false]] as const) {
    prepare(cpl);
    for (const vector of [0x42]) {
      const at = SvmPlace.GUEST_IDT + 16 * vector;
      bench.set16(at + 2, FRESH);
    }
    if (inject) bench.inject(EventFormat.VALID | 0x42);
    const before = bench.block;
    assertEquals(bench.enter(inject ? "90" : "cd 42"), "4e");
    assertEquals(bench.info[1], BigInt(Place.GDT + FRESH + 5));
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400));
    const type = inject ? 0 : EventFormat.SOFTWARE;
    assertEquals(
      bench.control64(Control.EXITINTINFO),
      BigInt((EventFormat.VALID | type | 0x42) >>> 0),
    );
  }
});

Deno.test("SGDT and SIDT store all ten bytes or none", () => {
  const absent = 0x15_0000;
  for (const code of ["0f 01 03", "0f 01 0b"]) {
    for (let before = 1; before < 10; before++) {
      bench.guest();
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
      bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, absent), 0n);
      bench.fill(absent - 16, 16, 0xaa);
      bench.state.setRegister(3, BigInt(absent - before));
      assertEquals(bench.enter(code), "4e");
      assertEquals(bench.info, [BigInt(Pf.RW), BigInt(absent)]);
      assertEquals(bench.read(absent - 16, 16), new Uint8Array(16).fill(0xaa));
    }
  }
});

Deno.test("what a guest writes to the TSC is read with the offset added", () => {
  bench.guest();
  bench.setControl64(Control.TSC_OFFSET, 0x1000_0000);
  // mov ecx, 10h; mov eax, 5000h; xor edx, edx; wrmsr; rdtsc; hlt
  assertEquals(bench.enter("b9 10 00 00 00 b8 00 50 00 00 31 d2 0f 30 0f 31 f4"), "78");
  const since = bench.control64(Save.RAX) - 0x1000_5000n;
  assertEquals(since >= 0n && since < 16n, true, `${since}`);
});

Deno.test("POP to memory that cannot be written leaves the stack pointer", () => {
  // pop dword [ebx], beyond the limit of DS; pop dword [esp + 4] and pop word [bx] alike.
  for (
    const [code, vector, error] of [
      ["8f 03", Vector.GP, 0n],
      ["36 8f 03", undefined, 0n],
      ["66 8f 03", Vector.GP, 0n],
      ["67 8f 07", Vector.GP, 0n],
      ["3e 8f 44 24 04", Vector.GP, 0n],
    ] as const
  ) {
    bench.guest("protected");
    bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    bench.setControl32(Save.DS + SaveSegment.LIMIT, 0x100);
    bench.state.setRegister(3, BigInt(SvmPlace.GUEST_DATA & 0xffff | 0x8000));
    const before = bench.block;
    const exit = bench.enter(`${code} 0f 0b`);
    assertEquals(exit, vector === undefined ? "46" : (0x40 + vector).toString(16), code);
    if (vector === undefined) continue;
    assertEquals(bench.info[0], error);
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400), code);
  }
});
