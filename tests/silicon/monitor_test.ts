/**
 * MONITOR and MWAIT: what ends a wait, and what does not (APM vol. 3, MONITOR, MWAIT, MWAITX; SDM vol. 3A,
 * 10.10.4; vol. 3C, 26.3).
 */
import { assertEquals } from "@std/assert";
import { Control, InterceptWord, Misc2, Pin, S, Save, Stop, Vmcs } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { code, hex } from "./code.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";
import { At, VmxLab } from "./vmx_lab.ts";

const MONITOR = "0f 01 c8";
const MWAIT = "0f 01 c9";
const MONITORX = "0f 01 fa";
const MWAITX = "0f 01 fb";
const features = { monitor: true, mwaitx: true } as const;
const CODE1 = Place.CODE + 0x1000;

for (const tier of ["interpreted", "compiled"] as const) {
  const bench = new Bench({
    processors: 2,
    features,
    ...(tier === "compiled" ? { tier: 2 } : { tier: 1 }),
  });
  let woken = 0;
  bench.outside.woken = () => woken++;

  /** Processor 0 at MONITOR of DATA + 40h, then `text`; processor 1 at `other`. */
  const prepare = (text: string, other = "f4", flags = 2): void => {
    for (const [index, at, program] of [[1, CODE1, other], [0, Place.CODE, text]] as const) {
      bench.select(index);
      bench.long();
      bench.state.set(S.rip, BigInt(at));
      bench.state.setRegister(0, BigInt(Place.DATA + 0x44));
      bench.state.setRegister(1, 0n);
      bench.state.setRegister(2, 0n);
      bench.state.setRegister(3, 100n);
      bench.flags = flags;
      bench.processor.refresh();
      bench.write(at, hex(program));
    }
    bench.processor.setInterruptLine(false);
    woken = 0;
  };
  const wait = `${MONITOR} ${MWAIT} 90 f4`;
  const rip = (): number => Number(bench.state.rip) - Place.CODE;
  const other = (): Stop => {
    bench.select(1);
    const { stop } = bench.run(100);
    bench.select(0);
    return stop;
  };

  Deno.test(`${tier}: another processor's store to the line ends the wait`, () => {
    // mov [rax], cl; add byte [rax+3bh], 1; xchg [rax-4], rcx; a store that begins before the line
    for (const store of ["88 08", "80 40 3b 01", "48 87 48 fc", "48 89 48 f9", "f0 0f c1 08"]) {
      prepare(wait, `${store} f4`);
      assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 6], store);
      // It waits still.
      assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 6]);
      assertEquals([other(), woken], [Stop.HALT, 1], store);
      assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8], store);
    }
  });

  Deno.test(`${tier}: loads, and stores beside the line, do not`, () => {
    // mov cl, [rax]; mov [rax+3ch], cl; mov [rax-5], cl
    for (const access of ["8a 08", "88 48 3c", "88 48 bb"]) {
      prepare(wait, `${access} f4`);
      bench.run(100);
      assertEquals([other(), woken], [Stop.HALT, 0], access);
      assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 6], access);
    }
  });

  Deno.test(`${tier}: a store between MONITOR and MWAIT lets nothing wait, whoever makes it`, () => {
    prepare(`${MONITOR} 88 08 ${MWAIT} 90 f4`);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 10]);
    prepare(wait, "88 08 f4");
    bench.run(1);
    assertEquals(other(), Stop.HALT);
    assertEquals([bench.run(100).stop, rip(), woken], [Stop.HALT, 8, 0]);
  });

  Deno.test(`${tier}: without MONITOR, and a second time, nothing waits`, () => {
    prepare(`${MWAIT} 90 f4`);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 5]);
    prepare(`${MONITOR} ${MWAIT} ${MWAIT} 90 f4`, "88 08 f4");
    bench.run(100);
    other();
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 11]);
  });

  Deno.test(`${tier}: a device's store ends the wait`, () => {
    prepare(wait);
    bench.run(100);
    bench.set32(Place.DATA + 0x80, 1);
    assertEquals(woken, 0);
    bench.set32(Place.DATA + 0x7c, 1);
    assertEquals(woken, 1);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8]);
  });

  Deno.test(`${tier}: both processors can watch one line, and only the last MONITOR counts`, () => {
    prepare(wait, `${MONITOR} ${MWAIT} 90 f4`);
    bench.run(100);
    assertEquals(other(), Stop.HALT);
    bench.set32(Place.DATA + 0x40, 1);
    assertEquals(woken, 2);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8]);
    // add rax, 100h between two MONITORs
    prepare(`${MONITOR} 48 05 00 01 00 00 ${wait}`);
    bench.run(100);
    bench.set32(Place.DATA + 0x40, 1);
    assertEquals(woken, 0);
    bench.set32(Place.DATA + 0x140, 1);
    assertEquals(woken, 1);
  });

  Deno.test(`${tier}: code in the page of the line is decoded anew all the same`, () => {
    // The other processor executes code at DATA + 400h, and then the line is watched in its page.
    prepare(wait);
    bench.write(Place.DATA + 0x400, hex("ff c2 c3"));
    bench.write(CODE1, code("ff d6 c6 80 bd 03 00 00 c3 ff d6 f4"));
    bench.select(1);
    bench.state.setRegister(6, BigInt(Place.DATA + 0x400));
    bench.select(0);
    bench.run(100);
    assertEquals([other(), woken], [Stop.HALT, 0]);
    bench.select(1);
    // inc edx became inc ebx between the two calls.
    assertEquals([bench.state.register(2), bench.state.register(3)], [1n, 101n]);
    bench.select(0);
    bench.set32(Place.DATA + 0x40, 1);
    assertEquals(woken, 1);
  });

  Deno.test(`${tier}: an interrupt ends the wait and is delivered; masked, only where ECX says so`, () => {
    prepare(wait, "f4", 0x202);
    bench.handlers(64);
    bench.outside.acknowledge = () => 0x40;
    bench.run(100);
    bench.processor.setInterruptLine(true);
    const { events } = bench.run(1);
    assertEquals([events[0]?.vector, events[0]?.rip], [0x40, BigInt(Place.CODE + 6)]);
    // Masked: it waits on.
    prepare(wait);
    bench.run(100);
    bench.processor.setInterruptLine(true);
    assertEquals([bench.processor.takesInterrupts, bench.run(100).stop, rip()], [
      false,
      Stop.HALT,
      6,
    ]);
    // ECX bit 0.
    prepare(`${MONITOR} ff c1 ${MWAIT} 90 f4`);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8]);
    assertEquals(bench.processor.takesInterrupts, true);
    bench.processor.setInterruptLine(true);
    assertEquals([bench.run(1).stop, rip()], [Stop.BUDGET, 9]);
    bench.processor.setInterruptLine(false);
    // A HLT behind it is none of MWAIT's.
    assertEquals(bench.run(100).stop, Stop.HALT);
    bench.processor.setInterruptLine(true);
    assertEquals([bench.processor.takesInterrupts, bench.run(100).stop, rip()], [
      false,
      Stop.HALT,
      10,
    ]);
  });

  Deno.test(`${tier}: MWAITX at any privilege, with a limit in EBX`, () => {
    prepare(`${MONITORX} b1 02 ${MWAITX} 90 f4`);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8]);
    assertEquals(bench.processor.waitTicks, 100);
    assertEquals(bench.processor.endWait(), true);
    assertEquals([bench.processor.endWait(), bench.processor.waitTicks], [false, -1]);
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 10]);
    prepare("90");
    bench.long(3);
    bench.state.setRegister(0, BigInt(Place.DATA));
    bench.state.setRegister(1, 0n);
    bench.state.setRegister(2, 0n);
    bench.write(Place.CODE, hex(`${MONITORX} ${MWAITX}`));
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 6]);
  });

  Deno.test(`${tier}: an SMI ends the wait for good`, () => {
    prepare(wait);
    bench.write(0x3_8000, hex("0f aa"));
    bench.run(100);
    bench.processor.raiseSmi();
    assertEquals([bench.run(100).stop, rip()], [Stop.HALT, 8]);
    assertEquals(bench.read(0x3_fec9, 1)[0], 0);
  });
}

