/**
 * What IA32_MISC_ENABLE takes out of CPUID (SDM vol. 4, table 2-2). Beyond CPUID its switches do nothing:
 * EFER.NXE can be set with XD Bit Disable.
 *
 * @module
 */
import { cpuidHook, type PluginContext, type VcpuState } from "../../../core/mod.ts";
import type { MsrBank } from "./bank.ts";
import { MISC_ENABLE, MiscEnable } from "./intel.ts";

/** Largest leaf that is reported with Limit CPUID Maxval. */
const LIMITED_LEAF = 2;
/** CPUID 1 ECX bit 3. */
const MONITOR = 0x8;
/** CPUID 8000_0001h EDX bit 20. */
const EXECUTE_DISABLE = 0x10_0000;

/** Registers what changes in the answers, behind what others make of them. */
export function registerMiscEnable(ctx: PluginContext, state: VcpuState<MsrBank>): void {
  const last = { stage: "post" } as const;
  let place = -1;
  const low = (bank: MsrBank): number => {
    if (place < 0) place = bank.placeOf(MISC_ENABLE);
    return bank.words[place]!;
  };
  ctx.on(cpuidHook, 0, (result, vcpu) => {
    const limited = (low(state.of(vcpu)) & MiscEnable.LIMIT_CPUID) !== 0;
    if (limited) result.eax = Math.min(result.eax, LIMITED_LEAF);
    return result;
  }, last);
  ctx.on(cpuidHook, 1, (result, vcpu) => {
    const off = (low(state.of(vcpu)) & MiscEnable.MONITOR) === 0;
    if (off) result.ecx = (result.ecx & ~MONITOR) >>> 0;
    return result;
  }, last);
  ctx.on(cpuidHook, 0x8000_0001, (result, vcpu) => {
    const off = (state.of(vcpu).high(MISC_ENABLE) & MiscEnable.XD_DISABLE_HIGH) !== 0;
    if (off) result.edx = (result.edx & ~EXECUTE_DISABLE) >>> 0;
    return result;
  }, last);
}
