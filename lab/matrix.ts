/**
 * All combinations of several patches on one guest.
 *
 * @module
 */
import { ArgumentError } from "../core/mod.ts";
import type { Patch, PatchVariant } from "../patches/mod.ts";
import { type LabOptions, scenarioGuest, scenarioMachine } from "./report.ts";
import { type ExitRow, exitRows } from "./rows.ts";
import { type LabEnd, type LabRun, runOnce } from "./run.ts";

/** Most combinations that are run. */
const MOST = 256;

/** One combination. */
export interface MatrixRun {
  /** Names of the variants, in the order of the patches. */
  readonly variants: readonly string[];
  /** How it ended. */
  readonly end: LabEnd;
  /** Exits of all vCPUs. */
  readonly exits: number;
  /** Modelled cycles of the exits. */
  readonly cycles: number;
  /** Whether the guest printed what it printed with the first combination, and ended alike. */
  readonly sameOutput: boolean;
}

/** All combinations. */
export interface MatrixReport {
  /** `"trapline-lab-matrix"`. */
  readonly schema: "trapline-lab-matrix";
  /** Ids of the patches. */
  readonly patches: readonly string[];
  /** The guest, and its arguments. */
  readonly guest: { readonly name: string; readonly commandLine: string };
  /** `before` of all patches first, the last patch changing fastest. */
  readonly runs: readonly MatrixRun[];
  /** Exits by reason and target, a count for each run. */
  readonly rows: readonly ExitRow[];
}

/**
 * Runs `before` and `after` of every patch in all combinations, on the first patch's first scenario.
 *
 * @throws {ArgumentError} If there is no patch, or if there would be more than 256 combinations.
 */
export async function runMatrix(
  patches: readonly Patch[],
  options: LabOptions = {},
): Promise<MatrixReport> {
  const scenario = patches[0]?.scenarios[0];
  if (scenario === undefined) throw new ArgumentError("a matrix needs at least one patch");
  if (2 ** patches.length > MOST) {
    throw new ArgumentError(
      `${patches.length} patches have ${2 ** patches.length} combinations; at most ${MOST} are run`,
    );
  }
  const guest = scenarioGuest(scenario, options);
  const machine = scenarioMachine(scenario, options);
  const combinations = combine(patches.map(({ before, after }) => [before, after]));
  const runs: LabRun[] = [];
  for (const variants of combinations) {
    runs.push(await runOnce(machine, guest, variants.map(({ plugin }) => plugin())));
  }
  const [first] = runs as [LabRun];
  return {
    schema: "trapline-lab-matrix",
    patches: patches.map(({ id }) => id),
    guest: { name: guest.name, commandLine: guest.commandLine },
    runs: runs.map(({ end, exits, cycles, console }, k) => ({
      variants: combinations[k]!.map(({ name }) => name),
      end,
      exits,
      cycles,
      sameOutput: console === first.console && end.text === first.end.text,
    })),
    rows: exitRows(runs.map(({ reasons }) => reasons)),
  };
}

function combine(choices: readonly (readonly PatchVariant[])[]): PatchVariant[][] {
  return choices.reduce<PatchVariant[][]>(
    (all, variants) => all.flatMap((chosen) => variants.map((variant) => [...chosen, variant])),
    [[]],
  );
}
