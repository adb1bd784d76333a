/**
 * Checks on the guest's segment registers (SDM vol. 3, 27.3.1.2).
 *
 * @module
 */
import { Vmcs } from "../../plugins/cpu/mod.ts";
import { canonical, type EntryCheck, guest, type VmcsView } from "./vmcs_view.ts";

/** Places of the segment registers in the guest-state area. */
export const Place = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const;
const selector = (v: VmcsView, n: number): bigint => v.at(Vmcs.GUEST_ES_SELECTOR + 2 * n);
const base = (v: VmcsView, n: number): bigint => v.at(Vmcs.GUEST_ES_BASE + 2 * n);
const limit = (v: VmcsView, n: number): bigint => v.at(Vmcs.GUEST_ES_LIMIT + 2 * n);
/** Access rights of a segment. */
export const rights = (v: VmcsView, n: number): number =>
  Number(v.at(Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * n));
const usable = (v: VmcsView, n: number): boolean => (rights(v, n) & 0x1_0000) === 0;
const typeOf = (v: VmcsView, n: number): number => rights(v, n) & 15;
/** DPL of a segment. */
export const dpl = (v: VmcsView, n: number): number => (rights(v, n) >> 5) & 3;
const rpl = (v: VmcsView, n: number): number => Number(selector(v, n) & 3n);

/** Limit and granularity do not go together. */
function badGranularity(v: VmcsView, n: number): boolean {
  const value = limit(v, n);
  const granular = (rights(v, n) & 0x8000) !== 0;
  return granular ? (value & 0xfffn) !== 0xfffn : value >> 20n !== 0n;
}

/** Bits 11:8 and 31:17 of the access rights. */
const badReserved = (v: VmcsView, n: number): boolean => (rights(v, n) & 0xfffe_0f00) !== 0;

const { ES, CS, SS, DS, FS, GS, LDTR, TR } = Place;
const DATA_SEGMENTS: readonly number[] = [DS, ES, FS, GS];
const ALL_SIX: readonly number[] = [CS, SS, DS, ES, FS, GS];
/** Those that a rule is for: CS always, the others where they are usable; none in virtual-8086 mode. */
const ruled = (v: VmcsView): readonly number[] =>
  v.virtualGuest ? [] : ALL_SIX.filter((n) => n === CS || usable(v, n));

/** All of them. */
export const SEGMENT_CHECKS: readonly EntryCheck[] = [
  guest("TR's selector is in the GDT", (v) => (selector(v, TR) & 4n) !== 0n),
  guest("LDTR's selector is in the GDT", (v) => usable(v, LDTR) && (selector(v, LDTR) & 4n) !== 0n),
  guest(
    "SS.RPL is CS.RPL",
    (v) => !v.virtualGuest && !v.unrestricted && rpl(v, SS) !== rpl(v, CS),
  ),
  guest(
    "bases in virtual-8086 mode",
    (v) => v.virtualGuest && ALL_SIX.some((n) => base(v, n) !== selector(v, n) << 4n),
  ),
  guest(
    "bases of TR, FS and GS are canonical",
    (v) => [TR, FS, GS].some((n) => !canonical(base(v, n))),
  ),
  guest("LDTR's base is canonical", (v) => usable(v, LDTR) && !canonical(base(v, LDTR))),
  guest("CS's base has 32 bits", (v) => base(v, CS) >> 32n !== 0n),
  guest(
    "bases of SS, DS and ES have 32 bits",
    (v) => [SS, DS, ES].some((n) => usable(v, n) && base(v, n) >> 32n !== 0n),
  ),
  guest(
    "limits in virtual-8086 mode",
    (v) => v.virtualGuest && ALL_SIX.some((n) => limit(v, n) !== 0xffffn),
  ),
  guest(
    "rights in virtual-8086 mode",
    (v) => v.virtualGuest && ALL_SIX.some((n) => rights(v, n) !== 0xf3),
  ),
  guest(
    "CS's type",
    (v) =>
      !v.virtualGuest && ![9, 11, 13, 15, ...(v.unrestricted ? [3] : [])].includes(typeOf(v, CS)),
  ),
  guest("SS's type", (v) => !v.virtualGuest && usable(v, SS) && ![3, 7].includes(typeOf(v, SS))),
  guest(
    "types of data segments",
    (v) =>
      !v.virtualGuest && DATA_SEGMENTS.some((n) => {
        const type = typeOf(v, n);
        return usable(v, n) && ((type & 1) === 0 || ((type & 8) !== 0 && (type & 2) === 0));
      }),
  ),
  guest("S is 1", (v) => ruled(v).some((n) => (rights(v, n) & 0x10) === 0)),
  guest("CS's DPL", (v) => {
    if (v.virtualGuest) return false;
    const type = typeOf(v, CS);
    if (type === 3) return dpl(v, CS) !== 0;
    if (type === 9 || type === 11) return dpl(v, CS) !== dpl(v, SS);
    return (type === 13 || type === 15) && dpl(v, CS) > dpl(v, SS);
  }),
  guest(
    "SS's DPL is its RPL",
    (v) => !v.virtualGuest && !v.unrestricted && dpl(v, SS) !== rpl(v, SS),
  ),
  guest(
    "SS's DPL is 0 in real mode or with data in CS",
    (v) => !v.virtualGuest && (typeOf(v, CS) === 3 || !v.protectedGuest) && dpl(v, SS) !== 0,
  ),
  guest(
    "DPL of data segments",
    (v) =>
      !v.virtualGuest && !v.unrestricted &&
      DATA_SEGMENTS.some((n) => usable(v, n) && typeOf(v, n) <= 11 && dpl(v, n) < rpl(v, n)),
  ),
  guest("P is 1", (v) => ruled(v).some((n) => (rights(v, n) & 0x80) === 0)),
  guest("reserved rights", (v) => ruled(v).some((n) => badReserved(v, n))),
  guest(
    "64-bit code has D 0",
    (v) => !v.virtualGuest && v.longGuest && (rights(v, CS) & 0x6000) === 0x6000,
  ),
  guest("granularity", (v) => ruled(v).some((n) => badGranularity(v, n))),
  guest("TR's type", (v) => v.longGuest ? typeOf(v, TR) !== 11 : ![3, 11].includes(typeOf(v, TR))),
  guest(
    "TR is usable, present, and of the system",
    (v) =>
      !usable(v, TR) || (rights(v, TR) & 0x90) !== 0x80 || badReserved(v, TR) ||
      badGranularity(v, TR),
  ),
  guest("LDTR's type", (v) => usable(v, LDTR) && typeOf(v, LDTR) !== 2),
  guest(
    "LDTR is present and of the system",
    (v) =>
      usable(v, LDTR) &&
      ((rights(v, LDTR) & 0x90) !== 0x80 || badReserved(v, LDTR) || badGranularity(v, LDTR)),
  ),
];
