/**
 * Optional parts of SVM, with their CPUID bit and without: NMI virtualization, the filter of PAUSE, the
 * idle HLT intercept, nested paging, the TSC ratio (APM vol. 2, 15.21.10, 15.14.4, table 15-7, 15.25,
 * 15.30.5). And exits behind writes of control
 * registers and EFER, which every processor has.
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Cr0,
  Efer,
  EventFormat,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  Misc3,
  Msr,
  S,
  Save,
} from "../../plugins/cpu/mod.ts";
import { refuseOutside } from "./lab.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const outside = { ...refuseOutside() };
/** With every optional part, and with none of those tested here. */
const WITH = new SvmBench({ model: "zen5", outside });
const WITHOUT = new SvmBench({
  model: "zen5",
  outside,
  features: { vnmi: false, pause_filter: false, pause_filter_threshold: false, idle_hlt: false },
});

const NEXT = BigInt(SvmPlace.GUEST_CODE);
const { VALID, NMI } = EventFormat;
const { V_NMI, V_NMI_MASK, V_NMI_ENABLE, V_GIF, V_GIF_ENABLE, V_IRQ, V_IGN_TPR } = IntControl;
const IRET = "48 cf";

/** A guest with virtual NMIs, and more of 060h. */
function nmiGuest(bench: SvmBench, control = 0, flags = 0): void {
  bench.guest();
  bench.guestHandlers();
  bench.orControl32(InterceptWord.MISC1, Misc1.NMI);
  bench.setControl32(Control.INT_CONTROL, V_NMI_ENABLE | control);
  bench.orControl64(Save.RFLAGS, flags);
}

const rip = (bench: SvmBench): bigint => bench.control64(Save.RIP);
const handler = (bench: SvmBench): bigint => BigInt(bench.guestHandler(2));
const control = (bench: SvmBench): number => bench.control32(Control.INT_CONTROL);
const frame = (bench: SvmBench): bigint => bench.get64(Number(bench.control64(Save.RSP)));

Deno.test("V_NMI_ENABLE needs the NMI intercept", () => {
  for (const [bench, expected] of [[WITH, "invalid"], [WITHOUT, "78"]] as const) {
    nmiGuest(bench);
    bench.setControl32(InterceptWord.MISC1, Misc1.HLT);
    assertEquals(bench.enter("f4"), expected);
    nmiGuest(bench);
    assertEquals(bench.enter("f4"), "78");
  }
});

Deno.test("NP_ENABLE is ignored by processors without nested paging", () => {
  const unpaged = new SvmBench({ model: "zen5", outside, features: { npt: false } });
  for (const [bench, expected] of [[WITH, "400"], [unpaged, "78"]] as const) {
    bench.guest();
    bench.nested();
    // Nothing is mapped.
    bench.setControl64(Control.N_CR3, SvmPlace.GUEST_DATA);
    bench.set64(SvmPlace.GUEST_DATA, 0n);
    assertEquals(bench.enter("f4"), expected);
  }
});

/** What code of a guest reads into EDX:EAX with a TSC ratio, the counters of the processor at `start` and TSC_OFFSET 7. */
function counted(code: string, ratio: bigint, start: bigint): bigint {
  // The counters are written while the instructions of the last run still count: always as many.
  WITH.guest();
  WITH.enter("f4");
  WITH.guest();
  assertEquals(WITH.processor.writeMsr(Msr.TSC_RATIO, ratio), true);
  for (const msr of [Msr.TSC, Msr.MPERF, Msr.APERF]) WITH.processor.writeMsr(msr, start);
  WITH.setControl64(Control.TSC_OFFSET, 7);
  // mov rbx, rdx in front: RDX is the half that the exit does not save.
  assertEquals(WITH.enter(`${code} 48 89 d3 f4`), "78");
  assertEquals(WITH.processor.readMsr(Msr.TSC_RATIO), ratio);
  const count = WITH.control64(Save.RAX) | (WITH.state.register(3) << 32n);
  WITH.processor.writeMsr(Msr.TSC_RATIO, 1n << 32n);
  return count;
}

