/**
 * Memory-type range registers (APM vol. 2, 7.7; SDM vol. 3A, 12.11). No caches are modelled, so they
 * hold what software wrote, checked as the manuals say.
 *
 * @module
 */
import { addressHigh, type MsrRow, type MsrValues } from "./row.ts";

/** Pairs of variable ranges. */
const VARIABLE_RANGES = 8;
/** MTRRcap: the pairs in 7:0, fixed ranges (8), write-combining (10). */
const MTRR_CAP: number = VARIABLE_RANGES | 0x100 | 0x400;

/** A variable range's valid bit and the address in it (31:12). */
const MASK_LOW = 0xffff_f800;
const BASE_LOW = 0xffff_f0ff;
/** MTRRdefType: E (11), FE (10), the type. */
const DEF_TYPE_LOW = 0xcff;

/** Memory types there are: UC, WC, WT, WP, WB. */
const TYPES = 0x73;
const isType = (type: number): boolean => type < 8 && ((TYPES >> type) & 1) !== 0;

/** AMD's SYSCFG, and its bit that shows RdMem and WrMem (4 and 3) of the fixed ranges. */
const SYSCFG = 0xc001_0010;
const MTRR_FIX_DRAM_MOD_EN = 0x8_0000;

/** Eight types, one a byte, in a fixed range. */
function fixedTypes(lo: number, hi: number, values: MsrValues): boolean {
  const dram = (values.low(SYSCFG) & MTRR_FIX_DRAM_MOD_EN) !== 0 ? 0x18 : 0;
  for (const half of [lo, hi]) {
    for (let shift = 0; shift < 32; shift += 8) {
      if (!isType(((half >>> shift) & 0xff) & ~dram)) return false;
    }
  }
  return true;
}

const firstType = (lo: number): boolean => isType(lo & 0xff);

/** First MSR of each group of fixed ranges, and how many there are. */
const FIXED: readonly (readonly [string, number, number])[] = [
  ["MTRRfix64K", 0x250, 1],
  ["MTRRfix16K", 0x258, 2],
  ["MTRRfix4K", 0x268, 8],
];

/** The MTRRs of a processor whose physical addresses have so many bits. */
export function mtrrs(physicalBits: number): readonly MsrRow[] {
  const high = addressHigh(physicalBits);
  return [
    { name: "MTRRcap", index: 0xfe, reset: [MTRR_CAP, 0], readOnly: true },
    ...Array.from({ length: VARIABLE_RANGES }, (_, k): readonly MsrRow[] => [
      { name: "MTRRphysBase", index: 0x200 + 2 * k, writable: [BASE_LOW, high], check: firstType },
      { name: "MTRRphysMask", index: 0x201 + 2 * k, writable: [MASK_LOW, high] },
    ]).flat(),
    ...FIXED.map(([name, index, count]): MsrRow => ({
      name,
      index,
      count,
      writable: [0xffff_ffff, 0xffff_ffff],
      check: fixedTypes,
    })),
    { name: "MTRRdefType", index: 0x2ff, writable: [DEF_TYPE_LOW, 0], check: firstType },
  ];
}
