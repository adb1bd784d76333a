/**
 * APIC virtualization: the TPR shadow, the APIC-access page, x2APIC mode, virtual-interrupt delivery,
 * posted interrupts, IPI virtualization (SDM vol. 3, ch. 30).
 */
import { assertEquals } from "@std/assert";
import {
  ExitControl,
  Pin,
  Primary,
  Rflags,
  Secondary,
  Tertiary,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { gate, Sel } from "./bench.ts";
import { code, dword } from "./code.ts";
import { At, type Entry, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;
const standard = standardFields();

/** The virtual-APIC page, the guest's APIC-access page, a descriptor and a PID-pointer table. */
const VAPIC = At.SCRATCH;
const ACCESS = 0x40_0000;
const DESCRIPTOR = At.SCRATCH + 0x2000;
const TABLE = At.SCRATCH + 0x3000;
const MSR_BITMAP = At.SCRATCH + 0x4000;
const HANDLERS = At.GUEST + 0x1000;
const GUEST_IDT = At.DATA + 0x1000;

const VID = Secondary.VIRTUAL_INTERRUPTS;
const REGISTERS = Secondary.APIC_REGISTERS;
const PAGE = Secondary.VIRTUALIZE_APIC_ACCESSES;
const X2APIC = Secondary.VIRTUALIZE_X2APIC;

/** Controls for APIC virtualization; virtual-interrupt delivery needs external-interrupt exiting. */
function apic(secondary: number, more: Fields = {}, primary = 0, ipi = false): Fields {
  const bits = Primary.SECONDARY | Primary.TPR_SHADOW | Primary.MSR_BITMAPS | primary |
    (ipi ? Primary.TERTIARY : 0);
  return {
    [Vmcs.PIN_CONTROLS]: BigInt(standard[Vmcs.PIN_CONTROLS]!) | BigInt(Pin.EXTERNAL_INTERRUPT),
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) | BigInt(bits >>> 0),
    [Vmcs.SECONDARY_CONTROLS]: secondary,
    [Vmcs.TERTIARY_CONTROLS]: ipi ? Tertiary.IPI_VIRTUALIZATION : 0,
    [Vmcs.VIRTUAL_APIC_ADDRESS]: VAPIC,
    [Vmcs.APIC_ACCESS_ADDRESS]: ACCESS,
    [Vmcs.MSR_BITMAP]: MSR_BITMAP,
    [Vmcs.PID_POINTER_TABLE]: TABLE,
    [Vmcs.LAST_PID_POINTER_INDEX]: 3,
    [Vmcs.GUEST_IDTR_BASE]: GUEST_IDT,
    [Vmcs.GUEST_IDTR_LIMIT]: 0xfff,
    ...more,
  };
}

function handlers(): void {
  bench.fill(HANDLERS, 0x1000, 0xf4);
  for (let vector = 0; vector < 256; vector++) {
    bench.set64(GUEST_IDT + 16 * vector, gate(Sel.CODE64, HANDLERS + 16 * vector, 0xee));
    bench.set64(GUEST_IDT + 16 * vector + 8, 0n);
  }
}

/** A clean page; `page` writes registers into it before the entry. */
function run(
  bytes: string | readonly number[],
  fields: Fields,
  page: () => void = () => {},
  registers: Readonly<Record<number, bigint>> = {},
): Entry {
  lab.start();
  handlers();
  bench.fill(VAPIC, 0x1000, 0);
  bench.fill(MSR_BITMAP, 0x1000, 0);
  bench.write(At.GUEST, [...code(bytes), 0xf4]);
  page();
  lab.prepare(fields);
  bench.state.setRegister(3, BigInt(ACCESS));
  for (const [n, value] of Object.entries(registers)) bench.state.setRegister(Number(n), value);
  return lab.enter();
}

const text = (entry: Entry): string => exitText(entry);
const register = (offset: number): number => bench.get32(VAPIC + offset);
const setVector = (offset: number, vector: number): void => {
  const at = VAPIC + offset + (vector >> 5) * 16;
  bench.set32(at, (bench.get32(at) | (1 << (vector & 31))) >>> 0);
};
const hasVector = (offset: number, vector: number): boolean =>
  ((register(offset + (vector >> 5) * 16) >>> (vector & 31)) & 1) === 1;
const status = (): string => lab.read(Vmcs.GUEST_INTERRUPT_STATUS).toString(16);
const handler = (): number => {
  const at = Number(lab.read(Vmcs.GUEST_RIP)) - HANDLERS;
  return at >= 0 && at < 0x1000 ? at >> 4 : -1;
};
const IRR = 0x200;
const ISR = 0x100;

/** mov eax, [rbx+offset] and mov [rbx+offset], eax. */
const read = (offset: number): number[] => code("8b 83", dword(offset));
const write = (offset: number): number[] => code("89 83", dword(offset));
const OPEN = { [Vmcs.GUEST_RFLAGS]: Rflags.IF | 2 };

Deno.test("the TPR shadow: MOV CR8, and the threshold below which it exits", () => {
  // mov cr8, rdx; mov rcx, cr8
  const program = "44 0f 22 c2 44 0f 20 c1";
  assertEquals(
    text(run(program, apic(0), () => bench.set32(VAPIC + 0x80, 0x77), { 2: 5n })),
    "HLT",
  );
  assertEquals(register(0x80), 0x50);
  assertEquals(bench.state.register(1), 5n);
  const threshold = apic(0, { [Vmcs.TPR_THRESHOLD]: 5 });
  const high = (): void => bench.set32(VAPIC + 0x80, 0x90);
  assertEquals(text(run(program, threshold, high, { 2: 5n })), "HLT");
  assertEquals(text(run(program, threshold, high, { 2: 4n })), "TPR_BELOW_THRESHOLD");
  // It comes behind the instruction.
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 4));
  assertEquals(register(0x80), 0x40);
  // With the APIC-access page the threshold is compared behind the entry.
  assertEquals(text(run("90", apic(PAGE, { [Vmcs.TPR_THRESHOLD]: 5 }))), "TPR_BELOW_THRESHOLD");
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
  // A value above 15 is #GP.
  assertEquals(
    text(run(program, apic(0, { [Vmcs.EXCEPTION_BITMAP]: 1 << 13 }), high, { 2: 16n })),
    "EXCEPTION_OR_NMI",
  );
});