Deno.test("the TSC ratio is a factor of a guest's TSC and MPERF", () => {
  const rdmsr = (msr: number): string => `b9 ${msr.toString(16)} 00 00 00 0f 32`;
  const counters = [["0f 31", 7n], ["0f 01 f9", 7n], [rdmsr(0x10), 7n], [rdmsr(0xe7), 0n]] as const;
  const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);
  for (const start of [0x3000_0000n, 0x1234_5678_9abc_def0n]) {
    for (const [code, offset] of counters) {
      const plain = counted(code, 1n << 32n, start) - offset;
      assertEquals(plain - start < 100n && start - plain < 100n, true);
      for (const ratio of [2n << 32n, 1n << 31n, 0x5555_5555n, 0xff_ffff_ffffn, 1n, 0n]) {
        const expected = wrap(((plain * ratio) >> 32n) + offset);
        assertEquals(counted(code, ratio, start), expected, `${code} ${ratio}`);
      }
    }
    assertEquals(counted(rdmsr(0xe8), 2n << 32n, start) - start < 100n, true);
  }
});

Deno.test("the TSC ratio has 40 bits, is 1 behind RESET, and is there if CPUID says so", () => {
  const bench = new SvmBench({ model: "zen2", outside });
  assertEquals(bench.processor.readMsr(Msr.TSC_RATIO), 1n << 32n);
  assertEquals(bench.processor.writeMsr(Msr.TSC_RATIO, (1n << 40n) - 1n), true);
  assertEquals(bench.processor.writeMsr(Msr.TSC_RATIO, 1n << 40n), false);
  const without = new SvmBench({ model: "zen2", outside, features: { tsc_scale: false } });
  assertEquals(without.processor.readMsr(Msr.TSC_RATIO), undefined);
  assertEquals(without.processor.writeMsr(Msr.TSC_RATIO, 1n << 32n), false);
});

Deno.test("a write of the TSC in a guest is of the processor's own", () => {
  WITH.guest();
  WITH.processor.writeMsr(Msr.TSC_RATIO, 3n << 32n);
  // mov ecx, 10h; mov eax, 4000_0000h; xor edx, edx; wrmsr; rdtsc; mov rbx, rdx; hlt
  const text = "b9 10 00 00 00 b8 00 00 00 40 31 d2 0f 30 0f 31 48 89 d3 f4";
  assertEquals(WITH.enter(text), "78");
  const guest = WITH.control64(Save.RAX) | (WITH.state.register(3) << 32n);
  assertEquals(guest >= 0xc000_0000n && guest < 0xc000_0000n + 300n, true);
  assertEquals(WITH.processor.readMsr(Msr.TSC)! - 0x4000_0000n < 100n, true);
  WITH.processor.writeMsr(Msr.TSC_RATIO, 1n << 32n);
});

Deno.test("a pending virtual NMI is taken unless it is masked, whatever IF says", () => {
  for (const bench of [WITH, WITHOUT]) {
    for (const flags of [0, 0x200]) {
      for (const mask of [0, V_NMI_MASK]) {
        for (const shadow of [0, 1]) {
          nmiGuest(bench, V_NMI | mask, flags);
          bench.setControl64(Control.INT_STATE, shadow);
          assertEquals(bench.enter("90 90 f4"), "78");
          const taken = bench === WITH && mask === 0;
          const name = `${bench === WITH} ${flags} ${mask} ${shadow}`;
          assertEquals(rip(bench), taken ? handler(bench) : NEXT + 2n, name);
          const after = taken ? V_NMI_MASK : V_NMI | mask;
          assertEquals(control(bench), (V_NMI_ENABLE | after) >>> 0, name);
          if (taken) assertEquals(frame(bench), NEXT + BigInt(shadow), name);
          // The processor's own NMIs have nothing to do with it.
          assertEquals(bench.state.get32(S.nmiBlocked), 0, name);
        }
      }
    }
  }
});

