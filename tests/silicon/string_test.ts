/**
 * Repeated MOVS and STOS against what the manual says they do, element by element: overlapping areas, both
 * directions, ends of pages, pages that stand in memory in another order.
 */
import { assertEquals } from "@std/assert";
import { Save, SvmExit } from "../../plugins/cpu/mod.ts";
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

Deno.test("random repeated moves and fills end as the manual says", () => {
  const random = new Random(7);
  const lab = new Lab();
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
