/**
 * The timer: divisors, one-shot, periodic, TSC deadline, and what changes under way do.
 */

import { assertEquals } from "@std/assert";
import { type Board, board } from "./fixture_test.ts";
import { divisorOf } from "./mod.ts";

const DIVISORS = [[0, 2], [1, 4], [2, 8], [3, 16], [8, 32], [9, 64], [10, 128], [11, 1]] as const;

/** Whether vector 40h is requested; takes it back. */
function fired(b: Board): boolean {
  const { registers } = b.apics[0]!;
  const set = registers.hasVector(0x200, 0x40);
  registers.clearVector(0x200, 0x40);
  return set;
}

Deno.test("divide configuration", () => {
  for (const [configuration, divisor] of DIVISORS) {
    assertEquals(divisorOf(configuration), divisor);
    for (const busCycle of [1, 10]) {
      using b = board({ busCycle });
      const unit = divisor * busCycle;
      b.write(0x320, 0x40);
      b.write(0x3e0, configuration);
      b.write(0x380, 3);
      assertEquals(b.read(0x390), 3);
      b.pass(unit);
      assertEquals(b.read(0x390), 2);
      b.pass(2 * unit - 1);
      assertEquals([b.read(0x390), fired(b)], [1, false]);
      b.pass(1);
      assertEquals([b.read(0x390), fired(b), b.read(0x380)], [0, true, 3]);
    }
  }
});

Deno.test("one-shot fires once, periodic again and again without drifting", () => {
  using b = board();
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x40);
  b.write(0x380, 1000);
  b.pass(1000);
  assertEquals(fired(b), true);
  b.pass(10_000);
  assertEquals([fired(b), b.read(0x390)], [false, 0]);
  b.write(0x320, 0x2_0040);
  b.write(0x380, 1000);
  for (let k = 0; k < 5; k++) {
    b.pass(999);
    assertEquals([fired(b), b.read(0x390)], [false, 1]);
    b.pass(1);
    assertEquals([fired(b), b.read(0x390)], [true, 1000]);
  }
  // Late by 2.5 periods: once, and the phase stays.
  const { clock, timers } = b.vm;
  clock.current.set(clock.current.now() + 2500);
  while (timers.fireNext(clock.current.now()));
  assertEquals([fired(b), b.read(0x390)], [true, 500]);
  b.write(0x380, 0);
  b.pass(5000);
  assertEquals([fired(b), b.read(0x390)], [false, 0]);
});

Deno.test("a mask holds back the interrupt, not the count", () => {
  using b = board();
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x1_0040);
  b.write(0x380, 1000);
  b.pass(400);
  assertEquals(b.read(0x390), 600);
  b.pass(600);
  assertEquals([fired(b), b.read(0x390)], [false, 0]);
  b.write(0x320, 0x40);
  assertEquals(fired(b), false);
});

Deno.test("a period that is too short lasts as long as the shortest", () => {
  using b = board({ shortestPeriod: 5000 });
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x2_0040);
  b.write(0x380, 1000);
  for (let k = 0; k < 3; k++) {
    b.pass(3999);
    assertEquals([fired(b), b.read(0x390)], [false, 1000]);
    b.pass(1000);
    assertEquals([fired(b), b.read(0x390)], [false, 1]);
    b.pass(1);
    assertEquals(fired(b), true);
  }
  // One that is long enough is as it is, and so is one-shot.
  b.write(0x380, 6000);
  b.pass(6000);
  assertEquals(fired(b), true);
  b.write(0x320, 0x40);
  b.write(0x380, 10);
  b.pass(10);
  assertEquals(fired(b), true);
});

Deno.test("the count is never below zero, though the interrupt is late", () => {
  using b = board();
  const { clock } = b.vm;
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x40);
  b.write(0x380, 1000);
  clock.current.set(clock.current.now() + 1700);
  assertEquals(b.read(0x390), 0);
  b.pass(1);
  b.write(0x320, 0x2_0040);
  b.write(0x380, 1000);
  clock.current.set(clock.current.now() + 2700);
  assertEquals(b.read(0x390), 300);
  clock.current.set(clock.current.now() + 300);
  assertEquals(b.read(0x390), 1000);
});

