/**
 * Moves to and from control registers that are answered by storing the value into the VMCS, or the task
 * priority.
 *
 * @module
 */
import { ControlMove, moveToCr0, moveToCr4, storedCr0 } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** Access types of the exit qualification, bits 5:4 (SDM vol. 3, table 28-3). */
const TYPE = 0x30;
const MOV_TO = 0x00;
const MOV_FROM = 0x10;
/** CR8, bits that are reserved. */
const CR8_RESERVED = ~15;
/** The highest register whose value is in the vCPU's storage whoever switches R16–R31. */
const LAST_STORED = 15;

/**
 * Carries out the access to a control register at which `guest` has exited, but for RIP. The exit comes before
 * the value is looked at (SDM vol. 3, 26.1.3).
 *
 * @returns Whether it has. If not, nothing has happened.
 */
export function moveControl(guest: GuestCpu): boolean {
  const { moving } = guest;
  const { exit, regs } = guest.vcpu;
  const type = exit.info1Lo & TYPE;
  const register = exit.gpr;
  if (register > LAST_STORED) return false;
  if (type === MOV_FROM && exit.register === 8) {
    regs.setPair(register, guest.cr8, 0);
    return true;
  }
  if (type !== MOV_TO) return false;
  const low = regs.lo(register);
  const high = moving.codeBits === 64 ? regs.hi(register) : 0;
  switch (exit.register) {
    case 0: {
      if (moveToCr0(moving, low, high) !== ControlMove.STORE) return false;
      guest.storeCr0(storedCr0(low));
      return true;
    }
    case 4: {
      const move = moveToCr4(moving, low, high);
      if (move === ControlMove.EMULATE) return false;
      guest.storeCr4(low);
      if (move === ControlMove.FLUSH) guest.flush = true;
      return true;
    }
    case 8:
      if (high !== 0 || (low & CR8_RESERVED) !== 0) return false;
      guest.cr8 = low;
      return true;
    default:
      return false;
  }
}
