/**
 * A 64-bit guest laid out in memory, for the tests of this folder: page tables that map 1 GiB one to
 * one with 2 MiB pages, a GDT, a TSS and an IDT.
 *
 * @module
 */

import type { SystemState, Vcpu, Vm } from "../../core/mod.ts";
import { type ScriptedVm, scriptedVm, type ScriptedVmOptions } from "../../core/testing/mod.ts";

export const IDT = 0x3000;
export const GDT = 0x4000;
export const TSS = 0x5000;
export const PML4 = 0x6000;
export const PDPT = 0x7000;
export const PD = 0x8000;
export const STACK = 0x9000;
export const CODE = 0xa000;

/** Selectors of the GDT's segments. */
export const KERNEL_CODE = 0x08;
export const KERNEL_DATA = 0x10;
export const USER_CODE = 0x1b;
export const ABSENT_CODE = 0x20;
export const CODE32 = 0x28;

const flat = (attributes: number, selector: number) => ({
  selector,
  base: 0n,
  limit: 0xffff_ffff,
  attributes,
});

export interface LongGuest extends ScriptedVm {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly system: SystemState;
  /** Writes a gate; the words of its type and attributes are as in the descriptor, 8E00h and so on. */
  gate(vector: number, attributes?: number, selector?: number, offset?: bigint): void;
}

/** A VM in 64-bit mode at CPL 0, with nothing in its IDT. */
export function longGuest(options: ScriptedVmOptions = {}): LongGuest {
  const machine = scriptedVm({ memory: 4 * 2 ** 20, ...options });
  const { vm, vcpu } = machine;
  const { memory } = vm;
  memory.writeU64(PML4, BigInt(PDPT) | 7n);
  memory.writeU64(PDPT, BigInt(PD) | 7n);
  for (let i = 0; i < 512; i++) memory.writeU64(PD + 8 * i, BigInt(i) << 21n | 0x87n);
  const segments = [
    0x00af_9b00_0000_ffffn,
    0x00cf_9300_0000_ffffn,
    0x00af_fb00_0000_ffffn,
    0x00af_1b00_0000_ffffn,
    0x00cf_9b00_0000_ffffn,
  ];
  for (const [i, descriptor] of segments.entries()) memory.writeU64(GDT + 8 + 8 * i, descriptor);
  memory.writeU64(TSS + 4, BigInt(STACK)); // RSP0
  memory.writeU64(TSS + 0x24, BigInt(STACK) + 0x800n); // IST1
  const { system } = machine.vendor.cpu(vcpu);
  system.cr0 = 0x8001_0011n;
  system.cr3 = BigInt(PML4);
  system.cr4 = 0x20n;
  system.efer = 0xd00n;
  system.cs = flat(0xa9b, KERNEL_CODE);
  system.ss = system.ds = system.es = flat(0xc93, KERNEL_DATA);
  system.gdt = { base: BigInt(GDT), limit: 0x2f };
  system.idt = { base: BigInt(IDT), limit: 0xfff };
  system.tr = { selector: 0x30, base: BigInt(TSS), limit: 0x67, attributes: 0x8b };
  vcpu.regs.rip = BigInt(CODE);
  vcpu.regs.rsp = BigInt(STACK);
  return {
    ...machine,
    system,
    gate(vector, attributes = 0x8e00, selector = KERNEL_CODE, offset = BigInt(CODE)) {
      const at = IDT + 16 * vector;
      const low = (offset & 0xffffn) | BigInt(selector) << 16n | BigInt(attributes) << 32n |
        (offset >> 16n & 0xffffn) << 48n;
      memory.writeU64(at, low);
      memory.writeU64(at + 8, offset >> 32n & 0xffff_ffffn);
    },
  };
}

/** Makes the guest run in ring 3. */
export function toUser(guest: LongGuest): void {
  guest.system.cs = flat(0xafb, USER_CODE);
}
