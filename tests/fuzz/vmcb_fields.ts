/**
 * Which fields of a VMCB are changed at random (APM vol. 2, appendix B).
 *
 * @module
 */
import { Control, InterceptWord, Save } from "../../plugins/cpu/mod.ts";

/** Where a field stands, and how many bytes it has. */
export type VmcbField = readonly [offset: number, bytes: number];

/** The fields of a control block that VMRUN checks or loads, and how many bytes each has. */
export const VMCB_FIELDS: readonly VmcbField[] = [
  [InterceptWord.CR, 4],
  [InterceptWord.DR, 4],
  [InterceptWord.EXCEPTIONS, 4],
  [InterceptWord.MISC1, 4],
  [InterceptWord.MISC2, 4],
  [InterceptWord.MISC3, 4],
  [Control.PAUSE_COUNT, 2],
  [Control.PAUSE_THRESHOLD, 2],
  [Control.IOPM_BASE_PA, 8],
  [Control.MSRPM_BASE_PA, 8],
  [Control.TSC_OFFSET, 8],
  [Control.ASID, 4],
  [Control.TLB_CONTROL, 1],
  [Control.INT_CONTROL, 5],
  [Control.INT_STATE, 1],
  [Control.EVENTINJ, 8],
  [Control.NESTED_CONTROL, 1],
  [Control.N_CR3, 8],
  [Control.AVIC_APIC_BAR, 8],
  [Control.AVIC_BACKING_PAGE, 8],
  [Control.AVIC_LOGICAL_TABLE, 8],
  [Control.AVIC_PHYSICAL_TABLE, 8],
  [Control.VIRT_EXT, 1],
  [Control.BUS_LOCK_COUNT, 2],
  [Control.NRIP, 8],
  ...[Save.ES, Save.CS, Save.SS, Save.DS].flatMap((offset) => [
    [offset, 2] as const,
    [offset + 2, 2] as const,
    [offset + 4, 4] as const,
    [offset + 8, 8] as const,
  ]),
  [Save.GDTR + 4, 4],
  [Save.IDTR + 4, 4],
  [Save.CPL, 1],
  ...[
    Save.EFER,
    Save.CR4,
    Save.CR3,
    Save.CR0,
    Save.DR7,
    Save.DR6,
    Save.RFLAGS,
    Save.RIP,
    Save.RSP,
    Save.RAX,
    Save.CR2,
    Save.G_PAT,
    Save.DBGCTL,
    Save.S_CET,
    Save.SSP,
    Save.ISST_ADDR,
  ].map((offset) => [offset, 8] as const),
];

/** Those that say where in memory something is: a wrong one takes the guest out of its place. */
const PLACES: ReadonlySet<number> = new Set([
  Control.IOPM_BASE_PA,
  Control.MSRPM_BASE_PA,
  Control.NESTED_CONTROL,
  Control.N_CR3,
  Control.AVIC_APIC_BAR,
  Control.AVIC_BACKING_PAGE,
  Control.AVIC_LOGICAL_TABLE,
  Control.AVIC_PHYSICAL_TABLE,
]);

/** The fields that leave a guest in its place. */
export const CONFINED_FIELDS: readonly VmcbField[] = VMCB_FIELDS.filter(([offset]) =>
  !PLACES.has(offset)
);
