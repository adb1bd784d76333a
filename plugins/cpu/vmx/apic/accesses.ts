/**
 * A guest's accesses to its virtual APIC: the APIC-access page, MSRs 800h–8FFh in x2APIC mode
 * (SDM vol. 3, 30.4 and 30.5).
 *
 * Accesses of page walks to the APIC-access page are not told apart from those to memory.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { S } from "../../state/cpu_state.ts";
import { ApicOffset } from "../../svm/avic/layout.ts";
import { type FunctionBuilder, type I32, i32, i64 } from "../../wasm/mod.ts";
import { Primary, Secondary, Tertiary } from "../controls.ts";
import { VmxExit } from "../exit_reasons.ts";
import { deliversVirtual, exitBehind } from "./virtual_interrupts.ts";

/** Access types of an APIC-access exit: bits 15:12 of the qualification. */
export const ApicAccess = { READ: 0, WRITE: 0x1000, FETCH: 0x2000, DELIVERY: 0x3000 } as const;

/** What virtualizing an MSR access came to: #GP, done, or nothing: the access is an ordinary one. */
export const Virtualized = { FAULT: 0, DONE: 1, NO: -1 } as const;

/** First of the 256 MSRs of the x2APIC. */
const X2APIC_MSRS = 0x800;

const always: readonly number[] = [ApicOffset.TPR];
/** With virtual-interrupt delivery as well. */
const delivery: readonly number[] = [ApicOffset.EOI, ApicOffset.ICR];

const registers = (first: number, last: number): number[] =>
  Array.from({ length: (last - first) / 16 + 1 }, (_, k) => first + 16 * k);

/** With APIC-register virtualization: what can be read. */
const readable: readonly number[] = [
  ApicOffset.ID,
  ApicOffset.VERSION,
  ApicOffset.TPR,
  ApicOffset.EOI,
  ApicOffset.LDR,
  ApicOffset.DFR,
  ApicOffset.SVR,
  ...registers(ApicOffset.ISR, ApicOffset.ESR),
  ...registers(ApicOffset.ICR, ApicOffset.INITIAL_COUNT),
  ApicOffset.DIVIDE,
];
/** With it: what can be written. */
const writable: readonly number[] = [
  ApicOffset.ID,
  ApicOffset.TPR,
  ApicOffset.EOI,
  ApicOffset.LDR,
  ApicOffset.DFR,
  ApicOffset.SVR,
  ApicOffset.ESR,
  ...registers(ApicOffset.ICR, ApicOffset.INITIAL_COUNT),
  ApicOffset.DIVIDE,
];

/** A register is one bit of 64: offsets up to 3F0h in steps of 16. */
const setOf = (offsets: readonly number[]): bigint =>
  offsets.reduce((set, offset) => set | (1n << BigInt(offset >> 4)), 0n);

/** 1 if the register at `offset` is in the set that the controls allow. */
function allowed(f: FunctionBuilder, offset: I32, whole: readonly number[]): I32 {
  const register = offset.shrU(4).and(0x3f).extendU();
  const inSet = (offsets: readonly number[]): I32 =>
    i64(setOf(offsets)).shrU(register).wrap().and(1);
  const beyond = offset.geU(0x400);
  const all = S.secondaryControls.has(f, Secondary.APIC_REGISTERS).and(inSet(whole));
  const some = deliversVirtual(f).and(inSet(delivery));
  return beyond.eqz().and(inSet(always).or(all).or(some));
}

