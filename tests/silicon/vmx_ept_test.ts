/**
 * Extended page tables: permissions, misconfigurations, accessed and dirty flags, the page-modification
 * log, mode-based execute control, page sizes and levels, what stays cached and what drops it
 * (SDM vol. 3, ch. 29).
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, Primary, S, Secondary, Vmcs } from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { code } from "./code.ts";
import {
  At,
  type Entry,
  exitText,
  type Fields,
  standardFields,
  UNPAGED,
  VmxLab,
} from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;
const standard = standardFields();

/** Tables: PML5, PML4, PDPT, PD, PT of the 2 MiB at 40_0000h, and a PML4 of another space. */
const T = {
  PML5: At.SCRATCH,
  PML4: At.SCRATCH + 0x1000,
  PDPT: At.SCRATCH + 0x2000,
  PD: At.SCRATCH + 0x3000,
  PT: At.SCRATCH + 0x4000,
  LOG: At.SCRATCH + 0x6000,
  LIST: At.SCRATCH + 0x7000,
  OTHER_PML4: At.SCRATCH + 0x8000,
  OTHER_PDPT: At.SCRATCH + 0x9000,
  OTHER_PD: At.SCRATCH + 0xa000,
  OTHER_PT: At.SCRATCH + 0xb000,
} as const;

/** The page under test, by its own 4 KiB entry; linear, guest physical and host physical alike. */
const PAGE = 0x40_3000;
const PAGE_ENTRY = T.PT + 8 * 3;
/** Where another mapping of it leads. */
const ELSEWHERE = 0x40_5000;

const WB = 6n << 3n;
const ALL = 7n;

/** Identity tables in which everything is allowed. */
function tables(at: { PML4: number; PDPT: number; PD: number; PT: number } = T): void {
  for (const table of [at.PML4, at.PDPT, at.PD, at.PT]) bench.fill(table, 0x1000, 0);
  bench.set64(at.PML4, BigInt(at.PDPT) | ALL);
  bench.set64(at.PDPT, BigInt(at.PD) | ALL);
  for (let k = 0; k < 512; k++) {
    bench.set64(at.PD + 8 * k, BigInt(k * 0x20_0000) | ALL | WB | 0x80n);
  }
  bench.set64(at.PD + 16, BigInt(at.PT) | ALL);
  for (let k = 0; k < 512; k++) {
    bench.set64(at.PT + 8 * k, BigInt(0x40_0000 + k * 0x1000) | ALL | WB);
  }
}

const pointer = (root: number, flags = false, levels = 4): bigint =>
  BigInt(root) | 6n | (BigInt(levels - 1) << 3n) | (flags ? 0x40n : 0n);

function ept(eptp: bigint, bits = 0, more: Fields = {}): Fields {
  return {
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
      BigInt(Primary.SECONDARY >>> 0),
    [Vmcs.SECONDARY_CONTROLS]: (Secondary.EPT | bits) >>> 0,
    [Vmcs.EPT_POINTER]: eptp,
    ...more,
  };
}

function run(bytes: string, fields: Fields): Entry {
  lab.start();
  bench.write(At.GUEST, [...code(bytes), 0xf4]);
  bench.fill(PAGE, 0x1000, 0xf4);
  bench.fill(ELSEWHERE, 0x1000, 0x55);
  lab.prepare(fields);
  bench.state.setRegister(3, BigInt(PAGE));
  return lab.enter();
}

const ACCESS = { read: "8a 03", write: "88 03", fetch: "ff e3" } as const;
type Access = keyof typeof ACCESS;
const KINDS: readonly Access[] = ["read", "write", "fetch"];
const BIT = { read: 1n, write: 2n, fetch: 4n } as const;

const text = (entry: Entry): string => exitText(entry);

/** The violation that an access with this bit meets, given the permissions of all levels. */
const violation = (kind: Access, allowed: bigint): string =>
  `EPT_VIOLATION ${(BIT[kind] | (allowed << 3n) | 0x180n).toString(16)}`;

