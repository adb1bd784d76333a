/**
 * The memory bus: device registers at guest physical addresses.
 *
 * @module
 */

import { Claim, type MmioRegion, truncate } from "./device.ts";
import { PluginError } from "./errors.ts";
import type { Unclaimed } from "./pio.ts";
import { RangeMap } from "./range_map.ts";
import type { Binding } from "./registration.ts";
import type { Vcpu } from "./vcpu.ts";

/** Physical addresses have at most 52 bits (APM vol. 2, section 5.3). */
export const PHYSICAL_ADDRESS_LIMIT: number = 2 ** 52;

/**
 * The memory bus of a VM, as `vm.mmio`.
 *
 * An address that no device claims reads as all ones and drops writes. An access that is wider than a
 * device takes, or that leaves its registers, is carried out in pieces.
 */
export class MmioBus {
  readonly #unclaimed: Unclaimed;
  readonly #map: RangeMap<Claim> = new RangeMap("MMIO", PHYSICAL_ADDRESS_LIMIT);
  readonly #pair: Uint32Array = new Uint32Array(2);
  /** Bits 63:32 of the last read of 8 bytes. */
  high = 0;

  /** `unclaimed` hears of accesses that no device claims. */
  constructor(unclaimed: Unclaimed) {
    this.#unclaimed = unclaimed;
  }

  /** What is registered, by ascending address. */
  get regions(): readonly Claim[] {
    return this.#map.ranges;
  }

  /** The region with registers in `base` to `base + length - 1`, if any. */
  firstIn(base: number, length: number): Claim | undefined {
    return this.#map.firstIn(base, length);
  }

  /**
   * A registration that is not yet in force; attaching throws `OverlapError` naming both owners.
   *
   * @param check Called with the range before it is attached; throws if something else is there.
   */
  bind(region: MmioRegion, owner: string, check?: (claim: Claim) => void): Binding {
    const claim = new Claim(region, owner);
    return {
      attach: () => {
        check?.(claim);
        this.#map.add(claim);
      },
      detach: () => this.#map.remove(claim),
    };
  }

  /**
   * Reads `size` (1, 2, 4 or 8) bytes at `gpa`: returns bits 31:0, and leaves bits 63:32 of 8 bytes in
   * {@linkcode MmioBus.high}. Throws `PluginError` if the device throws.
   *
   * @param vcpu The vCPU that reads, if one does.
   */
  read(gpa: number, size: number, vcpu?: Vcpu): number {
    if (size === 8) return this.#read64(gpa, vcpu);
    const claim = this.#map.find(gpa);
    if (claim !== undefined && size <= claim.width && gpa - claim.base + size <= claim.length) {
      return claim.read(gpa - claim.base, size, vcpu);
    }
    if (claim === undefined && this.#map.firstIn(gpa, size) === undefined) {
      this.#unclaimed("mmio", gpa, size, false, 0, vcpu);
      return truncate(0xffff_ffff, size);
    }
    const half = size >> 1;
    const low = this.read(gpa, half, vcpu);
    const high = this.read(gpa + half, half, vcpu);
    return (low | (high << (8 * half))) >>> 0;
  }

  /**
   * Writes `size` (1, 2, 4 or 8) bytes at `gpa`. Throws `PluginError` if the device throws.
   *
   * @param lo Bits 31:0.
   * @param hi Bits 63:32, for 8 bytes.
   * @param vcpu The vCPU that writes, if one does.
   */
  write(gpa: number, size: number, lo: number, hi: number, vcpu?: Vcpu): void {
    if (size === 8) return this.#write64(gpa, lo, hi, vcpu);
    const claim = this.#map.find(gpa);
    if (claim !== undefined && size <= claim.width && gpa - claim.base + size <= claim.length) {
      claim.write(gpa - claim.base, size, lo, vcpu);
      return;
    }
    if (claim === undefined && this.#map.firstIn(gpa, size) === undefined) {
      this.#unclaimed("mmio", gpa, size, true, truncate(lo, size), vcpu);
      return;
    }
    const half = size >> 1;
    this.write(gpa, half, lo, 0, vcpu);
    this.write(gpa + half, half, lo >>> (8 * half), 0, vcpu);
  }

  #read64(gpa: number, vcpu: Vcpu | undefined): number {
    const claim = this.#map.find(gpa);
    if (claim?.region.read64 !== undefined && gpa - claim.base + 8 <= claim.length) {
      const pair = this.#pair;
      try {
        claim.region.read64(gpa - claim.base, pair, vcpu);
      } catch (error) {
        throw PluginError.wrap(claim.owner, `read of "${claim.name}"`, vcpu?.id, error);
      }
      this.high = pair[1] as number;
      return pair[0] as number;
    }
    const low = this.read(gpa, 4, vcpu);
    this.high = this.read(gpa + 4, 4, vcpu);
    return low;
  }

  #write64(gpa: number, lo: number, hi: number, vcpu: Vcpu | undefined): void {
    const claim = this.#map.find(gpa);
    if (claim?.region.write64 !== undefined && gpa - claim.base + 8 <= claim.length) {
      try {
        claim.region.write64(gpa - claim.base, lo >>> 0, hi >>> 0, vcpu);
      } catch (error) {
        throw PluginError.wrap(claim.owner, `write of "${claim.name}"`, vcpu?.id, error);
      }
      return;
    }
    this.write(gpa, 4, lo, 0, vcpu);
    this.write(gpa + 4, 4, hi, 0, vcpu);
  }
}
