/**
 * What carrying out accesses to device memory has to know of a guest, out of its VMCB.
 *
 * @module
 */
import { Gpr, type Vcpu } from "../../core/mod.ts";
import { Attr, Efer, type MovingGuest, Save } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import type { Vmcb } from "./vmcb.ts";

/** Bytes of a segment in the save area, and where its base is. */
const SEGMENT_BYTES = 16;
const BASE = 8;
const CS_BASE: number = Save.CS + BASE;

/** One vCPU's. */
export class SvmMovingGuest implements MovingGuest {
  readonly vcpu: Vcpu;
  readonly #vmcb: Vmcb;

  constructor({ vcpu, vmcb }: GuestCpu) {
    this.vcpu = vcpu;
    this.#vmcb = vmcb;
  }

  get codeBits(): 16 | 32 | 64 {
    const attributes = this.#vmcb.get32(Save.CS) >>> 16;
    if (this.longMode && (attributes & Attr.L) !== 0) return 64;
    return (attributes & Attr.DB) !== 0 ? 32 : 16;
  }

  get linearLow(): number {
    const rip = this.vcpu.regs.lo(Gpr.RIP);
    return this.codeBits === 64 ? rip : rip + this.#vmcb.get32(CS_BASE) | 0;
  }

  get linearHigh(): number {
    return this.codeBits === 64 ? this.vcpu.regs.hi(Gpr.RIP) : 0;
  }

  get longMode(): boolean {
    return (this.#vmcb.get32(Save.EFER) & Efer.LMA) !== 0;
  }

  get cr0(): number {
    return this.#vmcb.get32(Save.CR0);
  }

  get cr3Low(): number {
    return this.#vmcb.get32(Save.CR3);
  }

  get cr3High(): number {
    return this.#vmcb.get32(Save.CR3 + 4);
  }

  get cr4(): number {
    return this.#vmcb.get32(Save.CR4);
  }

  get dr7(): number {
    return this.#vmcb.get32(Save.DR7);
  }

  segmentBase(segment: number): number {
    return this.#vmcb.get32(Save.ES + SEGMENT_BYTES * segment + BASE);
  }
}
