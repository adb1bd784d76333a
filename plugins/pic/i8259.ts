/**
 * One 8259A interrupt controller, as its data sheet has it (Intel 231468, "8259A Programmable
 * Interrupt Controller"), for an 8086-type processor.
 *
 * @module
 */

import { ArgumentError, UnimplementedError } from "../../core/mod.ts";

/** ICW1: begins the initialization sequence. Bit 4 tells it from OCW2 and OCW3. */
const ICW1 = 0x10;
const ICW1_IC4 = 0x01;
const ICW1_SNGL = 0x02;
const ICW1_LTIM = 0x08;

const ICW2_BASE = 0xf8;

const ICW4_8086 = 0x01;
const ICW4_AEOI = 0x02;
const ICW4_SFNM = 0x10;

const OCW2_EOI = 0x20;
const OCW2_SL = 0x40;
const OCW2_R = 0x80;
const OCW2_LEVEL = 0x07;

/** With bit 4 clear, bit 3 tells OCW3 from OCW2. */
const OCW3 = 0x08;
const OCW3_RIS = 0x01;
const OCW3_RR = 0x02;
const OCW3_POLL = 0x04;
const OCW3_SMM = 0x20;
const OCW3_ESMM = 0x40;

/** Poll word: there was a request. */
const POLL_INTERRUPT = 0x80;

/** The request that is answered when there is none any more: the default IR7. */
const SPURIOUS = 7;

/** Rank of no input at all, behind that of all eight. */
const NO_RANK = 8;

/** Where the initialization sequence is: the word that comes next on the odd port. */
const Expect = { OCW1: 0, ICW2: 2, ICW3: 3, ICW4: 4 } as const;
type Expect = (typeof Expect)[keyof typeof Expect];

/** A controller's registers and pins, as plain data. Masks have bit n for input IRn. */
export type I8259Saved = {
  /** Inputs that are high. */
  readonly lines: number;
  /** Inputs that rose and have not been acknowledged since. */
  readonly edges: number;
  /** In-service register. */
  readonly isr: number;
  /** Interrupt mask register. */
  readonly imr: number;
  /** Inputs that are level-triggered by the board's doing. */
  readonly elcr: number;
  /** The input with the lowest priority, 0 to 7. */
  readonly lowest: number;
  /** ICW1. */
  readonly icw1: number;
  /** ICW2. */
  readonly icw2: number;
  /** ICW3. */
  readonly icw3: number;
  /** ICW4. */
  readonly icw4: number;
  /** Number of the ICW that comes next, 0 outside of the sequence. */
  readonly expect: number;
  /** Special mask mode. */
  readonly specialMask: boolean;
  /** Priorities rotate with each automatic EOI. */
  readonly rotateOnAutoEoi: boolean;
  /** The next read of the even port gives the ISR and not the IRR. */
  readonly readIsr: boolean;
  /** The next read is a poll. */
  readonly poll: boolean;
  /** INT. */
  readonly output: boolean;
};

/**
 * One 8259A.
 *
 * Its surroundings drive {@linkcode I8259.setLine}, hear of its INT pin, and carry out INTA cycles
 * with {@linkcode I8259.beginAcknowledge} and {@linkcode I8259.endAcknowledge}.
 *
 * An input must stay high until it is acknowledged, also when it is edge-triggered: the request
 * register follows an input that falls, and an acknowledge that then finds nothing is answered as
 * IR7.
 */
export class I8259 {
  readonly #master: boolean;
  readonly #changed: (level: boolean) => void;
  #lines = 0;
  #edges = 0;
  #isr = 0;
  #imr = 0;
  #elcr = 0;
  #lowest = 7;
  #icw1 = 0;
  #icw2 = 0;
  #icw3 = 0;
  #icw4 = 0;
  #expect: Expect = Expect.OCW1;
  #specialMask = false;
  #rotateOnAutoEoi = false;
  #readIsr = false;
  #poll = false;
  #output = false;

  /**
   * @param master Level of the SP/EN pin: whether ICW3 is a mask of slaves or an identity.
   * @param changed Hears of every change of the INT pin.
   */
  constructor(master: boolean, changed: (level: boolean) => void) {
    this.#master = master;
    this.#changed = changed;
  }

  /** INT pin. */
  get output(): boolean {
    return this.#output;
  }

  /** Interrupt request register: inputs that ask, masked or not. */
  get irr(): number {
    return this.#lines & (this.#edges | this.#levels);
  }

  /** In-service register. */
  get isr(): number {
    return this.#isr;
  }

  /** Interrupt mask register. */
  get imr(): number {
    return this.#imr;
  }

