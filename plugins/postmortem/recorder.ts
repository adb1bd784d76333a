/**
 * What a VM did last: a ring of its exits, and samples of where it was. Neither allocates once made.
 *
 * @module
 */

import { describeExit, exitReasonName, Gpr, type Vcpu, VmExit } from "../../core/mod.ts";

/** One of the last exits. */
export interface ExitRecord {
  /** Its number, counting the VM's exits from 1 on. */
  readonly number: number;
  /** The vCPU. */
  readonly vcpuId: number;
  /** Instructions that the VM had retired. */
  readonly instructions: number;
  /** RIP of the instruction that exited. */
  readonly rip: bigint;
  /** Name of the reason, as in `ExitReason`. */
  readonly reason: string;
  /** The fields that the reason makes valid, in words. */
  readonly detail: string;
}

/** A place at which a vCPU was seen. */
export interface HotSpot {
  /** RIP. */
  readonly rip: bigint;
  /** How many samples found it there. */
  readonly samples: number;
}

/** Samples kept. */
const SAMPLES = 256;

/** Remembers exits and samples of one VM. */
export class Recorder {
  readonly #exits: VmExit[];
  readonly #exitRips: Uint32Array;
  readonly #exitVcpus: Uint32Array;
  readonly #exitNumbers: Float64Array;
  readonly #exitInstructions: Float64Array;
  #exitCount = 0;
  readonly #sampleRips: Uint32Array = new Uint32Array(2 * SAMPLES);
  readonly #sampleVcpus: Uint32Array = new Uint32Array(SAMPLES);
  #sampleCount = 0;

  /** Keeps the last `capacity` exits. */
  constructor(capacity: number) {
    this.#exits = Array.from({ length: capacity }, () => new VmExit());
    this.#exitRips = new Uint32Array(2 * capacity);
    this.#exitVcpus = new Uint32Array(capacity);
    this.#exitNumbers = new Float64Array(capacity);
    this.#exitInstructions = new Float64Array(capacity);
  }

  /** Remembers an exit. */
  exit(vcpu: Vcpu, exit: VmExit): void {
    const { regs, vm } = vcpu;
    const at = this.#exitCount++ % this.#exits.length;
    copyExit(this.#exits[at] as VmExit, exit);
    this.#exitRips[2 * at] = regs.lo(Gpr.RIP);
    this.#exitRips[2 * at + 1] = regs.hi(Gpr.RIP);
    this.#exitVcpus[at] = vcpu.id;
    this.#exitNumbers[at] = vm.exits;
    this.#exitInstructions[at] = vm.instructions;
  }

  /** Remembers where a vCPU is. */
  sample(vcpu: Vcpu): void {
    const at = this.#sampleCount++ % SAMPLES;
    this.#sampleRips[2 * at] = vcpu.regs.lo(Gpr.RIP);
    this.#sampleRips[2 * at + 1] = vcpu.regs.hi(Gpr.RIP);
    this.#sampleVcpus[at] = vcpu.id;
  }

  /** The last exits, oldest first. */
  get exits(): ExitRecord[] {
    const capacity = this.#exits.length;
    const kept = Math.min(this.#exitCount, capacity);
    return Array.from({ length: kept }, (_, k) => {
      const at = (this.#exitCount - kept + k) % capacity;
      const exit = this.#exits[at] as VmExit;
      return {
        number: this.#exitNumbers[at] as number,
        vcpuId: this.#exitVcpus[at] as number,
        instructions: this.#exitInstructions[at] as number,
        rip: pair(this.#exitRips, at),
        reason: exitReasonName(exit.reason),
        detail: describeExit(exit),
      };
    });
  }

  /** Where a vCPU was seen in the last samples, most often first. */
  hotSpots(vcpuId: number): HotSpot[] {
    const counts = new Map<bigint, number>();
    for (let at = 0; at < Math.min(this.#sampleCount, SAMPLES); at++) {
      if (this.#sampleVcpus[at] !== vcpuId) continue;
      const rip = pair(this.#sampleRips, at);
      counts.set(rip, (counts.get(rip) ?? 0) + 1);
    }
    return [...counts].map(([rip, samples]) => ({ rip, samples }))
      .sort((a, b) => b.samples - a.samples || (a.rip < b.rip ? -1 : 1));
  }
}

function pair(words: Uint32Array, at: number): bigint {
  return BigInt(words[2 * at + 1] as number) << 32n | BigInt(words[2 * at] as number);
}

/** Copies what `describeExit` reads. */
function copyExit(to: VmExit, from: VmExit): void {
  to.reason = from.reason;
  to.write = from.write;
  to.size = from.size;
  to.port = from.port;
  to.string = from.string;
  to.rep = from.rep;
  to.gpa = from.gpa;
  to.walk = from.walk;
  to.msr = from.msr;
  to.lo = from.lo;
  to.hi = from.hi;
  to.leaf = from.leaf;
  to.subleaf = from.subleaf;
  to.vector = from.vector;
  to.errorCode = from.errorCode;
  to.hasErrorCode = from.hasErrorCode;
  to.register = from.register;
  to.gpr = from.gpr;
  to.vendorCodeLo = from.vendorCodeLo;
  to.vendorCodeHi = from.vendorCodeHi;
  to.info1Lo = from.info1Lo;
  to.info1Hi = from.info1Hi;
  to.info2Lo = from.info2Lo;
  to.info2Hi = from.info2Hi;
  to.byteCount = from.byteCount;
  for (let i = 0; i < from.byteCount; i++) to.bytes[i] = from.bytes[i] as number;
}
