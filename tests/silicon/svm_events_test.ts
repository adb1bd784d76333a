/**
 * Events: injection, EXITINTINFO, physical and virtual interrupts, NMIs and INIT, the global interrupt
 * flag and interrupt shadows (APM vol. 2, 15.7.2, 15.13, 15.17, 15.20, 15.21).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  EventFormat,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  Msr,
  S,
  Save,
  SaveSegment,
  Stop,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { gate, Place, Sel, verdict } from "./bench.ts";
import { hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

let acknowledged = 0;
const bench = new SvmBench({
  outside: {
    ...refuseOutside(),
    acknowledge: () => {
      acknowledged++;
      bench.processor.setInterruptLine(false);
      return 0x77;
    },
  },
});

const NEXT = BigInt(SvmPlace.GUEST_CODE);
const { VALID, EXCEPTION, NMI, SOFTWARE, ERROR } = EventFormat;
const IF = 0x200;

/** A guest with handlers; `flags` are added to RFLAGS. */
function prepare(flags = 0, cpl = 0): void {
  bench.guest("long", cpl);
  bench.guestHandlers();
  bench.orControl64(Save.RFLAGS, flags);
  acknowledged = 0;
}

const rip = (): bigint => bench.control64(Save.RIP);
const handler = (vector: number): bigint => BigInt(bench.guestHandler(vector));
/** Word `k` of the frame that the guest's handler finds. */
const frame = (k: number): bigint => bench.get64(Number(bench.control64(Save.RSP)) + 8 * k);

// Injection.

Deno.test("injected events are delivered before the first instruction", () => {
  const cases: readonly (readonly [string, number, number, number | undefined])[] = [
    ["interrupt 42h", VALID | 0x42, 0x42, undefined],
    ["interrupt 3", VALID | 3, 3, undefined],
    ["interrupt FFh", VALID | 0xff, 0xff, undefined],
    ["NMI", VALID | NMI | 2, 2, undefined],
    ["NMI whatever the vector says", VALID | NMI | 0x42, 2, undefined],
    ["#DE", VALID | EXCEPTION, 0, undefined],
    ["#UD", VALID | EXCEPTION | 6, 6, undefined],
    ["#GP with an error code", VALID | EXCEPTION | ERROR | 13, 13, 0x1234],
    ["#GP without", VALID | EXCEPTION | 13, 13, undefined],
    ["#PF with an error code", VALID | EXCEPTION | ERROR | 14, 14, 6],
  ];
  for (const flags of [0, IF]) {
    for (const shadow of [0, 1]) {
      for (const [name, event, vector, error] of cases) {
        prepare(flags);
        bench.setControl64(Control.INT_STATE, shadow);
        bench.setControl64(Save.CR2, 0x55n);
        // Injection is subject to no intercept.
        bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
        bench.orControl32(InterceptWord.MISC1, Misc1.NMI | Misc1.INTR | Misc1.VINTR | Misc1.SWINT);
        bench.inject(event, error ?? 0x77);
        assertEquals(bench.enter("90"), "78", name);
        assertEquals(rip(), handler(vector), name);
        const first = error === undefined ? 0 : 1;
        if (error !== undefined) assertEquals(frame(0), BigInt(error), name);
        assertEquals(frame(first), NEXT, name);
        assertEquals(frame(first + 2) & BigInt(IF), BigInt(flags), name);
        assertEquals(frame(first + 3), BigInt(SvmPlace.GUEST_STACK), name);
        assertEquals(bench.control64(Save.CR2), 0x55n, name);
        assertEquals(bench.control64(Control.EXITINTINFO), 0n, name);
        assertEquals(bench.control64(Control.INT_STATE), 0n, name);
      }
    }
  }
});

