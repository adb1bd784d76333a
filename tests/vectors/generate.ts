/**
 * The program generator: a seed in, a short program out, always the same. It knows the processor
 * only by tables of forms (`forms/`): how each is encoded, which flags it reads, defines and leaves
 * undefined, and how to arrange that what it accesses is where it should be.
 *
 * @module
 */

import { Builder, type ProgramInstruction } from "./builder.ts";
import { STREAM_PROGRAM } from "./initial.ts";
import { CODE_SIZE, type Mode } from "./layout.ts";
import { ALU, defineStatus } from "./forms/alu.ts";
import { BITS } from "./forms/bits.ts";
import { EXTENDED } from "./forms/extended.ts";
import { type Fault, faults } from "./forms/fault.ts";
import { FLOW } from "./forms/flow.ts";
import { LEGACY } from "./forms/legacy.ts";
import { MOVE } from "./forms/move.ts";
import { MULTIPLY } from "./forms/multiply.ts";
import { NOP } from "./forms/nop.ts";
import { SHIFT } from "./forms/shift.ts";
import { STACK } from "./forms/stack.ts";
import { STRING } from "./forms/string.ts";
import { Prng } from "./prng.ts";
import { FEATURES, type Form, type Group } from "./rows.ts";

export type { ProgramInstruction } from "./builder.ts";

/** Seeds below this use base features only. */
export const BASE_SEEDS = 10_000;
/** The seeds that follow also use the extended group. */
export const EXTENDED_SEEDS = 2_000;

/** A generated program. */
export interface Program {
  /** The seed. */
  readonly seed: number;
  /** Processor mode. */
  readonly mode: Mode;
  /** Mask of `FEATURES` that the instructions need. */
  readonly features: number;
  /** Offset of the first byte in the code region. */
  readonly entry: number;
  /** The code; its last byte is the INT3 that ends the program, unless it was made to fault at the
   * end of the code pages. */
  readonly code: Uint8Array;
  /** The instructions in layout order, the final INT3 excepted. */
  readonly instructions: readonly ProgramInstruction[];
  /** Status flags that may be undefined at the final INT3. */
  readonly undefinedFlags: number;
  /** Status flags that may be undefined where a branch leaves the program; undefined if none does. */
  readonly outsideUndefined: number | undefined;
  /** The result depends on a choice of AMD's that Intel's manual makes otherwise. */
  readonly amd: boolean;
  /** What the program was made to fault with; undefined for a program that should end. */
  readonly fault: string | undefined;
}

/** Every form, of every family. */
export const FORMS: readonly Form[] = [
  ...ALU,
  ...MOVE,
  ...SHIFT,
  ...MULTIPLY,
  ...BITS,
  ...STACK,
  ...FLOW,
  ...STRING,
  ...LEGACY,
  ...NOP,
  ...EXTENDED,
];

/** How often each family is chosen, against the others, in 64-bit and in 32-bit mode. */
const WEIGHTS: Record<Group, readonly [in64: number, in32: number]> = {
  alu: [40, 38],
  move: [18, 14],
  shift: [18, 18],
  multiply: [8, 7],
  bits: [10, 8],
  condition: [12, 12],
  atomic: [6, 6],
  flags: [3, 3],
  stack: [7, 7],
  flow: [14, 16],
  string: [19, 18],
  legacy: [0, 6],
  nop: [3, 3],
  fault: [0, 0],
  extended: [0, 0],
};

interface Choice {
  readonly weight: number;
  readonly forms: readonly Form[];
}

function choices(mode: Mode, extended: boolean, simple: boolean): readonly Choice[] {
  const list: Choice[] = [];
  for (const group of Object.keys(WEIGHTS) as Group[]) {
    const forms = FORMS.filter((form) =>
      form.group === group && form.modes.includes(mode) && (form.simple || !simple)
    );
    const weight = group === "extended"
      ? (extended ? 100 : 0)
      : WEIGHTS[group][mode === 64 ? 0 : 1];
    if (weight > 0 && forms.length > 0) list.push({ weight, forms });
  }
  return list;
}

