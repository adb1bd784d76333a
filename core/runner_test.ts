import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  eventRequest,
  ExitReason,
  interruptControllerSlot,
  irqLineHook,
  type Plugin,
  type PluginContext,
  realTimeClock,
  type RunResult,
  type Timer,
  type VmExit,
  VmStateError,
} from "./mod.ts";
import { type GuestScript, type ScriptedVm, scriptedVm } from "./testing/mod.ts";

function plugin(
  name: string,
  setup: (ctx: PluginContext) => void,
  rest: Partial<Plugin> = {},
): Plugin {
  return { name, version: "1.0.0", setup, ...rest };
}

/** Runs the same test with exits handled outside and inside the guest. */
function bothWays(name: string, test: (inside: boolean) => void): void {
  Deno.test(`${name} (exits leave the guest)`, () => test(false));
  Deno.test(`${name} (exits are handled inside the guest)`, () => test(true));
}

const hlt = (exit: VmExit) => void (exit.reason = ExitReason.HLT);
const cpuid = (exit: VmExit) => exit.setCpuid(0, 0);

const spin: GuestScript = function* () {
  for (;;) yield 1000;
};

/** A controller for which each rising line is an interrupt with vector 20h + line. */
function controller(): Plugin {
  const waiting: number[] = [];
  return plugin("controller", (ctx) => {
    ctx.provide(interruptControllerSlot, {
      hasInterrupt: () => waiting.length > 0,
      acknowledge: () => waiting.shift() ?? 0,
    });
    ctx.on(irqLineHook, (line, level) => {
      if (level) waiting.push(0x20 + line);
      for (const vcpu of ctx.vm.vcpus) vcpu.request(eventRequest);
    });
  }, { provides: [interruptControllerSlot] });
}

/** A timer that raises line 0 every `period` ticks, and what it heard. */
function ticker(period: number): { plugin: Plugin; fired: number[] } {
  const fired: number[] = [];
  const made = plugin("ticker", (ctx) => {
    const timer = ctx.createTimer("tick", (self: Timer) => {
      fired.push(ctx.vm.clock.current.now());
      self.arm(self.deadline + period);
      ctx.vm.setIrqLine(0, true);
    });
    timer.arm(period);
  });
  return { plugin: made, fired };
}

const at = (m: ScriptedVm) => m.vendor.cpu(m.vcpu).delivered.map((event) => event.at);

bothWays("an instruction limit is exact, wherever exits fall", (inside) => {
  using m = scriptedVm({
    inside,
    guest: function* () {
      for (;;) {
        yield 7;
        yield cpuid;
      }
    },
  });
  let total = 0;
  for (const instructions of [1, 2, 5, 7, 8, 9, 100]) {
    const result = m.vm.runSync({ instructions });
    assertEquals([result.reason, result.instructions], ["limit", instructions]);
    total += instructions;
    assertEquals(m.vcpu.instructions, total);
  }
  assertEquals(m.vm.exits, total >> 3);
});

bothWays("a limit in ticks ends at the tick, exits included", (inside) => {
  using m = scriptedVm({
    inside,
    guest: function* () {
      yield 500;
      yield cpuid;
      for (;;) yield 1000;
    },
  });
  const result = m.vm.runSync({ ticks: 2000 });
  assertEquals(result, { reason: "limit", instructions: 1000, exits: 1, ticks: 2000 });
});

bothWays("timers fire at the exact instruction", (inside) => {
  const { plugin: tick, fired } = ticker(1234);
  using m = scriptedVm({
    inside,
    plugins: [controller(), tick],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      for (;;) yield 10_000;
    },
  });
  m.vm.runSync({ instructions: 5000 });
  assertEquals(fired, [1234, 2468, 3702, 4936]);
  assertEquals(at(m), [1234, 2468, 3702, 4936]);
});

bothWays(
  "an exit's charge can carry time over a deadline; the next deadline does not drift",
  (inside) => {
    const { plugin: tick, fired } = ticker(3000);
    using m = scriptedVm({
      inside,
      plugins: [tick],
      guest: function* () {
        yield 2500;
        yield cpuid;
        for (;;) yield 10_000;
      },
    });
    m.vm.runSync({ instructions: 8500 });
    // The exit at 2500 ends at 3500, after its instruction at 3501.
    assertEquals(fired, [3501, 6000, 9000]);
  },
);

bothWays("a deadline armed by a device during an exit counts from there", (inside) => {
  const fired: number[] = [];
  using m = scriptedVm({
    inside,
    plugins: [plugin("device", (ctx) => {
      const timer = ctx.createTimer("shot", () => void fired.push(ctx.vm.clock.current.now()));
      ctx.registerPio({
        name: "device",
        base: 0x40,
        length: 1,
        write: (_offset, _size, value) => timer.arm(ctx.vm.clock.current.now() + value),
      });
    })],
    guest: function* () {
      yield 10;
      yield (exit) => exit.setIo(0x40, 1, true, 100);
      for (;;) yield 10_000;
    },
  });
  const result = m.vm.runSync({ instructions: 5000 });
  assertEquals(fired, [10 + 1000 + 100]);
  assertEquals(result.instructions, 5000);
});

