/**
 * What every instruction does, by the names the opcode maps use.
 *
 * Each emitter is written once against {@linkcode Instruction} and serves both tiers.
 *
 * @module
 */
import { LOCKABLE } from "../decode/opcode_map.ts";
import { ALU } from "./alu.ts";
import { APX } from "./apx.ts";
import { BITS } from "./bits.ts";
import { BMI } from "./bmi.ts";
import { BRANCHES } from "./branch.ts";
import { EXTENDED_STATE } from "./extended_state.ts";
import { lockedName, type Semantics } from "./instruction.ts";
import { IO } from "./io.ts";
import { MOVES } from "./move.ts";
import { PSEUDO } from "./pseudo.ts";
import { REMOTE } from "./remote.ts";
import { SHADOW_STACK } from "./shadow_stack.ts";
import { SHIFTS } from "./shift.ts";
import { AVX } from "./vector/avx.ts";
import { FMA } from "./vector/fma.ts";
import { MMX } from "./vector/mmx.ts";
import { SSE } from "./vector/sse.ts";
import { SSE4A } from "./vector/sse4a.ts";
import { STRINGS } from "./string.ts";
import { SYSTEM } from "./system.ts";
import { VIRTUALIZATION } from "./virtualization.ts";
import { VMX } from "./vmx.ts";
import { X87 } from "./x87.ts";
import { X87_CONTROL } from "./x87_control.ts";

const PLAIN: Readonly<Record<string, Semantics>> = {
  ...ALU,
  ...AVX,
  ...APX,
  ...BITS,
  ...BMI,
  ...BRANCHES,
  ...EXTENDED_STATE,
  ...FMA,
  ...IO,
  ...MOVES,
  ...PSEUDO,
  ...REMOTE,
  ...SHADOW_STACK,
  ...SHIFTS,
  ...MMX,
  ...SSE,
  ...SSE4A,
  ...STRINGS,
  ...SYSTEM,
  ...VIRTUALIZATION,
  ...VMX,
  ...X87,
  ...X87_CONTROL,
};

/** Semantics by mnemonic; those of locked accesses to memory besides, by {@linkcode lockedName}. */
export const SEMANTICS: Readonly<Record<string, Semantics>> = {
  ...PLAIN,
  ...Object.fromEntries([...LOCKABLE].map((name) => [lockedName(name), PLAIN[name]!])),
};
