/**
 * Guests with several processors under APICv and IPI virtualization: what they print is what they print on
 * the bare processor and under AVIC.
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin } from "../../core/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { avic } from "../../plugins/svm/avic/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { apicv } from "../../plugins/vmx/apicv/mod.ts";
import { ipiv } from "../../plugins/vmx/ipiv/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";
import { run, toggler } from "../avic/guests.ts";

const WAYS: readonly (readonly [name: string, plugins: () => Plugin[]])[] = [
  ["ipiv", () => [vmx(), apicv(), ipiv()]],
  ["apicv", () => [vmx(), apicv()]],
  ["plain", () => [vmx()]],
  ["toggled", () => [vmx(), apicv(), ipiv(), toggler()]],
];
const MODELS = ["haswell", "sapphire-rapids"] as const;

for (const mode of ["xAPIC", "x2APIC"]) {
  const suffix = mode === "x2APIC" ? " x2apic" : "";
  for (const [guest, line] of [["smp", "rounds=200"], ["apic", "rounds=3"]] as const) {
    Deno.test(`"${guest}" in ${mode} mode prints the same under APICv as on metal and under AVIC`, async () => {
      const text = line + suffix;
      const bare = await run(guest, text, { cpus: 4, plugins: [metal()] });
      const amd = await run(guest, text, { cpus: 4, processors: 2, plugins: [svm(), avic()] });
      assertEquals(amd.text, bare.text);
      for (const [name, plugins] of WAYS) {
        for (const model of MODELS) {
          const options = { cpu: { model }, cpus: 4, processors: 2 };
          const ended = await run(guest, text, { ...options, plugins: plugins() });
          assertEquals(ended.text, bare.text, `${name}, ${model}`);
        }
      }
    });
  }

  const ipis = mode === "x2APIC" ? 20_000 : 10_000;
  Deno.test(`a storm of ${ipis} IPIs in ${mode} mode: 8 vCPUs on 3 processors receive it as on metal`, async () => {
    const line = `ipis=${ipis} seed=5${suffix}`;
    const bare = await run("ipistorm", line, { plugins: [metal()] });
    assert(bare.text.includes(`${ipis} sent, ${ipis} received, 0 lost, 0 doubled, 0 stray`));
    const exits = new Map<string, number>();
    for (const [name, plugins] of WAYS) {
      const cpu = { model: "sapphire-rapids" } as const;
      const ended = await run("ipistorm", line, { cpu, processors: 3, plugins: plugins() });
      assertEquals(ended.text, bare.text, name);
      exits.set(name, [...ended.exits.values()].reduce((sum, count) => sum + count, 0));
    }
    const [ipiv, apicv, plain] = ["ipiv", "apicv", "plain"].map((name) => exits.get(name)!);
    // The guest's IPIs are of all kinds; hardware sends those that name one vCPU.
    assert(ipiv! < apicv! / 2 && apicv! < plain! / 2, `${ipiv} ${apicv} ${plain}`);
  });

  Deno.test(`storms with naps in ${mode} mode, under many schedules`, async () => {
    const line = `ipis=3000 naps seed=9${suffix}`;
    const cpu = { model: "sapphire-rapids" } as const;
    const bare = await run("ipistorm", line, { plugins: [metal()] });
    for (const seed of [1, 2, 3]) {
      for (const [name, plugins] of WAYS) {
        const options = { cpu, processors: 3, seed, plugins: plugins() };
        const ended = await run("ipistorm", line, options);
        assertEquals(ended.text, bare.text, `seed ${seed}, ${name}`);
      }
    }
  });
}

Deno.test("two runs under APICv are the same to the last exit", async () => {
  const once = async () => {
    const plugins = [vmx(), apicv(), ipiv(), toggler()];
    const cpu = { model: "sapphire-rapids" } as const;
    const options = { cpu, processors: 3, plugins };
    const { result, exits } = await run("ipistorm", "ipis=2000 naps", options);
    return { ticks: result.ticks, instructions: result.instructions, exits: [...exits] };
  };
  assertEquals(await once(), await once());
});
