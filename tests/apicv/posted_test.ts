/**
 * Posted interrupts: into the descriptor of a vCPU that runs, one that waits, and one that another has
 * pushed off its processor (SDM vol. 3, 30.6; KVM's `posted_intr.c`).
 */
import { assert, assertEquals } from "@std/assert";
import { roundRobin } from "../../core/mod.ts";
import { Vmcs } from "../../plugins/cpu/mod.ts";
import { lapicSlot } from "../../plugins/lapic/mod.ts";
import {
  apicv,
  apicvSlot,
  NOTIFICATION_VECTOR,
  type PostedInterruptDescriptor,
  WAKEUP_VECTOR,
} from "../../plugins/vmx/apicv/mod.ts";
import { vmxSlot } from "../../plugins/vmx/mod.ts";
import { code, dword } from "../silicon/code.ts";
import { END, ENTER_X2APIC, Machine, type MachineOptions, STI, wrmsr } from "../avic/machine.ts";

const TELL = code("e7 80");
const tell = (value: number): number[] => code("b8", dword(value), TELL);
const spin = (count: number): number[] => code("b9", dword(count), "e2 fe");
/** `hlt; jmp $-1` */
const SLEEP = "f4 eb fd";
const BEGIN = code(ENTER_X2APIC, wrmsr(0x80f, 0x1ff));
const SEND = wrmsr(0x830, 0x4051, 1);

const descriptorOf = (machine: Machine, index: number): PostedInterruptDescriptor =>
  machine.vm.slots.ref(apicvSlot).current.descriptor(machine.vm.vcpus[index]!)!;

/** A descriptor's control bits as hardware sees them. */
function controls({ outstanding, suppressed, vector, destination }: PostedInterruptDescriptor) {
  return { outstanding, suppressed, vector, destination };
}

/** Two vCPUs; the first sends the second an IPI between two tells. */
function run(target: string | readonly number[], options: MachineOptions, time: number): {
  machine: Machine;
  seen: ReturnType<typeof controls>[];
  requested: boolean[];
} {
  const machine = new Machine({ ids: [0, 1], x2apic: true, vmx: {}, ...options });
  const seen: ReturnType<typeof controls>[] = [];
  const requested: boolean[] = [];
  machine.onTold = () => {
    const descriptor = descriptorOf(machine, 1);
    seen.push(controls(descriptor));
    requested.push(descriptor.requested(0x51));
  };
  machine.program(0, BEGIN, spin(time), tell(1), SEND, tell(2), spin(time), tell(3), "31 c0", END);
  machine.program(1, BEGIN, STI, target);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, 0x51), 1);
  return { machine, seen, requested };
}

Deno.test("to one that runs: a notification, processed by its processor without an exit", () => {
  const { machine, seen, requested } = run("eb fe", {}, 30_000);
  using _ = machine;
  const running = { suppressed: false, vector: NOTIFICATION_VECTOR, destination: 1 };
  assertEquals(seen, [
    { ...running, outstanding: false },
    { ...running, outstanding: true },
    { ...running, outstanding: false },
  ]);
  assertEquals(requested, [false, true, false]);
  assertEquals(machine.counts.get("EXTERNAL_INTERRUPT"), undefined);
  assertEquals(machine.counts.get("APIC_WRITE"), undefined);
  assertEquals(machine.exits.filter((exit) => exit.startsWith("1 ")).sort(), [
    "1 RDMSR 1b",
    "1 WRMSR 1b",
    "1 WRMSR 80f",
  ]);
});

Deno.test("to one that waits: the wake-up vector, at the processor that it was on", () => {
  const { machine, seen } = run(SLEEP, {}, 30_000);
  using _ = machine;
  const waiting = { suppressed: false, vector: WAKEUP_VECTOR, destination: 1 };
  assertEquals(seen, [
    { ...waiting, outstanding: false },
    { ...waiting, outstanding: true },
    // It waits again.
    { ...waiting, outstanding: false },
  ]);
  // Nobody was on that processor: no guest had to exit.
  assertEquals(machine.counts.get("EXTERNAL_INTERRUPT"), undefined);
  assertEquals(machine.counts.get("HLT"), 2);
});

Deno.test("to one that waits while its processor runs the sender: that one exits", () => {
  const plugins = [roundRobin({ quantum: 1000, timeslice: 5000 })];
  const { machine, seen } = run(SLEEP, { processors: 1, plugins }, 30_000);
  using _ = machine;
  assertEquals(seen[0]!.vector, WAKEUP_VECTOR);
  assertEquals(machine.exits.filter((exit) => exit.includes("EXTERNAL")), [
    "0 EXTERNAL_INTERRUPT",
  ]);
});

Deno.test("to one that was pushed off its processor: noted, without a notification", () => {
  const plugins = [roundRobin({ quantum: 1000, timeslice: 5000 })];
  const { machine, seen, requested } = run("eb fe", { processors: 1, plugins }, 30_000);
  using _ = machine;
  const away = {
    suppressed: true,
    vector: NOTIFICATION_VECTOR,
    outstanding: false,
    destination: 0,
  };
  assertEquals(seen.slice(0, 2), [away, away]);
  assertEquals(requested, [false, true, false]);
  assertEquals(machine.counts.get("EXTERNAL_INTERRUPT"), undefined);
});

