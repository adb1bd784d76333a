/**
 * R16–R31 under the hypervisor: who switches them, what leaks if nobody does, what the fastpath and the
 * emulator see, and what becomes of a host that uses them itself.
 */
import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import {
  createVmSync,
  describeRunEnd,
  ExitAction,
  ExitReason,
  fastpathHook,
  type Plugin,
  type Vm,
} from "../../core/mod.ts";
import { apx, ApxCpuidBit, type ApxSwitchName } from "../../plugins/apx/mod.ts";
import { cpu } from "../../plugins/cpu/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { evex, rex2, rex2Short } from "../silicon/apx/encode.ts";
import { code, dword } from "../silicon/code.ts";
import { EGPRS, leaRsi, watcher } from "./leak.ts";
import { ALL_HOSTS, DATA, type HostName, HYPERVISORS, longGuest } from "./long_guest.ts";

const RCX = 1, RDI = 7;
const HLT = [0xf4];

/** Memory at RDI + displacement. */
const atRdi = (displacement: number) => ({ base: RDI, index: 4, scale: 0, displacement });

/** Runs a guest until all its vCPUs have halted. */
function runToHalt(vm: Vm): void {
  const result = vm.runSync({ instructions: 1e9 });
  assertEquals(describeRunEnd(result), "the guest halted for good, interrupts off");
}

const differences = (vm: Vm): bigint[] => vm.vcpus.map(({ regs }) => regs.rdx);

/** Four vCPUs on two processors with a pattern each, changing places all the time. */
function fourOnTwo(host: HostName, plugins: readonly Plugin[], rounds = 2000): Vm {
  const vm = longGuest(watcher(rounds), { host, cpus: 4, processors: 2, timeslice: 40, plugins });
  runToHalt(vm);
  return vm;
}

/** A test under each hypervisor. */
function each(name: string, run: (host: HostName) => void): void {
  for (const host of HYPERVISORS) Deno.test(`${host}: ${name}`, () => run(host));
}

each("with nobody to switch them, one vCPU finds another's R16–R31", (host) => {
  for (const plugins of [[], [apx({ variant: "none" })]]) {
    using vm = fourOnTwo(host, plugins, 200);
    assert(differences(vm).some((difference) => difference !== 0n));
  }
});

each("switched as posted or as reviewed, nothing leaks", (host) => {
  for (const variant of ["posted", "reviewed"] as const) {
    using vm = fourOnTwo(host, [apx({ variant })]);
    assertEquals(differences(vm), [0n, 0n, 0n, 0n], variant);
    for (const { regs } of vm.vcpus) assertEquals(regs.get(20), regs.rsi + 20n);
  }
});

each("a vCPU with its own processor needs no switch, until the host uses R16–R31", (host) => {
  using vm = longGuest(watcher(100), { host, plugins: [apx({ variant: "none" })] });
  runToHalt(vm);
  assertEquals(differences(vm), [0n]);
});

const MSR = 0x1234;

/** WRMSRNS of MSR from R20, RDMSR of it to R21; what the fastpath sees of the former. */
function msrGuest(host: HostName, variant: ApxSwitchName): { seen: (number | bigint)[]; vm: Vm } {
  const seen: (number | bigint)[] = [];
  const watch: Plugin = {
    name: "msr",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(fastpathHook, ExitReason.WRMSR, ({ exit, regs, vm }) => {
        if (exit.msr !== MSR) return undefined;
        seen.push(exit.lo, exit.hi, regs.get(20));
        vm.vendor.current.complete(vm.vcpus[0]!);
        return ExitAction.RESUME;
      });
      ctx.registerMsr({
        name: "msr",
        base: MSR,
        write: () => true,
        read: (access) => {
          access.lo = 0x5678;
          access.hi = 0x1234;
          return true;
        },
      });
    },
  };
  const immediate = (pp: number, register: number): number[] =>
    code([...evexMsr(pp, register)], dword(MSR));
  const guest = code(
    rex2Short(0xb8, 1, 20), // mov r20, imm64
    dword(0x9abc_def0),
    dword(0x1357_2468),
    immediate(2, 20),
    immediate(3, 21),
    HLT,
  );
  const vm = longGuest(guest, { host, plugins: [watch, apx({ variant })] });
  runToHalt(vm);
  return { seen, vm };
}

