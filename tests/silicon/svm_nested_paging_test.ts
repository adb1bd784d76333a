/**
 * Nested paging: faults and their error codes, accessed and dirty bits, page sizes, the modes of guest and
 * host, PAT (APM vol. 2, 15.25).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Cr0,
  Cr4,
  Efer,
  InterceptWord,
  Msr,
  S,
  Save,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { Pf, Pte } from "./page_path.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();

/** A page that tests take away. */
const PAGE = 0x15_0000;
const GUEST_CODE = BigInt(SvmPlace.GUEST_CODE);

const register = (n: number, value: bigint | number): void => {
  bench.state.setRegister(n, BigInt(value));
};

const FINAL = 1n << 32n;
const TABLE = 1n << 33n;

interface Nested {
  readonly name: string;
  readonly access: "read" | "write" | "fetch";
  readonly cpl?: 0 | 3;
  /** Flags of the nested entry; 0 for none. */
  readonly flags: bigint;
  /** Error code, or `undefined` if the access is fine. */
  readonly error: number | undefined;
}

const ALL = Pte.P | Pte.RW | Pte.US;
const NESTED: readonly Nested[] = [
  { name: "absent, read", access: "read", flags: 0n, error: Pf.US },
  { name: "absent, write", access: "write", flags: 0n, error: Pf.US | Pf.RW },
  { name: "absent, fetch", access: "fetch", flags: 0n, error: Pf.US | Pf.ID },
  { name: "absent, read at CPL 3", access: "read", cpl: 3, flags: 0n, error: Pf.US },
  { name: "all allowed, read", access: "read", flags: ALL, error: undefined },
  { name: "all allowed, write", access: "write", flags: ALL, error: undefined },
  { name: "all allowed, fetch", access: "fetch", flags: ALL, error: undefined },
  { name: "read-only, read", access: "read", flags: Pte.P | Pte.US, error: undefined },
  { name: "read-only, write", access: "write", flags: Pte.P | Pte.US, error: Pf.P | Pf.US | Pf.RW },
  {
    name: "read-only, write at CPL 3",
    access: "write",
    cpl: 3,
    flags: Pte.P | Pte.US,
    error: Pf.P | Pf.US | Pf.RW,
  },
  { name: "supervisor, read", access: "read", flags: Pte.P | Pte.RW, error: Pf.P | Pf.US },
  {
    name: "supervisor, fetch",
    access: "fetch",
    flags: Pte.P | Pte.RW,
    error: Pf.P | Pf.US | Pf.ID,
  },
  { name: "NX, read", access: "read", flags: ALL | Pte.NX, error: undefined },
  { name: "NX, fetch", access: "fetch", flags: ALL | Pte.NX, error: Pf.P | Pf.US | Pf.ID },
  {
    name: "reserved, read",
    access: "read",
    flags: ALL | (1n << 48n),
    error: Pf.P | Pf.US | Pf.RSV,
  },
  {
    name: "reserved, write",
    access: "write",
    flags: ALL | (1n << 51n),
    error: Pf.P | Pf.US | Pf.RSV | Pf.RW,
  },
];

/** RBX points at the page; the code reads, writes or calls it. */
const ACCESS = { read: "8b 03 f4", write: "c6 03 55 f4", fetch: "ff e3" } as const;

/** How many of `flags` are set, and whether accessed and dirty are. */
const marks = (entry: bigint): bigint => entry & (Pte.A | Pte.D);