Deno.test("software interrupts and traps push nRIP and are subject to the gate's DPL", () => {
  const cases = [
    ["INT 42h", VALID | SOFTWARE | 0x42, 0x42, true],
    ["INT3", VALID | EXCEPTION | 3, 3, true],
    ["#UD", VALID | EXCEPTION | 6, 6, false],
    ["interrupt", VALID | 0x42, 0x42, false],
  ] as const;
  for (const [name, event, vector, software] of cases) {
    for (const dpl of [0, 3]) {
      prepare(0, 3);
      bench.guestHandlers(64, 0x8e | (dpl << 5));
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.GP);
      bench.setControl64(Control.NRIP, NEXT + 7n);
      bench.inject(event);
      const exit = bench.enter("90");
      if (software && dpl === 0) {
        assertEquals(exit, "4d", name);
        assertEquals(bench.info[0], BigInt(vector * 8 + 2), name);
        assertEquals(bench.control64(Control.EXITINTINFO), BigInt(event >>> 0), name);
        assertEquals(rip(), NEXT, name);
        continue;
      }
      assertEquals(exit, "78", name);
      assertEquals(frame(0), software ? NEXT + 7n : NEXT, `${name}, DPL ${dpl}`);
    }
  }
});

Deno.test("a fault on the way of an injected event is intercepted, and the event is told", () => {
  const absent = 0x15_0000;
  for (const event of [VALID | 0x42, VALID | NMI | 2, VALID | EXCEPTION | ERROR | 13]) {
    prepare();
    bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, absent), 0n);
    bench.setControl64(Save.RSP, absent + 0x100);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    bench.inject(event, 0x18);
    assertEquals(bench.enter("90"), "4e");
    const error = (event & ERROR) === 0 ? 0n : 0x18n << 32n;
    assertEquals(bench.control64(Control.EXITINTINFO), BigInt(event >>> 0) | error);
    assertEquals(rip(), NEXT);
    // Injected again from there, it goes through once the stack is there.
    assertEquals(bench.control64(Control.EVENTINJ) & 0x8000_0000n, 0n);
    bench.setControl64(Control.EVENTINJ, bench.control64(Control.EXITINTINFO));
    bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, absent), BigInt(absent) | 0x67n);
    bench.host();
    assertEquals(bench.resume(), "78");
    assertEquals(rip(), handler(event & 0xff));
  }
});

Deno.test("a nested fault on the way of an injected event tells it, too", () => {
  prepare();
  bench.nested();
  bench.set64(bench.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_IDT), 0n);
  bench.inject(VALID | 0x42);
  assertEquals(bench.enter("90"), "400");
  assertEquals(bench.control64(Control.EXITINTINFO), 0x8000_0042n);
  assertEquals(bench.info[1], BigInt(SvmPlace.GUEST_IDT + 0x420));
});

Deno.test("events go through the vector table in real mode, and push no error code", () => {
  bench.guest("real");
  bench.setSegment(Save.IDTR, 0, 0, 0x3ff, BigInt(SvmPlace.GUEST_IDT));
  bench.set32(SvmPlace.GUEST_IDT + 4 * 13, 0x100 | ((SvmPlace.GUEST_HANDLERS >> 4) << 16));
  bench.write(SvmPlace.GUEST_HANDLERS + 0x100, [0xf4]);
  bench.inject(VALID | EXCEPTION | ERROR | 13, 5);
  assertEquals(bench.enter("90"), "78");
  assertEquals(rip(), 0x100n);
  assertEquals(bench.control64(Save.RSP), 0x8000n - 6n);
});

Deno.test("an injected NMI does not block further NMIs", () => {
  prepare();
  bench.inject(VALID | NMI | 2);
  bench.write(bench.guestHandler(2), [0x90, 0xf4]);
  bench.state.set32(S.gif, 0);
  bench.processor.raiseNmi();
  assertEquals(bench.enter("90"), "78");
  // The physical one arrived in the handler of the injected one.
  assertEquals(frame(0), handler(2));
  bench.state.set32(S.nmiBlocked, 0);
});

// Physical interrupts.

