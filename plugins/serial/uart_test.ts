import { assertEquals } from "@std/assert";
import { type Alarm, BREAK, Uart, type UartBoard, type UartConduct } from "./uart.ts";

const DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7;
const OUT2 = 0x08, LOOP = 0x10;

class TestAlarm implements Alarm {
  deadline = Infinity;
  armed = false;
  arm(deadline: number): void {
    this.deadline = deadline;
    this.armed = true;
  }
  cancel(): void {
    this.armed = false;
  }
}

/** A UART on a bench: what it sends and does to its interrupt line, and a clock to turn. */
class Bench implements UartBoard {
  readonly sent: number[] = [];
  readonly line: number[] = [];
  readonly log: boolean[] = [];
  readonly transmitAlarm: TestAlarm = new TestAlarm();
  readonly receiveAlarm: TestAlarm = new TestAlarm();
  readonly timeoutAlarm: TestAlarm = new TestAlarm();
  readonly uart: Uart;
  time = 0;

  constructor(conduct: Partial<UartConduct> = {}, begin?: Bench) {
    this.uart = new Uart(this, { timed: false, flowControl: false, ...conduct });
    if (begin === undefined) return;
    this.time = begin.time;
    this.line.push(...begin.line);
    this.uart.load(structuredClone(begin.uart.save()));
  }

  now(): number {
    return this.time;
  }
  transmit(character: number): void {
    this.sent.push(character);
  }
  receive(): number {
    return this.line.shift() ?? -1;
  }
  interrupt(level: boolean): void {
    this.log.push(level);
  }

  /** Writes registers, as pairs of number and value. */
  write(...pairs: [register: number, value: number][]): void {
    for (const [register, value] of pairs) this.uart.write(register, value);
  }

  read(register: number): number {
    return this.uart.read(register);
  }

  /** Characters come in on the line. */
  type(...characters: number[]): void {
    this.line.push(...characters);
    this.uart.poll();
  }

  /** Lets time pass, with the alarms that are due. */
  pass(ticks: number): void {
    const end = this.time + ticks;
    const alarms: [TestAlarm, () => void][] = [
      [this.transmitAlarm, () => this.uart.transmitted()],
      [this.receiveAlarm, () => this.uart.received()],
      [this.timeoutAlarm, () => this.uart.timedOut()],
    ];
    for (;;) {
      const due = alarms.filter(([alarm]) => alarm.armed && alarm.deadline <= end)
        .sort((a, b) => a[0].deadline - b[0].deadline)[0];
      if (due === undefined) break;
      const [alarm, ring] = due;
      alarm.armed = false;
      this.time = alarm.deadline;
      ring();
    }
    this.time = end;
  }

  /** What the interrupt line did since the last look. */
  get edges(): string {
    return this.log.splice(0).map((level) => level ? "up" : "down").join(" ");
  }
}

Deno.test("registers after power-up (data sheet, table I)", () => {
  const bench = new Bench();
  const expected = [0x00, 0x00, 0x01, 0x00, 0x00, 0x60, 0xb0, 0x00];
  expected.forEach((value, register) => {
    assertEquals(bench.read(register), value, `register ${register}`);
  });
});

Deno.test("registers keep the bits that exist", () => {
  const cases: [register: number, exist: number][] = [
    [IER, 0x0f],
    [LCR, 0x7f], // bit 7 apart: it changes what 0 and 1 are
    [MCR, 0x1f],
    [SCR, 0xff],
  ];
  for (const [register, exist] of cases) {
    for (const value of [0x00, 0xff & ~(register === LCR ? 0x80 : 0), 0x55, 0x2a]) {
      const bench = new Bench();
      bench.write([register, value]);
      assertEquals(bench.read(register), value & exist, `register ${register}`);
    }
  }
  const bench = new Bench();
  bench.write([LSR, 0xff], [MSR, 0xff]);
  assertEquals([bench.read(LSR), bench.read(MSR)], [0x60, 0xb0], "status registers are read-only");
});

Deno.test("DLAB puts the divisor latch in the place of data and IER", () => {
  const bench = new Bench();
  bench.write([IER, 0x05], [LCR, 0x83], [DATA, 0x34], [IER, 0x12]);
  assertEquals([bench.read(DATA), bench.read(IER), bench.sent], [0x34, 0x12, []]);
  bench.write([LCR, 0x03]);
  assertEquals([bench.read(DATA), bench.read(IER)], [0x00, 0x05]);
  bench.write([LCR, 0x80]);
  assertEquals([bench.read(DATA), bench.read(IER)], [0x34, 0x12]);
});

