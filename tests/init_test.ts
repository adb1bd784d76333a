/**
 * INIT sent to a processor that knows better what becomes of it: with GIF clear it waits, and a
 * hypervisor that intercepts it gets an exit instead.
 */

import { assertEquals } from "@std/assert";
import { createVm, ExitReason, observeExitHook, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";

/** Machine code, as hexadecimal digits. */
function code(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(/\s/g, "").match(/../g) ?? [], (d) => parseInt(d, 16));
}

/** EFER.SVME = 1; SVR = 1FFh. */
const SET_UP = "b9800000c0 0f32 0d00100000 0f30 c705f000e0feff010000";
/** INIT to APIC ID 0, which is the one that sends it. */
const SEND_INIT = "c7050003e0fe00450000";
/** OUT 80h of a number. */
const tell = (n: number): string => `b0${n.toString(16).padStart(2, "0")} e680`;

/** What 32-bit code at 1 MiB wrote to port 80h, and "init" where an INIT came out of the processor. */
async function run(digits: string): Promise<string[]> {
  const log: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, (_, exit) => {
        if (exit.reason === ExitReason.INIT) log.push("init");
        if (exit.reason === ExitReason.IO && exit.port === 0x80) log.push(`${exit.lo}`);
      });
    },
  };
  const image = flat(code(digits), { address: 2 ** 20, entry: { mode: "protected32" } });
  const plugins = [cpu(), metal(), lapic(), watcher];
  using vm = await createVm({ memory: 16 * 2 ** 20, plugins, images: [image] });
  await vm.run({ instructions: 500 });
  const { cs } = vm.vendor.current.getSystemState(vm.vcpus[0]!);
  log.push(cs.attributes & 0x400 ? "32-bit" : "real");
  return log;
}

Deno.test("INIT is taken at once", async () => {
  assertEquals(await run(`${SET_UP} ${tell(1)} ${SEND_INIT} ${tell(2)} ebfe`), ["1", "real"]);
});

Deno.test("INIT waits for GIF", async () => {
  const clgi = "0f01dd", stgi = "0f01dc";
  assertEquals(
    await run(`${SET_UP} ${clgi} ${SEND_INIT} ${tell(1)} ${stgi} ${tell(2)} ebfe`),
    ["1", "init", "real"],
  );
  assertEquals(await run(`${SET_UP} ${clgi} ${SEND_INIT} ${tell(1)} ebfe`), ["1", "32-bit"]);
});

Deno.test("INIT redirected by VM_CR is an exception, and no INIT", async () => {
  // VM_CR.R_INIT = 1. The #SX finds an empty IDT: a triple fault.
  const redirect = "b9140101c0 31d2 b802000000 0f30";
  const ending = await run(`${SET_UP} ${redirect} ${tell(1)} ${SEND_INIT} ${tell(2)} ebfe`);
  assertEquals(ending, ["1", "32-bit"]);
});