Deno.test("every combination of read, write and execute, each access", () => {
  for (let bits = 0n; bits < 8n; bits++) {
    tables();
    bench.set64(PAGE_ENTRY, BigInt(PAGE) | bits | WB);
    for (const kind of KINDS) {
      const is = text(run(ACCESS[kind], ept(pointer(T.PML4))));
      const writeOnly = (bits & 3n) === 2n;
      const expected = writeOnly
        ? "EPT_MISCONFIGURATION"
        : (bits & BIT[kind]) !== 0n
        ? "HLT"
        : violation(kind, bits);
      assertEquals(is, expected, `${bits} ${kind}`);
      if (is === "HLT") continue;
      assertEquals(lab.read(Vmcs.GUEST_PHYSICAL_ADDRESS), BigInt(PAGE));
      if (!writeOnly) assertEquals(lab.read(Vmcs.GUEST_LINEAR_ADDRESS), BigInt(PAGE));
      assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(kind === "fetch" ? PAGE : At.GUEST));
    }
  }
});

Deno.test("a level above takes permissions away", () => {
  for (const table of [T.PML4, T.PDPT, T.PD + 16]) {
    for (let bits = 0n; bits < 8n; bits++) {
      if ((bits & 3n) === 2n) continue;
      tables();
      // The guest's own code and tables are elsewhere for the page directory only.
      if (table !== T.PD + 16 && (bits & 5n) !== 5n) continue;
      const old = bench.get64(table);
      bench.set64(table, (old & ~7n) | bits);
      for (const kind of KINDS) {
        const expected = (bits & BIT[kind]) !== 0n ? "HLT" : violation(kind, bits);
        assertEquals(
          text(run(ACCESS[kind], ept(pointer(T.PML4)))),
          expected,
          `${table} ${bits} ${kind}`,
        );
      }
    }
  }
});

Deno.test("misconfigurations: reserved bits, memory types", () => {
  const bad = (at: number, value: bigint, expected = "EPT_MISCONFIGURATION"): void => {
    tables();
    bench.set64(at, value);
    assertEquals(text(run(ACCESS.read, ept(pointer(T.PML4)))), expected, value.toString(16));
  };
  const page = BigInt(PAGE) | ALL;
  for (let type = 0n; type < 8n; type++) {
    const exists = type !== 2n && type !== 3n && type !== 7n;
    bad(PAGE_ENTRY, page | (type << 3n), exists ? "HLT" : "EPT_MISCONFIGURATION");
  }
  bad(PAGE_ENTRY, page | WB | (1n << 48n));
  bad(PAGE_ENTRY, page | WB | (1n << 51n));
  // Bits 11:8 and 62:52 are ignored.
  bad(PAGE_ENTRY, page | WB | 0xb00n | (0x1n << 52n) | (1n << 59n), "HLT");
  // A table's bits 6:3 are reserved, and bit 7 where there is no page of that size.
  for (const bit of [3n, 4n, 5n, 6n]) bad(T.PD + 16, BigInt(T.PT) | ALL | (1n << bit));
  for (const bit of [3n, 6n, 7n]) bad(T.PML4, BigInt(T.PDPT) | ALL | (1n << bit));
  // A large page's low address bits.
  bad(T.PD + 16, 0x40_0000n | ALL | WB | 0x80n, "HLT");
  bad(T.PD + 16, 0x40_1000n | ALL | WB | 0x80n);
  bad(T.PDPT, 0n | ALL | WB | 0x80n, "HLT");
  bad(T.PDPT, 0x20_0000n | ALL | WB | 0x80n);
});

Deno.test("1 GiB pages and five levels only where the processor has them", () => {
  const plain = new VmxLab("skylake-sp", { ept_1gb: false });
  plain.bench.fill(At.SCRATCH, 0x3000, 0);
  plain.bench.set64(T.PML4, BigInt(T.PDPT) | ALL);
  plain.bench.set64(T.PDPT, ALL | WB | 0x80n);
  assertEquals(text(plain.guest("90", ept(pointer(T.PML4)))), "EPT_MISCONFIGURATION");
  assertEquals(text(plain.guest("90", ept(pointer(T.PML5, false, 5)))), "VMfail 7");
  tables();
  bench.fill(T.PML5, 0x1000, 0);
  bench.set64(T.PML5, BigInt(T.PML4) | ALL);
  assertEquals(text(run(ACCESS.write, ept(pointer(T.PML5, false, 5)))), "HLT");
  bench.set64(T.PML5, BigInt(T.PML4) | 5n);
  assertEquals(text(run("90 8a 03", ept(pointer(T.PML5, true, 5)))), "EPT_VIOLATION ab");
});

