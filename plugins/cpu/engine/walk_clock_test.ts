import { assert, assertEquals } from "@std/assert";
import { WalkClock } from "./walk_clock.ts";

Deno.test("what many walks take is told from a few, without those that were interrupted", () => {
  const clock = new WalkClock();
  assertEquals(clock.estimate(1000), 0);
  const spin = (ms: number): void => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  };
  for (let k = 0; k < 500; k++) {
    clock.read(0);
    spin(k % 100 === 0 ? 0.5 : 0.005);
    clock.read(1);
  }
  const estimate = clock.estimate(1000);
  assert(estimate > 4 && estimate < 50, `${estimate} ms`);
});
