import { assertEquals, assertInstanceOf, assertStrictEquals } from "@std/assert";
import {
  afterExitHook,
  beforeEnterHook,
  cpuidHook,
  cpuidSlot,
  defineExitReason,
  defineRequest,
  ExitAction,
  exitHook,
  ExitReason,
  fastpathHook,
  Gpr,
  hypercallHook,
  MpState,
  observeExitHook,
  type Plugin,
  type PluginContext,
  PluginError,
  RequestError,
  requestHook,
  roundRobin,
  runEndedHook,
  type RunResult,
  type TraplineError,
  tripleFaultRequest,
  UnhandledExitError,
  UnimplementedError,
  unknownMsrHook,
  Vector,
  type VmExit,
} from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

const EXIT_TICKS = 1000;

function plugin(name: string, setup: (ctx: PluginContext) => void): Plugin {
  return { name, version: "1.0.0", setup };
}

/** Runs the same test with exits handled outside and inside the guest. */
function bothWays(name: string, test: (inside: boolean) => void): void {
  Deno.test(`${name} (exits leave the guest)`, () => test(false));
  Deno.test(`${name} (exits are handled inside the guest)`, () => test(true));
}

const out = (port: number, value: number) => (exit: VmExit) => exit.setIo(port, 1, true, value);
const exitWith = (reason: number) => (exit: VmExit) => void (exit.reason = reason);

const rom = plugin("rom", (ctx) => {
  ctx.addMemslot({ name: "rom", gpa: 0xffff_f000, size: 0x1000, hpa: 0, readonly: true });
});

function errorOf(result: RunResult): TraplineError {
  if (result.reason !== "error") throw new Error(`the run ended with ${result.reason}`);
  return result.error;
}

bothWays("a run counts instructions, exits and time", (inside) => {
  using m = scriptedVm({
    inside,
    guest: function* () {
      yield 100;
      yield out(0x80, 1);
      yield 20;
      yield out(0x80, 2);
    },
  });
  // Two OUTs and the final HLT complete as instructions of their own.
  assertEquals(m.vm.runSync(), {
    reason: "halted",
    interruptsEnabled: false,
    instructions: 123,
    exits: 3,
    ticks: 123 + 3 * EXIT_TICKS,
  });
  assertEquals(m.vcpu.instructions, 123);
  assertEquals(m.vcpu.regs.rip, 0xfff0n + 123n);
});

bothWays(
  "an entry goes requests, events, before-enter; an exit after-exit, observe, fastpath, exit",
  (inside) => {
    const log: string[] = [];
    const request = defineRequest("test-order");
    const watcher = plugin("watcher", (ctx) => {
      ctx.on(requestHook, request.id, () => void log.push("request"));
      ctx.on(beforeEnterHook, () => void log.push("before-enter"));
      ctx.on(afterExitHook, (_, exit) => {
        if (exit.reason !== ExitReason.BUDGET) log.push("after-exit");
      });
      ctx.on(observeExitHook, () => void log.push("observe"));
      ctx.on(fastpathHook, ExitReason.CPUID, () => {
        log.push("fastpath");
        return undefined;
      });
      ctx.on(exitHook, ExitReason.CPUID, (vcpu) => {
        log.push("exit");
        vcpu.request(request);
        vcpu.events.queueException(Vector.UD);
        return ExitAction.RESUME;
      });
    });
    using m = scriptedVm({
      inside,
      plugins: [watcher],
      guest: function* () {
        yield (exit) => exit.setCpuid(0, 0);
      },
    });
    const cpu = m.vendor.cpu(m.vcpu);
    cpu.onEvent = () => {
      log.push("event");
      cpu.step = 0;
    };
    m.vm.runSync();
    const entry = ["before-enter"];
    const exit = ["after-exit", "observe", "fastpath", "exit"];
    assertEquals(log, [...entry, ...exit, "request", ...entry, "event", "after-exit", "observe"]);
  },
);

