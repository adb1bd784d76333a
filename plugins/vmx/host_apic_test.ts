import { assertEquals } from "@std/assert";
import { createVmSync, type Plugin } from "../../core/mod.ts";
import { cpu, processorsSlot } from "../cpu/mod.ts";
import { HostApic } from "./host_apic.ts";
import { vmx } from "./mod.ts";

/** Two processors with a local APIC each, and what the host took: processor and vector. */
function apics(
  check: (
    first: HostApic,
    second: HostApic,
    taken: [number, number][],
    exchange: Int32Array,
  ) => void,
): void {
  const plugin: Plugin = {
    name: "check",
    version: "1.0.0",
    requires: [processorsSlot],
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      const taken: [number, number][] = [];
      const all: HostApic[] = [];
      const board = {
        find: (id: number) => all.find((one) => one.id === id),
        take: (pcpu: number, vector: number) => void taken.push([pcpu, vector]),
      };
      all.push(...[0, 1].map((index) => new HostApic(processors.get(index), board)));
      processors.get(0).load();
      check(all[0]!, all[1]!, taken, processors.get(0).exchange);
    },
  };
  const model = { model: "sapphire-rapids" } as const;
  using _ = createVmSync({
    memory: 2 ** 21,
    cpus: 1,
    processors: 2,
    plugins: [cpu(model), vmx(), plugin],
  });
}

Deno.test("outside of guest mode the host takes interrupts at once, in it the processor does", () => {
  apics((first, second, taken) => {
    first.arrive(0xf1);
    assertEquals(taken.splice(0), [[0, 0xf1]]);
    first.enter();
    for (const vector of [0x31, 0xf2, 0x31]) first.arrive(vector);
    assertEquals([taken, first.waits(0xf2), second.waits(0xf2)], [[], true, false]);
    // Highest first; the other waits for the end of the first.
    assertEquals(first.acknowledge(), 0xf2);
    assertEquals([first.waits(0xf2), first.waits(0x31)], [false, true]);
    assertEquals(first.msrWrite(0x80b), true);
    assertEquals([first.acknowledge(), first.acknowledge()], [0x31, -1]);
    assertEquals(taken, []);
    // An exit with a vector: the host takes that, then what else waits.
    first.arrive(0x32);
    first.exit(0x31);
    assertEquals(taken, [[0, 0x31], [0, 0x32]]);
    assertEquals(first.guestMode, false);
  });
});

Deno.test("the ICR sends fixed interrupts by physical IDs, and nothing else", () => {
  apics((first, second, taken, exchange) => {
    const send = (low: number, high: number): boolean => {
      exchange[0] = low | 0;
      exchange[1] = high | 0;
      return first.msrWrite(0x830);
    };
    assertEquals(send(0x40f2, second.id), true);
    assertEquals(taken.splice(0), [[1, 0xf2]]);
    // Nobody has that ID.
    assertEquals([send(0x40f2, 9), taken], [true, []]);
    for (const low of [0x44f2, 0x48f2, 0xc0f2, 0x4_40f2]) {
      assertEquals(send(low, 1), false, `${low}`);
    }
    assertEquals(send(0x40f2, 0xffff_ffff), false);
    assertEquals(first.msrWrite(0x808), false);
    assertEquals([first.msrRead(0x1b), exchange[0]! >>> 0], [true, 0xfee0_0c00]);
    assertEquals(first.msrRead(0x802), false);
  });
});