Deno.test("a character takes its bits times the divisor", () => {
  const cases: [lcr: number, divisor: number, bits: number][] = [
    [0x03, 1, 10], // 8N1
    [0x03, 12, 10],
    [0x07, 1, 11], // 8N2
    [0x1b, 1, 11], // 8E1
    [0x00, 1, 7], // 5N1
    [0x04, 1, 7.5], // 5N1.5
    [0x3e, 1, 11], // 7, stick parity, 2
    [0x03, 0xffff, 10],
    [0x03, 0, 10 * 65536],
  ];
  for (const [lcr, divisor, bits] of cases) {
    const bench = new Bench();
    bench.write([LCR, 0x80], [DATA, divisor & 0xff], [IER, divisor >> 8], [LCR, lcr]);
    // 115200 baud at a divisor of 1.
    const ticks = Math.round(bits * (divisor || 1) * 1e9 / 115_200);
    assertEquals(bench.uart.characterTime, ticks, `LCR ${lcr.toString(16)}h, divisor ${divisor}`);
  }
});

Deno.test("a character that is written has left at once", () => {
  const bench = new Bench();
  for (const character of [0x48, 0x69, 0xff]) {
    bench.write([DATA, character]);
    assertEquals(bench.read(LSR), 0x60);
  }
  bench.write([FCR, 0x01]);
  for (let i = 0; i < 20; i++) bench.write([DATA, i]);
  assertEquals(bench.sent, [0x48, 0x69, 0xff, ...Array.from({ length: 20 }, (_, i) => i)]);
});

Deno.test("interrupts by priority, each gone as table IV says", () => {
  const bench = new Bench();
  bench.write([IER, 0x0f], [MCR, OUT2]);
  assertEquals([bench.edges, bench.read(IIR)], ["up", 0x02], "the transmitter was empty");
  assertEquals([bench.edges, bench.read(IIR)], ["down", 0x01], "reading it took it back");

  // All four at once: characters overrun in loopback, which also moves modem lines.
  bench.write([MCR, LOOP | OUT2], [DATA, 0x41], [DATA, 0x42], [MCR, OUT2]);
  assertEquals(bench.edges, "up");
  assertEquals(bench.read(IIR), 0x06, "receiver line status");
  assertEquals(bench.read(LSR), 0x63, "overrun, data ready");
  assertEquals(bench.read(LSR), 0x61, "the error was read");
  assertEquals(bench.read(IIR), 0x04, "received data");
  assertEquals(bench.read(DATA), 0x42, "the second took the first one's place");
  assertEquals(bench.read(IIR), 0x02, "transmitter empty");
  assertEquals(bench.read(IIR), 0x00, "modem status");
  assertEquals(bench.read(IIR), 0x00, "which reading IIR does not take back");
  assertEquals(bench.edges, "");
  bench.read(MSR);
  assertEquals([bench.read(IIR), bench.edges], [0x01, "down"]);
});

Deno.test("reading IIR takes the transmitter's interrupt back only if it names that", () => {
  const bench = new Bench();
  bench.write([IER, 0x03], [MCR, OUT2]);
  bench.type(0x61);
  assertEquals([bench.read(IIR), bench.read(IIR)], [0x04, 0x04]);
  bench.read(DATA);
  assertEquals([bench.read(IIR), bench.read(IIR)], [0x02, 0x01]);
});

Deno.test("each interrupt needs its bit in IER", () => {
  // Everything there is to interrupt for, then one enable bit after the other.
  for (const [ier, id] of [[0x00, 0x01], [0x01, 0x04], [0x02, 0x02], [0x04, 0x06], [0x08, 0x00]]) {
    const bench = new Bench();
    bench.write([MCR, LOOP], [DATA, 1], [DATA, 2], [MCR, 0x03 | LOOP], [MCR, OUT2]);
    bench.write([IER, ier as number]);
    assertEquals(bench.edges, ier === 0 ? "" : "up");
    assertEquals(bench.read(IIR), id);
    bench.write([IER, 0]);
    assertEquals(bench.uart.level, false);
  }
});

