/**
 * Page walks: linear to physical (APM vol. 2, ch. 5) and, under nested paging, guest physical to host
 * physical (15.25).
 *
 * Both walks are the same text; they differ in where the root and the mode come from, in how a table's
 * own address is translated, and in what a failure raises.
 *
 * @module
 */
import { Cr0, Cr4, Efer } from "../microcode/registers.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { WALKS_A_SAMPLE } from "../engine/walk_clock.ts";
import { Counter, counterAddress, tally } from "../state/counters.ts";
import { S } from "../state/cpu_state.ts";
import { MmuIndex } from "../state/tlb_layout.ts";
import { EPT_IN_FORCE, EptPointer } from "../vmx/controls.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
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
import { defineQuickWalk } from "./quick_walk.ts";
import {
  fillApic,
  fillData,
  fillFetch,
  findApic,
  noteLoose,
  notePageSize,
  VAPIC_MARK,
} from "./tlb.ts";

/** What an access is, as `translate` takes it. */
export const Access = { READ: 0, WRITE: 1, FETCH: 2 } as const;

/** Added to the access for {@linkcode Microcode.nestedTranslate}: the access is a page walk's. */
export const TABLE_ACCESS = 4;
/** Added under EPT: the linear address is one of user mode by every level of its tables. */
export const USER_LINEAR = 8;
/** Added under EPT: there is a linear address, in `S.walkLinear`. */
export const LINEAR_ACCESS = 0x10;
/** Added where the access is one of a guest's CPL 3. */
const GUEST_USER = 0x40;
/** Added where the access is one to a shadow stack. */
export const SHADOW_ACCESS = 0x20;

/** Error code of #PF and, in its low bits, of #NPF (APM vol. 2, 8.4.2 and 15.25.6). */
export const PageError = {
  PRESENT: 1,
  WRITE: 2,
  USER: 4,
  RESERVED: 8,
  FETCH: 0x10,
  /** The protection key of the page forbids it. */
  KEY: 0x20,
  /** The access was one to a shadow stack. */
  SHADOW_STACK: 0x40,
} as const;

/** What a translation yields that met a page fault; no other is negative. */
const FAULTED: I64 = i64(-1);

/** A page-table entry as found: where it stands and what it holds. */
interface Entry {
  /** Memory address; 0 if the table is in no memory. */
  readonly address: I32;
  /** The entry; all ones where there is no memory. */
  readonly value: I64;
}

/** How one kind of walk differs from the other. */
interface WalkRules {
  /** CR0, CR4 and EFER that govern the walk. */
  readonly cr4: I64;
  readonly efer: I64;
  /** CR3 or N_CR3. */
  readonly root: I64;
  /** The address to translate. */
  readonly address: I64;
  /** Looks up the entry at a table's physical address. */
  readonly entry: (pa: I64, bytes: 4 | 8) => Entry;
  /** Page-directory-pointer entry `index` of PAE paging. */
  readonly pdpte: (index: I32) => Entry;
  /** Before an entry at `pa` is written, to set accessed or dirty in it. */
  readonly beforeMark: (pa: I64) => void;
  /** Fails; `present` is 0 or 1, `reserved` whether a reserved bit was set. */
  readonly fail: (present: boolean, reserved: boolean) => void;
}

/** What a walk yields, as variables. */
interface WalkResult {
  /** Physical address. */
  readonly pa: Variable<I64>;
  /** 1 if every level allows writes. */
  readonly writable: Variable<I32>;
  /** 1 if every level above the last one allows writes. */
  readonly writableAbove: Variable<I32>;
  /** 1 if every level allows user accesses. */
  readonly user: Variable<I32>;
  /** 1 if any level forbids execution. */
  readonly noExecute: Variable<I32>;
  /** log2 of the page size. */
  readonly shift: Variable<I32>;
  /** Physical address of the last entry, as the tables have it. */
  readonly leafPa: Variable<I64>;
  /** Memory address of the last entry. */
  readonly leaf: Variable<I32>;
  /** The last entry. */
  readonly leafValue: Variable<I64>;
  /** 1 if the last entry has 4 bytes. */
  readonly narrow: Variable<I32>;
}

