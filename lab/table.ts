/**
 * Tables of text.
 *
 * @module
 */

/** Lays out rows under each other; columns from `numbers` on are right-aligned. Lines end in a line feed. */
export function table(rows: readonly (readonly string[])[], numbers: number): string {
  const columns = Math.max(0, ...rows.map(({ length }) => length));
  const widths = Array.from(
    { length: columns },
    (_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row.map((cell, column) =>
      column < numbers ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
    ).filter((_, column) => widths[column]! > 0).join("  ").trimEnd() + "\n"
  ).join("");
}

/** A whole number with commas between its thousands. */
export function grouped(count: number): string {
  return count.toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A difference with its sign; 0 is written as such. */
export function signed(difference: number): string {
  const text = grouped(Math.abs(difference));
  return difference > 0 ? `+${text}` : difference < 0 ? `-${text}` : "0";
}

/** A change in percent of `before`, one digit behind the point. */
export function percent(before: number, after: number): string {
  if (before === 0) return after === 0 ? "0.0%" : "new";
  const change = (after - before) / before * 100;
  return `${change > 0 ? "+" : ""}${change.toFixed(1)}%`;
}
