/**
 * vCPU ids at the limits of AVIC, x2AVIC and x2AVIC_EXT: what is made, what is accelerated, and that a
 * broadcast reaches all of them in any case.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type Plugin, PluginError } from "../../core/mod.ts";
import { Control } from "../../plugins/cpu/mod.ts";
import { svmSlot } from "../../plugins/svm/mod.ts";
import {
  AvicInhibit,
  decideAtCreation,
  inhibitTooBig,
  refuseTooBig,
  type VcpuIdPolicy,
  vcpuIdSlot,
  x2avicFormerLimit,
  x2avicLimitSlot,
} from "../../plugins/svm/avic/mod.ts";
import { code, dword } from "../silicon/code.ts";
import {
  BASE,
  END,
  ENTER_X2APIC,
  Machine,
  type MachineOptions,
  Place,
  STI,
  wrmsr,
} from "./machine.ts";

const VECTOR = 0x50;
/** Fixed, edge, assert, to all but oneself. */
const TO_OTHERS = 0xc_4000 | VECTOR;
/** How many are ready: in the first vCPU's data. */
const READY = BASE + Place.DATA;
/** Adds 1 to {@linkcode READY}. */
const ANNOUNCE = code("f0 ff 04 25", dword(READY));
/** Waits until READY is `count`. */
const await_ = (count: number) => code("81 3c 25", dword(READY), dword(count), "74 04 f3 90 eb ef");

/** The ids that are tried, with the highest that each kind of processor can address. */
const IDS = [254, 255, 511, 512, 4095];
const MODELS = [["zen3", 254], ["zen4", 511], ["zen5", 4095]] as const;

const provide = (policy: VcpuIdPolicy): Plugin => ({
  name: "policy",
  version: "1.0.0",
  provides: [vcpuIdSlot],
  setup: (ctx) => ctx.provide(vcpuIdSlot, policy),
});

/** A machine whose vCPUs go to x2APIC mode; the first one then sends an IPI to all others. */
function broadcast(options: MachineOptions): Machine {
  const machine = new Machine({ x2apic: true, ...options });
  const { vcpus } = machine.vm;
  for (const { index } of vcpus) {
    const begin = code(ENTER_X2APIC, wrmsr(0x80f, 0x1ff), STI, ANNOUNCE);
    if (index !== 0) {
      machine.program(index, begin, "f4", ANNOUNCE, "f4 eb fd");
      continue;
    }
    const count = vcpus.length;
    const send = wrmsr(0x830, TO_OTHERS);
    // The others announce themselves a second time when the interrupt has ended their HLT.
    machine.program(0, begin, await_(count), send, await_(2 * count - 1), "31 c0", END);
  }
  return machine;
}

/** Whether the physical APIC ID table has a valid entry for `id`, in the pages that the VM has. */
function listed(machine: Machine, id: number, limit: number): boolean {
  if (id > limit) return false;
  const { vm } = machine;
  const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
  const table = Number(vmcb.get64(Control.AVIC_PHYSICAL_TABLE) & ~0xfffn);
  return vm.hostMemory.current.readU64(table + 8 * id) >> 63n === 1n;
}

for (const [model, limit] of MODELS) {
  for (const id of IDS) {
    for (const policy of [inhibitTooBig, decideAtCreation]) {
      Deno.test(`${model}, id ${id}, "${policy.name}": ${id > limit ? "AVIC off" : "active"}`, () => {
        using machine = broadcast({
          ids: [0, 1, id],
          cpu: { model },
          plugins: [provide(policy)],
        });
        const tooBig = id > limit;
        // In xAPIC mode the 8-bit ID of 512 is that of the first vCPU. An inhibit that holds is seen at
        // creation by the one policy, and with the update before the first entry by the other.
        const aliased = policy === decideAtCreation && (id & 0xff) === 0;
        assertEquals(machine.vm.vcpus[2]!.accelerated, !tooBig && !aliased);
        assertEquals(machine.run().reason, "exit-code");
        assertEquals([1, 2].map((index) => machine.received(index, VECTOR)), [1, 1]);
        const { vm } = machine;
        assertEquals(vm.vcpus.map(({ accelerated }) => accelerated), [!tooBig, !tooBig, !tooBig]);
        const reasons = vm.inhibits.reasons();
        assertEquals(reasons.includes(AvicInhibit.PHYSICAL_ID_TOO_BIG), tooBig);
        assertEquals([0, 1, id].map((one) => listed(machine, one, limit)), [true, true, !tooBig]);
      });
    }

    Deno.test(`${model}, id ${id}, "refuse": ${id > limit ? "no vCPU" : "active"}`, () => {
      const options = { ids: [0, 1, id], cpu: { model }, plugins: [provide(refuseTooBig)] };
      if (id > limit) {
        const error = assertThrows(() => new Machine(options), PluginError);
        assertEquals(error.plugin, "avic");
        assertEquals(error.cause instanceof ArgumentError, true);
        return;
      }
      using machine = broadcast(options);
      assertEquals(machine.run().reason, "exit-code");
      assertEquals(machine.vm.vcpus.every(({ accelerated }) => accelerated), true);
    });
  }
}

Deno.test("without the extension's limit, 512 is too big for a processor that has it", () => {
  const former: Plugin = {
    name: "former-limit",
    version: "1.0.0",
    provides: [x2avicLimitSlot],
    setup: (ctx) => ctx.provide(x2avicLimitSlot, x2avicFormerLimit),
  };
  using machine = broadcast({ ids: [0, 1, 512], cpu: { model: "zen5" }, plugins: [former] });
  assertEquals(machine.run().reason, "exit-code");
  assertEquals([1, 2].map((index) => machine.received(index, VECTOR)), [1, 1]);
  assertEquals(machine.vm.inhibits.reasons(), [AvicInhibit.PHYSICAL_ID_TOO_BIG]);
});

Deno.test("the policies on big ids make no difference to the guest", () => {
  const runs = [inhibitTooBig, decideAtCreation].map((policy) => {
    using machine = broadcast({ ids: [0, 600, 1], plugins: [provide(policy)] });
    const { instructions, exits, ticks } = machine.run();
    return { instructions, exits, ticks, list: machine.exits };
  });
  assertEquals(runs[0], runs[1]);
});

Deno.test("a vCPU that is added while the VM runs puts an end to AVIC before the next entries", () => {
  using machine = broadcast({ ids: [0, 1] });
  const { vm } = machine;
  machine.run(200);
  assertEquals(vm.vcpus.map(({ accelerated }) => accelerated), [true, true]);
  vm.addVcpu(512);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(vm.vcpus.map(({ accelerated }) => accelerated), [false, false, false]);
  assertEquals(machine.received(1, VECTOR), 1);
});
