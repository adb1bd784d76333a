/**
 * AVIC: which interrupt is delivered and when, priorities, EOI, and what VMRUN checks and loads
 * (APM vol. 2, 15.29.2–15.29.5 and 16.6).
 */
import { assertEquals } from "@std/assert";
import { Control, IntControl, Save } from "../../plugins/cpu/mod.ts";
import {
  APIC_BASE,
  type AvicCpu,
  AvicLab,
  Exit,
  load32,
  type Mode,
  Place,
  rdmsr,
  store32,
  wrmsr,
} from "./avic_lab.ts";
import { dword } from "./code.ts";

const MODES: readonly Mode[] = ["xavic", "x2avic"];
const lab = new AvicLab(1, 3);
const cpu: AvicCpu = lab.cpus[0]!;

function start(mode: Mode, interrupts: boolean): void {
  lab.clearPhysical();
  lab.memory.fill(cpu.page, 0x1000, 0);
  lab.setPhysical(0, cpu.page, true, 0);
  cpu.prepare(mode, interrupts);
}

const write = (mode: Mode, offset: number, value: number): number[] =>
  mode === "xavic" ? store32(offset, value) : wrmsr(0x800 + (offset >> 4), BigInt(value));

/** PPR by the rule of the manual. */
function priorityOf(tpr: number, service: number): number {
  return (tpr >> 4) >= (service >> 4) ? tpr : service & 0xf0;
}

Deno.test("VMRUN: an interrupt is delivered if its class is above TPR's and ISR's", () => {
  for (const requested of [0x10, 0x1f, 0x20, 0x45, 0x4f, 0x50, 0xf0, 0xff]) {
    for (const priority of [0, 0x1, 0x3, 0x4, 0x5, 0xe, 0xf]) {
      for (const service of [0, 0x31, 0x44, 0x4e, 0x51, 0xef]) {
        start("xavic", true);
        cpu.setVector(0x200, requested);
        if (service !== 0) cpu.setVector(0x100, service);
        cpu.setApic(0x80, priority << 4);
        cpu.set32(Control.INT_CONTROL, cpu.get32(Control.INT_CONTROL) | priority);
        cpu.program();
        assertEquals(cpu.run(), Exit.VMMCALL);
        const ppr = priorityOf(priority << 4, service);
        const wins = (requested >> 4) > (ppr >> 4);
        const label = `${requested.toString(16)}h, TPR ${priority}, ISR ${service.toString(16)}h`;
        assertEquals(cpu.handled, wins ? requested : -1, label);
        assertEquals(cpu.vector(0x200, requested), !wins, label);
        assertEquals(cpu.vector(0x100, requested), wins || requested === service, label);
        assertEquals(cpu.apic(0xa0), wins ? requested & 0xf0 : ppr, label);
      }
    }
  }
});

Deno.test("it is V_TPR in the VMCB that counts, not the page's TPR", () => {
  start("xavic", true);
  cpu.setVector(0x200, 0x55);
  cpu.setApic(0x80, 0xf0);
  cpu.program();
  cpu.run();
  assertEquals(cpu.handled, 0x55);
  start("xavic", true);
  cpu.setVector(0x200, 0x55);
  cpu.set32(Control.INT_CONTROL, cpu.get32(Control.INT_CONTROL) | 0xf);
  cpu.program();
  cpu.run();
  assertEquals(cpu.handled, -1);
});

Deno.test("it waits for RFLAGS.IF and the end of an interrupt shadow", () => {
  start("xavic", false);
  cpu.setVector(0x200, 0x61);
  const length = cpu.program("90 fb 90 90");
  cpu.run();
  assertEquals(cpu.handled, 0x61);
  // The interrupt comes behind the instruction after STI.
  const frame = lab.memory.readU64(cpu.base + Place.STACK - 40);
  assertEquals(Number(frame), Place.CODE + length - 1);
});