Deno.test("INTR: masked by the guest's IF, or by the host's with V_INTR_MASKING", () => {
  for (const masking of [false, true]) {
    for (const hostIf of [false, true]) {
      for (const guestIf of [false, true]) {
        for (const shadow of [0, 1]) {
          for (const intercepted of [false, true]) {
            prepare(guestIf ? IF : 0);
            if (masking) bench.orControl32(Control.INT_CONTROL, IntControl.V_INTR_MASKING);
            if (intercepted) bench.orControl32(InterceptWord.MISC1, Misc1.INTR);
            bench.setControl64(Control.INT_STATE, shadow);
            bench.flags = hostIf ? 0x202 : 2;
            // The host must not take it before VMRUN.
            bench.state.set32(S.gif, 0);
            bench.processor.setInterruptLine(true);
            const name = JSON.stringify({ masking, hostIf, guestIf, shadow, intercepted });
            const exit = bench.enter("90 90 f4");
            const open = masking ? hostIf : guestIf;
            if (!open) {
              assertEquals(exit, "78", name);
              assertEquals(rip(), NEXT + 2n, name);
              assertEquals(acknowledged, 0, name);
            } else if (intercepted) {
              assertEquals(exit, "60", name);
              assertEquals(rip(), NEXT + BigInt(shadow), name);
              assertEquals(bench.control64(Control.NRIP), 0n, name);
              assertEquals(bench.control64(Control.INT_STATE), 0n, name);
              // It is left pending.
              assertEquals(acknowledged, 0, name);
              assertEquals(bench.processor.interruptLine, true, name);
            } else {
              assertEquals(exit, "78", name);
              assertEquals(rip(), handler(0x77), name);
              assertEquals(frame(0), NEXT + BigInt(shadow), name);
              assertEquals(acknowledged, 1, name);
            }
            bench.processor.setInterruptLine(false);
          }
        }
      }
    }
  }
});

Deno.test("NMI: intercepted and left pending, or taken and blocked until IRET", () => {
  for (const shadow of [0, 1]) {
    prepare();
    bench.orControl32(InterceptWord.MISC1, Misc1.NMI);
    bench.setControl64(Control.INT_STATE, shadow);
    bench.state.set32(S.gif, 0);
    bench.processor.raiseNmi();
    assertEquals(bench.enter("90 90 f4"), "61");
    assertEquals(rip(), NEXT + BigInt(shadow));
    // Pending until GIF is set, then the host's.
    assertEquals(hostRun("90 0f 01 dc f4"), ["2 at 4"]);
    bench.state.set32(S.nmiBlocked, 0);
  }

  prepare();
  bench.state.set32(S.gif, 0);
  bench.processor.raiseNmi();
  let raised = 0;
  // The handler gets another NMI, and returns: iretq; the code halts behind.
  bench.write(bench.guestHandler(2), hex("90 48 cf"));
  bench.orControl32(InterceptWord.MISC1, Misc1.RDTSC);
  bench.write(bench.guestHandler(2), hex("0f 31 48 cf"));
  assertEquals(bench.enter("90 f4"), "6e");
  raised++;
  bench.processor.raiseNmi();
  bench.setControl64(Save.RIP, bench.control64(Control.NRIP));
  // Blocked until IRET has been executed; then the second one comes at once.
  assertEquals(bench.resume(), "6e");
  assertEquals(frame(0), NEXT);
  assertEquals(raised, 1);
  bench.state.set32(S.nmiBlocked, 0);
});

// Virtual interrupts.

