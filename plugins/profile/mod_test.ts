import { assertEquals, assertThrows } from "@std/assert";
import {
  ArgumentError,
  defineExitReason,
  ExitAction,
  exitHook,
  ExitReason,
  Gpr,
  type Plugin,
  SlotError,
  type VmExit,
} from "../../core/mod.ts";
import { type GuestScript, scriptedVm } from "../../core/testing/mod.ts";
import { exitProfile, formatProfile, profile, profileSlot } from "./mod.ts";

/** Answers every exit that the core would not, so that a script can make any. */
const answerAll: Plugin = {
  name: "answer-all",
  version: "1.0.0",
  setup(ctx) {
    for (let reason = 1; reason < 128; reason++) {
      if (reason === ExitReason.HLT) continue;
      ctx.on(exitHook, reason, () => ExitAction.COMPLETE);
    }
  },
};

const port = { name: "com", base: 0x3f8, length: 8 };
const device: Plugin = {
  name: "device",
  version: "1.0.0",
  setup(ctx) {
    ctx.registerPio(port);
    ctx.registerMmio({ name: "apic", base: 0xfee0_0020, length: 0x10 });
    ctx.registerMsr({ name: "mine", base: 0x4b56_4d00, length: 2 });
  },
};

/** The profile of a script, which ends in one HLT of its own. */
function profileOf(guest: GuestScript | GuestScript[], cpus = 1) {
  using machine = scriptedVm({ guest, cpus, plugins: [answerAll, device, profile()] });
  for (const vcpu of machine.vm.vcpus) vcpu.mpState = 0;
  machine.vm.runSync();
  return exitProfile(machine.vm);
}

/** Targets of one exit, in words and with their names. */
function targetOf(fill: (exit: VmExit) => void) {
  const found = profileOf(function* () {
    yield fill;
  });
  const target = found.reasons.flatMap(({ reason, targets }) => reason === "HLT" ? [] : targets)[0];
  const { count: _count, share: _share, rips: _rips, otherRips: _other, ...rest } = target!;
  return rest;
}

function filler(reason: number, fields: Partial<VmExit>): (exit: VmExit) => void {
  return (exit) => void Object.assign(exit, { reason }, fields);
}

Deno.test("exits are counted by reason, target and RIP", () => {
  const found = profileOf(function* () {
    for (let i = 0; i < 3; i++) {
      yield (exit) => exit.setIo(0x3f8, 1, true, 65); // RIP fff0h, then 3 more
    }
    yield 10;
    yield (exit) => exit.setIo(0x3f8, 1, false, 0);
    yield (exit) => exit.setCpuid(0, 77);
    yield (exit) => exit.setCpuid(0, 78);
  });
  assertEquals([found.instructions, found.exits, found.vcpus], [17, 7, 1]);
  assertEquals(found.exitsPerMillion, 7 / 17 * 1e6);
  assertEquals([found.schema, found.version], ["trapline-exit-profile", 1]);
  assertEquals(found.reasons.map(({ reason, count }) => [reason, count]), [
    ["IO", 4],
    ["CPUID", 2],
    ["HLT", 1],
  ]);
  const [io, cpuid] = found.reasons;
  assertEquals(io?.share, 4 / 7);
  assertEquals(io?.targets, [
    {
      kind: "port",
      value: 0x3f8,
      access: "write",
      string: false,
      name: "com",
      text: "out 3f8h",
      count: 3,
      share: 3 / 7,
      rips: [{ rip: "0xfff0", count: 1 }, { rip: "0xfff1", count: 1 }, { rip: "0xfff2", count: 1 }],
      otherRips: 0,
    },
    {
      kind: "port",
      value: 0x3f8,
      access: "read",
      string: false,
      name: "com",
      text: "in  3f8h",
      count: 1,
      share: 1 / 7,
      rips: [{ rip: "0xfffd", count: 1 }],
      otherRips: 0,
    },
  ]);
  // ECX does not matter to leaf 0.
  assertEquals(cpuid?.targets.length, 1);
});

