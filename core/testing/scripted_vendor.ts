/**
 * A vendor whose guest is a script, for tests of plugins without a processor.
 *
 * @module
 */

import {
  ExitAction,
  ExitReason,
  Gpr,
  handleExit,
  type MsrAccess,
  type PendingException,
  type Plugin,
  REGISTER_WORDS,
  resetSystemState,
  type Saved,
  type SystemState,
  type Vcpu,
  type Vendor,
  vendorSlot,
  type VmExit,
} from "../mod.ts";

/** An instruction that exits: fills in the exit. */
export type ExitStep = (exit: VmExit) => void;

/** What became of an instruction that exits: the vector it faulted with, `undefined` if it completed. */
export type StepOutcome = number | undefined;

/**
 * A guest: yields how many plain instructions to execute, or an instruction that exits. When it goes
 * on after the latter, the answer is in `vcpu.exit`. It may use `vcpu.regs` and the vendor's
 * {@linkcode ScriptedVendor.cpu}. A script that is over executes HLT with interrupts off.
 */
export type GuestScript = (vcpu: Vcpu) => Generator<number | ExitStep, void, StepOutcome>;

/** An event that the guest received. */
export interface Delivered {
  /** What it was. */
  readonly event: "exception" | "nmi" | "interrupt";
  /** Its vector. */
  readonly vector: number;
  /** Error code of an exception that has one. */
  readonly errorCode?: number;
  /** Payload of an exception that has one: the address of a page fault, or bits of DR6. */
  readonly payload?: bigint;
  /** How many instructions the vCPU had retired. */
  readonly at: number;
}

/** The state of a scripted vCPU. Tests may change it. */
export class ScriptedCpu {
  /** System registers. */
  system: SystemState = resetSystemState();
  /** XSAVE area; the vendor does not look into it. */
  xsave: Uint8Array = new Uint8Array(576);
  /** MSRs of the vendor's own. */
  readonly msrs: Map<number, bigint> = new Map([[0x10, 0n], [0xc000_0103, 0n]]);
  /** Whether the guest takes interrupts. */
  interruptFlag = false;
  /** Whether the guest is to exit when it can take an interrupt. */
  interruptWindow = false;
  /** Whether the guest is to exit when it can take an NMI. */
  nmiWindow = false;
  /** What the guest received, in order. */
  readonly delivered: Delivered[] = [];
  /** Called as the guest receives an event, before it goes on. */
  onEvent: ((event: Delivered) => void) | undefined;
  /** The event to deliver at the next entry. */
  injection: Omit<Delivered, "at"> | undefined;
  /** What the script said last and what is left of it. */
  step: number | ExitStep = 0;
  /** What to tell the script. */
  outcome: StepOutcome;
  /** Where the script is. */
  script: Iterator<number | ExitStep, void, StepOutcome> | undefined;
}

/** Options of {@linkcode ScriptedVendor}. */
export interface ScriptedVendorOptions {
  /** The guest that vCPUs run, by index; a single one for all. */
  readonly guest?: GuestScript | readonly GuestScript[];
  /** Hands exits to `handleExit` from inside the guest, as a bare processor does. */
  readonly inside?: boolean;
  /** For reports; `"scripted"` if not given. */
  readonly name?: string;
}

/** A vendor whose guest is a script. Every instruction that completes is one byte long. */
export class ScriptedVendor implements Vendor {
  /** For reports. */
  readonly name: string;
  readonly #guests: readonly GuestScript[];
  readonly #inside: boolean;
  readonly #cpus: Map<Vcpu, ScriptedCpu> = new Map();

  /** See {@linkcode ScriptedVendorOptions}. */
  constructor(options: ScriptedVendorOptions = {}) {
    const { guest = [] } = options;
    this.name = options.name ?? "scripted";
    this.#guests = typeof guest === "function" ? [guest] : guest;
    this.#inside = options.inside ?? false;
  }

  /** The state of a vCPU. */
  cpu(vcpu: Vcpu): ScriptedCpu {
    const cpu = this.#cpus.get(vcpu);
    if (cpu === undefined) throw new Error(`vendor "${this.name}" has no vCPU ${vcpu.id}`);
    return cpu;
  }