bothWays("a vCPU that halts skips to the timer that wakes it", (inside) => {
  const { plugin: tick, fired } = ticker(1_000_000);
  using m = scriptedVm({
    inside,
    plugins: [controller(), tick],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      for (let i = 0; i < 3; i++) {
        yield 50;
        yield hlt;
      }
    },
  });
  const result = m.vm.runSync();
  assertEquals(fired, [1_000_000, 2_000_000, 3_000_000]);
  assertEquals(at(m), [51, 102, 153]);
  // What is left over after the last one is the HLT with interrupts off.
  assertEquals([result.reason, result.instructions], ["halted", 154]);
});

Deno.test("halting with interrupts off ends the run although timers are armed", () => {
  const { plugin: tick } = ticker(1000);
  using m = scriptedVm({ plugins: [controller(), tick], guest: function* () {} });
  const result = m.vm.runSync();
  assertEquals([result.reason, result.reason === "halted" && result.interruptsEnabled], [
    "halted",
    false,
  ]);
});

Deno.test("halting with interrupts on and nothing armed ends the run and says so", () => {
  using m = scriptedVm({
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      yield hlt;
    },
  });
  const result = m.vm.runSync();
  assertEquals([result.reason, result.reason === "halted" && result.interruptsEnabled], [
    "halted",
    true,
  ]);
});

Deno.test("an idle guest whose timers wake nobody ends at its limit", () => {
  const { plugin: tick, fired } = ticker(1000);
  using m = scriptedVm({
    plugins: [tick],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      yield hlt;
    },
  });
  const result = m.vm.runSync({ ticks: 10_000 });
  assertEquals([result.reason, result.ticks], ["limit", 10_000]);
  assertEquals(fired.length, 9);
});

/** What a run leaves behind, whichever way it was cut into slices and calls. */
async function trace(run: (m: ScriptedVm) => Promise<void> | void): Promise<unknown> {
  const { plugin: tick, fired } = ticker(777);
  const exits: number[] = [];
  using m = scriptedVm({
    cpus: 3,
    processors: 2,
    plugins: [
      controller(),
      tick,
      plugin("watcher", (ctx) => {
        ctx.on(ctx.vm.points.observeExit.hook, (vcpu) => {
          exits.push(vcpu.id * 1e9 + ctx.vm.clock.current.now());
        });
      }),
    ],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = vcpu.id === 0;
      for (let i = 1;; i++) {
        yield 100 * (vcpu.id + 1) + i % 17;
        if (i % 5 === 0) yield cpuid;
        else if (i % 7 === 0) yield (exit) => void (exit.reason = ExitReason.PAUSE);
        else if (i % 11 === 0 && vcpu.id === 0) yield hlt;
      }
    },
  });
  for (const vcpu of m.vm.vcpus) vcpu.mpState = 0;
  await run(m);
  return {
    fired,
    exits,
    delivered: at(m),
    instructions: m.vm.vcpus.map((vcpu) => vcpu.instructions),
    rips: m.vm.vcpus.map((vcpu) => vcpu.regs.rip),
    now: m.vm.clock.current.now(),
  };
}

Deno.test("how a run is cut into pieces cannot be noticed", async () => {
  const whole = await trace((m) => void m.vm.runSync({ instructions: 60_000 }));
  const pieces = await trace((m) => {
    for (let left = 60_000, n = 1; left > 0; n = n * 3 % 1009) {
      const result = m.vm.runSync({ instructions: Math.min(n, left) });
      assertEquals(result.reason, "limit");
      left -= result.instructions;
    }
  });
  const sliced = await trace(async (m) => void await m.vm.run({ instructions: 60_000 }));
  assertEquals(pieces, whole);
  assertEquals(sliced, whole);
});

bothWays("stop ends the run after the instruction, and the run goes on from there", (inside) => {
  using m = scriptedVm({
    inside,
    plugins: [plugin("debug-exit", (ctx) => {
      ctx.registerPio({
        name: "debug exit",
        base: 0xf4,
        length: 4,
        write: (_offset, _size, code) => {
          ctx.vm.stop({ reason: "exit-code", code });
          ctx.vm.stop();
        },
      });
    })],
    guest: function* () {
      yield 9;
      yield (exit) => exit.setIo(0xf4, 1, true, 0x21);
      yield 5;
    },
  });
  const result = m.vm.runSync();
  assertEquals(result, {
    reason: "exit-code",
    code: 0x21,
    instructions: 10,
    exits: 1,
    ticks: 1010,
  });
  assertEquals(m.vm.runSync().reason, "halted");
  assertEquals(m.vcpu.instructions, 16);
  // Outside a run there is nothing to stop.
  m.vm.stop();
});