const range = (first: number, last: number): number[] =>
  Array.from({ length: (last - first) / 16 + 1 }, (_, k) => first + 16 * k);
const READABLE = [
  0x20,
  0x30,
  0x80,
  0xb0,
  0xd0,
  0xe0,
  0xf0,
  ...range(0x100, 0x280),
  0x300,
  0x310,
  ...range(0x320, 0x380),
  0x3e0,
];
const WRITABLE = [
  0x20,
  0x80,
  0xb0,
  0xd0,
  0xe0,
  0xf0,
  0x280,
  0x300,
  0x310,
  ...range(0x320, 0x380),
  0x3e0,
];

Deno.test("the APIC-access page: which registers are read from the virtual-APIC page", () => {
  for (const controls of [0, VID, REGISTERS, VID | REGISTERS]) {
    for (let offset = 0; offset < 0x410; offset += 0x10) {
      const yes = offset === 0x80 ||
        ((controls & VID) !== 0 && (offset === 0xb0 || offset === 0x300)) ||
        ((controls & REGISTERS) !== 0 && READABLE.includes(offset));
      const is = text(run(read(offset), apic(PAGE | controls), () => {
        // A TPR of the highest class, so that nothing is delivered.
        bench.set32(VAPIC + offset, offset === 0x80 ? 0xf5 : 0x1234_5678);
      }));
      assertEquals(
        is,
        yes ? "HLT" : `APIC_ACCESS${offset === 0 ? "" : ` ${offset.toString(16)}`}`,
        `${controls} ${offset.toString(16)}`,
      );
      if (yes) assertEquals(bench.state.register(0), offset === 0x80 ? 0xf5n : 0x1234_5678n);
    }
  }
});