  /** Whether the vendor has a vCPU. */
  has(vcpu: Vcpu): boolean {
    return this.#cpus.has(vcpu);
  }

  /** See `Vendor.createVcpu`. */
  createVcpu(vcpu: Vcpu): Uint32Array {
    this.#cpus.set(vcpu, new ScriptedCpu());
    const storage = new Uint32Array(REGISTER_WORDS);
    storage[2 * Gpr.RIP] = 0xfff0;
    storage[2 * Gpr.RFLAGS] = 2;
    return storage;
  }

  /** See `Vendor.destroyVcpu`. */
  destroyVcpu(vcpu: Vcpu): void {
    this.#cpus.delete(vcpu);
  }

  /** See `Vendor.resetVcpu`; the script begins anew. */
  resetVcpu(vcpu: Vcpu): void {
    this.#cpus.set(vcpu, new ScriptedCpu());
    for (let i = 0; i <= Gpr.RFLAGS; i++) vcpu.regs.set(i, 0n);
    vcpu.regs.rip = 0xfff0n;
    vcpu.regs.rflags = 2n;
  }

  /** See `Vendor.enter`. */
  enter(vcpu: Vcpu, budget: number): void {
    const cpu = this.cpu(vcpu);
    const { exit } = vcpu;
    this.#deliver(vcpu, cpu);
    for (let left = budget; left > 0;) {
      if (cpu.step === 0) this.#next(vcpu, cpu);
      if (cpu.interruptWindow && cpu.interruptFlag) {
        cpu.interruptWindow = false;
        exit.reason = ExitReason.INTERRUPT_WINDOW;
      } else if (cpu.nmiWindow && !cpu.system.nmiMasked) {
        cpu.nmiWindow = false;
        exit.reason = ExitReason.NMI_WINDOW;
      } else if (typeof cpu.step === "number") {
        const done = Math.min(cpu.step, left);
        cpu.step -= done;
        left -= done;
        this.#retire(vcpu, done);
        continue;
      } else {
        cpu.step(exit);
      }
      if (!this.#inside) return;
      left = handleExit(vcpu);
    }
    exit.reason = ExitReason.BUDGET;
  }

  #next(vcpu: Vcpu, cpu: ScriptedCpu): void {
    const guest = this.#guests[Math.min(vcpu.index, this.#guests.length - 1)];
    cpu.script ??= guest?.(vcpu);
    const next = cpu.script?.next(cpu.outcome);
    cpu.outcome = undefined;
    if (next !== undefined && next.done !== true) {
      cpu.step = next.value;
      return;
    }
    cpu.interruptFlag = false;
    cpu.step = (exit) => {
      exit.reason = ExitReason.HLT;
    };
  }

