/**
 * Checks on the host-state area (SDM vol. 3, 27.2.2 to 27.2.4).
 *
 * @module
 */
import { Cr0, Cr4, Efer, ExitControl, Vmcs } from "../../plugins/cpu/mod.ts";
import {
  badFixed,
  badPat,
  canonical,
  EFER_BITS,
  type EntryCheck,
  host,
  type VmcsView,
} from "./vmcs_view.ts";

const wide = (v: VmcsView): boolean => v.exit(ExitControl.HOST_64BIT);

const HOST_SELECTORS: readonly number[] = [
  Vmcs.HOST_ES_SELECTOR,
  Vmcs.HOST_CS_SELECTOR,
  Vmcs.HOST_SS_SELECTOR,
  Vmcs.HOST_DS_SELECTOR,
  Vmcs.HOST_FS_SELECTOR,
  Vmcs.HOST_GS_SELECTOR,
  Vmcs.HOST_TR_SELECTOR,
];
const HOST_CANONICAL: readonly number[] = [
  Vmcs.HOST_FS_BASE,
  Vmcs.HOST_GS_BASE,
  Vmcs.HOST_TR_BASE,
  Vmcs.HOST_GDTR_BASE,
  Vmcs.HOST_IDTR_BASE,
  Vmcs.HOST_SYSENTER_ESP,
  Vmcs.HOST_SYSENTER_EIP,
];

/** Of a host in IA-32e mode: the others are for a 32-bit one. */
export const HOST_CHECKS: readonly EntryCheck[] = [
  host("CR0's fixed bits", (v) => badFixed(v, Vmcs.HOST_CR0, 6)),
  host("CR4's fixed bits", (v) => badFixed(v, Vmcs.HOST_CR4, 8)),
  host(
    "CR4.CET goes with CR0.WP",
    (v) => v.has(Vmcs.HOST_CR4, Cr4.CET) && !v.has(Vmcs.HOST_CR0, Cr0.WP),
  ),
  host("CR3", (v) => v.at(Vmcs.HOST_CR3) >> v.physicalBits !== 0n),
  host("canonical addresses", (v) => HOST_CANONICAL.some((field) => !canonical(v.at(field)))),
  // There are no performance counters here.
  host("PERF_GLOBAL_CTRL", (v) => v.exit(ExitControl.LOAD_PERF_GLOBAL_CTRL)),
  host("PAT", (v) => v.exit(ExitControl.LOAD_PAT) && badPat(v.at(Vmcs.HOST_PAT))),
  host("EFER", (v) => {
    if (!v.exit(ExitControl.LOAD_EFER)) return false;
    const efer = v.at(Vmcs.HOST_EFER);
    const long = (bit: number): boolean => (efer & BigInt(bit)) !== 0n;
    return (efer & ~EFER_BITS) !== 0n || long(Efer.LMA) !== wide(v) || long(Efer.LME) !== wide(v);
  }),
  host("selectors have RPL and TI 0", (v) => HOST_SELECTORS.some((field) => v.has(field, 7))),
  host(
    "CS and TR are not 0",
    (v) => v.at(Vmcs.HOST_CS_SELECTOR) === 0n || v.at(Vmcs.HOST_TR_SELECTOR) === 0n,
  ),
  host("SS is not 0 in a 32-bit host", (v) => !wide(v) && v.at(Vmcs.HOST_SS_SELECTOR) === 0n),
  host("a host in IA-32e mode stays in it", (v) => !wide(v)),
  host("CR4.PAE in a 64-bit host", (v) => wide(v) && !v.has(Vmcs.HOST_CR4, Cr4.PAE)),
  host("RIP is canonical", (v) => wide(v) && !canonical(v.at(Vmcs.HOST_RIP))),
];
