/**
 * Guests with several processors: started by INIT and start-up IPIs, in xAPIC and x2APIC mode, on the
 * bare processor and under a hypervisor with as many host processors as vCPUs, or fewer.
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  createVm,
  ExitReason,
  observeExitHook,
  type Plugin,
  roundRobin,
  type RoundRobinOptions,
  type RunResult,
  vcpuLoadHook,
  vcpuPutHook,
} from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { ioapic } from "../plugins/ioapic/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { pit } from "../plugins/pit/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { ApicvReason, vmx } from "../plugins/vmx/mod.ts";

const VENDORS: Readonly<Record<string, () => Plugin>> = { metal, svm, vmx };

/** Turns so short that vCPUs meet in many ways. */
const SHORT: RoundRobinOptions = { quantum: 1000, timeslice: 20_000 };

interface Options {
  readonly cpus?: number;
  readonly processors?: number;
  readonly scheduler?: RoundRobinOptions;
  readonly plugins?: readonly Plugin[];
}

interface Ended {
  readonly result: RunResult;
  readonly text: string;
}

async function run(
  vendor: () => Plugin,
  guest: string,
  commandLine: string,
  options: Options = {},
): Promise<Ended> {
  const { cpus = 1, processors = cpus, scheduler = SHORT, plugins = [] } = options;
  const file = new URL(`../examples/guests/${guest}/${guest}.elf`, import.meta.url);
  const image = loadImage(await Deno.readFile(file), { name: `${guest}.elf`, commandLine });
  let text = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (text += decoder.decode(bytes, { stream: true }));
  const board = [
    cpu(vendor === vmx ? { model: "sapphire-rapids" } : {}),
    vendor(),
    pic({ wiring: "apic" }),
    lapic(),
    ioapic(),
    pit(),
    debugExit(),
  ];
  using vm = await createVm({
    memory: 16 * 2 ** 20,
    cpus,
    processors,
    plugins: [...board, serial({ output }), roundRobin(scheduler), ...plugins],
    images: [image],
  });
  const result = await vm.run({ instructions: 3e9 });
  return { result, text };
}

/** The run ended as a guest that finds all well ends it. */
function assertGood({ result, text }: Ended): void {
  assertEquals(
    [result.reason, result.reason === "exit-code" && result.code, text.includes("FAIL")],
    [
      "exit-code",
      1,
      false,
    ],
    text,
  );
}

const GUESTS: readonly (readonly [guest: string, args: string])[] = [
  ["smp", "rounds=300"],
  ["apic", "rounds=3"],
  ["apichost", "cr8=20"],
  ["ipistorm", "ipis=2000 naps"],
];

Deno.test("ticks come through the 8259s and through the I/O APIC", async () => {
  const file = new URL("../examples/guests/ticks/ticks.expected", import.meta.url);
  const expected = await Deno.readTextFile(file);
  for (const vendor of Object.values(VENDORS)) {
    for (const mode of ["", "x2apic"]) {
      const ended = await run(vendor, "ticks", mode);
      assertGood(ended);
      assertEquals(ended.text, expected);
      // Nearly all the time is waited for: 4 rows of 20 ticks and more.
      assert(ended.result.ticks > 60e6 && ended.result.ticks < 75e6, `${ended.result.ticks}`);
    }
  }
});

