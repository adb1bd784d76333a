import { assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";
import { ArgumentError, HookOrderError, PluginError } from "./errors.ts";
import {
  defineHook,
  defineKeyedHook,
  type Handler,
  type Hook,
  type HookKind,
  type HookOrder,
  type KeyedHook,
} from "./hook.ts";
import { type HookOwner, type HookPoint, Hooks } from "./hook_points.ts";
import type { Binding } from "./registration.ts";

type Text = (name: string) => string | undefined;
type Note = (log: string[]) => void;
type Sum = (sum: number, by: number) => number;

const firstHook: Hook<Text, "first"> = defineHook({ name: "ask", kind: "first", arity: 1 });
const eachHook: Hook<Note, "each"> = defineHook({ name: "tell", kind: "each", arity: 1 });
const foldHook: Hook<Sum, "fold"> = defineHook({ name: "sum", kind: "fold", arity: 2 });
const gatherHook: Hook<Text, "gather"> = defineHook({ name: "poll", kind: "gather", arity: 1 });
const denseHook: KeyedHook<Text, "first"> = defineKeyedHook({
  name: "dense",
  kind: "first",
  arity: 1,
  keys: 8,
});
const sparseHook: KeyedHook<Sum, "fold"> = defineKeyedHook({
  name: "sparse",
  kind: "fold",
  arity: 2,
  keys: "sparse",
});

const owner = (name: string, position = 0): HookOwner => ({ name, position });

function add<F extends Handler, K extends HookKind>(
  hooks: Hooks,
  hook: Hook<F, K>,
  plugin: HookOwner,
  handler: NoInfer<F>,
  order?: HookOrder,
): Binding {
  const binding = hooks.point(hook).bind(hooks.entry(plugin, handler, order));
  binding.attach();
  return binding;
}

function order(hooks: Hooks): string[] {
  const log: string[] = [];
  hooks.point(eachHook).call(log);
  return log;
}

function note(hooks: Hooks, name: string, position: number, order?: HookOrder): Binding {
  return add(hooks, eachHook, owner(name, position), (log) => void log.push(name), order);
}

Deno.test("a hook without handlers does what its kind does with none", () => {
  const hooks = new Hooks();
  assertEquals(hooks.point(firstHook).call("x"), undefined);
  assertEquals(hooks.point(eachHook).call([]), undefined);
  assertEquals(hooks.point(foldHook).call(7, 1), 7);
  assertEquals(hooks.point(gatherHook).call("x"), []);
});

Deno.test("first stops at the first answer", () => {
  const hooks = new Hooks();
  const asked: string[] = [];
  const answer = (name: string, value: string | undefined) =>
    add(hooks, firstHook, owner(name), (question) => {
      asked.push(`${name} ${question}`);
      return value;
    });
  answer("a", undefined);
  answer("b", "");
  answer("c", "late");
  assertEquals(hooks.point(firstHook).call("q"), "");
  assertEquals(asked, ["a q", "b q"]);
});

Deno.test("fold passes the value through, gather collects the answers", () => {
  const hooks = new Hooks();
  add(hooks, foldHook, owner("a"), (sum, by) => sum + by);
  add(hooks, foldHook, owner("b"), (sum, by) => sum * by);
  assertEquals(hooks.point(foldHook).call(2, 3), 15);

  add(hooks, gatherHook, owner("a"), (name) => `${name}1`);
  add(hooks, gatherHook, owner("b"), () => undefined);
  add(hooks, gatherHook, owner("c"), (name) => `${name}2`);
  assertEquals(hooks.point(gatherHook).call("x"), ["x1", "x2"]);
});

Deno.test("handlers run by plugin position, then by registration", () => {
  const hooks = new Hooks();
  note(hooks, "second", 2);
  note(hooks, "first", 1);
  note(hooks, "second again", 2);
  assertEquals(order(hooks), ["first", "second", "second again"]);
});

Deno.test("stages come before everything else, before and after within a stage", () => {
  const hooks = new Hooks();
  note(hooks, "post", 0, { stage: "post" });
  note(hooks, "a", 1, { after: ["c"] });
  note(hooks, "b", 2);
  note(hooks, "c", 3);
  note(hooks, "d", 4, { before: ["b", "not there"] });
  note(hooks, "pre", 5, { stage: "pre", after: ["a"] });
  assertEquals(order(hooks), ["pre", "c", "a", "d", "b", "post"]);
});

Deno.test("a cycle is refused, named, and leaves the hook as it was", () => {
  const hooks = new Hooks();
  note(hooks, "a", 0, { before: ["b"] });
  note(hooks, "b", 1, { before: ["c"] });
  note(hooks, "outside", 2);
  const error = assertThrows(() => note(hooks, "c", 3, { before: ["a"] }), HookOrderError);
  assertEquals(error.hook, "tell");
  assertEquals(error.cycle.length, 4);
  assertEquals(error.cycle[0], error.cycle[3]);
  assertEquals([...error.cycle].sort().filter((name, i, all) => name !== all[i - 1]), [
    "a",
    "b",
    "c",
  ]);
  // The cycle is named in the direction of the calls.
  assertEquals(error.cycle[(error.cycle.indexOf("a") + 1) % 3], "b");
  assertEquals(order(hooks), ["a", "b", "outside"]);
});

Deno.test("the function is compiled once and again only when registrations change", () => {
  const hooks = new Hooks();
  const point = hooks.point(eachHook);
  const a = note(hooks, "a", 0);
  const waiting = point.call;
  order(hooks);
  const compiled = point.call;
  assertEquals(compiled === waiting, false);
  order(hooks);
  assertStrictEquals(point.call, compiled);

  const b = note(hooks, "b", 1);
  assertEquals(order(hooks), ["a", "b"]);
  a.detach();
  assertEquals(order(hooks), ["b"]);
  a.attach();
  assertEquals(order(hooks), ["a", "b"]);
  a.detach();
  b.detach();
  assertEquals(order(hooks), []);
});

Deno.test("a handler that registers during a call is heard from the next call on", () => {
  const hooks = new Hooks();
  let late: Binding | undefined;
  add(hooks, eachHook, owner("a"), (log) => {
    log.push("a");
    late ??= note(hooks, "late", 1);
  });
  assertEquals(order(hooks), ["a"]);
  assertEquals(order(hooks), ["a", "late"]);
});

Deno.test("a function fetched before a change still calls what is registered now", () => {
  const hooks = new Hooks();
  const point: HookPoint<Note, "each"> = hooks.point(eachHook);
  note(hooks, "a", 0);
  const stale = point.call;
  note(hooks, "b", 1);
  const log: string[] = [];
  stale(log);
  assertEquals(log, ["a", "b"]);
});

Deno.test("what a handler throws names plugin, hook and vCPU", () => {
  const hooks = new Hooks((argument) => argument === 42 ? 3 : undefined);
  const cause = new Error("broken");
  add(hooks, foldHook, owner("fine"), (sum) => sum);
  add(hooks, foldHook, owner("culprit"), () => {
    throw cause;
  });
  const error = assertThrows(() => hooks.point(foldHook).call(1, 42), PluginError);
  assertEquals(error.plugin, "culprit");
  assertEquals(error.hook, 'hook "sum"');
  assertEquals(error.vcpuId, 3);
  assertStrictEquals(error.cause, cause);
  assertEquals(error.message, 'plugin "culprit" failed in hook "sum" on vCPU 3: broken');
});

Deno.test("an error that passes through two hooks belongs to the inner one", () => {
  const hooks = new Hooks();
  add(hooks, foldHook, owner("inner"), () => {
    throw "text";
  });
  add(hooks, firstHook, owner("outer"), () => String(hooks.point(foldHook).call(1, 2)));
  const error = assertThrows(() => hooks.point(firstHook).call("x"), PluginError);
  assertEquals([error.plugin, error.hook, error.vcpuId], ["inner", 'hook "sum"', undefined]);
  assertEquals(error.message, 'plugin "inner" failed in hook "sum": text');
});

Deno.test("a dense keyed hook is a table with holes where nobody registered", () => {
  const hooks = new Hooks();
  const point = hooks.keyedPoint(denseHook);
  assertEquals(point.table.length, 8);
  const binding = point.bind(5, hooks.entry(owner("a"), (name: string) => `5 ${name}`));
  assertEquals(point.get(5), undefined);
  binding.attach();
  assertEquals(point.table[5]?.("x"), "5 x");
  assertStrictEquals(point.table[5], point.get(5));
  assertEquals(point.table[4], undefined);
  assertEquals(point.keys, [5]);
  binding.detach();
  assertEquals(point.table[5], undefined);
  assertEquals(point.keys, []);
  assertThrows(() => point.bind(8, hooks.entry(owner("a"), () => undefined)), ArgumentError);
  assertThrows(() => point.bind(0.5, hooks.entry(owner("a"), () => undefined)), ArgumentError);
});

Deno.test("a sparse keyed hook takes any 32-bit key", () => {
  const hooks = new Hooks();
  const point = hooks.keyedPoint(sparseHook);
  const bindings = [0xc000_0080, 0].map((key) => {
    const binding = point.bind(key, hooks.entry(owner(`at ${key}`), (sum: number) => sum + key));
    binding.attach();
    return binding;
  });
  assertEquals(point.get(0xc000_0080)?.(1, 0), 0xc000_0081);
  assertEquals(point.get(1), undefined);
  assertEquals(point.keys, [0, 0xc000_0080]);
  for (const binding of bindings) binding.detach();
  assertEquals(point.get(0), undefined);
  assertThrows(() => point.bind(2 ** 32, hooks.entry(owner("a"), () => 0)), ArgumentError);
});

Deno.test("an error in a keyed hook names the key", () => {
  const hooks = new Hooks();
  const point = hooks.keyedPoint(denseHook);
  point.bind(
    2,
    hooks.entry(owner("a"), () => {
      throw new Error("no");
    }),
  ).attach();
  const error = assertThrows(() => point.table[2]?.("x"), PluginError);
  assertEquals(error.hook, 'hook "dense[2]"');
});

Deno.test("points are the same object each time, and different in another VM", () => {
  const [one, other] = [new Hooks(), new Hooks()];
  assertStrictEquals(one.point(eachHook), one.point(eachHook));
  assertStrictEquals(one.keyedPoint(denseHook), one.keyedPoint(denseHook));
  note(one, "a", 0);
  assertEquals(order(one), ["a"]);
  assertEquals(order(other), []);
  // @ts-expect-error A keyed hook has no single point.
  one.point(denseHook);
});

Deno.test("hooks check their definition", () => {
  const define = (arity: number, keys: number | "sparse") =>
    defineKeyedHook<(...args: number[]) => number, "fold">({
      name: "bad",
      kind: "fold",
      arity,
      keys,
    });
  for (const [arity, keys] of [[0, 1], [1.5, 1], [17, 1], [1, 0], [1, 65537], [1, 1.5]] as const) {
    assertInstanceOf(assertThrows(() => define(arity, keys)), ArgumentError);
  }
});
