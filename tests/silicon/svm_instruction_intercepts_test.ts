/**
 * Instruction intercepts (APM vol. 2, 15.7–15.9): exit code, EXITINFO1 and 2, nRIP, the state saved, and
 * the order of the intercept and the exceptions of the instruction, as table 15-7 gives it.
 */
import { assertEquals, assertNotEquals } from "@std/assert";
import {
  Control,
  Cr0,
  Cr4,
  InterceptWord,
  Misc1,
  Misc2,
  S,
  Save,
  SaveSegment,
} from "../../plugins/cpu/mod.ts";
import { hex } from "./code.ts";
import { type GuestMode, SvmBench, SvmPlace } from "./svm_bench.ts";
import { refuseOutside } from "./lab.ts";

const bench = new SvmBench({ outside: { ...refuseOutside(), cpuid: () => {} } });

/** A page that the guest's tables do not map. */
const ABSENT = 0x15_0000;

/** An intercept and an instruction that takes it. */
interface Row {
  readonly name: string;
  readonly code: string;
  /** Intercept word and bit. */
  readonly word: number;
  readonly mask: number;
  readonly exit: number;
  readonly mode?: GuestMode;
  readonly info1?: bigint;
  /** Prepares registers and memory. */
  readonly setup?: () => void;
}

const MOV_CR = 1n << 63n;
const { CR, DR, MISC1, MISC2 } = InterceptWord;

const setRegister = (n: number, value: bigint | number) => (): void =>
  n === 0
    ? bench.setControl64(Save.RAX, value)
    : n === 4
    ? bench.setControl64(Save.RSP, value)
    : bench.state.setRegister(n, BigInt(value));

const byte = (value: number): string => value.toString(16).padStart(2, "0");

/** MOV between CRn or DRn and register `gpr`, 64-bit code. */
function mov(opcode: number, n: number, gpr: number): string {
  const rex = 0x40 | (n >> 3 << 2) | (gpr >> 3);
  return `${byte(rex)} 0f ${byte(opcode)} ${byte(0xc0 | (n & 7) << 3 | (gpr & 7))}`;
}

/** Legal values for control registers: what they hold. */
const crValue = (n: number, gpr: number) => (): void => {
  const offsets: Readonly<Record<number, number>> = {
    0: Save.CR0,
    3: Save.CR3,
    4: Save.CR4,
  };
  const offset = offsets[n];
  setRegister(gpr, offset === undefined ? 0n : bench.control64(offset))();
};

const CR_ROWS: readonly Row[] = [0, 2, 3, 4, 8].flatMap((n) =>
  [1, 3, 7, 9, 15].flatMap((gpr): Row[] => [
    {
      name: `read of CR${n} to register ${gpr}`,
      code: mov(0x20, n, gpr),
      word: CR,
      mask: 1 << n,
      exit: n,
      info1: MOV_CR | BigInt(gpr),
    },
    {
      name: `write of CR${n} from register ${gpr}`,
      code: mov(0x22, n, gpr),
      word: CR,
      mask: 1 << (16 + n),
      exit: 0x10 + n,
      info1: MOV_CR | BigInt(gpr),
      setup: crValue(n, gpr),
    },
  ])
);

const DR_ROWS: readonly Row[] = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((n) =>
  [1, 6, 8, 14].flatMap((gpr): Row[] => [
    {
      name: `read of DR${n} to register ${gpr}`,
      code: mov(0x21, n, gpr),
      word: DR,
      mask: 1 << n,
      exit: 0x20 + n,
      info1: BigInt(gpr),
    },
    {
      name: `write of DR${n} from register ${gpr}`,
      code: mov(0x23, n, gpr),
      word: DR,
      mask: 1 << (16 + n),
      exit: 0x30 + n,
      info1: BigInt(gpr),
      setup: setRegister(gpr, 0),
    },
  ])
);

/** RBX at data, and RAX a control block's address. */
const pointers = (): void => {
  setRegister(3, SvmPlace.GUEST_DATA)();
  setRegister(0, SvmPlace.VMCB2)();
};

