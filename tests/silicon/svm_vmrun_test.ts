/**
 * VMRUN's consistency checks, row by row (APM vol. 2, 15.5.1, 15.20, 15.25.4), and what it and #VMEXIT
 * move between host and guest.
 */
import { assertEquals, assertNotEquals } from "@std/assert";
import {
  Control,
  Cr0,
  Cr4,
  Efer,
  EventFormat,
  InterceptWord,
  Misc1,
  Misc2,
  Msr,
  S,
  Save,
  SaveSegment,
  Seg,
} from "../../plugins/cpu/mod.ts";
import { Place, Sel } from "./bench.ts";
import { hex } from "./code.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();
/** A base, and what is made of it where linear addresses have 48 bits or 57. */
const BASE = 0x1334_8000_0000_0042n;
const CANONICAL: readonly (readonly [SvmBench, bigint])[] = [
  [new SvmBench({ model: "zen3" }), 0xffff_8000_0000_0042n],
  [bench, 0xff34_8000_0000_0042n],
];
/** Bits of physical addresses. */
const PHYSICAL_BITS = 48n;

/** Registers of the host that must not be touched. */
function hostState(): Record<string, unknown> {
  const { state } = bench;
  return {
    rsp: state.register(4),
    rcx: state.register(1),
    cr0: state.get(S.cr0),
    cr3: state.get(S.cr3),
    cr4: state.get(S.cr4),
    efer: state.get(S.efer),
    gdt: [state.get(S.gdtBase), state.get32(S.gdtLimit)],
    idt: [state.get(S.idtBase), state.get32(S.idtLimit)],
    segments: [Seg.ES, Seg.CS, Seg.SS, Seg.DS].map((n) => state.segment(n)),
    cpl: state.get32(S.cpl),
    flags: bench.flags,
    pat: state.get(S.pat),
  };
}

/** VMRUN refuses the control block; it writes the exit code and nothing else, and GIF is clear. */
function refused(name: string, change: () => void): void {
  bench.guest();
  change();
  bench.setControl64(Control.EXITINTINFO, -1);
  const before = bench.block;
  const host = hostState();
  assertEquals(bench.enter("48 ff c1 f4"), "invalid", name);
  const after = bench.block;
  before.fill(0xff, Control.EXITCODE, Control.EXITCODE + 8);
  before.fill(0, Control.EXITINTINFO, Control.EXITINTINFO + 8);
  assertEquals(after, before, name);
  assertEquals(bench.state.get32(S.gif), 0, name);
  assertEquals(hostState(), host, name);
}

/** VMRUN accepts it: whatever the guest exits with then, it is not that the block is illegal. */
function accepted(name: string, change: () => void, mode: "long" | "protected" = "long"): void {
  bench.guest(mode);
  bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
  change();
  assertNotEquals(bench.enter("f4"), "invalid", name);
  assertNotEquals(bench.control64(Control.EXITCODE), 0n, name);
}

/** Names of the bits of a register, for messages. */
const bits = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, k) => from + k);

Deno.test("EFER: SVME is needed, and no bit that does not exist", () => {
  refused("SVME", () => bench.clearControl64(Save.EFER, Efer.SVME));
  const known = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME | Efer.FFXSR | Efer.TCE;
  for (const bit of bits(0, 63)) {
    const mask = 1n << BigInt(bit);
    const change = (): void => bench.orControl64(Save.EFER, mask);
    if ((BigInt(known) & mask) === 0n) refused(`EFER bit ${bit}`, change);
    else accepted(`EFER bit ${bit}`, change);
  }
});

