import { assertEquals } from "@std/assert";
import { Fifo, FIFO_DEPTH } from "./fifo.ts";

Deno.test("characters leave in the order in which they came, all the way round", () => {
  const fifo = new Fifo();
  let [next, expected] = [0, 0];
  for (let round = 0; round < 40; round++) {
    const room = FIFO_DEPTH - fifo.count;
    for (let i = 0; i < room - round % 3; i++) fifo.push(next++ & 0xff);
    const taken = 1 + (round * 7) % fifo.count;
    for (let i = 0; i < taken; i++) {
      assertEquals(fifo.top, expected & 0xff);
      assertEquals(fifo.shift(), expected++ & 0xff);
    }
    assertEquals(fifo.count, next - expected);
  }
});

Deno.test("an empty FIFO gives 0", () => {
  const fifo = new Fifo();
  assertEquals([fifo.shift(), fifo.top, fifo.count, fifo.hasErrors], [0, 0, 0, false]);
  fifo.clearTopErrors();
  fifo.push(7);
  fifo.clear();
  assertEquals([fifo.shift(), fifo.count], [0, 0]);
});

Deno.test("error bits belong to their character", () => {
  const fifo = new Fifo();
  for (const character of [0x41, 0x1800, 0x42]) fifo.push(character);
  fifo.clearTopErrors();
  assertEquals(fifo.hasErrors, true, "the second one has them");
  fifo.shift();
  assertEquals([fifo.top, fifo.hasErrors], [0x1800, true]);
  fifo.clearTopErrors();
  assertEquals([fifo.top, fifo.hasErrors], [0, false]);
  fifo.replaceLast(0x443);
  assertEquals([fifo.save(), fifo.hasErrors], [[0, 0x443], true]);
  fifo.shift();
  fifo.shift();
  fifo.push(0xff);
  assertEquals([fifo.top, fifo.hasErrors], [0xff, false], "neither eight ones nor what has left");
});

Deno.test("saved and loaded, it holds the same", () => {
  const fifo = new Fifo();
  for (let i = 0; i < FIFO_DEPTH; i++) fifo.push(i);
  for (let i = 0; i < 9; i++) fifo.shift();
  for (let i = 0; i < 5; i++) fifo.push(0x100 + i);
  const copy = new Fifo();
  copy.push(99);
  copy.load(fifo.save());
  assertEquals(copy.save(), [9, 10, 11, 12, 13, 14, 15, 0x100, 0x101, 0x102, 0x103, 0x104]);
});
