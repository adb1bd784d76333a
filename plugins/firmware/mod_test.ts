import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { firmware } from "./mod.ts";

const KIB = 1024;
const rom = (size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, i) => i >> 8 ^ i & 0xff);

Deno.test("the ROM ends at 4 GiB, and its last 128 KiB at 1 MiB", () => {
  for (const [size, low] of [[64 * KIB, 64 * KIB], [256 * KIB, 128 * KIB]] as const) {
    const bytes = rom(size);
    using machine = scriptedVm({ plugins: [firmware(bytes)], memory: 2 ** 21 });
    const { memory } = machine.vm;
    const read = (gpa: number, length: number): Uint8Array => {
      const target = new Uint8Array(length);
      memory.read(gpa, target);
      return target;
    };
    assertEquals(read(2 ** 32 - size, size), bytes);
    assertEquals(read(0x10_0000 - low, low), bytes.slice(size - low));
    assertEquals(memory.slots.map(({ name, readonly }) => [name, readonly]), [
      ["ram", false],
      ["firmware shadow", false],
      ["ram", false],
      ["firmware", true],
    ]);
    assertEquals(machine.vcpu.regs.rip, 0xfff0n);
  }
});

Deno.test("sizes that no ROM has are refused", () => {
  for (const size of [0, 100, 4097, 16 * KIB * KIB + 4096]) {
    assertThrows(() => firmware(new Uint8Array(size)), ArgumentError, `firmware: ${size} bytes`);
  }
});