Deno.test("SVM: MWAIT waits in a guest; an exit ends it; the conditional intercept is of one that would", () => {
  const svm = new SvmBench({ features });
  const program = `${MONITOR} ${MWAIT} 90 f4`;
  const begin = (): void => {
    svm.guest();
    svm.setControl64(Save.RAX, SvmPlace.GUEST_DATA);
    svm.state.setRegister(1, 0n);
    svm.state.setRegister(2, 0n);
  };
  begin();
  assertEquals(svm.enter(program), "halted");
  svm.set32(SvmPlace.GUEST_DATA + 0x20, 1);
  assertEquals(svm.exitOf(svm.run(100)), "78");
  assertEquals(svm.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 7));
  begin();
  svm.orControl64(InterceptWord.MISC2, Misc2.MWAIT_CONDITIONAL);
  assertEquals(svm.enter(program), "8c");
  assertEquals(svm.control64(Control.NRIP), BigInt(SvmPlace.GUEST_CODE + 6));
  begin();
  svm.orControl64(InterceptWord.MISC2, Misc2.MWAIT_CONDITIONAL);
  // A store in between: nothing would wait.
  assertEquals(svm.enter(`${MONITOR} 88 08 ${MWAIT} 90 f4`), "78");
});

Deno.test("VMX: a guest that waits is active when it exits, and with ECX 1 and IF 0 does not wait", () => {
  const lab = new VmxLab("sapphire-rapids", { monitor: true });
  const { bench } = lab;
  const begin = (text: string, rcx: bigint): Stop => {
    lab.start();
    bench.write(At.GUEST, hex(text));
    lab.prepare({ [Vmcs.PIN_CONTROLS]: 0x16 | Pin.EXTERNAL_INTERRUPT });
    bench.write(Place.CODE, [...hex("0f 01 c2"), 0xf4]);
    bench.state.set(S.rip, BigInt(Place.CODE));
    bench.state.setRegister(0, BigInt(At.DATA));
    bench.state.setRegister(1, 0n);
    bench.state.setRegister(2, 0n);
    if (rcx !== 0n) bench.write(At.GUEST + 3, hex("b1 01 0f 01 c9 90 f4"));
    return bench.run(100).stop;
  };
  assertEquals(begin(`${MONITOR} ${MWAIT} 90 f4`, 0n), Stop.HALT);
  assertEquals(bench.state.get32(S.nonRoot), 1);
  bench.processor.setInterruptLine(true);
  assertEquals(bench.run(100).stop, Stop.HALT);
  bench.processor.setInterruptLine(false);
  bench.processor.wake();
  assertEquals(lab.read(Vmcs.EXIT_REASON), 1n);
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), 0n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 6));
  assertEquals(begin(`${MONITOR} ${MWAIT} 90 f4`, 1n), Stop.HALT);
  // The HLT at its end has exited.
  bench.processor.wake();
  assertEquals(lab.read(Vmcs.EXIT_REASON), 12n);
});
