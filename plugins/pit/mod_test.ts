/**
 * The timer on its ports: the line, port 61h, read-back, and time.
 */

import { assertEquals } from "@std/assert";
import { irqLineHook, type Plugin, type Vm } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { pit, PIT_FREQUENCY, type PitOptions } from "./mod.ts";

function board(options: PitOptions = {}) {
  const edges: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => {
        edges.push(`${ctx.vm.clock.current.now()}: ${line} ${level ? "up" : "down"}`);
      });
    },
  };
  const machine = scriptedVm({ plugins: [watcher, pit(options)] });
  const { vm } = machine;
  return {
    vm,
    edges,
    out: (port: number, value: number) => vm.pio.write(port, 1, value),
    in: (port: number) => vm.pio.read(port, 1),
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

/** Lets time pass while nothing runs. */
function pass(vm: Vm, ticks: number): void {
  const { clock, timers } = vm;
  const end = clock.current.now() + ticks;
  while (timers.next <= end) {
    clock.current.set(Math.max(timers.next, clock.current.now()));
    timers.fireNext(timers.next);
  }
  clock.current.set(end);
}

/** First tick of VM time at which so many cycles are complete. */
const at = (cycles: number): number => Math.ceil(cycles * 1e9 / PIT_FREQUENCY);

Deno.test("counter 0 drives line 0: high, low for a cycle in each period", () => {
  using b = board();
  b.out(0x43, 0x34);
  b.out(0x40, 100);
  b.out(0x40, 0);
  pass(b.vm, at(202));
  assertEquals(b.edges, [
    "0: 0 up",
    `${at(100)}: 0 down`,
    `${at(101)}: 0 up`,
    `${at(200)}: 0 down`,
    `${at(201)}: 0 up`,
  ]);
});

Deno.test("an edge is not lost where time goes on by more than the line is low", () => {
  using b = board();
  b.out(0x43, 0x34);
  b.out(0x40, 100);
  b.out(0x40, 0);
  const { clock, timers } = b.vm;
  clock.current.set(at(150));
  assertEquals(timers.fireNext(at(150)), true);
  // Here the program looks at the chip before its timer is served.
  clock.current.set(at(250));
  b.out(0x43, 0xb6);
  clock.current.set(at(260));
  assertEquals(timers.fireNext(at(260)), false);
  assertEquals(b.edges, [
    "0: 0 up",
    `${at(150)}: 0 down`,
    `${at(150)}: 0 up`,
    `${at(250)}: 0 down`,
    `${at(250)}: 0 up`,
  ]);
});

Deno.test("mode 0: one interrupt, when the count is over", () => {
  using b = board();
  b.out(0x43, 0x30);
  b.out(0x40, 0xe8);
  b.out(0x40, 0x03);
  pass(b.vm, 10_000_000);
  assertEquals(b.edges, [`${at(1001)}: 0 up`]);
  b.out(0x43, 0x30);
  assertEquals(b.edges.length, 2);
});

Deno.test("the read-back command latches several counters", () => {
  using b = board();
  for (const [port, control] of [[0x40, 0x34], [0x42, 0xb6]] as const) {
    b.out(0x43, control);
    b.out(port, 0x00);
    b.out(port, 0x10);
  }
  b.out(0x61, 1);
  pass(b.vm, at(11));
  b.out(0x43, 0xca);
  pass(b.vm, 1_000_000);
  // Status and count of 0 and 2.
  assertEquals([b.in(0x40), b.in(0x40), b.in(0x40)], [0xb4, 0xf6, 0x0f]);
  assertEquals([b.in(0x42) & 0x3f, b.in(0x42), b.in(0x42)], [0x36, 0xec, 0x0f]);
  assertEquals(b.in(0x43), 0xff);
});

Deno.test("port 61h: GATE and OUT of counter 2, the refresh toggle, bits that are kept", () => {
  using b = board();
  b.out(0x61, 0xff);
  assertEquals(b.in(0x61) & 0xcf, 0x0f);
  b.out(0x61, 0x00);
  b.out(0x43, 0xb0);
  b.out(0x42, 50);
  b.out(0x42, 0);
  pass(b.vm, at(100));
  assertEquals(b.in(0x61) & 0x21, 0);
  b.out(0x61, 1);
  pass(b.vm, at(49));
  assertEquals(b.in(0x61) & 0x20, 0);
  pass(b.vm, at(3));
  assertEquals(b.in(0x61) & 0x20, 0x20);
  let toggles = 0;
  for (let k = 0, last = b.in(0x61) & 0x10; k < 1000; k++) {
    pass(b.vm, 1000);
    const bit = b.in(0x61) & 0x10;
    if (bit !== last) toggles++;
    last = bit;
  }
  // 1 ms of refreshes, 15.085 us apart.
  assertEquals(toggles, 66);
});

Deno.test("ticking from power-up, and after RESET", () => {
  using still = board();
  assertEquals(still.vm.timers.next, Infinity);
  using b = board({ ticking: true });
  pass(b.vm, 1_000_000_000);
  const ups = (): number => b.edges.filter((edge) => edge.endsWith("up")).length;
  assertEquals(ups(), 1 + 18);
  b.out(0x43, 0x30);
  b.vm.reset();
  pass(b.vm, 1_000_000_000);
  assertEquals(ups(), 2 + 2 * 18);
});

Deno.test("saved state goes over to another plugin of the name", () => {
  using b = board();
  b.out(0x43, 0x34);
  b.out(0x40, 0);
  b.out(0x40, 1);
  pass(b.vm, at(10));
  b.vm.swap("pit", pit());
  b.edges.length = 0;
  pass(b.vm, at(256) - at(10) + 10);
  assertEquals(b.edges.at(-1), `${at(256)}: 0 down`);
});
