/**
 * The lab: a guest with and without a patch, and the difference as a table.
 *
 * Every run is exact. VM time is counted in instructions, so a run is a function of the guest and the
 * machine it is given, and two reports of the same patch are the same to the last exit, on any machine.
 *
 * @example Run a patch against what was before it
 * ```ts ignore
 * import { formatReport, runPatch } from "@trapline/trapline/lab";
 * import { findPatch } from "@trapline/trapline/patches";
 *
 * const report = await runPatch(findPatch("svme-intercepts")!);
 * console.log(formatReport(report));
 * ```
 *
 * Limits: cycles are a model, made of the constants in {@linkcode HANDLER_CYCLES}. A patch that changes
 * how many exits there are also changes when a guest's timers fire, so counts of what depends on time
 * may differ besides what the patch is about.
 *
 * @module
 */
export {
  cyclesOf,
  exitCycles,
  HANDLER_CYCLES,
  type HandlerClass,
  handlerClass,
  WORLD_SWITCH_CYCLES,
} from "./cost.ts";
export type { DetailedState, FinalState, StateDifference, VcpuState } from "./final_state.ts";
export {
  formatMatrix,
  formatReport,
  type FormatReportOptions,
  formatSummary,
  patchState,
} from "./format.ts";
export { labHtml } from "./html.ts";
export { type MatrixReport, type MatrixRun, runMatrix } from "./matrix.ts";
export {
  breaksGuest,
  type GuestDifference,
  isRefused,
  LAB_REPORT_VERSION,
  type LabOptions,
  type LabReport,
  runPatch,
  scenarioGuest,
  scenarioMachine,
  type ScenarioReport,
  type VariantReport,
} from "./report.ts";
export { differs, type ExitRow, type RipRow } from "./rows.ts";
export {
  LAB_MEMORY,
  type LabEnd,
  type LabGuest,
  type LabMachine,
  type LabRun,
  runOnce,
} from "./run.ts";
export { formatVendorTable, runVendorTable } from "./vendor_table.ts";
export type { Timeline, TimelineLane } from "./timeline.ts";
export {
  COMPARED_VENDORS,
  type CompareOptions,
  compareVendors,
  COMPARISON_VERSION,
  differsForGuest,
  formatComparison,
  oneProcessor,
  type VendorComparison,
  type VendorDifference,
  type VendorRun,
} from "./vendors.ts";