  #retire(vcpu: Vcpu, count: number): void {
    const { regs } = vcpu;
    vcpu.instructions += count;
    const rip = regs.lo(Gpr.RIP) + count;
    regs.setPair(Gpr.RIP, rip, regs.hi(Gpr.RIP) + (rip > 0xffff_ffff ? 1 : 0));
  }

  #deliver(vcpu: Vcpu, cpu: ScriptedCpu): void {
    const { injection } = cpu;
    if (injection === undefined) return;
    cpu.injection = undefined;
    const delivered = { ...injection, at: vcpu.instructions };
    cpu.delivered.push(delivered);
    cpu.onEvent?.(delivered);
  }

  /** See `Vendor.complete`. */
  complete(vcpu: Vcpu): void {
    this.cpu(vcpu).step = 0;
    this.#retire(vcpu, 1);
  }

  /** See `Vendor.fault`. */
  fault(vcpu: Vcpu, vector: number, errorCode?: number): void {
    const cpu = this.cpu(vcpu);
    cpu.step = 0;
    cpu.outcome = vector;
    vcpu.events.queueException(vector, errorCode);
  }

  /** See `Vendor.emulate`: the script's instruction does nothing. */
  emulate(): ExitAction {
    return ExitAction.COMPLETE;
  }

  /** See `Vendor.interruptAllowed`. */
  interruptAllowed(vcpu: Vcpu): boolean {
    return this.cpu(vcpu).interruptFlag;
  }

  /** See `Vendor.nmiAllowed`. */
  nmiAllowed(vcpu: Vcpu): boolean {
    return !this.cpu(vcpu).system.nmiMasked;
  }

  /** See `Vendor.nmiMasked`. */
  nmiMasked(vcpu: Vcpu): boolean {
    return this.cpu(vcpu).system.nmiMasked;
  }

  /** See `Vendor.injectException`. */
  injectException(vcpu: Vcpu, exception: PendingException): void {
    const { vector, hasErrorCode, errorCode, hasPayload, payloadLo, payloadHi } = exception;
    const payload = BigInt(payloadHi >>> 0) << 32n | BigInt(payloadLo >>> 0);
    this.cpu(vcpu).injection = {
      event: "exception",
      vector,
      ...(hasErrorCode ? { errorCode } : {}),
      ...(hasPayload ? { payload } : {}),
    };
  }

  /** See `Vendor.injectInterrupt`. */
  injectInterrupt(vcpu: Vcpu, vector: number): void {
    this.cpu(vcpu).injection = { event: "interrupt", vector };
  }

  /** See `Vendor.injectNmi`. */
  injectNmi(vcpu: Vcpu): void {
    this.cpu(vcpu).injection = { event: "nmi", vector: 2 };
  }

  /** See `Vendor.requestInterruptWindow`. */
  requestInterruptWindow(vcpu: Vcpu): void {
    this.cpu(vcpu).interruptWindow = true;
  }

  /** See `Vendor.requestNmiWindow`. */
  requestNmiWindow(vcpu: Vcpu): void {
    this.cpu(vcpu).nmiWindow = true;
  }

  /** See `Vendor.cpl`: that of CS. */
  cpl(vcpu: Vcpu): number {
    return (this.cpu(vcpu).system.cs.attributes >> 5) & 3;
  }

  /** See `Vendor.is64Bit`: the L bit of CS. */
  is64Bit(vcpu: Vcpu): boolean {
    return (this.cpu(vcpu).system.cs.attributes & 0x200) !== 0;
  }

  /** See `Vendor.readMsr`. */
  readMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    const value = this.cpu(vcpu).msrs.get(access.index);
    if (value === undefined) return false;
    access.lo = Number(value & 0xffff_ffffn);
    access.hi = Number(value >> 32n);
    return true;
  }

  /** See `Vendor.writeMsr`. */
  writeMsr(vcpu: Vcpu, access: MsrAccess): boolean {
    const { msrs } = this.cpu(vcpu);
    if (!msrs.has(access.index)) return false;
    msrs.set(access.index, BigInt(access.hi >>> 0) << 32n | BigInt(access.lo >>> 0));
    return true;
  }

  /** See `Vendor.translate`: linear addresses are physical. */
  translate(_vcpu: Vcpu, gva: bigint): number | undefined {
    return gva < 2n ** 52n ? Number(gva) : undefined;
  }

  /** See `Vendor.getSystemState`. */
  getSystemState(vcpu: Vcpu): SystemState {
    return structuredClone(this.cpu(vcpu).system);
  }

  /** See `Vendor.setSystemState`. */
  setSystemState(vcpu: Vcpu, state: SystemState): void {
    this.cpu(vcpu).system = structuredClone(state);
  }

  /** See `Vendor.getXsave`. */
  getXsave(vcpu: Vcpu): Uint8Array {
    return this.cpu(vcpu).xsave.slice();
  }

  /** See `Vendor.setXsave`. */
  setXsave(vcpu: Vcpu, area: Uint8Array): void {
    this.cpu(vcpu).xsave = area.slice();
  }

  /** See `Vendor.saveVcpu`. */
  saveVcpu(vcpu: Vcpu): Saved {
    return { interruptFlag: this.cpu(vcpu).interruptFlag };
  }

  /** See `Vendor.loadVcpu`. */
  loadVcpu(vcpu: Vcpu, saved: Saved): void {
    this.cpu(vcpu).interruptFlag = (saved as { interruptFlag: boolean }).interruptFlag;
  }
}

/** A plugin that provides the vendor given. */
export function scriptedVendor(vendor: ScriptedVendor): Plugin {
  return {
    name: vendor.name,
    version: "1.0.0",
    provides: [vendorSlot],
    setup: (ctx) => ctx.provide(vendorSlot, vendor),
  };
}
