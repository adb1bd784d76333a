import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  ArgumentError,
  clockSlot,
  DeterministicClock,
  deterministicClock,
  ExitReason,
  RealTimeClock,
  realTimeClock,
} from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

Deno.test("the deterministic clock counts instructions and exits", () => {
  const clock = new DeterministicClock();
  assertEquals(clock.now(), 0);
  clock.charge(123, 0);
  clock.charge(7, 2);
  assertEquals(clock.now(), 130 + 2 * 1000);
  assertEquals(clock.budget(2200), 70);
  assertEquals([clock.budget(2130), clock.budget(5)], [0, 0]);
  assertEquals(clock.budget(2130.5), 1);
  assertEquals(clock.budget(Infinity), Infinity);
  assertEquals([clock.idle(5000), clock.now()], [0, 5000]);
  assertEquals([clock.idle(10), clock.now()], [0, 5000]);
});

Deno.test("the charge for an exit is an option", () => {
  const run = (exitTicks: number) => {
    using m = scriptedVm({
      plugins: [deterministicClock({ exitTicks })],
      guest: function* () {
        yield 10;
        yield (exit) => void (exit.reason = ExitReason.WBINVD);
      },
    });
    return m.vm.runSync().ticks;
  };
  assertEquals([run(0), run(50)], [12, 112]);
  for (const exitTicks of [-1, 0.5, NaN]) {
    assertThrows(() => deterministicClock({ exitTicks }), ArgumentError, "exitTicks");
  }
});

Deno.test("the real-time clock follows the host's, and never goes back", async () => {
  const clock = new RealTimeClock();
  const start = clock.now();
  assert(start >= 0 && start < 1e9);
  await new Promise((resolve) => setTimeout(resolve, 3));
  const later = clock.now();
  assert(later - start >= 2e6, `${later - start}`);
  clock.set(7e9);
  assert(clock.now() >= 7e9 && clock.now() < 8e9);
  assertEquals(clock.budget(0), 0);
  assert(clock.budget(Infinity) > 0);
  const ms = clock.idle(clock.now() + 5e6);
  assert(ms >= 1 && ms <= 5, `${ms}`);
  assertEquals(clock.idle(0), 0);
  // Less than a millisecond is not what a host's timer is for.
  assertEquals(clock.idle(clock.now() + 9e5), 0);
});

Deno.test("real time is never behind what time-stamp counters have shown", () => {
  const clock = new RealTimeClock();
  const start = performance.now();
  let shown = clock.now();
  // Some may take longer than their ticks; most do not.
  for (let k = 0; k < 50; k++) {
    const entered = clock.now();
    assert(entered >= shown, `${entered} after ${shown}`);
    shown = entered + clock.budget(Infinity);
    clock.charge(clock.budget(Infinity));
  }
  // Nor has it run away: 50 times 100000 ticks take five milliseconds but for one time.
  assert(performance.now() - start >= 4.9);
});

Deno.test("time goes on when the clock is swapped", () => {
  using m = scriptedVm({
    plugins: [deterministicClock({ exitTicks: 0 })],
    guest: function* () {
      for (;;) yield 100;
    },
  });
  m.vm.runSync({ instructions: 12_345 });
  m.vm.swap("clock", deterministicClock({ exitTicks: 5 }));
  assertEquals(m.vm.clock.current.now(), 12_345);
  m.vm.runSync({ instructions: 55 });
  m.vm.unload("clock");
  assertEquals(m.vm.slots.providerOf(clockSlot), undefined);
  assertEquals(m.vm.clock.current.now(), 12_400);
  m.vm.load(realTimeClock());
  assert(m.vm.clock.current.now() >= 12_400);
});
