/**
 * The APIC base MSR and the modes, inhibits, pins, INIT and start-up, CPUID, saved state.
 */

import { assertEquals } from "@std/assert";
import { eventRequest, type InterruptAccelerator, MpState, type Plugin } from "../../core/mod.ts";
import { acceleratorSlot } from "../../core/mod.ts";
import { type Board, board, toX2apic } from "./fixture_test.ts";
import { lapic, lapicChangedHook, LapicInhibit, lapicSlot } from "./mod.ts";

const BASE = 0xfee0_0000;
const OFF = BASE, XAPIC = BASE | 0x800, X2APIC = BASE | 0xc00, INVALID = BASE | 0x400;

/** Puts the only local APIC into a mode from that after RESET. */
function enter(b: Board, mode: number): void {
  if (mode === OFF) b.wrmsr(0x1b, OFF);
  if (mode === X2APIC) b.wrmsr(0x1b, X2APIC);
}

Deno.test("every move between modes", () => {
  const good: readonly (readonly [number, number])[] = [
    [OFF, OFF],
    [OFF, XAPIC],
    [XAPIC, OFF],
    [XAPIC, XAPIC],
    [XAPIC, X2APIC],
    [X2APIC, X2APIC],
    [X2APIC, OFF],
  ];
  for (const from of [OFF, XAPIC, X2APIC]) {
    for (const to of [OFF, XAPIC, X2APIC, INVALID]) {
      using b = board();
      enter(b, from);
      const expected = good.some(([a, c]) => a === from && c === to);
      assertEquals([from & 0xc00, to & 0xc00, b.wrmsr(0x1b, to >>> 0)], [
        from & 0xc00,
        to & 0xc00,
        expected,
      ]);
      const now = expected ? to : from;
      assertEquals(b.rdmsr(0x1b), BigInt((now | 0x100) >>> 0));
    }
  }
});

Deno.test("APIC base: reserved bits, the BSP bit, and no x2APIC", () => {
  using b = board({ cpus: 2 });
  for (const bit of [0, 1, 2, 3, 4, 5, 6, 7, 9]) {
    assertEquals([bit, b.wrmsr(0x1b, (XAPIC | 1 << bit) >>> 0)], [bit, false]);
  }
  assertEquals(b.wrmsr(0x1b, XAPIC >>> 0, 1 << 20), false);
  // AMD's is read-only.
  assertEquals([b.wrmsr(0x1b, XAPIC >>> 0), b.rdmsr(0x1b)], [true, 0xfee0_0900n]);
  assertEquals([b.wrmsr(0x1b, (XAPIC | 0x100) >>> 0, 0, 1), b.rdmsr(0x1b, 1)], [
    true,
    0xfee0_0800n,
  ]);
  using intel = board({ vendor: "intel" });
  assertEquals([intel.wrmsr(0x1b, XAPIC >>> 0), intel.rdmsr(0x1b)], [true, 0xfee0_0800n]);
  using without = board({ x2apic: false });
  assertEquals(without.wrmsr(0x1b, X2APIC >>> 0), false);
});

Deno.test("into x2APIC mode: LDR is derived, the ICR's high half is lost, the rest stays", () => {
  using b = board({ cpus: [0, 35] });
  b.write(0x310, 0x0700_0000, 1);
  b.write(0xd0, 0x0200_0000, 1);
  b.write(0x80, 0x45, 1);
  b.write(0x320, 0x2_0071, 1);
  toX2apic(b, 1);
  assertEquals(b.rdmsr(0x802, 1), 35n);
  assertEquals(b.rdmsr(0x80d, 1), 0x2_0008n);
  assertEquals(b.rdmsr(0x830, 1), 0n);
  assertEquals(b.rdmsr(0x808, 1), 0x45n);
  assertEquals(b.rdmsr(0x832, 1), 0x2_0071n);
  // Off, and on again: as after RESET.
  b.wrmsr(0x1b, OFF, 0, 1);
  b.wrmsr(0x1b, XAPIC >>> 0, 0, 1);
  assertEquals([b.read(0x20, 1), b.read(0xd0, 1), b.read(0x80, 1)], [35 * 2 ** 24, 0, 0]);
  assertEquals([b.read(0xf0, 1), b.read(0x320, 1)], [0xff, 0x1_0000]);
});

