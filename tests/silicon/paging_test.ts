/**
 * Paging, entry by entry: every combination of the protection bits at every level, reserved bits,
 * accessed and dirty bits, in the three kinds of tables, against the manual's rules.
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, Efer, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place, verdict } from "./bench.ts";
import { hex } from "./code.ts";
import {
  type AccessConditions,
  expectedWalk,
  PagePath,
  type PagingMode,
  Pte,
  reservedBits,
} from "./page_path.ts";

const bench = new Bench({ memory: 0x100_0000 });

/** Code that makes the access; a fetch is the second instruction. */
const ACCESS = {
  read: { code: hex("8a 03"), count: 1 }, // mov al, [rbx]
  write: { code: hex("88 03"), count: 1 }, // mov [rbx], al
  fetch: { code: hex("ff e3"), count: 2 }, // jmp rbx
} as const;

/** The page that paths lead to, filled with NOPs. */
const PAGE = 0x80_0000n;
bench.fill(Number(PAGE), 0x1000, 0x90);

const PLAIN: AccessConditions = {
  kind: "read",
  user: false,
  wp: true,
  smep: false,
  smap: false,
  ac: false,
  nxe: true,
};

/** Where code, stack and descriptors of the legacy modes stand: the first 4 MiB, one to one. */
const LOW_LEGACY = 0x18_0000;

interface Case {
  readonly path: PagePath;
  readonly entries: readonly bigint[];
  readonly conditions: AccessConditions;
}

/** Sets the processor up for paging in `mode` from `root`, code being where the privilege can run it. */
function enter(path: PagePath, conditions: AccessConditions): void {
  const { mode, root } = path;
  const { user, wp, smep, smap, ac, nxe } = conditions;
  const cpl = user ? 3 : 0;
  const us = user ? Pte.US : 0n;
  const control = (smep ? Cr4.SMEP : 0) | (smap ? Cr4.SMAP : 0);
  const efer = nxe ? Efer.NXE : 0;
  const { state } = bench;
  if (mode === "long") {
    bench.long(cpl);
    bench.set64(root, BigInt(Place.TABLES + 0x1000) | 0x23n | us);
    state.set(S.cr3, BigInt(root));
    state.set(S.cr4, BigInt(Cr4.PAE | control));
    state.set(S.efer, BigInt(Efer.LME | Efer.LMA | efer));
  } else if (mode === "pae") {
    bench.set64(root, BigInt(LOW_LEGACY) | 1n);
    for (let k = 0; k < 2; k++) {
      bench.set64(LOW_LEGACY + 8 * k, BigInt(k * 0x20_0000) | 0xe3n | us);
    }
    bench.protect(cpl, { cr3: root, cr4: Cr4.PAE | control, efer });
  } else {
    bench.set32(root, 0xe3 | Number(us));
    bench.protect(cpl, { cr3: root, cr4: Cr4.PSE | control, efer });
  }
  const cr0 = state.get(S.cr0) & ~BigInt(Cr0.WP);
  state.set(S.cr0, cr0 | (wp ? BigInt(Cr0.WP) : 0n));
  state.setRegister(3, path.linear);
  // What a write leaves is a NOP.
  state.setRegister(0, 0x90n);
  bench.processor.refresh();
  bench.flags = ac ? 0x4_0000 : 0;
}

/** Runs one case; text of what is wrong. */
function difference({ path, entries, conditions }: Case): string | undefined {
  path.set(entries);
  enter(path, conditions);
  const { code, count } = ACCESS[conditions.kind];
  const outcome = bench.execute(code, count);
  const expected = expectedWalk(path.mode, entries, conditions);
  const result = expected.fault === undefined ? "ok" : `#14(${expected.fault.toString(16)})`;
  const is = verdict(outcome);
  const wrong: string[] = [];
  if (is !== result) wrong.push(`${is}, not ${result}`);
  const address = outcome.events[0]?.cr2;
  if (expected.fault !== undefined && address !== path.linear) {
    wrong.push(`CR2 ${address?.toString(16)}`);
  }
  const text = (list: readonly bigint[]): string =>
    list.map((entry) => entry.toString(16)).join(" ");
  if (text(path.get()) !== text(expected.entries)) {
    wrong.push(`entries ${text(path.get())}, not ${text(expected.entries)}`);
  }
  if (wrong.length === 0) return undefined;
  return `${JSON.stringify(conditions)} ${text(entries)}: ${wrong.join("; ")}`;
}

/** The same with everything marked accessed and the page dirty: a walk has nothing to write then. */
function marked({ path, entries, conditions }: Case): Case {
  const first = path.mode === "pae" ? 1 : 0;
  const last = entries.length - 1;
  const bits = (level: number): bigint => Pte.A | (level === last ? Pte.D : 0n);
  return {
    path,
    entries: entries.map((entry, level) => level < first ? entry : entry | bits(level)),
    conditions,
  };
}

