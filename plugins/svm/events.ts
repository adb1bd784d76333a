/**
 * Injection, and giving back what an exit interrupted (APM vol. 2, 15.20).
 *
 * @module
 */
import type { PendingException } from "../../core/mod.ts";
import {
  Clean,
  Control as ImportedControl,
  EventFormat as ImportedEventFormat,
  Save,
  Vector,
} from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const Control = ImportedControl;
const EventFormat = ImportedEventFormat;

function inject(guest: GuestCpu, event: number, errorCode: number): void {
  const { vmcb } = guest;
  vmcb.set32(Control.EVENTINJ, event | EventFormat.VALID);
  vmcb.set32(Control.EVENTINJ + 4, errorCode);
}

/** Injects an exception with what its delivery changes besides: CR2, DR6, DR7. */
export function injectException(guest: GuestCpu, exception: PendingException): void {
  const { vmcb } = guest;
  const { vector, errorCode, hasErrorCode, hasPayload, payloadLo, payloadHi } = exception;
  if (vector === Vector.PF && hasPayload) {
    vmcb.set32(Save.CR2, payloadLo);
    vmcb.set32(Save.CR2 + 4, payloadHi);
    vmcb.dirty(Clean.CR2);
  }
  if (vector === Vector.DB) {
    vmcb.set32(Save.DR6, (vmcb.get32(Save.DR6) & ~0xf) | (hasPayload ? payloadLo : 0));
    vmcb.set32(Save.DR7, vmcb.get32(Save.DR7) & ~0x2000);
    vmcb.dirty(Clean.DEBUG_REGISTERS);
  }
  if (vector === Vector.BP || vector === Vector.OF) setNextRip(guest);
  const withError = hasErrorCode ? EventFormat.ERROR : 0;
  inject(guest, vector | EventFormat.EXCEPTION | withError, errorCode);
}

/** The RIP that INT3 and INTO push is the next instruction's, from the nRIP field. */
function setNextRip({ vmcb, vcpu }: GuestCpu): void {
  const { regs, exit } = vcpu;
  const length = BigInt(Math.max(1, exit.instructionLength));
  vmcb.set64(Control.NRIP, regs.rip + length);
}

/** Injects an external interrupt, or an INT n that an exit interrupted. */
export function injectInterrupt(guest: GuestCpu, vector: number, soft: boolean): void {
  if (soft) setNextRip(guest);
  inject(guest, vector | (soft ? EventFormat.SOFTWARE : EventFormat.EXTERNAL), 0);
}

/** Injects an NMI: from now on they are masked until IRET, which is intercepted to see it. */
export function injectNmi(guest: GuestCpu): void {
  inject(guest, Vector.NMI | EventFormat.NMI, 0);
  guest.nmiMasked = true;
  guest.iretWindow = true;
}

/** Gives the core back the event whose delivery the exit interrupted. */
export function returnInterrupted(guest: GuestCpu): void {
  const { vmcb, vcpu: { events } } = guest;
  const info = vmcb.get32(Control.EXITINTINFO);
  if ((info & EventFormat.VALID) === 0) return;
  const vector = info & 0xff;
  switch (info & EventFormat.TYPE) {
    case EventFormat.EXTERNAL:
      events.returnInterrupt(vector, false);
      break;
    case EventFormat.NMI:
      guest.nmiMasked = false;
      events.returnNmi();
      break;
    case EventFormat.EXCEPTION: {
      // INT3 and INTO are executed again, and so is INT n: RIP still points at them.
      if (vector === Vector.BP || vector === Vector.OF) break;
      const hasError = (info & EventFormat.ERROR) !== 0;
      const errorCode = hasError ? vmcb.get32(Control.EXITINTINFO + 4) : undefined;
      events.returnException(vector, errorCode);
      break;
    }
  }
}
