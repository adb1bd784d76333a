/**
 * Code that is being run and that somebody else writes, another processor or a device, between any two
 * instructions: the very next one is the new one, in all tiers.
 */
import { assert, assertEquals } from "@std/assert";
import { S, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { code, dword } from "./code.ts";

const TIERS = [1, 2, "auto"] as const;
const ROUNDS = 100_000;
/** Where the other processor's code is. */
const OTHER = 0x1_8000;
/** The constant of the ADD, and the instructions of a round. */
const CONSTANT = Place.CODE + 2;
const IN_ROUND = 3;
const WRITES = 60;

/** Writes the constant of the loop that processor 0 is in. */
type Writer = (bench: Bench, value: number) => void;

const WRITERS: readonly (readonly [name: string, write: Writer])[] = [
  ["a device", (bench, value) => bench.write(CONSTANT, [value])],
  ["another processor", (bench, value) => {
    bench.select(1);
    bench.state.set(S.rip, BigInt(OTHER));
    bench.state.set32(S.events, 0);
    // mov byte [CONSTANT], value; hlt
    const outcome = bench.execute(code("c6 04 25", dword(CONSTANT), [value], "f4"), 10);
    assertEquals(outcome.stop, Stop.HALT);
    bench.select(0);
  }],
];

for (const [name, write] of WRITERS) {
  Deno.test(`code that ${name} writes while it is run`, () => {
    for (const tier of TIERS) {
      const bench = new Bench({ processors: 2, memory: 0x40_0000, tier });
      for (const index of [1, 0]) {
        bench.select(index);
        bench.long(0);
      }
      // add eax, 1; dec ecx; jnz; hlt
      bench.write(Place.CODE, code("83 c0 01 ff c9 75 f9 f4"));
      bench.state.setRegister(0, 0n);
      bench.state.setRegister(1, BigInt(ROUNDS));
      let expected = 0;
      let rounds = 0;
      let constant = 1;
      for (let k = 1; k <= WRITES; k++) {
        // So many instructions that each of the round's is the next one in turn.
        const run = 1000 + k;
        const before = rounds;
        const done = Array.from({ length: k }, (_, n) => 1001 + n).reduce((sum, n) => sum + n, 0);
        // The ADD of a round that has begun is done.
        rounds = Math.ceil(done / IN_ROUND);
        expected += (rounds - before) * constant;
        assertEquals(bench.run(run).stop, Stop.BUDGET);
        assertEquals(Number(bench.state.register(0)), expected, `tier ${tier}, ${done}`);
        constant = (k * 7) % 100 + 1;
        write(bench, constant);
      }
      assertEquals(bench.run(IN_ROUND * ROUNDS).stop, Stop.HALT);
      expected += (ROUNDS - rounds) * constant;
      assertEquals(Number(bench.state.register(0)), expected, `tier ${tier}`);
      const { blocks, regions } = bench.processors.statistics;
      assert(blocks.invalidated >= WRITES);
      if (tier !== 1) assert(regions.compiled > 0, `tier ${tier}`);
    }
  });
}
