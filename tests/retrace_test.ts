/**
 * The last instructions of a run, found by running it again: on every vendor, with faults and interrupts
 * on the way.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { createVm, type Plugin, type RunResult, TraplineError, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { type ExecutedInstruction, retrace } from "../plugins/postmortem/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const VENDORS: readonly (readonly [name: string, make: () => Plugin])[] = [
  ["metal", metal],
  ["svm", svm],
];

/** Real-mode code at 7C00h. */
function bare(vendor: () => Plugin, code: readonly number[]): () => Promise<Vm> {
  return () =>
    createVm({
      memory: 2 ** 20,
      plugins: [cpu(), vendor(), debugExit()],
      images: [flat(new Uint8Array(code))],
    });
}

async function run(make: () => Promise<Vm>, instructions?: number): Promise<RunResult> {
  using vm = await make();
  return await vm.run(instructions === undefined ? {} : { instructions });
}

const line = ({ rip, text, changes, events }: ExecutedInstruction): string =>
  [
    `${rip.toString(16)} ${text}`,
    ...Object.entries(changes).map(([name, value]) => `${name}=${value.toString(16)}`),
    ...events,
  ].join("; ");

// deno-fmt-ignore
const CODE = [
  0xc7, 0x06, 0x18, 0x00, 0x14, 0x7c, // 7c00: mov word [18h], 7c14h  (vector 6)
  0xc7, 0x06, 0x1a, 0x00, 0x00, 0x00, // 7c06: mov word [1ah], 0
  0xb8, 0x34, 0x12,                   // 7c0c: mov ax, 1234h
  0x0f, 0x0b,                         // 7c0f: ud2
  0x90, 0x90, 0x90,
  0x40,                               // 7c14: inc ax
  0xe6, 0xf4,                         // 7c15: out 0f4h, al
];

for (const [name, vendor] of VENDORS) {
  Deno.test(`${name}: a fault on the way is shown with the instruction that it came with`, async () => {
    const make = bare(vendor, CODE);
    const result = await run(make);
    assertEquals(result.reason, "exit-code");
    const found = await retrace(make, result, 4);
    assertEquals(found.map(line), [
      "7c0c mov ax, 1234h; RAX=1234",
      "7c0f ud2; #UD at RIP 7c0fh",
      "7c14 inc ax; RAX=1235; RSP=fffa",
      "7c15 out 0f4h, al",
    ]);
  });

  Deno.test(`${name}: a halt ends with HLT, a limit with the last instruction before it`, async () => {
    const halt = bare(vendor, [0xfa, 0x90, 0xf4]); // cli; nop; hlt
    const halted = await run(halt);
    assertEquals(halted.reason, "halted");
    assertEquals((await retrace(halt, halted, 2)).map(line), ["7c01 nop", "7c02 hlt"]);
    const spin = bare(vendor, [0x40, 0xeb, 0xfd]); // inc ax; jmp
    const limited = await run(spin, 1001);
    assertEquals(limited.reason, "limit");
    assertEquals((await retrace(spin, limited, 2)).map(line), [
      "7c01 jmp 7c00h",
      "7c00 inc ax; RAX=1f5",
    ]);
    assertEquals((await retrace(spin, limited, 5000)).length, 1001);
  });

  Deno.test(`${name}: what is retraced is what a run step by step does`, async () => {
    const bytes = await Deno.readFile(
      new URL("../examples/guests/tour/tour.elf", import.meta.url),
    );
    const make = () =>
      createVm({
        memory: 16 * 2 ** 20,
        plugins: [cpu(), vendor(), pic(), debugExit(), serial()],
        images: [loadImage(bytes, { name: "tour.elf" })],
      });
    const limit = 20_000;
    const result = await run(make, limit);
    const found = await retrace(make, result, 500);
    assertEquals(found.length, 500);
    using vm = await make();
    vm.runSync({ instructions: limit - 500 });
    const [vcpu] = vm.vcpus;
    assert(vcpu !== undefined);
    for (const { rip } of found) {
      assertEquals(vcpu.regs.rip, rip);
      vm.runSync({ instructions: 1 });
    }
  });
}

Deno.test("a machine that is not the same is found out", async () => {
  const result = await run(bare(metal, [0x90, 0x90, 0x90, 0xfa, 0xf4])); // cli; hlt
  const other = bare(metal, [0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xfe]);
  const error = await assertRejects(() => retrace(other, result, 2), TraplineError);
  assertEquals(error.message, "the second run went on, with limit");
  const short = bare(metal, [0xfa, 0xf4]);
  await assertRejects(() => retrace(short, result, 1), TraplineError, "ended after 2 instructions");
});
