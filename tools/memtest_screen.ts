/**
 * What memtest86+ 6 tells on its screen.
 *
 * @module
 */

/** How far it is. */
export interface MemtestStatus {
  /** Passes that are finished. */
  readonly passes: number;
  /** Errors found. */
  readonly errors: number;
  /** How much of the pass is done, in percent; of the test as well. */
  readonly pass: number | undefined;
  /** The test at hand, like `#5 [Moving inversions, random pattern]`. */
  readonly test: string | undefined;
}

/** Reads the screen; `undefined` while it does not show what there is to know. */
export function readStatus(lines: readonly string[]): MemtestStatus | undefined {
  const text = lines.join("\n");
  const counts = /Pass: +(\d+) +Errors: +(\d+)/.exec(text);
  if (counts === null) return undefined;
  const percent = /Pass +(\d+)%/.exec(text)?.[1];
  return {
    passes: Number(counts[1]),
    errors: Number(counts[2]),
    pass: percent === undefined ? undefined : Number(percent),
    test: /Test (#\d+ +\[[^\]]*\])/.exec(text)?.[1],
  };
}

/** The same in words. */
export function describe({ passes, errors, pass, test }: MemtestStatus): string {
  if (passes > 0) return `${passes} passes, ${errors} errors`;
  return `${pass ?? 0} % of the pass, ${errors} errors, test ${test ?? "not begun"}`;
}
