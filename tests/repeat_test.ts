/**
 * Two runs of one configuration are the same inside as well: the same code is decoded in the same order,
 * and the same of it compiled, however fast the host is and however the run was called.
 */
import { assert, assertEquals } from "@std/assert";
import { createVm, type Vm } from "../core/mod.ts";
import { cpu, type EngineStatistics, MemoryCodeCache, processorsSlot } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const MIB = 2 ** 20;
const image = await Deno.readFile(new URL("../examples/guests/tour/tour.elf", import.meta.url));

/** What a run of the guest has come to inside the processors. */
async function inside(
  vendor: typeof svm | typeof metal,
  run: (vm: Vm) => unknown,
  codeCache?: MemoryCodeCache,
): Promise<EngineStatistics> {
  using vm = await createVm({
    memory: 16 * MIB,
    plugins: [
      cpu(codeCache === undefined ? {} : { codeCache }),
      vendor(),
      pic(),
      debugExit(),
      serial(),
    ],
    images: [loadImage(image, { name: "tour.elf" })],
  });
  await run(vm);
  return structuredClone(vm.slots.ref(processorsSlot).current.statistics);
}

/** All of it that is no time. */
function counts(
  { blocks, regions, dispatches, searches, walks, flushes }: EngineStatistics,
): unknown {
  return { ...regions, dispatches, searches, walks, flushes, ...blocks, ms: 0 };
}

for (const vendor of [metal, svm]) {
  Deno.test(`runs are the same inside, however they were called, on ${vendor.name}`, async () => {
    const limits = { instructions: 30_000_000 };
    const cache = new MemoryCodeCache(16 * MIB);
    const first = await inside(vendor, (vm) => vm.runSync(limits), cache);
    assert(first.regions.compiled > 0);
    assert(first.regions.samplesCompiled > 0);
    const slow = async (vm: Vm) => {
      const timer = setInterval(() => {
        for (const end = performance.now() + 3; performance.now() < end;);
      }, 1);
      await vm.run(limits);
      clearInterval(timer);
    };
    assertEquals(counts(await inside(vendor, slow)), counts(first));
    const again = await inside(vendor, (vm) => vm.run(limits), cache);
    assertEquals(counts(again), counts(first));
    assertEquals(again.code.cached, again.regions.compiled);
  });
}
