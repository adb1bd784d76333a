/**
 * Shadow stacks of SVM guests: what VMRUN loads, checks and gives back (APM vol. 2, 15.5.1 and appendix B), and
 * nested page faults of their accesses (15.25.6).
 */
import { assertEquals } from "@std/assert";
import {
  Clean,
  Control,
  Cr0,
  Cr4,
  EventFormat,
  InterceptWord,
  S,
  Save,
} from "../../plugins/cpu/mod.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();
const { state } = bench;
/** A page of the guest's shadow stack, and its top. */
const PAGE = 0x13_0000;
const TOP = PAGE + 0x1000;
const U_CET = 0x6a0;

/** A guest of CPL 0 with a shadow stack. */
function guest(): void {
  bench.guest();
  bench.fill(PAGE, 0x1000, 0);
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), BigInt(PAGE) | 0x61n);
  bench.processor.writeMsr(U_CET, 0n);
  bench.setControl64(Save.CR4, Cr4.PAE | Cr4.CET);
  bench.setControl64(Save.S_CET, 1);
  bench.setControl64(Save.SSP, TOP);
  bench.setControl64(Save.ISST_ADDR, 0x1234_5000);
}

Deno.test("VMRUN loads S_CET, SSP and ISST_ADDR, #VMEXIT stores them and gives the host's back", () => {
  guest();
  state.set(S.ssp, 0x1111n);
  state.set(S.sCet, 2n);
  state.set(S.sspTable, 0x2222n);
  // call to behind it by register: lea rax,[rip+2]; call rax; hlt
  assertEquals(bench.enter("48 8d 05 02 00 00 00 ff d0 f4"), "78");
  assertEquals(bench.control64(Save.SSP), BigInt(TOP - 8));
  assertEquals(bench.get64(TOP - 8), BigInt(SvmPlace.GUEST_CODE + 9));
  assertEquals(bench.control64(Save.S_CET), 1n);
  assertEquals([S.ssp, S.sCet, S.sspTable].map((field) => state.get(field)), [
    0x1111n,
    2n,
    0x2222n,
  ]);
  guest();
  // mov ecx, 6a8h; rdmsr; hlt
  assertEquals(bench.enter("b9 a8 06 00 00 0f 32 f4"), "78");
  assertEquals(bench.control64(Save.RAX), 0x1234_5000n);
  for (const field of [S.ssp, S.sCet, S.sspTable]) state.set(field, 0n);
});

Deno.test("the clean bit of the three: what is cached stays", () => {
  guest();
  assertEquals(bench.enter("f4"), "78");
  bench.setControl64(Save.SSP, PAGE);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.setControl32(Control.CLEAN_BITS, Clean.CET);
  assertEquals(bench.resume(), "78");
  assertEquals(bench.control64(Save.SSP), BigInt(TOP));
  bench.setControl64(Save.SSP, PAGE);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.setControl32(Control.CLEAN_BITS, 0);
  assertEquals(bench.resume(), "78");
  assertEquals(bench.control64(Save.SSP), BigInt(PAGE));
});

/** What makes a VMCB illegal, and what does not. */
const STATES: readonly (readonly [name: string, change: () => void, result: string])[] = [
  ["as it is", () => {}, "78"],
  ["a reserved bit of S_CET", () => bench.setControl64(Save.S_CET, 4), "invalid"],
  ["an upper bit of S_CET", () => bench.setControl64(Save.S_CET, 1n << 40n), "invalid"],
  ["CR4.CET without CR0.WP", () => bench.clearControl64(Save.CR0, Cr0.WP), "invalid"],
  ["SSP not canonical", () => bench.setControl64(Save.SSP, 1n << 60n), "78"],
  ["#CP injected", () => bench.inject(EventFormat.VALID | 0xb00 | 21, 1), "7f"],
];

for (const [name, change, result] of STATES) {
  Deno.test(`VMRUN with ${name}: ${result}`, () => {
    guest();
    change();
    assertEquals(bench.enter("f4"), result);
  });
}

Deno.test("a shadow stack at CPL 3 and virtual-8086 mode do not go together", () => {
  // HLT is #GP there, and a shutdown without a table for it.
  for (const [control, result] of [[0n, "7f"], [1n, "invalid"]] as const) {
    bench.guest("v86");
    bench.setControl64(Save.CR4, Cr4.CET);
    bench.processor.writeMsr(U_CET, control);
    assertEquals(bench.enter("f4"), result);
  }
  bench.processor.writeMsr(U_CET, 0n);
});

Deno.test("without the feature the three are not switched, and #CP cannot be injected", () => {
  const old = new SvmBench({ model: "zen2" });
  old.setControl64(Save.S_CET, -1);
  old.setControl64(Save.SSP, 0x77);
  assertEquals(old.enter("f4"), "78");
  assertEquals([old.control64(Save.S_CET), old.control64(Save.SSP)], [
    0xffff_ffff_ffff_ffffn,
    0x77n,
  ]);
  old.guest();
  old.inject(EventFormat.VALID | 0xb00 | 21, 1);
  assertEquals(old.enter("f4"), "invalid");
});

Deno.test("the exception bitmap takes #CP, with its error code", () => {
  guest();
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 21);
  bench.set64(SvmPlace.GUEST_STACK, BigInt(SvmPlace.GUEST_CODE));
  bench.setControl64(Save.SSP, PAGE);
  assertEquals(bench.enter("c3"), "55");
  assertEquals(bench.info[0], 1n);
  assertEquals(bench.control64(Save.SSP), BigInt(PAGE));
});

Deno.test("an access to a shadow stack is one at the nested level, with bit 6 of its error", () => {
  guest();
  bench.nested();
  const entry = bench.pageEntry(SvmPlace.NPT, PAGE);
  bench.set64(entry, BigInt(PAGE) | 0x65n);
  // Not writable there: the push faults, as a write.
  assertEquals(bench.enter("48 8d 05 02 00 00 00 ff d0 f4"), "400");
  assertEquals(bench.info, [0x1_0000_0047n, BigInt(TOP - 8)]);
  guest();
  bench.nested();
  bench.set64(entry, 0n);
  bench.setControl64(Save.SSP, PAGE);
  assertEquals(bench.enter("c3"), "400");
  assertEquals(bench.info[0], 0x1_0000_0044n);
});
