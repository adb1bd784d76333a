import { assertEquals, assertInstanceOf, assertStrictEquals, assertThrows } from "@std/assert";
import {
  clockSlot,
  defineHook,
  defineSlot,
  deterministicClock,
  type Hook,
  type LeaveReason,
  observeExitHook,
  OverlapError,
  type Plugin,
  type PluginContext,
  PluginError,
  type Registration,
  RequirementError,
  type Slot,
  SlotError,
  StateError,
  type Timer,
  type Vm,
  VmStateError,
} from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

const greetingSlot: Slot<string> = defineSlot("greeting");
const tellHook: Hook<(log: string[]) => void, "each"> = defineHook({
  name: "tell",
  kind: "each",
  arity: 1,
});

function plugin(name: string, setup?: Plugin["setup"], rest: Partial<Plugin> = {}): Plugin {
  return { name, version: "1.0.0", setup: setup ?? (() => {}), ...rest };
}

/** A plugin that greets: provides the slot and speaks in the hook. */
function greeter(name: string, greeting: string): Plugin {
  return plugin(name, (ctx) => {
    ctx.provide(greetingSlot, greeting);
    ctx.on(tellHook, (log) => void log.push(greeting));
  }, { provides: [greetingSlot] });
}

function tell(vm: Vm): string[] {
  const log: string[] = [];
  vm.hooks.point(tellHook).call(log);
  return log;
}

const names = (vm: Vm) => vm.plugins.list.map(({ name }) => name);

function boom(): never {
  throw new Error("boom");
}

Deno.test("plugins are set up in the order of their requirements", () => {
  const order: string[] = [];
  const note = (name: string, rest: Partial<Plugin> = {}) =>
    plugin(name, () => void order.push(name), rest);
  using m = scriptedVm({ plugins: [note("b", { requires: ["a"] }), note("c"), note("a")] });
  assertEquals(order, ["a", "b", "c"]);
  assertEquals(names(m.vm), ["flat-memory", "scripted", "a", "b", "c"]);
  assertEquals(m.vm.plugins.get("b")?.requires, ["a"]);
  assertEquals(m.vm.plugins.get("d"), undefined);
});

Deno.test("a plugin that fails to set up takes those loaded with it out again", () => {
  using m = scriptedVm();
  const left: string[] = [];
  const good = plugin("good", (ctx) => {
    ctx.on(tellHook, (log) => void log.push("good"));
    ctx.onLeave((reason) => void left.push(`good ${reason}`));
  });
  const bad = plugin("bad", (ctx) => {
    ctx.on(tellHook, (log) => void log.push("bad"));
    ctx.onLeave((reason) => void left.push(`bad ${reason}`));
    boom();
  });
  const error = assertThrows(() => m.vm.load(good, bad), PluginError);
  assertEquals(error.message, 'plugin "bad" failed in setup: boom');
  assertEquals(tell(m.vm), []);
  assertEquals(left, ["bad unload", "good unload"]);
  assertEquals(names(m.vm), ["flat-memory", "scripted"]);
  m.vm.load(good);
  assertEquals(tell(m.vm), ["good"]);
});

Deno.test("slots are provided as declared", () => {
  using m = scriptedVm();
  const { vm } = m;
  assertThrows(
    () => vm.load(plugin("liar", undefined, { provides: [greetingSlot] })),
    SlotError,
    'slot "greeting": plugin "liar" names it and does not provide it',
  );
  const silent = plugin("silent", (ctx) => ctx.provide(greetingSlot, "hello"));
  const error = assertThrows(() => vm.load(silent), PluginError);
  assertInstanceOf(error.cause, SlotError);
  assertEquals(vm.slots.filled(greetingSlot), false);
  const eager = plugin("eager", (ctx) => void ctx.use(greetingSlot));
  assertThrows(() => vm.load(eager), PluginError, 'and should name it in "requires"');
});

