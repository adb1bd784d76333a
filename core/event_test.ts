import { assertEquals, assertThrows } from "@std/assert";
import {
  ArgumentError,
  beforeEnterHook,
  defineRequest,
  eventRequest,
  ExitReason,
  injectHook,
  type InterruptController,
  interruptControllerSlot,
  irqLineHook,
  MpState,
  type Plugin,
  requestHook,
  tripleFaultRequest,
  Vector,
} from "./mod.ts";
import { type ScriptedVm, scriptedVm, type ScriptedVmOptions } from "./testing/mod.ts";

/** A controller with a list of vectors; the first is the most urgent. */
function controller(): { plugin: Plugin; waiting: number[] } {
  const waiting: number[] = [];
  const implementation: InterruptController = {
    hasInterrupt: () => waiting.length > 0,
    acknowledge: () => waiting.shift() as number,
  };
  const plugin: Plugin = {
    name: "controller",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup(ctx) {
      ctx.provide(interruptControllerSlot, implementation);
      ctx.on(irqLineHook, (line, level) => {
        if (!level) return;
        waiting.push(0x20 + line);
        for (const vcpu of ctx.vm.vcpus) vcpu.request(eventRequest);
      });
    },
  };
  return { plugin, waiting };
}

function withController(options: ScriptedVmOptions = {}): ScriptedVm & { waiting: number[] } {
  const { plugin, waiting } = controller();
  return { ...scriptedVm({ ...options, plugins: [plugin, ...(options.plugins ?? [])] }), waiting };
}

const events = (m: ScriptedVm) =>
  m.vendor.cpu(m.vcpu).delivered.map(({ event, vector, at }) => `${event} ${vector} at ${at}`);

/** What two exceptions, one after the other, become. */
function combine(first: number, second: number): string {
  using m = scriptedVm();
  const { events, exception } = { events: m.vcpu.events, exception: m.vcpu.events.exception };
  events.queueException(first, 1);
  events.queueException(second, 2);
  if (m.vcpu.hasRequest(tripleFaultRequest)) return "shutdown";
  return `${exception.vector} ${exception.hasErrorCode ? exception.errorCode : "-"}`;
}

Deno.test("two exceptions combine as their classes say", () => {
  const contributory = [Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.CP];
  const benign = [Vector.DB, Vector.BP, Vector.OF, Vector.BR, Vector.UD, Vector.NM, Vector.MF];
  for (const first of contributory) {
    for (const second of contributory) assertEquals(combine(first, second), "8 0");
    assertEquals(combine(first, Vector.PF), `${Vector.PF} 2`);
    for (const second of benign) assertEquals(combine(first, second), `${second} 2`);
  }
  for (const second of [...contributory, Vector.PF]) {
    assertEquals(combine(Vector.PF, second), "8 0");
    assertEquals(combine(Vector.UD, second), `${second} 2`);
  }
  for (const second of benign) assertEquals(combine(Vector.PF, second), `${second} 2`);
  for (const second of [Vector.PF, Vector.GP, Vector.UD, Vector.DF]) {
    assertEquals(combine(Vector.DF, second), "shutdown");
  }
});

Deno.test("the payload goes with its exception, and not with a double fault", () => {
  using m = scriptedVm();
  const { events } = m.vcpu;
  events.queuePageFault(2, 0xdead_b000, 0xffff_8000);
  assertEquals([events.exception.payloadLo, events.exception.payloadHi], [
    0xdead_b000,
    0xffff_8000,
  ]);
  events.queuePageFault(0, 1, 2);
  assertEquals([events.exception.vector, events.exception.hasPayload], [Vector.DF, false]);
  events.clear();
  events.queueDebug(0x4000);
  assertEquals([events.exception.vector, events.exception.payloadLo], [Vector.DB, 0x4000]);
  assertEquals(events.exception.hasErrorCode, false);
});

Deno.test("vectors that are not exceptions are refused", () => {
  using m = scriptedVm();
  for (const vector of [-1, 2, 32, 1.5]) {
    assertThrows(() => m.vcpu.events.queueException(vector), ArgumentError);
  }
});

Deno.test("an exception comes first, then the NMI, then the interrupt", () => {
  const injected: string[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(injectHook, (vcpu, event, vector) => {
        injected.push(`${vcpu.id} ${event} ${vector}`);
      });
    },
  };
  using m = withController({
    plugins: [watcher],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      yield 1;
      m.vm.setIrqLine(1, true);
      vcpu.events.queueNmi();
      vcpu.events.queueException(Vector.GP, 0);
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 1;
    },
  });
  m.vm.runSync();
  assertEquals(events(m), ["exception 13 at 2", "nmi 2 at 2", "interrupt 33 at 2"]);
  assertEquals(injected, ["0 exception 13", "0 nmi 2", "0 interrupt 33"]);
});

