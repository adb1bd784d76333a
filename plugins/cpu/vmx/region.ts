/**
 * The instructions that manage VMX operation and VMCSs, privileges and operands checked: VMXON, VMXOFF,
 * VMCLEAR, VMPTRLD, VMREAD, VMWRITE (SDM vol. 3, ch. 31).
 *
 * Each yields the arithmetic flags to be set: none for VMsucceed, CF for VMfailInvalid, ZF for
 * VMfailValid, whose error number is then in the current VMCS (31.2). A region where there is no memory
 * is refused as an address that is not legal; the manual leaves it to the system.
 *
 * @module
 */
import { MicrocodeFeature } from "../isa_features.ts";
import { Vector } from "../microcode/raise.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { Rflags, Xcr0 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64 } from "../wasm/mod.ts";
import { capability, FeatureControl, fixedBitsHold, VmxMsr } from "./capabilities.ts";
import { Secondary } from "./controls.ts";
import { VmxError } from "./exit_reasons.ts";
import {
  FieldWidth,
  lookUpField,
  noteWrite,
  SHADOW_VMCS,
  Vmcs,
  VMCS_REVISION,
  VMCS_USED,
  VmcsGroup,
  VmcsRegion,
  whereIs,
  writeField,
} from "./fields.ts";

/** Flags of VMsucceed and VMfailInvalid. */
const SUCCEED = 0;
const FAIL_INVALID = Rflags.CF;

/** 1 if a physical address is not aligned to `alignment` or beyond MAXPHYADDR. */
export function illegalAddress(f: FunctionBuilder, address: I64, alignment: number): I32 {
  return address.has(alignment - 1).or(
    address.shrU(S.physicalBits.get(f).extendU()).ne(0),
  );
}

