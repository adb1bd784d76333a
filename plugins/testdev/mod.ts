/**
 * The test device of kvm-unit-tests: registers to exercise a hypervisor with.
 *
 * | where          | what                                                                             |
 * | -------------- | -------------------------------------------------------------------------------- |
 * | E0h–E3h        | four bytes that read back, of any width                                          |
 * | E4h–E7h        | a write makes the hypervisor forget its mapping of the page it names             |
 * | E8h–EBh        | the same four bytes, one at a time                                               |
 * | 2000h + n      | a write drives interrupt line n (0 to 23): low for 0, else high                  |
 * | FF00_0000h     | 64 KiB of memory behind a device, so that each access to it exits                |
 *
 * Ports and addresses are those of QEMU's device `pc-testdev`.
 *
 * @example
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { testDevice } from "@trapline/trapline/testdev";
 *
 * using machine = scriptedVm({ plugins: [testDevice()] });
 * machine.vm.pio.write(0xe0, 4, 0x12345678);
 * console.assert(machine.vm.pio.read(0xe9, 1) === 0x56);
 * ```
 *
 * Limits: a write to E4h does nothing: mappings stay.
 *
 * @module
 */

import { type Plugin, resetHook } from "../../core/mod.ts";

const SCRATCH_BYTES = 4;
const LINES = 24;
const MEMORY_BASE = 0xff00_0000;
const MEMORY_BYTES = 0x1_0000;

/** The device's memory, little-endian. */
class Bytes {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(offset: number, size: number): number {
    if (size === 1) return this.#view.getUint8(offset);
    return size === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint32(offset, true);
  }

  write(offset: number, size: number, value: number): void {
    if (size === 1) this.#view.setUint8(offset, value);
    else if (size === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint32(offset, value, true);
  }
}

/** The test device as a plugin. */
export function testDevice(): Plugin {
  return {
    name: "testdev",
    version: "1.0.0",
    description: "The test device of kvm-unit-tests",
    setup(ctx) {
      const declare = (name: string, size: number): Bytes =>
        ctx.vmState<Bytes>({
          name,
          version: 1,
          init: () => new Bytes(new Uint8Array(size)),
          save: ({ bytes }) => bytes.slice(),
          load: (saved) => new Bytes((saved as Uint8Array).slice()),
        }).current;
      const scratch = declare("scratch", SCRATCH_BYTES);
      const memory = declare("memory", MEMORY_BYTES);
      ctx.on(resetHook, () => {
        scratch.bytes.fill(0);
        memory.bytes.fill(0);
      });
      for (const [base, width] of [[0xe0, 4], [0xe8, 1]] as const) {
        ctx.registerPio({
          name: "test device scratch",
          base,
          length: SCRATCH_BYTES,
          width,
          read: (offset, size) => scratch.read(offset, size),
          write: (offset, size, value) => scratch.write(offset, size, value),
        });
      }
      ctx.registerPio({ name: "test device page flush", base: 0xe4, length: 4, read: () => 0 });
      ctx.registerPio({
        name: "test device lines",
        base: 0x2000,
        // One value drives one line, however wide it is: also that of the last line.
        length: LINES + 3,
        read: () => 0,
        write(offset, _size, value) {
          if (offset < LINES) ctx.vm.setIrqLine(offset, value !== 0);
        },
      });
      ctx.registerMmio({
        name: "test device memory",
        base: MEMORY_BASE,
        length: MEMORY_BYTES,
        read: (offset, size) => memory.read(offset, size),
        write: (offset, size, value) => memory.write(offset, size, value),
      });
    },
  };
}
