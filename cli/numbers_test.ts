import { assertEquals, assertThrows } from "@std/assert";
import { CliError } from "./errors.ts";
import { parseCount, parseMemory, parseSize } from "./numbers.ts";

Deno.test("sizes", () => {
  const cases: [text: string, bytes: number][] = [
    ["0", 0],
    ["4096", 4096],
    ["64K", 65536],
    ["128M", 2 ** 27],
    ["128m", 2 ** 27],
    ["1G", 2 ** 30],
    ["1GiB", 2 ** 30],
    ["1GB", 2 ** 30],
    ["2T", 2 ** 41],
    ["1.5G", 1.5 * 2 ** 30],
    ["3.8G", 4080218112],
    ["0x8000000", 2 ** 27],
    ["0x8000K", 2 ** 25],
    ["1_000", 1000],
    [" 1M ", 2 ** 20],
  ];
  for (const [text, bytes] of cases) assertEquals(parseSize("--x", text), bytes, text);
});

Deno.test("what is no size is refused by name", () => {
  for (const text of ["", "M", "1X", "1MM", "-1M", "1 000", "0x", "1e3", "1.5.2M", ".5G", "0xG"]) {
    assertThrows(() => parseSize("--memory", text), CliError, `--memory ${text}: not a size`);
  }
  assertThrows(() => parseSize("--memory", "9007199254740992"), CliError);
  assertThrows(() => parseSize("--memory", "8192T"), CliError);
});

Deno.test("memory is whole pages", () => {
  assertEquals(parseMemory("--memory", "8K"), 8192);
  for (const text of ["0", "1", "4097", "0.5K"]) {
    assertThrows(() => parseMemory("--memory", text), CliError, "whole pages of 4096 bytes");
  }
});

Deno.test("counts", () => {
  assertEquals(parseCount("--n", "1000", 1, 1e9), 1000);
  assertEquals(parseCount("--n", "1_000_000", 1, 1e9), 1e6);
  assertEquals(parseCount("--n", "1e9", 1, 1e9), 1e9);
  assertEquals(parseCount("--n", "1.25e8", 1, 1e9), 125e6);
  assertEquals(parseCount("--n", "0x10", 1, 1e9), 16);
  for (
    const text of [
      "",
      "0",
      "1000000001",
      "1.5",
      "1.25e1",
      "-3",
      "x",
      "1e",
      "1e-3",
      "Infinity",
      "NaN",
    ]
  ) {
    assertThrows(
      () => parseCount("--n", text, 1, 1e9),
      CliError,
      "not a whole number from 1 to 1000000000",
    );
  }
  assertThrows(
    () => parseCount("--n", "1e99", 1, Number.MAX_SAFE_INTEGER),
    CliError,
    "of at least 1",
  );
});
