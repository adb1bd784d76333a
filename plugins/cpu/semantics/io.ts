/**
 * IN and OUT, and what they share with INS and OUTS (APM vol. 2, 15.10).
 *
 * @module
 */
import { Rflags } from "../microcode/registers.ts";
import { Event, S } from "../state/cpu_state.ts";
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, interceptWord, Misc1 } from "../svm/intercepts.ts";
import { type I32, i32, type I64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { exitGuest } from "./intercept.ts";
import { asks } from "./privilege.ts";
import { exitPort } from "./vmx_intercept.ts";

/** Fields of EXITINFO1 of an IOIO exit (APM vol. 2, 15.10.2). */
export const IoioInfo = {
  IN: 0x1,
  STRING: 0x4,
  REP: 0x8,
  /** Shifted left by the bytes of the access: 1, 2, 4. */
  SIZE_SHIFT: 4,
  /** Address size 16, 32, 64. */
  ADDRESS_16: 0x80,
  ADDRESS_32: 0x100,
  ADDRESS_64: 0x200,
  SEGMENT_SHIFT: 10,
  PORT_SHIFT: 16,
} as const;

/**
 * Checks permission and intercepts of an access; the instruction must end its block. `segment` is that of
 * a string instruction's operand. Whatever else may fault comes behind (APM vol. 2, 15.10.2).
 */
export function checkAccess(
  i: Instruction,
  port: I32,
  bits: number,
  read: boolean,
  segment?: I32,
): void {
  const { f, mc } = i;
  const bytes = bits / 8;
  // What seldom happens needs the state complete, and brings it about itself.
  const seldom = (condition: I32, then: () => void): void =>
    f.if(
      condition,
      () => {
        i.spill();
        then();
      },
      undefined,
      "unlikely",
    );
  // Outside of virtual-8086 mode nothing is restricted at CPL 0, and so nothing in real mode.
  const mayBe = S.cpl.get(f).or(S.rflags.has(f, Rflags.VM));
  seldom(mayBe, () => f.call(mc.checkPort, port, bytes));
  seldom(S.events.has(f, Event.BREAKPOINTS), () => f.call(mc.portBreakpoint, port, bytes));
  const guarded = S.guestMode.get(f)
    .and(interceptWord(f, InterceptWord.MISC1).and(Misc1.IOIO).ne(0));
  seldom(guarded, () => {
    f.if(f.call(mc.portIntercepted, port, bytes), () => {
      const address = { 16: IoioInfo.ADDRESS_16, 32: IoioInfo.ADDRESS_32, 64: IoioInfo.ADDRESS_64 };
      const string = segment === undefined ? 0 : IoioInfo.STRING | address[i.addressBits];
      const fixed = (read ? IoioInfo.IN : 0) | string | (i.form.rep !== 0 ? IoioInfo.REP : 0) |
        (bytes << IoioInfo.SIZE_SHIFT);
      const number = (segment ?? i32(0)).shl(IoioInfo.SEGMENT_SHIFT);
      const info = port.shl(IoioInfo.PORT_SHIFT).or(number).or(fixed);
      exitGuest(i, i32(SvmExit.IOIO), info.extendU(), i.nextRip());
    });
  });
  seldom(S.nonRoot.get(f), () => exitPort(i, port, bits, read, segment));
}

/** Reads a port, all checks done; zero-extended. */
export function emitPortRead(i: Instruction, port: I32, bits: number): I64 {
  return i.outside(() => i.f.call(i.mc.portRead, port, bits / 8)).extendU().zeroExtend(bits);
}

/** Writes a port, all checks done. */
export function emitPortWrite(i: Instruction, port: I32, bits: number, value: I64): void {
  i.outside(() => i.f.call(i.mc.portWrite, port, bits / 8, value.zeroExtend(bits).wrap()));
}

/** The port: an immediate byte or DX. */
function portOf(i: Instruction, k: number): I32 {
  const value = i.unsigned(k).wrap();
  return i.form.operands[k]!.kind === "I" ? value.and(0xff) : value;
}

/** Port instructions by mnemonic. */
export const IO: Readonly<Record<string, Semantics>> = {
  IN: asks((i) => {
    const bits = i.width(0);
    const port = portOf(i, 1);
    checkAccess(i, port, bits, true);
    i.setReg(Reg.RAX, bits, emitPortRead(i, port, bits));
  }),
  OUT: asks((i) => {
    const bits = i.width(1);
    const port = portOf(i, 0);
    checkAccess(i, port, bits, false);
    emitPortWrite(i, port, bits, i.reg(Reg.RAX, bits));
  }),
};
