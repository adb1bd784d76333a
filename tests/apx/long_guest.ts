/**
 * Guests in 64-bit mode with APX switched on from the first instruction, made of machine code.
 *
 * @module
 */
import {
  createVmSync,
  Gpr,
  MpState,
  type Plugin,
  resetSystemState,
  roundRobin,
  type SystemState,
  type Vcpu,
  type Vm,
} from "../../core/mod.ts";
import {
  cpu,
  type CpuModel,
  Cr0,
  Cr4,
  Efer,
  type FeatureChoice,
  Xcr0,
} from "../../plugins/cpu/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";

/** Where things stand in the guest's memory. */
export const CODE = 0x1_0000;
export const DATA = 0x2_0000;
const TABLES = 0x1000;
const MIB = 2 ** 20;
const MEMORY = 4 * MIB;
/** Linear addresses that the page tables map to themselves. */
const MAPPED = 8;

/** Chooses the pattern in which vCPUs change places. */
const SEED = 19;

/** Processors with APX and what runs on them; on the bare one there is no hypervisor. */
export type HostName = "metal" | "svm" | "vmx";

const HOSTS: Readonly<Record<HostName, readonly [CpuModel, () => Plugin]>> = {
  metal: ["apx", metal],
  svm: ["apx", svm],
  vmx: ["diamond-rapids", vmx],
};

/** The hypervisors. */
export const HYPERVISORS: readonly HostName[] = ["svm", "vmx"];
/** All of {@linkcode HostName}. */
export const ALL_HOSTS: readonly HostName[] = ["metal", ...HYPERVISORS];

/** Options of {@linkcode longGuest}. */
export interface GuestOptions {
  /** `"svm"` if not given. */
  readonly host?: HostName;
  /** Features beyond those of the model. */
  readonly features?: FeatureChoice;
  readonly cpus?: number;
  readonly processors?: number;
  /** Ticks of a processor's turn; vCPUs change places after twice as many. */
  readonly timeslice?: number;
  readonly plugins?: readonly Plugin[];
  /** Whether XCR0 has APX; true if not given. */
  readonly apx?: boolean;
}

/** System registers of 64-bit mode with flat segments. */
function longMode(apx: boolean): SystemState {
  const reset = resetSystemState();
  const segment = (selector: number, attributes: number) => ({
    selector,
    base: 0n,
    limit: 0xffff_ffff,
    attributes,
  });
  const data = segment(0x10, 0xc93);
  return {
    ...reset,
    cs: segment(8, 0xa9b),
    ds: data,
    es: data,
    ss: data,
    fs: data,
    gs: data,
    tr: { ...segment(0x18, 0x8b), limit: 0x67 },
    cr0: 0x8000_0000n | BigInt(Cr0.PE | Cr0.NE | Cr0.ET | Cr0.WP),
    cr3: BigInt(TABLES),
    cr4: BigInt(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXSAVE),
    efer: BigInt(Efer.LME | Efer.LMA),
    xcr0: BigInt(Xcr0.X87 | Xcr0.SSE | (apx ? Xcr0.APX : 0)),
  };
}

/** A VM whose vCPUs are about to execute `code` at CPL 0 with RSI = 1_0000h × (index + 1). */
export function longGuest(code: readonly number[], options: GuestOptions = {}): Vm {
  const { cpus = 1, processors = cpus, timeslice, plugins = [], apx = true } = options;
  const [model, vendor] = HOSTS[options.host ?? "svm"];
  const { features = {} } = options;
  // Lengths vary, so that turns of processors and slices of vCPUs do not fall into step.
  const schedule = timeslice === undefined
    ? []
    : [roundRobin({ quantum: timeslice, timeslice: 2 * timeslice, seed: SEED })];
  const vm = createVmSync({
    memory: MEMORY,
    cpus,
    processors,
    plugins: [cpu({ model, features }), vendor(), ...schedule, ...plugins],
  });
  const { memory } = vm;
  memory.writeU64(TABLES, BigInt(TABLES + 0x1000) | 7n);
  memory.writeU64(TABLES + 0x1000, BigInt(TABLES + 0x2000) | 7n);
  for (let k = 0; k < MAPPED; k++) {
    memory.writeU64(TABLES + 0x2000 + 8 * k, BigInt(k * 2 * MIB) | 0x87n);
  }
  memory.write(CODE, Uint8Array.from(code));
  for (const vcpu of vm.vcpus) start(vm, vcpu, apx);
  return vm;
}

function start(vm: Vm, vcpu: Vcpu, apx: boolean): void {
  vm.vendor.current.setSystemState(vcpu, longMode(apx));
  const { regs } = vcpu;
  regs.set(Gpr.RIP, BigInt(CODE));
  regs.set(Gpr.RSP, BigInt(DATA + 0x8000 + 0x1000 * vcpu.index));
  regs.set(Gpr.RSI, BigInt(0x1_0000 * (vcpu.index + 1)));
  regs.set(Gpr.RDI, BigInt(DATA));
  vcpu.mpState = MpState.RUNNABLE;
}
