/**
 * Names of model-specific registers that guests use.
 *
 * @module
 */

/** Names as in SDM vol. 4, chapter 2, and APM vol. 2, appendix A, without the IA32_ in front. */
const NAMES: { readonly [index: number]: string } = {
  0x10: "TSC",
  0x1b: "APIC_BASE",
  0x3a: "FEATURE_CONTROL",
  0x3b: "TSC_ADJUST",
  0x48: "SPEC_CTRL",
  0x49: "PRED_CMD",
  0x79: "BIOS_UPDT_TRIG",
  0x8b: "BIOS_SIGN_ID",
  0xcd: "FSB_FREQ",
  0xce: "PLATFORM_INFO",
  0xe7: "MPERF",
  0xe8: "APERF",
  0xfe: "MTRRCAP",
  0x10a: "ARCH_CAPABILITIES",
  0x174: "SYSENTER_CS",
  0x175: "SYSENTER_ESP",
  0x176: "SYSENTER_EIP",
  0x179: "MCG_CAP",
  0x17a: "MCG_STATUS",
  0x17b: "MCG_CTL",
  0x186: "PERFEVTSEL0",
  0x19a: "CLOCK_MODULATION",
  0x1a0: "MISC_ENABLE",
  0x1d9: "DEBUGCTL",
  0x1db: "LASTBRANCHFROMIP",
  0x1dc: "LASTBRANCHTOIP",
  0x277: "PAT",
  0x2ff: "MTRR_DEF_TYPE",
  0x345: "PERF_CAPABILITIES",
  0x38d: "FIXED_CTR_CTRL",
  0x38f: "PERF_GLOBAL_CTRL",
  0x480: "VMX_BASIC",
  0x6a0: "U_CET",
  0x6a2: "S_CET",
  0x6a4: "PL0_SSP",
  0x6a5: "PL1_SSP",
  0x6a6: "PL2_SSP",
  0x6a7: "PL3_SSP",
  0x6a8: "INTERRUPT_SSP_TABLE_ADDR",
  0x6e0: "TSC_DEADLINE",
  0xda0: "XSS",
  0xc000_0080: "EFER",
  0xc000_0081: "STAR",
  0xc000_0082: "LSTAR",
  0xc000_0083: "CSTAR",
  0xc000_0084: "FMASK",
  0xc000_0100: "FS_BASE",
  0xc000_0101: "GS_BASE",
  0xc000_0102: "KERNEL_GS_BASE",
  0xc000_0103: "TSC_AUX",
  0xc000_0104: "TSC_RATIO",
  0xc001_0010: "SYSCFG",
  0xc001_0015: "HWCR",
  0xc001_0114: "VM_CR",
  0xc001_0115: "IGNNE",
  0xc001_0117: "VM_HSAVE_PA",
  0xc001_011b: "AVIC_DOORBELL",
};

/** x2APIC registers, by MSR less 800h (SDM vol. 3A, table 11-6). */
const X2APIC: { readonly [offset: number]: string } = {
  0x02: "ID",
  0x03: "VERSION",
  0x08: "TPR",
  0x0a: "PPR",
  0x0b: "EOI",
  0x0d: "LDR",
  0x0f: "SIVR",
  0x28: "ESR",
  0x2f: "LVT_CMCI",
  0x30: "ICR",
  0x32: "LVT_TIMER",
  0x33: "LVT_THERMAL",
  0x34: "LVT_PMI",
  0x35: "LVT_LINT0",
  0x36: "LVT_LINT1",
  0x37: "LVT_ERROR",
  0x38: "INIT_COUNT",
  0x39: "CUR_COUNT",
  0x3e: "DIV_CONF",
  0x3f: "SELF_IPI",
};

/** The name of an MSR, `undefined` where there is none in the tables here. */
export function msrName(index: number): string | undefined {
  if (index < 0x800 || index > 0x8ff) return NAMES[index];
  const offset = index - 0x800;
  const register = X2APIC[offset];
  if (register !== undefined) return `X2APIC_${register}`;
  // ISR, TMR and IRR are eight registers each.
  const bank = ["ISR", "TMR", "IRR"][(offset - 0x10) >> 3];
  return bank === undefined ? undefined : `X2APIC_${bank}${offset & 7}`;
}
