import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  ArgumentError,
  interruptControllerSlot,
  MpState,
  type Plugin,
  PluginError,
  type RunEnd,
  TraplineError,
  UnimplementedError,
  type Vcpu,
} from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { type Processor, type Processors, processorsSlot, type RecentEvent } from "../cpu/mod.ts";
import { CODE, type LongGuest, longGuest, PD } from "./fixture_test.ts";
import { examine, formatPostMortem, postMortem } from "./mod.ts";

/** Processors that remember what they are told to. */
function remembering(events: RecentEvent[]): Plugin {
  const processor = { recentEvents: () => events } as Partial<Processor> as Processor;
  const processors = { count: 1, get: () => processor } as Partial<Processors> as Processors;
  return {
    name: "remembering",
    version: "1.0.0",
    provides: [processorsSlot],
    setup: (ctx) => ctx.provide(processorsSlot, processors),
  };
}

const event = (vector: number, fields: Partial<RecentEvent> = {}): RecentEvent => ({
  vector,
  type: "exception",
  errorCode: undefined,
  rip: BigInt(CODE),
  cr2: 0n,
  delivered: false,
  ...fields,
});

const SHUTDOWN: RunEnd = { reason: "shutdown", vcpuId: 0 };

function reportOf(
  end: RunEnd,
  events: RecentEvent[],
  prepare: (guest: LongGuest) => void = () => {},
) {
  using guest = longGuest({ plugins: [remembering(events), postMortem()] });
  prepare(guest);
  return examine(guest.vm, end);
}

Deno.test("a triple fault: the chain, from the first exception on", () => {
  const report = reportOf(SHUTDOWN, [
    event(3, { delivered: true }),
    event(6),
    event(13, { errorCode: 0x33 }),
    event(8, { errorCode: 0 }),
  ], ({ system }) => void (system.idt.limit = 0));
  assertEquals(
    report.verdict,
    "triple fault: #UD at RIP a000h; gate 6 (bytes 60h to 6fh of the IDT) lies past its limit, 0h",
  );
  assertEquals(report.notes, [
    "That gave #GP(33h: IDT vector 6, external) at RIP a000h: gate 13 (bytes d0h to dfh of the IDT)" +
    " lies past its limit, 0h.",
    "That gave #DF at RIP a000h: gate 8 (bytes 80h to 8fh of the IDT) lies past its limit, 0h.",
    "With no handler to go to, the processor shut down.",
    "The IDT has room for no gate (limit 0h): no LIDT has loaded one.",
    "There is nothing but zeros at RIP: execution has left the program.",
  ]);
  assertEquals(report.chain.map(({ event }) => event.vector), [6, 13, 8]);
  assertEquals(report.missing, []);
});

Deno.test("a triple fault: a page fault with the entry that is missing", () => {
  const report = reportOf(
    SHUTDOWN,
    [event(14, { errorCode: 2, cr2: 0x1234n })],
    (guest) => {
      guest.vm.memory.writeU64(PD, 0n);
      guest.system.cr2 = 0x1234n;
    },
  );
  assertStringIncludes(
    report.verdict,
    "#PF at RIP a000h: supervisor write, not present, CR2 1234h (PDE at 8000h is 0); gate 14 at 30e0h " +
      "is not mapped",
  );
  assertEquals(report.walks.map(({ of }) => of), ["RIP", "RSP", "CR2"]);
  assertEquals(report.walks[2]?.problem, "PDE at 8000h is 0");
  assertEquals(report.code?.from[0], null);
  assertEquals(report.stack?.words[0], null);
});

Deno.test("a triple fault: a jump to nowhere is seen with and without NX", () => {
  for (const errorCode of [0, 16]) {
    const rip = 1n << 40n;
    const report = reportOf(SHUTDOWN, [event(14, { errorCode, cr2: rip, rip })], ({ vcpu }) => {
      vcpu.regs.rip = rip;
    });
    assertStringIncludes(report.verdict, "supervisor instruction fetch, not present");
    assertStringIncludes(report.notes.at(-1) ?? "", "There is no code at RIP");
  }
  const read = reportOf(SHUTDOWN, [event(14, { errorCode: 0, cr2: 1n << 40n })]);
  assertStringIncludes(read.verdict, "supervisor read");
});

