/**
 * System management interrupts in guests: APM vol. 2, 15.22 with table 15-14, and 15.13.3; SDM vol. 3C,
 * 33.14 (the default treatment).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Cr4,
  IntControl,
  InterceptWord,
  Misc1,
  Msr,
  Pin,
  Primary,
  S,
  Save,
  Secondary,
  Stop,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { code, hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";
import { At, VmxLab } from "./vmx_lab.ts";

const SMBASE = 0x3_0000;
const HANDLER = SMBASE + 0x8000;
/** inc word [cs:100h]; rsm */
const COUNT_RSM = hex("2e ff 06 00 01 0f aa");
const COUNT = SMBASE + 0x100;

const svm = new SvmBench({
  outside: { ...refuseOutside(), msrRead: () => true, msrWrite: () => true },
});

function prepareSvm(): void {
  svm.guest();
  svm.write(HANDLER, COUNT_RSM);
  svm.set16(COUNT, 0);
}

/** Enters the guest at `guest`, which has begun to run. */
function beginSvm(guest: string): void {
  svm.write(SvmPlace.GUEST_CODE, hex(guest));
  svm.write(Place.CODE, hex("0f 01 d8 90 0f 01 dc 90 90 f4"));
  svm.state.setRegister(0, BigInt(svm.vmcb));
  svm.state.set(S.rip, BigInt(Place.CODE));
  assertEquals(svm.run(2).stop, Stop.BUDGET);
  assertEquals(svm.state.get32(S.guestMode), 1);
}

Deno.test("SVM: an SMI that is not intercepted is the handler's, and the guest goes on behind RSM", () => {
  for (const nested of [false, true]) {
    prepareSvm();
    if (nested) svm.nested();
    svm.setControl64(Control.TSC_OFFSET, 1n << 40n);
    svm.orControl64(Control.INT_CONTROL, IntControl.V_INTR_MASKING | 5);
    // CPUID, MSRs and all else would exit: the handler is not subject to intercepts.
    svm.orControl64(InterceptWord.MISC1, Misc1.RSM | Misc1.IDTR_READ);
    // nop; sidt [rip+…]; (the handler: sidt; inc; rsm); hlt
    beginSvm("90 90 90 f4");
    svm.write(HANDLER, [...hex("0f 01 0e 00 70"), ...COUNT_RSM]);
    svm.processor.raiseSmi();
    svm.run(1);
    const area = (offset: number): bigint => svm.get64(SMBASE + offset);
    assertEquals([svm.state.get32(S.guestMode), svm.state.get32(S.smm)], [0, 1]);
    assertEquals([area(0xfed8), area(0xfee0)], [1n, BigInt(svm.vmcb)]);
    assertEquals(area(0xff78), BigInt(SvmPlace.GUEST_CODE + 1));
    assertEquals(area(0xff50), BigInt(SvmPlace.GUEST_TABLES));
    assertEquals(area(0xff38), BigInt(nested ? SvmPlace.NPT : Place.TABLES));
    assertEquals(area(0xff20), nested ? 0x0007_0406_0007_0406n : 0n);
    assertEquals(area(0xfee8) & 0xffn, 5n);
    assertEquals(svm.state.get(S.tscOffset), 0n);
    svm.run(2);
    assertEquals(svm.get16(COUNT), 1);
    assertEquals([svm.state.get32(S.guestMode), svm.state.get32(S.smm)], [1, 0]);
    assertEquals(svm.state.get(S.tscOffset), 1n << 40n);
    assertEquals(svm.state.get32(S.nestedPaging), Number(nested));
    const outcome = svm.run(100);
    assertEquals([outcome.stop, svm.control64(Control.EXITCODE)], [Stop.HALT, 0x78n]);
    assertEquals(svm.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 3));
    // The host's HLT is where STGI and all behind it end.
    assertEquals(svm.state.rip, BigInt(Place.CODE + 10));
  }
});

