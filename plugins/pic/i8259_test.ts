import { assert, assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, UnimplementedError } from "../../core/mod.ts";
import { I8259 } from "./i8259.ts";

/** OCW2 commands by their names in the data sheet; the level goes into bits 2:0. */
const EOI = 0x20;
const SPECIFIC_EOI = 0x60;
const ROTATE_EOI = 0xa0;
const ROTATE_SPECIFIC_EOI = 0xe0;
const ROTATE_AUTO_SET = 0x80;
const ROTATE_AUTO_CLEAR = 0x00;
const SET_PRIORITY = 0xc0;
const NO_OPERATION = 0x40;

interface Setup {
  icw1?: number;
  icw3?: number;
  icw4?: number;
  imr?: number;
  master?: boolean;
}

/** A controller that went through its initialization sequence, and the log of its INT pin. */
function chip(setup: Setup = {}): { pic: I8259; log: boolean[] } {
  const { icw1 = 0x11, icw3 = 0, icw4 = 0x01, imr = 0, master = true } = setup;
  const log: boolean[] = [];
  const pic = new I8259(master, (level) => void log.push(level));
  pic.write(0, icw1);
  pic.write(1, 0x40);
  if ((icw1 & 2) === 0) pic.write(1, icw3);
  if ((icw1 & 1) !== 0) pic.write(1, icw4);
  pic.write(1, imr);
  return { pic, log };
}

/** An INTA sequence; the input that was acknowledged. */
function acknowledge(pic: I8259): number {
  const level = pic.beginAcknowledge();
  pic.endAcknowledge(level);
  return level;
}

/** Raises inputs, one after the other. */
function raise(pic: I8259, ...levels: number[]): void {
  for (const level of levels) pic.setLine(level, true);
}

/** Acknowledges and ends interrupts until there are none; the inputs in the order of service. */
function serveAll(pic: I8259): number[] {
  const order: number[] = [];
  while (pic.output) {
    const level = acknowledge(pic);
    order.push(level);
    pic.setLine(level, false);
    pic.write(0, SPECIFIC_EOI | level);
  }
  return order;
}

Deno.test("the initialization sequence takes as many words as ICW1 says", () => {
  const cases: [icw1: number, words: number][] = [
    [0x10, 2], // ICW2, ICW3
    [0x11, 3], // ICW2, ICW3, ICW4
    [0x12, 1], // ICW2
    [0x13, 2], // ICW2, ICW4
    [0x19, 3], // LTIM does not count
  ];
  for (const [icw1, words] of cases) {
    const pic = new I8259(true, () => {});
    pic.write(1, 0x5a);
    assertEquals(pic.imr, 0x5a);
    pic.write(0, icw1);
    for (let i = 0; i < words; i++) pic.write(1, 0xf1);
    assertEquals(pic.imr, 0, `ICW1 ${icw1.toString(16)}: the words went elsewhere`);
    pic.write(1, 0xa5);
    assertEquals(pic.read(1), 0xa5, `ICW1 ${icw1.toString(16)}: OCW1`);
    assertEquals(pic.vector(3), 0xf3);
    assertEquals(pic.cascaded, (icw1 & 2) === 0);
  }
});

Deno.test("ICW1 resets what the data sheet lists", () => {
  const { pic } = chip({ icw4: 0x03 });
  raise(pic, 3);
  pic.write(0, ROTATE_AUTO_SET);
  pic.write(0, 0x68 | 0x03); // special mask mode, read ISR
  assertEquals(acknowledge(pic), 3);
  raise(pic, 5);
  pic.write(1, 0xf0);

  pic.write(0, 0x11);
  assertEquals(pic.identity, 7, "the slave mode address");
  for (const word of [0x40, 0x00, 0x01]) pic.write(1, word);
  assertEquals([pic.imr, pic.isr], [0, 0]);
  assertEquals(pic.irr, 0, "the edge sense circuit is reset: high inputs do not ask");
  raise(pic, 0, 7);
  assertEquals(pic.read(0), 0x81, "a read gives the IRR");
  assertEquals(acknowledge(pic), 0, "IR7 has the lowest priority");
  assertEquals(pic.isr, 1, "EOI is not automatic");
  pic.write(1, 0x01);
  assertEquals(pic.output, false, "special mask mode is off");
});

