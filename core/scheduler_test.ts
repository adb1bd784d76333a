import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import {
  ArgumentError,
  eventRequest,
  ExitReason,
  initRequest,
  MpState,
  type Plugin,
  requestHook,
  roundRobin,
  type RoundRobinOptions,
  type Scheduler,
  schedulerSlot,
  type Vcpu,
  vcpuLoadHook,
  vcpuPutHook,
} from "./mod.ts";
import { type GuestScript, type ScriptedVm, scriptedVm } from "./testing/mod.ts";

/** A VM whose vCPUs all run `guest`, and who was placed where, and who executed how much in turn. */
function machine(
  cpus: number,
  processors: number,
  guest: GuestScript,
  options: RoundRobinOptions = {},
): ScriptedVm & { placed: string[]; turns: () => string[] } {
  const placed: string[] = [];
  const turns: [id: number, instructions: number][] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      const now = () => ctx.vm.clock.current.now();
      ctx.on(vcpuLoadHook, (vcpu, pcpu) => {
        placed.push(`${now()}: ${vcpu.id} on ${pcpu}`);
      });
      ctx.on(vcpuPutHook, (vcpu) => {
        const halted = vcpu.mpState === MpState.HALTED ? ", halted" : "";
        placed.push(`${now()}: ${vcpu.id} off ${vcpu.pcpu}${halted}`);
      });
      ctx.on(ctx.vm.points.beforeEnter.hook, (vcpu) => {
        turns.push([vcpu.id, vcpu.instructions]);
      });
    },
  };
  const m = scriptedVm({ cpus, processors, guest, plugins: [watcher, roundRobin(options)] });
  for (const vcpu of m.vm.vcpus) vcpu.mpState = MpState.RUNNABLE;
  return {
    ...m,
    placed,
    turns: () => turns.map(([id, instructions]) => `${id} from ${instructions}`),
  };
}

const spin: GuestScript = function* () {
  for (;;) yield 1000;
};

Deno.test("host processors take turns of one quantum", () => {
  using m = machine(3, 3, spin, { quantum: 100 });
  m.vm.runSync({ instructions: 700 });
  assertEquals(m.placed, ["0: 0 on 0", "0: 1 on 1", "0: 2 on 2"]);
  assertEquals(m.turns(), [
    "0 from 0",
    "1 from 0",
    "2 from 0",
    "0 from 100",
    "1 from 100",
    "2 from 100",
    "0 from 200",
  ]);
  assertEquals(m.vm.vcpus.map(({ pcpu }) => pcpu), [0, 1, 2]);
});

Deno.test("a lone vCPU is never interrupted, until it gets company", () => {
  using m = machine(1, 2, spin, { quantum: 100 });
  m.vm.runSync({ instructions: 1000 });
  assertEquals(m.turns(), ["0 from 0"]);
  m.vm.addVcpu(1).mpState = MpState.RUNNABLE;
  m.vm.runSync({ instructions: 300 });
  assertEquals(m.turns().slice(1), ["1 from 0", "0 from 1000", "1 from 100"]);
});

Deno.test("with more vCPUs than processors, timeslices are shared out", () => {
  using m = machine(3, 2, spin, { quantum: 100, timeslice: 400 });
  m.vm.runSync({ instructions: 1200 });
  assertEquals(m.placed, [
    "0: 0 on 0",
    "0: 1 on 1",
    "400: 0 off 0",
    "400: 2 on 0",
    "400: 1 off 1",
    "400: 0 on 1",
    "800: 2 off 0",
    "800: 1 on 0",
    "800: 0 off 1",
    "800: 2 on 1",
  ]);
  assertEquals(m.vm.vcpus.map(({ instructions }) => instructions), [400, 400, 400]);
});

