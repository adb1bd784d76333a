import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import {
  ArgumentError,
  ExitReason,
  irqLineHook,
  type Plugin,
  PluginError,
  type RunResult,
  type VmExit,
} from "../../core/mod.ts";
import { type ExitStep, type GuestScript, scriptedVm } from "../../core/testing/mod.ts";
import { COM, serial, SerialInput, type SerialOptions } from "./mod.ts";

const out = (port: number, value: number): ExitStep => (exit: VmExit) =>
  exit.setIo(port, 1, true, value);
const inb = (port: number): ExitStep => (exit: VmExit) => exit.setIo(port, 1, false, 0);

/** A guest that prints a text. */
function printer(text: string, base = 0x3f8): GuestScript {
  return function* () {
    for (const byte of new TextEncoder().encode(text)) yield out(base, byte);
  };
}

/** A function that gathers output as text. */
function gather(): ((bytes: Uint8Array) => void) & { text: string; pieces: number } {
  const sink = Object.assign((bytes: Uint8Array): void => {
    sink.text += new TextDecoder().decode(bytes);
    sink.pieces++;
  }, { text: "", pieces: 0 });
  return sink;
}

/** A plugin that writes down what lines do. */
function watcher(log: string[]): Plugin {
  return {
    name: "watcher",
    version: "1.0.0",
    setup: (ctx) => {
      ctx.on(irqLineHook, (line, level) => void log.push(`${line} ${level ? "up" : "down"}`));
    },
  };
}

const settle = () => new Promise<void>((resolve) => setTimeout(resolve));

Deno.test("what the guest prints is there when the run has ended", () => {
  const output = gather();
  using machine = scriptedVm({ plugins: [serial({ output })], guest: printer("hello\n") });
  machine.vm.runSync();
  assertEquals([output.text, output.pieces], ["hello\n", 1]);
});

Deno.test("a long run shows its output while it goes on", async () => {
  const output = gather();
  let before = "";
  const guest: GuestScript = function* () {
    yield* printer("begin\n")(machine.vcpu);
    for (let i = 0; i < 200_000; i++) yield out(0x80, 0);
    before = output.text;
    yield* printer("end\n")(machine.vcpu);
  };
  using machine = scriptedVm({ plugins: [serial({ output })], guest });
  await machine.vm.run();
  assertEquals([before, output.text], ["begin\n", "begin\nend\n"]);
});

Deno.test("without an output, characters go nowhere", () => {
  using machine = scriptedVm({ plugins: [serial()], guest: printer("hello") });
  assertEquals(machine.vm.runSync().reason, "halted");
});

Deno.test("several ports, each with its own line", () => {
  const log: string[] = [];
  const outputs = [gather(), gather()];
  using machine = scriptedVm({
    plugins: [
      serial({ output: outputs[0] as ReturnType<typeof gather> }),
      serial({ ...COM.COM2, output: outputs[1] as ReturnType<typeof gather> }),
      serial({ ...COM.COM3 }),
      serial({ ...COM.COM4 }),
      watcher(log),
    ],
  });
  const { pio } = machine.vm;
  for (const [base, character] of [[0x3f8, 0x31], [0x2f8, 0x32], [0x3e8, 0x33], [0x2e8, 0x34]]) {
    pio.write(base as number, 1, character as number);
    pio.write(base as number + 4, 1, 0x08);
    pio.write(base as number + 1, 1, 0x02);
    pio.write(base as number + 1, 1, 0x00);
  }
  machine.vm.runSync();
  assertEquals(outputs.map(({ text }) => text), ["1", "2"]);
  assertEquals(log, ["4 up", "4 down", "3 up", "3 down", "4 up", "4 down", "3 up", "3 down"]);
});

Deno.test("a wide access is one to each of the registers", () => {
  using machine = scriptedVm({ plugins: [serial()] });
  const { pio } = machine.vm;
  pio.write(0x3fb, 1, 0x83);
  pio.write(0x3f8, 2, 0x0301);
  assertEquals([pio.read(0x3f8, 1), pio.read(0x3f9, 1), pio.read(0x3f8, 2)], [1, 3, 0x0301]);
  assertEquals(pio.read(0x3fc, 4), 0x00b0_6000);
});

