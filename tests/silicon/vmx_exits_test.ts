/**
 * What makes a guest exit, and what the exit tells: reason, qualification, instruction length and
 * information, and that the guest is where it was before the instruction (SDM vol. 3, ch. 26 and 28).
 */
import { assertEquals } from "@std/assert";
import {
  Cr0,
  Cr4,
  EntryControl,
  ExitControl,
  Msr,
  Primary,
  Rflags,
  S,
  Secondary,
  SHADOW_VMCS,
  Vmcs,
  VMCS_REVISION,
} from "../../plugins/cpu/mod.ts";
import { descriptor, gate, Place, Sel } from "./bench.ts";
import { code, dword, hex, word } from "./code.ts";
import { At, exitText, type Fields, standardFields, UNPAGED, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab("sapphire-rapids", { monitor: true });
const { bench } = lab;
const standard = standardFields();

const primary = (bits: number, more: Fields = {}): Fields => ({
  [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) | BigInt(bits >>> 0),
  ...more,
});
const secondary = (bits: number, more: Fields = {}): Fields => ({
  ...primary(Primary.SECONDARY, { [Vmcs.SECONDARY_CONTROLS]: bits >>> 0 }),
  ...more,
});

/** Runs guest code with RAX, RBX, RCX, RDX set; the exit as text. */
function run(
  bytes: string | readonly number[],
  fields: Fields,
  registers: Readonly<Record<number, bigint>> = {},
): string {
  lab.start();
  bench.write(At.GUEST, [...code(bytes), 0xf4]);
  lab.prepare(fields);
  for (const [n, value] of Object.entries(registers)) bench.state.setRegister(Number(n), value);
  return exitText(lab.enter());
}

/** Guest RIP relative to its start, the instruction's length and its information, of the last exit. */
function where(): [rip: number, length: number] {
  return [
    Number(lab.read(Vmcs.GUEST_RIP)) - At.GUEST,
    Number(lab.read(Vmcs.EXIT_INSTRUCTION_LENGTH)),
  ];
}

const OK = "HLT";
const TABLES = Secondary.DESCRIPTOR_TABLES;

/** Instruction, what makes it exit, the exit then, and what it comes to otherwise. */
const INSTRUCTIONS: readonly (readonly [string, string, Fields, string, string])[] = [
  ["CPUID", "0f a2", {}, "CPUID", "CPUID"],
  ["HLT", "f4", {}, "HLT", "HLT"],
  ["INVD", "0f 08", {}, "INVD", "INVD"],
  ["WBINVD", "0f 09", secondary(Secondary.WBINVD), "WBINVD", OK],
  ["WBNOINVD", "f3 0f 09", secondary(Secondary.WBINVD), "WBINVD", OK],
  ["MONITOR", "0f 01 c8", primary(Primary.MONITOR), "MONITOR", "TRIPLE_FAULT"],
  ["MWAIT", "0f 01 c9", primary(Primary.MWAIT), "MWAIT", "TRIPLE_FAULT"],
  ["RDRAND", "0f c7 f1", secondary(Secondary.RDRAND), "RDRAND", OK],
  ["RDSEED", "0f c7 f9", secondary(Secondary.RDSEED), "RDSEED", OK],
  [
    "INVPCID",
    "66 0f 38 82 43 08",
    secondary(Secondary.INVPCID, primary(Primary.SECONDARY | Primary.INVLPG)),
    "INVPCID 8",
    "TRIPLE_FAULT",
  ],
  ["INVLPG [rbx]", "0f 01 3b", primary(Primary.INVLPG), `INVLPG ${At.DATA.toString(16)}`, OK],
  [
    "INVLPG fs:[rbx]",
    "64 0f 01 3b",
    primary(Primary.INVLPG, { [Vmcs.GUEST_FS_BASE]: 0x1000 }),
    `INVLPG ${(At.DATA + 0x1000).toString(16)}`,
    OK,
  ],
  ["RDTSC", "0f 31", primary(Primary.RDTSC), "RDTSC", OK],
  [
    "RDTSCP",
    "0f 01 f9",
    secondary(Secondary.RDTSCP, primary(Primary.SECONDARY | Primary.RDTSC)),
    "RDTSCP",
    "TRIPLE_FAULT",
  ],
  ["PAUSE", "f3 90", primary(Primary.PAUSE), "PAUSE", OK],
  ["VMCALL", "0f 01 c1", {}, "VMCALL", "VMCALL"],
  ["VMLAUNCH", "0f 01 c2", {}, "VMLAUNCH", "VMLAUNCH"],
  ["VMRESUME", "0f 01 c3", {}, "VMRESUME", "VMRESUME"],
  ["VMXOFF", "0f 01 c4", {}, "VMXOFF", "VMXOFF"],
  ["VMCLEAR", "66 0f c7 73 10", {}, "VMCLEAR 10", "VMCLEAR 10"],
  ["VMPTRLD", "0f c7 73 20", {}, "VMPTRLD 20", "VMPTRLD 20"],
  ["VMPTRST", "0f c7 7b f0", {}, "VMPTRST fffffffffffffff0", "VMPTRST fffffffffffffff0"],
  ["VMXON", "f3 0f c7 b3 00 10 00 00", {}, "VMXON 1000", "VMXON 1000"],
  ["VMREAD", "0f 78 c3", {}, "VMREAD", "VMREAD"],
  ["VMWRITE", "0f 79 c3", {}, "VMWRITE", "VMWRITE"],
  ["INVEPT", "66 0f 38 80 03", {}, "INVEPT", "INVEPT"],
  ["INVVPID", "66 0f 38 81 43 08", {}, "INVVPID 8", "INVVPID 8"],
  ["SGDT", "0f 01 43 08", secondary(TABLES), "GDTR_IDTR 8", OK],
  ["SIDT", "0f 01 0b", secondary(TABLES), "GDTR_IDTR", OK],
  ["LGDT", "0f 01 13", secondary(TABLES), "GDTR_IDTR", OK],
  ["LIDT", "0f 01 1b", secondary(TABLES), "GDTR_IDTR", OK],
  ["SLDT", "0f 00 03", secondary(TABLES), "LDTR_TR", OK],
  ["STR eax", "0f 00 c8", secondary(TABLES), "LDTR_TR", OK],
  ["LLDT [rbx+8]", "0f 00 53 08", secondary(TABLES), "LDTR_TR 8", OK],
  ["RDMSR", "0f 32", {}, "RDMSR", "RDMSR"],
  ["WRMSR", "0f 30", {}, "WRMSR", "WRMSR"],
  ["MOV DR", "0f 21 f8", primary(Primary.MOV_DR), "DR_ACCESS 17", OK],
  ["MOV DR", "0f 23 c3", primary(Primary.MOV_DR), "DR_ACCESS 300", OK],
  ["MOV CR3", "0f 22 db", primary(Primary.CR3_LOAD), "CR_ACCESS 303", OK],
  ["MOV r9,CR3", "41 0f 20 d9", primary(Primary.CR3_STORE), "CR_ACCESS 913", OK],
  ["MOV CR8", "44 0f 22 c3", primary(Primary.CR8_LOAD), "CR_ACCESS 308", OK],
  ["MOV rdx,CR8", "44 0f 20 c2", primary(Primary.CR8_STORE), "CR_ACCESS 218", OK],
];

Deno.test("instructions that exit, with and without the control that asks for it", () => {
  const wrong: string[] = [];
  for (const [name, bytes, fields, exit, otherwise] of INSTRUCTIONS) {
    bench.fill(At.DATA, 0x100, 0);
    // LGDT and LIDT load what is there already; 2 bytes of limit, 8 of base.
    bench.set16(At.DATA, 0xfff);
    bench.set64(At.DATA + 2, BigInt(Place.GDT));
    // CR3 as it is; an MSR that exists; a DR0.
    const registers = {
      0: 2n,
      1: BigInt(Msr.STAR),
      2: 0n,
      3: name.startsWith("MOV") ? BigInt(Place.TABLES) : BigInt(At.DATA),
    };
    if (name === "MOV CR8") registers[3] = 0n;
    const is = run(`90 ${bytes}`, fields, registers);
    if (is !== exit) wrong.push(`${name}: ${is}, not ${exit}`);
    for (const [n, value] of Object.entries(registers)) {
      if (bench.state.register(Number(n)) !== value) wrong.push(`${name}: register ${n} changed`);
    }
    const [rip, length] = where();
    if (rip !== 1 || length !== hex(bytes).length) {
      wrong.push(`${name}: at ${rip}, length ${length}`);
    }
    const free = run(`90 ${bytes}`, {}, registers);
    if (free !== otherwise) wrong.push(`${name} without: ${free}, not ${otherwise}`);
  }
  assertEquals(wrong.join("\n"), "");
});

Deno.test("privilege and mode come before the exit, for VMCALL and CPUID not", () => {
  const user: Fields = {
    [Vmcs.GUEST_CS_ACCESS_RIGHTS]: 0xa0fb,
    [Vmcs.GUEST_CS_SELECTOR]: Sel.CODE64 + 0x78 + 3,
    [Vmcs.GUEST_SS_ACCESS_RIGHTS]: 0xc0f3,
    [Vmcs.GUEST_SS_SELECTOR]: Sel.DATA + 0x78 + 3,
    [Vmcs.EXCEPTION_BITMAP]: 0x2000,
  };
  const outcomes: Readonly<Record<string, string>> = {
    "0f a2": "CPUID",
    "0f 01 c1": "VMCALL",
    // VMX instructions of a guest exit whatever its privilege.
    "0f 01 c2": "VMLAUNCH",
    "0f c7 33": "VMPTRLD",
    "f4": "EXCEPTION_OR_NMI",
    "0f 08": "EXCEPTION_OR_NMI",
    "0f 32": "EXCEPTION_OR_NMI",
    "0f 20 d8": "EXCEPTION_OR_NMI",
    "0f 00 13": "EXCEPTION_OR_NMI",
  };
  for (const [bytes, expected] of Object.entries(outcomes)) {
    assertEquals(run(bytes, user, { 3: BigInt(At.DATA) }), expected, bytes);
  }
  // MOV DR exits before its privilege is looked at.
  assertEquals(run("0f 21 f8", { ...user, ...primary(Primary.MOV_DR) }), "DR_ACCESS 17");
  assertEquals(run("0f 21 f8", user), "EXCEPTION_OR_NMI");
});

Deno.test("instruction information of memory operands", () => {
  const info = (bytes: string, fields: Fields = secondary(TABLES)): string => {
    run(bytes, fields, { 3: BigInt(At.DATA) });
    return lab.read(Vmcs.EXIT_INSTRUCTION_INFO).toString(16);
  };
  const field = (
    scale: number,
    size: number,
    segment: number,
    index: number | undefined,
    base: number | undefined,
    more = 0,
  ): string =>
    (BigInt(
      scale | (size << 7) | (segment << 15) | ((index ?? 0) << 18) | ((base ?? 0) << 23) | more |
        (index === undefined ? 1 << 22 : 0) | (base === undefined ? 1 << 27 : 0),
    ) & 0xffff_ffffn).toString(16);
  // vmclear [rbx]; [rbx+rcx*4]; [r12+r13*8+disp8]; fs:[rsp]; [disp32]; [ebx]
  assertEquals(info("66 0f c7 33"), field(0, 2, 3, undefined, 3));
  assertEquals(info("66 0f c7 34 8b"), field(2, 2, 3, 1, 3));
  assertEquals(info("66 43 0f c7 74 ec 08"), field(3, 2, 3, 13, 12));
  assertEquals(info("64 66 0f c7 34 24"), field(0, 2, 4, undefined, 4));
  assertEquals(info("66 0f c7 34 25 00 10 00 00"), field(0, 2, 3, undefined, undefined));
  assertEquals(info("67 66 0f c7 33"), field(0, 1, 3, undefined, 3));
  // Descriptor tables: 29:28 say which instruction.
  const identity = (k: number): number => k << 28;
  assertEquals(info("0f 01 03"), field(0, 2, 3, undefined, 3, identity(0)));
  assertEquals(info("0f 01 0b"), field(0, 2, 3, undefined, 3, identity(1)));
  assertEquals(info("0f 01 13"), field(0, 2, 3, undefined, 3, identity(2)));
  assertEquals(info("0f 01 1b"), field(0, 2, 3, undefined, 3, identity(3)));
  assertEquals(info("0f 00 03"), field(0, 2, 3, undefined, 3, identity(0)));
  assertEquals(info("0f 00 53 00"), field(0, 2, 3, undefined, 3, identity(2)));
  // A register: bit 10, its number in 6:3.
  assertEquals(info("0f 00 cb"), (0x400 | (3 << 3) | identity(1)).toString(16));
  // VMREAD and VMWRITE have a second register; so has INVEPT its type.
  assertEquals(info("44 0f 78 0b"), ((field2(3) | 0x9000_0000) >>> 0).toString(16));
  assertEquals(info("0f 79 c3"), (0x400 | (3 << 3)).toString(16));
  assertEquals(info("66 44 0f 38 80 13"), ((field2(3) | 0xa000_0000) >>> 0).toString(16));

  function field2(base: number): number {
    return (2 << 7) | (3 << 15) | (1 << 22) | (base << 23);
  }
});

Deno.test("RIP-relative operands: the displacement of the qualification is from the next instruction", () => {
  assertEquals(
    run("66 0f c7 35 00 01 00 00", {}),
    `VMCLEAR ${(At.GUEST + 8 + 0x100).toString(16)}`,
  );
});

Deno.test("MOV to CR0 and CR4: host-owned bits exit if they differ from the shadow", () => {
  const cr0 = BigInt(standard[Vmcs.GUEST_CR0]!);
  const owned: Fields = { [Vmcs.CR0_MASK]: Cr0.TS | Cr0.NE, [Vmcs.CR0_SHADOW]: Cr0.NE };
  const mov = (value: bigint, fields: Fields = owned): string =>
    run("0f 22 c3", fields, { 3: value });
  assertEquals(mov(cr0), OK);
  assertEquals(mov(cr0 | BigInt(Cr0.TS)), "CR_ACCESS 300");
  assertEquals(mov(cr0 & ~BigInt(Cr0.NE)), "CR_ACCESS 300");
  assertEquals(mov(cr0 | BigInt(Cr0.MP)), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR0), cr0 | BigInt(Cr0.MP));
  // The real TS is kept though the guest's idea of it is another.
  assertEquals(mov(cr0, { ...owned, [Vmcs.GUEST_CR0]: cr0 | BigInt(Cr0.TS) }), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR0), cr0 | BigInt(Cr0.TS));
  // What it reads: shadows where the host owns, the register elsewhere.
  assertEquals(
    run("0f 20 c3", { [Vmcs.CR0_MASK]: Cr0.TS | Cr0.WP, [Vmcs.CR0_SHADOW]: Cr0.TS }),
    OK,
  );
  assertEquals(bench.state.register(3), (cr0 | BigInt(Cr0.TS)) & ~BigInt(Cr0.WP));
  // SMSW ebx reads alike.
  assertEquals(run("0f 01 e3", { [Vmcs.CR0_MASK]: Cr0.TS, [Vmcs.CR0_SHADOW]: Cr0.TS }), OK);
  assertEquals(bench.state.register(3) & 0x3fn, (cr0 | BigInt(Cr0.TS)) & 0x3fn);

  const cr4 = BigInt(standard[Vmcs.GUEST_CR4]!);
  const hidden: Fields = { [Vmcs.CR4_MASK]: Cr4.VMXE, [Vmcs.CR4_SHADOW]: 0 };
  assertEquals(run("0f 20 e3", hidden), OK);
  assertEquals(bench.state.register(3), cr4 & ~BigInt(Cr4.VMXE));
  assertEquals(run("0f 22 e3", hidden, { 3: cr4 & ~BigInt(Cr4.VMXE) }), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR4), cr4);
  assertEquals(run("0f 22 e3", hidden, { 3: cr4 }), "CR_ACCESS 304");
  // A bit that no processor has: #GP, unless the host owns it.
  assertEquals(run("0f 22 e3", {}, { 3: cr4 | (1n << 31n) }), "TRIPLE_FAULT");
  assertEquals(
    run("0f 22 e3", { [Vmcs.CR4_MASK]: 1n << 31n }, { 3: cr4 | (1n << 31n) }),
    "CR_ACCESS 304",
  );
});

