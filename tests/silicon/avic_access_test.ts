/**
 * AVIC: every register of the APIC page and every x2APIC MSR, read and written, against table 15-22 of
 * the APM and the register list of chapter 16.
 */
import { assertEquals } from "@std/assert";
import { Control, Msr } from "../../plugins/cpu/mod.ts";
import {
  APIC_BASE,
  type AvicCpu,
  AvicLab,
  Exit,
  load32,
  Place,
  rdmsr,
  RDMSR_AT,
  store32,
  STORE_AT,
  wrmsr,
  WRMSR_AT,
} from "./avic_lab.ts";
import { code, dword } from "./code.ts";

type Rule = "allow" | "trap" | "fault" | "tpr" | "eoi" | "icr" | "self";

/** Offset, read, write; what is not listed is memory below 540h and faults above. */
const TABLE: readonly (readonly [number, number, Rule, Rule])[] = [
  [0x020, 1, "allow", "trap"],
  [0x030, 1, "allow", "fault"],
  [0x080, 1, "allow", "tpr"],
  [0x090, 1, "fault", "fault"],
  [0x0a0, 1, "allow", "fault"],
  [0x0b0, 1, "allow", "eoi"],
  [0x0c0, 1, "allow", "trap"],
  [0x0d0, 1, "allow", "trap"],
  [0x0e0, 1, "allow", "trap"],
  [0x0f0, 1, "allow", "trap"],
  [0x100, 8, "allow", "fault"],
  [0x180, 8, "allow", "fault"],
  [0x200, 8, "allow", "fault"],
  [0x280, 1, "allow", "trap"],
  [0x300, 1, "allow", "icr"],
  [0x310, 1, "allow", "allow"],
  [0x320, 1, "allow", "trap"],
  [0x330, 1, "allow", "trap"],
  [0x340, 1, "allow", "trap"],
  [0x350, 2, "allow", "trap"],
  [0x370, 1, "allow", "trap"],
  [0x380, 1, "allow", "trap"],
  [0x390, 1, "fault", "fault"],
  [0x3e0, 1, "allow", "trap"],
  [0x3f0, 1, "allow", "self"],
  [0x400, 3, "fault", "fault"],
  [0x480, 8, "fault", "fault"],
];
/** With CPUID 8000_000Ah EDX[27] reading is allowed and writing a trap; without, both fault. */
const EXTENDED_LVT = [0x500, 4] as const;

function ruleOf(offset: number, write: boolean, extendedLvt: boolean): Rule {
  for (const [first, count, read, written] of TABLE) {
    if (offset >= first && offset < first + 16 * count) return write ? written : read;
  }
  const [first, count] = EXTENDED_LVT;
  if (offset >= first && offset < first + 16 * count) {
    return extendedLvt ? (write ? "trap" : "allow") : "fault";
  }
  return offset >= 0x540 ? "fault" : "allow";
}

function lab(options: ConstructorParameters<typeof AvicLab>[2] = {}): AvicCpu {
  const made = new AvicLab(1, 3, options);
  const cpu = made.cpus[0]!;
  made.setPhysical(0, cpu.page, true, 0);
  return cpu;
}

/** Values that a read must return, other than what a fresh page has. */
function fill(cpu: AvicCpu): void {
  for (let register = 0; register < 256; register++) {
    // Bits that say nothing to AVIC where it looks: no vectors in ISR, IRR, TMR, priority 0.
    const quiet = (register >= 0x10 && register < 0x28) || register === 8;
    cpu.setApic(16 * register, quiet ? 0 : 0x1000_0000 + register);
  }
}

function exitOf(cpu: AvicCpu): [bigint, number, number] {
  const info = cpu.get64(Control.EXITINFO1);
  return [cpu.get64(Control.EXITCODE), Number(info >> 32n), Number(info & 0xffff_ffffn)];
}

