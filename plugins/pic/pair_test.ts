import { assertEquals, assertThrows } from "@std/assert";
import { UnimplementedError } from "../../core/mod.ts";
import type { I8259 } from "./i8259.ts";
import { PicPair } from "./pair.ts";

/** A pair with vectors 20h and 28h and nothing masked, and the log of its output. */
function pairOf(): { pair: PicPair; log: boolean[] } {
  const log: boolean[] = [];
  const pair = new PicPair((level) => void log.push(level));
  pair.program([0x20, 0x28], 0);
  return { pair, log };
}

/** Initializes one controller. */
function initialize(chip: I8259, icw1: number, ...words: number[]): void {
  chip.write(0, icw1);
  for (const word of words) chip.write(1, word);
}

Deno.test("every line has the vector of its controller's base", () => {
  for (let line = 0; line < 16; line++) {
    const { pair } = pairOf();
    pair.setLine(line, true);
    assertEquals(pair.output, line !== 2, `line ${line}`);
    if (line === 2) continue;
    assertEquals(pair.acknowledge(), 0x20 + line);
    assertEquals(pair.master.isr, line < 8 ? 1 << line : 1 << 2);
    assertEquals(pair.slave.isr, line < 8 ? 0 : 1 << (line - 8));
  }
});

Deno.test("lines of other controllers are not this pair's", () => {
  const { pair, log } = pairOf();
  for (const line of [2, 16, 23, 24, -1]) pair.setLine(line, true);
  assertEquals(log, []);
});

Deno.test("the slave's lines come between the master's 1 and 3", () => {
  const { pair } = pairOf();
  for (const line of [3, 15, 8, 1, 0, 7, 12]) pair.setLine(line, true);
  const order: number[] = [];
  while (pair.output) {
    const line = pair.acknowledge() - 0x20;
    order.push(line);
    pair.setLine(line, false);
    if (line >= 8) pair.slave.write(0, 0x20);
    pair.master.write(0, 0x20);
  }
  assertEquals(order, [0, 1, 8, 12, 15, 3, 7]);
});

Deno.test("an interrupt of the slave needs an EOI at both", () => {
  const { pair } = pairOf();
  pair.setLine(9, true);
  pair.acknowledge();
  pair.setLine(10, true);
  pair.setLine(8, true);
  assertEquals(pair.output, false, "the master's input 2 is in service");
  pair.master.write(0, 0x20);
  assertEquals(pair.output, true, "the slave passes on what is above its own");
  assertEquals(pair.acknowledge(), 0x28);
  pair.slave.write(0, 0x20);
  pair.master.write(0, 0x20);
  assertEquals(pair.output, false, "line 9 is still in service at the slave");
  pair.slave.write(0, 0x20);
  assertEquals(pair.acknowledge(), 0x2a);
});

Deno.test("special fully nested mode lets the slave interrupt itself", () => {
  const { pair } = pairOf();
  initialize(pair.master, 0x11, 0x20, 0x04, 0x11, 0);
  pair.setLine(9, true);
  assertEquals(pair.acknowledge(), 0x29);
  pair.setLine(10, true);
  assertEquals(pair.output, false);
  pair.setLine(8, true);
  assertEquals(pair.output, true);
  assertEquals(pair.acknowledge(), 0x28);
});

Deno.test("a request that went away is line 7's, or line 15's after the master had passed it on", () => {
  const { pair } = pairOf();
  assertEquals(pair.acknowledge(), 0x27);
  assertEquals([pair.master.isr, pair.slave.isr], [0, 0]);

  pair.setLine(9, true);
  pair.setLine(9, false);
  assertEquals(pair.acknowledge(), 0x27, "the cascade fell with it");

  // Masked at the slave between the master's first INTA and its own.
  const late = pairOf().pair;
  late.setLine(9, true);
  const level = late.master.beginAcknowledge();
  late.setLine(9, false);
  assertEquals([level, late.slave.vector(late.slave.beginAcknowledge())], [2, 0x2f]);
  assertEquals(
    [late.master.isr, late.slave.isr],
    [4, 0],
    "the master needs an EOI, the slave none",
  );
});