Deno.test("run gives way to the event loop, and can be stopped from there", async () => {
  using m = scriptedVm({ guest: spin });
  let turns = 0;
  const interval = setInterval(() => {
    if (++turns === 3) m.vm.stop({ reason: "stopped", detail: "enough" });
  }, 1);
  const running = m.vm.run();
  assertEquals(m.vm.running, true);
  assertThrows(() => m.vm.runSync(), VmStateError, "running already");
  await assertRejects(() => m.vm.run(), VmStateError, "running already");
  const result = await running;
  clearInterval(interval);
  assertEquals([result.reason, result.reason === "stopped" && result.detail], [
    "stopped",
    "enough",
  ]);
  assertEquals(m.vm.running, false);
  assertGreaterOrEqual(turns, 3);
});

Deno.test("a signal ends a run, also one that was aborted before", async () => {
  using m = scriptedVm({ guest: spin });
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 5);
  const result = await m.vm.run({ signal: controller.signal });
  assertEquals(result.reason === "stopped" && result.detail, "the signal was aborted");
  assertGreaterOrEqual(result.instructions, 1);
  const again = await m.vm.run({ signal: controller.signal });
  assertEquals([again.reason, again.instructions], ["stopped", 0]);
});

Deno.test("a VM closed between slices ends its run", async () => {
  using m = scriptedVm({ guest: spin });
  const running = m.vm.run();
  setTimeout(() => m.vm.close(), 2);
  const result = await running;
  assertEquals(result.reason === "stopped" && result.detail, "the VM was closed");
});

Deno.test("a VM cannot be closed by its own guest", () => {
  using m = scriptedVm({
    guest: function* ({ vm }) {
      vm.close();
      yield 1;
    },
  });
  const result = m.vm.runSync();
  assert(result.reason === "error");
  assert(result.error instanceof VmStateError);
});

/** A guest that waits for line 4 twice, and a plugin that may drive it from outside. */
function waiting(inside = false): ScriptedVm {
  const m = scriptedVm({
    inside,
    plugins: [controller(), plugin("terminal", (ctx) => void ctx.addWakeSource("terminal"))],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      yield hlt;
      yield hlt;
    },
  });
  return m;
}

Deno.test("a run waits for a wake source while nothing else can happen", async () => {
  using m = waiting();
  setTimeout(() => m.vm.setIrqLine(4, true), 5);
  setTimeout(() => m.vm.setIrqLine(4, true), 10);
  const result = await m.vm.run();
  assertEquals([result.reason, at(m)], ["halted", [1, 2]]);
});

Deno.test("waking without cause, and a source that goes away", async () => {
  using m = waiting();
  let done: RunResult | undefined;
  const running = m.vm.run().then((result) => done = result);
  await new Promise((resolve) => setTimeout(resolve, 2));
  m.vm.wake();
  await new Promise((resolve) => setTimeout(resolve, 2));
  assertEquals(done, undefined);
  m.vm.unload("terminal");
  const result = await running;
  assertEquals(result.reason === "halted" && result.interruptsEnabled, true);
});

Deno.test("a run that waits can be stopped", async () => {
  using m = waiting();
  setTimeout(() => m.vm.stop(), 2);
  assertEquals((await m.vm.run()).reason, "stopped");
});

Deno.test("runSync says what it would have to wait for", () => {
  using m = waiting();
  const result = m.vm.runSync();
  assertEquals(result.reason === "waiting" && result.sources, ["terminal"]);
});

Deno.test("with a real-time clock a halted guest waits for its timer", async () => {
  // So long that the first does not come before the guest halts, even on a machine that is busy.
  const { plugin: tick, fired } = ticker(200_000_000);
  // The clock begins with the VM.
  const start = performance.now();
  using m = scriptedVm({
    plugins: [controller(), realTimeClock(), tick],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      yield hlt;
      yield hlt;
    },
  });
  const blocked = m.vm.runSync();
  assertEquals(blocked.reason === "waiting" && blocked.sources, ["time"]);
  const result = await m.vm.run();
  assertEquals([result.reason, fired.length], ["halted", 2]);
  assertGreaterOrEqual(performance.now() - start, 399);
  assertGreaterOrEqual(fired[1] ?? 0, 400_000_000);
});

Deno.test("a timer that throws is named and ends the run", () => {
  using m = scriptedVm({
    plugins: [plugin("bad", (ctx) => {
      ctx.createTimer("bomb", () => {
        throw new Error("bang");
      }).arm(10);
    })],
    guest: spin,
  });
  const result = m.vm.runSync({ instructions: 100 });
  assertEquals(
    result.reason === "error" && result.error.message,
    'plugin "bad" failed in timer "bomb": bang',
  );
  assertEquals(m.vm.runSync({ instructions: 100 }).reason, "limit");
});
