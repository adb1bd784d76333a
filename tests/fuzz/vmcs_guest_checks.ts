/**
 * Checks on the guest-state area but for the segment registers (SDM vol. 3, 27.3.1).
 *
 * @module
 */
import {
  Activity,
  Cr0,
  Cr4,
  Efer,
  EntryControl,
  Interruptibility,
  Pin,
  Rflags,
  Secondary,
  Vmcs,
  VMCS_REVISION,
} from "../../plugins/cpu/mod.ts";
import { dpl, Place, rights, SEGMENT_CHECKS } from "./vmcs_segment_checks.ts";
import {
  badFixed,
  badPat,
  canonical,
  EFER_BITS,
  type EntryCheck,
  guest,
  type VmcsView,
} from "./vmcs_view.ts";

/** Events that a halted guest, and one that has shut down, can be given: type and vector. */
const HALT_EVENTS = (type: number, vector: number): boolean =>
  type === 0 || type === 2 || type === 7 || (type === 3 && (vector === 1 || vector === 18));
const SHUTDOWN_EVENTS = (type: number, vector: number): boolean =>
  type === 2 || (type === 3 && vector === 18);

const BTF = 2;
/** DEBUGCTL: LBR and BTF; CPUID has neither debug store nor RTM. */
const DEBUGCTL_BITS = 3n;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const BS = 0x4000;

/** Whether the four PAE entries are bad. */
function badPdptes(v: VmcsView): boolean {
  const pae = v.has(Vmcs.GUEST_CR0, Cr0.PG) && v.has(Vmcs.GUEST_CR4, Cr4.PAE) && !v.longGuest;
  if (!pae) return false;
  const start = v.at(Vmcs.GUEST_CR3) & 0xffff_ffe0n;
  const reserved = 0x1e6n | (BigInt.asUintN(64, -1n) << v.physicalBits) & 0xffff_ffff_ffff_ffffn;
  for (let k = 0; k < 4; k++) {
    const entry = v.secondary(Secondary.EPT)
      ? v.at(Vmcs.GUEST_PDPTE0 + 2 * k)
      : v.memory(start + 8n * BigInt(k)) ?? -1n;
    if ((entry & 1n) !== 0n && (BigInt.asUintN(64, entry) & reserved) !== 0n) return true;
  }
  return false;
}