Deno.test("MOV to CR3: the CR3-target values do not exit", () => {
  const other = BigInt(At.SCRATCH + 0x4000);
  bench.write(At.SCRATCH + 0x4000, bench.read(Place.TABLES, 0x1000));
  const fields = primary(Primary.CR3_LOAD, {
    [Vmcs.CR3_TARGET_COUNT]: 2,
    [Vmcs.CR3_TARGET0]: Place.TABLES,
    [Vmcs.CR3_TARGET1]: other,
    [Vmcs.CR3_TARGET2]: other + 0x1000n,
  });
  assertEquals(run("0f 22 db", fields, { 3: BigInt(Place.TABLES) }), OK);
  assertEquals(run("0f 22 db", fields, { 3: other }), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR3), other);
  assertEquals(run("0f 22 db", fields, { 3: other + 0x1000n }), "CR_ACCESS 303");
});

Deno.test("CLTS and LMSW by mask and shadow", () => {
  const cr0 = BigInt(standard[Vmcs.GUEST_CR0]!) | BigInt(Cr0.TS);
  const ts = { [Vmcs.GUEST_CR0]: cr0 };
  assertEquals(run("0f 06", ts), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR0), cr0 & ~BigInt(Cr0.TS));
  assertEquals(
    run("0f 06", { ...ts, [Vmcs.CR0_MASK]: Cr0.TS, [Vmcs.CR0_SHADOW]: Cr0.TS }),
    "CR_ACCESS 20",
  );
  assertEquals(run("0f 06", { ...ts, [Vmcs.CR0_MASK]: Cr0.TS }), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR0), cr0);
  // lmsw bx
  const lmsw = (value: bigint, mask: number, shadow: number): string =>
    run("0f 01 f3", { ...ts, [Vmcs.CR0_MASK]: mask, [Vmcs.CR0_SHADOW]: shadow }, { 3: value });
  assertEquals(lmsw(0x3n, 0, 0), OK);
  assertEquals(lab.read(Vmcs.GUEST_CR0) & 0xfn, 0x3n);
  assertEquals(lmsw(0x9n, Cr0.TS, 0), "CR_ACCESS 90030");
  assertEquals(lmsw(0x1n, Cr0.PE, 0), "CR_ACCESS 10030");
  // PE is not cleared by LMSW, so it does not exit for that.
  assertEquals(lmsw(0x0n, Cr0.PE, Cr0.PE), OK);
  // lmsw [rbx]: bit 6, and the address.
  bench.set16(At.DATA, 8);
  const memory = { ...ts, [Vmcs.CR0_MASK]: Cr0.TS };
  assertEquals(run("0f 01 33", memory, { 3: BigInt(At.DATA) }), "CR_ACCESS 80070");
  assertEquals(lab.read(Vmcs.GUEST_LINEAR_ADDRESS), BigInt(At.DATA));
});

