/**
 * The options of tasks.
 *
 * @module
 */

/** What a task takes. */
export interface Task {
  /** As in `deno task NAME`. */
  readonly name: string;
  /** What `--help` prints. */
  readonly usage: string;
  /** Options with a value. */
  readonly valued: readonly string[];
  /** Those of them whose values are whole numbers, and the least that each may be. */
  readonly numbers?: { readonly [option: string]: number };
  /** Options without a value, besides `--help`. */
  readonly flags?: readonly string[];
}

/**
 * The options given to a task, by name without dashes. With `--help` it prints the usage and ends the
 * program; where there is an option that it does not know, or a value missing or wrong, it says so in one
 * line and ends it with status 2.
 */
export function taskOptions(
  { name, usage, valued, numbers = {}, flags = [] }: Task,
  words: readonly string[] = Deno.args,
): ReadonlyMap<string, string> {
  const given = new Map<string, string>();
  const refuse = (why: string): never => {
    console.error(`${why}; deno task ${name} --help lists the options`);
    Deno.exit(2);
  };
  for (let k = 0; k < words.length; k++) {
    const word = words[k]!;
    const option = word.replace(/^--/, "");
    if (word === "--help") {
      console.log(usage);
      Deno.exit(0);
    } else if (word === option) refuse(`"${word}" is one word too many`);
    else if (flags.includes(option)) given.set(option, "");
    else if (!valued.includes(option)) refuse(`no such option: ${word}`);
    else given.set(option, words[++k] ?? refuse(`${word} needs a value`));
  }
  for (const [option, least] of Object.entries(numbers)) {
    const value = given.get(option);
    if (value === undefined) continue;
    if (!Number.isSafeInteger(Number(value || NaN)) || Number(value) < least) {
      refuse(`--${option} ${value}: not a whole number from ${least} on`);
    }
  }
  return given;
}