Deno.test("the transmitter's interrupt goes down and up with each character written", () => {
  const bench = new Bench();
  bench.write([MCR, OUT2], [IER, 0x02]);
  assertEquals(bench.edges, "up");
  bench.write([DATA, 0x41]);
  assertEquals(bench.edges, "down up", "an edge-triggered controller must see it");
  bench.read(IIR);
  bench.write([DATA, 0x42]);
  assertEquals(bench.edges, "down up");
});

Deno.test("enabling the transmitter's interrupt raises it, leaving it enabled does not", () => {
  const bench = new Bench();
  bench.write([MCR, OUT2], [IER, 0x02]);
  bench.read(IIR);
  assertEquals(bench.edges, "up down");
  bench.write([IER, 0x02]);
  assertEquals(bench.edges, "");
  bench.write([IER, 0x03]);
  assertEquals(bench.edges, "");
  bench.write([IER, 0x01], [IER, 0x02]);
  assertEquals(bench.edges, "up");
});

Deno.test("OUT2 gates the line, and in loopback mode the pin is off", () => {
  const bench = new Bench();
  bench.write([IER, 0x01]);
  bench.type(0x41);
  assertEquals([bench.uart.level, bench.read(IIR)], [false, 0x04]);
  bench.write([MCR, OUT2]);
  assertEquals(bench.edges, "up");
  bench.write([MCR, OUT2 | LOOP]);
  assertEquals([bench.edges, bench.read(IIR)], ["down", 0x04]);
  bench.write([MCR, 0]);
  assertEquals(bench.edges, "");
});

Deno.test("without FIFOs one character is received at a time, and the others wait outside", () => {
  const bench = new Bench();
  bench.type(0x61, 0x62, 0x63);
  assertEquals([bench.line, bench.read(LSR)], [[0x62, 0x63], 0x61]);
  assertEquals([bench.read(DATA), bench.read(DATA), bench.read(LSR)], [0x61, 0x62, 0x61]);
  assertEquals([bench.read(DATA), bench.read(LSR), bench.read(DATA)], [0x63, 0x60, 0]);
});

Deno.test("with FIFOs sixteen are received, and the others wait outside", () => {
  const bench = new Bench();
  bench.write([FCR, 0x01]);
  const text = Array.from({ length: 20 }, (_, i) => 0x41 + i);
  bench.type(...text);
  assertEquals(bench.line.length, 4);
  assertEquals(text.map(() => bench.read(DATA)), text);
  assertEquals(bench.read(LSR), 0x60);
});

Deno.test("the receiver asks at its trigger level and stops below it", () => {
  for (const [bits, trigger] of [[0x00, 1], [0x40, 4], [0x80, 8], [0xc0, 14]] as const) {
    const bench = new Bench();
    bench.write([MCR, OUT2], [FCR, 0x01 | bits], [IER, 0x01]);
    for (let i = 1; i <= 16; i++) {
      bench.type(i);
      assertEquals(bench.read(IIR), i < trigger ? 0xc1 : 0xc4, `${i} of ${trigger}`);
      assertEquals(bench.uart.level, i >= trigger);
    }
    for (let left = 15; left >= 0; left--) {
      bench.read(DATA);
      assertEquals(bench.uart.level, left >= trigger, `${left} left of ${trigger}`);
    }
  }
});

Deno.test("a FIFO that is neither filled nor read for four character times asks, too", () => {
  const bench = new Bench();
  bench.write([LCR, 0x80], [DATA, 1], [IER, 0], [LCR, 0x03]);
  bench.write([MCR, OUT2], [FCR, 0xc1], [IER, 0x01]);
  const time = bench.uart.characterTime;
  bench.type(0x61, 0x62);
  bench.pass(4 * time - 1);
  assertEquals([bench.read(IIR), bench.edges], [0xc1, ""]);
  bench.type(0x63);
  bench.pass(4 * time - 1);
  assertEquals(bench.read(IIR), 0xc1, "a character that comes in begins the time anew");
  bench.pass(1);
  assertEquals([bench.read(IIR), bench.edges], [0xcc, "up"]);
  bench.type(0x64);
  assertEquals(bench.read(IIR), 0xcc, "only reading ends it");
  assertEquals(bench.read(DATA), 0x61);
  assertEquals([bench.read(IIR), bench.edges], [0xc1, "down"]);
  bench.pass(4 * time);
  assertEquals(bench.read(IIR), 0xcc, "the rest is waited for, too");
  for (let i = 0; i < 3; i++) bench.read(DATA);
  bench.pass(100 * time);
  assertEquals([bench.read(IIR), bench.timeoutAlarm.armed], [0xc1, false]);
});

