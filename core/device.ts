/**
 * Device registers on the port and memory buses: what a device gives to be reached by.
 *
 * @module
 */

import { PluginError } from "./errors.ts";
import type { Range } from "./range_map.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * A range of device registers. Offsets count from {@linkcode IoRegion.base}; values are unsigned, and
 * as wide as the access.
 */
export interface IoRegion {
  /** What it is, for messages and traces. */
  readonly name: string;
  /** First port or guest physical address. */
  readonly base: number;
  /** Number of ports or bytes. */
  readonly length: number;
  /**
   * The widest access that the device takes, in bytes; 4 if not given. Wider ones reach it in pieces,
   * lowest address first.
   */
  readonly width?: 1 | 2 | 4;
  /**
   * Reads; what lies above the access's width in the answer is dropped. Without it the range reads as
   * all ones.
   *
   * @param offset From the region's base.
   * @param size 1, 2 or 4.
   * @param vcpu The vCPU that accesses it, `undefined` when a tool or another device does.
   */
  read?(offset: number, size: number, vcpu: Vcpu | undefined): number;
  /**
   * Writes. Without it writes are dropped.
   *
   * @param offset From the region's base.
   * @param size 1, 2 or 4.
   * @param value Unsigned, below 2 to the power of 8 times `size`.
   * @param vcpu The vCPU that accesses it, `undefined` when a tool or another device does.
   */
  write?(offset: number, size: number, value: number, vcpu: Vcpu | undefined): void;
}

/** Device registers in guest physical memory, some of which may be 64 bits wide. */
export interface MmioRegion extends IoRegion {
  /**
   * Reads 8 bytes at once. Without it an access of 8 bytes reaches `read` in two halves.
   *
   * @param out Takes bits 31:0 and 63:32.
   */
  read64?(offset: number, out: Uint32Array, vcpu: Vcpu | undefined): void;
  /** Writes 8 bytes at once. Without it an access of 8 bytes reaches `write` in two halves. */
  write64?(offset: number, lo: number, hi: number, vcpu: Vcpu | undefined): void;
}

/** A region on a bus, with its owner. */
export class Claim implements Range {
  /** What it is. */
  readonly name: string;
  /** The plugin that registered it. */
  readonly owner: string;
  /** First address. */
  readonly base: number;
  /** Number of addresses. */
  readonly length: number;
  /** Widest access. */
  readonly width: number;
  /** The device's side. */
  readonly region: MmioRegion;
  readonly #read: IoRegion["read"];
  readonly #write: IoRegion["write"];

  /** `owner` is the plugin's name. */
  constructor(region: MmioRegion, owner: string) {
    this.name = region.name;
    this.owner = owner;
    this.base = region.base;
    this.length = region.length;
    this.width = region.width ?? 4;
    this.region = region;
    // Regions come in many shapes, and looking a method up in them takes longer than the call.
    this.#read = region.read;
    this.#write = region.write;
  }

  /** Reads up to {@linkcode Claim.width} bytes inside the region. */
  read(offset: number, size: number, vcpu: Vcpu | undefined): number {
    const read = this.#read;
    if (read === undefined) return truncate(0xffff_ffff, size);
    try {
      return truncate(read.call(this.region, offset, size, vcpu), size);
    } catch (error) {
      throw PluginError.wrap(this.owner, `read of "${this.name}"`, vcpu?.id, error);
    }
  }

  /** Writes up to {@linkcode Claim.width} bytes inside the region. */
  write(offset: number, size: number, value: number, vcpu: Vcpu | undefined): void {
    const write = this.#write;
    if (write === undefined) return;
    try {
      write.call(this.region, offset, size, truncate(value, size), vcpu);
    } catch (error) {
      throw PluginError.wrap(this.owner, `write of "${this.name}"`, vcpu?.id, error);
    }
  }
}

/** Bits 8 * size - 1 down to 0 of `value`, unsigned. */
export function truncate(value: number, size: number): number {
  return size === 4 ? value >>> 0 : value & (size === 1 ? 0xff : 0xffff);
}
