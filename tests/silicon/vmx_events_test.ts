/**
 * Events of a VMX guest: exceptions and the exception bitmap, injection, what an exit tells of an event
 * under way, windows, NMIs, interrupts, the monitor trap flag, the preemption timer (SDM vol. 3, 26.2,
 * 26.5, 27.6, 28.2).
 */
import { assertEquals } from "@std/assert";
import {
  Activity,
  ExitControl,
  Interruptibility,
  Pin,
  Primary,
  Rflags,
  S,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { gate, Place, Sel } from "./bench.ts";
import { code } from "./code.ts";
import { At, type Entry, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;
const standard = standardFields();

/** Where the guest's handlers are: one page, 16 bytes a vector, each a HLT. */
const HANDLERS = At.GUEST + 0x1000;
const GUEST_IDT = At.DATA + 0x1000;

const set = (encoding: number, bits: number | bigint): bigint =>
  BigInt(standard[encoding]!) | BigInt(bits);
const pin = (bits: number, more: Fields = {}): Fields => ({
  [Vmcs.PIN_CONTROLS]: set(Vmcs.PIN_CONTROLS, bits),
  ...more,
});
const primary = (bits: number, more: Fields = {}): Fields => ({
  [Vmcs.PRIMARY_CONTROLS]: set(Vmcs.PRIMARY_CONTROLS, bits >>> 0),
  ...more,
});

/** A guest IDT whose every vector leads to a HLT of its own. */
function handlers(): Fields {
  bench.fill(HANDLERS, 0x1000, 0xf4);
  for (let vector = 0; vector < 256; vector++) {
    bench.set64(GUEST_IDT + 16 * vector, gate(Sel.CODE64, HANDLERS + 16 * vector, 0xee));
    bench.set64(GUEST_IDT + 16 * vector + 8, 0n);
  }
  return { [Vmcs.GUEST_IDTR_BASE]: GUEST_IDT, [Vmcs.GUEST_IDTR_LIMIT]: 0xfff };
}
const IDT = handlers();

function run(
  bytes: string | readonly number[],
  fields: Fields,
  registers: Readonly<Record<number, bigint>> = {},
): Entry {
  lab.start();
  bench.write(At.GUEST, [...code(bytes), 0xf4]);
  lab.prepare({ ...IDT, ...fields });
  for (const [n, value] of Object.entries(registers)) bench.state.setRegister(Number(n), value);
  return lab.enter();
}

/** The handler a guest has halted in; −1 if it is somewhere else. */
function handler(): number {
  const at = Number(lab.read(Vmcs.GUEST_RIP)) - HANDLERS;
  return at >= 0 && at < 0x1000 && at % 16 === 0 ? at / 16 : -1;
}

const information = (): string => lab.read(Vmcs.EXIT_INTERRUPTION_INFO).toString(16);
const vectoring = (): string => lab.read(Vmcs.IDT_VECTORING_INFO).toString(16);

/** Instructions that raise an exception: code, vector, information, error code, whether RF is saved. */
const EXCEPTIONS: readonly (readonly [string, string, number, string, number, boolean])[] = [
  ["#DE", "31 c9 f7 f1", 0, "80000300", 0, true],
  ["INT1", "f1", 1, "80000501", 0, false],
  ["INT3", "cc", 3, "80000603", 0, false],
  ["#UD", "0f 0b", 6, "80000306", 0, true],
  ["#GP", "0f 22 c8 0f 0b", 6, "80000306", 0, true],
  ["#GP with an error code", "b8 f0 0f 00 00 8e d8", 13, "80000b0d", 0xff0, true],
  ["#PF", "48 c7 c3 00 00 00 ff 8a 03", 14, "80000b0e", 0, true],
];

Deno.test("the exception bitmap: exits with vector, type, error code, and the instruction not done", () => {
  for (const [name, bytes, vector, info, error, fault] of EXCEPTIONS) {
    const entry = run(bytes, { [Vmcs.EXCEPTION_BITMAP]: (1 << vector) >>> 0 });
    assertEquals(exitText(entry).split(" ")[0], "EXCEPTION_OR_NMI", name);
    assertEquals(information(), info, name);
    assertEquals(lab.read(Vmcs.EXIT_INTERRUPTION_ERROR), BigInt(error), name);
    assertEquals(vectoring(), "0", name);
    const rf = (Number(lab.read(Vmcs.GUEST_RFLAGS)) & Rflags.RF) !== 0;
    assertEquals(rf, fault, name);
    if (vector === 14) assertEquals(entry.qualification, 0xffff_ffff_ff00_0000n);
    // All bits but its own: the guest's handler gets it.
    const rest = run(bytes, {
      [Vmcs.EXCEPTION_BITMAP]: ~(1 << vector) >>> 0,
      [Vmcs.PAGE_FAULT_ERROR_MASK]: 0,
    });
    assertEquals(exitText(rest), "HLT", name);
    assertEquals(handler(), vector, name);
  }
});

Deno.test("#PF by error code: the bit counts where mask and match agree, its opposite elsewhere", () => {
  // A read of a page that is not there has error code 0, a write 2.
  const access = {
    read: "48 c7 c3 00 00 00 ff 8a 03",
    write: "48 c7 c3 00 00 00 ff 88 03",
  } as const;
  for (const kind of ["read", "write"] as const) {
    for (const bit of [0, 1]) {
      for (const match of [0, 2]) {
        const entry = run(access[kind], {
          [Vmcs.EXCEPTION_BITMAP]: bit << 14,
          [Vmcs.PAGE_FAULT_ERROR_MASK]: 2,
          [Vmcs.PAGE_FAULT_ERROR_MATCH]: match,
        });
        const agrees = (kind === "write" ? 2 : 0) === match;
        const exits = agrees === (bit === 1);
        assertEquals(entry.reason, exits ? 0 : 12, `${kind} ${bit} ${match}`);
      }
    }
  }
});

Deno.test("#DB: the qualification has what DR6 would get, and DR6 is as it was", () => {
  lab.start();
  // Single-stepping over a NOP.
  const step = run("90 90", { [Vmcs.EXCEPTION_BITMAP]: 2, [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2 });
  assertEquals(exitText(step), "EXCEPTION_OR_NMI 4000");
  assertEquals(information(), "80000301");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 1));
  assertEquals(bench.state.get(S.dr6) & 0x4000n, 0n);
});

Deno.test("#DB of a single step over STI: the shadow is saved, and the pending step is not", () => {
  const stepped = { [Vmcs.EXCEPTION_BITMAP]: 2, [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2 };
  assertEquals(exitText(run("fb 90", stepped)), "EXCEPTION_OR_NMI 4000");
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), BigInt(Interruptibility.STI));
  assertEquals(lab.read(Vmcs.GUEST_PENDING_DEBUG), 0n);
  // To give it back as it is fails: behind STI with TF set a step must be pending.
  lab.write({ [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0301 });
  assertEquals(exitText(lab.enter(false)), "entry failure, INVALID_GUEST_STATE");
  lab.write({ [Vmcs.GUEST_PENDING_DEBUG]: 0x4000, [Vmcs.EXCEPTION_BITMAP]: 0 });
  assertEquals(exitText(lab.enter(false)), "HLT");
  assertEquals(handler(), 1);
  // An exit for anything else saves it, where MOV SS holds it back.
  const held = { ...primary(Primary.UNCONDITIONAL_IO), [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2 };
  // mov eax, ss; mov ss, eax; out 80h, al: TF is set behind the first instruction.
  bench.state.setRegister(0, 0n);
  assertEquals(exitText(run("8e d0 e6 80", held, { 0: BigInt(Sel.DATA) })), "IO 800040");
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), BigInt(Interruptibility.MOV_SS));
  assertEquals(lab.read(Vmcs.GUEST_PENDING_DEBUG), 0x4000n);
});