for (const [guest, args] of GUESTS) {
  Deno.test(`the guest "${guest}" prints what is expected of one processor`, async () => {
    const file = new URL(`../examples/guests/${guest}/${guest}.expected`, import.meta.url);
    const expected = await Deno.readTextFile(file);
    for (const vendor of Object.values(VENDORS)) {
      const ended = await run(vendor, guest, "");
      assertGood(ended);
      assertEquals(ended.text, expected);
    }
  });

  for (const mode of ["xAPIC", "x2APIC"]) {
    Deno.test(`"${guest}" in ${mode} mode: metal, svm and vmx print the same, on fewer processors, too`, async () => {
      const line = `${args}${mode === "x2APIC" ? " x2apic" : ""}`;
      const bare = await run(metal, guest, line, { cpus: 4 });
      assertGood(bare);
      assert(guest !== "smp" || bare.text.includes(`4 processors, ${mode}, APIC IDs each once`));
      for (
        const [vendor, processors] of [[svm, 4], [vmx, 4], [svm, 2], [vmx, 2], [svm, 1]] as const
      ) {
        const ended = await run(vendor, guest, line, { cpus: 4, processors });
        assertGood(ended);
        assertEquals(ended.text, bare.text);
      }
    });
  }
}

Deno.test("a storm of 100000 IPIs between 8 vCPUs on 3 processors: none lost, none doubled", async () => {
  const line = "ipis=100000 x2apic seed=5";
  const bare = await run(metal, "ipistorm", line, { cpus: 8 });
  assertGood(bare);
  assert(
    bare.text.includes("100000 sent, 100000 received, 0 lost, 0 doubled, 0 stray"),
    bare.text,
  );
  const ended = await run(svm, "ipistorm", line, { cpus: 8, processors: 3 });
  assertEquals(ended.text, bare.text);
});

Deno.test("storms under many schedules", async () => {
  const line = "ipis=3000 naps seed=9";
  const bare = await run(metal, "ipistorm", line, { cpus: 8 });
  const seen = new Set<number>();
  for (const [seed, quantum] of [[1, 300], [2, 300], [3, 1700], [4, 5000]] as const) {
    const scheduler = { quantum, timeslice: 11 * quantum, seed };
    const ended = await run(svm, "ipistorm", line, { cpus: 8, processors: 3, scheduler });
    assertEquals(ended.text, bare.text, `seed ${seed}`);
    seen.add(ended.result.ticks);
    const again = await run(svm, "ipistorm", line, { cpus: 8, processors: 3, scheduler });
    assertEquals(again, ended);
  }
  assertEquals(seen.size, 4);
});

Deno.test("vCPUs that halt leave their processor, and are placed anywhere when they wake", async () => {
  const places = new Map<number, Set<number>>();
  let loads = 0, puts = 0;
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(vcpuLoadHook, ({ id }, pcpu) => {
        loads++;
        places.set(id, (places.get(id) ?? new Set()).add(pcpu));
      });
      ctx.on(vcpuPutHook, ({ pcpu }) => {
        assertNotEquals(pcpu, -1);
        puts++;
      });
    },
  };
  const ended = await run(svm, "ipistorm", "ipis=2000 naps", {
    cpus: 6,
    processors: 3,
    plugins: [watcher],
  });
  assertGood(ended);
  assertEquals([...places.keys()].sort(), [0, 1, 2, 3, 4, 5]);
  for (const pcpus of places.values()) assertEquals([...pcpus].sort(), [0, 1, 2]);
  assert(loads > 100 && loads - puts <= 3, `${loads} ${puts}`);
});

for (const vendor of [svm, vmx]) {
  Deno.test(`${vendor().name}: writes of CR8 exit only while an interrupt waits for one`, () =>
    cr8Exits(vendor));
}

async function cr8Exits(vendor: () => Plugin): Promise<void> {
  let writes = 0;
  const counter: Plugin = {
    name: "counter",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, (_, { reason, register }) => {
        if (reason === ExitReason.CR_ACCESS && register === 8) writes++;
        // With the TPR shadow the write itself takes place, and the exit is behind it.
        if (reason === ApicvReason.TPR_BELOW_THRESHOLD) writes++;
      });
    },
  };
  assertGood(await run(vendor, "apic", "rounds=5", { cpus: 2, plugins: [counter] }));
  // The guest writes CR8 twice in a round, the first time with an interrupt that it holds back.
  assertEquals(writes, 5 * 2);
}
