/**
 * The wait-for-SIPI activity state: of all events a guest in it minds start-up IPIs alone, and those exit
 * (SDM vol. 3, 26.2, 26.5.1, 27.7.2).
 */
import { assertEquals } from "@std/assert";
import {
  Activity,
  ExitControl,
  Pin,
  Primary,
  Rflags,
  S,
  Stop,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { code } from "./code.ts";
import { At, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;
const { processor, state } = bench;
const standard = standardFields();
const EVERYTHING = Pin.EXTERNAL_INTERRUPT | Pin.NMI | Pin.VIRTUAL_NMIS | Pin.PREEMPTION_TIMER;

/** Enters a guest that waits. */
function wait(fields: Fields = {}): void {
  lab.start();
  bench.write(At.GUEST, [0x90, 0xf4]);
  lab.prepare({ [Vmcs.GUEST_ACTIVITY]: Activity.WAIT_FOR_SIPI, ...fields });
  bench.write(Place.CODE, [...code("0f 01 c2"), 0xf4]);
  state.set(S.rip, BigInt(Place.CODE));
  assertEquals(bench.run(1000).stop, Stop.HALT);
  assertEquals(state.get32(S.nonRoot), 1);
  assertEquals(state.rip, BigInt(At.GUEST));
}

/** The exit that there is now. */
function exit(): [reason: bigint, qualification: bigint] {
  assertEquals(bench.run(1000).stop, Stop.HALT);
  assertEquals(state.rip, BigInt(At.EXIT + 1));
  processor.wake();
  return [lab.read(Vmcs.EXIT_REASON), lab.read(Vmcs.EXIT_QUALIFICATION)];
}

Deno.test("a start-up IPI exits with its vector, and the guest has not begun", () => {
  for (const vector of [0, 0x10, 0xff]) {
    wait();
    assertEquals(processor.startup(vector), true);
    assertEquals(exit(), [4n, BigInt(vector)]);
    assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
    assertEquals(lab.read(Vmcs.GUEST_CS_SELECTOR), BigInt(standard[Vmcs.GUEST_CS_SELECTOR]!));
    assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), BigInt(Activity.WAIT_FOR_SIPI));
  }
});

Deno.test("it is lost on a guest that does not wait, and on a host", () => {
  lab.start();
  assertEquals(processor.startup(1), false);
  bench.write(At.GUEST, code("eb fe"));
  lab.prepare();
  assertEquals(lab.enter(true, 100).result, `stop ${Stop.BUDGET}`);
  assertEquals(processor.startup(1), false);
  assertEquals(bench.run(10).stop, Stop.BUDGET);
});

Deno.test("interrupts, NMIs, INIT and the preemption timer wait with it", () => {
  const all: Fields = {
    [Vmcs.PIN_CONTROLS]: BigInt(standard[Vmcs.PIN_CONTROLS]!) | BigInt(EVERYTHING),
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
      BigInt(Primary.INTERRUPT_WINDOW | Primary.NMI_WINDOW),
    [Vmcs.EXIT_CONTROLS]: BigInt(standard[Vmcs.EXIT_CONTROLS]!) | BigInt(ExitControl.SAVE_TIMER),
    [Vmcs.GUEST_RFLAGS]: Rflags.IF | 2,
    [Vmcs.PREEMPTION_TIMER]: 1,
  };
  wait(all);
  processor.raiseNmi();
  assertEquals(processor.takesNmis, false);
  assertEquals(bench.run(1000).stop, Stop.HALT);
  assertEquals(state.get32(S.nonRoot), 1);
  wait(all);
  processor.setInterruptLine(true);
  processor.raiseInit();
  processor.setTsc(0x10_0000);
  assertEquals([processor.takesInterrupts, processor.takesInit], [false, false]);
  assertEquals(bench.run(1000).stop, Stop.HALT);
  assertEquals(state.get32(S.nonRoot), 1);
  processor.startup(7);
  assertEquals(exit(), [4n, 7n]);
  // The timer went on, and stopped at 0 without an exit.
  assertEquals(lab.read(Vmcs.PREEMPTION_TIMER), 0n);
  state.set32(S.events, 0);
});
