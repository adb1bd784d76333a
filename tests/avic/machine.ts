/**
 * Virtual machines with AVIC, or with APICv, for tests: several vCPUs that start in 64-bit mode at once, each with its
 * own code, stack and interrupt table, whose handlers count what is received.
 *
 * @module
 */
import {
  createVmSync,
  ExitReason,
  exitReasonName,
  Gpr,
  MpState,
  observeExitHook,
  type Plugin,
  type RunResult,
  type Vcpu,
  type Vm,
} from "../../core/mod.ts";
import { cpu, type CpuOptions } from "../../plugins/cpu/mod.ts";
import { flat } from "../../plugins/flat/mod.ts";
import { lapic, type LapicOptions } from "../../plugins/lapic/mod.ts";
import { svm, type SvmOptions } from "../../plugins/svm/mod.ts";
import { avic, type AvicOptions } from "../../plugins/svm/avic/mod.ts";
import { apicv } from "../../plugins/vmx/apicv/mod.ts";
import { ipiv, type IpivOptions } from "../../plugins/vmx/ipiv/mod.ts";
import { vmx } from "../../plugins/vmx/mod.ts";
import { code, dword, qword } from "../silicon/code.ts";

/** Guest physical addresses: from here on 256 KiB for each vCPU, identity-mapped. */
export const BASE = 0x10_0000;
export const STRIDE = 0x4_0000;
/** In a vCPU's part. */
export const Place = {
  CODE: 0,
  IDT: 0x1_0000,
  /** 256 handlers of 64 bytes. */
  HANDLERS: 0x1_1000,
  /** 256 counters of 8 bytes. */
  COUNTS: 0x1_8000,
  STACK: 0x2_0000,
  DATA: 0x2_0000,
} as const;

export const APIC = 0xfee0_0000;

/** `mov dword [APIC + offset], value` */
export const store = (offset: number, value: number): number[] =>
  code("bb", dword(APIC + offset), "c7 03", dword(value));
/** `mov eax, [APIC + offset]` */
export const load = (offset: number): number[] => code("bb", dword(APIC + offset), "8b 03");
/** WRMSR of `value`. */
export const wrmsr = (index: number, value: number, high = 0): number[] =>
  code("b9", dword(index), "b8", dword(value), "ba", dword(high), "0f 30");
/** RDMSR into EDX:EAX. */
export const rdmsr = (index: number): number[] => code("b9", dword(index), "0f 32");
/** Switches the local APIC to x2APIC mode: sets bits 11 and 10 of the base MSR. */
export const ENTER_X2APIC: number[] = code("b9", dword(0x1b), "0f 32 0d", dword(0xc00), "0f 30");
/** Ends the run: status in AL goes to port F4h. */
export const END: number[] = code("e6 f4");
export const STI = "fb";
export const CLI = "fa";
export const HLT = "f4";
/** Repeats `body` `count` times, counting in R15; `body` must be shorter than 2 GiB. */
export const repeat = (count: number, body: readonly number[]): number[] =>
  code("41 bf", dword(count), body, "41 ff cf", "0f 85", dword(-(body.length + 9)));

/** What a machine under VMX has. */
export interface VmxChoice {
  /** `false` for one without the plugin, and without the next. */
  readonly apicv?: boolean;
  /** `false` for one without the plugin. */
  readonly ipiv?: IpivOptions | false;
}

/** What a machine is made of. */
export interface MachineOptions {
  readonly cpu?: CpuOptions;
  readonly lapic?: LapicOptions;
  readonly svm?: SvmOptions;
  /** `false` for a machine without the plugin. */
  readonly avic?: AvicOptions | false;
  /** Given for a machine under VMX: neither `svm` nor `avic` counts then. */
  readonly vmx?: VmxChoice;
  readonly plugins?: readonly Plugin[];
  /** Ids of the vCPUs. */
  readonly ids?: readonly number[];
  /** Host processors. */
  readonly processors?: number;
  /** Whether handlers end interrupts by MSR; by MMIO otherwise. */
  readonly x2apic?: boolean;
}

function vendorPlugins(options: MachineOptions): Plugin[] {
  if (options.vmx === undefined) {
    const more = options.avic === false ? [] : [avic(options.avic)];
    return [cpu(options.cpu), svm(options.svm), ...more];
  }
  const { apicv: delivery = true, ipiv: ipis = {} } = options.vmx;
  const more = delivery ? [apicv(), ...(ipis === false ? [] : [ipiv(ipis)])] : [];
  return [cpu({ model: "sapphire-rapids", ...options.cpu }), vmx(), ...more];
}

/** A machine. */
export class Machine implements Disposable {
  readonly vm: Vm;
  /** Exits by vCPU and name, in order; accesses to x2APIC registers with MSR and direction. */
  readonly exits: string[] = [];
  readonly x2apic: boolean;
  /** Whether it is one under VMX. */
  readonly vmx: boolean;
  /** What was written to port 80h. */
  readonly told: number[] = [];
  /** Called at each write of port 80h. */
  onTold: ((value: number, vcpu: Vcpu) => void) | undefined;
  /** How many exits of each name. */
  readonly counts: Map<string, number> = new Map();
  /** Whether exits are kept one by one. */
  recording = true;

