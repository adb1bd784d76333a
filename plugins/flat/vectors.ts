/**
 * Real-mode interrupt vectors, and a handler of system management interrupts, as PC firmware leaves them.
 *
 * @module
 */

import type { Image, Vm } from "../../core/mod.ts";

/** Segment of the firmware, where the handlers are. */
const SEGMENT = 0xf000;
/** Where firmware has its dummy handler, an IRET. */
const DUMMY = 0xff53;
/** Where firmware has the handler of the timer's interrupt. */
const MASTER = 0xfea5;
/** Behind it: for the lines of the second 8259. */
const SLAVE: number = MASTER + 8;

/** Where a processor looks for the handler of an SMI after RESET: SMBASE + 8000h. */
const SMI_HANDLER = 0x3_8000;

const VECTORS = 256;
/** Vectors of the lines of the two 8259s. */
const MASTER_VECTORS: readonly [number, number] = [0x08, 0x0f];
const SLAVE_VECTORS: readonly [number, number] = [0x70, 0x77];

/** IRET. */
const IRET: readonly number[] = [0xcf];
/** RSM. */
const RSM: readonly number[] = [0x0f, 0xaa];
/** PUSH AX; MOV AL, 20h; OUT 20h, AL; POP AX; IRET: ends the interrupt at the first 8259. */
const END: readonly number[] = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
/** The same at both. */
const END_BOTH: readonly number[] = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf];

/**
 * The interrupt table at address 0, with handlers at F000h that end interrupts of the 8259s and do
 * nothing else. Code in real mode that lets interrupts in, and has run on firmware before, expects as
 * much. A system management interrupt likewise finds a handler that returns at once, where processors look
 * for one after RESET, and not in memory of its own as with real firmware. Load it before the image that
 * it is for.
 */
export function firmwareVectors(): Image {
  return { name: "interrupt vectors", load: writeVectors };
}

function writeVectors({ memory }: Vm): void {
  const within = (vector: number, [first, last]: readonly [number, number]): boolean =>
    vector >= first && vector <= last;
  for (let vector = 0; vector < VECTORS; vector++) {
    const offset = within(vector, MASTER_VECTORS)
      ? MASTER
      : within(vector, SLAVE_VECTORS)
      ? SLAVE
      : DUMMY;
    memory.writeU32(4 * vector, SEGMENT * 0x1_0000 + offset);
  }
  for (const [offset, code] of [[DUMMY, IRET], [MASTER, END], [SLAVE, END_BOTH]] as const) {
    memory.write(SEGMENT * 16 + offset, Uint8Array.from(code));
  }
  memory.write(SMI_HANDLER, Uint8Array.from(RSM));
}
