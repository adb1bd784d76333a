/**
 * VMCB clean bits (APM vol. 2, 15.15): behind a set one the value of the last run counts, behind a clear one
 * what is in memory, and of a VMCB that is not cached everything comes from memory.
 */
import { assertEquals } from "@std/assert";
import { Clean, Control, InterceptWord, Misc1, Save } from "../../plugins/cpu/mod.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

interface Row {
  readonly what: string;
  readonly group: number;
  /** What the guest executes before HLT. */
  readonly code: string;
  readonly prepare?: () => void;
  /** Writes the first (0) or the second (1) value into the control block. */
  readonly set: (which: 0 | 1) => void;
  /** What tells them apart: RAX, unless it is something else. */
  readonly see?: () => unknown;
  readonly seen: readonly [unknown, unknown];
}

const bench = new SvmBench();
const field = (offset: number, values: readonly [bigint, bigint]) => (which: 0 | 1): void =>
  bench.setControl64(offset, values[which]);
const exitCode = (): string => bench.control64(Control.EXITCODE).toString(16);
const PATS = [0x0007_0406_0007_0406n, 0x0007_0406_0007_0401n] as const;
const STAR = "b9 81 00 00 c0 0f 32 31 c0";

const ROWS: readonly Row[] = [
  {
    what: "intercepts",
    group: Clean.INTERCEPTS,
    code: "0f 31",
    set: (which) => {
      const rdtsc = which === 1 ? Misc1.RDTSC : 0;
      bench.setControl32(InterceptWord.MISC1, Misc1.SHUTDOWN | Misc1.HLT | rdtsc);
    },
    see: exitCode,
    seen: ["78", "6e"],
  },
  {
    what: "the TSC offset",
    group: Clean.INTERCEPTS,
    code: "0f 31 48 89 d0",
    set: field(Control.TSC_OFFSET, [0n, 5n << 32n]),
    seen: [0n, 5n],
  },
  {
    what: "the MSR permission map",
    group: Clean.PERMISSION_MAPS,
    code: STAR,
    prepare: () => {
      bench.orControl32(InterceptWord.MISC1, Misc1.MSR);
      bench.fill(SvmPlace.MSRPM, 0x2000, 0);
      bench.fill(SvmPlace.GUEST_DATA, 0x2000, 0xff);
    },
    set: field(Control.MSRPM_BASE_PA, [BigInt(SvmPlace.MSRPM), BigInt(SvmPlace.GUEST_DATA)]),
    see: exitCode,
    seen: ["78", "7c"],
  },
  {
    what: "PAT",
    group: Clean.NESTED,
    code: "b9 77 02 00 00 0f 32",
    prepare: () => bench.nested(),
    set: field(Save.G_PAT, PATS),
    seen: [PATS[0] & 0xffff_ffffn, PATS[1] & 0xffff_ffffn],
  },
  {
    what: "nested CR3",
    group: Clean.NESTED,
    code: "31 c0",
    prepare: () => bench.nested(),
    // No nested tables are where the second one leads; the TLB is to know nothing.
    set: (which) => {
      bench.write(bench.vmcb + Control.TLB_CONTROL, [1]);
      bench.setControl64(Control.N_CR3, which === 0 ? SvmPlace.NPT : 0x18_0000);
    },
    see: exitCode,
    seen: ["78", "400"],
  },
  {
    what: "CR4",
    group: Clean.CONTROL_REGISTERS,
    code: "0f 20 e0",
    set: field(Save.CR4, [0x20n, 0xa0n]),
    seen: [0x20n, 0xa0n],
  },
  {
    what: "EFER",
    group: Clean.CONTROL_REGISTERS,
    code: "b9 80 00 00 c0 0f 32",
    set: field(Save.EFER, [0x1d00n, 0x1d01n]),
    seen: [0x1d00n, 0x1d01n],
  },
  {
    what: "CR0",
    group: Clean.CONTROL_REGISTERS,
    code: "0f 20 c0",
    set: field(Save.CR0, [0x8001_0031n, 0x8000_0031n]),
    seen: [0x8001_0031n, 0x8000_0031n],
  },
  {
    what: "DR6",
    group: Clean.DEBUG_REGISTERS,
    code: "0f 21 f0",
    set: field(Save.DR6, [0xffff_0ff0n, 0xffff_0ff1n]),
    seen: [0xffff_0ff0n, 0xffff_0ff1n],
  },
  {
    what: "the base of GDTR",
    group: Clean.TABLES,
    // sgdt [rsp - 16]; mov rax, [rsp - 14]
    code: "0f 01 44 24 f0 48 8b 44 24 f2",
    set: field(Save.GDTR + 8, [0x1234n, 0x5678n]),
    seen: [0x1234n, 0x5678n],
  },
  {
    what: "the limit of IDTR",
    group: Clean.TABLES,
    // sidt [rsp - 16]; movzx eax, word [rsp - 16]
    code: "0f 01 4c 24 f0 0f b7 44 24 f0",
    set: (which) => bench.setControl32(Save.IDTR + 4, which === 0 ? 0xff : 0x1ff),
    seen: [0xffn, 0x1ffn],
  },
  {
    what: "the selector of DS",
    group: Clean.SEGMENTS,
    code: "31 c0 8c d8",
    set: (which) => bench.set16(bench.vmcb + Save.DS, which === 0 ? 0x18 : 0x28),
    seen: [0x18n, 0x28n],
  },
  {
    what: "CPL",
    group: Clean.SEGMENTS,
    code: "0f 06",
    // CLTS at CPL 3 is #GP, for which there is no handler.
    set: (which) => bench.write(bench.vmcb + Save.CPL, [which === 0 ? 0 : 3]),
    see: exitCode,
    seen: ["78", "7f"],
  },
  {
    what: "CR2",
    group: Clean.CR2,
    code: "0f 20 d0",
    set: field(Save.CR2, [0x1111n, 0x2222n]),
    seen: [0x1111n, 0x2222n],
  },
];

