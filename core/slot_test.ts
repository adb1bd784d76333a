import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { SlotError } from "./errors.ts";
import { defineSlot, type Slot, Slots } from "./slot.ts";

const wordSlot: Slot<string> = defineSlot("word");
const numberSlot: Slot<number> = defineSlot("number", () => 7);

Deno.test("a reference follows its slot", () => {
  const slots = new Slots();
  const ref = slots.ref(wordSlot);
  assertStrictEquals(slots.ref(wordSlot), ref);
  assertEquals(slots.filled(wordSlot), false);

  const one = slots.provide(wordSlot, "one", "a");
  one.attach();
  assertEquals(ref.current, "one");
  assertEquals([slots.providerOf(wordSlot), slots.filled(wordSlot)], ["a", true]);
  one.detach();
  assertEquals(ref.current, undefined);
  slots.provide(wordSlot, "two", "b").attach();
  assertEquals(ref.current, "two");
});

Deno.test("a slot with a fallback is never empty, and goes back to the same one", () => {
  let made = 0;
  const slot: Slot<object> = defineSlot("made", () => ({ made: ++made }));
  const slots = new Slots();
  const ref = slots.ref(slot);
  const first = ref.current;
  const provision = slots.provide(slot, { made: 0 }, "a");
  provision.attach();
  provision.detach();
  assertStrictEquals(ref.current, first);
  assertEquals(made, 1);
  assertEquals(slots.providerOf(slot), undefined);
  assertEquals([new Slots().ref(slot).current, made], [{ made: 2 }, 2]);
});

Deno.test("a second provider is refused and both are named", () => {
  const slots = new Slots();
  slots.provide(numberSlot, 1, "a").attach();
  const error = assertThrows(() => slots.provide(numberSlot, 2, "b").attach(), SlotError);
  assertEquals(error.message, 'slot "number": both "a" and "b" provide it');
  assertEquals(slots.ref(numberSlot).current, 1);
});

Deno.test("users hear of a change once, when it is settled", () => {
  const slots = new Slots();
  const log: string[] = [];
  const use = (name: string) => {
    const binding = slots.use(numberSlot, name, false, (current, previous) => {
      log.push(`${name}: ${previous} to ${current}`);
    });
    binding.attach();
    return binding;
  };
  use("x");
  const y = use("y");
  slots.settle();
  assertEquals(log, []);

  const one = slots.provide(numberSlot, 1, "a");
  one.attach();
  assertEquals(log, []);
  slots.settle();
  slots.settle();
  assertEquals(log.splice(0), ["x: 7 to 1", "y: 7 to 1"]);

  // What comes and goes in between is not heard of, nor by who has left.
  y.detach();
  one.detach();
  slots.provide(numberSlot, 2, "b").attach();
  slots.settle();
  assertEquals(log, ["x: 1 to 2"]);
  assertEquals(slots.usersOf(numberSlot), ["x"]);
});

Deno.test("an error of one user keeps no other from being told, and is thrown", () => {
  const slots = new Slots();
  const log: string[] = [];
  slots.use(wordSlot, "x", false, () => {
    throw new Error("no");
  }).attach();
  slots.use(wordSlot, "y", true, (current) => void log.push(`y ${current}`)).attach();
  slots.provide(wordSlot, "one", "a").attach();
  assertThrows(() => slots.settle(), Error, "no");
  assertEquals(log, ["y one"]);
  slots.settle();
  // Only those count as users who cannot do without.
  assertEquals(slots.usersOf(wordSlot), ["x"]);
});