Deno.test("the APIC-access page: which writes are virtualized, and which exit behind them", () => {
  for (const controls of [0, VID, REGISTERS, VID | REGISTERS]) {
    for (let offset = 0; offset < 0x410; offset += 0x10) {
      const vid = (controls & VID) !== 0;
      const yes = offset === 0x80 || (vid && (offset === 0xb0 || offset === 0x300)) ||
        ((controls & REGISTERS) !== 0 && WRITABLE.includes(offset));
      const quiet = offset === 0x80 || offset === 0x310 || (vid && offset === 0xb0);
      const is = text(run(write(offset), apic(PAGE | controls), undefined, { 0: 0xa5n }));
      const expected = !yes
        ? `APIC_ACCESS 1${offset.toString(16).padStart(3, "0")}`
        : quiet
        ? "HLT"
        : `APIC_WRITE ${offset.toString(16)}`;
      assertEquals(is, expected, `${controls} ${offset.toString(16)}`);
      if (is.startsWith("APIC_WRITE")) {
        assertEquals(register(offset), 0xa5);
        assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 6));
      }
      if (is.startsWith("APIC_ACCESS")) assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST));
    }
  }
  // Of ICR_HI only the destination is kept.
  run(write(0x310), apic(PAGE | REGISTERS), undefined, { 0: 0x1234_5678n });
  assertEquals(register(0x310), 0x1200_0000);
});

Deno.test("the APIC-access page: widths, places, fetches, deliveries", () => {
  const fields = apic(PAGE | REGISTERS);
  const tpr = (): void => bench.set32(VAPIC + 0x80, 0xf0);
  // mov al,[rbx+81h]; mov ax,[rbx+82h]; mov eax,[rbx+81h]; mov rax,[rbx+80h]
  assertEquals(text(run("8a 83 81 00 00 00", fields, tpr)), "HLT");
  assertEquals(text(run("66 8b 83 82 00 00 00", fields, tpr)), "HLT");
  assertEquals(text(run("8b 83 81 00 00 00", fields, tpr)), "APIC_ACCESS 81");
  assertEquals(text(run("48 8b 83 80 00 00 00", fields, tpr)), "APIC_ACCESS 80");
  assertEquals(text(run("8b 83 84 00 00 00", fields, tpr)), "APIC_ACCESS 84");
  // Without the TPR shadow everything exits.
  const bare = {
    ...fields,
    [Vmcs.SECONDARY_CONTROLS]: PAGE,
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
      BigInt(Primary.SECONDARY >>> 0),
  };
  assertEquals(text(run(read(0x80), bare)), "APIC_ACCESS 80");
  // jmp rbx
  assertEquals(text(run("ff e3", fields)), "APIC_ACCESS 2000");
  // A stack in the page: the delivery of an event writes there.
  const stack = { ...fields, [Vmcs.GUEST_RSP]: ACCESS + 0x500 };
  assertEquals(text(run("cd 30", stack)), "APIC_ACCESS 34f8");
  assertEquals(lab.read(Vmcs.IDT_VECTORING_INFO), 0x8000_0430n);
});

