/**
 * The leak of R16–R31 between vCPUs, in a size that a test may have; `deno task apx:leak` makes it a
 * million switches.
 */
import { assert, assertEquals } from "@std/assert";
import { leak } from "./leak.ts";
import { HYPERVISORS } from "./long_guest.ts";

const SWITCHES = 10_000;

for (const host of HYPERVISORS) {
  Deno.test(`${host}: in ${SWITCHES} switches nothing leaks unless nobody switches R16–R31`, () => {
    for (const variant of ["posted", "reviewed"] as const) {
      const { switches, leaks } = leak(host, variant, SWITCHES);
      assert(switches >= SWITCHES);
      assertEquals(leaks, 0, variant);
    }
    assertEquals(leak(host, "none", SWITCHES).leaks, 4);
  });
}
