/**
 * Loads and stores at linear addresses: what the TLB answers inline, and what it does not.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Vector } from "../microcode/raise.ts";
import { MicroOp } from "../engine/block_layout.ts";
import { Cr0, Rflags } from "../microcode/registers.ts";
import { Event, Mode, S, Seg } from "../state/cpu_state.ts";
import { TLB_NEVER } from "../state/layout.ts";
import { Context, INDEX_BYTES, MmuIndex, WRITE_OFFSET } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { canonical } from "./canonical.ts";
import { holdsCode, pageHoldsCode } from "./physical.ts";
import { tlbSlot } from "./slots.ts";
import { APIC_MARK, fillShadow, findShadow, VAPIC_MARK } from "./tlb.ts";
import { Access, SHADOW_ACCESS } from "./walk.ts";

/** A hit in the TLB: a condition, and the memory address if it holds. */
export interface TlbProbe {
  /** 1 if the whole access lies in a page the TLB has. */
  readonly hit: I32;
  /** Memory address of the access, evaluated where it is used. */
  readonly address: () => I32;
}

/** Looks `bytes` at `linear` up for reading or writing at the current privilege. */
export function probe(
  f: FunctionBuilder,
  linear: I64,
  bytes: number,
  write: boolean,
): TlbProbe {
  const low = linear.wrap();
  const entry = S.tlbRead.get(f).add(tlbSlot(low));
  const offset = write ? WRITE_OFFSET : 0;
  // The page of the last byte is compared with the entry of the first: an access that leaves the page
  // misses, and any other may be misaligned as it likes.
  const last = bytes === 1 ? linear : linear.add(bytes - 1);
  return {
    hit: f.load64(entry, offset).eq(last.and(~0xfff)),
    address: () => low.add(f.load32(entry, offset + 8)),
  };
}

/**
 * The same for a number of bytes and a kind of access that are known only at run time, in the arrays of
 * `mmu` instead of those in use.
 */
function probeKind(
  f: FunctionBuilder,
  linear: I64,
  bytes: I32,
  mmu: I32,
  write: boolean,
): TlbProbe {
  const low = linear.wrap();
  const entry = S.tlbContext.get(f).add(mmu.mul(INDEX_BYTES)).add(tlbSlot(low));
  const offset = Context.DATA + (write ? WRITE_OFFSET : 0);
  return {
    hit: f.load64(entry, offset).eq(linear.add(bytes.sub(1).extendU()).and(~0xfff)),
    address: () => low.add(f.load32(entry, offset + 8)),
  };
}

/** Zero-extended load of `bits` at `linear`, inline where the TLB hits; `miss` before the slow path. */
export function emitLoad(
  mc: Microcode,
  f: FunctionBuilder,
  bits: number,
  linear: I64,
  miss: () => void,
): I64 {
  const { hit, address } = probe(f, linear, bits / 8, false);
  return f.choose(I64T, hit, () => f.loadZ(bits, address()), () => {
    miss();
    return f.call(mc.slowLoad, linear, bits, S.mmu.get(f));
  }, "likely");
}

/** Store of the low `bits` of `value` at `linear`, inline where the TLB hits. */
export function emitStore(
  mc: Microcode,
  f: FunctionBuilder,
  bits: number,
  linear: I64,
  value: I64,
  miss: () => void,
): void {
  const { hit, address } = probe(f, linear, bits / 8, true);
  f.if(hit, () => f.storeLow(bits, address(), value), () => {
    miss();
    f.call(mc.slowStore, linear, bits, value, S.mmu.get(f));
  }, "likely");
}

/**
 * The 4 KiB page after the one `linear` is in. Outside of 64-bit mode addresses wrap at 4 GiB; those of
 * descriptor tables have 64 bits in compatibility mode as well.
 */
function nextPage(f: FunctionBuilder, linear: I64): I64 {
  const next = linear.and(~0xfff).add(0x1000);
  const wide = S.mode.has(f, Mode.LONG).or(linear.shrU(32).ne(0));
  return wide.select(next, next.and(0xffff_ffff));
}

/** Bytes of an access of `bytes` at `linear` that lie before the end of its page. */
function bytesInPage(linear: I64): I32 {
  return i32(0x1000).sub(linear.wrap().and(0xfff));
}

/** Widths of accesses, by the logarithm of their bytes. */
const WIDTHS = [8, 16, 32, 64] as const;

const maskOf = (bits: I32): I64 => i64(-1).shrU(i32(64).sub(bits).extendU());

