/**
 * One guest under several vendors: what it sees must be the same, and how it exits is laid side by side.
 *
 * The vendors run on different processors, and CPUID would tell. So that nothing else differs, a guest
 * is shown one processor by all of them ({@linkcode oneProcessor}); that is declared in the report. What
 * is left is RDX after RESET and INIT, which holds the real processor's signature: a guest that keeps it
 * sees a difference.
 *
 * @module
 */
import {
  ArgumentError,
  cpuidHook,
  type CpuidResult,
  createVm,
  describeRunEnd,
  type Plugin,
  type RunEnd,
} from "../core/mod.ts";
import { cpu, type CpuModel, modelCpuid, withoutOthers } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { ioapic } from "../plugins/ioapic/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { pit } from "../plugins/pit/mod.ts";
import { exitProfile, profile } from "../plugins/profile/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { avic } from "../plugins/svm/avic/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { apicv } from "../plugins/vmx/apicv/mod.ts";
import { ipiv } from "../plugins/vmx/ipiv/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { finalState, type StateDifference, stateDifference } from "./final_state.ts";
import { type ExitRow, exitRows } from "./rows.ts";
import { LAB_MEMORY, type LabGuest } from "./run.ts";
import { grouped, table } from "./table.ts";

const AMD: CpuModel = "zen4";
const INTEL: CpuModel = "sapphire-rapids";

/** Vendors by name, alone and with what accelerates interrupts, and the processor each runs on. */
const VENDORS: Readonly<Record<string, readonly [() => Plugin[], CpuModel]>> = {
  "svm": [() => [svm()], AMD],
  "svm+avic": [() => [svm(), avic()], AMD],
  "vmx": [() => [vmx()], INTEL],
  "vmx+apicv": [() => [vmx(), apicv()], INTEL],
  "vmx+apicv+ipiv": [() => [vmx(), apicv(), ipiv()], INTEL],
  "metal": [() => [metal()], AMD],
};

/** Names of the vendors that can be compared. */
export const COMPARED_VENDORS: readonly string[] = Object.keys(VENDORS);

/** Those that are compared if none are named. */
const USUAL_VENDORS: readonly string[] = ["svm", "vmx", "metal"];

/** Version of {@linkcode VendorComparison} as JSON. */
export const COMPARISON_VERSION = 1;

/** The processor whose CPUID all guests are shown, under a name of no vendor's. */
const SHOWN: CpuModel = "zen4";
const VENDOR = "TraplineCPU!";
const SIGNATURE = 0x0008_06f8;
/** CPUID 1 ECX: VMX, and the presence of a hypervisor. */
const HIDDEN_ECX = (1 << 5) | (1 << 31);
/** CPUID 8000_0001h: SVM in ECX, fast FXSAVE in EDX. */
const HIDDEN_EXTENDED_ECX = 1 << 2;
const HIDDEN_EXTENDED_EDX = 1 << 25;

/** What is made the same, in words. */
const DECLARED = "CPUID";

function characters(at: number): number {
  let word = 0;
  for (let k = 3; k >= 0; k--) word = (word << 8) | VENDOR.charCodeAt(at + k);
  return word >>> 0;
}

/** Every leaf that a processor has, standard and extended. */
const LEAVES: readonly number[] = [0, 0x8000_0000].flatMap((first) =>
  Array.from({ length: 0x30 }, (_, k) => first + k)
);

