/**
 * System registers of a processor as the core's plain object, and back.
 *
 * @module
 */
import type { ControlFlowState, Segment, SystemState } from "../../core/mod.ts";
import type { Processor } from "./engine/processor.ts";
import { MicrocodeFeature } from "./isa_features.ts";
import { PL_SSP } from "./microcode/cet.ts";
import { S, Seg } from "./state/cpu_state.ts";
import type { Field64 } from "./state/field.ts";
import type { SegmentState } from "./state/view.ts";

/** Segment registers by the names of {@linkcode SystemState}. */
const SEGMENTS = {
  cs: Seg.CS,
  ds: Seg.DS,
  es: Seg.ES,
  fs: Seg.FS,
  gs: Seg.GS,
  ss: Seg.SS,
  tr: Seg.TR,
  ldt: Seg.LDTR,
} as const;

/** 64-bit registers by the same. */
const REGISTERS = {
  cr0: S.cr0,
  cr2: S.cr2,
  cr3: S.cr3,
  cr4: S.cr4,
  xcr0: S.xcr0,
  efer: S.efer,
  apicBase: S.apicBase,
  dr6: S.dr6,
  dr7: S.dr7,
  star: S.star,
  lstar: S.lstar,
  cstar: S.cstar,
  sfmask: S.sfmask,
  kernelGsBase: S.kernelGsBase,
  sysenterCs: S.sysenterCs,
  sysenterEsp: S.sysenterEsp,
  sysenterEip: S.sysenterEip,
  pat: S.pat,
  tscAux: S.tscAux,
  tscOffset: S.tscAdjust,
} as const satisfies { readonly [name in keyof SystemState]?: Field64 };

const DPL_SHIFT = 5;
const DPL: number = 3 << DPL_SHIFT;

const SEGMENT_NAMES = Object.keys(SEGMENTS) as (keyof typeof SEGMENTS)[];
const REGISTER_NAMES = Object.keys(REGISTERS) as (keyof typeof REGISTERS)[];
const DEBUG_NAMES = ["dr0", "dr1", "dr2", "dr3"] as const;

function segmentOf({ selector, base, limit, attributes }: SegmentState): Segment {
  return { selector, base, limit, attributes };
}

/** Control-flow enforcement of `processor`, if it has it. */
function readControlFlow({ state }: Processor): ControlFlowState | undefined {
  const either = MicrocodeFeature.SHSTK | MicrocodeFeature.IBT;
  if ((state.get32(S.features) & either) === 0) return undefined;
  return {
    uCet: state.get(S.uCet),
    sCet: state.get(S.sCet),
    ssp: state.get(S.ssp),
    plSsp: PL_SSP.map((field) => state.get(field)),
    sspTable: state.get(S.sspTable),
    xss: state.get(S.xss),
  };
}

function writeControlFlow({ state }: Processor, from: ControlFlowState | undefined): void {
  state.set(S.uCet, from?.uCet ?? 0n);
  state.set(S.sCet, from?.sCet ?? 0n);
  state.set(S.ssp, from?.ssp ?? 0n);
  for (const [cpl, field] of PL_SSP.entries()) state.set(field, from?.plSsp[cpl] ?? 0n);
  state.set(S.sspTable, from?.sspTable ?? 0n);
  state.set(S.xss, from?.xss ?? 0n);
}

/** The system registers of `processor`, in a new object. */
export function readProcessorState(processor: Processor): SystemState {
  const { state } = processor;
  const segments = Object.fromEntries(
    SEGMENT_NAMES.map((name) => [name, segmentOf(state.segment(SEGMENTS[name]))]),
  ) as Pick<SystemState, keyof typeof SEGMENTS>;
  const registers = Object.fromEntries(
    REGISTER_NAMES.map((name) => [name, state.get(REGISTERS[name])]),
  ) as Pick<SystemState, keyof typeof REGISTERS>;
  const debug = Object.fromEntries(
    DEBUG_NAMES.map((name, k) => [name, state.at(S.dr + 8 * k)]),
  ) as Pick<SystemState, (typeof DEBUG_NAMES)[number]>;
  // SYSRET can leave SS with another DPL than the CPL, which is kept apart (APM vol. 3, SYSRET).
  segments.ss.attributes = segments.ss.attributes & ~DPL | state.get32(S.cpl) << DPL_SHIFT;
  const controlFlow = readControlFlow(processor);
  return {
    ...segments,
    ...registers,
    ...debug,
    ...(controlFlow === undefined ? {} : { controlFlow }),
    gdt: { base: state.get(S.gdtBase), limit: state.get32(S.gdtLimit) },
    idt: { base: state.get(S.idtBase), limit: state.get32(S.idtLimit) },
    cr8: Number(state.get(S.cr8)),
    interruptShadow: processor.interruptShadow,
    nmiMasked: state.get32(S.nmiBlocked) !== 0,
  };
}

/** CPL that a system state has: SS.DPL in protected mode, 0 in real and 3 in virtual-8086 mode. */
function privilegeOf(system: SystemState, rflags: bigint): number {
  if ((system.cr0 & 1n) === 0n) return 0;
  if ((rflags & 0x2_0000n) !== 0n) return 3;
  return (system.ss.attributes >> 5) & 3;
}

/**
 * Writes the system registers of `processor`, and what follows from them; its translations are dropped.
 * `rflags` are those of the guest: virtual-8086 mode has a CPL of its own.
 */
export function writeProcessorState(
  processor: Processor,
  system: SystemState,
  rflags: bigint,
): void {
  const { state } = processor;
  for (const name of SEGMENT_NAMES) state.setSegment(SEGMENTS[name], system[name]);
  for (const name of REGISTER_NAMES) state.set(REGISTERS[name], system[name]);
  for (const [k, name] of DEBUG_NAMES.entries()) state.setAt(S.dr + 8 * k, system[name]);
  state.set(S.gdtBase, system.gdt.base);
  state.set32(S.gdtLimit, system.gdt.limit);
  state.set(S.idtBase, system.idt.base);
  state.set32(S.idtLimit, system.idt.limit);
  state.set(S.cr8, BigInt(system.cr8));
  state.set32(S.nmiBlocked, Number(system.nmiMasked));
  writeControlFlow(processor, system.controlFlow);
  state.set32(S.cpl, privilegeOf(system, rflags));
  processor.interruptShadow = system.interruptShadow;
  processor.refresh();
}