Deno.test("what is loaded before an entry is saved after it, whatever ended it", () => {
  // One register that hardware does not switch, and two vCPUs that take turns on one processor.
  let hardware = 0;
  const kept = [100, 200];
  const switcher = plugin("switcher", (ctx) => {
    ctx.on(beforeEnterHook, (vcpu) => void (hardware = kept[vcpu.index] ?? 0));
    ctx.on(afterExitHook, (vcpu) => void (kept[vcpu.index] = hardware));
  });
  using m = scriptedVm({
    cpus: 2,
    processors: 1,
    plugins: [switcher, roundRobin({ quantum: 10, timeslice: 10 })],
    guest: function* () {
      for (;;) {
        hardware++;
        yield 7;
      }
    },
  });
  for (const vcpu of m.vm.vcpus) vcpu.mpState = MpState.RUNNABLE;
  let exits = 0;
  m.vm.load(plugin("watcher", (ctx) => void ctx.on(observeExitHook, () => void exits++)));
  m.vm.runSync({ instructions: 140 });
  assertEquals([kept, exits], [[110, 210], 0]);
});

bothWays("the first answer counts, and the fast path comes first", (inside) => {
  const log: string[] = [];
  const handlers = plugin("handlers", (ctx) => {
    ctx.on(fastpathHook, ExitReason.WBINVD, () => {
      log.push("fastpath");
      return ExitAction.COMPLETE;
    });
    ctx.on(exitHook, ExitReason.WBINVD, () => void log.push("not reached") as undefined);
    ctx.on(exitHook, ExitReason.INVD, () => {
      log.push("first");
      return ExitAction.COMPLETE;
    });
    ctx.on(exitHook, ExitReason.INVD, () => {
      log.push("not reached either");
      return ExitAction.COMPLETE;
    });
  });
  using m = scriptedVm({
    inside,
    plugins: [handlers],
    guest: function* () {
      yield exitWith(ExitReason.WBINVD);
      yield exitWith(ExitReason.INVD);
    },
  });
  m.vm.runSync();
  assertEquals(log, ["fastpath", "first"]);
});

bothWays("an exit that is resumed happens again until it is completed", (inside) => {
  let times = 0;
  const stubborn = plugin("stubborn", (ctx) => {
    ctx.on(exitHook, ExitReason.MWAIT, () => {
      times++;
      return times < 3 ? ExitAction.RESUME : ExitAction.COMPLETE;
    });
  });
  using m = scriptedVm({
    inside,
    plugins: [stubborn],
    guest: function* () {
      yield exitWith(ExitReason.MWAIT);
    },
  });
  assertEquals(m.vm.runSync().exits, 4);
  assertEquals(times, 3);
});

bothWays("port and memory exits reach devices, and answers reach the guest", (inside) => {
  const log: string[] = [];
  const device = plugin("device", (ctx) => {
    ctx.registerPio({
      name: "ports",
      base: 0x60,
      length: 8,
      read: (offset, size, vcpu) => {
        log.push(`in ${offset} ${size} ${vcpu?.id}`);
        return 0x1234_5678;
      },
      write: (offset, size, value) => void log.push(`out ${offset} ${size} ${value}`),
    });
    ctx.registerMmio({
      name: "registers",
      base: 0xfed0_0000,
      length: 0x100,
      read: (offset, size) => offset * 16 + size,
      write: (offset, size, value) => void log.push(`write ${offset} ${size} ${value}`),
    });
  });
  const answers: number[] = [];
  using m = scriptedVm({
    inside,
    plugins: [device],
    guest: function* ({ exit }) {
      yield (exit) => exit.setIo(0x62, 2, false, 0);
      answers.push(exit.lo);
      yield (exit) => exit.setIo(0x64, 4, true, 0xffff_fffe);
      yield (exit) => exit.setMmio(0xfed0_0010, 8, false, 0, 0);
      answers.push(exit.lo, exit.hi);
      yield (exit) => exit.setMmio(0xfed0_0010, 8, true, 1, 2);
      yield (exit) => exit.setMmio(0xfed0_0010, 4, false, 0, 99);
      answers.push(exit.lo, exit.hi);
    },
  });
  m.vm.runSync();
  assertEquals(answers, [0x5678, 0x104, 0x144, 0x104, 0]);
  assertEquals(log, ["in 2 2 0", "out 4 4 4294967294", "write 16 4 1", "write 20 4 2"]);
});