const one = (name: string, code: string, word: number, mask: number, exit: number): Row => ({
  name,
  code,
  word,
  mask,
  exit,
  setup: pointers,
});

const PLAIN_ROWS: readonly Row[] = [
  one("SMSW", "0f 01 e1", CR, 1, 0x00),
  one("SMSW to memory", "0f 01 23", CR, 1, 0x00),
  one("CLTS", "0f 06", CR, 1 << 16, 0x10),
  one("LMSW", "0f 01 f1", CR, 1 << 16, 0x10),
  one("LMSW from memory", "0f 01 33", CR, 1 << 16, 0x10),
  one("LMSW, selective", "0f 01 f1", MISC1, Misc1.CR0_SEL_WRITE, 0x65),
  one("SIDT", "0f 01 0b", MISC1, Misc1.IDTR_READ, 0x66),
  one("SGDT", "0f 01 03", MISC1, Misc1.GDTR_READ, 0x67),
  one("SLDT", "0f 00 c1", MISC1, Misc1.LDTR_READ, 0x68),
  one("SLDT to memory", "0f 00 03", MISC1, Misc1.LDTR_READ, 0x68),
  one("STR", "0f 00 c9", MISC1, Misc1.TR_READ, 0x69),
  one("STR to memory", "0f 00 0b", MISC1, Misc1.TR_READ, 0x69),
  one("LIDT", "0f 01 1b", MISC1, Misc1.IDTR_WRITE, 0x6a),
  one("LGDT", "0f 01 13", MISC1, Misc1.GDTR_WRITE, 0x6b),
  one("LLDT", "0f 00 d1", MISC1, Misc1.LDTR_WRITE, 0x6c),
  one("LTR", "0f 00 d9", MISC1, Misc1.TR_WRITE, 0x6d),
  one("RDTSC", "0f 31", MISC1, Misc1.RDTSC, 0x6e),
  one("PUSHF", "9c", MISC1, Misc1.PUSHF, 0x70),
  one("PUSHF, 16 bits", "66 9c", MISC1, Misc1.PUSHF, 0x70),
  one("POPF", "9d", MISC1, Misc1.POPF, 0x71),
  one("CPUID", "0f a2", MISC1, Misc1.CPUID, 0x72),
  one("RSM", "0f aa", MISC1, Misc1.RSM, 0x73),
  one("IRET", "48 cf", MISC1, Misc1.IRET, 0x74),
  one("INVD", "0f 08", MISC1, Misc1.INVD, 0x76),
  one("PAUSE", "f3 90", MISC1, Misc1.PAUSE, 0x77),
  one("HLT", "f4", MISC1, Misc1.HLT, 0x78),
  one("INVLPGA", "0f 01 df", MISC1, Misc1.INVLPGA, 0x7a),
  one("VMMCALL", "0f 01 d9", MISC2, Misc2.VMMCALL, 0x81),
  one("VMLOAD", "0f 01 da", MISC2, Misc2.VMLOAD, 0x82),
  one("VMSAVE", "0f 01 db", MISC2, Misc2.VMSAVE, 0x83),
  one("STGI", "0f 01 dc", MISC2, Misc2.STGI, 0x84),
  one("CLGI", "0f 01 dd", MISC2, Misc2.CLGI, 0x85),
  one("RDTSCP", "0f 01 f9", MISC2, Misc2.RDTSCP, 0x87),
  one("ICEBP", "f1", MISC2, Misc2.ICEBP, 0x88),
  one("WBINVD", "0f 09", MISC2, Misc2.WBINVD, 0x89),
];

