/**
 * MSRs that only AMD's processors have (APM vol. 2, appendix A; the PPRs of the families).
 *
 * @module
 */
import { addressHigh, ALL, type MsrRow, NONE } from "./row.ts";

/** SYSCFG: fixed MTRRs' DRAM bits (18, 19), variable ones' (20), TOM2 (21), WB above 4 GiB (22). */
const SYSCFG = 0x7c_0000;
/** HWCR bit 24: the TSC counts at the rate of P-state 0. */
const TSC_FREQ_SEL = 0x0100_0000;
/** HWCR: SMMLOCK (0), McStatusWrEn (18), CpbDis (25): what software may switch here. */
const HWCR_WRITABLE = 0x0204_0001;
/** Granularity of TOP_MEM and TOP_MEM2: 8 MiB. */
const TOP_MEM_LOW = 0xff80_0000;

/**
 * Switches of the microarchitecture, which no program sees the effect of but for its speed: LS_CFG,
 * IC_CFG, DC_CFG, TW_CFG; FP_CFG, DE_CFG, BU_CFG2 and following.
 */
const CONFIGURATION: readonly (readonly [number, number])[] = [
  [0xc001_1020, 4],
  [0xc001_1028, 8],
];
/** DE_CFG, in which LFENCE is serializing (bit 1), as it is here. */
const DE_CFG = 0xc001_1029;

/**
 * Those of all models; `patchLevel` is what the model says of its microcode, `physicalBits` the size of its
 * physical addresses.
 */
export function amdMsrs(patchLevel: number, physicalBits: number): readonly MsrRow[] {
  const high = addressHigh(physicalBits);
  return [
    { name: "PATCH_LEVEL", index: 0x8b, reset: [patchLevel, 0], readOnly: true },
    { name: "SYSCFG", index: 0xc001_0010, writable: [SYSCFG, 0] },
    {
      name: "HWCR",
      index: 0xc001_0015,
      reset: [TSC_FREQ_SEL, 0],
      writable: [HWCR_WRITABLE, 0],
    },
    ...[0xc001_0016, 0xc001_0018].flatMap((index): readonly MsrRow[] => [
      // RdMem and WrMem (4:3); valid (11).
      { name: "IORRBase", index, writable: [0xffff_f018, high] },
      { name: "IORRMask", index: index + 1, writable: [MASK_LOW, high] },
    ]),
    { name: "TOP_MEM", index: 0xc001_001a, writable: [TOP_MEM_LOW, high] },
    { name: "TOP_MEM2", index: 0xc001_001d, writable: [TOP_MEM_LOW, high] },
    // EnableCf8ExtCfg (46) and the rest stay 0, as the host bridge has no extended configuration space.
    { name: "NB_CFG", index: 0xc001_001f, others: "ignored" },
    // No patch is one for this processor: each is refused.
    { name: "PATCH_LOADER", index: 0xc001_0020, command: true, check: () => false },
    // Bit 0 enables, 5:2 is log2 of the buses, 47:20 the base.
    { name: "MMIO_CFG_BASE", index: 0xc001_0058, writable: [0xfff0_003d, high] },
    ...CONFIGURATION.flatMap(([first, count]) =>
      Array.from({ length: count }, (_, k): MsrRow => ({
        name: "configuration",
        index: first + k,
        reset: first + k === DE_CFG ? [2, 0] : NONE,
        writable: ALL,
      }))
    ),
  ];
}

/** A range's valid bit and its address mask. */
const MASK_LOW = 0xffff_f800;