Deno.test("everything registered is unregistered when the plugin leaves", () => {
  const ports = { name: "ports", base: 0x300, length: 4, read: () => 0x11 };
  const registers = { name: "registers", base: 0xf000_0000, length: 0x1000, read: () => 0x22 };
  let timer: Timer | undefined;
  const everything = plugin("everything", (ctx) => {
    ctx.on(tellHook, (log) => void log.push("here"));
    ctx.registerPio(ports);
    ctx.registerMmio(registers);
    ctx.registerMsr({ name: "msr", base: 0x4b56_4d00, read: () => true });
    ctx.addMemslot({ name: "rom", gpa: 0xffff_0000, size: 0x1_0000, hpa: 0 });
    ctx.addWakeSource("line");
    ctx.inhibit({ name: "test", description: "for the test" });
    timer = ctx.createTimer("tick", () => {});
    timer.arm(1_000_000);
    ctx.provide(greetingSlot, "hello");
  }, { provides: [greetingSlot] });
  using m = scriptedVm();
  const { vm, vcpu } = m;
  const look = () => [
    tell(vm).length,
    vm.pio.read(0x300, 1),
    vm.mmio.read(0xf000_0000, 1),
    vm.msrs.read(vcpu, 0x4b56_4d00),
    vm.memory.lookup(0xffff_0000)?.name,
    vm.wakeSources,
    vm.inhibits.reasons().length,
    vm.timers.armed.length,
    vm.slots.providerOf(greetingSlot),
  ];
  const before = look();
  for (let i = 0; i < 2; i++) {
    vm.load(everything);
    assertEquals(look(), [1, 0x11, 0x22, 0n, "rom", ["line"], 1, 1, "everything"]);
    vm.unload("everything");
    assertEquals(look(), before);
    assertThrows(() => timer?.arm(5), VmStateError, 'plugin "everything" has left the VM');
  }
});

Deno.test("a registration can be taken back early, and a context is dead after its plugin left", () => {
  let registration: Registration | undefined;
  let context: PluginContext | undefined;
  using m = scriptedVm({
    plugins: [plugin("a", (ctx) => {
      context = ctx;
      registration = ctx.on(tellHook, (log) => void log.push("a"));
      ctx.on(tellHook, (log) => void log.push("b"));
    })],
  });
  registration?.remove();
  registration?.remove();
  assertEquals(tell(m.vm), ["b"]);
  m.vm.unload("a");
  registration?.remove();
  assertThrows(() => context?.on(tellHook, () => {}), VmStateError, 'plugin "a" has left the VM');
  assertThrows(() => context?.onLeave(() => {}), VmStateError);
  assertEquals(tell(m.vm), []);
});

Deno.test("a plugin that others need leaves only with them", () => {
  const left: string[] = [];
  const leaving = (name: string, rest: Partial<Plugin>, more: Plugin["setup"] = () => {}) =>
    plugin(name, (ctx) => {
      more(ctx);
      ctx.onLeave((reason) => void left.push(`${name} ${reason}`));
    }, rest);
  using m = scriptedVm({
    plugins: [
      leaving("base", { provides: [greetingSlot] }, (ctx) => ctx.provide(greetingSlot, "hi")),
      leaving("by name", { requires: ["base"] }),
      leaving("by slot", { optional: [greetingSlot] }, (ctx) => void ctx.use(greetingSlot)),
      leaving("indirect", { requires: ["by name"] }),
      leaving(
        "bystander",
        { optional: [greetingSlot] },
        (ctx) => void ctx.useOptional(greetingSlot),
      ),
    ],
  });
  const error = assertThrows(() => m.vm.unload("base"), RequirementError);
  assertEquals(error.message, 'plugin "base" is needed by "by name", "by slot", "indirect"');
  assertEquals(error.plugins, ["base", "by name", "by slot", "indirect"]);
  assertEquals(left, []);

  m.vm.unload("base", { cascade: true });
  assertEquals(left, ["indirect unload", "by slot unload", "by name unload", "base unload"]);
  assertEquals(names(m.vm), ["flat-memory", "scripted", "bystander"]);
  assertThrows(() => m.vm.unload("base"), RequirementError, 'no plugin "base" is loaded');
});

Deno.test("a plugin leaves freely when its slots have a fallback", () => {
  using m = scriptedVm({
    plugins: [
      deterministicClock({ exitTicks: 1 }),
      plugin("user", (ctx) => void ctx.use(clockSlot), { requires: [clockSlot] }),
    ],
  });
  m.vm.unload("clock");
  assertEquals(names(m.vm), ["flat-memory", "scripted", "user"]);
});