Deno.test("the highest comes first, the next one when it fits", () => {
  start("xavic", true);
  for (const vector of [0x31, 0x71, 0x75, 0xa2]) cpu.setVector(0x200, vector);
  // Handlers of this test say EOI and return.
  const handler = [...store32(0xb0, 0), 0x48, 0xcf];
  const old = lab.memory.view(cpu.base + Place.HANDLERS, 0x1000).slice();
  const order: number[] = [];
  for (const vector of [0x31, 0x71, 0x75, 0xa2]) {
    lab.memory.write(
      cpu.base + Place.HANDLERS + 16 * vector,
      new Uint8Array([0x0f, 0x01, 0xd9, ...handler]),
    );
  }
  cpu.program("90");
  for (let k = 0; k < 4; k++) {
    assertEquals(cpu.run(), Exit.VMMCALL);
    order.push(cpu.handled);
    cpu.set64(Save.RIP, cpu.get64(Save.RIP) + 3n);
  }
  assertEquals(order, [0xa2, 0x75, 0x71, 0x31]);
  assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, -1]);
  lab.memory.write(cpu.base + Place.HANDLERS, old);
  assertEquals([cpu.apic(0xa0), cpu.vector(0x100, 0x31)], [0, false]);
});

Deno.test("a write of IRR in memory goes unnoticed until hardware looks", () => {
  start("xavic", true);
  // The guest itself sets IRR through another mapping of the page; then lowers TPR.
  cpu.set32(Control.INT_CONTROL, cpu.get32(Control.INT_CONTROL));
  const irr = 0x200 + 0x20;
  const alias = 0x10_0000 - 0x1000;
  const tables = lab.nested(cpu.base);
  const pdpt = Number(lab.memory.readU64(tables) & ~0xfffn);
  const directory = Number(lab.memory.readU64(pdpt) & ~0xfffn);
  const table = Number(lab.memory.readU64(directory) & ~0xfffn);
  lab.memory.writeU64(table + 8 * (alias >> 12), BigInt(cpu.page) | 7n);
  cpu.program(
    "bb",
    dword(alias + irr),
    "c7 03",
    dword(1),
    "90 90 90 b9 07 00 00 00",
    store32(0x80, 0),
    "b9 08 00 00 00",
  );
  assertEquals([cpu.run(), cpu.handled, cpu.register(1)], [Exit.VMMCALL, 0x40, 7n]);
  lab.memory.writeU64(table + 8 * (alias >> 12), BigInt(cpu.base + alias) | 7n);
});

for (const mode of MODES) {
  Deno.test(`${mode}: TPR and CR8 are one register`, () => {
    for (let priority = 0; priority < 16; priority++) {
      start(mode, false);
      // mov eax, priority; mov cr8, rax; then read TPR.
      cpu.program(
        "b8",
        dword(priority),
        "44 0f 22 c0",
        mode === "xavic" ? load32(0x80) : rdmsr(0x808),
      );
      assertEquals(cpu.run(), Exit.VMMCALL);
      assertEquals(Number(cpu.register(0)), priority << 4);
      assertEquals(cpu.get32(Control.INT_CONTROL) & 0xff, priority);
      start(mode, false);
      cpu.program(write(mode, 0x80, (priority << 4) | 5), "44 0f 20 c0");
      assertEquals(cpu.run(), Exit.VMMCALL);
      assertEquals(Number(cpu.register(0)), priority);
      assertEquals(cpu.apic(0x80), (priority << 4) | 5);
      assertEquals(cpu.apic(0xa0), (priority << 4) | 5);
    }
  });

  Deno.test(`${mode}: lowering TPR delivers what it held back`, () => {
    start(mode, true);
    cpu.setVector(0x200, 0x55);
    cpu.set32(Control.INT_CONTROL, cpu.get32(Control.INT_CONTROL) | 5);
    cpu.setApic(0x80, 0x50);
    const length = cpu.program("90", write(mode, 0x80, 0x4f));
    assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, 0x55]);
    assertEquals(Number(lab.memory.readU64(cpu.base + Place.STACK - 40)), Place.CODE + length);
  });

  Deno.test(`${mode}: EOI of an edge-triggered interrupt is done in hardware`, () => {
    start(mode, true);
    cpu.setVector(0x100, 0x62);
    cpu.setVector(0x100, 0x35);
    cpu.setVector(0x200, 0x58);
    cpu.program(write(mode, 0xb0, 0));
    assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, 0x58]);
    assertEquals([cpu.vector(0x100, 0x62), cpu.vector(0x100, 0x35)], [false, true]);
  });

  Deno.test(`${mode}: EOI of a level-triggered one exits behind it, with the vector`, () => {
    start(mode, false);
    cpu.setVector(0x100, 0x62);
    cpu.setVector(0x180, 0x62);
    const length = cpu.program(write(mode, 0xb0, 0));
    assertEquals([cpu.run(), cpu.rip], [Exit.NOACCEL, Place.CODE + length]);
    assertEquals(cpu.get64(Control.EXITINFO1), 0x1_0000_00b0n);
    assertEquals(cpu.get64(Control.EXITINFO2) & 0xffn, 0x62n);
    // The choice made in svm/avic/registers.ts.
    assertEquals(cpu.vector(0x100, 0x62), true);
  });

  Deno.test(`${mode}: EOI with nothing in service is nothing`, () => {
    start(mode, true);
    cpu.program(write(mode, 0xb0, 0));
    assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, -1]);
  });

  Deno.test(`${mode}: V_IRQ and what belongs to it are ignored`, () => {
    start(mode, true);
    cpu.set32(
      Control.INT_CONTROL,
      cpu.get32(Control.INT_CONTROL) | IntControl.V_IRQ | IntControl.V_IGN_TPR | 0xf_0000,
    );
    cpu.set32(Control.INT_CONTROL + 4, 0x77);
    cpu.program("90 90");
    assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, -1]);
  });
}

