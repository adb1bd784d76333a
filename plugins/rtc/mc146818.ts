/**
 * The MC146818 real-time clock (Motorola data sheet MC146818/D), with the 128 bytes of later chips.
 *
 * @module
 */

import { alarmMatches, readTime, TimeRegister, weekdayOf, writeTime } from "./calendar.ts";

/** Cycles of the chip's crystal in a second. */
export const RTC_FREQUENCY = 32_768;

/** Bytes: 10 of the clock, 4 registers, and RAM. */
export const RTC_BYTES = 128;

/** Register numbers. */
export const RtcRegister = {
  /** Divider, rate of the periodic interrupt, update in progress. */
  A: 0x0a,
  /** Enables and formats. */
  B: 0x0b,
  /** Flags; a read clears them. */
  C: 0x0c,
  /** Valid RAM and time. */
  D: 0x0d,
  /** The century, BCD: a byte of RAM that PC chips count on with the year. */
  CENTURY: 0x32,
} as const;

/** Register A: the registers are about to change, or changing. */
const UIP = 0x80;
const DIVIDER = 0x70;
/** The divider's setting for a crystal of 32.768 kHz. */
const DIVIDER_RUNS = 0x20;
const RATE = 0x0f;

/** Register B. */
const SET = 0x80;
/** Flags of register C, at the places of their enables in register B. */
const PERIODIC = 0x40;
const ALARM = 0x20;
const UPDATE = 0x10;
const FLAGS: number = PERIODIC | ALARM | UPDATE;
/** Register C: an interrupt is asked for. */
const IRQF = 0x80;
/** Register D. */
const VRT = 0x80;

/**
 * Cycles for which UIP is set before registers have their new values: 244 us of warning and 1984 us of
 * update, of the data sheet's table 5.
 */
const UPDATE_CYCLES = 73;
/** From the divider's release from reset to the first update. */
const HALF_SECOND: number = RTC_FREQUENCY / 2;
const SECONDS_PER_DAY = 86_400;

/** What firmware sets: 32.768 kHz with a periodic rate of 1024 Hz, and 24 hours in BCD. */
const FIRMWARE_A = 0x26;
const FIRMWARE_B = 0x02;

/** Cycles between two periodic interrupts by bits 3:0 of register A; 0 is none (data sheet, table 4). */
function periodOf(registerA: number): number {
  const rate = registerA & RATE;
  if (rate === 0) return 0;
  return rate <= 2 ? 1 << (rate + 6) : 1 << (rate - 1);
}

/** The state of the chip, as plain data. Times are cycles of the crystal since VM time 0. */
export type RtcSaved = {
  /** All bytes; those of the time as of {@linkcode RtcSaved.boundary}. */
  readonly bytes: Uint8Array;
  /** Seconds since the beginning of 1970. */
  readonly seconds: number;
  /** Day of the week, 1 to 7. */
  readonly weekday: number;
  /** When the second began. */
  readonly boundary: number;
  /** Until when flags have been set. */
  readonly checked: number;
  /** Flags of register C, without IRQF. */
  readonly flags: number;
};

/**
 * The chip. Time is counted when somebody looks: all methods take the number of cycles that its
 * crystal has done.
 */
export class Mc146818 {
  readonly #bytes: Uint8Array = new Uint8Array(RTC_BYTES);
  #seconds: number;
  #weekday: number;
  #boundary = 0;
  #checked = 0;
  #flags = 0;

  /** A chip that firmware has set to `seconds` since the beginning of 1970. */
  constructor(seconds: number) {
    this.#seconds = seconds;
    this.#weekday = weekdayOf(seconds);
    this.#bytes[RtcRegister.A] = FIRMWARE_A;
    this.#bytes[RtcRegister.B] = FIRMWARE_B;
    this.#show();
  }

  /** The interrupt pin, as of the last look. */
  get level(): boolean {
    return (this.#flags & this.#b & FLAGS) !== 0;
  }

  get #b(): number {
    return this.#bytes[RtcRegister.B] as number;
  }