Deno.test("a guest that waits for input gets it, and has halted for good once it is closed", async () => {
  const input = new SerialInput();
  const output = gather();
  const echo: GuestScript = function* (vcpu) {
    const cpu = machine.vendor.cpu(vcpu);
    for (;;) {
      yield inb(0x3fd);
      if ((vcpu.exit.lo & 1) !== 0) {
        yield inb(0x3f8);
        yield out(0x3f8, vcpu.exit.lo & 0xff);
      } else {
        cpu.interruptFlag = true;
        yield (exit) => void (exit.reason = ExitReason.HLT);
      }
    }
  };
  // Interrupts without a controller: the line wakes the vCPU by an NMI.
  const waker: Plugin = {
    name: "waker",
    version: "1.0.0",
    setup: (ctx) => ctx.on(irqLineHook, (_, up) => up && ctx.vm.vcpus[0]?.events.queueNmi()),
  };
  using machine = scriptedVm({ plugins: [serial({ input, output }), waker], guest: echo });
  const { vm } = machine;
  vm.pio.write(0x3fc, 1, 0x08);
  vm.pio.write(0x3f9, 1, 0x01);
  let result: RunResult | undefined;
  const run = vm.run().then((end) => void (result = end));
  await settle();
  assertEquals([vm.wakeSources, result], [["serial input"], undefined]);
  input.push("one ");
  await settle();
  input.push("two");
  for (let i = 0; i < 10 && output.text !== "one two"; i++) await settle();
  assertEquals([output.text, result], ["one two", undefined]);
  input.close();
  await run;
  assertEquals([result?.reason, vm.wakeSources], ["halted", []]);
});

Deno.test("a guest that waits below the trigger level is woken by the time-out", async () => {
  const input = new SerialInput();
  const seen: number[] = [];
  const guest: GuestScript = function* (vcpu) {
    const cpu = machine.vendor.cpu(vcpu);
    for (const [port, value] of [[0x3fa, 0xc1], [0x3fc, 0x0b], [0x3f9, 0x01]]) {
      yield out(port as number, value as number);
    }
    cpu.interruptFlag = true;
    yield (exit) => void (exit.reason = ExitReason.HLT);
    yield inb(0x3fa);
    seen.push(vcpu.exit.lo);
  };
  const waker: Plugin = {
    name: "waker",
    version: "1.0.0",
    setup: (ctx) => ctx.on(irqLineHook, (_, up) => up && ctx.vm.vcpus[0]?.events.queueNmi()),
  };
  using machine = scriptedVm({ plugins: [serial({ input }), waker], guest });
  const run = machine.vm.run();
  await settle();
  input.push("x");
  const { ticks } = await run;
  assertEquals(seen, [0xcc]);
  // Four characters of 7 bits (the word length after power-up is 5) at 9600 baud.
  assertEquals(ticks >= 4 * 7 * 1e9 / 9600, true);
});

Deno.test("input comes from a stream, too", async () => {
  const input = ReadableStream.from([new Uint8Array([0x61, 0x62]), new Uint8Array([0x63])]);
  using machine = scriptedVm({ plugins: [serial({ input })] });
  const { pio } = machine.vm;
  pio.write(0x3fa, 1, 0x01);
  const seen: number[] = [];
  for (let i = 0; i < 6; i++) {
    await settle();
    while ((pio.read(0x3fd, 1) & 1) !== 0) seen.push(pio.read(0x3f8, 1));
  }
  assertEquals([seen, machine.vm.wakeSources], [[0x61, 0x62, 0x63], []]);
});

Deno.test("input that was closed before is no reason to wait", () => {
  const input = new SerialInput();
  input.push("x");
  input.close();
  using machine = scriptedVm({ plugins: [serial({ input })] });
  assertEquals([machine.vm.wakeSources, machine.vm.pio.read(0x3f8, 1)], [[], 0x78]);
});

