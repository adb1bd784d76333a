import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  ABSENT_CODE,
  CODE,
  CODE32,
  GDT,
  IDT,
  KERNEL_DATA,
  type LongGuest,
  longGuest,
  PD,
  STACK,
  toUser,
  TSS,
  USER_CODE,
} from "./fixture_test.ts";
import { examineGate, type Gate, type GateUse } from "./gates.ts";
import { GuestView } from "./guest_view.ts";

const FAULT: GateUse = { software: false, errorCode: true };

function gateOf(prepare: (guest: LongGuest) => void, vector = 14, use = FAULT): Gate {
  using guest = longGuest();
  guest.gate(vector);
  prepare(guest);
  return examineGate(new GuestView(guest.vcpu), vector, use);
}

Deno.test("a gate that works has no problem, and is read field by field", () => {
  const gate = gateOf((guest) =>
    guest.gate(14, 0xee02, USER_CODE & ~3 | 0, 0xffff_8123_4567_89abn)
  );
  assertEquals(gate, {
    vector: 14,
    address: BigInt(IDT + 14 * 16),
    bytes: 16,
    type: "interrupt gate",
    selector: 0x18,
    offset: 0xffff_8123_4567_89abn,
    dpl: 3,
    present: true,
    ist: 2,
    problem: "gate 14 names code segment 18h: its DPL 3 is above CPL 0",
  });
  assertEquals(gateOf(() => {}).problem, undefined);
  assertEquals(gateOf((guest) => guest.gate(14, 0x8f00)).type, "trap gate");
});

const PROBLEMS: [what: string, prepare: (guest: LongGuest) => void, problem: string][] = [
  ["limit", ({ system }) => void (system.idt.limit = 0xee), "lies past its limit, eeh"],
  ["limit, exactly enough", ({ system }) => void (system.idt.limit = 0xef), ""],
  ["not mapped", ({ system }) => void (system.idt.base = 1n << 40n), "PML4E at 6010h is 0"],
  ["no memory", ({ system }) => void (system.idt.base = 0x80_0000n), "where no memory is"],
  ["empty", ({ vm }) => vm.memory.writeU64(IDT + 14 * 16, 0n), "gate 14 is empty"],
  ["not present", (guest) => guest.gate(14, 0x0e00), "gate 14 is not present"],
  ["call gate", (guest) => guest.gate(14, 0x8c00), "no interrupt or trap gate: call gate"],
  ["task gate", (guest) => guest.gate(14, 0x8500), "no interrupt or trap gate: task gate"],
  ["code descriptor", (guest) => guest.gate(14, 0x9e00), "not a system descriptor"],
  ["null selector", (guest) => guest.gate(14, 0x8e00, 3), "code segment 3h: a null selector"],
  ["GDT limit", (guest) => guest.gate(14, 0x8e00, 0x30), "past the GDT's limit, 2fh"],
  [
    "no LDT",
    (guest) => {
      guest.gate(14, 0x8e00, 0x0c);
      guest.system.ldt.attributes = 0;
    },
    "there is no LDT",
  ],
  ["data segment", (guest) => guest.gate(14, 0x8e00, KERNEL_DATA), "not a code segment"],
  [
    "absent segment",
    (guest) => guest.gate(14, 0x8e00, ABSENT_CODE),
    "code segment 20h: not present",
  ],
  ["32-bit segment", (guest) => guest.gate(14, 0x8e00, CODE32), "not a 64-bit code segment"],
  ["GDT unmapped", ({ system }) => void (system.gdt.base = 1n << 40n), "cannot be read: PML4E"],
  ["handler", (guest) => guest.gate(14, 0x8e00, 8, 1n << 50n), "which is not canonical"],
  ["stack unmapped", ({ vcpu }) => void (vcpu.regs.rsp = 1n << 40n), "(RSP): PML4E"],
  [
    "stack not canonical",
    ({ vcpu }) => void (vcpu.regs.rsp = 1n << 60n),
    "ffffffffffffff8h is not canonical",
  ],
  ["stack read-only", ({ vm }) => vm.memory.writeU64(PD, 0x85n), "PDE at 8000h is read-only"],
  ["stack without memory", ({ vcpu }) => void (vcpu.regs.rsp = 0x80_0000n), "where no memory is"],
  ["IST", (guest) => guest.gate(14, 0x8e01), ""],
  ["IST entry 0", (guest) => guest.gate(14, 0x8e02), "on the stack at 0h (IST2 of the TSS)"],
  [
    "TSS limit",
    (guest) => {
      guest.gate(14, 0x8e01);
      guest.system.tr.limit = 0x2a;
    },
    "wants IST1 of the TSS, past the TSS's limit",
  ],
  [
    "TSS unmapped",
    (guest) => {
      guest.gate(14, 0x8e01);
      guest.system.tr.base = 1n << 40n;
    },
    "IST1 of the TSS, which cannot be read",
  ],
];

