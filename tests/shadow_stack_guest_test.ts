/**
 * A guest with a shadow stack under every vendor, on processors that change all the time: SSP, the MSRs and XSS
 * go with the vCPU, whether entries switch them or the hypervisor has to.
 */
import { assertEquals } from "@std/assert";
import {
  createVm,
  ExitReason,
  observeExitHook,
  type Plugin,
  type Scheduler,
  schedulerSlot,
  type Vm,
} from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const HOSTS: readonly (readonly [string, CpuModel, () => Plugin])[] = [
  ["metal", "zen4", metal],
  ["metal", "sapphire-rapids", metal],
  ["svm", "zen4", svm],
  ["vmx", "sapphire-rapids", vmx],
];

const TOKEN = 0x20_0ff8;
const ROUNDS = 500;

const dword = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
const wrmsr = (index: number, value: number): number[] => [
  ...[0xb9, ...dword(index)], // mov ecx, index
  ...[0xb8, ...dword(value)], // mov eax, value
  ...[0x31, 0xd2, 0x0f, 0x30], // xor edx, edx; wrmsr
];
const OUT = [0xe7, 0x80]; // out 80h, eax
const tellMsr = (index: number): number[] => [
  ...[0xb9, ...dword(index), 0x0f, 0x32], // mov ecx, index; rdmsr
  ...OUT,
];

/** 32-bit code without paging, in which all memory can be a shadow stack. */
const CODE = [
  ...[0xbc, ...dword(0x30_0000)], // mov esp, 300000h
  ...[0x0f, 0x20, 0xc0, 0x0d, ...dword(0x1_0000), 0x0f, 0x22, 0xc0], // or cr0, WP
  ...[0x0f, 0x20, 0xe0, 0x0d, ...dword(0x84_0000), 0x0f, 0x22, 0xe0], // or cr4, CET | OSXSAVE
  ...[0xc7, 0x05, ...dword(TOKEN), ...dword(TOKEN)], // the token
  ...[0xc7, 0x05, ...dword(TOKEN + 4), ...dword(0)],
  ...wrmsr(0x6a4, TOKEN),
  ...wrmsr(0x6a7, 0x3000),
  ...wrmsr(0x6a0, 3),
  ...wrmsr(0x6a8, 0x4000),
  ...wrmsr(0xda0, 0x1800),
  ...wrmsr(0x6a2, 1),
  ...[0xf3, 0x0f, 0x01, 0xe8], // setssbsy
  ...[0xbb, ...dword(ROUNDS)], // mov ebx, ROUNDS
  ...[0xe8, 5, 0, 0, 0], // call f
  ...[0x4b, 0x75, 0xf8], // dec ebx; jnz to the call
  ...[0xeb, 0x0c], // jmp over f
  ...[0xe8, 1, 0, 0, 0, 0xc3], // f: call g; ret
  ...[0xf3, 0x0f, 0x1e, 0xc9], // g: rdssp ecx
  ...[0xc3], // ret
  ...[0x90],
  ...[0x89, 0xc8, ...OUT], // mov eax, ecx: SSP in g
  ...[0xf3, 0x0f, 0x1e, 0xc8, ...OUT], // rdssp eax
  ...tellMsr(0x6a7),
  ...tellMsr(0x6a0),
  ...tellMsr(0x6a8),
  ...tellMsr(0xda0),
  ...[0xb8, ...dword(0xd), 0xb9, ...dword(1), 0x0f, 0xa2], // CPUID (0Dh,1)
  ...[0x89, 0xd8, ...OUT], // EBX: size of an XSAVES area
  ...[0xeb, 0xfe],
];

/** SSP in the inner call and behind all of them, then PL3_SSP, U_CET, the table, XSS, bytes of an area. */
const TOLD = [TOKEN - 8, TOKEN, 0x3000, 3, 0x4000, 0x1800, 576 + 16 + 24];

/** Puts the vCPU on the other processor every time it is asked. */
class Restless implements Scheduler {
  readonly name = "restless";
  until = 0;
  changes = 0;

  pick(vm: Vm) {
    const vcpu = vm.vcpus[0]!;
    if (vcpu.pcpu >= 0) vcpu.put();
    vcpu.load(this.changes++ % vm.processors);
    this.until = vm.clock.current.now() + 97;
    return vcpu;
  }

  yield(): void {}
}

for (const [name, model, vendor] of HOSTS) {
  Deno.test(`${name}, ${model}: a shadow stack goes with its vCPU`, async () => {
    const told: number[] = [];
    const scheduler = new Restless();
    const restless: Plugin = {
      name: "restless",
      version: "1.0.0",
      provides: name === "metal" ? [] : [schedulerSlot],
      setup(ctx) {
        if (name !== "metal") ctx.provide(schedulerSlot, scheduler);
        ctx.on(observeExitHook, (_, exit) => {
          if (exit.reason === ExitReason.IO && exit.port === 0x80) told.push(exit.lo);
        });
      },
    };
    using vm = await createVm({
      memory: 16 * 2 ** 20,
      processors: name === "metal" ? 1 : 2,
      plugins: [cpu({ model }), vendor(), restless],
      images: [flat(new Uint8Array(CODE), { address: 2 ** 20, entry: { mode: "protected32" } })],
    });
    await vm.run({ instructions: 10 * ROUNDS });
    assertEquals(told, TOLD);
    const current = vm.vendor.current;
    const vcpu = vm.vcpus[0]!;
    const state = current.getSystemState(vcpu);
    const controlFlow = {
      uCet: 3n,
      sCet: 1n,
      ssp: BigInt(TOKEN),
      plSsp: [BigInt(TOKEN), 0n, 0n, 0x3000n],
      sspTable: 0x4000n,
      xss: 0x1800n,
    };
    assertEquals(state.controlFlow, controlFlow);
    current.setSystemState(vcpu, { ...state, controlFlow: { ...controlFlow, ssp: 0x5000n } });
    assertEquals(current.getSystemState(vcpu).controlFlow?.ssp, 0x5000n);
    // A state without it has none of it.
    const { controlFlow: _, ...rest } = state;
    current.setSystemState(vcpu, rest);
    assertEquals(current.getSystemState(vcpu).controlFlow?.sCet, 0n);
  });
}

Deno.test("a processor without control-flow enforcement has nothing of it in its state", async () => {
  for (const [model, vendor] of [["zen2", svm], ["skylake-sp", vmx], ["haswell", metal]] as const) {
    using vm = await createVm({
      memory: 16 * 2 ** 20,
      plugins: [cpu({ model }), vendor()],
      images: [flat(Uint8Array.of(0xf4))],
    });
    assertEquals(vm.vendor.current.getSystemState(vm.vcpus[0]!).controlFlow, undefined);
  }
});