/** A plugin that shows guests the same processor whatever it is. */
export function oneProcessor(): Plugin {
  const models = Object.values(VENDORS).map(([, model]) => model);
  const source = modelCpuid(SHOWN, withoutOthers(SHOWN, models));
  const named = (result: CpuidResult): CpuidResult => {
    result.ebx = characters(0);
    result.edx = characters(4);
    result.ecx = characters(8);
    return result;
  };
  return {
    name: "one-processor",
    version: "1.0.0",
    setup(ctx) {
      // What devices add, the local APIC's part for one, they add to the one processor's.
      for (const leaf of LEAVES) {
        ctx.on(cpuidHook, leaf, (result, vcpu) => {
          source.read(result, vcpu);
          return result;
        }, { stage: "pre" });
      }
      const last = { stage: "post" } as const;
      ctx.on(cpuidHook, 0, named, last);
      ctx.on(cpuidHook, 0x8000_0000, named, last);
      ctx.on(cpuidHook, 1, (result) => {
        result.eax = SIGNATURE;
        result.ecx = (result.ecx & ~HIDDEN_ECX) >>> 0;
        return result;
      }, last);
      ctx.on(cpuidHook, 0x8000_0001, (result) => {
        result.eax = SIGNATURE;
        result.ecx = (result.ecx & ~HIDDEN_EXTENDED_ECX) >>> 0;
        result.edx = (result.edx & ~HIDDEN_EXTENDED_EDX) >>> 0;
        return result;
      }, last);
      ctx.on(cpuidHook, 0x8000_000a, (result) => {
        result.eax =
          result.ebx =
          result.ecx =
          result.edx =
            0;
        return result;
      }, last);
    },
  };
}

/** What to compare. */
export interface CompareOptions {
  /** Two or more of {@linkcode COMPARED_VENDORS}; svm, vmx and metal if not given. The first is what others are held against. */
  readonly vendors?: readonly string[];
  /** Number of vCPUs; 1 if not given. */
  readonly cpus?: number;
  /** Number of host processors; as many as vCPUs if not given. */
  readonly processors?: number;
  /** Instructions after which a run is stopped; 1e9 if not given. */
  readonly limit?: number;
}

/** One vendor's run. */
export interface VendorRun {
  /** The vendor. */
  readonly vendor: string;
  /** How it ended. */
  readonly reason: RunEnd["reason"];
  /** The same in words. */
  readonly end: string;
  /** What the guest printed. */
  readonly console: string;
  /** Instructions retired. */
  readonly instructions: number;
  /** Exits taken. */
  readonly exits: number;
}

/** How what the guest saw under one vendor differs from the first. */
export interface VendorDifference {
  /** The vendor. */
  readonly vendor: string;
  /** Whether it printed the same. */
  readonly console: boolean;
  /** Whether it ended alike. */
  readonly end: boolean;
  /** Memory and registers. */
  readonly state: StateDifference;
}

/** A comparison. Everything in it is a function of guest and options. */
export interface VendorComparison {
  /** {@linkcode COMPARISON_VERSION}. */
  readonly version: number;
  /** The guest, and its arguments. */
  readonly guest: { readonly name: string; readonly commandLine: string };
  /** Number of vCPUs. */
  readonly cpus: number;
  /** What differs between the processors and was made the same. */
  readonly declared: string;
  /** The runs. */
  readonly runs: readonly VendorRun[];
  /** How the others differ from the first. */
  readonly differences: readonly VendorDifference[];
  /** Exits by reason and target, a count for each run. */
  readonly rows: readonly ExitRow[];
}

/**
 * Runs `guest` under each vendor.
 *
 * @throws {ArgumentError} If there are fewer than two vendors, or one that there is not.
 */