Deno.test("I/O: unconditional exits, bitmaps, qualifications", () => {
  const all = primary(Primary.UNCONDITIONAL_IO);
  const table: readonly (readonly [string, string])[] = [
    ["e4 80", "IO 800048"],
    ["e5 80", "IO 80004b"],
    ["e6 80", "IO 800040"],
    ["e7 80", "IO 800043"],
    ["ec", "IO 12340008"],
    ["66 ed", "IO 12340009"],
    ["ee", "IO 12340000"],
    ["ef", "IO 12340003"],
    ["6c", "IO 12340018"],
    ["f3 6d", "IO 1234003b"],
    ["6e", "IO 12340010"],
    ["f3 66 6f", "IO 12340031"],
  ];
  const registers = { 1: 4n, 2: 0x1234n, 6: BigInt(At.DATA), 7: BigInt(At.DATA + 0x100) };
  for (const [bytes, expected] of table) {
    assertEquals(run(bytes, all, registers), expected, bytes);
    assertEquals(where(), [0, hex(bytes).length]);
    const string = /6[c-f]$/.test(bytes.slice(-2));
    if (!string) continue;
    const read = /6[cd]$/.test(bytes);
    assertEquals(lab.read(Vmcs.GUEST_LINEAR_ADDRESS), BigInt(read ? At.DATA + 0x100 : At.DATA));
    assertEquals(lab.read(Vmcs.EXIT_INSTRUCTION_INFO), BigInt((2 << 7) | ((read ? 0 : 3) << 15)));
  }
  // Bitmaps: one bit a port; the second page from 8000h on; any port of the access counts.
  const bitmaps = primary(Primary.IO_BITMAPS | Primary.UNCONDITIONAL_IO, {
    [Vmcs.IO_BITMAP_A]: At.SCRATCH,
    [Vmcs.IO_BITMAP_B]: At.SCRATCH + 0x1000,
  });
  const seen: string[] = [];
  bench.outside.portRead = (port, bytes) => {
    seen.push(`${port.toString(16)}:${bytes}`);
    return 0;
  };
  const probe = (bit: number, port: number, bytes: string): string => {
    bench.fill(At.SCRATCH, 0x2000, 0);
    if (bit >= 0) bench.write(At.SCRATCH + (bit >> 3), [1 << (bit & 7)]);
    return run(bytes, bitmaps, { 2: BigInt(port) });
  };
  for (const port of [0, 7, 0x3f8, 0x7fff, 0x8000, 0xffff]) {
    assertEquals(
      probe(port, port, "ec"),
      `IO ${port === 0 ? "8" : ((port * 0x1_0000) + 8).toString(16)}`,
    );
    assertEquals(probe(port ^ 1, port, "ec"), OK);
  }
  for (let k = 0; k < 4; k++) {
    assertEquals(probe(0x7ffe + k, 0x7ffe, "ed"), "IO 7ffe000b");
    assertEquals(probe(0x1000 + k, 0x1000, "66 ed"), k < 2 ? "IO 10000009" : OK);
  }
  // An access that wraps around exits whatever the bitmaps say.
  assertEquals(probe(-1, 0xffff, "66 ed"), "IO ffff0009");
  assertEquals(probe(-1, 0xfffe, "66 ed"), OK);
  assertEquals(seen.includes("fffe:2"), true);
});

