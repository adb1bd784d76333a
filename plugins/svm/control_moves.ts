/**
 * Moves to control registers that are answered by storing the value into the VMCB.
 *
 * @module
 */
import {
  Clean,
  ControlMove,
  type ControlRegisters,
  moveToCr0,
  moveToCr4,
  Save,
  storedCr0,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** EXITINFO1 bit 63: a MOV, not LMSW, CLTS or SMSW (APM vol. 2, 15.8.1). */
const MOV = 0x8000_0000;
/** The highest register whose value is in the vCPU's storage whoever switches R16–R31. */
const LAST_STORED = 15;

/**
 * Carries out the write of a control register at which `guest` has exited, all checks of which the processor
 * has done (APM vol. 2, table 15-7), but for RIP.
 *
 * @returns Whether it has. If not, nothing has happened.
 */
export function moveToControl(guest: GuestCpu): boolean {
  const { vmcb, moving } = guest;
  const { exit, regs } = guest.vcpu;
  const register = exit.info1Lo & 31;
  if ((exit.info1Hi & MOV) === 0 || register > LAST_STORED) return false;
  const low = regs.lo(register);
  const high = moving.codeBits === 64 ? regs.hi(register) : 0;
  switch (exit.register) {
    case 0:
      if (moveToCr0(moving, low, high) !== ControlMove.STORE) return false;
      vmcb.set32(Save.CR0, storedCr0(low));
      break;
    case 4:
      if (!storeCr4(guest, moving, low, high)) return false;
      break;
    case 8:
      guest.cr8 = low & 15;
      return true;
    default:
      return false;
  }
  vmcb.dirty(Clean.CONTROL_REGISTERS);
  return true;
}

function storeCr4(guest: GuestCpu, now: ControlRegisters, low: number, high: number): boolean {
  const move = moveToCr4(now, low, high);
  if (move === ControlMove.EMULATE) return false;
  guest.vmcb.set32(Save.CR4, low);
  if (move === ControlMove.FLUSH) guest.flush = true;
  return true;
}
