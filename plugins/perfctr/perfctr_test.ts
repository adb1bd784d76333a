import { assertEquals, assertThrows } from "@std/assert";
import type { Vcpu, VmExit } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { perfCounters } from "./mod.ts";

const SELECT = 0xc001_0000;
const COUNT = 0xc001_0004;
/** Retired instructions at all privilege levels. */
const INSTRUCTIONS = 0x0043_00c0n;

function read(vcpu: Vcpu, index: number): bigint | undefined {
  return vcpu.vm.msrs.read(vcpu, index);
}

function write(vcpu: Vcpu, index: number, value: bigint): boolean {
  return vcpu.vm.msrs.write(vcpu, index, value);
}

Deno.test("performance counters: four pairs of registers, 48 bits of count", () => {
  using machine = scriptedVm({ plugins: [perfCounters()] });
  const { vcpu } = machine;
  for (let n = 0; n < 4; n++) {
    assertEquals(write(vcpu, SELECT + n, 0xf_1283_0000n + BigInt(n)), true);
    assertEquals(write(vcpu, COUNT + n, ~BigInt(n)), true);
  }
  for (let n = 0; n < 4; n++) {
    assertEquals(read(vcpu, SELECT + n), 0xf_1283_0000n + BigInt(n));
    assertEquals(read(vcpu, COUNT + n), 0xffff_ffff_ffffn - BigInt(n));
  }
  assertEquals(read(vcpu, COUNT + 4), undefined);
});

Deno.test("performance counters: reserved bits of the selection are refused", () => {
  using machine = scriptedVm({ plugins: [perfCounters()] });
  for (const bit of [19, 21, ...Array.from({ length: 28 }, (_, n) => 36 + n)]) {
    assertEquals(write(machine.vcpu, SELECT, 1n << BigInt(bit)), false, `bit ${bit}`);
  }
});

Deno.test("performance counters: retired instructions, from the write that enables to the next", () => {
  const seen: (bigint | undefined)[] = [];
  const act = (action: (vcpu: Vcpu) => void, vcpu: Vcpu) => (exit: VmExit) => {
    action(vcpu);
    exit.setIo(0x80, 1, true, 0);
  };
  using machine = scriptedVm({
    plugins: [perfCounters()],
    guest: function* (vcpu) {
      yield 100;
      yield act((v) => {
        write(v, COUNT, 0xffff_ffff_fff0n);
        write(v, SELECT, INSTRUCTIONS);
      }, vcpu);
      yield 5;
      yield act((v) => seen.push(read(v, COUNT)), vcpu);
      yield 20;
      yield act((v) => {
        seen.push(read(v, COUNT));
        write(v, SELECT, 0n);
      }, vcpu);
      yield 1000;
      yield act((v) => seen.push(read(v, COUNT)), vcpu);
    },
  });
  machine.vm.runSync();
  // The instruction that enables it, five, the one that reads; twenty more and one: past 2^48.
  assertEquals(seen, [0xffff_ffff_fff6n, 0xbn, 0xbn]);
});

Deno.test("performance counters: to count what is not counted is an error that names it", () => {
  using machine = scriptedVm({ plugins: [perfCounters()] });
  for (const value of [0x0043_0076n, 0x0041_00c0n, 0x0053_00c0n, 0x1_0043_00c0n]) {
    assertThrows(() => write(machine.vcpu, SELECT, value), Error, "no performance counter counts");
  }
});
