/**
 * The clock on its ports: time, interrupts, what firmware leaves in the RAM.
 */

import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, createVmSync, irqLineHook, type Plugin } from "../../core/mod.ts";
import { flatMemory, ScriptedVendor, scriptedVendor, scriptedVm } from "../../core/testing/mod.ts";
import { rtc, type RtcOptions } from "./mod.ts";

const SECOND = 1e9;

function board(options: RtcOptions = {}) {
  const edges: [at: number, level: boolean][] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => {
        assertEquals(line, 8);
        edges.push([ctx.vm.clock.current.now(), level]);
      });
    },
  };
  const machine = scriptedVm({ plugins: [watcher, rtc(options)] });
  const { vm } = machine;
  return {
    vm,
    edges,
    get(register: number): number {
      vm.pio.write(0x70, 1, register);
      return vm.pio.read(0x71, 1);
    },
    set(register: number, value: number): void {
      vm.pio.write(0x70, 1, register);
      vm.pio.write(0x71, 1, value);
    },
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

type Board = ReturnType<typeof board>;
const time = (b: Board): number[] => [9, 8, 7, 4, 2, 0].map((register) => b.get(register));

Deno.test("time goes on with VM time, through the end of a century", () => {
  using b = board({ date: new Date("1999-12-31T23:59:58Z") });
  assertEquals([b.get(0x32), ...time(b), b.get(6)], [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58, 6]);
  b.pass(2 * SECOND - 1);
  assertEquals(time(b), [0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
  b.pass(1);
  assertEquals([b.get(0x32), ...time(b), b.get(6)], [0x20, 0, 1, 1, 0, 0, 0, 7]);
  b.pass(86_400 * 60 * SECOND);
  assertEquals([...time(b), b.get(6)], [0, 3, 1, 0, 0, 0, 4]);
});

Deno.test("UIP is set for the 2228 us before a second", () => {
  using b = board();
  const uip = (): number => b.get(0x0a) & 0x80;
  b.pass(SECOND - 2_240_000);
  assertEquals([uip(), b.get(0)], [0, 0]);
  b.pass(20_000);
  assertEquals([uip(), b.get(0)], [0x80, 0]);
  b.pass(2_220_000);
  assertEquals([uip(), b.get(0)], [0, 1]);
});

Deno.test("SET holds the time while it is written", () => {
  using b = board();
  b.set(0x0b, 0x82);
  b.pass(10 * SECOND);
  assertEquals([b.get(0), b.get(0x0a) & 0x80], [0, 0]);
  for (
    const [register, value] of [[9, 0x30], [8, 0x06], [7, 0x30], [4, 0x23], [2, 0x59], [0, 0x59]]
  ) {
    b.set(register as number, value as number);
  }
  b.set(6, 3);
  b.set(0x0b, 0x02);
  b.pass(SECOND);
  assertEquals([...time(b), b.get(6)], [0x30, 7, 1, 0, 0, 0, 4]);
});

Deno.test("the divider held in reset stops the clock; released, the first second is half", () => {
  using b = board();
  b.set(0x0a, 0x76);
  b.pass(5 * SECOND);
  assertEquals(b.get(0), 0);
  b.set(0x0a, 0x26);
  b.pass(SECOND / 2 - 1000);
  assertEquals(b.get(0), 0);
  b.pass(2000);
  assertEquals(b.get(0), 1);
});

Deno.test("the periodic interrupt has the rates of the data sheet's table", () => {
  const hertz = [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
  for (const [rate, frequency] of hertz.entries()) {
    using b = board();
    b.set(0x0a, 0x20 | rate);
    b.set(0x0b, 0x42);
    let interrupts = 0;
    // A tenth of a second, acknowledged after each step of half a period of the fastest.
    for (let i = 0; i < 2 * 819; i++) {
      b.pass(61_035);
      if ((b.get(0x0c) & 0xc0) === 0xc0) interrupts++;
    }
    assertEquals(interrupts, Math.floor(frequency * 2 * 819 * 61_035 / SECOND), `rate ${rate}`);
    assertEquals(b.edges.length, 2 * interrupts);
  }
});

Deno.test("the line stays high until register C is read", () => {
  using b = board();
  b.set(0x0b, 0x12);
  b.pass(3.5 * SECOND);
  assertEquals(b.edges, [[SECOND, true]]);
  assertEquals(b.get(0x0c) & 0xb0, 0x90);
  assertEquals([b.edges.at(-1), b.get(0x0c) & 0xf0], [[3.5 * SECOND, false], 0]);
  b.pass(SECOND / 2);
  assertEquals(b.edges.at(-1), [4 * SECOND, true]);
});

Deno.test("the alarm comes at its time, once a day, and flags without being enabled", () => {
  using b = board();
  b.set(1, 0x05);
  b.set(3, 0x00);
  b.set(5, 0x06);
  b.pass(6 * 3600 * SECOND + 4 * SECOND);
  assertEquals(b.get(0x0c) & 0x20, 0);
  b.pass(SECOND);
  assertEquals([b.get(0x0c) & 0xa0, b.edges], [0x20, []]);
  b.set(0x0b, 0x22);
  b.pass(2 * 86_400 * SECOND);
  assertEquals(b.edges, [[(86_400 + 6 * 3600 + 5) * SECOND, true]]);
  assertEquals(b.get(0x0c) & 0xa0, 0xa0);
  b.pass(SECOND);
  b.set(1, 0xff);
  b.set(3, 0xff);
  b.set(5, 0xff);
  b.pass(SECOND);
  assertEquals(b.get(0x0c) & 0xa0, 0xa0, "any second");
});

Deno.test("a reset clears the enables; the time goes on", () => {
  using b = board();
  b.set(0x0b, 0x72);
  b.set(0x40, 0x5a);
  b.pass(2 * SECOND);
  b.vm.reset();
  assertEquals([b.edges.at(-1)?.[1], b.get(0x0b), b.get(0x0c), b.get(0), b.get(0x40)], [
    false,
    2,
    0,
    2,
    0x5a,
  ]);
  assertEquals([b.get(0x0d), b.vm.pio.read(0x70, 1)], [0x80, 0xff]);
});

Deno.test("the RAM tells of the memory, and its checksum is right", () => {
  const MIB = 2 ** 20;
  using vm = createVmSync({
    memory: [{ gpa: 0, size: 24 * MIB }, { gpa: 2 ** 32, size: 2 * MIB }],
    plugins: [flatMemory(32 * MIB), scriptedVendor(new ScriptedVendor()), rtc()],
  });
  const get = (register: number): number => {
    vm.pio.write(0x70, 1, register);
    return vm.pio.read(0x71, 1);
  };
  const word = (register: number): number => get(register) | get(register + 1) << 8;
  assertEquals([word(0x15), word(0x17), word(0x30)], [640, 23 * 1024, 23 * 1024]);
  assertEquals([word(0x34), word(0x5b), get(0x5d)], [8 * 16, 32, 0]);
  let sum = 0;
  for (let i = 0x10; i <= 0x2d; i++) sum += get(i);
  assertEquals(get(0x2e) << 8 | get(0x2f), sum);
});

Deno.test("saved state goes over to another plugin of the name", () => {
  using b = board();
  b.set(0x0b, 0x12);
  b.set(0x50, 0x77);
  b.pass(0.5 * SECOND);
  b.vm.swap("rtc", rtc({ date: new Date(0) }));
  b.pass(SECOND);
  assertEquals([b.edges, b.vm.pio.read(0x71, 1)], [[[SECOND, true]], 0x77]);
  assertEquals(time(b), [0x26, 1, 1, 0, 0, 1]);
});

Deno.test("a date that is none is refused", () => {
  assertThrows(() => rtc({ date: new Date(NaN) }), ArgumentError, "rtc: the date");
});