Deno.test("x2APIC mode: which MSRs are virtualized", () => {
  const asked: number[] = [];
  bench.outside.msrRead = (index) => {
    asked.push(index);
    return index !== 0x1b;
  };
  bench.outside.msrWrite = (index) => {
    asked.push(index);
    return true;
  };
  for (const controls of [0, VID, REGISTERS, VID | REGISTERS]) {
    for (let index = 0x800; index < 0x840; index++) {
      const offset = (index & 0xff) << 4;
      const page = (): void => bench.set64(VAPIC + offset, 0x1234_5678_9abc_def0n);
      asked.length = 0;
      assertEquals(text(run("0f 32", apic(X2APIC | controls), page, { 1: BigInt(index) })), "HLT");
      const virtual = (controls & REGISTERS) !== 0 || index === 0x808;
      assertEquals(asked.includes(index), !virtual, `read ${index.toString(16)} ${controls}`);
      // PPR is worked out at the entry.
      if (virtual && !(index === 0x80a && (controls & VID) !== 0)) {
        assertEquals(bench.state.register(0), 0x9abc_def0n);
        assertEquals(bench.state.register(2), 0x1234_5678n);
      }
      asked.length = 0;
      const value = index === 0x80b ? 0n : 0x20n;
      assertEquals(
        text(
          run("0f 30", apic(X2APIC | controls), undefined, { 0: value, 1: BigInt(index), 2: 0n }),
        ),
        "HLT",
      );
      const written = index === 0x808 ||
        ((controls & VID) !== 0 && (index === 0x80b || index === 0x83f));
      assertEquals(asked.includes(index), !written, `write ${index.toString(16)} ${controls}`);
      if (written) assertEquals(register(offset), Number(value));
    }
  }
  // The MSR bitmap is looked at first.
  const bitmap = (): void => bench.fill(MSR_BITMAP, 0x1000, 0xff);
  assertEquals(text(run("0f 32", apic(X2APIC), bitmap, { 1: 0x808n })), "RDMSR");
  assertEquals(text(run("0f 30", apic(X2APIC), bitmap, { 1: 0x808n })), "WRMSR");
  // Reserved bits are #GP.
  const gp = apic(X2APIC | VID, { [Vmcs.EXCEPTION_BITMAP]: 1 << 13 });
  for (
    const [index, low, high] of [
      [0x808n, 0x100n, 0n],
      [0x808n, 0n, 1n],
      [0x80bn, 1n, 0n],
      [0x80bn, 0n, 1n],
      [0x83fn, 0x100n, 0n],
      [0x83fn, 0x20n, 1n],
    ] as const
  ) {
    assertEquals(
      text(run("0f 30", gp, undefined, { 0: low, 1: index, 2: high })),
      "EXCEPTION_OR_NMI",
      `${index}`,
    );
  }
  // SELF_IPI of a vector below 16 is the hypervisor's.
  assertEquals(
    text(run("0f 30", apic(X2APIC | VID), undefined, { 0: 15n, 1: 0x83fn, 2: 0n })),
    "APIC_WRITE 3f0",
  );
  bench.outside.msrRead = () => false;
  bench.outside.msrWrite = () => false;
});

Deno.test("delivery at entry: RVI against PPR, and what it leaves in the page and the status", () => {
  const pending = (vector: number): void => setVector(IRR, vector);
  const fields = (rvi: number, more: Fields = {}): Fields =>
    apic(VID | REGISTERS | PAGE, { [Vmcs.GUEST_INTERRUPT_STATUS]: rvi, ...OPEN, ...more });
  assertEquals(text(run("90", fields(0x61), () => pending(0x61))), "HLT");
  assertEquals(handler(), 0x61);
  assertEquals(status(), "6100");
  assertEquals([hasVector(IRR, 0x61), hasVector(ISR, 0x61), register(0xa0)], [false, true, 0x60]);
  // The next one is RVI then.
  run("90", fields(0x61), () => {
    pending(0x61);
    pending(0x35);
  });
  assertEquals(status(), "6135");
  // Class against class: TPR 60h holds 61h back, 5Fh does not.
  for (const [tpr, delivered] of [[0x60, false], [0x6f, false], [0x5f, true]] as const) {
    run("90", fields(0x61), () => {
      pending(0x61);
      bench.set32(VAPIC + 0x80, tpr);
    });
    assertEquals(handler() === 0x61, delivered, `${tpr}`);
    if (!delivered) assertEquals(register(0xa0), tpr);
  }
  // What is in service holds back as well.
  run("90", fields(0x7061), () => pending(0x61));
  assertEquals(handler(), -1);
  assertEquals(register(0xa0), 0x70);
  // IF, and the shadow of MOV SS.
  run("90", fields(0x61, { [Vmcs.GUEST_RFLAGS]: 2 }), () => pending(0x61));
  assertEquals(handler(), -1);
  run("fb 90 90", fields(0x61, { [Vmcs.GUEST_RFLAGS]: 2 }), () => pending(0x61));
  assertEquals(handler(), 0x61);
  assertEquals(bench.get64(Number(lab.read(Vmcs.GUEST_RSP))), BigInt(At.GUEST + 2));
  // VIRR alone does nothing, nor does RVI without the control.
  run("90", fields(0), () => pending(0x61));
  assertEquals(handler(), -1);
  run("90", apic(PAGE, { [Vmcs.GUEST_INTERRUPT_STATUS]: 0x61, ...OPEN }), () => pending(0x61));
  assertEquals(handler(), -1);
  // Interrupt-window exiting comes first.
  assertEquals(
    text(
      run("90", {
        ...fields(0x61),
        ...apic(
          VID | PAGE,
          { [Vmcs.GUEST_INTERRUPT_STATUS]: 0x61, ...OPEN },
          Primary.INTERRUPT_WINDOW,
        ),
      }, () => pending(0x61)),
    ),
    "INTERRUPT_WINDOW",
  );
  assertEquals(status(), "61");
  // A guest in HLT is woken.
  run("90", fields(0x61, { [Vmcs.GUEST_ACTIVITY]: 1 }), () => pending(0x61));
  assertEquals(handler(), 0x61);
});