Deno.test("the ICR's high half in x2APIC mode is where the vendor has it, or who accelerates", () => {
  for (const [vendor, place, other] of [["amd", 0x310, 0x304], ["intel", 0x304, 0x310]] as const) {
    using b = board({ vendor, cpus: 2 });
    const bus = b.vm.slots.ref(lapicSlot).current;
    toX2apic(b);
    const [own] = b.apics;
    const words = (): number[] => [0x300, 0x304, 0x310].map((offset) => own!.registers.get(offset));
    b.wrmsr(0x830, 0x4051, 0x1234_5678);
    const half = (at: number): number[] => [
      0x4051,
      at === 0x304 ? 0x1234_5678 : 0,
      at === 0x310 ? 0x1234_5678 : 0,
    ];
    assertEquals(words(), half(place));
    bus.splitIcr = !bus.splitIcr;
    assertEquals(words(), half(other));
    assertEquals(b.rdmsr(0x830), 0x1234_5678_0000_4051n);
    // Saved in both places, for whoever takes it over.
    const saved = own!.save();
    bus.splitIcr = !bus.splitIcr;
    own!.load(saved);
    assertEquals(words(), half(place));
    // The other local APIC is in xAPIC mode, and its destination stays.
    b.write(0x310, 0x0700_0000, 1);
    bus.splitIcr = !bus.splitIcr;
    assertEquals(b.read(0x310, 1), 0x0700_0000);
  }
});

Deno.test("off: no registers, no messages; the pins are INTR and NMI", () => {
  using b = board({ cpus: 2 });
  b.wrmsr(0x1b, OFF, 0, 1);
  assertEquals(b.read(0x30, 1), 0xffff_ffff);
  b.write(0x310, 0xff00_0000);
  b.write(0x300, 0x4031);
  assertEquals([b.apics[1]!.highestIrr, b.apics[1]!.deliverable], [-1, -1]);
  b.apics[1]!.lvt.setPin(1, true);
  assertEquals(b.vcpus[1]!.events.nmiPending, 1);
  assertEquals(b.vm.cpuid(1, 0, b.vcpus[0]!).edx & 0x200, 0x200);
  assertEquals(b.vm.cpuid(1, 0, b.vcpus[1]!).edx & 0x200, 0);
});

Deno.test("the register page moves", () => {
  using b = board({ cpus: 2 });
  const [first, second] = b.vcpus;
  const { mmio } = b.vm;
  assertEquals(b.wrmsr(0x1b, 0xfed4_0800, 0, 1), true);
  mmio.write(0xfed4_0080, 4, 0x37, 0, second);
  assertEquals(b.apics[1]!.taskPriority, 0x37);
  assertEquals(mmio.read(0xfed4_0080, 4, second), 0x37);
  // Each has its own there.
  assertEquals(mmio.read(0xfed4_0080, 4, first), 0xffff_ffff);
  assertEquals(b.read(0x80, 1), 0xffff_ffff);
  assertEquals(b.read(0x80, 0), 0);
  b.wrmsr(0x1b, XAPIC >>> 0, 0, 1);
  assertEquals(b.read(0x80, 1), 0x37);
  assertEquals(mmio.firstIn(0xfed4_0000, 4096), undefined);
  // Over memory there is memory.
  assertEquals(b.wrmsr(0x1b, 0x800, 0, 1), true);
  assertEquals(b.vm.mmio.firstIn(0, 4096), undefined);
});

Deno.test("CPUID: x2APIC, deadline timer, topology", () => {
  using b = board({ cpus: [0, 5], tscDeadline: true });
  const [, vcpu] = b.vcpus;
  assertEquals(b.vm.cpuid(1, 0, vcpu!).ecx, 0x120_0000);
  assertEquals(b.vm.cpuid(0, 0, vcpu!).eax, 0xb);
  const level = (subleaf: number): number[] => {
    const { eax, ebx, ecx, edx } = b.vm.cpuid(0xb, subleaf, vcpu!);
    return [eax, ebx, ecx, edx];
  };
  assertEquals([level(0), level(1), level(2)], [[0, 1, 0x100, 5], [3, 2, 0x201, 5], [0, 0, 2, 5]]);
});

