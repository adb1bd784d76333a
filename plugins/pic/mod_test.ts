import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import {
  ArgumentError,
  eventRequest,
  ExitReason,
  interruptControllerSlot,
  type Plugin,
  type Vcpu,
  type Vm,
  type VmExit,
} from "../../core/mod.ts";
import {
  type ExitStep,
  type GuestScript,
  type ScriptedCpu,
  type ScriptedVendor,
  scriptedVm,
} from "../../core/testing/mod.ts";
import { type Pic, pic, type PicOptions, picOutputHook, picSlot } from "./mod.ts";

const cpuOf = (vcpu: Vcpu): ScriptedCpu => (vcpu.vm.vendor.current as ScriptedVendor).cpu(vcpu);

const hlt: ExitStep = (exit) => {
  exit.reason = ExitReason.HLT;
};
const out = (port: number, value: number): ExitStep => (exit: VmExit) =>
  exit.setIo(port, 1, true, value);

/** An exit during which the guest's surroundings raise a line. */
const raise = (vcpu: Vcpu, line: number): ExitStep => (exit) => {
  vcpu.vm.setIrqLine(line, true);
  exit.setIo(0x80, 1, true, 0);
};

/** Initializes the pair for vectors 20h and 28h, with the masks given. */
function* initialize(master: number, slave: number): Generator<ExitStep, void, undefined> {
  for (const [port, base, cascade, mask] of [[0x20, 0x20, 4, master], [0xa0, 0x28, 2, slave]]) {
    yield out(port as number, 0x11);
    for (const word of [base, cascade, 1, mask]) yield out(port as number + 1, word as number);
  }
}

/** A plugin that does something to the VM at a time. */
function at(ticks: number, action: (vm: Vm) => void): Plugin {
  return {
    name: `at ${ticks}`,
    version: "1.0.0",
    setup: (ctx) => ctx.createTimer("test", () => action(ctx.vm)).arm(ticks),
  };
}

/** A guest that takes interrupts in HLT, `count` of them, and ends each with EOI commands. */
function listener(count: number): GuestScript {
  return function* (vcpu) {
    const cpu = cpuOf(vcpu);
    yield* initialize(0x00, 0x00);
    for (let i = 0; i < count; i++) {
      cpu.interruptFlag = true;
      yield 1; // one that waits already comes here, and not out of HLT
      while (cpu.delivered.length === i) yield hlt;
      cpu.interruptFlag = false;
      yield out(0xa0, 0x20);
      yield out(0x20, 0x20);
    }
  };
}

const vectors = (vcpu: Vcpu) => cpuOf(vcpu).delivered.map(({ vector }) => vector);

Deno.test("lines interrupt the first vCPU with the vectors that the guest chose", () => {
  using machine = scriptedVm({
    cpus: 2,
    guest: listener(3),
    plugins: [
      pic(),
      at(100_000, (vm) => vm.setIrqLine(4, true)),
      at(200_000, (vm) => {
        vm.setIrqLine(9, true);
        vm.setIrqLine(3, true);
      }),
    ],
  });
  const { vm } = machine;
  assertEquals(vm.runSync().reason, "halted");
  const [first, second] = vm.vcpus as [Vcpu, Vcpu];
  assertEquals(second.hasRequest(eventRequest), false);
  assertEquals([vectors(first), vectors(second)], [[0x24, 0x29, 0x23], []]);
  const controller = vm.interruptController.current;
  vm.setIrqLine(5, true);
  assertEquals([controller.hasInterrupt(first), controller.hasInterrupt(second)], [true, false]);
});

Deno.test("a line waits until the guest takes interrupts", () => {
  const guest: GuestScript = function* (vcpu) {
    yield* initialize(0xef, 0xff);
    yield raise(vcpu, 4);
    yield 50;
    cpuOf(vcpu).interruptFlag = true;
    yield 50;
  };
  using machine = scriptedVm({ guest, plugins: [pic()] });
  machine.vm.runSync();
  // Eleven OUTs, then fifty plain instructions with interrupts off.
  assertEquals(machine.vendor.cpu(machine.vcpu).delivered, [
    { event: "interrupt", vector: 0x24, at: 61 },
  ]);
});

Deno.test("the controllers start as firmware leaves them", () => {
  const read = (vm: Vm, ...ports: number[]) => ports.map((port) => vm.pio.read(port, 1));
  using plain = scriptedVm({ plugins: [pic()] });
  assertEquals(read(plain.vm, 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1), [0, 0xfb, 0, 0xff, 0, 0]);
  plain.vm.pio.write(0x21, 1, 0);
  plain.vm.pio.write(0xa1, 1, 0);
  plain.vm.setIrqLine(11, true);
  assertEquals(plain.vm.interruptController.current.acknowledge(plain.vcpu), 0x73);

  using chosen = scriptedVm({ plugins: [pic({ base: [0xa0, 0xb8], mask: 0xf0ef })] });
  assertEquals(read(chosen.vm, 0x21, 0xa1), [0xef, 0xf0]);
  chosen.vm.setIrqLine(4, true);
  assertEquals(chosen.vm.interruptController.current.acknowledge(chosen.vcpu), 0xa4);
});