Deno.test("who holds the VM's memory stays, also in a cascade", () => {
  using m = scriptedVm({ plugins: [plugin("other", undefined, { requires: ["flat-memory"] })] });
  const message = 'plugin "flat-memory" holds the VM\'s memory and must stay';
  assertThrows(() => m.vm.unload("flat-memory", { cascade: true }), RequirementError, message);
  assertThrows(() => m.vm.swap("flat-memory", plugin("x")), RequirementError, message);
});

Deno.test("an error while leaving is reported, and the plugin is gone", () => {
  const left: string[] = [];
  using m = scriptedVm({
    plugins: [plugin("a", (ctx) => {
      ctx.onLeave(() => void left.push("first registered"));
      ctx.onLeave(boom);
    })],
  });
  assertThrows(() => m.vm.unload("a"), PluginError, 'plugin "a" failed in onLeave: boom');
  assertEquals(left, ["first registered"]);
  assertEquals(m.vm.plugins.get("a"), undefined);
});

Deno.test("a swap puts the new plugin in the old one's place and tells the users of its slots", () => {
  const heard: string[] = [];
  const reasons: LeaveReason[] = [];
  const old = plugin("greeter", (ctx) => {
    ctx.provide(greetingSlot, "old");
    ctx.on(tellHook, (log) => void log.push("old"));
    ctx.onLeave((reason) => void reasons.push(reason));
  }, { provides: [greetingSlot] });
  const user = plugin("user", (ctx) => {
    const greeting = ctx.use(greetingSlot, (current, previous) => {
      heard.push(`${previous} to ${current}`);
    });
    ctx.on(tellHook, (log) => void log.push(`user of ${greeting.current}`));
  }, { requires: [greetingSlot] });
  using m = scriptedVm({ plugins: [old, user] });
  assertEquals(tell(m.vm), ["old", "user of old"]);

  m.vm.swap("greeter", greeter("other-greeter", "new"));
  assertEquals(tell(m.vm), ["new", "user of new"]);
  assertEquals(heard, ["old to new"]);
  assertEquals(reasons, ["swap"]);
  assertEquals(names(m.vm), ["flat-memory", "scripted", "other-greeter", "user"]);

  m.vm.swap("other-greeter", old);
  assertEquals(tell(m.vm), ["old", "user of old"]);
});

interface Counter {
  count: number;
}

/** A plugin with state for the VM and for each vCPU. */
function counter(name: string, version: number, rest: {
  migrate?: (saved: unknown, version: number) => Counter & { [key: string]: number };
  setup?: (ctx: PluginContext, of: (index: number) => Counter, all: Counter) => void;
} = {}): Plugin {
  const { migrate } = rest;
  return plugin(name, (ctx) => {
    const definition = {
      name: "counter",
      version,
      init: () => ({ count: 0 }),
      save: ({ count }: Counter) => version === 1 ? count : { count },
      load: (saved: unknown): Counter => {
        if (version === 1) return { count: saved as number };
        return { count: (saved as Counter).count };
      },
      ...(migrate === undefined ? {} : { migrate }),
    };
    const perVcpu = ctx.vcpuState(definition);
    const all = ctx.vmState(definition);
    ctx.on(observeExitHook, (vcpu) => {
      perVcpu.of(vcpu).count++;
      all.current.count += 10;
    });
    ctx.on(tellHook, (log) => {
      const counts = ctx.vm.vcpus.map((vcpu) => perVcpu.of(vcpu).count);
      log.push(`${name}: ${counts} ${all.current.count}`);
    });
    rest.setup?.(ctx, (index) => perVcpu.of(ctx.vm.vcpus[index] ?? boom()), all.current);
  });
}

Deno.test("a swap hands declared state over, for the VM and for each vCPU", () => {
  using m = scriptedVm({ cpus: 3, plugins: [counter("counter", 1)] });
  for (const [i, vcpu] of m.vm.vcpus.entries()) {
    for (let n = 0; n <= i; n++) m.vm.points.observeExit.call(vcpu, vcpu.exit);
  }
  assertEquals(tell(m.vm), ["counter: 1,2,3 60"]);
  m.vm.swap("counter", counter("counter", 1));
  assertEquals(tell(m.vm), ["counter: 1,2,3 60"]);
  // State is that of the new plugin from here on, and there for vCPUs that come later.
  const added = m.vm.addVcpu(9);
  m.vm.points.observeExit.call(added, added.exit);
  assertEquals(tell(m.vm), ["counter: 1,2,3,1 70"]);
});

