import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, irqLineHook, msiHook, type Plugin } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { hpet } from "./mod.ts";

const BASE = 0xfed0_0000;
const CONFIG = 0x10;
const COUNTER = 0xf0;
/** Nanoseconds of a cycle. */
const CYCLE = 10;

function board() {
  const events: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      const at = (): number => ctx.vm.clock.current.now() / CYCLE;
      ctx.on(irqLineHook, (line, level) => {
        events.push(`${at()}: ${line} ${level ? "up" : "down"}`);
      });
      ctx.on(msiHook, (address, data) => {
        events.push(`${at()}: ${address.toString(16)} ${data}`);
        return true;
      });
    },
  };
  const machine = scriptedVm({ plugins: [watcher, hpet()] });
  const { vm } = machine;
  return {
    vm,
    events,
    get: (offset: number) => vm.mmio.read(BASE + offset, 4),
    set: (offset: number, value: number) => vm.mmio.write(BASE + offset, 4, value, 0),
    pass(cycles: number): void {
      const { clock, timers } = vm;
      const end = clock.current.now() + cycles * CYCLE;
      while (timers.next <= end) {
        clock.current.set(Math.max(timers.next, clock.current.now()));
        timers.fireNext(timers.next);
      }
      clock.current.set(end);
    },
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

/** Registers of timer n. */
const timer = (n: number) => ({
  config: 0x100 + 0x20 * n,
  comparator: 0x108 + 0x20 * n,
  route: 0x110 + 0x20 * n,
});
const INTERRUPT = 0x04;
const LINE_20: number = 20 << 9;

Deno.test("capabilities: 10 ns, 64 bits, three timers, no legacy routes", () => {
  using b = board();
  assertEquals([b.get(0), b.get(4)], [0x8086_2201, 10_000_000]);
  for (const n of [0, 1, 2]) {
    assertEquals([b.get(timer(n).config), b.get(timer(n).config + 4)], [0x8030, 0x00f0_0000]);
    assertEquals(b.get(timer(n).comparator), 0xffff_ffff);
  }
  b.set(CONFIG, 3);
  assertEquals(b.get(CONFIG), 1);
  assertEquals([b.vm.mmio.read(BASE + 1, 1), b.vm.mmio.read(BASE + 2, 2)], [0x22, 0x8086]);
});

Deno.test("the counter counts while it is enabled, carries, and reads at once in 64 bits", () => {
  using b = board();
  b.pass(100);
  assertEquals(b.get(COUNTER), 0);
  b.set(COUNTER, 0xffff_fff0);
  b.set(COUNTER + 4, 7);
  b.set(CONFIG, 1);
  b.pass(15);
  assertEquals([b.vm.mmio.read(BASE + COUNTER, 8), b.vm.mmio.high], [0xffff_ffff, 7]);
  b.pass(1);
  assertEquals([b.vm.mmio.read(BASE + COUNTER, 8), b.vm.mmio.high], [0, 8]);
  b.pass(2 ** 32 + 5);
  assertEquals([b.get(COUNTER), b.get(COUNTER + 4)], [5, 9]);
  b.set(CONFIG, 0);
  b.pass(1000);
  assertEquals([b.get(COUNTER), b.get(COUNTER + 4)], [5, 9]);
});

Deno.test("one-shot: an edge at the match, and not again", () => {
  using b = board();
  b.set(timer(1).config, LINE_20 | INTERRUPT);
  b.set(timer(1).comparator, 1000);
  b.set(timer(1).comparator + 4, 0);
  b.set(CONFIG, 1);
  b.pass(5000);
  assertEquals(b.events, ["1000: 20 up", "1000: 20 down"]);
  assertEquals(b.get(0x20), 0);
});

Deno.test("a timer of 32 bits matches again when the counter's half has gone round", () => {
  using b = board();
  b.set(timer(0).config, LINE_20 | INTERRUPT | 0x100);
  b.set(timer(0).comparator, 500);
  b.set(CONFIG, 1);
  b.pass(2 ** 32 + 501);
  assertEquals(b.events.length, 4);
  assertEquals(b.events[2], `${2 ** 32 + 500}: 20 up`);
  assertEquals(b.get(timer(0).comparator + 4), 0);
});

Deno.test("periodic: first by the accumulator, then by the period", () => {
  using b = board();
  b.set(timer(0).config, LINE_20 | INTERRUPT | 0x108 | 0x40);
  b.set(timer(0).comparator, 100);
  b.set(timer(0).comparator, 300);
  b.set(CONFIG, 1);
  b.pass(1000);
  assertEquals(b.events.filter((event) => event.endsWith("up")), [
    "100: 20 up",
    "400: 20 up",
    "700: 20 up",
    "1000: 20 up",
  ]);
  assertEquals(b.get(timer(0).comparator), 1300);
});

Deno.test("level-triggered: the line stays until the status is cleared", () => {
  using b = board();
  b.set(timer(2).config, LINE_20 | INTERRUPT | 0x02);
  b.set(timer(2).comparator, 50);
  b.set(timer(2).comparator + 4, 0);
  b.set(CONFIG, 1);
  b.pass(100);
  assertEquals([b.events, b.get(0x20)], [["50: 20 up"], 4]);
  b.set(0x20, 3);
  assertEquals(b.get(0x20), 4);
  b.set(0x20, 4);
  assertEquals([b.events.at(-1), b.get(0x20)], ["100: 20 down", 0]);
});

Deno.test("as a message; and a route that is not offered leads nowhere", () => {
  using b = board();
  b.set(timer(0).config, INTERRUPT | 0x4000);
  b.set(timer(0).route, 0x41);
  b.set(timer(0).route + 4, 0xfee0_1000);
  b.set(timer(1).config, INTERRUPT | 5 << 9);
  for (const n of [0, 1]) {
    b.set(timer(n).comparator, 10);
    b.set(timer(n).comparator + 4, 0);
  }
  b.set(CONFIG, 1);
  b.pass(20);
  assertEquals(b.events, ["10: fee01000 65"]);
});

Deno.test("a reset stops it; saved state goes over", () => {
  using b = board();
  b.set(timer(0).config, LINE_20 | INTERRUPT);
  b.set(timer(0).comparator, 100);
  b.set(timer(0).comparator + 4, 0);
  b.set(CONFIG, 1);
  b.pass(40);
  b.vm.swap("hpet", hpet());
  b.pass(70);
  assertEquals([b.events[0], b.get(COUNTER)], ["100: 20 up", 110]);
  b.vm.reset();
  b.pass(100);
  assertEquals([b.get(COUNTER), b.get(CONFIG), b.get(timer(0).config)], [0, 0, 0x8030]);
});

Deno.test("a base that is no page is refused", () => {
  assertThrows(() => hpet({ base: 0xfed0_0100 }), ArgumentError, "hpet: base");
});
