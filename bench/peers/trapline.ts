/**
 * Trapline itself.
 *
 * @module
 */
import { createVm, type Plugin } from "../../core/mod.ts";
import { cpu } from "../../plugins/cpu/mod.ts";
import { debugExit } from "../../plugins/debugexit/mod.ts";
import { ioapic } from "../../plugins/ioapic/mod.ts";
import { lapic } from "../../plugins/lapic/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { loadImage } from "../../plugins/multiboot/mod.ts";
import { pic } from "../../plugins/pic/mod.ts";
import { serial } from "../../plugins/serial/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";
import { ownTime } from "./clock.ts";
import { commandLineOf, imageOf, type Peer, PeerError } from "./peer.ts";

/** The vendors by name. */
export const VENDORS: { readonly [name: string]: () => Plugin } = { metal, svm, vmx };

/** Trapline in this process, under one of the vendors. */
export function traplineOn(vendor: string): Peer {
  const make = VENDORS[vendor];
  if (make === undefined) throw new PeerError(`no vendor "${vendor}"`);
  const model = vendor === "vmx" ? "sapphire-rapids" : "zen4";
  return {
    name: "Trapline",
    version: `Trapline on Deno ${Deno.version.deno}, V8 ${Deno.version.v8}`,
    warms: true,
    can: () => true,
    async run(workload, rounds) {
      const bytes = await Deno.readFile(imageOf(workload.guest));
      const commandLine = commandLineOf(workload, rounds);
      let console = "";
      using vm = await createVm({
        memory: 64 * 2 ** 20,
        plugins: [
          ...[cpu({ model }), make(), pic({ wiring: "apic" }), lapic(), ioapic(), debugExit()],
          serial({ output: (text) => void (console += new TextDecoder().decode(text)) }),
        ],
        images: [loadImage(bytes, { name: workload.guest, commandLine })],
      });
      const start = ownTime();
      const result = await vm.run();
      const ms = ownTime() - start;
      if (result.reason !== "exit-code" || result.code !== 1) {
        throw new PeerError(
          `${workload.guest} "${commandLine}" ended with ${JSON.stringify(result)}`,
        );
      }
      return { ms, console };
    },
  };
}
