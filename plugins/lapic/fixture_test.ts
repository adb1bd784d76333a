/**
 * A VM with local APICs whose guests are scripts, for the tests of this folder.
 */

import type { Plugin, Vcpu, Vm } from "../../core/mod.ts";
import {
  type GuestScript,
  type ScriptedCpu,
  type ScriptedVendor,
  scriptedVm,
} from "../../core/testing/mod.ts";
import { DEFAULT_APIC_BASE, type Lapic, lapic, type LapicOptions, lapicSlot } from "./mod.ts";

/** What a test has at hand. */
export interface Board extends Disposable {
  readonly vm: Vm;
  readonly vcpus: readonly Vcpu[];
  readonly apics: readonly Lapic[];
  /** The scripted processor of vCPU `index`. */
  cpu(index: number): ScriptedCpu;
  /** MMIO read of a register by vCPU `index`. */
  read(offset: number, index?: number): number;
  /** MMIO write of a register by vCPU `index`. */
  write(offset: number, value: number, index?: number): void;
  /** WRMSR by the guest of vCPU `index`; `false` for #GP. */
  wrmsr(msr: number, low: number, high?: number, index?: number): boolean;
  /** RDMSR by the guest of vCPU `index`; `undefined` for #GP. */
  rdmsr(msr: number, index?: number): bigint | undefined;
  /** Lets time pass while nothing runs. */
  pass(ticks: number): void;
}

/** Options of {@linkcode board}. */
export interface BoardOptions extends LapicOptions {
  readonly cpus?: number | readonly number[];
  readonly plugins?: readonly Plugin[];
  readonly guest?: GuestScript;
  /** Whether software has enabled the local APICs; `true` if not given. */
  readonly enabled?: boolean;
}

/** Makes the VM. The local APICs are enabled by software, and their periods may be as short as can be. */
export function board(options: BoardOptions = {}): Board {
  const { cpus = 1, plugins = [], enabled = true, guest, ...own } = options;
  const machine = scriptedVm({
    cpus,
    plugins: [lapic({ shortestPeriod: 1, ...own }), ...plugins],
    ...(guest === undefined ? {} : { guest }),
  });
  const { vm, vendor } = machine;
  const bus = vm.slots.ref(lapicSlot).current;
  const { vcpus } = vm;
  const apics = vcpus.map((vcpu) => bus.of(vcpu));
  const vcpu = (index: number): Vcpu => vcpus[index] as Vcpu;
  const result: Board = {
    vm,
    vcpus,
    apics,
    cpu: (index) => (vendor as ScriptedVendor).cpu(vcpu(index)),
    read: (offset, index = 0) => vm.mmio.read(DEFAULT_APIC_BASE + offset, 4, vcpu(index)),
    write: (offset, value, index = 0) =>
      vm.mmio.write(DEFAULT_APIC_BASE + offset, 4, value, 0, vcpu(index)),
    wrmsr(msr, low, high = 0, index = 0) {
      return vm.msrs.access(vm.msrs.guestAccess(msr, true, low, high), vcpu(index));
    },
    rdmsr(msr, index = 0) {
      const access = vm.msrs.guestAccess(msr, false, 0, 0);
      if (!vm.msrs.access(access, vcpu(index))) return undefined;
      return BigInt(access.hi >>> 0) << 32n | BigInt(access.lo >>> 0);
    },
    pass(ticks) {
      const { clock, timers } = vm;
      const end = clock.current.now() + ticks;
      for (let next = timers.next; next <= end; next = timers.next) {
        clock.current.set(Math.max(next, clock.current.now()));
        timers.fireNext(next);
      }
      clock.current.set(end);
    },
    [Symbol.dispose]: () => machine[Symbol.dispose](),
  };
  if (enabled) { for (const index of vcpus.keys()) result.write(0xf0, 0x1ff, index); }
  return result;
}

/** Puts the local APIC of vCPU `index` into x2APIC mode. */
export function toX2apic(of: Board, index = 0): void {
  const base = of.rdmsr(0x1b, index) as bigint;
  if (!of.wrmsr(0x1b, Number(base & 0xffff_ffffn) | 0x400, 0, index)) {
    throw new Error("no way into x2APIC mode");
  }
}
