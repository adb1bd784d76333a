/**
 * What the fuzzers have in common: what they count, and how they report a difference.
 *
 * @module
 */

/** The processor and the list of checks judge a structure differently. */
export class Finding extends Error {
  /** `"Finding"`. */
  override readonly name = "Finding";
}

/** What came up in a campaign. */
export class Tally {
  readonly #rules: readonly string[];
  readonly #rows: number[];
  readonly #kinds = new Map<string, number>();
  /** Structures tried. */
  cases = 0;
  readonly #progress: ((tally: Tally) => void) | undefined;

  /** Counts refusals by `rules`; `progress` hears of every case. */
  constructor(rules: readonly string[], progress?: (tally: Tally) => void) {
    this.#rules = rules;
    this.#rows = rules.map(() => 0);
    this.#progress = progress;
  }

  /** One structure, and what became of it. */
  count(kind: string): void {
    this.cases++;
    this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    this.#progress?.(this);
  }

  /** A row of the list was the only one that refused a structure. */
  row(index: number): void {
    this.#rows[index]!++;
  }

  /** How often each outcome came up, the most frequent first. */
  get kinds(): readonly (readonly [string, number])[] {
    return [...this.#kinds].sort((a, b) => b[1] - a[1]);
  }

  /** Rules that alone have refused no structure yet. */
  get missed(): readonly string[] {
    return this.#rules.filter((_, k) => this.#rows[k] === 0);
  }
}