for (const extendedLvt of [true, false]) {
  const cpu = lab({ features: { avic_extlvt: extendedLvt } });
  const name = extendedLvt ? "" : " (without the change to extended LVTs)";

  Deno.test(`xAVIC: reads of all registers${name}`, () => {
    for (let offset = 0; offset < 0x1000; offset += 16) {
      cpu.prepare("xavic");
      fill(cpu);
      cpu.program(load32(offset));
      const code = cpu.run();
      const label = `read of ${offset.toString(16)}h`;
      if (ruleOf(offset, false, extendedLvt) === "fault") {
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 0, offset], label);
        assertEquals(cpu.rip, Place.CODE + STORE_AT, label);
        assertEquals(cpu.get64(Control.NRIP), 0n, label);
      } else {
        assertEquals(code, Exit.VMMCALL, label);
        assertEquals(Number(cpu.register(0)), cpu.apic(offset), label);
      }
    }
  });

  Deno.test(`xAVIC: writes of all registers${name}`, () => {
    for (let offset = 0; offset < 0x1000; offset += 16) {
      cpu.prepare("xavic");
      fill(cpu);
      const before = cpu.registers();
      // To the ICR: an IPI to itself of vector 31h, masked by RFLAGS.IF. To TPR: 31h.
      const value = offset === 0x300 ? 0x4_0031 : offset === 0xb0 ? 0 : 0x31;
      const length = cpu.program(store32(offset, value));
      cpu.run();
      const label = `write of ${offset.toString(16)}h`;
      const after = before.slice();
      const rule = ruleOf(offset, true, extendedLvt);
      if (rule !== "fault") after[offset >> 4] = value;
      if (rule === "fault") {
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 1, offset], label);
        assertEquals(cpu.rip, Place.CODE + STORE_AT, label);
      } else if (rule === "trap") {
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 1, offset], label);
        assertEquals(cpu.rip, Place.CODE + length, label);
      } else {
        assertEquals(cpu.get64(Control.EXITCODE), Exit.VMMCALL, label);
      }
      // SELF_IPI does not exist in the page.
      if (rule === "icr") after[0x21] = 1 << 17;
      // PPR follows TPR; any evaluation writes it.
      after[0xa] = cpu.apic(0xa0);
      assertEquals(cpu.registers(), after, label);
      assertEquals(cpu.apic(0xa0), rule === "tpr" ? 0x31 : 0, label);
      assertEquals(cpu.get32(Control.INT_CONTROL) & 0xff, rule === "tpr" ? 3 : 0, label);
    }
  });
}

Deno.test("xAVIC: what is not a register's first dword is memory", () => {
  const cpu = lab();
  for (const offset of [0x0b4, 0x304, 0x08c, 0x108, 0x39c]) {
    cpu.prepare("xavic");
    fill(cpu);
    cpu.program(store32(offset, 0x1234_5678), load32(offset));
    assertEquals(cpu.run(), Exit.VMMCALL);
    assertEquals(cpu.register(0), 0x1234_5678n);
    assertEquals(cpu.apic(offset), 0x1234_5678);
  }
});

Deno.test("xAVIC: fetches from the APIC page are not AVIC's", () => {
  const cpu = lab();
  cpu.prepare("xavic");
  cpu.lab.memory.write(cpu.lab.scratch, new Uint8Array(code("0f 01 d9")));
  cpu.program("bb", dword(APIC_BASE), "ff e3");
  assertEquals([cpu.run(), cpu.rip], [Exit.VMMCALL, APIC_BASE]);
});

Deno.test("x2AVIC: the page at the APIC's address is memory like any other", () => {
  const cpu = lab();
  cpu.prepare("x2avic");
  fill(cpu);
  const before = cpu.registers();
  cpu.program(store32(0x300, 0xabcd), load32(0x390));
  cpu.lab.memory.writeU32(cpu.lab.scratch + 0x390, 77);
  assertEquals([cpu.run(), cpu.register(0)], [Exit.VMMCALL, 77n]);
  assertEquals(cpu.lab.memory.readU32(cpu.lab.scratch + 0x300), 0xabcd);
  before[0xa] = 0;
  assertEquals(cpu.registers(), before);
});

/** MSRs that do not exist, or refuse one kind of access, by offset / 16. */
const NO_MSR = new Set([0x0c, 0x0e, 0x31, 0x2f]);
function refused(register: number, write: boolean): boolean {
  if (register === 2) return write;
  if (register === 0x3f) return !write;
  const listed =
    TABLE.some(([first, count]) => register * 16 >= first && register * 16 < first + 16 * count) ||
    (register >= 0x50 && register < 0x54);
  return NO_MSR.has(register) || !listed;
}

