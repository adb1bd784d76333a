/**
 * Which instructions may have their registers in locals.
 *
 * Those whose semantics name every register they read and write, and call no microcode that looks for one in
 * the state. All others are right as well in a region, and slower.
 *
 * @module
 */
import type { Form } from "../decode/form.ts";
import { ALU } from "../semantics/alu.ts";
import { BITS } from "../semantics/bits.ts";
import { BMI } from "../semantics/bmi.ts";
import { CONDITIONS } from "../semantics/move.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { SHIFTS } from "../semantics/shift.ts";
import { AVX } from "../semantics/vector/avx.ts";
import { FMA } from "../semantics/vector/fma.ts";
import { SSE } from "../semantics/vector/sse.ts";

const LOCKED = ".lock";

const conditional = (prefix: string, suffix = ""): string[] =>
  CONDITIONS.map(([name]) => prefix + name + suffix);

const NAMES: ReadonlySet<string> = new Set([
  ...Object.keys(ALU),
  ...Object.keys(BITS),
  ...Object.keys(BMI),
  ...Object.keys(SHIFTS),
  ...["MOV", "MOVZX", "MOVNTI", "MOVSX", "MOVSXD", "LEA", "XCHG", "CBW", "CWD"],
  ...["PUSH", "POP", "PUSHSEG", "MOVFROMSEG", "PUSHA", "POPA", "SAHF", "LAHF", "ENTER", "LEAVE"],
  ...["RDTSC", "RDTSCP", "RDPID", "PAUSE", "SERIALIZE", "STI", "SWAPGS"],
  ...["MOVS", "STOS", "LODS", "CMPS", "SCAS"],
  ...["IN", "OUT", "CPUID", "RDMSR", "WRMSR", "RDPMC"],
  ...["XLAT", "SALC", "NOP", "FENCE", "CMC", "CLC", "STC", "CLD", "STD"],
  ...conditional("CMOV"),
  ...conditional("SET"),
  ...conditional("J"),
  ...conditional("J", ".beyond"),
  ...["JMP", "JMPIND", "CALL", "CALLIND", "RET", "CALL.shadow", "CALLIND.shadow", "RET.shadow"],
  ...["JMPIND", "CALLIND", "CALLIND.shadow"].flatMap((
    name,
  ) => [`${name}.track`, `${name}.notrack`]),
  ...["ENDBR32", "ENDBR64"],
  ...["LOOP", "LOOPE", "LOOPNE", "JRCXZ"].flatMap((name) => [name, `${name}.beyond`]),
  ...[Pseudo.END, Pseudo.BOUNDARY, Pseudo.COUNT, Pseudo.COUNT_INDIRECT],
]);

/** Vector instructions, whose own registers stay in the state. */
const VECTORS: ReadonlySet<string> = new Set([
  ...Object.keys(SSE),
  ...Object.keys(AVX),
  ...Object.keys(FMA),
]);

/** Whether `form` is an instruction of SSE in its old encoding. */
export const isSse = ({ name }: Form): boolean => name in SSE;

/** Whether `form` is a vector instruction whose semantics work on registers that are locals. */
export const isVector = ({ name }: Form): boolean => VECTORS.has(name);

/** Whether the semantics of `form` work on registers that are locals. */
export function usesLocals({ name }: Form): boolean {
  return VECTORS.has(name) ||
    NAMES.has(name.endsWith(LOCKED) ? name.slice(0, -LOCKED.length) : name);
}

/** What {@linkcode weight} has for vector instructions, and for those that the interpreter's code carries out. */
const VECTOR_WEIGHT = 3;
const IN_LINE_WEIGHT = 5;

/** How many times as much WebAssembly `form` makes as an integer instruction, as they are on average. */
export function weight(form: Form): number {
  if (!usesLocals(form)) return IN_LINE_WEIGHT;
  return VECTORS.has(form.name) ? VECTOR_WEIGHT : 1;
}
