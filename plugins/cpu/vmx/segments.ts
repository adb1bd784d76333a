/**
 * The segments of the guest-state area and their access rights (SDM vol. 3, 25.4.1, table 25-2).
 *
 * @module
 */
import { Seg } from "../state/cpu_state.ts";
import { Vmcs } from "./fields.ts";

/** Where a segment's parts are in a VMCS. */
export interface SegmentFields {
  /** Number of the segment register. */
  readonly segment: number;
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  readonly rights: number;
}

const fields = (segment: number, place: number): SegmentFields => ({
  segment,
  selector: Vmcs.GUEST_ES_SELECTOR + 2 * place,
  base: Vmcs.GUEST_ES_BASE + 2 * place,
  limit: Vmcs.GUEST_ES_LIMIT + 2 * place,
  rights: Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * place,
});

// The eight stand in one order in all four groups of fields.

export const ES: SegmentFields = fields(Seg.ES, 0);
export const CS: SegmentFields = fields(Seg.CS, 1);
export const SS: SegmentFields = fields(Seg.SS, 2);
export const DS: SegmentFields = fields(Seg.DS, 3);
export const FS: SegmentFields = fields(Seg.FS, 4);
export const GS: SegmentFields = fields(Seg.GS, 5);
export const LDTR: SegmentFields = fields(Seg.LDTR, 6);
export const TR: SegmentFields = fields(Seg.TR, 7);

/** Code and data segments. */
export const CODE_AND_DATA: readonly SegmentFields[] = [ES, CS, SS, DS, FS, GS];
/** All segments. */
export const SEGMENTS: readonly SegmentFields[] = [...CODE_AND_DATA, LDTR, TR];
