/**
 * What CPUID says about caches and TLBs. None are modelled; what is reported is a Zen 4's and a
 * Sapphire Rapids', so that software finds figures that fit together.
 *
 * @module
 */
import type { CpuidResult } from "../../../core/mod.ts";
import { fill } from "./result.ts";
import type { Topology } from "./topology.ts";

/** Types of caches in leaves 4 and 8000_001Dh. */
const CacheType = { DATA: 1, INSTRUCTION: 2, UNIFIED: 3 } as const;

/** Bytes of a cache line, everywhere. */
export const LINE_BYTES = 64;

interface Cache {
  readonly type: number;
  readonly level: 1 | 2 | 3;
  readonly bytes: number;
  readonly ways: number;
  /** All processors share it, else each has its own. */
  readonly shared: boolean;
  /** What is in the caches below is in this one as well. */
  readonly inclusive: boolean;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** L1 data, L1 instruction, L2, L3, in the order of the subleaves. */
type Caches = readonly [Cache, Cache, Cache, Cache];

const cache = (
  type: number,
  level: 1 | 2 | 3,
  bytes: number,
  ways: number,
  inclusive = false,
): Cache => ({ type, level, bytes, ways, shared: level === 3, inclusive });

const CACHES: Readonly<Record<"amd" | "intel", Caches>> = {
  amd: [
    cache(CacheType.DATA, 1, 32 * KIB, 8),
    cache(CacheType.INSTRUCTION, 1, 32 * KIB, 8),
    cache(CacheType.UNIFIED, 2, MIB, 8, true),
    cache(CacheType.UNIFIED, 3, 32 * MIB, 16),
  ],
  intel: [
    cache(CacheType.DATA, 1, 48 * KIB, 12),
    cache(CacheType.INSTRUCTION, 1, 32 * KIB, 8),
    cache(CacheType.UNIFIED, 2, 2 * MIB, 16),
    cache(CacheType.UNIFIED, 3, 30 * MIB, 15),
  ],
};

/** EAX bit 8 of leaves 4 and 8000_001Dh: software need not initialise the cache. */
const SELF_INITIALISING = 0x100;
/** EDX bit 1: inclusive. */
const INCLUSIVE = 2;

/**
 * Leaf 4 (Intel) and 8000_001Dh (AMD): the cache of `result.subleaf`, or none. Intel's also tells the IDs
 * of cores in EAX 31:26.
 */
export function fillCache(
  result: CpuidResult,
  vendor: "amd" | "intel",
  { idBits }: Topology,
): void {
  const found = CACHES[vendor][result.subleaf];
  if (found === undefined) return fill(result, 0);
  const { type, level, bytes, ways, shared, inclusive } = found;
  const ids = (1 << Math.min(idBits, 12)) - 1;
  const cores = vendor === "intel" ? Math.min((1 << idBits) - 1, 0x3f) << 26 : 0;
  const eax = type | (level << 5) | SELF_INITIALISING | ((shared ? ids : 0) << 14) | cores;
  const sets = bytes / (ways * LINE_BYTES);
  fill(
    result,
    eax,
    (LINE_BYTES - 1) | ((ways - 1) << 22),
    sets - 1,
    inclusive ? INCLUSIVE : 0,
  );
}

/**
 * Leaf 2 (Intel): what each byte of the registers stands for is in the manual's table. TLBs of 64 data
 * and 128 instruction translations (03h, B5h), 32 and 8 of large pages (63h, 76h), a second level of
 * 1536 (C3h); prefetches of 64 bytes (F0h); for caches see leaf 4 (FFh).
 */
export function fillDescriptors(result: CpuidResult): void {
  fill(result, 0x7603_6301, 0x00f0_b5ff, 0, 0x00c3_0000);
}

/** Codes of an associativity in 8000_0006h and 8000_0019h. */
const Associativity = { 8: 6, 16: 8, SEE_001D: 9, FULL: 0xf } as const;

/** Fully associative, in the bytes of 8000_0005h. */
const FULL_BYTE = 0xff;

/** 8000_0005h (AMD): L1 TLBs (data in 31:16, instructions in 15:0) and caches. */
export function fillLevel1(result: CpuidResult): void {
  const tlb = (FULL_BYTE << 24) | (72 << 16) | (FULL_BYTE << 8) | 64;
  const [data, instruction] = CACHES.amd;
  const level1 = ({ bytes, ways }: Cache): number =>
    ((bytes / KIB) << 24) | (ways << 16) | (1 << 8) | LINE_BYTES;
  fill(result, tlb, tlb, level1(data), level1(instruction));
}

/** An L2 in the form of 8000_0006h ECX. */
function level2(vendor: "amd" | "intel"): number {
  const { bytes, ways } = CACHES[vendor][2];
  const code = ways === 16 ? Associativity[16] : Associativity[8];
  return ((bytes / KIB) << 16) | (code << 12) | (vendor === "amd" ? 1 << 8 : 0) | LINE_BYTES;
}

/** 8000_0006h: Intel's tells its L2 only, AMD's the L2 TLBs and the L3 in units of 512 KiB as well. */
export function fillLevel2(result: CpuidResult, vendor: "amd" | "intel"): void {
  if (vendor === "intel") return fill(result, 0, 0, level2(vendor));
  const tlb = (Associativity[8] << 28) | (3072 << 16) | (Associativity[8] << 12) | 512;
  const { bytes } = CACHES.amd[3];
  const level3 = ((bytes / (512 * KIB)) << 18) | (Associativity.SEE_001D << 12) | (1 << 8) |
    LINE_BYTES;
  fill(result, tlb, tlb, level2(vendor), level3);
}

/** 8000_0019h (AMD): L1 and L2 TLBs for pages of 1 GiB. */
export function fillLargeTlbs(result: CpuidResult): void {
  fill(result, (Associativity.FULL << 28) | (72 << 16) | (Associativity.FULL << 12) | 64, 0);
}