Deno.test("a halted guest is woken by its doorbell", () => {
  start("xavic", true);
  // HLT is not intercepted here.
  cpu.set32(0x00c, cpu.get32(0x00c) & ~0x100_0000);
  cpu.program(store32(0x300, 0x4_0044), "f4");
  assertEquals([cpu.run(), cpu.handled], [Exit.VMMCALL, 0x44]);
});

Deno.test("an exit behind the instruction comes after the single-step trap of that instruction", () => {
  start("xavic", false);
  cpu.set64(Save.RFLAGS, 0x102n);
  const length = cpu.program("90", store32(0xf0, 0x1ff));
  // #DB is not intercepted in this lab; its handler makes a hypercall.
  const rips: number[] = [];
  const codes: bigint[] = [];
  for (let k = 0; k < 3; k++) {
    codes.push(cpu.run());
    rips.push(cpu.rip - Place.HANDLERS);
    if (codes[k] === Exit.VMMCALL) {
      // Back to where the trap came from.
      cpu.set64(Save.RIP, lab.memory.readU64(cpu.base + Place.STACK - 40));
      cpu.set64(Save.RSP, BigInt(Place.STACK));
      cpu.set64(Save.RFLAGS, 0x102n);
    }
  }
  assertEquals(codes, [Exit.VMMCALL, Exit.VMMCALL, Exit.NOACCEL]);
  assertEquals(rips[2], 16);
  const pushed = lab.memory.readU64(cpu.base + Place.STACK - 40);
  assertEquals(Number(pushed), Place.CODE + length);
});

// VMRUN's checks.

interface Check {
  readonly name: string;
  readonly mode: Mode;
  readonly options?: ConstructorParameters<typeof AvicLab>[2];
  readonly change: (cpu: AvicCpu) => void;
  readonly legal: boolean;
}

const setTable = (index: number) => (one: AvicCpu): void =>
  one.set64(Control.AVIC_PHYSICAL_TABLE, BigInt(one.lab.physical) | BigInt(index));
const set = (offset: number, value: bigint) => (one: AvicCpu): void => one.set64(offset, value);
const BEYOND = 1n << 48n;
const EXT_OFF = { features: { x2avic_ext: false } } as const;