Deno.test("a double fault and a triple fault", () => {
  // #GP whose handler is not there: the gate is not present, which is another contributory exception.
  const broken = { [Vmcs.GUEST_IDTR_LIMIT]: 16 * 13 - 1 };
  const gp = "b8 f0 0f 00 00 8e d8";
  assertEquals(
    exitText(run(gp, { ...broken, [Vmcs.EXCEPTION_BITMAP]: 1 << 8 })),
    "EXCEPTION_OR_NMI",
  );
  assertEquals(information(), "80000b08");
  assertEquals(vectoring(), "0");
  assertEquals(exitText(run(gp, { [Vmcs.GUEST_IDTR_LIMIT]: 0 })), "TRIPLE_FAULT");
  assertEquals(vectoring(), "0");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 5));
});

Deno.test("an exit during a delivery tells the event in the IDT-vectoring information", () => {
  // The gate of the event is beyond the limit: its #GP exits.
  const bitmap: Fields = { [Vmcs.EXCEPTION_BITMAP]: 1 << 13 };
  const short = (vector: number): Fields => ({
    ...bitmap,
    [Vmcs.GUEST_IDTR_LIMIT]: 16 * vector - 1,
  });
  assertEquals(exitText(run("cd 80", short(0x80))), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000480");
  assertEquals(lab.read(Vmcs.EXIT_INSTRUCTION_LENGTH), 2n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  // The error code is the vector's, without EXT for an instruction's event.
  assertEquals(lab.read(Vmcs.EXIT_INTERRUPTION_ERROR), BigInt(0x80 * 8 + 2));
  assertEquals(exitText(run("cc", short(3))), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000603");
  assertEquals(lab.read(Vmcs.EXIT_INSTRUCTION_LENGTH), 1n);
  assertEquals(exitText(run("f1", short(1))), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000501");
  assertEquals(exitText(run("0f 0b", short(6))), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000306");
  // #PF with an error code.
  const pf = run("48 c7 c3 00 00 00 ff 88 03", short(14));
  assertEquals(exitText(pf), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000b0e");
  assertEquals(lab.read(Vmcs.IDT_VECTORING_ERROR), 2n);
  // An injected event is one as well.
  assertEquals(
    exitText(
      run("90", {
        ...short(0x60),
        [Vmcs.GUEST_RFLAGS]: 0x202,
        [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0060,
      }),
    ),
    "EXCEPTION_OR_NMI",
  );
  assertEquals(vectoring(), "80000060");
  const soft = { [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0460, [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 3 };
  assertEquals(exitText(run("90", { ...short(0x60), ...soft })), "EXCEPTION_OR_NMI");
  assertEquals(vectoring(), "80000460");
  assertEquals(lab.read(Vmcs.EXIT_INSTRUCTION_LENGTH), 3n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
});

Deno.test("injection: the handler runs, with the return address and error code of the type", () => {
  const injected = (info: number, more: Fields = {}): void => {
    const entry = run("90", {
      [Vmcs.ENTRY_INTERRUPTION_INFO]: (info | 0x8000_0000) >>> 0,
      ...more,
    });
    assertEquals(exitText(entry), "HLT", info.toString(16));
    assertEquals(handler(), info & 0xff);
    // The valid bit is cleared by the exit.
    assertEquals(Number(lab.read(Vmcs.ENTRY_INTERRUPTION_INFO)), info & 0x7fff_ffff);
  };
  const pushed = (k: number): bigint => bench.get64(Number(lab.read(Vmcs.GUEST_RSP)) + 8 * k);
  injected(0x30, { [Vmcs.GUEST_RFLAGS]: 0x202 });
  assertEquals(pushed(0), BigInt(At.GUEST));
  injected(0x306);
  assertEquals(pushed(0), BigInt(At.GUEST));
  injected(0xb0d, { [Vmcs.ENTRY_EXCEPTION_ERROR]: 0x1234 });
  assertEquals(pushed(0), 0x1234n);
  assertEquals(pushed(1), BigInt(At.GUEST));
  // An exception that usually has one, without.
  injected(0x30d);
  assertEquals(pushed(0), BigInt(At.GUEST));
  for (const info of [0x480, 0x603, 0x501]) {
    injected(info, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 2 });
    assertEquals(pushed(0), BigInt(At.GUEST + 2), info.toString(16));
  }
  // An NMI blocks NMIs.
  injected(0x202);
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), BigInt(Interruptibility.NMI));
  // A guest in HLT is woken by it.
  injected(0x30, { [Vmcs.GUEST_RFLAGS]: 0x202, [Vmcs.GUEST_ACTIVITY]: Activity.HLT });
});

Deno.test("interrupt window: exits as soon as interrupts could be taken", () => {
  const fields = primary(Primary.INTERRUPT_WINDOW);
  assertEquals(exitText(run("90", { ...fields, [Vmcs.GUEST_RFLAGS]: 0x202 })), "INTERRUPT_WINDOW");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  assertEquals(exitText(run("90", fields)), "HLT");
  // STI: behind the instruction in its shadow.
  assertEquals(exitText(run("90 fb 90 90", fields)), "INTERRUPT_WINDOW");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 3));
  const shadow = {
    ...fields,
    [Vmcs.GUEST_RFLAGS]: 0x202,
    [Vmcs.GUEST_INTERRUPTIBILITY]: Interruptibility.MOV_SS,
  };
  assertEquals(exitText(run("90 90", shadow)), "INTERRUPT_WINDOW");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 1));
  // It ends a HLT.
  assertEquals(
    exitText(
      run("90", { ...fields, [Vmcs.GUEST_RFLAGS]: 0x202, [Vmcs.GUEST_ACTIVITY]: Activity.HLT }),
    ),
    "INTERRUPT_WINDOW",
  );
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), BigInt(Activity.HLT));
  // sti; hlt: exits at the HLT, which is in the shadow.
  assertEquals(exitText(run("fb", fields)), "HLT");
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), BigInt(Interruptibility.STI));
});

