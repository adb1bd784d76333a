/**
 * Model-specific registers: who handles which.
 *
 * @module
 */

import { PluginError } from "./errors.ts";
import { type Range, RangeMap } from "./range_map.ts";
import type { Binding } from "./registration.ts";
import type { Vcpu } from "./vcpu.ts";

/** One access to an MSR. The record is used again for the next access: copy what is to be kept. */
export class MsrAccess {
  /** MSR index, 32 bits. */
  index = 0;
  /** Value written, or answer to a read, bits 31:0. */
  lo = 0;
  /** Value written, or answer to a read, bits 63:32. */
  hi = 0;
  /** WRMSR, not RDMSR. */
  write = false;
  /** Access by the host (a loader, a tool, a snapshot), which may write what a guest may not. */
  host = false;
}

/**
 * Handles an access to an MSR; the answer to a read goes into the access.
 *
 * @returns Whether the access is good; if not, the guest gets #GP(0).
 */
export type MsrHandler = (access: MsrAccess, vcpu: Vcpu) => boolean;

/** A range of MSRs and who handles it. */
export interface MsrRegion {
  /** What it is, for messages and traces. */
  readonly name: string;
  /** First index. */
  readonly base: number;
  /** Number of MSRs; 1 if not given. */
  readonly length?: number;
  /** RDMSR. Without it reads are #GP(0). */
  readonly read?: MsrHandler;
  /** WRMSR. Without it writes are #GP(0). */
  readonly write?: MsrHandler;
}

interface MsrRange extends Range {
  readonly region: MsrRegion;
}

/** The MSRs of a VM, as `vm.msrs`. */
export class MsrMap {
  readonly #map: RangeMap<MsrRange> = new RangeMap("MSR", 2 ** 32);
  readonly #rest: MsrHandler;
  readonly #access: MsrAccess = new MsrAccess();

  /** `rest` handles MSRs that nobody registered. */
  constructor(rest: MsrHandler) {
    this.#rest = rest;
  }

  /** What is registered, by ascending index. */
  get ranges(): readonly Range[] {
    return this.#map.ranges;
  }

  /** A registration that is not yet in force; attaching throws `OverlapError` naming both owners. */
  bind(region: MsrRegion, owner: string): Binding {
    const { name, base, length = 1 } = region;
    const range: MsrRange = { name, owner, base, length, region };
    return { attach: () => this.#map.add(range), detach: () => this.#map.remove(range) };
  }

  /**
   * Carries out the access. Throws `PluginError` if a handler throws.
   *
   * @returns Whether it is good; if not, a guest gets #GP(0).
   */
  access(access: MsrAccess, vcpu: Vcpu): boolean {
    const range = this.#map.find(access.index);
    if (range === undefined) return this.#rest(access, vcpu);
    const handler = access.write ? range.region.write : range.region.read;
    if (handler === undefined) return false;
    try {
      return handler(access, vcpu);
    } catch (error) {
      const what = `${access.write ? "write" : "read"} of MSR "${range.name}"`;
      throw PluginError.wrap(range.owner, what, vcpu.id, error);
    }
  }

  /** Reads an MSR on behalf of the host; `undefined` if there is none of that index. */
  read(vcpu: Vcpu, index: number): bigint | undefined {
    const access = new MsrAccess();
    access.index = index;
    access.host = true;
    if (!this.access(access, vcpu)) return undefined;
    return (BigInt(access.hi >>> 0) << 32n) | BigInt(access.lo >>> 0);
  }

  /** Writes an MSR on behalf of the host; returns whether it exists and takes the value. */
  write(vcpu: Vcpu, index: number, value: bigint): boolean {
    const access = new MsrAccess();
    access.index = index;
    access.lo = Number(BigInt.asUintN(32, value));
    access.hi = Number(BigInt.asUintN(32, value >> 32n));
    access.write = true;
    access.host = true;
    return this.access(access, vcpu);
  }

  /** The record for accesses by guests; handlers may use it until the next one. */
  guestAccess(index: number, write: boolean, lo: number, hi: number): MsrAccess {
    const access = this.#access;
    access.index = index;
    access.lo = lo;
    access.hi = hi;
    access.write = write;
    return access;
  }
}