export async function compareVendors(
  guest: LabGuest,
  options: CompareOptions = {},
): Promise<VendorComparison> {
  const { vendors = USUAL_VENDORS, cpus = 1, processors = cpus, limit = 1e9 } = options;
  const unknown = vendors.find((name) => !Object.hasOwn(VENDORS, name));
  if (unknown !== undefined) {
    throw new ArgumentError(`no vendor ${unknown}; there are ${COMPARED_VENDORS.join(", ")}`);
  }
  if (new Set(vendors).size < 2 || new Set(vendors).size !== vendors.length) {
    throw new ArgumentError("name two or more vendors, each once");
  }
  const results = [];
  for (const name of vendors) {
    const [make, model] = VENDORS[name]!;
    const models = Object.values(VENDORS).map(([, other]) => other);
    let console = "";
    const decoder = new TextDecoder();
    const output = (bytes: Uint8Array): void => {
      console += decoder.decode(bytes, { stream: true });
    };
    using vm = await createVm({
      memory: LAB_MEMORY,
      cpus,
      // The bare processor is a vCPU's own.
      processors: name === "metal" ? cpus : processors,
      plugins: [
        cpu({ model, features: withoutOthers(model, models) }),
        ...make(),
        pic({ wiring: "apic" }),
        lapic(),
        ioapic(),
        pit(),
        debugExit(),
        serial({ output }),
        profile(),
        oneProcessor(),
      ],
      images: [loadImage(guest.image, { name: guest.name, commandLine: guest.commandLine })],
    });
    const result = await vm.run({ instructions: limit });
    results.push({
      run: {
        vendor: name,
        reason: result.reason,
        end: describeRunEnd(result),
        console,
        instructions: vm.instructions,
        exits: vm.exits,
      },
      profile: exitProfile(vm),
      state: await finalState(vm),
    });
  }
  const [first, ...others] = results;
  return {
    version: COMPARISON_VERSION,
    guest: { name: guest.name, commandLine: guest.commandLine },
    cpus,
    declared: DECLARED,
    runs: results.map(({ run }) => run),
    differences: others.map(({ run, state }) => ({
      vendor: run.vendor,
      console: run.console === first!.run.console,
      end: run.end === first!.run.end,
      state: stateDifference(first!.state, state),
    })),
    rows: exitRows(results.map(({ profile }) => profile.reasons)),
  };
}

/**
 * Whether a guest saw a difference that it must not see: other output, another end, or, with one vCPU,
 * other memory or registers. Several vCPUs take turns at other moments where there are other exits, so
 * what they leave in memory is theirs.
 */
export function differsForGuest({ cpus, differences }: VendorComparison): boolean {
  return differences.some(({ console, end, state }) =>
    !console || !end || (cpus === 1 && (state.pages > 0 || state.registers.length > 0))
  );
}

function differenceText({ console, end, state }: VendorDifference): string {
  const parts: string[] = [];
  if (!console) parts.push("it prints something else");
  if (!end) parts.push("it ends otherwise");
  if (state.pages > 0) {
    parts.push(`${state.pages} pages differ, the first at ${state.firstPage!.toString(16)}h`);
  }
  if (state.registers.length > 0) {
    parts.push(`registers differ: ${state.registers.map(({ name }) => name).join(", ")}`);
  }
  return parts.length === 0
    ? "the guest prints the same, and memory and registers are the same"
    : parts.join("; ");
}

/** A comparison as text. Lines end in a line feed. */
export function formatComparison(comparison: VendorComparison): string {
  const { guest, cpus, declared, runs, differences, rows } = comparison;
  const lines: string[][] = [["exit", "", "", ...runs.map(({ vendor }) => vendor)]];
  let last = "";
  for (const { reason, target, name, counts } of rows) {
    lines.push([reason === last ? "" : reason, target, name, ...counts.map(grouped)]);
    last = reason;
  }
  lines.push(["exits", "", "", ...runs.map(({ exits }) => grouped(exits))]);
  lines.push(["instructions", "", "", ...runs.map((run) => grouped(run.instructions))]);
  const many = cpus === 1 ? "" : `, ${cpus} vCPUs`;
  return [
    `${guest.name} ${guest.commandLine}`.trimEnd() + `${many}\n\n`,
    table(lines, 3),
    "\n",
    ...differences.map((one) => `${runs[0]!.vendor} and ${one.vendor}: ${differenceText(one)}\n`),
    `The same for all, though their processors differ: ${declared}.\n`,
    ...(differsForGuest(comparison) ? ["THE GUEST SEES A DIFFERENCE THAT IT MUST NOT SEE\n"] : []),
  ].join("");
}