Deno.test("NMI window and virtual NMIs", () => {
  const nmis = Pin.NMI | Pin.VIRTUAL_NMIS;
  const fields = pin(nmis, primary(Primary.NMI_WINDOW));
  assertEquals(exitText(run("90", fields)), "NMI_WINDOW");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  // Blocked until IRET: push ss, rsp, flags, cs, rip; iretq
  const frame = "54 5b 6a 20 53 9c 6a 18 48 8d 05 03 00 00 00 50 48 cf 90 90";
  assertEquals(
    exitText(run(frame, { ...fields, [Vmcs.GUEST_INTERRUPTIBILITY]: Interruptibility.NMI })),
    "NMI_WINDOW",
  );
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), 0n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 18));
  // A physical NMI exits though virtual ones are blocked, and blocks those that follow it.
  lab.start();
  bench.write(At.GUEST, [0x90, 0xf4]);
  lab.prepare({ ...IDT, ...pin(nmis), [Vmcs.GUEST_INTERRUPTIBILITY]: Interruptibility.NMI });
  bench.state.set32(S.nmiBlocked, 1);
  bench.processor.raiseNmi();
  assertEquals(exitText(lab.enter()), "EXCEPTION_OR_NMI");
  assertEquals(information(), "80000202");
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), BigInt(Interruptibility.NMI));
  assertEquals(bench.state.get32(S.nmiBlocked), 1);
});