Deno.test("long mode needs PAE and protection, and its code is not both 64-bit and 32-bit", () => {
  refused("without PAE", () => bench.clearControl64(Save.CR4, Cr4.PAE));
  refused("without PE", () => bench.clearControl64(Save.CR0, Cr0.PE));
  const attributes = (value: number) => (): void =>
    bench.set16(bench.vmcb + Save.CS + SaveSegment.ATTRIBUTES, value);
  refused("CS.L and CS.D", attributes(0xe9b));
  accepted("CS.L alone", attributes(0xa9b));
  accepted("CS.D alone", attributes(0xc9b));
  const noPaging = (): void => {
    bench.clearControl64(Save.CR0, Cr0.PG);
    bench.clearControl64(Save.EFER, Efer.LMA);
  };
  accepted("LME without paging", () => {
    noPaging();
    bench.clearControl64(Save.CR4, Cr4.PAE);
    attributes(0xc9b)();
  });
  accepted("CS.L and CS.D without long mode", () => {
    bench.clearControl64(Save.EFER, Efer.LME | Efer.LMA);
    noPaging();
    attributes(0xe9b)();
  });
});

Deno.test("CR0: NW only with CD, nothing above bit 31", () => {
  refused("NW", () => bench.orControl64(Save.CR0, Cr0.NW));
  accepted("CD", () => bench.orControl64(Save.CR0, Cr0.CD));
  accepted("CD and NW", () => bench.orControl64(Save.CR0, Cr0.CD | Cr0.NW));
  for (const bit of bits(32, 63)) {
    refused(`CR0 bit ${bit}`, () => bench.orControl64(Save.CR0, 1n << BigInt(bit)));
  }
});

Deno.test("CR3 and CR4: no reserved bits", () => {
  for (const bit of bits(Number(PHYSICAL_BITS), 63)) {
    refused(`CR3 bit ${bit}`, () => bench.orControl64(Save.CR3, 1n << BigInt(bit)));
  }
  accepted("CR3 bit 47", () => bench.orControl64(Save.CR3, 1n << 47n));
  // Bits beyond physical memory are as reserved in the legacy modes, paging on or off.
  const legacy = (bit: number, paging: number): void => {
    bench.setControl64(Save.CR0, BigInt(Cr0.PE | paging) & 0xffff_ffffn);
    bench.setControl64(Save.EFER, BigInt(Efer.SVME));
    bench.orControl64(Save.CR3, 1n << BigInt(bit));
  };
  for (const bit of bits(Number(PHYSICAL_BITS), 63)) {
    refused(`CR3 bit ${bit} without paging`, () => legacy(bit, 0));
    refused(`CR3 bit ${bit} in legacy paging`, () => legacy(bit, Cr0.PG));
  }
  accepted("CR3 bit 47 without paging", () => legacy(47, 0));
  const known = Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR |
    Cr4.OSXMMEXCPT | Cr4.UMIP | Cr4.FSGSBASE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP | Cr4.OSXSAVE |
    Cr4.PKE | Cr4.LA57;
  // Bits that later extensions of the processor may define are left out: VME, PVI, CET.
  const open = Cr4.VME | Cr4.PVI | 0x80_0000;
  for (const bit of bits(0, 63)) {
    const mask = 1n << BigInt(bit);
    const change = (): void => bench.orControl64(Save.CR4, mask);
    if ((BigInt(known) & mask) !== 0n) accepted(`CR4 bit ${bit}`, change);
    else if ((BigInt(open) & mask) === 0n) refused(`CR4 bit ${bit}`, change);
  }
});

Deno.test("DR6 and DR7: nothing above bit 31", () => {
  for (const [name, offset] of [["DR6", Save.DR6], ["DR7", Save.DR7]] as const) {
    for (const bit of bits(32, 63)) {
      refused(`${name} bit ${bit}`, () => bench.orControl64(offset, 1n << BigInt(bit)));
    }
    accepted(`${name} bit 31`, () => bench.orControl64(offset, 1n << 31n));
  }
});