  get #a(): number {
    return this.#bytes[RtcRegister.A] as number;
  }

  /** Whether the divider chain runs. */
  get #running(): boolean {
    return (this.#a & DIVIDER) === DIVIDER_RUNS;
  }

  /** Whether the time of day is counted. */
  get #counting(): boolean {
    return this.#running && (this.#b & SET) === 0;
  }

  /** Reads a register, 0 to 127. */
  read(register: number, now: number): number {
    this.update(now);
    switch (register) {
      case RtcRegister.A: {
        const soon = this.#counting && now - this.#boundary >= RTC_FREQUENCY - UPDATE_CYCLES;
        return this.#a | (soon ? UIP : 0);
      }
      case RtcRegister.C: {
        const value = this.#flags | (this.level ? IRQF : 0);
        this.#flags = 0;
        return value;
      }
      case RtcRegister.D:
        return VRT;
      default:
        return this.#bytes[register] as number;
    }
  }

  /** Writes a register, 0 to 127. C and D take no writes. */
  write(register: number, value: number, now: number): void {
    this.update(now);
    switch (register) {
      case RtcRegister.A: {
        const stood = !this.#running;
        this.#bytes[register] = value & ~UIP;
        if (stood && this.#running) {
          this.#boundary = now + HALF_SECOND - RTC_FREQUENCY;
          this.#checked = now;
        }
        return;
      }
      case RtcRegister.B: {
        // Setting SET ends the update-ended interrupt's enable (data sheet, "Register B").
        const kept = (value & SET) !== 0 ? value & ~UPDATE : value;
        const counted = this.#counting;
        this.#bytes[register] = kept;
        // Formats do not convert what the registers hold; it means something else from now on.
        if (!counted && this.#counting) this.#take();
        else if (counted && this.#counting) this.#show();
        return;
      }
      case RtcRegister.C:
      case RtcRegister.D:
        return;
    }
    this.#bytes[register] = value;
    const isTime = register <= TimeRegister.YEAR && register !== TimeRegister.SECONDS_ALARM &&
      register !== TimeRegister.MINUTES_ALARM && register !== TimeRegister.HOURS_ALARM;
    if ((isTime || register === RtcRegister.CENTURY) && this.#counting) this.#take();
  }

  /** Sets a byte of RAM without any other effect, as firmware has left it. */
  preset(register: number, value: number): void {
    this.#bytes[register] = value;
  }

  /** RESET: enables and flags are cleared; the time goes on (data sheet, "RESET"). */
  reset(now: number): void {
    this.update(now);
    this.#bytes[RtcRegister.A] = FIRMWARE_A;
    this.#bytes[RtcRegister.B] = FIRMWARE_B;
    this.#flags = 0;
    this.#show();
  }

  /** Counts up to `now`, and sets the flags of what happened. */
  update(now: number): void {
    if (now <= this.#checked) return;
    if (this.#running) {
      const period = periodOf(this.#a);
      if (period !== 0 && this.#ticks(now, period) !== this.#ticks(this.#checked, period)) {
        this.#flags |= PERIODIC;
      }
      const passed = Math.floor((now - this.#boundary) / RTC_FREQUENCY);
      if (passed > 0) this.#count(passed);
    }
    this.#checked = now;
  }

  /** How many periods are complete; the chain's phase is that of the seconds. */
  #ticks(cycles: number, period: number): number {
    return Math.floor((cycles - this.#boundary) / period);
  }

  #count(passed: number): void {
    this.#boundary += passed * RTC_FREQUENCY;
    if (!this.#counting) return;
    for (let i = 1; i <= Math.min(passed, SECONDS_PER_DAY); i++) {
      if (!alarmMatches(this.#bytes, this.#b, this.#seconds + i)) continue;
      this.#flags |= ALARM;
      break;
    }
    const midnights = Math.floor((this.#seconds + passed) / SECONDS_PER_DAY) -
      Math.floor(this.#seconds / SECONDS_PER_DAY);
    this.#seconds += passed;
    this.#weekday = (this.#weekday - 1 + midnights) % 7 + 1;
    this.#flags |= UPDATE;
    this.#show();
  }

  /** When the interrupt pin rises next if nobody writes anything; `Infinity` if it does not. */
  nextInterrupt(now: number): number {
    this.update(now);
    if (this.level || !this.#running) return Infinity;
    let next = Infinity;
    const b = this.#b;
    const period = periodOf(this.#a);
    if ((b & PERIODIC) !== 0 && period !== 0) {
      next = this.#boundary + (this.#ticks(now, period) + 1) * period;
    }
    if (!this.#counting) return next;
    if ((b & UPDATE) !== 0) next = Math.min(next, this.#boundary + RTC_FREQUENCY);
    if ((b & ALARM) !== 0) next = Math.min(next, this.#nextAlarm());
    return next;
  }

  #nextAlarm(): number {
    for (let i = 1; i <= SECONDS_PER_DAY; i++) {
      if (!alarmMatches(this.#bytes, this.#b, this.#seconds + i)) continue;
      return this.#boundary + i * RTC_FREQUENCY;
    }
    return Infinity;
  }

  /** The state. */
  save(): RtcSaved {
    return {
      bytes: this.#bytes.slice(),
      seconds: this.#seconds,
      weekday: this.#weekday,
      boundary: this.#boundary,
      checked: this.#checked,
      flags: this.#flags,
    };
  }

  /** Takes what {@linkcode Mc146818.save} returned. */
  load(saved: RtcSaved): void {
    this.#bytes.set(saved.bytes);
    this.#seconds = saved.seconds;
    this.#weekday = saved.weekday;
    this.#boundary = saved.boundary;
    this.#checked = saved.checked;
    this.#flags = saved.flags;
  }

  #show(): void {
    const time = { seconds: this.#seconds, weekday: this.#weekday };
    writeTime(this.#bytes, time, this.#b, RtcRegister.CENTURY);
  }

  /** Goes on from what the registers say. */
  #take(): void {
    const { seconds, weekday } = readTime(this.#bytes, this.#b, RtcRegister.CENTURY);
    this.#seconds = seconds;
    this.#weekday = weekday;
  }
}