/** Rows with an operand in EXITINFO1. */
const OPERAND_ROWS: readonly Row[] = [
  ...[0, 3, 0x42, 0xff].map((vector): Row => ({
    name: `INT ${vector}`,
    code: `cd ${byte(vector)}`,
    word: MISC1,
    mask: Misc1.SWINT,
    exit: 0x75,
    info1: BigInt(vector),
  })),
  {
    name: "INVLPG",
    code: "0f 01 7b 10",
    word: MISC1,
    mask: Misc1.INVLPG,
    exit: 0x79,
    setup: setRegister(3, 0xffff_8000_1234_5678n),
    info1: 0xffff_8000_1234_5688n,
  },
  {
    name: "INVLPG with a 32-bit address",
    code: "67 0f 01 7b 10",
    word: MISC1,
    mask: Misc1.INVLPG,
    exit: 0x79,
    setup: setRegister(3, 0xffff_8000_ffff_fff8n),
    info1: 8n,
  },
  {
    name: "INVLPG with a base",
    code: "64 0f 01 3b",
    word: MISC1,
    mask: Misc1.INVLPG,
    exit: 0x79,
    setup: () => {
      bench.state.setSegment(4, { selector: 0, attributes: 0xc93, limit: 0, base: 0x1000n });
      setRegister(3, 0x234)();
    },
    info1: 0x1234n,
  },
  {
    name: "INVLPG in 32-bit code",
    code: "0f 01 3b",
    mode: "protected",
    word: MISC1,
    mask: Misc1.INVLPG,
    exit: 0x79,
    setup: () => {
      bench.setControl64(Save.DS + SaveSegment.BASE, 0xffff_f000n);
      setRegister(3, 0x2345)();
    },
    info1: 0x1345n,
  },
  {
    name: "MOV to CR0, selective",
    code: mov(0x22, 0, 9),
    word: MISC1,
    mask: Misc1.CR0_SEL_WRITE,
    exit: 0x65,
    info1: MOV_CR | 9n,
    setup: () => setRegister(9, bench.control64(Save.CR0) ^ BigInt(Cr0.WP))(),
  },
];

const ROWS = [...CR_ROWS, ...DR_ROWS, ...PLAIN_ROWS, ...OPERAND_ROWS];

function prepare({ mode, setup }: Row, cpl = 0): void {
  bench.guest(mode, cpl);
  bench.setControl32(MISC1, Misc1.SHUTDOWN);
  bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
  setup?.();
}

Deno.test("each intercept exits with its code and information, and the state of before", () => {
  for (const row of ROWS) {
    prepare(row);
    bench.orControl32(row.word, row.mask);
    // What the exit must clear or overwrite.
    for (const offset of [Control.NRIP, Control.FETCHED, Control.EXITINTINFO]) {
      bench.setControl64(offset, -1);
    }
    const before = bench.block;
    assertEquals(bench.enter(row.code), row.exit.toString(16), row.name);
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400), row.name);
    assertEquals(bench.info, [row.info1 ?? 0n, 0n], row.name);
    const length = hex(row.code).length;
    const rip = bench.control64(Save.RIP);
    assertEquals(bench.control64(Control.NRIP), rip + BigInt(length), row.name);
    assertEquals(bench.read(bench.vmcb + Control.FETCHED, 1)[0], 0, row.name);
    assertEquals(bench.control64(Control.EXITINTINFO), 0n, row.name);
  }
});

Deno.test("without its bit the instruction does not take the exit, whatever other bits are set", () => {
  for (const row of ROWS) {
    prepare(row);
    bench.setControl32(InterceptWord.EXCEPTIONS, 0);
    for (const word of [CR, DR, MISC1, MISC2]) bench.setControl32(word, -1);
    // The selective intercept stands behind the general one.
    if (row.exit === 0x65) bench.setControl32(CR, 0);
    else if (row.word === CR) bench.setControl32(MISC1, ~Misc1.CR0_SEL_WRITE);
    bench.setControl32(row.word, bench.control32(row.word) & ~row.mask);
    assertNotEquals(bench.enter(row.code, 2), row.exit.toString(16), row.name);
  }
});

Deno.test("bits of the other direction or register do nothing", () => {
  for (const row of [...CR_ROWS, ...DR_ROWS]) {
    prepare(row);
    bench.setControl32(row.word, ~row.mask);
    assertEquals(bench.enter(`${row.code} 0f 0b`), "46", row.name);
    assertEquals(
      bench.control64(Save.RIP),
      BigInt(SvmPlace.GUEST_CODE + hex(row.code).length),
      row.name,
    );
  }
});

