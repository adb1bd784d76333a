import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, Oscillator } from "./mod.ts";

const SECOND = 1_000_000_000n;

/** The same in arithmetic that cannot round. */
function exact(frequency: number) {
  const f = BigInt(frequency);
  return {
    cyclesAt: (ticks: number) => BigInt(ticks) * f / SECOND,
    timeOf: (cycles: number) => (BigInt(cycles) * SECOND + f - 1n) / f,
  };
}

const FREQUENCIES = [1, 3, 1_193_182, 100_000_000, 999_999_999, 1_000_000_000, 2 ** 32 - 1];

Deno.test("cycles and times are exact, near zero and far from it", () => {
  for (const frequency of FREQUENCIES) {
    const oscillator = new Oscillator(frequency);
    const reference = exact(frequency);
    const long = 3600 * 24 * 104;
    for (const seconds of [0, 1, 59, long]) {
      for (const rest of [0, 1, 2, 837, 838, 839, 500_000_000, 999_999_999]) {
        const ticks = seconds * 1e9 + rest;
        if (!Number.isSafeInteger(ticks)) continue;
        const cycles = oscillator.cyclesAt(ticks);
        if (!Number.isSafeInteger(cycles)) continue;
        assertEquals(BigInt(cycles), reference.cyclesAt(ticks), `${frequency} Hz at ${ticks}`);
        for (const count of [cycles, cycles + 1]) {
          const time = oscillator.timeOf(count);
          assertEquals(BigInt(time), reference.timeOf(count), `${frequency} Hz, cycle ${count}`);
        }
      }
    }
  }
});

Deno.test("a time is the first at which the cycles are complete", () => {
  const oscillator = new Oscillator(1_193_182);
  for (let cycles = 1; cycles < 70_000; cycles += 997) {
    const time = oscillator.timeOf(cycles);
    assertEquals(oscillator.cyclesAt(time), cycles);
    assertEquals(oscillator.cyclesAt(time - 1), cycles - 1);
  }
});

Deno.test("frequencies out of range are refused", () => {
  for (const frequency of [0, -1, 1.5, 2 ** 32, NaN]) {
    assertThrows(() => new Oscillator(frequency), ArgumentError, `frequency ${frequency}`);
  }
});