Deno.test("SVM: an SMI that is intercepted exits and stays pending until GIF is set", () => {
  prepareSvm();
  svm.setControl32(
    InterceptWord.MISC1,
    svm.control32(InterceptWord.MISC1) | Misc1.SMI,
  );
  beginSvm("90 90 90 f4");
  svm.processor.raiseSmi();
  assertEquals(svm.run(1).stop, Stop.BUDGET);
  assertEquals([svm.control64(Control.EXITCODE), ...svm.info], [0x62n, 0n, 0n]);
  assertEquals(svm.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 1));
  assertEquals([svm.get16(COUNT), svm.state.get32(S.gif)], [0, 0]);
  assertEquals(svm.run(100).stop, Stop.HALT);
  assertEquals(svm.get16(COUNT), 1);
  // It was taken right behind STGI.
  assertEquals(svm.get64(SMBASE + 0xff78), BigInt(Place.CODE + 7));
});

Deno.test("SVM: with HWCR.SMMLOCK no SMI is intercepted", () => {
  prepareSvm();
  svm.setControl32(InterceptWord.MISC1, svm.control32(InterceptWord.MISC1) | Misc1.SMI);
  assertEquals(svm.processor.writeMsr(Msr.HWCR, 0x0100_0001n), true);
  beginSvm("90 90 90 f4");
  svm.processor.raiseSmi();
  assertEquals(svm.run(100).stop, Stop.HALT);
  assertEquals([svm.get16(COUNT), svm.control64(Control.EXITCODE)], [1, 0x78n]);
});

Deno.test("SVM: with GIF clear an SMI waits in the host, too", () => {
  prepareSvm();
  svm.write(Place.CODE, hex("0f 01 dd 90 90 0f 01 dc 90 f4"));
  svm.state.set(S.rip, BigInt(Place.CODE));
  svm.run(1);
  svm.processor.raiseSmi();
  assertEquals(svm.processor.takesSmi, false);
  assertEquals(svm.run(100).stop, Stop.HALT);
  assertEquals([svm.get16(COUNT), svm.get64(SMBASE + 0xff78)], [1, BigInt(Place.CODE + 8)]);
});

Deno.test("SVM: RSM in a guest exits if intercepted, and is undefined if not", () => {
  prepareSvm();
  svm.orControl64(InterceptWord.MISC1, Misc1.RSM);
  assertEquals(svm.enter("0f aa"), "73");
  svm.guest();
  svm.setControl32(InterceptWord.EXCEPTIONS, 1 << 6);
  assertEquals(svm.enter("0f aa"), "46");
});

Deno.test("SVM: a virtual interrupt and a virtual NMI wait for the guest", () => {
  prepareSvm();
  svm.guestHandlers();
  svm.write(HANDLER, [...hex("fb 90 90"), ...COUNT_RSM]);
  // V_IRQ with vector 40h at priority 4.
  svm.setControl64(
    Control.INT_CONTROL,
    BigInt(IntControl.V_IRQ | 0x4_0000) | (0x40n << 32n),
  );
  beginSvm("90 fb 90 90 f4");
  svm.processor.raiseSmi();
  const { stop } = svm.run(100);
  assertEquals([stop, svm.get16(COUNT)], [Stop.HALT, 1]);
  assertEquals(svm.control64(Save.RIP), BigInt(svm.guestHandler(0x40)));
});

const lab = new VmxLab();
const { bench } = lab;

function beginVmx(guest: string, fields: Record<number, bigint | number> = {}): void {
  lab.start();
  bench.write(HANDLER, COUNT_RSM);
  bench.set16(COUNT, 0);
  bench.write(At.GUEST, hex(guest));
  lab.prepare(fields);
  bench.write(Place.CODE, [...code("0f 01 c2"), 0xf4]);
  bench.state.set(S.rip, BigInt(Place.CODE));
  assertEquals(bench.run(2).stop, Stop.BUDGET);
  assertEquals(bench.state.get32(S.nonRoot), 1);
}

