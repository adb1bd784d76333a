/**
 * Single steps through instructions that leave the guest: on the bare processor and under a hypervisor,
 * each ends in one debug trap behind it, with DR6.BS and nothing else that it did not meet.
 */

import { assertEquals } from "@std/assert";
import { createVmSync, Gpr, type Plugin, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const VENDORS: Readonly<Record<string, () => Plugin>> = { metal, svm };

/** Where the image goes. */
const START = 0x7c00;
/** Where the handler of vector 1 stores what it finds: RIP, 16 bits, and DR6, 32 bits. */
const LOG = 0x6000;
const LOG_ENTRY = 6;
/** Where the device in memory is. */
const DEVICE = 0x10_0000;

/** Real-mode code by what it does: instructions that a hypervisor deals with, and their lengths. */
const STEPS: readonly (readonly [name: string, code: readonly number[]])[] = [
  ["NOP", [0x90]],
  ["IN", [0xe4, 0x80]],
  ["OUT", [0xe6, 0x81]],
  ["OUTSB", [0x6e]],
  ["RDMSR", [0x0f, 0x32]],
  ["WRMSR", [0x0f, 0x30]],
  ["MOV CR0", [0x0f, 0x22, 0xc5]],
  ["MOV DR0", [0x0f, 0x23, 0xc1]],
  ["MOV to a device", [0x64, 0x67, 0x89, 0x03]],
  ["MOV from a device", [0x64, 0x67, 0x8b, 0x0b]],
  ["CPUID", [0x0f, 0xa2]],
  ["CLI", [0xfa]],
];

/** Two ports, an MSR and a device in memory. */
const DEVICES: Plugin = {
  name: "devices",
  version: "1.0.0",
  setup(ctx) {
    ctx.registerPio({ name: "ports", base: 0x80, length: 2, read: () => 0, write: () => {} });
    ctx.registerMsr({ name: "msr", base: 0x1234, read: () => true, write: () => true });
    ctx.registerMmio({
      name: "memory",
      base: DEVICE,
      length: 4,
      read: () => 7,
      write: () => {},
    });
  },
};

/** What the handler saw: pairs of RIP and DR6. */
function traps(vm: Vm): [number, number][] {
  const end = vm.memory.readU16(LOG - 2);
  return Array.from({ length: (end - LOG) / LOG_ENTRY }, (_, n) => {
    const at = LOG + n * LOG_ENTRY;
    return [vm.memory.readU16(at), vm.memory.readU32(at + 2)];
  });
}

for (const [name, vendor] of Object.entries(VENDORS)) {
  Deno.test(`${name}: one debug trap behind each instruction that is stepped`, () => {
    const handler = [
      ...[0x66, 0x50, 0x55, 0x57], // push eax; push bp; push di
      ...[0x89, 0xe5], // mov bp, sp
      ...[0x8b, 0x3e, (LOG - 2) & 0xff, (LOG - 2) >> 8], // mov di, [end]
      ...[0x8b, 0x46, 8], // mov ax, [bp + 8]: RIP
      ...[0x89, 0x05], // mov [di], ax
      ...[0x0f, 0x21, 0xf0], // mov eax, dr6
      ...[0x66, 0x89, 0x45, 0x02], // mov [di + 2], eax
      ...[0x66, 0x31, 0xc0, 0x0f, 0x23, 0xf0], // xor eax, eax; mov dr6, eax
      ...[0x83, 0xc7, LOG_ENTRY], // add di, 6
      ...[0x89, 0x3e, (LOG - 2) & 0xff, (LOG - 2) >> 8], // mov [end], di
      ...[0x5f, 0x5d, 0x66, 0x58, 0xcf], // pop di; pop bp; pop eax; iret
    ];
    const begin = [0x9d, 0x90]; // popf; nop
    const code = [...begin, ...STEPS.flatMap(([, bytes]) => bytes), 0x9d, 0xf4]; // popf; hlt
    const image = new Uint8Array(0x200);
    image.set(code);
    image.set(handler, 0x100);
    const plugins = [cpu(), vendor(), DEVICES];
    using vm = createVmSync({ memory: 2 ** 20, plugins, images: [flat(image)] });
    const vcpu = vm.vcpus[0]!;
    vm.memory.writeU16(4, START + 0x100);
    vm.memory.writeU16(6, 0);
    vm.memory.writeU16(LOG - 2, LOG);
    // The stack: flags with TF for the first POPF, without for the second.
    vm.memory.writeU16(0x7000, 0x0102);
    vm.memory.writeU16(0x7002, 0x0002);
    vcpu.regs.set(Gpr.RSP, 0x7000n);
    vcpu.regs.set(Gpr.RCX, 0x1234n);
    vcpu.regs.set(Gpr.RDX, 0x81n);
    vcpu.regs.set(Gpr.RSI, 0x6800n);
    vcpu.regs.set(Gpr.RBX, BigInt(DEVICE));
    const state = vm.vendor.current.getSystemState(vcpu);
    for (const segment of [state.cs, state.ds, state.es, state.ss, state.fs]) {
      segment.selector = 0;
      segment.base = 0n;
    }
    state.fs.limit = 0xffff_ffff;
    // Breakpoint 1 watches the device: two bytes, reads and writes.
    state.dr1 = BigInt(DEVICE);
    state.dr7 = 0x0070_0404n;
    vcpu.regs.set(Gpr.RBP, state.cr0);
    vm.vendor.current.setSystemState(vcpu, state);
    vcpu.regs.rip = BigInt(START);
    const end = vm.runSync({ instructions: 10_000 });
    assertEquals(end.reason, "halted");

    let rip = START + begin.length;
    const expected: [string, number, number][] = [["NOP", rip, 0xffff_4ff0]];
    for (const [step, bytes] of STEPS) {
      rip += bytes.length;
      expected.push([step, rip, step.endsWith("device") ? 0xffff_4ff2 : 0xffff_4ff0]);
    }
    // The POPF that clears TF began with it set.
    expected.push(["POPF", rip + 1, 0xffff_4ff0]);
    const names = expected.map(([step]) => step);
    assertEquals(traps(vm).map(([at, dr6], n) => [names[n], at, dr6]), expected);
  });
}