Deno.test("the VMRUN intercept, an ASID, and permission maps in reach", () => {
  refused("VMRUN intercept", () => bench.setControl32(InterceptWord.MISC2, ~Misc2.VMRUN));
  refused("ASID 0", () => bench.setControl32(Control.ASID, 0));
  accepted("the last ASID", () => bench.setControl32(Control.ASID, 0x7fff));
  const end = 1n << PHYSICAL_BITS;
  for (
    const [name, offset, size] of [
      // The IOPM is 64 Kbit and a few more. A table may not extend to the limit either (15.5.1).
      ["IOPM", Control.IOPM_BASE_PA, 0x3000n],
      ["MSRPM", Control.MSRPM_BASE_PA, 0x3000n],
    ] as const
  ) {
    accepted(`${name} at its last place`, () => bench.setControl64(offset, end - size));
    accepted(`${name}, low bits`, () => bench.setControl64(offset, end - size + 0xfffn));
    refused(`${name} beyond`, () => bench.setControl64(offset, end - size + 0x1000n));
    refused(`${name} far beyond`, () => bench.setControl64(offset, 1n << 63n));
  }
});

/** Exceptions that exist on a processor without shadow stacks and SEV-ES. */
const EXCEPTIONS: ReadonlySet<number> = new Set(
  [0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21, 28, 30],
);

Deno.test("EVENTINJ: types and vectors that exist", () => {
  for (let type = 0; type < 8; type++) {
    const exists = [0, 2, 3, 4].includes(type);
    const change = (): void => bench.inject(EventFormat.VALID | (type << 8) | 13);
    if (exists) accepted(`type ${type}`, change);
    else {
      refused(`type ${type}`, change);
      accepted(`type ${type}, not valid`, () => bench.inject((type << 8) | 13));
    }
  }
  for (let vector = 0; vector < 256; vector++) {
    const event = EventFormat.VALID | EventFormat.EXCEPTION | vector;
    const change = (): void => bench.inject(event);
    // INTO and BOUND do not exist in 64-bit mode.
    const impossible = vector === 4 || vector === 5;
    if (EXCEPTIONS.has(vector) && !impossible) accepted(`exception ${vector}`, change);
    else refused(`exception ${vector}`, change);
    if (impossible) accepted(`exception ${vector} in 32-bit code`, change, "protected");
    accepted(`interrupt ${vector}`, () => bench.inject(EventFormat.VALID | vector));
    accepted(
      `software interrupt ${vector}`,
      () => bench.inject(EventFormat.VALID | EventFormat.SOFTWARE | vector),
    );
  }
});

Deno.test("nested paging: N_CR3 and G_PAT, and only with a host that pages", () => {
  accepted("nested paging", () => bench.nested());
  for (const bit of bits(Number(PHYSICAL_BITS), 63)) {
    const change = (): void => bench.orControl64(Control.N_CR3, 1n << BigInt(bit));
    refused(`N_CR3 bit ${bit}`, () => {
      bench.nested();
      change();
    });
    accepted(`N_CR3 bit ${bit}, nested paging off`, change);
  }
  for (let field = 0; field < 8; field++) {
    for (const type of [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x84]) {
      const pat = BigInt(type) << BigInt(8 * field);
      const change = (): void => bench.setControl64(Save.G_PAT, pat);
      const withNested = (): void => {
        bench.nested();
        change();
      };
      if ([0, 1, 4, 5, 6, 7].includes(type)) accepted(`PAT ${field} ${type}`, withNested);
      else refused(`PAT ${field} ${type}`, withNested);
      accepted(`PAT ${field} ${type}, nested paging off`, change);
    }
  }
});

Deno.test("a host without paging cannot have nested paging", () => {
  for (const nested of [false, true]) {
    bench.guest();
    if (nested) bench.nested();
    bench.protect();
    const { state } = bench;
    state.set(S.efer, BigInt(Efer.SVME));
    bench.processor.refresh();
    assertEquals(bench.enter("f4"), nested ? "invalid" : "78");
  }
});

/** PAE paging without long mode, with the guest's page directory for the first GiB. */
function paeGuest(mode: "protected" | "real"): number {
  bench.guest(mode);
  const pdpt = SvmPlace.GUEST_TABLES + 0x1fe0;
  for (let k = 0; k < 4; k++) bench.set64(pdpt + 8 * k, 0n);
  bench.set64(pdpt, BigInt(SvmPlace.GUEST_TABLES + 0x2000) | 1n);
  bench.setControl64(Save.CR3, pdpt);
  bench.orControl64(Save.CR4, Cr4.PAE);
  bench.orControl64(Save.CR0, BigInt(Cr0.PG));
  return pdpt;
}

