/**
 * Exits as KVM's tracepoint counts them, beside those of our own hypervisors.
 *
 * @module
 */

import { SvmExit, VmxExit } from "../../plugins/cpu/mod.ts";

/** What a guest did in KVM. */
export interface Run {
  /** With AVIC, or APICv. */
  readonly on: boolean;
  /** What the guest printed. */
  readonly console: readonly string[];
  /** With what it ended. */
  readonly status: number;
  /** Exits by hardware's number. */
  readonly exits: ReadonlyMap<number, number>;
}

/** What both count under names of their own: hardware's numbers, and ours by `ExitReason`. */
interface Row {
  readonly name: string;
  readonly svm: readonly number[];
  readonly vmx: readonly number[];
  readonly ours: readonly string[];
}

const ROWS: readonly Row[] = [
  { name: "port I/O", svm: [SvmExit.IOIO], vmx: [VmxExit.IO], ours: ["IO"] },
  { name: "CPUID", svm: [SvmExit.CPUID], vmx: [VmxExit.CPUID], ours: ["CPUID"] },
  {
    name: "RDMSR, WRMSR",
    svm: [SvmExit.MSR],
    vmx: [VmxExit.RDMSR, VmxExit.WRMSR],
    ours: ["RDMSR", "WRMSR"],
  },
  {
    name: "control registers",
    svm: Array.from({ length: 16 }, (_, n) => [SvmExit.CR_READ + n, SvmExit.CR_WRITE + n]).flat(),
    vmx: [VmxExit.CR_ACCESS],
    ours: ["CR_ACCESS"],
  },
  {
    name: "AVIC incomplete IPI",
    svm: [SvmExit.AVIC_INCOMPLETE_IPI],
    vmx: [],
    ours: ["AVIC_INCOMPLETE_IPI"],
  },
  {
    name: "AVIC not accelerated",
    svm: [SvmExit.AVIC_NOACCEL],
    vmx: [],
    ours: ["AVIC_NOACCEL"],
  },
  { name: "APIC write", svm: [], vmx: [VmxExit.APIC_WRITE], ours: ["APIC_WRITE"] },
  {
    name: "interrupt window",
    svm: [SvmExit.VINTR],
    vmx: [VmxExit.INTERRUPT_WINDOW],
    ours: ["INTERRUPT_WINDOW"],
  },
  { name: "HLT", svm: [SvmExit.HLT, SvmExit.IDLE_HLT], vmx: [VmxExit.HLT], ours: ["HLT"] },
  { name: "PAUSE", svm: [SvmExit.PAUSE], vmx: [VmxExit.PAUSE], ours: ["PAUSE"] },
  {
    name: "guest memory",
    svm: [SvmExit.NPF],
    vmx: [VmxExit.EPT_VIOLATION, VmxExit.EPT_MISCONFIGURATION],
    ours: ["NESTED_PAGE_FAULT", "MMIO"],
  },
  {
    name: "host's interrupt",
    svm: [SvmExit.INTR, SvmExit.NMI],
    vmx: [VmxExit.EXTERNAL_INTERRUPT, VmxExit.PREEMPTION_TIMER],
    ours: ["EXTERNAL_INTERRUPT"],
  },
];

/** Reads the runs out of what the shell has printed. */
export function readRuns(text: string, vendor: "svm" | "vmx"): readonly Run[] {
  const runs: Run[] = [];
  for (const [, on, said, status, counted] of text.replaceAll("\r", "").matchAll(RUN)) {
    const exits = new Map<number, number>();
    for (const [, reason, count] of counted!.matchAll(COUNT)) {
      // Bits 31:16 of an exit reason are flags (SDM vol. 3C, table 25-14).
      const key = vendor === "vmx" ? Number(reason) & 0xffff : Number(reason);
      exits.set(key, (exits.get(key) ?? 0) + Number(count));
    }
    const lines = said!.split("\n").filter((line) => line !== "" && !COUNTS.test(line));
    runs.push({ on: on === "1", console: lines, status: Number(status), exits });
  }
  return runs;
}

const RUN = /@run (\d)\n(.*?)@status (\d+)\n(.*?)@end/gs;
/** What `vmm` says of a vCPU at the end; that of one which KVM gave up looks otherwise. */
const COUNTS = /^vmm: vcpu \d+:( \w+=\d+)*$/;
const COUNT = /\{ exit_reason: +(\d+) \} hitcount: +(\d+)/g;

/** Exits by reason, of the profile that `--json` writes. */
export function ownExits(
  file: {
    readonly profile: { readonly reasons: readonly { reason: string; count: number }[] };
  },
): ReadonlyMap<string, number> {
  return new Map(file.profile.reasons.map(({ reason, count }) => [reason, count]));
}

/** A line for each reason that there was: KVM's count, and ours. */
export function exitTable(
  { exits }: Run,
  ours: ReadonlyMap<string, number>,
  vendor: "svm" | "vmx",
): readonly string[] {
  const sum = <K>(counts: ReadonlyMap<K, number>, keys: Iterable<K>): number =>
    Array.from(keys, (key) => counts.get(key) ?? 0).reduce((a, b) => a + b, 0);
  const rows = ROWS.map((row): [string, number, number] => [
    row.name,
    sum(exits, row[vendor]),
    sum(ours, row.ours),
  ]);
  const named = new Set(ROWS.flatMap((row) => row[vendor]));
  const ownNames = new Set(ROWS.flatMap((row) => row.ours));
  const others = (keys: Iterable<number>): number[] => [...keys].filter((key) => !named.has(key));
  rows.push(
    [
      "others",
      sum(exits, others(exits.keys())),
      sum(ours, [...ours.keys()].filter((key) => !ownNames.has(key))),
    ],
    ["all", sum(exits, exits.keys()), sum(ours, ours.keys())],
  );
  const line = (name: string, kvm: string, own: string): string =>
    `${name.padEnd(22)}${kvm.padStart(8)}${own.padStart(12)}`;
  return [
    line("exits", "KVM", `our ${vendor}`),
    ...rows.filter(([, a, b]) => a + b > 0).map(([name, a, b]) => line(name, `${a}`, `${b}`)),
  ];
}