Deno.test("a virtual interrupt: priority, V_IGN_TPR, IF, shadow, and its intercept", () => {
  for (const guestIf of [false, true]) {
    for (const ignore of [false, true]) {
      for (
        const [priority, tpr] of [[5, 4], [5, 5], [5, 6], [0, 0], [1, 0], [15, 14], [
          15,
          15,
        ]] as const
      ) {
        for (const shadow of [0, 1]) {
          for (const intercepted of [false, true]) {
            prepare(guestIf ? IF : 0);
            if (intercepted) bench.orControl32(InterceptWord.MISC1, Misc1.VINTR);
            bench.setControl64(Control.INT_STATE, shadow);
            const control = IntControl.V_IRQ | tpr | (ignore ? IntControl.V_IGN_TPR : 0) |
              (priority << IntControl.V_INTR_PRIO_SHIFT);
            bench.setControl64(Control.INT_CONTROL, BigInt(control) | (0x42n << 32n));
            const name = JSON.stringify({ guestIf, ignore, priority, tpr, shadow, intercepted });
            const exit = bench.enter("90 90 f4");
            const pending = (bench.control32(Control.INT_CONTROL) & IntControl.V_IRQ) !== 0;
            const taken = guestIf && (ignore || priority > tpr);
            assertEquals(exit, taken && intercepted ? "64" : "78", name);
            assertEquals(pending, !taken || intercepted, name);
            if (!taken) assertEquals(rip(), NEXT + 2n, name);
            else if (intercepted) assertEquals(rip(), NEXT + BigInt(shadow), name);
            else {
              assertEquals(rip(), handler(0x42), name);
              assertEquals(frame(0), NEXT + BigInt(shadow), name);
            }
          }
        }
      }
    }
  }
  // None of it is left in the host.
  bench.processor.wake();
  assertEquals(bench.state.get32(S.events), 0);
});

Deno.test("STI opens the window one instruction later, a write of CR8 at once", () => {
  prepare();
  const control = IntControl.V_IRQ | (3 << IntControl.V_INTR_PRIO_SHIFT);
  bench.setControl64(Control.INT_CONTROL, BigInt(control) | (0x42n << 32n));
  assertEquals(bench.enter("90 fb 90 90 f4"), "78");
  assertEquals(frame(0), NEXT + 3n);

  prepare(IF);
  const masked = control | IntControl.V_INTR_MASKING | 5;
  bench.setControl64(Control.INT_CONTROL, BigInt(masked) | (0x42n << 32n));
  // mov eax, 3; mov cr8, rax; mov eax, 2; mov cr8, rax
  const text = "b8 03 00 00 00 44 0f 22 c0 b8 02 00 00 00 44 0f 22 c0 90 f4";
  assertEquals(bench.enter(text), "78");
  assertEquals(frame(0), NEXT + 18n);
  assertEquals(bench.control32(Control.INT_CONTROL) & 0xff, 2);
});

Deno.test("CR8 is V_TPR with V_INTR_MASKING; without, writes go to both and reads to the APIC's", () => {
  for (const masking of [false, true]) {
    prepare();
    bench.setControl32(Control.INT_CONTROL, 4 | (masking ? IntControl.V_INTR_MASKING : 0));
    bench.state.set(S.cr8, 9n);
    // mov rbx, cr8; mov eax, 6; mov cr8, rax; mov rcx, cr8; hlt
    const text = "44 0f 20 c3 b8 06 00 00 00 44 0f 22 c0 44 0f 20 c1 f4";
    assertEquals(bench.enter(text), "78");
    assertEquals(bench.state.register(3), masking ? 4n : 9n);
    assertEquals(bench.state.register(1), 6n);
    assertEquals(bench.control32(Control.INT_CONTROL) & 0xff, 6);
    assertEquals(bench.state.get(S.cr8), masking ? 9n : 6n);
    bench.state.set(S.cr8, 0n);
  }
});

Deno.test("physical interrupts beat virtual ones", () => {
  for (const intercepted of [false, true]) {
    prepare(IF);
    if (intercepted) bench.orControl32(InterceptWord.MISC1, Misc1.INTR);
    const control = IntControl.V_IRQ | IntControl.V_IGN_TPR;
    bench.setControl64(Control.INT_CONTROL, BigInt(control) | (0x42n << 32n));
    bench.state.set32(S.gif, 0);
    bench.processor.setInterruptLine(true);
    assertEquals(bench.enter("90 f4"), intercepted ? "60" : "78");
    if (!intercepted) assertEquals(rip(), handler(0x77));
    assertEquals(bench.control32(Control.INT_CONTROL) & IntControl.V_IRQ, IntControl.V_IRQ);
    bench.processor.setInterruptLine(false);
  }
});

