/**
 * The software processor: x86-64 in real, protected and long mode, with an SVM or a VMX unit, as hardware does
 * it. Vendors run guests on it; it knows none of them.
 *
 * The plugin {@linkcode cpu} gives a VM its host: processors ({@linkcode Processor}, through
 * {@linkcode processorsSlot}) and host physical memory. A vendor attaches to a processor what the
 * processor meets outside ({@linkcode Outside}), and runs it.
 *
 * `cpu({ model, features })` chooses the processor. AMD's, Zen 2 to Zen 5, differ in the optional parts of
 * SVM: AVIC and x2AVIC, virtual GIF, NMIs, VMLOAD and VMSAVE, the filter of PAUSE, idle HLT, last-branch
 * records, the bus-lock threshold. Intel's (`"haswell"`, `"skylake-sp"`, `"sapphire-rapids"`, `"diamond-rapids"`)
 * have VMX, and differ in its optional parts, from EPT to IPI virtualization; the capability MSRs say what there is. Each
 * part can be switched off, or on where the model does not have it.
 *
 * Inside, the meaning of each instruction is written once, as TypeScript that emits WebAssembly
 * (`semantics/`, on the assembler in `wasm/`); microcode (`microcode/`, `memory/`, `svm/`, `vmx/`) is written
 * the same way; `engine/` makes an interpreter of it and keeps decoded blocks.
 *
 * Parts of the instruction set are features, too ({@linkcode IsaFeatureName}): all models have the XSAVE
 * family, AVX, AVX2, FMA and F16C, the later ones protection keys and 57-bit addresses as well; Intel APX with
 * R16–R31, RDMSR and WRMSRNS with immediates are in the models `"apx"`, `"max"` and `"diamond-rapids"`.
 *
 * Limits: no AVX-512, no caches; models have MONITOR only where it is asked for, as KVM's guests. At most 64 GiB
 * of physical address space and 3.9 GiB in use. Processors take turns on one thread.
 *
 * @module
 */
export {
  cpu,
  type CpuOptions,
  createHost,
  type FormPair,
  type Host,
  type HostOptions,
  type Processors,
  processorsSlot,
} from "./plugin.ts";
export { numericErrorHook } from "./numeric_error.ts";
export { ProcessorBranchCounts } from "./branch_counts.ts";
export { ProcessorCet, type SwitchedCet } from "./cet_state.ts";
export { CetMsr } from "./microcode/cet_msr.ts";
export { Processor } from "./engine/processor.ts";
export type { RecentEvent } from "./engine/recent_events.ts";
export type { Outside } from "./engine/outside.ts";
export { Stop } from "./engine/run.ts";
export type { BlockStatistics } from "./engine/blocks.ts";
export { FileCodeCache } from "./file_code_cache.ts";
export { type CodeCache, MemoryCodeCache } from "./engine/code_cache.ts";
export type { CodeStatistics } from "./engine/region_code.ts";
export type { EngineStatistics } from "./engine/statistics.ts";
export type { RegionStatistics, Tier } from "./engine/regions.ts";
export { Attr, CpuState, S, Seg } from "./state/cpu_state.ts";
export type {
  AmdModel,
  CpuModel,
  FeatureChoice,
  SvmFeatureChoice,
  SvmFeatureName,
} from "./models.ts";
export { type CpuChoice, modelCpuid, parseCpuChoice, withoutOthers } from "./choice.ts";
export type { IntelModel } from "./intel_models.ts";
export { isCanonical, isIsaFeature, linearAddressBits } from "./isa_features.ts";
export type { CpuidOutput, IsaFeatureChoice, IsaFeatureName } from "./isa_features.ts";
export {
  EptVpid,
  FeatureControl,
  FIRST_VMX_MSR,
  type VmxFeatureChoice,
  type VmxFeatureName,
  VmxMsr,
} from "./vmx/capabilities.ts";
export {
  AccessRights,
  Activity,
  EntryControl,
  EptPointer,
  ExitControl,
  Interruptibility,
  PendingDebug,
  Pin,
  Primary,
  Secondary,
  Tertiary,
} from "./vmx/controls.ts";
export { SHADOW_VMCS, Vmcs, VMCS_BYTES, VMCS_REVISION } from "./vmx/fields.ts";
export { ExitInformation } from "./vmx/host_stub.ts";
export { ENTRY_FAILURE, EntryFailure, VmxError, VmxExit } from "./vmx/exit_reasons.ts";
export { SvmFeature, SvmFeature2 } from "./svm/features.ts";
export {
  extendedStateSlot,
  type ExtendedStateSwitch,
  type GuestExtendedState,
  type HostExtendedState,
  ProcessorExtendedState,
  xcr0Only,
} from "./extended_state_switch.ts";
export { resetXsave, setExtendedRegisters, withExtendedRegisters } from "./xsave_area.ts";
export { StateView } from "./state/view.ts";
export type { SmmState } from "./smm/saved.ts";
export { readProcessorState, writeProcessorState } from "./system_state.ts";
export type { SegmentState } from "./state/view.ts";
export type { Field32, Field64 } from "./state/field.ts";
export { EventFormat, Vector } from "./microcode/raise.ts";
export { Cr0, Cr4, Efer, Rflags, Xcr0 } from "./microcode/registers.ts";
export { Msr } from "./microcode/msr.ts";
export {
  type PageWalk,
  type PageWalkStep,
  type PagingState,
  type ReadPhysical,
  walkPages,
} from "./page_walk.ts";
export { disassemble, type Disassembled } from "./decode/disassemble.ts";
export { DeviceMoves, type MovingGuest } from "./emulation/device_moves.ts";
export { endInstruction, resetRegisters, writeAnswer } from "./emulation/answers.ts";
export { BusOutside } from "./emulation/bus_outside.ts";
export type { CodePlace } from "./emulation/code_bytes.ts";
export { ControlMove, moveToCr0, moveToCr4, storedCr0 } from "./emulation/control_moves.ts";
export type { ControlRegisters } from "./emulation/control_moves.ts";

export { SVM_EXIT_INVALID, SvmExit } from "./svm/exit_codes.ts";
export { InterceptWord, Misc1, Misc2, Misc3 } from "./svm/intercepts.ts";
export {
  Clean,
  Control,
  IntControl,
  NestedControl,
  Save,
  SaveSegment,
  VirtExt,
  VMCB_BYTES,
} from "./svm/vmcb.ts";
export { IoioInfo } from "./semantics/io.ts";
