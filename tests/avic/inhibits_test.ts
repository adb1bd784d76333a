/**
 * When AVIC is on: inhibits, interrupt windows, scheduling, and coming and going with the plugin.
 */
import { assert, assertEquals } from "@std/assert";
import {
  defineInhibit,
  type Plugin,
  type PluginContext,
  type Registration,
  roundRobin,
  vcpuLoadHook,
  vcpuPutHook,
} from "../../core/mod.ts";
import { Control, IntControl, processorsSlot } from "../../plugins/cpu/mod.ts";
import { ApicMessage, LapicInhibit, lapicSlot, MessageType } from "../../plugins/lapic/mod.ts";
import { svmSlot } from "../../plugins/svm/mod.ts";
import { avic, AVIC_INHIBITS, AvicInhibit } from "../../plugins/svm/avic/mod.ts";
import { code, dword } from "../silicon/code.ts";
import { CLI, END, ENTER_X2APIC, Machine, STI, store, wrmsr } from "./machine.ts";

const TELL = "e7 80";
const NOP = "90 90 90 90";
const SPIN = code("b9", dword(20_000), "e2 fe");
const SLEEP = "f4 eb fd";

/** A plugin whose context a test uses. */
function borrowed(): { plugin: Plugin; ctx: () => PluginContext } {
  let kept: PluginContext | undefined;
  return {
    plugin: { name: "borrowed", version: "1.0.0", setup: (ctx) => void (kept = ctx) },
    ctx: () => kept!,
  };
}

/** Whether the VMCB of a vCPU has AVIC on. */
function enabled(machine: Machine, index: number): boolean {
  const { vm } = machine;
  const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[index]!);
  return (vmcb.get32(Control.INT_CONTROL) & IntControl.AVIC) !== 0;
}

/** Entry of the physical APIC ID table: valid, running, host APIC ID. */
function entry(machine: Machine, id: number): [boolean, boolean, number] {
  const { vm } = machine;
  const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
  const table = Number(vmcb.get64(Control.AVIC_PHYSICAL_TABLE) & ~0xfffn);
  const value = vm.hostMemory.current.readU64(table + 8 * id);
  return [value >> 63n === 1n, (value >> 62n & 1n) === 1n, Number(value & 0xfffn)];
}

Deno.test("AVIC minds KVM's thirteen reasons, and local APICs that are off", () => {
  const names = AVIC_INHIBITS.map(({ name }) => name).sort();
  assertEquals(names, [
    "ABSENT",
    "APIC_BASE_MODIFIED",
    "APIC_DISABLED",
    "APIC_ID_MODIFIED",
    "BLOCKIRQ",
    "DISABLED",
    "HYPERV",
    "IRQWIN",
    "LOGICAL_ID_ALIASED",
    "NESTED",
    "PHYSICAL_ID_ALIASED",
    "PHYSICAL_ID_TOO_BIG",
    "PIT_REINJ",
    "SEV",
  ]);
});

for (const reason of [...AVIC_INHIBITS, defineInhibit("OTHER", "nothing to AVIC")]) {
  for (const own of [false, true]) {
    Deno.test(`${reason.name} for ${own ? "one vCPU" : "the VM"}`, () => {
      const { plugin, ctx } = borrowed();
      using machine = new Machine({ ids: [0, 1], plugins: [plugin] });
      const { vm } = machine;
      const states: boolean[][] = [];
      let held: Registration | undefined;
      machine.onTold = (value) => {
        states.push([0, 1].map((index) => enabled(machine, index)));
        assertEquals(states.at(-1), vm.vcpus.map(({ accelerated }) => accelerated));
        if (value === 1) held = ctx().inhibit(reason, own ? vm.vcpus[1]! : undefined);
        if (value === 2) held?.remove();
      };
      const tell = (value: number) => code("b8", dword(value), TELL, SPIN);
      machine.program(0, SPIN, tell(1), tell(2), tell(3), "31 c0", END);
      // The other one must enter again to take notice.
      machine.program(1, "eb fe");
      assertEquals(machine.run().reason, "exit-code");
      const minded = AVIC_INHIBITS.includes(reason);
      assertEquals(states, [[true, true], [!minded || own, !minded], [true, true]]);
    });
  }
}