Deno.test("timed by the clock, a line takes its time", () => {
  const output = gather();
  const guest: GuestScript = function* (vcpu) {
    for (const [port, value] of [[0x3fb, 0x83], [0x3f8, 1], [0x3f9, 0], [0x3fb, 0x03]]) {
      yield out(port as number, value as number);
    }
    yield out(0x3f8, 0x41);
    for (;;) {
      yield inb(0x3fd);
      if ((vcpu.exit.lo & 0x40) !== 0) return;
    }
  };
  using machine = scriptedVm({ plugins: [serial({ timing: "baud", output })], guest });
  const { ticks } = machine.vm.runSync();
  // Ten bits at 115200 baud, five exits of 1000 ticks before it, and at most two behind.
  const least = 1e10 / 115_200 + 5 * 1000;
  assertEquals([ticks > least, ticks < least + 3000, output.text], [true, true, "A"]);
});

Deno.test("a failing output stops the run with an error that names the port", () => {
  const output = (): void => {
    throw new Error("disk full");
  };
  const guest: GuestScript = function* () {
    for (let i = 0; i < 4096; i++) yield out(0x3f8, 0x41);
    yield 1000;
  };
  using machine = scriptedVm({ plugins: [serial({ output })], guest });
  const result = machine.vm.runSync();
  assertEquals([result.reason, result.instructions], ["error", 4095]);
  const error = result.reason === "error" ? result.error : undefined;
  assertInstanceOf(error, PluginError);
  assertEquals(error.message, 'plugin "serial" failed in write of "serial" on vCPU 0: disk full');
});

Deno.test("a writer or a stream that fails ends the run", async () => {
  const busy: GuestScript = function* () {
    yield out(0x3f8, 0x41);
    for (;;) yield out(0x80, 0);
  };
  const cases: SerialOptions[] = [
    { output: { write: () => Promise.reject(new Error("it broke")) } },
    {
      output: () => {
        throw new Error("it broke");
      },
    },
    { input: new ReadableStream({ pull: () => Promise.reject(new Error("it broke")) }) },
  ];
  for (const options of cases) {
    using machine = scriptedVm({ plugins: [serial(options)], guest: busy });
    const result = await machine.vm.run();
    assertEquals(result.reason, "error");
    const error = result.reason === "error" ? result.error : undefined;
    assertEquals(
      error?.message,
      'plugin "serial" failed in timer "serial connection": it broke',
    );
  }
});

Deno.test("a writer that fails ends a run in which everybody waits", async () => {
  const input = new SerialInput();
  let reject: ((error: Error) => void) | undefined;
  const output = {
    write: () => new Promise<void>((_, no) => void (reject = no)),
  };
  const guest: GuestScript = function* (vcpu) {
    yield out(0x3f8, 0x41);
    machine.vendor.cpu(vcpu).interruptFlag = true;
    yield (exit) => void (exit.reason = ExitReason.HLT);
  };
  using machine = scriptedVm({ plugins: [serial({ input, output })], guest });
  let result: RunResult | undefined;
  const run = machine.vm.run().then((end) => void (result = end));
  await settle();
  assertEquals(result, undefined);
  reject?.(new Error("it broke"));
  await run;
  assertEquals(result?.reason, "error");
});

Deno.test("a writer that fails when the port is gone is the program's to hear of", async () => {
  let reject: ((error: Error) => void) | undefined;
  const output = {
    write: () => new Promise<void>((_, no) => void (reject = no)),
  };
  const heard: unknown[] = [];
  const hear = (event: PromiseRejectionEvent): void => {
    event.preventDefault();
    heard.push((event.reason as Error).message);
  };
  globalThis.addEventListener("unhandledrejection", hear);
  try {
    const machine = scriptedVm({ plugins: [serial({ output })], guest: printer("x") });
    machine.vm.runSync();
    machine.vm.close();
    reject?.(new Error("too late"));
    await settle();
  } finally {
    globalThis.removeEventListener("unhandledrejection", hear);
  }
  assertEquals(heard, ["too late"]);
});

