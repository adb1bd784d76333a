import { assertEquals } from "@std/assert";
import { irqLineHook, type Plugin, type RunEnd } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { port92 } from "../port92/mod.ts";
import { i8042 } from "./mod.ts";

function board() {
  const edges: boolean[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => {
        assertEquals(line, 1);
        edges.push(level);
      });
    },
  };
  const machine = scriptedVm({ plugins: [watcher, i8042(), port92()] });
  const { vm } = machine;
  const status = (): number => vm.pio.read(0x64, 1);
  return {
    vm,
    edges,
    status,
    command: (value: number) => vm.pio.write(0x64, 1, value),
    data: (value: number) => vm.pio.write(0x60, 1, value),
    /** Everything that can be read, until the output buffer is empty. */
    answers(): number[] {
      const bytes: number[] = [];
      while ((status() & 1) !== 0) bytes.push(vm.pio.read(0x60, 1));
      return bytes;
    },
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

Deno.test("the status after power-up: system flag, unlocked, nothing to read", () => {
  using b = board();
  assertEquals([b.status(), b.vm.pio.read(0x60, 1)], [0x14, 0]);
});

Deno.test("the controller's commands", () => {
  using b = board();
  const cases: [command: number, answers: number[]][] = [
    [0x20, [0x65]],
    [0xaa, [0x55]],
    [0xab, [0x00]],
    [0xa9, [0x00]],
    [0xc0, [0x80]],
    [0xad, []],
    [0x20, [0x75]],
    [0xae, []],
    [0xa8, []],
    [0x20, [0x45]],
    [0xa7, []],
    [0x20, [0x65]],
    [0xd0, [0xcf]],
    [0xff, []],
  ];
  for (const [command, answers] of cases) {
    b.command(command);
    assertEquals(b.status() & 0x08, 0x08);
    assertEquals(b.answers(), answers, command.toString(16));
  }
  b.command(0x60);
  b.data(0x24);
  b.command(0x20);
  assertEquals([b.answers(), b.status() & 0x08], [[0x24], 0x08]);
});

Deno.test("the keyboard answers, with translation and without", () => {
  const cases: [sent: number[], raw: number[], translated: number[]][] = [
    [[0xff], [0xfa, 0xaa], [0xfa, 0xaa]],
    [[0xf2], [0xfa, 0xab, 0x83], [0xfa, 0xab, 0x41]],
    [[0xee], [0xee], [0xee]],
    [[0xed, 0x07], [0xfa, 0xfa], [0xfa, 0xfa]],
    [[0xf0, 0x00], [0xfa, 0xfa, 0x02], [0xfa, 0xfa, 0x41]],
    [[0xf0, 0x03, 0xf0, 0x00], [0xfa, 0xfa, 0xfa, 0xfa, 0x03], [0xfa, 0xfa, 0xfa, 0xfa, 0x3f]],
    [[0xf0, 0x04], [0xfa, 0xfe], [0xfa, 0xfe]],
    [[0xf3, 0x20, 0xf4], [0xfa, 0xfa, 0xfa], [0xfa, 0xfa, 0xfa]],
    [[0x12], [0xfe], [0xfe]],
    [[0xee, 0xfe], [0xee, 0xee], [0xee, 0xee]],
    [[0xed, 0xf4], [0xfa, 0xfa], [0xfa, 0xfa]],
  ];
  for (const [sent, raw, translated] of cases) {
    for (const [config, answers] of [[0x25, raw], [0x65, translated]] as const) {
      using b = board();
      b.command(0x60);
      b.data(config);
      for (const byte of sent) b.data(byte);
      assertEquals(b.answers(), answers, `${sent} with configuration ${config}`);
    }
  }
});

Deno.test("line 1 rises for each byte, and not where the interrupt is off", () => {
  using b = board();
  b.data(0xf2);
  assertEquals(b.edges, [true]);
  assertEquals(b.answers().length, 3);
  assertEquals(b.edges, [true, false, true, false, true, false]);
  b.command(0x60);
  b.data(0x64);
  b.data(0xee);
  assertEquals([b.answers(), b.edges.length], [[0xee], 6]);
});

Deno.test("a disabled keyboard keeps its answers; to write to it enables it", () => {
  using b = board();
  b.data(0xee);
  b.command(0xad);
  assertEquals(b.answers(), []);
  b.command(0xae);
  assertEquals(b.answers(), [0xee]);
  b.command(0xad);
  b.data(0xee);
  assertEquals(b.answers(), [0xee]);
});

Deno.test("nobody is at the second port", () => {
  using b = board();
  b.command(0xd4);
  b.data(0xff);
  assertEquals(b.status() & 0x61, 0x61);
  assertEquals([b.answers(), b.status() & 0x61], [[0xfe], 0]);
  b.command(0xd3);
  b.data(0x42);
  assertEquals([b.status() & 0x61, b.answers()], [0x21, [0x42]]);
  b.command(0xd2);
  b.data(0x43);
  assertEquals([b.status() & 0x61, b.answers()], [0x01, [0x43]]);
});

Deno.test("the output port has the A20 gate that port 92h has", () => {
  using b = board();
  b.command(0xd1);
  b.data(0xdd);
  assertEquals(b.vm.pio.read(0x92, 1), 0);
  b.command(0xd0);
  assertEquals(b.answers(), [0xcd]);
  b.vm.pio.write(0x92, 1, 2);
  b.command(0xd0);
  assertEquals(b.answers(), [0xcf]);
});

Deno.test("the reset line: pulsed, or by the output port", () => {
  const end = (...writes: [port: number, value: number][]): RunEnd["reason"] => {
    using machine = scriptedVm({
      plugins: [i8042()],
      guest: function* () {
        for (const [port, value] of writes) yield (exit) => exit.setIo(port, 1, true, value);
      },
    });
    return machine.vm.runSync().reason;
  };
  assertEquals(end([0x64, 0xfe]), "reset");
  assertEquals(end([0x64, 0xd1], [0x60, 0xde]), "reset");
  assertEquals(end([0x64, 0xff], [0x64, 0xd1], [0x60, 0xdf]), "halted");
});

Deno.test("a reset puts it back; saved state goes over", () => {
  using b = board();
  b.data(0xf2);
  b.command(0x60);
  b.vm.swap("i8042", i8042());
  b.data(0x25);
  assertEquals(b.answers(), [0xfa, 0xab, 0x83]);
  b.data(0xf2);
  b.vm.reset();
  assertEquals([b.answers(), b.edges.at(-1)], [[], false]);
  b.command(0x20);
  assertEquals(b.answers(), [0x65]);
});
