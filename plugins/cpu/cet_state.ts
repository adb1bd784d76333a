/**
 * Control-flow enforcement of one vCPU under a hypervisor: the MSRs that neither VMRUN nor a VM entry switches,
 * and RDMSR and WRMSR of all of them.
 *
 * S_CET, SSP and the interrupt SSP table are in the VMCB and the VMCS. U_CET, PL0_SSP to PL3_SSP and XSS are not,
 * and software switches them, as KVM does with XSAVES and WRMSR.
 *
 * @module
 */
import type { ControlFlowState, MsrAccess } from "../../core/mod.ts";
import type { Processor } from "./engine/processor.ts";
import { type IsaFeatureName, isCanonical, supportedXss } from "./isa_features.ts";
import { CET_RESERVED, CET_SHADOW_BITS, CetControl, PL_SSP } from "./microcode/cet.ts";
import { CetMsr } from "./microcode/cet_msr.ts";
import { Msr } from "./microcode/msr.ts";
import { S } from "./state/cpu_state.ts";
import type { Field64 } from "./state/field.ts";

/** What no entry switches, by MSR. */
const UNSWITCHED: ReadonlyMap<number, Field64> = new Map([
  [CetMsr.U_CET, S.uCet],
  ...PL_SSP.map((field, cpl): [number, Field64] => [CetMsr.PL0_SSP + cpl, field]),
  [Msr.XSS, S.xss],
]);
const FIELDS: readonly Field64[] = [...UNSWITCHED.values()];

/** Where a hypervisor keeps S_CET and the interrupt SSP table, by MSR; halves of 32 bits. */
export interface SwitchedCet {
  /** Bits 31:0. */
  lo(index: number): number;
  /** Bits 63:32. */
  hi(index: number): number;
  /** Writes all 64. */
  set(index: number, lo: number, hi: number): void;
}

/** The registers of one vCPU. */
export class ProcessorCet {
  readonly #isa: ReadonlySet<IsaFeatureName>;
  readonly #linearBits: number;
  readonly #switched: SwitchedCet;
  readonly #values: bigint[] = FIELDS.map(() => 0n);
  #processor: Processor | undefined;

  /** Of a vCPU with these features and linear addresses of so many bits. */
  constructor(
    isa: ReadonlySet<IsaFeatureName>,
    linearBits: number,
    switched: SwitchedCet,
  ) {
    this.#isa = isa;
    this.#linearBits = linearBits;
    this.#switched = switched;
  }

  /** The vCPU runs on `processor` from now on. */
  load(processor: Processor): void {
    for (const [k, field] of FIELDS.entries()) processor.state.set(field, this.#values[k]!);
    this.#processor = processor;
  }

  /** The vCPU leaves the processor. */
  put(): void {
    const processor = this.#processor;
    if (processor === undefined) return;
    for (const [k, field] of FIELDS.entries()) this.#values[k] = processor.state.get(field);
    this.#processor = undefined;
  }

  #value(field: Field64): bigint {
    return this.#processor?.state.get(field) ?? this.#values[FIELDS.indexOf(field)]!;
  }

  #setValue(field: Field64, value: bigint): void {
    if (this.#processor === undefined) this.#values[FIELDS.indexOf(field)] = value;
    else this.#processor.state.set(field, value);
  }

  /** XSS, bits 31:0. */
  get xss(): number {
    return Number(this.#value(S.xss));
  }

  #exists(index: number): boolean {
    if (index === Msr.XSS) return this.#isa.has("xsaves");
    if (this.#isa.has("shstk")) return index >= CetMsr.U_CET && index !== 0x6a1 && index !== 0x6a3;
    return this.#isa.has("ibt") && (index === CetMsr.U_CET || index === CetMsr.S_CET);
  }

  #valid(index: number, lo: number, hi: number): boolean {
    if (index === Msr.XSS) return hi === 0 && (lo & ~supportedXss(this.#isa)) === 0;
    if (!isCanonical(hi, this.#linearBits)) return false;
    if (index === CetMsr.INTERRUPT_SSP_TABLE) return true;
    if (index >= CetMsr.PL0_SSP) return (lo & 3) === 0;
    const both = CetControl.SUPPRESS | CetControl.TRACKER;
    const shadow = this.#isa.has("shstk") ? CET_SHADOW_BITS : 0;
    const track = this.#isa.has("ibt") ? ~(CET_SHADOW_BITS | CET_RESERVED) : 0;
    return (lo & ~(shadow | track)) === 0 && (track !== 0 || hi === 0) && (lo & both) !== both;
  }

  /** Whether MSR `index` is one of these, on whatever processor. */
  static owns(index: number): boolean {
    return index === Msr.XSS ||
      (index >= CetMsr.U_CET && index <= CetMsr.INTERRUPT_SSP_TABLE);
  }

  /** Carries out an access to an MSR that is one of these; false for #GP. */
  access(access: MsrAccess): boolean {
    const { index, write, lo, hi } = access;
    if (!this.#exists(index)) return false;
    const field = UNSWITCHED.get(index);
    if (write) {
      if (!this.#valid(index, lo, hi)) return false;
      if (field === undefined) this.#switched.set(index, lo, hi);
      else this.#setValue(field, (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0));
      return true;
    }
    const value = field === undefined ? 0n : this.#value(field);
    const switched = field === undefined;
    access.lo = switched ? this.#switched.lo(index) >>> 0 : Number(value & 0xffff_ffffn);
    access.hi = switched ? this.#switched.hi(index) >>> 0 : Number(value >> 32n);
    return true;
  }

  #switchedValue(index: number): bigint {
    const { lo, hi } = { lo: this.#switched.lo(index), hi: this.#switched.hi(index) };
    return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  }

  /** Whether the processor has any of it: else there are no fields for it in a VMCS, either. */
  get present(): boolean {
    return this.#isa.has("shstk") || this.#isa.has("ibt");
  }

  /** All of it for a system state; nothing where there is none of it. SSP is kept by the caller. */
  state(ssp: () => bigint): ControlFlowState | undefined {
    if (!this.present) return undefined;
    return {
      uCet: this.#value(S.uCet),
      sCet: this.#switchedValue(CetMsr.S_CET),
      ssp: ssp(),
      plSsp: PL_SSP.map((field) => this.#value(field)),
      sspTable: this.#switchedValue(CetMsr.INTERRUPT_SSP_TABLE),
      xss: this.#value(S.xss),
    };
  }

  /** Sets all of it, SSP through `setSsp`; to 0 where `state` has none. */
  setState(state: ControlFlowState | undefined, setSsp: (ssp: bigint) => void): void {
    this.#setValue(S.xss, state?.xss ?? 0n);
    if (!this.present) return;
    setSsp(state?.ssp ?? 0n);
    const put = (index: number, value: bigint): void =>
      this.#switched.set(index, Number(value & 0xffff_ffffn), Number(value >> 32n));
    put(CetMsr.S_CET, state?.sCet ?? 0n);
    put(CetMsr.INTERRUPT_SSP_TABLE, state?.sspTable ?? 0n);
    this.#setValue(S.uCet, state?.uCet ?? 0n);
    for (const [cpl, field] of PL_SSP.entries()) this.#setValue(field, state?.plSsp[cpl] ?? 0n);
  }
}