Deno.test("state of another version is migrated, or the swap is refused", () => {
  using m = scriptedVm({ plugins: [counter("counter", 1)] });
  m.vm.points.observeExit.call(m.vcpu, m.vcpu.exit);
  const refused = assertThrows(() => m.vm.swap("counter", counter("counter", 2)), PluginError);
  assertInstanceOf(refused.cause, StateError);
  assertEquals(
    refused.cause.message,
    'state "counter": saved as version 1; version 2 cannot take it over',
  );
  assertEquals(tell(m.vm), ["counter: 1 10"]);

  const versions: number[] = [];
  const migrate = (saved: unknown, version: number) => {
    versions.push(version);
    return { count: saved as number };
  };
  m.vm.swap("counter", counter("counter", 2, { migrate }));
  assertEquals(tell(m.vm), ["counter: 1 10"]);
  assertEquals(versions, [1, 1]);
});

Deno.test("state declared twice or with a bad version is refused", () => {
  const declare = (version: number, times: number) =>
    plugin("a", (ctx) => {
      for (let i = 0; i < times; i++) {
        ctx.vmState({ name: "s", version, init: () => 0, save: () => 0, load: () => 0 });
      }
    });
  using m = scriptedVm();
  for (const [bad, text] of [[declare(1, 2), "declares it twice"], [declare(0, 1), "version 0"]]) {
    const error = assertThrows(() => m.vm.load(bad as Plugin), PluginError);
    assertInstanceOf(error.cause, StateError);
    assertEquals(error.message.includes(text as string), true, error.message);
  }
});

Deno.test("state that fails for a new vCPU names its plugin, and there is no new vCPU", () => {
  using m = scriptedVm({
    plugins: [plugin("a", (ctx) => {
      ctx.vcpuState({
        name: "fragile",
        version: 1,
        init: (vcpu) => vcpu.id > 0 ? boom() : 0,
        save: () => 0,
        load: () => 0,
      });
    })],
  });
  const error = assertThrows(() => m.vm.addVcpu(1), PluginError);
  assertEquals(error.message, 'plugin "a" failed in state "fragile" on vCPU 1: boom');
  assertEquals(m.vm.vcpus.length, 1);
});

/** Everything that can be seen of a plugin that sits between two others. */
function fixture(): { plugins: Plugin[]; look: (vm: Vm) => unknown } {
  let timer: Timer | undefined;
  let other: Timer | undefined;
  const middle = counter("middle", 1, {
    setup(ctx) {
      timer = ctx.createTimer("tick", () => {});
      timer.arm(500);
      ctx.registerPio({ name: "port", base: 0x80, length: 1, read: () => 0x55 });
      ctx.on(tellHook, (log) => void log.push("middle pre"), { stage: "pre" });
      ctx.on(tellHook, (log) => void log.push("middle late"), { after: ["last"] });
      ctx.provide(greetingSlot, "middle");
    },
  });
  const plugins = [
    plugin("first", (ctx) => void ctx.on(tellHook, (log) => void log.push("first"))),
    { ...middle, provides: [greetingSlot] },
    plugin("last", (ctx) => {
      const greeting = ctx.use(greetingSlot);
      ctx.on(tellHook, (log) => void log.push(`last hears ${greeting.current}`));
      other = ctx.createTimer("same time", () => {});
      other.arm(500);
    }, { requires: [greetingSlot] }),
  ];
  return {
    plugins,
    look: (vm) => [
      tell(vm),
      names(vm),
      vm.pio.read(0x80, 1),
      vm.timers.armed.map((armed) => `${armed.name} at ${armed.deadline}`),
      vm.slots.ref(greetingSlot).current,
    ],
  };
}