Deno.test("a virtual NMI waits for V_GIF where that is enabled", () => {
  for (const gif of [0, V_GIF]) {
    nmiGuest(WITH, V_NMI | V_GIF_ENABLE | gif);
    // nop; stgi; nop; hlt
    assertEquals(WITH.enter("90 0f 01 dc 90 f4"), "78");
    assertEquals(rip(WITH), handler(WITH));
    assertEquals(frame(WITH), gif === 0 ? NEXT + 4n : NEXT);
  }
});

Deno.test("IRET unmasks: the next one comes right behind it", () => {
  // The first handler call returns at once; the second finds the first one's return address.
  nmiGuest(WITH, V_NMI);
  WITH.write(WITH.guestHandler(2), [0x48, 0xcf]);
  assertEquals(WITH.enter("90 f4"), "78");
  assertEquals(rip(WITH), NEXT + 1n);
  assertEquals(control(WITH), V_NMI_ENABLE);

  nmiGuest(WITH, V_NMI | V_NMI_MASK);
  // A frame for IRET to return by: push ss, rsp, flags, cs, rip.
  const rsp = SvmPlace.GUEST_STACK - 40;
  const selectors = [WITH.get16(WITH.vmcb + Save.CS), WITH.get16(WITH.vmcb + Save.SS)];
  for (
    const [k, value] of [
      NEXT + 0x10n,
      BigInt(selectors[0]!),
      2n,
      BigInt(SvmPlace.GUEST_STACK),
      BigInt(selectors[1]!),
    ].entries()
  ) {
    WITH.set64(rsp + 8 * k, value);
  }
  WITH.setControl64(Save.RSP, rsp);
  assertEquals(WITH.enter(IRET), "78");
  assertEquals(rip(WITH), handler(WITH));
  assertEquals(frame(WITH), NEXT + 0x10n);
  assertEquals(control(WITH), V_NMI_ENABLE | V_NMI_MASK);
});

Deno.test("an exit on the way of a virtual NMI tells it, and saves the mask clear", () => {
  nmiGuest(WITH, V_NMI);
  WITH.nested();
  WITH.set64(WITH.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_IDT), 0n);
  assertEquals(WITH.enter("90"), "400");
  assertEquals(WITH.control64(Control.EXITINTINFO), 0x8000_0202n);
  assertEquals(control(WITH), V_NMI_ENABLE);
  // Injected again, it masks others until IRET.
  WITH.setControl64(Control.EVENTINJ, WITH.control64(Control.EXITINTINFO));
  WITH.set64(WITH.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_IDT), BigInt(SvmPlace.GUEST_IDT) | 0x67n);
  WITH.setControl32(Control.INT_CONTROL, V_NMI_ENABLE | V_NMI);
  WITH.host();
  assertEquals(WITH.resume(), "78");
  assertEquals(rip(WITH), handler(WITH));
  assertEquals(control(WITH), V_NMI_ENABLE | V_NMI | V_NMI_MASK);
});

Deno.test("an injected NMI masks virtual ones only where they are enabled", () => {
  for (const bench of [WITH, WITHOUT]) {
    nmiGuest(bench);
    bench.inject(VALID | NMI | 2);
    assertEquals(bench.enter("90"), "78");
    assertEquals(rip(bench), handler(bench));
    assertEquals(control(bench), V_NMI_ENABLE | (bench === WITH ? V_NMI_MASK : 0));
  }
});

Deno.test("physical NMIs are intercepted, and come first", () => {
  nmiGuest(WITH, V_NMI);
  WITH.state.set32(S.gif, 0);
  WITH.processor.raiseNmi();
  assertEquals(WITH.enter("90 f4"), "61");
  assertEquals(control(WITH), V_NMI_ENABLE | V_NMI);
  assertEquals(rip(WITH), NEXT);
});

Deno.test("a virtual NMI ends a halt, and comes before a virtual interrupt", () => {
  nmiGuest(WITH, V_NMI | V_IRQ | V_IGN_TPR, 0x200);
  WITH.setControl32(Control.INT_CONTROL + 4, 0x42);
  WITH.setControl32(InterceptWord.MISC1, Misc1.NMI | Misc1.SHUTDOWN | Misc1.CPUID);
  WITH.write(WITH.guestHandler(2), [0x0f, 0xa2]);
  WITH.setControl64(Control.INT_STATE, 1);
  assertEquals(WITH.enter("f4 90"), "72");
  assertEquals(rip(WITH), handler(WITH));
  assertEquals(frame(WITH), NEXT + 1n);
  assertEquals(control(WITH) & V_IRQ, V_IRQ);
});