Deno.test("nested page faults: final accesses, and the accessed and dirty bits they leave", () => {
  for (const { name, access, cpl = 0, flags, error } of NESTED) {
    bench.guest("long", cpl);
    bench.nested();
    // HLT at CPL 3 is a #GP: an exit as good as any.
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.GP);
    register(3, PAGE);
    bench.write(PAGE, [0xf4]);
    const entry = bench.pageEntry(SvmPlace.NPT, PAGE);
    bench.set64(entry, flags === 0n ? 0n : BigInt(PAGE) | flags);
    const before = bench.block;
    const exit = bench.enter(ACCESS[access]);
    if (error === undefined) {
      assertEquals(exit, cpl === 0 ? "78" : "4d", name);
      assertEquals(marks(bench.get64(entry)), Pte.A | (access === "write" ? Pte.D : 0n), name);
      continue;
    }
    assertEquals(exit, "400", name);
    assertEquals(bench.info, [BigInt(error) | FINAL, BigInt(PAGE)], name);
    assertEquals(marks(bench.get64(entry)), 0n, name);
    const rip = access === "fetch" ? BigInt(PAGE) : GUEST_CODE;
    assertEquals(bench.control64(Save.RIP), rip, name);
    assertEquals(bench.control64(Control.NRIP), 0n, name);
    if (access !== "fetch") {
      assertEquals(bench.block.subarray(0x400), before.subarray(0x400), name);
    }
  }
});

Deno.test("the guest's physical address is told with its offset", () => {
  bench.guest();
  bench.nested();
  // The guest maps the page elsewhere.
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, 0x3000), BigInt(PAGE) | 0x67n);
  bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), 0n);
  register(3, 0x3abc);
  assertEquals(bench.enter("8b 03"), "400");
  assertEquals(bench.info, [BigInt(Pf.US) | FINAL, BigInt(PAGE + 0xabc)]);
  assertEquals(bench.control64(Save.CR2), 0n);
});

Deno.test("the guest's page tables are walked as user writes of the nested level", () => {
  const data = SvmPlace.GUEST_DATA;
  for (const access of ["read", "write", "fetch"] as const) {
    for (let level = 0; level < 4; level++) {
      const table = SvmPlace.GUEST_TABLES + 0x1000 * level;
      const index = level < 3 ? 0 : data >>> 12;
      for (
        const [flags, error] of [
          [0n, Pf.US | Pf.RW],
          [Pte.P | Pte.US, Pf.P | Pf.US | Pf.RW],
          [Pte.P | Pte.RW, Pf.P | Pf.US | Pf.RW],
          [ALL | (1n << 48n), Pf.P | Pf.US | Pf.RW | Pf.RSV],
          [ALL | Pte.NX, undefined],
        ] as const
      ) {
        bench.guest();
        bench.nested();
        register(3, data);
        bench.write(data, [0xf4]);
        // The code's own walk must not meet it first: code and data share all levels but the last, so
        // code is fetched before the entry is changed by the guest itself, through another mapping.
        const entry = bench.pageEntry(SvmPlace.NPT, table);
        const value = flags === 0n ? 0n : BigInt(table) | flags;
        bench.set64(entry, value);
        const exit = bench.enter(ACCESS[access]);
        if (error === undefined) {
          assertEquals(exit, "78", `${access} level ${level}`);
          assertEquals(marks(bench.get64(entry)), Pte.A | Pte.D);
          continue;
        }
        assertEquals(exit, "400", `${access} level ${level}`);
        // The first walk through the table is that of the code, with its own entry of the last level.
        const first = level < 3 ? index : SvmPlace.GUEST_CODE >>> 12;
        assertEquals(
          bench.info,
          [BigInt(error) | TABLE, BigInt(table + 8 * first)],
          `${access} level ${level}`,
        );
        assertEquals(marks(bench.get64(entry)), 0n);
      }
    }
  }
});

Deno.test("faults come level by level: nested, then guest, then the final nested one", () => {
  const walk = (nestedTable: boolean, guest: boolean, final: boolean): string => {
    bench.guest();
    bench.nested();
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    // The page's last-level table is one of its own, in the second 2 MiB.
    const linear = 0x20_0000 + 0x5000;
    const table = 0x16_0000;
    bench.fill(table, 0x1000, 0);
    bench.set64(SvmPlace.GUEST_TABLES + 0x2000 + 8, BigInt(table) | 0x27n);
    bench.set64(table + 8 * 5, guest ? 0n : BigInt(PAGE) | 0x67n);
    if (nestedTable) bench.set64(bench.pageEntry(SvmPlace.NPT, table), 0n);
    if (final) bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), 0n);
    register(3, linear);
    const exit = bench.enter("8b 03 f4");
    return exit === "400" ? `${exit} ${(bench.info[0] >> 32n)}` : exit;
  };
  assertEquals(walk(true, true, true), "400 2");
  assertEquals(walk(true, false, false), "400 2");
  assertEquals(walk(false, true, true), "4e");
  assertEquals(walk(false, false, true), "400 1");
  assertEquals(walk(false, false, false), "78");
});

