/**
 * The I/O APIC with local APICs and the 8259s: lines, pins, EOI messages.
 */

import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { lapic, lapicSlot } from "../lapic/mod.ts";
import { pic } from "../pic/mod.ts";
import { ioapic } from "./mod.ts";

const BASE = 0xfec0_0000;

function board() {
  const machine = scriptedVm({
    cpus: 2,
    plugins: [lapic(), pic({ wiring: "apic", mask: 0xfffa }), ioapic()],
  });
  const { vm } = machine;
  const apics = vm.vcpus.map((vcpu) => vm.slots.ref(lapicSlot).current.of(vcpu));
  for (const apic of apics) apic.write(0xf0, 0x1ff);
  const set = (pin: number, low: number, high = 0): void => {
    for (const [index, value] of [[0x11 + 2 * pin, high], [0x10 + 2 * pin, low]] as const) {
      vm.mmio.write(BASE, 4, index, 0);
      vm.mmio.write(BASE + 0x10, 4, value, 0);
    }
  };
  return { vm, apics, set, [Symbol.dispose]: () => machine[Symbol.dispose]() };
}

Deno.test("a line reaches the local APIC that its pin names; line 0 is at pin 2", () => {
  using b = board();
  const [first, second] = b.apics;
  b.set(9, 0x41, 0x0100_0000);
  b.set(2, 0x42);
  b.set(16, 0x43);
  b.vm.setIrqLine(9, true);
  b.vm.setIrqLine(0, true);
  b.vm.setIrqLine(16, true);
  assertEquals([first!.highestIrr, second!.highestIrr], [0x43, 0x41]);
  assertEquals(first!.registers.hasVector(0x200, 0x42), true);
  // Line 2 is nobody's, and lines beyond the pins are others'.
  b.set(2, 0x44);
  b.vm.setIrqLine(2, true);
  b.vm.setIrqLine(24, true);
  assertEquals(first!.registers.hasVector(0x200, 0x44), false);
});

Deno.test("level-triggered from the line to the EOI and back", () => {
  using b = board();
  const [apic] = b.apics;
  b.set(9, 0x8041);
  b.vm.setIrqLine(9, true);
  assertEquals(apic!.acknowledge(), 0x41);
  assertEquals(apic!.deliverable, -1);
  apic!.endOfInterrupt();
  assertEquals(apic!.acknowledge(), 0x41);
  b.vm.setIrqLine(9, false);
  apic!.endOfInterrupt();
  assertEquals(apic!.deliverable, -1);
});

Deno.test("ExtINT: from LINT0, and through pin 0, the vector is the 8259's", () => {
  using b = board();
  const [first, second] = b.apics;
  // The boot processor's LINT0 is as firmware leaves it.
  first!.write(0x350, 0x700);
  b.vm.setIrqLine(0, true);
  assertEquals([first!.externalInterrupt, second!.externalInterrupt], [true, false]);
  assertEquals(first!.acknowledge(), 0x08);
  assertEquals([first!.externalInterrupt, first!.highestIsr], [false, -1]);
  b.vm.pio.write(0x20, 1, 0x20);
  b.vm.setIrqLine(0, false);
  // Through the I/O APIC, to the other.
  first!.write(0x350, 0x1_0700);
  b.set(0, 0x700, 0x0100_0000);
  b.vm.setIrqLine(0, true);
  assertEquals([first!.externalInterrupt, second!.externalInterrupt], [false, true]);
  assertEquals(second!.acknowledge(), 0x08);
  assertEquals(second!.externalInterrupt, false);
});

Deno.test("RESET masks all pins", () => {
  using b = board();
  b.set(9, 0x41);
  b.vm.reset();
  for (const apic of b.apics) apic.write(0xf0, 0x1ff);
  b.vm.setIrqLine(9, true);
  assertEquals(b.apics[0]!.highestIrr, -1);
});

Deno.test("options out of range", () => {
  for (const options of [{ base: 0xfec0_0010 }, { firstLine: -1 }, { pins: 0 }, { pins: 33 }]) {
    assertThrows(() => ioapic(options), ArgumentError, "ioapic");
  }
});

Deno.test("a second one takes the lines behind the first", () => {
  using machine = scriptedVm({
    plugins: [
      lapic(),
      ioapic(),
      ioapic({ name: "second", base: 0xfec0_1000, firstLine: 24, pins: 8 }),
    ],
  });
  const { vm } = machine;
  const apic = vm.slots.ref(lapicSlot).current.of(machine.vcpu);
  apic.write(0xf0, 0x1ff);
  vm.mmio.write(0xfec0_1000, 4, 0x12, 0);
  vm.mmio.write(0xfec0_1010, 4, 0x51, 0);
  vm.setIrqLine(1, true);
  assertEquals(apic.highestIrr, -1);
  vm.setIrqLine(25, true);
  assertEquals(apic.highestIrr, 0x51);
});