Deno.test("VMX: an SMI is no exit; VMX operation is left for the handler and comes back with RSM", () => {
  for (const ept of [false, true]) {
    // One table maps 512 GiB to themselves by pages of 1 GiB.
    const fields: Record<number, bigint | number> = ept
      ? {
        [Vmcs.PRIMARY_CONTROLS]: 0x0400_6172 | Primary.HLT | Primary.SECONDARY,
        [Vmcs.SECONDARY_CONTROLS]: Secondary.EPT | Secondary.VPID,
        [Vmcs.EPT_POINTER]: BigInt(At.SCRATCH) | 0x1en,
      }
      : {};
    bench.set64(At.SCRATCH, BigInt(At.SCRATCH + 0x1000) | 7n);
    bench.set64(At.SCRATCH + 0x1000, 0xb7n);
    beginVmx("90 90 0f 20 e0 f4", fields);
    bench.processor.raiseSmi();
    bench.run(1);
    const { state } = bench;
    assertEquals([S.vmxOn, S.nonRoot, S.smm].map((field) => state.get32(field)), [0, 0, 1]);
    assertEquals(state.get(S.cr4), 0n);
    // CR4.VMXE is not in the area.
    assertEquals(bench.get32(SMBASE + 0xfe40), Cr4.PAE);
    assertEquals(bench.get32(SMBASE + 0xfee0), Number(ept));
    assertEquals(bench.get64(SMBASE + 0xfed8), ept ? BigInt(At.SCRATCH) | 0x1en : 0n);
    bench.run(1);
    assertEquals([S.vmxOn, S.nonRoot, S.smm].map((field) => state.get32(field)), [1, 1, 0]);
    assertEquals([bench.run(100).stop, bench.get16(COUNT)], [Stop.HALT, 1]);
    bench.processor.wake();
    // mov rax, cr4 in the guest.
    assertEquals(state.register(0), BigInt(Cr4.PAE | Cr4.VMXE));
    assertEquals(lab.read(Vmcs.EXIT_REASON), 12n);
  }
});

Deno.test("VMX: an SMI in root operation finds the VMCS again behind RSM", () => {
  lab.start();
  bench.write(HANDLER, COUNT_RSM);
  bench.set16(COUNT, 0);
  lab.prepare();
  bench.processor.raiseSmi();
  assertEquals(lab.read(Vmcs.LINK_POINTER), (1n << 64n) - 1n);
  assertEquals([bench.get16(COUNT), bench.state.get32(S.vmxOn)], [1, 1]);
});

Deno.test("VMX: RSM in a guest is undefined: it exits in SMM alone (SDM vol. 3C, 26.1.3)", () => {
  lab.start();
  const { reason } = lab.guest("0f aa", { [Vmcs.EXCEPTION_BITMAP]: 1 << 6 });
  assertEquals([reason, lab.read(Vmcs.EXIT_INTERRUPTION_INFO)], [0, 0x8000_0306n]);
});

Deno.test("VMX: the preemption timer expires behind RSM", () => {
  const TICKS = 20;
  lab.start();
  const handler = [...Array<number>(2000).fill(0x90), ...COUNT_RSM];
  beginVmx("90 eb fe", {
    [Vmcs.PIN_CONTROLS]: 0x16 | Pin.PREEMPTION_TIMER,
    [Vmcs.PREEMPTION_TIMER]: TICKS,
  });
  bench.write(HANDLER, handler);
  bench.processor.raiseSmi();
  assertEquals(bench.run(10_000).stop, Stop.HALT);
  assertEquals(bench.get16(COUNT), 1);
  bench.processor.wake();
  assertEquals(lab.read(Vmcs.EXIT_REASON), 52n);
});

Deno.test("VMX: a guest that halted halts again", () => {
  beginVmx("90 90 f4", {
    [Vmcs.PRIMARY_CONTROLS]: 0x0400_6172,
    [Vmcs.PIN_CONTROLS]: 0x16 | Pin.EXTERNAL_INTERRUPT,
  });
  assertEquals(bench.run(100).stop, Stop.HALT);
  bench.processor.raiseSmi();
  assertEquals([bench.run(100).stop, bench.get16(COUNT)], [Stop.HALT, 1]);
  assertEquals(bench.get16(SMBASE + 0xff02), 1);
  assertEquals([bench.state.get32(S.nonRoot), bench.state.rip], [1, BigInt(At.GUEST + 3)]);
  bench.processor.setInterruptLine(true);
  assertEquals(bench.run(100).stop, Stop.HALT);
  bench.processor.setInterruptLine(false);
  bench.processor.wake();
  assertEquals(lab.read(Vmcs.EXIT_REASON), 1n);
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), 1n);
});