Deno.test("the guest's CR0.WP does not open what the nested level keeps read-only", () => {
  for (const wp of [false, true]) {
    bench.guest();
    bench.nested();
    if (!wp) bench.clearControl64(Save.CR0, Cr0.WP);
    const own = bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE);
    bench.set64(own, BigInt(PAGE) | Pte.P | Pte.US);
    register(3, PAGE);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    assertEquals(bench.enter(ACCESS.write), wp ? "4e" : "78");
    bench.set64(own, BigInt(PAGE) | ALL);
    const nested = bench.pageEntry(SvmPlace.NPT, PAGE);
    bench.set64(nested, BigInt(PAGE) | Pte.P | Pte.US);
    bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
    bench.host();
    register(3, PAGE);
    assertEquals(bench.enter(ACCESS.write), "400");
  }
});

Deno.test("a guest without paging: linear addresses are guest physical ones", () => {
  bench.guest("protected");
  bench.nested();
  bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), 0n);
  register(3, PAGE + 4);
  assertEquals(bench.enter(ACCESS.read), "400");
  assertEquals(bench.info, [BigInt(Pf.US) | FINAL, BigInt(PAGE + 4)]);
});

Deno.test("the host's NXE and SMEP rule the nested level, the guest's NXE the guest's", () => {
  // The guest's pages are for everyone, so that it cannot run with SMEP.
  for (const flags of [0, 1, 2, 3, 4, 5, 6, 7]) {
    const [hostNxe, hostSmep, guestNxe] = [1, 2, 4].map((bit) => (flags & bit) !== 0);
    for (const where of ["guest", "nested"] as const) {
      bench.guest();
      bench.nested();
      if (hostSmep) {
        // The host runs from a page of its own.
        const large = Place.TABLES + 0x2000;
        bench.set64(large, bench.get64(large) & ~Pte.US);
        bench.state.set(S.cr4, bench.state.get(S.cr4) | BigInt(Cr4.SMEP));
      }
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
      const guestEfer = Efer.SVME | Efer.LME | Efer.LMA | (guestNxe ? Efer.NXE : 0);
      bench.setControl64(Save.EFER, guestEfer);
      const hostEfer = Efer.SVME | Efer.LME | Efer.LMA | (hostNxe ? Efer.NXE : 0);
      bench.processor.writeMsr(Msr.EFER, BigInt(hostEfer));
      const root = where === "guest" ? SvmPlace.GUEST_TABLES : SvmPlace.NPT;
      const entry = bench.pageEntry(root, PAGE);
      bench.set64(entry, bench.get64(entry) | Pte.NX);
      register(3, PAGE);
      bench.write(PAGE, [0xf4]);
      const exit = bench.enter(ACCESS.fetch);
      const nxe = where === "guest" ? guestNxe : hostNxe;
      const smep = where === "nested" && hostSmep;
      const name = `flags ${flags} in ${where} tables`;
      assertEquals(exit, where === "guest" ? "4e" : "400", name);
      // Without NXE the bit is reserved; a fetch is told from a read where either can forbid it.
      const rsv = (nxe ? 0 : Pf.RSV) | (nxe || smep ? Pf.ID : 0);
      const expected = where === "guest" ? Pf.P | rsv : Pf.P | Pf.US | rsv;
      assertEquals(bench.info[0] & 0xffffn, BigInt(expected), name);
    }
  }
});