/** All of them, those of the segment registers among them. */
export const GUEST_CHECKS: readonly EntryCheck[] = [
  guest(
    "CR0's fixed bits",
    (v) => badFixed(v, Vmcs.GUEST_CR0, 6, v.unrestricted ? 0x8000_0001n : 0n),
  ),
  guest("paging needs protection", (v) => v.has(Vmcs.GUEST_CR0, Cr0.PG) && !v.protectedGuest),
  guest("CR4's fixed bits", (v) => badFixed(v, Vmcs.GUEST_CR4, 8)),
  guest(
    "CR4.CET goes with CR0.WP",
    (v) => v.has(Vmcs.GUEST_CR4, Cr4.CET) && !v.has(Vmcs.GUEST_CR0, Cr0.WP),
  ),
  guest(
    "DEBUGCTL's reserved bits",
    (v) =>
      v.entry(EntryControl.LOAD_DEBUG) && v.has(Vmcs.GUEST_DEBUGCTL, ~DEBUGCTL_BITS & ALL_ONES),
  ),
  guest(
    "IA-32e mode needs paging and PAE",
    (v) => v.longGuest && (!v.has(Vmcs.GUEST_CR0, Cr0.PG) || !v.has(Vmcs.GUEST_CR4, Cr4.PAE)),
  ),
  guest("PCIDs need IA-32e mode", (v) => !v.longGuest && v.has(Vmcs.GUEST_CR4, Cr4.PCIDE)),
  guest("CR3", (v) => v.at(Vmcs.GUEST_CR3) >> v.physicalBits !== 0n),
  guest(
    "DR7 has 32 bits",
    (v) => v.entry(EntryControl.LOAD_DEBUG) && v.at(Vmcs.GUEST_DR7) >> 32n !== 0n,
  ),
  guest(
    "SYSENTER's addresses are canonical",
    (v) => !canonical(v.at(Vmcs.GUEST_SYSENTER_ESP)) || !canonical(v.at(Vmcs.GUEST_SYSENTER_EIP)),
  ),
  // There are no performance counters here.
  guest("PERF_GLOBAL_CTRL", (v) => v.entry(EntryControl.LOAD_PERF_GLOBAL_CTRL)),
  guest("PAT", (v) => v.entry(EntryControl.LOAD_PAT) && badPat(v.at(Vmcs.GUEST_PAT))),
  guest("EFER", (v) => {
    if (!v.entry(EntryControl.LOAD_EFER)) return false;
    const efer = v.at(Vmcs.GUEST_EFER);
    const active = (efer & BigInt(Efer.LMA)) !== 0n;
    const enabled = (efer & BigInt(Efer.LME)) !== 0n;
    return (efer & ~EFER_BITS) !== 0n || active !== v.longGuest ||
      (v.has(Vmcs.GUEST_CR0, Cr0.PG) && active !== enabled);
  }),
  ...SEGMENT_CHECKS,
  guest(
    "bases of GDTR and IDTR are canonical",
    (v) => !canonical(v.at(Vmcs.GUEST_GDTR_BASE)) || !canonical(v.at(Vmcs.GUEST_IDTR_BASE)),
  ),
  guest(
    "limits of GDTR and IDTR have 16 bits",
    (v) => v.at(Vmcs.GUEST_GDTR_LIMIT) >> 16n !== 0n || v.at(Vmcs.GUEST_IDTR_LIMIT) >> 16n !== 0n,
  ),
  guest("RIP", (v) => {
    const rip = v.at(Vmcs.GUEST_RIP);
    return v.longGuest && (rights(v, Place.CS) & 0x2000) !== 0
      ? !canonical(rip)
      : rip >> 32n !== 0n;
  }),
  guest(
    "RFLAGS's reserved bits",
    (v) => v.has(Vmcs.GUEST_RFLAGS, 0xffff_ffff_ffc0_8028n) || !v.has(Vmcs.GUEST_RFLAGS, 2),
  ),
  guest(
    "virtual-8086 mode needs protection, and no IA-32e mode",
    (v) => v.virtualGuest && (v.longGuest || !v.protectedGuest),
  ),
  guest(
    "an external interrupt needs IF",
    (v) => v.event?.type === 0 && !v.has(Vmcs.GUEST_RFLAGS, Rflags.IF),
  ),
  guest("activity state", (v) => v.activity > Activity.WAIT_FOR_SIPI),
  guest("a halt is at privilege 0", (v) => v.activity === Activity.HLT && dpl(v, Place.SS) !== 0),
  guest(
    "a shadow needs an active guest",
    (v) =>
      v.activity !== Activity.ACTIVE && v.blocked(Interruptibility.STI | Interruptibility.MOV_SS),
  ),
  guest("events that an inactive guest can be given", (v) => {
    const { event } = v;
    if (event === undefined) return false;
    const { type, vector } = event;
    if (v.activity === Activity.HLT) return !HALT_EVENTS(type, vector);
    if (v.activity === Activity.SHUTDOWN) return !SHUTDOWN_EVENTS(type, vector);
    return v.activity === Activity.WAIT_FOR_SIPI;
  }),
  guest("interruptibility's reserved bits", (v) => v.has(Vmcs.GUEST_INTERRUPTIBILITY, 0xffff_fff0)),
  guest(
    "STI and MOV SS exclude each other",
    (v) => v.blocked(Interruptibility.STI) && v.blocked(Interruptibility.MOV_SS),
  ),
  guest(
    "blocking by STI needs IF",
    (v) => v.blocked(Interruptibility.STI) && !v.has(Vmcs.GUEST_RFLAGS, Rflags.IF),
  ),
  guest(
    "an external interrupt is not blocked",
    (v) => v.event?.type === 0 && v.blocked(Interruptibility.STI | Interruptibility.MOV_SS),
  ),
  guest(
    "an NMI is not blocked by MOV SS",
    (v) => v.event?.type === 2 && v.blocked(Interruptibility.MOV_SS),
  ),
  guest("no SMI is blocked outside of SMM", (v) => v.blocked(Interruptibility.SMI)),
  guest(
    "a virtual NMI is not blocked by another",
    (v) => v.pin(Pin.VIRTUAL_NMIS) && v.event?.type === 2 && v.blocked(Interruptibility.NMI),
  ),
  guest(
    "reserved bits of pending debug exceptions",
    (v) => v.has(Vmcs.GUEST_PENDING_DEBUG, 0xffff_ffff_ffff_aff0n),
  ),
  guest("BS is as TF and BTF are behind a shadow or in a halt", (v) => {
    const held = v.blocked(Interruptibility.STI | Interruptibility.MOV_SS) ||
      v.activity === Activity.HLT;
    const stepped = v.has(Vmcs.GUEST_RFLAGS, Rflags.TF) && !v.has(Vmcs.GUEST_DEBUGCTL, BTF);
    return held && v.has(Vmcs.GUEST_PENDING_DEBUG, BS) !== stepped;
  }),
  guest("link pointer", (v) => {
    const pointer = v.at(Vmcs.LINK_POINTER);
    if (pointer === 0xffff_ffff_ffff_ffffn) return false;
    if (v.bad(pointer, 0x1000n) || pointer === v.address) return true;
    const first = Number((v.memory(pointer) ?? -1n) & 0xffff_ffffn);
    const shadow = v.secondary(Secondary.SHADOW_VMCS) ? 0x8000_0000 : 0;
    return first !== ((VMCS_REVISION | shadow) >>> 0);
  }, 4),
  guest("PAE page-directory-pointer entries", badPdptes, 2),
];