Deno.test("the guest's own tables: what a violation in their walk reports", () => {
  // The guest's page directory is at 42000h: take the first 2 MiB apart.
  const low = T.OTHER_PT;
  const setUp = (bits: bigint): void => {
    tables();
    bench.set64(T.PD, BigInt(low) | ALL);
    for (let k = 0; k < 512; k++) bench.set64(low + 8 * k, BigInt(k * 0x1000) | ALL | WB);
    bench.set64(
      low + 8 * ((Place.TABLES + 0x2000) >> 12),
      BigInt(Place.TABLES + 0x2000) | bits | WB,
    );
  };
  const dirty = bench.get64(Place.TABLES + 0x2000 + 16);
  setUp(0n);
  assertEquals(text(run(ACCESS.read, ept(pointer(T.PML4)))), "EPT_VIOLATION 81");
  assertEquals(lab.read(Vmcs.GUEST_PHYSICAL_ADDRESS) & ~0xfffn, BigInt(Place.TABLES + 0x2000));
  // Its accessed bits are set already, so reading is enough.
  setUp(1n);
  assertEquals(text(run(ACCESS.read, ept(pointer(T.PML4)))), "HLT");
  // Unless they have to be set.
  bench.set64(Place.TABLES + 0x2000 + 16, dirty & ~0x60n);
  assertEquals(text(run(ACCESS.read, ept(pointer(T.PML4)))), "EPT_VIOLATION 8b");
  assertEquals(bench.get64(Place.TABLES + 0x2000 + 16), dirty & ~0x60n);
  bench.set64(Place.TABLES + 0x2000 + 16, dirty);
  // With accessed and dirty flags for EPT a walk always counts as writing.
  assertEquals(text(run(ACCESS.read, ept(pointer(T.PML4, true)))), "EPT_VIOLATION 8b");
});

Deno.test("accessed and dirty flags: set at each level used, dirty at the page for a write", () => {
  const flags = (at: number): string => (bench.get64(at) & 0x300n).toString(16);
  for (const [kind, leaf] of [["read", "100"], ["write", "300"], ["fetch", "100"]] as const) {
    tables();
    assertEquals(text(run(ACCESS[kind], ept(pointer(T.PML4, true)))), "HLT");
    assertEquals(
      [T.PML4, T.PDPT, T.PD + 16, PAGE_ENTRY].map(flags),
      ["100", "100", "100", leaf],
      kind,
    );
    tables();
    assertEquals(text(run(ACCESS[kind], ept(pointer(T.PML4)))), "HLT");
    assertEquals([T.PML4, T.PDPT, T.PD + 16, PAGE_ENTRY].map(flags), ["0", "0", "0", "0"], kind);
  }
  // A violation leaves the page's flags.
  tables();
  bench.set64(PAGE_ENTRY, BigInt(PAGE) | 5n | WB);
  assertEquals(text(run(ACCESS.write, ept(pointer(T.PML4, true)))), violation("write", 5n));
  assertEquals(flags(PAGE_ENTRY), "0");
});

