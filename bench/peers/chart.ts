/**
 * The chart of the results.
 *
 * @module
 */
import { ratio, type Results, rowsOf } from "./results.ts";
import { GROUPS } from "./workloads.ts";

/** What all others are measured against in the chart. */
const BASE = "QEMU TCG";

const COLORS: Readonly<Record<string, string>> = {
  Trapline: "#d1242f",
  "QEMU TCG": "#57606a",
  v86: "#bf8700",
  Bochs: "#0969da",
  Unicorn: "#8250df",
  native: "#1a7f37",
};

const LEFT = 250, WIDTH = 560, ROW = 26, TOP = 60;
/** The axis: from a hundredth of the base's speed to thirty times as fast. */
const LEAST = 0.01, MOST = 30;

const x = (speed: number): number =>
  LEFT + WIDTH * Math.log(Math.min(MOST, Math.max(LEAST, speed)) / LEAST) / Math.log(MOST / LEAST);

/** An SVG: a line for each group and width, a dot for each peer, on a logarithmic axis. */
export function chart(results: Results): string {
  const parts: string[] = [];
  const lines = GROUPS.flatMap((group) => group.widths.map((bits) => ({ group, bits })))
    .filter(({ group, bits }) => rowsOf(results, group, bits).length > 0);
  const bottom = TOP + ROW * lines.length;
  const seen = new Set<string>();
  for (const speed of [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]) {
    parts.push(
      `<line x1="${x(speed)}" y1="${TOP - 10}" x2="${x(speed)}" y2="${bottom}" stroke="${
        speed === 1 ? "#57606a" : "#d0d7de"
      }"/>`,
      `<text x="${x(speed)}" y="${bottom + 16}" text-anchor="middle">${speed}×</text>`,
    );
  }
  for (const [n, { group, bits }] of lines.entries()) {
    const y = TOP + ROW * n + ROW / 2;
    const rows = rowsOf(results, group, bits);
    parts.push(
      `<text x="${LEFT - 10}" y="${y + 4}" text-anchor="end">${group.name}, ${bits}-bit</text>`,
    );
    for (const [peer, color] of Object.entries(COLORS)) {
      const speed = ratio(rows, peer, BASE);
      if (speed === undefined) continue;
      seen.add(peer);
      parts.push(
        `<circle cx="${x(speed).toFixed(1)}" cy="${y}" r="5" fill="${color}" fill-opacity="0.85">` +
          `<title>${peer}: ${speed.toFixed(2)}×</title></circle>`,
      );
    }
  }
  let at = LEFT;
  for (const peer of seen) {
    parts.push(
      `<circle cx="${at + 5}" cy="40" r="5" fill="${COLORS[peer]}"/>`,
      `<text x="${at + 14}" y="44">${peer}</text>`,
    );
    at += 90;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${LEFT + WIDTH + 30} ${
    bottom + 30
  }" ` +
    `font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#ffffff"/>\n` +
    `<text x="${LEFT}" y="22" font-size="14">Speed, where ${BASE} is 1 (geometric means)</text>\n` +
    `${parts.join("\n")}\n</svg>\n`;
}
