/**
 * Repeated string instructions against what the manual says they do, element by element: overlapping areas,
 * both directions, ends of pages, pages that stand in memory in another order, flags of comparisons.
 */
import { assertEquals } from "@std/assert";
import { type HostOptions, Rflags, Save, SvmExit } from "../../plugins/cpu/mod.ts";
import { code } from "./code.ts";
import { Lab } from "./lab.ts";
import { Random } from "./programs.ts";

const CODE_AT = 0x1_0000;
const DATA_AT = 0x2_0000;
const PAGE = 0x1000;
const PAGES = 8;
const SIZE = PAGES * PAGE;
/** The pages of the data, in the order in which they stand in memory. */
const ORDER = [3, 0, 1, 7, 2, 6, 4, 5];

/** REP MOVS or STOS of elements of `size` bytes, as the manual describes it. */
function reference(memory: Uint8Array, run: Run): Uint8Array {
  const result = memory.slice();
  const step = run.down ? -run.size : run.size;
  for (let k = 0; k < run.count; k++) {
    const to = run.to + k * step;
    // An element is read whole before it is written.
    const from = run.from + k * step;
    const element = result.slice(from, from + run.size);
    for (let byte = 0; byte < run.size; byte++) {
      const filled = Number((run.value >> BigInt(8 * byte)) & 0xffn);
      result[to + byte] = run.moves ? element[byte]! : filled;
    }
  }
  return result;
}

interface Run {
  readonly moves: boolean;
  readonly size: 1 | 2 | 4 | 8;
  readonly down: boolean;
  readonly from: number;
  readonly to: number;
  readonly count: number;
  readonly value: bigint;
}

function makeRun(random: Random): Run {
  const size = random.pick([1, 2, 4, 8] as const);
  const moves = random.below(3) > 0;
  const most = Math.floor(SIZE / size) >> 1;
  const count = random.pick([0, 1, random.below(20), random.below(most), most]);
  const down = random.below(4) === 0;
  const span = count * size;
  const low = down ? Math.max(0, span - size) : 0;
  const room = SIZE - Math.max(span, size) - (down ? 0 : size);
  const from = low + random.below(Math.max(1, room));
  // Near each other now and then, so that source and destination overlap.
  const near = from + random.pick([-1, 1]) * size * (1 + random.below(40));
  const far = low + random.below(Math.max(1, room));
  const fits = near >= low && near + (down ? size : span) <= SIZE;
  const to = random.below(2) === 0 && fits ? near : far;
  const byte = BigInt(random.below(256));
  const even = byte * 0x0101_0101_0101_0101n;
  return {
    moves,
    size,
    down,
    from,
    to,
    count,
    value: random.below(2) === 0 ? even : even ^ 0x10n,
  };
}

/** A lab with the data's pages, and how to write and read them in order. */
function makeLab(options: HostOptions = {}): {
  readonly lab: Lab;
  readonly write: (bytes: Uint8Array) => void;
  readonly read: () => Uint8Array;
} {
  const lab = new Lab(undefined, options);
  lab.map(CODE_AT, PAGE, 0x63n);
  for (const [k, page] of ORDER.entries()) {
    lab.memory.writeU64(
      lab.pte(DATA_AT + k * PAGE),
      BigInt(lab.base + DATA_AT + page * PAGE) | 0x63n,
    );
  }
  const write = (bytes: Uint8Array) => {
    for (const [k, page] of ORDER.entries()) {
      lab.write(DATA_AT + page * PAGE, bytes.slice(k * PAGE, (k + 1) * PAGE));
    }
  };
  const read = (): Uint8Array => {
    const bytes = new Uint8Array(SIZE);
    for (const [k, page] of ORDER.entries()) {
      bytes.set(lab.read(DATA_AT + page * PAGE, PAGE), k * PAGE);
    }
    return bytes;
  };
  return { lab, write, read };
}

Deno.test("random repeated moves and fills end as the manual says", () => {
  const random = new Random(7);
  const { lab, write, read } = makeLab();
  const initial = Uint8Array.from({ length: SIZE }, () => random.below(256));
  for (let k = 0; k < 300; k++) {
    const run = makeRun(random);
    const prefix = { 1: "", 2: "66", 4: "", 8: "48" }[run.size];
    const opcode = (run.moves ? 0xa4 : 0xaa) + (run.size === 1 ? 0 : 1);
    lab.write(
      CODE_AT,
      new Uint8Array(code(run.down ? "fd" : "fc", "f3", prefix, [opcode], "cc")),
    );
    lab.prepare(64, 0);
    write(initial);
    lab.set64(Save.RIP, BigInt(CODE_AT));
    lab.setRegister(0, run.value);
    lab.setRegister(1, BigInt(run.count));
    lab.setRegister(6, BigInt(DATA_AT + run.from));
    lab.setRegister(7, BigInt(DATA_AT + run.to));
    const what = `seed 7, run ${k}: ${JSON.stringify({ ...run, value: String(run.value) })}`;
    assertEquals(lab.run(), BigInt(SvmExit.EXCEPTION + 3), what);
    const moved = run.count * (run.down ? -run.size : run.size);
    assertEquals(lab.register(1), 0n, what);
    assertEquals(lab.register(7), BigInt(DATA_AT + run.to + moved), what);
    if (run.moves) assertEquals(lab.register(6), BigInt(DATA_AT + run.from + moved), what);
    const expected = reference(initial, run);
    const is = read();
    assertEquals(is.findIndex((byte, at) => byte !== expected[at]), -1, what);
  }
});

