/**
 * APX: promoted instructions with a new destination and without flags, conditional compares, faulting
 * and fault-suppressing conditional moves, pairs of pushes (Intel APX architecture specification, 3.1).
 *
 * Forms with a new destination, `.nd`, with upper bits cleared, `.zu`, and without flags, `.nf`, are the
 * legacy instruction's semantics with another way of writing the result.
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { i32, type I64, i64, I64T } from "../wasm/mod.ts";
import { ALU } from "./alu.ts";
import { BITS } from "./bits.ts";
import { BMI } from "./bmi.ts";
import { FlagsKind, type FlagState } from "./flags.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { CONDITIONS, MOVES } from "./move.ts";
import { SHIFTS } from "./shift.ts";

/** Instructions that have a form with a new destination. */
const WITH_ND = "ADD OR ADC SBB AND SUB XOR SHLD SHRD ADCX ADOX IMUL ROL ROR RCL RCR SHL SHR SAR " +
  "INC DEC NOT NEG";
/** Instructions that have a form without flags. */
const WITH_NF =
  "ADD OR AND SUB XOR SHLD SHRD IMUL ROL ROR SHL SHR SAR INC DEC NEG MUL DIV IDIV POPCNT TZCNT " +
  "LZCNT ANDN BLSR BLSMSK BLSI BZHI BEXTR";

const PROMOTED: Readonly<Record<string, Semantics>> = {
  ...ALU,
  ...BITS,
  ...BMI,
  ...MOVES,
  ...SHIFTS,
};

function promoted(name: string): Semantics {
  const semantics = PROMOTED[name];
  if (semantics === undefined) throw new Error(`no semantics for ${name}`);
  return semantics;
}

const newDestination = (semantics: Semantics): Semantics => ({
  ...semantics,
  emit: (i) => {
    i.setNewDestination();
    semantics.emit(i);
  },
});

const zeroUpper = (semantics: Semantics): Semantics => ({
  ...semantics,
  emit: (i) => {
    i.clearUpper();
    semantics.emit(i);
  },
});

const noFlags = (semantics: Semantics): Semantics => ({
  ...semantics,
  emit: (i) => {
    semantics.emit(i);
    i.keepFlags();
  },
});

/** CFCMOVcc: memory is read only if the condition holds; else the result is 0, or the other source. */
const conditionalLoad = (code: number): Semantics => ({
  emit: (i) => {
    const { f } = i;
    const other = i.hasNewDestination ? i.unsigned(0) : i64(0);
    if (!i.hasNewDestination) i.clearUpper();
    i.write(0, f.choose(I64T, i.condition(code), () => i.unsigned(1), () => other));
  },
});

/** CFCMOVcc to memory or a register: without the condition memory is left alone, a register cleared. */
const conditionalStore = (code: number): Semantics => ({
  emit: (i) => {
    const { f } = i;
    const value = i.unsigned(1);
    const holds = i.condition(code);
    if (i.isMemory(0)) f.if(holds, () => i.write(0, value));
    else {
      i.clearUpper();
      i.write(0, holds.select(value, i64(0)));
    }
  },
});

/** Source condition codes that are not among the sixteen: always and never, in the place of P and NP. */
const ALWAYS = 10;
const NEVER = 11;

/**
 * CCMPscc and CTESTscc: the flags of the comparison if the condition holds, else the default ones. The
 * operands are read in any case, so that a fault is not suppressed; only CFCMOV's description says that
 * faults are.
 */
const conditionalCompare = (compare: Semantics, condition: number): Semantics => ({
  emit: (i) => {
    compare.emit(i);
    if (condition === ALWAYS) return;
    const then = i.flags;
    const defaults: FlagState = {
      kind: i32(FlagsKind.VALUE),
      a: i.unsigned(i.form.operands.length - 1),
      b: i64(0),
    };
    if (condition === NEVER) i.flags = defaults;
    else i.flagsIf(i.condition(condition), then, defaults);
  },
});

/** #GP unless the stack pointer is a multiple of 16, so that a pair never crosses a page. */
function alignedStack(i: Instruction): I64 {
  const top = i.reg(Reg.RSP);
  i.faultIf(top.has(15), Vector.GP, 0);
  return top;
}

const push2: Semantics = {
  stack: true,
  emit: (i) => {
    const top = alignedStack(i);
    i.storeStack(64, top.sub(8), i.unsigned(0));
    i.storeStack(64, top.sub(16), i.unsigned(1));
    i.setReg(Reg.RSP, 64, top.sub(16));
  },
};

const pop2: Semantics = {
  stack: true,
  emit: (i) => {
    const top = alignedStack(i);
    const first = i.loadStack(64, top);
    const second = i.loadStack(64, top.add(8));
    i.setReg(Reg.RSP, 64, top.add(16));
    i.write(0, first);
    i.write(1, second);
  },
};

const named = (
  names: readonly string[],
  suffix: string,
  change: (semantics: Semantics) => Semantics,
): [string, Semantics][] => names.map((name) => [name + suffix, change(promoted(name))]);

const nd = WITH_ND.split(" ");
const nf = WITH_NF.split(" ");

/** APX's forms by the names that the opcode maps use. */
export const APX: Readonly<Record<string, Semantics>> = {
  ...Object.fromEntries([
    ...named(nd, ".nd", newDestination),
    ...named(nf, ".nf", noFlags),
    ...named(
      nd.filter((name) => nf.includes(name)),
      ".nd.nf",
      (semantics) => noFlags(newDestination(semantics)),
    ),
  ]),
  "IMUL.zu": zeroUpper(promoted("IMUL")),
  "IMUL.zu.nf": noFlags(zeroUpper(promoted("IMUL"))),
  ...Object.fromEntries(
    CONDITIONS.flatMap(([name, code]): [string, Semantics][] => [
      [`CFCMOV${name}`, conditionalLoad(code)],
      [`CFCMOV${name}.nd`, newDestination(conditionalLoad(code))],
      [`CFSTORE${name}`, conditionalStore(code)],
      [`CMOV${name}.nd`, newDestination(promoted(`CMOV${name}`))],
      [`SET${name}.zu`, zeroUpper(promoted(`SET${name}`))],
    ]),
  ),
  ...Object.fromEntries(
    Array.from({ length: 16 }, (_, condition): [string, Semantics][] => [
      [`CCMP.${condition}`, conditionalCompare(promoted("CMP"), condition)],
      [`CTEST.${condition}`, conditionalCompare(promoted("TEST"), condition)],
    ]).flat(),
  ),
  PUSH2: push2,
  POP2: pop2,
};