Deno.test("an interrupt waits for its window, and the next one for the next", () => {
  using m = withController({
    guest: function* (vcpu) {
      const cpu = m.vendor.cpu(vcpu);
      cpu.onEvent = () => void (cpu.interruptFlag = false);
      m.vm.setIrqLine(1, true);
      m.vm.setIrqLine(2, true);
      yield 10;
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 10;
      cpu.interruptFlag = true;
      yield 10;
      cpu.interruptFlag = true;
      yield 10;
    },
  });
  m.vm.runSync();
  assertEquals(events(m), ["interrupt 33 at 21", "interrupt 34 at 31"]);
});

Deno.test("an NMI waits while NMIs are masked; of three, one is lost", () => {
  using m = scriptedVm({
    guest: function* (vcpu) {
      const { system } = m.vendor.cpu(vcpu);
      m.vendor.cpu(vcpu).onEvent = () => void (system.nmiMasked = true);
      for (let i = 0; i < 3; i++) vcpu.events.queueNmi();
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 5;
      system.nmiMasked = false;
      yield 5;
      vcpu.events.queueNmi();
      vcpu.events.queueNmi();
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      system.nmiMasked = false;
      yield 5;
    },
  });
  m.vm.runSync();
  // While one is being handled, one more is kept.
  assertEquals(events(m), ["nmi 2 at 1", "nmi 2 at 6", "nmi 2 at 12"]);
  assertEquals(m.vcpu.events.nmiPending, 0);
});

Deno.test("an event whose delivery was interrupted comes again before anything else", () => {
  using m = withController({
    guest: function* (vcpu) {
      const cpu = m.vendor.cpu(vcpu);
      cpu.interruptFlag = true;
      let interrupted = 0;
      cpu.onEvent = ({ event, vector }) => {
        // The first delivery of each does not get through.
        if (interrupted++ >= 1) return;
        if (event === "interrupt") vcpu.events.returnInterrupt(vector, false);
        cpu.step = (exit) => void (exit.reason = ExitReason.WBINVD);
      };
      m.vm.setIrqLine(3, true);
      m.vm.setIrqLine(4, true);
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 5;
    },
  });
  m.vm.runSync();
  assertEquals(events(m), ["interrupt 35 at 1", "interrupt 35 at 1", "interrupt 36 at 1"]);
  assertEquals(m.vcpu.events.needsReinjection, false);
});

Deno.test("exceptions and NMIs come again, too, with their error code", () => {
  using m = scriptedVm();
  const { events: queue } = m.vcpu;
  const cpu = m.vendor.cpu(m.vcpu);
  queue.returnException(Vector.SS, 0x18);
  m.vm.runSync();
  queue.returnNmi();
  m.vcpu.mpState = MpState.RUNNABLE;
  m.vm.runSync();
  assertEquals(cpu.delivered.map(({ event, vector, errorCode }) => [event, vector, errorCode]), [
    ["exception", Vector.SS, 0x18],
    ["nmi", 2, undefined],
  ]);
});

Deno.test("an exception that came up in between goes ahead of an interrupted interrupt", () => {
  using m = withController({
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      vcpu.events.returnInterrupt(0x80, true);
      vcpu.events.queueException(Vector.UD);
      m.vm.setIrqLine(0, true);
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 5;
    },
  });
  m.vm.runSync();
  assertEquals(events(m), ["exception 6 at 1", "interrupt 128 at 1", "interrupt 32 at 1"]);
});

Deno.test("what waits behind an exception is delivered without being asked for again", () => {
  using m = scriptedVm({
    guest: function* () {
      for (;;) {
        yield 5;
        yield (exit) => void (exit.reason = ExitReason.WBINVD);
      }
    },
  });
  m.vcpu.events.returnInterrupt(0x80, true);
  m.vcpu.events.queueException(Vector.UD);
  m.vm.runSync({ instructions: 20 });
  assertEquals(events(m), ["exception 6 at 0", "interrupt 128 at 6"]);
});

