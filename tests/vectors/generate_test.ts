import { assert, assertEquals, assertThrows } from "@std/assert";
import { Builder } from "./builder.ts";
import { coverageOf, formsOf } from "./coverage.ts";
import { CF, effect, OF, STATUS } from "./flags.ts";
import { shiftFlags } from "./forms/shift.ts";
import { BASE_SEEDS, EXTENDED_SEEDS, FAULT_NAMES, generateProgram, modeOf } from "./generate.ts";
import { RSP } from "./initial.ts";
import { CODE_BASE, type Mode } from "./layout.ts";
import { Prng } from "./prng.ts";
import { loadVectors } from "./read.ts";
import { FEATURES } from "./rows.ts";

const base = await loadVectors("base");
const extended = await loadVectors("extended");
const all = [...base.vectors, ...extended.vectors];
const coverage = coverageOf(all);

/** How often each form must have been retired in each mode that has it. */
const LEAST = 8;

Deno.test("generateProgram() gives the recorded program for every seed", () => {
  assertEquals(base.vectors.length, BASE_SEEDS);
  assertEquals(extended.vectors.length, EXTENDED_SEEDS);
  for (const [seed, vector] of all.entries()) {
    const program = generateProgram(seed);
    assertEquals(vector.seed, seed);
    assertEquals(vector.mode, program.mode);
    assertEquals(vector.start, CODE_BASE + program.entry, `seed ${seed}`);
    assert(
      vector.code.length === program.code.length &&
        vector.code.every((byte, i) => byte === program.code[i]),
      `the code of seed ${seed} has changed: record again`,
    );
    const features = FEATURES.filter((_, i) => (program.features >> i & 1) !== 0);
    assertEquals(vector.features, features);
    assert(vector.amd || !program.amd);
  }
});

Deno.test("generateProgram() uses base features only below BASE_SEEDS", () => {
  assert(base.vectors.every(({ features }) => features.length === 0));
  for (const feature of FEATURES) {
    const users = extended.vectors.filter(({ features }) => features.includes(feature));
    assert(users.length >= 100, `${feature}: ${users.length} programs`);
  }
});

Deno.test("generateProgram() makes retired instructions only of instructions it lists", () => {
  for (const { seed, retired } of all) {
    const offsets = new Set(generateProgram(seed).instructions.map(({ offset }) => offset));
    for (const offset of retired) assert(offsets.has(offset), `seed ${seed}, offset ${offset}`);
  }
});

for (const mode of [64, 32] as const) {
  Deno.test(`every form of ${mode}-bit mode was retired at least ${LEAST} times`, () => {
    const short: string[] = [];
    for (const names of formsOf(mode).values()) {
      for (const name of names) {
        const count = coverage.retired[mode].get(name) ?? 0;
        if (count < LEAST) short.push(`${name}: ${count}`);
      }
    }
    assertEquals(short, []);
  });

  Deno.test(`what was retired in ${mode}-bit mode is in the tables`, () => {
    const names = new Set([...formsOf(mode).values()].flatMap((set) => [...set]));
    const unknown = [...coverage.retired[mode].keys()]
      .filter((name) => !names.has(name) && !name.startsWith("#"));
    assertEquals(unknown, []);
  });
}

Deno.test("every kind of fault was taken", () => {
  for (const name of FAULT_NAMES) {
    const count = coverage.faults.get(name) ?? 0;
    assert(count >= LEAST, `${name}: ${count}`);
  }
});

function wantedAddressing(mode: Mode): string[] {
  const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
  const wanted: string[] = [];
  const registers = mode === 64 ? 16 : 8;
  for (const bits of mode === 64 ? [64, 32] : [32]) {
    wanted.push(...range(registers).map((r) => `${bits}: base ${r}`));
    wanted.push(...range(registers).filter((r) => r !== RSP).map((r) => `${bits}: index ${r}`));
    wanted.push(...[1, 2, 4, 8].map((factor) => `${bits}: scale ${factor}`));
    wanted.push(...[0, 8, 32].map((size) => `${bits}: disp${size}`));
    for (const kind of ["disp32", "index, disp32", "base is index", "SIB without index"]) {
      wanted.push(`${bits}: ${kind}`);
    }
    if (mode === 64) wanted.push(`${bits}: relative`);
  }
  if (mode === 32) {
    wanted.push("16: disp16");
    for (const size of [0, 8, 16]) {
      wanted.push(...range(8).map((rm) => `16: rm ${rm}, disp${size}`));
    }
  }
  return wanted;
}

for (const mode of [64, 32] as const) {
  Deno.test(`every addressing form of ${mode}-bit mode was retired`, () => {
    const short = wantedAddressing(mode)
      .map((name) => [name, coverage.addressing[mode].get(name) ?? 0] as const)
      .filter(([, count]) => count < LEAST);
    assertEquals(short, []);
  });
}

interface Prefixes {
  readonly legacy: readonly number[];
  /** A REX byte that something other than the opcode follows. */
  readonly deadRex: boolean;
  /** The REX byte before the opcode. */
  readonly rex: number | undefined;
}