function check(cases: Iterable<Case>): void {
  const wrong: string[] = [];
  for (const one of cases) {
    for (const version of [one, marked(one)]) {
      const found = difference(version);
      if (found !== undefined) wrong.push(found);
    }
    if (wrong.length >= 8) break;
  }
  assertEquals(wrong.join("\n"), "");
}

const KINDS = ["read", "write", "fetch"] as const;
const BOTH = [false, true] as const;

/** A path to the test page in each mode and page size. */
const PATHS: Readonly<Record<string, PagePath>> = {
  "long mode, 4 KiB": new PagePath(bench, "long", 0x80_c0a0_7123n, PAGE, 4),
  "long mode, 2 MiB": new PagePath(bench, "long", 0x80_c0a0_0123n, PAGE, 3),
  "long mode, 1 GiB": new PagePath(bench, "long", 0x80_8080_0123n, 0n, 2),
  "upper half of long mode, 4 KiB": new PagePath(bench, "long", 0xffff_c080_c0a0_7123n, PAGE, 4),
  "PAE, 4 KiB": new PagePath(bench, "pae", 0x80a0_7123n, PAGE, 3),
  "PAE, 2 MiB": new PagePath(bench, "pae", 0x80a0_0123n, PAGE, 2),
  "legacy, 4 KiB": new PagePath(bench, "legacy", 0x80c0_7123n, PAGE, 2),
  "legacy, 4 MiB": new PagePath(bench, "legacy", 0x80c0_0123n, PAGE, 1),
};

const hasNx = (mode: PagingMode): boolean => mode !== "legacy";

/** Every combination of R/W, U/S and NX at every level but a PAE root, which has none. */
function* protections(path: PagePath): Generator<bigint[]> {
  const depth = path.depth;
  const first = path.mode === "pae" ? 1 : 0;
  const perLevel = hasNx(path.mode) ? 8 : 4;
  const total = perLevel ** (depth - first);
  for (let n = 0; n < total; n++) {
    const flags: bigint[] = [];
    if (first === 1) flags.push(Pte.P);
    let rest = n;
    for (let level = first; level < depth; level++) {
      const bits = rest % perLevel;
      rest = Math.floor(rest / perLevel);
      flags.push(
        Pte.P | ((bits & 1) !== 0 ? Pte.RW : 0n) | ((bits & 2) !== 0 ? Pte.US : 0n) |
          ((bits & 4) !== 0 ? Pte.NX : 0n),
      );
    }
    yield path.entries(flags);
  }
}