/** Gives the functions of accesses to the virtual APIC their bodies. */
export function defineAccesses(mc: Microcode): void {
  const { module } = mc;

  /** Takes the APIC-access exit. Does not return. */
  const refuse = (f: FunctionBuilder, offset: I32, type: number): void => {
    const delivering = S.delivering.get(f).ne(0);
    const kind = delivering.select(i32(ApicAccess.DELIVERY), i32(type));
    f.call(mc.vmxExitFault, VmxExit.APIC_ACCESS, offset.or(kind).extendU());
  };

  /** 1 if an access can be virtualized: in the low four bytes of a register, with the TPR shadow. */
  const fits = (f: FunctionBuilder, offset: I32, bytes: I32): I32 =>
    offset.and(15).add(bytes).leU(4).and(S.vapic.get(f).ne(0));

  module.body(mc.vapicFetch, (f, offset) => refuse(f, offset, ApicAccess.FETCH));

  module.body(mc.vapicLoad, (f, offset, bytes) => {
    const yes = fits(f, offset, bytes).and(allowed(f, offset, readable));
    f.if(yes.eqz(), () => refuse(f, offset, ApicAccess.READ));
    const value = f.load32(S.vapic.get(f).add(offset)).extendU();
    f.return(value.and(i64((1n << 32n) - 1n).shrU(i32(4).sub(bytes).shl(3).extendU())));
  });

  module.body(mc.vapicStore, (f, offset, bytes, value) => {
    const yes = fits(f, offset, bytes).and(allowed(f, offset, writable));
    f.if(yes.eqz(), () => refuse(f, offset, ApicAccess.WRITE));
    f.call(mc.needAlone);
    const at = S.vapic.get(f).add(offset);
    f.switch(
      bytes.shrU(1),
      [8, 16, 32].map((bits) => () => f.storeLow(bits, at, value)),
      () => f.unreachable(),
    );
    f.call(mc.vapicWritten, offset.and(0xff0));
  });

  const is = (offset: I32, register: number): I32 => offset.eq(register);

  // APIC-write emulation (30.4.3.2): what follows a write that has been made to the page.
  module.body(mc.vapicWritten, (f, offset) => {
    const page = S.vapic.get(f);
    const vid = deliversVirtual(f);
    f.if(is(offset, ApicOffset.TPR), () => {
      f.store32(page, f.load32(page, ApicOffset.TPR).and(0xff), ApicOffset.TPR);
      f.call(mc.vapicTpr);
      f.return();
    });
    f.if(is(offset, ApicOffset.EOI).and(vid), () => {
      f.store32(page, 0, ApicOffset.EOI);
      f.call(mc.vapicEoi);
      f.return();
    });
    f.if(is(offset, ApicOffset.ICR_HIGH), () => {
      const high = f.load32(page, ApicOffset.ICR_HIGH);
      f.store32(page, high.and(0xff00_0000), ApicOffset.ICR_HIGH);
      f.return();
    });
    f.if(is(offset, ApicOffset.ICR), () => {
      const command = f.load32(page, ApicOffset.ICR);
      f.if(vid.and(isSelfIpi(command)), () => {
        f.call(mc.vapicRequest, command.and(0xff));
        f.return();
      });
      const target = f.load32(page, ApicOffset.ICR_HIGH).shrU(24);
      f.if(virtualizesIpis(f), () => {
        f.if(f.call(mc.vapicSendIpi, command, target), () => f.return());
      });
    });
    exitBehind(f, VmxExit.APIC_WRITE, offset);
  });

  module.body(mc.vapicReadMsr, (f, index) => {
    const page = S.vapic.get(f);
    const offset = index.and(0xff).shl(4);
    const all = S.secondaryControls.has(f, Secondary.APIC_REGISTERS);
    f.if(page.eqz().or(all.or(is(offset, ApicOffset.TPR)).eqz()), () => f.return(Virtualized.NO));
    f.store64(0, f.load64(page.add(offset)), S.exchange);
    f.return(Virtualized.DONE);
  });

  module.body(mc.vapicWriteMsr, (f, index) => {
    const page = S.vapic.get(f);
    const offset = index.and(0xff).shl(4);
    const low = f.load32(0, S.exchange);
    const high = f.load32(0, S.exchange + 4);
    const vid = deliversVirtual(f);
    const put = (): void => f.store64(page.add(offset), f.load64(0, S.exchange));
    const faultIf = (condition: I32): void =>
      f.if(condition, () => f.return(Virtualized.FAULT), undefined, "unlikely");
    const beyondByte = low.and(~0xff).or(high).ne(0);
    f.if(page.eqz(), () => f.return(Virtualized.NO));
    f.if(is(offset, ApicOffset.TPR), () => {
      faultIf(beyondByte);
      put();
      f.call(mc.vapicTpr);
      f.return(Virtualized.DONE);
    });
    f.if(vid.and(is(offset, ApicOffset.EOI)), () => {
      faultIf(low.or(high).ne(0));
      put();
      f.call(mc.vapicEoi);
      f.return(Virtualized.DONE);
    });
    f.if(vid.and(is(offset, ApicOffset.SELF_IPI)), () => {
      faultIf(beyondByte);
      put();
      // Vectors below 16 are the hypervisor's to make an error of.
      f.if(
        low.ltU(16),
        () => exitBehind(f, VmxExit.APIC_WRITE, i32(ApicOffset.SELF_IPI)),
        () => f.call(mc.vapicRequest, low),
      );
      f.return(Virtualized.DONE);
    });
    f.if(virtualizesIpis(f).and(is(offset, ApicOffset.ICR)), () => {
      faultIf(low.and(RESERVED_COMMAND | BUSY).ne(0));
      put();
      f.if(f.call(mc.vapicSendIpi, low, high).eqz(), () => {
        exitBehind(f, VmxExit.APIC_WRITE, i32(ApicOffset.ICR));
      });
      f.return(Virtualized.DONE);
    });
    f.return(Virtualized.NO);
  });
}

/** ICR bits 31:20, 17:16 and 13: reserved. */
const RESERVED_COMMAND = 0xfff3_2000;
/** ICR.12: delivery status, which in x2APIC mode is reserved. */
const BUSY = 0x1000;
/** Trigger mode, delivery mode and delivery status of an edge-triggered fixed interrupt are 0. */
const EDGE_FIXED = 0x9700;
const LOGICAL = 0x800;
const SHORTHAND = 0xc_0000;
const SELF = 0x4_0000;

/** 1 if an ICR write is a self-IPI that can be virtualized: self, fixed, edge, vector from 16 on. */
function isSelfIpi(command: I32): I32 {
  return command.and(RESERVED_COMMAND | EDGE_FIXED | SHORTHAND).eq(SELF)
    .and(command.and(0xf0).ne(0));
}

/** 1 if an ICR write names one target by its physical ID: no shorthand, fixed, edge (30.1.6). */
export function isPhysicalIpi(command: I32): I32 {
  return command.and(RESERVED_COMMAND | EDGE_FIXED | SHORTHAND | LOGICAL).eqz();
}

/** 1 if IPI virtualization is on. */
function virtualizesIpis(f: FunctionBuilder): I32 {
  return S.tertiaryControls.has(f, Tertiary.IPI_VIRTUALIZATION);
}

/** 1 if RDMSR and WRMSR of 800h–8FFh may be virtualized. */
export function hasVirtualX2Apic(f: FunctionBuilder, index: I32): I32 {
  return index.and(~0xff).eq(X2APIC_MSRS)
    .and(S.secondaryControls.has(f, Secondary.VIRTUALIZE_X2APIC));
}

/** MOV to CR8 with the TPR shadow. */
export function hasVirtualTpr(f: FunctionBuilder): I32 {
  return S.primaryControls.has(f, Primary.TPR_SHADOW);
}
