import { assertEquals, assertThrows } from "@std/assert";
import { RequirementError, SlotError } from "./errors.ts";
import type { Plugin } from "./plugin.ts";
import { dependents, orderPlugins } from "./requirements.ts";
import { defineSlot, type Slot } from "./slot.ts";

const diskSlot: Slot<string> = defineSlot("disk");
const clockSlot: Slot<string> = defineSlot("clock", () => "default");

function plugin(name: string, rest: Partial<Plugin> = {}): Plugin {
  return { name, version: "1.0.0", setup() {}, ...rest };
}

const names = (plugins: readonly Plugin[]) => plugins.map(({ name }) => name);

Deno.test("without requirements the order is the one given", () => {
  assertEquals(names(orderPlugins([plugin("b"), plugin("a"), plugin("c")])), ["b", "a", "c"]);
});

Deno.test("what is required, by name or by slot, comes first", () => {
  const plugins = [
    plugin("guest", { requires: [diskSlot, "board"] }),
    plugin("other"),
    plugin("disk", { provides: [diskSlot], requires: ["controller"] }),
    plugin("board"),
    plugin("controller"),
  ];
  assertEquals(names(orderPlugins(plugins)), ["controller", "disk", "board", "guest", "other"]);
});

Deno.test("what is optional comes first if it is there", () => {
  const trace = plugin("trace", { optional: ["late", "absent", diskSlot] });
  assertEquals(names(orderPlugins([trace, plugin("late")])), ["late", "trace"]);
});

Deno.test("what is loaded already counts, and is not ordered again", () => {
  const loaded = [plugin("disk", { provides: [diskSlot] })];
  assertEquals(names(orderPlugins([plugin("guest", { requires: [diskSlot] })], loaded)), ["guest"]);
});

Deno.test("what is missing is named, unless the slot has a fallback", () => {
  const error = assertThrows(
    () => orderPlugins([plugin("guest", { requires: ["board"] })]),
    RequirementError,
  );
  assertEquals(error.message, 'plugin "guest" requires plugin "board", which is not loaded');
  assertThrows(
    () => orderPlugins([plugin("guest", { requires: [diskSlot] })]),
    RequirementError,
    'plugin "guest" requires slot "disk", which no plugin provides',
  );
  assertEquals(names(orderPlugins([plugin("guest", { requires: [clockSlot] })])), ["guest"]);
});

Deno.test("a cycle is named", () => {
  const plugins = [
    plugin("start", { requires: ["a"] }),
    plugin("a", { requires: [diskSlot] }),
    plugin("b", { provides: [diskSlot], optional: ["c"] }),
    plugin("c", { requires: ["a"] }),
  ];
  const error = assertThrows(() => orderPlugins(plugins), RequirementError);
  assertEquals(error.message, "plugins require each other: a -> b -> c -> a");
  assertEquals(error.plugins, ["a", "b", "c", "a"]);
});

Deno.test("one name and one provider of a slot", () => {
  assertThrows(
    () => orderPlugins([plugin("a")], [plugin("a")]),
    RequirementError,
    'two plugins are named "a"',
  );
  assertThrows(
    () =>
      orderPlugins([plugin("a", { provides: [diskSlot] })], [
        plugin("b", { provides: [diskSlot] }),
      ]),
    SlotError,
    'slot "disk": both "b" and "a" provide it',
  );
});

Deno.test("dependents are those who require a plugin or its slots", () => {
  const disk = plugin("disk", { provides: [diskSlot, clockSlot] });
  const all = [
    disk,
    plugin("by name", { requires: ["disk"] }),
    plugin("by slot", { requires: [diskSlot] }),
    plugin("can do without", { requires: [clockSlot], optional: [diskSlot] }),
  ];
  assertEquals(names(dependents(disk, all)), ["by name", "by slot"]);
});