Deno.test("a swap that fails leaves everything exactly as it was", () => {
  const { plugins, look } = fixture();
  using m = scriptedVm({ plugins });
  const { vm, vcpu } = m;
  vm.points.observeExit.call(vcpu, vcpu.exit);
  const before = look(vm);
  assertEquals(before, [
    ["middle pre", "first", "middle: 1 10", "last hears middle", "middle late"],
    ["flat-memory", "scripted", "first", "middle", "last"],
    0x55,
    ["tick at 500", "same time at 500"],
    "middle",
  ]);

  const left: string[] = [];
  const failing = (name: string, setup: Plugin["setup"]) =>
    plugin(name, (ctx) => {
      ctx.on(tellHook, (log) => void log.push("must not be heard"));
      ctx.registerPio({ name: "port", base: 0x80, length: 2, read: () => 0 });
      ctx.onLeave((reason) => void left.push(`${name} ${reason}`));
      ctx.provide(greetingSlot, name);
      setup(ctx);
    }, { provides: [greetingSlot] });
  const cases: [Plugin, string][] = [
    [failing("throws", boom), 'plugin "throws" failed in setup: boom'],
    [
      failing("overlaps", (ctx) => {
        ctx.registerPio({ name: "a", base: 0x90, length: 2 });
        ctx.registerPio({ name: "b", base: 0x91, length: 2 });
      }),
      "overlaps",
    ],
    [
      failing("cyclic", (ctx) => {
        ctx.on(tellHook, () => {}, { before: ["first"] });
        ctx.on(tellHook, () => {}, { after: ["first"], before: ["cyclic"] });
      }),
      "cycle",
    ],
    [plugin("lacking"), 'plugin "last" requires slot "greeting"'],
    [{ ...failing("needy", () => {}), requires: ["nobody"] }, 'requires plugin "nobody"'],
    [{ ...failing("circular", () => {}), requires: ["last"] }, "require each other"],
    [{ ...failing("last", () => {}) }, 'two plugins are named "last"'],
  ];
  for (const [replacement, text] of cases) {
    const error = assertThrows(() => vm.swap("middle", replacement), Error);
    assertEquals(error.message.includes(text), true, error.message);
    assertEquals(look(vm), before, replacement.name);
  }
  assertEquals(left, ["throws unload", "overlaps unload", "cyclic unload"]);

  // The old plugin is alive: its state goes on where it was.
  vm.points.observeExit.call(vcpu, vcpu.exit);
  assertEquals(tell(vm)[2], "middle: 2 20");
});

Deno.test("a swap is undone when a user of the slot cannot take the change", () => {
  const heard: string[] = [];
  using m = scriptedVm({
    plugins: [
      greeter("greeter", "old"),
      plugin("calm", (ctx) => {
        ctx.use(greetingSlot, (current) => void heard.push(`${current}`));
      }, { requires: [greetingSlot] }),
      plugin("picky", (ctx) => {
        ctx.use(greetingSlot, (current) => {
          if (current !== "old") boom();
        });
      }, { requires: [greetingSlot] }),
    ],
  });
  const error = assertThrows(() => m.vm.swap("greeter", greeter("greeter", "new")), PluginError);
  assertEquals(error.message, 'plugin "picky" failed in change of slot "greeting": boom');
  assertEquals(m.vm.slots.ref(greetingSlot).current, "old");
  // Who had heard of the new one hears that it was taken back.
  assertEquals(heard, ["new", "old"]);
});

Deno.test("a plugin that uses a slot without requiring it keeps it from vanishing in a swap", () => {
  using m = scriptedVm({
    plugins: [
      greeter("greeter", "old"),
      plugin("user", (ctx) => void ctx.use(greetingSlot), { optional: [greetingSlot] }),
    ],
  });
  assertThrows(
    () => m.vm.swap("greeter", plugin("mute")),
    RequirementError,
    'plugin "mute" does not provide slot "greeting", which "user" uses',
  );
  assertEquals(tell(m.vm), ["old"]);
});

Deno.test("state that cannot be saved keeps a swap from starting", () => {
  using m = scriptedVm({
    plugins: [plugin("a", (ctx) => {
      ctx.on(tellHook, (log) => void log.push("a"));
      ctx.vmState({ name: "s", version: 1, init: () => 0, save: boom, load: () => 0 });
    })],
  });
  const error = assertThrows(() => m.vm.swap("a", plugin("b")), PluginError);
  assertEquals(error.message, 'plugin "a" failed in saving state "s": boom');
  assertEquals(tell(m.vm), ["a"]);
});

Deno.test("an error of the old plugin as it leaves is reported, and the swap is done", () => {
  using m = scriptedVm({ plugins: [plugin("a", (ctx) => ctx.onLeave(boom))] });
  assertThrows(
    () => m.vm.swap("a", greeter("b", "hi")),
    PluginError,
    'plugin "a" failed in onLeave',
  );
  assertEquals(tell(m.vm), ["hi"]);
});

