/**
 * A model of what exits cost, in processor cycles, to stand beside their counts.
 *
 * It is a table of constants and no measurement. One figure has a source: from before VMRUN to behind
 * the #VMEXIT, VMLOAD and VMSAVE included, a message to linux-kernel of December 2020 on an EPYC gives
 * 1,340 to 1,380 cycles (https://lkml.iu.edu/hypermail/linux/kernel/2012.2/00527.html). What a handler
 * adds to that is put into four classes of round figures, of the order that such handlers have in KVM;
 * to see what another choice would say, multiply the counts by other figures.
 *
 * @module
 */
import type { ReasonCount } from "../plugins/profile/mod.ts";

/** Cycles for entry and exit. */
export const WORLD_SWITCH_CYCLES = 1350;

/** What handling an exit adds, by class. */
export const HANDLER_CYCLES = {
  /** An answer from registers: MSRs, CPUID, flags, windows. */
  register: 400,
  /** An instruction has to be fetched and decoded first. */
  decode: 2500,
  /** A device model answers. */
  device: 3000,
  /** Page tables are walked and changed. */
  paging: 2000,
} as const;

/** A class of {@linkcode HANDLER_CYCLES}. */
export type HandlerClass = keyof typeof HANDLER_CYCLES;

/** Exits that are not answered from registers. */
const CLASSES: Readonly<Record<string, HandlerClass>> = {
  IO: "device",
  MMIO: "device",
  CR_ACCESS: "decode",
  DR_ACCESS: "decode",
  DESCRIPTOR_TABLE: "decode",
  INVLPG: "decode",
  IRET: "decode",
  PUSHF: "decode",
  POPF: "decode",
  RDPMC: "decode",
  SOFTWARE_INTERRUPT: "decode",
  TASK_SWITCH: "decode",
  XSETBV: "decode",
  NESTED_PAGE_FAULT: "paging",
};

/** An exit 402h at a read is a fault: nobody has said what instruction it was, and where it reads to. */
const FAULTING_READ = "read ";

/** The class of an exit, by the name of its reason and its target in words. */
export function handlerClass(reason: string, target = ""): HandlerClass {
  if (reason === "AVIC_NOACCEL" && target.startsWith(FAULTING_READ)) return "decode";
  return CLASSES[reason] ?? "register";
}

/** Modelled cycles of one exit. */
export function exitCycles(reason: string, target = ""): number {
  return WORLD_SWITCH_CYCLES + HANDLER_CYCLES[handlerClass(reason, target)];
}

/** Modelled cycles of all exits of a run; what the guest itself executes is not in it. */
export function cyclesOf(reasons: readonly ReasonCount[]): number {
  return reasons.reduce(
    (total, { reason, targets }) =>
      targets.reduce((sum, { text, count }) => sum + count * exitCycles(reason, text), total),
    0,
  );
}
