/**
 * The two 8259As of a PC: a master whose output is the processor's interrupt pin, a slave at its
 * input 2, and the edge/level control registers.
 *
 * @module
 */

import { I8259, type I8259Saved } from "./i8259.ts";

/** The master's input at which the slave is. */
const CASCADE = 2;

/**
 * Lines that ELCR1 and ELCR2 can make level-triggered. The timer, the keyboard, the cascade, the
 * real-time clock and the coprocessor never are (Intel 82371SB data sheet, ELCR1 and ELCR2).
 */
const ELCR_WRITABLE = [0xf8, 0xde] as const;

/** What a data bus reads that nobody drives. */
const FLOATING = 0xff;

/** The state of both controllers, as plain data. */
export type PicPairSaved = {
  /** The controller of lines 0 to 7. */
  readonly master: I8259Saved;
  /** The controller of lines 8 to 15. */
  readonly slave: I8259Saved;
};

/** Both controllers. */
export class PicPair {
  /** The controller of lines 0 to 7, at ports 20h and 21h. */
  readonly master: I8259;
  /** The controller of lines 8 to 15, at ports A0h and A1h. */
  readonly slave: I8259;

  /** @param changed Hears of every change of the output to the processor. */
  constructor(changed: (level: boolean) => void) {
    this.master = new I8259(true, changed);
    this.slave = new I8259(false, (level) => this.master.setLine(CASCADE, level));
  }

  /** Level of the output to the processor. */
  get output(): boolean {
    return this.master.output;
  }

  /**
   * Drives an interrupt line. Line 2 is not connected to anything but the slave, and lines from 16
   * on are other controllers'; both are ignored.
   */
  setLine(line: number, level: boolean): void {
    if (line >= 8 && line < 16) this.slave.setLine(line - 8, level);
    else if (line >= 0 && line < 8 && line !== CASCADE) this.master.setLine(line, level);
  }

  /**
   * Carries out the INTA cycles and returns the vector on the data bus. If the master puts a slave on
   * the bus that does not take itself to be addressed, that is FFh.
   *
   * @throws {UnimplementedError} If the controller that answers is in MCS-80/85 mode.
   */
  acknowledge(): number {
    const { master, slave } = this;
    const level = master.beginAcknowledge();
    let vector = master.vector(level);
    // A request that has gone is answered by the master as its own, unless a slave is at input 7.
    if (master.hasSlave(level)) {
      vector = FLOATING;
      if (level === CASCADE && slave.cascaded && slave.identity === CASCADE) {
        const slaveLevel = slave.beginAcknowledge();
        vector = slave.vector(slaveLevel);
        slave.endAcknowledge(slaveLevel);
      }
    }
    master.endAcknowledge(level);
    return vector;
  }

  /** Reads ELCR1 (`index` 0) or ELCR2 (1). */
  readElcr(index: number): number {
    return (index === 0 ? this.master : this.slave).elcr;
  }

  /** Writes ELCR1 (`index` 0) or ELCR2 (1). */
  writeElcr(index: number, value: number): void {
    const chip = index === 0 ? this.master : this.slave;
    chip.elcr = value & (index === 0 ? ELCR_WRITABLE[0] : ELCR_WRITABLE[1]);
  }

  /**
   * Puts both into the state in which PC firmware leaves them: 8086 mode, edge-triggered, cascaded,
   * ended by command. Inputs stay as they are driven.
   *
   * @param base Vectors of lines 0 and 8, multiples of 8.
   * @param mask Lines that are masked, bit n for line n.
   */
  program(base: readonly [number, number], mask: number): void {
    const plan = [
      [this.master, base[0], 1 << CASCADE, mask & 0xff],
      [this.slave, base[1], CASCADE, mask >> 8],
    ] as const;
    for (const [chip, vector, cascade, imr] of plan) {
      chip.elcr = 0;
      chip.write(0, 0x11);
      for (const word of [vector, cascade, 0x01, imr]) chip.write(1, word);
    }
  }

  /** Everything that is needed to make both again. */
  save(): PicPairSaved {
    return { master: this.master.save(), slave: this.slave.save() };
  }

  /** Takes what {@linkcode PicPair.save} returned. */
  load(saved: PicPairSaved): void {
    this.master.load(saved.master);
    this.slave.load(saved.slave);
  }
}