const LEGACY_PREFIXES: readonly number[] = [
  0x26,
  0x2e,
  0x36,
  0x3e,
  0x66,
  0x67,
  0xf0,
  0xf2,
  0xf3,
];

function prefixesOf(code: Uint8Array, offset: number, mode: Mode): Prefixes {
  const legacy: number[] = [];
  let rex: number | undefined;
  let deadRex = false;
  for (let at = offset;; at++) {
    const byte = code[at] ?? 0;
    const isRex = mode === 64 && byte >> 4 === 4;
    if (!isRex && !LEGACY_PREFIXES.includes(byte)) return { legacy, deadRex, rex };
    if (rex !== undefined) deadRex = true;
    rex = isRex ? byte : undefined;
    if (!isRex) legacy.push(byte);
  }
}

Deno.test("prefixes were retired in every form, the redundant and the ignored too", () => {
  const counts = new Map<string, number>();
  const add = (name: string): void => {
    counts.set(name, (counts.get(name) ?? 0) + 1);
  };
  for (const { code, retired, mode } of all) {
    for (const offset of retired) {
      const { legacy, deadRex, rex } = prefixesOf(code, offset, mode);
      for (const byte of new Set(legacy)) add(`${mode}: ${byte.toString(16)}`);
      if (legacy.filter((byte) => byte === 0x66).length > 1) add(`${mode}: 66 twice`);
      if (deadRex) add("dead REX");
      if (rex !== undefined) add(`REX ${rex.toString(16)}`);
      if (rex !== undefined && rex >= 0x48 && legacy.includes(0x66)) add("REX.W with 66");
    }
  }
  const wanted = [64, 32].flatMap((mode) =>
    [...LEGACY_PREFIXES.map((byte) => byte.toString(16)), "66 twice"]
      .map((name) => `${mode}: ${name}`)
  );
  for (let rex = 0x40; rex < 0x50; rex++) wanted.push(`REX ${rex.toString(16)}`);
  for (const name of [...wanted, "dead REX", "REX.W with 66"]) {
    assert((counts.get(name) ?? 0) >= LEAST, `${name}: ${counts.get(name) ?? 0}`);
  }
});

Deno.test("programs cross from one code page to the next, and end at the last byte", () => {
  const crossing = all.filter(({ start, code }) =>
    start < CODE_BASE + 0x1000 && start + code.length > CODE_BASE + 0x1000
  );
  assert(crossing.length > 1000, `${crossing.length}`);
  const last = all.filter(({ start, code }) => start + code.length === CODE_BASE + 0x2000);
  assert(last.length >= LEAST, `${last.length}`);
});

function emptyBuilder(): Builder {
  const nothing = (): void => {};
  return new Builder(0, modeOf(0), 0, new Prng(0, 9), nothing, nothing);
}

Deno.test("Builder refuses an instruction that reads an undefined flag", () => {
  const b = emptyBuilder();
  b.append("MUL", [0xf7, 0xe0], { flags: effect(0, CF | OF, STATUS & ~(CF | OF)) });
  assertEquals(b.undefinedFlags, STATUS & ~(CF | OF));
  b.append("SETO", [0x0f, 0x90, 0xc0], { flags: effect(OF, 0) });
  assertThrows(() => b.append("LAHF", [0x9f], { flags: effect(0xd5, 0) }), Error, "LAHF");
});

Deno.test("Builder keeps of two paths only what is certain on both", () => {
  const b = emptyBuilder();
  const value = b.known(3);
  b.setKnown(0, 1n);
  const before = b.snapshot();
  b.setKnown(0, 2n);
  b.undefinedFlags = OF;
  b.join(before);
  assertEquals(b.known(0), undefined);
  assertEquals(b.known(3), value);
  assertEquals(b.undefinedFlags, OF);
});

Deno.test("Builder refuses a write to a locked register", () => {
  const b = emptyBuilder();
  b.lock(1 << 1);
  assertThrows(() => b.append("MOV", [0xb9, 0, 0, 0, 0], { writes: 1 << 1 }), Error, "locked");
});

Deno.test("shiftFlags() follows the masked count", () => {
  // SDM vol. 2, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR, "Flags Affected".
  assertEquals(shiftFlags("shift", 32, 32), effect(0, 0));
  assertEquals(shiftFlags("shift", 64, 64), effect(0, 0));
  assertEquals(shiftFlags("shift", 32, 1), effect(0, STATUS & ~0x10, 0x10));
  assertEquals(shiftFlags("shift", 8, 8), effect(0, 0xc4, 0x10 | OF | CF));
  assertEquals(shiftFlags("arithmetic", 8, 9), effect(0, 0xc5, 0x10 | OF));
  assertEquals(shiftFlags("rotate", 16, 32), effect(0, 0));
  assertEquals(shiftFlags("rotate", 16, 1), effect(0, CF | OF));
  assertEquals(shiftFlags("rotate", 16, undefined), effect(0, 0, OF));
  assertEquals(shiftFlags("carry", 8, 5), effect(CF, CF, OF));
});
