/**
 * Every register: reset value, what reads and writes do in both modes, reserved bits. The rows are
 * those of the manuals' tables (APM vol. 2, table 16-2; SDM vol. 3A, table 11-6).
 */

import { assertEquals } from "@std/assert";
import { board, toX2apic } from "./fixture_test.ts";
import type { LapicVendor } from "./mod.ts";

const VENDORS: readonly LapicVendor[] = ["amd", "intel"];
const VERSION: Readonly<Record<LapicVendor, number>> = { amd: 0x5_0010, intel: 0x5_0014 };

/** Values after RESET, on the second processor; the first has LINT0 as firmware leaves it. */
const RESET: readonly (readonly [name: string, offset: number, value: number])[] = [
  ["ID", 0x020, 0x0100_0000],
  ["TPR", 0x080, 0],
  ["APR", 0x090, 0],
  ["PPR", 0x0a0, 0],
  ["RRR", 0x0c0, 0],
  ["LDR", 0x0d0, 0],
  ["DFR", 0x0e0, 0xffff_ffff],
  ["SVR", 0x0f0, 0xff],
  ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((k) =>
    [["ISR", 0x100], ["TMR", 0x180], ["IRR", 0x200]].map(([name, base]) =>
      [`${name}${k}`, (base as number) + 0x10 * k, 0] as const
    )
  ),
  ["ESR", 0x280, 0],
  ["ICR", 0x300, 0],
  ["ICR2", 0x310, 0],
  ["LVTT", 0x320, 0x1_0000],
  ["LVTTHMR", 0x330, 0x1_0000],
  ["LVTPC", 0x340, 0x1_0000],
  ["LVT0", 0x350, 0x1_0000],
  ["LVT1", 0x360, 0x1_0000],
  ["LVTERR", 0x370, 0x1_0000],
  ["TMICT", 0x380, 0],
  ["TMCCT", 0x390, 0],
  ["TDCR", 0x3e0, 0],
];

for (const vendor of VENDORS) {
  Deno.test(`${vendor}: registers after RESET`, () => {
    using b = board({ vendor, cpus: 2, enabled: false });
    for (const [name, offset, value] of RESET) {
      assertEquals([name, b.read(offset, 1)], [name, value]);
    }
    assertEquals(b.read(0x30, 1), VERSION[vendor]);
    // Virtual wire: the boot processor takes ExtINT from LINT0.
    assertEquals(b.read(0x350, 0), 0x700);
    assertEquals(b.read(0x20, 0), 0);
  });

  Deno.test(`${vendor}: registers after INIT are those after RESET, but for ID and mode`, () => {
    using b = board({ vendor, cpus: 2 });
    const [, apic] = b.apics;
    b.write(0x20, 0x0500_0000, 1);
    for (const [, offset] of RESET) if (offset !== 0x20) b.write(offset, 0x0f0f_0f40, 1);
    b.write(0x380, 1000, 1);
    apic!.reset(true);
    for (const [name, offset, value] of RESET) {
      const expected = name === "ID" ? 0x0500_0000 : value;
      assertEquals([name, b.read(offset, 1)], [name, expected]);
    }
    assertEquals(apic!.timer.running, false);
    assertEquals(b.rdmsr(0x1b, 1), 0xfee0_0800n);

    toX2apic(b, 1);
    apic!.reset(true);
    assertEquals(b.rdmsr(0x802, 1), 1n);
    assertEquals(b.rdmsr(0x80d, 1), 2n);
    assertEquals(b.rdmsr(0x1b, 1), 0xfee0_0c00n);
  });
}

/** xAPIC: what a register holds after ones, and after zeros, were written to it. */
const XAPIC_BITS:
  readonly (readonly [name: string, offset: number, ones: number, zeros: number])[] = [
    ["ID", 0x020, 0xff00_0000, 0],
    ["TPR", 0x080, 0xff, 0],
    ["PPR", 0x0a0, 0, 0],
    ["LDR", 0x0d0, 0xff00_0000, 0],
    ["DFR", 0x0e0, 0xffff_ffff, 0x0fff_ffff],
    ["SVR", 0x0f0, 0x3ff, 0],
    ["ISR0", 0x100, 0, 0],
    ["TMR7", 0x1f0, 0, 0],
    ["IRR3", 0x230, 0, 0],
    ["ICR2", 0x310, 0xff00_0000, 0],
    ["LVTT", 0x320, 0x3_00ff, 0],
    ["LVTTHMR", 0x330, 0x1_07ff, 0],
    ["LVTPC", 0x340, 0x1_07ff, 0],
    ["TMICT", 0x380, 0xffff_ffff, 0],
    ["TDCR", 0x3e0, 0xb, 0],
  ];