Deno.test("a repeated fill stops at the page that is not there, with what is left to do", () => {
  const lab = new Lab();
  lab.map(CODE_AT, PAGE, 0x63n);
  lab.map(DATA_AT, 2 * PAGE, 0x63n);
  lab.prepare(64, 0);
  lab.write(CODE_AT, new Uint8Array(code("f3 48 ab cc"))); // rep stosq
  lab.set64(Save.RIP, BigInt(CODE_AT));
  lab.setRegister(0, 0n);
  lab.setRegister(1, 5000n);
  lab.setRegister(7, BigInt(DATA_AT + 4));
  assertEquals(lab.run(), BigInt(SvmExit.EXCEPTION + 14));
  const done = (2 * PAGE - 4) >> 3;
  assertEquals(lab.register(1), BigInt(5000 - done));
  assertEquals(lab.register(7), BigInt(DATA_AT + 4 + 8 * done));
  assertEquals(lab.get64(Save.RIP), BigInt(CODE_AT));
});

/** REPE or REPNE CMPS or SCAS. */
interface Comparison {
  readonly scans: boolean;
  readonly equal: boolean;
  readonly size: 1 | 2 | 4 | 8;
  readonly down: boolean;
  readonly from: number;
  readonly to: number;
  readonly count: number;
  readonly value: bigint;
}

const FLAGS = Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.OF;

/** Flags of `a - b` (APM vol. 3, CMP). */
function flagsOf(a: bigint, b: bigint, size: number): number {
  const bits = 8 * size;
  const signed = (value: bigint): bigint => BigInt.asIntN(bits, value);
  const result = BigInt.asUintN(bits, a - b);
  const ones = [...(result & 0xffn).toString(2)].filter((digit) => digit === "1").length;
  return (a < b ? Rflags.CF : 0) | (ones % 2 === 0 ? Rflags.PF : 0) |
    ((a & 15n) < (b & 15n) ? Rflags.AF : 0) | (result === 0n ? Rflags.ZF : 0) |
    (signed(result) < 0n ? Rflags.SF : 0) |
    (signed(a) - signed(b) !== signed(result) ? Rflags.OF : 0);
}

/** How many elements the manual's loop looks at, and the flags it leaves. */
function compared(memory: Uint8Array, run: Comparison, before: number): [number, number] {
  const element = (at: number): bigint => {
    let value = 0n;
    for (let k = run.size - 1; k >= 0; k--) value = (value << 8n) | BigInt(memory[at + k]!);
    return value;
  };
  const step = run.down ? -run.size : run.size;
  let flags = before;
  for (let k = 0; k < run.count; k++) {
    const a = run.scans ? run.value : element(run.from + k * step);
    const b = element(run.to + k * step);
    flags = flagsOf(a, b, run.size);
    if ((a === b) !== run.equal) return [k + 1, flags];
  }
  return [run.count, flags];
}

function makeComparison(random: Random): Comparison {
  const size = random.pick([1, 2, 4, 8] as const);
  const down = random.below(6) === 0;
  const most = Math.floor(SIZE / size);
  const count = random.pick([0, 1, random.below(40), random.below(most), most]);
  const low = down ? Math.max(0, (count - 1) * size) : 0;
  const room = SIZE - size - (down ? low : Math.max(0, (count - 1) * size));
  const place = (): number => low + random.below(Math.max(1, room + 1));
  return {
    scans: random.below(2) === 0,
    equal: random.below(2) === 0,
    size,
    down,
    from: place(),
    to: place(),
    count,
    value: random.pick([0n, 0x0101_0101_0101_0101n, 0x80_0000_0000_0000_80n]) &
      ((1n << BigInt(8 * size)) - 1n),
  };
}