Deno.test("MSR bitmaps: four parts of 1 KiB, everything else exits", () => {
  const fields = primary(Primary.MSR_BITMAPS, { [Vmcs.MSR_BITMAP]: At.SCRATCH });
  const part: readonly (readonly [number, number, string])[] = [
    [0x000, 0x0000_0000, "0f 32"],
    [0x400, 0xc000_0000, "0f 32"],
    [0x800, 0x0000_0000, "0f 30"],
    [0xc00, 0xc000_0000, "0f 30"],
  ];
  bench.outside.msrRead = () => true;
  bench.outside.msrWrite = () => true;
  for (const [offset, base, bytes] of part) {
    const name = bytes === "0f 32" ? "RDMSR" : "WRMSR";
    for (const index of [0x1f0, 0x1ff7, 0x1fff]) {
      bench.fill(At.SCRATCH, 0x1000, 0);
      const registers = { 0: 0n, 1: BigInt(base + index), 2: 0n };
      assertEquals(run(bytes, fields, registers), OK);
      bench.write(At.SCRATCH + offset + (index >> 3), [1 << (index & 7)]);
      assertEquals(run(bytes, fields, registers), name);
      bench.fill(At.SCRATCH, 0x1000, 0xff);
      const byte = 0xff & ~(1 << (index & 7));
      bench.write(At.SCRATCH + offset + (index >> 3), [byte]);
      assertEquals(run(bytes, fields, registers), OK);
    }
    bench.fill(At.SCRATCH, 0x1000, 0);
    for (const index of [0x2000, 0xbfff_ffff, 0xc000_2000, 0xc001_0000, 0xffff_ffff]) {
      assertEquals(run(bytes, fields, { 1: BigInt(index) }), name, index.toString(16));
    }
  }
});

