/**
 * MSRs that processors keep and no instruction looks at: values after RESET, reserved bits, what is
 * read-only and what write-only, for each vendor's models and under every vendor of vCPUs.
 */
import { assertEquals } from "@std/assert";
import {
  createVm,
  createVmSync,
  ExitAction,
  exitHook,
  ExitReason,
  Gpr,
  type Plugin,
  type Vm,
} from "../core/mod.ts";
import { cpu, type CpuModel, type FeatureChoice, processorsSlot } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

function machine(model: CpuModel, features: FeatureChoice = {}, cpus = 1): Promise<Vm> {
  return createVm({
    memory: 2 ** 20,
    cpus,
    plugins: [cpu({ model, features }), metal()],
    images: [flat(new Uint8Array([0xf4]))],
  });
}

/** RDMSR by vCPU 0: the value, or `"#GP"`. */
function read(vm: Vm, index: number): bigint | "#GP" {
  const access = vm.msrs.guestAccess(index, false, 0, 0);
  if (!vm.msrs.access(access, vm.vcpus[0]!)) return "#GP";
  return (BigInt(access.hi >>> 0) << 32n) | BigInt(access.lo >>> 0);
}

/** WRMSR by vCPU 0. */
function write(vm: Vm, index: number, value: bigint): "ok" | "#GP" {
  const half = (shift: bigint): number => Number(BigInt.asUintN(32, value >> shift));
  const access = vm.msrs.guestAccess(index, true, half(0n), half(32n));
  return vm.msrs.access(access, vm.vcpus[0]!) ? "ok" : "#GP";
}

type Row = readonly [name: string, index: number, value: bigint, outcome: "ok" | "#GP"];

const ONES = 0xffff_ffff_ffff_ffffn;

/** What both vendors' processors take. */
const SHARED: readonly Row[] = [
  ["MTRRcap is read-only", 0xfe, 0x508n, "#GP"],
  ["a base with a type", 0x200, 0x0000_1234_5678_9006n, "ok"],
  ["a base with a type there is not", 0x202, 0x2n, "#GP"],
  ["a base with reserved bits 11:8", 0x204, 0x106n, "#GP"],
  ["a base beyond 48 bits", 0x206, 0x0001_0000_0000_0006n, "#GP"],
  ["a mask", 0x201, 0x0000_ffff_ffff_f800n, "ok"],
  ["a mask with reserved bits 10:0", 0x203, 0x400n, "#GP"],
  ["the last mask", 0x20f, 0x800n, "ok"],
  ["a mask behind the last", 0x210, 0x800n, "#GP"],
  ["fixed types", 0x250, 0x0601_0405_0006_0104n, "ok"],
  ["a fixed type that is reserved", 0x258, 0x0600_0000_0200_0000n, "#GP"],
  ["one that is no type", 0x26f, 0x0700_0000_0000_0000n, "#GP"],
  ["the last fixed range", 0x26f, 0x0606_0606_0606_0606n, "ok"],
  ["a default type", 0x2ff, 0xc06n, "ok"],
  ["a default type that is reserved", 0x2ff, 0xc03n, "#GP"],
  ["reserved bits of the default type", 0x2ff, 0x1006n, "#GP"],
  ["MCG_CAP is read-only", 0x179, 0x10an, "#GP"],
  ["MCG_STATUS", 0x17a, 7n, "ok"],
  ["its reserved bits", 0x17a, 8n, "#GP"],
  ["all of MCG_CTL", 0x17b, ONES, "ok"],
  ["a part of MCG_CTL", 0x17b, 1n, "#GP"],
  ["all of a bank", 0x400, ONES, "ok"],
  ["a part of a bank", 0x424, 0x0f0fn, "#GP"],
  ["clearing a status", 0x401, 0n, "ok"],
  ["setting a status", 0x401, 1n, "#GP"],
  ["an address", 0x402, ONES, "ok"],
  ["the last bank's", 0x427, 0x1234n, "ok"],
  ["a bank behind the last", 0x428, 0n, "#GP"],
  ["IBRS, STIBP and SSBD", 0x48, 7n, "ok"],
  ["a reserved bit of SPEC_CTRL", 0x48, 8n, "#GP"],
  ["XSS", 0xda0, 0n, "ok"],
  ["a component of XSS, of which there are none", 0xda0, 0x100n, "#GP"],
  ["an MSR that nobody has", 0x1234_5678, 0n, "#GP"],
];

