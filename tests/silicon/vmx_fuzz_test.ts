/**
 * VMCSs near a valid one: the processor refuses what the list of checks refuses, as the list says, and
 * nothing else; and the host is whole afterwards. `deno task fuzz` tries a million.
 *
 * VMX_FUZZ_CASES and VMX_FUZZ_SEED say how many and which.
 */
import { assert, assertEquals } from "@std/assert";
import { Tally } from "../fuzz/campaign.ts";
import { ENTRY_CHECKS } from "../fuzz/vmcs_checks.ts";
import { fuzzVmcs } from "../fuzz/vmcs_fuzz.ts";

const CASES = Number(Deno.env.get("VMX_FUZZ_CASES") ?? 1500);
const SEED = Number(Deno.env.get("VMX_FUZZ_SEED") ?? Math.floor(Math.random() * 0x7fff_ffff));

Deno.test(`${CASES} VMCSs near a valid one, seed ${SEED}`, () => {
  const tally = new Tally(ENTRY_CHECKS.map(({ rule }) => rule));
  fuzzVmcs(CASES, SEED, tally);
  assertEquals(tally.cases, CASES);
  // Each kind of refusal has come up, and so have guests that ran.
  const kinds = new Map(tally.kinds);
  for (const kind of ["VMfail 7", "VMfail 8", "entry failure, INVALID_GUEST_STATE", "exit"]) {
    assert((kinds.get(kind) ?? 0) > 0, kind);
  }
});