Deno.test("pause-loop exiting: PAUSEs closer than the gap, for longer than the window, at CPL 0", () => {
  const ple = (gap: number, window: number): Fields =>
    secondary(Secondary.PAUSE_LOOP, { [Vmcs.PLE_GAP]: gap, [Vmcs.PLE_WINDOW]: window });
  // pause; nop; nop; loop: 4 instructions a round, 100 rounds
  const loop = "b9 64 00 00 00  f3 90 90 90 e2 fa";
  assertEquals(run(loop, ple(8, 40)), "PAUSE");
  const rounds = 100n - bench.state.register(1);
  assertEquals(rounds, 11n);
  assertEquals(run(loop, ple(2, 40)), OK);
  assertEquals(run(loop, ple(8, 1000)), OK);
});

Deno.test("a shadow VMCS: fields whose bit is 0 are read and written without an exit", () => {
  bench.set32(At.OTHER, VMCS_REVISION);
  lab.start();
  assertEquals(lab.vmclear(At.OTHER), "VMsucceed");
  bench.set32(At.OTHER, VMCS_REVISION | SHADOW_VMCS);
  assertEquals(lab.vmptrld(At.OTHER), "VMsucceed");
  assertEquals(lab.vmwrite(Vmcs.GUEST_RIP, 0x1234), "VMsucceed");
  // What was written is in the region only behind VMCLEAR.
  assertEquals(lab.vmclear(At.OTHER), "VMsucceed");
  const fields = secondary(Secondary.SHADOW_VMCS, {
    [Vmcs.LINK_POINTER]: At.OTHER,
    [Vmcs.VMREAD_BITMAP]: At.SCRATCH,
    [Vmcs.VMWRITE_BITMAP]: At.SCRATCH + 0x1000,
  });
  bench.fill(At.SCRATCH, 0x2000, 0);
  const read = (encoding: number): string => run("0f 78 c3", fields, { 0: BigInt(encoding) });
  const write = (encoding: number, value: bigint): string =>
    run("0f 79 c3", fields, { 0: BigInt(encoding), 3: value });
  assertEquals(read(Vmcs.GUEST_RIP), OK);
  assertEquals(bench.state.register(3), 0x1234n);
  assertEquals(write(Vmcs.GUEST_RIP, 0x5678n), OK);
  assertEquals(read(Vmcs.GUEST_RIP), OK);
  assertEquals(bench.state.register(3), 0x5678n);
  // The bit's number is the encoding.
  bench.write(At.SCRATCH + (Vmcs.GUEST_RIP >> 3), [1 << (Vmcs.GUEST_RIP & 7)]);
  assertEquals(read(Vmcs.GUEST_RIP), "VMREAD");
  assertEquals(write(Vmcs.GUEST_RIP, 1n), OK);
  bench.write(At.SCRATCH + 0x1000 + (Vmcs.GUEST_RIP >> 3), [1 << (Vmcs.GUEST_RIP & 7)]);
  assertEquals(write(Vmcs.GUEST_RIP, 1n), "VMWRITE");
  // Bits above 14 always exit, and so does everything without the control.
  assertEquals(read(0x8000), "VMREAD");
  assertEquals(run("0f 78 c3", {}, { 0: BigInt(Vmcs.GUEST_RSP) }), "VMREAD");
  // Without a link the guest's VMREAD is VMfailInvalid.
  assertEquals(
    run("0f 78 c3", { ...fields, [Vmcs.LINK_POINTER]: -1n }, { 0: BigInt(Vmcs.GUEST_RSP) }),
    OK,
  );
  assertEquals(Number(lab.read(Vmcs.GUEST_RFLAGS)) & Rflags.CF, 1);
});

