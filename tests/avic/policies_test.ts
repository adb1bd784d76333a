/**
 * What KVM's patches changed, seen from outside: the same guest with the policy of before and the one
 * of after.
 */
import { assert, assertEquals } from "@std/assert";
import {
  ExitReason,
  type Plugin,
  type PluginContext,
  type Registration,
  type Slot,
} from "../../core/mod.ts";
import { Control } from "../../plugins/cpu/mod.ts";
import { lapicSlot } from "../../plugins/lapic/mod.ts";
import { svmSlot } from "../../plugins/svm/mod.ts";
import {
  activationFlushSlot,
  AvicInhibit,
  configuredMaxIndex,
  cr8FollowsAvic,
  cr8InterceptSlot,
  cr8Untouched,
  decideAtCreation,
  flushBothModes,
  flushXavicOnly,
  initializeActive,
  initializeAlways,
  ipiVirtualizationAlways,
  ipiVirtualizationByFamily,
  ipiVirtualizationSlot,
  maxIndexSlot,
  modeMaxIndex,
  syncAlways,
  syncWhileInactive,
  taskPrioritySyncSlot,
  vcpuIdSlot,
  vmcbInitSlot,
} from "../../plugins/svm/avic/mod.ts";
import { code, dword } from "../silicon/code.ts";
import {
  END,
  ENTER_X2APIC,
  load,
  Machine,
  type MachineOptions,
  STI,
  store,
  wrmsr,
} from "./machine.ts";

const NOP = "90 90 90 90";
const SPIN = code("b9", dword(20_000), "e2 fe");
const tell = (value: number) => code("b8", dword(value), "e7 80");
/** `mov cr8, rax` behind `mov eax, value` */
const setCr8 = (value: number) => code("b8", dword(value), "44 0f 22 c0");

/** A plugin that provides one policy, and lends its context. */
class Policy<T> {
  ctx!: PluginContext;
  readonly plugin: Plugin;
  constructor(slot: Slot<T>, policy: NoInfer<T>) {
    this.plugin = {
      name: `policy ${slot.name}`,
      version: "1.0.0",
      provides: [slot],
      setup: (ctx) => {
        this.ctx = ctx;
        ctx.provide(slot, policy);
      },
    };
  }
}

