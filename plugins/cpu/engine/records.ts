/**
 * Micro-op records as constants, while code is built from them.
 *
 * @module
 */
import { registerPlace } from "../decode/form.ts";
import { registerAddress } from "../state/cpu_state.ts";
import { MicroOp } from "./block_layout.ts";
import type { RegionOp } from "./region_graph.ts";

/** How many general-purpose registers there are, those of APX included. */
export const REGISTERS = 32;

/** Where a record names registers, in the order of operands. */
export const REGISTER_FIELDS: readonly number[] = [MicroOp.REG0, MicroOp.REG1, MicroOp.BASE];

/** Reads micro-op records while code is built from them. */
export class Records {
  readonly #bytes: DataView;

  /** `memory` holds the records. */
  constructor(memory: ArrayBuffer) {
    this.#bytes = new DataView(memory);
  }

  /** The 32-bit word at `address`. */
  word(address: number): number {
    return this.#bytes.getInt32(address, true);
  }

  /** The 16-bit word at `address`. */
  half(address: number): number {
    return this.#bytes.getUint16(address, true);
  }

  /** The byte at `address`. */
  byte(address: number): number {
    return this.#bytes.getUint8(address);
  }

  /** The 64-bit word at `address`. */
  long(address: number): bigint {
    return this.#bytes.getBigInt64(address, true);
  }

  /** Whether all registers among the operands of `op` are general-purpose or vector ones. */
  inRegisters({ record, form }: RegionOp): boolean {
    return form.operands.every(({ kind }, k) => {
      if (kind !== "R") return true;
      const address = this.half(record + REGISTER_FIELDS[registerPlace(form.operands, k)]!);
      return address >= registerAddress(0) && address < registerAddress(REGISTERS);
    });
  }

  /** Number of the general-purpose register that is the first operand of `op`, if one is. */
  firstRegister({ record, form }: RegionOp): number | undefined {
    if (form.operands[0]?.kind !== "R") return undefined;
    const address = this.half(record + REGISTER_FIELDS[registerPlace(form.operands, 0)]!);
    const n = (address - registerAddress(0)) >> 3;
    return n >= 0 && n < REGISTERS ? n : undefined;
  }
}