for (const [name, path] of Object.entries(PATHS)) {
  Deno.test(`${name}: R/W, U/S and NX at every level, each access, user and supervisor`, () => {
    check((function* () {
      for (const entries of protections(path)) {
        for (const user of BOTH) {
          for (const kind of KINDS) yield { path, entries, conditions: { ...PLAIN, kind, user } };
        }
      }
    })());
  });

  Deno.test(`${name}: CR0.WP, SMEP, SMAP and RFLAGS.AC with every protection of the page`, () => {
    check((function* () {
      const depth = path.depth;
      for (let bits = 0; bits < (hasNx(path.mode) ? 8 : 4); bits++) {
        const leaf = Pte.P | ((bits & 1) !== 0 ? Pte.RW : 0n) | ((bits & 2) !== 0 ? Pte.US : 0n) |
          ((bits & 4) !== 0 ? Pte.NX : 0n);
        const upper = Pte.P | Pte.RW | Pte.US;
        const entries = path.entries([...Array<bigint>(depth - 1).fill(upper), leaf]);
        for (const kind of KINDS) {
          for (let n = 0; n < 32; n++) {
            const has = (bit: number): boolean => (n & bit) !== 0;
            const conditions = {
              ...PLAIN,
              kind,
              user: has(1),
              wp: has(2),
              smep: has(4),
              smap: has(8),
              ac: has(16),
            };
            yield { path, entries, conditions };
          }
        }
      }
    })());
  });

  Deno.test(`${name}: an entry that is not present, at every level, whatever its other bits`, () => {
    check((function* () {
      const depth = path.depth;
      for (let level = 0; level < depth; level++) {
        for (const junk of [0n, ~1n & (hasNx(path.mode) ? (1n << 64n) - 1n : 0xffff_ffffn)]) {
          const flags = Array<bigint>(depth).fill(Pte.P | Pte.RW | Pte.US);
          const entries = path.entries(flags);
          entries[level] = junk;
          // A PAE root entry with reserved bits but not present is no error either.
          for (const user of BOTH) {
            for (const kind of KINDS) {
              yield { path, entries, conditions: { ...PLAIN, kind, user } };
            }
          }
        }
      }
    })());
  });

  Deno.test(`${name}: each reserved bit of each level, and each bit that is not reserved`, () => {
    check((function* () {
      const depth = path.depth;
      for (let level = path.mode === "pae" ? 1 : 0; level < depth; level++) {
        const leaf = level === depth - 1;
        for (const nxe of BOTH) {
          const width = path.mode === "legacy" ? 32 : 64;
          for (let bit = 0; bit < width; bit++) {
            const mask = 1n << BigInt(bit);
            const reserved = (reservedBits(path.mode, level, leaf, nxe) & mask) !== 0n;
            // Address bits and those with a meaning of their own would lead elsewhere.
            const software = [3, 4, 9, 10, 11].includes(bit) || (bit > 51 && bit < 63) ||
              (bit === 8) || (bit === 6) || (bit === 5);
            if (!reserved && !software) continue;
            const entries = path.entries(Array<bigint>(depth).fill(Pte.P | Pte.RW | Pte.US));
            entries[level]! |= mask;
            for (const kind of KINDS) {
              yield { path, entries, conditions: { ...PLAIN, kind, user: true, nxe } };
            }
          }
        }
      }
    })());
  });

  Deno.test(`${name}: without EFER.NXE, NX is a reserved bit and fetch faults are not marked`, () => {
    check((function* () {
      const depth = path.depth;
      for (let level = 0; level < depth; level++) {
        if (path.mode === "pae" && level === 0) continue;
        for (const bits of [0n, Pte.RW | Pte.US, Pte.NX]) {
          if (bits === Pte.NX && !hasNx(path.mode)) continue;
          const flags = Array<bigint>(depth).fill(Pte.P | Pte.RW | Pte.US);
          flags[level] = Pte.P | bits;
          const entries = path.entries(flags);
          for (const smep of BOTH) {
            for (const user of BOTH) {
              for (const kind of KINDS) {
                yield { path, entries, conditions: { ...PLAIN, kind, user, smep, nxe: false } };
              }
            }
          }
        }
      }
    })());
  });
}

Deno.test("a read-modify-write faults as a write, and an access that fails leaves A and D alone", () => {
  const path = PATHS["long mode, 4 KiB"]!;
  const flags = Pte.P | Pte.RW | Pte.US;
  // inc byte [rbx]; xchg [rbx], al; lock cmpxchg [rbx], cl; bts dword [rbx], 1; xadd [rbx], al
  for (const text of ["fe 03", "86 03", "f0 0f b0 0b", "0f ba 2b 01", "0f c0 03"]) {
    path.set(path.entries([flags, flags, flags, Pte.P | Pte.US]));
    enter(path, { ...PLAIN, user: true });
    assertEquals(bench.judge(hex(text)), "#14(7)", text);
    assertEquals(path.get()[3], path.entry(3, Pte.P | Pte.US), text);
    path.set(path.entries([flags, flags, flags, 0n]));
    enter(path, { ...PLAIN, user: true });
    assertEquals(bench.judge(hex(text)), "#14(6)", text);
    path.set(path.entries([flags, flags, flags, flags]));
    enter(path, { ...PLAIN, user: true });
    assertEquals(bench.judge(hex(text)), "ok", text);
    assertEquals(path.get()[3]! & (Pte.A | Pte.D), Pte.A | Pte.D, text);
  }
});

Deno.test("a comparison that fails writes back, and so sets the dirty bit", () => {
  const path = PATHS["long mode, 4 KiB"]!;
  const flags = Pte.P | Pte.RW | Pte.US;
  path.set(path.entries([flags, flags, flags, flags]));
  enter(path, PLAIN);
  bench.state.setRegister(0, 0n);
  assertEquals(bench.judge(hex("0f b0 0b")), "ok");
  assertEquals(bench.flags & 0x40, 0);
  assertEquals(path.get()[3]! & Pte.D, Pte.D);
});

Deno.test("the dirty bit is set by the first write after reads, in every page size", () => {
  for (const [name, path] of Object.entries(PATHS)) {
    const depth = path.depth;
    const entries = path.entries(Array<bigint>(depth).fill(Pte.P | Pte.RW | Pte.US));
    path.set(entries);
    enter(path, PLAIN);
    bench.execute(hex("8a 03"));
    assertEquals(path.get()[depth - 1]! & (Pte.A | Pte.D), Pte.A, name);
    bench.execute(hex("88 03"));
    assertEquals(path.get()[depth - 1]! & (Pte.A | Pte.D), Pte.A | Pte.D, name);
  }
});
