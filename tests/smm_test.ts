/**
 * System management interrupts as IPIs: to a processor that runs, to one that halts, and to guests of
 * hypervisors, which have no system management mode, as KVM's do not unless asked for.
 */

import { assertEquals } from "@std/assert";
import { createVm, ExitReason, observeExitHook, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { firmwareVectors, flat } from "../plugins/flat/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const VENDORS: Readonly<Record<string, () => Plugin[]>> = {
  metal: () => [cpu(), metal(), lapic()],
  "metal, Intel": () => [cpu({ model: "sapphire-rapids" }), metal(), lapic({ vendor: "intel" })],
  svm: () => [cpu(), svm(), lapic()],
  vmx: () => [cpu({ model: "sapphire-rapids" }), vmx(), lapic({ vendor: "intel" })],
};

/** Machine code, as hexadecimal digits. */
function code(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(/\s/g, "").match(/../g) ?? [], (d) => parseInt(d, 16));
}

/** SVR = 1FFh. */
const SET_UP = "c705f000e0feff010000";
/** SMI to all: to APIC ID 0, which is the one that sends it. */
const SEND = "c7050003e0fe00420800";
/** OUT 80h of a number. */
const tell = (n: number): string => `b0${n.toString(16).padStart(2, "0")} e680`;
/** The handler: OUT 80h of 99; INC word [cs:0]; RSM. */
const HANDLER = "b063 e680 2eff060000 0faa";

/** Notes what is written to port 80h. */
function watcher(log: (number | string)[]): Plugin {
  return {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, (_, exit) => {
        if (exit.reason === ExitReason.IO && exit.port === 0x80) log.push(exit.lo);
      });
    },
  };
}

/** What 32-bit code at 1 MiB, and the handler, wrote to port 80h; how the run ended; the handler's count. */
async function run(vendor: string, digits: string): Promise<(number | string)[]> {
  const log: (number | string)[] = [];
  const image = flat(code(digits), { address: 2 ** 20, entry: { mode: "protected32" } });
  const plugins = [...VENDORS[vendor]!(), watcher(log)];
  using vm = await createVm({ memory: 16 * 2 ** 20, plugins, images: [firmwareVectors(), image] });
  vm.memory.write(0x3_8000, code(HANDLER));
  vm.memory.writeU16(0x3_0000, 0);
  const { reason } = await vm.run({ instructions: 1000 });
  log.push(reason, vm.memory.readU16(0x3_0000));
  return log;
}

for (const vendor of ["metal", "metal, Intel"]) {
  Deno.test(`${vendor}: an SMI by IPI enters system management mode, and RSM leaves it`, async () => {
    assertEquals(await run(vendor, `${SET_UP} ${tell(1)} ${SEND} ${tell(2)} f4`), [
      1,
      0x63,
      2,
      "halted",
      1,
    ]);
  });

  Deno.test(`${vendor}: an SMI ends no halt for good`, async () => {
    assertEquals(await halted(vendor), [1, 0x63, "halted"]);
  });
}

/** The boot processor halts; an SMI is sent to it from outside of any processor. */
async function halted(vendor: string): Promise<(number | string)[]> {
  const log: (number | string)[] = [];
  const image = flat(code(`${SET_UP} ${tell(1)} f4 ${tell(2)} f4`), {
    address: 2 ** 20,
    entry: { mode: "protected32" },
  });
  const plugins = [...VENDORS[vendor]!(), watcher(log)];
  using vm = await createVm({ memory: 16 * 2 ** 20, plugins, images: [image] });
  vm.memory.write(0x3_8000, code(HANDLER));
  assertEquals((await vm.run({ instructions: 1000 })).reason, "halted");
  // An MSI of that type.
  vm.sendMsi(0xfee0_0000, 0x200);
  log.push((await vm.run({ instructions: 1000 })).reason);
  return log;
}

for (const vendor of ["svm", "vmx"]) {
  Deno.test(`${vendor}: an SMI is lost, and RSM is undefined`, async () => {
    assertEquals(await run(vendor, `${SET_UP} ${tell(1)} ${SEND} ${tell(2)} f4`), [
      1,
      2,
      "halted",
      0,
    ]);
    const [ending] = await run(vendor, "0faa");
    assertEquals(ending, "shutdown");
  });
}