Deno.test("without AVIC in the processor nothing is accelerated, and DISABLED says why", () => {
  using machine = new Machine({ cpu: { features: { avic: false } } });
  machine.program(0, store(0xf0, 0x1ff), STI, store(0x300, 0x4_0051), NOP, "31 c0", END);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(0, 0x51), 1);
  assertEquals(machine.vm.inhibits.reasons(), [AvicInhibit.DISABLED]);
  assertEquals(enabled(machine, 0), false);
});

Deno.test("an ExtINT that must wait takes the way over V_IRQ, without AVIC for that long", () => {
  using machine = new Machine({ ids: [0, 1] });
  const { vm } = machine;
  const bus = vm.slots.ref(lapicSlot).current;
  const states: boolean[][] = [];
  machine.onTold = (value) => {
    states.push([0, 1].map((index) => enabled(machine, index)));
    if (value !== 1) return;
    const message = new ApicMessage();
    message.type = MessageType.EXTINT;
    bus.of(vm.vcpus[0]!).receive(message);
  };
  const tell = (value: number) => code("b8", dword(value), TELL);
  machine.program(
    0,
    ...[store(0xf0, 0x1ff), SPIN, CLI, tell(1), SPIN, tell(2), STI, NOP, SPIN, tell(3)],
    "31 c0",
    END,
  );
  machine.program(1, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  // No interrupt controller is there to tell a vector: the bus floats.
  assertEquals(machine.received(0, 0xff), 1);
  assertEquals(machine.counts.get("INTERRUPT_WINDOW"), 1);
  assertEquals(states, [[true, true], [false, false], [true, true]]);
  assertEquals(vm.inhibits.reasons(), []);
});

Deno.test("two vCPUs that wait for a window hold the inhibit together", () => {
  using machine = new Machine({ ids: [0, 1] });
  const { vm } = machine;
  const bus = vm.slots.ref(lapicSlot).current;
  const reasons: string[] = [];
  machine.onTold = (value, vcpu) => {
    const message = new ApicMessage();
    message.type = MessageType.EXTINT;
    if (value === 1) bus.of(vcpu).receive(message);
    else reasons.push(vm.inhibits.reasons().map(({ name }) => name).join());
  };
  const tell = (value: number) => code("b8", dword(value), TELL);
  const begin = code(store(0xf0, 0x1ff), tell(1));
  // The first one's window opens while the second one still waits.
  machine.program(0, begin, SPIN, STI, NOP, tell(2), SPIN, SPIN, SPIN, tell(2), "31 c0", END);
  machine.program(1, begin, SPIN, SPIN, SPIN, STI, SLEEP);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([0, 1].map((index) => machine.received(index, 0xff)), [1, 1]);
  assertEquals(reasons, ["IRQWIN", ""]);
});

Deno.test("IsRunning and the host's APIC ID follow the scheduler", () => {
  const seen: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      const processors = ctx.use(processorsSlot).current;
      ctx.on(vcpuLoadHook, (vcpu, pcpu) => {
        const [valid, running, host] = entry(machine, vcpu.id);
        assertEquals([valid, running, host], [true, true, processors.get(pcpu).apicId]);
        seen.push(`load ${vcpu.id}`);
      }, { stage: "post" });
      ctx.on(vcpuPutHook, (vcpu) => {
        const [valid, running] = entry(machine, vcpu.id);
        assertEquals([valid, running], [true, false]);
        seen.push(`put ${vcpu.id}`);
      }, { stage: "post" });
    },
  };
  using machine = new Machine({
    ids: [0, 1, 2],
    processors: 2,
    plugins: [roundRobin({ quantum: 500, timeslice: 3000 })],
  });
  // Processors are not the vCPUs' namesakes.
  machine.vm.slots.ref(processorsSlot).current.get(1).apicId = 0x123;
  machine.vm.load(watcher);
  for (const index of [0, 1, 2]) machine.program(index, "eb fe");
  machine.run(60_000);
  assert(seen.length > 20, seen.join());
  assert(seen.includes("load 2") && seen.includes("put 2"));
  // One that halts is not running either.
  machine.program(1, "f4");
  machine.vm.vcpus[1]!.regs.rip = machine.vm.vcpus[1]!.regs.rip & ~0xfffn;
  machine.run(60_000);
  assertEquals(entry(machine, 1).slice(0, 2), [true, false]);
});