Deno.test("a periodic timer that is masked counts on, and wakes nobody", () => {
  using b = board();
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x3_0040);
  b.write(0x380, 1000);
  assertEquals(b.vm.timers.next, Infinity);
  b.pass(2300);
  assertEquals([b.read(0x390), b.vm.timers.next], [700, Infinity]);
  b.pass(1000);
  b.write(0x320, 0x2_0040);
  assertEquals([fired(b), b.read(0x390)], [false, 700]);
  b.pass(699);
  assertEquals(fired(b), false);
  b.pass(1);
  assertEquals([fired(b), b.read(0x390)], [true, 1000]);
  // Masked by the mode of the whole, and by one-shot.
  b.write(0xf0, 0xff);
  assertEquals(b.vm.timers.next, Infinity);
  b.pass(400);
  assertEquals(b.read(0x390), 600);
  b.write(0x320, 0x1_0040);
  assertEquals(b.vm.timers.next, b.vm.clock.current.now() + 600);
  b.pass(600);
  assertEquals([b.read(0x390), b.vm.timers.next, fired(b)], [0, Infinity, false]);
});

Deno.test("changes under way: divisor, one-shot to periodic, a new count", () => {
  using b = board();
  b.write(0x3e0, 0xb);
  b.write(0x320, 0x40);
  b.write(0x380, 1000);
  b.pass(400);
  b.write(0x3e0, 0x0);
  assertEquals(b.read(0x390), 600);
  b.pass(1199);
  assertEquals(fired(b), false);
  b.write(0x320, 0x2_0040);
  b.pass(1);
  assertEquals([fired(b), b.read(0x390)], [true, 1000]);
  b.pass(100);
  b.write(0x380, 7);
  assertEquals(b.read(0x390), 7);
  b.pass(14);
  assertEquals(fired(b), true);
});

Deno.test("TSC deadline", () => {
  using b = board({ tscDeadline: true });
  const { msrs } = b.cpu(0);
  msrs.set(0x10, 5000n);
  b.write(0x380, 1000);
  // Outside deadline mode writes are ignored.
  assertEquals([b.wrmsr(0x6e0, 6000), b.rdmsr(0x6e0)], [true, 0n]);
  // The change of mode stops the count.
  b.write(0x320, 0x4_0040);
  assertEquals([b.read(0x380), b.read(0x390), b.apics[0]!.timer.running], [0, 0, false]);
  b.write(0x380, 1000);
  assertEquals([b.read(0x380), b.read(0x390)], [0, 0]);
  assertEquals([b.wrmsr(0x6e0, 6000), b.rdmsr(0x6e0)], [true, 6000n]);
  b.pass(999);
  assertEquals(fired(b), false);
  b.pass(1);
  assertEquals([fired(b), b.rdmsr(0x6e0)], [true, 0n]);
  // One that has passed fires at once; 0 disarms; beyond 32 bits.
  b.wrmsr(0x6e0, 4000);
  b.pass(0);
  assertEquals(fired(b), true);
  b.wrmsr(0x6e0, 9000);
  b.wrmsr(0x6e0, 0);
  b.pass(10_000);
  assertEquals(fired(b), false);
  msrs.set(0x10, 0xffff_fff0n);
  b.wrmsr(0x6e0, 0x10, 1);
  b.pass(31);
  assertEquals(fired(b), false);
  b.pass(1);
  assertEquals(fired(b), true);
  // Leaving the mode disarms.
  b.wrmsr(0x6e0, 0x100, 1);
  b.write(0x320, 0x40);
  b.pass(10_000);
  assertEquals([fired(b), b.rdmsr(0x6e0)], [false, 0n]);
});

Deno.test("without the feature there is no deadline MSR", () => {
  using b = board();
  assertEquals([b.rdmsr(0x6e0), b.wrmsr(0x6e0, 1)], [undefined, false]);
});