Deno.test("automatic EOI at both leaves nothing in service", () => {
  const { pair, log } = pairOf();
  initialize(pair.master, 0x11, 0x20, 0x04, 0x03, 0);
  initialize(pair.slave, 0x11, 0x28, 0x02, 0x03, 0);
  pair.setLine(14, true);
  pair.setLine(11, true);
  assertEquals([pair.acknowledge(), pair.acknowledge()], [0x2b, 0x2e]);
  assertEquals([pair.master.isr, pair.slave.isr, pair.output], [0, 0, false]);
  assertEquals(log, [true, false, true, false]);
});

Deno.test("who answers is decided by what both were told in ICW1 and ICW3", () => {
  const cases: [name: string, master: number[], slave: number[], vector: number][] = [
    ["as on a PC", [0x11, 0x20, 0x04, 1], [0x11, 0x28, 2, 1], 0x29],
    ["the slave with another identity", [0x11, 0x20, 0x04, 1], [0x11, 0x28, 3, 1], 0xff],
    ["the slave told that it is alone", [0x11, 0x20, 0x04, 1], [0x13, 0x28, 1], 0xff],
    ["the master not told of the slave", [0x11, 0x20, 0x00, 1], [0x11, 0x28, 2, 1], 0x22],
    ["the master told that it is alone", [0x13, 0x20, 1], [0x11, 0x28, 2, 1], 0x22],
  ];
  for (const [name, master, slave, vector] of cases) {
    const { pair } = pairOf();
    const [icw1 = 0, ...words] = master;
    initialize(pair.master, icw1, ...words, 0);
    const [slaveIcw1 = 0, ...slaveWords] = slave;
    initialize(pair.slave, slaveIcw1, ...slaveWords, 0);
    pair.setLine(9, true);
    assertEquals(pair.acknowledge(), vector, name);
  }
});

Deno.test("a slave that is said to be where none is leaves the bus floating", () => {
  const { pair } = pairOf();
  initialize(pair.master, 0x11, 0x20, 0x10, 0x01, 0);
  pair.setLine(4, true);
  assertEquals([pair.acknowledge(), pair.master.isr], [0xff, 0x10]);
});

Deno.test("the slave's MCS-80/85 mode is refused, too", () => {
  const { pair } = pairOf();
  initialize(pair.slave, 0x10, 0x28, 0x02, 0);
  pair.setLine(8, true);
  assertThrows(() => pair.acknowledge(), UnimplementedError, "8259 slave");
});

Deno.test("ELCR makes lines level-triggered, but not those of the board itself", () => {
  const { pair } = pairOf();
  pair.writeElcr(0, 0xff);
  pair.writeElcr(1, 0xff);
  assertEquals([pair.readElcr(0), pair.readElcr(1)], [0xf8, 0xde]);
  for (let line = 0; line < 16; line++) {
    if (line === 2) continue;
    const { pair } = pairOf();
    pair.writeElcr(0, 0xff);
    pair.writeElcr(1, 0xff);
    pair.setLine(line, true);
    pair.acknowledge();
    pair.slave.write(0, 0x20);
    pair.master.write(0, 0x20);
    assertEquals(pair.output, ![0, 1, 8, 13].includes(line), `line ${line}`);
  }
});

Deno.test("programming leaves nothing of before but the inputs' levels", () => {
  const { pair, log } = pairOf();
  pair.writeElcr(0, 0x10);
  pair.setLine(4, true);
  pair.acknowledge();
  pair.setLine(1, true);
  pair.program([0x08, 0x70], 0xfffb);
  assertEquals([pair.master.imr, pair.slave.imr, pair.master.isr], [0xfb, 0xff, 0]);
  assertEquals([pair.readElcr(0), pair.output, log], [0, false, [true, false, true, false]]);
  pair.master.write(1, 0);
  assertEquals(pair.output, false, "both inputs rose before");
  pair.setLine(1, false);
  pair.setLine(1, true);
  assertEquals(pair.acknowledge(), 0x09);
});

Deno.test("saved and loaded, the pair goes on where it was", () => {
  const { pair } = pairOf();
  pair.setLine(12, true);
  pair.acknowledge();
  pair.setLine(8, true);
  pair.master.write(0, 0x20);
  const log: boolean[] = [];
  const copy = new PicPair((level) => void log.push(level));
  copy.load(pair.save());
  assertEquals([copy.output, log], [true, []]);
  assertEquals(copy.acknowledge(), 0x28);
  assertEquals([copy.slave.isr, log], [0x11, [false]]);
});