// PAUSE.

const PAUSE = "f3 90";

/** How many of `code`'s PAUSEs were executed before the exit; `undefined` if none exited. */
function pauses(
  bench: SvmBench,
  count: number,
  threshold: number,
  code: string,
): number | undefined {
  bench.guest();
  bench.orControl32(InterceptWord.MISC1, Misc1.PAUSE);
  bench.set16(bench.vmcb + Control.PAUSE_COUNT, count);
  bench.set16(bench.vmcb + Control.PAUSE_THRESHOLD, threshold);
  const exit = bench.enter(`${code} f4`, 1000);
  assertEquals(bench.get16(bench.vmcb + Control.PAUSE_COUNT), count);
  if (exit === "78") return undefined;
  assertEquals(exit, "77");
  const before = Number(rip(bench)) - SvmPlace.GUEST_CODE;
  assertEquals(bench.control64(Control.NRIP), rip(bench) + 2n);
  return code.replaceAll(" ", "").slice(0, 2 * before).split("f390").length - 1;
}

Deno.test("PAUSE exits when the count goes below zero", () => {
  const ten = Array.from({ length: 10 }, () => PAUSE).join(" ");
  for (const count of [0, 1, 2, 5, 9]) {
    assertEquals(pauses(WITH, count, 0, ten), count, `count ${count}`);
    assertEquals(pauses(WITHOUT, count, 0, ten), 0, `count ${count}, no filter`);
  }
  assertEquals(pauses(WITH, 10, 0, ten), undefined);
  assertEquals(pauses(WITH, 0xffff, 0, ten), undefined);
});

Deno.test("VMRUN starts the count again", () => {
  for (let k = 0; k < 3; k++) assertEquals(pauses(WITH, 2, 0, `${PAUSE} ${PAUSE} ${PAUSE}`), 2);
});

Deno.test("PAUSEs that are farther apart than the threshold start the count again", () => {
  const nops = (n: number): string => Array.from({ length: n }, () => "90").join(" ");
  // From one PAUSE to the next are the instructions in between and the PAUSE itself.
  const spaced = (n: number): string =>
    Array.from({ length: 8 }, () => `${PAUSE} ${nops(n)}`).join(" ");
  assertEquals(pauses(WITH, 3, 10, spaced(8)), 3);
  assertEquals(pauses(WITH, 3, 10, spaced(9)), 3);
  assertEquals(pauses(WITH, 3, 10, spaced(10)), undefined);
  assertEquals(pauses(WITH, 3, 10, spaced(40)), undefined);
  // A pause in the middle: two, a long way, then three and the exit.
  const near = `${PAUSE} ${PAUSE}`;
  assertEquals(pauses(WITH, 3, 10, `${near} ${nops(30)} ${near} ${near} ${near}`), 6);
  const noThreshold = new SvmBench({
    model: "zen5",
    outside,
    features: { pause_filter_threshold: false },
  });
  assertEquals(pauses(noThreshold, 3, 10, spaced(40)), 3);
});

Deno.test("the filter means nothing where PAUSE is not intercepted", () => {
  WITH.guest();
  WITH.set16(WITH.vmcb + Control.PAUSE_COUNT, 1);
  assertEquals(WITH.enter(`${PAUSE} ${PAUSE} ${PAUSE} f4`), "78");
});

// HLT.