Deno.test("there is no interrupt before the initialization sequence is over", () => {
  const log: boolean[] = [];
  const pic = new I8259(true, (level) => void log.push(level));
  pic.elcr = 0xff;
  raise(pic, 4);
  log.length = 0;
  pic.write(0, 0x11);
  assertEquals(pic.output, false);
  pic.write(1, 0x40);
  raise(pic, 5);
  pic.write(1, 0x00);
  assertEquals(pic.output, false);
  pic.write(1, 0x01);
  assertEquals([pic.output, log], [true, [false, true]]);
});

Deno.test("vectors are bits 7:3 of ICW2 and the input", () => {
  for (const base of [0x00, 0x08, 0x70, 0xf8, 0x47]) {
    const pic = new I8259(true, () => {});
    for (const word of [base, 0, 1]) {
      if (word === base) pic.write(0, 0x11);
      pic.write(1, word);
    }
    for (let level = 0; level < 8; level++) assertEquals(pic.vector(level), base & 0xf8 | level);
  }
});

Deno.test("IR0 has the highest priority, and only higher ones interrupt what is in service", () => {
  for (let first = 0; first < 8; first++) {
    for (let second = 0; second < 8; second++) {
      const { pic } = chip();
      raise(pic, first);
      assertEquals(acknowledge(pic), first);
      pic.setLine(first, false);
      raise(pic, second);
      assertEquals(pic.output, second < first, `IR${second} while IR${first} is in service`);
      pic.write(0, EOI);
      assertEquals(pic.output, true);
      assertEquals(acknowledge(pic), second);
    }
  }
  const { pic } = chip();
  raise(pic, 6, 1, 4, 0, 7);
  assertEquals(serveAll(pic), [0, 1, 4, 6, 7]);
});

Deno.test("masked inputs ask without being heard", () => {
  const { pic, log } = chip({ imr: 0x12 });
  raise(pic, 1, 4);
  assertEquals([pic.irr, pic.output, log], [0x12, false, []]);
  pic.write(1, 0x02);
  assertEquals([pic.output, log], [true, [true]]);
  pic.write(1, 0x12);
  assertEquals([pic.output, log], [false, [true, false]]);
});

Deno.test("OCW2: the eight commands", () => {
  // IR2 and IR5 in service. After the command: what is in service, and who has the lowest priority.
  const cases: [name: string, command: number, isr: number, lowest: number][] = [
    ["non-specific EOI", EOI, 0x20, 7],
    ["specific EOI", SPECIFIC_EOI | 5, 0x04, 7],
    ["specific EOI of what is not in service", SPECIFIC_EOI | 1, 0x24, 7],
    ["rotate on non-specific EOI", ROTATE_EOI, 0x20, 2],
    ["rotate in automatic EOI mode, set", ROTATE_AUTO_SET, 0x24, 7],
    ["rotate in automatic EOI mode, clear", ROTATE_AUTO_CLEAR, 0x24, 7],
    ["rotate on specific EOI", ROTATE_SPECIFIC_EOI | 5, 0x04, 5],
    ["set priority", SET_PRIORITY | 3, 0x24, 3],
    ["no operation", NO_OPERATION | 3, 0x24, 7],
  ];
  for (const [name, command, isr, lowest] of cases) {
    const { pic } = chip();
    for (const level of [5, 2]) {
      raise(pic, level);
      assertEquals(acknowledge(pic), level);
      pic.setLine(level, false);
    }
    pic.write(0, command);
    assertEquals(pic.isr, isr, name);
    pic.write(0, SPECIFIC_EOI | 2);
    pic.write(0, SPECIFIC_EOI | 5);
    raise(pic, 0, 1, 2, 3, 4, 5, 6, 7);
    const order = Array.from({ length: 8 }, (_, i) => (lowest + 1 + i) & 7);
    assertEquals(serveAll(pic), order, name);
  }
});

