/**
 * Writes to the control registers (APM vol. 2, 3.1 and 5.2–5.3).
 *
 * @module
 */
import { dropLoose } from "../memory/tlb.ts";
import { TABLE_ACCESS } from "../memory/walk.ts";
import { Attr, Mode, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { fixedBitsHold, VmxMsr } from "../vmx/capabilities.ts";
import { EPT_IN_FORCE, Secondary } from "../vmx/controls.ts";
import { type FunctionBuilder, type I32, type I64, I64T } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { Vector } from "./raise.ts";
import { Cr0, Cr4, Efer } from "./registers.ts";

/** Bits of CR0 that can change; ET is always set, bits 63:32 must be 0, others are ignored. */
export const CR0_WRITABLE: number = Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.NE | Cr0.WP | Cr0.AM |
  Cr0.NW | Cr0.CD | Cr0.PG;

/** Bits of CR4 that are reserved on this processor, so that setting one raises #GP. */
export function reservedCr4(f: FunctionBuilder): I64 {
  // There is no VMX operation in SMM (SDM vol. 3C, 33.14.4).
  return S.cr4Implemented.get(f).xor(-1).or(S.smm.get(f).extendU().mul(Cr4.VMXE));
}

/** Gives the control-register functions their bodies. */
export function defineControl(mc: Microcode): void {
  const { module } = mc;
  const fault = (f: FunctionBuilder): void => f.call(mc.raiseError, Vector.GP, 0);
  const faultIf = (f: FunctionBuilder, condition: I32): void =>
    f.if(condition, () => fault(f), undefined, "unlikely");

  // Present entries must have bits 2:1, 8:5 and those above the physical address clear.
  module.body(mc.readPdptes, (f, cr3) => {
    const base = cr3.and(0xffff_ffe0);
    const reserved = S.reservedPte.get(f).or(0xfff0_0000_0000_01e6n);
    const ept = S.nestedPaging.get(f).eq(EPT_IN_FORCE);
    const at = f.choose(I64T, ept, () => f.call(mc.eptTranslate, base, TABLE_ACCESS), () => base);
    const entries = [0, 1, 2, 3].map((k) => f.call(mc.readPhysical, at.add(8 * k)));
    for (const entry of entries) {
      f.if(entry.has(1).and(entry.has(reserved)), () => f.return(0));
    }
    for (const [k, entry] of entries.entries()) f.store64(0, entry, S.pdptes + 8 * k);
    f.return(1);
  });

  const loadPdptesIfUsed = (f: FunctionBuilder, cr0: I64, cr4: I64, cr3: I64): void => {
    const used = cr0.has(Cr0.PG).and(cr4.has(Cr4.PAE)).and(S.efer.has(f, Efer.LMA).eqz())
      .and(S.nestedPaging.get(f).ne(1));
    f.if(used, () => faultIf(f, f.call(mc.readPdptes, cr3).eqz()));
  };

  const checkCr0 = (f: FunctionBuilder, value: I64): void => {
    faultIf(f, value.shrU(32).ne(0));
    faultIf(f, value.has(Cr0.PG).and(value.has(Cr0.PE).eqz()));
    faultIf(f, value.has(Cr0.NW).and(value.has(Cr0.CD).eqz()));
    faultIf(f, value.has(Cr0.WP).eqz().and(S.cr4.has(f, Cr4.CET)));
    f.if(S.vmxOn.get(f), () => {
      // In VMX operation some bits are fixed; an unrestricted guest has PE and PG to itself.
      const strict = fixedBitsHold(f, value.or(Cr0.ET), VmxMsr.CR0_FIXED0);
      const free = fixedBitsHold(f, value.or(Cr0.ET), VmxMsr.CR0_FIXED0, Cr0.PE | Cr0.PG);
      const unrestricted = S.secondaryControls.has(f, Secondary.UNRESTRICTED_GUEST);
      faultIf(f, unrestricted.select(free, strict).eqz());
    });
    const cr4 = S.cr4.get(f);
    const paging = value.has(Cr0.PG);
    const was = S.cr0.has(f, Cr0.PG);
    f.if(paging.and(was.eqz()), () => {
      // Long mode is entered from 32-bit code, and it needs PAE.
      const code = f.load32(0, segmentAddress(Seg.CS) + SegmentField.ATTRIBUTES);
      const cannot = cr4.has(Cr4.PAE).eqz().or(code.and(Attr.L).ne(0));
      faultIf(f, S.efer.has(f, Efer.LME).and(cannot));
    });
    f.if(paging.eqz().and(was), () => {
      faultIf(f, S.mode.has(f, Mode.LONG).or(cr4.has(Cr4.PCIDE)));
    });
  };
  const checkCr3 = (f: FunctionBuilder, value: I64): void => {
    const reserved = withoutFlushBit(f, value).shrU(S.physicalBits.get(f).extendU()).ne(0);
    faultIf(f, S.efer.has(f, Efer.LMA).and(reserved));
  };
  const checkCr4 = (f: FunctionBuilder, value: I64): void => {
    faultIf(f, value.and(reservedCr4(f)).ne(0));
    faultIf(f, S.vmxOn.get(f).and(value.has(Cr4.VMXE).eqz()));
    // Shadow stacks rest on supervisors' not writing to pages that are not writable.
    faultIf(f, value.has(Cr4.CET).and(S.cr0.has(f, Cr0.WP).eqz()));
    const long = S.efer.has(f, Efer.LMA);
    faultIf(f, long.and(value.has(Cr4.PAE).eqz()));
    faultIf(f, long.and(value.xor(S.cr4.get(f)).has(Cr4.LA57)));
    const pcidOn = value.has(Cr4.PCIDE).and(S.cr4.has(f, Cr4.PCIDE).eqz());
    faultIf(f, pcidOn.and(long.eqz().or(S.cr3.get(f).has(0xfff))));
  };
  module.body(mc.checkCr, (f, n, value) => {
    f.if(n.eqz(), () => checkCr0(f, value));
    f.if(n.eq(3), () => checkCr3(f, value));
    f.if(n.eq(4), () => checkCr4(f, value));
    f.if(n.eq(8), () => faultIf(f, value.has(~0xf)));
  });

  module.body(mc.writeCr0, (f, value) => {
    const old = S.cr0.get(f);
    const paging = value.has(Cr0.PG);
    const was = old.has(Cr0.PG);
    // Long mode becomes active or inactive with paging.
    f.if(paging.and(was.eqz()).and(S.efer.has(f, Efer.LME)), () => {
      S.efer.set(f, S.efer.get(f).or(Efer.LMA));
    });
    f.if(paging.eqz().and(was), () => S.efer.set(f, S.efer.get(f).and(~Efer.LMA)));
    const changed = old.xor(value);
    f.if(changed.has(Cr0.PG), () => loadPdptesIfUsed(f, value, S.cr4.get(f), S.cr3.get(f)));
    S.cr0.set(f, value.and(CR0_WRITABLE).or(Cr0.ET));
    f.if(changed.has(Cr0.PG | Cr0.PE), () => f.call(mc.flushTlb));
    dropLoose(f, mc);
    f.call(mc.updateMode);
  });

  module.body(mc.writeCr3, (f, value) => {
    const clean = withoutFlushBit(f, value);
    loadPdptesIfUsed(f, S.cr0.get(f), S.cr4.get(f), clean);
    S.cr3.set(f, clean);
    // Contexts are per ASID, not per PCID, so a change of CR3 always flushes; that is allowed.
    f.call(mc.flushTlb);
  });

  module.body(mc.writeCr4, (f, value) => {
    const changed = S.cr4.get(f).xor(value);
    const paging = Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.SMEP | Cr4.SMAP | Cr4.PCIDE |
      Cr4.LA57 | Cr4.PKE | Cr4.PKS;
    f.if(changed.has(Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.SMEP), () => {
      loadPdptesIfUsed(f, S.cr0.get(f), value, S.cr3.get(f));
    });
    S.cr4.set(f, value);
    f.if(changed.has(paging), () => f.call(mc.flushTlb));
    f.call(mc.updateMode);
  });
}

/** CR3 without bit 63, which with PCIDs says that nothing need be flushed. */
function withoutFlushBit(f: FunctionBuilder, value: I64): I64 {
  return S.cr4.has(f, Cr4.PCIDE).select(value.and((1n << 63n) - 1n), value);
}