Deno.test("to one that cannot take interrupts and waits: it goes on waiting", () => {
  using machine = new Machine({ ids: [0, 1], x2apic: true, vmx: {} });
  machine.program(0, BEGIN, spin(30_000), SEND, spin(30_000), "31 c0", END);
  machine.program(1, BEGIN, "fa", SLEEP);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, 0x51), 0);
  assertEquals(descriptorOf(machine, 1).vector, NOTIFICATION_VECTOR);
  const { vm } = machine;
  const target = vm.slots.ref(lapicSlot).current.of(vm.vcpus[1]!);
  target.collect();
  assertEquals(target.highestIrr, 0x51);
});

for (const ipiv of [false, {}] as const) {
  const how = ipiv === false ? "without" : "with";
  Deno.test(`devices: posted by software, ${how} IPI virtualization`, () => {
    using machine = new Machine({ ids: [0, 1], x2apic: true, vmx: { ipiv } });
    const { vm } = machine;
    // A message-signalled interrupt to APIC ID 1, while it runs and while it waits.
    machine.onTold = () => {
      assert(vm.sendMsi(0xfee0_1000, 0x4051));
      const descriptor = descriptorOf(machine, 1);
      assertEquals([descriptor.requested(0x51), descriptor.outstanding], [true, true]);
    };
    machine.program(0, BEGIN, [1, 2].flatMap(() => code(spin(30_000), TELL)), spin(30_000), END);
    machine.program(1, BEGIN, STI, spin(50_000), SLEEP);
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(machine.received(1, 0x51), 2);
    assertEquals(machine.counts.get("EXTERNAL_INTERRUPT"), undefined);
    assertEquals(machine.counts.get("INTERRUPT_WINDOW"), undefined);
  });
}

Deno.test("what is posted when a snapshot is taken is in the saved IRR", () => {
  using machine = new Machine({ ids: [0, 1], x2apic: true, vmx: {} });
  const { vm } = machine;
  const target = vm.slots.ref(lapicSlot).current.of(vm.vcpus[1]!);
  let saved = false;
  machine.onTold = () => {
    const descriptor = descriptorOf(machine, 1);
    assertEquals(descriptor.requested(0x51), true);
    const { page } = target.save();
    // IRR of 51h: bit 17 of the register at 220h.
    saved = (new DataView(page.buffer).getUint32(0x220, true) & (1 << 17)) !== 0;
    assertEquals(descriptor.empty, true);
  };
  machine.program(0, BEGIN, spin(30_000), SEND, TELL, spin(30_000), "31 c0", END);
  machine.program(1, BEGIN, STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([saved, machine.received(1, 0x51)], [true, 1]);
});

Deno.test("what was noted for one that was pushed off is there when the plugin is swapped", () => {
  using machine = new Machine({
    ids: [0, 1],
    x2apic: true,
    vmx: {},
    processors: 1,
    plugins: [roundRobin({ quantum: 1000, timeslice: 5000 })],
  });
  const states: boolean[] = [];
  machine.onTold = () => {
    const { suppressed, outstanding } = descriptorOf(machine, 1);
    states.push(suppressed, outstanding, descriptorOf(machine, 1).requested(0x51));
    machine.vm.swap("apicv", apicv());
  };
  machine.program(0, BEGIN, spin(30_000), SEND, TELL, spin(30_000), "31 c0", END);
  machine.program(1, BEGIN, STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([states, machine.received(1, 0x51)], [[true, false, true], 1]);
});

Deno.test("the VMCS names the descriptor, the vector and the page of the local APIC", () => {
  using machine = new Machine({ x2apic: true, vmx: {} });
  const { vm } = machine;
  const [vcpu] = vm.vcpus;
  machine.program(0, BEGIN, "31 c0", END);
  assertEquals(machine.run().reason, "exit-code");
  const { vmcs } = vm.slots.ref(vmxSlot).current.of(vcpu!);
  assertEquals(vmcs.get32(Vmcs.POSTED_INTERRUPT_VECTOR) & 0xffff, NOTIFICATION_VECTOR);
  const descriptor = descriptorOf(machine, 0);
  assertEquals(Number(vmcs.get64(Vmcs.POSTED_INTERRUPT_DESCRIPTOR)), descriptor.hpa);
  const { pageHpa } = vm.slots.ref(lapicSlot).current.of(vcpu!);
  assertEquals(Number(vmcs.get64(Vmcs.VIRTUAL_APIC_ADDRESS)), pageHpa);
  const table = Number(vmcs.get64(Vmcs.PID_POINTER_TABLE));
  const entry = vm.hostMemory.current.readU64(table);
  assertEquals(entry, BigInt(descriptor.hpa) | 1n);
  assertEquals(vmcs.get32(Vmcs.LAST_PID_POINTER_INDEX) & 0xffff, 4095);
});
