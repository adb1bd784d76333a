/**
 * The software TLB: filling, flushing, choosing contexts.
 *
 * An entry of a data array is a page's linear address and what has to be added to an address in that
 * page to get where it stands in memory. Privilege is not stored: each kind of access has arrays of
 * its own, and an entry exists only where the access was allowed. A write entry exists only for a page
 * that is dirty already and holds no decoded code.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Cr0, Cr4 } from "../microcode/registers.ts";
import { forgetInForce } from "../microcode/world.ts";
import { Counter, tally } from "../state/counters.ts";
import { S } from "../state/cpu_state.ts";
import { disturbed } from "../state/disturbed.ts";
import { CPU_AREA_BYTES, CPU_AREAS, WRITABLE_PAGES } from "../state/layout.ts";
import {
  Context,
  CONTEXT_COUNT,
  CONTEXTS,
  FETCH_BYTES,
  INDEX_BYTES,
  JUMP_ENTRIES,
  LOG_ENTRIES,
  MmuIndex,
  SET_BITS,
  WRITE_OFFSET,
} from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64 } from "../wasm/mod.ts";
import { MAX_INSTRUCTION_BYTES } from "../decode/decoder.ts";
import { pageHoldsCode } from "./physical.ts";
import { fetchSlot, tlbSlot } from "./slots.ts";
import { dropWindows } from "./windows.ts";

/** Most pages in a row whose entries are searched for when they are taken away. */
const MOST_SEARCHES = 8;

/** log2 of the size of the smallest page. */
const PAGE_SHIFT = 12;

/** log2 of the size of a region of {@linkcode Context.LARGE_REGIONS}: the large pages of most are no larger. */
const REGION_SHIFT = 22;

const pageOf = (linear: I64): I64 => linear.and(~0xfff);

/** One of the sets of a context: the word that has the bit of `member`, and the bit. */
function setBit(context: I32, set: number, member: I64): { at: I32; bit: I32 } {
  // Folded, for addresses apart by powers of two are what page tables lead to.
  const folded = member.xor(member.shrU(9)).xor(member.shrU(18)).xor(member.shrU(27));
  const number = folded.wrap().and(SET_BITS - 1);
  return { at: context.add(number.shrU(5).shl(2)).add(set), bit: i32(1).shl(number.and(31)) };
}

function include(f: FunctionBuilder, context: I32, set: number, member: I64): void {
  const { at, bit } = setBit(context, set, member);
  f.store32(at, f.load32(at).or(bit));
}

/** 0 if `member` is not in the set. */
function isIncluded(f: FunctionBuilder, context: I32, set: number, member: I64): I32 {
  const { at, bit } = setBit(context, set, member);
  return f.load32(at).and(bit);
}

/** Notes that entries for `linear` are pieces of a page of 2 to the `shift`. */
export function notePageSize(f: FunctionBuilder, linear: I64, shift: I32): void {
  const context = S.tlbContext.get(f);
  f.if(shift.gtU(PAGE_SHIFT), () => {
    include(f, context, Context.LARGE_REGIONS, linear.shrU(REGION_SHIFT));
    f.if(shift.gtU(f.load32(context, Context.LARGE)), () => {
      f.store32(context, shift, Context.LARGE);
    });
  });
}

/** Notes that an entry is only there because CR0.WP is clear, so that setting it drops the entry. */
export function noteLoose(f: FunctionBuilder): void {
  f.store32(S.tlbContext.get(f), 1, Context.LOOSE);
}

/**
 * Drops them if CR0.WP is set now. Clearing WP drops nothing: it forbids no access, and is none of the changes
 * that have to flush (APM vol. 2, 5.5.3; SDM vol. 3, 4.10.4.1).
 */
export function dropLoose(f: FunctionBuilder, mc: Microcode): void {
  const loose = f.load32(S.tlbContext.get(f), Context.LOOSE);
  f.if(S.cr0.has(f, Cr0.WP).and(loose), () => f.call(mc.flushTlb), undefined, "unlikely");
}

/** Bits of CR4 that forbid what is allowed without them, in the same arrays. */
const RULES = Cr4.SMEP | Cr4.PKE | Cr4.PKS;

/** Notes under which rules entries are filled from now on. */
function noteRules(f: FunctionBuilder, context: I32): void {
  f.store32(context, S.cr4.low(f).and(RULES), Context.RULES);
  f.store32(context, S.pkru.low(f), Context.KEYS);
  f.store32(context, S.pkrs.low(f), Context.KEYS + 4);
}

/**
 * Has the rules that VMRUN or a VM entry has loaded count for the context at hand: what the TLB has of
 * permissions is each page's, but entries are there for what was allowed when they were filled.
 */
