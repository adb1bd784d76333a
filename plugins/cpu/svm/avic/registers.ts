/**
 * A guest's accesses to its APIC's registers under AVIC: memory accesses to the APIC page in xAVIC
 * mode, MSRs 800h–8FFh in x2AVIC mode, and CR8 (APM vol. 2, 15.29.3 and 15.29.9).
 *
 * In x2AVIC mode the privilege and the MSR permission map have been looked at before. The manual does
 * not list which of x2APIC's own rules the AVIC unit then applies; here it is all of them: #GP for
 * registers that do not exist, for writes of read-only ones and reads of SELF_IPI, and for reserved
 * bits. One of these is known from KVM: selecting TSC-deadline mode in 832h is #GP and no exit.
 *
 * @module
 */
import { type Microcode, Unwind } from "../../microcode/microcode.ts";
import { Event, S } from "../../state/cpu_state.ts";
import { AVIC_TABLES } from "../../state/layout.ts";
import { type FunctionBuilder, type I32, i32, type I64, i64, I64T } from "../../wasm/mod.ts";
import { SvmExit } from "../exit_codes.ts";
import { IntControl } from "../vmcb.ts";
import { MSR_REGISTERS, RegisterAccess, RESERVED_MASKS, WriteKind } from "./access_table.ts";
import { vectorBit, vectorRegister } from "./evaluate.ts";
import { ApicOffset } from "./layout.ts";

/** EXITINFO1 bit 32 of exit 402h: the access is a write. */
const WRITE = 1n << 32n;

/**
 * Whether a level-triggered EOI has cleared the ISR bit by the time of its exit. Table 15-22 does not
 * say; KVM's handler writes EOI again in its own APIC, which would take the next vector out of service
 * if the bit were gone.
 */
const LEVEL_EOI_CLEARS_ISR: boolean = false;

/** What the register at byte offset `register * 16` allows. */
function accessOf(f: FunctionBuilder, register: I32): I32 {
  return f.load8(register, AVIC_TABLES);
}

/** 1 in xAVIC mode. */
function xavic(f: FunctionBuilder): I32 {
  return S.intControl.get(f).and(IntControl.AVIC | IntControl.X2AVIC).eq(IntControl.AVIC);
}

/** 1 if a guest runs in x2AVIC mode. */
export function x2avic(f: FunctionBuilder): I32 {
  return S.avicPage.get(f).ne(0).and(S.intControl.has(f, IntControl.X2AVIC));
}

