/**
 * How a hypervisor's answer to an exit gets to its guest, whichever unit the guest runs on.
 *
 * @module
 */
import {
  ExitReason as ImportedExitReason,
  Gpr as ImportedGpr,
  type Registers,
  type Vcpu,
  type VmExit,
} from "../../../core/mod.ts";
import { Rflags as ImportedRflags } from "../microcode/registers.ts";
import { DR6_BS } from "../state/cpu_state.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const ExitReason = ImportedExitReason;
const Gpr = ImportedGpr;
const Rflags = ImportedRflags;

/** Writes the answer in `exit` to the registers that the instruction always has it in. */
export function writeAnswer(exit: VmExit, regs: Registers): void {
  switch (exit.reason) {
    case ExitReason.IO:
      if (exit.write) break;
      if (exit.size === 4) regs.setU32(Gpr.RAX, exit.lo);
      else if (exit.size === 2) regs.setU16(Gpr.RAX, exit.lo);
      else regs.setU8(Gpr.RAX, exit.lo);
      break;
    case ExitReason.CPUID:
      regs.setU32(Gpr.RAX, exit.eax);
      regs.setU32(Gpr.RBX, exit.ebx);
      regs.setU32(Gpr.RCX, exit.ecx);
      regs.setU32(Gpr.RDX, exit.edx);
      break;
    case ExitReason.RDTSCP:
      regs.setU32(Gpr.RCX, exit.ecx);
      regs.setU32(Gpr.RAX, exit.lo);
      regs.setU32(Gpr.RDX, exit.hi);
      break;
    case ExitReason.RDMSR:
    case ExitReason.RDTSC:
    case ExitReason.RDPMC:
      regs.setU32(Gpr.RAX, exit.lo);
      regs.setU32(Gpr.RDX, exit.hi);
      break;
  }
}

/** What the processor does behind an instruction: RF is over, and TF asks for a debug trap. */
export function endInstruction({ regs, events }: Vcpu): void {
  const flags = regs.lo(Gpr.RFLAGS);
  if ((flags & (Rflags.RF | Rflags.TF)) === 0) return;
  regs.setPair(Gpr.RFLAGS, flags & ~Rflags.RF, regs.hi(Gpr.RFLAGS));
  if ((flags & Rflags.TF) !== 0) events.queueDebug(DR6_BS);
}

/** General registers after RESET and INIT: RIP FFF0h, RFLAGS 2, RDX the processor's `signature`. */
export function resetRegisters(registers: Uint32Array, signature: number): void {
  registers.fill(0);
  registers[2 * Gpr.RIP] = 0xfff0;
  registers[2 * Gpr.RFLAGS] = Rflags.ONE;
  registers[2 * Gpr.RDX] = signature;
}