function applyRules(f: FunctionBuilder, mc: Microcode): void {
  dropLoose(f, mc);
  const context = S.tlbContext.get(f);
  const before = f.load32(context, Context.RULES);
  const now = S.cr4.low(f).and(RULES);
  const keys = now.and(Cr4.PKE | Cr4.PKS).ne(0)
    .and(
      f.load32(context, Context.KEYS).ne(S.pkru.low(f))
        .or(f.load32(context, Context.KEYS + 4).ne(S.pkrs.low(f))),
    );
  const tightened = now.and(before.xor(-1));
  f.if(tightened.or(keys), () => f.call(mc.flushTlb), undefined, "unlikely");
  noteRules(f, context);
}

/** Notes that the entry at `address` is about to be filled, so that a flush finds it. */
export function logFill(f: FunctionBuilder, context: I32, address: I32): void {
  // One that was not empty has been noted.
  f.if(f.load64(address).eq(-1), () => {
    const count = f.load32(context, Context.FILLED);
    f.if(count.ltU(LOG_ENTRIES), () => f.store32(context.add(count.shl(2)), address, Context.LOG));
    f.store32(context, count.add(1), Context.FILLED);
  });
}

/** Enters a data translation: the page of `linear` stands around memory address `address`. */
export function fillData(
  f: FunctionBuilder,
  linear: I64,
  address: I32,
  mmu: I32,
  write: I32,
): void {
  const context = S.tlbContext.get(f);
  const page = pageOf(linear);
  const low = linear.wrap();
  const entry = context.add(mmu.mul(INDEX_BYTES)).add(tlbSlot(low)).add(Context.DATA);
  const delta = address.sub(low);
  const put = (at: I32): void => {
    logFill(f, context, at);
    f.store64(at, page);
    f.store32(at, delta, 8);
  };
  put(entry);
  f.if(write.and(pageHoldsCode(f, address).eqz()), () => {
    put(entry.add(WRITE_OFFSET));
    f.store8(address.shrU(PAGE_SHIFT), i32(1), WRITABLE_PAGES);
  });
}

/** Enters an instruction translation. */
export function fillFetch(f: FunctionBuilder, linear: I64, address: I32, user: I32): void {
  const context = S.tlbContext.get(f);
  const array = context.add(user.select(i32(0), i32(FETCH_BYTES)));
  const entry = array.add(fetchSlot(linear.wrap())).add(Context.FETCH);
  logFill(f, context, entry);
  f.store64(entry, pageOf(linear));
  f.store32(entry, address.and(~0xfff), 8);
  include(f, context, Context.FETCHED, linear.shrU(PAGE_SHIFT));
}

// Pages of the local APIC under AVIC (APM vol. 2, 15.29.4.1). A translation to one leads to the backing
// page instead of where the nested tables lead, and is marked as such; like any other it may outlive
// what it was made from, until the TLB is flushed. One such translation is remembered: a guest has one
// such page. Its accesses all take the slow path, so it stands apart from the arrays.

/** Set in what `translate` yields for the APIC page; bits 31:0 are a memory address, not a physical one. */
export const APIC_MARK: bigint = 1n << 60n;
/** Set in what `translate` yields for VMX's APIC-access page; bits 11:0 are the offset in it. */
export const VAPIC_MARK: bigint = 1n << 61n;
/** In `S.avicTlbTarget`: writes are allowed. */
const APIC_WRITABLE = 1;

const marked = (page: I32, linear: I64): I64 =>
  page.and(~0xfff).or(linear.wrap().and(0xfff)).extendU().or(APIC_MARK);

/** Returns the translation of an APIC page that is cached. */
export function findApic(f: FunctionBuilder, linear: I64, access: I32, user: I32): void {
  f.if(
    pageOf(linear).eq(S.avicTlbPage.get(f)),
    () => {
      const target = S.avicTlbTarget.get(f);
      const allowed = access.eqz().or(access.eq(1).and(target.and(APIC_WRITABLE)));
      const here = S.avicTlbContext.get(f).eq(S.tlbContext.get(f));
      f.if(here.and(allowed).and(user.eqz()), () => f.return(marked(target, linear)));
    },
    undefined,
    "unlikely",
  );
}

/** Remembers that `linear` leads to the guest's APIC page, and yields the translation. */
export function fillApic(f: FunctionBuilder, linear: I64, user: I32, write: I32): I64 {
  const page = S.avicPage.get(f);
  f.if(user.eqz(), () => {
    S.avicTlbPage.set(f, pageOf(linear));
    S.avicTlbContext.set(f, S.tlbContext.get(f));
    S.avicTlbTarget.set(f, page.or(write.select(i32(APIC_WRITABLE), i32(0))));
  });
  return marked(page, linear);
}

function dropApic(f: FunctionBuilder, context: I32): void {
  f.if(S.avicTlbContext.get(f).eq(context), () => S.avicTlbPage.set(f, -1));
}