Deno.test("there is no time-out without FIFOs", () => {
  const bench = new Bench();
  bench.write([IER, 0x01]);
  bench.type(0x61);
  assertEquals(bench.timeoutAlarm.armed, false);
});

Deno.test("FCR: bit 0 tells whether the others count", () => {
  const bench = new Bench();
  assertEquals(bench.read(IIR), 0x01);
  bench.write([FCR, 0xc6]);
  assertEquals(bench.read(IIR), 0x01);
  bench.write([FCR, 0x81], [IER, 0x01]);
  assertEquals(bench.read(IIR), 0xc1);
  bench.type(1, 2, 3, 4, 5, 6, 7);
  assertEquals(bench.read(IIR), 0xc1, "the trigger level is 8");
  bench.write([FCR, 0x41]);
  assertEquals(bench.read(IIR), 0xc4, "now it is 4, and nothing was thrown away");
  bench.write([FCR, 0x43]);
  assertEquals([bench.read(LSR), bench.timeoutAlarm.armed], [0x60, false], "now it was");
});

Deno.test("switching the FIFOs on or off empties them", () => {
  const bench = new Bench();
  bench.type(0x61, 0x62);
  bench.write([FCR, 0x01]);
  assertEquals(bench.read(DATA), 0x62, "what waited outside came in afterwards");
  bench.type(0x63, 0x64);
  bench.write([FCR, 0x00]);
  assertEquals([bench.read(LSR), bench.read(IIR)], [0x60, 0x01]);
});

Deno.test("a break is a zero with errors, which show when it is next", () => {
  const bench = new Bench();
  bench.write([FCR, 0x81], [IER, 0x04], [MCR, OUT2]);
  bench.type(0x41, BREAK, 0x42);
  assertEquals([bench.read(LSR), bench.read(IIR)], [0xe1, 0xc1], "bit 7: somewhere in the FIFO");
  bench.read(DATA);
  assertEquals([bench.read(IIR), bench.edges], [0xc6, "up"]);
  assertEquals(bench.read(LSR), 0xf9, "break, framing error");
  assertEquals([bench.read(LSR), bench.read(IIR), bench.edges], [0x61, 0xc1, "down"]);
  assertEquals([bench.read(DATA), bench.read(DATA)], [0, 0x42]);

  const plain = new Bench();
  plain.type(BREAK);
  assertEquals([plain.read(LSR), plain.read(LSR)], [0x79, 0x61], "without FIFOs bit 7 is 0");
});

Deno.test("errors of a character that was read stay until the line status is", () => {
  const bench = new Bench();
  bench.write([FCR, 0x01]);
  bench.type(BREAK, 0x42);
  bench.read(DATA);
  assertEquals([bench.read(LSR), bench.read(LSR)], [0x79, 0x61]);
});

Deno.test("loopback: what is sent is received, and nothing reaches the line or comes from it", () => {
  const bench = new Bench();
  bench.write([MCR, LOOP]);
  bench.type(0x7a);
  bench.write([DATA, 0x41]);
  assertEquals([bench.sent, bench.line, bench.read(LSR)], [[], [0x7a], 0x61]);
  assertEquals([bench.read(DATA), bench.read(LSR)], [0x41, 0x60]);
  bench.write([MCR, 0]);
  assertEquals([bench.read(DATA), bench.line], [0x7a, []], "what waited comes in");
});

Deno.test("loopback: overruns with FIFOs lose the new character, without them the old one", () => {
  const bench = new Bench();
  bench.write([FCR, 0x01], [MCR, LOOP]);
  for (let i = 0; i < 17; i++) bench.write([DATA, i]);
  assertEquals([bench.read(LSR), bench.read(LSR)], [0x63, 0x61]);
  assertEquals(Array.from({ length: 17 }, () => bench.read(DATA)), [
    ...Array.from({ length: 16 }, (_, i) => i),
    0,
  ]);
});