Deno.test("PAE entries are read by VMRUN without nested paging, and bad ones refused", () => {
  for (const index of [0, 1, 2, 3]) {
    for (const bit of bits(0, 63)) {
      const pdpt = paeGuest("protected");
      const at = pdpt + 8 * index;
      bench.set64(at, bench.get64(at) | 1n | (1n << BigInt(bit)));
      const reserved = [1, 2, 5, 6, 7, 8].includes(bit) || bit >= Number(PHYSICAL_BITS);
      const exit = bench.enter("f4");
      if (reserved) assertEquals(exit, "invalid", `PDPTE ${index} bit ${bit}`);
      else assertNotEquals(exit, "invalid", `PDPTE ${index} bit ${bit}`);
      // With nested paging they are read when they are used.
      bench.guest("protected");
      const again = paeGuest("protected");
      bench.nested();
      bench.set64(again + 8 * index, bench.get64(again + 8 * index) | 1n | (1n << BigInt(bit)));
      assertNotEquals(bench.enter("f4"), "invalid", `nested, PDPTE ${index} bit ${bit}`);
    }
    // An entry that is not present may hold anything.
    const pdpt = paeGuest("protected");
    bench.set64(pdpt + 8 * (index || 1), ~1n & 0xffff_ffff_ffff_ffffn);
    assertEquals(bench.enter("f4"), "78");
  }
});

Deno.test("real mode with paging is legal", () => {
  paeGuest("real");
  bench.setControl64(Save.RIP, 0);
  // mov byte [0], 42h; hlt
  assertEquals(bench.enter("c6 06 00 00 42 f4"), "78");
  assertEquals(bench.read(SvmPlace.GUEST_DATA, 1)[0], 0x42);
});

Deno.test("a RIP that cannot be is a #GP in the guest", () => {
  for (
    const [mode, rip] of [
      ["long", 0x8000_0000_0000n],
      ["long", 1n << 63n],
      ["protected", 0x1_0000_0000n],
    ] as const
  ) {
    bench.guest(mode);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
    bench.setControl64(Save.RIP, rip);
    assertEquals(bench.resume(), "4d", `${rip.toString(16)}`);
    assertEquals(bench.control64(Save.RIP), rip);
    assertEquals(bench.info[0], 0n);
  }
  bench.guest("protected");
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
  bench.setControl32(Save.CS + SaveSegment.LIMIT, SvmPlace.GUEST_CODE);
  assertEquals(bench.enter("90 f4"), "4d");
  assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 1));
});

// World switch.

Deno.test("the guest's state is loaded, and saved as it was", () => {
  bench.guest();
  const values: readonly (readonly [number, bigint])[] = [
    [Save.RAX, 0x0123_4567_89ab_cdefn],
    [Save.RSP, 0xffff_8000_1234_5678n],
    [Save.RFLAGS, 0x4_4cd7n],
    [Save.CR2, 0xdead_beef_0000_1111n],
    [Save.DR6, 0xffff_0ff5n],
    [Save.DR7, 0xf000_0400n],
    [Save.CR4, BigInt(Cr4.PAE | Cr4.PGE | Cr4.DE | Cr4.TSD)],
    [Save.EFER, BigInt(Efer.LME | Efer.LMA | Efer.SVME | Efer.SCE | Efer.TCE)],
  ];
  for (const [offset, value] of values) bench.setControl64(offset, value);
  bench.setSegment(Save.ES, 0x1111, 0x3f3, 0x1234_5678, 0x1000n);
  bench.setSegment(Save.SS, 0x2222, 0xc93, 0x2345_6789, 0x2000n);
  bench.setSegment(Save.DS, 0x3333, 0, 0x3456_789a, 0x3000n);
  bench.setSegment(Save.GDTR, 0, 0, 0x123, 0xffff_8000_0000_1000n);
  bench.setSegment(Save.IDTR, 0, 0, 0x234, 0xffff_8000_0000_2000n);
  bench.setControl32(Control.INT_CONTROL, 5);
  // EFER.LME without NXE: no page may have NX; then CPUID exits.
  bench.setControl32(InterceptWord.MISC1, Misc1.CPUID);
  const before = bench.block;
  assertEquals(bench.enter("0f a2"), "72");
  const after = bench.block;
  assertEquals(after.subarray(0x400), before.subarray(0x400));
  assertEquals(bench.control32(Control.INT_CONTROL), 5);
});