const tables = new Map<string, readonly Choice[]>();

function tableFor(mode: Mode, extended: boolean, simple: boolean): readonly Choice[] {
  const key = `${mode} ${extended} ${simple}`;
  let table = tables.get(key);
  if (table === undefined) {
    table = choices(mode, extended, simple);
    tables.set(key, table);
  }
  return table;
}

function pickForm(rng: Prng, table: readonly Choice[]): Form {
  let roll = rng.below(table.reduce((sum, choice) => sum + choice.weight, 0));
  for (const { weight, forms } of table) {
    if (roll < weight) return rng.pick(forms);
    roll -= weight;
  }
  throw new Error("no form to choose from");
}

/** Appends one form, however many are refused first. */
function appendForm(b: Builder, table: readonly Choice[]): void {
  while (!pickForm(b.rng, table).emit(b));
}

const BASE_FAULTS: readonly Fault[] = faults(FORMS.filter(({ feature }) => feature === undefined));
const EXTENDED_FAULTS: readonly Fault[] = faults(FORMS);

/** The names of the ways in which a program may be made to fault. */
export const FAULT_NAMES: readonly string[] = BASE_FAULTS.map(({ name }) => name);

function pickFault(rng: Prng, mode: Mode, extended: boolean): Fault {
  const all = extended ? EXTENDED_FAULTS : BASE_FAULTS;
  const list = all.filter(({ modes }) => modes.includes(mode));
  let roll = rng.below(list.reduce((sum, { weight }) => sum + weight, 0));
  for (const fault of list) {
    if (roll < fault.weight) return fault;
    roll -= fault.weight;
  }
  throw new Error("no fault to choose from");
}

const featureOf = new Map<string, number>(
  FORMS.flatMap(({ feature, names }) =>
    feature === undefined ? [] : names.map((name): [string, number] => [
      name,
      1 << FEATURES.indexOf(feature),
    ])
  ),
);

/** The mode of a seed's program: 64-bit for three seeds in five. */
export function modeOf(seed: number): Mode {
  return seed % 5 < 3 ? 64 : 32;
}

function chooseEntry(rng: Prng, fault: Fault | undefined): number {
  if (fault?.atEnd === true) return CODE_SIZE - 0x400 + rng.below(0x80);
  const roll = rng.below(8);
  // Half of the programs cross from one code page to the other somewhere, or nearly.
  if (roll < 4) return rng.below(0x200);
  if (roll < 7) return 0x1000 - rng.below(120);
  return rng.below(0x1800);
}

/** Makes the program of a seed. */
export function generateProgram(seed: number): Program {
  const rng = new Prng(seed, STREAM_PROGRAM);
  const mode = modeOf(seed);
  const extended = seed >= BASE_SEEDS;
  const fault = rng.chance(1, 6) ? pickFault(rng, mode, extended) : undefined;
  const entry = chooseEntry(rng, fault);
  const table = tableFor(mode, extended, false);
  const simple = tableFor(mode, extended, true);
  const b = new Builder(seed, mode, entry, rng, (b) => appendForm(b, simple), defineStatus);
  const count = 1 + rng.below(24);
  const before = fault === undefined ? count : rng.below(Math.min(count, 16));
  while (b.instructions.length < before) appendForm(b, table);
  if (fault !== undefined) {
    while (!fault.emit(b));
    b.fault = fault.name;
    // What follows is for a processor that misses the fault.
    for (let i = b.endless ? 0 : rng.below(3); i > 0; i--) appendForm(b, table);
  }
  if (!b.endless) b.code.push(0xcc);
  if (entry + b.code.length > CODE_SIZE) throw new Error(`program ${seed} does not fit`);
  const features = b.instructions.reduce((mask, { form }) => mask | (featureOf.get(form) ?? 0), 0);
  return {
    seed,
    mode,
    features,
    entry,
    code: Uint8Array.from(b.code),
    instructions: b.instructions,
    undefinedFlags: b.undefinedFlags,
    outsideUndefined: b.outsideUndefined,
    amd: b.amd,
    fault: b.fault,
  };
}