/** EVEX map 7, F6 /0 with a register. */
const evexMsr = (pp: number, register: number): number[] =>
  evex({ map: 7, pp, wide: 0, low: 8, defaults: -1 }, 0xf6, 0, register, 0);

each("the fastpath of WRMSRNS with an immediate reads the guest's R20", (host) => {
  for (const variant of ["posted", "reviewed"] as const) {
    const { seen, vm } = msrGuest(host, variant);
    assertEquals(seen, [0x9abc_def0, 0x1357_2468, 0x1357_2468_9abc_def0n], variant);
    assertEquals(vm.vcpus[0]!.regs.get(21), 0x1234_0000_5678n);
    vm.close();
  }
});

each("without a switch the fastpath reads something else", (host) => {
  const { seen, vm } = msrGuest(host, "none");
  assertNotEquals(seen[2], 0x1357_2468_9abc_def0n);
  vm.close();
});

/** A device of eight bytes at 6 MiB, which is not memory. */
const DEVICE = 6 * 2 ** 20;

each("emulated accesses with REX2 and EVEX use the guest's R16–R31", (host) => {
  const written: number[] = [];
  const device: Plugin = {
    name: "device",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.registerMmio({
        name: "device",
        base: DEVICE,
        length: 8,
        read: () => 0x1000,
        write: (_offset, _size, value) => void written.push(value),
      }),
  };
  const at17 = { base: 17, index: 4, scale: 0, displacement: 0 };
  const guest = code(
    rex2Short(0xb8, 0, 17), // mov r17d, DEVICE
    dword(DEVICE),
    rex2Short(0xb8, 0, 18), // mov r18d, 77
    dword(77),
    rex2(0, 0x89, 0, 18, at17), // mov [r17], r18d
    rex2(0, 0x8b, 0, 19, at17), // mov r19d, [r17]
    // add r20d, r18d, [r17]
    evex({ map: 4, pp: 0, wide: 0, low: 0x18, defaults: -1 }, 0x03, 18, at17, 20),
    HLT,
  );
  for (const variant of ["posted", "reviewed"] as const) {
    using vm = longGuest(guest, { host, plugins: [device, apx({ variant })] });
    runToHalt(vm);
    assertEquals(written.splice(0), [77]);
    assertEquals(vm.vcpus[0]!.regs.get(19), 0x1000n);
    assertEquals(vm.vcpus[0]!.regs.get(20), 0x104dn);
  }
});

for (const host of ALL_HOSTS) {
  Deno.test(`${host}: an XSAVE area has R16–R31 as component 19, and takes them back`, () => {
    areas(host);
  });
}

function areas(host: HostName): void {
  using vm = longGuest(
    code(EGPRS.flatMap((n) => leaRsi(n, n)), HLT, rex2(0, 0x89, 1, 31, atRdi(0)), HLT),
    { host, plugins: host === "metal" ? [] : [apx()] },
  );
  runToHalt(vm);
  const { current: vendor } = vm.vendor;
  const [vcpu] = vm.vcpus;
  const area = vendor.getXsave(vcpu!);
  const view = new DataView(area.buffer);
  assertEquals(area.length, 1088);
  assertEquals(view.getUint32(512, true) & 0x8_0000, 0x8_0000);
  for (const [k, n] of EGPRS.entries()) {
    assertEquals(view.getBigUint64(960 + 8 * k, true), 0x1_0000n + BigInt(n));
  }
  view.setBigUint64(960 + 8 * 15, 0x1122_3344_5566n, true);
  vendor.setXsave(vcpu!, area);
  vcpu!.mpState = 0;
  runToHalt(vm);
  assertEquals(vm.memory.readU64(DATA), 0x1122_3344_5566n);
  // An area without the component makes them zero.
  vendor.setXsave(vcpu!, area.slice(0, 576));
  assertEquals(vcpu!.regs.get(31), 0n);
}