Deno.test("idle HLT exits only if nothing virtual is pending, and HLT's own intercept is first", () => {
  for (const bench of [WITH, WITHOUT]) {
    for (const hlt of [false, true]) {
      for (const idle of [false, true]) {
        for (const pending of [0, V_IRQ, V_NMI | V_NMI_MASK]) {
          bench.guest();
          bench.guestHandlers();
          const words = Misc1.SHUTDOWN | Misc1.NMI | (hlt ? Misc1.HLT : 0);
          bench.setControl32(InterceptWord.MISC1, words);
          bench.setControl32(InterceptWord.MISC3, idle ? Misc3.IDLE_HLT : 0);
          bench.setControl32(Control.INT_CONTROL, pending | V_NMI_ENABLE);
          const name = JSON.stringify({ on: bench === WITH, hlt, idle, pending });
          const exit = bench.enter("f4");
          const counts = bench === WITH && idle && pending === 0;
          assertEquals(exit, hlt ? "78" : counts ? "a6" : "halted", name);
          if (exit === "halted") continue;
          assertEquals(rip(bench), NEXT, name);
          assertEquals(bench.control64(Control.NRIP), NEXT + 1n, name);
        }
      }
    }
  }
});

Deno.test("with a virtual interrupt pending HLT is executed, and the interrupt ends it", () => {
  WITH.guest();
  WITH.guestHandlers();
  WITH.write(WITH.guestHandler(0x42), [0x0f, 0xa2]);
  WITH.setControl32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.CPUID);
  WITH.setControl32(InterceptWord.MISC3, Misc3.IDLE_HLT);
  WITH.setControl64(Control.INT_CONTROL, BigInt(V_IRQ | V_IGN_TPR) | (0x42n << 32n));
  // sti; hlt: in the shadow of STI nothing is taken before.
  assertEquals(WITH.enter("fb f4"), "72");
  assertEquals(rip(WITH), BigInt(WITH.guestHandler(0x42)));
  assertEquals(frame(WITH), NEXT + 2n);
});

Deno.test("at CPL 3 HLT is a #GP before either intercept", () => {
  WITH.guest("long", 3);
  WITH.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
  WITH.setControl32(InterceptWord.MISC3, Misc3.IDLE_HLT);
  assertEquals(WITH.enter("f4"), "4d");
});

// Exits behind writes.

Deno.test("writes of control registers and EFER exit behind the instruction, with what was written", () => {
  const cr0 = 0x8000_0000n | BigInt(Cr0.PE | Cr0.ET | Cr0.NE);
  const root = BigInt(SvmPlace.GUEST_TABLES);
  const efer = BigInt(Efer.SVME | Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE);
  const cases: readonly (readonly [string, string, number, bigint, bigint, string])[] = [
    ["CR0", "0f 22 c0", Misc2.CR_WRITE_TRAP, cr0, cr0, "90"],
    ["CR2", "0f 22 d0", Misc2.CR_WRITE_TRAP << 2, 0x1234n, 0x1234n, "92"],
    ["CR3", "0f 22 d8", Misc2.CR_WRITE_TRAP << 3, root, root, "93"],
    ["CR4", "0f 22 e0", Misc2.CR_WRITE_TRAP << 4, 0xa0n, 0xa0n, "94"],
    ["CR8", "44 0f 22 c0", Misc2.CR_WRITE_TRAP << 8, 7n, 7n, "98"],
    ["LMSW", "0f 01 f0", Misc2.CR_WRITE_TRAP, 3n, (cr0 | BigInt(Cr0.WP)) | 2n, "90"],
    ["CLTS", "0f 06", Misc2.CR_WRITE_TRAP, 0n, cr0 | BigInt(Cr0.WP), "90"],
    ["EFER", "0f 30", Misc2.EFER_WRITE_TRAP, efer, efer, "8f"],
  ];
  for (const [name, code, mask, rax, info, exit] of cases) {
    for (const on of [true, false]) {
      WITH.guest();
      if (name === "CLTS") WITH.orControl64(Save.CR0, Cr0.TS);
      WITH.setControl64(Save.RAX, rax);
      WITH.state.setRegister(1, 0xc000_0080n);
      WITH.state.setRegister(2, 0n);
      WITH.setControl32(InterceptWord.MISC2, Misc2.VMRUN | (on ? mask : ~mask & ~0xffff));
      const length = code.split(" ").length;
      assertEquals(WITH.enter(`${code} f4`), on ? exit : "78", name);
      assertEquals(rip(WITH), NEXT + BigInt(length), name);
      if (on) assertEquals(WITH.info, [info, 0n], name);
    }
  }
});
