/**
 * Interrupts of assigned devices: posted by the IOMMU while AVIC is active for their target, sent by
 * software otherwise; a target that waits is woken by way of the log.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type Plugin, type Registration, roundRobin } from "../../core/mod.ts";
import {
  doorbellHook,
  gaLogHook,
  iommu,
  iommuSlot,
  remappedInterruptHook,
} from "../../plugins/iommu/mod.ts";
import { type AssignedInterrupts, assignedInterruptsSlot } from "../../plugins/lapic/mod.ts";
import { avic, AvicInhibit } from "../../plugins/svm/avic/mod.ts";
import { code, dword } from "../silicon/code.ts";
import { END, Machine, STI, store } from "./machine.ts";

const DEVICE = 0x0208;
const VECTOR = 0x71;
const TELL = "e7 80";
const SPIN = code("b9", dword(20_000), "e2 fe");
const SLEEP = "f4 eb fd";
/** The guest's message: fixed, edge, to the APIC ID. */
const message = (id: number, vector = VECTOR) => ({
  deviceId: DEVICE,
  index: 3,
  address: 0xfee0_0000 + (id << 12),
  data: vector,
});

/** Counts what the IOMMU tells of. */
class Watcher {
  doorbells = 0;
  logs = 0;
  remapped = 0;
  readonly plugin: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup: (ctx) => {
      ctx.on(doorbellHook, () => void this.doorbells++);
      ctx.on(gaLogHook, () => void this.logs++);
      ctx.on(remappedInterruptHook, () => void this.remapped++);
    },
  };
  get counts(): { doorbells: number; logs: number; remapped: number } {
    const { doorbells, logs, remapped } = this;
    return { doorbells, logs, remapped };
  }
}

const assignedOf = (machine: Machine): AssignedInterrupts =>
  machine.vm.slots.ref(assignedInterruptsSlot).current!;
const signal = (machine: Machine, index = 3): boolean =>
  machine.vm.slots.ref(iommuSlot).current.signal(DEVICE, index);

const tell = (value: number) => code("b8", dword(value), TELL, SPIN);
const begin = store(0xf0, 0x1ff);

Deno.test("to a vCPU that runs: into its page, with a doorbell, and without an exit", () => {
  const watcher = new Watcher();
  using machine = new Machine({ ids: [0, 1], plugins: [iommu(), watcher.plugin] });
  machine.onTold = () => {
    assertEquals(assignedOf(machine).posted(DEVICE, 3), true);
    assertEquals(signal(machine), true);
  };
  machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
  machine.program(1, begin, STI, "eb fe");
  assignedOf(machine).assign(message(1));
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, VECTOR), 2);
  assertEquals(watcher.counts, { doorbells: 2, logs: 0, remapped: 0 });
  // The write of the SVR, at the beginning.
  assertEquals(machine.take().filter((exit) => exit.startsWith("1 ")), ["1 AVIC_NOACCEL"]);
});

Deno.test("to one that waits in HLT: it is woken by way of the log", () => {
  const watcher = new Watcher();
  using machine = new Machine({ ids: [0, 1], plugins: [iommu(), watcher.plugin] });
  machine.onTold = () => void signal(machine);
  machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
  machine.program(1, begin, STI, SLEEP);
  assignedOf(machine).assign(message(1));
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, VECTOR), 2);
  assertEquals(watcher.counts, { doorbells: 0, logs: 2, remapped: 0 });
});

Deno.test("to one that made place for another: it finds the interrupt when it is back", () => {
  const watcher = new Watcher();
  using machine = new Machine({
    ids: [0, 1],
    processors: 1,
    plugins: [iommu(), watcher.plugin, roundRobin({ quantum: 500, timeslice: 4000 })],
  });
  machine.onTold = () => void signal(machine);
  machine.program(0, begin, SPIN, tell(1), tell(2), "31 c0", END);
  machine.program(1, begin, STI, "eb fe");
  assignedOf(machine).assign(message(1));
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, VECTOR), 2);
  assertEquals(watcher.counts, { doorbells: 0, logs: 0, remapped: 0 });
});

