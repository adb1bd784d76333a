import { assertEquals } from "@std/assert";
import { Gpr, type Segment } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import {
  descriptorTable,
  enterLong64,
  enterProtected32,
  enterReal,
  identityTables,
  identityTableSize,
} from "./entry.ts";

/** State after a mode was set up over a vCPU in which everything was different. */
function enter(how: (vcpu: Parameters<typeof enterReal>[0]) => void) {
  using machine = scriptedVm();
  const { vcpu, vendor } = machine;
  for (let i = 0; i <= Gpr.RFLAGS; i++) vcpu.regs.set(i, 0xdead_beef_dead_beefn);
  const state = vendor.getSystemState(vcpu);
  const other: Segment = { selector: 0x33, base: 5n, limit: 6, attributes: 0x7 };
  const { cs, ds, es, ss, fs, gs } = state;
  for (const segment of [cs, ds, es, ss, fs, gs]) Object.assign(segment, other);
  Object.assign(state, { cr2: 1n, cr3: 2n, cr4: 3n, efer: 4n, interruptShadow: true });
  vendor.setSystemState(vcpu, state);
  how(vcpu);
  const registers = Array.from({ length: Gpr.R31 + 1 }, (_, i) => vcpu.regs.get(i));
  return {
    state: vendor.getSystemState(vcpu),
    registers: registers.filter((value) => value !== 0n),
    rip: vcpu.regs.rip,
    rflags: vcpu.regs.rflags,
  };
}

const flatSegment = (selector: number, attributes: number): Segment => ({
  selector,
  base: 0n,
  limit: 0xffff_ffff,
  attributes,
});

Deno.test("the descriptor table holds flat segments in the format of the processor", () => {
  const entries = (bits: 32 | 64) => [...new BigUint64Array(descriptorTable(bits).buffer)];
  assertEquals(entries(32), [0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
  assertEquals(entries(64), [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
});

Deno.test("real mode", () => {
  const { state, registers, rip, rflags } = enter((vcpu) => enterReal(vcpu, 0x1234, 0x56));
  assertEquals([registers, rip, rflags], [[], 0x56n, 2n]);
  assertEquals(state.cs, { selector: 0x1234, base: 0x1_2340n, limit: 0xffff, attributes: 0x9b });
  for (const name of ["ds", "es", "ss", "fs", "gs"] as const) {
    assertEquals(state[name], { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 });
  }
  assertEquals([state.cr0, state.cr2, state.cr3, state.cr4, state.efer], [0x10n, 0n, 0n, 0n, 0n]);
  assertEquals([state.idt, state.interruptShadow], [{ base: 0n, limit: 0x3ff }, false]);
});

Deno.test("32-bit protected mode", () => {
  const gdt = { gpa: 0x1_1000, size: 24 };
  const { state, registers, rip, rflags } = enter((vcpu) => enterProtected32(vcpu, 0x10_0020, gdt));
  assertEquals([registers, rip, rflags], [[], 0x10_0020n, 2n]);
  assertEquals(state.cs, flatSegment(0x08, 0xc9b));
  for (const name of ["ds", "es", "ss", "fs", "gs"] as const) {
    assertEquals(state[name], flatSegment(0x10, 0xc93));
  }
  assertEquals([state.cr0, state.cr3, state.cr4, state.efer], [0x11n, 0n, 0n, 0n]);
  assertEquals([state.gdt, state.idt], [
    { base: 0x1_1000n, limit: 23 },
    { base: 0n, limit: 0 },
  ]);
});

Deno.test("64-bit mode", () => {
  const gdt = { gpa: 0x1_1000, size: 24 };
  const { state, rip } = enter((vcpu) => enterLong64(vcpu, 2 ** 40, gdt, 0x1_2000));
  assertEquals(rip, 1n << 40n);
  assertEquals([state.cs, state.ss], [flatSegment(0x08, 0xa9b), flatSegment(0x10, 0xc93)]);
  assertEquals([state.cr0, state.cr3, state.cr4, state.efer], [
    0x8000_0011n,
    0x1_2000n,
    0x20n,
    0x500n,
  ]);
});

/** Walks page tables that lie at `base`; the physical address, or `undefined` where there is none. */
function walk(tables: Uint8Array, base: number, address: number): bigint | undefined {
  const view = new DataView(tables.buffer);
  const linear = BigInt(address);
  let table = 0;
  for (const shift of [39n, 30n, 21n]) {
    const entry = view.getBigUint64(table + 8 * Number(linear >> shift & 511n), true);
    if ((entry & 1n) === 0n) return undefined;
    if ((entry & 0x80n) !== 0n) {
      assertEquals([shift, entry & 0xfffn], [21n, 0x83n]);
      return (entry & ~0xfffn) + (linear & 0x1f_ffffn);
    }
    assertEquals(entry & 0xfffn, 3n);
    table = Number(entry & ~0xfffn) - base;
  }
  return undefined;
}

Deno.test("page tables map addresses to themselves, to 4 GiB at least", () => {
  const GIB = 2 ** 30;
  for (const [end, mapped] of [[0, 4], [4, 4], [4.5, 5], [7, 7], [512, 512], [513, 513]] as const) {
    const base = 0x1_0000;
    const tables = identityTables(base, end * GIB);
    assertEquals(tables.length, identityTableSize(end * GIB));
    assertEquals(tables.length, 4096 * (1 + Math.ceil(mapped / 512) + mapped));
    for (const address of [0, 0x1234, 0x1f_ffff, 0x20_0000, 3.7 * GIB, mapped * GIB - 1]) {
      const linear = Math.floor(address);
      assertEquals(walk(tables, base, linear), BigInt(linear), `${linear} of ${end} GiB`);
    }
    assertEquals(walk(tables, base, mapped * GIB), undefined);
  }
});