Deno.test("what an exit saves and what it loads", () => {
  const guest: Fields = {
    [Vmcs.GUEST_SYSENTER_CS]: 0x11,
    [Vmcs.GUEST_SYSENTER_ESP]: 0x2222,
    [Vmcs.GUEST_SYSENTER_EIP]: 0x3333,
    [Vmcs.GUEST_GS_BASE]: 0xffff_8000_0000_4444n,
    [Vmcs.GUEST_PAT]: 0x0606_0606_0606_0606n,
    [Vmcs.GUEST_DR7]: 0x155,
    [Vmcs.ENTRY_CONTROLS]: BigInt(standard[Vmcs.ENTRY_CONTROLS]!) |
      BigInt(EntryControl.LOAD_PAT | EntryControl.LOAD_DEBUG),
    [Vmcs.EXIT_CONTROLS]: BigInt(standard[Vmcs.EXIT_CONTROLS]!) |
      BigInt(ExitControl.LOAD_PAT | ExitControl.SAVE_PAT | ExitControl.SAVE_DEBUG),
    [Vmcs.HOST_PAT]: 0x0007_0406_0007_0406n,
    [Vmcs.HOST_SYSENTER_CS]: 0x55,
    [Vmcs.HOST_SYSENTER_ESP]: 0x6666,
    [Vmcs.HOST_GS_BASE]: 0x7777,
    [Vmcs.HOST_RSP]: 0x8888,
  };
  // mov ebx, 1; wrgsbase is not there: swap by MSR; mov dr7, rbx; push; stc
  assertEquals(run(code("b8 00 04 00 00  0f 23 f8  6a 05  f9  fd"), guest), OK);
  const { state, processor } = bench;
  assertEquals(lab.read(Vmcs.GUEST_DR7), 0x400n);
  assertEquals(lab.read(Vmcs.GUEST_RSP), BigInt(At.GUEST_STACK - 8));
  assertEquals(lab.read(Vmcs.GUEST_RFLAGS), BigInt(Rflags.DF | Rflags.CF | 2));
  assertEquals(lab.read(Vmcs.GUEST_SYSENTER_CS), 0x11n);
  assertEquals(lab.read(Vmcs.GUEST_GS_BASE), 0xffff_8000_0000_4444n);
  assertEquals(lab.read(Vmcs.GUEST_PAT), 0x0606_0606_0606_0606n);
  assertEquals(lab.read(Vmcs.GUEST_ACTIVITY), 0n);
  assertEquals(lab.read(Vmcs.GUEST_INTERRUPTIBILITY), 0n);
  assertEquals(lab.read(Vmcs.EXIT_INTERRUPTION_INFO), 0n);
  assertEquals(lab.read(Vmcs.IDT_VECTORING_INFO), 0n);
  for (const k of [0, 1, 2, 3, 4, 5, 7]) {
    const rights = Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k;
    assertEquals(lab.read(rights), BigInt(standard[rights]!), `${k}`);
    assertEquals(
      lab.read(Vmcs.GUEST_ES_LIMIT + 2 * k),
      BigInt(standard[Vmcs.GUEST_ES_LIMIT + 2 * k]!),
    );
  }
  assertEquals(lab.read(Vmcs.GUEST_LDTR_ACCESS_RIGHTS) & 0x1_0000n, 0x1_0000n);
  // The host.
  assertEquals(state.get(S.dr7), 0x400n);
  assertEquals(processor.readMsr(Msr.PAT), 0x0007_0406_0007_0406n);
  assertEquals(processor.readMsr(Msr.SYSENTER_CS), 0x55n);
  assertEquals(processor.readMsr(Msr.SYSENTER_ESP), 0x6666n);
  assertEquals(state.segment(5).base, 0x7777n);
  assertEquals(state.segment(1), {
    selector: Sel.CODE64,
    attributes: 0xa9b,
    limit: 0xffff_ffff,
    base: 0n,
  });
  assertEquals(state.segment(7), {
    selector: 0xf8,
    attributes: 0x8b,
    limit: 0x67,
    base: BigInt(Place.TSS),
  });
  assertEquals(state.get32(S.gdtLimit), 0xffff);
});

