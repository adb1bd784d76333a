/**
 * The boards that `--machine` takes: which devices there are around the processors.
 *
 * @module
 */

import type { Plugin } from "../core/mod.ts";
import { acpi } from "../plugins/acpi/mod.ts";
import { acpiPm } from "../plugins/acpipm/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { ferr } from "../plugins/ferr/mod.ts";
import { fwCfg } from "../plugins/fwcfg/mod.ts";
import { hpet } from "../plugins/hpet/mod.ts";
import { i8042 } from "../plugins/i8042/mod.ts";
import { ioapic } from "../plugins/ioapic/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { pci } from "../plugins/pci/mod.ts";
import { perfCounters } from "../plugins/perfctr/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { pit } from "../plugins/pit/mod.ts";
import { port92 } from "../plugins/port92/mod.ts";
import { rtc } from "../plugins/rtc/mod.ts";
import { serial, type SerialOptions } from "../plugins/serial/mod.ts";
import { testDevice } from "../plugins/testdev/mod.ts";
import { usageError } from "./errors.ts";

/** A board. */
export interface Board {
  /** What it is, in a line. */
  readonly description: string;
  /** Makes its parts; each has the name that `--part` takes. */
  readonly parts: (console: SerialOptions) => Plugin[];
}

/** What bare-metal guests and test suites need. */
function basic(console: SerialOptions): Plugin[] {
  return [
    pic({ wiring: "apic" }),
    lapic(),
    ioapic(),
    pit(),
    debugExit(),
    perfCounters(),
    fwCfg(),
    testDevice(),
    serial(console),
  ];
}

/** The boards, by the names that `--machine` takes. */
export const BOARDS: { readonly [name: string]: Board } = {
  basic: {
    description: "what bare-metal guests and test suites need; the default",
    parts: basic,
  },
  pc: {
    description: "a PC: basic, and what operating systems look for besides",
    parts: (console) => [
      ...basic(console),
      rtc(),
      hpet(),
      acpiPm(),
      port92(),
      ferr(),
      i8042(),
      pci(),
      acpi(),
    ],
  },
};

/** A part of a board that is to be left out, or another plugin in its place. */
export interface PartChoice {
  /** Name of the part. */
  readonly part: string;
  /** What takes its place; `undefined` for nothing. */
  readonly plugin: Plugin | undefined;
}

/**
 * The parts of a board.
 *
 * @throws {CliError} If there is no such board, or it has no part of a name that is chosen for.
 */
export function boardParts(
  machine: string,
  console: SerialOptions,
  choices: readonly PartChoice[],
): Plugin[] {
  const board = Object.hasOwn(BOARDS, machine) ? BOARDS[machine] : undefined;
  if (board === undefined) {
    const names = Object.keys(BOARDS).join(", ");
    throw usageError(`--machine ${machine}: there is no such machine; there are ${names}`);
  }
  const parts: (Plugin | undefined)[] = board.parts(console);
  for (const { part, plugin } of choices) {
    const index = parts.findIndex((candidate) => candidate?.name === part);
    if (index < 0) {
      const names = parts.map((each) => each?.name).filter((name) => name !== undefined);
      throw usageError(`--part ${part}: ${machine} has no such part; it has ${names.join(", ")}`);
    }
    parts[index] = plugin;
  }
  return parts.filter((each) => each !== undefined);
}

/** All boards with their parts, as `trapline machines` prints them. */
export function describeBoards(): string {
  return Object.entries(BOARDS).map(([name, { description, parts }]) => {
    const rows = parts({}).map((part) => `  ${part.name.padEnd(10)}  ${part.description ?? ""}\n`);
    return `${name}: ${description}\n${rows.join("")}`;
  }).join("\n");
}