/** Enters with an NMI or an interrupt that arrives in the guest, whose first instruction is a NOP. */
function arriving(what: "nmi" | "intr", bytes: string, fields: Fields): Entry {
  lab.start();
  bench.write(At.GUEST, [...code(bytes), 0xf4]);
  lab.prepare({ ...IDT, ...fields });
  // The host has IF clear, and NMIs are blocked there.
  if (what === "nmi") {
    bench.state.set32(S.nmiBlocked, 1);
    bench.processor.raiseNmi();
  } else bench.processor.setInterruptLine(true);
  const entry = lab.enter();
  bench.processor.setInterruptLine(false);
  bench.state.set32(S.events, 0);
  return entry;
}

Deno.test("NMI exiting", () => {
  assertEquals(exitText(arriving("nmi", "90", pin(Pin.NMI))), "EXCEPTION_OR_NMI");
  assertEquals(information(), "80000202");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  // Without it the guest's handler runs.
  assertEquals(exitText(arriving("nmi", "90", {})), "HLT");
  assertEquals(handler(), 2);
  // Blocked by what the interruptibility state says.
  assertEquals(
    exitText(arriving("nmi", "90", { [Vmcs.GUEST_INTERRUPTIBILITY]: Interruptibility.NMI })),
    "HLT",
  );
  assertEquals(handler(), -1);
});

