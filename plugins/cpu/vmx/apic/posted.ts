/**
 * Posted interrupts and IPI virtualization (SDM vol. 3, 30.1.6 and 30.6).
 *
 * The physical local APIC is whatever answers outside of the processor: interrupts are ended and sent
 * there by its registers, through MSRs in x2APIC mode and its page otherwise.
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { S } from "../../state/cpu_state.ts";
import { ApicOffset } from "../../svm/avic/layout.ts";
import { vectorBit } from "../../svm/avic/evaluate.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../../wasm/mod.ts";
import { readField, Vmcs } from "../fields.ts";
import { isPhysicalIpi } from "./accesses.ts";

/** Parts of a posted-interrupt descriptor. */
const Descriptor = {
  /** 256 bits: requests by vector. */
  PIR: 0,
  /** u32: 0 outstanding notification, 1 suppress notification, 23:16 notification vector. */
  CONTROL: 32,
  /** u32: destination: an APIC ID, in bits 15:8 in xAPIC mode. */
  NDST: 36,
} as const;
const OUTSTANDING = 1;
const SUPPRESS = 2;
const VECTOR_SHIFT = 16;

/** A PID pointer: bit 0 valid, 5:1 reserved, 63:6 the descriptor's address. */
const POINTER_FLAGS = 0x3f;
const POINTER_VALID = 1;

const APIC_BASE = 0x1b;
const X2APIC_MODE = 0x400;
/** ICR: level asserted. */
const ASSERT = 0x4000;

/** MSR of the register at `offset` in x2APIC mode. */
const msrOf = (offset: number): number => 0x800 | (offset >> 4);

/** Gives the functions their bodies. */
export function definePosted(mc: Microcode): void {
  const { module } = mc;

  /** Runs one or the other for the physical APIC's mode; nothing if there is no APIC. */
  const withApic = (f: FunctionBuilder, x2apic: () => void, xapic: (page: I64) => void): void => {
    f.call(mc.beforeOutside);
    f.if(f.call(mc.msrRead, APIC_BASE), () => {
      const base = f.variable(I64T, f.load64(0, S.exchange)).get();
      f.if(base.has(X2APIC_MODE), x2apic, () => xapic(base.and(0x000f_ffff_ffff_f000n)));
    });
    f.call(mc.afterOutside);
  };
  const writeMsr = (f: FunctionBuilder, offset: number, value: I64): void => {
    f.store64(0, value, S.exchange);
    f.call(mc.msrWrite, msrOf(offset));
  };
  const writePage = (f: FunctionBuilder, page: I64, offset: number, value: I32): void => {
    const at = page.add(offset);
    f.store64(0, value.extendU(), S.exchange);
    f.call(mc.deviceWrite, at.wrap(), at.shrU(32).wrap(), 4);
  };

  const endPhysical = module.define("endPhysicalInterrupt", [], undefined, (f) => {
    withApic(
      f,
      () => writeMsr(f, ApicOffset.EOI, i64(0)),
      (page) => writePage(f, page, ApicOffset.EOI, i32(0)),
    );
  });

  const notify = module.define("notifyPosted", [I32T, I32T], undefined, (f, vector, target) => {
    const command = vector.or(ASSERT);
    withApic(
      f,
      () => writeMsr(f, ApicOffset.ICR, command.extendU().or(target.extendU().shl(32))),
      (page) => {
        writePage(f, page, ApicOffset.ICR_HIGH, target.and(0xff00).shl(16));
        writePage(f, page, ApicOffset.ICR, command);
      },
    );
  });

  module.body(mc.processPosted, (f) => {
    f.call(endPhysical);
    const descriptor = f.call(mc.physical, readField(f, Vmcs.POSTED_INTERRUPT_DESCRIPTOR));
    const page = S.vapic.get(f);
    f.if(descriptor.eqz().or(page.eqz()), () => f.return());
    const control = f.load32(descriptor, Descriptor.CONTROL);
    f.store32(descriptor, control.and(~OUTSTANDING), Descriptor.CONTROL);
    for (let k = 0; k < 8; k++) {
      const requests = f.load32(descriptor, Descriptor.PIR + 4 * k);
      f.store32(descriptor, 0, Descriptor.PIR + 4 * k);
      const register = ApicOffset.IRR + 16 * k;
      f.store32(page, f.load32(page, register).or(requests), register);
    }
    const top = f.call(mc.avicHighest, page, ApicOffset.IRR);
    // Requesting it once more raises RVI to it and evaluates.
    f.if(top.geS(0), () => f.call(mc.vapicRequest, top));
  });

  module.body(mc.vapicSendIpi, (f, command, target) => {
    f.if(isPhysicalIpi(command).eqz(), () => f.return(0));
    const vector = command.and(0xff);
    const last = readField(f, Vmcs.LAST_PID_POINTER_INDEX).wrap().and(0xffff);
    f.if(vector.ltU(16).or(target.gtU(last)), () => f.return(0));
    const at = readField(f, Vmcs.PID_POINTER_TABLE).add(target.shl(3).extendU());
    const pointer = f.call(mc.readPhysical, at);
    const beyond = pointer.shrU(S.physicalBits.get(f).extendU()).ne(0);
    f.if(pointer.and(POINTER_FLAGS).ne(POINTER_VALID).or(beyond), () => f.return(0));
    const descriptor = f.call(mc.physical, pointer.and(~POINTER_FLAGS));
    f.if(descriptor.eqz(), () => f.return(0));
    const word = descriptor.add(vector.shrU(5).shl(2));
    f.store32(word, f.load32(word, Descriptor.PIR).or(vectorBit(vector)), Descriptor.PIR);
    const control = f.load32(descriptor, Descriptor.CONTROL);
    f.if(control.and(OUTSTANDING | SUPPRESS).eqz(), () => {
      f.store32(descriptor, control.or(OUTSTANDING), Descriptor.CONTROL);
      const notification = control.shrU(VECTOR_SHIFT).and(0xff);
      f.call(notify, notification, f.load32(descriptor, Descriptor.NDST));
    });
    f.return(1);
  });
}
