/**
 * Stores where decoded code is: the next instruction sees them, and what they cost otherwise.
 */
import { assert, assertEquals } from "@std/assert";
import { S, Stop, type Tier } from "../../plugins/cpu/mod.ts";
import { Bench } from "./bench.ts";
import { code, dword } from "./code.ts";

const AT = 0x10_0000;
const STACK = 0x18_0000;
const BUFFER = 0x20_0000;
const TIERS: readonly Tier[] = [1, 2, "auto"];

/** Runs `bytes`, which stand at `at`, in flat 32-bit mode to a HLT. */
function toHalt(bytes: readonly number[], tier: Tier, at = AT): Bench {
  const bench = new Bench({ tier });
  bench.write(at, bytes);
  bench.protect();
  bench.state.set(S.rip, BigInt(at));
  bench.state.setRegister(4, BigInt(STACK));
  assertEquals(bench.run(0x4000_0000).stop, Stop.HALT);
  return bench;
}

const eax = (bench: Bench): number => Number(bench.state.register(0) & 0xffff_ffffn);

for (const tier of TIERS) {
  Deno.test(`tier ${tier}: stores over code elsewhere are like other stores`, () => {
    const dwords = 1000;
    const fill = code(
      "bf",
      dword(BUFFER), // mov edi, BUFFER
      "b9",
      dword(dwords), // mov ecx, …
      "89 17", // next: mov [edi], edx
      "83 c7 04", // add edi, 4
      "49", // dec ecx
      "75 f8", // jnz next
    );
    const call = code("bb", dword(BUFFER + 4 * (dwords - 1)), "ff d3"); // mov ebx, …; call ebx
    const rounds = 50;
    const bytes = code(
      "31 c0 bd",
      dword(rounds), // xor eax, eax; mov ebp, rounds
      "ba 40 c3 c3 c3", // mov edx, INC EAX; RET
      [...fill, ...call],
      "ba 48 c3 c3 c3", // mov edx, DEC EAX; RET
      [...fill, ...call],
      "4d 75", // dec ebp; jnz
      [256 - (2 * (5 + 10 + 8 + 7) + 3)],
      "40 f4", // inc eax; hlt
    );
    const bench = toHalt(bytes, tier);
    assertEquals(eax(bench), 1);
    const { blocks } = bench.processors.statistics;
    assert(blocks.invalidated >= 2 * rounds - 1, `${blocks.invalidated} blocks were dropped`);
    assertEquals(blocks.isolated, 0);
  });

  Deno.test(`tier ${tier}: a store over the next instruction, and elsewhere ever after`, () => {
    const rounds = 1_000_000;
    const bytes = code(
      "31 c0 b9",
      dword(rounds), // xor eax, eax; mov ecx, rounds
      "be",
      dword(AT + 17), // mov esi, the constant below
      "c6 06 03", // next: mov byte [esi], 3
      "83 c0 01", // add eax, 1
      "be",
      dword(BUFFER), // mov esi, BUFFER
      "49 75 f2", // dec ecx; jnz next
      "f4",
    );
    const bench = toHalt(bytes, tier);
    assertEquals(eax(bench), 3 * rounds);
    const { blocks, dispatches } = bench.processors.statistics;
    assert(blocks.isolated > 0);
    // The interpreter alone is not looked at so soon.
    if (tier !== 1) assert(dispatches < rounds / 5, `${dispatches} times through the dispatcher`);
  });

  Deno.test(`tier ${tier}: what changes memory across pages and its own code is done once`, () => {
    // The upper half of the dword is the block's own first two bytes.
    const at = AT + 0x1000;
    const bench = toHalt(
      code("90 90 83 05", dword(at - 2), "01 a1", dword(at - 2), "f4"),
      tier,
      at,
    );
    assertEquals(eax(bench), 0x9090_0001);
  });
}
