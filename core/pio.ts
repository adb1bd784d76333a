/**
 * The port bus: 65536 I/O ports.
 *
 * @module
 */

import { Claim, type IoRegion, truncate } from "./device.ts";
import type { PointOf } from "./hook_points.ts";
import type { unclaimedHook } from "./hooks.ts";
import { RangeMap } from "./range_map.ts";
import type { Binding } from "./registration.ts";
import type { Vcpu } from "./vcpu.ts";

/** Hears of an access that no device claims; the arguments are those of `unclaimedHook`. */
export type Unclaimed = PointOf<typeof unclaimedHook>["call"];

const PORTS = 0x1_0000;

/** No device at any port. */
const NOTHING: Uint16Array = new Uint16Array(PORTS);

/**
 * A region of ports, whose place is in small integers as well: V8 keeps numbers that come from where those of
 * memory do, which are large, as floating-point numbers. With an initial value they are never anything else.
 */
class PortClaim extends Claim {
  readonly first: number = 0;
  readonly count: number = 0;
  readonly widest: number = 0;

  constructor(region: IoRegion, owner: string) {
    super(region, owner);
    this.first = this.base | 0;
    this.count = this.length | 0;
    this.widest = this.width | 0;
  }
}

/**
 * The port bus of a VM, as `vm.pio`.
 *
 * A port that no device claims reads as all ones and drops writes. An access that is wider than a
 * device takes, or that leaves its ports, is carried out in pieces, as by the bus of a PC.
 */
export class PortBus {
  readonly #unclaimed: Unclaimed;
  readonly #map: RangeMap<PortClaim> = new RangeMap("I/O port", PORTS);
  /** Place in `#claims` of what is at each port. */
  #index: Uint16Array = NOTHING;
  /** The first place is that of ports without a device. */
  #claims: (PortClaim | undefined)[] = [undefined];

  /** `unclaimed` hears of accesses that no device claims. */
  constructor(unclaimed: Unclaimed) {
    this.#unclaimed = unclaimed;
  }

  /** What is registered, by ascending port. */
  get regions(): readonly Claim[] {
    return this.#map.ranges;
  }

  /** A registration that is not yet in force; attaching throws `OverlapError` naming both owners. */
  bind(region: IoRegion, owner: string): Binding {
    const claim = new PortClaim(region, owner);
    return {
      attach: () => {
        this.#map.add(claim);
        this.#rebuild();
      },
      detach: () => {
        this.#map.remove(claim);
        this.#rebuild();
      },
    };
  }

  #rebuild(): void {
    const { ranges } = this.#map;
    const index = new Uint16Array(PORTS);
    ranges.forEach((claim, k) => index.fill(k + 1, claim.base, claim.base + claim.length));
    this.#index = index;
    this.#claims = [undefined, ...ranges];
  }

  #find(port: number): PortClaim | undefined {
    return this.#claims[this.#index[port]!];
  }

  /**
   * Reads `size` (1, 2 or 4) bytes from `port`. Throws `PluginError` if the device throws.
   *
   * @param vcpu The vCPU that reads, if one does.
   */
  read(port: number, size: number, vcpu?: Vcpu): number {
    const claim = this.#find(port);
    if (claim !== undefined && size <= claim.widest && port - claim.first + size <= claim.count) {
      return claim.read(port - claim.first, size, vcpu);
    }
    if (claim === undefined && size === 1) {
      this.#unclaimed("pio", port, 1, false, 0, vcpu);
      return 0xff;
    }
    return this.#readParts(port, size, vcpu);
  }

  /** Reads what no device takes as a whole. */
  #readParts(port: number, size: number, vcpu: Vcpu | undefined): number {
    if (this.#free(port, size)) {
      this.#unclaimed("pio", port, size, false, 0, vcpu);
      return truncate(0xffff_ffff, size);
    }
    const half = size >> 1;
    const low = this.read(port, half, vcpu);
    const high = this.read((port + half) & 0xffff, half, vcpu);
    return (low | (high << (8 * half))) >>> 0;
  }

  /**
   * Writes `size` (1, 2 or 4) bytes to `port`. Throws `PluginError` if the device throws.
   *
   * @param vcpu The vCPU that writes, if one does.
   */
  write(port: number, size: number, value: number, vcpu?: Vcpu): void {
    const claim = this.#find(port);
    if (claim !== undefined && size <= claim.widest && port - claim.first + size <= claim.count) {
      claim.write(port - claim.first, size, value, vcpu);
      return;
    }
    if (claim === undefined && size === 1) {
      this.#unclaimed("pio", port, 1, true, value & 0xff, vcpu);
      return;
    }
    this.#writeParts(port, size, value, vcpu);
  }

  /** Writes what no device takes as a whole. */
  #writeParts(port: number, size: number, value: number, vcpu: Vcpu | undefined): void {
    if (this.#free(port, size)) {
      this.#unclaimed("pio", port, size, true, truncate(value, size), vcpu);
      return;
    }
    const half = size >> 1;
    this.write(port, half, value, vcpu);
    this.write((port + half) & 0xffff, half, value >>> (8 * half), vcpu);
  }

  /** Whether no device has any of the ports. */
  #free(port: number, size: number): boolean {
    for (let i = 0; i < size; i++) {
      if (this.#find((port + i) & 0xffff) !== undefined) return false;
    }
    return true;
  }
}
