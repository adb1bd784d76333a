/**
 * What is measured, and what the project set itself for it.
 *
 * @module
 */
import type { Workload } from "./peer.ts";

/** Programs that belong together. */
export interface Group {
  /** The heading in the table. */
  readonly name: string;
  /** The image. */
  readonly guest: string;
  /** The programs in it. */
  readonly programs: readonly string[];
  /** Whether user mode is enough for them. */
  readonly userMode: boolean;
  /** The widths there are. */
  readonly widths: readonly (32 | 64)[];
  /** How fast Trapline is to be at least, by peer and width. */
  readonly targets: readonly {
    readonly peer: string;
    readonly bits: 32 | 64;
    readonly ratio: number;
  }[];
}

const tcg = (ratio: number): Group["targets"] =>
  ([32, 64] as const).map((bits) => ({ peer: "QEMU TCG", bits, ratio }));

const BOTH = [64, 32] as const;

/** All groups, in the order of the table. */
export const GROUPS: readonly Group[] = [
  {
    name: "integer and branchy loops",
    guest: "kernels",
    programs: ["chase", "interpret", "calls", "matrix", "virtual", "crc"],
    userMode: true,
    widths: BOTH,
    targets: [
      { peer: "QEMU TCG", bits: 64, ratio: 1.2 },
      { peer: "v86", bits: 32, ratio: 2.5 },
    ],
  },
  {
    name: "longer loops",
    guest: "loops",
    programs: ["sieve", "sha256", "sort"],
    userMode: true,
    widths: [64],
    targets: [{ peer: "QEMU TCG", bits: 64, ratio: 1.2 }],
  },
  {
    name: "memory and REP strings",
    guest: "moves",
    programs: ["copy", "pages", "pieces", "search"],
    userMode: true,
    widths: BOTH,
    targets: tcg(1),
  },
  {
    name: "SSE2",
    guest: "floats",
    programs: ["bodies", "transform", "fractal", "blend"],
    userMode: true,
    widths: BOTH,
    targets: tcg(1),
  },
  {
    name: "x87",
    guest: "floats",
    programs: ["bodies87", "fractal87", "series87"],
    userMode: true,
    widths: BOTH,
    targets: tcg(0.5),
  },
  {
    name: "system calls, page faults, CR3",
    guest: "system",
    programs: ["fast", "gate", "fault", "spaces"],
    userMode: false,
    widths: BOTH,
    targets: tcg(0.7),
  },
  {
    name: "self-modifying code",
    guest: "system",
    programs: ["patch", "beside", "generate"],
    userMode: false,
    widths: BOTH,
    targets: tcg(1),
  },
  {
    name: "exits and interrupts",
    guest: "system",
    programs: ["out", "cpuid", "msr", "ipi", "timer"],
    userMode: false,
    widths: BOTH,
    targets: [],
  },
];

/** The workloads of a group. */
export function workloadsOf(group: Group): Workload[] {
  return group.programs.flatMap((program) =>
    group.widths.map((bits): Workload => ({
      group: group.name,
      guest: group.guest,
      program,
      bits,
      userMode: group.userMode,
    }))
  );
}