bothWays("CPUID starts at the processor and goes through the leaf's handlers", (inside) => {
  const cpuid: Plugin = {
    name: "processor",
    version: "1.0.0",
    provides: [cpuidSlot],
    setup(ctx) {
      ctx.provide(cpuidSlot, {
        read(result) {
          result.eax = result.leaf + 1;
          result.ebx = result.subleaf;
          result.ecx = 0x10;
          result.edx = 0;
        },
      });
    },
  };
  const mask = plugin("mask", (ctx) => {
    ctx.on(cpuidHook, 0x8000_000a, (result, vcpu) => {
      result.edx = 0xffff_ffff;
      // Asking for another leaf in between does no harm.
      result.ecx |= vcpu.vm.cpuid(5, 0, vcpu).eax + 1;
      return result;
    });
  });
  const seen: number[][] = [];
  using m = scriptedVm({
    inside,
    cpus: [6],
    plugins: [mask, cpuid],
    guest: function* ({ exit }) {
      yield (exit) => exit.setCpuid(0x8000_000a, 3);
      seen.push([exit.eax, exit.ebx, exit.ecx, exit.edx]);
      yield (exit) => exit.setCpuid(1, 0);
      seen.push([exit.eax, exit.ebx, exit.ecx, exit.edx]);
    },
  });
  m.vm.runSync();
  assertEquals(seen, [[0x8000_000b, 3, 0x17, 0xffff_ffff], [2, 0, 0x10, 0]]);
});

bothWays(
  "MSRs go to their plugin, then the vendor, then the hook for unknown ones, then #GP",
  (inside) => {
    const writes: string[] = [];
    const msrs = plugin("msrs", (ctx) => {
      ctx.registerMsr({
        name: "apic",
        base: 0x800,
        length: 0x100,
        read: (access) => {
          access.lo = access.index;
          access.hi = 7;
          return access.index !== 0x80c;
        },
      });
      ctx.on(unknownMsrHook, (access) => {
        if (access.index !== 0x1234) return undefined;
        writes.push(`${access.write} ${access.lo} ${access.hi} ${access.host}`);
        return true;
      });
    });
    const outcomes: unknown[] = [];
    using m = scriptedVm({
      inside,
      plugins: [msrs],
      guest: function* (vcpu) {
        const { exit } = vcpu;
        m.vendor.cpu(vcpu).msrs.set(0x3a, 0x1_0000_0005n);
        for (const index of [0x802, 0x80c, 0x3a, 0x9999, 0x1234]) {
          const fault = yield (exit) => exit.setMsr(index, false, 0, 0);
          outcomes.push(fault ?? [exit.lo, exit.hi]);
        }
        // The plugin has no handler for writes.
        outcomes.push(yield (exit) => exit.setMsr(0x802, true, 1, 0));
        outcomes.push(yield (exit) => exit.setMsr(0x1234, true, 0xffff_ffff, 3));
        outcomes.push(yield (exit) => exit.setMsr(0x3a, true, 2, 4));
      },
    });
    m.vm.runSync();
    assertEquals(outcomes, [
      [0x802, 7],
      Vector.GP,
      [5, 1],
      Vector.GP,
      [0, 0],
      Vector.GP,
      undefined,
      undefined,
    ]);
    assertEquals(writes, ["false 0 0 false", "true 4294967295 3 false"]);
    assertEquals(m.vendor.cpu(m.vcpu).msrs.get(0x3a), 0x4_0000_0002n);
    const faults = m.vendor.cpu(m.vcpu).delivered;
    assertEquals(faults.map(({ vector, errorCode }) => [vector, errorCode]), [
      [Vector.GP, 0],
      [Vector.GP, 0],
      [Vector.GP, 0],
    ]);
    assertEquals(m.vm.msrs.read(m.vcpu, 0x3a), 0x4_0000_0002n);
    assertEquals(m.vm.msrs.read(m.vcpu, 0x9999), undefined);
    assertEquals(m.vm.msrs.write(m.vcpu, 0x3a, 0xffff_ffff_ffff_ffffn), true);
    assertEquals(m.vm.msrs.read(m.vcpu, 0x3a), 0xffff_ffff_ffff_ffffn);
  },
);

