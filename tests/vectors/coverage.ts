/**
 * How often each form of instruction was retired in the recorded programs, and how often each kind
 * of fault was taken. Run as a program it prints the tables of `README.md`.
 *
 * @module
 */

import type { Memory } from "./encode.ts";
import { FAULT_NAMES, FORMS, generateProgram } from "./generate.ts";
import { loadVectors, type Mode, type Vector } from "./read.ts";
import type { Group } from "./rows.ts";

/** Counts over a set of vectors. */
export interface Coverage {
  /** By mode and form: the programs in which that form retired, once for each place it stands. */
  readonly retired: Readonly<Record<Mode, ReadonlyMap<string, number>>>;
  /** By mode and part of an address ({@linkcode addressingOf}): retired instructions that have it. */
  readonly addressing: Readonly<Record<Mode, ReadonlyMap<string, number>>>;
  /** By name of a planned fault: the programs that took it. */
  readonly faults: ReadonlyMap<string, number>;
}

/** The forms that a mode has, by family. */
export function formsOf(mode: Mode): ReadonlyMap<Group, ReadonlySet<string>> {
  const groups = new Map<Group, Set<string>>();
  for (const { group, modes, names } of FORMS) {
    if (!modes.includes(mode)) continue;
    const set = groups.get(group) ?? new Set();
    groups.set(group, set);
    for (const name of names) set.add(name);
  }
  return groups;
}

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** The parts of an addressing form that are counted: registers, scale, displacement, the odd kinds. */
export function addressingOf(memory: Memory): string[] {
  const bits = memory.addressSize;
  if (memory.kind === "relative") return [`${bits}: relative`];
  if (memory.kind === "word") {
    return [memory.absolute ? "16: disp16" : `16: rm ${memory.rm}, disp${8 * memory.dispBytes}`];
  }
  const { base, index, scale, dispBytes, sib } = memory;
  const parts: string[] = [];
  if (base !== undefined) parts.push(`${bits}: base ${base}`, `${bits}: disp${8 * dispBytes}`);
  if (index !== undefined) parts.push(`${bits}: index ${index}`, `${bits}: scale ${1 << scale}`);
  if (base === undefined) {
    parts.push(`${bits}: ${index === undefined ? "disp32" : "index, disp32"}`);
  }
  if (base !== undefined && base === index) parts.push(`${bits}: base is index`);
  if (sib && base !== undefined && index === undefined) parts.push(`${bits}: SIB without index`);
  return parts;
}

/** Counts what the programs of some vectors retired. */
export function coverageOf(vectors: Iterable<Vector>): Coverage {
  const retired = { 64: new Map<string, number>(), 32: new Map<string, number>() };
  const addressing = { 64: new Map<string, number>(), 32: new Map<string, number>() };
  const faults = new Map<string, number>();
  for (const vector of vectors) {
    const program = generateProgram(vector.seed);
    const offsets = new Set(vector.retired);
    for (const { offset, form, memory } of program.instructions) {
      if (!offsets.has(offset)) continue;
      add(retired[vector.mode], form);
      if (memory === undefined) continue;
      for (const part of addressingOf(memory)) add(addressing[vector.mode], part);
    }
    if (program.fault !== undefined && vector.exception !== undefined) add(faults, program.fault);
  }
  return { retired, addressing, faults };
}

function printTables({ retired, faults }: Coverage): void {
  console.log("| family | forms, 64-bit | retired | least | forms, 32-bit | retired | least |");
  console.log("|---|---|---|---|---|---|---|");
  const families = new Set([...formsOf(64).keys(), ...formsOf(32).keys()]);
  for (const family of families) {
    const cells = ([64, 32] as const).flatMap((mode): (number | string)[] => {
      const names = [...formsOf(mode).get(family) ?? []];
      const counts = names.map((name) => retired[mode].get(name) ?? 0);
      if (counts.length === 0) return ["–", "–", "–"];
      return [counts.length, counts.reduce((a, b) => a + b), Math.min(...counts)];
    });
    console.log(`| ${family} | ${cells.join(" | ")} |`);
  }
  console.log("\n| fault | programs |\n|---|---|");
  for (const name of FAULT_NAMES) console.log(`| ${name} | ${faults.get(name) ?? 0} |`);
}

if (import.meta.main) {
  const base = await loadVectors("base");
  const extended = await loadVectors("extended");
  printTables(coverageOf([...base.vectors, ...extended.vectors]));
}
