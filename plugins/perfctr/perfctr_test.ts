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
  for (const value of [0x0043_00c2n, 0x0041_00c0n, 0x0043_01c0n, 0x1_0043_00c0n]) {
    assertThrows(() => write(machine.vcpu, SELECT, value), Error, "no performance counter counts");
  }
});

Deno.test("performance counters: AMD's core counters, the first four by two addresses each", () => {
  using machine = scriptedVm({ plugins: [perfCounters()] });
  const { vcpu } = machine;
  for (let n = 0; n < 6; n++) {
    assertEquals(write(vcpu, 0xc001_0200 + 2 * n, BigInt(0x1000 + n)), true);
    assertEquals(write(vcpu, 0xc001_0201 + 2 * n, BigInt(0x2000 + n)), true);
  }
  assertEquals(write(vcpu, 0xc001_020c, 0n), false);
  for (let n = 0; n < 4; n++) {
    assertEquals(read(vcpu, SELECT + n), BigInt(0x1000 + n));
    assertEquals(read(vcpu, COUNT + n), BigInt(0x2000 + n));
  }
  assertEquals(read(vcpu, 0xc001_020b), 0x2005n);
  assertEquals((machine.vm.cpuid(0x8000_0001, 0, vcpu).ecx >>> 23) & 1, 1);
});

Deno.test("performance counters: a counter mask asks for several events in one cycle", () => {
  for (const [select, counted] of [[0x0143_00c0n, 1n], [0x0243_00c0n, 0n]] as const) {
    const seen: (bigint | undefined)[] = [];
    using machine = scriptedVm({
      plugins: [perfCounters()],
      guest: function* (vcpu) {
        yield (exit: VmExit) => {
          write(vcpu, SELECT, select);
          exit.setIo(0x80, 1, true, 0);
        };
        yield (exit: VmExit) => {
          seen.push(read(vcpu, COUNT));
          exit.setIo(0x80, 1, true, 0);
        };
      },
    });
    machine.vm.runSync();
    assertEquals(seen, [counted]);
  }
});

const intel = () => scriptedVm({ plugins: [perfCounters({ vendor: "intel" })] });

Deno.test("performance counters: Intel's leaf 0Ah, values after reset, reserved bits", () => {
  using machine = intel();
  const { vcpu, vm } = machine;
  const { eax, ebx, edx } = vm.cpuid(0xa, 0, vcpu);
  // Version 2, four counters of 48 bits, seven events of which two are not there; three fixed ones.
  assertEquals([eax, ebx, edx], [0x0730_0402, 0x18, 0x603]);
  assertEquals(read(vcpu, 0x38f), 0xfn);
  const rows: readonly (readonly [number, bigint, boolean])[] = [
    [0x186, 0x20_0000n, false],
    [0x186, 1n << 32n, false],
    [0x18a, 0n, false],
    [0x38d, 0x4n, false],
    [0x38d, 0x1000n, false],
    [0x38d, 0xbbbn, true],
    [0x38e, 0n, false],
    [0x38f, 0x10n, false],
    [0x38f, 0x7_0000_000fn, true],
    [0x38f, 0x8_0000_0000n, false],
    [0x390, 0xc000_0007_0000_000fn, true],
    [0x390, 0x10n, false],
    [0x309, 0x0001_0000_0000_0000n, false],
    [0x30c, 0n, false],
  ];
  for (const [index, value, good] of rows) {
    assertEquals(write(vcpu, index, value), good, `${index.toString(16)} ${value.toString(16)}`);
  }
  // General counters take 32 bits and extend their sign; fixed ones take all.
  write(vcpu, 0xc1, 0x12_8000_0000n);
  write(vcpu, 0x30b, 0x12_8000_0000n);
  write(vcpu, 0x38f, 0n);
  assertEquals(read(vcpu, 0xc1), 0xffff_8000_0000n);
});

Deno.test("performance counters: Intel's count where both controls let them", () => {
  const seen: (bigint | undefined)[] = [];
  const act = (action: (vcpu: Vcpu) => void, vcpu: Vcpu) => (exit: VmExit) => {
    action(vcpu);
    exit.setIo(0x80, 1, true, 0);
  };
  using machine = scriptedVm({
    plugins: [perfCounters({ vendor: "intel" })],
    guest: function* (vcpu) {
      yield act((v) => {
        write(v, 0x38f, 0n);
        write(v, 0x186, INSTRUCTIONS);
        write(v, 0x38d, 0x3n);
      }, vcpu);
      yield 50;
      yield act((v) => {
        seen.push(read(v, 0xc1), read(v, 0x309));
        write(v, 0x38f, 0x1_0000_0001n);
      }, vcpu);
      yield 50;
      yield act((v) => {
        write(v, 0x38f, 0x1n);
        seen.push(read(v, 0xc1), read(v, 0x309));
      }, vcpu);
      yield 50;
      yield act((v) => seen.push(read(v, 0xc1), read(v, 0x309)), vcpu);
    },
  });
  machine.vm.runSync();
  assertEquals(seen, [0n, 0n, 51n, 51n, 102n, 51n]);
});