Deno.test("loopback: the modem's inputs are the UART's outputs", () => {
  const cases: [mcr: number, inputs: number][] = [
    [0x00, 0x00],
    [0x01, 0x20], // DTR: DSR
    [0x02, 0x10], // RTS: CTS
    [0x04, 0x40], // OUT1: RI
    [0x08, 0x80], // OUT2: DCD
    [0x0f, 0xf0],
  ];
  for (const [mcr, inputs] of cases) {
    const bench = new Bench();
    bench.write([MCR, LOOP | mcr]);
    bench.read(MSR);
    assertEquals(bench.read(MSR), inputs, `MCR ${mcr}`);
  }
});

Deno.test("modem status: deltas say what changed since the last read", () => {
  const bench = new Bench();
  bench.write([MCR, LOOP]);
  assertEquals(bench.read(MSR), 0x0b, "CTS, DSR and DCD went away");
  bench.write([MCR, LOOP | 0x06]);
  assertEquals(bench.read(MSR), 0x51, "CTS came; that RI came does not count");
  bench.write([MCR, LOOP | 0x02]);
  assertEquals(bench.read(MSR), 0x14, "RI went");
  bench.write([MCR, LOOP | 0x03], [MCR, LOOP | 0x02]);
  assertEquals(bench.read(MSR), 0x12, "DSR came and went");
  bench.write([MCR, 0]);
  assertEquals([bench.read(MSR), bench.read(MSR)], [0xba, 0xb0]);
});

Deno.test("flow control: characters wait outside while RTS is off", () => {
  const bench = new Bench({ flowControl: true });
  bench.write([FCR, 0x01]);
  bench.type(0x61, 0x62);
  assertEquals(bench.read(LSR), 0x60);
  bench.write([FCR, 0x07], [MCR, 0x01]);
  assertEquals(bench.read(LSR), 0x60, "DTR is not RTS");
  bench.write([MCR, 0x03]);
  assertEquals([bench.read(DATA), bench.read(DATA), bench.line], [0x61, 0x62, []]);
  bench.write([MCR, 0x01]);
  bench.type(0x63);
  assertEquals([bench.read(LSR), bench.line], [0x60, [0x63]]);
});

Deno.test("timed: a character leaves after its time, the next one right behind it", () => {
  const bench = new Bench({ timed: true });
  bench.write([LCR, 0x80], [DATA, 1], [IER, 0], [LCR, 0x03], [MCR, OUT2], [IER, 0x02]);
  const time = bench.uart.characterTime;
  bench.read(IIR);
  bench.log.length = 0;
  bench.write([DATA, 0x41]);
  assertEquals([bench.read(LSR), bench.edges], [0x20, "up"], "it moved to the shift register");
  bench.write([DATA, 0x42]);
  assertEquals([bench.read(LSR), bench.edges], [0x00, "down"]);
  bench.pass(time - 1);
  assertEquals(bench.sent, []);
  bench.pass(1);
  assertEquals([bench.sent, bench.read(LSR), bench.edges], [[0x41], 0x20, "up"]);
  bench.pass(time - 1);
  assertEquals(bench.read(LSR), 0x20);
  bench.pass(1);
  assertEquals([bench.sent, bench.read(LSR), bench.edges], [[0x41, 0x42], 0x60, ""]);
});

Deno.test("timed: what is written without room is lost, or takes the other's place", () => {
  const bench = new Bench({ timed: true });
  for (const character of [1, 2, 3]) bench.write([DATA, character]);
  bench.pass(1e12);
  assertEquals(bench.sent, [1, 3]);

  const fifos = new Bench({ timed: true });
  fifos.write([FCR, 0x01]);
  for (let i = 0; i < 20; i++) fifos.write([DATA, i]);
  fifos.pass(1e12);
  assertEquals(fifos.sent, Array.from({ length: 17 }, (_, i) => i));
});

Deno.test("timed: clearing the transmitter's FIFO leaves the character on its way", () => {
  const bench = new Bench({ timed: true });
  bench.write([FCR, 0x01], [IER, 0x02], [DATA, 1], [DATA, 2], [DATA, 3]);
  bench.read(IIR);
  assertEquals(bench.read(IIR), 0xc1);
  bench.write([FCR, 0x05]);
  assertEquals([bench.read(LSR), bench.read(IIR)], [0x20, 0xc2]);
  bench.pass(1e12);
  assertEquals(bench.sent, [1]);
});