Deno.test("the page-modification log: an address for each page that becomes dirty, an exit when it is full", () => {
  const pml = (index: number): Fields =>
    ept(pointer(T.PML4, true), Secondary.PML, {
      [Vmcs.PML_ADDRESS]: T.LOG,
      [Vmcs.PML_INDEX]: index,
    });
  tables();
  bench.fill(T.LOG, 0x1000, 0);
  // mov [rbx],al; mov [rbx+8],al; mov [rbx+1000h],al
  assertEquals(text(run("88 03 88 43 08 88 83 00 10 00 00", pml(511))), "HLT");
  const logged = new Set<bigint>();
  const left = Number(lab.read(Vmcs.PML_INDEX));
  for (let k = 511; k > left; k--) logged.add(bench.get64(T.LOG + 8 * k));
  // The two pages once each, and the guest's tables, which the walk writes.
  assertEquals(logged.size, 511 - left);
  assertEquals([PAGE, PAGE + 0x1000].every((page) => logged.has(BigInt(page))), true);
  assertEquals([...logged].every((page) => (page & 0xfffn) === 0n), true);
  // Index FFFFh: full. The write has not been done.
  tables();
  assertEquals(text(run("88 03", pml(0xffff))), "PML_FULL");
  assertEquals(bench.get64(PAGE_ENTRY) & 0x200n, 0n);
  tables();
  assertEquals(text(run("88 03", pml(0x200))), "PML_FULL");
});

Deno.test("mode-based execute control: bit 2 for supervisor, bit 10 for user linear addresses", () => {
  const MBEC = Secondary.MODE_BASED_EXECUTE;
  // The bench's tables map with U/S set or clear by the page directory's entry.
  const entry = Place.TABLES + 0x2000 + 16;
  const old = bench.get64(entry);
  const top = [Place.TABLES, Place.TABLES + 0x1000];
  const tops = top.map((at) => bench.get64(at));
  for (const user of [false, true]) {
    for (const [k, at] of top.entries()) bench.set64(at, tops[k]! | 4n);
    bench.set64(entry, user ? old | 4n : old & ~4n);
    for (const bits of [0x1n, 0x5n, 0x401n, 0x405n]) {
      tables();
      for (const at of [T.PML4, T.PDPT, T.PD + 16]) bench.set64(at, bench.get64(at) | 0x400n);
      for (let k = 0; k < 4; k++) {
        if (k !== 2) bench.set64(T.PD + 8 * k, bench.get64(T.PD + 8 * k) | 0x400n);
      }
      bench.set64(PAGE_ENTRY, BigInt(PAGE) | bits | WB);
      const allowed = (bits & (user ? 0x400n : 4n)) !== 0n;
      const is = text(run(ACCESS.fetch, ept(pointer(T.PML4), MBEC)));
      const permissions = ((bits & 7n) << 3n) | ((bits & 0x400n) !== 0n ? 0x40n : 0n);
      const expected = allowed ? "HLT" : `EPT_VIOLATION ${(0x184n | permissions).toString(16)}`;
      assertEquals(is, expected, `${user} ${bits.toString(16)}`);
      // Without the control bit 10 is ignored.
      const plain = text(run(ACCESS.fetch, ept(pointer(T.PML4))));
      assertEquals(plain === "HLT", (bits & 4n) !== 0n);
    }
  }
  bench.set64(entry, old);
  for (const [k, at] of top.entries()) bench.set64(at, tops[k]!);
});

Deno.test("an unrestricted guest without paging, and in real mode", () => {
  const UG = Secondary.UNRESTRICTED_GUEST;
  tables();
  assertEquals(text(run("b0 05 88 03", { ...UNPAGED, ...ept(pointer(T.PML4), UG) })), "HLT");
  bench.set64(PAGE_ENTRY, BigInt(PAGE) | 1n | WB);
  assertEquals(
    text(run("b0 05 88 03", { ...UNPAGED, ...ept(pointer(T.PML4), UG) })),
    violation("write", 1n),
  );
  const real: Record<number, bigint | number> = { ...UNPAGED, ...ept(pointer(T.PML4), UG) };
  for (let k = 0; k < 6; k++) {
    real[Vmcs.GUEST_ES_SELECTOR + 2 * k] = 0x1000;
    real[Vmcs.GUEST_ES_BASE + 2 * k] = 0x1_0000;
    real[Vmcs.GUEST_ES_LIMIT + 2 * k] = 0xffff;
    real[Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k] = k === 1 ? 0x9b : 0x93;
  }
  real[Vmcs.GUEST_CR0] = Cr0.NE | Cr0.ET;
  real[Vmcs.GUEST_RIP] = 0x8000;
  tables();
  // mov ax, 1234h; mov [9000h], ax; hlt
  bench.write(0x1_8000, code("b8 34 12 a3 00 90 f4"));
  assertEquals(text(run("90", real)), "HLT");
  assertEquals(bench.get16(0x1_9000), 0x1234);
  // CR0.PE may be set and cleared by such a guest, NE not.
  bench.write(0x1_8000, code("66 b8 20 00 00 00 0f 22 c0 f4"));
  assertEquals(text(run("90", real)), "HLT");
  bench.write(0x1_8000, code("66 b8 00 00 00 00 0f 22 c0 f4"));
  assertEquals(text(run("90", { ...real, [Vmcs.EXCEPTION_BITMAP]: 1 << 13 })), "EXCEPTION_OR_NMI");
});

