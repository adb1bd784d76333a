/**
 * The header of the processor's microcode: every WebAssembly function that instructions call.
 *
 * Declared group by group in `header/`; the bodies are in the files named beside each. The
 * interpreter's module defines them; a module compiled later imports those it calls by the same names.
 *
 * @module
 */
import type { AnyToken, FunctionRef, ModuleBuilder } from "../wasm/mod.ts";
import { type BlockRoutines, BLOCKS } from "./header/blocks.ts";
import { CET, type CetRoutines } from "./header/cet.ts";
import { type EventRoutines, EVENTS } from "./header/events.ts";
import { MEMORY, type MemoryRoutines } from "./header/memory.ts";
import { OUTSIDE, type Outside } from "./header/outside.ts";
import { type SegmentRoutines, SEGMENTS } from "./header/segments.ts";
import type { Signatures } from "./header/signature.ts";
import { SMM, type SmmRoutines } from "./header/smm.ts";
import { SVM, type SvmRoutines } from "./header/svm.ts";
import { SYSTEM, type SystemRoutines } from "./header/system.ts";
import { VMX, type VmxRoutines } from "./header/vmx.ts";

/** Why the stack was unwound (`S.unwind`). */
export const Unwind = {
  /** An exception is to be delivered: `S.exception*`. */
  EXCEPTION: 1,
  /** The instruction is to run again, alone in its block. */
  RESTART: 2,
  /** A #VMEXIT has been taken in the middle of an instruction. */
  VMEXIT: 3,
  /** The program outside has dealt with the instruction and set RIP. */
  LEFT: 4,
} as const;

/** What {@linkcode Microcode.service} asks of the dispatcher. */
export const Service = {
  /** Nothing is in the way of the next instruction. */
  GO_ON: 0,
  /** The loop returns, with `S.stop`. */
  STOP: 1,
  /** An event was delivered or has left the guest: others may follow before the next instruction. */
  AGAIN: 2,
} as const;
/** What the microcode itself consists of. */
export interface Routines
  extends
    EventRoutines,
    SystemRoutines,
    SmmRoutines,
    SvmRoutines,
    VmxRoutines,
    SegmentRoutines,
    BlockRoutines,
    CetRoutines,
    MemoryRoutines {}

/** Everything an instruction can call. */
export interface Microcode extends Outside, Routines {
  /** The module under construction. */
  readonly module: ModuleBuilder;
}

const ROUTINES: Signatures<Routines> = {
  ...EVENTS,
  ...SYSTEM,
  ...SMM,
  ...SVM,
  ...VMX,
  ...SEGMENTS,
  ...BLOCKS,
  ...CET,
  ...MEMORY,
};

type Declare = (
  name: string,
  params: readonly AnyToken[],
  result: AnyToken | undefined,
) => FunctionRef;

function declareAll<T>(table: object, declare: Declare): T {
  const entries = Object.entries(table) as [string, readonly [AnyToken[], AnyToken | undefined]][];
  return Object.fromEntries(
    entries.map(([name, [params, result]]) => [name, declare(name, params, result)]),
  ) as T;
}

/** Declares the microcode in the module that defines it; the bodies are still to be given. */
export function declareMicrocode(module: ModuleBuilder): Microcode {
  const outside = declareAll<Outside>(
    OUTSIDE,
    (name, params, result) => module.import(name, params, result),
  );
  const routines = declareAll<Routines>(
    ROUTINES,
    (name, params, result) => module.declare(name, params, result, true),
  );
  return { module, ...outside, ...routines };
}
