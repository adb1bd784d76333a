import { assert, assertEquals, assertThrows } from "@std/assert";
import { COMPARED, IF } from "./flags.ts";
import {
  CODE_BASE,
  CODE_SIZE,
  codeImage,
  decodeVectors,
  decompress,
  initialMemory,
  initialState,
  loadVectors,
  LOW_BASE,
  LOW_SIZE,
  SCRATCH_BASE,
  SCRATCH_SIZE,
  type Vector,
  vectorFile,
  VectorFormatError,
} from "./read.ts";
import { encodeVectors } from "./write.ts";

const base = await loadVectors("base");
const extended = await loadVectors("extended");
const all = [...base.vectors, ...extended.vectors];

function byteAt(vector: Vector, address: number): number | undefined {
  const { low, scratch } = initialMemory(vector.seed);
  return address < SCRATCH_BASE ? low[address - LOW_BASE] : scratch[address - SCRATCH_BASE];
}

function inData(address: number): boolean {
  return (address >= LOW_BASE && address < LOW_BASE + LOW_SIZE) ||
    (address >= SCRATCH_BASE && address < SCRATCH_BASE + SCRATCH_SIZE);
}

function inCode(address: number): boolean {
  return address >= CODE_BASE && address < CODE_BASE + CODE_SIZE;
}

Deno.test("loadVectors() names the processor", () => {
  const { vendor, name, family } = base.processor;
  assert(["AuthenticAMD", "GenuineIntel"].includes(vendor), vendor);
  assert(name.length > 0 && family >= 6);
  assertEquals(extended.processor, base.processor);
});

Deno.test("loadVectors() gives programs of both modes, ended and faulted", () => {
  for (const mode of [64, 32]) {
    const some = base.vectors.filter((vector) => vector.mode === mode);
    assert(some.length >= 4000);
    const faulted = some.filter(({ exception }) => exception !== undefined);
    assert(faulted.length >= 400 && faulted.length < some.length / 4, `${faulted.length}`);
  }
});

Deno.test("a program that ended stopped behind its final INT3", () => {
  for (const { seed, code, start, rip, exception } of all) {
    if (exception !== undefined) continue;
    assertEquals(code.at(-1), 0xcc, `seed ${seed}`);
    assertEquals(rip, start + code.length, `seed ${seed}`);
  }
});

Deno.test("an exception is one that the programs can raise", () => {
  for (const { seed, exception, rip } of all) {
    if (exception === undefined) continue;
    const { vector, errorCode, cr2 } = exception;
    assert([0, 4, 5, 6, 12, 13, 14].includes(vector), `seed ${seed}: vector ${vector}`);
    if (vector !== 14) {
      assertEquals([errorCode, cr2], [0, 0], `seed ${seed}`);
      assert(inCode(rip), `seed ${seed}`);
      continue;
    }
    // User (bit 2), page not present (bit 0); a read, a write (bit 1) or a fetch (bit 4).
    assert([0x04, 0x06, 0x14].includes(errorCode), `seed ${seed}: error code ${errorCode}`);
    assert(!inData(cr2) && !inCode(cr2), `seed ${seed}: ${cr2.toString(16)} is mapped`);
    assert(inCode(rip) || (errorCode === 0x14 && rip === cr2), `seed ${seed}`);
  }
});

Deno.test("flags and registers are as a user program's must be", () => {
  let defined = 0;
  for (const { seed, rflags, definedFlags, mode, gpr } of all) {
    assertEquals(rflags & (0x2 | IF), 0x2 | IF, `seed ${seed}`);
    // TF, IOPL, VM and AC stay clear; so do RF and the bits above ID.
    assertEquals(rflags & ~0x20_4ed7, 0, `seed ${seed}: ${rflags.toString(16)}`);
    assertEquals(definedFlags & ~COMPARED, 0, `seed ${seed}`);
    assertEquals(gpr.length, mode === 64 ? 16 : 8);
    if (definedFlags === COMPARED) defined++;
  }
  assert(defined > all.length / 2, `every flag is defined in only ${defined} programs`);
});

Deno.test("memory runs are in the data regions, in order, and show a change", () => {
  for (const vector of all) {
    let end = 0;
    for (const { address, bytes } of vector.memory) {
      const last = address + bytes.length - 1;
      assert(address >= end && inData(address) && inData(last), `seed ${vector.seed}`);
      assert(byteAt(vector, address) !== bytes[0], `seed ${vector.seed}`);
      assert(byteAt(vector, last) !== bytes.at(-1), `seed ${vector.seed}`);
      end = last + 1;
    }
  }
});

Deno.test("retired instructions are counted", () => {
  for (const { seed, retired, retiredCount, code } of all) {
    assert(retiredCount >= retired.length, `seed ${seed}`);
    for (const [i, offset] of retired.entries()) {
      assert(offset < code.length && offset > (retired[i - 1] ?? -1), `seed ${seed}`);
    }
  }
  assert(all.some(({ retired, retiredCount }) => retiredCount > retired.length * 2));
});

Deno.test("codeImage() puts the code at its place among INT3s", () => {
  const vector = base.vectors[0] as Vector;
  const image = codeImage(vector);
  assertEquals(image.length, CODE_SIZE);
  const at = vector.start - CODE_BASE;
  assertEquals(image.slice(at, at + vector.code.length), vector.code);
  assert(image.slice(0, at).every((byte) => byte === 0xcc));
  assert(image.slice(at + vector.code.length).every((byte) => byte === 0xcc));
});