Deno.test("PAE paging under EPT: the entries come from the VMCS and go back there", () => {
  tables();
  const pdptes = At.SCRATCH + 0xc000;
  bench.fill(pdptes, 0x40, 0);
  const pae: Fields = {
    ...UNPAGED,
    [Vmcs.GUEST_CR0]: standard[Vmcs.GUEST_CR0]!,
    [Vmcs.GUEST_CR4]: Cr4.PAE | Cr4.VMXE,
    [Vmcs.GUEST_CR3]: pdptes,
    ...ept(pointer(T.PML4)),
    [Vmcs.GUEST_PDPTE0]: BigInt(Place.TABLES + 0x2000) | 1n,
  };
  // Memory has none, so what counts are the VMCS's.
  assertEquals(text(run("8a 03", pae)), "HLT");
  assertEquals(lab.read(Vmcs.GUEST_PDPTE0), BigInt(Place.TABLES + 0x2000) | 1n);
  assertEquals(
    text(run("8a 03", { ...pae, [Vmcs.GUEST_PDPTE1]: 0x1e7n })),
    "entry failure, INVALID_GUEST_STATE 2",
  );
  // MOV to CR3 reads them from memory, through EPT.
  bench.set64(pdptes, BigInt(Place.TABLES + 0x2000) | 1n);
  bench.set64(pdptes + 8, 0x7000n | 1n);
  assertEquals(text(run("0f 20 d8 0f 22 d8", pae)), "HLT");
  assertEquals(lab.read(Vmcs.GUEST_PDPTE1), 0x7001n);
  bench.set64(pdptes + 8, 0x7000n | 3n);
  assertEquals(
    text(run("0f 20 d8 0f 22 d8", { ...pae, [Vmcs.EXCEPTION_BITMAP]: 1 << 13 })),
    "EXCEPTION_OR_NMI",
  );
});

/** Reads [rbx] into CL, exits, and reads it into DL behind the next entry. */
const TWICE = "8a 0b f4 8a 13";
const VPID = Secondary.VPID;

function again(between: () => void): number {
  between();
  lab.write({ [Vmcs.GUEST_RIP]: At.GUEST + 3 });
  bench.state.setRegister(3, BigInt(PAGE));
  assertEquals(text(lab.enter(false)), "HLT");
  return Number(bench.state.register(2)) & 0xff;
}

/** Executes INVEPT or INVVPID. */
function invalidate(instruction: "invept" | "invvpid", type: number, low: bigint, high = 0n): void {
  bench.set64(At.POINTER, low);
  bench.set64(At.POINTER + 8, high);
  bench.state.setRegister(0, BigInt(type));
  bench.state.setRegister(3, BigInt(At.POINTER));
  const opcode = instruction === "invept" ? "80" : "81";
  assertEquals(lab.run(code(`66 0f 38 ${opcode} 03`)), "VMsucceed");
}

