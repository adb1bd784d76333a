/**
 * Interrupts of assigned devices under VMX: VT-d posts them into the target's descriptor, whether it runs,
 * waits, or has made place for another, and whether or not APICv is inhibited for it.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type Plugin, type Registration, roundRobin } from "../../core/mod.ts";
import {
  type AssignedInterrupts,
  assignedInterruptsSlot,
  LapicInhibit,
} from "../../plugins/lapic/mod.ts";
import { apicv, NOTIFICATION_VECTOR, WAKEUP_VECTOR } from "../../plugins/vmx/apicv/mod.ts";
import { vtd, vtdInterruptHook, vtdNotifyHook, vtdSlot } from "../../plugins/vtd/mod.ts";
import { END, Machine, STI, store } from "../avic/machine.ts";
import { code, dword } from "../silicon/code.ts";

const DEVICE = 0x0208;
const INDEX = 3;
const VECTOR = 0x71;
const SPIN = code("b9", dword(20_000), "e2 fe");
const SLEEP = "f4 eb fd";
/** The guest's message: fixed, edge, to the APIC ID. */
const message = (id: number, vector = VECTOR) => ({
  deviceId: DEVICE,
  index: INDEX,
  address: 0xfee0_0000 + (id << 12),
  data: vector,
});

/** What VT-d tells of: vectors of notifications, and how many interrupts the host has taken. */
class Watcher {
  readonly notified: number[] = [];
  remapped = 0;
  readonly plugin: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup: (ctx) => {
      ctx.on(vtdNotifyHook, (_destination, vector) => void this.notified.push(vector));
      ctx.on(vtdInterruptHook, () => void this.remapped++);
    },
  };
}

const assignedOf = (machine: Machine): AssignedInterrupts =>
  machine.vm.slots.ref(assignedInterruptsSlot).current!;
const signal = (machine: Machine): boolean => {
  const handle = assignedOf(machine).handle(DEVICE, INDEX);
  return machine.vm.slots.ref(vtdSlot).current.signal(DEVICE, handle);
};
const tell = (value: number) => code("b8", dword(value), "e7 80", SPIN);
const begin = store(0xf0, 0x1ff);
const SHORT = roundRobin({ quantum: 500, timeslice: 4000 });

const TARGETS = [
  ["runs", "eb fe", {}, [NOTIFICATION_VECTOR, NOTIFICATION_VECTOR]],
  ["waits in HLT", SLEEP, {}, [WAKEUP_VECTOR, WAKEUP_VECTOR]],
  // It is not notified: it looks when it is back.
  ["has made place for another", "eb fe", { processors: 1 }, []],
] as const;

for (const [name, target, options, notified] of TARGETS) {
  Deno.test(`a device's interrupts for one that ${name}`, () => {
    const watcher = new Watcher();
    using machine = new Machine({
      ids: [0, 1],
      vmx: { ipiv: false },
      ...options,
      plugins: [vtd(), watcher.plugin, SHORT],
    });
    machine.onTold = () => {
      assertEquals(assignedOf(machine).posted(DEVICE, INDEX), true);
      assertEquals(signal(machine), true);
    };
    machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
    machine.program(1, begin, STI, target);
    assignedOf(machine).assign(message(1));
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(machine.received(1, VECTOR), 2);
    assertEquals([watcher.notified, watcher.remapped], [[...notified], 0]);
    assertEquals(machine.counts.get("INTERRUPT_WINDOW"), undefined);
  });
}

Deno.test("while APICv is inhibited it is posted all the same, and injected", () => {
  const watcher = new Watcher();
  const inhibitor: Plugin = {
    name: "inhibitor",
    version: "1.0.0",
    setup: (ctx) => void ctx.inhibit(LapicInhibit.BLOCKIRQ),
  };
  const plugins = [vtd(), watcher.plugin, inhibitor];
  for (const target of ["eb fe", SLEEP]) {
    using machine = new Machine({ ids: [0, 1], vmx: {}, plugins });
    machine.onTold = () => void signal(machine);
    machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
    machine.program(1, begin, STI, target);
    assignedOf(machine).assign(message(1));
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(machine.received(1, VECTOR), 2, target.toString());
  }
  assertEquals([watcher.notified.length, watcher.remapped], [4, 0]);
});

