/**
 * Instructions that drop translations: INVLPG and INVPCID (APM vol. 3, ch. 4).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr4, Rflags } from "../microcode/registers.ts";
import { S, Seg, SEGMENT_BYTES, SegmentField } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1, Misc3 } from "../svm/intercepts.ts";
import { Primary, Secondary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { i32, i64 } from "../wasm/mod.ts";
import { notCanonical } from "../memory/canonical.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { exitGuest } from "./intercept.ts";
import { ended, privileged } from "./privilege.ts";
import { exitInvlpg, exitVmx, reportOperand } from "./vmx_intercept.ts";

const invlpg = ended((i) => {
  privileged(i);
  const { f, mc } = i;
  const offset = i.offset();
  // The linear address, without checks: INVLPG of an address nobody may use does nothing.
  const base = f.load64(i.segment().mul(SEGMENT_BYTES), S.segments + SegmentField.BASE);
  const linear = i.code !== 64
    ? offset.add(base).and(0xffff_ffff)
    : offset.add(i.segment().geU(Seg.FS).select(base, i64(0)));
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.INVLPG).ne(0));
  f.if(wanted, () => exitGuest(i, i32(SvmExit.INVLPG), linear), undefined, "unlikely");
  exitInvlpg(i, linear);
  f.call(mc.flushPage, linear);
});

/** What INVPCID drops, by the type in its register. */
const Type = { ADDRESS: 0, CONTEXT: 1, ALL: 2, ALL_BUT_GLOBAL: 3 } as const;

/** INVPCID in VMX non-root operation: undefined unless enabled, and exits where INVLPG does. */
function interceptVmx(i: Instruction): void {
  const { f } = i;
  f.if(
    S.nonRoot.get(f),
    () => {
      i.faultIf(S.secondaryControls.has(f, Secondary.INVPCID).eqz(), Vector.UD);
      privileged(i);
      f.if(S.primaryControls.has(f, Primary.INVLPG), () => {
        exitVmx(i, VmxExit.INVPCID, reportOperand(i, 1, { second: 0 }));
      });
    },
    undefined,
    "unlikely",
  );
}

/**
 * INVPCID: a type in a register, and in memory a PCID (11:0) and a linear address (127:64). Only the
 * translations of the PCID in CR3 are ever kept, so those of all others have been dropped already.
 */
const invpcid = ended((i) => {
  const { f, mc } = i;
  interceptVmx(i);
  const virtual8086 = S.rflags.has(f, Rflags.VM);
  i.faultIf(S.cpl.get(f).ne(0).or(virtual8086), Vector.GP, 0);
  const type = i.unsigned(0);
  const wanted = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC3).and(Misc3.INVPCID).ne(0));
  // EXITINFO1 is the operand's linear address, EXITINFO2 the register.
  f.if(
    wanted,
    () => exitGuest(i, i32(SvmExit.INVPCID), i.addressAt(i64(0), 8, 0), type),
    undefined,
    "unlikely",
  );
  const low = i.load(64, i.addressAt(i64(0), 8, 0));
  const linear = i.load(64, i.addressAt(i64(8), 8, 0));
  i.faultIf(type.gtU(Type.ALL_BUT_GLOBAL), Vector.GP, 0);
  i.faultIf(low.shrU(12).ne(0), Vector.GP, 0);
  const single = type.leU(Type.CONTEXT);
  const unused = S.cr4.has(f, Cr4.PCIDE).eqz();
  i.faultIf(single.and(unused).and(low.ne(0)), Vector.GP, 0);
  i.faultIf(type.eqz().and(notCanonical(f, linear)), Vector.GP, 0);
  const current = low.eq(S.cr3.get(f).and(0xfff)).or(unused);
  i.spill();
  f.if(type.eqz(), () => {
    f.if(current, () => f.call(mc.flushPage, linear));
  }, () => {
    f.if(current.or(single.eqz()), () => f.call(mc.flushTlb));
  });
}, { addressSize: true });

/** Instructions that drop translations, by mnemonic. */
export const INVALIDATE: Readonly<Record<string, Semantics>> = {
  INVLPG: invlpg,
  INVPCID: invpcid,
};
