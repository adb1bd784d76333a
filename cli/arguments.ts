/**
 * Command lines: options with values, options without, and what is left.
 *
 * @module
 */

import { usageError } from "./errors.ts";

/** An option that a command has. */
export interface OptionSpec {
  /** Its name, without the two hyphens. */
  readonly name: string;
  /** What its value is called in the help; an option without it takes no value. */
  readonly value?: string;
  /** Whether it may be given more than once. */
  readonly repeat?: boolean;
  /** What it does, for the help. */
  readonly help: string;
}

/** A command line taken apart. */
export class ParsedArguments {
  /** What is neither an option nor an option's value. */
  readonly operands: readonly string[];
  readonly #values: ReadonlyMap<string, readonly string[]>;

  /** Made by {@linkcode parseArguments}. */
  constructor(operands: readonly string[], values: ReadonlyMap<string, readonly string[]>) {
    this.operands = operands;
    this.#values = values;
  }

  /** Whether an option was given. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value of an option, `undefined` if it was not given. */
  value(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** The values of an option that may be given more than once. */
  values(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }
}

/**
 * Takes a command line apart. Values follow their option as the next word or after `=`; a word `--`
 * ends the options.
 *
 * @throws {CliError} If an option is not known, lacks a value, has one too many, or is there twice.
 */
export function parseArguments(
  args: readonly string[],
  specs: readonly OptionSpec[],
): ParsedArguments {
  const values = new Map<string, string[]>();
  const operands: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i] as string;
    if (word === "--") {
      operands.push(...args.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      operands.push(word);
      continue;
    }
    const [, flag = word, assigned] = /^(--[^=]*)(?:=([^]*))?$/.exec(word) ?? [];
    const spec = specs.find(({ name }) => `--${name}` === flag);
    if (spec === undefined) throw usageError(unknownOption(flag, specs));
    const given = values.get(spec.name) ?? [];
    if (given.length > 0 && !spec.repeat) throw usageError(`${flag} is there twice`);
    values.set(spec.name, given);
    if (spec.value === undefined) {
      if (assigned !== undefined) throw usageError(`${flag} takes no value`);
      given.push("");
      continue;
    }
    const value = assigned ?? args[++i];
    if (value === undefined) throw usageError(`${flag} needs a value: ${flag} ${spec.value}`);
    given.push(value);
  }
  return new ParsedArguments(operands, values);
}

function unknownOption(flag: string, specs: readonly OptionSpec[]): string {
  const near = specs.map(({ name }) => `--${name}`).find((name) =>
    distance(name, flag) <= 2 || (flag.length > 4 && name.startsWith(flag))
  );
  return `there is no option ${flag}${near === undefined ? "" : `; ${near} was meant?`}`;
}

/** How many letters to change, add or drop to make one word of another (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** Options as the help shows them. */
export function describeOptions(specs: readonly OptionSpec[]): string {
  const words = specs.map(({ name, value }) =>
    `--${name}${value === undefined ? "" : ` ${value}`}`
  );
  const width = Math.max(...words.map((word) => word.length));
  return specs.map(({ help }, k) => {
    const [first = "", ...more] = help.split("\n");
    const lines = [`  ${(words[k] as string).padEnd(width)}  ${first}`];
    return [...lines, ...more.map((line) => `${" ".repeat(width + 4)}${line}`)].join("\n");
  }).join("\n");
}