/** An accelerator that minds all reasons of local APICs, and a log of changes. */
function watcher(log: string[]): Plugin {
  const accelerator: InterruptAccelerator = {
    name: "watcher",
    inhibits: Object.values(LapicInhibit),
    refresh() {},
  };
  return {
    name: "watcher",
    version: "1.0.0",
    requires: ["lapic"],
    provides: [acceleratorSlot],
    setup(ctx) {
      ctx.provide(acceleratorSlot, accelerator);
      ctx.on(lapicChangedHook, ({ id }, change) => void log.push(`${id} ${change}`));
    },
  };
}

Deno.test("changes are told, and inhibits follow them", () => {
  const log: string[] = [];
  using b = board({ cpus: 3, plugins: [watcher(log)], enabled: false });
  const { inhibits } = b.vm;
  const names = (): string[] => inhibits.reasons().map(({ name }) => name).sort();
  assertEquals(log.splice(0), ["0 reset", "1 reset", "2 reset"]);
  for (let k = 0; k < 3; k++) {
    b.write(0xf0, 0x1ff, k);
    b.write(0xd0, 1 << (24 + k), k);
  }
  assertEquals(log.splice(0), ["0 enable", "0 ldr", "1 enable", "1 ldr", "2 enable", "2 ldr"]);
  assertEquals(names(), []);
  // Logical IDs: two alike; two bits; one model for all; zero is none.
  b.write(0xd0, 0x0200_0000, 2);
  assertEquals(names(), ["LOGICAL_ID_ALIASED"]);
  b.write(0xd0, 0x0c00_0000, 2);
  assertEquals(names(), ["LOGICAL_ID_ALIASED"]);
  b.write(0xd0, 0x0400_0000, 2);
  assertEquals(names(), []);
  b.write(0xe0, 0x0fff_ffff, 1);
  assertEquals(names(), ["LOGICAL_ID_ALIASED"]);
  b.write(0xd0, 0, 1);
  assertEquals(names(), []);
  log.length = 0;
  // Off, for one vCPU alone.
  b.wrmsr(0x1b, OFF, 0, 2);
  assertEquals(inhibits.reasons(b.vcpus[2]).map(({ name }) => name), ["APIC_DISABLED"]);
  b.wrmsr(0x1b, XAPIC >>> 0, 0, 2);
  assertEquals([inhibits.reasons(b.vcpus[2]), names()], [[], []]);
  assertEquals(log.splice(0), ["2 reset", "2 mode", "2 mode"]);
  // IDs: two alike, and one that is not the vCPU's; the latter holds for good.
  b.write(0x20, 0, 1);
  assertEquals(names(), ["APIC_ID_MODIFIED", "PHYSICAL_ID_ALIASED"]);
  b.write(0x20, 0x0100_0000, 1);
  assertEquals(names(), ["APIC_ID_MODIFIED"]);
  b.wrmsr(0x1b, 0xfed4_0800, 0, 1);
  b.wrmsr(0x1b, XAPIC >>> 0, 0, 1);
  assertEquals(names(), ["APIC_BASE_MODIFIED", "APIC_ID_MODIFIED"]);
  assertEquals(log, ["1 id", "1 id", "1 base", "1 base"]);
});

Deno.test("IDs that 8 bits cannot tell apart are aliased in xAPIC mode", () => {
  using b = board({ cpus: [0, 256] });
  const names = b.vm.inhibits.reasons().map(({ name }) => name);
  assertEquals(names, ["PHYSICAL_ID_ALIASED"]);
  toX2apic(b, 0);
  toX2apic(b, 1);
  assertEquals(b.vm.inhibits.reasons(), []);
});