Deno.test("what is typed after a port has left waits for the next one", () => {
  const input = new SerialInput();
  using machine = scriptedVm({ plugins: [serial({ input })] });
  const { vm } = machine;
  vm.unload("serial");
  assertEquals(vm.wakeSources, []);
  input.push("xy");
  vm.load(serial({ input }));
  assertEquals([vm.pio.read(0x3f8, 1), vm.pio.read(0x3f8, 1), vm.wakeSources], [
    0x78,
    0x79,
    ["serial input"],
  ]);
});

Deno.test("swapped, the port goes on where it was; unloaded, it lets go of its line", async () => {
  const log: string[] = [];
  const outputs = [gather(), gather()] as const;
  const input = ReadableStream.from([new Uint8Array([1, 2, 3])]);
  const make = (output: (bytes: Uint8Array) => void) => serial({ input, output });
  using machine = scriptedVm({ plugins: [make(outputs[0]), watcher(log)] });
  const { vm } = machine;
  await settle();
  vm.pio.write(0x3fc, 1, 0x08);
  vm.pio.write(0x3f9, 1, 0x01);
  vm.pio.write(0x3f8, 1, 0x61);
  vm.pio.write(0x3ff, 1, 0x77);
  vm.swap("serial", make(outputs[1]));
  vm.pio.write(0x3f8, 1, 0x62);
  assertEquals([vm.pio.read(0x3ff, 1), log], [0x77, ["4 up"]]);
  assertEquals([1, 2, 3].map(() => vm.pio.read(0x3f8, 1)), [1, 2, 3], "input went along");
  assertEquals(log.splice(0), ["4 up", "4 down"]);
  vm.pio.write(0x3f9, 1, 0x02);
  const failing: Plugin = {
    name: "serial",
    version: "1.0.0",
    setup: (ctx) => {
      make(outputs[1]).setup(ctx);
      throw new Error("not today");
    },
  };
  assertThrows(() => vm.swap("serial", failing), PluginError, "not today");
  assertEquals([vm.pio.read(0x3fa, 1), log.splice(0)], [0x02, ["4 up", "4 down"]]);
  vm.pio.write(0x3f8, 1, 0x63);
  vm.unload("serial");
  assertEquals([log, vm.pio.read(0x3fd, 1)], [["4 up", "4 down"], 0xff]);
  assertEquals(outputs.map(({ text }) => text), ["a", "bc"]);
});

Deno.test("a reset puts the port back", () => {
  const log: string[] = [];
  using machine = scriptedVm({ plugins: [serial(), watcher(log)] });
  const { vm } = machine;
  vm.pio.write(0x3fc, 1, 0x08);
  vm.pio.write(0x3f9, 1, 0x02);
  vm.reset();
  assertEquals([vm.pio.read(0x3f9, 1), log], [0, ["4 up", "4 down"]]);
});

Deno.test("one plugin object serves several VMs", () => {
  const output = gather();
  const plugin = serial({ output });
  for (const text of ["one", "two"]) {
    using machine = scriptedVm({ plugins: [plugin], guest: printer(text) });
    machine.vm.runSync();
  }
  assertEquals(output.text, "onetwo");
});

Deno.test("options out of range are refused", () => {
  const cases: [SerialOptions, string][] = [
    [{ base: -1 }, "serial: base -1 is not a port from 0 to 65528"],
    [{ base: 0xfff9 }, "base 65529"],
    [{ base: 0.5 }, "base 0.5"],
    [{ irq: 24, name: "tty" }, "tty: irq 24 is not an integer from 0 to 23"],
    [{ irq: -1 }, "irq -1"],
  ];
  for (const [options, message] of cases) {
    assertThrows(() => serial(options), ArgumentError, message);
  }
  for (const options of [{ base: 0, irq: 23 }, { base: 0xfff8, irq: 0 }]) {
    assertEquals(serial(options).name, "serial");
  }
});

Deno.test("two ports at one place are refused, naming both", () => {
  assertThrows(
    () => scriptedVm({ plugins: [serial(), serial({ name: "again" })] }),
    Error,
    '"again"',
  );
});
