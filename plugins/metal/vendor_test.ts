import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  createVmSync,
  eventRequest,
  ExitAction,
  exitHook,
  ExitReason,
  interruptControllerSlot,
  observeExitHook,
  type Plugin,
  PluginError,
  type Vm,
} from "../../core/mod.ts";
import { Control, cpu, Efer, IntControl, Misc1, Misc2, Msr, Save, SvmExit } from "../cpu/mod.ts";
import { flat, type FlatEntry } from "../flat/mod.ts";
import { metal } from "./mod.ts";

const CODE = 0x1_0000;

/** Port 80h does `action`, and port F4h ends the run with what is written to it. */
function ports(action: (vm: Vm) => void): Plugin {
  return {
    name: "ports",
    version: "1.0.0",
    setup(ctx) {
      ctx.registerPio({ name: "action", base: 0x80, length: 1, write: () => action(ctx.vm) });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: (_offset, _size, code) => ctx.vm.stop({ reason: "exit-code", code }),
      });
    },
  };
}

function machine(
  code: readonly number[],
  entry: FlatEntry,
  plugins: readonly Plugin[],
  cpus = 1,
): Vm {
  const image = flat(new Uint8Array(code), { address: CODE, entry });
  return createVmSync({
    memory: 2 ** 21,
    cpus,
    plugins: [cpu(), metal(), ...plugins],
    images: [image],
  });
}

/** Runs to the end and gives the code that the guest wrote to port F4h, or why there is none. */
function run(vm: Vm): number | string {
  const end = vm.runSync({ instructions: 10_000 });
  return end.reason === "exit-code" ? end.code : end.reason;
}

Deno.test("a device may look at another vCPU, or reset it, in the middle of an instruction", () => {
  const seen: bigint[] = [];
  const device = ports((vm) => {
    const { current } = vm.vendor;
    const other = vm.vcpus[1]!;
    current.resetVcpu(other, true);
    seen.push(current.getSystemState(other).cs.base, other.regs.rip, vm.vcpus[0]!.regs.rax);
  });
  const code = [
    ...[0xb0, 0x2a], // mov al, 2Ah
    ...[0xe6, 0x80], // out 80h, al
    ...[0xfe, 0xc0], // inc al
    ...[0xe6, 0xf4], // out F4h, al
  ];
  using vm = machine(code, { mode: "real", segment: CODE >> 4 }, [device], 2);
  assertEquals(run(vm), 0x2b);
  assertEquals(seen, [0xffff_0000n, 0xfff0n, 0x2an]);
});

// A host of a few instructions, and a guest behind it.
const GUEST = CODE + 0x100;
const VMCB = 0x2_0000;
const HSAVE = 0x2_1000;
const le32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** Sets `bits` of the MSR, runs the VMCB with interrupts on, and ends with code 1. */
const HOST = [
  ...[0xb9, ...le32(Msr.EFER), 0x0f, 0x32, 0x0d, ...le32(Efer.SVME), 0x0f, 0x30], // or EFER, SVME
  ...[0xb9, ...le32(Msr.VM_HSAVE_PA), 0xb8, ...le32(HSAVE), 0x31, 0xd2, 0x0f, 0x30], // wrmsr
  ...[0xb8, ...le32(VMCB), 0xfb, 0x0f, 0x01, 0xd8], // mov eax, VMCB; sti; vmrun
  ...[0xfa, 0xb0, 0x01, 0xe6, 0xf4], // cli; mov al, 1; out F4h, al
];

