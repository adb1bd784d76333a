import { assert, assertEquals, assertThrows } from "@std/assert";
import { type FunctionBuilder, I32T, I64T, ModuleBuilder, v128Of } from "./mod.ts";
import type { I32, I64 } from "./mod.ts";
import { foldI32, foldI64 } from "./fold.ts";
import { foldVectors, foldVectorShift } from "./fold_vector.ts";
import { INTEGER_OPS, type IntegerOp } from "./opcodes.ts";
import {
  VECTOR_BINARY,
  VECTOR_SHIFT,
  type VectorBinary,
  type VectorShift,
} from "./simd_opcodes.ts";

const PAGES = 1;
const TABLE = 16;

function instantiate(module: ModuleBuilder, imports: Record<string, WebAssembly.ImportValue> = {}) {
  const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES });
  const table = new WebAssembly.Table({ initial: TABLE, element: "anyfunc" });
  const compiled = new WebAssembly.Module(module.encode());
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory, table, ...imports } });
  return { exports: exports as Record<string, CallableFunction>, memory, table };
}

const builder = () => new ModuleBuilder({ memoryPages: PAGES, tableSize: TABLE });

Deno.test("constant folding agrees with what V8 computes", () => {
  const samples = [0, 1, -1, 2, 7, 31, 32, 63, 64, 0x7fff_ffff, -0x8000_0000, 0x1234_5678];
  const wide = [...samples.map(BigInt), 1n << 63n, (1n << 63n) - 1n, 0x1234_5678_9abc_def0n]
    .map((value) => BigInt.asIntN(64, value));
  const names = Object.keys(INTEGER_OPS) as IntegerOp[];
  const module = builder();
  const unary = new Set(["eqz", "clz", "ctz", "popcnt", "extend8S", "extend16S"]);
  for (const name of names) {
    module.define(`i32_${name}`, [I32T, I32T], I32T, (f, a, b) => {
      f.return((a[name] as (other?: I32) => I32).call(a, unary.has(name) ? undefined : b));
    }, true);
    module.define(`i64_${name}`, [I64T, I64T], I64T, (f, a, b) => {
      const value = (a[name] as (other?: I64) => I64 | I32).call(
        a,
        unary.has(name) ? undefined : b,
      );
      f.return(value.type === I32T.code ? (value as I32).extendU() : value);
    }, true);
  }
  const { exports } = instantiate(module);
  for (const name of names) {
    for (const a of samples) {
      for (const b of samples) {
        const folded = foldI32(name, a, b);
        if (folded === undefined) assertThrows(() => exports[`i32_${name}`]!(a, b));
        else assertEquals(folded, exports[`i32_${name}`]!(a, b), `i32.${name} ${a} ${b}`);
      }
    }
    for (const a of wide) {
      for (const b of wide) {
        const folded = foldI64(name, a, b);
        if (folded === undefined) assertThrows(() => exports[`i64_${name}`]!(a, b));
        else assertEquals(folded, exports[`i64_${name}`]!(a, b), `i64.${name} ${a} ${b}`);
      }
    }
  }
});

Deno.test("constant folding of vectors agrees with what V8 computes", () => {
  const samples = [
    0n,
    (1n << 128n) - 1n,
    0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100n,
    0x8000_7fff_ffff_0001_8000_0000_7fff_ffffn,
    0x1010_0c0c_0303_0000_f00f_7f80_0102_0304n,
    0x0123_4567_89ab_cdef_fedc_ba98_7654_3210n,
  ];
  const module = builder();
  const binary = (Object.keys(VECTOR_BINARY) as VectorBinary[])
    .filter((name) => foldVectors(name, 0n, 0n) !== undefined);
  const shifts = Object.keys(VECTOR_SHIFT) as VectorShift[];
  for (const name of binary) {
    module.define(name, [], undefined, (f) => {
      f.store128(0, f.load128(0).binary(name, f.load128(0, 16)), 32);
    }, true);
  }
  for (const name of shifts) {
    module.define(name, [I32T], undefined, (f, count) => {
      f.store128(0, f.load128(0).shift(name, count), 32);
    }, true);
  }
  const { exports, memory } = instantiate(module);
  const longs = new BigUint64Array(memory.buffer);
  const set = (at: number, value: bigint): void => {
    longs[at] = BigInt.asUintN(64, value);
    longs[at + 1] = value >> 64n;
  };
  const result = (): bigint => longs[4]! | (longs[5]! << 64n);
  for (const a of samples) {
    set(0, a);
    for (const b of samples) {
      set(2, b);
      for (const name of binary) {
        exports[name]!();
        assertEquals(foldVectors(name, a, b), result(), `${name} ${a} ${b}`);
      }
    }
    for (const name of shifts) {
      for (const count of [0, 1, 7, 15, 31, 63, 64, 200]) {
        exports[name]!(count);
        assertEquals(foldVectorShift(name, a, count), result(), `${name} ${a} ${count}`);
      }
    }
  }
});

