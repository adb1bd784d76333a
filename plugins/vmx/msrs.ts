/**
 * MSRs that the hypervisor answers for: those in the VMCS, and those it keeps per vCPU. Values are
 * halves of 32 bits throughout, for an RDMSR is an exit like any other.
 *
 * @module
 */
import type { MsrAccess, Vm } from "../../core/mod.ts";
import { Cr0, Efer, type Field64, isCanonical, Msr, ProcessorCet, S, Vmcs } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** MSRs that are guest-state fields of the VMCS, and whether they hold linear addresses. */
const FIELDS: ReadonlyMap<number, readonly [number, boolean]> = new Map([
  [Msr.FS_BASE, [Vmcs.GUEST_FS_BASE, true]],
  [Msr.GS_BASE, [Vmcs.GUEST_GS_BASE, true]],
  [Msr.SYSENTER_CS, [Vmcs.GUEST_SYSENTER_CS, false]],
  [Msr.SYSENTER_ESP, [Vmcs.GUEST_SYSENTER_ESP, true]],
  [Msr.SYSENTER_EIP, [Vmcs.GUEST_SYSENTER_EIP, true]],
]);

/** MSRs that stay on the processor between exits, likewise. */
const UNSWITCHED: ReadonlyMap<number, readonly [Field64, boolean]> = new Map([
  [Msr.STAR, [S.star, false]],
  [Msr.LSTAR, [S.lstar, true]],
  [Msr.CSTAR, [S.cstar, true]],
  [Msr.SFMASK, [S.sfmask, false]],
  [Msr.KERNEL_GS_BASE, [S.kernelGsBase, true]],
  [Msr.PKRS, [S.pkrs, false]],
]);

/** EFER bits the guest may set. */
const EFER_GUEST: number = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE;

const TWO_32 = 0x1_0000_0000;

/** Whether each of the four PAT fields in a half names a memory type: 0, 1, 4, 5, 6 or 7. */
function validPat(half: number): boolean {
  for (let shift = 0; shift < 32; shift += 8) {
    const type = (half >>> shift) & 0xff;
    if (type > 7 || type === 2 || type === 3) return false;
  }
  return true;
}

function answer(access: MsrAccess, lo: number, hi: number): boolean {
  access.lo = lo >>> 0;
  access.hi = hi >>> 0;
  return true;
}

function read(vm: Vm, guest: GuestCpu, access: MsrAccess): boolean {
  const { vmcs } = guest;
  switch (access.index) {
    case Msr.EFER:
      return answer(access, guest.eferLow, 0);
    case Msr.PAT:
      return answer(access, vmcs.get32(Vmcs.GUEST_PAT), vmcs.high(Vmcs.GUEST_PAT));
    case Msr.TSC: {
      const now = vm.clock.current.now();
      const low = (now % TWO_32) + vmcs.get32(Vmcs.TSC_OFFSET);
      const high = Math.floor(now / TWO_32) + vmcs.high(Vmcs.TSC_OFFSET);
      return answer(access, low, high + (low >= TWO_32 ? 1 : 0));
    }
    // The guest's TSC is the host's but for what the guest has written.
    case Msr.TSC_ADJUST:
      return answer(access, vmcs.get32(Vmcs.TSC_OFFSET), vmcs.high(Vmcs.TSC_OFFSET));
    case Msr.TSC_AUX:
      return answer(access, guest.tscAux, 0);
    default: {
      const field = FIELDS.get(access.index);
      if (field !== undefined) return answer(access, vmcs.get32(field[0]), vmcs.high(field[0]));
      const own = UNSWITCHED.get(access.index);
      if (own === undefined) return false;
      return answer(access, guest.unswitchedLo(own[0]), guest.unswitchedHi(own[0]));
    }
  }
}

function write(vm: Vm, guest: GuestCpu, { index, lo, hi }: MsrAccess): boolean {
  const { vmcs } = guest;
  const field = FIELDS.get(index);
  if (field !== undefined) {
    if (field[1] && !isCanonical(hi, guest.linearBits)) return false;
    vmcs.setHalves(field[0], lo, hi);
    return true;
  }
  const own = UNSWITCHED.get(index);
  if (own !== undefined) {
    if (index === Msr.PKRS) {
      if (hi !== 0) return false;
      guest.flush = true;
    }
    if (own[1] && !isCanonical(hi, guest.linearBits)) return false;
    guest.setUnswitched(own[0], lo, hi);
    return true;
  }
  switch (index) {
    case Msr.EFER:
      return hi === 0 && writeEfer(guest, lo);
    case Msr.PAT:
      if (!validPat(lo) || !validPat(hi)) return false;
      vmcs.setHalves(Vmcs.GUEST_PAT, lo, hi);
      return true;
    case Msr.TSC: {
      const now = vm.clock.current.now();
      const low = (lo >>> 0) - (now % TWO_32);
      const high = hi - Math.floor(now / TWO_32) - (low < 0 ? 1 : 0);
      vmcs.setHalves(Vmcs.TSC_OFFSET, low, high);
      return true;
    }
    case Msr.TSC_ADJUST:
      vmcs.setHalves(Vmcs.TSC_OFFSET, lo, hi);
      return true;
    case Msr.TSC_AUX:
      if (hi !== 0) return false;
      guest.tscAux = lo;
      return true;
    default:
      return false;
  }
}

function writeEfer(guest: GuestCpu, value: number): boolean {
  if ((value & ~EFER_GUEST) !== 0) return false;
  const old = guest.eferLow;
  const paging = (guest.vmcs.get32(Vmcs.GUEST_CR0) & Cr0.PG) !== 0;
  if (paging && ((old ^ value) & Efer.LME) !== 0) return false;
  // LMA is not software's to write.
  guest.eferLow = (value & ~Efer.LMA) | (old & Efer.LMA);
  guest.vmcs.set32(Vmcs.GUEST_EFER, guest.eferLow);
  if (((old ^ value) & Efer.NXE) !== 0) guest.flush = true;
  return true;
}

/** Carries an access out; false for #GP. */
export function accessMsr(vm: Vm, guest: GuestCpu, access: MsrAccess): boolean {
  if (ProcessorCet.owns(access.index)) return guest.cet.access(access);
  return access.write ? write(vm, guest, access) : read(vm, guest, access);
}
