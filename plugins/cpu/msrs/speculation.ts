/**
 * MSRs that restrict speculation (SDM vol. 4; APM vol. 2, 3.2.9), of which there is none here: they take
 * what the features allow, and have nothing to do, but that a counter of mispredicted branches shows IBPB.
 *
 * @module
 */
import type { IsaFeatureName } from "../isa_features.ts";
import type { MsrRow } from "./row.ts";

/** Index of PRED_CMD. */
export const PRED_CMD = 0x49;
/** The barrier of indirect branch prediction: the only thing here that is predicted and can be wrong. */
export const IBPB = 0x1;

/** Bits of SPEC_CTRL, and the features of which any makes them exist. */
const SPEC_CTRL: readonly (readonly [number, readonly IsaFeatureName[]])[] = [
  // IBRS, STIBP, SSBD.
  [0x1, ["spec_ctrl", "amd_ibrs"]],
  [0x2, ["intel_stibp", "amd_stibp"]],
  [0x4, ["spec_ctrl_ssbd", "amd_ssbd"]],
];

/**
 * ARCH_CAPABILITIES: nothing is executed that is not to be, so every "not affected" bit is true. RDCL_NO
 * (0), IBRS_ALL (1), SKIP_L1DFL_VMENTRY (3), SSB_NO (4), MDS_NO (5), IF_PSCHANGE_MC_NO (6), TAA_NO (8),
 * SBDR_SSDP_NO (13), FBSDP_NO (14), PSDP_NO (15), BHI_NO (20), PBRSB_NO (24), GDS_NO (26), RFDS_NO (27),
 * ITS_NO (62).
 */
const ARCH_CAPABILITIES_LOW = 0x0d10_e17b;
const ARCH_CAPABILITIES_HIGH = 0x4000_0000;

/** Those of a processor with `isa`. */
export function speculationMsrs(isa: ReadonlySet<IsaFeatureName>): readonly MsrRow[] {
  let bits = 0;
  for (const [bit, features] of SPEC_CTRL) if (features.some((name) => isa.has(name))) bits |= bit;
  const rows: MsrRow[] = [];
  if (bits !== 0) rows.push({ name: "SPEC_CTRL", index: 0x48, writable: [bits, 0] });
  if (isa.has("spec_ctrl") || isa.has("amd_ibpb")) {
    rows.push({ name: "PRED_CMD", index: PRED_CMD, writable: [IBPB, 0], command: true });
  }
  if (isa.has("flush_l1d")) {
    rows.push({ name: "FLUSH_CMD", index: 0x10b, writable: [1, 0], command: true });
  }
  if (isa.has("arch_capabilities")) {
    const reset = [ARCH_CAPABILITIES_LOW, ARCH_CAPABILITIES_HIGH] as const;
    rows.push({ name: "ARCH_CAPABILITIES", index: 0x10a, reset, readOnly: true });
  }
  return rows;
}
