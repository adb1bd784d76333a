/**
 * Machines that run random programs one after the other, and what they leave.
 *
 * @module
 */
import { createVmSync, type Plugin, type SystemState, type Vcpu, type Vm } from "../../core/mod.ts";
import { cpu, type Tier } from "../../plugins/cpu/mod.ts";
import { flat } from "../../plugins/flat/mod.ts";
import { lapic } from "../../plugins/lapic/mod.ts";
import { metal } from "../../plugins/metal/mod.ts";
import { avic } from "../../plugins/svm/avic/mod.ts";
import { svm } from "../../plugins/svm/mod.ts";
import { apicv } from "../../plugins/vmx/apicv/mod.ts";
import { ipiv } from "../../plugins/vmx/ipiv/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";
import { Random } from "../silicon/programs.ts";
import { MEMORY } from "./machine.ts";
import type { Program } from "./program.ts";

/** What runs programs. */
export interface HostChoice {
  readonly name: string;
  /** What `--vendors` names. */
  readonly vendor: "metal" | "svm" | "vmx";
  /** Whose processor it is: programs that are not neutral do the same within a family. */
  readonly family: "amd" | "intel";
  readonly tier: Tier;
  /** Whether runs are cut into pieces. */
  readonly pieces: boolean;
  /** Whether there is a local APIC, and the hypervisor virtualizes it. */
  readonly apic?: boolean;
  /** Runs some programs only: it takes far longer than the others. */
  readonly slow?: boolean;
}

/** In each family the first is what the others are held against. */
export const HOSTS: readonly HostChoice[] = [
  { name: "metal-amd", vendor: "metal", family: "amd", tier: 1, pieces: false },
  { name: "svm", vendor: "svm", family: "amd", tier: 1, pieces: true },
  {
    name: "metal-amd-compiled",
    vendor: "metal",
    family: "amd",
    tier: 2,
    pieces: true,
    slow: true,
  },
  { name: "svm-compiled", vendor: "svm", family: "amd", tier: 2, pieces: false, slow: true },
  { name: "svm-avic", vendor: "svm", family: "amd", tier: 1, pieces: true, apic: true, slow: true },
  { name: "metal-intel", vendor: "metal", family: "intel", tier: 1, pieces: false },
  { name: "vmx", vendor: "vmx", family: "intel", tier: 1, pieces: true },
  {
    name: "metal-intel-compiled",
    vendor: "metal",
    family: "intel",
    tier: 2,
    pieces: true,
    slow: true,
  },
  { name: "vmx-compiled", vendor: "vmx", family: "intel", tier: 2, pieces: false, slow: true },
  {
    name: "vmx-apicv-ipiv",
    vendor: "vmx",
    family: "intel",
    tier: 1,
    pieces: true,
    apic: true,
    slow: true,
  },
];

const MODELS = { amd: "max", intel: "max-intel" } as const;
const VENDORS = { metal, svm, vmx } as const;

function pluginsOf({ vendor, family, tier, apic = false }: HostChoice): Plugin[] {
  const machine = [cpu({ model: MODELS[family], tier }), VENDORS[vendor]()];
  if (!apic) return machine;
  return [...machine, lapic(), ...(vendor === "svm" ? [avic()] : [apicv(), ipiv()])];
}

/** Instructions after which a program counts as endless. */
const LIMIT = 300_000;

/** What a program leaves. */
export interface Outcome {
  readonly reason: string;
  readonly instructions: number;
  /** General registers, RIP, RFLAGS. */
  readonly registers: readonly bigint[];
  readonly system: SystemState;
  readonly memory: Uint8Array;
}

/** A VM of one vCPU, used for program after program. */
export class Host implements Disposable {
  readonly choice: HostChoice;
  readonly vm: Vm;
  readonly #vcpu: Vcpu;

  constructor(choice: HostChoice) {
    this.choice = choice;
    this.vm = createVmSync({
      memory: MEMORY,
      plugins: pluginsOf(choice),
      images: [flat(Uint8Array.of(0xf4))],
    });
    this.#vcpu = this.vm.vcpus[0]!;
  }

  [Symbol.dispose](): void {
    this.vm.close();
  }

  /** Puts a program and its state into the machine. */
  load(program: Program): void {
    const { vm } = this;
    const vcpu = this.#vcpu;
    vm.reset();
    vm.memory.write(0, program.memory);
    vcpu.regs.rflags = 2n;
    vm.vendor.current.setSystemState(vcpu, program.system);
    for (const [n, value] of program.registers.entries()) vcpu.regs.set(n, value);
    vcpu.regs.rip = program.rip;
  }

  /** Runs a program to its end. */
  run(program: Program, seed: number): Outcome {
    this.load(program);
    const { vm } = this;
    const before = vm.instructions;
    const random = new Random(seed);
    let end: ReturnType<Vm["runSync"]>;
    do {
      const left = LIMIT - (vm.instructions - before);
      const instructions = this.choice.pieces ? Math.min(left, 1 + random.below(3000)) : left;
      end = vm.runSync({ instructions });
    } while (end.reason === "limit" && vm.instructions - before < LIMIT);
    return { ...this.state(program.memory.length), ...ended(end, vm.instructions - before) };
  }

  /** What the machine holds now. */
  state(bytes: number): Omit<Outcome, "reason" | "instructions"> {
    const { vm } = this;
    const memory = new Uint8Array(bytes);
    vm.memory.read(0, memory);
    const registers = Array.from({ length: 34 }, (_, n) => this.#vcpu.regs.get(n));
    return { registers, system: vm.vendor.current.getSystemState(this.#vcpu), memory };
  }
}

function ended(end: ReturnType<Vm["runSync"]>, instructions: number) {
  const reason = end.reason === "error" ? `error: ${end.error.message}` : end.reason;
  return { reason, instructions };
}