const AMD: readonly Row[] = [
  ["SYSCFG", 0xc001_0010, 0x7c_0000n, "ok"],
  ["memory encryption, which there is not", 0xc001_0010, 0x80_0000n, "#GP"],
  ["McStatusWrEn", 0xc001_0015, 0x0104_0000n, "ok"],
  ["a reserved bit of HWCR", 0xc001_0015, 0x1_0100_0000n, "#GP"],
  ["TOP_MEM", 0xc001_001a, 0x8000_0000n, "ok"],
  ["a part of 8 MiB", 0xc001_001a, 0x8010_0000n, "#GP"],
  ["IORR", 0xc001_0016, 0x000a_0018n, "ok"],
  ["the revision of microcode", 0x8b, 0n, "#GP"],
  ["an update of microcode", 0xc001_0020, 0x1000n, "#GP"],
  ["DE_CFG", 0xc001_1029, 0x202n, "ok"],
  ["TSC_ADJUST, which AMD's do not have", 0x3b, 0n, "#GP"],
  ["MISC_ENABLE, likewise", 0x1a0, 1n, "#GP"],
  ["ARCH_CAPABILITIES, likewise", 0x10a, 0n, "#GP"],
];

const INTEL: readonly Row[] = [
  ["TSC_ADJUST", 0x3b, 0x1234_5678_9abcn, "ok"],
  ["an update of microcode", 0x79, 0x1000n, "ok"],
  ["the revision of microcode", 0x8b, 0n, "ok"],
  ["PLATFORM_INFO", 0xce, 0n, "#GP"],
  ["CPUID faulting, which there is not", 0x140, 1n, "#GP"],
  ["ARCH_CAPABILITIES", 0x10a, 0n, "#GP"],
  ["SYSCFG, which Intel's do not have", 0xc001_0010, 0n, "#GP"],
  ["HWCR, likewise", 0xc001_0015, 0n, "#GP"],
  // Reserved in table 2-2: 2:1, 6:4, 10:8, 15:13, 17, 21:19, 33:24, 63:35.
  ...[1, 2, 4, 5, 6, 8, 9, 10, 13, 14, 15, 17, 19, 20, 21, 24, 31, 32, 33, 35, 63].map((
    bit,
  ): Row => [
    `bit ${bit} of MISC_ENABLE`,
    0x1a0,
    1n << BigInt(bit),
    "#GP",
  ]),
];

for (const [model, own] of [["zen4", AMD], ["sapphire-rapids", INTEL]] as const) {
  Deno.test(`what MSRs of ${model} take`, async () => {
    using vm = await machine(model);
    for (const [name, index, value, outcome] of [...SHARED, ...own]) {
      const before = read(vm, index);
      assertEquals(write(vm, index, value), outcome, name);
      const after = read(vm, index);
      const keeps = outcome === "ok" && ![0x79, 0x8b].includes(index);
      assertEquals(after, keeps ? value : before, name);
    }
  });
}

Deno.test("addresses in MSRs have as many bits as the processor's", async () => {
  for (const [model, index] of [["zen4", 0xc001_001a], ["haswell", 0x200]] as const) {
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model, physicalBits: 40 }), metal()],
      images: [flat(new Uint8Array([0xf4]))],
    });
    const [type, name] = [index === 0x200 ? 6n : 0n, `${model} ${index.toString(16)}`];
    assertEquals(write(vm, index, (1n << 39n) | type), "ok", name);
    assertEquals(write(vm, index, (1n << 40n) | type), "#GP", name);
  }
});

