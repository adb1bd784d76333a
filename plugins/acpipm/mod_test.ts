import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, irqLineHook, type Plugin, type RunEnd } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { pci } from "../pci/mod.ts";
import { acpiPm, type AcpiPmOptions, PM_TIMER_FREQUENCY, wakeHook } from "./mod.ts";

function board(options: AcpiPmOptions = {}) {
  const edges: [line: number, level: boolean][] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup: (ctx) => void ctx.on(irqLineHook, (line, level) => void edges.push([line, level])),
  };
  const machine = scriptedVm({ plugins: [watcher, acpiPm(options)] });
  const { vm } = machine;
  return {
    vm,
    edges,
    pass(ticks: number): void {
      const { clock, timers } = vm;
      const end = clock.current.now() + ticks;
      while (timers.next <= end) {
        clock.current.set(Math.max(timers.next, clock.current.now()));
        timers.fireNext(timers.next);
      }
      clock.current.set(end);
    },
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

Deno.test("the PM timer counts 3.579545 MHz, and wraps at its width", () => {
  for (const timerBits of [24, 32] as const) {
    using b = board({ timerBits });
    assertEquals(b.vm.pio.read(0x608, 4), 0);
    b.pass(1e9);
    assertEquals(b.vm.pio.read(0x608, 4), PM_TIMER_FREQUENCY);
    assertEquals(b.vm.pio.read(0x60a, 2), PM_TIMER_FREQUENCY >> 16);
    b.pass(9e9);
    assertEquals(b.vm.pio.read(0x608, 4), 10 * PM_TIMER_FREQUENCY % 2 ** timerBits);
    b.vm.pio.write(0x608, 4, 0);
    assertEquals(b.vm.pio.read(0x608, 4), 10 * PM_TIMER_FREQUENCY % 2 ** timerBits);
  }
});

Deno.test("a change of the timer's highest bit sets TMR_STS and, enabled, SCI", () => {
  using b = board({ timerBits: 24 });
  const half = 2 ** 23 / PM_TIMER_FREQUENCY * 1e9;
  b.pass(half + 100);
  assertEquals([b.vm.pio.read(0x600, 2), b.edges], [1, []]);
  b.vm.pio.write(0x600, 2, 0xffff);
  assertEquals(b.vm.pio.read(0x600, 2), 0);
  b.vm.pio.write(0x602, 2, 0x0001);
  b.pass(half);
  assertEquals([b.vm.pio.read(0x600, 2), b.edges], [1, [[9, true]]]);
  b.pass(half);
  b.vm.pio.write(0x600, 1, 0x01);
  assertEquals([b.vm.pio.read(0x600, 2), b.edges], [0, [[9, true], [9, false]]]);
  b.pass(half);
  b.vm.pio.write(0x602, 1, 0);
  assertEquals(b.edges.length, 4);
});

Deno.test("enables keep only what is there; control keeps SCI_EN on", () => {
  using b = board();
  const { pio } = b.vm;
  pio.write(0x602, 2, 0xffff);
  assertEquals(pio.read(0x602, 2), 0x0521);
  pio.write(0x604, 2, 0x0000);
  assertEquals(pio.read(0x604, 2), 0x0001);
  pio.write(0x605, 1, 0x14);
  assertEquals([pio.read(0x604, 2), pio.read(0x605, 1)], [0x1401, 0x14]);
  assertEquals(pio.read(0x600, 4) >>> 16, 0x0521);
  b.vm.reset();
  assertEquals([pio.read(0x602, 2), pio.read(0x604, 2)], [0, 1]);
});

Deno.test("SLP_EN with the type of S5 switches off, with another nothing", () => {
  const end = (control: number): RunEnd["reason"] => {
    using machine = scriptedVm({
      plugins: [acpiPm()],
      guest: function* () {
        yield (exit) => exit.setIo(0x604, 2, true, control);
      },
    });
    return machine.vm.runSync().reason;
  };
  assertEquals(end(0x2001), "powered-off");
  assertEquals([end(0x2801), end(0x0001)], ["halted", "halted"]);
});

Deno.test("S3 lasts until the clock's alarm, if it is enabled; then all is reset, and WAK_STS set", () => {
  const run = (enable: number, alarmAt: number) => {
    let wakes = 0;
    let instructions = 0;
    const clock: Plugin = {
      name: "clock",
      version: "1.0.0",
      setup(ctx) {
        const timer = ctx.createTimer("alarm", () => ctx.vm.setIrqLine(8, true));
        timer.arm(alarmAt);
        ctx.on(wakeHook, (vm) => {
          wakes++;
          instructions = vm.instructions;
        });
      },
    };
    let asked = false;
    using machine = scriptedVm({
      plugins: [acpiPm(), clock],
      cpus: 2,
      guest: function* () {
        // The script begins anew behind a reset.
        if (asked) return;
        asked = true;
        yield (exit) => exit.setIo(0x602, 2, true, enable);
        yield (exit) => exit.setIo(0x604, 2, true, 0x2401);
        yield 1_000_000;
      },
    });
    const { reason } = machine.vm.runSync({ instructions: 2_000_000 });
    const { pio } = machine.vm;
    return { reason, wakes, instructions, status: pio.read(0x600, 2), enable: pio.read(0x602, 2) };
  };
  const slept = run(0x0400, 5_000_000);
  assertEquals(slept, { reason: "halted", wakes: 1, instructions: 2, status: 0x8400, enable: 0 });
  const forever = run(0, 5_000_000);
  assertEquals([forever.reason, forever.wakes, forever.status], ["halted", 0, 0x0400]);
});

Deno.test("options out of range are refused", () => {
  for (const base of [-4, 0x601, 0xfff8]) {
    assertThrows(() => acpiPm({ base }), ArgumentError, `base ${base}`);
  }
});

Deno.test("firmware finds the registers at PCI function 1.3, and moves them until a reset", () => {
  using machine = scriptedVm({ plugins: [pci(), acpiPm()] });
  const { vm } = machine;
  const config = (offset: number): void => vm.pio.write(0xcf8, 4, 0x8000_0b00 | offset);
  config(0);
  assertEquals(vm.pio.read(0xcfc, 4), 0x7113_8086);
  config(0x40);
  assertEquals(vm.pio.read(0xcfc, 4), 0x601);
  vm.pio.write(0xcfc, 4, 0xb03f);
  assertEquals(vm.pio.read(0xcfc, 4), 0xb001);
  assertEquals([vm.pio.read(0x604, 2), vm.pio.read(0xb004, 2)], [0xffff, 1]);
  config(0x80);
  vm.pio.write(0xcfc, 1, 0);
  assertEquals(vm.pio.read(0xb004, 2), 0xffff);
  vm.pio.write(0xcfc, 1, 1);
  assertEquals(vm.pio.read(0xb004, 2), 1);
  vm.resetKeepingMemory();
  assertEquals([vm.pio.read(0x604, 2), vm.pio.read(0xb004, 2)], [1, 0xffff]);
});

Deno.test("a base that the PCI function cannot tell has none", () => {
  using machine = scriptedVm({ plugins: [pci(), acpiPm({ base: 0x604 })] });
  const { pio } = machine.vm;
  pio.write(0xcf8, 4, 0x8000_0b00);
  assertEquals([pio.read(0xcfc, 4), pio.read(0x608, 2)], [0xffff_ffff, 1]);
});
