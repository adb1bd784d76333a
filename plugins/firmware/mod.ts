/**
 * A firmware ROM at the top of the first 4 GiB, where processors begin after RESET.
 *
 * The ROM ends at FFFF_FFFFh, so that its last 16 bytes are the reset vector; as on a PC, its last part,
 * up to 128 KiB, is below 1 MiB as well, where code in real mode reaches it. That copy is RAM, as after a
 * BIOS has shadowed itself: it can be written, and a reset does not restore it. The ROM itself is
 * read-only, and writes to it are lost.
 *
 * A machine with it needs no image: the first vCPU is left where RESET puts it. The plugin `acpi` has its
 * tables at E0000h and must go where the ROM is larger than 64 KiB; such firmware brings tables of its own.
 *
 * Limits: no flash commands. What lies below 1 MiB is there from the beginning, and no chip set register
 * switches it.
 *
 * @example
 * ```ts
 * import { firmware } from "@trapline/trapline/firmware";
 *
 * const rom = new Uint8Array(65536).fill(0xf4); // HLT
 * console.assert(firmware(rom).name === "firmware");
 * ```
 *
 * @module
 */

import { ArgumentError, hostMemorySlot, PAGE_SIZE, type Plugin } from "../../core/mod.ts";

const TOP = 2 ** 32;
const LOW_TOP = 0x10_0000;
const LOW_MOST = 0x2_0000;
const MOST: number = 16 * 2 ** 20;

/**
 * A firmware ROM as a plugin.
 *
 * @param bytes What it holds: whole pages of 4096 bytes, up to 16 MiB.
 *
 * @throws {ArgumentError} If it is not of such a size.
 */
export function firmware(bytes: Uint8Array): Plugin {
  const { length } = bytes;
  if (length === 0 || length % PAGE_SIZE !== 0 || length > MOST) {
    throw new ArgumentError(
      `firmware: ${length} bytes are not whole pages of ${PAGE_SIZE}, up to ${MOST}`,
    );
  }
  return {
    name: "firmware",
    version: "1.0.0",
    description: "A firmware ROM at the top of 4 GiB, and shadowed below 1 MiB",
    requires: [hostMemorySlot],
    setup(ctx) {
      const memory = ctx.use(hostMemorySlot).current;
      const low = bytes.subarray(Math.max(0, length - LOW_MOST));
      const map = (name: string, end: number, content: Uint8Array, readonly: boolean): number => {
        const size = content.length;
        const hpa = memory.alloc(size);
        ctx.onLeave(() => memory.free(hpa));
        memory.write(hpa, content);
        ctx.addMemslot({ name, gpa: end - size, size, hpa, readonly });
        return hpa;
      };
      map("firmware", TOP, bytes, true);
      map("firmware shadow", LOW_TOP, low, false);
    },
  };
}
