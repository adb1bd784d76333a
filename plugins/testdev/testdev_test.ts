import { assertEquals } from "@std/assert";
import { irqLineHook, type Plugin } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { testDevice } from "./mod.ts";

Deno.test("test device: E0h to E3h read back in any width, E8h to EBh show them by bytes", () => {
  using machine = scriptedVm({ plugins: [testDevice()] });
  const { pio } = machine.vm;
  pio.write(0xe0, 4, 0x1234_5678);
  assertEquals(pio.read(0xe0, 4), 0x1234_5678);
  assertEquals(pio.read(0xe2, 2), 0x1234);
  pio.write(0xe1, 1, 0xff);
  assertEquals(pio.read(0xe0, 4), 0x1234_ff78);
  assertEquals([0xe8, 0xe9, 0xea, 0xeb].map((port) => pio.read(port, 1)), [0x78, 0xff, 0x34, 0x12]);
  pio.write(0xe8, 4, 0xaabb_ccdd);
  assertEquals(pio.read(0xe0, 2), 0xccdd);
  pio.write(0xe2, 2, 0x1122);
  assertEquals(pio.read(0xe8, 4), 0x1122_ccdd);
});

Deno.test("test device: a write of any width to 2000h + n drives line n alone", () => {
  const heard: [number, boolean][] = [];
  const listener: Plugin = {
    name: "listener",
    version: "1.0.0",
    setup: (ctx) => void ctx.on(irqLineHook, (line, level) => void heard.push([line, level])),
  };
  using machine = scriptedVm({ plugins: [testDevice(), listener] });
  const { pio } = machine.vm;
  pio.write(0x200b, 4, 1);
  pio.write(0x200b, 2, 0);
  pio.write(0x2017, 1, 0x80);
  pio.write(0x2017, 4, 0);
  pio.write(0x2018, 1, 1);
  assertEquals(heard, [[11, true], [11, false], [23, true], [23, false]]);
});

Deno.test("test device: memory at FF00_0000h, cleared by a reset", () => {
  using machine = scriptedVm({ plugins: [testDevice()] });
  const { vm } = machine;
  vm.mmio.write(0xff00_0000, 4, 0x1234_5678, 0);
  vm.mmio.write(0xff00_fffe, 2, 0xabcd, 0);
  assertEquals(vm.mmio.read(0xff00_0001, 2), 0x3456);
  assertEquals(vm.mmio.read(0xff00_ffff, 1), 0xab);
  vm.pio.write(0xe0, 1, 5);
  vm.reset();
  assertEquals(vm.mmio.read(0xff00_0000, 4), 0);
  assertEquals(vm.pio.read(0xe0, 1), 0);
});
