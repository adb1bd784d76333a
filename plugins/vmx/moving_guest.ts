/**
 * What carrying out accesses to device memory has to know of a guest, out of its VMCS.
 *
 * @module
 */
import { Gpr, type Vcpu } from "../../core/mod.ts";
import { AccessRights, type MovingGuest, Vmcs } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";

/** Distance, in encodings, of the bases of two segments that follow each other. */
const NEXT_BASE = 2;

/** One vCPU's. */
export class VmxMovingGuest implements MovingGuest {
  readonly vcpu: Vcpu;
  readonly #guest: GuestCpu;
  readonly #vmcs: LoadedVmcs;

  constructor(guest: GuestCpu) {
    this.vcpu = guest.vcpu;
    this.#guest = guest;
    this.#vmcs = guest.vmcs;
  }

  get codeBits(): 16 | 32 | 64 {
    const rights = this.#vmcs.get32(Vmcs.GUEST_CS_ACCESS_RIGHTS);
    if (this.longMode && (rights & AccessRights.L) !== 0) return 64;
    return (rights & AccessRights.DB) !== 0 ? 32 : 16;
  }

  get linearLow(): number {
    const rip = this.vcpu.regs.lo(Gpr.RIP);
    return this.codeBits === 64 ? rip : rip + this.#vmcs.get32(Vmcs.GUEST_CS_BASE) | 0;
  }

  get linearHigh(): number {
    return this.codeBits === 64 ? this.vcpu.regs.hi(Gpr.RIP) : 0;
  }

  get longMode(): boolean {
    return this.#guest.longMode;
  }

  get cr0(): number {
    return this.#vmcs.get32(Vmcs.GUEST_CR0);
  }

  get cr3Low(): number {
    return this.#vmcs.get32(Vmcs.GUEST_CR3);
  }

  get cr3High(): number {
    return this.#vmcs.high(Vmcs.GUEST_CR3);
  }

  get cr4(): number {
    return this.#vmcs.get32(Vmcs.CR4_SHADOW);
  }

  get dr7(): number {
    return this.#vmcs.get32(Vmcs.GUEST_DR7);
  }

  segmentBase(segment: number): number {
    return this.#vmcs.get32(Vmcs.GUEST_ES_BASE + NEXT_BASE * segment);
  }
}
