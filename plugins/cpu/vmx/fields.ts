/**
 * The virtual-machine control structure: fields, and where they stand in a VMCS region
 * (SDM vol. 3, ch. 25 and appendix B).
 *
 * The manual leaves the format of a region to the processor. Here bytes 3:0 are the revision identifier
 * with the shadow indicator, 7:4 the VMX-abort indicator, 11:8 the launch state, and from byte 40h on
 * there is one slot of eight bytes for each field, zero-extended, in the order of their encodings. The
 * current VMCS is on the processor, in the same format, and goes back to its region when it ceases to be
 * current (25.11.1): VMPTRLD of another, VMCLEAR, VMXOFF.
 *
 * @module
 */
import { VMX_TABLES } from "../state/layout.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, type I64, i64 } from "../wasm/mod.ts";

/** Encodings of the fields there are; of a 64-bit field's high half, 1 more. */
export const Vmcs = {
  VPID: 0x0000,
  POSTED_INTERRUPT_VECTOR: 0x0002,
  EPTP_INDEX: 0x0004,
  LAST_PID_POINTER_INDEX: 0x0008,
  GUEST_ES_SELECTOR: 0x0800,
  GUEST_CS_SELECTOR: 0x0802,
  GUEST_SS_SELECTOR: 0x0804,
  GUEST_DS_SELECTOR: 0x0806,
  GUEST_FS_SELECTOR: 0x0808,
  GUEST_GS_SELECTOR: 0x080a,
  GUEST_LDTR_SELECTOR: 0x080c,
  GUEST_TR_SELECTOR: 0x080e,
  GUEST_INTERRUPT_STATUS: 0x0810,
  PML_INDEX: 0x0812,
  HOST_ES_SELECTOR: 0x0c00,
  HOST_CS_SELECTOR: 0x0c02,
  HOST_SS_SELECTOR: 0x0c04,
  HOST_DS_SELECTOR: 0x0c06,
  HOST_FS_SELECTOR: 0x0c08,
  HOST_GS_SELECTOR: 0x0c0a,
  HOST_TR_SELECTOR: 0x0c0c,
  IO_BITMAP_A: 0x2000,
  IO_BITMAP_B: 0x2002,
  MSR_BITMAP: 0x2004,
  EXIT_MSR_STORE_ADDRESS: 0x2006,
  EXIT_MSR_LOAD_ADDRESS: 0x2008,
  ENTRY_MSR_LOAD_ADDRESS: 0x200a,
  EXECUTIVE_VMCS_POINTER: 0x200c,
  PML_ADDRESS: 0x200e,
  TSC_OFFSET: 0x2010,
  VIRTUAL_APIC_ADDRESS: 0x2012,
  APIC_ACCESS_ADDRESS: 0x2014,
  POSTED_INTERRUPT_DESCRIPTOR: 0x2016,
  VM_FUNCTION_CONTROLS: 0x2018,
  EPT_POINTER: 0x201a,
  EOI_EXIT_BITMAP0: 0x201c,
  EOI_EXIT_BITMAP1: 0x201e,
  EOI_EXIT_BITMAP2: 0x2020,
  EOI_EXIT_BITMAP3: 0x2022,
  EPTP_LIST_ADDRESS: 0x2024,
  VMREAD_BITMAP: 0x2026,
  VMWRITE_BITMAP: 0x2028,
  XSS_EXITING_BITMAP: 0x202c,
  TSC_MULTIPLIER: 0x2032,
  TERTIARY_CONTROLS: 0x2034,
  PID_POINTER_TABLE: 0x2042,
  GUEST_PHYSICAL_ADDRESS: 0x2400,
  EXTENDED_INSTRUCTION_INFO: 0x2406,
  LINK_POINTER: 0x2800,
  GUEST_DEBUGCTL: 0x2802,
  GUEST_PAT: 0x2804,
  GUEST_EFER: 0x2806,
  GUEST_PERF_GLOBAL_CTRL: 0x2808,
  GUEST_PDPTE0: 0x280a,
  GUEST_PDPTE1: 0x280c,
  GUEST_PDPTE2: 0x280e,
  GUEST_PDPTE3: 0x2810,
  HOST_PAT: 0x2c00,
  HOST_EFER: 0x2c02,
  HOST_PERF_GLOBAL_CTRL: 0x2c04,
  PIN_CONTROLS: 0x4000,
  PRIMARY_CONTROLS: 0x4002,
  EXCEPTION_BITMAP: 0x4004,
  PAGE_FAULT_ERROR_MASK: 0x4006,
  PAGE_FAULT_ERROR_MATCH: 0x4008,
  CR3_TARGET_COUNT: 0x400a,
  EXIT_CONTROLS: 0x400c,
  EXIT_MSR_STORE_COUNT: 0x400e,
  EXIT_MSR_LOAD_COUNT: 0x4010,
  ENTRY_CONTROLS: 0x4012,
  ENTRY_MSR_LOAD_COUNT: 0x4014,
  ENTRY_INTERRUPTION_INFO: 0x4016,
  ENTRY_EXCEPTION_ERROR: 0x4018,
  ENTRY_INSTRUCTION_LENGTH: 0x401a,
  TPR_THRESHOLD: 0x401c,
  SECONDARY_CONTROLS: 0x401e,
  PLE_GAP: 0x4020,
  PLE_WINDOW: 0x4022,
  NOTIFY_WINDOW: 0x4024,
  INSTRUCTION_ERROR: 0x4400,
  EXIT_REASON: 0x4402,
  EXIT_INTERRUPTION_INFO: 0x4404,
  EXIT_INTERRUPTION_ERROR: 0x4406,
  IDT_VECTORING_INFO: 0x4408,
  IDT_VECTORING_ERROR: 0x440a,
  EXIT_INSTRUCTION_LENGTH: 0x440c,
  EXIT_INSTRUCTION_INFO: 0x440e,
  GUEST_ES_LIMIT: 0x4800,
  GUEST_CS_LIMIT: 0x4802,
  GUEST_SS_LIMIT: 0x4804,
  GUEST_DS_LIMIT: 0x4806,
  GUEST_FS_LIMIT: 0x4808,
  GUEST_GS_LIMIT: 0x480a,
  GUEST_LDTR_LIMIT: 0x480c,
  GUEST_TR_LIMIT: 0x480e,
  GUEST_GDTR_LIMIT: 0x4810,
  GUEST_IDTR_LIMIT: 0x4812,
  GUEST_ES_ACCESS_RIGHTS: 0x4814,
  GUEST_CS_ACCESS_RIGHTS: 0x4816,
  GUEST_SS_ACCESS_RIGHTS: 0x4818,
  GUEST_DS_ACCESS_RIGHTS: 0x481a,
  GUEST_FS_ACCESS_RIGHTS: 0x481c,
  GUEST_GS_ACCESS_RIGHTS: 0x481e,
  GUEST_LDTR_ACCESS_RIGHTS: 0x4820,
  GUEST_TR_ACCESS_RIGHTS: 0x4822,
  GUEST_INTERRUPTIBILITY: 0x4824,
  GUEST_ACTIVITY: 0x4826,
  GUEST_SMBASE: 0x4828,
  GUEST_SYSENTER_CS: 0x482a,
  PREEMPTION_TIMER: 0x482e,
  HOST_SYSENTER_CS: 0x4c00,
  CR0_MASK: 0x6000,
  CR4_MASK: 0x6002,
  CR0_SHADOW: 0x6004,
  CR4_SHADOW: 0x6006,
  CR3_TARGET0: 0x6008,
  CR3_TARGET1: 0x600a,
  CR3_TARGET2: 0x600c,
  CR3_TARGET3: 0x600e,
  EXIT_QUALIFICATION: 0x6400,
  IO_RCX: 0x6402,
  IO_RSI: 0x6404,
  IO_RDI: 0x6406,
  IO_RIP: 0x6408,
  GUEST_LINEAR_ADDRESS: 0x640a,
  GUEST_CR0: 0x6800,
  GUEST_CR3: 0x6802,
  GUEST_CR4: 0x6804,
  GUEST_ES_BASE: 0x6806,
  GUEST_CS_BASE: 0x6808,
  GUEST_SS_BASE: 0x680a,
  GUEST_DS_BASE: 0x680c,
  GUEST_FS_BASE: 0x680e,
  GUEST_GS_BASE: 0x6810,
  GUEST_LDTR_BASE: 0x6812,
  GUEST_TR_BASE: 0x6814,
  GUEST_GDTR_BASE: 0x6816,
  GUEST_IDTR_BASE: 0x6818,
  GUEST_DR7: 0x681a,
  GUEST_RSP: 0x681c,
  GUEST_RIP: 0x681e,
  GUEST_RFLAGS: 0x6820,
  GUEST_PENDING_DEBUG: 0x6822,
  GUEST_SYSENTER_ESP: 0x6824,
  GUEST_SYSENTER_EIP: 0x6826,
  GUEST_S_CET: 0x6828,
  GUEST_SSP: 0x682a,
  GUEST_INTERRUPT_SSP_TABLE: 0x682c,
  HOST_CR0: 0x6c00,
  HOST_CR3: 0x6c02,
  HOST_CR4: 0x6c04,
  HOST_FS_BASE: 0x6c06,
  HOST_GS_BASE: 0x6c08,
  HOST_TR_BASE: 0x6c0a,
  HOST_GDTR_BASE: 0x6c0c,
  HOST_IDTR_BASE: 0x6c0e,
  HOST_SYSENTER_ESP: 0x6c10,
  HOST_SYSENTER_EIP: 0x6c12,
  HOST_RSP: 0x6c14,
  HOST_RIP: 0x6c16,
  HOST_S_CET: 0x6c18,
  HOST_SSP: 0x6c1a,
  HOST_INTERRUPT_SSP_TABLE: 0x6c1c,
} as const;

