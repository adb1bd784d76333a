/**
 * The guests written for APX, under each hypervisor and on the bare processor.
 */
import { assert, assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../../core/mod.ts";
import { apx } from "../../plugins/apx/mod.ts";
import { cpu, type CpuModel } from "../../plugins/cpu/mod.ts";
import { debugExit } from "../../plugins/debugexit/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { loadImage } from "../../plugins/multiboot/mod.ts";
import { pic } from "../../plugins/pic/mod.ts";
import { serial } from "../../plugins/serial/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";

/** What a guest printed, how it ended, and after how many instructions. */
interface Ended {
  readonly printed: string;
  readonly code: number;
  readonly instructions: number;
}

/** Hosts: model and hypervisor. */
const HOSTS: Readonly<Record<string, readonly [CpuModel, () => Plugin[]]>> = {
  metal: ["apx", () => [metal()]],
  svm: ["apx", () => [svm(), apx()]],
  vmx: ["diamond-rapids", () => [vmx(), apx()]],
};

async function runGuest(host: string, name: string, commandLine: string): Promise<Ended> {
  const path = new URL(`../../examples/guests/${name}/${name}.elf`, import.meta.url);
  const [model, vendor] = HOSTS[host]!;
  let printed = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (printed += decoder.decode(bytes, { stream: true }));
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    plugins: [cpu({ model }), ...vendor(), pic(), debugExit(), serial({ output })],
    images: [loadImage(await Deno.readFile(path), { name: `${name}.elf`, commandLine })],
  });
  const result = await vm.run({ instructions: 1e9 });
  const code = result.reason === "exit-code" ? result.code : -1;
  return { printed, code, instructions: vm.instructions };
}

Deno.test('every host runs the guest "egprs" alike', async () => {
  const expected = "cpu: CPUID (7,1) EDX[21] 1, EDX[7] 0\negprs: switched off: undefined\n" +
    "egprs: on again: the same values\negprs: end\n";
  const [first, ...others] = await Promise.all(
    Object.keys(HOSTS).map((host) => runGuest(host, "egprs", "switch")),
  );
  assertEquals([first!.printed, first!.code], [expected, 1]);
  for (const other of others) assertEquals(other, first);
});

/** Lines that depend on the machine. */
const MACHINE_LINES = /^cpu:.*\n/gm;

Deno.test('every host runs the guest "apx" alike, and both of its halves print the same', async () => {
  const expected = await Deno.readTextFile(
    new URL("../../examples/guests/apx/apx.expected", import.meta.url),
  );
  for (const words of ["", "apx"]) {
    const ends = await Promise.all(
      Object.keys(HOSTS).map((host) => runGuest(host, "apx", words)),
    );
    for (const { printed, code, instructions } of ends) {
      assertEquals([printed.replaceAll(MACHINE_LINES, ""), code], [expected, 1]);
      assertEquals(instructions, ends[0]!.instructions);
    }
  }
});

Deno.test("what a function takes with APX is what its source says", async () => {
  const { printed } = await runGuest("vmx", "apx", "apx rounds=3");
  const ticks = (name: string): number =>
    Number(new RegExp(`^cpu: ${name} (\\d+) ticks$`, "m").exec(printed)![1]);
  // 16 rounds a call of 8 G functions with 14 instructions each and two more; 16 words in and out.
  const mix = 3 * 16 * (8 * 14 + 2) + 32 + 1;
  assert(ticks("mix") > mix && ticks("mix") < mix + 20, `${ticks("mix")}`);
  // The loop has 15 instructions a character, and no branch but the one that closes it.
  const words = 3 * (4096 * 15 + 6);
  assert(ticks("words") > words && ticks("words") < words + 40, `${ticks("words")}`);
});