for (const vendor of VENDORS) {
  Deno.test(`${vendor}, xAPIC: bits that can be written`, () => {
    for (const [name, offset, ones, zeros] of XAPIC_BITS) {
      using b = board({ vendor });
      b.write(offset, 0xffff_ffff);
      assertEquals([name, b.read(offset)], [name, ones]);
      b.write(offset, 0);
      assertEquals([name, b.read(offset)], [name, zeros]);
    }
    using b = board({ vendor });
    b.write(0x370, 0xffff_ffff);
    assertEquals(b.read(0x370), vendor === "amd" ? 0x1_07ff : 0x1_00ff);
    for (const offset of [0x350, 0x360]) {
      b.write(offset, 0xffff_ffff);
      assertEquals(b.read(offset), vendor === "amd" ? 0x1_87ff : 0x1_a7ff);
    }
    b.write(0x30, 0);
    assertEquals(b.read(0x30), VERSION[vendor]);
  });
}

Deno.test("bits that options add: TSC deadline, CMCI, EOI suppression", () => {
  const all = { vendor: "intel", tscDeadline: true, cmci: true, eoiSuppression: true } as const;
  using b = board(all);
  for (const [offset, ones] of [[0x320, 0x7_00ff], [0x2f0, 0x1_07ff], [0xf0, 0x13ff]] as const) {
    b.write(offset, 0xffff_ffff);
    assertEquals(b.read(offset), ones);
  }
  assertEquals(b.read(0x30), 0x0106_0015);
});

Deno.test("xAPIC: a register that is not there sets ESR bit 7 and reads 0", () => {
  for (
    const offset of [0x000, 0x010, 0x040, 0x070, 0x2f0, 0x290, 0x3a0, 0x3d0, 0x3f0, 0x400, 0xff0]
  ) {
    for (const write of [false, true]) {
      using b = board();
      if (write) b.write(offset, 0);
      else assertEquals(b.read(offset), 0);
      assertEquals(b.read(0x280), 0);
      b.write(0x280, 0);
      assertEquals([offset, b.read(0x280)], [offset, 0x80]);
      // What was latched is gone with the next write.
      b.write(0x280, 0xffff_ffff);
      assertEquals(b.read(0x280), 0);
    }
  }
});

Deno.test("xAPIC: accesses that are not 4 aligned bytes", () => {
  using b = board();
  const at = 0xfee0_0000;
  const [vcpu] = b.vcpus;
  b.write(0x80, 0x35);
  assertEquals(b.vm.mmio.read(at + 0x80, 1, vcpu), 0x35);
  assertEquals(b.vm.mmio.read(at + 0x30, 2, vcpu), 0x0010);
  assertEquals(b.vm.mmio.read(at + 0x32, 1, vcpu), 0x05);
  assertEquals(b.vm.mmio.read(at + 0x84, 4, vcpu), 0);
  assertEquals([b.vm.mmio.read(at + 0x80, 8, vcpu), b.vm.mmio.high], [0x35, 0]);
  b.vm.mmio.write(at + 0x80, 1, 0x50, 0, vcpu);
  b.vm.mmio.write(at + 0x84, 4, 0x50, 0, vcpu);
  assertEquals(b.read(0x80), 0x35);
  b.vm.mmio.write(at + 0x80, 8, 0x50, 0xff, vcpu);
  assertEquals(b.read(0x80), 0x50);
});

/** x2APIC: MSR, whether it can be read, and a value that can be written, if any. */
type X2Row = readonly [msr: number, read: boolean, write: number | undefined];
const X2APIC: readonly X2Row[] = [
  [0x802, true, undefined],
  [0x803, true, undefined],
  [0x808, true, 0xff],
  [0x80a, true, undefined],
  [0x80b, false, 0],
  [0x80d, true, undefined],
  [0x80f, true, 0x3ff],
  ...Array.from({ length: 24 }, (_, k): X2Row => [0x810 + k, true, undefined]),
  [0x828, true, 0],
  [0x830, true, 0x000c_8fff & ~0x700],
  [0x833, true, 0x1_07ff],
  [0x834, true, 0x1_07ff],
  [0x838, true, 0xffff_ffff],
  [0x839, true, undefined],
  [0x83e, true, 0xb],
  [0x83f, false, 0xff],
];
const BY_VENDOR: Readonly<Record<LapicVendor, readonly X2Row[]>> = {
  amd: [
    [0x809, true, undefined],
    [0x832, true, 0x3_00ff],
    [0x835, true, 0x1_87ff],
    [0x836, true, 0x1_87ff],
    [0x837, true, 0x1_07ff],
  ],
  intel: [
    [0x832, true, 0x3_00ff],
    [0x835, true, 0x1_a7ff],
    [0x836, true, 0x1_a7ff],
    [0x837, true, 0x1_00ff],
  ],
};
/** Bits 12, 14 of LVT entries can be written and stay as they are; bits of the ICR that are reserved. */
const IGNORED: ReadonlyMap<number, number> = new Map([
  [0x832, 0x1000],
  [0x833, 0x1000],
  [0x834, 0x1000],
  [0x835, 0x5000],
  [0x836, 0x5000],
  [0x837, 0x1000],
  [0x830, 0x4700],
]);

