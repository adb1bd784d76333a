/**
 * MSRs that the hypervisor answers for: those in the VMCB, and those it keeps per vCPU. Values are
 * halves of 32 bits throughout, for an RDMSR is an exit like any other.
 *
 * @module
 */
import type { MsrAccess, Vm } from "../../core/mod.ts";
import { Clean, Control, Cr0, Efer, isCanonical, Msr, ProcessorCet, Save } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** MSRs that are fields of the VMCB's save area, and whether they hold linear addresses. */
const FIELDS: ReadonlyMap<number, readonly [number, boolean]> = new Map([
  [Msr.STAR, [Save.STAR, false]],
  [Msr.LSTAR, [Save.LSTAR, true]],
  [Msr.CSTAR, [Save.CSTAR, true]],
  [Msr.SFMASK, [Save.SFMASK, false]],
  [Msr.FS_BASE, [Save.FS + 8, true]],
  [Msr.GS_BASE, [Save.GS + 8, true]],
  [Msr.KERNEL_GS_BASE, [Save.KERNEL_GS_BASE, true]],
  [Msr.SYSENTER_CS, [Save.SYSENTER_CS, false]],
]);

/** EFER bits the guest may set. */
const EFER_GUEST: number = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.FFXSR | Efer.TCE;

/** VM_CR bits (APM vol. 2, 15.30.1), of which software can set SVMDIS and LOCK among others. */
const VM_CR_BITS = 0x1f;
const VM_CR_LOCK = 0x8;
const VM_CR_SVMDIS = 0x10;

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
  const { svm, vmcb } = guest;
  switch (access.index) {
    case Msr.EFER:
      return answer(access, vmcb.get32(Save.EFER) & (svm.svme ? -1 : ~Efer.SVME), 0);
    case Msr.SYSENTER_ESP:
      return answer(access, vmcb.get32(Save.SYSENTER_ESP), svm.sysenterHi(Save.SYSENTER_ESP));
    case Msr.SYSENTER_EIP:
      return answer(access, vmcb.get32(Save.SYSENTER_EIP), svm.sysenterHi(Save.SYSENTER_EIP));
    case Msr.VM_CR:
      return svm.settings.nested && answer(access, svm.vmCr, 0);
    case Msr.VM_HSAVE_PA:
      return svm.settings.nested && answer(access, svm.hsaveLo, svm.hsaveHi);
    case Msr.PAT:
      return answer(access, vmcb.get32(Save.G_PAT), vmcb.get32(Save.G_PAT + 4));
    case Msr.TSC: {
      const now = vm.clock.current.now();
      const low = (now % TWO_32) + vmcb.get32(Control.TSC_OFFSET);
      const high = Math.floor(now / TWO_32) + vmcb.get32(Control.TSC_OFFSET + 4);
      return answer(access, low, high + (low >= TWO_32 ? 1 : 0));
    }
    // The guest's TSC is the host's but for what the guest has written.
    case Msr.TSC_ADJUST:
      return answer(access, vmcb.get32(Control.TSC_OFFSET), vmcb.get32(Control.TSC_OFFSET + 4));
    case Msr.TSC_AUX:
      return answer(access, guest.tscAux, 0);
    default: {
      const field = FIELDS.get(access.index);
      if (field === undefined) return false;
      return answer(access, vmcb.get32(field[0]), vmcb.get32(field[0] + 4));
    }
  }
}

function write(vm: Vm, guest: GuestCpu, { index, lo, hi }: MsrAccess): boolean {
  const { svm, vmcb } = guest;
  const field = FIELDS.get(index);
  if (field !== undefined) {
    if (field[1] && !isCanonical(hi, guest.linearBits)) return false;
    vmcb.set32(field[0], lo);
    vmcb.set32(field[0] + 4, hi);
    return true;
  }
  switch (index) {
    case Msr.EFER:
      return hi === 0 && writeEfer(guest, lo);
    case Msr.SYSENTER_ESP:
    case Msr.SYSENTER_EIP:
      if (!isCanonical(hi, guest.linearBits)) return false;
      svm.setSysenter(index === Msr.SYSENTER_ESP ? Save.SYSENTER_ESP : Save.SYSENTER_EIP, lo, hi);
      return true;
    case Msr.VM_CR:
      return svm.settings.nested && hi === 0 && writeVmCr(guest, lo);
    case Msr.VM_HSAVE_PA:
      if (!svm.settings.nested || (lo & 0xfff) !== 0 || hi >>> (guest.physicalBits - 32) !== 0) {
        return false;
      }
      svm.hsaveLo = lo;
      svm.hsaveHi = hi;
      return true;
    case Msr.PAT:
      if (!validPat(lo) || !validPat(hi)) return false;
      vmcb.set32(Save.G_PAT, lo);
      vmcb.set32(Save.G_PAT + 4, hi);
      vmcb.dirty(Clean.NESTED);
      return true;
    case Msr.TSC: {
      const now = vm.clock.current.now();
      const low = (lo >>> 0) - (now % TWO_32);
      const high = hi - Math.floor(now / TWO_32) - (low < 0 ? 1 : 0);
      vmcb.set32(Control.TSC_OFFSET, low);
      vmcb.set32(Control.TSC_OFFSET + 4, high);
      vmcb.dirty(Clean.INTERCEPTS);
      return true;
    }
    case Msr.TSC_ADJUST:
      vmcb.set32(Control.TSC_OFFSET, lo);
      vmcb.set32(Control.TSC_OFFSET + 4, hi);
      vmcb.dirty(Clean.INTERCEPTS);
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
  const { svm, vmcb } = guest;
  const svme = (value & Efer.SVME) !== 0;
  if (svme && (!svm.settings.nested || (svm.vmCr & VM_CR_SVMDIS) !== 0)) return false;
  if ((value & ~(EFER_GUEST | Efer.SVME)) !== 0) return false;
  const old = vmcb.get32(Save.EFER);
  const paging = (vmcb.get32(Save.CR0) & Cr0.PG) !== 0;
  if (paging && ((old ^ value) & Efer.LME) !== 0) return false;
  // LMA is not software's to write; the processor needs SVME whatever the guest thinks.
  vmcb.set32(Save.EFER, (value & ~Efer.LMA) | (old & Efer.LMA) | Efer.SVME);
  vmcb.dirty(Clean.CONTROL_REGISTERS);
  svm.svme = svme;
  if (((old ^ value) & Efer.NXE) !== 0) guest.flush = true;
  return true;
}

/** SVMDIS cannot be set while EFER.SVME is; LOCK holds both until RESET (APM vol. 2, 15.30.1). */
function writeVmCr({ svm }: GuestCpu, value: number): boolean {
  if ((value & ~VM_CR_BITS) !== 0) return false;
  if ((value & VM_CR_SVMDIS) !== 0 && svm.svme) return false;
  const fixed = (svm.vmCr & VM_CR_LOCK) !== 0 ? VM_CR_LOCK | VM_CR_SVMDIS : 0;
  svm.vmCr = (value & ~fixed) | (svm.vmCr & fixed);
  return true;
}

/** Carries an access out; false for #GP. */
export function accessMsr(vm: Vm, guest: GuestCpu, access: MsrAccess): boolean {
  if (ProcessorCet.owns(access.index)) return guest.cet.access(access);
  return access.write ? write(vm, guest, access) : read(vm, guest, access);
}