Deno.test("TPR and EOI virtualization: the next interrupt comes when they let it", () => {
  const fields = (rvi: number, more: Fields = {}): Fields =>
    apic(VID | PAGE, { [Vmcs.GUEST_INTERRUPT_STATUS]: rvi, ...OPEN, ...more });
  // mov [rbx+80h], eax lowers TPR.
  run(write(0x80), fields(0x61), () => {
    setVector(IRR, 0x61);
    bench.set32(VAPIC + 0x80, 0xf0);
  }, { 0: 0x10n });
  assertEquals(handler(), 0x61);
  assertEquals(bench.get64(Number(lab.read(Vmcs.GUEST_RSP))), BigInt(At.GUEST + 6));
  // mov [rbx+0B0h], eax ends 71h.
  run(write(0xb0), fields(0x7161), () => {
    setVector(IRR, 0x61);
    setVector(ISR, 0x71);
    setVector(ISR, 0x22);
  }, { 0: 0x55n });
  assertEquals(handler(), 0x61);
  assertEquals(status(), "6100");
  assertEquals([hasVector(ISR, 0x71), hasVector(ISR, 0x22), register(0xb0)], [false, true, 0]);
  // The EOI-exit bitmap: a trap-like exit with the vector.
  for (
    const [vector, field] of [[0x31, Vmcs.EOI_EXIT_BITMAP0], [0x71, Vmcs.EOI_EXIT_BITMAP1], [
      0xa1,
      Vmcs.EOI_EXIT_BITMAP2,
    ], [0xe1, Vmcs.EOI_EXIT_BITMAP3]] as const
  ) {
    const exits = run(
      write(0xb0),
      fields(vector << 8, { [field]: 1n << BigInt(vector & 63) }),
      () => setVector(ISR, vector),
    );
    assertEquals(text(exits), `VIRTUALIZED_EOI ${vector.toString(16)}`);
    assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 6));
    assertEquals(status(), "0");
    assertEquals(hasVector(ISR, vector), false);
  }
});

Deno.test("self-IPIs: ICR with the self shorthand, and SELF_IPI", () => {
  const page = apic(VID | PAGE | REGISTERS, OPEN);
  const send = (command: number, fields: Fields = page): string =>
    text(run(write(0x300), fields, undefined, { 0: BigInt(command) }));
  assertEquals(send(0x4_0041), "HLT");
  assertEquals(handler(), 0x41);
  assertEquals(status(), "4100");
  // What is no self-IPI of the kind: level, NMI, other shorthands, reserved bits, vectors below 16.
  for (
    const command of [
      0x41,
      0x4_8041,
      0x4_0441,
      0x8_0041,
      0xc_0041,
      0x4_000f,
      0x14_0041,
      0x6_2041 & ~0x2_0000 | 0x2000,
    ]
  ) {
    assertEquals(send(command), "APIC_WRITE 300", command.toString(16));
    assertEquals(handler(), -1);
  }
  assertEquals(send(0x4_0041, apic(PAGE | REGISTERS, OPEN)), "APIC_WRITE 300");
  assertEquals(
    text(run("0f 30", apic(VID | X2APIC, OPEN), undefined, { 0: 0x52n, 1: 0x83fn, 2: 0n })),
    "HLT",
  );
  assertEquals(handler(), 0x52);
});

