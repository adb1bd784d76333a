/**
 * System registers of a vCPU as the core's plain object, out of its VMCB and back.
 *
 * @module
 */
import type { SystemState } from "../../core/mod.ts";
import { Control, Save } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";

/** Segments by the names of {@linkcode SystemState}. */
const SEGMENTS = {
  cs: Save.CS,
  ds: Save.DS,
  es: Save.ES,
  fs: Save.FS,
  gs: Save.GS,
  ss: Save.SS,
  tr: Save.TR,
  ldt: Save.LDTR,
} as const;

/** 64-bit fields by the same. */
const FIELDS = {
  cr0: Save.CR0,
  cr2: Save.CR2,
  cr3: Save.CR3,
  cr4: Save.CR4,
  dr6: Save.DR6,
  dr7: Save.DR7,
  star: Save.STAR,
  lstar: Save.LSTAR,
  cstar: Save.CSTAR,
  sfmask: Save.SFMASK,
  kernelGsBase: Save.KERNEL_GS_BASE,
  sysenterCs: Save.SYSENTER_CS,
  pat: Save.G_PAT,
} as const;

const DPL_SHIFT = 5;
const DPL: number = 3 << DPL_SHIFT;

const SEGMENT_NAMES = Object.keys(SEGMENTS) as (keyof typeof SEGMENTS)[];
const FIELD_NAMES = Object.keys(FIELDS) as (keyof typeof FIELDS)[];

/** Reads the system registers. What the processor holds for the vCPU must have been released. */
export function readSystemState(guest: GuestCpu): SystemState {
  const { vmcb } = guest;
  const segments = Object.fromEntries(
    SEGMENT_NAMES.map((name) => [name, { ...vmcb.segment(SEGMENTS[name]) }]),
  ) as Pick<SystemState, keyof typeof SEGMENTS>;
  // The VMCB keeps the CPL apart from SS, whose DPL SYSRET can leave at another (APM vol. 3, SYSRET).
  segments.ss.attributes = segments.ss.attributes & ~DPL | vmcb.bytes[Save.CPL]! << DPL_SHIFT;
  const fields = Object.fromEntries(
    FIELD_NAMES.map((name) => [name, vmcb.get64(FIELDS[name])]),
  ) as Pick<SystemState, keyof typeof FIELDS>;
  const controlFlow = guest.cet.state(() => vmcb.get64(Save.SSP));
  const [dr0, dr1, dr2, dr3] = guest.debugAddresses as [bigint, bigint, bigint, bigint];
  return {
    ...segments,
    ...fields,
    gdt: { base: vmcb.get64(Save.GDTR + 8), limit: vmcb.get32(Save.GDTR + 4) & 0xffff },
    idt: { base: vmcb.get64(Save.IDTR + 8), limit: vmcb.get32(Save.IDTR + 4) & 0xffff },
    efer: guest.efer,
    sysenterEsp: sysenter(guest, Save.SYSENTER_ESP),
    sysenterEip: sysenter(guest, Save.SYSENTER_EIP),
    cr8: guest.cr8,
    xcr0: guest.xcr0,
    apicBase: guest.apicBase,
    dr0,
    dr1,
    dr2,
    dr3,
    tscAux: BigInt(guest.tscAux),
    tscOffset: vmcb.get64(Control.TSC_OFFSET),
    interruptShadow: guest.interruptShadow,
    nmiMasked: guest.nmiMasked,
    ...(controlFlow === undefined ? {} : { controlFlow }),
  };
}

function sysenter({ vmcb, svm }: GuestCpu, field: number): bigint {
  return (BigInt(svm.sysenterHi(field)) << 32n) | BigInt(vmcb.get32(field));
}

function setSysenter({ svm }: GuestCpu, field: number, value: bigint): void {
  svm.setSysenter(field, Number(value & 0xffff_ffffn), Number(value >> 32n));
}

/** Writes the system registers. */
export function writeSystemState(guest: GuestCpu, state: SystemState): void {
  const { vmcb } = guest;
  for (const name of SEGMENT_NAMES) vmcb.setSegment(SEGMENTS[name], state[name]);
  for (const name of FIELD_NAMES) vmcb.set64(FIELDS[name], state[name]);
  vmcb.set32(Save.GDTR + 4, state.gdt.limit);
  vmcb.set64(Save.GDTR + 8, state.gdt.base);
  vmcb.set32(Save.IDTR + 4, state.idt.limit);
  vmcb.set64(Save.IDTR + 8, state.idt.base);
  // In protected mode the CPL is SS's DPL; VMRUN forces it in the other modes.
  vmcb.bytes[Save.CPL] = (state.ss.attributes >> 5) & 3;
  guest.efer = state.efer;
  setSysenter(guest, Save.SYSENTER_ESP, state.sysenterEsp);
  setSysenter(guest, Save.SYSENTER_EIP, state.sysenterEip);
  guest.cr8 = state.cr8;
  guest.xcr0 = state.xcr0;
  guest.apicBase = state.apicBase;
  guest.debugAddresses.splice(0, 4, state.dr0, state.dr1, state.dr2, state.dr3);
  guest.tscAux = Number(state.tscAux);
  guest.cet.setState(state.controlFlow, (ssp) => vmcb.set64(Save.SSP, ssp));
  vmcb.set64(Control.TSC_OFFSET, state.tscOffset);
  guest.interruptShadow = state.interruptShadow;
  guest.nmiMasked = state.nmiMasked;
  guest.iretWindow = state.nmiMasked;
  guest.flush = true;
  vmcb.set32(Control.CLEAN_BITS, 0);
  guest.recalculate();
}