Deno.test("V_IRQ is clear before the interrupt table is read", () => {
  prepare(IF);
  bench.nested();
  bench.set64(bench.pageEntry(SvmPlace.NPT, SvmPlace.GUEST_IDT), 0n);
  const control = IntControl.V_IRQ | IntControl.V_IGN_TPR;
  bench.setControl64(Control.INT_CONTROL, BigInt(control) | (0x42n << 32n));
  assertEquals(bench.enter("90"), "400");
  assertEquals(bench.control64(Control.EXITINTINFO), 0x8000_0042n);
  assertEquals(bench.control32(Control.INT_CONTROL) & IntControl.V_IRQ, 0);
});

Deno.test("exceptions and interrupts of one instruction: the injected one is first", () => {
  prepare(IF);
  bench.orControl32(InterceptWord.MISC1, Misc1.INTR);
  bench.orControl32(Control.INT_CONTROL, IntControl.V_INTR_MASKING);
  bench.inject(VALID | 0x42);
  bench.state.set32(S.gif, 0);
  bench.processor.setInterruptLine(true);
  assertEquals(bench.enter("90"), "60");
  assertEquals(rip(), handler(0x42));
  bench.processor.setInterruptLine(false);
});

// Interrupt shadows.

Deno.test("the shadow of STI and MOV SS is saved and loaded", () => {
  const cases = [["fb f4", 1], ["8e d0 f4", 1], ["fb 90 f4", 0], ["90 f4", 0], [
    "fa fb f4",
    1,
  ]] as const;
  for (const [text, shadow] of cases) {
    prepare(text.startsWith("fa") ? IF : 0);
    bench.setControl64(Save.RAX, Sel.DATA);
    assertEquals(bench.enter(text), "78", text);
    assertEquals(bench.control64(Control.INT_STATE), BigInt(shadow), text);
  }
});

Deno.test("the host's own shadow does not reach into the guest", () => {
  prepare(IF);
  bench.orControl32(InterceptWord.MISC1, Misc1.INTR);
  bench.flags = 2;
  bench.processor.setInterruptLine(true);
  // sti; vmrun: the interrupt is held off until the guest runs.
  bench.write(Place.CODE, hex("fb 0f 01 d8 f4"));
  bench.write(SvmPlace.GUEST_CODE, hex("90 90 f4"));
  bench.state.setRegister(0, BigInt(bench.vmcb));
  bench.run(20);
  assertEquals(bench.control64(Control.EXITCODE), 0x60n);
  assertEquals(rip(), NEXT);
  bench.processor.setInterruptLine(false);
});

// The global interrupt flag.

/** Runs host code with GIF as it is; what was delivered. */
function hostRun(text: string, budget = 20): string[] {
  bench.handlers(64);
  bench.processor.wake();
  bench.write(Place.CODE, hex(text));
  bench.state.set(S.rip, BigInt(Place.CODE));
  return bench.run(budget).events.map(({ vector, rip }) =>
    `${vector.toString(16)} at ${Number(rip) - Place.CODE}`
  );
}

Deno.test("events wait for STGI", () => {
  for (
    const [name, pend, event] of [
      ["INTR", () => bench.processor.setInterruptLine(true), "77 at 8"],
      ["NMI", () => bench.processor.raiseNmi(), "2 at 8"],
    ] as const
  ) {
    bench.guest();
    bench.state.set32(S.gif, 1);
    // clgi; nop; nop; stgi; hlt. With GIF set the event comes first.
    pend();
    assertEquals(hostRun("0f 01 dd 90 90 0f 01 dc 90 f4"), [event.replace("8", "0")], name);
    bench.state.set32(S.nmiBlocked, 0);
    bench.host();
    bench.state.set32(S.gif, 0);
    pend();
    assertEquals(hostRun("0f 01 dd 90 90 0f 01 dc 90 f4"), [event], name);
    assertEquals(bench.state.get32(S.gif), 1, name);
    bench.state.set32(S.nmiBlocked, 0);
    bench.processor.setInterruptLine(false);
  }
});

