import { assertEquals, assertThrows } from "@std/assert";
import { encode, type Instruction, type Memory } from "./encode.ts";
import type { Mode } from "./layout.ts";

function check(ins: Instruction, mode: Mode, expected: string, address = 0xa000): void {
  const bytes = encode(ins, mode, address);
  assertEquals(bytes.map((b) => b.toString(16).padStart(2, "0")).join(" "), expected);
}

function indexed(parts: Partial<Memory & { kind: "indexed" }>): Memory {
  return {
    kind: "indexed",
    addressSize: 64,
    base: undefined,
    index: undefined,
    scale: 0,
    disp: 0,
    dispBytes: 0,
    sib: false,
    ...parts,
  };
}

// The expected bytes follow from AMD APM vol. 3, 1.4 to 1.8, by hand.

Deno.test("encode() chooses the operand-size prefix and REX.W", () => {
  const add = { opcode: [0x01], reg: 1, rm: 0 } as const;
  check({ ...add, size: 16 }, 64, "66 01 c8");
  check({ ...add, size: 32 }, 64, "01 c8");
  check({ ...add, size: 64 }, 64, "48 01 c8");
  check({ opcode: [0x50], opcodeReg: 9, size: 64, default64: true }, 64, "41 51");
  check({ opcode: [0x50], opcodeReg: 1, size: 16, default64: true }, 64, "66 51");
});

Deno.test("encode() extends each register field by its REX bit", () => {
  check({ opcode: [0x89], size: 32, reg: 9, rm: 8 }, 64, "45 89 c8");
  const memory = indexed({ base: 8, index: 9, scale: 2 });
  check({ opcode: [0x8b], size: 64, reg: 10, rm: memory }, 64, "4f 8b 14 88");
});

Deno.test("encode() gives RSP and R12 a SIB byte, and RBP and R13 a displacement", () => {
  const mov = { opcode: [0x8b], size: 32, reg: 0 } as const;
  check({ ...mov, rm: indexed({ base: 4 }) }, 64, "8b 04 24");
  check({ ...mov, rm: indexed({ base: 12 }) }, 64, "41 8b 04 24");
  check({ ...mov, rm: indexed({ base: 5 }) }, 64, "8b 45 00");
  check({ ...mov, rm: indexed({ base: 13, index: 12, scale: 3 }) }, 64, "43 8b 44 e5 00");
});

Deno.test("encode() tells the addresses without a base apart", () => {
  const mov = { opcode: [0x8b], size: 32, reg: 0 } as const;
  const absolute = indexed({ disp: 0x40000 });
  check({ ...mov, rm: absolute }, 64, "8b 04 25 00 00 04 00");
  check({ ...mov, rm: { ...absolute, addressSize: 32 } as Memory }, 32, "8b 05 00 00 04 00");
  check({ ...mov, rm: indexed({ index: 3, scale: 2, disp: -4 }) }, 64, "8b 04 9d fc ff ff ff");
  const relative = { kind: "relative", addressSize: 64, target: 0x40000 } as const;
  check({ ...mov, rm: relative }, 64, "8b 05 fa 5f 03 00");
  // The displacement counts from the end of the instruction, immediate included.
  check(
    { opcode: [0xc7], digit: 0, size: 32, rm: relative, imm: 1n, immBytes: 4 },
    64,
    "c7 05 f6 5f 03 00 01 00 00 00",
  );
});

Deno.test("encode() encodes 16-bit addressing", () => {
  const word = { kind: "word", addressSize: 16, rm: 6, disp: 0x1234, dispBytes: 2 } as const;
  check({ opcode: [0x8a], reg: 0, rm: { ...word, absolute: true } }, 32, "67 8a 06 34 12");
  check({ opcode: [0x8a], reg: 0, rm: { ...word, absolute: false } }, 32, "67 8a 86 34 12");
  const based = { ...word, disp: 0, dispBytes: 0, absolute: false } as const;
  check({ opcode: [0x8a], reg: 0, rm: based }, 32, "67 8a 46 00");
});

Deno.test("encode() encodes VEX with its inverted fields", () => {
  // ANDN RAX, R9, R10: VEX.128.NP.0F38.W1 F2 /r.
  const vex = { map: 2, pp: 0, vvvv: 9, w: 1 };
  check({ opcode: [0xf2], vex, reg: 0, rm: 10 }, 64, "c4 c2 b0 f2 c2");
});

Deno.test("encode() puts spare REX bits only where they are ignored", () => {
  check({ opcode: [0x90], size: 32, rex: true, opcodeReg: 0, spareRex: 15 }, 64, "46 90");
  check({ opcode: [0xf6], digit: 2, size: 8, rm: 1, rex: true, spareRex: 15 }, 64, "4e f6 d1");
  // REX.W would make the 16-bit POPF a 64-bit one.
  check({ opcode: [0x9d], size: 16, default64: true, rex: true, spareRex: 8 }, 64, "66 40 9d");
});

Deno.test("encode() refuses what a mode does not have", () => {
  assertThrows(() => encode({ opcode: [0x90], rex: true }, 32, 0), RangeError);
  const word = {
    kind: "word",
    addressSize: 16,
    rm: 0,
    disp: 0,
    dispBytes: 0,
    absolute: false,
  } as const;
  assertThrows(() => encode({ opcode: [0x8a], reg: 0, rm: word }, 64, 0), RangeError);
  const quad = indexed({ base: 0 });
  assertThrows(() => encode({ opcode: [0x8a], reg: 0, rm: quad }, 32, 0), RangeError);
});