Deno.test("a vCPU that halts leaves its processor to one that waits, and comes back when woken", () => {
  using m = machine(2, 1, function* (vcpu) {
    if (vcpu.id === 1) {
      yield 30;
      m.vcpu.events.queueNmi();
      for (;;) yield 1000;
    }
    yield 50;
    yield (exit) => void (exit.reason = ExitReason.HLT);
    yield 99;
    yield (exit) => void (exit.reason = ExitReason.HLT);
  }, { quantum: 100, timeslice: 5000 });
  m.vm.runSync({ instructions: 8000 });
  const firstHalt = 50 + 1 + 1000;
  const secondHalt = firstHalt + 5000 + 99 + 1 + 1000;
  assertEquals(m.placed, [
    "0: 0 on 0",
    `${firstHalt}: 0 off 0, halted`,
    `${firstHalt}: 1 on 0`,
    `${firstHalt + 5000}: 1 off 0`,
    `${firstHalt + 5000}: 0 on 0`,
    `${secondHalt}: 0 off 0, halted`,
    `${secondHalt}: 1 on 0`,
  ]);
  assertEquals(m.vendor.cpu(m.vcpu).delivered, [{ event: "nmi", vector: 2, at: 51 }]);
});

Deno.test("who takes the place of one that halted does not get the rest of its turn", () => {
  using m = machine(3, 2, function* (vcpu) {
    if (vcpu.id === 0) {
      yield 10;
      yield (exit) => void (exit.reason = ExitReason.HLT);
    }
    for (;;) yield 1000;
  }, { quantum: 10_000 });
  m.vm.runSync({ instructions: 9000 });
  assertEquals(m.turns(), ["0 from 0", "1 from 0"]);
  assertEquals(m.placed.slice(2), ["1011: 0 off 0, halted", "1011: 2 on 0"]);
});

Deno.test("a vCPU added by a handler gets its turn", () => {
  using m = machine(1, 2, function* (vcpu) {
    if (vcpu.id === 0) {
      yield 10;
      vcpu.vm.addVcpu(1).mpState = MpState.RUNNABLE;
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
    }
    for (;;) yield 1000;
  }, { quantum: 100 });
  m.vm.runSync({ instructions: 2000 });
  const [first, second] = m.vm.vcpus.map(({ instructions }) => instructions);
  assertEquals([first, second], [1000, 1000]);
});

Deno.test("PAUSE gives the rest of the turn away", () => {
  using m = machine(2, 2, function* () {
    for (;;) {
      yield 9;
      yield (exit) => void (exit.reason = ExitReason.PAUSE);
    }
  }, { quantum: 1_000_000 });
  m.vm.runSync({ instructions: 40 });
  assertEquals(m.turns(), ["0 from 0", "1 from 0", "0 from 10", "1 from 10"]);
});

Deno.test("quanta and timeslices are positive integers", () => {
  for (const options of [{ quantum: 0 }, { timeslice: -5 }, { quantum: 1.5 }, { timeslice: NaN }]) {
    assertThrows(() => roundRobin(options), ArgumentError, "is not a positive integer");
  }
});

Deno.test("another scheduler finds nobody placed", () => {
  class LastFirst implements Scheduler {
    readonly name = "last-first";
    readonly until = Infinity;
    pick(vm: ScriptedVm["vm"]): Vcpu | undefined {
      const vcpu = [...vm.vcpus].reverse().find(({ runnable }) => runnable);
      if (vcpu !== undefined && vcpu.pcpu < 0) vcpu.load(0);
      return vcpu;
    }
    yield(): void {}
  }
  using m = machine(2, 2, spin);
  m.vm.runSync({ instructions: 10 });
  m.vm.swap("scheduler", {
    name: "scheduler",
    version: "2.0.0",
    provides: [schedulerSlot],
    setup: (ctx) => ctx.provide(schedulerSlot, new LastFirst()),
  });
  assertEquals(m.vm.vcpus.map(({ pcpu }) => pcpu), [-1, -1]);
  const before = m.vm.vcpus[0]?.instructions;
  m.vm.runSync({ instructions: 100 });
  assertEquals(m.vm.vcpus[0]?.instructions, before);
  assertEquals(m.placed.slice(2), ["10: 0 off 0", "10: 1 off 1", "10: 1 on 0"]);
});

