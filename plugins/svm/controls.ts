/**
 * What is intercepted, worked out from the state of the vCPU and never changed bit by bit, so that no
 * order of events can leave a stale intercept behind.
 *
 * @module
 */
import { Clean, Control, IntControl, InterceptWord, Misc1, Misc2, Misc3 } from "../cpu/mod.ts";
import type { Vmcb } from "./vmcb.ts";

/** What of a vCPU's state decides on its intercepts. */
export interface InterceptState {
  /** Waiting until the guest can take an interrupt. */
  interruptWindow: boolean;
  /** Waiting for IRET to unmask NMIs. */
  iretWindow: boolean;
  /** An interrupt waits for the guest to lower its task priority. */
  taskPriorityWindow: boolean;
  /** Which of VMLOAD, VMSAVE, STGI and CLGI exit: bits of `Misc2`, as the policy has it. */
  instructionIntercepts: number;
  /** HLT exits only if no virtual interrupt or NMI is pending. */
  idleHlt: boolean;
}

/** CR4 writes: it decides on what the guest may use. Bit 16 + n is a write of CRn. */
const CR4_WRITE = 0x0010_0000;
/** CR8 writes. */
const CR8_WRITE = 0x0100_0000;

/** Always intercepted. CR0 only where more than TS and MP change. */
const ALWAYS_1 = Misc1.INTR | Misc1.NMI | Misc1.SMI | Misc1.INIT | Misc1.CR0_SEL_WRITE |
  Misc1.RDPMC | Misc1.CPUID | Misc1.RSM | Misc1.INVD | Misc1.INVLPGA | Misc1.IOIO |
  Misc1.MSR | Misc1.TASK_SWITCH | Misc1.SHUTDOWN;

const ALWAYS_2 = Misc2.VMRUN | Misc2.VMMCALL | Misc2.SKINIT | Misc2.WBINVD | Misc2.MONITOR |
  Misc2.MWAIT | Misc2.XSETBV | Misc2.RDPRU;

/** A virtual interrupt that is only there to exit with VINTR: highest priority, TPR ignored. */
const WINDOW = IntControl.V_IRQ | IntControl.V_IGN_TPR |
  (0xf << IntControl.V_INTR_PRIO_SHIFT);
const WINDOW_MASK = WINDOW;

/** Writes the intercepts that `state` asks for, if they are not there already. */
export function recalculateIntercepts(vmcb: Vmcb, state: InterceptState): void {
  // An intercept of HLT would come before that of an idle one.
  let misc1 = ALWAYS_1 | (state.idleHlt ? 0 : Misc1.HLT);
  if (state.interruptWindow) misc1 |= Misc1.VINTR;
  if (state.iretWindow) misc1 |= Misc1.IRET;
  const cr = CR4_WRITE | (state.taskPriorityWindow ? CR8_WRITE : 0);
  set(vmcb, InterceptWord.CR, cr, Clean.INTERCEPTS);
  set(vmcb, InterceptWord.DR, 0, Clean.INTERCEPTS);
  set(vmcb, InterceptWord.EXCEPTIONS, 0, Clean.INTERCEPTS);
  set(vmcb, InterceptWord.MISC1, misc1, Clean.INTERCEPTS);
  const misc2 = ALWAYS_2 | state.instructionIntercepts;
  set(vmcb, InterceptWord.MISC2, misc2, Clean.INTERCEPTS);
  set(vmcb, InterceptWord.MISC3, state.idleHlt ? Misc3.IDLE_HLT : 0, Clean.INTERCEPTS);
  const control = vmcb.get32(Control.INT_CONTROL) & ~WINDOW_MASK;
  const wanted = control | IntControl.V_INTR_MASKING | (state.interruptWindow ? WINDOW : 0);
  set(vmcb, Control.INT_CONTROL, wanted, Clean.INTERRUPTS);
}

function set(vmcb: Vmcb, offset: number, value: number, group: number): void {
  if (vmcb.get32(offset) === value >>> 0) return;
  vmcb.set32(offset, value);
  vmcb.dirty(group);
}
