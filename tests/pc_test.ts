/**
 * The machine `pc` under real guest code: its parts wired together as in a PC.
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { createVm, type RunResult } from "../core/mod.ts";
import { boardParts, BOARDS } from "../cli/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const VENDORS = {
  metal: () => [cpu(), metal()],
  svm: () => [cpu(), svm()],
  vmx: () => [cpu({ model: "sapphire-rapids" }), vmx()],
} as const;

/** Runs code in real mode on a PC. */
async function run(vendor: keyof typeof VENDORS, code: readonly number[]): Promise<RunResult> {
  using vm = await createVm({
    memory: 2 ** 21,
    plugins: [...VENDORS[vendor](), ...boardParts("pc", {}, [])],
    images: [flat(Uint8Array.from(code), { address: 0x7c00 })],
  });
  return await vm.run({ instructions: 1_000_000 });
}

/** OUT of a value to a port, by DX and AX or AL. */
const out16 = (port: number, value: number): number[] => [
  ...[0xba, port & 0xff, port >> 8], // mov dx, port
  ...[0xb8, value & 0xff, value >> 8], // mov ax, value
  0xef, // out dx, ax
];
const out8 = (port: number, value: number): number[] => [
  ...[0xba, port & 0xff, port >> 8], // mov dx, port
  ...[0xb0, value], // mov al, value
  0xee, // out dx, al
];
const HLT_LOOP = [0xf4, 0xeb, 0xfd];

/** Makes interrupt `vector` go to `handler`, and lets interrupts in. */
function take(vector: number, handler: number): number[] {
  const entry = 4 * vector;
  return [
    ...[0xc7, 0x06, entry & 0xff, entry >> 8, handler & 0xff, handler >> 8],
    ...[0xc7, 0x06, entry + 2 & 0xff, entry + 2 >> 8, 0, 0],
    0xfb, // sti
  ];
}

/** Code at 7C00h that waits for an interrupt, and the handler at 7C80h. */
function waiting(prepare: readonly number[], vector: number, handler: readonly number[]): number[] {
  const code = [...prepare, ...take(vector, 0x7c80), ...HLT_LOOP];
  return [...code, ...new Array<number>(0x80 - code.length).fill(0x90), ...handler];
}

for (const vendor of Object.keys(VENDORS) as (keyof typeof VENDORS)[]) {
  Deno.test(`${vendor}: a PC is switched off and reset by its registers`, async () => {
    const end = async (...code: number[][]): Promise<string> =>
      (await run(vendor, [...code.flat(), ...HLT_LOOP])).reason;
    assertEquals(await end(out16(0x604, 0x2000)), "powered-off");
    assertEquals(await end(out8(0xcf9, 0x02), out8(0xcf9, 0x06)), "reset");
    assertEquals(await end(out8(0x64, 0xfe)), "reset");
    assertEquals(await end(out8(0x92, 0x03)), "reset");
    assertEquals(await end(), "halted");
  });

  Deno.test(`${vendor}: the clock's periodic interrupt comes through both 8259s`, async () => {
    const result = await run(
      vendor,
      waiting(
        [...out8(0xa1, 0xfe), ...out8(0x70, 0x0b), ...out8(0x71, 0x42)],
        0x70,
        // Register C tells why, and goes out as the exit code.
        [...out8(0x70, 0x0c), ...[0xe4, 0x71], ...[0xe6, 0xf4]],
      ),
    );
    assertEquals(result.reason === "exit-code" && result.code, 0xc0 << 1 | 1);
  });

  Deno.test(`${vendor}: the keyboard's answer interrupts on line 1`, async () => {
    const result = await run(
      vendor,
      waiting([...out8(0x21, 0xfd)], 0x09, [0xe4, 0x60, 0xe6, 0xf4]),
    );
    // Nobody has asked the keyboard anything: no interrupt comes.
    assertEquals(result.reason, "halted");
    const asked = await run(
      vendor,
      waiting([...out8(0x21, 0xfd), ...out8(0x60, 0xee)], 0x09, [0xe4, 0x60, 0xe6, 0xf4]),
    );
    assertEquals(asked.reason === "exit-code" && asked.code, 0xee << 1 | 1);
  });
}

Deno.test("every machine has parts with names of their own", () => {
  for (const [name, { parts, description }] of Object.entries(BOARDS)) {
    const names = parts({}).map((part) => part.name);
    assertEquals(new Set(names).size, names.length, name);
    assertStringIncludes(description, " ");
  }
});
