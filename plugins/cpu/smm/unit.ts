/**
 * System management mode: SMI, RSM, SMBASE (APM vol. 2, ch. 10 and 15.22; SDM vol. 3C, ch. 33).
 *
 * A guest of SVM or VMX is left for the handler without an exit: what belongs to the guest is put aside
 * inside the processor, and RSM brings it back (APM vol. 2, 15.22.3, first solution; SDM vol. 3C, 33.14,
 * the default treatment).
 *
 * What is memory in SMM alone is another physical address space's (`Processor.setSmmSpace`): a chip set hides
 * SMRAM so.
 *
 * Limits: the processor itself hides none, so that SMM_ADDR, SMM_MASK and the SMRRs do not exist; no I/O instruction is interrupted, hence none restarted; the dual-monitor treatment, by which SMIs go to an
 * SMM monitor of VMX's, is not offered (IA32_VMX_BASIC bit 49 is clear).
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { reservedCr4 } from "../microcode/control.ts";
import { EFER_IMPLEMENTED } from "../microcode/msr.ts";
import { holdsCode } from "../memory/physical.ts";
import { ripOf } from "../microcode/raise.ts";
import { Cr0, Cr4, Dr6, Dr7, Efer, Rflags } from "../microcode/registers.ts";
import { FlagsKind } from "../semantics/flags.ts";
import { Attr, Event, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import type { Field32, Field64 } from "../state/field.ts";
import { Pin } from "../vmx/controls.ts";
import { INTEL_EFER } from "../vmx/host_checks.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { AMD_SAVE_AREA, INTEL_SAVE_AREA, type SaveArea, unpack } from "./save_area.ts";

/** RIP of the handler. */
const ENTRY = 0x8000;
/** What CR0 loses. */
const CR0_CLEARED = Cr0.PE | Cr0.EM | Cr0.TS | Cr0.PG;
/** All segments of the handler: present, writable, 16-bit, 4 GiB. */
const SEGMENT: number = Attr.P | Attr.S | Attr.WRITABLE | Attr.ACCESSED | Attr.G;

/** Bits of SMM_CTL (APM vol. 2, 15.30.3). The two that make special bus cycles do nothing besides. */
export const SmmCtl = {
  DISMISS: 0x1,
  ENTER: 0x2,
  SMI_CYCLE: 0x4,
  EXIT: 0x8,
  RSM_CYCLE: 0x10,
} as const;
const SMM_CTL_DEFINED = SmmCtl.DISMISS | SmmCtl.ENTER | SmmCtl.SMI_CYCLE | SmmCtl.EXIT |
  SmmCtl.RSM_CYCLE;

/** What is put aside, and what it is in SMM: the guest's, and what no handler is to meet. */
const ASIDE32: readonly (readonly [Field32, number])[] = [
  [S.nmiBlocked, 1],
  [S.guestMode, 0],
  [S.nestedPaging, 0],
  [S.guestModeTrap, 0],
  [S.asid, 0],
  [S.intControl, 0],
  [S.virtExt, 0],
  [S.avicPage, 0],
  [S.busLocks, 0],
  [S.vmxOn, 0],
  [S.nonRoot, 0],
  [S.pinControls, 0],
  [S.primaryControls, 0],
  [S.secondaryControls, 0],
  [S.tertiaryControls, 0],
  [S.vapic, 0],
];
const ASIDE64: readonly (readonly [Field64, number])[] = [
  [S.tscOffset, 0],
  [S.avicBar, -1],
  [S.eptPointer, 0],
  [S.apicAccess, 0],
  // With CR4.CET clear there is no shadow stack in the handler (SDM vol. 3C, 33.4.1.1 has SSP in the save area).
  [S.ssp, 0],
  // Nothing is recorded in the handler (SDM vol. 3B, 18.4.1); the APM does not say.
  [S.debugCtl, 0],
];
/** Behind them: the events of a guest, CR4.VMXE, the four PAE entries. */
const ASIDE_EVENTS: number = S.smmAside + 8 * (ASIDE32.length + ASIDE64.length);
const ASIDE_VMXE: number = ASIDE_EVENTS + 8;
const ASIDE_PDPTES: number = ASIDE_VMXE + 8;