Deno.test("vector operators that constants make needless leave the value, or another constant", () => {
  const module = builder();
  module.define("fold", [], undefined, (f) => {
    const a = f.load128(0);
    const ones = v128Of(8, 0xff), none = v128Of(8, 0), some = v128Of(16, 0x1234);
    for (const same of [a.and(ones), a.andNot(none), a.or(none), a.xor(none)]) assert(same === a);
    for (const zero of [a.and(none), a.andNot(ones)]) assertEquals(zero.constant, 0n);
    assert(a.select(some, ones) === a);
    assert(a.select(some, none) === some);
    assertEquals(ones.select(none, some).constant, some.constant);
    assertEquals(some.not().constant, ones.xor(some).constant);
    const reversed = Array.from({ length: 16 }, (_, k) => 15 - k);
    assertEquals(some.shuffle(ones, reversed).constant, v128Of(16, 0x3412).constant);
    assertEquals(some.shuffle(ones, reversed.map((k) => k + 16)).constant, ones.constant);
  });
  module.encode();
});

Deno.test("a value keeps what it was when it was written, whatever happens after", () => {
  const module = builder();
  module.define("order", [I32T], I32T, (f, address) => {
    const before = f.load32(address);
    f.store32(address, before.add(1));
    const middle = f.load32(address);
    f.store32(address, middle.mul(10));
    f.return(f.load32(address).mul(10000).add(middle.mul(100)).add(before));
  }, true);
  module.define("snapshot", [I32T], I32T, (f, a) => {
    const variable = f.variable(I32T, a);
    const old = variable.get();
    variable.set(old.add(5));
    f.return(old.mul(100).add(variable.get()));
  }, true);
  const { exports, memory } = instantiate(module);
  new Uint32Array(memory.buffer)[2] = 3;
  assertEquals(exports.order!(8), 40 * 10000 + 4 * 100 + 3);
  assertEquals(exports.snapshot!(7), 712);
});

Deno.test("values defined before a loop are not recomputed from what the loop changes", () => {
  const module = builder();
  module.define("sum", [I32T], I32T, (f, count) => {
    const i = f.variable(I32T, 0);
    const total = f.variable(I32T, 0);
    const start = i.get().add(1000);
    f.while(() => i.get().ltU(count), () => {
      i.set(i.get().add(1));
      total.set(total.get().add(start));
    });
    f.return(total.get());
  }, true);
  const { exports } = instantiate(module);
  assertEquals(exports.sum!(5), 5000);
});

Deno.test("unused values and what only they used leave no code", () => {
  const size = (build: (f: FunctionBuilder, a: I32) => void) => {
    const module = builder();
    module.define("f", [I32T], I32T, build);
    return module.encode().length;
  };
  const lean = size((f, a) => f.return(a));
  const wasteful = size((f, a) => {
    f.load32(a.add(4).mul(3)).extendU().shl(7);
    f.return(a);
  });
  assertEquals(wasteful, lean);
});

Deno.test("control flow: if, choose, switch, blocks, tail calls, exceptions", () => {
  const module = builder();
  const log = module.import("log", [I32T], undefined);
  const tag = module.tag();
  const thrower = module.define("thrower", [I32T], undefined, (f, a) => {
    f.if(a.gtS(10), () => f.throw(tag), undefined, "unlikely");
  });
  const even = module.declare("even", [I32T], I32T, true);
  const odd = module.declare("odd", [I32T], I32T);
  module.body(even, (f, n) => {
    f.if(n.eqz(), () => f.return(1));
    f.returnCall(odd, n.sub(1));
  });
  module.body(odd, (f, n) => {
    f.if(n.eqz(), () => f.return(0));
    f.returnCall(even, n.sub(1));
  });
  module.define("caught", [I32T], I32T, (f, a) => {
    const result = f.variable(I32T, 1);
    f.tryCatch(tag, () => f.call(thrower, a), () => result.set(2));
    f.return(result.get());
  }, true);
  module.define("pick", [I32T], I32T, (f, a) => {
    const result = f.variable(I32T, -1);
    f.switch(a, [10, 20, 30].map((value) => () => result.set(value)), () => result.set(99));
    f.call(log, result.get());
    f.return(f.choose(I32T, result.get().eq(20), () => 7, () => result.get()));
  }, true);
  const seen: number[] = [];
  const { exports } = instantiate(module, { log: (value: number) => seen.push(value) });
  assertEquals([0, 1, 2, 3, 4].map((n) => exports.pick!(n)), [10, 7, 30, 99, 99]);
  assertEquals(seen, [10, 20, 30, 99, 99]);
  assertEquals([exports.caught!(10), exports.caught!(11)], [1, 2]);
  assertEquals(exports.even!(1_000_001), 0);
});

Deno.test("indirect tail calls go through the table", () => {
  const module = builder();
  const signature = { params: [I32T], result: undefined } as const;
  const last = module.define("last", [I32T], undefined, (f, a) => f.store32(16, a));
  const first = module.define("first", [I32T], undefined, (f, a) => {
    f.returnCallIndirect(signature, f.load32(0), [a.add(1)]);
  });
  module.element(3, first);
  module.element(7, last);
  module.define(
    "run",
    [I32T],
    undefined,
    (f, a) => f.callIndirect(signature, i32Three(f), [a]),
    true,
  );
  const { exports, memory } = instantiate(module);
  const words = new Uint32Array(memory.buffer);
  words[0] = 7;
  exports.run!(41);
  assertEquals(words[4], 42);
});

const i32Three = (f: FunctionBuilder): I32 => f.load8(100).add(3);