Deno.test("a triple fault: what was delivered again counts once; what was delivered does not count", () => {
  const twice = reportOf(SHUTDOWN, [event(6), event(6), event(6, { rip: 5n })]);
  assertEquals(twice.chain.length, 2);
  const other = reportOf(SHUTDOWN, [event(6), event(14, { errorCode: 0, delivered: true })]);
  assertEquals(other.chain.length, 0);
  assertEquals(other.verdict, "triple fault on vCPU 0 at RIP a000h");
  assertEquals(other.events.length, 2);
});

Deno.test("interrupts, NMIs and INT n have names of their own", () => {
  const what = (fields: Partial<RecentEvent>) =>
    reportOf(SHUTDOWN, [event(0x21, fields)]).chain[0]?.what;
  assertEquals(what({ type: "interrupt" }), "interrupt 21h at RIP a000h");
  assertEquals(what({ type: "software" }), "INT 21h at RIP a000h");
  assertEquals(what({ type: "nmi" }), "NMI at RIP a000h");
});

Deno.test("a halt: where, and why nothing wakes it", () => {
  const end: RunEnd = { reason: "halted", interruptsEnabled: false };
  const halted = ({ vm, vcpu }: LongGuest) => {
    vcpu.mpState = MpState.HALTED;
    vm.memory.writeU8(CODE - 1, 0xf4);
  };
  const off = reportOf(end, [], halted);
  assertEquals(off.verdict, "vCPU 0 halted for good by HLT at RIP 9fffh, interrupts off");
  assertEquals(off.notes.length, 1);
  const on = reportOf({ ...end, interruptsEnabled: true }, [], halted);
  assertStringIncludes(on.verdict, "interrupts on");
  assertStringIncludes(on.notes[0] ?? "", "no timer is armed");
});

Deno.test("a halt: an interrupt that waits is mentioned, and what the other vCPUs do", () => {
  const controller: Plugin = {
    name: "controller",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup: (ctx) =>
      ctx.provide(interruptControllerSlot, { hasInterrupt: () => true, acknowledge: () => 32 }),
  };
  using machine = scriptedVm({ cpus: 2, plugins: [controller, postMortem()] });
  const result = machine.vm.runSync();
  assertEquals(result.reason, "halted");
  const report = examine(machine.vm, result);
  const { notes } = report;
  assertStringIncludes(notes.join("\n"), "An interrupt is waiting at the interrupt controller");
  assertEquals(report.others, [
    { vcpuId: 1, state: "not started", rip: 0xfff0n, interrupts: false, instructions: 0 },
  ]);
  assertStringIncludes(
    formatPostMortem(report),
    "\nother vCPUs\n  vCPU 1  not started  RIP fff0h  interrupts off  0 instructions\n",
  );
});

Deno.test("a limit: a loop without exits is found by sampling", () => {
  using machine = scriptedVm({
    plugins: [postMortem()],
    guest: function* (vcpu) {
      for (;;) {
        yield 10;
        vcpu.regs.rip = 0xfff0n;
      }
    },
  });
  const { vm } = machine;
  let result = vm.runSync({ instructions: 7 });
  for (let i = 0; i < 20; i++) result = vm.runSync({ instructions: 7 });
  const { verdict, notes, hotSpots } = examine(vm, result);
  assertStringIncludes(verdict, "the run's limit was reached with vCPU 0 at RIP");
  assertEquals(notes, [
    "It loops: all of the last 21 samples of vCPU 0 lie between RIP fff1h and RIP fffah.",
    "It never exited in 147 instructions.",
  ]);
  assertEquals(hotSpots.reduce((sum, { samples }) => sum + samples, 0), 21);
});