Deno.test("external-interrupt exiting, with and without acknowledging", () => {
  let acknowledged = 0;
  bench.outside.acknowledge = () => {
    acknowledged++;
    return 0x55;
  };
  const exiting = pin(Pin.EXTERNAL_INTERRUPT);
  assertEquals(exitText(arriving("intr", "90", exiting)), "EXTERNAL_INTERRUPT");
  assertEquals(information(), "0");
  assertEquals(acknowledged, 0);
  const acknowledge = {
    ...exiting,
    [Vmcs.EXIT_CONTROLS]: set(Vmcs.EXIT_CONTROLS, ExitControl.ACKNOWLEDGE_INTERRUPT),
  };
  assertEquals(exitText(arriving("intr", "90", acknowledge)), "EXTERNAL_INTERRUPT");
  assertEquals(information(), "80000055");
  assertEquals(acknowledged, 1);
  // RFLAGS.IF does not matter with it, and matters without.
  assertEquals(exitText(arriving("intr", "90", {})), "HLT");
  assertEquals(handler(), -1);
  assertEquals(exitText(arriving("intr", "90", { [Vmcs.GUEST_RFLAGS]: 0x202 })), "HLT");
  assertEquals(handler(), 0x55);
  // A guest in HLT: the exit saves that it was.
  const halted = { ...exiting, [Vmcs.GUEST_ACTIVITY]: Activity.HLT };
  assertEquals(exitText(arriving("intr", "90", halted)), "EXTERNAL_INTERRUPT");
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), BigInt(Activity.HLT));
  bench.outside.acknowledge = () => -1;
});

Deno.test("the monitor trap flag: behind one instruction, or behind the delivery of an event", () => {
  const fields = primary(Primary.MONITOR_TRAP_FLAG);
  assertEquals(exitText(run("90 90", fields)), "MONITOR_TRAP");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 1));
  assertEquals(exitText(lab.enter(false)), "MONITOR_TRAP");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 2));
  // An instruction that exits is not done, so there is nothing to trap behind.
  assertEquals(exitText(lab.enter(false)), "HLT");
  // A fault: at the handler's first instruction.
  assertEquals(exitText(run("0f 0b", fields)), "MONITOR_TRAP");
  assertEquals(handler(), 6);
  // An injected event likewise.
  assertEquals(
    exitText(run("90", { ...fields, [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0306 })),
    "MONITOR_TRAP",
  );
  assertEquals(handler(), 6);
  // Before the single-step trap, which stays pending.
  assertEquals(
    exitText(run("90 90", { ...fields, [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2 })),
    "MONITOR_TRAP",
  );
  assertEquals(lab.read(Vmcs.GUEST_PENDING_DEBUG), 0x4000n);
  // Each round of a repeated instruction.
  assertEquals(exitText(run("b9 05 00 00 00 bf 00 00 21 00 f3 aa", fields)), "MONITOR_TRAP");
  for (let k = 0; k < 2; k++) assertEquals(exitText(lab.enter(false)), "MONITOR_TRAP");
  assertEquals(bench.state.register(1), 4n);
});