for (const tier of [1, 2] as const) {
  for (const mode of [64, 32] as const) {
    Deno.test(`random repeated comparisons end as the manual says, tier ${tier}, ${mode}-bit`, () => {
      const random = new Random(11);
      const { lab, write } = makeLab({ tier });
      const memory = new Uint8Array(SIZE);
      for (let k = 0; k < 250; k++) {
        const run = makeComparison(random);
        if (mode === 32 && run.size === 8) continue;
        // Mostly one value, so that there are long ways to what is different, or the reverse.
        const usual = random.pick([0, 1]);
        memory.fill(usual);
        for (let n = random.pick([0, 3, 300]); n > 0; n--) {
          memory[random.below(SIZE)] = random.pick([0, 1, 0x7f, 0x80]);
        }
        write(memory);
        const prefix = { 1: "", 2: "66", 4: "", 8: "48" }[run.size];
        const opcode = (run.scans ? 0xae : 0xa6) + (run.size === 1 ? 0 : 1);
        const repeat = run.equal ? "f3" : "f2";
        lab.write(
          CODE_AT,
          new Uint8Array(code(run.down ? "fd" : "fc", repeat, prefix, [opcode], "cc")),
        );
        lab.prepare(mode, 0);
        lab.set64(Save.RIP, BigInt(CODE_AT));
        lab.set64(Save.RFLAGS, BigInt(2 | Rflags.CF | Rflags.OF));
        lab.setRegister(0, run.value);
        lab.setRegister(1, BigInt(run.count));
        lab.setRegister(6, BigInt(DATA_AT + run.from));
        lab.setRegister(7, BigInt(DATA_AT + run.to));
        const what = `seed 11, run ${k}: ${JSON.stringify({ ...run, value: String(run.value) })}`;
        assertEquals(lab.run(), BigInt(SvmExit.EXCEPTION + 3), what);
        const [rounds, flags] = compared(memory, run, Rflags.CF | Rflags.OF);
        const moved = rounds * (run.down ? -run.size : run.size);
        assertEquals(lab.register(1), BigInt(run.count - rounds), what);
        assertEquals(lab.register(7), BigInt(DATA_AT + run.to + moved), what);
        assertEquals(lab.register(6), BigInt(DATA_AT + run.from + (run.scans ? 0 : moved)), what);
        assertEquals(Number(lab.get64(Save.RFLAGS)) & FLAGS, flags, what);
      }
    });

    Deno.test(`a repeated comparison stops at the page that is not there, tier ${tier}, ${mode}-bit`, () => {
      const lab = new Lab(undefined, { tier });
      lab.map(CODE_AT, PAGE, 0x63n);
      lab.map(DATA_AT, 2 * PAGE, 0x63n);
      for (const [opcode, equal] of [[0xa7, true], [0xaf, true], [0xaf, false]] as const) {
        lab.prepare(mode, 0);
        lab.write(CODE_AT, new Uint8Array(code(equal ? "f3" : "f2", [opcode], "cc")));
        lab.write(DATA_AT, new Uint8Array(2 * PAGE).fill(equal ? 0 : 0xff));
        lab.set64(Save.RIP, BigInt(CODE_AT));
        lab.setRegister(0, 0n);
        lab.setRegister(1, 5000n);
        lab.setRegister(6, BigInt(DATA_AT + 8));
        lab.setRegister(7, BigInt(DATA_AT + 4));
        const scans = opcode === 0xaf;
        const done = (2 * PAGE - (scans ? 4 : 8)) >> 2;
        assertEquals(lab.run(), BigInt(SvmExit.EXCEPTION + 14));
        assertEquals(lab.register(1), BigInt(5000 - done));
        assertEquals(lab.register(7), BigInt(DATA_AT + 4 + 4 * done));
        assertEquals(lab.register(6), BigInt(DATA_AT + 8 + (scans ? 0 : 4 * done)));
        assertEquals(lab.get64(Save.RIP), BigInt(CODE_AT));
        const flags = equal ? Rflags.ZF | Rflags.PF : Rflags.CF | Rflags.AF;
        assertEquals(Number(lab.get64(Save.RFLAGS)) & FLAGS, flags);
      }
    });
  }
}

Deno.test("how a repeated comparison is cut into runs cannot be noticed", () => {
  const { lab, write } = makeLab();
  const memory = new Uint8Array(SIZE).fill(7);
  memory[SIZE - 10] = 9;
  write(memory);
  lab.prepare(64, 0);
  lab.write(CODE_AT, new Uint8Array(code("f3 ae cc"))); // repe scasb
  lab.set64(Save.RIP, BigInt(CODE_AT));
  lab.setRegister(0, 7n);
  lab.setRegister(1, BigInt(SIZE));
  lab.setRegister(7, BigInt(DATA_AT));
  let runs = 1;
  while (lab.run(1) !== BigInt(SvmExit.EXCEPTION + 3)) {
    const left = Number(lab.register(1));
    assertEquals(Number(lab.register(7)), DATA_AT + SIZE - left);
    if (left > 9) assertEquals(left, SIZE - 4096 * runs);
    runs += 1;
  }
  assertEquals(lab.register(1), 9n);
  assertEquals(runs, SIZE / 4096 + 1);
});
