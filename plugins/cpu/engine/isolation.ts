/**
 * Instructions that have to be the last of their block.
 *
 * Those access a device, or have stored over code that their own block or region is made of, so that the very
 * next instruction may depend on it. That is found out when they first do it. Whether they still do is
 * looked at every now and then: what has not for a while is an instruction like others again, for a while that
 * doubles with each time it is found out anew.
 *
 * @module
 */

/** Looks without need before an instruction is like others again, the first time. */
const PATIENCE = 2;

interface Isolated {
  readonly end: number;
  /** Whether blocks end behind it now. */
  active: boolean;
  /** Looks since it was last needed. */
  unused: number;
  patience: number;
}

/** The isolated instructions of one machine, by where they stand in memory. */
export class Isolation {
  readonly #instructions = new Map<number, Isolated>();
  readonly #byEnd = new Map<number, number>();

  /** Whether the instruction at `address` has to be the last of its block. */
  has(address: number): boolean {
    return this.#instructions.get(address)?.active ?? false;
  }

  /** From now on the instruction at `address`, which goes up to `end`, has to. */
  add(address: number, end: number): void {
    const known = this.#instructions.get(address);
    const patience = known === undefined ? PATIENCE : known.patience * 2;
    this.#instructions.set(address, { end, active: true, unused: 0, patience });
    this.#byEnd.set(end, address);
  }

  /** Where the instruction stands that has to be the last of its block and goes up to `end`. */
  endingAt(end: number): number | undefined {
    const address = this.#byEnd.get(end);
    return address !== undefined && this.has(address) ? address : undefined;
  }

  /**
   * Notes a look at the instruction at `address`, which was needed as the last of a block since the last one,
   * or not; true if it need not be the last of its block any more.
   */
  look(address: number, used: boolean): boolean {
    const known = this.#instructions.get(address);
    if (known === undefined || !known.active) return false;
    known.unused = used ? 0 : known.unused + 1;
    if (known.unused < known.patience) return false;
    known.active = false;
    this.#byEnd.delete(known.end);
    return true;
  }

  /** Forgets all. */
  clear(): void {
    this.#instructions.clear();
    this.#byEnd.clear();
  }
}