Deno.test("LINT pins: edge, level with remote IRR, NMI, masked", () => {
  using b = board();
  const [apic] = b.apics;
  const [vcpu] = b.vcpus;
  b.write(0x350, 0x61);
  apic!.lvt.setPin(0, true);
  assertEquals(apic!.acknowledge(), 0x61);
  b.write(0xb0, 0);
  apic!.lvt.setPin(0, true);
  assertEquals(apic!.deliverable, -1);
  apic!.lvt.setPin(0, false);
  b.write(0x350, 0x8062);
  apic!.lvt.setPin(0, true);
  assertEquals([b.read(0x350), apic!.acknowledge()], [0xc062, 0x62]);
  // Still high when it is ended: once more.
  b.write(0xb0, 0);
  assertEquals([b.read(0x350), apic!.acknowledge()], [0xc062, 0x62]);
  apic!.lvt.setPin(0, false);
  b.write(0xb0, 0);
  assertEquals([b.read(0x350), apic!.deliverable], [0x8062, -1]);
  b.write(0x360, 0x400);
  apic!.lvt.setPin(1, true);
  apic!.lvt.setPin(1, true);
  assertEquals(vcpu!.events.nmiPending, 1);
  b.write(0x350, 0x1_8063);
  apic!.lvt.setPin(0, true);
  assertEquals(apic!.deliverable, -1);
  b.write(0x350, 0x8063);
  assertEquals(apic!.deliverable, 0x63);
});

Deno.test("entries of the local vector table: fixed, NMI, and Intel's counter masks itself", () => {
  for (const vendor of ["amd", "intel"] as const) {
    using b = board({ vendor });
    const [apic] = b.apics;
    for (const offset of [0x330, 0x340]) {
      b.write(offset, 0x51);
      assertEquals(apic!.lvt.fire(offset), true);
      assertEquals(apic!.acknowledge(), 0x51);
      b.write(0xb0, 0);
    }
    assertEquals(b.read(0x340), vendor === "intel" ? 0x1_0051 : 0x51);
    b.write(0x340, 0x400);
    apic!.lvt.fire(0x340);
    assertEquals(b.vcpus[0]!.events.nmiPending, 1);
    b.write(0x330, 0x1_0051);
    assertEquals(apic!.lvt.fire(0x330), false);
  }
});

Deno.test("INIT and start-up: waits, starts in real mode at the page, ignores a second", () => {
  using b = board({
    cpus: 2,
    guest: function* () {
      for (;;) yield 1000;
    },
  });
  const [, ap] = b.vcpus;
  const [, apic] = b.apics;
  const ipi = (low: number): void => {
    b.write(0x310, 0x0100_0000);
    b.write(0x300, low);
    assertEquals(ap!.runnable, true);
    b.vm.runSync({ instructions: 30_000 });
  };
  // Without INIT a start-up message is ignored.
  ipi(0x4608);
  assertEquals([ap!.mpState, ap!.runnable], [MpState.UNINITIALIZED, false]);

  apic!.setTaskPriority(0x50);
  ap!.request(eventRequest);
  ipi(0x4500);
  assertEquals([ap!.mpState, ap!.runnable], [MpState.INIT_RECEIVED, false]);
  assertEquals([apic!.taskPriority, ap!.hasRequest(eventRequest)], [0, false]);

  ipi(0x469a);
  const { cs } = b.cpu(1).system;
  assertEquals([ap!.mpState, cs.selector, cs.base], [MpState.RUNNABLE, 0x9a00, 0x9_a000n]);
  assertEquals(ap!.regs.rip > 1000n, true);
  ipi(0x4608);
  assertEquals(b.cpu(1).system.cs.selector, 0x9a00);
});

Deno.test("saved state goes over to another plugin of the name", () => {
  using b = board({ cpus: 2 });
  b.write(0x80, 0x23, 1);
  b.write(0x320, 0x2_0040, 1);
  b.write(0x380, 1000, 1);
  b.read(0x10, 1);
  toX2apic(b, 0);
  const memory = b.vm.hostMemory.current as unknown as { used: number };
  const { used } = memory;
  b.vm.swap("lapic", lapic({ shortestPeriod: 1 }));
  assertEquals(memory.used, used);
  assertEquals([b.read(0x80, 1), b.read(0x320, 1)], [0x23, 0x2_0040]);
  b.write(0x280, 0, 1);
  assertEquals([b.read(0x280, 1), b.rdmsr(0x802, 0)], [0x80, 0n]);
  b.pass(2000);
  assertEquals(b.read(0x220, 1), 1);
});

Deno.test("RESET puts everything back", () => {
  using b = board({ cpus: 2 });
  toX2apic(b, 1);
  b.wrmsr(0x808, 0x50, 0, 1);
  b.vm.reset();
  assertEquals([b.rdmsr(0x1b, 1), b.read(0x80, 1), b.read(0xf0, 1)], [0xfee0_0800n, 0, 0xff]);
});