Deno.test("with GIF clear breakpoints are lost and single steps are not", () => {
  for (const gif of [0, 1]) {
    bench.guest();
    bench.state.set(S.dr7, 0x402n);
    bench.state.setAt(S.dr, BigInt(Place.CODE + 1));
    bench.processor.refresh();
    bench.state.set32(S.gif, gif);
    assertEquals(hostRun("90 90 f4"), gif === 0 ? [] : ["1 at 1"]);
    bench.host();
    bench.flags = 0x102;
    bench.state.set32(S.gif, gif);
    assertEquals(hostRun("90 f4"), ["1 at 1"]);
  }
});

Deno.test("CLGI and STGI in a guest that may execute them", () => {
  prepare(IF);
  assertEquals(bench.enter("0f 01 dd 90 f4"), "78");
  bench.processor.setInterruptLine(true);
  prepare(IF);
  bench.orControl32(InterceptWord.MISC1, Misc1.INTR);
  bench.processor.setInterruptLine(false);
  bench.orControl32(InterceptWord.MISC1, Misc1.RDTSC);
  assertEquals(bench.enter("0f 01 dd 0f 31 f4"), "6e");
});

Deno.test("INIT: held by GIF, intercepted, redirected, taken", () => {
  bench.guest();
  bench.state.set32(S.gif, 0);
  bench.processor.raiseInit();
  assertEquals(hostRun("90 90 f4"), []);
  // #VMEXIT(INIT) leaves it pending.
  prepare();
  bench.orControl32(InterceptWord.MISC1, Misc1.INIT);
  bench.state.set32(S.gif, 0);
  bench.processor.raiseInit();
  assertEquals(bench.enter("90 f4"), "63");
  assertEquals(rip(), NEXT);
  // The host sets GIF with R_INIT: a #SX with error code 1, and INIT is gone.
  bench.processor.writeMsr(Msr.VM_CR, 2n);
  assertEquals(hostRun("0f 01 dc 90 f4"), ["1e at 3"]);
  assertEquals(bench.processor.recentEvents().at(-1)?.errorCode, 1);
  bench.host();
  assertEquals(hostRun("90 f4"), []);
  // Redirected in a guest that does not intercept it, where #SX may be intercepted.
  for (const intercepted of [false, true]) {
    prepare();
    if (intercepted) bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 30);
    bench.processor.writeMsr(Msr.VM_CR, 2n);
    bench.state.set32(S.gif, 0);
    bench.processor.raiseInit();
    assertEquals(bench.enter("90 f4"), intercepted ? "5e" : "78");
    if (intercepted) assertEquals(bench.info[0], 1n);
    else assertEquals(rip(), handler(30));
  }
  bench.processor.writeMsr(Msr.VM_CR, 0n);
  // Taken: the processor starts over, in host mode.
  for (const guest of [false, true]) {
    prepare();
    bench.nested();
    bench.state.set32(S.gif, guest ? 0 : 1);
    bench.processor.raiseInit();
    bench.write(Place.CODE, hex(guest ? "0f 01 d8 f4" : "90 f4"));
    bench.state.setRegister(0, BigInt(bench.vmcb));
    bench.state.set(S.rip, BigInt(Place.CODE));
    const { stop } = bench.run(20);
    assertEquals(stop, Stop.INIT);
    assertEquals(bench.state.get(S.rip), 0xfff0n);
    assertEquals(bench.state.get32(S.guestMode), 0);
    assertEquals(bench.state.get32(S.nestedPaging), 0);
    assertEquals(bench.state.get32(S.gif), 1);
    assertEquals(bench.state.get(S.cr0) & 0x8000_0001n, 0n);
  }
});

