/**
 * MONITOR and MWAIT on a board: a wait that a store from outside ends, and one that ends in time.
 */

import { assert, assertEquals } from "@std/assert";
import { createVm, ExitReason, observeExitHook, type Plugin, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";

/** Machine code, as hexadecimal digits. */
function code(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(/\s/g, "").match(/../g) ?? [], (d) => parseInt(d, 16));
}

const LINE = 0x20_0000;
/** eax = the line; ecx = edx = 0; MONITOR */
const MONITOR = "b8 00 00 20 00 31 c9 31 d2 0f 01 c8";
const MWAIT = "0f 01 c9";
/** ecx = 2; ebx = 100,000; MWAITX */
const MWAITX = "b9 02 00 00 00 bb a0 86 01 00 0f 01 fb";
/** OUT 80h of a number. */
const tell = (n: number): string => `b0${n.toString(16).padStart(2, "0")} e680`;

async function machine(digits: string): Promise<{ vm: Vm; log: number[] }> {
  const log: number[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, (_, exit) => {
        if (exit.reason === ExitReason.IO && exit.port === 0x80) log.push(exit.lo);
      });
    },
  };
  const image = flat(code(digits), { address: 2 ** 20, entry: { mode: "protected32" } });
  const processor = cpu({ model: "max", features: { monitor: true, mwaitx: true } });
  const plugins = [processor, metal(), lapic(), watcher];
  return { vm: await createVm({ memory: 16 * 2 ** 20, plugins, images: [image] }), log };
}

Deno.test("a store from outside ends the wait, wherever in the line it is", async () => {
  for (const offset of [0, 63]) {
    const { vm, log } = await machine(`${tell(1)} ${MONITOR} ${MWAIT} ${tell(2)} f4`);
    using _ = vm;
    assertEquals((await vm.run({ instructions: 10_000 })).reason, "halted");
    assertEquals(log, [1]);
    vm.memory.write(LINE + 64, Uint8Array.of(1));
    assertEquals((await vm.run({ instructions: 10_000 })).reason, "halted");
    assertEquals(log, [1]);
    vm.memory.write(LINE + offset, Uint8Array.of(1));
    assertEquals((await vm.run({ instructions: 10_000 })).reason, "halted");
    assertEquals(log, [1, 2]);
  }
});

Deno.test("MWAITX with a limit goes on when that many ticks have passed, interrupts off or on", async () => {
  for (const flag of ["fa", "fb"]) {
    const { vm, log } = await machine(`${flag} ${MONITOR} ${MWAITX} ${tell(2)} fa f4`);
    using _ = vm;
    const { reason, ticks } = await vm.run({ instructions: 10_000 });
    assertEquals([reason, log], ["halted", [2]]);
    assert(ticks >= 100_000 && ticks < 200_000, `${ticks}`);
  }
});

Deno.test("when the wait ends does not depend on how the run is cut", async () => {
  // A loop of 3,000 instructions in front of it.
  const program = `fa b9 e8 03 00 00 90 49 75 fc ${MONITOR} ${MWAITX} ${tell(2)} f4`;
  const times = [];
  for (const slice of [100_000, 700, 10]) {
    const { vm } = await machine(program);
    using _ = vm;
    let reason = "limit";
    while (reason === "limit") ({ reason } = await vm.run({ instructions: slice }));
    times.push([reason, vm.clock.current.now(), vm.instructions]);
  }
  assertEquals(times, [times[0], times[0], times[0]]);
});

Deno.test("an MWAIT that nothing can end is a halt", async () => {
  const { vm, log } = await machine(`fa ${MONITOR} ${MWAIT} ${tell(2)} f4`);
  using _ = vm;
  const { reason } = await vm.run({ instructions: 10_000 });
  assertEquals([reason, log], ["halted", []]);
});
