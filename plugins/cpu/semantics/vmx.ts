/**
 * VMX instructions (SDM vol. 3, ch. 31).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr4, Efer } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { Secondary } from "../vmx/controls.ts";
import { VmxError, VmxExit } from "../vmx/exit_reasons.ts";
import { readField, Vmcs } from "../vmx/fields.ts";
import { type I32, i32, I32T, type I64, i64 } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { exitVmx, reportOperand } from "./vmx_intercept.ts";
import { privileged, protectedOnly } from "./privilege.ts";

/** #UD in real, virtual-8086 and compatibility mode. */
function checkMode(i: Instruction): void {
  protectedOnly(i);
  if (i.code !== 64) i.faultIf(S.efer.has(i.f, Efer.LMA), Vector.UD);
}

/** #UD outside of VMX operation. */
function checkVmx(i: Instruction): void {
  i.faultIf(S.vmxOn.get(i.f).eqz(), Vector.UD);
}

/** In non-root operation takes a VM exit. */
function exitIfGuest(i: Instruction, reason: number, qualification: () => I64 | number): void {
  const { f } = i;
  f.if(
    S.nonRoot.get(f),
    () => exitVmx(i, reason, i64(qualification())),
    undefined,
    "unlikely",
  );
}

/** The arithmetic flags of VMsucceed or VMfail, and the end of the block. */
function finish(i: Instruction, flags: I32): void {
  i.flagsValue(flags);
  i.leave();
}

const instruction = (emit: (i: Instruction) => void): Semantics => ({
  code: true,
  addressSize: true,
  ends: true,
  emit,
});

/** An instruction with an operand in memory that exits in a guest with information on it. */
const pointer = (
  reason: number,
  emit: (i: Instruction) => void,
): Semantics =>
  instruction((i) => {
    checkVmx(i);
    checkMode(i);
    exitIfGuest(i, reason, () => reportOperand(i, 0));
    privileged(i);
    i.spill();
    emit(i);
  });

const pointerOf = (i: Instruction): I64 => i.load(64, i.addressAt(i64(0), 8, 0));

const vmxon = instruction((i) => {
  const { f, mc } = i;
  i.faultIf(S.cr4.has(f, Cr4.VMXE).eqz(), Vector.UD);
  checkMode(i);
  exitIfGuest(i, VmxExit.VMXON, () => reportOperand(i, 0));
  privileged(i);
  i.spill();
  const flags = f.choose(
    I32T,
    S.vmxOn.get(f),
    () => f.call(mc.vmxFail, VmxError.VMXON_IN_ROOT),
    () => f.call(mc.vmxon, pointerOf(i)),
  );
  finish(i, flags);
});

const vmptrst = pointer(VmxExit.VMPTRST, (i) => {
  i.store(64, i.addressAt(i64(0), 8, 1), S.vmcsPointer.get(i.f));
  finish(i, i32(0));
});

/** An instruction without operands. */
const plain = (reason: number, emit: (i: Instruction) => void): Semantics =>
  instruction((i) => {
    checkVmx(i);
    checkMode(i);
    exitIfGuest(i, reason, () => 0);
    privileged(i);
    i.spill();
    emit(i);
  });

const enter = (reason: number, launch: number): Semantics =>
  plain(reason, (i) => {
    const { f, mc } = i;
    const result = f.call(mc.vmxEnter, launch);
    f.if(result.ltS(0), () => f.return());
    finish(i, result);
  });

/** VMCALL exits from any mode and at any privilege. */
const vmcall = instruction((i) => {
  checkVmx(i);
  exitIfGuest(i, VmxExit.VMCALL, () => 0);
  checkMode(i);
  privileged(i);
  i.spill();
  finish(i, i.f.call(i.mc.vmxFail, VmxError.VMCALL_IN_ROOT));
});