Deno.test("large pages on either level, and both", () => {
  const linear = 0x20_0000 + 0x1_2345;
  for (const guestLarge of [false, true]) {
    for (const nestedLarge of [false, true]) {
      bench.guest();
      bench.nested();
      const table = 0x16_0000;
      const nestedTable = 0x17_0000;
      for (let k = 0; k < 512; k++) {
        bench.set64(table + 8 * k, BigInt(0x40_0000 + (k << 12)) | 0x67n);
        bench.set64(nestedTable + 8 * k, BigInt(0x60_0000 + (k << 12)) | 0x67n);
      }
      bench.set64(
        SvmPlace.GUEST_TABLES + 0x2008,
        guestLarge ? 0x40_0000n | 0xe7n : BigInt(table) | 0x27n,
      );
      bench.set64(
        SvmPlace.NPT + 0x2010,
        nestedLarge ? 0x60_0000n | 0xe7n : BigInt(nestedTable) | 0x27n,
      );
      register(3, linear);
      bench.write(0x60_0000 + 0x1_2345, [0]);
      assertEquals(bench.enter(ACCESS.write), "78");
      assertEquals(bench.read(0x60_0000 + 0x1_2345, 1)[0], 0x55);
    }
  }
});

Deno.test("pages of 1 GiB on either level", () => {
  for (const level of ["guest", "nested", "both"] as const) {
    bench.guest();
    bench.nested();
    const gib = 0xe7n;
    if (level !== "nested") bench.set64(SvmPlace.GUEST_TABLES + 0x1000, gib);
    if (level !== "guest") bench.set64(SvmPlace.NPT + 0x1000, gib);
    register(3, PAGE + 5);
    bench.write(PAGE + 5, [0]);
    assertEquals(bench.enter(ACCESS.write), "78", level);
    assertEquals(bench.read(PAGE + 5, 1)[0], 0x55, level);
  }
});

Deno.test("reserved bits of large nested entries, and of those that cannot be large", () => {
  // Offset of the entry from the nested root, what is or-ed to a large one, whether that is an error.
  const cases: readonly (readonly [string, number, bigint, boolean])[] = [
    ["2 MiB, bit 13", 0x2000, 1n << 13n, true],
    ["2 MiB, bit 20", 0x2000, 1n << 20n, true],
    ["2 MiB, PAT", 0x2000, 1n << 12n, false],
    ["1 GiB, bit 13", 0x1000, 1n << 13n, true],
    ["1 GiB, bit 29", 0x1000, 1n << 29n, true],
    ["1 GiB, PAT", 0x1000, 1n << 12n, false],
    ["PML4, PS", 0, 0n, true],
  ];
  for (const [name, offset, bits, wrong] of cases) {
    bench.guest();
    bench.nested();
    bench.set64(SvmPlace.NPT + offset, 0xe7n | bits);
    const exit = bench.enter("f4");
    assertEquals(exit, wrong ? "400" : "78", name);
    // The first walk is that of the guest's own tables.
    const error = BigInt(Pf.P | Pf.RW | Pf.US | Pf.RSV) | TABLE;
    if (wrong) assertEquals(bench.info, [error, BigInt(SvmPlace.GUEST_TABLES)], name);
  }
});

Deno.test("nested tables of a 32-bit host: PAE and legacy", () => {
  for (const pae of [true, false]) {
    for (const present of [true, false]) {
      bench.guest();
      bench.nested();
      if (pae) {
        const pdpt = SvmPlace.NPT + 0x1fe0;
        for (let k = 0; k < 4; k++) bench.set64(pdpt + 8 * k, 0n);
        bench.set64(pdpt, BigInt(SvmPlace.NPT + 0x2000) | 1n);
        bench.setControl64(Control.N_CR3, pdpt);
        if (!present) bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), 0n);
      } else {
        const directory = 0x16_0000;
        const table = 0x16_1000;
        bench.fill(directory, 0x1000, 0);
        for (let k = 0; k < 1024; k++) bench.set32(table + 4 * k, (k << 12) | 0x67);
        bench.set32(directory, table | 0x27);
        bench.setControl64(Control.N_CR3, directory);
        if (!present) bench.set32(table + 4 * (PAGE >>> 12), 0);
      }
      const hostPdpt = Place.TABLES + 0x3000;
      for (let k = 0; k < 4; k++) bench.set64(hostPdpt + 8 * k, 0n);
      bench.set64(hostPdpt, BigInt(Place.TABLES + 0x2000) | 1n);
      if (pae) bench.protect(0, { cr3: hostPdpt, cr4: Cr4.PAE, efer: Efer.SVME });
      else {
        const directory = Place.TABLES + 0x4000;
        for (let k = 0; k < 2; k++) bench.set32(directory + 4 * k, (k << 22) | 0xe7);
        bench.protect(0, { cr3: directory, cr4: Cr4.PSE, efer: Efer.SVME });
      }
      register(3, PAGE);
      bench.write(PAGE, [0]);
      const exit = bench.enter(ACCESS.write);
      assertEquals(exit, present ? "78" : "400", `PAE ${pae}`);
      if (present) assertEquals(bench.read(PAGE, 1)[0], 0x55);
      else assertEquals(bench.info, [BigInt(Pf.US | Pf.RW) | FINAL, BigInt(PAGE)]);
    }
  }
});