Deno.test("the plugin comes and goes while the VM runs, and no interrupt is lost", () => {
  using machine = new Machine({ x2apic: true, ids: [0, 1], avic: false });
  const { vm } = machine;
  const states: boolean[][] = [];
  machine.onTold = (value) => {
    states.push([0, 1].map((index) => enabled(machine, index)));
    if (value === 1) vm.load(avic());
    if (value === 2) vm.swap("avic", avic({ vcpuIds: 16 }));
    if (value === 3) vm.unload("avic");
  };
  const tell = (value: number) => code("b8", dword(value), TELL, SPIN);
  const send = (vector: number) => code(wrmsr(0x830, 0x4000 | vector, 1), SPIN);
  const begin = code(ENTER_X2APIC, wrmsr(0x80f, 0x1ff), STI);
  machine.program(
    0,
    ...[begin, SPIN, send(0x51), tell(1), send(0x52), tell(2), send(0x53), tell(3), send(0x54)],
    ...[tell(4), "31 c0", END],
  );
  machine.program(1, begin, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([0x51, 0x52, 0x53, 0x54].map((vector) => machine.received(1, vector)), [1, 1, 1, 1]);
  assertEquals(states, [[false, false], [true, true], [true, true], [false, false]]);
  // Two of the IPIs exited: those without AVIC.
  assertEquals(machine.counts.get("WRMSR 830"), 2);
});

for (const vgif of [true, false]) {
  Deno.test(`a guest's own GIF holds AVIC's interrupts back, ${vgif ? "with" : "without"} vGIF`, () => {
    const cpu = { features: { vgif } };
    using machine = new Machine({ x2apic: true, svm: { nested: true }, cpu });
    const counts: number[] = [];
    machine.onTold = () => void counts.push(machine.received(0, 0x51));
    // EFER.SVME, CLGI, an IPI to itself, STGI.
    const svme = code("b9", dword(0xc000_0080), "0f 32 0d", dword(0x1000), "0f 30");
    machine.program(
      0,
      ...[ENTER_X2APIC, wrmsr(0x80f, 0x1ff), svme, STI, "0f 01 dd", wrmsr(0x83f, 0x51), NOP],
      ...[TELL, "0f 01 dc", NOP, TELL, "31 c0", END],
    );
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(counts, [0, 1]);
    assertEquals(enabled(machine, 0), true);
  });
}

Deno.test("memory is given back", () => {
  const machine = new Machine({ ids: [0, 1] });
  const { vm } = machine;
  const host = vm.hostMemory.current;
  const taken = new Set<number>();
  const [alloc, free] = [host.alloc.bind(host), host.free.bind(host)];
  host.alloc = (bytes, align) => {
    const hpa = alloc(bytes, align);
    taken.add(hpa);
    return hpa;
  };
  host.free = (hpa) => {
    taken.delete(hpa);
    free(hpa);
  };
  vm.unload("avic");
  vm.load(avic());
  assertEquals(taken.size, 3);
  vm.unload("avic");
  assertEquals(taken.size, 0);
  machine[Symbol.dispose]();
});

Deno.test("every reason has a sentence", () => {
  for (const { description } of [...Object.values(AvicInhibit), ...Object.values(LapicInhibit)]) {
    assert(description.length > 10);
  }
});