Deno.test("timed: characters come in one after the other, as long as there is room", () => {
  const bench = new Bench({ timed: true });
  bench.write([LCR, 0x80], [DATA, 1], [IER, 0], [LCR, 0x03]);
  const time = bench.uart.characterTime;
  bench.type(0x61, 0x62);
  assertEquals(bench.read(LSR), 0x60);
  bench.pass(time);
  assertEquals([bench.read(LSR), bench.receiveAlarm.armed], [0x61, false], "no room for another");
  assertEquals(bench.read(DATA), 0x61);
  bench.pass(time - 1);
  assertEquals(bench.read(LSR), 0x60);
  bench.pass(1);
  assertEquals([bench.read(DATA), bench.receiveAlarm.armed], [0x62, false]);
});

Deno.test("timed: a zero is a character like any other", () => {
  const bench = new Bench({ timed: true });
  bench.write([FCR, 0x01]);
  bench.type(0, 0, 0x41);
  assertEquals(bench.line.length, 2, "one is on its way");
  bench.write([DATA, 0], [DATA, 0]);
  bench.pass(1e12);
  assertEquals([bench.read(DATA), bench.read(DATA), bench.read(DATA)], [0, 0, 0x41]);
  assertEquals(bench.sent, [0, 0]);
});

Deno.test("timed: a character that comes in during loopback is not heard", () => {
  const bench = new Bench({ timed: true });
  bench.type(0x61, 0x62);
  bench.write([MCR, LOOP]);
  bench.pass(1e12);
  assertEquals([bench.read(LSR), bench.line], [0x60, [0x62]]);
  bench.write([MCR, LOOP], [DATA, 0x7a]);
  bench.pass(1e12);
  assertEquals([bench.sent, bench.read(DATA)], [[], 0x7a]);
});

Deno.test("a reset puts everything to what it was, and receives what waits", () => {
  const bench = new Bench({ timed: true });
  bench.write([LCR, 0x80], [DATA, 1], [IER, 1], [LCR, 0x1f], [SCR, 9], [FCR, 0xc1]);
  bench.write([MCR, OUT2], [IER, 0x0f], [DATA, 1], [DATA, 2]);
  bench.type(0x61, 0x62);
  bench.pass(bench.uart.characterTime * 5);
  assertEquals(bench.uart.level, true);
  bench.log.length = 0;
  bench.line.length = 0;
  bench.uart.reset();
  assertEquals(bench.edges, "down");
  assertEquals(bench.uart.save(), new Bench({ timed: true }).uart.save());

  bench.type(0x63);
  bench.uart.reset();
  bench.pass(1e12);
  bench.type(0x64);
  bench.pass(1e12);
  assertEquals(bench.read(DATA), 0x64, "what was coming in is gone, what comes is heard");

  const immediate = new Bench();
  immediate.write([FCR, 1]);
  for (let i = 0; i < 17; i++) immediate.type(i);
  immediate.uart.reset();
  assertEquals([immediate.read(LSR), immediate.read(DATA)], [0x61, 16]);
});

Deno.test("saved and loaded, a time-out that waits still waits", () => {
  const bench = new Bench();
  bench.write([FCR, 0xc1], [IER, 0x01], [MCR, OUT2]);
  bench.type(0x61);
  bench.pass(1e12);
  const copy = new Bench({}, bench);
  assertEquals([copy.uart.level, copy.read(IIR), copy.timeoutAlarm.armed], [true, 0xcc, false]);
});

Deno.test("saved and loaded, a UART goes on where it was", () => {
  const bench = new Bench({ timed: true });
  bench.write([LCR, 0x80], [DATA, 3], [IER, 0], [LCR, 0x03], [SCR, 0x77], [FCR, 0xc1]);
  bench.write([MCR, OUT2 | 0x03], [IER, 0x0b], [DATA, 1], [DATA, 2], [DATA, 3]);
  bench.type(0x61, BREAK, 0x62);
  bench.pass(bench.uart.characterTime * 1.5);
  const copy = new Bench({ timed: true }, bench);
  assertEquals(copy.uart.save(), bench.uart.save());
  assertEquals([copy.edges, copy.uart.level], ["", bench.uart.level]);
  const sent = bench.sent.length;
  for (const one of [bench, copy]) one.pass(bench.uart.characterTime * 9);
  assertEquals(bench.sent.slice(sent), [2, 3]);
  assertEquals(copy.sent, [2, 3]);
  for (let register = 0; register < 8; register++) {
    assertEquals(copy.read(register), bench.read(register), `register ${register}`);
  }
  assertEquals(copy.uart.save(), bench.uart.save());
});