  constructor(options: MachineOptions = {}) {
    const { ids = [0], x2apic = false } = options;
    this.x2apic = x2apic;
    this.vmx = options.vmx !== undefined;
    this.vm = createVmSync({
      memory: 2 ** 22 + ids.length * STRIDE,
      cpus: ids,
      ...(options.processors === undefined ? {} : { processors: options.processors }),
      plugins: [
        ...vendorPlugins(options),
        lapic(options.lapic),
        this.#board(),
        ...(options.plugins ?? []),
      ],
      images: [flat(new Uint8Array([0xf4]), { entry: { mode: "long64" }, address: 0x8000 })],
    });
    for (const vcpu of this.vm.vcpus) this.#prepare(vcpu);
  }

  #board(): Plugin {
    return {
      name: "board",
      version: "1.0.0",
      setup: (ctx) => {
        ctx.registerPio({
          name: "tell",
          base: 0x80,
          length: 4,
          width: 4,
          write: (_offset, _size, value, vcpu) => {
            this.told.push(value);
            if (vcpu !== undefined) this.onTold?.(value, vcpu);
          },
        });
        ctx.registerPio({
          name: "end",
          base: 0xf4,
          length: 1,
          write: (_offset, _size, value) => ctx.vm.stop({ reason: "exit-code", code: value }),
        });
        ctx.on(observeExitHook, (vcpu, exit) => {
          const msr = exit.reason === ExitReason.RDMSR || exit.reason === ExitReason.WRMSR;
          const name = exitReasonName(exit.reason) + (msr ? ` ${exit.msr.toString(16)}` : "");
          this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
          if (this.recording) this.exits.push(`${vcpu.id} ${name}`);
        });
      },
    };
  }

  #base(vcpu: Vcpu): number {
    return BASE + vcpu.index * STRIDE;
  }

  /** 64-bit mode with the tables of the first vCPU, which the loader has made. */
  #prepare(vcpu: Vcpu): void {
    const { vm } = this;
    const vendor = vm.vendor.current;
    const base = this.#base(vcpu);
    const state = vendor.getSystemState(vm.vcpus[0]!);
    // Their own APIC base, with the bit of the boot processor.
    state.apicBase = vendor.getSystemState(vcpu).apicBase;
    state.idt = { base: BigInt(base + Place.IDT), limit: 0xfff };
    vendor.setSystemState(vcpu, state);
    vcpu.regs.set(Gpr.RSP, BigInt(base + Place.STACK));
    vcpu.regs.rip = BigInt(base);
    vcpu.regs.rflags = 2n;
    vcpu.mpState = MpState.UNINITIALIZED;
    const end = this.x2apic
      ? code("50 51 52", wrmsr(0x80b, 0), "5a 59 58")
      : code("53", store(0xb0, 0), "5b");
    for (let vector = 0; vector < 256; vector++) {
      const handler = base + Place.HANDLERS + 64 * vector;
      const low = BigInt(handler & 0xffff) | 8n << 16n | 0x8e00n << 32n |
        BigInt(handler >>> 16) << 48n;
      const gate = new Uint8Array([...qword(low), ...qword(0n)]);
      vm.memory.write(base + Place.IDT + 16 * vector, gate);
      // lock inc qword [counter]
      const count = code("f0 48 ff 04 25", dword(base + Place.COUNTS + 8 * vector));
      vm.memory.write(handler, new Uint8Array(code(count, end, "48 cf")));
    }
  }

  /** Puts code for a vCPU in place and lets it run. */
  program(index: number, ...parts: readonly (string | readonly number[])[]): void {
    const vcpu = this.vm.vcpus[index]!;
    this.vm.memory.write(this.#base(vcpu) + Place.CODE, new Uint8Array(code(...parts)));
    vcpu.mpState = MpState.RUNNABLE;
  }

  /**
   * Makes #GP of the vCPU at `index` skip an instruction of two bytes, as RDMSR and WRMSR are, behind
   * counting.
   */
  skipFaults(index: number): void {
    const base = this.#base(this.vm.vcpus[index]!);
    const count = code("f0 48 ff 04 25", dword(base + Place.COUNTS + 8 * 13));
    const handler = code(count, "48 83 c4 08 48 83 04 24 02 48 cf");
    this.vm.memory.write(base + Place.HANDLERS + 64 * 13, new Uint8Array(handler));
  }

  /** How often the vCPU at `index` has received `vector`. */
  received(index: number, vector: number): number {
    const at = this.#base(this.vm.vcpus[index]!) + Place.COUNTS + 8 * vector;
    return Number(this.vm.memory.readU64(at));
  }

  /** Address of memory for a vCPU's data. */
  data(index: number): number {
    return BASE + index * STRIDE + Place.DATA;
  }

  /** Runs until the guest ends it, or for a number of instructions. */
  run(instructions = 10_000_000): RunResult {
    return this.vm.runSync({ instructions });
  }

  /** The exits since the last call, but those for port writes. */
  take(): string[] {
    return this.exits.splice(0).filter((exit) => !exit.endsWith(" IO"));
  }

  [Symbol.dispose](): void {
    this.vm.close();
  }
}
