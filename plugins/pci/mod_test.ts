import { assertEquals, assertThrows } from "@std/assert";
import { irqLineHook, type Plugin, PluginError, type RunEnd } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { pic } from "../pic/mod.ts";
import { addPciFunction, pci, type PciFunction, type PciFunctionOptions, pciSlot } from "./mod.ts";

const DEVICE: PciFunctionOptions = {
  name: "device",
  device: 4,
  vendorId: 0x1234,
  deviceId: 0x5678,
  revision: 3,
  classCode: 0x01_8000,
  subsystem: [0x1af4, 2],
  interruptPin: 1,
};

function card(options: Partial<PciFunctionOptions> = {}, name = "card") {
  const made: { function?: PciFunction } = {};
  const plugin: Plugin = {
    name,
    version: "1.0.0",
    requires: ["pci"],
    setup(ctx) {
      made.function = addPciFunction(ctx, { ...DEVICE, ...options });
    },
  };
  return { plugin, made };
}

function board(...plugins: Plugin[]) {
  const edges: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => void edges.push(`${line} ${level ? "up" : "down"}`));
    },
  };
  const machine = scriptedVm({ plugins: [watcher, pci(), ...plugins] });
  const { vm } = machine;
  const select = (device: number, offset: number) =>
    vm.pio.write(0xcf8, 4, 0x8000_0000 + device * 0x800 + (offset & ~3));
  return {
    vm,
    edges,
    get(device: number, offset: number, size: number): number {
      select(device, offset);
      return vm.pio.read(0xcfc + (offset & 3), size);
    },
    set(device: number, offset: number, size: number, value: number): void {
      select(device, offset);
      vm.pio.write(0xcfc + (offset & 3), size, value);
    },
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
}

Deno.test("configuration mechanism 1 finds the bridges and what was added, and nothing else", () => {
  using b = board(card().plugin);
  const found: string[] = [];
  for (let device = 0; device < 32; device++) {
    const id = b.get(device, 0, 4);
    if (id !== 0xffff_ffff) found.push(`${device} ${id.toString(16)}`);
  }
  assertEquals(found, ["0 12378086", "1 70008086", "4 56781234"]);
  assertEquals([b.get(4, 2, 2), b.get(4, 8, 4), b.get(4, 0x0b, 1)], [0x5678, 0x0180_0003, 1]);
  assertEquals([b.get(4, 0x2c, 4), b.get(4, 0x3d, 1), b.get(1, 0x0e, 1)], [0x0002_1af4, 1, 0x80]);
  b.vm.pio.write(0xcf8, 4, 0);
  assertEquals(b.vm.pio.read(0xcfc, 4), 0xffff_ffff, "not enabled");
  b.vm.pio.write(0xcf8, 4, 0x8001_0000);
  assertEquals([b.vm.pio.read(0xcfc, 4), b.vm.pio.read(0xcf8, 4)], [0xffff_ffff, 0x8001_0000]);
  b.vm.pio.write(0xcf8, 4, 0x8000_0100);
  assertEquals(b.vm.pio.read(0xcfc, 2), 0xffff, "another function of device 0");
});

Deno.test("base address registers tell their size, and map where they are put", () => {
  const log: string[] = [];
  const bar = (index: number, kind: "io" | "memory", size: number) => ({
    index,
    kind,
    size,
    read: (offset: number, bytes: number) => {
      log.push(`${index}: ${offset} ${bytes}`);
      return 0x42;
    },
    write: (offset: number, _bytes: number, value: number) =>
      void log.push(`${index}: ${offset} = ${value}`),
  });
  using b = board(card({ bars: [bar(0, "io", 32), bar(1, "memory", 4096)] }).plugin);
  // As firmware leaves them.
  assertEquals([b.get(4, 0x10, 4), b.get(4, 0x14, 4), b.get(4, 4, 2)], [0xc001, 0xf000_0000, 7]);
  b.set(4, 4, 2, 0);
  assertEquals(b.vm.pio.read(0xc000, 1), 0xff);
  b.set(4, 0x10, 4, 0xffff_ffff);
  b.set(4, 0x14, 4, 0xffff_ffff);
  assertEquals([b.get(4, 0x10, 4), b.get(4, 0x14, 4)], [0xffff_ffe1, 0xffff_f000]);
  b.set(4, 0x18, 4, 0xffff_ffff);
  assertEquals(b.get(4, 0x18, 4), 0, "there is none");
  b.set(4, 0x10, 4, 0x6000);
  b.set(4, 0x14, 4, 0xe123_4567);
  b.set(4, 4, 2, 3);
  assertEquals([b.get(4, 0x14, 4), b.vm.pio.read(0x601f, 1)], [0xe123_4000, 0x42]);
  b.vm.mmio.write(0xe123_4010, 4, 7, 0);
  b.set(4, 0x10, 4, 0x6100);
  assertEquals([b.vm.pio.read(0x6000, 1), b.vm.pio.read(0x6104, 2)], [0xff, 0x42]);
  assertEquals(log, ["0: 31 1", "1: 16 = 7", "0: 4 2"]);
  b.vm.reset();
  assertEquals(b.vm.pio.read(0xc000, 1), 0x42);
  b.vm.unload("card");
  assertEquals([b.vm.pio.read(0xc000, 1), b.get(4, 0, 4)], [0xff, 0xffff_ffff]);
});

