/**
 * System registers of a vCPU as the core's plain object, out of its VMCS and back.
 *
 * @module
 */
import type { Segment, SystemState, Vm } from "../../core/mod.ts";
import { AccessRights, Cr0, Cr4, Efer, type Field64, S, Vmcs } from "../cpu/mod.ts";
import type { GuestCpu } from "./guest_cpu.ts";
import type { LoadedVmcs } from "./loaded_vmcs.ts";

/** Distance, in encodings, from a segment's selector field to the others of the same segment. */
const LIMITS = Vmcs.GUEST_ES_LIMIT - Vmcs.GUEST_ES_SELECTOR;
const RIGHTS = Vmcs.GUEST_ES_ACCESS_RIGHTS - Vmcs.GUEST_ES_SELECTOR;
const BASES = Vmcs.GUEST_ES_BASE - Vmcs.GUEST_ES_SELECTOR;

/** Segments by the names of {@linkcode SystemState}: the selector field. */
const SEGMENTS = {
  cs: Vmcs.GUEST_CS_SELECTOR,
  ds: Vmcs.GUEST_DS_SELECTOR,
  es: Vmcs.GUEST_ES_SELECTOR,
  fs: Vmcs.GUEST_FS_SELECTOR,
  gs: Vmcs.GUEST_GS_SELECTOR,
  ss: Vmcs.GUEST_SS_SELECTOR,
  tr: Vmcs.GUEST_TR_SELECTOR,
  ldt: Vmcs.GUEST_LDTR_SELECTOR,
} as const;

/** 64-bit fields by the same. */
const FIELDS = {
  cr3: Vmcs.GUEST_CR3,
  dr7: Vmcs.GUEST_DR7,
  sysenterCs: Vmcs.GUEST_SYSENTER_CS,
  sysenterEsp: Vmcs.GUEST_SYSENTER_ESP,
  sysenterEip: Vmcs.GUEST_SYSENTER_EIP,
  pat: Vmcs.GUEST_PAT,
  tscOffset: Vmcs.TSC_OFFSET,
} as const;

/** Registers that hardware does not switch, by the same. */
const UNSWITCHED = {
  cr2: S.cr2,
  dr6: S.dr6,
  star: S.star,
  lstar: S.lstar,
  cstar: S.cstar,
  sfmask: S.sfmask,
  kernelGsBase: S.kernelGsBase,
} as const satisfies { readonly [name in keyof SystemState]?: Field64 };

const SEGMENT_NAMES = Object.keys(SEGMENTS) as (keyof typeof SEGMENTS)[];
const FIELD_NAMES = Object.keys(FIELDS) as (keyof typeof FIELDS)[];
const UNSWITCHED_NAMES = Object.keys(UNSWITCHED) as (keyof typeof UNSWITCHED)[];
const PRESENT = 0x80;

function readSegment(vmcs: LoadedVmcs, field: number): Segment {
  const rights = vmcs.get32(field + RIGHTS);
  const attributes = (rights & 0xff) | ((rights >> 4) & 0xf00);
  return {
    selector: vmcs.get32(field),
    base: vmcs.get64(field + BASES),
    limit: vmcs.get32(field + LIMITS),
    attributes: (rights & AccessRights.UNUSABLE) !== 0 ? attributes & ~PRESENT : attributes,
  };
}

function writeSegment(vmcs: LoadedVmcs, field: number, segment: Segment): void {
  const { selector, base, limit, attributes } = segment;
  const rights = (attributes & 0xff) | ((attributes & 0xf00) << 4);
  vmcs.set32(field, selector);
  vmcs.set64(field + BASES, base);
  vmcs.set32(field + LIMITS, limit);
  const unusable = (attributes & PRESENT) === 0 ? AccessRights.UNUSABLE : 0;
  vmcs.set32(field + RIGHTS, rights | unusable);
}