Deno.test("the guest's mode is remembered in the entry controls", () => {
  const unrestricted: Fields = {
    ...UNPAGED,
    ...secondary(Secondary.EPT | Secondary.UNRESTRICTED_GUEST, {
      [Vmcs.EPT_POINTER]: BigInt(At.SCRATCH) | 0x1en,
    }),
  };
  // One 1 GiB page maps everything to itself.
  bench.fill(At.SCRATCH, 0x2000, 0);
  bench.set64(At.SCRATCH, BigInt(At.SCRATCH + 0x1000) | 7n);
  bench.set64(At.SCRATCH + 0x1000, 0xb7n);
  // mov eax, PAE|VMXE; mov cr4; mov eax, tables; mov cr3; mov ecx, EFER; rdmsr; or LME; wrmsr; mov eax, cr0; or PG; mov cr0; hlt
  const program = code(
    "b8",
    dword(Cr4.PAE | Cr4.VMXE),
    "0f 22 e0  b8",
    dword(Place.TABLES),
    "0f 22 d8",
    "b9 80 00 00 c0  31 d2  b8 00 01 00 00  0f 30",
    "0f 20 c0  0d 00 00 00 80  0f 22 c0",
  );
  const msrs = {
    ...unrestricted,
    ...secondary(Secondary.EPT | Secondary.UNRESTRICTED_GUEST, {
      [Vmcs.EPT_POINTER]: BigInt(At.SCRATCH) | 0x1en,
      [Vmcs.MSR_BITMAP]: At.SCRATCH + 0x2000,
    }),
  };
  bench.fill(At.SCRATCH + 0x2000, 0x1000, 0);
  const fields = {
    ...msrs,
    [Vmcs.PRIMARY_CONTROLS]: BigInt(msrs[Vmcs.PRIMARY_CONTROLS]!) | BigInt(Primary.MSR_BITMAPS),
  };
  assertEquals(run(program, fields), OK);
  assertEquals(
    Number(lab.read(Vmcs.ENTRY_CONTROLS)) & EntryControl.IA32E_GUEST,
    EntryControl.IA32E_GUEST,
  );
  assertEquals(lab.read(Vmcs.GUEST_EFER), 0x500n);
  assertEquals(lab.enter(false).result, "exit");
});

Deno.test("MSR lists of an exit: stored, then loaded", () => {
  const list = At.SCRATCH + 0x100;
  const entry = (k: number, index: number, value: bigint): void => {
    bench.set64(list + 16 * k, BigInt(index));
    bench.set64(list + 16 * k + 8, value);
  };
  entry(0, Msr.STAR, 0n);
  entry(1, Msr.LSTAR, 0n);
  entry(2, Msr.STAR, 0x77n);
  const fields: Fields = {
    [Vmcs.EXIT_MSR_STORE_COUNT]: 2,
    [Vmcs.EXIT_MSR_STORE_ADDRESS]: list,
    [Vmcs.EXIT_MSR_LOAD_COUNT]: 1,
    [Vmcs.EXIT_MSR_LOAD_ADDRESS]: list + 32,
  };
  lab.start();
  bench.processor.writeMsr(Msr.STAR, 0x1234_5678n);
  bench.processor.writeMsr(Msr.LSTAR, 0x9abcn);
  bench.write(At.GUEST, [0xf4]);
  lab.prepare(fields);
  assertEquals(exitText(lab.enter()), OK);
  assertEquals(bench.get64(list + 8), 0x1234_5678n);
  assertEquals(bench.get64(list + 24), 0x9abcn);
  assertEquals(bench.processor.readMsr(Msr.STAR), 0x77n);
});

