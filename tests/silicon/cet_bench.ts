/**
 * A bench with shadow stacks: a region of 2 MiB for CPL 3, and one for the others.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Cr4, S } from "../../plugins/cpu/mod.ts";
import { Bench, type BenchOptions, Place, verdict } from "./bench.ts";
import { hex } from "./code.ts";

/** Where the shadow stacks are. */
export const Shadow = { USER: 0x40_0000, SUPERVISOR: 0x60_0000 } as const;

/** MSRs. */
export const Msrs = {
  U_CET: 0x6a0,
  S_CET: 0x6a2,
  PL0_SSP: 0x6a4,
  PL1_SSP: 0x6a5,
  PL2_SSP: 0x6a6,
  PL3_SSP: 0x6a7,
  SSP_TABLE: 0x6a8,
} as const;

/** Bits of U_CET and S_CET. */
export const Control = {
  SHADOW: 1,
  WRITE: 2,
  TRACK: 4,
  LEGACY: 8,
  NO_TRACK: 0x10,
  SUPPRESS_DISABLE: 0x20,
  SUPPRESS: 0x400,
  TRACKER: 0x800,
} as const;

/** What {@linkcode CetBench.enable} is told. */
export interface Enabled {
  /** U_CET. */
  readonly user?: number;
  /** S_CET. */
  readonly supervisor?: number;
}

/** A bench whose processor has control-flow enforcement. */
export class CetBench extends Bench {
  constructor(options: BenchOptions = {}) {
    super({ model: "max-intel", ...options });
  }

  /** In the mode that has been set: maps the shadow stacks and switches enforcement on. */
  enable({ user = 0, supervisor = 0 }: Enabled): void {
    const { state, processor } = this;
    this.mapPage(2, Shadow.USER, 0xe5);
    this.mapPage(3, Shadow.SUPERVISOR, 0xe1);
    state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.CET));
    this.msr(Msrs.U_CET, user);
    this.msr(Msrs.S_CET, supervisor);
    processor.refresh();
  }

  /** Sets an entry of the page directory. */
  mapPage(index: number, address: number, flags: number): void {
    this.set64(Place.TABLES + 0x2000 + 8 * index, BigInt(address | flags));
  }

  /** WRMSR from outside, which has to succeed. */
  msr(index: number, value: number | bigint): void {
    assertEquals(this.processor.writeMsr(index, BigInt(value)), true, index.toString(16));
  }

  /** RDMSR from outside. */
  readMsr(index: number): bigint | undefined {
    return this.processor.readMsr(index);
  }

  /** SSP. */
  get ssp(): number {
    return Number(this.state.get(S.ssp));
  }

  set ssp(value: number) {
    this.state.set(S.ssp, BigInt(value));
  }

  /** Executes one instruction, written in hexadecimal. */
  one(code: string): string {
    return this.judge(hex(code));
  }

  /** Executes `budget` instructions of what is written in hexadecimal. */
  several(code: string, budget: number): string {
    return verdict(this.execute(hex(code), budget));
  }
}
