/**
 * The modes of a counter, cycle by cycle, as the data sheet's timing diagrams have them.
 */

import { assertEquals } from "@std/assert";
import { Channel } from "./channel.ts";

/** OUT for `cycles` cycles from `from` on, a character each. */
function wave(channel: Channel, from: number, cycles: number): string {
  let text = "";
  for (let k = 0; k < cycles; k++) text += channel.output(from + k) ? "H" : "L";
  return text;
}

/** A counter in a mode with a count that was written at cycle 0. */
function programmed(mode: number, count: number, gate = true): Channel {
  const channel = new Channel(gate);
  channel.setControl(0x30 | mode << 1);
  channel.write(count & 0xff, 0);
  channel.write(count >> 8, 0);
  return channel;
}

/** The data sheet's diagrams: OUT from the cycle in which the count is written. */
const WAVES: readonly (readonly [mode: number, count: number, wave: string])[] = [
  [0, 4, "LLLLLHHHHHHH"],
  [0, 1, "LLHHH"],
  [2, 4, "HHHHLHHHLHHHL"],
  [2, 2, "HHLHLHL"],
  [3, 4, "HHHLLHHLLHHLL"],
  [3, 5, "HHHHLLHHHLLHHHLL"],
  [4, 3, "HHHHLHHHHHHH"],
  [6, 4, "HHHHLHHHLHHHL"],
  [7, 4, "HHHLLHHLLHHLL"],
];

Deno.test("OUT of modes 0, 2, 3 and 4", () => {
  for (const [mode, count, expected] of WAVES) {
    const channel = programmed(mode, count);
    assertEquals([mode, count, wave(channel, 0, expected.length)], [mode, count, expected]);
  }
});

Deno.test("modes 1 and 5 wait for GATE to rise, each time", () => {
  for (const [mode, expected] of [[1, "HLLLHHHH"], [5, "HHHHLHHH"]] as const) {
    const channel = programmed(mode, 3, false);
    assertEquals(wave(channel, 0, 8), "HHHHHHHH");
    channel.setGate(true, 10);
    assertEquals([mode, wave(channel, 10, 8)], [mode, expected]);
    channel.setGate(false, 18);
    channel.setGate(true, 20);
    assertEquals([mode, wave(channel, 20, 8)], [mode, expected]);
    // Triggered again while it counts: from the beginning.
    channel.setGate(false, 30);
    channel.setGate(true, 31);
    channel.setGate(false, 32);
    channel.setGate(true, 33);
    assertEquals([mode, wave(channel, 33, 8)], [mode, mode === 1 ? "LLLLHHHH" : expected]);
    if (mode === 1) assertEquals(channel.nextChange(33), 37);
  }
});

Deno.test("nextChange() is where OUT changes", () => {
  for (let mode = 0; mode < 6; mode++) {
    for (const count of [1, 2, 3, 4, 5, 17, 100]) {
      if ((mode === 2 || mode === 3) && count === 1) continue;
      const channel = programmed(mode, count, mode !== 1 && mode !== 5);
      if (mode === 1 || mode === 5) channel.setGate(true, 0);
      let now = 0;
      for (let k = 0; k < 5; k++) {
        const before = channel.output(now);
        const next = channel.nextChange(now);
        const end = next === Infinity ? now + 300 : next;
        for (let t = now; t < end; t++) {
          assertEquals([mode, count, t, channel.output(t)], [mode, count, t, before]);
        }
        if (next === Infinity) break;
        assertEquals([mode, count, next, channel.output(next)], [mode, count, next, !before]);
        now = next;
      }
    }
  }
});

Deno.test("counts as they are read", () => {
  const counts = (mode: number, count: number, n: number): number[] => {
    const channel = programmed(mode, count);
    return Array.from({ length: n }, (_, k) => channel.value(k + 1));
  };
  assertEquals(counts(0, 4, 7), [4, 3, 2, 1, 0, 0xffff, 0xfffe]);
  assertEquals(counts(4, 2, 4), [2, 1, 0, 0xffff]);
  assertEquals(counts(2, 4, 6), [4, 3, 2, 1, 4, 3]);
  assertEquals(counts(3, 4, 6), [4, 2, 4, 2, 4, 2]);
  assertEquals(counts(3, 5, 7), [4, 2, 0, 4, 2, 4, 2]);
  assertEquals(counts(2, 0, 2), [0, 0xffff]);
});