/** Gives the functions of VMX operation their bodies. */
export function defineRegion(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.vmxFail, (f, error) => {
    f.if(S.vmcs.get(f).eqz(), () => f.return(FAIL_INVALID));
    writeField(f, Vmcs.INSTRUCTION_ERROR, error.extendU());
    f.return(Rflags.ZF);
  });

  const failIf = (f: FunctionBuilder, condition: I32, error: number): void =>
    f.if(condition, () => f.return(f.call(mc.vmxFail, error)), undefined, "unlikely");

  /** The current VMCS, if there is one, goes to its region. */
  const putBack = module.define("vmcsPutBack", [], undefined, (f) => {
    const region = S.vmcs.get(f);
    // The revision identifier is software's.
    const { ABORT } = VmcsRegion;
    f.if(region.ne(0), () => {
      f.copy(region.add(ABORT), i32(S.vmcsData + ABORT), i32(VMCS_USED - ABORT));
    });
  });

  module.body(mc.vmxon, (f, pa) => {
    const control = S.featureControl.get(f);
    const wanted = FeatureControl.LOCK | FeatureControl.VMXON;
    const refused = control.and(wanted).ne(wanted)
      .or(fixedBitsHold(f, S.cr0.get(f), VmxMsr.CR0_FIXED0).eqz())
      .or(fixedBitsHold(f, S.cr4.get(f), VmxMsr.CR4_FIXED0).eqz());
    f.if(refused, () => f.call(mc.raiseError, Vector.GP, 0));
    f.if(illegalAddress(f, pa, 0x1000), () => f.return(FAIL_INVALID));
    const address = f.call(mc.physical, pa);
    f.if(address.eqz(), () => f.return(FAIL_INVALID));
    f.if(f.load32(address).ne(VMCS_REVISION), () => f.return(FAIL_INVALID));
    S.vmxonPointer.set(f, pa);
    S.vmcs.set(f, 0);
    S.vmcsPointer.set(f, -1);
    S.vmxOn.set(f, 1);
    f.return(SUCCEED);
  });

  module.body(mc.vmxoff, (f) => {
    f.call(putBack);
    S.vmxOn.set(f, 0);
    S.vmcs.set(f, 0);
    S.vmcsPointer.set(f, -1);
  });

  module.body(mc.vmclear, (f, pa) => {
    failIf(f, illegalAddress(f, pa, 0x1000), VmxError.VMCLEAR_ADDRESS);
    failIf(f, pa.eq(S.vmxonPointer.get(f)), VmxError.VMCLEAR_VMXON_POINTER);
    const address = f.call(mc.physical, pa);
    failIf(f, address.eqz(), VmxError.VMCLEAR_ADDRESS);
    f.if(pa.eq(S.vmcsPointer.get(f)), () => {
      f.call(putBack);
      S.vmcs.set(f, 0);
      S.vmcsPointer.set(f, -1);
    });
    f.store32(address, 0, VmcsRegion.LAUNCHED);
    f.return(SUCCEED);
  });

  module.body(mc.vmptrld, (f, pa) => {
    failIf(f, illegalAddress(f, pa, 0x1000), VmxError.VMPTRLD_ADDRESS);
    failIf(f, pa.eq(S.vmxonPointer.get(f)), VmxError.VMPTRLD_VMXON_POINTER);
    const address = f.call(mc.physical, pa);
    failIf(f, address.eqz(), VmxError.VMPTRLD_ADDRESS);
    // Its revision is that of the region, which software may have written since.
    const first = f.load32(address, VmcsRegion.REVISION);
    // Bit 31 makes it a shadow VMCS, where the processor knows those.
    const shadows = capabilityOfShadows(f);
    const wrong = first.and(~SHADOW_VMCS).ne(VMCS_REVISION)
      .or(first.ltS(0).and(shadows.eqz()));
    failIf(f, wrong, VmxError.VMPTRLD_REVISION);
    f.if(pa.ne(S.vmcsPointer.get(f)), () => {
      f.call(putBack);
      f.copy(i32(S.vmcsData), address, i32(VMCS_USED));
      S.vmcsWritten.set(f, VmcsGroup.ALL);
      S.savedMode.set(f, 0);
      S.vmcs.set(f, address);
      S.vmcsPointer.set(f, pa);
    });
    f.return(SUCCEED);
  });

  /** Reads the field or its half into `S.exchange`. */
  module.body(mc.vmread, (f, region, encoding) => {
    f.if(region.eqz(), () => f.return(FAIL_INVALID));
    const offset = lookUpField(f, encoding);
    failIf(f, offset.eqz().or(isMissing(f, encoding)), VmxError.UNSUPPORTED_FIELD);
    const value = f.load64(whereIs(f, region).add(offset));
    f.store64(0, encoding.has(1).select(value.shrU(32), value), S.exchange);
    f.return(SUCCEED);
  });

  /** Writes the field or its half, cut to its width. */
  module.body(mc.vmwrite, (f, region, encoding, value) => {
    f.if(region.eqz(), () => f.return(FAIL_INVALID));
    const offset = lookUpField(f, encoding);
    failIf(f, offset.eqz().or(isMissing(f, encoding)), VmxError.UNSUPPORTED_FIELD);
    // IA32_VMX_MISC bit 29: the fields with information on exits can be written like any other.
    const at = whereIs(f, region).add(offset);
    f.if(region.eq(S.vmcs.get(f)), () => noteWrite(f, encoding), undefined, "likely");
    f.if(encoding.has(1), () => {
      f.store32(at, value.wrap(), 4);
      f.return(SUCCEED);
    });
    const width = encoding.shrU(13).wrap().and(3);
    f.if(width.eq(FieldWidth.W16), () => f.store64(at, value.and(0xffff)), () => {
      f.if(
        width.eq(FieldWidth.W32),
        () => f.store64(at, value.and(0xffff_ffff)),
        () => f.store64(at, value),
      );
    });
    f.return(SUCCEED);
  });
}

/**
 * 1 for a field that this processor does not have: the extended instruction information without APX, and
 * those of control-flow enforcement without that.
 */
function isMissing(f: FunctionBuilder, encoding: I64): I32 {
  const apx = encoding.and(~1).eq(Vmcs.EXTENDED_INSTRUCTION_INFO)
    .and(S.xcr0Supported.has(f, Xcr0.APX).eqz());
  const either = MicrocodeFeature.SHSTK | MicrocodeFeature.IBT;
  // Three of the guest and three of the host.
  const cet = encoding.sub(Vmcs.GUEST_S_CET).leU(4).or(encoding.sub(Vmcs.HOST_S_CET).leU(4));
  return apx.or(cet.and(S.features.has(f, either).eqz()));
}

function capabilityOfShadows(f: FunctionBuilder): I32 {
  return capability(f, VmxMsr.SECONDARY).shrU(32).has(Secondary.SHADOW_VMCS);
}