Deno.test("the guest sees what VMRUN loads", () => {
  // mov rcx, cr2; mov rdx, cr3; mov rbx, dr7; mov rsi, dr6; pushfq; pop rdi; mov r8, rax; mov r9, rsp
  const code = "0f 20 d1 0f 20 da 0f 21 fb 0f 21 f6 9c 5f 49 89 c0 49 89 e1 66 8c da f4";
  bench.guest();
  bench.setControl64(Save.CR2, 0x1234_5678n);
  bench.setControl64(Save.DR7, 0x1400n);
  bench.setControl64(Save.DR6, 0xffff_0ff1n);
  bench.setControl64(Save.RFLAGS, 0x8d7n);
  bench.setControl64(Save.RAX, 0xabcdn);
  assertEquals(bench.enter(code), "78");
  const { state } = bench;
  assertEquals(state.register(1), 0x1234_5678n);
  assertEquals(state.register(3), 0x400n);
  assertEquals(state.register(6), 0xffff_0ff1n);
  assertEquals(state.register(7), 0x8d7n);
  assertEquals(state.register(8), 0xabcdn);
  assertEquals(state.register(9), BigInt(SvmPlace.GUEST_STACK));
});

Deno.test("bits that do not exist do not come through, and LMA follows from LME and PG", () => {
  const exists = 0xe005_003fn;
  bench.guest();
  bench.setControl64(Save.CR0, (bench.control64(Save.CR0) | (0xffff_ffffn & ~exists)) & ~0x10n);
  bench.setControl64(Save.DR6, 0n);
  bench.setControl64(Save.DR7, 0xffff_ffffn & ~0xffn);
  // mov rbx, cr0; mov rsi, dr6
  assertEquals(bench.enter("0f 20 c3 f4"), "78");
  assertEquals(bench.state.register(3) & ~exists, 0n);
  assertEquals(bench.state.register(3) & 0x10n, 0x10n);
  assertEquals(bench.control64(Save.CR0), bench.state.register(3));
  assertEquals(bench.control64(Save.DR6), 0xffff_0ff0n);
  assertEquals(bench.control64(Save.DR7), 0xffff_2700n);
  for (const [mode, lma] of [["long", true], ["protected", false]] as const) {
    bench.guest(mode);
    if (lma) bench.clearControl64(Save.EFER, Efer.LMA);
    else bench.orControl64(Save.EFER, Efer.LMA);
    assertEquals(bench.enter("f4"), "78");
    assertEquals(bench.control64(Save.EFER) & BigInt(Efer.LMA), lma ? BigInt(Efer.LMA) : 0n, mode);
  }
});

Deno.test("what VMRUN does not load stays the host's", () => {
  bench.guest();
  const { state } = bench;
  for (const n of [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]) {
    state.setRegister(n, BigInt(n) * 0x1_0001n);
  }
  bench.processor.writeMsr(Msr.LSTAR, 0x1234n);
  bench.processor.writeMsr(Msr.KERNEL_GS_BASE, 0x5678n);
  state.setSegment(Seg.FS, { selector: 0x77, attributes: 0xc93, limit: 0xffff_ffff, base: 0x42n });
  bench.setControl64(Save.LSTAR, 0x9999n);
  bench.setControl64(Save.FS + SaveSegment.BASE, 0x9999n);
  // mov rcx, C0000082h; rdmsr: RDX:RAX is the host's LSTAR; mov bx, fs
  assertEquals(bench.enter("b9 82 00 00 c0 0f 32 8c e3 f4"), "78");
  assertEquals(bench.control64(Save.RAX), 0x1234n);
  assertEquals(state.register(3) & 0xffffn, 0x77n);
  assertEquals(state.get(S.lstar), 0x1234n);
  assertEquals(state.get(S.kernelGsBase), 0x5678n);
  assertEquals(state.register(15), 15n * 0x1_0001n);
  assertEquals(bench.control64(Save.LSTAR), 0x9999n);
});

