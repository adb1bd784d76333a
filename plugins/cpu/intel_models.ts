/**
 * Intel processors to choose from, and the parts of VMX that tell them apart.
 *
 * @module
 */
import { ArgumentError } from "../../core/mod.ts";
import { CR4_IMPLEMENTED } from "./microcode/control.ts";
import { Cr4 } from "./microcode/registers.ts";
import {
  VMX_FEATURES,
  vmxCapabilities,
  type VmxFeatureChoice,
  type VmxFeatureName,
} from "./vmx/capabilities.ts";

/** An Intel processor by its microarchitecture. */
export type IntelModel = "haswell" | "skylake-sp" | "sapphire-rapids";

const NAMES: readonly VmxFeatureName[] = Object.keys(VMX_FEATURES) as VmxFeatureName[];

const HASWELL: readonly VmxFeatureName[] = [
  "vnmi",
  "preemption_timer",
  "vapic",
  "ept",
  "ept_ad",
  "ept_1gb",
  "vpid",
  "unrestricted_guest",
  "ple",
  "shadow_vmcs",
  "eptp_switching",
  "flexpriority",
  "virtual_x2apic",
  "vapic_reg",
  "vid",
  "posted_intr",
];
const SKYLAKE: readonly VmxFeatureName[] = [...HASWELL, "pml", "mbec", "tsc_scaling"];
const SAPPHIRE_RAPIDS: readonly VmxFeatureName[] = [
  ...SKYLAKE,
  "ept_5level",
  "ipi_virt",
  "bus_lock_detection",
  "notify_vm_exiting",
];

/** Signatures are those of the server parts. */
const MODELS: Readonly<Record<IntelModel, readonly [number, readonly VmxFeatureName[]]>> = {
  "haswell": [0x0003_06f2, HASWELL],
  "skylake-sp": [0x0005_0654, SKYLAKE],
  "sapphire-rapids": [0x0008_06f8, SAPPHIRE_RAPIDS],
};

/** Names of the Intel models. */
export const INTEL_MODELS: readonly string[] = Object.keys(MODELS);

/** Whether a model is one of Intel's. */
export function isIntelModel(model: string): model is IntelModel {
  return model in MODELS;
}

/** Signature and capability MSRs of a model with features switched on or off. */
export function intelModel(
  model: IntelModel,
  choice: VmxFeatureChoice,
): { readonly signature: number; readonly vmxMsrs: readonly bigint[] } {
  const unknown = Object.keys(choice).find((name) => !(name in VMX_FEATURES));
  if (unknown !== undefined) {
    throw new ArgumentError(`cpu: no feature ${unknown}; there are ${NAMES.join(", ")}`);
  }
  const [signature, own] = MODELS[model];
  const on = new Set<VmxFeatureName>();
  for (const name of NAMES) {
    const wanted = choice[name];
    // A feature stands behind the one it extends in the table.
    const base = VMX_FEATURES[name].extends;
    const based = base === undefined || on.has(base);
    if (wanted === true && !based) {
      throw new ArgumentError(`cpu: ${name} cannot be without ${base}`);
    }
    if ((wanted ?? own.includes(name)) && based) on.add(name);
  }
  return { signature, vmxMsrs: vmxCapabilities(on, CR4_IMPLEMENTED | Cr4.VMXE) };
}