Deno.test("the selective CR0 intercept sees changes of all bits but TS and MP", () => {
  const writable = [Cr0.MP, Cr0.EM, Cr0.TS, Cr0.NE, Cr0.WP, Cr0.AM, Cr0.CD];
  for (const bit of [0, ...writable]) {
    prepare({ name: "", code: "", word: 0, mask: 0, exit: 0 });
    bench.setControl32(MISC1, Misc1.CR0_SEL_WRITE);
    setRegister(1, bench.control64(Save.CR0) ^ BigInt(bit))();
    const selective = bit !== 0 && bit !== Cr0.TS && bit !== Cr0.MP;
    const exit = bench.enter(`${mov(0x22, 0, 1)} 0f 0b`);
    assertEquals(exit, selective ? "65" : "46", `bit ${bit.toString(16)}`);
  }
  // CLTS does not look at it; ET cannot change.
  prepare({ name: "", code: "", word: 0, mask: 0, exit: 0 });
  bench.setControl32(MISC1, Misc1.CR0_SEL_WRITE);
  bench.orControl64(Save.CR0, Cr0.TS);
  setRegister(1, bench.control64(Save.CR0) & ~BigInt(Cr0.ET | Cr0.TS))();
  assertEquals(bench.enter(`0f 06 ${mov(0x22, 0, 1)} 0f 0b`), "46");
  // Both: the general one is first.
  prepare({ name: "", code: "", word: 0, mask: 0, exit: 0 });
  bench.setControl32(MISC1, Misc1.CR0_SEL_WRITE);
  bench.setControl32(CR, 1 << 16);
  setRegister(1, bench.control64(Save.CR0) ^ BigInt(Cr0.WP))();
  assertEquals(bench.enter(mov(0x22, 0, 1)), "10");
});

// Order of exceptions and intercepts.

/** The exit of `code` with everything intercepted. */
function everything(
  name: string,
  code: string,
  expected: string,
  change: () => void = () => {},
  mode: GuestMode = "long",
  cpl = 0,
): void {
  bench.guest(mode, cpl);
  bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
  bench.setControl32(CR, -1);
  bench.setControl32(DR, -1);
  // Ports and MSRs have their maps.
  bench.setControl32(MISC1, ~(Misc1.IOIO | Misc1.MSR));
  bench.setControl32(MISC2, -1);
  pointers();
  change();
  const before = bench.block;
  assertEquals(bench.enter(code), expected, name);
  if (expected !== "4e") {
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400), name);
  }
}

Deno.test("at CPL 3, #GP comes before the intercept of what is privileged", () => {
  const privileged = [
    "MOV CR",
    "CLTS",
    "LMSW",
    "LIDT",
    "LGDT",
    "LLDT",
    "LTR",
    "INVD",
    "WBINVD",
    "HLT",
    "INVLPG",
    "INVLPGA",
    "VMLOAD",
    "VMSAVE",
    "STGI",
    "CLGI",
  ];
  for (const row of ROWS) {
    const general = row.word === CR && row.info1 !== undefined || row.word === DR ||
      row.name.startsWith("MOV to CR0");
    const first = row.name.split(/[ ,]/)[0]!;
    if (row.mode !== undefined) continue;
    const setup = (): void => row.setup?.();
    const expected = general || privileged.includes(first) ? "4d" : row.exit.toString(16);
    // SMSW and the like belong to anyone unless UMIP says otherwise.
    everything(`${row.name} at CPL 3`, row.code, expected, setup, "long", 3);
    if (expected === "4d") assertEquals(bench.info[0], 0n, row.name);
  }
  everything("VMRUN at CPL 3", "0f 01 d8", "4d", undefined, "long", 3);
});

Deno.test("UMIP and TSD are looked at before the intercept", () => {
  for (const code of ["0f 01 e1", "0f 01 0b", "0f 01 03", "0f 00 c1", "0f 00 c9"]) {
    everything(code, code, "4d", () => bench.orControl64(Save.CR4, Cr4.UMIP), "long", 3);
  }
  for (const code of ["0f 31", "0f 01 f9"]) {
    everything(code, code, "4d", () => bench.orControl64(Save.CR4, Cr4.TSD), "long", 3);
  }
});

