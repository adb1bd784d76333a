/**
 * The 16550A UART (National Semiconductor PC16550D data sheet, June 1995, section 8 "Registers").
 *
 * @module
 */

import { TICKS_PER_SECOND } from "../../core/mod.ts";
import { Fifo, FIFO_DEPTH } from "./fifo.ts";

/** Register numbers, A2:A0. */
const DATA = 0;
const IER = 1;
const IIR_FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;

const IER_RECEIVED = 0x01;
const IER_TRANSMITTER = 0x02;
const IER_LINE = 0x04;
const IER_MODEM = 0x08;

/** Interrupt identification, bits 3:0 (data sheet, table IV); 1 is none. */
const IIR_NONE = 0x01;
const IIR_LINE = 0x06;
const IIR_RECEIVED = 0x04;
const IIR_TIMEOUT = 0x0c;
const IIR_TRANSMITTER = 0x02;
const IIR_MODEM = 0x00;
const IIR_FIFOS = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_CLEAR_RECEIVER = 0x02;
const FCR_CLEAR_TRANSMITTER = 0x04;
/** Characters at which the receiver asks, by bits 7:6 of FCR. */
const TRIGGERS: readonly number[] = [1, 4, 8, 14];

const LCR_WORD = 0x03;
const LCR_STOP = 0x04;
const LCR_PARITY = 0x08;
const LCR_DLAB = 0x80;

const MCR_DTR = 0x01;
const MCR_RTS = 0x02;
const MCR_OUT1 = 0x04;
const MCR_OUT2 = 0x08;
const MCR_LOOP = 0x10;

const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
const LSR_FRAMING = 0x08;
const LSR_BREAK = 0x10;
const LSR_THRE = 0x20;
const LSR_TEMT = 0x40;
const LSR_FIFO_ERROR = 0x80;

const MSR_DELTAS = 0x0f;
const MSR_TERI = 0x04;
const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;

/** Somebody is at the other end and ready, and nobody rings. */
const CONNECTED: number = MSR_CTS | MSR_DSR | MSR_DCD;

/** Frequency of the crystal on a PC, in Hz; a bit takes 16 of its periods times the divisor. */
const CRYSTAL = 1_843_200;
/** 9600 baud, as firmware leaves it. */
const POWER_UP_DIVISOR = 12;
/** Characters of silence after which the receiver's FIFO asks to be emptied. */
const TIMEOUT_CHARACTERS = 4;

/** A break as it is received: a character of zeros without a stop bit. */
export const BREAK: number = (LSR_BREAK | LSR_FRAMING) << 8;

/** A timer, with the methods of the core's. */
export interface Alarm {
  /** When it goes off, in ticks of VM time. */
  readonly deadline: number;
  /** Whether it will go off. */
  readonly armed: boolean;
  /** Makes it go off at `deadline`. */
  arm(deadline: number): void;
  /** Keeps it from going off. */
  cancel(): void;
}

/** What a UART is connected to. */
export interface UartBoard {
  /** VM time in ticks. */
  now(): number;
  /** Takes a character that leaves the UART, 0 to 255. */
  transmit(character: number): void;
  /** The next character on the line, 0 to 255 or {@linkcode BREAK}; -1 if none waits. */
  receive(): number;
  /** The interrupt line changes its level. */
  interrupt(level: boolean): void;
  /** Calls {@linkcode Uart.transmitted}. */
  readonly transmitAlarm: Alarm;
  /** Calls {@linkcode Uart.received}. */
  readonly receiveAlarm: Alarm;
  /** Calls {@linkcode Uart.timedOut}. */
  readonly timeoutAlarm: Alarm;
}

/** How a UART behaves where the data sheet leaves it to the surroundings. */
export interface UartConduct {
  /** Whether characters take the time that the divisor says, or none. */
  readonly timed: boolean;
  /** Whether characters wait on the line while RTS is off. */
  readonly flowControl: boolean;
}