Deno.test("pending debug exceptions are delivered behind the entry", () => {
  assertEquals(exitText(run("90", { [Vmcs.GUEST_PENDING_DEBUG]: 0x4000 })), "HLT");
  assertEquals(handler(), 1);
  assertEquals(
    exitText(run("90", { [Vmcs.GUEST_PENDING_DEBUG]: 0x1002, [Vmcs.EXCEPTION_BITMAP]: 2 })),
    "EXCEPTION_OR_NMI 2",
  );
  // A breakpoint that no enable goes with is none.
  assertEquals(exitText(run("90", { [Vmcs.GUEST_PENDING_DEBUG]: 2 })), "HLT");
  assertEquals(handler(), -1);
});

Deno.test("the preemption timer: ticks with the TSC, in a halt as well, and is saved if asked for", () => {
  const timer = (ticks: number, more: Fields = {}): Fields =>
    pin(Pin.PREEMPTION_TIMER, { [Vmcs.PREEMPTION_TIMER]: ticks, ...more });
  // jmp $
  const spin = "eb fe";
  assertEquals(exitText(run(spin, timer(0))), "PREEMPTION_TIMER");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  // IA32_VMX_MISC bits 4:0: it counts down whenever this bit of the TSC changes.
  const rate = Number(lab.capability(5) & 31n);
  assertEquals(rate > 0, true);
  for (const ticks of [1, 2, 10, 1000]) {
    for (const phase of [0, 1, (1 << rate) - 2]) {
      lab.start();
      // inc rax; jmp: two instructions a round.
      bench.write(At.GUEST, code("48 ff c0 eb fb"));
      lab.prepare({ ...IDT, ...timer(ticks) });
      bench.state.setRegister(0, 0n);
      // VMLAUNCH is the first of the run, so the guest begins at 1 + phase.
      bench.processor.setTsc(0x1_0000 + phase);
      assertEquals(exitText(lab.enter()), "PREEMPTION_TIMER");
      const left = (ticks << rate) - (1 + phase);
      assertEquals(Number(bench.state.register(0)), Math.ceil(left / 2), `${ticks} ${phase}`);
    }
  }
  const save = { [Vmcs.EXIT_CONTROLS]: set(Vmcs.EXIT_CONTROLS, ExitControl.SAVE_TIMER) };
  // 100 NOPs, and a part of a tick before and behind them.
  assertEquals(exitText(run(Array(100).fill(0x90), timer(1000, save))), "HLT");
  const passed = 1000 - Number(lab.read(Vmcs.PREEMPTION_TIMER));
  const fewest = 100 >> rate;
  assertEquals(passed === fewest || passed === fewest + 1, true, `${passed}`);
  assertEquals(exitText(run("90", timer(1000))), "HLT");
  assertEquals(lab.read(Vmcs.PREEMPTION_TIMER), 1000n);
  // It counts on over the end of a run, and the guest goes on where it was.
  lab.start();
  bench.write(At.GUEST, code("48 ff c0 eb fb"));
  lab.prepare({ ...IDT, ...timer(128 >> rate) });
  bench.state.setRegister(0, 0n);
  bench.write(Place.CODE, [...code("0f 01 c2"), 0xf4]);
  bench.state.set(S.rip, BigInt(Place.CODE));
  let total = 0;
  for (let k = 0; k < 1000 && bench.state.rip !== BigInt(At.EXIT + 1); k++) {
    bench.processor.setTsc(total);
    bench.run(37);
    total += bench.processor.retired;
  }
  // From 1, behind VMLAUNCH, to 128.
  assertEquals(Number(bench.state.register(0)), 64);
  // In HLT time passes until it expires.
  const halted = timer(1000, { [Vmcs.PRIMARY_CONTROLS]: 0x0400_6172 });
  assertEquals(exitText(run("f4", halted)), "PREEMPTION_TIMER");
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), BigInt(Activity.HLT));
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 1));
});

Deno.test("INIT exits from a guest, and is held back in root operation", () => {
  lab.start();
  bench.write(At.GUEST, [0x90, 0xf4]);
  lab.prepare(IDT);
  bench.processor.raiseInit();
  assertEquals(exitText(lab.enter()), "INIT");
  lab.start();
  bench.processor.raiseInit();
  assertEquals(lab.run(code("90")), "VMsucceed");
  bench.state.set32(S.events, 0);
});
