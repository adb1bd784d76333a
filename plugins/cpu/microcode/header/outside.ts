/**
 * What the program outside supplies (engine/machine.ts).
 *
 * @module
 */
import { I32T } from "../../wasm/mod.ts";
import type { Fn, I, Signatures } from "./signature.ts";

/** What the processor asks. */
export interface Outside {
  /** `(index)`: gives chunk `index` of physical memory its backing; its address, or 0. */
  readonly allocateChunk: Fn<[I], I>;
  /** `(paLow, paHigh, bytes)`: reads a device; the result is in `S.exchange`. */
  readonly deviceRead: Fn<[I, I, I]>;
  /** `(paLow, paHigh, bytes)`: writes a device; the value is in `S.exchange`. */
  readonly deviceWrite: Fn<[I, I, I]>;
  /** `(port, bytes)`: reads a port. */
  readonly portRead: Fn<[I, I], I>;
  /** `(port, bytes, value)`: writes a port. */
  readonly portWrite: Fn<[I, I, I]>;
  /** `(leaf, subleaf)`: CPUID; the four registers are in `S.exchange`. */
  readonly cpuid: Fn<[I, I]>;
  /** `(index)`: RDMSR of an MSR the processor does not keep itself: 1 and `S.exchange`, or 0 for #GP. */
  readonly msrRead: Fn<[I], I>;
  /** `(index)`: WRMSR; the value is in `S.exchange`. 1, or 0 for #GP. */
  readonly msrWrite: Fn<[I], I>;
  /** `(index)`: RDPMC of counter `index` (ECX): 1 and `S.exchange`, or 0 for #GP. */
  readonly counterRead: Fn<[I], I>;
  /** `(codeAddress, alone)`: decodes the block at RIP; its address, or 0 after raising. */
  readonly decode: Fn<[I, I], I>;
  /** `(address, bytes)`: memory that holds decoded code is about to be written. */
  readonly codeWritten: Fn<[I, I]>;
  /**
   * `(address, bytes, uop)`: the instruction of a micro-op is about to store over decoded code, or where a
   * processor watches. 1 if the next instruction may depend on it, and nothing has been done; else 0.
   */
  readonly codeStored: Fn<[I, I, I], I>;
  /** `(address)`: MONITOR of the line around a memory address, 0 for none. */
  readonly monitor: Fn<[I]>;
  /** `(block)`: the processor is often seen here; yields the instructions until it is asked again. */
  readonly sample: Fn<[I], I>;
  /** `(end)`: a page walk that is timed begins (0) or has ended (1). */
  readonly walkClock: Fn<[I]>;
  /** `(uop)`: the instruction has to be the last of its block from now on. */
  readonly isolate: Fn<[I]>;
  /** `(uop)`: the instruction of a micro-op is not implemented; does not return. */
  readonly unimplemented: Fn<[I]>;
  /** `()`: FERR# is asserted; 1, or 0 if there is no such pin. */
  readonly numericError: Fn<[], I>;
  /** `()`: INTA cycle: the vector. */
  readonly acknowledge: Fn<[], I>;
  /** `(priority)`: CR8 was written, and not the virtual one. */
  readonly setTaskPriority: Fn<[I]>;
}

/** Their signatures. */
export const OUTSIDE: Signatures<Outside> = {
  allocateChunk: [[I32T], I32T],
  deviceRead: [[I32T, I32T, I32T], undefined],
  deviceWrite: [[I32T, I32T, I32T], undefined],
  portRead: [[I32T, I32T], I32T],
  portWrite: [[I32T, I32T, I32T], undefined],
  cpuid: [[I32T, I32T], undefined],
  msrRead: [[I32T], I32T],
  msrWrite: [[I32T], I32T],
  counterRead: [[I32T], I32T],
  decode: [[I32T, I32T], I32T],
  codeWritten: [[I32T, I32T], undefined],
  codeStored: [[I32T, I32T, I32T], I32T],
  monitor: [[I32T], undefined],
  sample: [[I32T], I32T],
  walkClock: [[I32T], undefined],
  isolate: [[I32T], undefined],
  unimplemented: [[I32T], undefined],
  numericError: [[], I32T],
  acknowledge: [[], I32T],
  setTaskPriority: [[I32T], undefined],
};