for (const vendor of VENDORS) {
  Deno.test(`${vendor}, x2APIC: which MSRs there are, and which bits are #GP`, () => {
    using b = board({ vendor });
    toX2apic(b);
    const rows = new Map([...X2APIC, ...BY_VENDOR[vendor]].map((row) => [row[0], row]));
    for (let msr = 0x800; msr < 0x900; msr++) {
      const [, read, write] = rows.get(msr) ?? [msr, false, undefined];
      assertEquals([msr, b.rdmsr(msr) !== undefined], [msr, read]);
      if (write === undefined) {
        assertEquals([msr, b.wrmsr(msr, 0)], [msr, false]);
        continue;
      }
      for (let bit = 0; bit < 32; bit++) {
        // Not something that sends messages that cannot be sent here.
        if (msr === 0x830 && (bit === 8 || bit === 9 || bit === 10)) continue;
        const good = ((write | (IGNORED.get(msr) ?? 0)) & 1 << bit) !== 0;
        assertEquals([msr, bit, b.wrmsr(msr, 1 << bit)], [msr, bit, good]);
      }
      assertEquals([msr, b.wrmsr(msr, 0, 1)], [msr, msr === 0x830]);
      if (msr === 0x80b || msr === 0x828 || msr === 0x83f || msr === 0x830) continue;
      assertEquals(b.wrmsr(msr, write), true);
      // Written while the APIC is off by software, LVT entries would be masked.
      if (msr === 0x80f) continue;
      assertEquals([msr, b.rdmsr(msr)], [msr, BigInt(write >>> 0)]);
      b.wrmsr(0x80f, 0x1ff);
    }
  });

  Deno.test(`${vendor}: x2APIC MSRs are #GP outside x2APIC mode`, () => {
    using b = board({ vendor });
    for (let msr = 0x800; msr < 0x900; msr++) {
      assertEquals([b.rdmsr(msr), b.wrmsr(msr, 0)], [undefined, false]);
    }
    // And the page is not there in x2APIC mode.
    toX2apic(b);
    b.write(0x80, 0x40);
    assertEquals([b.read(0x80), b.rdmsr(0x808)], [0xffff_ffff, 0n]);
  });
}

Deno.test("x2APIC with options: bits 18, 12, 83Fh and 82Fh", () => {
  using b = board({ vendor: "intel", tscDeadline: true, cmci: true, eoiSuppression: true });
  toX2apic(b);
  assertEquals([b.wrmsr(0x832, 0x4_0000), b.wrmsr(0x80f, 0x11ff)], [true, true]);
  assertEquals([b.wrmsr(0x82f, 0x1_0745), b.rdmsr(0x82f)], [true, 0x1_0745n]);
  assertEquals(b.wrmsr(0x82f, 0x800), false);
});

Deno.test("the ICR's halves: AMD splits it in the page, Intel does not", () => {
  for (const [vendor, high] of [["amd", 0x310], ["intel", 0x304]] as const) {
    using b = board({ vendor, cpus: 2 });
    toX2apic(b);
    assertEquals(b.wrmsr(0x830, 0x4031, 0x1234_5678), true);
    const [apic] = b.apics;
    assertEquals(apic!.registers.get(0x300), 0x4031);
    assertEquals(apic!.registers.get(high), 0x1234_5678);
    assertEquals(b.rdmsr(0x830), 0x1234_5678_0000_4031n);
  }
});

Deno.test("the page in host memory is the register file", () => {
  using b = board({ cpus: 2 });
  const memory = b.vm.hostMemory.current;
  b.write(0x80, 0x27, 1);
  const [, apic] = b.apics;
  assertEquals(memory.readU32(apic!.pageHpa + 0x80), 0x27);
  assertEquals(apic!.pageHpa % 4096, 0);
  // What a processor puts there counts.
  memory.writeU32(apic!.pageHpa + 0x210, 0x4);
  assertEquals(apic!.highestIrr, 34);
  memory.writeU32(apic!.pageHpa + 0x80, 0x30);
  assertEquals([apic!.updatePpr(), apic!.deliverable], [0x30, -1]);
});

Deno.test("the extended register space", () => {
  using b = board({ extended: true });
  assertEquals(b.read(0x30), 0x8005_0010);
  assertEquals(b.read(0x400), 0x0004_0007);
  for (let k = 0; k < 8; k++) assertEquals(b.read(0x480 + 0x10 * k), 0xffff_ffff);
  for (let k = 0; k < 4; k++) assertEquals(b.read(0x500 + 0x10 * k), 0x1_0000);
  const [apic] = b.apics;
  // IER: requests that are not enabled do not count while the control register says so.
  apic!.accept(0x61, false);
  apic!.accept(0x52, false);
  b.write(0x480 + 0x30, 0xffff_fffd);
  assertEquals(apic!.deliverable, 0x61);
  b.write(0x410, 1);
  assertEquals(apic!.deliverable, 0x52);
  b.write(0x480 + 0x30, 0xffff_ffff);
  // SEOI ends what it names, and only if enabled.
  assertEquals(apic!.acknowledge(), 0x61);
  apic!.accept(0x73, false);
  assertEquals(apic!.acknowledge(), 0x73);
  b.write(0x420, 0x61);
  assertEquals(apic!.registers.hasVector(0x100, 0x61), true);
  b.write(0x410, 2);
  b.write(0x420, 0x61);
  assertEquals([apic!.registers.hasVector(0x100, 0x61), apic!.highestIsr], [false, 0x73]);
});
