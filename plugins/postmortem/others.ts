/**
 * What the vCPUs that a report is not about are doing.
 *
 * @module
 */

import { MpState, type Vcpu } from "../../core/mod.ts";
import { GuestView } from "./guest_view.ts";

/** A vCPU that a report is not about. */
export interface OtherVcpu {
  /** The vCPU. */
  readonly vcpuId: number;
  /** What it is doing. */
  readonly state:
    | "running"
    | "not started"
    | "waiting for a start-up IPI"
    | "halted"
    | "about to start"
    | "shut down"
    | "asleep";
  /** RIP. */
  readonly rip: bigint;
  /** Its linear address as `main+1fh`; only where the `symbols` plugin knows it. */
  readonly place?: string;
  /** Whether it would take interrupts: RFLAGS.IF. */
  readonly interrupts: boolean;
  /** Instructions that it has retired. */
  readonly instructions: number;
}

const STATES: { readonly [state: number]: OtherVcpu["state"] } = {
  [MpState.RUNNABLE]: "running",
  [MpState.UNINITIALIZED]: "not started",
  [MpState.INIT_RECEIVED]: "waiting for a start-up IPI",
  [MpState.HALTED]: "halted",
  [MpState.SIPI_RECEIVED]: "about to start",
  [MpState.STOPPED]: "shut down",
  [MpState.SUSPENDED]: "asleep",
};

const IF = 0x200n;

/** All vCPUs of a VM but one. */
export function otherVcpus(vcpu: Vcpu): OtherVcpu[] {
  return vcpu.vm.vcpus.filter((other) => other !== vcpu).map((other) => {
    const view = new GuestView(other);
    const place = view.place(view.rip);
    return {
      vcpuId: other.id,
      state: STATES[other.mpState] ?? "running",
      rip: other.regs.rip,
      ...(place === undefined ? {} : { place }),
      interrupts: (other.regs.rflags & IF) !== 0n,
      instructions: other.instructions,
    };
  });
}
