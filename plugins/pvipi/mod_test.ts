/**
 * The hypercall as Linux documents it, sent by guests that are scripts.
 */
import { assertEquals } from "@std/assert";
import { ExitReason, Gpr, type Vcpu, type VmExit } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { lapic, lapicSlot } from "../lapic/mod.ts";
import { KVM_HC_SEND_IPI, pvIpi } from "./mod.ts";

interface Call {
  readonly low?: bigint;
  readonly high?: bigint;
  readonly min?: bigint;
  readonly icr?: bigint;
  readonly bits?: 32 | 64;
}

/** Sends from vCPU 0 of four; RAX afterwards, and who has vector 31h requested. */
function call({ low = 0n, high = 0n, min = 0n, icr = 0x31n, bits = 64 }: Call): [bigint, string] {
  let answer = 0n;
  const hypercall = (vcpu: Vcpu) => (exit: VmExit): void => {
    const { regs } = vcpu;
    regs.set(Gpr.RAX, BigInt(KVM_HC_SEND_IPI));
    regs.set(Gpr.RBX, low);
    regs.set(Gpr.RCX, high);
    regs.set(Gpr.RDX, min);
    regs.set(Gpr.RSI, icr);
    exit.reason = ExitReason.HYPERCALL;
  };
  using machine = scriptedVm({
    cpus: 4,
    plugins: [lapic(), pvIpi()],
    guest: function* (vcpu) {
      if (vcpu.index !== 0) return;
      yield hypercall(vcpu);
      answer = vcpu.regs.get(Gpr.RAX);
    },
  });
  const { vm, vendor } = machine;
  const { system } = vendor.cpu(vm.vcpus[0]!);
  system.efer = bits === 64 ? 0x500n : 0n;
  system.cs = { ...system.cs, attributes: bits === 64 ? 0x29b : 0xc9b };
  const bus = vm.slots.ref(lapicSlot).current;
  for (const vcpu of vm.vcpus) vm.mmio.write(0xfee0_00f0, 4, 0x1ff, 0, vcpu);
  vm.runSync({ instructions: 100 });
  const requested = vm.vcpus.filter((vcpu) => bus.of(vcpu).registers.hasVector(0x200, 0x31));
  return [answer, requested.map(({ id }) => id).join("")];
}

Deno.test("the bits of both bitmaps are APIC IDs, from the lowest on", () => {
  assertEquals(call({ low: 0b0110n }), [2n, "12"]);
  assertEquals(call({ low: 0b1111n }), [4n, "0123"]);
  assertEquals(call({ low: 0b1n, min: 3n }), [1n, "3"]);
  // APIC ID 64 and 3 are bits 66 and 5: behind the end of the first bitmap comes the second.
  assertEquals(call({ low: 1n << 5n, min: 0xffff_fffen }), [0n, ""]);
  assertEquals(call({ high: 0b1010n, min: 0xffff_ffc0n }), [2n, "13"]);
  assertEquals(call({ low: 1n << 63n, high: ~0n & 0xffn }), [0n, ""]);
});

Deno.test("bitmaps have 32 bits outside of 64-bit code", () => {
  assertEquals(call({ low: 0b0110n | 1n << 35n, bits: 32 }), [2n, "12"]);
  assertEquals(call({ high: 0b1n, min: 0xffff_ffe1n, bits: 32 }), [1n, "1"]);
  assertEquals(call({ high: 0b1n, min: 0xffff_ffe1n, bits: 64 }), [0n, ""]);
});

Deno.test("nobody there, and what kvm-unit-tests send: 0 is no error", () => {
  assertEquals(call({ low: 0xffff_ffffn, min: 0xffff_ffffn, icr: 0n }), [0n, ""]);
  assertEquals(call({}), [0n, ""]);
});

Deno.test("logical destinations and shorthands are refused", () => {
  const invalid = 0xffff_ffff_ffff_ffean;
  for (const bit of [0x800n, 0x4_0000n, 0x8_0000n]) {
    assertEquals(call({ low: 0b10n, icr: 0x31n | bit }), [invalid, ""]);
  }
  assertEquals(call({ low: 0b10n, icr: 0x831n, bits: 32 }), [0xffff_ffean, ""]);
});

Deno.test("CPUID names KVM and the feature", () => {
  using machine = scriptedVm({ plugins: [lapic(), pvIpi()] });
  const { vm, vcpu } = machine;
  const leaf = (number: number): number[] => {
    const { eax, ebx, ecx, edx } = vm.cpuid(number, 0, vcpu);
    return [eax, ebx, ecx, edx];
  };
  const [last, ...words] = leaf(0x4000_0000);
  assertEquals(last, 0x4000_0001);
  const text = String.fromCharCode(...new Uint8Array(Uint32Array.from(words).buffer));
  assertEquals(text, "KVMKVMKVM\0\0\0");
  assertEquals(leaf(0x4000_0001)[0], 1 << 11);
});