/** Fills the VMCB: a guest in the host's own mode and page tables, that starts at {@linkcode GUEST}. */
function prepareVmcb(vm: Vm, misc1: number, intControl = 0): void {
  const { memory } = vm;
  const state = vm.vendor.current.getSystemState(vm.vcpus[0]!);
  const segments = [[Save.CS, state.cs], [Save.SS, state.ss], [Save.DS, state.ds]] as const;
  for (const [offset, { selector, attributes, limit, base }] of segments) {
    memory.writeU32(VMCB + offset, selector | (attributes << 16));
    memory.writeU32(VMCB + offset + 4, limit);
    memory.writeU64(VMCB + offset + 8, base);
  }
  memory.writeU32(VMCB + 0x0c, misc1);
  memory.writeU32(VMCB + 0x10, Misc2.VMRUN | Misc2.VMMCALL);
  memory.writeU32(VMCB + Control.ASID, 1);
  memory.writeU32(VMCB + Control.INT_CONTROL, intControl);
  memory.writeU64(VMCB + Save.EFER, state.efer | BigInt(Efer.SVME));
  memory.writeU64(VMCB + Save.CR0, state.cr0);
  memory.writeU64(VMCB + Save.CR3, state.cr3);
  memory.writeU64(VMCB + Save.CR4, state.cr4);
  memory.writeU64(VMCB + Save.RFLAGS, 2n);
  memory.writeU64(VMCB + Save.RIP, BigInt(GUEST));
}

/** A host that runs `guest`, and the exit code and RIP that its VMCB ends with. */
function runGuest(
  guest: readonly number[],
  misc1: number,
  intControl: number,
  plugins: readonly Plugin[],
): [end: number | string, exit: number, offset: number] {
  const code = [...HOST];
  while (code.length < GUEST - CODE) code.push(0x90);
  using vm = machine([...code, ...guest], { mode: "long64" }, plugins);
  prepareVmcb(vm, misc1, intControl);
  const end = run(vm);
  const { memory } = vm;
  const rip = memory.readU64(VMCB + Save.RIP);
  return [end, memory.readU32(VMCB + Control.EXITCODE), Number(rip) - GUEST];
}

/** A controller with one interrupt from `raise` on, until it is acknowledged. */
class Line {
  asserted = false;
  acknowledged = 0;
  readonly plugin: Plugin = {
    name: "line",
    version: "1.0.0",
    provides: [interruptControllerSlot],
    setup: (ctx) => {
      const timer = ctx.createTimer("line", () => this.raise(ctx.vm));
      this.raiseAt = (ticks) => timer.arm(ticks);
      ctx.provide(interruptControllerSlot, {
        hasInterrupt: () => this.asserted,
        acknowledge: () => {
          this.acknowledged++;
          this.asserted = false;
          return 0x20;
        },
      });
    },
  };
  raiseAt: (ticks: number) => void = () => {};

  raise(vm: Vm): void {
    this.asserted = true;
    vm.requestAll(eventRequest);
  }
}

const VMMCALL = [0x0f, 0x01, 0xd9];
const OUT_80 = [0xe6, 0x80];
const STI = [0xfb];
const NOP = [0x90];
const HLT = [0xf4];

Deno.test("an NMI that the guest's VMCB intercepts makes a guest exit that runs on metal", () => {
  const nmi = ports((vm) => vm.vcpus[0]!.events.queueNmi());
  const guest = [...OUT_80, ...NOP, ...VMMCALL];
  assertEquals(runGuest(guest, Misc1.NMI, 0, [nmi]), [1, SvmExit.NMI, 2]);
});

Deno.test("an intercepted interrupt is not acknowledged before the host takes it", () => {
  const line = new Line();
  const device = ports((vm) => line.raise(vm));
  const guest = [...STI, ...OUT_80, ...NOP, ...VMMCALL];
  const result = runGuest(guest, Misc1.INTR, 0, [line.plugin, device]);
  assertEquals(result, [1, SvmExit.INTR, 3]);
  assertEquals([line.acknowledged, line.asserted], [0, true]);
});

Deno.test("an interrupt that was withdrawn makes no guest exit", () => {
  const line = new Line();
  // The first access raises it, with IF clear in the guest; the second one withdraws it.
  const device = ports((vm) => line.asserted ? line.asserted = false : line.raise(vm));
  const guest = [...OUT_80, ...OUT_80, ...STI, ...NOP, ...VMMCALL];
  const result = runGuest(guest, Misc1.INTR, 0, [line.plugin, device]);
  assertEquals(result, [1, SvmExit.VMMCALL, 6]);
});

