/**
 * The interrupt flag of programs below IOPL: virtual-8086 mode extensions and protected-mode virtual
 * interrupts (CR4.VME and CR4.PVI; APM vol. 2, 8.9; SDM vol. 3B, 21.3 and 21.4).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Rflags } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { type I32, i32, type I64, i64 } from "../wasm/mod.ts";
import type { Instruction } from "./instruction.ts";

/** 1 in virtual-8086 mode with an IOPL below 3. 64-bit code is never in it. */
function belowIopl(i: Instruction): I32 {
  if (i.code === 64) return i32(0);
  const flags = S.rflags.get(i.f);
  return flags.has(Rflags.VM).and(flags.and(Rflags.IOPL).ne(Rflags.IOPL));
}

/**
 * In virtual-8086 mode PUSHF and POPF need IOPL 3 or, with operands of 16 bits, CR4.VME.
 *
 * @returns 1 if it is VIF that they mean by IF.
 */
export function checkFlagsAccess(i: Instruction): I32 {
  const below = belowIopl(i);
  const { f } = i;
  const extended = i.bits === 16 ? S.cr4.has(f, Cr4.VME) : i32(0);
  i.faultIf(below.and(extended.eqz()), Vector.GP, 0);
  return below;
}

/** The flags that PUSHF pushes below IOPL: IOPL reads 3, and IF is VIF. */
export function flagsBelowIopl(flags: I64): I64 {
  const interrupt = flags.has(Rflags.VIF).select(i64(Rflags.IF), i64(0));
  return flags.and(~Rflags.IF).or(Rflags.IOPL).or(interrupt);
}

/** Below IOPL, POPF may neither single-step nor let interrupts in while one waits. */
export function checkPoppedFlags(i: Instruction, below: I32, image: I64): void {
  const waits = image.has(Rflags.IF).and(S.rflags.has(i.f, Rflags.VIP));
  i.faultIf(below.and(image.has(Rflags.TF).or(waits)), Vector.GP, 0);
}

/** `flags` with VIF as IF is in `image`. */
export function withVirtualIf(flags: I64, image: I64): I64 {
  const interrupt = image.has(Rflags.IF).select(i64(Rflags.VIF), i64(0));
  return flags.and(~Rflags.VIF).or(interrupt);
}

/**
 * CLI and STI: they work on IF with CPL at most IOPL (in virtual-8086 mode IOPL 3), on VIF below that where
 * CR4 allows it, and are #GP elsewhere. `interrupt` is what becomes of IF, `virtual` of VIF.
 */
export function changeInterruptFlag(
  i: Instruction,
  interrupt: () => void,
  virtual: () => void,
): void {
  const { f } = i;
  const flags = S.rflags.get(f);
  const cpl = S.cpl.get(f);
  const denied = S.cr0.has(f, Cr0.PE).and(cpl.gtU(flags.shrU(12).wrap().and(3)));
  f.if(
    denied,
    () => {
      const v86 = flags.has(Rflags.VM);
      const enabled = v86.select(S.cr4.has(f, Cr4.VME), S.cr4.has(f, Cr4.PVI).and(cpl.eq(3)));
      i.faultIf(enabled.eqz(), Vector.GP, 0);
      virtual();
    },
    interrupt,
    "unlikely",
  );
}
