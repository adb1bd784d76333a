/**
 * What is put into guest memory before the guest starts.
 *
 * @module
 */

import type { Vm } from "./vm.ts";

/** Something that is loaded into a new VM, and again at each reset: firmware, a kernel, a test. */
export interface Image {
  /** For messages. */
  readonly name: string;
  /** Writes memory and sets the first vCPU's registers. */
  load(vm: Vm): void;
}

/** Bytes at a guest physical address, and nothing else. */
export function rawImage(name: string, gpa: number, bytes: Uint8Array): Image {
  return { name, load: (vm) => vm.memory.write(gpa, bytes) };
}
