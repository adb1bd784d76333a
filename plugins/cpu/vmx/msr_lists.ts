/**
 * The lists of MSRs that VM entries load, and that VM exits store and load (SDM vol. 3, 27.4, 28.4, 28.6).
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { Msr } from "../microcode/msr.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T, type I64, type Tag } from "../wasm/mod.ts";
import { readField, Vmcs } from "./fields.ts";

/** An entry: u32 index, u32 reserved, u64 value. */
const ENTRY_BYTES = 16;
const VALUE = 8;
/** What a list with nothing wrong yields. */
export const LIST_OK = 0;

/**
 * Longest list, as IA32_VMX_MISC has it. What a longer one does is undefined; here the first entry beyond
 * fails.
 */
const MOST_ENTRIES = 512;

/** MSRs 800h–8FFh cannot be in a list while the local APIC is in x2APIC mode. */
function isX2Apic(f: FunctionBuilder, index: I32): I32 {
  return index.and(~0xff).eq(0x800).and(S.apicBase.has(f, X2APIC_MODE));
}

/** IA32_APIC_BASE.EXTD. */
const X2APIC_MODE = 0x400;
/** MSRs that no list loads: the VMCS has fields for them. */
const NOT_LOADED: readonly number[] = [Msr.FS_BASE, Msr.GS_BASE];

/** Goes through a list; yields the number of the first entry (from 1) that fails, or 0. */
function walk(
  f: FunctionBuilder,
  mc: Microcode,
  count: number,
  address: number,
  entry: (at: I32, index: I32) => I32,
): I32 {
  const entries = readField(f, count).wrap();
  const start: I64 = readField(f, address);
  const k = f.variable(I32T, 0);
  const failed = f.variable(I32T, LIST_OK);
  f.while(() => k.get().ltU(entries).and(failed.get().eqz()), () => {
    const number = k.get().add(1);
    const at = f.call(mc.physical, start.add(k.get().mul(ENTRY_BYTES).extendU()));
    f.if(at.eqz().or(number.gtU(MOST_ENTRIES)), () => failed.set(number), () => {
      const reserved = f.load32(at, 4);
      f.if(reserved.ne(0), () => failed.set(number), () => {
        f.if(entry(at, f.load32(at)).eqz(), () => failed.set(number));
      });
    });
    k.set(number);
  });
  return failed.get();
}

/** Gives the accesses that lists make their bodies: what is a fault elsewhere is a failure of the list. */
export function defineMsrLists(mc: Microcode, tag: Tag): void {
  const { module } = mc;
  module.body(mc.listReadMsr, (f, index) => {
    f.tryCatch(tag, () => f.return(f.call(mc.readMsr, index)), () => f.return(0));
  });
  module.body(mc.listWriteMsr, (f, index) => {
    f.tryCatch(tag, () => f.return(f.call(mc.writeMsr, index)), () => f.return(0));
  });
}

/** Loads a list into MSRs. */
export function loadMsrs(f: FunctionBuilder, mc: Microcode, count: number, address: number): I32 {
  return walk(f, mc, count, address, (at, index) => {
    const refused = NOT_LOADED.map((number) => index.eq(number))
      .reduce((any, one) => any.or(one), isX2Apic(f, index));
    const done = f.variable(I32T, 0);
    f.if(refused.eqz(), () => {
      f.store64(0, f.load64(at, VALUE), S.exchange);
      done.set(f.call(mc.listWriteMsr, index));
    });
    return done.get();
  });
}

/** Stores MSRs into the VM-exit MSR-store list. */
export function storeMsrs(f: FunctionBuilder, mc: Microcode): I32 {
  const { EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE_ADDRESS } = Vmcs;
  return walk(f, mc, EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE_ADDRESS, (at, index) => {
    const done = f.variable(I32T, 0);
    f.if(isX2Apic(f, index).eqz(), () => {
      done.set(f.call(mc.listReadMsr, index));
      f.if(done.get(), () => f.store64(at, f.load64(0, S.exchange), VALUE));
      // The counter's own value, neither scaled nor with the guest's offset.
      f.if(index.eq(Msr.TSC), () => f.store64(at, f.call(mc.readHostTsc), VALUE));
    });
    return done.get();
  });
}