for (const [policy, exits] of [[cr8FollowsAvic, 0], [cr8Untouched, 3]] as const) {
  Deno.test(`CR8 intercept "${policy.name}": ${exits} exits after AVIC came back`, () => {
    const provider = new Policy(cr8InterceptSlot, policy);
    using machine = new Machine({ plugins: [provider.plugin] });
    const own = machine.vm.slots.ref(lapicSlot).current.of(machine.vm.vcpus[0]!);
    let held: Registration | undefined;
    let before = 0;
    const count = () => machine.counts.get("CR_ACCESS") ?? 0;
    machine.onTold = (value) => {
      if (value === 1) held = provider.ctx.inhibit(AvicInhibit.BLOCKIRQ);
      // It waits behind CR8, whose writes must be seen while AVIC is off.
      if (value === 2) own.accept(0x51, false);
      if (value === 3) held?.remove();
      if (value === 4) before = count();
    };
    const start = code(store(0xf0, 0x1ff), STI, tell(1), setCr8(15), tell(2), NOP, tell(3), NOP);
    const writes = code(setCr8(14), setCr8(13), NOP, setCr8(0), NOP);
    machine.program(0, start, tell(4), writes, "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(count() - before, exits);
    assertEquals(machine.received(0, 0x51), 1);
  });
}

for (const [policy, delivered] of [[syncAlways, 0], [syncWhileInactive, 1]] as const) {
  Deno.test(`V_TPR "${policy.name}": a TPR that software wrote is ${delivered ? "ignored" : "honoured"}`, () => {
    // In hybrid mode the guest's TPR is written by the hypervisor.
    const { plugin } = new Policy(taskPrioritySyncSlot, policy);
    using machine = new Machine({ x2apic: true, cpu: { model: "zen3" }, plugins: [plugin] });
    const early: number[] = [];
    const own = machine.vm.slots.ref(lapicSlot).current.of(machine.vm.vcpus[0]!);
    machine.onTold = (value) => {
      if (value === 1) own.accept(0x51, false);
      else early.push(machine.received(0, 0x51));
    };
    machine.program(
      0,
      ...[ENTER_X2APIC, wrmsr(0x80f, 0x1ff), STI, wrmsr(0x808, 0x60), tell(1), NOP, tell(2)],
      ...[wrmsr(0x808, 0x20), NOP, tell(3), "31 c0", END],
    );
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(early, [delivered, 1]);
  });
}

for (const policy of [initializeAlways, initializeActive]) {
  Deno.test(`VMCB "${policy.name}": a vCPU that was made while AVIC was inhibited`, () => {
    const init = new Policy(vmcbInitSlot, policy);
    const id = new Policy(vcpuIdSlot, decideAtCreation);
    let held: Registration | undefined;
    const inhibitor: Plugin = {
      name: "inhibitor",
      version: "1.0.0",
      setup: (ctx) => void (held = ctx.inhibit(AvicInhibit.BLOCKIRQ)),
    };
    using machine = new Machine({ plugins: [init.plugin, id.plugin, inhibitor] });
    machine.onTold = () => held?.remove();
    machine.program(0, store(0xf0, 0x1ff), STI, tell(1), store(0x300, 0x4_0051), NOP, "31 c0", END);
    const end = machine.run();
    if (policy === initializeAlways) {
      assertEquals(end.reason, "exit-code");
      assertEquals(machine.received(0, 0x51), 1);
    } else {
      // It is entered with null pointers, which VMRUN refuses.
      assertEquals(end.reason, "error");
      assertEquals(machine.vm.vcpus[0]!.exit.reason, ExitReason.FAIL_ENTRY);
    }
  });
}

for (const policy of [flushBothModes, flushXavicOnly]) {
  Deno.test(`flush "${policy.name}": the APIC's page after xAVIC became x2AVIC`, () => {
    const { plugin } = new Policy(activationFlushSlot, policy);
    using machine = new Machine({ plugins: [plugin] });
    const version = code(load(0x30), "e7 80");
    machine.program(0, store(0xf0, 0x1ff), version, ENTER_X2APIC, version, "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    // Ordinary memory, which nobody has written; or still the register.
    assertEquals(machine.told, [0x5_0010, policy === flushBothModes ? 0 : 0x5_0010]);
  });
}

/** Two vCPUs that run all the time; the first one sends the other three IPIs. */
function sendToRunning(options: MachineOptions): Machine {
  const machine = new Machine({ ids: [0, 1], ...options });
  const send = (vector: number) => code(store(0x310, 1 << 24), store(0x300, 0x4000 | vector), SPIN);
  const sends = [0x51, 0x52, 0x53].map(send);
  machine.program(0, store(0xf0, 0x1ff), SPIN, ...sends, "31 c0", END);
  machine.program(1, store(0xf0, 0x1ff), STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([0x51, 0x52, 0x53].map((vector) => machine.received(1, vector)), [1, 1, 1]);
  return machine;
}

for (
  const [policy, model, exits] of [
    [ipiVirtualizationByFamily, "zen2", 3],
    [ipiVirtualizationAlways, "zen2", undefined],
    [ipiVirtualizationByFamily, "zen3", undefined],
  ] as const
) {
  Deno.test(`IPI virtualization "${policy.name}" on ${model}: ${exits ?? 0} exits`, () => {
    const { plugin } = new Policy(ipiVirtualizationSlot, policy);
    using machine = sendToRunning({ cpu: { model }, plugins: [plugin] });
    assertEquals(machine.counts.get("AVIC_INCOMPLETE_IPI"), exits);
  });
}

for (
  const [policy, vcpuIds, index] of [
    [configuredMaxIndex, 2, 1],
    [configuredMaxIndex, 4096, 254],
    [modeMaxIndex, 2, 254],
  ] as const
) {
  Deno.test(`max index "${policy.name}" of ${vcpuIds} ids: ${index}`, () => {
    const { plugin } = new Policy(maxIndexSlot, policy);
    using machine = sendToRunning({ avic: { vcpuIds }, plugins: [plugin] });
    const { vm } = machine;
    const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
    assertEquals(vmcb.get32(Control.AVIC_PHYSICAL_TABLE) & 0xfff, index);
  });
}

Deno.test("a policy is swapped while the VM runs, and holds from the next entry on", () => {
  const before = new Policy(ipiVirtualizationSlot, { name: "never", enabled: () => false });
  const after = new Policy(ipiVirtualizationSlot, ipiVirtualizationAlways);
  using machine = new Machine({ ids: [0, 1], plugins: [before.plugin] });
  const counts: number[] = [];
  machine.onTold = (value) => {
    counts.push(machine.counts.get("AVIC_INCOMPLETE_IPI") ?? 0);
    if (value === 2) machine.vm.swap(before.plugin.name, after.plugin);
  };
  const send = code(store(0x310, 1 << 24), store(0x300, 0x4051), SPIN);
  machine.program(0, store(0xf0, 0x1ff), SPIN, tell(1), send, tell(2), send, tell(3), "31 c0", END);
  machine.program(1, store(0xf0, 0x1ff), STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(counts, [0, 1, 1]);
  assertEquals(machine.received(1, 0x51), 2);
  assert(machine.vm.plugins.get(after.plugin.name) === after.plugin);
});
