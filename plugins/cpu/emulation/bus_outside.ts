/**
 * What an instruction meets outside that a hypervisor has a processor carry out for a guest: the VM's buses,
 * its CPUID and its MSRs.
 *
 * @module
 */
import type { MsrAccess, Vcpu, Vm } from "../../../core/mod.ts";
import type { Outside } from "../engine/outside.ts";
import type { Processor } from "../engine/processor.ts";

/** Answers a processor that stands in for a vCPU's. `complete` is implied: it goes on with the answer. */
export class BusOutside implements Outside {
  /** The vCPU whose instruction it is. */
  vcpu: Vcpu | undefined = undefined;
  readonly #vm: Vm;
  readonly #processor: Processor;

  /** For instructions of `vm` that `processor` carries out. */
  constructor(vm: Vm, processor: Processor) {
    this.#vm = vm;
    this.#processor = processor;
  }

  /** See `Outside.deviceRead`. */
  deviceRead(address: number, bytes: number): void {
    const { mmio } = this.#vm;
    const { exchange } = this.#processor;
    exchange[0] = mmio.read(address, bytes, this.vcpu);
    exchange[1] = bytes === 8 ? mmio.high : 0;
  }

  /** See `Outside.deviceWrite`. */
  deviceWrite(address: number, bytes: number): void {
    const { exchange } = this.#processor;
    const lo = exchange[0]! >>> 0;
    this.#vm.mmio.write(address, bytes, lo, exchange[1]! >>> 0, this.vcpu);
  }

  /** See `Outside.portRead`. */
  portRead(port: number, bytes: number): number {
    return this.#vm.pio.read(port, bytes, this.vcpu);
  }

  /** See `Outside.portWrite`. */
  portWrite(port: number, bytes: number, value: number): void {
    this.#vm.pio.write(port, bytes, value, this.vcpu);
  }

  /** See `Outside.cpuid`. */
  cpuid(leaf: number, subleaf: number): void {
    const { exchange } = this.#processor;
    const { eax, ebx, ecx, edx } = this.#vm.cpuid(leaf, subleaf, this.vcpu!);
    exchange[0] = eax;
    exchange[1] = ebx;
    exchange[2] = ecx;
    exchange[3] = edx;
  }

  #msr(access: MsrAccess): boolean {
    const { exchange } = this.#processor;
    if (!this.#vm.msrs.access(access, this.vcpu!)) return false;
    exchange[0] = access.lo;
    exchange[1] = access.hi;
    return true;
  }

  /** See `Outside.msrRead`. */
  msrRead(index: number): boolean {
    return this.#msr(this.#vm.msrs.guestAccess(index, false, 0, 0));
  }

  /** See `Outside.msrWrite`. */
  msrWrite(index: number): boolean {
    const { exchange } = this.#processor;
    const lo = exchange[0]! >>> 0;
    return this.#msr(this.#vm.msrs.guestAccess(index, true, lo, exchange[1]! >>> 0));
  }

  /** See `Outside.acknowledge`: interrupts are the hypervisor's business. */
  acknowledge(): number {
    return -1;
  }
}