/** Places in a VMCS region that are no fields. */
export const VmcsRegion = {
  /** u32: revision identifier in bits 30:0, bit 31 says that it is a shadow VMCS. */
  REVISION: 0,
  /** u32: why a VM exit ended in a VMX abort. */
  ABORT: 4,
  /** u32: 1 if it has been launched, 0 if it is clear. */
  LAUNCHED: 8,
  /** The fields, 8 bytes each. */
  FIELDS: 0x40,
  /** Bytes of a region. */
  BYTES: 0x1000,
} as const;

/** Bytes of a region that are used. */
export const VMCS_USED: number = VmcsRegion.FIELDS + 8 * Object.keys(Vmcs).length;
if (S.vmcsData + VMCS_USED > S.exitInformation) {
  throw new Error("a VMCS has outgrown its place");
}

/** Bytes of a VMCS region. */
export const VMCS_BYTES: number = VmcsRegion.BYTES;
/** The revision identifier: what bits 30:0 of a region have to hold. */
export const VMCS_REVISION = 0x004c_5054;
/** Bit 31 of the first word: a shadow VMCS. */
export const SHADOW_VMCS = 0x8000_0000;

const ENCODINGS: readonly number[] = Object.values(Vmcs);

/** Highest index of any field, for IA32_VMX_VMCS_ENUM. */
export const HIGHEST_INDEX: number = Math.max(...ENCODINGS.map((code) => (code >> 1) & 0x1ff));