Deno.test("a range put where something else is goes without", () => {
  using b = board(
    card({ bars: [{ index: 0, kind: "memory", size: 4096, read: () => 1 }] }).plugin,
  );
  b.set(4, 0x10, 4, 0x1000); // RAM
  assertEquals(b.vm.memory.lookup(0x1000)?.name, "ram");
  b.set(4, 0x10, 4, 0xe000_0000);
  assertEquals(b.vm.mmio.read(0xe000_0000, 1), 1);
});

Deno.test("capabilities form a list, and only what is writable can be written", () => {
  const written: [number, number][] = [];
  const { plugin, made } = card({
    capabilities: [
      { id: 0x09, bytes: new Uint8Array([6, 1, 2, 3]) },
      { id: 0x11, bytes: new Uint8Array(10), writable: new Uint8Array([0, 0xc0]) },
    ],
    written: (first, last) => void written.push([first, last]),
  });
  using b = board(plugin);
  assertEquals(b.get(4, 6, 2) & 0x10, 0x10);
  const first = b.get(4, 0x34, 1);
  assertEquals([first, b.get(4, first, 1), b.get(4, first + 2, 1)], [0x40, 9, 6]);
  const second = b.get(4, first + 1, 1);
  assertEquals([b.get(4, second, 1), b.get(4, second + 1, 1)], [0x11, 0]);
  assertEquals(made.function?.capabilityOffset(1), second + 2);
  written.length = 0;
  b.set(4, second, 4, 0xffff_ffff);
  assertEquals([b.get(4, second, 4), written], [0xc000_0011, [[second, second + 3]]]);
  b.set(4, 0, 4, 0);
  assertEquals(b.get(4, 0, 4), 0x5678_1234);
});

Deno.test("pins lead through the bridge's routes to lines, wired together", () => {
  const [one, two] = [card(), card({ device: 8, interruptPin: 1 }, "other")];
  const three = card({ device: 5, interruptPin: 2 }, "third");
  using b = board(one.plugin, two.plugin, three.plugin);
  // Device 4 pin A and device 8 pin A are on input D, as is none of device 5.
  assertEquals([b.get(4, 0x3c, 1), b.get(8, 0x3c, 1), b.get(5, 0x3c, 1)], [11, 11, 10]);
  const bus = b.vm.slots.ref(pciSlot).current;
  assertEquals([1, 2, 3, 4].map((pin) => bus.lineOf(4, pin)), [11, 10, 10, 11]);
  one.made.function?.setInterrupt(true);
  two.made.function?.setInterrupt(true);
  one.made.function?.setInterrupt(false);
  assertEquals(b.edges, ["11 up"]);
  assertEquals([b.get(4, 6, 2) & 8, b.get(8, 6, 2) & 8], [0, 8]);
  b.set(1, 0x63, 1, 5);
  assertEquals(b.edges.splice(0), ["11 up", "5 up", "11 down"]);
  b.set(8, 4, 2, 0x400);
  assertEquals([b.edges.splice(0), b.get(8, 6, 2) & 8], [["5 down"], 8]);
  b.set(8, 4, 2, 0);
  b.set(1, 0x63, 1, 0x80);
  assertEquals(b.edges.splice(0), ["5 up", "5 down"]);
  b.vm.reset();
  three.made.function?.setInterrupt(true);
  b.vm.unload("third");
  assertEquals(b.edges, ["10 up", "10 down"]);
});

Deno.test("routed lines are level-triggered at the 8259s", () => {
  using b = board(pic());
  assertEquals(b.vm.pio.read(0x4d1, 1), 0x0c);
  b.vm.pio.write(0x4d1, 1, 0);
  b.vm.reset();
  assertEquals(b.vm.pio.read(0x4d1, 1), 0x0c);
});

Deno.test("CF9h asks for a reset when bit 2 rises", () => {
  const end = (...values: number[]): RunEnd["reason"] => {
    using machine = scriptedVm({
      plugins: [pci()],
      guest: function* () {
        for (const value of values) yield (exit) => exit.setIo(0xcf9, 1, true, value);
      },
    });
    return machine.vm.runSync().reason;
  };
  assertEquals([end(0x02, 0x06), end(0x0e), end(0x02, 0x00)], ["reset", "reset", "halted"]);
  using b = board();
  b.vm.pio.write(0xcf9, 1, 0x02);
  assertEquals([b.vm.pio.read(0xcf9, 1), b.vm.pio.read(0xcf8, 4)], [2, 0]);
});

Deno.test("two functions at one place, and options out of range, are refused", () => {
  const refused = (options: Partial<PciFunctionOptions>, message: string) =>
    assertThrows(() => board(card(options).plugin), PluginError, message);
  refused({ device: 1 }, '"device" and "ISA bridge" are both device 1, function 0');
  refused({ device: 32 }, "device 32");
  refused({ interruptPin: 5 }, "interrupt pin 5");
  refused({ bars: [{ index: 6, kind: "io", size: 4 }] }, "base address register 6");
  refused({ bars: [{ index: 0, kind: "io", size: 24 }] }, "size 24");
});

Deno.test("saved state goes over to another plugin of the name", () => {
  const bars = [{ index: 0, kind: "memory", size: 4096, read: () => 9 }] as const;
  using b = board(card({ bars }).plugin);
  b.set(4, 0x10, 4, 0xe000_0000);
  b.vm.swap("card", card({ bars }).plugin);
  assertEquals([b.get(4, 0x10, 4), b.vm.mmio.read(0xe000_0000, 1)], [0xe000_0000, 9]);
});
