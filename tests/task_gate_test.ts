/**
 * Task gates on the bare processor and under a hypervisor, which intercepts the switch: software
 * interrupts, INT3, INTO, and faults with and without an error code go to tasks of their own and back.
 */

import { assertEquals } from "@std/assert";
import { createVmSync, Gpr, type Plugin, type Segment, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const VENDORS: Readonly<Record<string, () => Plugin>> = { metal, svm };

const GDT = 0x1000;
const IDT = 0x2000;
const CODE = 0x1_0000;
const COUNTS = 0x6000;
/** Selectors; those of the tasks follow each other, and so do the TSSs. */
const CS = 0x08;
const DS = 0x10;
const TASKS = 0x18;
const TSS = 0x3000;
const TSS_BYTES = 0x100;
/** The old task's EIP, which a handler of a fault moves on. */
const OLD_EIP = TSS + 0x20;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);
const inc = (address: number): number[] => [0xff, 0x05, ...u32(address)];
const skip = (bytes: number): number[] => [0x83, 0x05, ...u32(OLD_EIP), bytes];
const pop = (address: number): number[] => [0x8f, 0x05, ...u32(address)];

/** A handler that counts, and begins anew when it is entered again. */
function handler(...code: number[][]): number[] {
  const body = [...code.flat(), 0xcf];
  return [...body, 0xeb, -(body.length + 2) & 0xff];
}

const HANDLERS: readonly (readonly number[])[] = [
  handler(inc(COUNTS)),
  handler(inc(COUNTS + 4), skip(2)),
  handler(pop(COUNTS + 12), inc(COUNTS + 8), skip(2)),
];
/** Vectors and the handlers, from 1 on, that their task gates lead to. */
const GATES: readonly (readonly [number, number])[] = [[3, 1], [4, 1], [0x40, 1], [6, 2], [13, 3]];

const GUEST: readonly number[] = [
  ...[0xcc, 0xcd, 0x40], // int3; int 40h
  ...[0xb0, 0x7f, 0x04, 0x01, 0xce], // mov al, 7Fh; add al, 1; into
  ...[0x0f, 0x0b], // ud2
  ...[0xb8, 0xf8, 0x7f, 0x00, 0x00, 0x8e, 0xd8], // mov eax, 7FF8h; mov ds, ax
  ...[0xcc, 0xf4], // int3; hlt
];

function descriptor(base: number, limit: number, access: number, flags: number): bigint {
  const low = (limit & 0xffff) | ((base & 0xffff) << 16);
  const high = ((base >> 16) & 0xff) | (access << 8) | (limit & 0xf_0000) | (flags << 20);
  return BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
}

function prepare(vm: Vm): void {
  const { memory } = vm;
  memory.writeU64(GDT + CS, descriptor(0, 0xf_ffff, 0x9b, 0xc));
  memory.writeU64(GDT + DS, descriptor(0, 0xf_ffff, 0x93, 0xc));
  for (let k = 0; k <= HANDLERS.length; k++) {
    const at = TSS + k * TSS_BYTES;
    memory.writeU64(GDT + TASKS + 8 * k, descriptor(at, 0x67, k === 0 ? 0x8b : 0x89, 0));
    const code = HANDLERS[k - 1];
    if (code === undefined) continue;
    const entry = CODE + 0x1000 * k;
    memory.write(entry, Uint8Array.from(code));
    memory.writeU32(at + 0x20, entry);
    memory.writeU32(at + 0x24, 2);
    memory.writeU32(at + 0x38, 0x9000 + 0x800 * k);
    for (let segment = 0; segment < 6; segment++) {
      memory.writeU32(at + 0x48 + 4 * segment, segment === 1 ? CS : DS);
    }
  }
  for (const [vector, task] of GATES) {
    memory.writeU64(IDT + 8 * vector, BigInt((TASKS + 8 * task) * 0x1_0000) | (0xe5n << 40n));
  }
  const vcpu = vm.vcpus[0]!;
  const state = vm.vendor.current.getSystemState(vcpu);
  const data: Segment = { selector: DS, base: 0n, limit: 0xffff_ffff, attributes: 0xc93 };
  state.cs = { selector: CS, base: 0n, limit: 0xffff_ffff, attributes: 0xc9b };
  for (const name of ["ds", "es", "fs", "gs", "ss"] as const) state[name] = { ...data };
  state.tr = { selector: TASKS, base: BigInt(TSS), limit: 0x67, attributes: 0x8b };
  state.gdt = { base: BigInt(GDT), limit: TASKS + 8 * HANDLERS.length + 7 };
  state.idt = { base: BigInt(IDT), limit: 0x7ff };
  state.cr0 = 0x11n;
  vm.vendor.current.setSystemState(vcpu, state);
  vcpu.regs.rip = BigInt(CODE);
  vcpu.regs.set(Gpr.RSP, 0x9000n);
}

const runs: Record<string, number> = {};

for (const [name, vendor] of Object.entries(VENDORS)) {
  Deno.test(`${name}: events go to tasks and come back`, () => {
    const image = flat(Uint8Array.from(GUEST), { address: CODE, entry: { mode: "protected32" } });
    using vm = createVmSync({ memory: 2 ** 20, plugins: [cpu(), vendor()], images: [image] });
    prepare(vm);
    const end = vm.runSync({ instructions: 1000 });
    const { memory, vcpus } = vm;
    assertEquals(end.reason, "halted");
    assertEquals(vcpus[0]!.regs.rip, BigInt(CODE + GUEST.length));
    const counts = [0, 4, 8, 12].map((offset) => memory.readU32(COUNTS + offset));
    assertEquals(counts, [4, 1, 1, 0x7ff8]);
    runs[name] = end.instructions;
    assertEquals(new Set(Object.values(runs)).size, 1, "instructions differ");
  });
}