/** Offset of the field with this encoding in a region. */
export function fieldOffset(encoding: number): number {
  const place = ENCODINGS.indexOf(encoding);
  if (place < 0) throw new RangeError(`no VMCS field ${encoding.toString(16)}h`);
  return VmcsRegion.FIELDS + 8 * place;
}

/** Types of fields: bits 11:10 of the encoding. */
export const FieldType = { CONTROL: 0, READ_ONLY: 1, GUEST: 2, HOST: 3 } as const;
/** Widths: bits 14:13. */
export const FieldWidth = { W16: 0, W64: 1, W32: 2, NATURAL: 3 } as const;

/** What fields have to do with, for VM entry's checks: those that nothing has changed for stay passed. */
export const VmcsGroup = {
  /** Controls: everything depends on them. */
  CONTROLS: 0x1,
  /** The host-state area. */
  HOST: 0x2,
  /** The guest-state area. */
  GUEST: 0x4,
  /** What is to be injected: the controls with VM-entry interruption information. */
  EVENT: 0x8,
  /** Of the guest, RIP and RSP, which change from instruction to instruction. */
  FLOW: 0x10,
  /** Of the guest, RFLAGS and what may hold events back. */
  STATE: 0x20,
  /** All of them. */
  ALL: 0x3f,
} as const;

const EVENT_FIELDS: readonly number[] = [
  Vmcs.ENTRY_INTERRUPTION_INFO,
  Vmcs.ENTRY_EXCEPTION_ERROR,
  Vmcs.ENTRY_INSTRUCTION_LENGTH,
];
const FLOW_FIELDS: readonly number[] = [Vmcs.GUEST_RIP, Vmcs.GUEST_RSP];
const STATE_FIELDS: readonly number[] = [
  Vmcs.GUEST_RFLAGS,
  Vmcs.GUEST_INTERRUPTIBILITY,
  Vmcs.GUEST_ACTIVITY,
  Vmcs.GUEST_PENDING_DEBUG,
];

