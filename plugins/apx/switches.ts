/**
 * Ways to switch XCR0 and R16–R31 around entries: the one of the posted patch, the one argued for in its
 * review, and none.
 *
 * @module
 */
import {
  type ExtendedStateSwitch,
  type GuestExtendedState,
  type HostExtendedState,
  Xcr0,
} from "../cpu/mod.ts";
import type { HostKernel } from "./host_kernel.ts";

/** What a switch is made of besides. */
export interface SwitchParts {
  /** The host's kernel. */
  readonly kernel: HostKernel;
  /** Whether the guest's CPUID has APX, as this hypervisor sees it. */
  readonly guestHasApx: (guest: GuestExtendedState) => boolean;
}

/** A name of {@linkcode APX_SWITCHES}. */
export type ApxSwitchName = "none" | "posted" | "reviewed";

/** XCR0 is written only if it changes: XSETBV is slow. */
function setXcr0(host: HostExtendedState, value: number): void {
  if (host.xcr0 !== value) host.xcr0 = value;
}

/** XCR0 as always, R16–R31 not at all: what a vCPU leaves there, the next one finds. */
function none({ kernel }: SwitchParts): ExtendedStateSwitch {
  return {
    name: "R16–R31 are not switched",
    enter(host, guest) {
      kernel.begin(host);
      setXcr0(host, guest.xcr0Low);
    },
    exit(host) {
      setXcr0(host, kernel.xcr0);
      kernel.end(host);
    },
  };
}

/**
 * As posted: `early_xcr0`, the guest's XCR0 with APX if host and guest have it, is in force from the load
 * of extended state to right before the entry, and again from right behind the exit until the host's
 * comes back. R16–R31 are moved under the guest's own XCR0, if that has APX.
 */
function posted({ kernel, guestHasApx }: SwitchParts): ExtendedStateSwitch {
  const earlyXcr0 = (guest: GuestExtendedState): number =>
    guestHasApx(guest) ? guest.xcr0Low | (kernel.xcr0 & Xcr0.APX) : guest.xcr0Low;
  return {
    name: "as posted: early_xcr0",
    enter(host, guest) {
      const early = earlyXcr0(guest);
      kernel.begin(host);
      setXcr0(host, early);
      // The host's code goes on: interrupts off, events, task priority.
      kernel.run(host);
      if (early !== guest.xcr0Low) host.xcr0 = guest.xcr0Low;
      if ((guest.xcr0Low & Xcr0.APX) !== 0) host.loadExtendedRegisters(guest.registers);
      // kvm_wait_lapic_expire
      kernel.run(host);
    },
    exit(host, guest) {
      const early = earlyXcr0(guest);
      if (early !== guest.xcr0Low) host.xcr0 = early;
      if ((guest.xcr0Low & Xcr0.APX) !== 0) host.storeExtendedRegisters(guest.registers);
      // The fastpath.
      kernel.run(host);
      setXcr0(host, kernel.xcr0);
      kernel.end(host);
    },
  };
}

/**
 * As argued in review: no `early_xcr0`. The host's code runs under the host's XCR0 throughout. A guest
 * without APX in XCR0 costs nothing; for one with it R16–R31 are moved while XCR0 has APX, the host's if
 * the host uses APX, else the guest's; nothing of the host runs between that and the entry or exit.
 */
function reviewed({ kernel }: SwitchParts): ExtendedStateSwitch {
  const hostHasApx = (kernel.xcr0 & Xcr0.APX) !== 0;
  return {
    name: "as reviewed: XCR0 of the guest last, of the host first",
    enter(host, guest) {
      kernel.begin(host);
      kernel.run(host);
      const apx = (guest.xcr0Low & Xcr0.APX) !== 0;
      if (apx && hostHasApx) host.loadExtendedRegisters(guest.registers);
      setXcr0(host, guest.xcr0Low);
      if (apx && !hostHasApx) host.loadExtendedRegisters(guest.registers);
    },
    exit(host, guest) {
      // The guest's XCR0 is still in force, and it has APX or there is nothing to save.
      if ((guest.xcr0Low & Xcr0.APX) !== 0) host.storeExtendedRegisters(guest.registers);
      setXcr0(host, kernel.xcr0);
      kernel.run(host);
      kernel.restore(host);
      kernel.end(host);
    },
  };
}

/** The switches by name. */
export const APX_SWITCHES: Readonly<
  Record<ApxSwitchName, (parts: SwitchParts) => ExtendedStateSwitch>
> = { none, posted, reviewed };
