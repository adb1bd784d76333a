import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, PluginError, VmStateError } from "./errors.ts";
import { Timer, TimerQueue } from "./timer.ts";

function timers(names: string[], queue = new TimerQueue()) {
  const fired: string[] = [];
  const made = names.map((name) => {
    const timer = new Timer(queue, name, "test", ({ name }) => void fired.push(name));
    queue.bind(timer).attach();
    return timer;
  });
  const fireAll = (now: number): string[] => {
    while (queue.fireNext(now));
    return fired.splice(0);
  };
  return { queue, made, fireAll };
}

Deno.test("timers fire by deadline, then in the order in which they were armed", () => {
  const { queue, made: [a, b, c, d], fireAll } = timers(["a", "b", "c", "d"]);
  a?.arm(30);
  b?.arm(10);
  c?.arm(30);
  d?.arm(20);
  assertEquals(queue.next, 10);
  assertEquals(queue.armed.map(({ name }) => name), ["b", "d", "a", "c"]);
  assertEquals(fireAll(9), []);
  assertEquals(fireAll(20), ["b", "d"]);
  assertEquals([b?.armed, a?.armed, b?.deadline], [false, true, 10]);
  a?.arm(30);
  assertEquals(fireAll(1000), ["c", "a"]);
  assertEquals(queue.next, Infinity);
});

Deno.test("a timer armed again, or cancelled, does not fire as before", () => {
  const { queue, made: [a, b], fireAll } = timers(["a", "b"]);
  a?.arm(10);
  b?.arm(20);
  a?.arm(30);
  assertEquals(queue.next, 20);
  b?.cancel();
  b?.cancel();
  assertEquals(queue.next, 30);
  assertEquals(fireAll(100), ["a"]);
});

Deno.test("the queue stays in order whatever is armed and cancelled", () => {
  const { queue, made, fireAll } = timers(Array.from({ length: 60 }, (_, i) => `${i}`));
  // A small generator with a fixed seed (Park and Miller's).
  let seed = 12345;
  const random = (below: number) => (seed = seed * 48271 % 2147483647) % below;
  const model = new Map<Timer, [deadline: number, order: number]>();
  for (let i = 0; i < 3000; i++) {
    // Now and then it is emptied as in use, by firing what is due.
    if (i % 500 === 250) {
      const due = queue.armed.filter(({ deadline }) => deadline <= 25);
      assertEquals(fireAll(25), due.map(({ name }) => name));
      for (const timer of due) model.delete(timer);
    }
    const timer = made[random(made.length)] as Timer;
    if (random(3) === 0) {
      timer.cancel();
      model.delete(timer);
    } else {
      const deadline = random(50);
      timer.arm(deadline);
      model.set(timer, [deadline, i]);
    }
    const wanted = [...model].sort(([, a], [, b]) => a[0] - b[0] || a[1] - b[1]);
    assertEquals(queue.next, wanted[0]?.[1][0] ?? Infinity);
    if (i % 100 === 0) assertEquals(queue.armed, wanted.map(([timer]) => timer));
  }
  const order = queue.armed.map(({ name }) => name);
  assertEquals(order.length > 20, true);
  assertEquals(fireAll(Infinity), order);
});

Deno.test("who must run earlier than planned hears of it, and only then", () => {
  const heard: number[] = [];
  const { made: [a, b] } = timers(
    ["a", "b"],
    new TimerQueue((deadline) => void heard.push(deadline)),
  );
  a?.arm(100);
  b?.arm(200);
  b?.arm(50);
  assertEquals(heard, [100, 50]);
});

Deno.test("a timer that is taken out and put back fires as it would have", () => {
  const queue = new TimerQueue();
  const order: string[] = [];
  const make = (name: string) => {
    const timer = new Timer(queue, name, "test", () => void order.push(name));
    return { timer, binding: queue.bind(timer) };
  };
  const [a, b] = [make("a"), make("b")];
  assertThrows(() => a.timer.arm(5), VmStateError);
  for (const { binding, timer } of [a, b]) {
    binding.attach();
    timer.arm(10);
  }
  a.binding.detach();
  assertEquals([a.timer.armed, queue.next], [false, 10]);
  a.binding.attach();
  while (queue.fireNext(10));
  assertEquals(order, ["a", "b"]);
});

Deno.test("deadlines are times, and what a callback throws names the timer", () => {
  const { made: [a] } = timers(["a"]);
  for (const deadline of [NaN, Infinity, -Infinity]) {
    assertThrows(() => a?.arm(deadline), ArgumentError, 'timer "a"');
  }
  const queue = new TimerQueue();
  const bad = new Timer(queue, "bad", "clock-plugin", () => {
    throw new Error("no");
  });
  queue.bind(bad).attach();
  bad.arm(0);
  const error = assertThrows(() => queue.fireNext(0), PluginError);
  assertEquals(error.message, 'plugin "clock-plugin" failed in timer "bad": no');
  assertEquals(bad.armed, false);
});