/** Emits a walk through the tables of whichever mode `rules` are in. */
function emitWalk(f: FunctionBuilder, rules: WalkRules): WalkResult {
  const result: WalkResult = {
    pa: f.variable(I64T, 0),
    writable: f.variable(I32T, 1),
    writableAbove: f.variable(I32T, 1),
    user: f.variable(I32T, 1),
    noExecute: f.variable(I32T, 0),
    shift: f.variable(I32T, 12),
    leafPa: f.variable(I64T, 0),
    leaf: f.variable(I32T, 0),
    leafValue: f.variable(I64T, 0),
    narrow: f.variable(I32T, 0),
  };
  f.if(
    rules.cr4.has(Cr4.PAE),
    () => emitWalk64(f, rules, result),
    () => emitWalk32(f, rules, result),
  );
  return result;
}

function setAccessed(
  f: FunctionBuilder,
  rules: WalkRules,
  pa: I64,
  { address, value }: Entry,
  narrow: boolean,
): void {
  const needed = value.has(ACCESSED).eqz();
  f.if(needed.and(address.ne(0)), () => {
    rules.beforeMark(pa);
    if (narrow) f.store32(address, value.or(ACCESSED).wrap());
    else f.store64(address, value.or(ACCESSED));
  });
}

/** PAE and long-mode tables: 8-byte entries, nine bits a level. */
function emitWalk64(f: FunctionBuilder, rules: WalkRules, result: WalkResult): void {
  const { address } = rules;
  const long = rules.efer.has(Efer.LMA);
  // NX is a reserved bit unless EFER.NXE is set.
  const reserved = f.variable(I64T, S.reservedPte.get(f));
  f.if(rules.efer.has(Efer.NXE).eqz(), () => reserved.set(reserved.get().or(NO_EXECUTE)));
  const level = f.variable(I32T, 4);
  const table = f.variable(I64T, rules.root.and(ADDRESS));
  f.if(long, () => {
    f.if(rules.cr4.has(Cr4.LA57), () => level.set(5));
  }, () => {
    reserved.set(reserved.get().or(PAE_HIGH));
    level.set(2);
    const { value } = rules.pdpte(address.shrU(30).wrap().and(3));
    f.if(value.has(PRESENT).eqz(), () => rules.fail(false, false));
    table.set(value.and(ADDRESS));
  });

  f.loop((again: Label) => {
    const shift = level.get().mul(9).add(3);
    const index = address.shrU(shift.extendU()).and(0x1ff);
    const pa = table.get().add(index.shl(3));
    const entry = rules.entry(pa, 8);
    const { value } = entry;
    f.if(value.has(PRESENT).eqz(), () => rules.fail(false, false), undefined, "unlikely");
    const isLarge = value.has(LARGE).and(level.get().ne(1));
    const forbidden = f.variable(I64T, reserved.get());
    f.if(level.get().gtU(3), () => {
      // Entries of level 4 and 5 cannot be large, and their bit 8 is reserved as well (figure 5-20).
      forbidden.set(forbidden.get().or(LARGE | GLOBAL));
    }, () => {
      f.if(
        isLarge,
        () => {
          // A large page's address is aligned; bit 12 is PAT.
          const low = i64(1n).shl(shift.extendU()).sub(1).and(~0x1fffn);
          forbidden.set(forbidden.get().or(low));
        },
        undefined,
        "unlikely",
      );
    });
    f.if(
      value.has(forbidden.get()),
      () => rules.fail(true, true),
      undefined,
      "unlikely",
    );
    result.writableAbove.set(result.writable.get());
    result.writable.set(result.writable.get().and(value.has(WRITABLE)));
    result.user.set(result.user.get().and(value.has(USER)));
    result.noExecute.set(result.noExecute.get().or(value.shrU(63).wrap()));
    f.if(isLarge.or(level.get().eq(1)), () => {
      const mask = i64(1n).shl(shift.extendU()).sub(1);
      result.pa.set(value.and(ADDRESS).and(mask.xor(-1)).or(address.and(mask)));
      result.shift.set(shift);
      result.leafPa.set(pa);
      result.leaf.set(entry.address);
      result.leafValue.set(value);
    }, () => {
      setAccessed(f, rules, pa, entry, false);
      table.set(value.and(ADDRESS));
      level.set(level.get().sub(1));
      f.branch(again);
    });
  });
}

