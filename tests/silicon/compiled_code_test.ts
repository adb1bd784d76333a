/**
 * Where compiled code goes: how much of it lives, what becomes of it when its bytes are written, and what a
 * cache of it may and may not do.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  type CodeCache,
  type CpuOptions,
  MemoryCodeCache,
  S,
  Stop,
} from "../../plugins/cpu/mod.ts";
import { Bench } from "./bench.ts";
import { code, dword } from "./code.ts";
import { DATA_AT, FUNCTIONS_AT, makeProgram, PROGRAM_AT, STACK_AT } from "./programs.ts";

const AT = 0x10_0000;
const STACK = 0x18_0000;
const BUFFER = 0x20_0000;
const MIB = 1 << 20;

/** A machine that is to run `bytes` in flat 32-bit mode. */
function machine(bytes: readonly number[], options: CpuOptions = {}): Bench {
  const bench = new Bench(options);
  bench.write(AT, bytes);
  bench.protect();
  bench.state.set(S.rip, BigInt(AT));
  bench.state.setRegister(4, BigInt(STACK));
  return bench;
}

/** Runs to a HLT; yields EAX. */
function toHalt(bench: Bench): number {
  assertEquals(bench.run(0x4000_0000).stop, Stop.HALT);
  return Number(bench.state.register(0) & 0xffff_ffffn);
}

/** Makes `count` functions one after the other in a ring of `size` bytes, each `rounds` times called. */
function maker(count: number, rounds: number, size: number): number[] {
  const call = [
    "ff d7", // call edi
    "ff cd", // dec ebp
    "75 fa", // jnz to the call
  ];
  return code(
    "31 c0 bf",
    dword(BUFFER), // xor eax, eax; mov edi, BUFFER
    "b9",
    dword(count), // mov ecx, count
    "c6 07 05 89 4f 01", // make: mov byte [edi], ADD; mov [edi + 1], ecx
    "c6 47 05 c3", // mov byte [edi + 5], RET
    "bd",
    dword(rounds), // mov ebp, rounds
    ...call,
    "83 c7 20 81 e7", // add edi, 32; and edi, …
    dword(BUFFER | (size - 1)),
    "49 75", // dec ecx; jnz make
    [256 - (10 + 5 + 6 + 9 + 3)],
    "f4",
  );
}

Deno.test("a guest that makes code without end: what lives of it stays below the limit", () => {
  const codeLimit = 32 << 10;
  const count = 1000;
  const bench = machine(maker(count, 40, MIB), { tier: 2, codeLimit });
  const sum = (count * (count + 1)) / 2;
  assertEquals(toHalt(bench), (40 * sum) % 2 ** 32);
  const { regions } = bench.processors.statistics;
  assert(regions.compiled > 300, `${regions.compiled} regions were compiled`);
  assert(regions.bytes > 5 * codeLimit, `${regions.bytes} bytes were compiled`);
  assert(regions.evicted > 0);
  assert(regions.liveBytes <= codeLimit, `${regions.liveBytes} bytes live`);
  assertEquals(regions.live, regions.compiled - regions.dropped);
});

Deno.test("code that is written over: its regions go, without any limit", () => {
  // The ring has room for 64 functions.
  const bench = machine(maker(200, 40, 2048), { tier: 2 });
  toHalt(bench);
  const { regions } = bench.processors.statistics;
  assert(regions.dropped > 0);
  assertEquals(regions.live, regions.compiled - regions.dropped);
  assertEquals(regions.evicted, 0);
  // Those of the functions that are there, and of the loops that make and call them.
  assert(regions.live < 80, `${regions.live} regions live`);
});

Deno.test("after code has been written the way to it is direct again", () => {
  const rounds = 20_000;
  const bytes = code(
    "31 c0 b9",
    dword(rounds), // xor eax, eax; mov ecx, rounds
    "eb 00", // round: jmp to the next
    "83 c0 01", // add eax, 1
    "81 f9",
    dword(rounds - 5), // cmp ecx, rounds - 5
    "75 07", // jne
    "c6 05",
    dword(AT + 11), // mov byte [AT + 11], 3: add eax, 3
    "03",
    "49 75",
    [256 - 23], // dec ecx; jnz round
    "f4",
  );
  const bench = machine(bytes, { tier: 1 });
  assertEquals(toHalt(bench), 6 + 3 * (rounds - 6));
  const { blocks, dispatches } = bench.processors.statistics;
  assert(blocks.invalidated > 0);
  assert(dispatches < 200, `${dispatches} times through the dispatcher`);
});

