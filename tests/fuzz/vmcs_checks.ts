/**
 * The checks of VM entries, row by row from the manual (SDM vol. 3, ch. 27.2 and 27.3), on the fields of a
 * VMCS as numbers. Written apart from the processor's own, to be compared with it.
 *
 * @module
 */
import { CONTROL_CHECKS } from "./vmcs_control_checks.ts";
import { GUEST_CHECKS } from "./vmcs_guest_checks.ts";
import { HOST_CHECKS } from "./vmcs_host_checks.ts";
import type { EntryCheck, VmcsView } from "./vmcs_view.ts";

/** All of them, in the order in which the groups are looked at. */
export const ENTRY_CHECKS: readonly EntryCheck[] = [
  ...CONTROL_CHECKS,
  ...HOST_CHECKS,
  ...GUEST_CHECKS,
];

/** What an entry may come to, by the list. */
export interface Expectation {
  /** Texts as of `exitText`; none if the list lets it pass. */
  readonly refusals: readonly string[];
  /** The rows of the first group that fails. */
  readonly rows: readonly EntryCheck[];
}

/** What the list says of a VMCS. */
export function expected(v: VmcsView): Expectation {
  for (const group of ["control", "host", "guest"] as const) {
    const rows = ENTRY_CHECKS.filter((row) => row.group === group && row.fails(v));
    if (rows.length === 0) continue;
    if (group !== "guest") return { refusals: [`VMfail ${group === "control" ? 7 : 8}`], rows };
    // Which of several failures gives the qualification is the processor's affair.
    const texts = rows.map(({ qualification }) =>
      `entry failure, INVALID_GUEST_STATE${qualification ? ` ${qualification}` : ""}`
    );
    return { refusals: texts, rows };
  }
  return { refusals: [], rows: [] };
}
