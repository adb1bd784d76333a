/**
 * Guests with gigabytes of memory, whose code and data lie beyond 2 GiB: addresses have 32 bits, and none
 * of them is a sign.
 */

import { assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const GIB = 2 ** 30;
const ORIGIN = 2.75 * GIB;
const ROUNDS = 100_000;

/** Counts down and adds up in memory beside itself, calls, stores into its own page; 32-bit code. */
const CODE = [
  ...[0xbc, 0x00, 0xf0, 0x00, 0xb0], // mov esp, b000f000h
  ...[0xb9, ROUNDS & 0xff, ROUNDS >> 8 & 0xff, ROUNDS >> 16, 0], // mov ecx, ROUNDS
  ...[0xbf, 0x00, 0x20, 0x00, 0xb0], // mov edi, b0002000h
  ...[0x01, 0x0f], // add [edi], ecx
  ...[0xe8, 0x09, 0x00, 0x00, 0x00], // call +9
  ...[0x49, 0x75, 0xf6], // dec ecx; jnz -10
  ...[0x8a, 0x47, 0x03, 0xe6, 0xf4, 0xf4], // mov al, [edi + 3]; out f4h, al; hlt
  ...[0x43, 0xc3], // inc ebx; ret
];
const SUM = ROUNDS * (ROUNDS + 1) / 2 % 2 ** 32;

for (const [name, vendor] of Object.entries({ metal, svm } as Record<string, () => Plugin>)) {
  for (const tier of [1, 2, "auto"] as const) {
    Deno.test(`${name}, tier ${tier}: code and data at 2.75 GiB`, async () => {
      const image = flat(Uint8Array.from(CODE), {
        address: ORIGIN,
        entry: { mode: "protected32" },
      });
      using vm = await createVm({
        memory: 3 * GIB,
        plugins: [cpu({ tier }), vendor(), debugExit()],
        images: [image],
      });
      const result = await vm.run({ instructions: 10 * ROUNDS });
      const code = result.reason === "exit-code" ? result.code : result;
      assertEquals(code, (SUM >>> 24) << 1 | 1);
      assertEquals(vm.memory.readU32(0xb000_2000), SUM);
      assertEquals(vm.vcpus[0]?.regs.rbx, BigInt(ROUNDS));
    });
  }
}
