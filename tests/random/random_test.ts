/**
 * Some random programs on metal, svm and vmx, interpreted and compiled, with and without virtual APICs.
 * `deno task random` runs as many as one likes.
 */
import { assert, assertEquals } from "@std/assert";
import { Campaign } from "./campaign.ts";
import { differences } from "./compare.ts";
import { CONTEXTS } from "./context.ts";
import { Host, HOSTS } from "./hosts.ts";
import { makeProgram } from "./program.ts";

const SEED = 1;
const PROGRAMS = 200;

Deno.test("random programs in all modes and rings end the same on metal, svm and vmx", () => {
  console.log(`seeds from ${SEED}`);
  using campaign = new Campaign({ vendors: ["metal", "svm", "vmx"], slow: 50 });
  for (let seed = SEED; seed < SEED + PROGRAMS; seed++) assertEquals(campaign.check(seed), []);
  const { tally } = campaign;
  assertEquals([tally.programs, tally.slow, tally.unfinished], [PROGRAMS, 4, 0]);
  // Handlers log the last round or two of exceptions and interrupts of each program.
  assert(tally.logged > 10 * PROGRAMS, `${tally.logged} events`);
});

Deno.test("random programs have sections of every kind", () => {
  const names = new Set<string>();
  for (let seed = SEED; seed < SEED + PROGRAMS; seed++) {
    for (const { name } of makeProgram(seed).sections) names.add(name);
  }
  const kinds = [...CONTEXTS.long, ...CONTEXTS.legacy].map(({ name }) => name);
  assertEquals([...names].sort(), [...new Set([...kinds, "end"])].sort());
});

Deno.test("a difference in a register, a system register or memory is found", () => {
  const program = makeProgram(SEED);
  using host = new Host(HOSTS[0]!);
  const outcome = host.run(program, SEED);
  const memory = outcome.memory.slice();
  memory[0x3_0001]! ^= 1;
  const registers = outcome.registers.with(1, outcome.registers[1]! ^ 1n);
  const system = { ...outcome.system, cr2: outcome.system.cr2 ^ 1n };
  assertEquals(differences(outcome, { ...outcome, memory }).length, 1);
  assertEquals(differences(outcome, { ...outcome, registers }).length, 1);
  assertEquals(differences(outcome, { ...outcome, system }).length, 1);
  assertEquals(differences(outcome, outcome), []);
});
