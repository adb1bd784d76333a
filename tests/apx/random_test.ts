/**
 * Random programs of APX instructions on the bare processor and under each hypervisor: all come to what
 * the evaluator of the bare processor's tests has worked out, entries and exits in between or not.
 */
import { assertEquals } from "@std/assert";
import { assertSame, PROGRAM } from "../silicon/apx/apx_bench.ts";
import { instructions, makeProgram, withCode } from "../silicon/apx/programs.ts";
import { ALL_HOSTS } from "./long_guest.ts";
import { Stepper } from "./stepper.ts";

const SEED = 0xa9c0_0017;
const PROGRAMS = 30;
const LENGTH = 50;
/** Instructions between two exits: a program as a whole, and in pieces. */
const PIECES: readonly number[] = [1e6, 7, 1];

console.log(`seed ${SEED.toString(16)}`);
const programs = Array.from({ length: PROGRAMS }, (_, k) => makeProgram(SEED, k, LENGTH));

for (const host of ALL_HOSTS) {
  Deno.test(`${host}: random programs come to what the evaluator says, in one piece and in many`, () => {
    const stepper = new Stepper(host);
    for (const { name, before, code, after } of programs) {
      for (const piece of PIECES) {
        stepper.restore();
        stepper.load(withCode(before, code));
        for (let left = instructions(code); left > 0; left -= piece) {
          assertEquals(stepper.run(Math.min(left, piece)), "limit", name);
        }
        assertEquals(stepper.vector(), -1, name);
        assertSame(stepper.snapshot(), withCode(after, code), 0, `${host}, ${name}, by ${piece}`);
      }
    }
    stepper.close();
  });
}

Deno.test("the programs are where the stepper puts them", () => {
  for (const { before } of programs) assertEquals(before.rip, BigInt(PROGRAM));
});