Deno.test("a non-specific EOI with nothing in service does nothing", () => {
  const { pic } = chip();
  for (const command of [EOI, ROTATE_EOI]) pic.write(0, command);
  raise(pic, 0, 7);
  assertEquals(serveAll(pic), [0, 7]);
});

Deno.test("non-specific EOI ends the highest priority by the rotated order", () => {
  const { pic } = chip();
  pic.write(0, SET_PRIORITY | 4);
  raise(pic, 3);
  acknowledge(pic);
  raise(pic, 6);
  assertEquals(acknowledge(pic), 6, "IR6 is above IR3 now");
  pic.write(0, EOI);
  assertEquals(pic.isr, 1 << 3);
});

Deno.test("automatic EOI ends with the last INTA, and rotates if asked to", () => {
  const { pic } = chip({ icw4: 0x03 });
  raise(pic, 2);
  const level = pic.beginAcknowledge();
  assertEquals([level, pic.isr], [2, 4]);
  pic.endAcknowledge(level);
  assertEquals(pic.isr, 0);
  raise(pic, 1);
  assertEquals(pic.output, true);
  acknowledge(pic);
  for (const line of [1, 2]) pic.setLine(line, false);

  pic.write(0, ROTATE_AUTO_SET);
  raise(pic, 2, 3);
  assertEquals([acknowledge(pic), acknowledge(pic)], [2, 3]);
  for (const line of [2, 3]) pic.setLine(line, false);
  raise(pic, 3, 4);
  assertEquals(acknowledge(pic), 4, "IR3 went to the end");
  pic.write(0, ROTATE_AUTO_CLEAR);
  assertEquals(acknowledge(pic), 3);
  for (const line of [3, 4]) pic.setLine(line, false);
  raise(pic, 4, 5);
  assertEquals(acknowledge(pic), 5, "the order stays that of the last rotation: IR4 is the lowest");
});

Deno.test("edge-triggered: one request for each rise, while the input stays high", () => {
  const { pic, log } = chip();
  raise(pic, 4);
  assertEquals(acknowledge(pic), 4);
  pic.write(0, EOI);
  assertEquals([pic.irr, pic.output], [0, false], "a high input alone does not ask again");
  raise(pic, 4);
  assertEquals(pic.irr, 0);
  pic.setLine(4, false);
  raise(pic, 4);
  assertEquals([pic.irr, pic.output], [0x10, true]);
  log.length = 0;
  pic.setLine(4, false);
  assertEquals([pic.irr, pic.output, log], [0, false, [false]]);
});

Deno.test("edge-triggered: a rise during service asks after the EOI", () => {
  const { pic } = chip();
  raise(pic, 4);
  acknowledge(pic);
  pic.setLine(4, false);
  raise(pic, 4);
  assertEquals([pic.irr, pic.output], [0x10, false]);
  pic.write(0, EOI);
  assertEquals(pic.output, true);
});

Deno.test("level-triggered: asks as long as the input is high, by LTIM or by the board", () => {
  for (const [icw1, elcr] of [[0x19, 0], [0x11, 0x10]] as const) {
    const { pic } = chip({ icw1 });
    pic.elcr = elcr;
    raise(pic, 4);
    assertEquals(acknowledge(pic), 4);
    assertEquals([pic.irr, pic.output], [0x10, false], "in service, it does not interrupt itself");
    pic.write(0, EOI);
    assertEquals(pic.output, true);
    pic.setLine(4, false);
    assertEquals([pic.irr, pic.output], [0, false]);
  }
});