Deno.test("initialState() keeps to 32 bits in 32-bit mode and puts RSP into the stack", () => {
  for (let seed = 0; seed < 200; seed++) {
    const wide = initialState(seed, 64);
    const narrow = initialState(seed, 32);
    for (let r = 0; r < 16; r++) {
      const value = (wide.gpr[r] ?? 0n) & 0xffff_ffffn;
      assertEquals(narrow.gpr[r], r < 8 ? value : 0n);
    }
    const rsp = Number(wide.gpr[4]);
    assert(rsp >= SCRATCH_BASE + 0xe000 && rsp < SCRATCH_BASE + 0xe208);
    assertEquals(wide.rflags, narrow.rflags);
    assertEquals(wide.rflags & ~0xcd5, 0x2 | IF);
  }
});

Deno.test("initialMemory() has sixteen images, each as its number says", () => {
  assertEquals(initialMemory(5), initialMemory(21));
  const first = initialMemory(0);
  assert(first.scratch.some((byte, i) => byte !== initialMemory(1).scratch[i]));
  assertEquals([first.low.length, first.scratch.length], [LOW_SIZE, SCRATCH_SIZE]);
});

/** Register numbers of the checks below. */
const RDX = 2;
const RSI = 6;
const RDI = 7;
const R10 = 10;

function named(seed: number, code: string): Vector {
  const vector = base.vectors[seed] as Vector;
  const text = [...vector.code].map((b) => b.toString(16).padStart(2, "0")).join(" ");
  assertEquals(text, code, `seed ${seed} is another program now: choose one to check by hand`);
  return vector;
}

Deno.test("short programs came out as worked by hand", () => {
  // ROL DX, 1 of CE1Fh: bit 15 goes to bit 0 and CF; OF is bit 15 of the result XOR CF, 1 ^ 1.
  const rol = named(54, "66 d1 c2 cc");
  assertEquals(initialState(54, 32).gpr[RDX], 0x820b_ce1fn);
  assertEquals(rol.gpr[RDX], 0x820b_9c3fn);
  assertEquals([initialState(54, 32).rflags, rol.rflags], [0xe17, 0x617]);

  // SUB RSI, -79h: a borrow out of bit 63, none out of bit 3; A2h has three bits set.
  const sub = named(86, "4a 83 ee 87 cc");
  assertEquals(initialState(86, 64).gpr[RSI], 0xa807_3732_8986_6129n);
  assertEquals(sub.gpr[RSI], 0xa807_3732_8986_61a2n);
  assertEquals(sub.rflags, 0x683);

  // MOV RDI, 79D7A6CC_00006133h (REX.W overrides 66h); STOSB to EDI, which clears RDI[63:32].
  const stos = named(165, "66 4a bf 33 61 00 00 cc a6 d7 79 67 aa cc");
  assertEquals(stos.gpr[RDI], 0x6134n);
  const al = Number((initialState(165, 64).gpr[0] ?? 0n) & 0xffn);
  assertEquals(stos.memory, [{ address: 0x6133, bytes: Uint8Array.of(al) }]);

  // XOR R10, R10: zero, even parity, AF undefined.
  const xor = named(272, "4d 31 d2 cc");
  assertEquals(xor.gpr[R10], 0n);
  assertEquals([xor.rflags, xor.definedFlags], [0x246, COMPARED & ~0x10]);

  // MOV ESP, 4FFFFh; POP CX reads across the end of the scratch area: RSP and RCX stay.
  const pop = named(132, "bc ff ff 04 00 66 59 cc");
  assertEquals(pop.exception, { vector: 14, errorCode: 4, cr2: 0x50000 });
  assertEquals(pop.gpr[4], 0x4ffffn);
  assertEquals(pop.gpr[1], initialState(132, 64).gpr[1]);
  assertEquals(pop.retired, [0]);
});

Deno.test("encodeVectors() and decodeVectors() are inverse", async () => {
  for (const set of ["base", "extended"] as const) {
    const bytes = await decompress(await Deno.readFile(vectorFile(set)));
    const { processor, features, vectors } = decodeVectors(bytes);
    const again = encodeVectors(processor, features, vectors);
    assert(again.length === bytes.length && again.every((byte, i) => byte === bytes[i]));
  }
});

Deno.test("decodeVectors() says what is wrong with a file", () => {
  const { processor, features } = base;
  const good = encodeVectors(processor, features, base.vectors.slice(0, 3));
  assertEquals(decodeVectors(good).vectors.length, 3);

  const other = good.slice();
  other[0] = 0;
  assertThrows(() => decodeVectors(other), VectorFormatError, "not a vector file");

  assertThrows(() => decodeVectors(good.slice(0, -1)), VectorFormatError, "the file ends");

  const text = String.fromCharCode(...good);
  const bytesOf = (changed: string): Uint8Array =>
    Uint8Array.from(changed, (character) => character.charCodeAt(0));
  const newer = bytesOf(text.replace('"format":1', '"format":9'));
  assertThrows(() => decodeVectors(newer), VectorFormatError, "format 9");
  const more = bytesOf(text.replace('"count":3', '"count":4'));
  assertThrows(() => decodeVectors(more), VectorFormatError, "header says 4");
  const broken = bytesOf(text.replace('{"format"', '["format"'));
  assertThrows(() => decodeVectors(broken), VectorFormatError, "not JSON");
  const nameless = bytesOf(text.replace('"features"', '"fixtures"'));
  assertThrows(() => decodeVectors(nameless), VectorFormatError, "names no features");
});