Deno.test("under V_INTR_MASKING an interrupt ends a halt of the guest though its own IF is clear", () => {
  const line = new Line();
  const device = ports(() => line.raiseAt(100_000));
  const guest = [...OUT_80, ...HLT, ...VMMCALL];
  const result = runGuest(guest, Misc1.INTR, IntControl.V_INTR_MASKING, [line.plugin, device]);
  assertEquals(result, [1, SvmExit.INTR, 3]);
});

Deno.test("an interrupt ends a halt outside of guest mode if IF is set, and else does not", () => {
  for (const enabled of [false, true]) {
    const line = new Line();
    const device = ports(() => line.raiseAt(100_000));
    const code = [
      ...[0xb8, 0x00, 0x00, 0x8e, 0xd8], // mov ax, 0; mov ds, ax
      ...[0xc7, 0x06, 0x80, 0x00, 0x40, 0x00], // the offset of vector 20h is 40h,
      ...[0xc7, 0x06, 0x82, 0x00, 0x00, 0x10], // its segment 1000h
      ...[...OUT_80, enabled ? 0xfb : 0xfa, ...HLT],
    ];
    while (code.length < 0x40) code.push(0x90);
    code.push(0xb0, 0x07, 0xe6, 0xf4); // mov al, 7; out F4h, al
    using vm = machine(code, { mode: "real", segment: CODE >> 4 }, [line.plugin, device]);
    assertEquals(run(vm), enabled ? 7 : "halted");
    assertEquals(line.acknowledged, Number(enabled));
  }
});

// A loop of 50 rounds: OUT to port 80h, IN from it, sum of what is read to port F4h.
const PORT_LOOP = [
  ...[0xb9, 0x32, 0x00, 0x30, 0xdb], // mov cx, 50; xor bl, bl
  ...[0x88, 0xc8, 0xe6, 0x80], // mov al, cl; out 80h, al
  ...[0xe4, 0x80, 0x00, 0xc3], // in al, 80h; add bl, al
  ...[0xe2, 0xf6], // loop
  ...[0x88, 0xd8, 0xe6, 0xf4], // mov al, bl; out F4h, al
];

/** A device at port 80h that reads as what was written last, and notes all that it could see. */
function witness(seen: unknown[]): Plugin {
  let last = 0;
  return {
    name: "witness",
    version: "1.0.0",
    setup(ctx) {
      const note = (vm: Vm, what: string) => {
        const { exit, instructions, charged, regs } = vm.vcpus[0]!;
        const { reason, port, size, write, lo, hi, string, rep } = exit;
        const exitSeen = [reason, port, size, write, write ? lo : 0, write ? hi : 0, string, rep];
        const time = [instructions, charged, vm.instructions, vm.exits, vm.clock.current.now()];
        seen.push([what, ...exitSeen, ...time, regs.rip, regs.rax, regs.rcx, regs.rflags]);
      };
      ctx.registerPio({
        name: "witness",
        base: 0x80,
        length: 1,
        read: () => (note(ctx.vm, "read"), last),
        write: (_offset, _size, value) => (note(ctx.vm, "write"), void (last = value)),
      });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: (_offset, _size, code) => ctx.vm.stop({ reason: "exit-code", code }),
      });
    },
  };
}