/** Reads the system registers. What the processor holds for the vCPU must have been released. */
export function readSystemState(guest: GuestCpu): SystemState {
  const { vmcs } = guest;
  const segments = Object.fromEntries(
    SEGMENT_NAMES.map((name) => [name, readSegment(vmcs, SEGMENTS[name])]),
  ) as Pick<SystemState, keyof typeof SEGMENTS>;
  const fields = Object.fromEntries(
    FIELD_NAMES.map((name) => [name, vmcs.get64(FIELDS[name])]),
  ) as Pick<SystemState, keyof typeof FIELDS>;
  const unswitched = Object.fromEntries(UNSWITCHED_NAMES.map((name) => {
    const field = UNSWITCHED[name];
    const low = BigInt(guest.unswitchedLo(field));
    return [name, (BigInt(guest.unswitchedHi(field)) << 32n) | low];
  })) as Pick<SystemState, keyof typeof UNSWITCHED>;
  const controlFlow = guest.cet.state(() => vmcs.get64(Vmcs.GUEST_SSP));
  const [dr0, dr1, dr2, dr3] = guest.debugAddresses as [bigint, bigint, bigint, bigint];
  return {
    ...segments,
    ...fields,
    ...unswitched,
    gdt: {
      base: vmcs.get64(Vmcs.GUEST_GDTR_BASE),
      limit: vmcs.get32(Vmcs.GUEST_GDTR_LIMIT),
    },
    idt: {
      base: vmcs.get64(Vmcs.GUEST_IDTR_BASE),
      limit: vmcs.get32(Vmcs.GUEST_IDTR_LIMIT),
    },
    cr0: guest.cr0,
    cr4: guest.cr4,
    efer: guest.efer,
    xcr0: guest.xcr0,
    cr8: guest.cr8,
    apicBase: guest.apicBase,
    dr0,
    dr1,
    dr2,
    dr3,
    tscAux: BigInt(guest.tscAux),
    interruptShadow: guest.interruptShadow,
    nmiMasked: guest.nmiMasked,
    ...(controlFlow === undefined ? {} : { controlFlow }),
  };
}

/** Writes the system registers. What the processor holds for the vCPU must have been released. */
export function writeSystemState(vm: Vm, guest: GuestCpu, state: SystemState): void {
  const { vmcs } = guest;
  for (const name of SEGMENT_NAMES) writeSegment(vmcs, SEGMENTS[name], state[name]);
  for (const name of FIELD_NAMES) vmcs.set64(FIELDS[name], state[name]);
  for (const name of UNSWITCHED_NAMES) {
    const value = state[name];
    guest.setUnswitched(UNSWITCHED[name], Number(value & 0xffff_ffffn), Number(value >> 32n));
  }
  vmcs.set64(Vmcs.GUEST_GDTR_BASE, state.gdt.base);
  vmcs.set32(Vmcs.GUEST_GDTR_LIMIT, state.gdt.limit);
  vmcs.set64(Vmcs.GUEST_IDTR_BASE, state.idt.base);
  vmcs.set32(Vmcs.GUEST_IDTR_LIMIT, state.idt.limit);
  guest.cr0 = state.cr0;
  guest.cr4 = state.cr4;
  guest.efer = state.efer;
  guest.xcr0 = state.xcr0;
  guest.cr8 = state.cr8;
  guest.apicBase = state.apicBase;
  guest.debugAddresses.splice(0, 4, state.dr0, state.dr1, state.dr2, state.dr3);
  guest.tscAux = Number(state.tscAux);
  guest.cet.setState(state.controlFlow, (ssp) => vmcs.set64(Vmcs.GUEST_SSP, ssp));
  guest.interruptShadow = state.interruptShadow;
  guest.nmiMasked = state.nmiMasked;
  guest.flush = true;
  writePdptes(vm, guest, state);
}

/** In PAE paging VM entry takes the four entries from the VMCS, not from memory (27.3.1.6). */
function writePdptes(vm: Vm, { vmcs }: GuestCpu, state: SystemState): void {
  const pae = (state.cr0 & BigInt(Cr0.PG)) !== 0n && (state.cr4 & BigInt(Cr4.PAE)) !== 0n &&
    (state.efer & BigInt(Efer.LMA)) === 0n;
  if (!pae) return;
  const table = Number(state.cr3 & 0xffff_ffe0n);
  for (let k = 0; k < 4; k++) {
    const at = table + 8 * k;
    const entry = vm.memory.lookup(at) === undefined ? 0n : vm.memory.readU64(at);
    vmcs.set64(Vmcs.GUEST_PDPTE0 + 2 * k, entry);
  }
}