Deno.test("from inside a handler, plugins change before the next entry", () => {
  const log: string[] = [];
  const swapper: Plugin = plugin("swapper", (ctx) => {
    ctx.on(observeExitHook, (_, exit) => {
      if (exit.port !== 1) return;
      exit.port = 0;
      ctx.vm.swap("greeter", greeter("greeter", "new"));
      ctx.vm.load(
        plugin("late", (late) => void late.on(tellHook, (told) => void told.push("late"))),
      );
      log.push(...tell(ctx.vm));
    });
  });
  using m = scriptedVm({
    plugins: [swapper, greeter("greeter", "old")],
    guest: function* ({ vm }) {
      yield (exit) => exit.setIo(1, 1, true, 0);
      log.push(...tell(vm));
      yield 5;
    },
  });
  assertEquals(m.vm.runSync().reason, "halted");
  assertEquals(log, ["old", "new", "late"]);
});

Deno.test("every change asked for inside a run is made, also after one that fails", () => {
  using m = scriptedVm({
    plugins: [plugin("changer", (ctx) => {
      ctx.createTimer("once", () => {
        ctx.vm.load(plugin("bad", boom));
        ctx.vm.load(greeter("good", "hi"));
        ctx.vm.load(greeter("also good", "hi"));
      }).arm(5);
    })],
    guest: function* () {
      for (;;) yield 100;
    },
  });
  const result = m.vm.runSync({ instructions: 100 });
  assertEquals(
    result.reason === "error" && result.error.message,
    'plugin "bad" failed in setup: boom',
  );
  // The first error counts; the second provider of the slot came after it.
  assertEquals(tell(m.vm), ["hi"]);
});

Deno.test("a change that fails inside a run ends the run, and the VM can go on", () => {
  const bad = plugin("greeter", boom);
  using m = scriptedVm({
    plugins: [
      greeter("greeter", "old"),
      plugin("swapper", (ctx) => {
        ctx.on(observeExitHook, (_, exit) => {
          if (exit.port === 1) ctx.vm.swap("greeter", bad);
          exit.port = 0;
        });
      }),
    ],
    guest: function* () {
      yield (exit) => exit.setIo(1, 1, true, 0);
      yield 5;
    },
  });
  const result = m.vm.runSync();
  assertEquals(
    result.reason === "error" && result.error.message,
    'plugin "greeter" failed in setup: boom',
  );
  assertEquals(tell(m.vm), ["old"]);
  assertEquals(m.vm.runSync().reason, "halted");
});

Deno.test("after close everything has left, last one first", () => {
  const left: string[] = [];
  const leaving = (name: string) =>
    plugin(name, (ctx) => ctx.onLeave((reason) => void left.push(`${name} ${reason}`)));
  const m = scriptedVm({ plugins: [leaving("a"), leaving("b")] });
  m.vm.close();
  m.vm.close();
  assertEquals(left, ["b close", "a close"]);
  assertEquals(m.vendor.has(m.vcpu), false);
  assertThrows(() => m.vm.load(leaving("c")), VmStateError, "the VM is closed");
  assertThrows(() => m.vm.runSync(), VmStateError, "the VM is closed");
});

Deno.test("overlaps at set-up are refused with both owners' names", () => {
  const port = (name: string, base: number) =>
    plugin(name, (ctx) => void ctx.registerPio({ name: `${name} port`, base, length: 4 }));
  const error = assertThrows(
    () => scriptedVm({ plugins: [port("a", 0x60), port("b", 0x62)] }),
    PluginError,
  );
  assertInstanceOf(error.cause, OverlapError);
  assertEquals(
    error.cause.message,
    'I/O port: "b port" of plugin "b" (62h to 65h) overlaps "a port" of plugin "a" (60h to 63h)',
  );
});

Deno.test("one plugin object can serve several VMs", () => {
  const shared = counter("counter", 1);
  using one = scriptedVm({ plugins: [shared] });
  using other = scriptedVm({ plugins: [shared] });
  one.vm.points.observeExit.call(one.vcpu, one.vcpu.exit);
  assertEquals([tell(one.vm), tell(other.vm)], [["counter: 1 10"], ["counter: 0 0"]]);
  assertStrictEquals(one.vm.plugins.get("counter"), other.vm.plugins.get("counter"));
});
