/**
 * The guest mode execute trap (GMET): SMEP for the nested level (APM vol. 2, appendix B, VMCB 090h bit 3; vol. 3,
 * CPUID 8000_000Ah EDX bit 17), with the rules that KVM and kvm-unit-tests found in processors.
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Efer,
  InterceptWord,
  Msr,
  NestedControl,
  Save,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { Pf, Pte } from "./page_path.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();
const without = new SvmBench({ features: { gmet: false } });

/** A page that is for users or not. */
const PAGE = 0x15_0000;
const FINAL = 1n << 32n;

/** RBX points at the page; the code reads, writes or jumps to it. */
const ACCESS = { read: "8b 03 f4", write: "c6 03 55 f4", fetch: "ff e3" } as const;

interface Options {
  readonly access?: keyof typeof ACCESS;
  readonly cpl?: 0 | 3;
  readonly user: boolean;
  readonly gmet?: boolean;
  readonly nx?: boolean;
  readonly hostNxe?: boolean;
}

/** Enters a guest that runs from a page as its CPL wants it; the exit, and the error code of a nested page fault. */
function enter(target: SvmBench, options: Options): readonly [string, bigint?] {
  const { access = "fetch", cpl = 0, user, gmet = true, nx = false, hostNxe = true } = options;
  target.guest("long", cpl);
  target.nested();
  if (gmet) target.orControl64(Control.NESTED_CONTROL, NestedControl.GMET);
  const efer = Efer.SVME | Efer.LME | Efer.LMA | (hostNxe ? Efer.NXE : 0);
  target.processor.writeMsr(Msr.EFER, BigInt(efer));
  // A HLT at CPL 3 is a #GP: an exit as good as any.
  target.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.GP);
  if (gmet && cpl === 0) {
    const code = target.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_CODE);
    target.set64(code, target.get64(code) & ~Pte.US);
  }
  target.state.setRegister(3, BigInt(PAGE));
  target.write(PAGE, [0xf4]);
  const entry = target.pageEntry(SvmPlace.NPT, PAGE);
  const flags = Pte.P | Pte.RW | (user ? Pte.US : 0n) | (nx ? Pte.NX : 0n);
  target.set64(entry, BigInt(PAGE) | flags);
  const exit = target.enter(ACCESS[access]);
  if (exit !== "400") return [exit];
  assertEquals(target.info[1], BigInt(PAGE));
  if (access === "fetch") assertEquals(target.control64(Save.RIP), BigInt(PAGE));
  return [exit, target.info[0] ^ FINAL];
}

Deno.test("fetches: a supervisor's from pages not for users, a user's from those for users", () => {
  const error = (bits: number): bigint => BigInt(bits);
  assertEquals(enter(bench, { user: false }), ["78"]);
  assertEquals(enter(bench, { user: true }), ["400", error(Pf.P | Pf.ID)]);
  assertEquals(enter(bench, { cpl: 3, user: true }), ["4d"]);
  assertEquals(enter(bench, { cpl: 3, user: false }), ["400", error(Pf.P | Pf.US | Pf.ID)]);
  // NX forbids both, and without NXE a fetch is not told from a read.
  assertEquals(enter(bench, { user: false, nx: true }), ["400", error(Pf.P | Pf.ID)]);
  assertEquals(enter(bench, { user: true, hostNxe: false }), ["400", error(Pf.P)]);
});

Deno.test("reads, writes and walks of the guest's tables do not ask whose the page is", () => {
  for (const access of ["read", "write"] as const) {
    for (const user of [false, true]) {
      assertEquals(enter(bench, { access, user }), ["78"]);
      assertEquals(enter(bench, { access, cpl: 3, user }), ["4d"]);
    }
  }
  bench.guest();
  bench.nested();
  bench.orControl64(Control.NESTED_CONTROL, NestedControl.GMET);
  for (let page = 0; page < 0x20_0000; page += 0x1000) {
    const entry = bench.pageEntry(SvmPlace.NPT, page);
    bench.set64(entry, bench.get64(entry) & ~Pte.US);
  }
  assertEquals(bench.enter("f4"), "78");
});

Deno.test("without the trap, or on a processor without it, nested accesses are a user's", () => {
  const user = BigInt(Pf.P | Pf.US | Pf.ID);
  for (const cpl of [0, 3] as const) {
    const fine = [cpl === 0 ? "78" : "4d"] as const;
    assertEquals(enter(bench, { cpl, user: true, gmet: false }), fine);
    assertEquals(enter(bench, { cpl, user: false, gmet: false }), ["400", user]);
  }
  // The bit means nothing there: even the code's own page is not the guest's to run.
  without.guest();
  without.nested();
  without.orControl64(Control.NESTED_CONTROL, NestedControl.GMET);
  assertEquals(without.enter("f4"), "78");
  const code = without.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_CODE);
  without.set64(code, without.get64(code) & ~Pte.US);
  without.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  without.host();
  assertEquals(without.enter("f4"), "400");
});

Deno.test("without nested paging the bit is one of those that are ignored", () => {
  bench.guest();
  bench.orControl64(Control.NESTED_CONTROL, NestedControl.GMET);
  assertEquals(bench.enter("f4"), "78");
});