for (const [what, prepare, problem] of PROBLEMS) {
  Deno.test(`what is wrong with a gate: ${what}`, () => {
    const found = gateOf(prepare).problem;
    if (problem === "") assertEquals(found, undefined);
    else assertStringIncludes(found ?? "nothing", problem);
  });
}

Deno.test("the frame may lie on two pages", () => {
  // RSP at the start of the second large page: the frame is on the first.
  const at = (entry: bigint) =>
    gateOf((guest) => {
      guest.vm.memory.writeU64(PD + 8, 0x20_0087n);
      guest.vm.memory.writeU64(PD, entry);
      guest.vcpu.regs.rsp = 0x20_0010n;
    }).problem;
  assertEquals(at(0x87n), undefined);
  assertStringIncludes(at(0x85n) ?? "", "read-only");
});

Deno.test("INT n needs the gate's privilege, exceptions do not", () => {
  const software: GateUse = { software: true, errorCode: false };
  assertStringIncludes(
    gateOf(toUser, 0x80, software).problem ?? "",
    "DPL 0, and INT n came from CPL 3",
  );
  assertEquals(gateOf(toUser, 0x80, FAULT).problem, undefined);
  const open = (guest: LongGuest) => {
    toUser(guest);
    guest.gate(0x80, 0xee00);
  };
  assertEquals(gateOf(open, 0x80, software).problem, undefined);
});

Deno.test("from ring 3 the stack is RSP0's", () => {
  const found = gateOf((guest) => {
    toUser(guest);
    guest.vcpu.regs.rsp = 1n << 60n; // does not matter
    guest.vm.memory.writeU64(TSS + 4, 1n << 40n);
  });
  assertStringIncludes(
    found.problem ?? "",
    "on the stack at 10000000000h (RSP0 of the TSS): PML4E",
  );
});

Deno.test("protected mode has gates of 8 bytes, and stacks of the TSS with segments", () => {
  const protectedGate = (prepare: (guest: LongGuest) => void) =>
    gateOf((guest) => {
      const { system, vm } = guest;
      system.efer = 0n;
      system.cr0 = 0x11n;
      system.cs = { selector: CODE32, base: 0n, limit: 0xffff_ffff, attributes: 0xc9b };
      vm.memory.writeU64(
        IDT + 14 * 8,
        0x0000_8e00_0000_0000n | BigInt(CODE32) << 16n | BigInt(CODE),
      );
      prepare(guest);
    });
  const good = protectedGate(() => {});
  assertEquals([good.bytes, good.problem, good.offset], [8, undefined, BigInt(CODE)]);
  assertEquals(
    protectedGate(({ vm }) => vm.memory.writeU64(IDT + 14 * 8, 0x0000_8500_0030_0000n)).type,
    "task gate",
  );
  const user = (esp0: number, ss0: number) =>
    protectedGate(({ system, vm }) => {
      system.cs = { ...system.cs, attributes: 0xcfb };
      vm.memory.writeU32(TSS + 4, esp0);
      vm.memory.writeU32(TSS + 8, ss0);
    }).problem;
  assertEquals(user(STACK, KERNEL_DATA), undefined);
  assertStringIncludes(
    user(0x800_0000, KERNEL_DATA) ?? "",
    "(SS0:ESP0 of the TSS): it leads to gpa",
  );
});

Deno.test("real mode has vectors of 4 bytes", () => {
  const found = gateOf(({ system, vm }) => {
    system.cr0 = 0x10n;
    system.efer = 0n;
    system.idt = { base: 0n, limit: 0x3ff };
    vm.memory.writeU32(4 * 14, 0xf000_1234);
  });
  assertEquals([found.type, found.selector, found.offset, found.problem], [
    "vector",
    0xf000,
    0x1234n,
    undefined,
  ]);
  const short = gateOf(({ system }) => {
    system.cr0 = 0x10n;
    system.efer = 0n;
    system.idt = { base: 0n, limit: 0x37 };
  });
  assertStringIncludes(short.problem ?? "", "bytes 38h to 3bh of the IDT");
});

Deno.test("a conforming segment keeps the privilege", () => {
  const found = gateOf((guest) => {
    toUser(guest);
    guest.vm.memory.writeU64(GDT + 8, 0x00af_9f00_0000_ffffn);
    guest.vcpu.regs.rsp = 1n << 40n;
  });
  assertStringIncludes(found.problem ?? "", "(RSP)");
});
