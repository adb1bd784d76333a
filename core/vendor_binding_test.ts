import { assertEquals, assertThrows } from "@std/assert";
import {
  eventRequest,
  MpState,
  type Plugin,
  PluginError,
  resetSystemState,
  SlotError,
  Vector,
  type Vm,
} from "./mod.ts";
import { type GuestScript, ScriptedVendor, scriptedVendor, scriptedVm } from "./testing/mod.ts";

/** Goes on counting in RAX wherever it is started. */
const counting: GuestScript = function* ({ regs }) {
  for (;;) {
    regs.rax += 1n;
    yield 10;
  }
};

const named = (name: string) => new ScriptedVendor({ name, guest: counting });

Deno.test("a vendor swapped in takes every vCPU over and the old one lets go of them", () => {
  using m = scriptedVm({ guest: counting, cpus: 2 });
  const { vm, vcpu, vendor } = m;
  vm.runSync({ instructions: 25 });
  vendor.cpu(vcpu).system.cr3 = 0x1234_5000n;
  vendor.cpu(vcpu).xsave[7] = 99;
  vcpu.regs.r15 = 15n;
  const rip = vcpu.regs.rip;

  const other = named("other");
  vm.swap("scripted", scriptedVendor(other));
  assertEquals(vm.vcpus.map((one) => [vendor.has(one), other.has(one)]), [[false, true], [
    false,
    true,
  ]]);
  assertEquals([vcpu.regs.rip, vcpu.regs.rax, vcpu.regs.r15], [rip, 3n, 15n]);
  assertEquals(other.cpu(vcpu).system.cr3, 0x1234_5000n);
  assertEquals(other.cpu(vcpu).xsave[7], 99);
  vm.runSync({ instructions: 25 });
  assertEquals([vcpu.regs.rax, vcpu.instructions, vcpu.regs.rip], [6n, 50, rip + 25n]);
});

Deno.test("what a vendor alone knows of a vCPU goes to another of its name only", () => {
  using m = scriptedVm({ guest: counting });
  const { vm, vcpu, vendor } = m;
  vendor.cpu(vcpu).interruptFlag = true;
  const same = named("scripted");
  vm.swap("scripted", scriptedVendor(same));
  assertEquals(same.cpu(vcpu).interruptFlag, true);
  const other = named("other");
  vm.swap("scripted", scriptedVendor(other));
  assertEquals(other.cpu(vcpu).interruptFlag, false);
});

Deno.test("a swap of vendors that fails leaves the vCPUs with the old one, untouched", () => {
  using m = scriptedVm({ guest: counting, cpus: 2 });
  const { vm, vcpu, vendor } = m;
  vm.runSync({ instructions: 25 });
  const cpu = vendor.cpu(vcpu);

  class Bad extends ScriptedVendor {
    override createVcpu(made: typeof vcpu): Uint32Array {
      if (made.index === 1) throw new Error("no room");
      return super.createVcpu(made);
    }
  }
  const bad = new Bad({ name: "bad" });
  const error = assertThrows(() => vm.swap("scripted", scriptedVendor(bad)), PluginError);
  assertEquals(error.message, 'plugin "bad" failed in createVcpu on vCPU 1: no room');
  assertEquals(vm.vcpus.map((one) => [vendor.has(one), bad.has(one)]), [[true, false], [
    true,
    false,
  ]]);
  assertEquals(vendor.cpu(vcpu), cpu);
  assertEquals(vm.vendor.current, vendor);
  vm.runSync({ instructions: 25 });
  assertEquals([vcpu.regs.rax, vcpu.instructions], [5n, 50]);
});

Deno.test("an event that the old vendor was to deliver is delivered by the new one", () => {
  using m = scriptedVm({ guest: counting });
  m.vcpu.events.queueException(Vector.GP, 8);
  // Injected, and then put off.
  let swapped = false;
  const other = named("other");
  m.vm.load({
    name: "swapper",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(m.vm.points.beforeEnter.hook, () => {
        if (swapped) return;
        swapped = true;
        ctx.vm.swap("scripted", scriptedVendor(other));
        throw new Error("put off");
      });
    },
  });
  assertEquals(m.vm.runSync({ instructions: 10 }).reason, "error");
  assertEquals(m.vm.runSync({ instructions: 10 }).reason, "limit");
  assertEquals(other.cpu(m.vcpu).delivered, [
    { event: "exception", vector: Vector.GP, errorCode: 8, at: 0 },
  ]);
});

Deno.test("a VM may be without a vendor for a while", () => {
  using m = scriptedVm({ guest: counting });
  const { vm, vcpu } = m;
  vm.runSync({ instructions: 20 });
  vm.unload("scripted");
  assertThrows(() => vm.runSync(), SlotError, 'slot "vendor": no plugin provides it');
  const other = named("other");
  vm.load(scriptedVendor(other));
  assertEquals([vcpu.regs.rax, vcpu.regs.rip], [2n, 0xfff0n + 20n]);
  assertEquals(vm.runSync({ instructions: 20 }).reason, "limit");
  assertEquals(vcpu.instructions, 40);
});

Deno.test("a vCPU added later is made by the present vendor, or not at all", () => {
  const failing = (vm: { fail: boolean }): Plugin => ({
    name: "failing",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(ctx.vm.points.vcpuCreated.hook, () => {
        if (vm.fail) throw new Error("too many");
      });
    },
  });
  const state = { fail: false };
  using m = scriptedVm({ guest: counting, plugins: [failing(state)] });
  const vm: Vm = m.vm;
  const added = vm.addVcpu(300);
  assertEquals([added.index, added.id, added.mpState], [1, 300, MpState.UNINITIALIZED]);
  assertEquals(m.vendor.has(added), true);
  state.fail = true;
  assertThrows(() => vm.addVcpu(301), PluginError, "too many");
  assertEquals(vm.vcpus.map(({ id }) => id), [0, 300]);
  state.fail = false;
  assertEquals(vm.addVcpu(301).index, 2);
});

Deno.test("a reset puts vCPUs, devices and images back", () => {
  const log: string[] = [];
  using m = scriptedVm({
    cpus: 2,
    guest: counting,
    images: [{
      name: "image",
      load: (vm) => {
        vm.memory.writeU32(0x1000, 0x1234);
        log.push("image");
      },
    }],
    plugins: [{
      name: "device",
      version: "1.0.0",
      setup: (ctx) => void ctx.on(ctx.vm.points.reset.hook, () => void log.push("device")),
    }],
  });
  const { vm, vcpu, vendor } = m;
  vm.runSync({ instructions: 25 });
  vendor.cpu(vcpu).system.cr0 = 1n;
  vcpu.events.queueException(Vector.UD);
  (vm.vcpus[1] ?? vcpu).mpState = MpState.HALTED;
  vm.memory.writeU32(0x1000, 0);
  vm.memory.writeU32(0x2000, 7);
  vm.reset();
  assertEquals(log, ["image", "device", "image"]);
  assertEquals([vm.memory.readU32(0x1000), vm.memory.readU32(0x2000)], [0x1234, 7]);
  assertEquals(vendor.getSystemState(vcpu), resetSystemState());
  assertEquals([vcpu.regs.rip, vcpu.regs.rax], [0xfff0n, 0n]);
  assertEquals(vm.vcpus.map(({ mpState }) => mpState), [MpState.RUNNABLE, MpState.UNINITIALIZED]);
  assertEquals([vcpu.events.exception.pending, vcpu.hasRequest(eventRequest)], [false, false]);
});