Deno.test("the hottest RIPs come first, the others are added up", () => {
  using machine = scriptedVm({
    plugins: [profile()],
    guest: function* (vcpu) {
      for (const [rip, times] of [[0x100n, 1], [0x200n, 3], [2n ** 63n, 2]] as const) {
        for (let i = 0; i < times; i++) {
          vcpu.regs.rip = rip;
          yield (exit) => exit.setIo(0x80, 1, true, 0);
        }
      }
    },
  });
  machine.vm.runSync();
  const [io] = exitProfile(machine.vm, { rips: 2 }).reasons;
  assertEquals(io?.targets[0]?.rips, [
    { rip: "0x200", count: 3 },
    { rip: "0x8000000000000000", count: 2 },
  ]);
  assertEquals(io?.targets[0]?.otherRips, 1);
});

Deno.test("each reason has its target", () => {
  assertEquals(
    targetOf((exit) => {
      exit.setIo(0x70, 1, true, 0);
      exit.string = true;
    }),
    { kind: "port", value: 0x70, access: "write", string: true, text: "outs 70h" },
  );
  assertEquals(targetOf((exit) => exit.setMmio(0xfee0_0024, 4, true, 0, 0)), {
    kind: "mmio",
    value: 0xfee0_0000,
    access: "write",
    name: "apic",
    text: "write page fee00000h",
  });
  assertEquals(
    targetOf((exit) => exit.setMmio(0xf_ffff_ffff_0123, 4, false, 0, 0)).value,
    2 ** 52 - 2 ** 16,
  );
  assertEquals(targetOf((exit) => exit.setCpuid(0xd, 1)), {
    kind: "cpuid",
    value: 0xd,
    subleaf: 1,
    text: "leaf dh, subleaf 1h",
  });
  assertEquals(targetOf((exit) => exit.setMsr(0xc000_0080, true, 0, 0)), {
    kind: "msr",
    value: 0xc000_0080,
    name: "EFER",
    text: "MSR c0000080h",
  });
  assertEquals(targetOf((exit) => exit.setMsr(0x4b56_4d01, false, 0, 0)).name, "mine");
  const { EXCEPTION, SIPI, NESTED_PAGE_FAULT, CR_ACCESS, DR_ACCESS, OTHER, PAUSE } = ExitReason;
  const words = (reason: number, fields: Partial<VmExit>) => {
    const { text, name } = targetOf(filler(reason, fields));
    return name === undefined ? text : `${text} ${name}`;
  };
  assertEquals(words(EXCEPTION, { vector: 14 }), "vector 14 #PF");
  assertEquals(words(SIPI, { vector: 14 }), "vector 14");
  assertEquals(words(NESTED_PAGE_FAULT, { gpa: 0x1fff, errorCode: 2 }), "write page 1000h");
  assertEquals(words(NESTED_PAGE_FAULT, { gpa: 0x1fff, errorCode: 16 }), "fetch from page 1000h");
  assertEquals(words(CR_ACCESS, { register: 4, write: true }), "write CR4");
  assertEquals(words(DR_ACCESS, { register: 7, write: false }), "read DR7");
  assertEquals(words(OTHER, { vendorCodeLo: 0x401, vendorCodeHi: 1 }), "code 100000401h");
  assertEquals(words(PAUSE, {}), "");
  const own = defineExitReason("PROFILE_TEST");
  assertEquals(words(own, { vendorCodeLo: 7, vendorCodeHi: 0 }), "code 7h");
  const lone = defineExitReason("PROFILE_TEST_LONE", { of: () => 0 });
  assertEquals(words(lone, { vendorCodeLo: 7 }), "");
  const told = defineExitReason("PROFILE_TEST_TOLD", {
    of: (exit) => exit.info2Lo * 2 ** 32 + exit.info1Lo,
    describe: (target) => ({ text: `register ${target.toString(16)}h`, name: "mine" }),
  });
  assertEquals(words(told, { info1Lo: 0xf000_00f0, info2Lo: 5 }), "register 5f00000f0h mine");
});

