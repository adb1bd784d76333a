/**
 * A VMCS and where it is: the hypervisor reaches its fields only by VMREAD and VMWRITE on the processor
 * it is current on (SDM vol. 3, 25.1). KVM's `loaded_vmcs` is the model.
 *
 * @module
 */
import type { HostMemory } from "../../core/mod.ts";
import { VMCS_BYTES } from "../cpu/mod.ts";
import type { HostCpu } from "./host.ts";
import type { VmcsFields } from "./vmx_guest.ts";

const TWO_32 = 0x1_0000_0000;
const LOW = 0xffff_ffffn;

/** One VMCS. 64-bit fields are read and written as halves where an exit needs them. */
export class LoadedVmcs implements VmcsFields {
  /** Host physical address of its region. */
  readonly hpa: number;
  /** VMLAUNCH has entered with it since VMCLEAR: VMRESUME is next. */
  launched = false;
  /** The processor that it is active on. */
  host: HostCpu | undefined = undefined;
  readonly #memory: HostMemory;
  readonly #home: () => HostCpu;

  /** A VMCS in memory of its own. Until it is entered, its fields are reached through `home`. */
  constructor(memory: HostMemory, home: () => HostCpu) {
    this.#memory = memory;
    this.#home = home;
    this.hpa = memory.alloc(VMCS_BYTES);
    memory.fill(this.hpa, VMCS_BYTES, 0);
    const host = home();
    memory.writeU32(this.hpa, host.revision);
    host.clear(this);
  }

  /** The processor it is current on, made so if need be. */
  #current(): HostCpu {
    const host = this.host ?? this.#home();
    host.makeCurrent(this);
    return host;
  }

  /** Low 32 bits of a field. */
  get32(field: number): number {
    return this.#current().processor.vmread(field) >>> 0;
  }

  /** Writes a field of at most 32 bits, or a wider one with zeros above. */
  set32(field: number, value: number): void {
    this.#current().processor.vmwrite(field, value, 0);
  }

  /** Writes a 64-bit or natural-width field by halves. */
  setHalves(field: number, lo: number, hi: number): void {
    this.#current().processor.vmwrite(field, lo, hi);
  }

  /** Writes an address below 2^53. */
  setAddress(field: number, address: number): void {
    this.setHalves(field, address % TWO_32, Math.floor(address / TWO_32));
  }

  /** High 32 bits of a field. */
  high(field: number): number {
    const { processor } = this.#current();
    processor.vmread(field);
    return processor.exchange[1]! >>> 0;
  }

  /** A whole field. */
  get64(field: number): bigint {
    const { processor } = this.#current();
    const lo = processor.vmread(field) >>> 0;
    return (BigInt(processor.exchange[1]! >>> 0) << 32n) | BigInt(lo);
  }

  /** Writes a whole field. */
  set64(field: number, value: bigint): void {
    const wide = BigInt.asUintN(64, value);
    this.setHalves(field, Number(wide & LOW), Number(wide >> 32n));
  }

  /** Gives its memory back. */
  free(): void {
    this.host?.clear(this);
    this.#memory.free(this.hpa);
  }
}