/** Accesses to the physical APIC, which is in xAPIC mode unless a test says otherwise. */
const physical: string[] = [];
function attachApic(x2apic: boolean): void {
  physical.length = 0;
  const exchange = (): bigint => {
    const words = bench.processor.exchange;
    return BigInt(words[0]! >>> 0) | (BigInt(words[1]! >>> 0) << 32n);
  };
  bench.outside.msrRead = (index) => {
    if (index !== 0x1b) return false;
    bench.processor.exchange[0] = (0xfee0_0800 | (x2apic ? 0x400 : 0)) | 0;
    bench.processor.exchange[1] = 0;
    return true;
  };
  bench.outside.msrWrite = (index) => {
    physical.push(`${index.toString(16)}=${exchange().toString(16)}`);
    return true;
  };
  bench.outside.deviceWrite = (address, bytes) => {
    physical.push(`${address.toString(16)}:${bytes}=${(exchange() & 0xffff_ffffn).toString(16)}`);
  };
}

Deno.test("posted interrupts: the notification vector is no exit but brings the requests", () => {
  const pin = BigInt(standard[Vmcs.PIN_CONTROLS]!) |
    BigInt(Pin.EXTERNAL_INTERRUPT | Pin.POSTED_INTERRUPTS);
  const fields = apic(VID | REGISTERS, {
    [Vmcs.PIN_CONTROLS]: pin,
    [Vmcs.EXIT_CONTROLS]: BigInt(standard[Vmcs.EXIT_CONTROLS]!) |
      BigInt(ExitControl.ACKNOWLEDGE_INTERRUPT),
    [Vmcs.POSTED_INTERRUPT_VECTOR]: 0xf2,
    [Vmcs.POSTED_INTERRUPT_DESCRIPTOR]: DESCRIPTOR,
    [Vmcs.GUEST_RFLAGS]: 2,
  });
  const arrive = (vector: number, posted: readonly number[], x2apic = false): string => {
    attachApic(x2apic);
    bench.outside.acknowledge = () => vector;
    const entry = run("90 fb 90 90 90", fields, () => {
      bench.fill(DESCRIPTOR, 64, 0);
      for (const one of posted) {
        const at = DESCRIPTOR + (one >> 5) * 4;
        bench.set32(at, (bench.get32(at) | (1 << (one & 31))) >>> 0);
      }
      bench.set32(DESCRIPTOR + 32, 1);
      bench.processor.setInterruptLine(true);
    });
    bench.outside.acknowledge = () => -1;
    return text(entry);
  };
  for (const x2apic of [false, true]) {
    assertEquals(arrive(0xf2, [0x41, 0x93, 0x92], x2apic), "HLT");
    assertEquals(handler(), 0x93);
    assertEquals(status(), "9392");
    assertEquals([0x41, 0x92].map((vector) => hasVector(IRR, vector)), [true, true]);
    // The requests are taken over, ON is clear, the physical interrupt is ended.
    for (let k = 0; k < 36; k += 4) assertEquals(bench.get32(DESCRIPTOR + k), 0);
    assertEquals(physical, [x2apic ? "80b=0" : "fee000b0:4=0"]);
  }
  // Any other vector exits.
  assertEquals(arrive(0xf3, [0x41]), "EXTERNAL_INTERRUPT");
  assertEquals(lab.read(Vmcs.EXIT_INTERRUPTION_INFO), 0x8000_00f3n);
  assertEquals(bench.get32(DESCRIPTOR + 8), 2);
});