Deno.test("a device sees the same of an access whether somebody watches exits or not", () => {
  const watcher = (from: number, to: number): Plugin => ({
    name: "watcher",
    version: "1.0.0",
    setup: (ctx) => {
      ctx.on(observeExitHook, ({ vm }) => {
        if (vm.exits >= from && vm.exits < to) watched++;
        if (vm.exits === to) vm.unload("watcher");
      });
    },
  });
  let watched = 0;
  const outcome = (...plugins: Plugin[]) => {
    const seen: unknown[] = [];
    using vm = machine(PORT_LOOP, { mode: "real", segment: CODE >> 4 }, [
      witness(seen),
      ...plugins,
    ]);
    const end = run(vm);
    return {
      seen,
      end,
      instructions: vm.instructions,
      exits: vm.exits,
      plain: vm.points.plain[ExitReason.IO],
    };
  };
  const alone = outcome();
  assertEquals(alone.seen.length, 100);
  assertEquals(alone.plain, 1);
  const all = outcome(watcher(0, Infinity));
  assertEquals(all, { ...alone, plain: 0 });
  assertEquals(watched, 101);
  // One that leaves in the middle hears of no exit behind that.
  watched = 0;
  const some = outcome(watcher(0, 30));
  assertEquals(some, alone);
  assertEquals(watched, 29);
});

Deno.test("what handles exits of port accesses is asked from the moment it is there", () => {
  const answers: Plugin = {
    name: "answers",
    version: "1.0.0",
    setup: (ctx) => {
      ctx.on(exitHook, ExitReason.IO, (_vcpu, exit) => {
        if (exit.port !== 0x80 || exit.write) return undefined;
        exit.lo = 1;
        return ExitAction.COMPLETE;
      });
    },
  };
  let rounds = 0;
  const device = ports((vm) => void (++rounds === 40 && vm.load(answers)));
  using vm = machine(PORT_LOOP, { mode: "real", segment: CODE >> 4 }, [device]);
  // 39 reads of all ones, then 11 of 1.
  assertEquals(run(vm), (39 * 0xff + 11) & 0xff);
});

Deno.test("an error of a device names its plugin and the vCPU, and the exit is counted", () => {
  const device = ports(({ exits }) => {
    if (exits === 3) throw new Error("broken");
  });
  const code = [...OUT_80, ...OUT_80, ...OUT_80, ...OUT_80];
  using vm = machine(code, { mode: "real", segment: CODE >> 4 }, [device]);
  const end = vm.runSync({ instructions: 10_000 });
  assertEquals(end.reason === "error" && end.error instanceof PluginError, true);
  if (end.reason !== "error") return;
  assertStringIncludes(String(end.error), 'plugin "ports"');
  assertStringIncludes(String(end.error), "broken");
  assertEquals([end.vcpuId, vm.exits, vm.vcpus[0]!.regs.rip], [0, 3, 4n]);
});

Deno.test("a timer fires at the same instruction however far its time is behind exits, and runs are cut", () => {
  // mov ecx, 20000; out 80h, al; add eax, ecx; test cl, 7; jne; out 80h, al; loop; out F4h, al
  const code = [
    ...[0xb9, ...le32(20_000)],
    ...[0x01, 0xc8, 0xf6, 0xc1, 0x07, 0x75, 0x02, 0xe6, 0x80, 0xe2, 0xf5, 0xb0, 0x03, 0xe6, 0xf4],
  ];
  const outcome = (slice: number) => {
    const fired: number[][] = [];
    const timers: Plugin = {
      name: "timers",
      version: "1.0.0",
      setup(ctx) {
        const timer = ctx.createTimer("periodic", () => {
          const { vm } = ctx;
          fired.push([vm.instructions, vm.exits, vm.clock.current.now()]);
          timer.arm(vm.clock.current.now() + 12_345);
        });
        timer.arm(10_000);
      },
    };
    using vm = machine(code, { mode: "long64" }, [timers, ports(() => {})]);
    for (;;) {
      const end = vm.runSync({ instructions: slice });
      if (end.reason === "limit") continue;
      assertEquals(end.reason === "exit-code" && end.code, 3);
      return { fired, instructions: vm.instructions, exits: vm.exits };
    }
  };
  const whole = outcome(1_000_000);
  assertEquals(whole.fired.length > 100, true);
  assertEquals(outcome(97), whole);
});