/** Gives the functions for register accesses their bodies. */
export function defineRegisters(mc: Microcode): void {
  const { module } = mc;

  /** Exit 402h as a fault: nothing is done. */
  const unaccelerated = (f: FunctionBuilder, offset: I32, write: boolean): void => {
    const info = offset.extendU();
    f.call(mc.vmexit, SvmExit.AVIC_NOACCEL, write ? info.or(WRITE) : info, 0);
    f.call(mc.unwindTo, Unwind.VMEXIT);
  };

  /** Exit 402h behind the instruction. */
  const trap = (f: FunctionBuilder, offset: I32 | number, info2: I32 | number): void => {
    S.trapCode.set(f, SvmExit.AVIC_NOACCEL);
    S.trapInfo1.set(f, i32(offset).extendU().or(WRITE));
    S.trapInfo2.set(f, i32(info2).extendU());
    S.events.or(f, Event.VMEXIT_TRAP);
  };

  // The class in V_TPR and the page's register are kept the same from here on.
  module.body(mc.avicWriteTpr, (f, priority) => {
    const page = S.avicPage.get(f);
    const value = priority.and(0xff);
    f.store32(page, value, ApicOffset.TPR);
    S.intControl.set(f, S.intControl.get(f).and(~IntControl.V_TPR).or(value.shrU(4)));
    f.call(mc.avicEvaluate);
  });

  const endOfInterrupt = module.define("avicEoi", [], undefined, (f) => {
    const page = S.avicPage.get(f);
    const vector = f.call(mc.avicHighest, page, ApicOffset.ISR);
    f.if(vector.ltS(0), () => f.return());
    const bit = vectorBit(vector);
    const service = vectorRegister(page, ApicOffset.ISR, vector);
    const clear = (): void => f.store32(service, f.load32(service).and(bit.xor(-1)));
    const level = f.load32(vectorRegister(page, ApicOffset.TMR, vector)).and(bit).ne(0);
    f.if(level, () => {
      if (LEVEL_EOI_CLEARS_ISR) clear();
      trap(f, ApicOffset.EOI, vector);
    }, clear);
    f.call(mc.avicEvaluate);
  });

  /** What a write of `value` to the register at `offset` does beside being stored. */
  const sideEffect = (f: FunctionBuilder, kind: I32, offset: I32, value: I32): void => {
    f.switch(kind, [
      () => {},
      () => {},
      () => trap(f, offset, 0),
      () => f.call(mc.avicWriteTpr, value),
      () => f.call(endOfInterrupt),
      () => f.call(mc.avicSend),
      () => f.call(mc.avicSelfIpi, value.and(0xff)),
    ], () => f.unreachable());
  };

  module.body(mc.avicLoad, (f, address, bytes) => {
    const offset = address.and(0xfff);
    const acts = xavic(f).and(offset.and(12).eqz());
    const faults = accessOf(f, offset.shrU(4)).and(RegisterAccess.READ_FAULT).ne(0);
    f.if(acts.and(faults), () => unaccelerated(f, offset.and(0xff0), false));
    f.return(f.load64(address).and(i64(-1).shrU(i32(64).sub(bytes.shl(3)).extendU())));
  });

  // Registers are 32 bits at multiples of 16; what lies between them is memory like any other.
  module.body(mc.avicStore, (f, address, bytes, value) => {
    const offset = address.and(0xfff);
    const acts = xavic(f).and(offset.and(12).eqz());
    const kind = accessOf(f, offset.shrU(4)).shrU(RegisterAccess.WRITE_SHIFT);
    const does = acts.select(kind, i32(WriteKind.ALLOW));
    f.if(does.eq(WriteKind.FAULT), () => unaccelerated(f, offset.and(0xff0), true));
    f.if(does.ne(WriteKind.ALLOW), () => f.call(mc.needAlone));
    // SELF_IPI has no place in the page in xAPIC mode: offset 3F0h is memory there.
    f.switch(
      bytes.ctz(),
      [8, 16, 32, 64].map((bits) => () => f.storeLow(bits, address, value)),
      () => f.unreachable(),
    );
    f.if(does.ne(WriteKind.SELF_IPI), () => {
      sideEffect(f, does, offset.and(0xff0), value.wrap());
    });
  });

  module.body(mc.avicReadMsr, (f, index) => {
    const register = index.and(0xff);
    f.if(register.geU(MSR_REGISTERS), () => f.return(0));
    const access = accessOf(f, register);
    f.if(access.and(RegisterAccess.MSR_READ_GP).ne(0), () => f.return(0));
    const offset = register.shl(4);
    f.if(access.and(RegisterAccess.READ_FAULT).ne(0), () => unaccelerated(f, offset, false));
    const page = S.avicPage.get(f);
    const low = f.load32(page.add(offset)).extendU();
    const isCommand = offset.eq(ApicOffset.ICR);
    const high = f.load32(page, ApicOffset.ICR_HIGH).extendU().shl(32);
    f.store64(0, isCommand.select(low.or(high), low), S.exchange);
    f.return(1);
  });

  module.body(mc.avicWriteMsr, (f, index) => {
    const value: I64 = f.variable(I64T, f.load64(0, S.exchange)).get();
    const register = index.and(0xff);
    f.if(register.geU(MSR_REGISTERS), () => f.return(0));
    const access = accessOf(f, register);
    const reserved = f.load64(register.shl(3), RESERVED_MASKS);
    f.if(
      access.and(RegisterAccess.MSR_WRITE_GP).ne(0).or(value.has(reserved)),
      () => f.return(0),
    );
    const offset = register.shl(4);
    const kind = access.shrU(RegisterAccess.WRITE_SHIFT);
    f.if(kind.eq(WriteKind.FAULT), () => unaccelerated(f, offset, true));
    const page = S.avicPage.get(f);
    f.store32(page.add(offset), value.wrap());
    f.if(kind.eq(WriteKind.ICR), () => {
      f.store32(page, value.shrU(32).wrap(), ApicOffset.ICR_HIGH);
    });
    sideEffect(f, kind, offset, value.wrap());
    f.return(1);
  });
}