const ALL = -1;
const HLT = " f4";

/** Runs the guest from its start with these clean bits. */
function run({ code, see }: Row, clean: number): unknown {
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.setControl64(Save.RSP, SvmPlace.GUEST_STACK);
  bench.setControl32(Control.CLEAN_BITS, clean);
  bench.enter(code + HLT);
  return see === undefined ? bench.control64(Save.RAX) : see();
}

/** The control block with the first value in force, and the second one in memory. */
function begin(row: Row): void {
  bench.processor.reset();
  bench.vmcb = SvmPlace.VMCB;
  bench.guest();
  row.prepare?.();
  row.set(0);
  assertEquals(run(row, 0), row.seen[0], row.what);
  row.set(1);
}

Deno.test("behind a set clean bit the last run's value counts, behind a clear one what is in memory", () => {
  for (const row of ROWS) {
    const { what, group, seen } = row;
    begin(row);
    assertEquals(run(row, ALL), seen[0], `${what}, all clean`);
    // The exit has written the value in force.
    row.set(1);
    assertEquals(run(row, group), seen[0], `${what}, its own bit`);
    row.set(1);
    assertEquals(run(row, ~group), seen[1], `${what}, all others clean`);
  }
});

Deno.test("a VMCB that is not the cached one is loaded, whatever its clean bits", () => {
  for (const row of ROWS) {
    begin(row);
    const block = bench.block;
    bench.write(SvmPlace.VMCB2, block);
    bench.vmcb = SvmPlace.VMCB2;
    assertEquals(run(row, ALL), row.seen[1], `${row.what}, a second VMCB`);
    bench.vmcb = SvmPlace.VMCB;
    assertEquals(run(row, ALL), row.seen[1], `${row.what}, behind it`);
    begin(row);
    bench.setControl32(Control.ASID, 2);
    assertEquals(run(row, ALL), row.seen[1], `${row.what}, another ASID`);
    begin(row);
    bench.processor.reset();
    bench.host();
    assertEquals(run(row, ALL), row.seen[1], `${row.what}, behind RESET`);
  }
});

Deno.test("what is illegal is found behind a clear bit, and not behind a set one", () => {
  const row: Row = {
    what: "CR0",
    group: Clean.CONTROL_REGISTERS,
    code: "31 c0",
    set,
    seen: [0n, 0n],
  };
  function set(which: 0 | 1): void {
    // NW without CD.
    bench.setControl64(Save.CR0, which === 0 ? 0x8001_0031n : 0xa001_0031n);
  }
  begin(row);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.setControl32(Control.CLEAN_BITS, ALL);
  assertEquals(bench.enter("f4"), "78");
  set(1);
  bench.setControl32(Control.CLEAN_BITS, ~row.group);
  assertEquals(bench.enter("f4"), "invalid");
  // Nothing is cached of what was refused.
  bench.setControl32(Control.CLEAN_BITS, ALL);
  assertEquals(bench.enter("f4"), "invalid");
  set(0);
  assertEquals(bench.enter("f4"), "78");
});

Deno.test("the clean bits are the hypervisor's to write: an exit leaves them", () => {
  bench.guest();
  bench.setControl32(Control.CLEAN_BITS, 0x1234);
  assertEquals(bench.enter("f4"), "78");
  assertEquals(bench.control32(Control.CLEAN_BITS), 0x1234);
});
