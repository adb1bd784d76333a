import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "./errors.ts";
import { Gpr, REGISTER_SLOTS, REGISTER_WORDS, Registers } from "./registers.ts";

Deno.test("halves and the whole show the same register", () => {
  const regs = new Registers();
  regs.rbx = 0x1234_5678_9abc_def0n;
  assertEquals([regs.lo(Gpr.RBX), regs.hi(Gpr.RBX)], [0x9abc_def0, 0x1234_5678]);
  regs.setPair(Gpr.RBX, 0xffff_ffff, 0x8000_0000);
  assertEquals(regs.get(Gpr.RBX), 0x8000_0000_ffff_ffffn);
});

Deno.test("writes of 32 bits clear the upper half, narrower ones keep the rest", () => {
  const regs = new Registers();
  regs.rcx = 0x1111_2222_3333_4444n;
  regs.setU8(Gpr.RCX, 0x1ab);
  assertEquals(regs.rcx, 0x1111_2222_3333_44abn);
  regs.setU16(Gpr.RCX, 0x1_cdef);
  assertEquals(regs.rcx, 0x1111_2222_3333_cdefn);
  regs.setU32(Gpr.RCX, 0xdead_beef);
  assertEquals(regs.rcx, 0xdead_beefn);
});

Deno.test("every named accessor reaches its own slot", () => {
  const regs = new Registers();
  const names = [
    ..."rax rcx rdx rbx rsp rbp rsi rdi".split(" "),
    ...Array.from({ length: 24 }, (_, i) => `r${i + 8}`),
    "rip",
    "rflags",
  ] as (keyof Registers)[];
  assertEquals(names.length, REGISTER_SLOTS);
  for (const [i, name] of names.entries()) {
    Reflect.set(regs, name, BigInt(i) + 1n);
    assertEquals(regs.get(i), BigInt(i) + 1n, name);
    assertEquals(Reflect.get(regs, name), BigInt(i) + 1n, name);
  }
});

Deno.test("values are taken modulo 2^64", () => {
  const regs = new Registers();
  regs.rax = -1n;
  assertEquals(regs.rax, 0xffff_ffff_ffff_ffffn);
});

Deno.test("the view looks at the vendor's storage, and a clone does not", () => {
  const memory = new ArrayBuffer(4096);
  const storage = new Uint32Array(memory, 64, REGISTER_WORDS);
  const regs = new Registers(storage);
  regs.r31 = 5n;
  assertEquals(new DataView(memory).getUint32(64 + 8 * 31, true), 5);
  const clone = regs.clone();
  regs.r31 = 6n;
  assertEquals(clone.r31, 5n);
  regs.copyFrom(clone);
  assertEquals(regs.r31, 5n);

  const other = new Uint32Array(new ArrayBuffer(4096), 0, REGISTER_WORDS);
  regs.bind(other);
  assertEquals(regs.r31, 0n);
});

Deno.test("storage that cannot hold the registers is refused", () => {
  assertThrows(() => new Registers(new Uint32Array(REGISTER_WORDS - 1)), ArgumentError);
  const odd = new Uint32Array(new ArrayBuffer(4096), 4, REGISTER_WORDS);
  assertThrows(() => new Registers(odd), ArgumentError, "multiple of 8");
});