Deno.test("an event is handed to the vendor once, also when the entry is put off", () => {
  const injected: string[] = [];
  let puttings = 0;
  const request = defineRequest("test-put-off");
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(requestHook, request.id, () => {});
      ctx.on(injectHook, (_, event, vector) => void injected.push(`${event} ${vector}`));
      ctx.on(beforeEnterHook, (vcpu) => {
        if (puttings++ % 3 === 2) return;
        vcpu.request(request);
        vcpu.request(eventRequest);
      });
    },
  };
  using m = scriptedVm({ plugins: [watcher] });
  const { events: queue } = m.vcpu;
  for (
    const give of [
      () => queue.returnException(Vector.SS, 8),
      () => queue.returnNmi(),
      () => queue.returnInterrupt(0x41, false),
    ]
  ) {
    give();
    m.vcpu.mpState = MpState.RUNNABLE;
    m.vm.runSync();
  }
  assertEquals(injected, ["exception 12", "nmi 2", "interrupt 65"]);
  assertEquals(events(m).length, 3);
});

Deno.test("a controller that is swapped in is asked at once", () => {
  const [first, second] = [controller(), controller()];
  second.waiting.push(0x55);
  using m = scriptedVm({
    plugins: [first.plugin],
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).interruptFlag = true;
      for (;;) yield 10;
    },
  });
  m.vm.runSync({ instructions: 30 });
  m.vm.swap("controller", second.plugin);
  m.vm.runSync({ instructions: 30 });
  assertEquals(events(m), ["interrupt 85 at 30"]);
});

Deno.test("an exception during the delivery of another makes a double fault", () => {
  using m = scriptedVm();
  m.vcpu.events.returnException(Vector.GP, 0);
  m.vcpu.events.queueException(Vector.NP, 0x10);
  m.vm.runSync();
  assertEquals(m.vendor.cpu(m.vcpu).delivered, [
    { event: "exception", vector: Vector.DF, errorCode: 0, at: 0 },
  ]);
});

Deno.test("a fault is delivered with RF set, a trap is not", () => {
  const rf = 1n << 16n;
  for (const [vector, flag] of [[Vector.GP, rf], [Vector.BP, 0n], [Vector.DB, 0n]] as const) {
    using m = scriptedVm();
    m.vcpu.events.queueException(vector);
    m.vm.runSync();
    assertEquals(m.vcpu.regs.rflags & rf, flag, `vector ${vector}`);
  }
});

Deno.test("HLT ends when an interrupt that was held off can be taken", () => {
  using m = withController({
    guest: function* (vcpu) {
      const cpu = m.vendor.cpu(vcpu);
      m.vm.setIrqLine(5, true);
      yield (exit) => void (exit.reason = ExitReason.WBINVD);
      yield 5;
      // STI; HLT: the interrupt becomes deliverable with the HLT itself.
      yield (exit) => {
        exit.reason = ExitReason.HLT;
        cpu.interruptWindow = false;
        cpu.interruptFlag = true;
      };
      cpu.interruptFlag = false;
      yield 7;
    },
  });
  const result = m.vm.runSync();
  assertEquals(events(m), ["interrupt 37 at 7"]);
  assertEquals([result.reason, result.instructions], ["halted", 15]);
});

Deno.test("an interrupt that the processor delivers by itself wakes and is not injected", () => {
  const calls: string[] = [];
  let waiting = false;
  const accelerated: Plugin = {
    name: "controller",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup(ctx) {
      ctx.provide(interruptControllerSlot, {
        hasInterrupt: () => waiting,
        hasInjectable: () => {
          calls.push("injectable?");
          return false;
        },
        acknowledge: () => {
          calls.push("acknowledge");
          return 0x20;
        },
      });
      ctx.createTimer("device", () => {
        waiting = true;
        for (const vcpu of ctx.vm.vcpus) vcpu.request(eventRequest);
      }).arm(50_000);
    },
  };
  using m = scriptedVm({
    plugins: [accelerated],
    guest: function* (vcpu) {
      const cpu = m.vendor.cpu(vcpu);
      cpu.interruptFlag = true;
      yield (exit) => void (exit.reason = ExitReason.HLT);
      calls.push(`awake, window ${cpu.interruptWindow}`);
      waiting = false;
      yield 3;
    },
  });
  m.vm.runSync();
  assertEquals(events(m), []);
  assertEquals(calls, ["injectable?", "awake, window false"]);
});

Deno.test("a controller that throws is named", () => {
  const bad: Plugin = {
    name: "bad-controller",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup: (ctx) =>
      ctx.provide(interruptControllerSlot, {
        hasInterrupt: () => {
          throw new Error("no chip");
        },
        acknowledge: () => 0,
      }),
  };
  using m = scriptedVm({ plugins: [bad] });
  m.vcpu.request(eventRequest);
  const result = m.vm.runSync();
  assertEquals(
    result.reason === "error" && result.error.message,
    'plugin "bad-controller" failed in slot "interrupt-controller" on vCPU 0: no chip',
  );
});
