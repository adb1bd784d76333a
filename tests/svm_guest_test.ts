/**
 * SVM instructions as a guest executes them: the bare processor and the hypervisor that emulates them
 * must agree, and every exit is accounted for.
 */

import { assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { type ExitProfile, exitProfile, profile } from "../plugins/profile/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const IMAGE = new URL("../examples/guests/svm/svm.elf", import.meta.url);
const EXPECTED = new URL("../examples/guests/svm/svm.expected", import.meta.url);

interface Ended {
  readonly code: number | string;
  readonly printed: string;
  readonly profile: ExitProfile;
}

async function runGuest(vendor: Plugin, commandLine: string): Promise<Ended> {
  let printed = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (printed += decoder.decode(bytes, { stream: true }));
  using vm = await createVm({
    memory: 2 ** 24,
    plugins: [cpu(), vendor, pic(), debugExit(), serial({ output }), profile()],
    images: [loadImage(await Deno.readFile(IMAGE), { name: "svm.elf", commandLine })],
  });
  const result = await vm.run({ instructions: 1e8 });
  return {
    code: result.reason === "exit-code" ? result.code : result.reason,
    printed: printed.replaceAll(/^cpu:.*\n/gm, ""),
    profile: exitProfile(vm),
  };
}

function count({ profile }: Ended, reason: string): number {
  return profile.reasons.find((row) => row.reason === reason)?.count ?? 0;
}

for (const [name, vendor] of [["metal", metal()], ["svm", svm({ nested: true })]] as const) {
  Deno.test(`${name}: a guest's SVM instructions do what the manual says`, async () => {
    const { code, printed } = await runGuest(vendor, "");
    assertEquals(printed, await Deno.readTextFile(EXPECTED));
    assertEquals(code, 1);
  });
}

Deno.test("svm: each SVM instruction of a guest that exits is counted under its name", async () => {
  const [rounds, toggles] = [7, 3];
  const ended = await runGuest(svm({ nested: true }), `rounds=${rounds} toggles=${toggles}`);
  assertEquals(ended.code, 1);
  // Undefined: each once before, and once behind each toggle.
  assertEquals(count(ended, "VMRUN"), 1 + toggles);
  const { profile } = ended;
  assertEquals(profile.reasons.find(({ reason }) => reason === "VMRUN")?.targets[0]?.kind, "none");
  // INVLPGA always exits; what else does depends on the processor.
  assertEquals(count(ended, "INVLPGA"), 1 + toggles + rounds * toggles);
});