Deno.test("#UD comes before the intercept", () => {
  everything("SKINIT, which no model has", "0f 01 de", "46");
  everything("SKINIT at CPL 3", "0f 01 de", "46", undefined, "long", 3);
  for (const n of [1, 5, 6, 7, 9, 15]) {
    everything(`CR${n}`, mov(0x20, n, 1), "46");
    everything(`CR${n}`, mov(0x22, n, 1), "46");
  }
  for (const n of [8, 9, 15]) everything(`DR${n}`, mov(0x21, n, 1), "46");
  const de = (): void => bench.orControl64(Save.CR4, Cr4.DE);
  for (const n of [4, 5]) {
    everything(`DR${n} with DE`, mov(0x21, n, 1), "46", de);
    everything(`DR${n} with DE`, mov(0x23, n, 1), "46", de);
  }
  const protectedOnly = ["0f 00 c1", "0f 00 c9", "0f 00 d1", "0f 00 d9"];
  const svm = ["0f 01 d8", "0f 01 da", "0f 01 db", "0f 01 dc", "0f 01 dd", "0f 01 de", "0f 01 df"];
  for (const code of [...protectedOnly, ...svm]) {
    everything(`${code} in real mode`, code, "46", undefined, "real");
    everything(`${code} in virtual-8086 mode`, code, "46", undefined, "v86");
  }
  for (const code of ["f0 0f a2", "f0 0f 01 d9", "f0 0f 20 c1"]) everything(code, code, "46");
});

Deno.test("bad values are refused before the intercept of control and debug registers", () => {
  const value = (n: number) => (): void => setRegister(1, n)();
  const wide = (): void => setRegister(1, 1n << 32n)();
  everything("CR0 bit 32", mov(0x22, 0, 1), "4d", wide);
  everything("PG without PE", mov(0x22, 0, 1), "4d", value(Cr0.PG));
  everything("NW without CD", mov(0x22, 0, 1), "4d", () => {
    setRegister(1, bench.control64(Save.CR0) | BigInt(Cr0.NW))();
  });
  everything("paging off in 64-bit code", mov(0x22, 0, 1), "4d", () => {
    setRegister(1, bench.control64(Save.CR0) & ~BigInt(Cr0.PG))();
  });
  everything("CR3 bit 48", mov(0x22, 3, 1), "4d", () => setRegister(1, 1n << 48n)());
  everything("CR4 bit 31", mov(0x22, 4, 1), "4d", () => {
    setRegister(1, bench.control64(Save.CR4) | (1n << 31n))();
  });
  everything("CR4 without PAE in long mode", mov(0x22, 4, 1), "4d", value(0));
  everything("CR8 of 16", mov(0x22, 8, 1), "4d", value(16));
  everything("DR6 bit 32", mov(0x23, 6, 1), "4d", wide);
  everything("DR7 bit 32", mov(0x23, 7, 1), "4d", wide);
  // DR0–DR3 take anything.
  everything("DR0 bit 32", mov(0x23, 0, 1), "30", wide);
  // CR3 in PAE mode: the entries are read behind the intercept.
  everything("bad PDPTEs", "0f 22 d9", "13", () => {
    bench.set64(SvmPlace.GUEST_DATA, 3n);
    bench.orControl64(Save.CR4, Cr4.PAE);
    setRegister(1, SvmPlace.GUEST_DATA)();
  }, "protected");
});

Deno.test("general detect comes before the intercept of a debug register", () => {
  const detect = (): void => bench.orControl64(Save.DR7, 0x2000);
  for (const opcode of [0x21, 0x23]) {
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 2);
    bench.setControl32(DR, -1);
    detect();
    assertEquals(bench.enter(mov(opcode, 3, 1)), "41");
    // The handler would find BD set and GD clear.
    assertEquals(bench.control64(Save.DR6), 0xffff_2ff0n);
    assertEquals(bench.control64(Save.DR7), 0x400n);
    assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE));
  }
});