  /** Inputs that the board makes level-triggered, whatever ICW1 says. */
  get elcr(): number {
    return this.#elcr;
  }
  set elcr(mask: number) {
    this.#elcr = mask & 0xff;
    this.#update();
  }

  /** For a slave: the input of the master that it takes itself to be at, bits 2:0 of ICW3. */
  get identity(): number {
    return this.#icw3 & 7;
  }

  /** Whether the controller was told that it is not alone, by ICW1.SNGL = 0. */
  get cascaded(): boolean {
    return (this.#icw1 & ICW1_SNGL) === 0;
  }

  /** Whether a slave is at input `level`, as a master knows from ICW3. */
  hasSlave(level: number): boolean {
    return this.#master && this.cascaded && (this.#icw3 >> level & 1) !== 0;
  }

  /** The vector that belongs to input `level`: bits 7:3 of ICW2 and the input. */
  vector(level: number): number {
    return this.#icw2 & ICW2_BASE | level;
  }

  /** Drives input `level` (0 to 7). */
  setLine(level: number, high: boolean): void {
    const bit = 1 << level;
    if (((this.#lines & bit) !== 0) === high) return;
    if (high) {
      this.#lines |= bit;
      this.#edges |= bit;
    } else {
      this.#lines &= ~bit;
      this.#edges &= ~bit;
    }
    this.#update();
  }

  /**
   * First INTA: puts the request with the highest priority in service and returns its input. When
   * there is none left, that is 7, and nothing is put in service.
   *
   * @throws {UnimplementedError} In MCS-80/85 mode, in which it would answer with a CALL.
   */
  beginAcknowledge(): number {
    if ((this.#icw4 & ICW4_8086) === 0) {
      throw new UnimplementedError(
        `the 8259 ${this.#master ? "master" : "slave"} was acknowledged in MCS-80/85 mode ` +
          "(ICW4 bit 0 clear), which is not built",
      );
    }
    const level = this.#pending();
    if (level < 0) return SPURIOUS;
    this.#take(level);
    this.#update();
    return level;
  }

  /** Last INTA: ends the interrupt if ICW4 asked for automatic EOI. */
  endAcknowledge(level: number): void {
    if (this.#autoEnd(level)) this.#update();
  }

  /**
   * Reads a port: the even one gives IRR or ISR, the odd one the IMR, and either a poll word after
   * OCW3 asked for one.
   *
   * @param port 0 or 1, the A0 pin.
   */
  read(port: number): number {
    if (this.#poll) return this.#readPoll();
    if (port !== 0) return this.#imr;
    return this.#readIsr ? this.#isr : this.irr;
  }

  /**
   * Writes a port.
   *
   * @param port 0 or 1, the A0 pin.
   */
  write(port: number, value: number): void {
    if (port !== 0) this.#writeOdd(value);
    else if ((value & ICW1) !== 0) this.#initialize(value);
    else if ((value & OCW3) !== 0) this.#control(value);
    else this.#endOfInterrupt(value);
    this.#update();
  }

  /** Everything that is needed to make the controller again. */
  save(): I8259Saved {
    return {
      lines: this.#lines,
      edges: this.#edges,
      isr: this.#isr,
      imr: this.#imr,
      elcr: this.#elcr,
      lowest: this.#lowest,
      icw1: this.#icw1,
      icw2: this.#icw2,
      icw3: this.#icw3,
      icw4: this.#icw4,
      expect: this.#expect,
      specialMask: this.#specialMask,
      rotateOnAutoEoi: this.#rotateOnAutoEoi,
      readIsr: this.#readIsr,
      poll: this.#poll,
      output: this.#output,
    };
  }

  /**
   * Takes what {@linkcode I8259.save} returned. Nobody hears of the INT pin: it is where it was.
   *
   * @throws {ArgumentError} If there is no such place in the initialization sequence.
   */
  load(saved: I8259Saved): void {
    const expect = Object.values(Expect).find((value) => value === saved.expect);
    if (expect === undefined) throw new ArgumentError(`8259: saved state expects ${saved.expect}`);
    this.#lines = saved.lines;
    this.#edges = saved.edges;
    this.#isr = saved.isr;
    this.#imr = saved.imr;
    this.#elcr = saved.elcr;
    this.#lowest = saved.lowest;
    this.#icw1 = saved.icw1;
    this.#icw2 = saved.icw2;
    this.#icw3 = saved.icw3;
    this.#icw4 = saved.icw4;
    this.#expect = expect;
    this.#specialMask = saved.specialMask;
    this.#rotateOnAutoEoi = saved.rotateOnAutoEoi;
    this.#readIsr = saved.readIsr;
    this.#poll = saved.poll;
    this.#output = saved.output;
  }

  /** Level-triggered inputs. */
  get #levels(): number {
    return (this.#icw1 & ICW1_LTIM) !== 0 ? 0xff : this.#elcr;
  }

  #update(): void {
    const output = this.#pending() >= 0;
    if (output === this.#output) return;
    this.#output = output;
    this.#changed(output);
  }

  /** Place of the first of `inputs` in the present order of priorities, 0 the highest. */
  #rank(inputs: number): number {
    if (inputs === 0) return NO_RANK;
    const turned = (inputs | inputs << 8) >> (this.#lowest + 1);
    return 31 - Math.clz32(turned & -turned);
  }

  #levelOf(rank: number): number {
    return (this.#lowest + 1 + rank) & 7;
  }

  /**
   * The input whose request is to be passed on now, -1 if there is none. Until the last word of the
   * initialization sequence there is none (data sheet, figure "Initialization Sequence").
   */
  #pending(): number {
    if (this.#expect !== Expect.OCW1) return -1;
    const rank = this.#rank(this.irr & ~this.#imr);
    const inService = this.#rank(this.#unmaskedIsr);
    const level = this.#levelOf(rank);
    if (rank < inService) return level;
    // In the special fully nested mode a slave may interrupt itself with something more urgent.
    const nested = (this.#icw4 & ICW4_SFNM) !== 0 && this.hasSlave(level);
    return nested && rank === inService && rank < NO_RANK ? level : -1;
  }

  /** What is in service and counts: in special mask mode masked levels neither block nor end. */
  get #unmaskedIsr(): number {
    return this.#specialMask ? this.#isr & ~this.#imr : this.#isr;
  }

  #take(level: number): void {
    this.#isr |= 1 << level;
    this.#edges &= ~(1 << level);
  }

  /** Ends `level` if EOI is automatic; returns whether it is. */
  #autoEnd(level: number): boolean {
    if ((this.#icw4 & ICW4_AEOI) === 0 || (this.#isr & 1 << level) === 0) return false;
    this.#isr &= ~(1 << level);
    if (this.#rotateOnAutoEoi) this.#lowest = level;
    return true;
  }

  #readPoll(): number {
    this.#poll = false;
    const level = this.#pending();
    if (level < 0) return 0;
    this.#take(level);
    this.#autoEnd(level);
    this.#update();
    return POLL_INTERRUPT | level;
  }

  /** Data sheet, "Initialization Command Words 1 and 2", items a to f. */
  #initialize(value: number): void {
    this.#icw1 = value;
    this.#expect = Expect.ICW2;
    this.#edges = 0;
    this.#imr = 0;
    this.#isr = 0;
    this.#lowest = 7;
    this.#icw3 = 7;
    this.#specialMask = false;
    this.#rotateOnAutoEoi = false;
    this.#readIsr = false;
    this.#poll = false;
    // With IC4 clear ICW4 is zero for good; set, the old one must not have effect any longer.
    this.#icw4 = 0;
  }

  #writeOdd(value: number): void {
    const needsIcw4 = (this.#icw1 & ICW1_IC4) !== 0;
    switch (this.#expect) {
      case Expect.OCW1:
        this.#imr = value;
        break;
      case Expect.ICW2:
        this.#icw2 = value;
        if (this.cascaded) this.#expect = Expect.ICW3;
        else this.#expect = needsIcw4 ? Expect.ICW4 : Expect.OCW1;
        break;
      case Expect.ICW3:
        this.#icw3 = value;
        this.#expect = needsIcw4 ? Expect.ICW4 : Expect.OCW1;
        break;
      case Expect.ICW4:
        this.#icw4 = value;
        this.#expect = Expect.OCW1;
        break;
    }
  }

  /**
   * OCW2. Its eight commands are those of three bits: end an interrupt or not, a level given or the
   * highest in service, rotate priorities or not.
   */
  #endOfInterrupt(value: number): void {
    const rotate = (value & OCW2_R) !== 0;
    const given = (value & OCW2_SL) !== 0;
    if ((value & OCW2_EOI) === 0) {
      if (!given) this.#rotateOnAutoEoi = rotate;
      else if (rotate) this.#lowest = value & OCW2_LEVEL;
      return;
    }
    const rank = this.#rank(this.#unmaskedIsr);
    if (!given && rank === NO_RANK) return;
    const level = given ? value & OCW2_LEVEL : this.#levelOf(rank);
    this.#isr &= ~(1 << level);
    if (rotate) this.#lowest = level;
  }

  /** OCW3. */
  #control(value: number): void {
    if ((value & OCW3_ESMM) !== 0) this.#specialMask = (value & OCW3_SMM) !== 0;
    if ((value & OCW3_RR) !== 0) this.#readIsr = (value & OCW3_RIS) !== 0;
    this.#poll = (value & OCW3_POLL) !== 0;
  }
}