Deno.test("#VMEXIT brings back the host, with GIF clear and breakpoints off", () => {
  bench.guest();
  bench.state.set(S.dr7, 0x4ffn);
  bench.state.setAt(S.dr, 0xdead_0000n);
  bench.state.setRegister(4, 0xffff_8000_0000_1234n);
  bench.flags = 0xcd7;
  bench.processor.refresh();
  const host = hostState();
  assertEquals(bench.enter("f4"), "78");
  assertEquals(hostState(), host);
  assertEquals(bench.state.get(S.dr7), 0x400n);
  assertEquals(bench.state.at(S.dr), 0xdead_0000n);
  assertEquals(bench.state.get32(S.gif), 0);
  assertEquals(bench.state.register(0), BigInt(SvmPlace.VMCB));
});

Deno.test("bases are made canonical on the way in", () => {
  for (const [on, expected] of CANONICAL) {
    on.guest();
    for (const offset of [Save.ES, Save.SS, Save.DS]) {
      on.setControl64(offset + SaveSegment.BASE, BASE);
    }
    assertEquals(on.enter("f4"), "78");
    for (const offset of [Save.ES, Save.SS, Save.DS]) {
      assertEquals(on.control64(offset + SaveSegment.BASE), expected);
    }
  }
});

Deno.test("VMLOAD makes bases canonical, that of SWAPGS too", () => {
  const bases = [Save.FS, Save.GS, Save.LDTR, Save.TR].map((at) => at + SaveSegment.BASE);
  const fields = [...bases, Save.KERNEL_GS_BASE];
  for (const [on, expected] of CANONICAL) {
    on.guest();
    for (const offset of fields) on.setControl64(offset, BASE);
    on.write(Place.CODE, hex("0f 01 da 0f 01 db f4")); // vmload; vmsave; hlt
    on.state.setRegister(0, BigInt(on.vmcb));
    on.run(10);
    for (const offset of fields) {
      assertEquals(on.control64(offset), expected, offset.toString(16));
    }
  }
});

Deno.test("CPL is forced in real and virtual-8086 mode, and the field's elsewhere", () => {
  for (const [mode, wanted] of [["real", 0], ["v86", 3]] as const) {
    bench.guest(mode);
    bench.write(bench.vmcb + Save.CPL, [mode === "real" ? 3 : 0]);
    bench.setControl32(InterceptWord.MISC1, Misc1.CPUID);
    assertEquals(bench.enter("0f a2"), "72");
    assertEquals(bench.read(bench.vmcb + Save.CPL, 1)[0], wanted, mode);
  }
  for (const cpl of [0, 1, 2, 3]) {
    bench.guest("protected");
    bench.write(bench.vmcb + Save.CPL, [cpl]);
    bench.setControl32(InterceptWord.MISC1, Misc1.CPUID);
    assertEquals(bench.enter("0f a2"), "72");
    assertEquals(bench.read(bench.vmcb + Save.CPL, 1)[0], cpl);
  }
});