Deno.test("INIT clears SVMDIS unless it is locked", () => {
  bench.host();
  for (const locked of [false, true]) {
    bench.processor.reset();
    bench.processor.writeMsr(Msr.VM_CR, locked ? 0x18n : 0x10n);
    bench.processor.reset(true);
    assertEquals(bench.processor.readMsr(Msr.VM_CR), locked ? 0x18n : 0n);
  }
  bench.processor.reset();
  assertEquals(bench.processor.readMsr(Msr.VM_CR), 0n);
});

// Enabling and disabling SVM.

Deno.test("without EFER.SVME SVM instructions are undefined, at any CPL; with it CPL 3 gets #GP", () => {
  const all = ["d8", "da", "db", "dc", "dd", "de", "df"].map((last) => `0f 01 ${last}`);
  const skinit = "0f 01 de";
  for (const text of all) {
    for (const cpl of [0, 3]) {
      bench.long(cpl);
      bench.state.setRegister(0, BigInt(bench.vmcb));
      assertEquals(verdict(bench.execute(hex(text))), "#6", text);
    }
    bench.host();
    bench.long(3);
    bench.state.set(S.efer, bench.state.get(S.efer) | 0x1000n);
    bench.state.setRegister(0, BigInt(bench.vmcb));
    // No model has SKINIT, so it is undefined whatever the CPL.
    assertEquals(verdict(bench.execute(hex(text))), text === skinit ? "#6" : "#13(0)", text);
    bench.real();
    bench.state.set(S.efer, 0x1000n);
    assertEquals(verdict(bench.execute(hex(text))), "#6", text);
  }
  // VMMCALL is undefined outside of guests.
  for (const cpl of [0, 3]) {
    bench.host();
    if (cpl === 3) bench.long(3);
    assertEquals(verdict(bench.execute(hex("0f 01 d9"))), "#6");
  }
});

Deno.test("VM_CR: SVMDIS keeps SVME clear, LOCK keeps SVMDIS", () => {
  const { processor } = bench;
  bench.host();
  const efer = bench.state.get(S.efer);
  // SVMDIS cannot be set while SVME is.
  assertEquals(processor.writeMsr(Msr.VM_CR, 0x10n), false);
  assertEquals(processor.writeMsr(Msr.VM_CR, 0x20n), false);
  bench.long();
  assertEquals(processor.writeMsr(Msr.VM_CR, 0x10n), true);
  assertEquals(processor.writeMsr(Msr.EFER, efer), false);
  assertEquals(processor.writeMsr(Msr.VM_CR, 0x18n), true);
  // Writes to both are ignored now, the other bits work.
  assertEquals(processor.writeMsr(Msr.VM_CR, 0x7n), true);
  assertEquals(processor.readMsr(Msr.VM_CR), 0x1fn);
  assertEquals(processor.writeMsr(Msr.EFER, efer), false);
  bench.processor.reset();
});

Deno.test("VM_HSAVE_PA takes aligned addresses within reach", () => {
  const { processor } = bench;
  bench.host();
  for (
    const [value, fits] of [[0x1000n, true], [0x1001n, false], [1n << 48n, false], [
      0n,
      true,
    ]] as const
  ) {
    assertEquals(processor.writeMsr(Msr.VM_HSAVE_PA, value), fits);
    if (fits) assertEquals(processor.readMsr(Msr.VM_HSAVE_PA), value);
  }
});

Deno.test("a guest's gates and selectors are the guest's own", () => {
  prepare();
  // An interrupt gate of the guest that is not present: #NP with the vector.
  bench.set64(SvmPlace.GUEST_IDT + 16 * 0x42, gate(Sel.CODE64, bench.guestHandler(0x42), 0x6e));
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.NP);
  bench.inject(VALID | 0x42);
  assertEquals(bench.enter("90"), "4b");
  assertEquals(bench.info[0], BigInt(0x42 * 8 + 3));
  assertEquals(bench.control32(Save.IDTR + SaveSegment.LIMIT), 0xfff);
  assertEquals(bench.control32(InterceptWord.MISC2), Misc2.VMRUN);
});