Deno.test("the TSC of a guest: offset, and scaling by a 48-bit fraction", () => {
  // A list stores the processor's own TSC, without the guest's offset.
  const entry = At.SCRATCH + 0x100;
  bench.set64(entry, 0x10n);
  const stored = { [Vmcs.EXIT_MSR_STORE_COUNT]: 1, [Vmcs.EXIT_MSR_STORE_ADDRESS]: entry };
  const tsc = (fields: Fields): bigint => {
    lab.start();
    bench.write(At.GUEST, [...hex("0f 31"), 0xf4]);
    lab.prepare({ ...fields, ...stored });
    bench.processor.setTsc(0x3000_0000);
    assertEquals(exitText(lab.enter()), OK);
    near(bench.get64(entry + 8), 0x3000_0000n, 100n);
    return (bench.state.register(2) << 32n) | bench.state.register(0);
  };
  const near = (is: bigint, expected: bigint, slack: bigint): void =>
    assertEquals(
      is >= expected && is < expected + slack,
      true,
      `${is.toString(16)}, not ${expected.toString(16)}`,
    );
  near(tsc({}), 0x3000_0000n, 100n);
  near(
    tsc(primary(Primary.TSC_OFFSETTING, { [Vmcs.TSC_OFFSET]: 0x5_0000_0000n })),
    0x5_3000_0000n,
    100n,
  );
  near(
    tsc(primary(Primary.TSC_OFFSETTING, { [Vmcs.TSC_OFFSET]: -0x1000_0000n })),
    0x2000_0000n,
    100n,
  );
  const scaled = (multiplier: bigint): Fields =>
    secondary(Secondary.TSC_SCALING, {
      [Vmcs.TSC_MULTIPLIER]: multiplier,
      [Vmcs.TSC_OFFSET]: 0x10,
      [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
        BigInt((Primary.SECONDARY | Primary.TSC_OFFSETTING) >>> 0),
    });
  near(tsc(scaled(1n << 49n)), 0x6000_0010n, 200n);
  near(tsc(scaled(3n << 47n)), 0x4800_0010n, 200n);
  near(tsc(scaled(0xffff_0000_0000_0000n)), 0x3000_0000n * 0xffffn + 0x10n, 0x40_0000n * 16n);
});

Deno.test("task switches exit, once their checks are done", () => {
  const TSS = 0x108;
  const GATE = 0x110;
  const SHORT = 0x118;
  const BUSY = 0x120;
  bench.setDescriptor(TSS, descriptor({ base: At.DATA, limit: 0x67, access: 0x89, flags: 0 }));
  bench.setDescriptor(GATE, gate(TSS, 0, 0x85));
  bench.setDescriptor(SHORT, descriptor({ base: At.DATA, limit: 0x66, access: 0x89, flags: 0 }));
  bench.setDescriptor(BUSY, descriptor({ base: At.DATA, limit: 0x67, access: 0x8b, flags: 0 }));
  // 32-bit protected mode with 4 MiB pages.
  bench.set32(At.SCRATCH, 0xe7);
  const legacy: Fields = {
    ...UNPAGED,
    [Vmcs.GUEST_CR0]: standard[Vmcs.GUEST_CR0]!,
    [Vmcs.GUEST_CR3]: At.SCRATCH,
    [Vmcs.GUEST_CR4]: Cr4.VMXE | Cr4.PSE,
    [Vmcs.EXCEPTION_BITMAP]: 0xffff_ffff,
    [Vmcs.GUEST_IDTR_BASE]: At.DATA + 0x800,
    [Vmcs.GUEST_IDTR_LIMIT]: 0x7ff,
  };
  const far = (opcode: string, selector: number): number[] =>
    code(opcode, dword(0), word(selector));
  const fault = (vector: number, error: number): void => {
    const info = Number(lab.read(Vmcs.EXIT_INTERRUPTION_INFO)) & 0xff;
    assertEquals([info, Number(lab.read(Vmcs.EXIT_INTERRUPTION_ERROR))], [vector, error]);
  };
  const hexOf = (value: number): string => (value >>> 0).toString(16);
  assertEquals(run(far("9a", TSS), legacy), `TASK_SWITCH ${hexOf(TSS)}`);
  assertEquals(where(), [0, 7]);
  assertEquals(run(far("ea", TSS), legacy), `TASK_SWITCH ${hexOf(0x8000_0000 | TSS)}`);
  assertEquals(run(far("ea", GATE), legacy), `TASK_SWITCH ${hexOf(0x8000_0000 | TSS)}`);
  assertEquals(run(far("ea", SHORT), legacy), "EXCEPTION_OR_NMI");
  fault(10, SHORT);
  assertEquals(run(far("ea", BUSY), legacy), "EXCEPTION_OR_NMI");
  fault(13, BUSY);
  assertEquals(run(far("ea", TSS | 3), legacy), "EXCEPTION_OR_NMI");
  fault(13, TSS);
  bench.setDescriptor(TSS, descriptor({ base: At.DATA, limit: 0x67, access: 0x09, flags: 0 }));
  assertEquals(run(far("ea", TSS), legacy), "EXCEPTION_OR_NMI");
  fault(11, TSS);
  bench.setDescriptor(TSS, descriptor({ base: At.DATA, limit: 0x67, access: 0x89, flags: 0 }));
  // IRET of a nested task: to the TSS that TR's links to, which must be busy.
  const task = At.DATA + 0x400;
  const nested = { ...legacy, [Vmcs.GUEST_RFLAGS]: Rflags.NT | 2, [Vmcs.GUEST_TR_BASE]: task };
  bench.set16(task, BUSY);
  assertEquals(run("cf", nested), `TASK_SWITCH ${hexOf(0x4000_0000 | BUSY)}`);
  bench.set16(task, TSS);
  assertEquals(run("cf", nested), "EXCEPTION_OR_NMI");
  fault(10, TSS);
  // A task gate in the IDT.
  bench.set64(At.DATA + 0x800 + 8 * 0x30, gate(TSS, 0, 0x85));
  assertEquals(run("cd 30", legacy), `TASK_SWITCH ${hexOf(0xc000_0000 | TSS)}`);
  assertEquals(lab.read(Vmcs.IDT_VECTORING_INFO), 0x8000_0430n);
  assertEquals(where(), [0, 2]);
});

Deno.test("RDRAND and RDSEED tell their register and its size, INVPCID its type's register", () => {
  const info = (bytes: string, fields: Fields): bigint => {
    run(bytes, fields, { 3: BigInt(At.DATA) });
    return lab.read(Vmcs.EXIT_INSTRUCTION_INFO) & 0xf000_1878n;
  };
  for (const [control, group] of [[Secondary.RDRAND, 0xf0], [Secondary.RDSEED, 0xf8]] as const) {
    for (const [prefix, size] of [["66", 0], ["", 1], ["48", 2]] as const) {
      for (const register of [0, 1, 6]) {
        const bytes = `${prefix} 0f c7 ${(group | register).toString(16)}`;
        const expected = BigInt((register << 3) | (size << 11));
        assertEquals(info(bytes, secondary(control)), expected, bytes);
      }
    }
    assertEquals(info(`49 0f c7 ${group.toString(16)}`, secondary(control)), 0x1040n);
  }
  const invpcid = secondary(
    Secondary.INVPCID,
    primary(Primary.SECONDARY | Primary.INVLPG, { [Vmcs.SECONDARY_CONTROLS]: Secondary.INVPCID }),
  );
  assertEquals(info("66 0f 38 82 3b", invpcid) >> 28n, 7n);
});
