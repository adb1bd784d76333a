/**
 * Answers of CPUID that follow from the model alone, worked out once.
 *
 * Software asks CPUID in loops, to serialize or to leave a hypervisor, and does so with leaf 0 mostly.
 *
 * @module
 */
import type { CpuidResult } from "../../../core/mod.ts";
import { fill } from "./result.ts";

/** Leaves of each range, from 0 and from 8000_0000h on, that have a place of their own. */
const RANGE = 0x40;
const EXTENDED = 0x8000_0000;

/** How many places there are for leaves. */
export const LEAF_PLACES: number = 2 * RANGE;

/** A place for what is kept of a leaf; −1 for one beyond those that any model has. */
export function leafPlace(leaf: number): number {
  if (leaf < RANGE) return leaf;
  const extended = leaf - EXTENDED;
  return extended >= 0 && extended < RANGE ? RANGE + extended : -1;
}

/**
 * Leaves whose answer depends on the subleaf or on the vCPU: its APIC ID, the others there are, its CR4
 * and XCR0.
 */
const VARYING: readonly number[] = [
  0x1,
  0x4,
  0x7,
  0xb,
  0xd,
  0x1f,
  0x29,
  0x8000_0001,
  0x8000_0008,
  0x8000_001d,
  0x8000_001e,
];

/** What is known of a leaf. */
const State = { UNKNOWN: 0, KNOWN: 1, VARIES: 2 } as const;

/** The answers of one model. */
export class FixedAnswers {
  readonly #states = new Uint8Array(LEAF_PLACES);
  readonly #answers = new Uint32Array(4 * LEAF_PLACES);

  /** None is known yet. */
  constructor() {
    for (const leaf of VARYING) this.#states[leafPlace(leaf)] = State.VARIES;
  }

  /** Fills in the answer, if it is known. */
  recall(result: CpuidResult): boolean {
    const place = leafPlace(result.leaf);
    if (place < 0 || this.#states[place] !== State.KNOWN) return false;
    const answers = this.#answers;
    const at = 4 * place;
    fill(result, answers[at]!, answers[at + 1], answers[at + 2], answers[at + 3]);
    return true;
  }

  /** Keeps an answer that is complete, if it does not vary. */
  keep(result: CpuidResult): void {
    const place = leafPlace(result.leaf);
    if (place < 0 || this.#states[place] !== State.UNKNOWN) return;
    this.#answers.set([result.eax, result.ebx, result.ecx, result.edx], 4 * place);
    this.#states[place] = State.KNOWN;
  }
}