const vmfunc = instruction((i) => {
  const { f, mc } = i;
  const enabled = S.nonRoot.get(f).and(S.secondaryControls.has(f, Secondary.VM_FUNCTIONS));
  i.faultIf(enabled.eqz(), Vector.UD);
  i.spill();
  f.if(f.call(mc.vmfunc).ne(0), () => f.return());
  i.leave();
});

/**
 * VMREAD and VMWRITE: in a guest they exit unless the field's bit in the shadow-VMCS bitmap is 0; then the
 * VMCS of the link pointer is meant.
 */
const access = (
  reason: number,
  write: 0 | 1,
  emit: (i: Instruction, region: I32, encoding: I64) => void,
): Semantics =>
  instruction((i) => {
    const { f, mc } = i;
    checkVmx(i);
    checkMode(i);
    const [operand, field] = write === 1 ? [1, 0] as const : [0, 1] as const;
    const encoding = i.unsigned(field);
    const region = f.variable(I32T, S.vmcs.get(f));
    f.if(
      S.nonRoot.get(f),
      () => {
        const shadowed = f.variable(I32T, S.secondaryControls.has(f, Secondary.SHADOW_VMCS));
        f.if(shadowed.get(), () => {
          shadowed.set(f.call(mc.vmcsFieldIntercepted, encoding, write).eqz());
        });
        f.if(shadowed.get().eqz(), () => {
          exitVmx(i, reason, reportOperand(i, operand, { second: field }));
        });
        const link = readField(f, Vmcs.LINK_POINTER);
        region.set(link.eq(-1).select(i32(0), f.call(mc.physical, link)));
      },
      undefined,
      "unlikely",
    );
    privileged(i);
    i.spill();
    emit(i, region.get(), encoding);
  });

const vmread = access(VmxExit.VMREAD, 0, (i, region, encoding) => {
  const { f, mc } = i;
  const flags = f.call(mc.vmread, region, encoding);
  f.if(flags.eqz(), () => i.write(0, f.load64(0, S.exchange)));
  finish(i, flags);
});

const vmwrite = access(VmxExit.VMWRITE, 1, (i, region, encoding) => {
  finish(i, i.f.call(i.mc.vmwrite, region, encoding, i.unsigned(1)));
});

/** INVEPT and INVVPID: a type in a register and a descriptor of 16 bytes in memory. */
const invalidate = (
  reason: number,
  which: "invept" | "invvpid",
): Semantics =>
  instruction((i) => {
    const { f, mc } = i;
    checkVmx(i);
    checkMode(i);
    exitIfGuest(i, reason, () => reportOperand(i, 1, { second: 0 }));
    privileged(i);
    const low = i.load(64, i.addressAt(i64(0), 8, 0));
    const high = i.load(64, i.addressAt(i64(8), 8, 0));
    i.spill();
    finish(i, f.call(mc[which], i.unsigned(0), low, high));
  });

/** VMX instructions by mnemonic. */
export const VMX: Readonly<Record<string, Semantics>> = {
  VMXON: vmxon,
  VMXOFF: plain(VmxExit.VMXOFF, (i) => {
    i.f.call(i.mc.vmxoff);
    finish(i, i32(0));
  }),
  VMCLEAR: pointer(VmxExit.VMCLEAR, (i) => finish(i, i.f.call(i.mc.vmclear, pointerOf(i)))),
  VMPTRLD: pointer(VmxExit.VMPTRLD, (i) => finish(i, i.f.call(i.mc.vmptrld, pointerOf(i)))),
  VMPTRST: vmptrst,
  VMREAD: vmread,
  VMWRITE: vmwrite,
  VMLAUNCH: enter(VmxExit.VMLAUNCH, 1),
  VMRESUME: enter(VmxExit.VMRESUME, 0),
  VMCALL: vmcall,
  VMFUNC: vmfunc,
  INVEPT: invalidate(VmxExit.INVEPT, "invept"),
  INVVPID: invalidate(VmxExit.INVVPID, "invvpid"),
};