each("values stay while XCR0 has APX switched off", (host) => {
  const xsetbv = (xcr0: number) => code("31 c9 31 d2 b8", dword(xcr0), "0f 01 d1");
  using vm = longGuest(
    code(leaRsi(25, 9), xsetbv(3), xsetbv(0x8_0003), rex2(0, 0x89, 1, 25, atRdi(8)), HLT),
    { host, plugins: [apx()] },
  );
  runToHalt(vm);
  assertEquals(vm.memory.readU64(DATA + 8), 0x1_0009n);
});

each("the bit of CPUID that stands for APX, and a guest without it", (host) => {
  const features = (plugin: Plugin): readonly number[] => {
    using vm = longGuest(HLT, { host, plugins: [plugin] });
    const [vcpu] = vm.vcpus;
    const { edx } = vm.cpuid(7, 1, vcpu!);
    const { eax } = vm.cpuid(0xd, 0, vcpu!);
    return [(edx >>> 21) & 1, (edx >>> 7) & 1, (eax >>> 19) & 1];
  };
  assertEquals(features(apx()), [1, 0, 1]);
  // With the sketch's bit no guest finds APX where it looks for it.
  assertEquals(features(apx({ variant: "posted", cpuidBit: ApxCpuidBit.POSTED })), [0, 1, 1]);
  assertEquals(features(apx({ expose: false })), [0, 0, 0]);
});

/** How a guest ends that watches its registers, and leaves by CPUID now and then. */
function ending(name: HostName, options: Parameters<typeof apx>[0], guestApx = true): string {
  const exits = code("31 c0 0f a2 31 d2"); // xor eax, eax; cpuid; xor edx, edx
  const guest = guestApx ? code(exits, watcher(300)) : code(exits, exits, "31 d2", HLT);
  using vm = longGuest(guest, {
    host: name,
    cpus: 2,
    processors: 1,
    timeslice: 50,
    apx: guestApx,
    plugins: [apx(options)],
  });
  const result = vm.runSync({ instructions: 1e7 });
  if (result.reason === "error") {
    return /#UD|R\d+/.exec(String(result.error.cause ?? result.error))![0];
  }
  assertEquals(result.reason, "halted");
  return differences(vm).every((difference) => difference === 0n) ? "whole" : "leak";
}

each("when the host may use R16–R31 itself", (host) => {
  // Who switches, whether guests have APX, and what becomes of it if the host uses APX.
  const rows: readonly (readonly [ApxSwitchName, boolean, string])[] = [
    // The host's code has early_xcr0 around it, which lacks APX where the guest's CPUID does: #UD.
    ["posted", false, "#UD"],
    // It runs between the load of the guest's registers and the entry, and its own are not saved.
    ["posted", true, "R16"],
    ["reviewed", false, "whole"],
    ["reviewed", true, "whole"],
    ["none", false, "whole"],
    ["none", true, "R16"],
  ];
  for (const [variant, guestApx, expected] of rows) {
    const name = `${variant}, guests ${guestApx ? "with" : "without"} APX`;
    assertEquals(
      ending(host, { variant, expose: guestApx, host: "kernel" }, guestApx),
      expected,
      name,
    );
    if (variant !== "none") {
      assertEquals(ending(host, { variant, expose: guestApx }, guestApx), "whole", name);
    }
  }
});

Deno.test("the plugin refuses processors without APX", () => {
  assertThrows(
    () => createVmSync({ memory: 2 ** 21, plugins: [cpu(), svm(), apx()] }),
    Error,
    "do not have APX",
  );
});

each("RCX counts down to zero in every guest", (host) => {
  using vm = longGuest(watcher(10), { host, plugins: [apx()] });
  runToHalt(vm);
  assertEquals(vm.vcpus[0]!.regs.get(RCX), 0n);
});