for (const extendedLvt of [true, false]) {
  const cpu = lab({ features: { avic_extlvt: extendedLvt } });
  const name = extendedLvt ? "" : " (without the change to extended LVTs)";

  Deno.test(`x2AVIC: RDMSR of 800h–8FFh${name}`, () => {
    for (let register = 0; register < 256; register++) {
      cpu.prepare("x2avic");
      fill(cpu);
      cpu.program(rdmsr(0x800 + register));
      cpu.run();
      const label = `RDMSR ${(0x800 + register).toString(16)}h`;
      if (refused(register, false)) {
        assertEquals(cpu.get64(Control.EXITCODE), Exit.EXCEPTION_GP, label);
      } else if (ruleOf(16 * register, false, extendedLvt) === "fault") {
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 0, 16 * register], label);
        assertEquals(cpu.rip, Place.CODE + RDMSR_AT, label);
      } else {
        assertEquals(cpu.get64(Control.EXITCODE), Exit.VMMCALL, label);
        assertEquals(Number(cpu.register(0)), cpu.apic(16 * register), label);
        const high = register === 0x30 ? cpu.apic(0x310) : 0;
        assertEquals(Number(cpu.register(2)), high, label);
      }
    }
  });

  Deno.test(`x2AVIC: WRMSR of 800h–8FFh${name}`, () => {
    for (let register = 0; register < 256; register++) {
      cpu.prepare("x2avic");
      fill(cpu);
      const before = cpu.registers();
      const offset = 16 * register;
      // A value that every register takes: 0, but a vector that can be sent where one is.
      const value = register === 0x30 ? 0x4_0031 : register === 0x3f ? 0x31 : 0;
      const length = cpu.program(wrmsr(0x800 + register, BigInt(value)));
      cpu.run();
      const label = `WRMSR ${(0x800 + register).toString(16)}h`;
      const rule = refused(register, true) ? "gp" : ruleOf(offset, true, extendedLvt);
      const after = before.slice();
      if (rule === "gp") {
        assertEquals(cpu.get64(Control.EXITCODE), Exit.EXCEPTION_GP, label);
        assertEquals(cpu.rip, Place.CODE + WRMSR_AT, label);
      } else if (rule === "fault") {
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 1, offset], label);
        assertEquals(cpu.rip, Place.CODE + WRMSR_AT, label);
      } else if (rule === "trap") {
        after[register] = value;
        assertEquals(exitOf(cpu), [Exit.NOACCEL, 1, offset], label);
        assertEquals(cpu.rip, Place.CODE + length, label);
      } else {
        after[register] = value;
        if (register === 0x30) after[0x31] = 0;
        if (rule === "icr" || rule === "self") after[0x21] = 1 << 17;
        assertEquals(cpu.get64(Control.EXITCODE), Exit.VMMCALL, label);
      }
      after[0xa] = cpu.apic(0xa0);
      assertEquals(cpu.registers(), after, label);
    }
  });
}

/** Reserved bits of MSRs that are written; #GP, ahead of any exit (lapic.md, table 1). */
const RESERVED: readonly (readonly [number, bigint])[] = [
  [0x808, 0xffff_ffff_ffff_ff00n],
  [0x80b, 0xffff_ffff_ffff_ffffn],
  [0x80f, 0xffff_ffff_ffff_fc00n],
  [0x828, 0xffff_ffff_ffff_ffffn],
  [0x830, 0x0000_0000_fff3_3000n],
  [0x832, 0xffff_ffff_fffc_ef00n],
  [0x833, 0xffff_ffff_fffe_e800n],
  [0x834, 0xffff_ffff_fffe_e800n],
  [0x835, 0xffff_ffff_fffe_2800n],
  [0x836, 0xffff_ffff_fffe_2800n],
  [0x837, 0xffff_ffff_fffe_e800n],
  [0x838, 0xffff_ffff_0000_0000n],
  [0x83e, 0xffff_ffff_ffff_fff4n],
  [0x83f, 0xffff_ffff_ffff_ff00n],
];