// Of translations for shadow stacks one is remembered, that of the last store: it stands apart from the arrays,
// which say where data may be accessed.

/** 1 if `bytes` at `linear` are in the page of the shadow stack that is remembered, and their address. */
export function findShadow(
  f: FunctionBuilder,
  linear: I64,
  bytes: I32,
  mmu: I32,
): { readonly hit: I32; readonly address: () => I32 } {
  const page = S.shadowPage.get(f);
  const last = linear.add(bytes.extendU()).sub(1);
  const same = pageOf(linear).or(mmu.extendU()).eq(page).and(pageOf(last).eq(pageOf(linear)));
  return {
    hit: same.and(S.shadowContext.get(f).eq(S.tlbContext.get(f))),
    address: () => linear.wrap().add(S.shadowDelta.get(f)),
  };
}

/** Remembers that `linear`, a place that may be stored to on a shadow stack, stands at memory address `address`. */
export function fillShadow(f: FunctionBuilder, linear: I64, address: I32, mmu: I32): void {
  S.shadowPage.set(f, pageOf(linear).or(mmu.extendU()));
  S.shadowContext.set(f, S.tlbContext.get(f));
  S.shadowDelta.set(f, address.sub(linear.wrap()));
}

function dropShadow(f: FunctionBuilder): void {
  S.shadowContext.set(f, 0);
}