/** What a random program leaves behind. */
function outcome(seed: number, options: CpuOptions): { bench: Bench; left: string } {
  const program = makeProgram(seed, 32);
  const bench = new Bench(options);
  bench.write(PROGRAM_AT, program.main);
  bench.write(FUNCTIONS_AT, program.functions);
  bench.write(DATA_AT, program.data);
  bench.write(STACK_AT, new Uint8Array(0x4000));
  bench.protect();
  for (const [n, value] of program.registers.entries()) {
    bench.state.setRegister(n, BigInt.asUintN(32, BigInt(value)));
  }
  bench.state.setRegister(4, BigInt(STACK_AT + 0x4000 - 64));
  bench.state.set(S.rip, BigInt(PROGRAM_AT));
  const { stop, events } = bench.run(20_000_000);
  const registers = Array.from({ length: 8 }, (_, n) => bench.state.register(n).toString(16));
  const memory = [DATA_AT, STACK_AT].map((at) => bench.read(at, 0x4000).join());
  const { retired } = bench.processor;
  return {
    bench,
    left: [stop, events[0]?.vector, retired, bench.flags, ...registers, ...memory].join(" "),
  };
}

/** A cache that finds nothing, and keeps what it is given. */
class Recorder implements CodeCache {
  readonly kept = new Map<string, Uint8Array<ArrayBuffer>>();
  get(): undefined {
    return undefined;
  }
  put(key: string, bytes: Uint8Array<ArrayBuffer>): void {
    this.kept.set(key, bytes);
  }
  drop(): void {}
}

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => 7000 + n);

Deno.test("a machine that finds its code in a cache does the same with it", () => {
  const cache = new MemoryCodeCache(64 * MIB);
  const first = SEEDS.map((seed) => outcome(seed, { tier: 2, codeCache: cache }));
  const again = SEEDS.map((seed) => outcome(seed, { tier: 2, codeCache: cache }));
  for (const [k, seed] of SEEDS.entries()) {
    const { left } = outcome(seed, { tier: 1 });
    assertEquals(first[k]!.left, left, `seed ${seed}, without`);
    assertEquals(again[k]!.left, left, `seed ${seed}, with`);
    const { regions, code: made } = again[k]!.bench.processors.statistics;
    assert(regions.compiled > 0, `seed ${seed} compiles nothing`);
    assertEquals(made.cached, regions.compiled, `seed ${seed}`);
  }
});

Deno.test("what is kept under one key is the same, and other programs in its place have other keys", () => {
  const recorders = [0, 1].map(() => new Recorder());
  for (const codeCache of recorders) {
    for (const seed of SEEDS) outcome(seed, { tier: 2, codeCache });
  }
  const [one, other] = recorders.map(({ kept }) => kept);
  assert(one!.size > SEEDS.length);
  assertEquals([...one!.keys()], [...other!.keys()]);
  for (const [key, bytes] of one!) assertEquals(bytes, other!.get(key));
  // The same function in the same place, adding another number.
  const keys = [5, 6].map((value) => {
    const codeCache = new Recorder();
    const bytes = code("31 c0 b9 00 01 00 00 83 c0", [value], "49 75 fa f4");
    assertEquals(toHalt(machine(bytes, { tier: 2, codeCache })), 256 * value);
    return [...codeCache.kept.keys()].join();
  });
  assertNotEquals(keys[0], keys[1]);
});

Deno.test("a cache that yields something else: it is not believed, and nothing goes wrong", () => {
  const seed = SEEDS[0]!;
  const { left } = outcome(seed, { tier: 1 });
  const recorder = new Recorder();
  outcome(seed, { tier: 2, codeCache: recorder });
  const wrong = (
    change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>,
    from: number,
  ) => {
    let asked = 0;
    const dropped: string[] = [];
    const codeCache: CodeCache = {
      get: (key) => {
        const bytes = recorder.kept.get(key);
        return bytes === undefined || asked++ < from ? bytes : change(bytes);
      },
      put: () => {},
      drop: (key) => void dropped.push(key),
    };
    const result = outcome(seed, { tier: 2, codeCache });
    assertEquals(result.left, left);
    return dropped.length;
  };
  const flipped = (bytes: Uint8Array<ArrayBuffer>) =>
    bytes.map((byte, k) => k === 60 ? byte ^ 1 : byte);
  // Found out by comparison, after which none is taken any more.
  assertEquals(wrong(flipped, 0), 1);
  // And by what a module has to be.
  assert(wrong((bytes) => bytes.slice(0, bytes.length >> 1), 2) > 0);
  assert(wrong(() => new Uint8Array(0), 2) > 0);
});
