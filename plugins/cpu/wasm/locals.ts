/**
 * Which values share a local.
 *
 * V8's first compiler looks at all locals wherever ways part and meet, and both of its compilers keep track
 * of each. With one local for each value the largest regions had a thousand of them, and V8 took tens of
 * milliseconds for their first code, while the guest stood still.
 *
 * @module
 */
import type { ValueType } from "./opcodes.ts";

/** {@linkcode Loop.end} of a loop that is being built. */
export const LOOP_OPEN = 0x7fff_ffff;

/** A loop of a function. */
export interface Loop {
  /** Number of the loop around it. */
  readonly parent: number;
  /** Position of its first node. */
  readonly start: number;
  /** Position of its last node. */
  end: number;
}

/** How long each value and each temporary local is needed. */
export class Spans {
  /** For each node the last position where its value is needed, or -1. */
  readonly values: Int32Array;
  /** The same for each temporary local. */
  readonly temporaries: Map<number, number> = new Map();
  readonly #loops: readonly Loop[];

  constructor(nodes: number, loops: readonly Loop[]) {
    this.values = new Int32Array(nodes).fill(-1);
    this.#loops = loops;
  }

  /** The value of the node at `made` is needed at `used`, which is in loop `loop`. */
  useValue(made: number, used: number, loop: number): void {
    const until = this.#until(made, used, loop);
    if (until > this.values[made]!) this.values[made] = until;
  }

  /** Temporary local `local` is read at `used`. */
  useTemporary(local: number, used: number): void {
    if (used > (this.temporaries.get(local) ?? -1)) this.temporaries.set(local, used);
  }

  /** What is made outside a loop and used inside is needed again in the next round. */
  #until(made: number, used: number, loop: number): number {
    let until = used;
    for (let at = loop; at !== 0; at = this.#loops[at]!.parent) {
      const { start, end } = this.#loops[at]!;
      if (start < made && made < end) break;
      until = end;
    }
    return until;
  }
}

/** Gives locals to values while a function is lowered from its beginning to its end. */
export class LocalPool {
  readonly #locals: ValueType[];
  readonly #free = new Map<ValueType, number[]>();
  /** By position the locals that nobody needs behind it. */
  readonly #ends = new Map<number, number[]>();

  /** New locals are appended to `locals`. */
  constructor(locals: ValueType[]) {
    this.#locals = locals;
  }

  /** A local of `type` that is needed up to position `until`. */
  take(type: ValueType, until: number): number {
    const local = this.#free.get(type)?.pop() ?? this.#locals.push(type) - 1;
    const ends = this.#ends.get(until);
    if (ends === undefined) this.#ends.set(until, [local]);
    else ends.push(local);
    return local;
  }

  /** What is needed up to `position` is free behind it. */
  passed(position: number): void {
    const ends = this.#ends.get(position);
    if (ends === undefined) return;
    for (const local of ends) {
      const type = this.#locals[local]!;
      const free = this.#free.get(type);
      if (free === undefined) this.#free.set(type, [local]);
      else free.push(local);
    }
    this.#ends.delete(position);
  }
}