Deno.test("a guest physical address beyond what a 32-bit host's tables reach is a nested fault", () => {
  bench.guest();
  bench.nested();
  const pdpt = SvmPlace.NPT + 0x1fe0;
  for (let k = 0; k < 4; k++) bench.set64(pdpt + 8 * k, 0n);
  bench.set64(pdpt, BigInt(SvmPlace.NPT + 0x2000) | 1n);
  bench.setControl64(Control.N_CR3, pdpt);
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), (1n << 32n) | BigInt(PAGE) | 0x67n);
  const hostPdpt = Place.TABLES + 0x3000;
  for (let k = 0; k < 4; k++) bench.set64(hostPdpt + 8 * k, 0n);
  bench.set64(hostPdpt, BigInt(Place.TABLES + 0x2000) | 1n);
  bench.protect(0, { cr3: hostPdpt, cr4: Cr4.PAE, efer: Efer.SVME });
  register(3, PAGE);
  assertEquals(bench.enter(ACCESS.read), "400");
  assertEquals(bench.info, [BigInt(Pf.US) | FINAL, (1n << 32n) | BigInt(PAGE)]);
});

Deno.test("a nested guest in PAE mode: its pointers are read on use, bad ones are its page fault", () => {
  for (const bad of [false, true]) {
    bench.guest("protected");
    bench.nested();
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    const pdpt = SvmPlace.GUEST_TABLES + 0x1fe0;
    for (let k = 0; k < 4; k++) bench.set64(pdpt + 8 * k, 0n);
    bench.set64(pdpt, BigInt(SvmPlace.GUEST_TABLES + 0x2000) | 1n);
    bench.set64(pdpt + 8, BigInt(SvmPlace.GUEST_TABLES + 0x2000) | 1n | (bad ? 2n : 0n));
    bench.setControl64(Save.CR3, pdpt);
    bench.orControl64(Save.CR4, Cr4.PAE);
    bench.orControl64(Save.CR0, BigInt(Cr0.PG));
    register(3, 0x4000_0000 + PAGE);
    assertEquals(bench.enter(ACCESS.read), bad ? "4e" : "78");
    if (bad) assertEquals(bench.info, [BigInt(Pf.P | Pf.RSV), BigInt(0x4000_0000 + PAGE)]);
  }
});

Deno.test("G_PAT is the guest's with nested paging; without, there is one PAT", () => {
  const hostPat = 0x0007_0406_0007_0406n;
  const guestPat = 0x0606_0606_0606_0606n;
  // mov ecx, 277h; rdmsr; mov rbx, rax; mov eax, 01010101h; mov edx, eax; wrmsr; hlt
  const code = "b9 77 02 00 00 0f 32 48 89 c3 b8 01 01 01 01 89 c2 0f 30 f4";
  for (const nested of [false, true]) {
    bench.guest();
    bench.processor.writeMsr(Msr.PAT, hostPat);
    if (nested) bench.nested();
    bench.setControl64(Save.G_PAT, guestPat);
    assertEquals(bench.enter(code), "78");
    assertEquals(bench.state.register(3), (nested ? guestPat : hostPat) & 0xffff_ffffn);
    const written = 0x0101_0101_0101_0101n;
    assertEquals(bench.control64(Save.G_PAT), nested ? written : guestPat);
    assertEquals(bench.state.get(S.pat), nested ? hostPat : written);
    bench.processor.writeMsr(Msr.PAT, hostPat);
  }
});
