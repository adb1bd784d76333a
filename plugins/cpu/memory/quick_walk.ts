/**
 * Page walks that meet nothing out of the ordinary, which are nearly all.
 *
 * Where a guest changes CR3 or drops its TLB, translations are refilled by the million. Such a walk reads two
 * to five entries, finds them present, the tables marked as accessed, and comes to a page that the access may
 * use. That and nothing else is done here, in as few steps as it takes: at anything else (a fault, the first use
 * of a table, nested paging, tables in what is no plain memory) the quick walk gives up, having changed nothing,
 * and `memory/walk.ts` begins anew.
 *
 * @module
 */
import type { Fn, I, L } from "../microcode/header/signature.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { Cr0, Cr4, Efer } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { CHUNK_SHIFT, PHYSICAL_SHIFT } from "../state/layout.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import {
  type FunctionBuilder,
  type I32,
  I32T,
  type I64,
  i64,
  I64T,
  type Label,
  type Variable,
} from "../wasm/mod.ts";
import {
  ACCESSED,
  ADDRESS,
  DIRTY,
  GLOBAL,
  keyForbids,
  LARGE,
  NO_EXECUTE,
  PAE_HIGH,
  PRESENT,
  USER,
  WRITABLE,
} from "./page_tables.ts";
import { ChunkEntry } from "./physical.ts";
import { fillData, fillFetch, notePageSize } from "./tlb.ts";

/** What a quick walk yields when it gives up; no physical address is negative. */
const GIVEN_UP: I64 = i64(-1);

/** Bits of a table's or page's address that no memory has: {@linkcode PHYSICAL_SHIFT} and up. */
const BEYOND_MEMORY: bigint = ADDRESS & ~((1n << BigInt(PHYSICAL_SHIFT)) - 1n);

const CHUNK_MASK: number = (1 << CHUNK_SHIFT) - 1;

/** A walk under way. */
interface Walk {
  readonly f: FunctionBuilder;
  /** The address to translate. */
  readonly linear: I64;
  /** Bits with which an entry is not for here. */
  readonly odd: Variable<I64>;
  /** The entry at hand. */
  readonly entry: Variable<I64>;
  /** Its memory address. */
  readonly address: Variable<I32>;
  /** All entries so far, anded. */
  readonly all: Variable<I64>;
  /** All entries so far, ored. */
  readonly any: Variable<I64>;
  /** log2 of the page size. */
  readonly shift: Variable<I32>;
  /** Where every walk comes to that has found a page. */
  readonly found: Label;
}

function giveUpIf(f: FunctionBuilder, condition: I32): void {
  f.if(condition, () => f.return(GIVEN_UP), undefined, "unlikely");
}

/** Memory address of physical address `pa`, which is below 2 to the {@linkcode PHYSICAL_SHIFT}. */
function plainMemory(f: FunctionBuilder, pa: I64): I32 {
  const word = f.load32(S.physicalMap.get(f).add(pa.shrU(CHUNK_SHIFT).wrap().shl(2)));
  giveUpIf(f, word.and(ChunkEntry.BACKED).eqz());
  return word.and(~CHUNK_MASK).or(pa.wrap().and(CHUNK_MASK));
}

/** Goes to the entry at physical address `pa`, which must have the bits `wanted` and not those `unwanted`. */
function step(walk: Walk, pa: I64, bytes: 4 | 8, wanted: number, unwanted = 0): void {
  const { f, odd, entry, address } = walk;
  address.set(plainMemory(f, pa));
  const at = address.get();
  entry.set(bytes === 8 ? f.load64(at) : f.load32(at).extendU());
  giveUpIf(f, entry.get().and(odd.get().or(wanted | unwanted)).ne(wanted));
}

/** What a table's entry must have. Large pages are marked but once, and need not be here. */
const TABLE = PRESENT | ACCESSED;

/** Notes what the entry at hand allows. */
function gather({ entry, all, any }: Walk): void {
  all.set(all.get().and(entry.get()));
  any.set(any.get().or(entry.get()));
}

/** log2 of what an 8-byte entry of `level` covers. */
const spanOf = (level: number): number => 3 + 9 * level;

/** Goes from the 8-byte entry at hand to the one of `level` in the table that it leads to. */
function step64(walk: Walk, level: number): void {
  const { linear, entry } = walk;
  const index = linear.shrU(spanOf(level)).and(0x1ff);
  const pa = entry.get().and(ADDRESS).add(index.shl(3));
  // Entries of level 4 and 5 cannot be large, and their bit 8 is reserved as well (figure 5-20).
  step(walk, pa, 8, level > 1 ? TABLE : PRESENT, level > 3 ? LARGE | GLOBAL : 0);
  gather(walk);
}

/** Levels of 8-byte entries, from `first` down to the page; `entry` holds what leads to the first table. */
function walk64(walk: Walk, first: number): void {
  const { f, entry, shift, found } = walk;
  for (let level = first; level > 0; level--) {
    step64(walk, level);
    const span = spanOf(level);
    if (level === 1) shift.set(span);
    else if (level <= 3) {
      f.if(entry.get().has(LARGE), () => {
        // A large page's address is aligned; bit 12 is PAT.
        giveUpIf(f, entry.get().has(((1 << span) - 1) & ~0x1fff));
        shift.set(span);
        f.branch(found);
      });
    }
  }
}