Deno.test("what is not for one vCPU alone, or not fixed and edge-triggered, is sent by software", () => {
  const watcher = new Watcher();
  using machine = new Machine({ ids: [0, 1], vmx: {}, plugins: [vtd(), watcher.plugin] });
  const assigned = assignedOf(machine);
  const posted = (address: number, data: number): boolean => {
    assigned.assign({ deviceId: DEVICE, index: INDEX, address, data });
    return assigned.posted(DEVICE, INDEX);
  };
  assertEquals(posted(0xfee0_1000, VECTOR), true);
  assertEquals(posted(0xfee0_9000, VECTOR), false);
  assertEquals(posted(0xfee0_1000, 0x400), false);
  assertEquals(posted(0xfee0_1000, 0xc000 | VECTOR), false);
  assertThrows(() => assigned.assign({ ...message(1), index: 256 }), ArgumentError, "256");
  // A broadcast reaches both by way of the host.
  assertEquals(posted(0xfeef_f000, VECTOR), false);
  machine.onTold = () => void signal(machine);
  machine.program(0, begin, STI, SPIN, tell(1), "31 c0", END);
  machine.program(1, begin, STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([0, 1].map((index) => machine.received(index, VECTOR)), [1, 1]);
  assertEquals([watcher.notified, watcher.remapped], [[], 1]);
  assigned.release(DEVICE, INDEX);
  assertEquals([assigned.posted(DEVICE, INDEX), assigned.handle(DEVICE, INDEX)], [false, -1]);
  assertEquals(machine.vm.slots.ref(vtdSlot).current.signal(DEVICE, 0), false);
});

Deno.test("the table is a page of 256 entries, and a handle is given again when it is free", () => {
  using machine = new Machine({ vmx: {}, plugins: [vtd()] });
  const assigned = assignedOf(machine);
  const at = (index: number) => ({ ...message(0), deviceId: index >> 8, index: index & 0xff });
  for (let k = 0; k < 256; k++) assigned.assign(at(k));
  assertEquals([assigned.handle(0, 0), assigned.handle(0, 255)], [0, 255]);
  assertThrows(() => assigned.assign(at(256)), ArgumentError, "256");
  assigned.release(0, 17);
  assigned.assign({ ...message(0), deviceId: 9, index: 1 });
  assertEquals(assigned.handle(9, 1), 17);
});

Deno.test("one that waits while the plugin is swapped is woken afterwards", () => {
  const watcher = new Watcher();
  using machine = new Machine({ ids: [0, 1], vmx: {}, plugins: [vtd(), watcher.plugin] });
  const { vm } = machine;
  machine.onTold = (value) => {
    if (value === 1) vm.swap("apicv", apicv());
    else signal(machine);
  };
  machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
  machine.program(1, begin, STI, SLEEP);
  assignedOf(machine).assign(message(1));
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([machine.received(1, VECTOR), watcher.notified], [1, [WAKEUP_VECTOR]]);
});

Deno.test("a storm of them, with APICv switched and swapped and vCPUs on the move: each is received once", () => {
  const watcher = new Watcher();
  let held: Registration | undefined;
  let sent = 0;
  let swaps = 0;
  const device: Plugin = {
    name: "device",
    version: "1.0.0",
    setup(ctx) {
      // The next one is sent when the last one was counted, as the same vector twice is one.
      const timer = ctx.createTimer("device", () => {
        if (machine.received(1, VECTOR) === sent) {
          signal(machine);
          sent++;
        }
        timer.arm(ctx.vm.clock.current.now() + (sent % 2 === 0 ? 517 : 4100));
      });
      timer.arm(50_000);
      const toggler = ctx.createTimer("toggler", () => {
        held?.remove();
        held = held === undefined ? ctx.inhibit(LapicInhibit.BLOCKIRQ) : undefined;
        toggler.arm(ctx.vm.clock.current.now() + 9700);
      });
      toggler.arm(60_000);
      const swapper = ctx.createTimer("swapper", () => {
        ctx.vm.swap("apicv", apicv());
        swaps++;
        swapper.arm(ctx.vm.clock.current.now() + 90_000);
      });
      swapper.arm(70_000);
    },
  };
  using machine = new Machine({
    ids: [0, 1, 2],
    processors: 2,
    vmx: {},
    plugins: [vtd(), watcher.plugin, device, roundRobin({ quantum: 300, timeslice: 2000 })],
  });
  machine.recording = false;
  machine.program(0, begin, "eb fe");
  // HLT, and for a while none.
  machine.program(1, begin, STI, "f4 b9", dword(900), "e2 fe eb f6");
  machine.program(2, begin, "eb fe");
  assignedOf(machine).assign(message(1));
  machine.run(5_000_000);
  assert(sent > 300 && swaps > 10, `${sent} ${swaps}`);
  assert(sent - machine.received(1, VECTOR) <= 1, `${sent} sent`);
  const counts = [NOTIFICATION_VECTOR, WAKEUP_VECTOR].map((vector) =>
    watcher.notified.filter((one) => one === vector).length
  );
  assert(counts.every((count) => count > 20), `${counts}`);
});