const CHECKS: readonly Check[] = [
  { name: "a good one", mode: "xavic", change: () => {}, legal: true },
  { name: "a good one", mode: "x2avic", change: () => {}, legal: true },
  {
    name: "x2AVIC without AVIC",
    mode: "x2avic",
    change: (one) => one.set32(Control.INT_CONTROL, IntControl.X2AVIC),
    legal: false,
  },
  { name: "index 255", mode: "xavic", change: setTable(255), legal: true },
  { name: "index 256", mode: "xavic", change: setTable(256), legal: false },
  { name: "index 511", mode: "x2avic", options: EXT_OFF, change: setTable(511), legal: true },
  { name: "index 512", mode: "x2avic", options: EXT_OFF, change: setTable(512), legal: false },
  { name: "index 512, extended", mode: "x2avic", change: setTable(512), legal: true },
  { name: "index 4095, extended", mode: "x2avic", change: setTable(4095), legal: true },
  {
    name: "without the feature",
    mode: "xavic",
    options: { features: { avic: false } },
    change: () => {},
    legal: false,
  },
  {
    name: "without the feature",
    mode: "x2avic",
    options: { features: { x2avic: false } },
    change: () => {},
    legal: false,
  },
  {
    name: "without nested paging",
    mode: "xavic",
    change: (one) => one.set32(Control.NESTED_CONTROL, 0),
    legal: false,
  },
  ...[Control.AVIC_BACKING_PAGE, Control.AVIC_LOGICAL_TABLE, Control.AVIC_APIC_BAR].map(
    (offset): Check => ({
      name: `${offset.toString(16)}h not aligned`,
      mode: "xavic",
      change: (one) => one.set64(offset, one.get64(offset) | 0x800n),
      legal: false,
    }),
  ),
  ...[
    Control.AVIC_BACKING_PAGE,
    Control.AVIC_LOGICAL_TABLE,
    Control.AVIC_APIC_BAR,
    Control.AVIC_PHYSICAL_TABLE,
  ].map((offset): Check => ({
    name: `${offset.toString(16)}h beyond the physical addresses`,
    mode: "xavic",
    change: set(offset, BEYOND),
    legal: false,
  })),
  {
    name: "098h is not used",
    mode: "x2avic",
    change: set(Control.AVIC_APIC_BAR, BEYOND | 3n),
    legal: true,
  },
  {
    name: "0F0h is not used",
    mode: "x2avic",
    change: set(Control.AVIC_LOGICAL_TABLE, BEYOND | 3n),
    legal: true,
  },
  {
    name: "a backing page in no memory",
    mode: "x2avic",
    change: set(Control.AVIC_BACKING_PAGE, 0xf_0000_0000n),
    legal: false,
  },
];

for (const { name, mode, options, change, legal } of CHECKS) {
  Deno.test(`VMRUN in ${mode} mode: ${name}`, () => {
    const own = options === undefined ? cpu : new AvicLab(1, 3, options).cpus[0]!;
    own.prepare(mode);
    change(own);
    own.program();
    assertEquals(own.run(), legal ? Exit.VMMCALL : Exit.INVALID);
  });
}

Deno.test("translations to the APIC page outlive AVIC's being switched off until the TLB is flushed", () => {
  start("xavic", false);
  const keep = (): void => lab.memory.writeU8(cpu.vmcb + Control.TLB_CONTROL, 0);
  lab.memory.writeU32(lab.scratch + 0x20, 0x5c5c);
  cpu.setApic(0x20, 0x1111);
  const read = (): bigint => {
    cpu.program(load32(0x20));
    cpu.set64(Save.RIP, BigInt(Place.CODE));
    assertEquals(cpu.run(), Exit.VMMCALL);
    return cpu.register(0);
  };
  assertEquals(read(), 0x1111n);
  const avic = cpu.get32(Control.INT_CONTROL);
  keep();
  cpu.set32(Control.INT_CONTROL, avic | IntControl.X2AVIC);
  assertEquals(read(), 0x1111n, "stale");
  lab.memory.writeU8(cpu.vmcb + Control.TLB_CONTROL, 3);
  assertEquals(read(), 0x5c5cn);
  // And the other way round.
  keep();
  cpu.set32(Control.INT_CONTROL, avic);
  assertEquals(read(), 0x5c5cn, "stale");
  lab.memory.writeU8(cpu.vmcb + Control.TLB_CONTROL, 3);
  assertEquals(read(), 0x1111n);
});

Deno.test("INVLPG drops a translation to the APIC page", () => {
  start("xavic", false);
  cpu.setApic(0x20, 0x1111);
  lab.memory.writeU32(lab.scratch + 0x20, 0x5c5c);
  cpu.program(load32(0x20));
  cpu.run();
  lab.memory.writeU8(cpu.vmcb + Control.TLB_CONTROL, 0);
  cpu.set32(Control.INT_CONTROL, cpu.get32(Control.INT_CONTROL) | IntControl.X2AVIC);
  cpu.set64(Save.RIP, BigInt(Place.CODE));
  cpu.program("bb", dword(APIC_BASE), "0f 01 3b", load32(0x20));
  assertEquals([cpu.run(), cpu.register(0)], [Exit.VMMCALL, 0x5c5cn]);
});
