/**
 * The intercept of the freeze behind FERR# (APM vol. 2, 15.12 and table 15-7: FERR_FREEZE), and CR0.NE.
 */
import { assertEquals } from "@std/assert";
import { Control, Cr0, InterceptWord, Misc1, Save } from "../../plugins/cpu/mod.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();
/** FNINIT; FLDCW [rbx]; FLD1; FLDZ; FDIVP; FLD1, which waits; HLT. The status is 1 / 0, not masked. */
const DIVIDE = "db e3 d9 2b d9 e8 d9 ee de f9";
const WAITS = "d9 e8 f4";

function enter(ne: boolean, mask: number): string {
  bench.guest();
  bench.set16(SvmPlace.GUEST_DATA, 0x037b);
  bench.state.setRegister(3, BigInt(SvmPlace.GUEST_DATA));
  if (!ne) bench.clearControl64(Save.CR0, Cr0.NE);
  bench.orControl32(InterceptWord.MISC1, mask);
  bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
  return bench.enter(`${DIVIDE} ${WAITS}`);
}

Deno.test("FERR_FREEZE exits in front of the instruction that waits", () => {
  assertEquals(enter(false, Misc1.FERR_FREEZE), "7e");
  assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 10));
  assertEquals(bench.control64(Control.EXITINTINFO), 0n);
  // With CR0.NE there is no freeze but #MF.
  assertEquals(enter(true, Misc1.FERR_FREEZE), "50");
});

Deno.test("without the intercept the board hears of it, and the guest freezes", () => {
  let asserted = 0;
  bench.outside.numericError = () => {
    asserted++;
    return true;
  };
  assertEquals(enter(false, 0), "halted");
  assertEquals(asserted, 1);
  // IGNNE#: it goes on.
  bench.processor.wake();
  bench.processor.ignoreNumericErrors();
  assertEquals(bench.exitOf(bench.run(100)), "78");
});
