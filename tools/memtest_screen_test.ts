import { assertEquals } from "@std/assert";
import { describe, readStatus } from "./memtest_screen.ts";

/** What stands on the screen of memtest86+ 6.10 in the middle of its first pass. */
const SCREEN: readonly string[] = [
  "      Memtest86+ v6.10      | Trapline Processor",
  "CLK/Temp: 1000MHz           | Pass 68% ###########################",
  "L1 Cache:   N/A             | Test 23% #########",
  "L2 Cache:   N/A             | Test #9  [Modulo 20, random pattern]",
  "L3 Cache:   N/A             | Testing: 0KB - 4MB [4MB of 31.6MB]",
  "Memory  :   32MB            | Pattern: 0x0393b0219c9f8e9c - 14",
  "-".repeat(80),
  "CPU: 1 Cores 1 Threads    SMP: Disabled   | Time:  0:00:22  Status: Testing  \\",
  "Using: All Cores                          | Pass:  0        Errors: 0",
];

Deno.test("the screen tells how far it is", () => {
  const test = "#9  [Modulo 20, random pattern]";
  assertEquals(readStatus(SCREEN), { passes: 0, errors: 0, pass: 68, test });
  assertEquals(describe(readStatus(SCREEN)!), `68 % of the pass, 0 errors, test ${test}`);
  const changed = (from: string, to: string) =>
    readStatus(SCREEN.map((line) => line.replace(from, to)));
  assertEquals(changed("Pass:  0", "Pass:  1")?.passes, 1);
  assertEquals(changed("Errors: 0", "Errors: 12")?.errors, 12);
});

Deno.test("a screen that is not painted yet tells nothing", () => {
  assertEquals(readStatus(SCREEN.slice(0, 8)), undefined);
  assertEquals(readStatus([]), undefined);
});
