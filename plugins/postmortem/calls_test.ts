import { assertEquals } from "@std/assert";
import { returnAddresses } from "./calls.ts";
import { CODE, type LongGuest, longGuest, STACK } from "./fixture_test.ts";
import { GuestView } from "./guest_view.ts";

/** Return addresses of a guest whose stack holds `words` and whose code is `code` at CODE. */
function found(
  code: readonly number[],
  words: readonly bigint[],
  prepare?: (g: LongGuest) => void,
) {
  using guest = longGuest();
  const { memory } = guest.vm;
  memory.write(CODE, new Uint8Array(code));
  words.forEach((word, k) => memory.writeU64(STACK + 8 * k, word));
  prepare?.(guest);
  return returnAddresses(new GuestView(guest.vcpu)).map(({ slot, address, call, target }) => [
    Number(slot) - STACK,
    Number(address) - CODE,
    Number(call) - CODE,
    target === undefined ? undefined : Number(target) - CODE,
  ]);
}

const at = (offset: number) => BigInt(CODE + offset);

Deno.test("a word that points right behind a CALL is a return address", () => {
  const code = [
    ...[0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90], // 0
    ...[0xe8, 0x10, 0x00, 0x00, 0x00], // 8: call 1Dh
    ...[0xe8, 0xee, 0xff, 0xff, 0xff], // Dh: call 0
    0x90, // 12h
  ];
  assertEquals(found(code, [at(0x13), at(0xd), 7n, at(0x12), at(0x10)]), [
    [8, 0xd, 8, 0x1d],
    [24, 0x12, 0xd, 0],
  ]);
});

Deno.test("every form of an indirect CALL, by its length", () => {
  const forms: [what: string, bytes: number[]][] = [
    ["call rax", [0xff, 0xd0]],
    ["call r11", [0x41, 0xff, 0xd3]],
    ["call [rax]", [0xff, 0x10]],
    ["call [rax+8]", [0xff, 0x50, 0x08]],
    ["call [rax+rbx*8]", [0xff, 0x14, 0xd8]],
    ["call [rip+d]", [0xff, 0x15, 1, 2, 3, 4]],
    ["call [d+rax*8]", [0xff, 0x14, 0xc5, 1, 2, 3, 4]],
    ["call [rax+d]", [0xff, 0x90, 1, 2, 3, 4]],
    ["call [rsp+rax+d]", [0xff, 0x94, 0x04, 1, 2, 3, 4]],
  ];
  for (const [what, bytes] of forms) {
    const code = [...new Array(16).fill(0x90), ...bytes];
    const length = bytes[0] === 0x41 ? 2 : bytes.length;
    assertEquals(found(code, [at(code.length)]), [[
      0,
      code.length,
      code.length - length,
      undefined,
    ]], what);
  }
  // jmp rax, push [rax], and a call whose displacement is cut short.
  for (const bytes of [[0xff, 0xe0], [0xff, 0x30], [0xff, 0x15, 1, 2]]) {
    const code = [...new Array(16).fill(0x90), ...bytes];
    assertEquals(found(code, [at(code.length)]), [], `${bytes}`);
  }
});

Deno.test("the search ends where the stack does, and never throws", () => {
  const code = [0xe8, 0, 0, 0, 0];
  const all = new Array(20).fill(at(5));
  assertEquals(found(code, all).length, 16);
  assertEquals(found(code, all, ({ vcpu }) => void (vcpu.regs.rsp = 1n << 40n)), []);
  assertEquals(found(code, all, ({ vcpu }) => void (vcpu.regs.rsp = 1n << 63n)), []);
  assertEquals(found(code, [(1n << 63n) + 5n, 3n, (1n << 40n) + 5n, (1n << 64n) - 1n]), []);
});

Deno.test("32-bit code has words of four bytes", () => {
  const code = [0x90, 0x90, 0xe8, 0xf9, 0xff, 0xff, 0xff];
  const calls = found(code, [at(7) << 32n], ({ system }) => {
    system.cs = { ...system.cs, attributes: 0xc9b };
  });
  assertEquals(calls, [[4, 7, 2, 0]]);
});