Deno.test("a limit: polling is seen in the last exits", () => {
  using machine = scriptedVm({
    plugins: [postMortem({ exits: 10 })],
    guest: function* (vcpu) {
      for (;;) {
        vcpu.regs.rip = 0x1000n;
        yield (exit) => exit.setIo(0x64, 1, false, 0);
      }
    },
  });
  const result = machine.vm.runSync({ instructions: 100 });
  const { notes, lastExits } = examine(machine.vm, result);
  assertEquals(notes, [
    "It polls: the last 10 exits are all IO (in, port 64h, 1 bytes) from RIP 1000h.",
  ]);
  assertEquals(lastExits.map(({ number }) => number), [91, 92, 93, 94, 95, 96, 97, 98, 99, 100]);
  assertEquals(lastExits.at(-1), {
    number: 100,
    vcpuId: 0,
    instructions: 99,
    rip: 0x1000n,
    reason: "IO",
    detail: "in, port 64h, 1 bytes",
  });
});

Deno.test("an error is told as it is", () => {
  const failed = (error: TraplineError) => reportOf({ reason: "error", error, vcpuId: 0 }, []);
  const plugin = failed(new PluginError("disk", 'hook "exit"', 0, new Error("no such sector")));
  assertEquals(
    plugin.verdict,
    'error: plugin "disk" failed in hook "exit" on vCPU 0: no such sector',
  );
  assertStringIncludes(plugin.notes[0] ?? "", 'Plugin "disk" threw');
  const missing = failed(new UnimplementedError("no FNOP"));
  assertStringIncludes(missing.notes[0] ?? "", "limit of the framework");
  assertEquals(failed(new TraplineError("plain")).notes, []);
});

Deno.test("other ends have a verdict, too", () => {
  assertEquals(
    reportOf({ reason: "exit-code", code: 3 }, []).verdict,
    "the guest ended with code 3",
  );
  assertStringIncludes(
    reportOf({ reason: "stopped", detail: "Ctrl-C" }, []).verdict,
    "stopped with vCPU 0 at RIP a000h, in 64-bit mode at CPL 0: Ctrl-C",
  );
});

Deno.test("without the plugin there is a report all the same", () => {
  using guest = longGuest();
  const report = examine(guest.vm, SHUTDOWN);
  assertEquals(report.verdict, "triple fault on vCPU 0 at RIP a000h");
  assertEquals([report.lastExits, report.hotSpots, report.missing], [[], [], []]);
  assertEquals(report.registers.RIP, BigInt(CODE));
  assertEquals(report.registers.R16, undefined);
});

Deno.test("extended registers are shown when they hold something", () => {
  using guest = longGuest();
  guest.vcpu.regs.r20 = 7n;
  assertEquals(examine(guest.vm, SHUTDOWN).registers.R20, 7n);
});

Deno.test("the text has every part", () => {
  const text = formatPostMortem(reportOf(
    SHUTDOWN,
    [event(14, { errorCode: 0, cr2: 1n << 40n })],
    (guest) => {
      guest.gate(14, 0x8e01, 0x30);
      guest.system.cr2 = 1n << 40n;
      guest.vm.memory.write(CODE, new Uint8Array([0x0f, 0x0b, 0x90]));
    },
  ));
  for (
    const part of [
      "vCPU 0, 64-bit mode, CPL 0\n  RAX 0000000000000000  RBX",
      "  RIP 000000000000a000  RFLAGS 00000002\n",
      "  CS   0008  base 0000000000000000  limit ffffffff  64-bit code, readable, DPL 0\n",
      "  CR0  0000000080010011  PE ET WP PG\n",
      "code at a000h: ud2\n  00 00",
      "  <0f 0b> 90 00 00 00 00 00 00 00 00 00 00 00 00 00\n  a000h  ud2\n  a002h  nop\n  a003h  add [rax], al\n",
      "stack at 9000h\n  0000000000009000  0000000000000000\n",
      "page walk of RIP a000h\n  PML4E at 6000h      0000000000007007  P W U\n",
      "  gpa a000h, 2 MiB page, writable, user\n",
      "page walk of CR2 10000000000h\n  PML4E at 6010h      0000000000000000  0: not present\n",
      "gate 14, #PF, at 30e0h\n  interrupt gate, DPL 0, IST 1, handler 30h:a000h\n",
    ]
  ) assertStringIncludes(text, part);
  assertEquals(text.endsWith("\n"), true);
  assertEquals(text.includes("\n\n\n"), false);
});

