import { assertEquals } from "@std/assert";
import { FlatMemory } from "../../../core/testing/mod.ts";
import { LapicRegister, RegisterPage } from "../../lapic/mod.ts";
import { PostedInterruptDescriptor } from "./descriptor.ts";

Deno.test("a descriptor's bits are where hardware has them (SDM vol. 3, table 30-2)", () => {
  const memory = new FlatMemory(2 ** 14);
  const descriptor = new PostedInterruptDescriptor(memory, 0xf2);
  const { hpa } = descriptor;
  assertEquals(hpa % 64, 0);
  // Suppressed, with a vector: SN is bit 257, NV bits 279:272.
  assertEquals(memory.readU64(hpa + 32), 0x00f2_0002n);
  descriptor.suppressed = false;
  descriptor.outstanding = true;
  descriptor.vector = 0xf1;
  descriptor.destination = 0x1234_5678;
  assertEquals(memory.readU64(hpa + 32), 0x1234_5678_00f1_0001n);
  assertEquals([descriptor.outstanding, descriptor.suppressed], [true, false]);
  assertEquals([descriptor.vector, descriptor.destination], [0xf1, 0x1234_5678]);
  for (const vector of [16, 31, 32, 200, 255]) {
    assertEquals([descriptor.requested(vector), descriptor.request(vector)], [false, false]);
    assertEquals([descriptor.requested(vector), descriptor.request(vector)], [true, true]);
    assertEquals((memory.readU8(hpa + (vector >> 3)) >> (vector & 7)) & 1, 1, `${vector}`);
  }
  descriptor.free();
  assertEquals(memory.used, 0);
});

Deno.test("collecting moves requests into IRR, beside what is there, and clears ON", () => {
  const descriptor = new PostedInterruptDescriptor(new FlatMemory(2 ** 14), 0xf2);
  const registers = new RegisterPage(new Uint32Array(1024));
  registers.setVector(LapicRegister.IRR, 0x41);
  for (const vector of [0x42, 0xff, 0x10]) descriptor.request(vector);
  descriptor.outstanding = true;
  descriptor.suppressed = true;
  descriptor.collect(registers);
  const has = (vector: number) => registers.hasVector(LapicRegister.IRR, vector);
  assertEquals([0x10, 0x40, 0x41, 0x42, 0xff].map(has), [true, false, true, true, true]);
  assertEquals([descriptor.empty, descriptor.outstanding], [true, false]);
  assertEquals([descriptor.suppressed, descriptor.vector], [true, 0xf2]);
  descriptor.request(0x50);
  descriptor.outstanding = true;
  descriptor.clear();
  assertEquals([descriptor.empty, descriptor.outstanding], [true, false]);
});