Deno.test("RDTSC and RDTSCP answer from the MSRs", () => {
  const answers: number[] = [];
  using m = scriptedVm({
    guest: function* (vcpu) {
      const { exit } = vcpu;
      const { msrs } = m.vendor.cpu(vcpu);
      msrs.set(0x10, 0x5_0000_0006n);
      msrs.set(0xc000_0103, 42n);
      yield exitWith(ExitReason.RDTSC);
      answers.push(exit.lo, exit.hi);
      yield exitWith(ExitReason.RDTSCP);
      answers.push(exit.lo, exit.hi, exit.ecx);
    },
  });
  m.vm.runSync();
  assertEquals(answers, [6, 5, 6, 5, 42]);
});

bothWays(
  "hypercalls answer in RAX, unknown ones and those of user code with an error",
  (inside) => {
    const handler = plugin("handler", (ctx) => {
      ctx.on(hypercallHook, 9, ({ regs }) => {
        regs.rax = regs.rbx + regs.rcx;
        return true;
      });
      ctx.on(hypercallHook, 10, () => undefined);
    });
    const answers: bigint[] = [];
    using m = scriptedVm({
      inside,
      plugins: [handler],
      guest: function* (vcpu) {
        const { cs } = m.vendor.cpu(vcpu).system;
        const call = function* (number: bigint) {
          vcpu.regs.rax = number;
          yield exitWith(ExitReason.HYPERCALL);
          answers.push(vcpu.regs.rax);
        };
        vcpu.regs.rbx = 40n;
        vcpu.regs.rcx = 2n;
        for (const number of [9n, 10n, 11n]) yield* call(number);
        cs.attributes |= 0x200;
        yield* call(11n);
        cs.attributes |= 3 << 5;
        yield* call(9n);
      },
    });
    m.vm.runSync();
    const u64 = (value: bigint) => BigInt.asUintN(64, value);
    assertEquals(answers, [42n, 0xffff_fc18n, 0xffff_fc18n, u64(-1000n), u64(-1n)]);
  },
);

bothWays("a handler that throws stops its vCPU, and the VM can be resumed", (inside) => {
  let broken = true;
  const flaky = plugin("flaky", (ctx) => {
    ctx.on(exitHook, ExitReason.CPUID, () => {
      if (broken) throw new Error("not today");
      return ExitAction.COMPLETE;
    });
  });
  using m = scriptedVm({
    inside,
    plugins: [flaky],
    guest: function* () {
      yield 5;
      yield (exit) => exit.setCpuid(0, 0);
      yield 5;
    },
  });
  const result = m.vm.runSync();
  const error = errorOf(result);
  assertInstanceOf(error, PluginError);
  assertEquals([error.plugin, error.hook, error.vcpuId], ["flaky", 'hook "exit[3]"', 0]);
  assertEquals(result.reason === "error" && result.vcpuId, 0);
  assertStrictEquals(m.vcpu.error, error);
  // The instruction has not been executed, and can be looked at.
  assertEquals(m.vcpu.regs.rip, 0xfff5n);

  assertEquals(errorOf(m.vm.runSync()).message, error.message);
  broken = false;
  assertEquals(m.vm.runSync().reason, "halted");
  assertEquals(m.vcpu.error, undefined);
  assertEquals(m.vcpu.instructions, 12);
});

bothWays("a device that throws is named", (inside) => {
  const device = plugin("bad-device", (ctx) => {
    ctx.registerPio({
      name: "bad port",
      base: 0x80,
      length: 1,
      write: () => {
        throw new Error("smoke");
      },
    });
  });
  using m = scriptedVm({
    inside,
    plugins: [device],
    guest: function* () {
      yield out(0x80, 1);
    },
  });
  const error = errorOf(m.vm.runSync());
  assertEquals(
    error.message,
    'plugin "bad-device" failed in write of "bad port" on vCPU 0: smoke',
  );
});

Deno.test("a vendor that throws is named", () => {
  using m = scriptedVm({
    guest: function* () {
      yield 1;
      throw new Error("bad script");
    },
  });
  const error = errorOf(m.vm.runSync());
  assertInstanceOf(error, PluginError);
  assertEquals([error.plugin, error.hook, error.vcpuId], ["scripted", 'slot "vendor"', 0]);
});