Deno.test("a host in PAE mode gets its page-directory pointers back", () => {
  const pdpt = Place.TABLES + 0x3000;
  bench.guest();
  const guestPdpt = paeGuest("protected");
  for (let k = 0; k < 4; k++) bench.set64(pdpt + 8 * k, 0n);
  bench.set64(pdpt, BigInt(Place.TABLES + 0x2000) | 1n);
  // The second GiB is the first again, for the host alone.
  bench.set64(pdpt + 8, BigInt(Place.TABLES + 0x2000) | 1n);
  assertEquals(bench.get64(guestPdpt + 8), 0n);
  bench.protect(0, { cr3: pdpt, cr4: Cr4.PAE, efer: Efer.SVME });
  // vmrun; mov al, [4002_0000h]; hlt
  bench.write(Place.DATA, [0x5a]);
  bench.write(SvmPlace.GUEST_CODE, [0xf4]);
  bench.write(Place.CODE, hex("0f 01 d8 a0 00 00 02 40 f4"));
  bench.state.setRegister(0, BigInt(bench.vmcb));
  const { events } = bench.run(20);
  assertEquals(events, []);
  assertEquals(bench.control64(Control.EXITCODE), 0x78n);
  assertEquals(bench.state.register(0) & 0xffn, 0x5an);
});

Deno.test("host TF traps behind VMRUN, guest TF behind its first instruction", () => {
  bench.guest();
  bench.handlers(64);
  bench.flags = 0x302;
  bench.enter("90 f4");
  // The trap is taken behind VMRUN, and its handler is one HLT.
  assertEquals(bench.control64(Control.EXITCODE), 0x78n);
  assertEquals(bench.state.get(S.rip), BigInt(bench.handler(1) + 1));
  const frame = Number(bench.state.register(4));
  assertEquals(bench.get64(frame), BigInt(Place.CODE + 3));

  bench.guest();
  bench.setControl32(InterceptWord.EXCEPTIONS, 2);
  bench.orControl64(Save.RFLAGS, 0x100);
  assertEquals(bench.enter("90 90 f4"), "41");
  assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 1));
  assertEquals(bench.control64(Save.DR6), 0xffff_4ff0n);
});

Deno.test("selectors of the bench stay what the guest was given", () => {
  bench.guest("long", 3);
  assertEquals(bench.enter("66 8c c8 f4"), "7f");
  assertEquals(bench.get16(bench.vmcb + Save.CS), Sel.CODE64 + 0x28 * 3 + 3);
});

Deno.test("a breakpoint on VMRUN is the host's, and RF holds it off and is cleared", () => {
  for (const rf of [0, 0x1_0000]) {
    bench.guest();
    bench.handlers(64);
    bench.state.setAt(S.dr, BigInt(Place.CODE));
    bench.state.set(S.dr7, 0x401n);
    bench.processor.refresh();
    bench.flags = 0x202 | rf;
    bench.setControl32(InterceptWord.EXCEPTIONS, 2);
    const exit = bench.enter("90 f4");
    if (rf === 0) {
      assertEquals(bench.state.get(S.rip), BigInt(bench.handler(1) + 1));
      assertEquals(bench.get64(Number(bench.state.register(4))), BigInt(Place.CODE));
      assertEquals(bench.control64(Control.EXITCODE), 0n);
    } else {
      assertEquals(exit, "78");
      assertEquals(bench.flags & 0x1_0000, 0);
    }
    // DR0 is not switched, DR7 is: the guest's own says whether it counts.
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 2);
    bench.setControl64(Save.DR7, 0x401n);
    bench.state.setAt(S.dr, BigInt(SvmPlace.GUEST_CODE + 1));
    bench.orControl64(Save.RFLAGS, rf);
    assertEquals(bench.enter("90 90 f4"), "41");
    assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 1));
    assertEquals(bench.control64(Save.DR6), 0xffff_0ff1n);
    // RF of the control block holds for the first instruction.
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 2);
    bench.setControl64(Save.DR7, 0x401n);
    bench.state.setAt(S.dr, BigInt(SvmPlace.GUEST_CODE));
    bench.orControl64(Save.RFLAGS, rf);
    assertEquals(bench.enter("90 90 f4"), rf === 0 ? "41" : "78");
    assertEquals(bench.control64(Save.RFLAGS) & 0x1_0000n, 0n);
  }
});