Deno.test("a line that is high when the VM is made is heard", () => {
  const guest: GuestScript = function* (vcpu) {
    cpuOf(vcpu).interruptFlag = true;
    yield 10;
  };
  const early: Plugin = {
    name: "early",
    version: "1.0.0",
    requires: ["pic"],
    setup: (ctx) => ctx.vm.setIrqLine(4, true),
  };
  using machine = scriptedVm({ guest, plugins: [pic({ mask: 0 }), early] });
  machine.vm.runSync();
  assertEquals(vectors(machine.vcpu), [0x0c]);
});

Deno.test("a reset programs the controllers again and keeps the inputs", () => {
  using machine = scriptedVm({ plugins: [pic()] });
  const { vm, vcpu } = machine;
  for (const [port, value] of [[0x20, 0x11], [0x21, 0x40], [0x21, 4], [0x21, 1], [0x21, 0]]) {
    vm.pio.write(port as number, 1, value as number);
  }
  vm.pio.write(0x4d0, 1, 0xff);
  vm.setIrqLine(5, true);
  assertEquals(vm.interruptController.current.hasInterrupt(vcpu), true);
  vm.reset();
  assertEquals(vm.interruptController.current.hasInterrupt(vcpu), false);
  assertEquals([vm.pio.read(0x21, 1), vm.pio.read(0x4d0, 1)], [0xfb, 0]);
  vm.pio.write(0x21, 1, 0);
  vm.pio.write(0x4d0, 1, 0x20);
  assertEquals(vm.interruptController.current.acknowledge(vcpu), 0x0d, "line 5 is high yet");
});

Deno.test("swapped, the new plugin goes on with the old one's state", () => {
  using machine = scriptedVm({ plugins: [pic()] });
  const { vm, vcpu } = machine;
  vm.pio.write(0x21, 1, 0);
  vm.setIrqLine(6, true);
  vm.setIrqLine(5, true);
  assertEquals(vm.interruptController.current.acknowledge(vcpu), 0x0d);
  vm.swap("pic", pic({ base: [0x20, 0x28] }));
  assertEquals(vm.interruptController.current.hasInterrupt(vcpu), false);
  vm.pio.write(0x20, 1, 0x20);
  assertEquals(vm.interruptController.current.acknowledge(vcpu), 0x0e);
  vm.unload("pic");
  assertEquals(vm.interruptController.current.hasInterrupt(vcpu), false);
  assertEquals(vm.pio.read(0x21, 1), 0xff);
});

Deno.test("wired to an APIC, the pair is a slot and a hook and nobody's interrupt pin", () => {
  const log: string[] = [];
  let found: Pic | undefined;
  const apic: Plugin = {
    name: "apic",
    version: "1.0.0",
    requires: [picSlot],
    provides: [interruptControllerSlot],
    setup(ctx) {
      const ref = ctx.use(picSlot);
      found = ref.current;
      ctx.on(picOutputHook, (level) => void log.push(`output ${level}`));
      ctx.provide(interruptControllerSlot, {
        hasInterrupt: () => ref.current.output,
        acknowledge: () => ref.current.acknowledge(),
      });
    },
  };
  using machine = scriptedVm({ plugins: [apic, pic({ wiring: "apic", mask: 0 })] });
  const { vm, vcpu } = machine;
  vm.setIrqLine(3, true);
  assertEquals([found?.output, log], [true, ["output true"]]);
  assertEquals(vcpu.hasRequest(eventRequest), false, "that is the APIC's to decide");
  assertEquals(vm.interruptController.current.acknowledge(vcpu), 0x0b);
  assertEquals([found?.output, log], [false, ["output true", "output false"]]);
});

Deno.test("two providers of the interrupt pin are refused, naming both", () => {
  const other: Plugin = {
    name: "other",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup(ctx) {
      ctx.provide(interruptControllerSlot, { hasInterrupt: () => false, acknowledge: () => 0 });
    },
  };
  assertThrows(() => scriptedVm({ plugins: [pic(), other] }), Error, "interrupt-controller");
});

Deno.test("an interrupt in MCS-80/85 mode stops the vCPU with an error that says so", () => {
  const guest: GuestScript = function* (vcpu) {
    yield out(0x20, 0x10);
    for (const word of [0x20, 0x04, 0x00]) yield out(0x21, word);
    cpuOf(vcpu).interruptFlag = true;
    yield raise(vcpu, 4);
    yield 10;
  };
  using machine = scriptedVm({ guest, plugins: [pic()] });
  const result = machine.vm.runSync();
  assertEquals(result.reason, "error");
  const error = result.reason === "error" ? result.error : undefined;
  assertInstanceOf(error, Error);
  assertEquals(
    error.message,
    'plugin "pic" failed in slot "interrupt-controller" on vCPU 0: the 8259 master was ' +
      "acknowledged in MCS-80/85 mode (ICW4 bit 0 clear), which is not built",
  );
});

Deno.test("options out of range are refused", () => {
  const cases: [PicOptions, string][] = [
    [{ base: [0x21, 0x28] }, "base 33 is not a multiple of 8"],
    [{ base: [0x20, 0x100] }, "base 256"],
    [{ base: [-8, 0x28] }, "base -8"],
    [{ mask: 0x1_0000 }, "mask 65536 is not a number of 16 bits"],
    [{ mask: -1 }, "mask -1"],
  ];
  for (const [options, message] of cases) assertThrows(() => pic(options), ArgumentError, message);
  for (
    const options of [{ base: [0, 0xf8], mask: 0xffff }, { base: [0xf8, 0], mask: 0 }] as const
  ) {
    assertEquals(pic(options).name, "pic");
  }
});