Deno.test("requests are handled before the next entry, lowest first, until none is left", () => {
  const [low, high] = [defineRequest("test-low"), defineRequest("test-high")];
  const log: string[] = [];
  const handlers = plugin("handlers", (ctx) => {
    ctx.on(requestHook, high.id, (vcpu) => {
      log.push("high");
      if (log.length < 4) vcpu.request(low);
    });
    ctx.on(requestHook, low.id, () => void log.push("low"));
    ctx.on(beforeEnterHook, (vcpu) => {
      log.push("enter");
      // Made as late as can be, it is handled before the guest is entered all the same.
      if (log.length === 4) vcpu.request(high);
    });
  });
  using m = scriptedVm({ plugins: [handlers], guest: function* () {} });
  m.vcpu.request(high);
  m.vcpu.request(low);
  assertEquals(m.vcpu.hasRequest(high), true);
  m.vm.runSync();
  assertEquals(log, ["low", "high", "low", "enter", "high", "enter"]);
  assertEquals(m.vcpu.hasRequest(high), false);

  m.vcpu.request(low);
  m.vcpu.clearRequest(low);
  assertEquals(m.vcpu.hasRequest(low), false);
});

Deno.test("a request that nobody handles, or that never ends, stops the vCPU", () => {
  const orphan = defineRequest("test-orphan");
  using m = scriptedVm();
  m.vcpu.request(orphan);
  const error = errorOf(m.vm.runSync());
  assertInstanceOf(error, RequestError);
  assertEquals(error.request, "test-orphan");
  assertEquals(error.message, 'request "test-orphan": nothing handles it (vCPU 0)');

  m.vm.load(plugin("again", (ctx) => {
    ctx.on(requestHook, orphan.id, (vcpu) => vcpu.request(orphan));
  }));
  m.vcpu.request(orphan);
  assertEquals(
    errorOf(m.vm.runSync()).message,
    'request "test-orphan": requests bring up further requests without end',
  );
});

bothWays("a triple fault shuts the vCPU down", (inside) => {
  using m = scriptedVm({
    inside,
    guest: function* () {
      yield 3;
      yield exitWith(ExitReason.SHUTDOWN);
    },
  });
  const result = m.vm.runSync();
  assertEquals(result.reason, "shutdown");
  assertEquals(result.reason === "shutdown" && result.vcpuId, 0);
  assertEquals(m.vcpu.mpState, MpState.STOPPED);
  assertEquals(m.vm.runSync().reason, "halted");
});

Deno.test("a plugin may take shutdown over, also when it comes by request", () => {
  let times = 0;
  const survivor = plugin("survivor", (ctx) => {
    ctx.on(exitHook, ExitReason.SHUTDOWN, () => {
      times++;
      return ExitAction.RESUME;
    });
  });
  using m = scriptedVm({
    plugins: [survivor],
    guest: function* () {
      yield 5;
    },
  });
  m.vcpu.request(tripleFaultRequest);
  assertEquals(m.vm.runSync().reason, "halted");
  assertEquals(times, 1);
});

bothWays("exits that nobody handles are errors that describe them", (inside) => {
  const custom = defineExitReason("TEST_CUSTOM");
  const cases: [(exit: VmExit) => void, string][] = [
    [exitWith(ExitReason.SMI), "vCPU 0: nothing handles exit SMI"],
    [
      (exit) => {
        exit.reason = ExitReason.SIPI;
        exit.vector = 8;
      },
      "vCPU 0: nothing handles exit SIPI (vector 8)",
    ],
    [
      (exit) => {
        exit.reason = custom;
        exit.vendorCodeLo = 0x401;
        exit.info1Hi = 1;
        exit.info2Lo = 2;
      },
      "vCPU 0: nothing handles exit TEST_CUSTOM (vendor code 401h, info 100000000h 2h)",
    ],
    [
      (exit) => {
        exit.reason = ExitReason.NESTED_PAGE_FAULT;
        exit.gpa = 0x1000;
        exit.errorCode = 5;
      },
      "vCPU 0: nothing handles exit NESTED_PAGE_FAULT (gpa 1000h, error code 5h)",
    ],
    [
      (exit) => {
        exit.reason = ExitReason.NESTED_PAGE_FAULT;
        exit.gpa = 0xffff_f000;
        exit.errorCode = 0x10;
      },
      "vCPU 0: nothing handles exit NESTED_PAGE_FAULT (gpa fffff000h, error code 10h)",
    ],
  ];
  for (const [step, message] of cases) {
    using m = scriptedVm({
      inside,
      plugins: [rom],
      guest: function* () {
        yield step;
      },
    });
    const error = errorOf(m.vm.runSync());
    assertInstanceOf(error, UnhandledExitError);
    assertEquals(error.message, message);
  }
});