/** Gives the TLB functions their bodies. */
export function defineTlb(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.fetch, (f, linear) => {
    const entry = S.tlbFetch.get(f).add(fetchSlot(linear.wrap()));
    f.if(
      f.load64(entry).eq(pageOf(linear)),
      () => {
        f.return(f.load32(entry, 8).or(linear.wrap().and(0xfff)));
      },
      undefined,
      "likely",
    );
    f.return(f.call(mc.physical, f.call(mc.translate, linear, 2, S.mmu.get(f))));
  });

  module.body(mc.flushTlb, (f) => {
    // Under the host's rules, if this is between an exit and an entry.
    forgetInForce(f);
    tally(f, Counter.FLUSHES);
    const context = S.tlbContext.get(f);
    const count = f.load32(context, Context.FILLED);
    f.if(count.leU(LOG_ENTRIES), () => {
      const i = f.variable(I32T, 0);
      f.while(() => i.get().ltU(count), () => {
        const entry = f.load32(context.add(i.get().shl(2)), Context.LOG);
        f.store64(entry, -1);
        f.store64(entry, -1, 8);
        i.set(i.get().add(1));
      });
    }, () => f.fill(context.add(Context.DATA), 0xff, Context.LOG - Context.DATA));
    f.store32(context, 0, Context.FILLED);
    f.store32(context, PAGE_SHIFT, Context.LARGE);
    f.store32(context, 0, Context.LOOSE);
    noteRules(f, context);
    f.store32(context, 0, Context.SEARCHED);
    for (const set of [Context.LARGE_REGIONS, Context.FETCHED]) {
      for (let byte = 0; byte < SET_BITS / 8; byte += 8) f.store64(context, 0, set + byte);
    }
    dropWindows(f, context);
    dropApic(f, context);
    dropShadow(f);
  });

  module.body(mc.flushJumps, (f) => {
    f.fill(S.tlbContext.get(f).add(Context.JUMP), 0xff, JUMP_ENTRIES * 16);
  });

  module.body(mc.flushPage, (f, linear) => {
    const context = S.tlbContext.get(f);
    dropWindows(f, context);
    dropShadow(f);
    // Most pages that are taken away are small and hold data: what is known of them is in six places.
    const page = pageOf(linear);
    const large = f.load32(context, Context.LARGE);
    const inLarge = large.gtU(REGION_SHIFT)
      .or(isIncluded(f, context, Context.LARGE_REGIONS, linear.shrU(REGION_SHIFT)));
    // An instruction that begins on the page before may end on this one.
    const number = linear.shrU(PAGE_SHIFT);
    const code = isIncluded(f, context, Context.FETCHED, number)
      .or(isIncluded(f, context, Context.FETCHED, number.sub(1)));
    f.if(inLarge.or(code).eqz(), () => {
      const slot = context.add(tlbSlot(linear.wrap()));
      for (const index of Object.values(MmuIndex)) {
        for (const write of [0, WRITE_OFFSET]) {
          const at = Context.DATA + index * INDEX_BYTES + write;
          f.if(f.load64(slot, at).eq(page), () => f.store64(slot, -1, at));
        }
      }
      f.if(S.avicTlbPage.get(f).eq(page), () => dropApic(f, context));
      f.return();
    });

    // What is in the sets is taken out by a whole flush alone, which soon costs less than one search more.
    const searched = f.load32(context, Context.SEARCHED).add(1);
    f.store32(context, searched, Context.SEARCHED);
    const count = f.load32(context, Context.FILLED);
    f.if(count.gtU(LOG_ENTRIES).or(searched.gtU(MOST_SEARCHES)), () => {
      f.call(mc.flushTlb);
      f.return();
    });
    tally(f, Counter.FLUSHES);
    // The jump cache goes by RIP, which is a linear address only where CS has no base.
    f.if(f.load32(context, Context.JUMP_BASE), () => f.call(mc.flushJumps), undefined, "unlikely");
    // A large page is cached in 4 KiB pieces, and INVLPG of any address in it drops all of it. How large
    // the page at hand was is not known, so all that could have been one with it goes.
    const shift = f.load32(context, Context.LARGE).extendU();
    const target = linear.shrU(shift);
    const within = (address: I64): I32 => address.shrU(shift).eq(target);
    f.if(within(S.avicTlbPage.get(f)), () => dropApic(f, context));
    const kept = f.variable(I32T, 0);
    const i = f.variable(I32T, 0);
    f.while(() => i.get().ltU(count), () => {
      const entry = f.load32(context.add(i.get().shl(2)), Context.LOG);
      const address = f.load64(entry);
      // A block's only instruction may run over into the page.
      f.if(within(address).or(within(address.add(MAX_INSTRUCTION_BYTES - 1))), () => {
        f.store64(entry, -1);
      }, () => {
        // What another flush has emptied is noted anew when it is filled.
        f.if(address.ne(-1), () => {
          f.store32(context.add(kept.get().shl(2)), entry, Context.LOG);
          kept.set(kept.get().add(1));
        });
      });
      i.set(i.get().add(1));
    });
    f.store32(context, kept.get(), Context.FILLED);
  });

  // Contexts are found by tag; the least recently chosen one is given up for a new tag. Dropping
  // translations is always allowed, so the number of contexts is a matter of speed alone.
  module.body(mc.selectContext, (f, tag) => {
    forgetInForce(f);
    const area = S.cpuIndex.get(f).mul(CPU_AREA_BYTES).add(CPU_AREAS + CONTEXTS);
    const clock = S.contextClock.get(f).add(1);
    S.contextClock.set(f, clock);
    // Host and guest take turns: the last context of either is looked at first.
    const last = tag.eqz().select(i32(S.hostContext.address), i32(S.guestContext.address));
    const likely = f.load32(last);
    f.if(
      f.load32(likely, Context.USED).ne(0).and(f.load32(likely, Context.TAG).eq(tag)),
      () => {
        S.tlbContext.set(f, likely);
        f.store32(likely, clock, Context.USED);
        applyRules(f, mc);
        f.return();
      },
      undefined,
      "likely",
    );
    const best = f.variable(I32T, area);
    const found = f.variable(I32T, 0);
    const i = f.variable(I32T, 0);
    f.while(() => i.get().ltU(CONTEXT_COUNT).and(found.get().eqz()), () => {
      const context = area.add(i.get().mul(Context.BYTES));
      const used = f.load32(context, Context.USED);
      f.if(used.ne(0).and(f.load32(context, Context.TAG).eq(tag)), () => {
        best.set(context);
        found.set(1);
      }, () => {
        f.if(used.ltU(f.load32(best.get(), Context.USED)), () => best.set(context));
      });
      i.set(i.get().add(1));
    });
    const context = best.get();
    S.tlbContext.set(f, context);
    f.store32(last, context);
    f.if(found.get().eqz(), () => {
      // A context that was never used holds zeros, which are not empty entries.
      f.if(f.load32(context, Context.USED).eqz(), () => {
        f.store32(context, LOG_ENTRIES + 1, Context.FILLED);
      });
      f.call(mc.flushTlb);
      f.store32(context, tag, Context.TAG);
    });
    f.store32(context, clock, Context.USED);
    applyRules(f, mc);
  });

  module.body(mc.flushContexts, (f, tag, linear, how) => {
    disturbed.set(f, 1);
    const current = S.tlbContext.get(f);
    const area = S.cpuIndex.get(f).mul(CPU_AREA_BYTES).add(CPU_AREAS + CONTEXTS);
    const i = f.variable(I32T, 0);
    f.while(() => i.get().ltU(CONTEXT_COUNT), () => {
      const context = area.add(i.get().mul(Context.BYTES));
      const mine = f.load32(context, Context.TAG).eq(tag).or(how.eq(2));
      f.if(f.load32(context, Context.USED).ne(0).and(mine), () => {
        S.tlbContext.set(f, context);
        f.if(how.eqz(), () => f.call(mc.flushPage, linear), () => f.call(mc.flushTlb));
      });
      i.set(i.get().add(1));
    });
    S.tlbContext.set(f, current);
  });
}