Deno.test("x2AVIC: every reserved bit is #GP, TSC-deadline mode among them", () => {
  const cpu = lab();
  for (const [index, mask] of RESERVED) {
    for (let bit = 0n; bit < 64n; bit++) {
      cpu.prepare("x2avic");
      fill(cpu);
      cpu.program(wrmsr(index, 1n << bit));
      cpu.run();
      const gp = cpu.get64(Control.EXITCODE) === Exit.EXCEPTION_GP;
      assertEquals(gp, (mask >> bit & 1n) !== 0n, `${index.toString(16)}h bit ${bit}`);
    }
  }
});

Deno.test("x2AVIC: the permission map comes first, then #GP, then AVIC", () => {
  const cpu = lab();
  const { memory } = cpu.lab;
  const map = memory.alloc(0x2000);
  const guard = (index: number, value: bigint | undefined, bit: number): bigint => {
    cpu.prepare("x2avic");
    fill(cpu);
    memory.fill(map, 0x2000, 0);
    const at = map + 2 * index / 8;
    memory.writeU8(Math.floor(at), (1 << bit) << (2 * (index & 3)));
    cpu.set32(0x00c, cpu.get32(0x00c) | 0x1000_0000);
    cpu.set64(Control.MSRPM_BASE_PA, BigInt(map));
    cpu.program(value === undefined ? rdmsr(index) : wrmsr(index, value));
    return cpu.run();
  };
  // LVTT with bit 18: an exit if it is intercepted, #GP otherwise.
  assertEquals(guard(0x832, 0x4_0000n, 1), Exit.MSR);
  assertEquals(cpu.get64(Control.EXITINFO1), 1n);
  assertEquals(Number(cpu.get64(Control.NRIP)), Place.CODE + WRMSR_AT + 2);
  assertEquals(guard(0x832, 0x4_0000n, 0), Exit.EXCEPTION_GP);
  assertEquals(guard(0x832, 0n, 0), Exit.NOACCEL);
  assertEquals(guard(0x839, undefined, 0), Exit.MSR);
  assertEquals(cpu.get64(Control.EXITINFO1), 0n);
  assertEquals(guard(0x839, undefined, 1), Exit.NOACCEL);
  assertEquals(guard(0x83f, undefined, 1), Exit.EXCEPTION_GP);
});

Deno.test("xAVIC has no x2APIC MSRs of its own", () => {
  const cpu = lab();
  cpu.prepare("xavic");
  cpu.program(rdmsr(0x803));
  assertEquals(cpu.run(), Exit.EXCEPTION_GP);
});

Deno.test("the doorbell MSR is write-only and takes an ID of 32 bits", () => {
  const cpu = lab();
  const { processor } = cpu;
  assertEquals(processor.readMsr(Msr.AVIC_DOORBELL), undefined);
  assertEquals(processor.writeMsr(Msr.AVIC_DOORBELL, 0xffff_ffffn), true);
  for (let bit = 32n; bit < 64n; bit++) {
    assertEquals(processor.writeMsr(Msr.AVIC_DOORBELL, 1n << bit), false);
  }
});

Deno.test("REP MOVS to the page: one exit for each access that traps", () => {
  const cpu = lab();
  cpu.prepare("xavic");
  const { memory } = cpu.lab;
  for (let k = 0; k < 3; k++) memory.writeU32(cpu.base + Place.DATA + 4 * k, 0x100 + k);
  // Three dwords from 80FCh on: only the middle one reaches a register's first dword.
  const length = cpu.program(
    "be",
    dword(Place.DATA),
    "bf",
    dword(APIC_BASE + 0x3dc),
    "b9",
    dword(3),
    "f3 a5",
  );
  assertEquals(cpu.run(), Exit.NOACCEL);
  assertEquals(exitOf(cpu), [Exit.NOACCEL, 1, 0x3e0]);
  assertEquals([cpu.rip, cpu.register(1)], [Place.CODE + length - 2, 1n]);
  assertEquals(cpu.run(), Exit.VMMCALL);
  assertEquals([cpu.apic(0x3dc), cpu.apic(0x3e0), cpu.apic(0x3e4)], [0x100, 0x101, 0x102]);
});