Deno.test("MSRs after RESET, on vCPUs of their own", async () => {
  using vm = await machine("zen4", {}, 2);
  // NB_CFG ignores what is written: EnableCf8ExtCfg, for one.
  assertEquals([write(vm, 0xc001_001f, 1n << 46n), read(vm, 0xc001_001f)], ["ok", 0n]);
  assertEquals(read(vm, 0xfe), 0x508n);
  assertEquals(read(vm, 0x179), 0x10an);
  assertEquals(read(vm, 0xc001_0015), 0x0100_0000n);
  assertEquals(read(vm, 0xc001_1029), 2n);
  assertEquals(write(vm, 0x2ff, 0xc06n), "ok");
  assertEquals(vm.msrs.read(vm.vcpus[1]!, 0x2ff), 0n);
  vm.reset();
  assertEquals(read(vm, 0x2ff), 0n);
  using intel = await machine("skylake-sp");
  // Fast strings, SpeedStep and MONITOR on; BTS and PEBS not there.
  assertEquals(read(intel, 0x1a0), 0x5_1801n);
  assertEquals(read(intel, 0xce), 0xa00n);
  assertEquals(read(intel, 0x8b), 1n << 32n);
});

Deno.test("commands cannot be read, and take only what the features allow", async () => {
  const rows: readonly (readonly [CpuModel, FeatureChoice, number, string])[] = [
    ["zen4", {}, 0x49, "ok"],
    ["zen4", { amd_ibpb: false }, 0x49, "#GP"],
    ["sapphire-rapids", {}, 0x49, "ok"],
    ["sapphire-rapids", { spec_ctrl: false }, 0x49, "#GP"],
    ["sapphire-rapids", {}, 0x10b, "ok"],
    ["sapphire-rapids", { flush_l1d: false }, 0x10b, "#GP"],
    ["zen4", {}, 0x10b, "#GP"],
  ];
  for (const [model, features, index, outcome] of rows) {
    using vm = await machine(model, features);
    assertEquals(read(vm, index), "#GP");
    assertEquals([write(vm, index, 0n), write(vm, index, 1n)], [outcome, outcome]);
    assertEquals(write(vm, index, 2n), "#GP");
  }
  using none = await machine("zen4", { amd_ibrs: false, amd_stibp: false, amd_ssbd: false });
  assertEquals([read(none, 0x48), write(none, 0x48, 0n)], ["#GP", "#GP"]);
  using one = await machine("zen4", { amd_ibrs: false, amd_ssbd: false });
  assertEquals([write(one, 0x48, 2n), write(one, 0x48, 1n)], ["ok", "#GP"]);
});

Deno.test("HWCR lets software write error status, SYSCFG the fixed ranges' DRAM bits", async () => {
  using vm = await machine("zen4");
  assertEquals(write(vm, 0x405, 0x1234n), "#GP");
  assertEquals(write(vm, 0xc001_0015, 0x0104_0000n), "ok");
  assertEquals(write(vm, 0x405, 0x1234n), "ok");
  assertEquals(write(vm, 0x250, 0x1e1e_1e1e_1e1e_1e1en), "#GP");
  assertEquals(write(vm, 0xc001_0010, 0x8_0000n), "ok");
  assertEquals(write(vm, 0x250, 0x1e1e_1e1e_1e1e_1e1en), "ok");
});

Deno.test("the host may write what software may not: an error in a bank", async () => {
  using vm = await machine("zen4");
  const status = 0xb200_0000_0000_0135n;
  assertEquals(vm.msrs.write(vm.vcpus[0]!, 0x409, status), true);
  assertEquals(read(vm, 0x409), status);
  assertEquals(write(vm, 0x409, 0n), "ok");
});

Deno.test("MISC_ENABLE takes leaves, MONITOR and NX out of CPUID", async () => {
  using vm = await machine("sapphire-rapids");
  const [vcpu] = vm.vcpus;
  const nx = (): number => (vm.cpuid(0x8000_0001, 0, vcpu!).edx >>> 20) & 1;
  const leaf = vm.cpuid(0, 0, vcpu!).eax;
  assertEquals(nx(), 1);
  assertEquals(write(vm, 0x1a0, 0x4_0041_0001n), "ok");
  assertEquals([vm.cpuid(0, 0, vcpu!).eax, nx()], [2, 0]);
  assertEquals((vm.cpuid(1, 0, vcpu!).ecx >>> 3) & 1, 0);
  assertEquals(write(vm, 0x1a0, 1n), "ok");
  // The two read-only bits are still there.
  assertEquals([read(vm, 0x1a0), vm.cpuid(0, 0, vcpu!).eax, nx()], [0x1801n, leaf, 1]);
});