Deno.test("IPI virtualization: which IPIs are sent without an exit", () => {
  const xapic = apic(VID | REGISTERS | PAGE, {}, 0, true);
  const x2apic = apic(VID | REGISTERS | X2APIC, {}, 0, true);
  const target = 2;
  const valid = (): void => {
    bench.fill(DESCRIPTOR, 64, 0);
    bench.set32(DESCRIPTOR + 32, 0xf2 << 16);
    bench.set32(DESCRIPTOR + 36, 0x0700);
    bench.fill(TABLE, 0x40, 0);
    bench.set64(TABLE + 8 * target, BigInt(DESCRIPTOR) | 1n);
  };
  /** Sends with both forms of ICR; whether no exit was made. */
  const send = (command: number, id: number, more: () => void = () => {}): boolean => {
    const setUp = (): void => {
      valid();
      more();
    };
    attachApic(false);
    const first = text(
      run([...write(0x310), ...code("89 c8"), ...write(0x300)], xapic, setUp, {
        0: BigInt(id * 0x100_0000),
        1: BigInt(command),
      }),
    );
    attachApic(true);
    const second = text(
      run("0f 30", x2apic, setUp, { 0: BigInt(command), 1: 0x830n, 2: BigInt(id) }),
    );
    assertEquals(first === "HLT", second === "HLT", `${command.toString(16)}: ${first}, ${second}`);
    if (first !== "HLT") {
      assertEquals([first, second], ["APIC_WRITE 300", "APIC_WRITE 300"]);
      assertEquals(register(0x300), command);
    }
    return first === "HLT";
  };
  assertEquals(send(0x41, target), true);
  assertEquals(bench.get32(DESCRIPTOR + 8), 2);
  assertEquals(bench.get32(DESCRIPTOR + 32), (0xf2 << 16) | 1);
  // The notification goes to the descriptor's destination.
  assertEquals(physical, ["830=700000040f2"]);
  attachApic(false);
  run([...write(0x310), ...code("89 c8"), ...write(0x300)], xapic, valid, {
    0: BigInt(target * 0x100_0000),
    1: 0x41n,
  });
  assertEquals(physical, ["fee00310:4=7000000", "fee00300:4=40f2"]);
  // Not a second one while one is outstanding, and none while they are suppressed.
  for (const bits of [1, 2, 3]) {
    assertEquals(send(0x41, target, () => bench.set32(DESCRIPTOR + 32, (0xf2 << 16) | bits)), true);
    assertEquals(physical, []);
    assertEquals(bench.get32(DESCRIPTOR + 32), (0xf2 << 16) | bits);
    assertEquals(bench.get32(DESCRIPTOR + 8), 2);
  }
  // What the hypervisor has to send: logical, shorthands, level, NMI, INIT, SIPI, lowest priority, SMI.
  for (
    const command of [0x841, 0x8_0041, 0xc_0041, 0x8041, 0x441, 0x541, 0x641, 0x141, 0x241, 0x0f]
  ) {
    assertEquals(send(command, target), false, command.toString(16));
    assertEquals(bench.get32(DESCRIPTOR + 8), 0);
  }
  // IDs beyond the last index, broadcast, entries that are not valid.
  assertEquals(send(0x41, 4), false);
  assertEquals(send(0x41, 0xff), false);
  assertEquals(send(0x41, 1), false);
  assertEquals(send(0x41, target, () => bench.set64(TABLE + 16, BigInt(DESCRIPTOR))), false);
  assertEquals(send(0x41, target, () => bench.set64(TABLE + 16, BigInt(DESCRIPTOR) | 3n)), false);
  assertEquals(send(0x41, target, () => bench.set64(TABLE + 16, (1n << 48n) | 1n)), false);
  // Without the control: an ordinary write of the MSR, an APIC-write exit of the page.
  attachApic(true);
  assertEquals(
    text(run("0f 30", apic(VID | REGISTERS | X2APIC), valid, { 0: 0x41n, 1: 0x830n, 2: 2n })),
    "HLT",
  );
  assertEquals(physical, ["830=200000041"]);
  // Reserved bits are #GP in x2APIC mode.
  for (const bit of [12, 13, 16, 17, 20, 31]) {
    const gp = { ...x2apic, [Vmcs.EXCEPTION_BITMAP]: 1 << 13 };
    assertEquals(
      text(run("0f 30", gp, valid, { 0: BigInt((0x41 | (1 << bit)) >>> 0), 1: 0x830n, 2: 2n })),
      "EXCEPTION_OR_NMI",
      `${bit}`,
    );
  }
});
