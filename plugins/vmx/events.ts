/**
 * Injection, and giving back what an exit interrupted (SDM vol. 3, 27.6 and 28.2.4).
 *
 * @module
 */
import type { PendingException } from "../../core/mod.ts";
import { Cr0, ExitInformation as ImportedExitInformation, S, Vector, Vmcs } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

// V8 folds constants of the module itself into compiled code, and loads and checks imported ones at each use.
const ExitInformation = ImportedExitInformation;

/** Interruption information: 10:8 the type, 11 deliver an error code, 31 valid. */
const Info = {
  EXTERNAL: 0,
  NMI: 0x200,
  HARDWARE_EXCEPTION: 0x300,
  SOFTWARE_INTERRUPT: 0x400,
  SOFTWARE_EXCEPTION: 0x600,
  TYPE: 0x700,
  ERROR: 0x800,
  VALID: 0x8000_0000,
} as const;

function inject(guest: GuestCpu, info: number): void {
  guest.vmcs.set32(Vmcs.ENTRY_INTERRUPTION_INFO, (info | Info.VALID) >>> 0);
  guest.injecting = true;
}

/** Length of the instruction whose event is injected. */
function setLength(guest: GuestCpu): void {
  const length = Math.max(1, guest.vcpu.exit.instructionLength);
  guest.vmcs.set32(Vmcs.ENTRY_INSTRUCTION_LENGTH, length);
}

/** Injects an exception with what its delivery changes besides: CR2, DR6, DR7. */
export function injectException(guest: GuestCpu, exception: PendingException): void {
  const { vmcs } = guest;
  const { vector, errorCode, hasErrorCode, hasPayload, payloadLo, payloadHi } = exception;
  if (vector === Vector.PF && hasPayload) guest.setCr2(payloadLo, payloadHi);
  if (vector === Vector.DB) {
    const dr6 = (guest.unswitchedLo(S.dr6) & ~0xf) | (hasPayload ? payloadLo : 0);
    guest.setUnswitched(S.dr6, dr6, 0);
    vmcs.set32(Vmcs.GUEST_DR7, vmcs.get32(Vmcs.GUEST_DR7) & ~0x2000);
    if (guest.policies.pendingDebug.current.injected) guest.pendSingleStep();
  }
  if (vector === Vector.BP || vector === Vector.OF) {
    setLength(guest);
    inject(guest, vector | Info.SOFTWARE_EXCEPTION);
    return;
  }
  // In real mode no exception pushes an error code, and asking for one would be refused.
  const withError = hasErrorCode && (guest.cr0 & BigInt(Cr0.PE)) !== 0n;
  if (withError) vmcs.set32(Vmcs.ENTRY_EXCEPTION_ERROR, errorCode);
  inject(guest, vector | Info.HARDWARE_EXCEPTION | (withError ? Info.ERROR : 0));
}

/** Injects an external interrupt, or an INT n that an exit interrupted. */
export function injectInterrupt(guest: GuestCpu, vector: number, soft: boolean): void {
  if (soft) setLength(guest);
  inject(guest, vector | (soft ? Info.SOFTWARE_INTERRUPT : Info.EXTERNAL));
}

/** Injects an NMI; hardware masks further ones until IRET. */
export function injectNmi(guest: GuestCpu): void {
  inject(guest, Vector.NMI | Info.NMI);
}

/** Gives the core back the event whose delivery the exit interrupted. */
export function returnInterrupted(guest: GuestCpu, information: Uint32Array): void {
  const info = information[ExitInformation.VECTORING]!;
  if ((info & Info.VALID) === 0) return;
  const { vmcs, vcpu: { events } } = guest;
  const vector = info & 0xff;
  switch (info & Info.TYPE) {
    case Info.EXTERNAL:
      events.returnInterrupt(vector, false);
      break;
    case Info.NMI:
      guest.nmiMasked = false;
      events.returnNmi();
      break;
    case Info.HARDWARE_EXCEPTION: {
      const withError = (info & Info.ERROR) !== 0;
      events.returnException(
        vector,
        withError ? vmcs.get32(Vmcs.IDT_VECTORING_ERROR) : undefined,
      );
      break;
    }
      // INT3, INTO and INT n are executed again: RIP still points at them.
  }
}