Deno.test("a hypercall's target is its number", () => {
  const found = profileOf(function* (vcpu) {
    vcpu.regs.setU32(Gpr.RAX, 11);
    yield (exit) => void (exit.reason = ExitReason.HYPERCALL);
  });
  const calls = found.reasons.find(({ reason }) => reason === "HYPERCALL");
  assertEquals(calls?.targets[0]?.text, "number 11");
});

Deno.test("vCPUs are counted apart and together", () => {
  const out = (times: number): GuestScript =>
    function* () {
      for (let i = 0; i < times; i++) yield (exit) => exit.setIo(0x80, 1, true, 0);
    };
  const found = profileOf([out(2), out(5)], 2);
  const io = found.reasons.find(({ reason }) => reason === "IO");
  assertEquals(io?.vcpus, [2, 5]);
  assertEquals(io?.count, 7);
  assertEquals(io?.targets.length, 1);
  assertEquals(found.vcpus, 2);
});

Deno.test("clear() begins a new profile", () => {
  using machine = scriptedVm({
    plugins: [profile()],
    guest: function* () {
      yield 5;
      yield (exit) => exit.setIo(0x80, 1, true, 0);
      yield 5;
      yield (exit) => exit.setCpuid(0, 0);
    },
  });
  const { vm } = machine;
  vm.runSync({ instructions: 6 });
  assertEquals(exitProfile(vm).reasons.map(({ reason }) => reason), ["IO"]);
  vm.slots.ref(profileSlot).current.clear();
  assertEquals(exitProfile(vm).exitsPerMillion, null);
  vm.runSync();
  const found = exitProfile(vm, { wallMs: 0.5 });
  assertEquals(found.reasons.map(({ reason }) => reason), ["CPUID", "HLT"]);
  assertEquals([found.instructions, found.wallMs, found.mips], [7, 0.5, 7 / 0.5 / 1000]);
});

Deno.test("a profile is data: it survives JSON", () => {
  const found = profileOf(function* () {
    yield (exit) => exit.setMsr(0x10, false, 0, 0);
  });
  assertEquals(JSON.parse(JSON.stringify(found)), found);
});

Deno.test("the table", () => {
  using machine = scriptedVm({
    plugins: [device, profile()],
    guest: function* () {
      yield 2_000_000;
      for (let i = 0; i < 1500; i++) yield (exit) => exit.setIo(0x3f8 + i % 3, 1, true, 0);
      yield (exit) => exit.setIo(0x64, 1, false, 0);
    },
  });
  machine.vm.runSync();
  const found = exitProfile(machine.vm, { wallMs: 20 });
  assertEquals(
    formatProfile(found, { targets: 2, rips: 1 }),
    `exit             count  share  at RIP
IO               1,501  99.9%
  out 3f8h  com    500  33.3%  1f8470h 0.2%  … 99.8%
  out 3f9h  com    500  33.3%  1f8471h 0.2%  … 99.8%
  … 2 more         501  33.4%
HLT                  1   0.1%  1f8a4dh
scripted: 2,001,502 instructions, 1,502 exits, 750 exits per million instructions, 0.020 s, 100 MIPS
`,
  );
  using idle = scriptedVm({ plugins: [profile()] });
  assertEquals(
    formatProfile(exitProfile(idle.vm)),
    "no exits\nscripted: 0 instructions, 0 exits\n",
  );
});

Deno.test("bad options and a missing plugin are refused", () => {
  for (const capacity of [0, 1.5, 2 ** 20 + 1, NaN]) {
    assertThrows(() => profile({ capacity }), ArgumentError, "capacity");
  }
  using machine = scriptedVm();
  assertThrows(() => exitProfile(machine.vm), SlotError, "profile()");
});
