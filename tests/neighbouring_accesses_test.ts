/** Accesses beside each other are each where its own page says, however the first of them was found. */
import { assert, assertEquals } from "@std/assert";
import { createVm } from "../core/mod.ts";
import { cpu, type Tier } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { code, dword } from "./silicon/code.ts";

const CODE = 0x1_0000;
const DIRECTORY = 0x2_0000, TABLE = 0x2_1000, UPPER_TABLE = 0x2_2000;
/** Pages that follow each other from 4 MiB on, and where they are. */
const PAGES = 0x40_0000;
const FRAMES = [0x3_0000, 0x3_5000, 0x3_3000, 0x3_4000] as const;
const ROUNDS = 3000;
const CR0_PG = 0x8000_0000n;

/** What the program leaves in registers and in the pages. */
async function run(tier: Tier): Promise<unknown[]> {
  const program = code(
    [0xb9, ...dword(ROUNDS)], // mov ecx, ROUNDS
    [0xbe, ...dword(PAGES + 0xf70)], // again: mov esi, PAGES + f70h
    "8b06 034604 33460c", // next: mov eax, [esi]; add eax, [esi + 4]; xor eax, [esi + 12]
    "014608 894678", // add [esi + 8], eax; mov [esi + 78h], eax
    "83c604 81fe", // add esi, 4
    dword(PAGES + 0x3010), // cmp esi, PAGES + 3010h
    "72e7", // jb next
    [0xbc, ...dword(PAGES + 0x1008)], // mov esp, PAGES + 1008h
    "50 56 51 ff742404 8b542408 5b 58 5f 5f", // push eax, esi, ecx, [esp + 4]; mov edx, [esp + 8]; pop ebx, eax, edi, edi
    "01d3 49 75c9 f4", // add ebx, edx; dec ecx; jnz again; hlt
  );
  using vm = await createVm({
    memory: 2 ** 20,
    plugins: [cpu({ model: "zen4", tier }), metal()],
    images: [flat(Uint8Array.from(program), { address: CODE, entry: { mode: "protected32" } })],
  });
  vm.memory.writeU32(DIRECTORY, TABLE | 3);
  vm.memory.writeU32(DIRECTORY + 4, UPPER_TABLE | 3);
  for (let page = 0; page < 256; page++) vm.memory.writeU32(TABLE + 4 * page, page << 12 | 3);
  for (const [k, frame] of FRAMES.entries()) {
    vm.memory.writeU32(UPPER_TABLE + 4 * k, frame | 3);
    for (let at = 0; at < 0x1000; at += 4) {
      vm.memory.writeU32(frame + at, frame + at * 0x10_0001 >>> 0);
    }
  }
  const vcpu = vm.vcpus[0]!;
  const { current } = vm.vendor;
  const state = current.getSystemState(vcpu);
  state.cr3 = BigInt(DIRECTORY);
  state.cr0 |= CR0_PG;
  current.setSystemState(vcpu, state);
  const { reason } = await vm.run({ instructions: 100_000_000 });
  assertEquals(reason, "halted");
  const { rax, rbx, rcx, rdx, rsi, rdi, rsp } = vcpu.regs;
  const words = FRAMES.flatMap((frame) =>
    Array.from({ length: 0x400 }, (_, k) => vm.memory.readU32(frame + 4 * k))
  );
  return [rax, rbx, rcx, rdx, rsi, rdi, rsp, ...words];
}

Deno.test("accesses beside each other that are in different pages", async () => {
  const interpreted = await run(1);
  assert(new Set(interpreted).size > 1000);
  assertEquals(await run(2), interpreted);
});