Deno.test("a vCPU for which an INIT waits is placed to carry it out, and goes again", () => {
  const log: string[] = [];
  const starter: Plugin = {
    name: "starter",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(requestHook, initRequest.id, (vcpu) => {
        log.push(`init of ${vcpu.id} on ${vcpu.pcpu}`);
        if (vcpu.id === 2) vcpu.mpState = MpState.RUNNABLE;
      });
      ctx.on(vcpuLoadHook, (vcpu, pcpu) => void log.push(`${vcpu.id} on ${pcpu}`));
      ctx.on(vcpuPutHook, (vcpu) => void log.push(`${vcpu.id} off ${vcpu.pcpu}`));
    },
  };
  using m = scriptedVm({
    cpus: 3,
    processors: 1,
    plugins: [starter, roundRobin({ timeslice: 30 })],
    guest: spin,
  });
  m.vcpu.mpState = MpState.UNINITIALIZED;
  for (const index of [1, 2]) m.vm.vcpus[index]?.request(initRequest);
  m.vm.runSync({ instructions: 10 });
  assertEquals(log, ["1 on 0", "init of 1 on 0", "1 off 0", "2 on 0", "init of 2 on 0"]);
  assertEquals(m.vm.vcpus.map(({ instructions }) => instructions), [0, 0, 10]);
});

Deno.test("a scheduler that throws is named", () => {
  using m = scriptedVm({
    plugins: [{
      name: "bad",
      version: "1.0.0",
      provides: [schedulerSlot],
      setup: (ctx) =>
        ctx.provide(schedulerSlot, {
          name: "bad",
          until: 0,
          pick: () => {
            throw new Error("no idea");
          },
          yield: () => {},
        }),
    }],
  });
  const result = m.vm.runSync();
  assertEquals(
    result.reason === "error" && result.error.message,
    'plugin "bad" failed in slot "scheduler": no idea',
  );
  m.vcpu.clearRequest(eventRequest);
});

Deno.test("a seed varies turns and time slices, the same way each time", () => {
  const turnsOf = (options: RoundRobinOptions): string[] => {
    using m = machine(4, 2, spin, { quantum: 100, timeslice: 1000, ...options });
    m.vm.runSync({ instructions: 20_000 });
    return [...m.turns(), ...m.placed];
  };
  const plain = turnsOf({});
  const one = turnsOf({ seed: 1 });
  assertEquals(turnsOf({ seed: 1 }), one);
  assertNotEquals(one, plain);
  assertNotEquals(turnsOf({ seed: 2 }), one);
  assertNotEquals(turnsOf({ seed: 0 }), plain);
});

Deno.test("with a seed, turns last from a half to one and a half of the quantum", () => {
  using m = machine(2, 2, spin, { quantum: 100, seed: 7 });
  const lengths: number[] = [];
  let last = 0;
  m.vm.load({
    name: "lengths",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(ctx.vm.points.beforeEnter.hook, () => {
        const now = ctx.vm.clock.current.now();
        if (now > last) lengths.push(now - last);
        last = now;
      });
    },
  });
  m.vm.runSync({ instructions: 20_000 });
  assert(lengths.length > 150 && lengths.every((n) => n >= 50 && n <= 150), `${lengths}`);
  assert(new Set(lengths).size > 50);
  // Nobody is left behind.
  const [a, b] = m.vm.vcpus.map((vcpu) => vcpu.instructions) as [number, number];
  assert(Math.abs(a - b) < 2000, `${a} ${b}`);
});

Deno.test("a seed is a number of 32 bits", () => {
  for (const seed of [-1, 1.5, 2 ** 32, NaN]) {
    assertThrows(() => roundRobin({ seed }), ArgumentError, `seed ${seed}`);
  }
});

Deno.test("how a run is sliced changes nothing in who is placed where and when", () => {
  const run = (step: number): string[] => {
    // Both halt now and then, and wake each other in the middle of a turn.
    const guest: GuestScript = function* (vcpu) {
      for (let k = 1;; k++) {
        yield 130 * (vcpu.index + 1);
        for (const other of vcpu.vm.vcpus) {
          if (other === vcpu || other.mpState !== MpState.HALTED) continue;
          other.mpState = MpState.RUNNABLE;
        }
        yield 70;
        if (k % 3 !== 0) continue;
        yield (exit) => {
          exit.reason = ExitReason.HLT;
        };
      }
    };
    using m = machine(3, 2, guest, { quantum: 1000, timeslice: 3000, seed: 3 });
    const [vcpu] = m.vm.vcpus;
    vcpu!.request(eventRequest);
    while (m.vm.instructions < 30_000) {
      m.vm.runSync({ instructions: Math.min(step, 30_000 - m.vm.instructions) });
    }
    return m.placed;
  };
  const whole = run(30_000);
  assert(whole.length > 20, `${whole.length}`);
  for (const step of [1, 17, 450]) assertEquals(run(step), whole, `in steps of ${step}`);
});