/** Gives the access functions their bodies. */
export function defineAccess(mc: Microcode): void {
  const { module } = mc;

  // A non-canonical address is a stack fault if the stack segment was used.
  const checkLinear = (f: FunctionBuilder, linear: I64, bytes: I32): void => {
    const last = linear.add(bytes.extendU()).sub(1);
    const outside = (address: I64): I32 => canonical(f, address).eqz();
    f.if(
      outside(linear).or(outside(last)),
      () => {
        const stack = S.stackAccess.get(f);
        f.if(stack, () => f.call(mc.raiseError, Vector.SS, stack.shrU(1)));
        const uop = S.uop.get(f);
        f.if(uop.ne(0), () => {
          const segment = f.load8(uop, MicroOp.ADDRESSING).shrU(4).and(7);
          f.if(segment.eq(Seg.SS), () => f.call(mc.raiseError, Vector.SS, 0));
        });
        f.call(mc.raiseError, Vector.GP, 0);
      },
      undefined,
      "unlikely",
    );
  };

  /** What an instruction's own accesses meet besides: alignment checks, and breakpoints for data. */
  const checkOwn = (f: FunctionBuilder, linear: I64, bytes: I32, mmu: I32, write: number): void => {
    f.if(
      S.tlbRead.get(f).eq(TLB_NEVER),
      () => {
        const checked = mmu.eq(MmuIndex.USER).and(S.cr0.has(f, Cr0.AM))
          .and(S.rflags.has(f, Rflags.AC));
        f.if(checked.and(linear.wrap().and(bytes.sub(1)).ne(0)), () => {
          f.call(mc.raiseError, Vector.AC, 0);
        });
        f.if(S.events.has(f, Event.BREAKPOINTS), () => {
          f.call(mc.dataBreakpoint, linear, bytes, write);
        });
      },
      undefined,
      "unlikely",
    );
  };

  const storeAt = (f: FunctionBuilder, address: I32, bytes: I32, value: I64): void =>
    f.switch(
      bytes.ctz(),
      WIDTHS.map((bits) => () => f.storeLow(bits, address, value)),
      () => f.unreachable(),
    );

  const loadBytes = (f: FunctionBuilder, pa: I64, bytes: I32): I64 => {
    const address = f.call(mc.physical, pa);
    return f.choose(
      I64T,
      address.ne(0),
      () => f.load64(address).and(maskOf(bytes.shl(3))),
      () => {
        f.if(pa.has(APIC_MARK), () => f.return(f.call(mc.avicLoad, pa.wrap(), bytes)));
        f.if(pa.has(VAPIC_MARK), () => f.return(f.call(mc.vapicLoad, pa.wrap().and(0xfff), bytes)));
        f.call(mc.needAlone);
        f.store64(S.exchange, -1);
        f.call(mc.beforeOutside);
        f.call(mc.deviceRead, pa.wrap(), pa.shrU(32).wrap(), bytes);
        f.call(mc.afterOutside);
        return f.load64(S.exchange).and(maskOf(bytes.shl(3)));
      },
      "likely",
    );
  };

  /** Drops what is decoded of the `bytes` at memory address `address`, within a page, before a store there. */
  const dropCode = (f: FunctionBuilder, address: I32, bytes: I32): void => {
    f.if(
      pageHoldsCode(f, address),
      () => {
        const end = address.add(bytes).sub(1);
        f.if(holdsCode(f, address).or(holdsCode(f, end)), () => {
          f.if(f.call(mc.codeStored, address, bytes, S.uop.get(f)), () => {
            f.call(mc.needAlone);
            f.call(mc.codeWritten, address, bytes);
          });
        });
      },
      undefined,
      "unlikely",
    );
  };

  const storeBytes = (f: FunctionBuilder, pa: I64, bytes: I32, value: I64): void => {
    const address = f.call(mc.physicalForWrite, pa);
    f.if(
      address.eqz(),
      () => {
        f.if(pa.has(APIC_MARK), () => {
          f.call(mc.avicStore, pa.wrap(), bytes, value);
          f.return();
        });
        f.if(pa.has(VAPIC_MARK), () => {
          f.call(mc.vapicStore, pa.wrap().and(0xfff), bytes, value);
          f.return();
        });
        f.call(mc.needAlone);
        f.store64(S.exchange, value.and(maskOf(bytes.shl(3))));
        f.call(mc.beforeOutside);
        f.call(mc.deviceWrite, pa.wrap(), pa.shrU(32).wrap(), bytes);
        f.call(mc.afterOutside);
        f.return();
      },
      undefined,
      "unlikely",
    );
    dropCode(f, address, bytes);
    storeAt(f, address, bytes, value);
  };
  const storePhysical = module.define("storePhysical", [I64T, I32T, I64T], undefined, storeBytes);
  /** Does what a store to memory or to a device needs done first. */
  const prepareStore = module.define("prepareStore", [I64T, I32T], undefined, (f, pa, bytes) => {
    const address = f.call(mc.physicalForWrite, pa);
    const apic = pa.has(APIC_MARK).or(pa.has(VAPIC_MARK));
    f.if(address.ne(0), () => dropCode(f, address, bytes), () => {
      f.if(apic.eqz(), () => f.call(mc.needAlone));
    });
  });
  const loadPhysical = module.define("loadPhysical", [I64T, I32T], I64T, (f, pa, bytes) => {
    f.return(loadBytes(f, pa, bytes));
  });

  // An access across two pages is done byte by byte, after both translations have succeeded.
  const splitLoad = module.define(
    "splitLoad",
    [I64T, I32T, I32T, I32T],
    I64T,
    (f, linear, bytes, access, mmu) => {
      const first = f.call(mc.translate, linear, access, mmu);
      const second = f.call(mc.translate, nextPage(f, linear), access, mmu);
      const head = bytesInPage(linear);
      const value = f.variable(I64T, 0);
      const i = f.variable(I32T, 0);
      f.while(() => i.get().ltU(bytes), () => {
        const at = i.get();
        const pa = f.choose(
          I64T,
          at.ltU(head),
          () => first.add(at.extendU()),
          () => second.add(at.sub(head).extendU()),
        );
        const byte = f.call(loadPhysical, pa, 1);
        value.set(value.get().or(byte.shl(at.shl(3).extendU())));
        i.set(at.add(1));
      });
      f.return(value.get());
    },
  );
  const splitStore = module.define(
    "splitStore",
    [I64T, I32T, I64T, I32T, I32T],
    undefined,
    (f, linear, bytes, value, access, mmu) => {
      const first = f.call(mc.translate, linear, access, mmu);
      const second = f.call(mc.translate, nextPage(f, linear), access, mmu);
      const head = bytesInPage(linear);
      // What may have the instruction run again comes before the first byte is stored.
      f.call(prepareStore, first, head);
      f.call(prepareStore, second, bytes.sub(head));
      const i = f.variable(I32T, 0);
      f.while(() => i.get().ltU(bytes), () => {
        const at = i.get();
        const pa = f.choose(
          I64T,
          at.ltU(head),
          () => first.add(at.extendU()),
          () => second.add(at.sub(head).extendU()),
        );
        f.call(storePhysical, pa, 1, value.shrU(at.shl(3).extendU()).and(0xff));
        i.set(at.add(1));
      });
    },
  );

  /** An access of an instruction's `own` leaves page faults to its caller, those of the processor raise them. */
  const load = (
    f: FunctionBuilder,
    linear: I64,
    bits: I32,
    mmu: I32,
    access: number,
    own: boolean,
  ): void => {
    const bytes = bits.shrU(3);
    // The processor's own accesses, and those to an inner stack, are not looked up inline.
    const { hit, address } = probeKind(f, linear, bytes, mmu, access === Access.WRITE);
    const plain = own ? S.tlbRead.get(f).ne(TLB_NEVER) : i32(1);
    f.if(hit.and(plain), () => {
      const at = address();
      f.switch(bytes.ctz(), WIDTHS.map((width) => () => f.return(f.loadZ(width, at))), () => {
        f.unreachable();
      });
    });
    checkLinear(f, linear, bytes);
    if (own) checkOwn(f, linear, bytes, mmu, 0);
    f.if(
      bytesInPage(linear).ltU(bytes),
      () => {
        f.return(f.call(splitLoad, linear, bytes, access, mmu));
      },
      undefined,
      "unlikely",
    );
    const pa = f.call(own ? mc.tryTranslate : mc.translate, linear, access, mmu);
    if (own) f.if(S.faulted.get(f), () => f.return(i64(0)), undefined, "unlikely");
    f.return(f.call(loadPhysical, pa, bytes));
  };
  const raiseFault = (f: FunctionBuilder): void =>
    f.if(S.faulted.get(f), () => f.call(mc.unwindFault), undefined, "unlikely");
  module.body(mc.tryLoad, (f, linear, bits, mmu) => {
    load(f, linear, bits, mmu, Access.READ, true);
  });
  module.body(mc.tryLoadForWrite, (f, linear, bits, mmu) => {
    load(f, linear, bits, mmu, Access.WRITE, true);
  });
  module.body(mc.slowLoad, (f, linear, bits, mmu) => {
    const value = f.call(mc.tryLoad, linear, bits, mmu);
    raiseFault(f);
    f.return(value);
  });
  module.body(mc.slowLoadForWrite, (f, linear, bits, mmu) => {
    const value = f.call(mc.tryLoadForWrite, linear, bits, mmu);
    raiseFault(f);
    f.return(value);
  });

  const store = (
    f: FunctionBuilder,
    linear: I64,
    bits: I32,
    value: I64,
    mmu: I32,
    own: boolean,
  ): void => {
    const bytes = bits.shrU(3);
    const { hit, address } = probeKind(f, linear, bytes, mmu, true);
    const plain = own ? S.tlbRead.get(f).ne(TLB_NEVER) : i32(1);
    f.if(hit.and(plain), () => {
      storeAt(f, address(), bytes, value);
      f.return();
    });
    checkLinear(f, linear, bytes);
    if (own) checkOwn(f, linear, bytes, mmu, 1);
    f.if(
      bytesInPage(linear).ltU(bytes),
      () => {
        f.call(splitStore, linear, bytes, value, Access.WRITE, mmu);
        f.return();
      },
      undefined,
      "unlikely",
    );
    const pa = f.call(own ? mc.tryTranslate : mc.translate, linear, Access.WRITE, mmu);
    if (own) f.if(S.faulted.get(f), () => f.return(), undefined, "unlikely");
    f.call(storePhysical, pa, bytes, value);
  };
  module.body(mc.tryStore, (f, linear, bits, value, mmu) => {
    store(f, linear, bits, value, mmu, true);
  });
  module.body(mc.slowStore, (f, linear, bits, value, mmu) => {
    f.call(mc.tryStore, linear, bits, value, mmu);
    raiseFault(f);
  });

  module.body(mc.probeStore, (f, linear, bytes) => {
    const mmu = S.mmu.get(f);
    checkLinear(f, linear, i32(1));
    f.call(mc.translate, linear, Access.WRITE, mmu);
    f.if(bytesInPage(linear).ltU(bytes), () => {
      f.call(mc.translate, nextPage(f, linear), Access.WRITE, mmu);
    });
  });

  const checkShadow = (f: FunctionBuilder, linear: I64, bytes: I32): void => {
    const last = linear.add(bytes.extendU()).sub(1);
    const outside = canonical(f, linear).and(canonical(f, last)).eqz();
    f.if(outside, () => f.call(mc.raiseError, Vector.GP, 0), undefined, "unlikely");
  };
  module.body(mc.shadowLoad, (f, linear, bits, mmu) => {
    const bytes = bits.shrU(3);
    const access = Access.READ | SHADOW_ACCESS;
    const { hit, address } = findShadow(f, linear, bytes, mmu);
    f.if(
      hit,
      () => {
        const all = f.load64(address());
        f.return(all.and(maskOf(bits)));
      },
      undefined,
      "likely",
    );
    checkShadow(f, linear, bytes);
    f.if(bytesInPage(linear).ltU(bytes), () => {
      f.return(f.call(splitLoad, linear, bytes, access, mmu));
    });
    f.return(f.call(loadPhysical, f.call(mc.translate, linear, access, mmu), bytes));
  });
  module.body(mc.shadowStore, (f, linear, bits, value, mmu) => {
    const bytes = bits.shrU(3);
    const access = Access.WRITE | SHADOW_ACCESS;
    const { hit, address } = findShadow(f, linear, bytes, mmu);
    f.if(
      hit,
      () => {
        const place = f.variable(I32T, address()).get();
        f.if(pageHoldsCode(f, place).eqz(), () => {
          storeAt(f, place, bytes, value);
          f.return();
        });
      },
      undefined,
      "likely",
    );
    checkShadow(f, linear, bytes);
    f.if(bytesInPage(linear).ltU(bytes), () => {
      f.call(splitStore, linear, bytes, value, access, mmu);
      f.return();
    });
    const pa = f.call(mc.translate, linear, access, mmu);
    const place = f.call(mc.physicalForWrite, pa);
    f.if(place, () => fillShadow(f, linear, place, mmu));
    f.call(storePhysical, pa, bytes, value);
  });

  const nothing = (): void => {};
  for (const [bits, load, store] of accessors(mc)) {
    module.body(load, (f, linear) => f.return(emitLoad(mc, f, bits, linear, nothing)));
    module.body(store, (f, linear, value) => emitStore(mc, f, bits, linear, value, nothing));
  }

  module.body(mc.systemLoad, (f, linear, bits) => {
    load(f, linear, bits, i32(MmuIndex.SUPERVISOR), Access.READ, false);
  });
  module.body(mc.systemStore, (f, linear, bits, value) => {
    store(f, linear, bits, value, i32(MmuIndex.SUPERVISOR), false);
  });
}

/** The load and store functions by width. */
function accessors(mc: Microcode): [number, Microcode["load8"], Microcode["store8"]][] {
  return [
    [8, mc.load8, mc.store8],
    [16, mc.load16, mc.store16],
    [32, mc.load32, mc.store32],
    [64, mc.load64, mc.store64],
  ];
}