/** Events that are of a guest. */
const GUEST_EVENTS: number = Event.VINTR | Event.VNMI | Event.AVIC | Event.VMX_WINDOW | Event.MTF |
  Event.MTF_PENDING | Event.VMX_TIMER | Event.VMX_INTERRUPT;

/** Gives the functions of system management mode their bodies. */
export function defineSmm(mc: Microcode): void {
  const { module } = mc;

  /** Memory address of the byte at `offset` from SMBASE, 0 if there is none. */
  const at = (f: FunctionBuilder, offset: I32, write: boolean): I32 => {
    const pa = S.smbase.get(f).add(offset).extendU();
    return f.call(write ? mc.physicalForWrite : mc.physical, pa);
  };

  // Byte by byte: SMBASE can be any address. Where there is no memory, nothing is kept.
  const store = module.define(
    "smramStore",
    [I32T, I32T, I64T],
    undefined,
    (f, offset, bytes, value) => {
      const k = f.variable(I32T, 0);
      f.while(() => k.get().ltU(bytes), () => {
        const address = f.variable(I32T, at(f, offset.add(k.get()), true)).get();
        f.if(address, () => {
          f.store8(address, value.shrU(k.get().shl(3).extendU()).wrap());
          f.if(holdsCode(f, address), () => f.call(mc.codeWritten, address, 1));
        });
        k.set(k.get().add(1));
      });
    },
  );

  const load = module.define("smramLoad", [I32T, I32T], I64T, (f, offset, bytes) => {
    const k = f.variable(I32T, 0);
    const value = f.variable(I64T, 0);
    f.while(() => k.get().ltU(bytes), () => {
      const address = f.variable(I32T, at(f, offset.add(k.get()), false)).get();
      const byte = f.choose(I32T, address, () => f.load8(address), () => i32(0xff));
      value.set(value.get().or(byte.extendU().shl(k.get().shl(3).extendU())));
      k.set(k.get().add(1));
    });
    f.return(value.get());
  });

  const get = (f: FunctionBuilder, [offset, bits]: readonly [number, number]): I64 =>
    f.call(load, i32(offset), i32(bits / 8));

  const saveAll = (f: FunctionBuilder, { fields }: SaveArea): void => {
    for (const { offset, bits, save } of fields) {
      f.call(store, i32(offset), i32(bits / 8), save(f));
    }
  };

  const putAside = (f: FunctionBuilder): void => {
    for (const [k, [field, value]] of ASIDE32.entries()) {
      f.store64(0, field.get(f).extendU(), S.smmAside + 8 * k);
      field.set(f, value);
    }
    for (const [k, [field, value]] of ASIDE64.entries()) {
      f.store64(0, field.get(f), S.smmAside + 8 * (ASIDE32.length + k));
      field.set(f, value);
    }
    f.store64(0, S.events.get(f).and(GUEST_EVENTS).extendU(), ASIDE_EVENTS);
    S.events.clear(f, GUEST_EVENTS);
    for (let k = 0; k < 4; k++) {
      f.store64(0, f.load64(0, S.pdptes + 8 * k), ASIDE_PDPTES + 8 * k);
    }
  };

  const bringBack = (f: FunctionBuilder): void => {
    for (const [k, [field]] of ASIDE32.entries()) {
      field.set(f, f.load64(0, S.smmAside + 8 * k).wrap());
    }
    for (const [k, [field]] of ASIDE64.entries()) {
      field.set(f, f.load64(0, S.smmAside + 8 * (ASIDE32.length + k)));
    }
    S.events.or(f, f.load64(0, ASIDE_EVENTS).wrap());
    for (let k = 0; k < 4; k++) {
      f.store64(0, f.load64(0, ASIDE_PDPTES + 8 * k), S.pdptes + 8 * k);
    }
  };

  const setFlags = (f: FunctionBuilder, value: I64): void => {
    S.flagsKind.set(f, FlagsKind.VALUE);
    S.flagsA.set(f, value.and(Rflags.ARITHMETIC));
    S.rflags.set(f, value.and(Rflags.ALL & ~Rflags.ARITHMETIC).or(Rflags.ONE));
  };

  // APM vol. 2, table 10-3; SDM vol. 3C, table 33-4.
  module.body(mc.enterSmm, (f) => {
    S.events.clear(f, Event.SMI);
    // The wait of an MWAIT is over; a halt may go on behind RSM.
    S.smmHalted.set(f, S.events.has(f, Event.HALTED).and(S.monitorWait.get(f).eqz()));
    S.monitorWait.set(f, 0);
    S.smmFlags.set(f, f.call(mc.readFlags));
    // VMX operation is left, and CR4.VMXE with it, before the state is saved (SDM vol. 3C, 33.14.1).
    f.store64(0, S.cr4.get(f).and(Cr4.VMXE), ASIDE_VMXE);
    f.if(S.intel.get(f), () => S.cr4.set(f, S.cr4.get(f).and(~Cr4.VMXE)));
    S.physicalMap.set(f, S.smmMap.get(f));
    f.if(S.intel.get(f), () => saveAll(f, INTEL_SAVE_AREA), () => saveAll(f, AMD_SAVE_AREA));
    putAside(f);
    S.smm.set(f, 1);
    S.events.clear(f, Event.HALTED);
    S.monitorArmed.set(f, 0);
    // The preemption timer goes on, but expires behind RSM.
    S.budget.set(f, S.budget.get(f).add(S.timerHeld.get(f)));
    S.timerHeld.set(f, 0);

    S.cr0.set(f, S.cr0.get(f).and(i64(BigInt(CR0_CLEARED)).xor(-1)));
    S.cr4.set(f, 0);
    S.efer.set(f, 0);
    S.dr7.set(f, Dr7.FIXED);
    setFlags(f, i64(0));
    S.rip.set(f, ENTRY);
    S.cpl.set(f, 0);
    for (const segment of [Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS]) {
      const place = segmentAddress(segment);
      const code = segment === Seg.CS;
      const base = code ? S.smbase.get(f) : i32(0);
      f.store32(0, base.shrU(4).and(0xffff), place + SegmentField.SELECTOR);
      f.store32(0, code ? SEGMENT | Attr.CODE : SEGMENT, place + SegmentField.ATTRIBUTES);
      f.store32(0, -1, place + SegmentField.LIMIT);
      f.store64(0, base.extendU(), place + SegmentField.BASE);
    }
    f.call(mc.refreshSegments);
    f.call(mc.selectContext, 0);
    f.call(mc.flushContexts, 0, 0, 2);
    f.call(mc.updateMode);
  });

  /** 1 if RSM must not load what it finds (APM vol. 2, 10.4; SDM vol. 3C, 33.13). */
  const illegal = (f: FunctionBuilder, area: SaveArea, intel: boolean): I32 => {
    const cr0 = get(f, area.cr0);
    const cr4 = get(f, area.cr4);
    const efer = get(f, area.efer);
    const attributes = unpack(get(f, [area.csAttributes, 16]).wrap());
    const long = efer.has(Efer.LME).and(cr0.has(Cr0.PG));
    const longCode = attributes.and(Attr.L | Attr.DB).eq(Attr.L | Attr.DB);
    const implemented = intel ? INTEL_EFER : EFER_IMPLEMENTED;
    const vmxe = intel ? Cr4.VMXE : 0;
    const checks: I32[] = [
      get(f, [area.revision[0], 32]).ne(area.revision[1]),
      cr0.has(Cr0.PG).and(cr0.has(Cr0.PE).eqz()),
      cr0.has(Cr0.NW).and(cr0.has(Cr0.CD).eqz()),
      cr0.shrU(32).ne(0),
      get(f, area.cr3).shrU(S.physicalBits.get(f).extendU()).ne(0),
      cr4.and(reservedCr4(f).or(vmxe)).ne(0),
      get(f, area.dr6).shrU(32).ne(0),
      get(f, area.dr7).shrU(32).ne(0),
      efer.has(i64(BigInt(implemented)).xor(-1)),
      long.and(cr4.has(Cr4.PAE).eqz()),
      long.and(longCode),
    ];
    return checks.reduce((any, check) => any.or(check));
  };

  const leave = (f: FunctionBuilder, area: SaveArea, intel: boolean): void => {
    f.if(illegal(f, area, intel), () => {
      S.events.or(f, Event.SHUTDOWN);
      f.return();
    });
    const cr0 = f.variable(I64T, get(f, area.cr0)).get();
    const cr4 = f.variable(I64T, get(f, area.cr4)).get();
    const efer = get(f, area.efer);
    // What contradicts is put right: LMA follows, and there is no virtual-8086 mode in long or real mode.
    const long = efer.has(Efer.LME).and(cr0.has(Cr0.PG)).and(cr4.has(Cr4.PAE));
    const lma = long.extendU().mul(Efer.LMA);
    S.cr0.set(f, cr0.or(Cr0.ET));
    S.cr4.set(f, cr4.or(f.load64(0, ASIDE_VMXE)));
    S.cr3.set(f, get(f, area.cr3));
    S.efer.set(f, efer.and(~Efer.LMA).or(lma));
    S.dr6.set(f, get(f, area.dr6).and(Dr6.WRITABLE).or(Dr6.FIXED));
    S.dr7.set(f, get(f, area.dr7).and(Dr7.WRITABLE).or(Dr7.FIXED));
    const flags = f.variable(I64T, get(f, area.rflags));
    const noV86 = long.or(cr0.has(Cr0.PE).eqz());
    f.if(noV86, () => flags.set(flags.get().and(~Rflags.VM)));
    setFlags(f, flags.get());
    f.if(flags.get().has(Rflags.RF), () => S.events.or(f, Event.RESUME_NEW));
    const halt = get(f, area.autoHalt).ne(0);
    f.if(halt, () => S.events.or(f, Event.HALTED));
    for (const { offset, bits, restore } of area.fields) restore?.(f, get(f, [offset, bits]));
    // The last of all, for it is where the area is.
    S.smbase.set(f, get(f, area.smbase).wrap());
    const stack = f.load32(0, segmentAddress(Seg.SS) + SegmentField.ATTRIBUTES);
    const dpl = stack.shrU(Attr.DPL_SHIFT).and(3);
    const cpl = S.rflags.has(f, Rflags.VM).select(i32(3), dpl);
    S.cpl.set(f, cr0.has(Cr0.PE).select(cpl, i32(0)));
  };

  module.body(mc.leaveSmm, (f) => {
    // From here on the instruction has retired, and belongs to none of the modes.
    S.rip.set(f, ripOf(f, S.uop.get(f)));
    S.uop.set(f, 0);
    S.stepping.set(f, 0);
    S.breakpointHits.set(f, 0);
    f.if(
      S.intel.get(f),
      () => leave(f, INTEL_SAVE_AREA, true),
      () => leave(f, AMD_SAVE_AREA, false),
    );
    S.smm.set(f, 0);
    bringBack(f);
    f.call(mc.refreshSegments);
    const guest = S.guestMode.get(f).or(S.nonRoot.get(f));
    S.physicalMap.set(f, guest.select(S.guestMap.get(f), S.hostMap.get(f)));
    f.call(mc.flushContexts, 0, 0, 2);
    f.call(mc.selectContext, S.asid.get(f));
    f.if(S.nonRoot.get(f), () => f.call(mc.selectGuestContext));
    f.call(mc.updateMode);
    f.if(S.pinControls.has(f, Pin.PREEMPTION_TIMER), () => f.call(mc.splitBudget));
  });

  module.body(mc.controlSmm, (f, bits) => {
    f.if(S.smmLocked.get(f).or(bits.and(~SMM_CTL_DEFINED).ne(0)), () => f.return(0));
    f.if(bits.and(SmmCtl.DISMISS).ne(0), () => S.events.clear(f, Event.SMI));
    f.if(bits.and(SmmCtl.ENTER).ne(0), () => {
      // As an SMI does it, but nothing is saved: NMIs and SMIs wait.
      f.store64(0, S.nmiBlocked.get(f).extendU(), S.smmAside);
      S.nmiBlocked.set(f, 1);
      S.smm.set(f, 1);
      S.physicalMap.set(f, S.smmMap.get(f));
    });
    f.if(bits.and(SmmCtl.EXIT).ne(0), () => {
      S.nmiBlocked.set(f, f.load64(0, S.smmAside).wrap());
      S.smm.set(f, 0);
      S.physicalMap.set(f, S.hostMap.get(f));
    });
    f.call(mc.flushContexts, 0, 0, 2);
    f.return(1);
  });
}