/** 32-bit tables: 4-byte entries, ten bits a level, 4 MiB pages with PSE. */
function emitWalk32(f: FunctionBuilder, rules: WalkRules, result: WalkResult): void {
  const { address } = rules;
  result.narrow.set(1);
  const directory = rules.root.and(0xffff_f000);
  const upperPa = directory.add(address.shrU(22).and(0x3ff).shl(2));
  const upper = rules.entry(upperPa, 4);
  f.if(upper.value.has(PRESENT).eqz(), () => rules.fail(false, false));
  result.writable.set(upper.value.has(WRITABLE));
  result.user.set(upper.value.has(USER));
  f.if(upper.value.has(LARGE).and(rules.cr4.has(Cr4.PSE)), () => {
    // PSE-36: bits 20:13 are address bits 39:32, bit 21 is reserved.
    f.if(upper.value.has(0x20_0000), () => rules.fail(true, true));
    const high = upper.value.shrU(13).and(0xff).shl(32);
    result.pa.set(
      high.or(upper.value.and(0xffc0_0000)).or(address.and(0x3f_ffff)),
    );
    result.shift.set(22);
    result.leafPa.set(upperPa);
    result.leaf.set(upper.address);
    result.leafValue.set(upper.value);
  }, () => {
    setAccessed(f, rules, upperPa, upper, true);
    const table = upper.value.and(0xffff_f000);
    const lowerPa = table.add(address.shrU(12).and(0x3ff).shl(2));
    const lower = rules.entry(lowerPa, 4);
    f.if(lower.value.has(PRESENT).eqz(), () => rules.fail(false, false));
    result.writableAbove.set(result.writable.get());
    result.writable.set(result.writable.get().and(lower.value.has(WRITABLE)));
    result.user.set(result.user.get().and(lower.value.has(USER)));
    result.pa.set(lower.value.and(0xffff_f000).or(address.and(0xfff)));
    result.leafPa.set(lowerPa);
    result.leaf.set(lower.address);
    result.leafValue.set(lower.value);
  });
}

/** Sets the accessed bit of the last entry, and the dirty bit for a write. */
function emitMark(f: FunctionBuilder, rules: WalkRules, result: WalkResult, write: I32): void {
  const wanted = f.choose(I64T, write, () => ACCESSED | DIRTY, () => ACCESSED);
  const value = result.leafValue.get();
  const address = result.leaf.get();
  f.if(value.and(wanted).ne(wanted).and(address.ne(0)), () => {
    rules.beforeMark(result.leafPa.get());
    f.if(
      result.narrow.get(),
      () => f.store32(address, value.or(wanted).wrap()),
      () => f.store64(address, value.or(wanted)),
    );
  });
}

/** The entry at host physical address `pa`. */
function entryAt(mc: Microcode, f: FunctionBuilder, pa: I64, bytes: 4 | 8): Entry {
  const address = f.call(mc.physical, pa);
  const value = f.choose(
    I64T,
    address.ne(0),
    () => bytes === 8 ? f.load64(address) : f.load32(address).extendU(),
    () => -1,
    "likely",
  );
  return { address, value };
}

/**
 * 1 if a walk has led to a page of a shadow stack: dirty and not writable, by tables that are writable (SDM
 * vol. 3A, 4.6.1; APM vol. 2, 5.6.8). Whose it is, user or supervisor, has to be that of the access.
 */