/** Four-byte entries: a directory, with large pages if CR4.PSE is set, and tables. */
function walk32(walk: Walk, cr4: I64): void {
  const { f, linear, entry, shift, found } = walk;
  const low = 0xffff_f000;
  step(walk, S.cr3.get(f).and(low).add(linear.shrU(22).and(0x3ff).shl(2)), 4, TABLE);
  gather(walk);
  f.if(entry.get().has(LARGE).and(cr4.has(Cr4.PSE)), () => {
    // Bits 20:13 are address bits 39:32, where there is no memory, bit 21 is reserved.
    giveUpIf(f, entry.get().has(0x3f_e000));
    shift.set(22);
    f.branch(found);
  });
  step(walk, entry.get().and(low).add(linear.shrU(12).and(0x3ff).shl(2)), 4, PRESENT);
  gather(walk);
  shift.set(12);
}

/** Defines the quick walk: `(linear, isWrite, isFetch, mmu)`, the physical address or a negative number. */
export function defineQuickWalk(mc: Microcode): Fn<readonly [L, I, I, I], L> {
  const params = [I64T, I32T, I32T, I32T] as const;
  return mc.module.define("quickWalk", params, I64T, (f, linear, isWrite, isFetch, mmu) => {
    const cr0 = S.cr0.get(f);
    const cr4 = S.cr4.get(f);
    const efer = S.efer.get(f);
    // VMX's APIC-access page is the other walk's to find.
    giveUpIf(f, S.nestedPaging.get(f).or(S.apicAccess.get(f).ne(0)).or(cr0.has(Cr0.PG).eqz()));
    const all = f.variable(I64T, -1);
    const any = f.variable(I64T, 0);
    const entry = f.variable(I64T, S.cr3.get(f));
    const place = f.variable(I32T, 0);
    const shift = f.variable(I32T, 0);
    const odd = f.variable(I64T, 0);
    f.block((found) => {
      const walk: Walk = { f, linear, odd, entry, address: place, all, any, shift, found };
      f.if(
        cr4.has(Cr4.PAE),
        () => {
          // NX is a reserved bit unless EFER.NXE is set.
          const noExecute = efer.has(Efer.NXE).select(i64(0), i64(NO_EXECUTE));
          odd.set(S.reservedPte.get(f).or(BEYOND_MEMORY).or(noExecute));
          f.if(efer.has(Efer.LMA), () => {
            giveUpIf(f, entry.get().has(BEYOND_MEMORY));
            f.if(cr4.has(Cr4.LA57), () => step64(walk, 5), undefined, "unlikely");
            walk64(walk, 4);
          }, () => {
            odd.set(odd.get().or(PAE_HIGH));
            const at = linear.shrU(30).wrap().and(3).shl(3);
            entry.set(f.load64(at, S.pdptes));
            giveUpIf(f, entry.get().has(PRESENT).eqz().or(entry.get().has(BEYOND_MEMORY)));
            walk64(walk, 2);
          }, "likely");
        },
        () => walk32(walk, cr4),
        "likely",
      );
    });

    const isUser = mmu.eq(MmuIndex.USER);
    const userPage = all.get().has(USER);
    const writable = all.get().has(WRITABLE);
    // Where CR0.WP is clear more is allowed than what this lets pass.
    giveUpIf(f, isWrite.and(writable.eqz()));
    giveUpIf(f, isFetch.and(any.get().has(NO_EXECUTE)));
    f.if(isUser, () => giveUpIf(f, userPage.eqz()), () => {
      const mayMind = userPage.and(cr4.has(Cr4.SMEP | Cr4.SMAP));
      const minds = isFetch.or(mmu.eq(MmuIndex.SUPERVISOR));
      giveUpIf(f, mayMind.and(minds));
    });
    const keys = cr4.has(Cr4.PKE | Cr4.PKS);
    f.if(
      keys,
      () => {
        giveUpIf(f, keyForbids(f, entry.get(), { userPage, isFetch, isWrite, isUser }));
      },
      undefined,
      "unlikely",
    );

    const mask = i64(1).shl(shift.get().extendU()).sub(1);
    const pa = entry.get().and(ADDRESS).and(mask.xor(-1)).or(linear.and(mask));
    const address = plainMemory(f, pa);
    const marks = isWrite.select(i64(ACCESSED | DIRTY), i64(ACCESSED));
    f.if(
      entry.get().and(marks).ne(marks),
      () => {
        entry.set(entry.get().or(marks));
        f.if(
          cr4.has(Cr4.PAE),
          () => f.store64(place.get(), entry.get()),
          () => f.store32(place.get(), entry.get().wrap()),
        );
      },
      undefined,
      "unlikely",
    );
    notePageSize(f, linear, shift.get());
    f.if(isFetch, () => fillFetch(f, linear, address, isUser), () => {
      // What is read now is often written next. A page that is dirty already can be entered for both; what
      // else a write has to be asked is asked above, but for keys and, elsewhere than in plain memory, ROM.
      const both = writable.and(entry.get().has(DIRTY)).and(keys.eqz());
      fillData(f, linear, address, mmu, isWrite.or(both));
    });
    f.return(pa);
  });
}