/** The {@linkcode VmcsGroup} of a field. */
function groupOf(encoding: number): number {
  if (EVENT_FIELDS.includes(encoding)) return VmcsGroup.EVENT;
  if (FLOW_FIELDS.includes(encoding)) return VmcsGroup.FLOW;
  if (STATE_FIELDS.includes(encoding)) return VmcsGroup.STATE;
  switch ((encoding >> 10) & 3) {
    case FieldType.CONTROL:
      return VmcsGroup.CONTROLS;
    case FieldType.GUEST:
      return VmcsGroup.GUEST;
    case FieldType.HOST:
      return VmcsGroup.HOST;
    default:
      return 0;
  }
}

/** Indices of fields that the table has room for, and bytes of the table of their offsets. */
const TABLE_INDICES = 64;
const OFFSETS_BYTES = 2 * 16 * TABLE_INDICES;
/** Behind it, a byte for each field: its group. */
const GROUPS: number = VMX_TABLES + OFFSETS_BYTES;

/** Writes the tables that VMREAD and VMWRITE look fields up in: u16 offsets, 0 for no field, and groups. */
export function writeFieldTable(bytes: Uint8Array): void {
  for (const encoding of ENCODINGS) {
    const index = tableIndex(encoding);
    const at = VMX_TABLES + 2 * index;
    const offset = fieldOffset(encoding);
    bytes[at] = offset & 0xff;
    bytes[at + 1] = offset >> 8;
    bytes[GROUPS + index] = groupOf(encoding);
  }
}

function tableIndex(encoding: number): number {
  return (((encoding >> 10) & 3) | ((encoding >> 11) & 12)) * TABLE_INDICES +
    ((encoding >> 1) & 63);
}

/** Place in the tables of an encoding that is known at run time only. */
function lookUpIndex(low: I32): I32 {
  return low.shrU(10).and(3).or(low.shrU(13).and(3).shl(2)).mul(TABLE_INDICES)
    .add(low.shrU(1).and(63));
}

/** Offset in a region of the field whose encoding is known at run time only; 0 if there is none. */
export function lookUpField(f: FunctionBuilder, encoding: I64): I32 {
  const low = encoding.wrap();
  // The high half is a field of its own only where the field has 64 bits in every mode.
  const half = low.and(1).and(low.shrU(13).and(3).ne(FieldWidth.W64));
  const none = encoding.has(~0x6c7fn).or(half);
  return none.select(i64(0).wrap(), f.load16(lookUpIndex(low).shl(1), VMX_TABLES));
}

/** Notes that a field of the current VMCS, one that there is, was written by software. */
export function noteWrite(f: FunctionBuilder, encoding: I64): void {
  S.vmcsWritten.or(f, f.load8(lookUpIndex(encoding.wrap()), GROUPS));
}

/** VMWRITE of a field that is known, of the current VMCS. */
export function writeNoted(f: FunctionBuilder, encoding: number, value: I64): void {
  const changed = readField(f, encoding).ne(value);
  S.vmcsWritten.or(f, changed.select(i32(groupOf(encoding)), i32(0)));
  writeField(f, encoding, value);
}

/** Where the VMCS whose region is at memory address `region` is: on the processor if it is current. */
export function whereIs(f: FunctionBuilder, region: I32): I32 {
  return region.eq(S.vmcs.get(f)).select(i32(S.vmcsData), region);
}

/** A field of the current VMCS. */
export function readField(f: FunctionBuilder, encoding: number): I64 {
  return f.load64(0, S.vmcsData + fieldOffset(encoding));
}

/** The low 32 bits of a field of the current VMCS. */
export function readField32(f: FunctionBuilder, encoding: number): I32 {
  return f.load32(0, S.vmcsData + fieldOffset(encoding));
}

/** Sets a field of the current VMCS. */
export function writeField(f: FunctionBuilder, encoding: number, value: I64 | number): void {
  f.store64(0, value, S.vmcsData + fieldOffset(encoding));
}

/** Sets a field of the current VMCS that has at most 32 bits. */
export function writeField32(f: FunctionBuilder, encoding: number, value: I32): void {
  f.store64(0, value.extendU(), S.vmcsData + fieldOffset(encoding));
}