function isShadowPage({ leafValue, writableAbove }: WalkResult): I32 {
  return leafValue.get().and(WRITABLE | DIRTY).eq(DIRTY).and(writableAbove.get());
}

/** Gives the walks their bodies. */
export function defineWalk(mc: Microcode): void {
  const { module } = mc;
  const quickWalk = defineQuickWalk(mc);

  const walk = module.declare("walk", [I64T, I32T, I32T], I64T);

  module.body(mc.translate, (f, linear, access, mmu) => {
    const pa = f.call(mc.tryTranslate, linear, access, mmu);
    f.if(pa.ltS(0), () => f.call(mc.unwindFault), undefined, "unlikely");
    f.return(pa);
  });

  module.body(mc.tryTranslate, (f, linear, access, mmu) => {
    tally(f, Counter.WALKS);
    const timed = f.load32(counterAddress(Counter.WALKS)).and(WALKS_A_SAMPLE - 1).eqz();
    f.if(timed, () => f.call(mc.walkClock, 0), undefined, "unlikely");
    const pa = f.call(walk, linear, access, mmu);
    f.if(timed, () => f.call(mc.walkClock, 1), undefined, "unlikely");
    f.return(pa);
  });

  module.body(walk, (f, linear, access, mmu) => {
    const isFetch = access.eq(Access.FETCH);
    const isWrite = access.and(Access.WRITE);
    const isShadow = access.and(SHADOW_ACCESS).ne(0);
    const isUser = mmu.eq(MmuIndex.USER);
    // Pages of shadow stacks are out of the ordinary.
    f.if(
      isShadow.eqz(),
      () => {
        const quick = f.call(quickWalk, linear, isWrite, isFetch, mmu);
        f.if(quick.geS(0), () => f.return(quick), undefined, "likely");
      },
      undefined,
      "likely",
    );
    S.fetching.set(f, isFetch);
    const nested = S.nestedPaging.get(f);
    findApic(f, linear, access, isUser);

    // Under EPT: how a guest's tables are accessed, and what a violation reports.
    const ept = nested.eq(EPT_IN_FORCE);
    const userLinear = f.variable(I32T, USER_LINEAR);
    S.walkLinear.set(f, linear);

    const pa = f.variable(I64T, 0);
    const pageShift = f.variable(I32T, 0);
    f.if(S.cr0.has(f, Cr0.PG), () => {
      const cr4 = S.cr4.get(f);
      const efer = S.efer.get(f);
      const errorOf = (present: boolean, reserved: boolean): I32 => {
        // The fetch bit is only reported where a fetch can be forbidden; NX needs 8-byte entries.
        const noExecute = efer.has(Efer.NXE).and(cr4.has(Cr4.PAE));
        const fetchShown = isFetch.and(noExecute.or(cr4.has(Cr4.SMEP)));
        return isWrite.select(i32(PageError.WRITE), i32(0))
          .or(isUser.select(i32(PageError.USER), i32(0)))
          .or(fetchShown.select(i32(PageError.FETCH), i32(0)))
          .or(isShadow.select(i32(PageError.SHADOW_STACK), i32(0)))
          .or((present ? PageError.PRESENT : 0) | (reserved ? PageError.RESERVED : 0));
      };
      const fail = (present: boolean, reserved: boolean): void => {
        f.call(mc.pageFault, linear, errorOf(present, reserved));
        f.return(FAULTED);
      };
      // Nested paging writes a guest's tables always; EPT only where its own accessed and dirty flags are on.
      const tableWrite = Access.WRITE | TABLE_ACCESS | LINEAR_ACCESS;
      const reads = ept.and(S.eptPointer.has(f, EptPointer.ACCESSED_DIRTY).eqz());
      const tableAccess = reads.select(i32(tableWrite & ~Access.WRITE), i32(tableWrite));
      const host = (gpa: I64): I64 =>
        f.choose(I64T, nested, () => f.call(mc.nestedTranslate, gpa, tableAccess), () => gpa);
      const rules: WalkRules = {
        cr4,
        efer,
        root: S.cr3.get(f),
        address: linear,
        entry: (gpa, bytes) => entryAt(mc, f, host(gpa), bytes),
        beforeMark: (gpa) => f.if(reads, () => f.call(mc.eptTranslate, gpa, tableWrite)),
        // Without nested paging the four entries were read when CR3 was loaded; with it they are read
        // on use (APM vol. 2, 15.25.10), with EPT not (SDM vol. 3, 29.3.1).
        pdpte: (index) => {
          const value = f.choose(I64T, nested.eq(1), () => {
            const gpa = S.cr3.get(f).and(0xffff_ffe0).add(index.extendU().shl(3));
            const found = entryAt(mc, f, host(gpa), 8);
            const bad = S.reservedPte.get(f).or(PAE_HIGH).or(NO_EXECUTE).or(0x1e6);
            f.if(found.value.has(PRESENT).and(found.value.has(bad)), () => fail(true, true));
            return found.value;
          }, () => f.load64(index.shl(3), S.pdptes));
          return { address: i32(0), value };
        },
        fail,
      };
      const result = emitWalk(f, rules);
      const deny = f.variable(I32T, 0);
      const userPage = result.user.get();
      userLinear.set(userPage.select(i32(USER_LINEAR), i32(0)));
      f.if(isUser, () => {
        deny.set(userPage.eqz().or(isWrite.and(result.writable.get().eqz())));
      }, () => {
        const readOnly = isWrite.and(result.writable.get().eqz()).and(S.cr0.has(f, Cr0.WP));
        const smep = isFetch.and(userPage).and(cr4.has(Cr4.SMEP));
        const smap = isFetch.eqz().and(userPage).and(mmu.eq(MmuIndex.SUPERVISOR))
          .and(cr4.has(Cr4.SMAP));
        deny.set(readOnly.or(smep).or(smap));
      });
      f.if(
        isShadow,
        () => deny.set(isShadowPage(result).and(userPage.eq(isUser)).eqz()),
        undefined,
        "unlikely",
      );
      const key = f.variable(I32T, 0);
      f.if(
        cr4.has(Cr4.PKE | Cr4.PKS),
        () => {
          const access = { userPage, isFetch, isWrite, isUser };
          key.set(keyForbids(f, result.leafValue.get(), access));
        },
        undefined,
        "unlikely",
      );
      const forbidden = deny.get().or(isFetch.and(result.noExecute.get())).or(key.get());
      f.if(forbidden, () => {
        const bit = key.get().select(i32(PageError.KEY), i32(0));
        f.call(mc.pageFault, linear, errorOf(true, false).or(bit));
        f.return(FAULTED);
      });
      const protectedPage = result.writable.get().eqz().or(cr4.has(Cr4.PKE | Cr4.PKS));
      const unprotected = isWrite.and(isUser.eqz()).and(S.cr0.has(f, Cr0.WP).eqz());
      f.if(protectedPage.and(unprotected), () => noteLoose(f), undefined, "unlikely");
      emitMark(f, rules, result, isWrite);
      pa.set(result.pa.get());
      pageShift.set(result.shift.get());
    }, () => pa.set(linear.and(0xffff_ffff)));

    f.if(nested, () => {
      const gpa = pa.get();
      const user = isUser.select(i32(GUEST_USER), i32(0));
      const kind = access.or(userLinear.get()).or(user).or(LINEAR_ACCESS);
      pa.set(f.call(mc.nestedTranslate, gpa, kind));
      const isApic = gpa.and(~0xfff).eq(S.avicBar.get(f)).and(isFetch.eqz());
      f.if(isApic, () => f.return(fillApic(f, linear, isUser, isWrite)), undefined, "unlikely");
    });
    // What leads to VMX's APIC-access page is not cached: every access has to be looked at.
    f.if(
      pa.get().and(~0xfff).or(1).eq(S.apicAccess.get(f)),
      () => {
        const offset = pa.get().and(0xfff);
        f.if(isFetch, () => f.call(mc.vapicFetch, offset.wrap()));
        f.return(offset.or(VAPIC_MARK));
      },
      undefined,
      "unlikely",
    );
    const address = f.choose(
      I32T,
      isWrite,
      () => f.call(mc.physicalForWrite, pa.get()),
      () => f.call(mc.physical, pa.get()),
    );
    notePageSize(f, linear, pageShift.get());
    f.if(address.ne(0).and(isShadow.eqz()), () => {
      f.if(
        isFetch,
        () => fillFetch(f, linear, address, isUser),
        () => fillData(f, linear, address, mmu, isWrite),
      );
    });
    f.return(pa.get());
  });

  module.body(mc.nestedTranslate, (f, gpa, access) => {
    const ept = S.nestedPaging.get(f).eq(EPT_IN_FORCE);
    f.if(ept, () => f.return(f.call(mc.eptTranslate, gpa, access)), undefined, "unlikely");
    const kind = access.and(3);
    const isFetch = kind.eq(Access.FETCH);
    const isWrite = kind.eq(Access.WRITE);
    const efer = S.hostEfer.get(f);
    // Under the guest mode execute trap (GMET), which is SMEP for the nested level, code of CPL 0–2 is fetched
    // from pages that are not for users and code of CPL 3 from those that are; of data and of the guest's tables
    // the bit says nothing (Linux commit 3129c6b81cab; kvm-unit-tests, npt_prepare_gmet_pte). The US bit of the
    // error code, which erratum 1218 lets some processors get wrong, is then taken for the guest's but for
    // walks, which stay a user's; whether a fetch is shown stays with the host's NXE and SMEP.
    const trap = S.guestModeTrap.get(f);
    const isUser = trap.eqz().or(access.and(TABLE_ACCESS | GUEST_USER).ne(0));
    const fail = (present: boolean, reserved: boolean): void => {
      // As in any page fault of the host's: shown where its NXE or SMEP could forbid a fetch.
      const fetchShown = isFetch.and(efer.has(Efer.NXE).or(S.hostCr4.has(f, Cr4.SMEP)));
      const error = isWrite.select(i32(PageError.WRITE), i32(0))
        .or(fetchShown.select(i32(PageError.FETCH), i32(0)))
        .or(access.and(SHADOW_ACCESS).ne(0).select(i32(PageError.SHADOW_STACK), i32(0)))
        .or(isUser.select(i32(PageError.USER), i32(0)))
        .or((present ? PageError.PRESENT : 0) | (reserved ? PageError.RESERVED : 0));
      f.call(mc.nestedFault, gpa, error, access.and(TABLE_ACCESS).ne(0));
    };
    // What a host outside of long mode walks reaches 4 GiB; beyond, nothing is present.
    f.if(efer.has(Efer.LMA).eqz().and(gpa.shrU(32).ne(0)), () => fail(false, false));
    const rules: WalkRules = {
      cr4: S.hostCr4.get(f),
      efer,
      root: S.nestedCr3.get(f),
      address: gpa,
      entry: (pa, bytes) => entryAt(mc, f, pa, bytes),
      beforeMark: () => {},
      pdpte: (index) => {
        const pa = S.nestedCr3.get(f).and(0xffff_ffe0).add(index.extendU().shl(3));
        return entryAt(mc, f, pa, 8);
      },
      fail,
    };
    const result = emitWalk(f, rules);
    // Every nested access counts as a user access, but for what the trap changes.
    const deny = trap.select(isFetch.and(result.user.get().ne(isUser)), result.user.get().eqz())
      .or(isWrite.and(result.writable.get().eqz()))
      .or(isFetch.and(result.noExecute.get()));
    f.if(deny, () => fail(true, false));
    emitMark(f, rules, result, isWrite);
    f.return(result.pa.get());
  });
}