Deno.test("the board can make single inputs level-triggered at any time", () => {
  const { pic } = chip();
  raise(pic, 3, 4);
  for (const level of [3, 4]) {
    assertEquals(acknowledge(pic), level);
    pic.write(0, EOI);
  }
  pic.elcr = 0x08;
  assertEquals([pic.elcr, pic.irr, pic.output], [0x08, 0x08, true]);
  pic.elcr = 0;
  assertEquals([pic.irr, pic.output], [0, false]);
});

Deno.test("a request that went away is answered as IR7, and nothing is in service", () => {
  const { pic } = chip();
  raise(pic, 2);
  pic.setLine(2, false);
  assertEquals(acknowledge(pic), 7);
  assertEquals([pic.isr, pic.irr], [0, 0]);

  raise(pic, 7);
  assertEquals(acknowledge(pic), 7);
  assertEquals(pic.isr, 0x80, "a real one is in service: that is how a handler tells them apart");
});

Deno.test("OCW3 selects what the even port reads", () => {
  const { pic } = chip();
  raise(pic, 3, 5);
  acknowledge(pic);
  assertEquals(pic.read(0), 0x20, "the IRR after initialization");
  pic.write(0, 0x0b);
  assertEquals([pic.read(0), pic.read(0)], [0x08, 0x08]);
  pic.write(0, 0x08);
  assertEquals(pic.read(0), 0x08, "with RR clear the selection stays");
  pic.write(0, 0x0a);
  assertEquals(pic.read(0), 0x20);
});

Deno.test("a poll acknowledges, once, on either port", () => {
  for (const port of [0, 1]) {
    const { pic } = chip({ imr: 0x02 });
    raise(pic, 1, 6);
    pic.write(0, 0x0c);
    assertEquals(pic.read(port), 0x86);
    assertEquals([pic.isr, pic.irr, pic.output], [0x40, 0x02, false]);
    assertEquals([pic.read(0), pic.read(1)], [0x02, 0x02], "the next reads are ordinary ones");
    pic.write(0, 0x0c);
    assertEquals(pic.read(port), 0, "nothing there: bit 7 clear");
    assertEquals(pic.isr, 0x40);
  }
});

Deno.test("a poll finds IR0 as it finds the others", () => {
  for (let level = 0; level < 8; level++) {
    const { pic } = chip();
    raise(pic, level);
    pic.write(0, 0x0c);
    assertEquals([pic.read(0), pic.isr], [0x80 | level, 1 << level]);
  }
});

Deno.test("a poll beats a register read, and OCW3 without P takes it back", () => {
  const { pic } = chip({ icw4: 0x03 });
  raise(pic, 3);
  pic.write(0, 0x0f);
  assertEquals(pic.read(0), 0x83);
  assertEquals(pic.isr, 0, "automatic EOI works with polls, too");
  pic.setLine(3, false);
  raise(pic, 3);
  pic.write(0, 0x0c);
  pic.write(0, 0x0a);
  assertEquals(pic.read(0), 0x08);
});

Deno.test("special mask mode: a masked level in service blocks nothing", () => {
  const { pic } = chip();
  raise(pic, 2);
  acknowledge(pic);
  raise(pic, 6);
  assertEquals(pic.output, false);
  pic.write(1, 0x04);
  assertEquals(pic.output, false, "masking alone does not help");
  pic.write(0, 0x68);
  assertEquals(pic.output, true);
  pic.write(0, 0x28);
  assertEquals(pic.output, true, "without ESMM the SMM bit means nothing");
  assertEquals(acknowledge(pic), 6);
  pic.write(0, EOI);
  assertEquals(pic.isr, 0x04, "a non-specific EOI passes over the masked level");
  pic.write(0, 0x48);
  pic.write(0, EOI);
  assertEquals(pic.isr, 0, "after the mode was left it does not");
});

