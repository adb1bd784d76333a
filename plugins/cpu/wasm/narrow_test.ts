/**
 * Values of which only a part is kept are what they would be if all of them had been computed.
 */
import { assertEquals } from "@std/assert";
import { type I32, type I64, I64T, ModuleBuilder } from "./mod.ts";

const SAMPLES = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fff_ffffn, 0x8000_0000n]
  .flatMap((value) => [value, -value, value | 0x1234_5678_0000_0000n]);

const wrap = (value: bigint, bits: number): bigint => BigInt.asUintN(bits, value);
const sign = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value);

type Operator = "add" | "sub" | "mul" | "and" | "or" | "xor";
const OPERATORS: Readonly<Record<Operator, (a: bigint, b: bigint) => bigint>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
};
type Test = "eq" | "ne" | "ltS" | "ltU" | "leS" | "leU" | "gtS" | "gtU" | "geS" | "geU";
const TESTS: Readonly<Record<Test, (a: bigint, b: bigint) => boolean>> = {
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
  ltS: (a, b) => a < b,
  leS: (a, b) => a <= b,
  gtS: (a, b) => a > b,
  geS: (a, b) => a >= b,
  ltU: (a, b) => wrap(a, 64) < wrap(b, 64),
  leU: (a, b) => wrap(a, 64) <= wrap(b, 64),
  gtU: (a, b) => wrap(a, 64) > wrap(b, 64),
  geU: (a, b) => wrap(a, 64) >= wrap(b, 64),
};
/** What operands are made of the samples: as they are, or extended from so many bits. */
const EXTENSIONS: readonly (readonly [
  emit: (value: I64) => I64,
  compute: (value: bigint) => bigint,
])[] = [
  [(value) => value, (value) => value],
  ...[8, 16, 32].flatMap((bits) => [
    [(value: I64): I64 => value.zeroExtend(bits), (value: bigint) => wrap(value, bits)] as const,
    [(value: I64): I64 => value.signExtend(bits), (value: bigint) => sign(value, bits)] as const,
  ]),
];

/** Builds all functions of `build`, runs them on all pairs of samples, and compares. */
function compare(
  cases: readonly {
    readonly name: string;
    readonly emit: (a: I64, b: I64) => I64 | I32;
    readonly compute: (a: bigint, b: bigint) => bigint | boolean;
  }[],
): void {
  const module = new ModuleBuilder({ memoryPages: 1, tableSize: 1 });
  for (const [k, { emit }] of cases.entries()) {
    module.define(`f${k}`, [I64T, I64T], I64T, (f, a, b) => {
      const value = emit(a, b);
      f.return(value.type === I64T.code ? value as I64 : (value as I32).extendU());
    }, true);
  }
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const table = new WebAssembly.Table({ initial: 1, element: "anyfunc" });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.encode()), {
    env: { memory, table },
  });
  for (const [k, { name, compute }] of cases.entries()) {
    const run = exports[`f${k}`] as (a: bigint, b: bigint) => bigint;
    for (const a of SAMPLES) {
      for (const b of SAMPLES) {
        const expected = compute(a, b);
        assertEquals(
          run(a, b),
          typeof expected === "boolean" ? BigInt(expected) : sign(expected, 64),
          `${name} of ${a.toString(16)} and ${b.toString(16)}`,
        );
      }
    }
  }
}

const operators = Object.entries(OPERATORS) as [Operator, (a: bigint, b: bigint) => bigint][];

Deno.test("the low half of a result, zero- or sign-extended", () => {
  compare(
    operators.flatMap(([name, compute]) =>
      EXTENSIONS.flatMap(([extend, extended], k) => [
        {
          name: `zero-extended ${name} ${k}`,
          emit: (a: I64, b: I64): I64 => extend(a)[name](extend(b)).zeroExtend(32),
          compute: (a: bigint, b: bigint) => wrap(compute(extended(a), extended(b)), 32),
        },
        {
          name: `sign-extended ${name} ${k}`,
          emit: (a: I64, b: I64): I64 => extend(a)[name](extend(b)).signExtend(32),
          compute: (a: bigint, b: bigint) => sign(compute(extended(a), extended(b)), 32),
        },
      ])
    ),
  );
});

Deno.test("shifts of which the low half is kept", () => {
  const shifts = ["shl", "shrU", "shrS"] as const;
  const counted = [0, 1, 31, 32, 40, 63].flatMap((count) =>
    shifts.flatMap((name) =>
      EXTENSIONS.map(([extend, extended], k) => ({
        name: `${name} ${count} ${k}`,
        emit: (a: I64): I64 => extend(a)[name](count).zeroExtend(32),
        compute: (a: bigint) => {
          const value = extended(a);
          if (name === "shl") return wrap(value << BigInt(count), 32);
          return wrap((name === "shrU" ? wrap(value, 64) : value) >> BigInt(count), 32);
        },
      }))
    )
  );
  compare(counted);
  compare(shifts.map((name) => ({
    name: `${name} by a value`,
    emit: (a: I64, b: I64): I64 => a.zeroExtend(32)[name](b.and(31)).zeroExtend(32),
    compute: (a: bigint, b: bigint) => {
      const count = b & 31n;
      return wrap(name === "shl" ? a << count : wrap(a, 32) >> count, 32);
    },
  })));
});

Deno.test("comparisons of extended values, with each other and with constants", () => {
  const tests = Object.entries(TESTS) as [Test, (a: bigint, b: bigint) => boolean][];
  compare(
    tests.flatMap(([name, compute]) =>
      EXTENSIONS.flatMap(([extend, extended], k) => [
        {
          name: `${name} ${k}`,
          emit: (a: I64, b: I64): I32 => extend(a)[name](extend(b)),
          compute: (a: bigint, b: bigint) => compute(extended(a), extended(b)),
        },
        ...[0n, 5n, -5n, 0xffff_fff0n].map((constant) => ({
          name: `${name} ${k} with ${constant}`,
          emit: (a: I64): I32 => extend(a)[name](constant),
          compute: (a: bigint) => compute(extended(a), constant),
        })),
      ])
    ),
  );
});

Deno.test("masks on extended values, extended again", () => {
  const masks = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0xffffn, 0x7fff_ffffn, 0xffff_ffffn, -2n];
  compare(
    masks.flatMap((mask) =>
      EXTENSIONS.flatMap(([first, firstOf], j) =>
        EXTENSIONS.map(([then, thenOf], k) => ({
          name: `${j}, and ${mask}, ${k}`,
          emit: (a: I64): I64 => then(first(a).and(mask)),
          compute: (a: bigint) => thenOf(firstOf(a) & mask),
        }))
      )
    ),
  );
});

Deno.test("a low half computed on one way is computed again on the other", () => {
  compare([{
    name: "choose",
    emit: (a, b) => {
      const f = a.fn!;
      const sum = a.add(b);
      const first = f.choose(I64T, a.ltS(b), () => sum.zeroExtend(32), () => 7);
      return first.add(sum.zeroExtend(32));
    },
    compute: (a, b) => (a < b ? wrap(a + b, 32) : 7n) + wrap(a + b, 32),
  }]);
});