Deno.test("while AVIC is inhibited the host takes it and sends the guest's message", () => {
  const watcher = new Watcher();
  let held: Registration | undefined;
  const inhibitor: Plugin = {
    name: "inhibitor",
    version: "1.0.0",
    setup: (ctx) => void (held = ctx.inhibit(AvicInhibit.BLOCKIRQ)),
  };
  using machine = new Machine({ ids: [0, 1], plugins: [iommu(), watcher.plugin, inhibitor] });
  const posted: boolean[] = [];
  machine.onTold = (value) => {
    posted.push(assignedOf(machine).posted(DEVICE, 3));
    if (value === 2) held?.remove();
    else signal(machine);
  };
  machine.program(0, begin, SPIN, tell(1), tell(2), tell(3), "31 c0", END);
  machine.program(1, begin, STI, "eb fe");
  assignedOf(machine).assign(message(1));
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, VECTOR), 2);
  assertEquals(posted, [false, false, true]);
  assertEquals(watcher.counts, { doorbells: 1, logs: 0, remapped: 1 });
});

Deno.test("what is not for one vCPU alone, or not fixed and edge-triggered, is not posted", () => {
  using machine = new Machine({ ids: [0, 1], plugins: [iommu()] });
  const assigned = assignedOf(machine);
  const posted = (address: number, data: number): boolean => {
    assigned.assign({ deviceId: DEVICE, index: 3, address, data });
    return assigned.posted(DEVICE, 3);
  };
  assertEquals(posted(0xfee0_1000, VECTOR), true);
  // A broadcast, nobody, an NMI, a level.
  assertEquals(posted(0xfeef_f000, VECTOR), false);
  assertEquals(posted(0xfee0_9000, VECTOR), false);
  assertEquals(posted(0xfee0_1000, 0x400), false);
  assertEquals(posted(0xfee0_1000, 0xc000 | VECTOR), false);
  assertEquals(posted(0xfee0_0000, VECTOR), true);
  assigned.release(DEVICE, 3);
  assertEquals([assigned.posted(DEVICE, 3), signal(machine)], [false, false]);
  assertThrows(() => assigned.assign({ ...message(1), index: 256 }), ArgumentError, "256");
});

Deno.test("assignments go along when the plugin is swapped", () => {
  const watcher = new Watcher();
  using machine = new Machine({ ids: [0, 1], plugins: [iommu(), watcher.plugin] });
  assignedOf(machine).assign(message(1));
  machine.vm.swap("avic", avic());
  machine.onTold = () => void signal(machine);
  machine.program(0, begin, SPIN, tell(1), "31 c0", END);
  machine.program(1, begin, STI, SLEEP);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, VECTOR), 1);
  assertEquals(watcher.counts, { doorbells: 0, logs: 1, remapped: 0 });
});

Deno.test("a storm of them, with AVIC switched and vCPUs on the move: each is received once", () => {
  const watcher = new Watcher();
  let held: Registration | undefined;
  let sent = 0;
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
        // Now right behind the exit that HLT takes, now later.
        timer.arm(ctx.vm.clock.current.now() + (sent % 2 === 0 ? 517 : 4100));
      });
      timer.arm(50_000);
      const toggler = ctx.createTimer("toggler", () => {
        held?.remove();
        held = held === undefined ? ctx.inhibit(AvicInhibit.BLOCKIRQ) : undefined;
        toggler.arm(ctx.vm.clock.current.now() + 9700);
      });
      toggler.arm(60_000);
    },
  };
  using machine = new Machine({
    ids: [0, 1, 2],
    processors: 2,
    plugins: [
      iommu(),
      watcher.plugin,
      device,
      roundRobin({ quantum: 300, timeslice: 2000 }),
    ],
  });
  machine.recording = false;
  machine.program(0, begin, "eb fe");
  // HLT, and for a while none.
  machine.program(1, begin, STI, "f4 b9", dword(900), "e2 fe eb f6");
  machine.program(2, begin, "eb fe");
  assignedOf(machine).assign(message(1));
  machine.run(5_000_000);
  assert(sent > 500, `${sent}`);
  assert(sent - machine.received(1, VECTOR) <= 1, `${sent} sent`);
  const { doorbells, logs, remapped } = watcher.counts;
  assertEquals(doorbells > 20 && logs > 20 && remapped > 20, true, JSON.stringify(watcher.counts));
});
