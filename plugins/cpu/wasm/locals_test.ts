import { assert, assertEquals } from "@std/assert";
import { type FunctionBuilder, type I32, i32, I32T, ModuleBuilder, type Variable } from "./mod.ts";

/** Locals that the functions of a module declare. */
function declaredLocals(code: Uint8Array): number {
  let at = 8;
  const number = (): number => {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = code[at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  let locals = 0;
  while (at < code.length) {
    const section = code[at++]!;
    const size = number();
    const end = at + size;
    for (let left = section === 10 ? number() : 0; left > 0; left--) {
      const length = number();
      const behind = at + length;
      for (let runs = number(); runs > 0; runs--) {
        locals += number();
        at++;
      }
      at = behind;
    }
    at = end;
  }
  return locals;
}

function built(body: (f: FunctionBuilder, a: I32, b: I32) => void) {
  const module = new ModuleBuilder({ memoryPages: 1, tableSize: 1 });
  module.define("f", [I32T, I32T], I32T, body, true);
  const code = module.encode();
  const env = {
    memory: new WebAssembly.Memory({ initial: 1, maximum: 1 }),
    table: new WebAssembly.Table({ initial: 1, element: "anyfunc" }),
  };
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(code), { env });
  return {
    call: exports["f"] as (a: number, b: number) => number,
    locals: declaredLocals(code),
    memory: env.memory,
  };
}

Deno.test("values that are not needed at the same time share locals", () => {
  const many = built((f, a, b) => {
    let sum = a;
    for (let k = 0; k < 100; k++) {
      const twice = sum.add(b);
      f.store32(4 * k, twice);
      const chosen = f.choose(I32T, twice.and(1), () => twice.mul(3), () => twice.shrU(1));
      sum = chosen.add(chosen.xor(twice));
    }
    f.return(sum);
  });
  let [sum, b] = [7, 12345];
  const expected = sum;
  for (let k = 0; k < 100; k++) {
    const twice = (sum + b) | 0;
    const chosen = (twice & 1) !== 0 ? Math.imul(twice, 3) : twice >>> 1;
    sum = (chosen + (chosen ^ twice)) | 0;
  }
  assertEquals(many.call(expected, b), sum);
  assert(many.locals < 10, `${many.locals} locals`);
});

Deno.test("what is made before a loop keeps its local to the loop's end", () => {
  const looped = built((f, a, b) => {
    const before = a.mul(b);
    f.store32(0, before);
    const rounds = f.variable(I32T, 5);
    const sum = f.variable(I32T, 0);
    f.loop((again) => {
      // The first use is the last in program order; a local free behind it would be the next value's.
      sum.set(sum.get().add(before));
      const inside = sum.get().mul(7);
      f.store32(4, inside);
      f.store32(8, inside.add(1));
      rounds.set(rounds.get().sub(1));
      f.branchIf(rounds.get(), again);
    });
    f.return(sum.get());
  });
  assertEquals(looped.call(6, 9), 5 * 54);
});

/** Numbers that look random, the same for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
}

/** A program: what it does in WebAssembly, and in TypeScript. */
type Statement =
  | { kind: "value"; op: number; a: number; b: number }
  | { kind: "choose"; test: number; then: Statement[]; a: number; b: number }
  | { kind: "set"; variable: number; a: number }
  | { kind: "get"; variable: number }
  | { kind: "store"; at: number; a: number }
  | { kind: "load"; at: number }
  | { kind: "if"; test: number; then: Statement[]; otherwise: Statement[] }
  | { kind: "loop"; rounds: number; body: Statement[] };

const VARIABLES = 4;

/** Statements with `known` values before them, of which they may use all. */
function statements(random: (below: number) => number, known: number, depth: number): Statement[] {
  const list: Statement[] = [];
  for (let left = 3 + random(9); left > 0; left--) {
    const a = random(known);
    const b = random(known);
    const kind = random(depth > 0 ? 11 : 8);
    if (kind < 3) list.push({ kind: "value", op: random(4), a, b });
    else if (kind === 3) list.push({ kind: "set", variable: random(VARIABLES), a });
    else if (kind === 4) list.push({ kind: "get", variable: random(VARIABLES) });
    else if (kind === 5) list.push({ kind: "store", at: random(8), a });
    else if (kind === 6) list.push({ kind: "load", at: random(8) });
    else if (kind === 7) {
      const then = depth > 0 ? statements(random, known, 0) : [];
      list.push({ kind: "choose", test: random(known), then, a, b });
    } else if (kind < 10) {
      list.push({
        kind: "if",
        test: a,
        then: statements(random, known, depth - 1),
        otherwise: statements(random, known, depth - 1),
      });
    } else {
      const rounds = 1 + random(3);
      list.push({ kind: "loop", rounds, body: statements(random, known, depth - 1) });
    }
    if (["value", "get", "load", "choose"].includes(list[list.length - 1]!.kind)) known++;
  }
  return list;
}

function emit(
  f: FunctionBuilder,
  list: Statement[],
  outer: readonly I32[],
  variables: Variable<I32>[],
): void {
  const values = [...outer];
  for (const statement of list) {
    const value = (k: number): I32 => values[k]!;
    switch (statement.kind) {
      case "value": {
        const [a, b] = [value(statement.a), value(statement.b)];
        values.push([a.add(b), a.xor(b), a.mul(b), a.sub(b)][statement.op]!);
        break;
      }
      case "choose": {
        const { test, then, a, b } = statement;
        values.push(f.choose(I32T, value(test).and(1), () => {
          emit(f, then, values, variables);
          return value(a).add(1);
        }, () => value(b).add(2)));
        break;
      }
      case "set":
        variables[statement.variable]!.set(value(statement.a));
        break;
      case "get":
        values.push(variables[statement.variable]!.get());
        break;
      case "store":
        f.store32(4 * statement.at, value(statement.a));
        break;
      case "load":
        values.push(f.load32(4 * statement.at));
        break;
      case "if":
        f.if(
          value(statement.test).and(2),
          () => emit(f, statement.then, values, variables),
          () => emit(f, statement.otherwise, values, variables),
        );
        break;
      case "loop": {
        const rounds = f.variable(I32T, statement.rounds);
        f.loop((again) => {
          emit(f, statement.body, values, variables);
          rounds.set(rounds.get().sub(1));
          f.branchIf(rounds.get(), again);
        });
      }
    }
  }
}

function run(
  list: Statement[],
  outer: readonly number[],
  variables: number[],
  memory: Int32Array,
): void {
  const values = [...outer];
  for (const statement of list) {
    const value = (k: number): number => values[k]!;
    switch (statement.kind) {
      case "value": {
        const [a, b] = [value(statement.a), value(statement.b)];
        values.push([a + b, a ^ b, Math.imul(a, b), a - b][statement.op]! | 0);
        break;
      }
      case "choose":
        if ((value(statement.test) & 1) !== 0) {
          run(statement.then, values, variables, memory);
          values.push((value(statement.a) + 1) | 0);
        } else values.push((value(statement.b) + 2) | 0);
        break;
      case "set":
        variables[statement.variable] = value(statement.a);
        break;
      case "get":
        values.push(variables[statement.variable]!);
        break;
      case "store":
        memory[statement.at] = value(statement.a);
        break;
      case "load":
        values.push(memory[statement.at]!);
        break;
      case "if":
        run(
          (value(statement.test) & 2) !== 0 ? statement.then : statement.otherwise,
          values,
          variables,
          memory,
        );
        break;
      case "loop":
        for (let k = 0; k < statement.rounds; k++) run(statement.body, values, variables, memory);
    }
  }
}

Deno.test("random functions compute what TypeScript computes", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const list = statements(generator(seed), 3, 3);
    const { call, memory } = built((f, a, b) => {
      const variables = Array.from({ length: VARIABLES }, (_, k) => f.variable(I32T, k));
      emit(f, list, [a, b, i32(5)], variables);
      f.return(variables.reduce<I32>((sum, v) => sum.mul(31).add(v.get()), i32(0)));
    });
    const variables = Array.from({ length: VARIABLES }, (_, k) => k);
    const words = new Int32Array(8);
    run(list, [3 * seed, -seed, 5], variables, words);
    const expected = variables.reduce((sum, v) => (Math.imul(sum, 31) + v) | 0, 0);
    assertEquals(call(3 * seed, -seed), expected, `seed ${seed}`);
    assertEquals([...new Int32Array(memory.buffer, 0, 8)], [...words], `seed ${seed}`);
  }
});