Deno.test("the intercept comes before any access to memory", () => {
  const absent = (): void => {
    bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, ABSENT), 0n);
    setRegister(3, ABSENT)();
  };
  const cases: readonly (readonly [string, string, string])[] = [
    ["SMSW", "0f 01 23", "0"],
    ["LMSW", "0f 01 33", "10"],
    ["SIDT", "0f 01 0b", "66"],
    ["SGDT", "0f 01 03", "67"],
    ["SLDT", "0f 00 03", "68"],
    ["STR", "0f 00 0b", "69"],
    ["LIDT", "0f 01 1b", "6a"],
    ["LGDT", "0f 01 13", "6b"],
    ["LLDT", "0f 00 13", "6c"],
    ["LTR", "0f 00 1b", "6d"],
    ["INVLPG", "0f 01 3b", "79"],
  ];
  for (const [name, code, exit] of cases) {
    everything(name, code, exit, absent);
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    absent();
    if (name === "INVLPG") assertEquals(bench.enter(`${code} 0f 0b`), "46");
    else assertEquals(bench.enter(code), "4e", `${name}, not intercepted`);
  }
  const badStack = (): void => setRegister(4, ABSENT + 8)();
  for (
    const [name, code, exit] of [["PUSHF", "9c", "70"], ["POPF", "9d", "71"], [
      "IRET",
      "48 cf",
      "74",
    ]] as const
  ) {
    everything(name, code, exit, () => {
      absent();
      badStack();
    });
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    absent();
    badStack();
    assertEquals(bench.enter(code), "4e", `${name}, not intercepted`);
  }
});

Deno.test("PUSHF, POPF, INT n and IRET exit before virtual-8086 mode refuses them", () => {
  const cases = [["9c", "70"], ["9d", "71"], ["cd 21", "75"], ["cf", "74"]] as const;
  for (const [code, exit] of cases) {
    everything(code, code, exit, undefined, "v86");
    bench.guest("v86");
    bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    assertEquals(bench.enter(code), "4d", `${code}, not intercepted`);
  }
});

Deno.test("a control block's address is checked before the intercept", () => {
  const addresses: readonly (readonly [bigint, boolean])[] = [
    [BigInt(SvmPlace.VMCB2), true],
    [BigInt(SvmPlace.VMCB2) + 1n, false],
    [BigInt(SvmPlace.VMCB2) + 0x800n, false],
    [1n << 48n, false],
    [(1n << 48n) - 0x1000n, true],
    [1n << 63n, false],
  ];
  for (
    const [code, exit] of [["0f 01 d8", "80"], ["0f 01 da", "82"], ["0f 01 db", "83"]] as const
  ) {
    for (const [address, fits] of addresses) {
      everything(`${code} at ${address.toString(16)}`, code, fits ? exit : "4d", () => {
        setRegister(0, address)();
      });
    }
    // With 32-bit addresses the upper half does not count.
    everything(code, `67 ${code}`, exit, () => setRegister(0, (1n << 63n) | 0x1000n)());
  }
});

Deno.test("VMMCALL, RSM, SKINIT and INT1 without their intercepts", () => {
  for (const [code, exit] of [["0f 01 d9", "46"], ["0f aa", "46"], ["0f 01 de", "46"]] as const) {
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
    assertEquals(bench.enter(code), exit, code);
    assertEquals(bench.control64(Control.NRIP), 0n, code);
  }
  // The #DB of INT1 takes no exception intercept (APM vol. 2, 15.12.2).
  bench.guest();
  bench.setControl32(InterceptWord.EXCEPTIONS, 2);
  bench.guestHandlers();
  assertEquals(bench.enter("f1"), "78");
  assertEquals(bench.control64(Save.RIP), BigInt(bench.guestHandler(1)));
});

Deno.test("an intercepted instruction leaves no trace in the processor", () => {
  // MOV to CR3 must not flush, CLGI must not clear GIF, and so on: the next entry without the intercept
  // finds everything as the first one did.
  bench.guest();
  bench.setControl32(CR, 1 << 19);
  setRegister(1, 0x1000)();
  assertEquals(bench.enter(mov(0x22, 3, 1)), "13");
  assertEquals(bench.control64(Save.CR3), BigInt(SvmPlace.GUEST_TABLES));
  assertEquals(bench.state.get(S.cr3), BigInt(0x4_0000));
});