/** The state of a UART, as plain data. Times are ticks of VM time, -1 for a timer that is not armed. */
export type UartSaved = {
  /** Interrupt enable register. */
  readonly ier: number;
  /** Line control register. */
  readonly lcr: number;
  /** Modem control register. */
  readonly mcr: number;
  /** Modem status register. */
  readonly msr: number;
  /** Scratch register. */
  readonly scr: number;
  /** Divisor latch, 16 bits. */
  readonly divisor: number;
  /** Whether the FIFOs are enabled. */
  readonly fifos: boolean;
  /** Characters at which the receiver's FIFO asks. */
  readonly trigger: number;
  /** Error bits of the line status register. */
  readonly errors: number;
  /** Whether the transmitter-empty interrupt waits. */
  readonly transmitterEmpty: boolean;
  /** Whether the time-out interrupt waits. */
  readonly timeout: boolean;
  /** Receiver FIFO, or its one character. */
  readonly receiver: readonly number[];
  /** Transmitter FIFO, or its one character. */
  readonly transmitter: readonly number[];
  /** Character that is being sent, -1 if none is. */
  readonly sending: number;
  /** Character that is coming in, -1 if none is. */
  readonly incoming: number;
  /** Level of the interrupt line. */
  readonly level: boolean;
  /** When the character being sent has been sent. */
  readonly sentAt: number;
  /** When the character coming in has come in. */
  readonly receivedAt: number;
  /** When the receiver's FIFO times out. */
  readonly timeoutAt: number;
};

/**
 * One 16550A with a PC's wiring: OUT2 gates the interrupt line, and as in loopback mode the OUT2 pin
 * is off whatever the register says, no interrupt leaves the board then.
 */
export class Uart {
  readonly #board: UartBoard;
  readonly #timed: boolean;
  readonly #flowControl: boolean;
  readonly #receiver: Fifo = new Fifo();
  readonly #transmitter: Fifo = new Fifo();
  #ier = 0;
  #lcr = 0;
  #mcr = 0;
  #msr = CONNECTED;
  #scr = 0;
  #divisor = POWER_UP_DIVISOR;
  #fifos = false;
  #trigger = 1;
  #errors = 0;
  #transmitterEmpty = false;
  #timeout = false;
  #sending = -1;
  #incoming = -1;
  #level = false;

  /** A UART after power-up. */
  constructor(board: UartBoard, conduct: UartConduct) {
    this.#board = board;
    this.#timed = conduct.timed;
    this.#flowControl = conduct.flowControl;
  }

  /** Level of the interrupt line. */
  get level(): boolean {
    return this.#level;
  }

  /** Time that a character takes on the line, in ticks of VM time. */
  get characterTime(): number {
    const lcr = this.#lcr;
    const stop = (lcr & LCR_STOP) === 0 ? 1 : (lcr & LCR_WORD) === 0 ? 1.5 : 2;
    const bits = 1 + 5 + (lcr & LCR_WORD) + ((lcr & LCR_PARITY) !== 0 ? 1 : 0) + stop;
    // A divisor of 0 is outside of what the data sheet allows; a counter loaded with it counts 65536.
    const divisor = this.#divisor === 0 ? 0x1_0000 : this.#divisor;
    return Math.round(bits * 16 * divisor * TICKS_PER_SECOND / CRYSTAL);
  }

  /** Reads a register, 0 to 7. */
  read(register: number): number {
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (register) {
      case DATA:
        return latch ? this.#divisor & 0xff : this.#readData();
      case IER:
        return latch ? this.#divisor >> 8 : this.#ier;
      case IIR_FCR:
        return this.#readIdentification();
      case LCR:
        return this.#lcr;
      case MCR:
        return this.#mcr;
      case LSR:
        return this.#readLineStatus();
      case MSR:
        return this.#readModemStatus();
      default:
        return this.#scr;
    }
  }

