/**
 * The MSRs that every processor of a model has and that no instruction looks at: kept per vCPU, checked
 * as the manuals say, whoever the vendor is.
 *
 * A hypervisor answers for them as KVM does; on the bare processor they stand outside of the unit that
 * executes instructions.
 *
 * @module
 */
import {
  type MsrAccess,
  type PluginContext,
  resetHook,
  type Vcpu,
  type VcpuState,
} from "../../../core/mod.ts";
import { Msr } from "../microcode/msr.ts";
import type { ProcessorModel } from "../models.ts";
import { amdMsrs } from "./amd.ts";
import { intelMsrs } from "./intel.ts";
import { MACHINE_CHECK } from "./machine_check.ts";
import { mtrrs } from "./mtrr.ts";
import { type MsrRow, type MsrValues, NONE } from "./row.ts";
import { IBPB, PRED_CMD, speculationMsrs } from "./speculation.ts";

/** Revision of microcode that each vendor's processors report; there is none. */
const MICROCODE = 1;

/** All MSRs that a model keeps like this. */
export function bankRows({ vendor, isa, physicalBits }: ProcessorModel): readonly MsrRow[] {
  const own = vendor === "amd" ? amdMsrs(MICROCODE, physicalBits) : intelMsrs(MICROCODE);
  return [...mtrrs(physicalBits), ...MACHINE_CHECK, ...speculationMsrs(isa), ...own];
}

/** The values of one vCPU. */
export class MsrBank implements MsrValues {
  /** Two words a register, in the order of the rows. */
  readonly words: Uint32Array;
  readonly #rows: readonly MsrRow[];
  readonly #places: ReadonlyMap<number, number>;

  /** A bank after RESET. `places` has the word at which each index begins. */
  constructor(rows: readonly MsrRow[], places: ReadonlyMap<number, number>) {
    this.#rows = rows;
    this.#places = places;
    this.words = new Uint32Array(2 * places.size);
    this.reset();
  }

  /** RESET. */
  reset(): void {
    for (const { index, count = 1, reset = NONE } of this.#rows) {
      for (let k = 0; k < count; k++) this.words.set(reset, this.#places.get(index + k)!);
    }
  }

  /** Where in {@linkcode MsrBank.words} an MSR that there is begins: the same for all vCPUs of a VM. */
  placeOf(index: number): number {
    const place = this.#places.get(index);
    if (place === undefined) throw new Error(`there is no MSR ${index.toString(16)}h in the bank`);
    return place;
  }

  /** See {@linkcode MsrValues.low}. */
  low(index: number): number {
    const place = this.#places.get(index);
    return place === undefined ? 0 : this.words[place]!;
  }

  /** Bits 63:32, likewise. */
  high(index: number): number {
    const place = this.#places.get(index);
    return place === undefined ? 0 : this.words[place + 1]!;
  }

  /** RDMSR. */
  read(access: MsrAccess): boolean {
    const place = this.#places.get(access.index)!;
    access.lo = this.words[place]!;
    access.hi = this.words[place + 1]!;
    return true;
  }

  /** WRMSR; false for #GP. The host may write what software can only read. */
  write(row: MsrRow, access: MsrAccess): boolean {
    const { words } = this;
    const place = this.#places.get(access.index)!;
    const lo = access.lo >>> 0;
    const hi = access.hi >>> 0;
    if (access.host) {
      words[place] = lo;
      words[place + 1] = hi;
      return true;
    }
    const { writable = NONE, others = "reserved", check, command } = row;
    const oldLo = words[place]!;
    const oldHi = words[place + 1]!;
    const fixed = others === "reserved" &&
      ((((lo ^ oldLo) & ~writable[0]) | ((hi ^ oldHi) & ~writable[1])) !== 0);
    if (fixed || check?.(lo, hi, this) === false) return false;
    if (command) return true;
    words[place] = (lo & writable[0]) | (oldLo & ~writable[0]);
    words[place + 1] = (hi & writable[1]) | (oldHi & ~writable[1]);
    return true;
  }
}

/** Registers the MSRs of `model`, and yields their values. */
export function registerBank(ctx: PluginContext, model: ProcessorModel): VcpuState<MsrBank> {
  const rows = bankRows(model);
  const places = new Map<number, number>();
  for (const { index, count = 1 } of rows) {
    for (let k = 0; k < count; k++) places.set(index + k, 2 * places.size);
  }
  const state = ctx.vcpuState<MsrBank>({
    name: "msrs",
    version: 1,
    init: () => new MsrBank(rows, places),
    save: ({ words }) => Array.from(words),
    load: (saved) => {
      const bank = new MsrBank(rows, places);
      bank.words.set(saved as readonly number[]);
      return bank;
    },
  });
  const read = (access: MsrAccess, vcpu: Vcpu): boolean => state.of(vcpu).read(access);
  for (const row of rows) {
    const { name, index, count = 1, command, readOnly } = row;
    const write = (access: MsrAccess, vcpu: Vcpu): boolean => {
      if (readOnly && !access.host) return false;
      if (!state.of(vcpu).write(row, access)) return false;
      if (index === PRED_CMD && (access.lo & IBPB) !== 0) {
        vcpu.vm.vendor.current.branchCounts?.(vcpu).forgetPredictions();
      }
      return true;
    };
    ctx.registerMsr({
      name,
      base: index,
      length: count,
      ...(command ? {} : { read }),
      write,
    });
  }
  // Vendors keep it, with the TSC; what is registered here without handlers does not exist.
  if (!model.isa.has("tsc_adjust")) ctx.registerMsr({ name: "TSC_ADJUST", base: Msr.TSC_ADJUST });
  ctx.on(resetHook, (vm) => {
    for (const vcpu of vm.vcpus) state.of(vcpu).reset();
  });
  return state;
}