Deno.test("what the processor does not implement is named with its bytes", () => {
  using m = scriptedVm({
    guest: function* () {
      yield 3;
      yield (exit) => {
        exit.reason = ExitReason.UNIMPLEMENTED;
        exit.bytes.set([0x0f, 0xae, 0x05]);
        exit.byteCount = 3;
      };
    },
  });
  const error = errorOf(m.vm.runSync());
  assertInstanceOf(error, UnimplementedError);
  assertEquals(
    error.message,
    'vCPU 0: the processor does not implement "0f ae 05" at RIP fff3h',
  );
});

Deno.test("an entry that the processor refuses is an error with the vendor's words", () => {
  using m = scriptedVm({
    guest: function* () {
      yield (exit) => {
        exit.reason = ExitReason.FAIL_ENTRY;
        exit.vendorCodeLo = 0xffff_ffff;
        exit.vendorCodeHi = 0xffff_ffff;
      };
    },
  });
  assertEquals(
    errorOf(m.vm.runSync()).message,
    "vCPU 0: the processor refused to enter the guest (vendor code ffffffffffffffffh, info 0h 0h)",
  );
});

Deno.test("device memory and ROM writes are emulated, other nested page faults are the vendor's", () => {
  using m = scriptedVm({
    plugins: [rom],
    guest: function* () {
      yield (exit) => {
        exit.reason = ExitReason.NESTED_PAGE_FAULT;
        exit.gpa = 0xfee0_0000;
      };
      yield (exit) => {
        exit.reason = ExitReason.NESTED_PAGE_FAULT;
        exit.gpa = 0xffff_f000;
        exit.errorCode = 2;
      };
      yield 1;
    },
  });
  assertEquals(m.vm.runSync().reason, "halted");
  assertEquals(m.vcpu.instructions, 4);
});

bothWays("an intercepted exception with no handler reaches the guest", (inside) => {
  using m = scriptedVm({
    inside,
    guest: function* (vcpu) {
      m.vendor.cpu(vcpu).onEvent = () => {
        m.vendor.cpu(vcpu).step = 0;
      };
      yield (exit) => {
        exit.reason = ExitReason.EXCEPTION;
        exit.vector = Vector.PF;
        exit.errorCode = 6;
        exit.hasErrorCode = true;
        exit.gvaLo = 0x1000;
      };
      yield (exit) => {
        exit.reason = ExitReason.EXCEPTION;
        exit.vector = Vector.BP;
        exit.hasErrorCode = false;
      };
    },
  });
  m.vm.runSync();
  assertEquals(m.vendor.cpu(m.vcpu).delivered, [
    { event: "exception", vector: Vector.PF, errorCode: 6, payload: 0x1000n, at: 0 },
    { event: "exception", vector: Vector.BP, at: 0 },
  ]);
});

Deno.test("a handler sees and changes registers, and the hooks of the run's end see the result", () => {
  const results: RunResult[] = [];
  const watcher = plugin("watcher", (ctx) => {
    ctx.on(runEndedHook, (result) => void results.push(result));
    ctx.on(exitHook, ExitReason.CPUID, ({ regs }) => {
      regs.setU32(Gpr.RAX, regs.lo(Gpr.RAX) + 1);
      return ExitAction.COMPLETE;
    });
  });
  using m = scriptedVm({
    plugins: [watcher],
    guest: function* ({ regs }) {
      regs.rax = 41n;
      yield (exit) => exit.setCpuid(0, 0);
    },
  });
  const result = m.vm.runSync();
  assertEquals(m.vcpu.regs.rax, 42n);
  assertEquals(results, [result]);
});