/** rdtsc; mov ebx, eax; mov ecx, 3bh; rdmsr; mov esi, eax; mov eax, 0; mov edx, 10h; wrmsr; rdtsc; hlt */
const ADJUST = [
  ...[0x0f, 0x31, 0x66, 0x89, 0xc3, 0x66, 0xb9, 0x3b, 0, 0, 0, 0x0f, 0x32, 0x66, 0x89, 0xc6],
  ...[0x66, 0xb8, 0, 0, 0, 0, 0x66, 0xba, 0x10, 0, 0, 0, 0x0f, 0x30, 0x0f, 0x31, 0xf4],
];

const stop: Plugin = {
  name: "stop",
  version: "1.0.0",
  setup(ctx) {
    ctx.on(exitHook, ExitReason.HLT, (vcpu) => {
      vcpu.vm.stop({ reason: "stopped", detail: "HLT" });
      return ExitAction.COMPLETE;
    });
  },
};

for (
  const [name, model, vendor] of [
    ["metal", "sapphire-rapids", metal],
    ["metal", "max", metal],
    ["svm", "max", svm],
    ["vmx", "sapphire-rapids", vmx],
  ] as const
) {
  Deno.test(`TSC_ADJUST moves the time-stamp counter on ${model} under ${name}`, async () => {
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor(), stop],
      images: [flat(new Uint8Array(ADJUST))],
    });
    const [vcpu] = vm.vcpus;
    await vm.run({ instructions: 100 });
    const { regs } = vcpu!;
    assertEquals(regs.get(Gpr.RSI) & 0xffff_ffffn, 0n);
    assertEquals(regs.get(Gpr.RDX) & 0xffff_ffffn, 0x10n);
    assertEquals(vm.msrs.read(vcpu!, 0x3b), 0x10_0000_0000n);
    // What is written to the counter itself is added, too (SDM vol. 3B, 18.17.3).
    const now = vm.msrs.read(vcpu!, 0x10)!;
    assertEquals(vm.msrs.write(vcpu!, 0x10, now + 0x100n), true);
    assertEquals(vm.msrs.read(vcpu!, 0x3b), 0x10_0000_0100n);
    vm.reset();
    assertEquals(vm.msrs.read(vcpu!, 0x3b), 0n);
  });
}

/** mov ecx, 0da0h; rdmsr; mov ebx, eax; xor edx, edx; wrmsr; mov esi, 1234h; hlt */
const XSS = [
  ...[0x66, 0xb9, 0xa0, 0x0d, 0, 0, 0x0f, 0x32, 0x66, 0x89, 0xc3, 0x66, 0x31, 0xd2, 0x0f, 0x30],
  ...[0x66, 0xbe, 0x34, 0x12, 0, 0, 0xf4],
];

for (
  const [name, model, vendor] of [
    ["metal", "zen4", metal],
    ["svm", "zen4", svm],
    ["vmx", "sapphire-rapids", vmx],
  ] as const
) {
  Deno.test(`a guest under ${name} has XSS where it has XSAVES`, async () => {
    for (const xsaves of [true, false]) {
      using vm = await createVm({
        memory: 2 ** 20,
        plugins: [cpu({ model, features: { xsaves } }), vendor(), stop],
        images: [flat(new Uint8Array(XSS))],
      });
      const { regs } = vm.vcpus[0]!;
      regs.set(Gpr.RBX, 77n);
      await vm.run({ instructions: 10 });
      const expected = xsaves ? [0n, 0x1234n] : [77n, 0n];
      assertEquals([regs.get(Gpr.RBX), regs.get(Gpr.RSI)], expected);
    }
  });
}

Deno.test("SVM's MSRs are AMD's: Intel's processors answer them with #GP", () => {
  const SVM_MSRS = [0xc001_0114, 0xc001_0117];
  for (const [model, exists] of [["zen4", true], ["sapphire-rapids", false]] as const) {
    using vm = createVmSync({ memory: 2 ** 20, plugins: [cpu({ model }), metal()] });
    const processor = vm.slots.ref(processorsSlot).current.get(0);
    for (const index of SVM_MSRS) {
      assertEquals(processor.readMsr(index) !== undefined, exists, index.toString(16));
      assertEquals(processor.writeMsr(index, 0n), exists, index.toString(16));
    }
    assertEquals(processor.readMsr(0xc001_011b), undefined);
    assertEquals(processor.writeMsr(0xc001_011b, 0n), exists);
  }
});