  /** Writes a register, 0 to 7. The status registers take no writes. */
  write(register: number, value: number): void {
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (register) {
      case DATA:
        if (latch) this.#divisor = this.#divisor & 0xff00 | value;
        else this.#writeData(value);
        break;
      case IER:
        if (latch) this.#divisor = this.#divisor & 0x00ff | value << 8;
        else this.#writeInterruptEnable(value & 0x0f);
        break;
      case IIR_FCR:
        this.#writeFifoControl(value);
        break;
      case LCR:
        this.#lcr = value;
        break;
      case MCR:
        this.#mcr = value & 0x1f;
        this.#updateModem();
        this.poll();
        break;
      case SCR:
        this.#scr = value;
        break;
    }
    this.#update();
  }

  /** Something may have come in on the line. */
  poll(): void {
    if (this.#loop) return;
    if (this.#flowControl && (this.#mcr & MCR_RTS) === 0) return;
    const { receiveAlarm } = this.#board;
    while (this.#incoming < 0 && this.#receiver.count < this.#depth) {
      const character = this.#board.receive();
      if (character < 0) break;
      if (this.#timed) {
        this.#incoming = character;
        receiveAlarm.arm(this.#board.now() + this.characterTime);
      } else {
        this.#accept(character);
      }
    }
    this.#update();
  }

  /** The receive alarm went off. */
  received(): void {
    const character = this.#incoming;
    this.#incoming = -1;
    // Switched to loopback in the meantime, the UART is deaf to the line.
    if (!this.#loop) this.#accept(character);
    this.poll();
    this.#update();
  }

  /** The transmit alarm went off. */
  transmitted(): void {
    const character = this.#sending;
    this.#sending = -1;
    this.#deliver(character);
    this.#transmitNext(this.#board.transmitAlarm.deadline);
    this.#update();
  }

  /** The time-out alarm went off. */
  timedOut(): void {
    this.#timeout = true;
    this.#update();
  }

  /** Puts everything to what it is after power-up. */
  reset(): void {
    const { transmitAlarm, receiveAlarm, timeoutAlarm } = this.#board;
    for (const alarm of [transmitAlarm, receiveAlarm, timeoutAlarm]) alarm.cancel();
    this.#receiver.clear();
    this.#transmitter.clear();
    this.#ier = 0;
    this.#lcr = 0;
    this.#mcr = 0;
    this.#msr = CONNECTED;
    this.#scr = 0;
    this.#divisor = POWER_UP_DIVISOR;
    this.#fifos = false;
    this.#trigger = 1;
    this.#errors = 0;
    this.#transmitterEmpty = false;
    this.#timeout = false;
    this.#sending = -1;
    this.#incoming = -1;
    this.poll();
    this.#update();
  }

  /** Everything that is needed to make the UART again. */
  save(): UartSaved {
    const { transmitAlarm, receiveAlarm, timeoutAlarm } = this.#board;
    const time = (alarm: Alarm) => alarm.armed ? alarm.deadline : -1;
    return {
      ier: this.#ier,
      lcr: this.#lcr,
      mcr: this.#mcr,
      msr: this.#msr,
      scr: this.#scr,
      divisor: this.#divisor,
      fifos: this.#fifos,
      trigger: this.#trigger,
      errors: this.#errors,
      transmitterEmpty: this.#transmitterEmpty,
      timeout: this.#timeout,
      receiver: this.#receiver.save(),
      transmitter: this.#transmitter.save(),
      sending: this.#sending,
      incoming: this.#incoming,
      level: this.#level,
      sentAt: time(transmitAlarm),
      receivedAt: time(receiveAlarm),
      timeoutAt: time(timeoutAlarm),
    };
  }

  /** Takes what {@linkcode Uart.save} returned. Nobody hears of the interrupt line: it is where it was. */
  load(saved: UartSaved): void {
    const { transmitAlarm, receiveAlarm, timeoutAlarm } = this.#board;
    this.#ier = saved.ier;
    this.#lcr = saved.lcr;
    this.#mcr = saved.mcr;
    this.#msr = saved.msr;
    this.#scr = saved.scr;
    this.#divisor = saved.divisor;
    this.#fifos = saved.fifos;
    this.#trigger = saved.trigger;
    this.#errors = saved.errors;
    this.#transmitterEmpty = saved.transmitterEmpty;
    this.#timeout = saved.timeout;
    this.#receiver.load(saved.receiver);
    this.#transmitter.load(saved.transmitter);
    this.#sending = saved.sending;
    this.#incoming = saved.incoming;
    this.#level = saved.level;
    if (saved.sentAt >= 0) transmitAlarm.arm(saved.sentAt);
    if (saved.receivedAt >= 0) receiveAlarm.arm(saved.receivedAt);
    if (saved.timeoutAt >= 0) timeoutAlarm.arm(saved.timeoutAt);
  }

  get #loop(): boolean {
    return (this.#mcr & MCR_LOOP) !== 0;
  }

  /** How many characters the receiver and the transmitter hold. */
  get #depth(): number {
    return this.#fifos ? FIFO_DEPTH : 1;
  }

  /** The interrupt with the highest priority (data sheet, table IV). */
  #identify(): number {
    const ier = this.#ier;
    if ((ier & IER_LINE) !== 0 && this.#errors !== 0) return IIR_LINE;
    if ((ier & IER_RECEIVED) !== 0) {
      if (this.#timeout) return IIR_TIMEOUT;
      if (this.#receiver.count >= (this.#fifos ? this.#trigger : 1)) return IIR_RECEIVED;
    }
    if ((ier & IER_TRANSMITTER) !== 0 && this.#transmitterEmpty) return IIR_TRANSMITTER;
    if ((ier & IER_MODEM) !== 0 && (this.#msr & MSR_DELTAS) !== 0) return IIR_MODEM;
    return IIR_NONE;
  }

  #update(): void {
    const gate = (this.#mcr & (MCR_OUT2 | MCR_LOOP)) === MCR_OUT2;
    const level = gate && this.#identify() !== IIR_NONE;
    if (level === this.#level) return;
    this.#level = level;
    this.#board.interrupt(level);
  }

  // Receiver

  /** A character has come in. */
  #accept(character: number): void {
    const receiver = this.#receiver;
    if (receiver.count < this.#depth) {
      receiver.push(character);
    } else {
      // Without FIFOs the new one takes the place of the old one, with them it is the one that is lost.
      this.#errors |= LSR_OVERRUN;
      if (!this.#fifos) receiver.replaceLast(character);
    }
    this.#showTopErrors();
    // A time-out that waits stays until the guest reads.
    if (this.#fifos && !this.#timeout) this.#startTimeout();
  }

  /** A character's errors show in the line status register when it is the next to be read. */
  #showTopErrors(): void {
    this.#errors |= this.#receiver.top >> 8;
  }

  #startTimeout(): void {
    const { timeoutAlarm } = this.#board;
    if (this.#receiver.count === 0) timeoutAlarm.cancel();
    else timeoutAlarm.arm(this.#board.now() + TIMEOUT_CHARACTERS * this.characterTime);
  }

  #readData(): number {
    const character = this.#receiver.shift() & 0xff;
    this.#showTopErrors();
    this.#timeout = false;
    if (this.#fifos) this.#startTimeout();
    this.poll();
    this.#update();
    return character;
  }

  #clearReceiver(): void {
    this.#receiver.clear();
    this.#timeout = false;
    this.#board.timeoutAlarm.cancel();
  }

  // Transmitter

  #writeData(value: number): void {
    // The interrupt goes away with the write, so that its coming back is an edge on the line.
    this.#transmitterEmpty = false;
    this.#update();
    const transmitter = this.#transmitter;
    if (transmitter.count < this.#depth) transmitter.push(value);
    else if (!this.#fifos) transmitter.replaceLast(value);
    this.#transmitNext(this.#board.now());
  }

  /** Moves the next character from holding register or FIFO into the shift register, if that is free. */
  #transmitNext(now: number): void {
    const transmitter = this.#transmitter;
    while (this.#sending < 0 && transmitter.count > 0) {
      const character = transmitter.shift();
      if (this.#timed) {
        this.#sending = character;
        this.#board.transmitAlarm.arm(now + this.characterTime);
      } else {
        this.#deliver(character);
      }
      if (transmitter.count === 0) this.#transmitterEmpty = true;
    }
  }

  /** A character has left the shift register. */
  #deliver(character: number): void {
    if (this.#loop) this.#accept(character);
    else this.#board.transmit(character);
  }

  #clearTransmitter(): void {
    if (this.#transmitter.count === 0) return;
    this.#transmitter.clear();
    this.#transmitterEmpty = true;
  }

  // Other registers

  #writeInterruptEnable(value: number): void {
    // Not in the data sheet, but every 16550 does it and drivers start by it: to enable the interrupt
    // while the transmitter is empty raises it, even if it was identified before.
    const rises = (value & ~this.#ier & IER_TRANSMITTER) !== 0;
    if (rises && this.#transmitter.count === 0) this.#transmitterEmpty = true;
    this.#ier = value;
  }

  #readIdentification(): number {
    const id = this.#identify();
    if (id === IIR_TRANSMITTER) {
      this.#transmitterEmpty = false;
      this.#update();
    }
    return this.#fifos ? id | IIR_FIFOS : id;
  }

  #writeFifoControl(value: number): void {
    const enable = (value & FCR_ENABLE) !== 0;
    // Bits 7:1 have effect only together with bit 0, and to switch modes empties both.
    const change = enable !== this.#fifos;
    this.#fifos = enable;
    if (change || (enable && (value & FCR_CLEAR_TRANSMITTER) !== 0)) this.#clearTransmitter();
    if (enable) this.#trigger = TRIGGERS[value >> 6] as number;
    if (change || (enable && (value & FCR_CLEAR_RECEIVER) !== 0)) {
      this.#clearReceiver();
      this.poll();
    }
  }

  #readLineStatus(): number {
    let status = this.#errors;
    if (this.#receiver.count > 0) status |= LSR_DATA_READY;
    if (this.#transmitter.count === 0) {
      status |= this.#sending < 0 ? LSR_THRE | LSR_TEMT : LSR_THRE;
    }
    if (this.#fifos && this.#receiver.hasErrors) status |= LSR_FIFO_ERROR;
    if (this.#errors !== 0) {
      this.#errors = 0;
      this.#receiver.clearTopErrors();
      this.#update();
    }
    return status;
  }

  #readModemStatus(): number {
    const status = this.#msr;
    this.#msr &= ~MSR_DELTAS;
    this.#update();
    return status;
  }

  /** In loopback mode the modem's inputs are the UART's own outputs. */
  #modemInputs(): number {
    const mcr = this.#mcr;
    if (!this.#loop) return CONNECTED;
    return ((mcr & MCR_RTS) !== 0 ? MSR_CTS : 0) | ((mcr & MCR_DTR) !== 0 ? MSR_DSR : 0) |
      ((mcr & MCR_OUT1) !== 0 ? MSR_RI : 0) | ((mcr & MCR_OUT2) !== 0 ? MSR_DCD : 0);
  }

  #updateModem(): void {
    const inputs = this.#modemInputs();
    const changed = (inputs ^ this.#msr) & ~MSR_DELTAS;
    let deltas = changed >> 4;
    // Of the ring indicator only the end counts.
    if ((inputs & MSR_RI) !== 0) deltas &= ~MSR_TERI;
    this.#msr = inputs | this.#msr & MSR_DELTAS | deltas;
  }
}