Deno.test("a state that cannot be read does not keep the rest from being told", () => {
  using guest = longGuest({ plugins: [postMortem()] });
  guest.vm.vendor.current.getSystemState = () => {
    throw new Error("gone");
  };
  const report = examine(guest.vm, SHUTDOWN);
  assertEquals(report.missing, ["system registers: gone"]);
  assertEquals(report.mode, undefined);
  assertStringIncludes(formatPostMortem(report), "not to be had\n  system registers: gone\n");
});

Deno.test("no state, however broken, makes the report fail", () => {
  let seed = 0x2545f491;
  const random = () => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  const wide = () => BigInt(random()) << BigInt(random() % 33) | BigInt(random());
  const ends: RunEnd[] = [
    SHUTDOWN,
    { reason: "halted", interruptsEnabled: true },
    { reason: "limit" },
    { reason: "error", error: new TraplineError("x"), vcpuId: undefined },
  ];
  for (let round = 0; round < 200; round++) {
    const events = Array.from({ length: random() % 5 }, () =>
      event(random() % 256, {
        type: (["exception", "interrupt", "nmi", "software"] as const)[random() % 4]!,
        errorCode: random() % 2 === 0 ? undefined : random(),
        rip: wide(),
        cr2: wide(),
      }));
    const report = reportOf(ends[round % ends.length]!, events, ({ system, vcpu }) => {
      for (const name of ["cr0", "cr2", "cr3", "cr4", "efer", "xcr0", "dr0"] as const) {
        system[name] = random() % 3 === 0 ? system[name] : wide();
      }
      for (const name of ["cs", "ss", "tr", "ldt"] as const) {
        system[name] = {
          selector: random() & 0xffff,
          base: wide(),
          limit: random(),
          attributes: random() & 0xfff,
        };
      }
      system.idt = { base: wide(), limit: random() & 0xffff };
      system.gdt = { base: wide(), limit: random() & 0xffff };
      for (let i = 0; i < 34; i++) vcpu.regs.set(i, wide());
    });
    assertEquals(report.missing, [], `round ${round}`);
    assert(formatPostMortem(report).length > 0);
  }
});

Deno.test("the vCPU that a report is about", () => {
  using machine = scriptedVm({ cpus: [4, 9], plugins: [postMortem()] });
  const of = (end: RunEnd) => examine(machine.vm, end).vcpuId;
  assertEquals(of({ reason: "shutdown", vcpuId: 9 }), 9);
  assertEquals(of({ reason: "limit" }), 4);
  const [, second] = machine.vm.vcpus as [Vcpu, Vcpu];
  second.mpState = MpState.HALTED;
  assertEquals(of({ reason: "halted", interruptsEnabled: false }), 9);
});

Deno.test("bad options are refused", () => {
  for (const exits of [0, -1, 1.5, 65537, NaN]) {
    assertThrows(() => postMortem({ exits }), ArgumentError, "postmortem: exits");
  }
});

Deno.test("a limit: exits of other vCPUs are not taken for its own", () => {
  using machine = scriptedVm({
    cpus: 2,
    plugins: [postMortem({ exits: 4 })],
    guest: function* () {
      for (;;) yield (exit) => exit.setIo(0x64, 1, false, 0);
    },
  });
  const [first, second] = machine.vm.vcpus as [Vcpu, Vcpu];
  first.mpState = MpState.HALTED;
  second.mpState = MpState.RUNNABLE;
  const result = machine.vm.runSync({ instructions: 20 });
  assertEquals(result.reason, "limit");
  first.mpState = MpState.RUNNABLE;
  const report = examine(machine.vm, result);
  assertEquals([report.vcpuId, report.notes], [0, ["None of the VM's last 4 exits is its own."]]);
  // And its instructions are said to be those of another.
  const executed = { rip: 1n, bytes: [0x90], text: "nop", changes: {}, events: [] };
  const text = formatPostMortem({ ...report, lastInstructions: [{ ...executed, vcpuId: 1 }] });
  assertStringIncludes(text, "\nlast instructions, found by running it again\n  vCPU 1  1h  nop\n");
  const own = formatPostMortem({ ...report, lastInstructions: [{ ...executed, vcpuId: 0 }] });
  assertStringIncludes(own, "\nlast instructions, found by running it again\n  1h  nop\n");
});