Deno.test("with a VPID translations outlast exits, until INVEPT or INVVPID drops them", () => {
  const remap = (): void => bench.set64(PAGE_ENTRY, BigInt(ELSEWHERE) | ALL | WB);
  const eptp = pointer(T.PML4);
  const first = (bits: number): void => {
    tables();
    assertEquals(text(run(TWICE, ept(eptp, bits, { [Vmcs.VPID]: 5 }))), "HLT");
    assertEquals(Number(bench.state.register(1)) & 0xff, 0xf4);
  };
  // Without one, an entry starts afresh.
  first(0);
  assertEquals(again(remap), 0x55);
  first(VPID);
  assertEquals(again(remap), 0xf4);
  const drops: readonly (readonly ["invept" | "invvpid", number, bigint, bigint, number])[] = [
    ["invept", 1, eptp, 0n, 0x55],
    ["invept", 1, pointer(T.OTHER_PML4), 0n, 0xf4],
    ["invept", 2, 0n, 0n, 0x55],
    ["invvpid", 0, 5n, BigInt(PAGE), 0x55],
    ["invvpid", 0, 6n, BigInt(PAGE), 0xf4],
    ["invvpid", 1, 5n, 0n, 0x55],
    ["invvpid", 1, 6n, 0n, 0xf4],
    ["invvpid", 2, 0n, 0n, 0x55],
    ["invvpid", 3, 5n, 0n, 0x55],
  ];
  for (const [instruction, type, low, high, expected] of drops) {
    first(VPID);
    const is = again(() => {
      remap();
      invalidate(instruction, type, low, high);
    });
    assertEquals(is, expected, `${instruction} ${type} ${low.toString(16)}`);
  }
  // Another EPT pointer means other translations, under the same VPID.
  tables({ PML4: T.OTHER_PML4, PDPT: T.OTHER_PDPT, PD: T.OTHER_PD, PT: T.OTHER_PT });
  bench.set64(T.OTHER_PT + 24, BigInt(ELSEWHERE) | ALL | WB);
  first(VPID);
  assertEquals(again(() => lab.write({ [Vmcs.EPT_POINTER]: pointer(T.OTHER_PML4) })), 0x55);
});

Deno.test("VMFUNC switches the EPT pointer to one of the list", () => {
  tables();
  tables({ PML4: T.OTHER_PML4, PDPT: T.OTHER_PDPT, PD: T.OTHER_PD, PT: T.OTHER_PT });
  bench.set64(T.OTHER_PT + 24, BigInt(ELSEWHERE) | ALL | WB);
  bench.fill(T.LIST, 0x1000, 0);
  bench.set64(T.LIST, pointer(T.PML4));
  bench.set64(T.LIST + 8, pointer(T.OTHER_PML4));
  const fields = ept(pointer(T.PML4), Secondary.VM_FUNCTIONS, {
    [Vmcs.VM_FUNCTION_CONTROLS]: 1,
    [Vmcs.EPTP_LIST_ADDRESS]: T.LIST,
  });
  // mov cl,[rbx]; push rcx; xor eax,eax; mov ecx, n; vmfunc; pop rcx; mov dl,[rbx]
  const program = (eax: number, ecx: number): string =>
    `8a 0b 51 b8 0${eax} 00 00 00 b9 ${
      ecx.toString(16).padStart(4, "0").replace(/(..)(..)/, "$2 $1")
    } 00 00 0f 01 d4 59 8a 13`;
  assertEquals(text(run(program(0, 1), fields)), "HLT");
  assertEquals(Number(bench.state.register(1)) & 0xff, 0xf4);
  assertEquals(Number(bench.state.register(2)) & 0xff, 0x55);
  assertEquals(lab.read(Vmcs.EPT_POINTER), pointer(T.OTHER_PML4));
  // Another function, an index beyond the list, an entry that is no EPT pointer.
  assertEquals(text(run(program(1, 0), fields)), "VMFUNC");
  assertEquals(text(run(program(0, 0x200), fields)), "VMFUNC");
  assertEquals(text(run(program(0, 2), fields)), "VMFUNC");
  assertEquals(lab.read(Vmcs.EPT_POINTER), pointer(T.PML4));
  // The control off: #UD. The function off: an exit.
  assertEquals(
    text(run(program(0, 1), { ...ept(pointer(T.PML4)), [Vmcs.EXCEPTION_BITMAP]: 1 << 6 })),
    "EXCEPTION_OR_NMI",
  );
  assertEquals(text(run(program(0, 1), { ...fields, [Vmcs.VM_FUNCTION_CONTROLS]: 0 })), "VMFUNC");
  assertEquals(bench.state.get32(S.nonRoot), 0);
});
