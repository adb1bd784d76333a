/** Flags where ways meet are those that the interpreter has there. */
import { assertEquals } from "@std/assert";
import { createVm } from "../core/mod.ts";
import { cpu, type Tier } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { code, dword } from "./silicon/code.ts";

const ROUNDS = 20_000;

Deno.test("BSF of a doubleword with its uppermost bit set leaves SF clear, in both tiers", async () => {
  const program = code(
    [0xb9, ...dword(ROUNDS)], // mov ecx, ROUNDS
    "0f98c3 01de 89c8 0d00000080", // again: sets bl; add esi, ebx; mov eax, ecx; or eax, 80000000h
    "0fbcd0 e2ef f4", // bsf edx, eax; loop again; hlt
  );
  const run = async (tier: Tier): Promise<bigint> => {
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model: "zen4", tier }), metal()],
      images: [
        flat(Uint8Array.from(program), { address: 0x1_0000, entry: { mode: "protected32" } }),
      ],
    });
    assertEquals((await vm.run({ instructions: 10 * ROUNDS })).reason, "halted");
    return vm.vcpus[0]!.regs.rsi;
  };
  assertEquals([await run(1), await run(2)], [0n, 0n]);
});
