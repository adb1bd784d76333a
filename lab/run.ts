/**
 * One run of one guest with one variant of a patch.
 *
 * @module
 */
import {
  createVm,
  describeRunEnd,
  type Plugin,
  type RunEnd,
  TraplineError,
  type Vm,
} from "../core/mod.ts";
import { cpu, type CpuOptions } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { lapic, type LapicOptions } from "../plugins/lapic/mod.ts";
import { elfSymbols, ImageError, loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { exitProfile, profile, type ReasonCount } from "../plugins/profile/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { avic, type AvicOptions } from "../plugins/svm/avic/mod.ts";
import { svm, type SvmOptions } from "../plugins/svm/mod.ts";
import { type GuestSymbol, symbols } from "../plugins/symbols/mod.ts";
import { apicv } from "../plugins/vmx/apicv/mod.ts";
import { vmx, type VmxOptions } from "../plugins/vmx/mod.ts";
import { cyclesOf } from "./cost.ts";
import { type DetailedState, finalState } from "./final_state.ts";
import { type Timeline, TimelineRecorder } from "./timeline.ts";

/** RAM of a lab machine, in bytes. */
export const LAB_MEMORY: number = 16 * 2 ** 20;
/** Instructions after which a guest that does not end is stopped. */
const LIMIT = 1e9;
/** RIPs to name for each target. */
const RIPS = 16;

/** A guest program. */
export interface LabGuest {
  /** For listings. */
  readonly name: string;
  /** Any image that `loadImage` takes. */
  readonly image: Uint8Array;
  /** Its arguments. */
  readonly commandLine: string;
}

/** A machine of the lab: a PC with COM1, a debug-exit port and interrupt controllers. */
export interface LabMachine {
  /** Number of vCPUs, or their ids. */
  readonly cpus: number | readonly number[];
  /** Number of host processors; as many as vCPUs if not given. */
  readonly processors?: number;
  /** The host's processors. */
  readonly cpu?: CpuOptions;
  /** Whose hypervisor: AMD's if not given. */
  readonly vendor?: "svm" | "vmx";
  /** The hypervisor, if it is svm. */
  readonly svm?: SvmOptions;
  /** The hypervisor, if it is vmx. */
  readonly vmx?: VmxOptions;
  /** Whether there is APICv, if it is vmx; false if not given. */
  readonly apicv?: boolean;
  /** The local APICs. */
  readonly lapic?: LapicOptions;
  /** AVIC, where the processors have it; `false` to do without. */
  readonly avic?: AvicOptions | false;
  /** Makes further plugins, anew for each run. */
  readonly plugins?: () => readonly Plugin[];
}

/** How a run ended. */
export interface LabEnd {
  /** As in `RunEnd`; `refused` if there was no VM to run, because making it failed. */
  readonly reason: RunEnd["reason"] | "refused";
  /** The guest's code, `null` for other reasons than `exit-code`. */
  readonly code: number | null;
  /** In words. */
  readonly text: string;
}

/** What came of a run. All of it is a function of the machine and the guest. */
export interface LabRun {
  /** How it ended. */
  readonly end: LabEnd;
  /** What the guest printed. */
  readonly console: string;
  /** Instructions retired by all vCPUs. */
  readonly instructions: number;
  /** Exits of all vCPUs. */
  readonly exits: number;
  /** Modelled cycles of the exits; see `exitCycles`. */
  readonly cycles: number;
  /** The exits by reason, target and RIP. */
  readonly reasons: readonly ReasonCount[];
  /** When they came. */
  readonly timeline: Timeline;
  /** What the guest left behind. */
  readonly state: DetailedState;
}

/** The names in an image; none if it is no ELF file, or has none. */
function symbolsOf(image: Uint8Array, name: string): readonly GuestSymbol[] {
  try {
    return elfSymbols(image, name);
  } catch (error) {
    if (error instanceof ImageError) return [];
    throw error;
  }
}

/** Processors and a hypervisor, with what accelerates interrupts. */
function hypervisor(machine: LabMachine): Plugin[] {
  if (machine.vendor === "vmx") {
    const accelerated = machine.apicv === true ? [apicv()] : [];
    return [cpu({ model: "sapphire-rapids", ...machine.cpu }), vmx(machine.vmx), ...accelerated];
  }
  const accelerated = machine.avic === false ? [] : [avic(machine.avic)];
  return [cpu(machine.cpu), svm(machine.svm), ...accelerated];
}

async function makeVm(make: () => Promise<Vm>): Promise<Vm | TraplineError> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof TraplineError) return error;
    throw error;
  }
}

/** A VM that could not be made. */
function refused(error: TraplineError): LabRun {
  return {
    end: { reason: "refused", code: null, text: `no VM: ${error.message}` },
    console: "",
    instructions: 0,
    exits: 0,
    cycles: 0,
    reasons: [],
    timeline: { width: 1, steps: 0, lanes: [] },
    state: { memory: "", pages: new Map(), vcpus: [] },
  };
}

/**
 * Runs `guest` on a machine with `variant` among its plugins. A VM that cannot be made is an end like
 * any other.
 */
export async function runOnce(
  machine: LabMachine,
  guest: LabGuest,
  variant: readonly Plugin[],
): Promise<LabRun> {
  let console = "";
  const decoder = new TextDecoder();
  const timeline = new TimelineRecorder();
  const output = (bytes: Uint8Array): void => {
    console += decoder.decode(bytes, { stream: true });
  };
  const { name, image, commandLine } = guest;
  const made = await makeVm(() =>
    createVm({
      memory: LAB_MEMORY,
      cpus: machine.cpus,
      ...(machine.processors === undefined ? {} : { processors: machine.processors }),
      plugins: [
        ...hypervisor(machine),
        pic({ wiring: "apic" }),
        lapic(machine.lapic),
        debugExit(),
        serial({ output }),
        profile(),
        timeline.plugin(),
        symbols(symbolsOf(image, name)),
        ...machine.plugins?.() ?? [],
        ...variant,
      ],
      images: [loadImage(image, { name, commandLine })],
    })
  );
  if (made instanceof TraplineError) return refused(made);
  using vm = made;
  const result = await vm.run({ instructions: LIMIT });
  const counted = exitProfile(vm, { rips: RIPS });
  return {
    end: {
      reason: result.reason,
      code: result.reason === "exit-code" ? result.code : null,
      text: describeRunEnd(result),
    },
    console,
    instructions: vm.instructions,
    exits: vm.exits,
    cycles: cyclesOf(counted.reasons),
    reasons: counted.reasons,
    timeline: timeline.take(),
    state: await finalState(vm),
  };
}