Deno.test("decimal counting", () => {
  const channel = new Channel(true);
  channel.setControl(0x31);
  channel.write(0x00, 0);
  channel.write(0x10, 0);
  assertEquals([channel.value(1), channel.value(2), channel.value(12)], [0x1000, 0x999, 0x989]);
  assertEquals([channel.output(1000), channel.output(1001)], [false, true]);
  assertEquals(channel.value(1002), 0x9999);
  channel.setControl(0x35);
  channel.write(0, 0);
  channel.write(0, 0);
  assertEquals([channel.value(1), channel.value(2), channel.nextChange(1)], [0, 0x9999, 10_000]);
});

Deno.test("bytes: low, high, both; and latches", () => {
  const low = new Channel(true);
  low.setControl(0x14);
  low.write(0x34, 0);
  assertEquals([low.value(1), low.read(1)], [0x34, 0x34]);
  const high = new Channel(true);
  high.setControl(0x24);
  high.write(0x12, 0);
  assertEquals([high.value(1), high.read(1)], [0x1200, 0x12]);
  const both = programmed(2, 0x1234);
  assertEquals([both.read(1), both.read(1)], [0x34, 0x12]);
  both.latchCount(5);
  both.latchCount(9);
  assertEquals([both.read(100), both.read(200)], [0x30, 0x12]);
  assertEquals([both.read(0x35), both.read(0x35)], [0x00, 0x12]);
});

Deno.test("status: OUT, null count, mode; before a latched count", () => {
  const channel = new Channel(true);
  channel.setControl(0x36);
  channel.latchStatus(0);
  assertEquals(channel.read(0), 0xf6);
  channel.write(4, 0);
  channel.write(0, 0);
  channel.latchStatus(0);
  assertEquals(channel.read(0), 0xf6);
  channel.latchStatus(4);
  channel.latchCount(4);
  assertEquals([channel.read(9), channel.read(9), channel.read(9)], [0x36, 2, 0]);
  // A count that waits for the end of the half.
  channel.write(8, 5);
  channel.write(0, 5);
  channel.latchStatus(5);
  assertEquals(channel.read(5) & 0x40, 0x40);
  channel.latchStatus(7);
  assertEquals(channel.read(7) & 0x40, 0);
});

Deno.test("a new count: at once, with the period, with the half", () => {
  const zero = programmed(0, 10);
  zero.write(3, 5);
  assertEquals(zero.output(5), false);
  zero.write(0, 5);
  assertEquals(wave(zero, 5, 6), "LLLLHH");
  const two = programmed(2, 4);
  two.write(3, 6);
  two.write(0, 6);
  // The period that began at 5 ends at 9.
  assertEquals(wave(two, 6, 9), "HHLHHLHHL");
  const three = programmed(3, 8);
  three.write(4, 2);
  three.write(0, 2);
  // The high half, 1 to 4, is finished; the low one is already of the new count.
  assertEquals(wave(three, 1, 12), "HHHHLLHHLLHH");
  assertEquals(programmed(3, 8).nextChange(1), 5);
});

Deno.test("GATE: holds modes 0 and 4, begins the period of modes 2 and 3 anew with OUT high", () => {
  const zero = programmed(0, 4);
  zero.setGate(false, 3);
  assertEquals([zero.value(3), zero.value(50), zero.nextChange(50)], [2, 2, Infinity]);
  zero.setGate(true, 50);
  assertEquals([zero.value(51), wave(zero, 50, 4)], [1, "LLHH"]);
  const three = programmed(3, 4);
  three.setGate(false, 3);
  assertEquals(wave(three, 3, 5), "HHHHH");
  three.setGate(true, 20);
  assertEquals(wave(three, 20, 7), "HHHLLHH");
  // Written while GATE is low, it waits.
  const four = programmed(4, 2, false);
  assertEquals(wave(four, 0, 6), "HHHHHH");
  four.setGate(true, 10);
  assertEquals(wave(four, 10, 5), "HHLHH");
});

Deno.test("saved state", () => {
  const channel = programmed(3, 1000);
  channel.write(0x77, 300);
  channel.latchStatus(300);
  const copy = new Channel(false);
  copy.load(channel.save());
  assertEquals(copy.save(), channel.save());
  copy.write(0, 310);
  assertEquals(copy.read(310), 0xb6 & 0xbf);
  assertEquals(copy.nextChange(400), 501);
});
