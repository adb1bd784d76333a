/**
 * The host's own use of R16–R31, as a kernel built for APX would have it: what the compiler put into them
 * stands there across calls, and every piece of the kernel's code may use them.
 *
 * @module
 */
import { Gpr, REGISTER_WORDS } from "../../core/mod.ts";
import { type HostExtendedState, Xcr0 } from "../cpu/mod.ts";

/** Words of R16–R31 in a storage of registers. */
const FIRST = 2 * (Gpr.R15 + 1);
const LAST = FIRST + 32;

/**
 * What the host has of APX: nothing; XCR0[19] set, for its user programs, whose registers are saved before
 * a vCPU is loaded; or a kernel built for APX, which has values of its own there.
 */
export type HostApx = "off" | "user" | "kernel";

/** A kernel that runs on host processors around entries. */
export class HostKernel {
  readonly #usesApx: boolean;
  readonly #live = new Uint32Array(REGISTER_WORDS);
  readonly #found = new Uint32Array(REGISTER_WORDS);
  readonly #booted = new WeakSet<HostExtendedState>();
  #pattern = 0x4057_0000;
  /** XCR0 of the host, bits 31:0. */
  readonly xcr0: number;

  /** With or without APX for its programs or for itself. */
  constructor(apx: HostApx) {
    this.#usesApx = apx === "kernel";
    this.xcr0 = Xcr0.X87 | Xcr0.SSE | (apx === "off" ? 0 : Xcr0.APX);
  }

  /** Before a vCPU is entered: the kernel has values in R16–R31 that it will want again. */
  begin(host: HostExtendedState): void {
    if (!this.#booted.has(host)) {
      this.#booted.add(host);
      host.xcr0 = this.xcr0;
    }
    if (!this.#usesApx) return;
    this.#pattern = (this.#pattern + 0x1_0001) >>> 0;
    for (let k = FIRST; k < LAST; k++) this.#live[k] = (this.#pattern ^ k) >>> 0;
    host.loadExtendedRegisters(this.#live);
  }

  /**
   * A piece of the kernel's code in between, which computes with R16–R31 and leaves other values there.
   *
   * @throws {Error} That the host met #UD, if XCR0[19] is clear.
   */
  run(host: HostExtendedState): void {
    if (!this.#usesApx) return;
    for (let k = FIRST; k < LAST; k++) this.#found[k] = 0xdead_0000 + k;
    host.loadExtendedRegisters(this.#found);
  }

  /** Saves what the kernel has in R16–R31, for a switch that is careful with it. */
  save(host: HostExtendedState): void {
    if (this.#usesApx) host.storeExtendedRegisters(this.#live);
  }

  /** Restores it. */
  restore(host: HostExtendedState): void {
    if (this.#usesApx) host.loadExtendedRegisters(this.#live);
  }

  /**
   * Behind everything: the kernel goes on with its values.
   *
   * @throws {Error} If they are no longer there.
   */
  end(host: HostExtendedState): void {
    if (!this.#usesApx) return;
    host.storeExtendedRegisters(this.#found);
    for (let k = FIRST; k < LAST; k++) {
      if (this.#found[k] !== this.#live[k]) {
        throw new Error(`the host's R${k >> 1} was not what it had been before the guest ran`);
      }
    }
  }
}
