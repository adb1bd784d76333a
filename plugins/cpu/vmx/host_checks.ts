/**
 * VM entry's checks on the host-state area (SDM vol. 3, 27.2.2–27.2.4): one that fails is VMfailValid(8).
 *
 * @module
 */
import { notCanonical } from "../memory/canonical.ts";
import { validCetControl } from "../microcode/cet_msr.ts";
import { validPat } from "../microcode/msr.ts";
import { Cr0, Cr4, Efer } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";
import { fixedBitsHold, VmxMsr } from "./capabilities.ts";
import { EntryControl, ExitControl } from "./controls.ts";
import { readField, readField32, Vmcs } from "./fields.ts";
import { illegalAddress } from "./region.ts";

/** EFER bits of an Intel processor. */
export const INTEL_EFER: number = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE;

/** 1 if `efer` is no value for EFER. */
export function illegalEfer(efer: I64): I32 {
  return efer.has(~BigInt(INTEL_EFER));
}

/** Host selectors; RPL and TI must be 0. */
const SELECTORS: readonly number[] = [
  Vmcs.HOST_ES_SELECTOR,
  Vmcs.HOST_CS_SELECTOR,
  Vmcs.HOST_SS_SELECTOR,
  Vmcs.HOST_DS_SELECTOR,
  Vmcs.HOST_FS_SELECTOR,
  Vmcs.HOST_GS_SELECTOR,
  Vmcs.HOST_TR_SELECTOR,
];

/** Host addresses that must be canonical. */
const ADDRESSES: readonly number[] = [
  Vmcs.HOST_SYSENTER_ESP,
  Vmcs.HOST_SYSENTER_EIP,
  Vmcs.HOST_FS_BASE,
  Vmcs.HOST_GS_BASE,
  Vmcs.HOST_TR_BASE,
  Vmcs.HOST_GDTR_BASE,
  Vmcs.HOST_IDTR_BASE,
];

/** 1 if a VM exit would leave or enter long mode, which the processor is in or not. */
export function illegalAddressSpace(f: FunctionBuilder): I32 {
  const wide = readField32(f, Vmcs.EXIT_CONTROLS).and(ExitControl.HOST_64BIT).ne(0);
  return S.efer.has(f, Efer.LMA).ne(wide);
}

/**
 * 1 if what a VMCS has of control-flow enforcement, the fields from `first` on, cannot be loaded: S_CET, SSP,
 * the interrupt SSP table. Without `wide` there are 32 bits of the first two.
 */
export function illegalCet(f: FunctionBuilder, first: number, wide: I32): I32 {
  const [control, ssp, table] = [first, first + 2, first + 4]
    .map((encoding) => readField(f, encoding)) as [I64, I64, I64];
  return validCetControl(f, control).eqz()
    .or(ssp.has(3))
    .or(notCanonical(f, ssp))
    .or(notCanonical(f, table))
    .or(wide.eqz().and(control.or(ssp).shrU(32).ne(0)));
}

/** 1 if the host-state area of the current VMCS is not consistent in itself. */
export function illegalHost(f: FunctionBuilder): I32 {
  const get = (encoding: number): I64 => readField(f, encoding);
  const exit = readField32(f, Vmcs.EXIT_CONTROLS);
  const wide = exit.and(ExitControl.HOST_64BIT).ne(0);
  const guest = readField32(f, Vmcs.ENTRY_CONTROLS).and(EntryControl.IA32E_GUEST).ne(0);
  const cr4 = get(Vmcs.HOST_CR4);
  const rip = get(Vmcs.HOST_RIP);
  const efer = get(Vmcs.HOST_EFER);
  const modes = wide.extendU().mul(Efer.LMA | Efer.LME);
  const checks: I32[] = [
    fixedBitsHold(f, get(Vmcs.HOST_CR0), VmxMsr.CR0_FIXED0).eqz(),
    fixedBitsHold(f, cr4, VmxMsr.CR4_FIXED0).eqz(),
    cr4.has(Cr4.CET).and(get(Vmcs.HOST_CR0).has(Cr0.WP).eqz()),
    exit.and(ExitControl.LOAD_CET).ne(0).and(illegalCet(f, Vmcs.HOST_S_CET, wide)),
    illegalAddress(f, get(Vmcs.HOST_CR3), 1),
    ...ADDRESSES.map((encoding) => notCanonical(f, get(encoding))),
    exit.and(ExitControl.LOAD_PAT).ne(0).and(validPat(get(Vmcs.HOST_PAT)).eqz()),
    exit.and(ExitControl.LOAD_EFER).ne(0).and(
      illegalEfer(efer).or(efer.and(Efer.LMA | Efer.LME).ne(modes)),
    ),
    ...SELECTORS.map((encoding) => get(encoding).has(7)),
    get(Vmcs.HOST_CS_SELECTOR).eqz(),
    get(Vmcs.HOST_TR_SELECTOR).eqz(),
    wide.eqz().and(get(Vmcs.HOST_SS_SELECTOR).eqz()),
    wide.eqz().and(guest.or(cr4.has(Cr4.PCIDE)).or(rip.shrU(32).ne(0))),
    wide.and(cr4.has(Cr4.PAE).eqz().or(notCanonical(f, rip))),
  ];
  return checks.reduce((any, check) => any.or(check));
}