Deno.test("special mask mode: a level that is not masked blocks as always", () => {
  const { pic } = chip();
  raise(pic, 2);
  acknowledge(pic);
  pic.write(0, 0x68);
  pic.write(1, 0x10);
  raise(pic, 3);
  assertEquals(pic.output, false);
  raise(pic, 1);
  assertEquals(acknowledge(pic), 1);
});

Deno.test("special fully nested mode: a slave's level interrupts itself, others do not", () => {
  const nested: Setup = { icw3: 0x04, icw4: 0x11 };
  for (
    const [setup, level, expected] of [
      [nested, 2, true],
      [{ ...nested, icw4: 0x01 }, 2, false],
      [{ ...nested, icw3: 0x08 }, 2, false],
      [{ ...nested, master: false }, 2, false],
      [{ icw1: 0x13, icw4: 0x11 }, 2, false],
      [nested, 3, false],
      [nested, 1, true],
    ] as const
  ) {
    const { pic } = chip(setup);
    raise(pic, 2);
    acknowledge(pic);
    pic.setLine(2, false);
    raise(pic, level);
    assertEquals(pic.output, expected, `${JSON.stringify(setup)}, IR${level}`);
  }
});

Deno.test("special fully nested mode with nothing in service and nothing asking is silent", () => {
  const { pic } = chip({ icw3: 0xff, icw4: 0x11 });
  pic.write(0, SET_PRIORITY | 1);
  assertEquals(pic.output, false);
});

Deno.test("MCS-80/85 mode is refused by name when it would matter", () => {
  for (const [setup, who] of [[{ icw1: 0x10 }, "master"], [{ icw4: 0, master: false }, "slave"]]) {
    const { pic } = chip(setup as Setup);
    raise(pic, 1);
    assert(pic.output);
    assertThrows(() => pic.beginAcknowledge(), UnimplementedError, `8259 ${who} was acknowledged`);
  }
});

Deno.test("the INT pin is reported when it changes, and only then", () => {
  const { pic, log } = chip();
  raise(pic, 5, 3);
  acknowledge(pic);
  pic.write(1, 0x00);
  pic.write(0, EOI);
  acknowledge(pic);
  pic.write(0, EOI);
  assertEquals(log, [true, false, true, false]);
});

Deno.test("saved and loaded, a controller goes on where it was", () => {
  // In the midst of the initialization sequence, and in service with everything set.
  const begun = new I8259(true, () => {});
  begun.write(0, 0x11);
  begun.write(1, 0x40);
  const resumed = new I8259(true, () => {});
  resumed.load(begun.save());
  for (const word of [0x04, 0x01, 0x7f]) resumed.write(1, word);
  assertEquals([resumed.imr, resumed.hasSlave(2), resumed.vector(1)], [0x7f, true, 0x41]);

  const { pic } = chip({ icw1: 0x11, icw3: 0x80, icw4: 0x13, imr: 0x01 });
  pic.elcr = 0x20;
  pic.write(0, ROTATE_AUTO_SET);
  pic.write(0, SET_PRIORITY | 4);
  raise(pic, 5, 6, 1);
  assertEquals(pic.beginAcknowledge(), 5);
  pic.write(1, 0x21);
  pic.write(0, 0x6f);
  const log: boolean[] = [];
  const copy = new I8259(true, (level) => void log.push(level));
  copy.load(pic.save());
  assertEquals(log, []);
  assertEquals(copy.save(), pic.save());
  assertEquals(structuredClone(pic.save()), pic.save(), "it is plain data");
  for (const one of [pic, copy]) {
    assertEquals(one.read(0), 0x86, "the poll that was asked for");
    assertEquals(one.read(0), 0x20, "and what reads were to give: the ISR");
    one.endAcknowledge(5);
    assertEquals([one.isr, one.irr], [0, 0x22]);
    one.elcr = 0;
    assertEquals(one.irr, 0x02);
    assertEquals(acknowledge(one), 1);
  }
  assertThrows(() => copy.load({ ...pic.save(), expect: 9 }), ArgumentError, "expects 9");
});
