/**
 * The registers of a high precision event timer block (IA-PC HPET Specification 1.0a, section 2.3).
 *
 * Values of 64 bits are two halves of 32; nothing here makes a bigint.
 *
 * @module
 */

/** Cycles of the main counter in a second. */
export const HPET_FREQUENCY = 100_000_000;
/** Timers of the block. */
export const HPET_TIMERS = 3;

/** Offsets of the registers. */
export const HpetRegister = {
  /** Capabilities and identity. */
  CAPABILITIES: 0x000,
  /** Configuration. */
  CONFIGURATION: 0x010,
  /** Interrupt status of level-triggered timers. */
  STATUS: 0x020,
  /** The main counter. */
  COUNTER: 0x0f0,
  /** The first timer; the others follow every 20h. */
  TIMERS: 0x100,
} as const;

const TIMER_SIZE = 0x20;
const TIMER_CONFIGURATION = 0x00;
const TIMER_COMPARATOR = 0x08;
const TIMER_ROUTE = 0x10;

/** Period of the counter in femtoseconds. */
const PERIOD: number = 1e15 / HPET_FREQUENCY;
/** Vendor 8086h, a counter of 64 bits, three timers, revision 1; no legacy replacement routes. */
const CAPABILITIES: number = (0x8086 * 0x1_0000 + 0x2000 + (HPET_TIMERS - 1) * 0x100 + 1) >>> 0;

const ENABLE = 0x01;

/** Bits of a timer's configuration. */
const TimerBits = {
  LEVEL: 0x0002,
  INTERRUPT: 0x0004,
  PERIODIC: 0x0008,
  PERIODIC_CAPABLE: 0x0010,
  SIZE_CAPABLE: 0x0020,
  SET_VALUE: 0x0040,
  MODE_32: 0x0100,
  ROUTE: 0x3e00,
  FSB: 0x4000,
  FSB_CAPABLE: 0x8000,
} as const;
const ROUTE_SHIFT = 9;
/** What of a timer's configuration can be written. SET_VALUE reads as 0. */
const WRITABLE: number = TimerBits.LEVEL | TimerBits.INTERRUPT | TimerBits.PERIODIC |
  TimerBits.MODE_32 | TimerBits.ROUTE | TimerBits.FSB;
const FIXED: number = TimerBits.PERIODIC_CAPABLE | TimerBits.SIZE_CAPABLE | TimerBits.FSB_CAPABLE;

/** Interrupt lines that a timer can be routed to: 20 to 23, which a PC's other devices leave alone. */
export const HPET_ROUTES = 0x00f0_0000;

const TWO_32: number = 2 ** 32;

/** What the block is connected to. */
export interface HpetBoard {
  /** Drives an interrupt line. */
  line(line: number, level: boolean): void;
  /** Sends a message-signalled interrupt. */
  message(address: number, data: number): void;
}

/** One timer's registers. */
class TimerRegisters {
  configuration = 0;
  comparatorLow = 0xffff_ffff;
  comparatorHigh = 0xffff_ffff;
  /** Added to the comparator at each match in periodic mode. */
  periodLow = 0;
  periodHigh = 0;
  routeAddress = 0;
  routeData = 0;
  /** The next write of the comparator's low half goes to the comparator of a periodic timer as well. */
  setValue = false;
  /** Whether the last write of the comparator's low half went to the comparator, not only the period. */
  accumulated = true;
  /** Cycle of the next match. */
  match = Infinity;

  has(bit: number): boolean {
    return (this.configuration & bit) !== 0;
  }
}

/** The state as plain data: numbers in the order in which they are declared. */
export type HpetSaved = {
  /** Configuration, status, counter's halves, and when it was started. */
  readonly block: readonly number[];
  /** The fields of each timer. */
  readonly timers: readonly (readonly number[])[];
};

/** The block. All methods take the number of cycles that its oscillator has done. */
export class Hpet {
  readonly #board: HpetBoard;
  readonly #timers: readonly TimerRegisters[] = Array.from(
    { length: HPET_TIMERS },
    () => new TimerRegisters(),
  );
  #configuration = 0;
  #status = 0;
  /** The counter at cycle {@linkcode #since}, or since it stands. */
  #low = 0;
  #high = 0;
  #since = 0;

  /** A block after power-up. */
  constructor(board: HpetBoard) {
    this.#board = board;
  }

  get #enabled(): boolean {
    return (this.#configuration & ENABLE) !== 0;
  }

  /** Brings the counter's halves up to `now`. */
  #advance(now: number): void {
    if (this.#enabled) {
      const low = this.#low + (now - this.#since) % TWO_32;
      this.#high = (this.#high + Math.floor((now - this.#since) / TWO_32) +
        (low >= TWO_32 ? 1 : 0)) % TWO_32;
      this.#low = low % TWO_32;
    }
    this.#since = now;
  }

  /** Reads 32 bits at a multiple of 4. */
  read(offset: number, now: number): number {
    switch (offset) {
      case HpetRegister.CAPABILITIES:
        return CAPABILITIES;
      case HpetRegister.CAPABILITIES + 4:
        return PERIOD;
      case HpetRegister.CONFIGURATION:
        return this.#configuration;
      case HpetRegister.STATUS:
        return this.#status;
      case HpetRegister.COUNTER:
        this.#advance(now);
        return this.#low;
      case HpetRegister.COUNTER + 4:
        this.#advance(now);
        return this.#high;
    }
    const timer = this.#timerAt(offset);
    if (timer === undefined) return 0;
    switch (offset % TIMER_SIZE) {
      case TIMER_CONFIGURATION:
        return timer.configuration | FIXED;
      case TIMER_CONFIGURATION + 4:
        return HPET_ROUTES;
      case TIMER_COMPARATOR:
        return timer.comparatorLow;
      case TIMER_COMPARATOR + 4:
        return timer.comparatorHigh;
      case TIMER_ROUTE:
        return timer.routeData;
      case TIMER_ROUTE + 4:
        return timer.routeAddress;
      default:
        return 0;
    }
  }

  /** Writes 32 bits at a multiple of 4. */
  write(offset: number, value: number, now: number): void {
    this.#advance(now);
    switch (offset) {
      case HpetRegister.CONFIGURATION:
        this.#configuration = value & ENABLE;
        break;
      case HpetRegister.STATUS:
        this.#acknowledge(value);
        return;
      case HpetRegister.COUNTER:
        // The specification leaves writes to a counter that counts undefined; they take effect.
        this.#low = value;
        break;
      case HpetRegister.COUNTER + 4:
        this.#high = value;
        break;
      default: {
        const timer = this.#timerAt(offset);
        if (timer !== undefined) this.#writeTimer(timer, offset % TIMER_SIZE, value);
      }
    }
    for (const timer of this.#timers) this.#schedule(timer, now);
  }

  #timerAt(offset: number): TimerRegisters | undefined {
    return offset < HpetRegister.TIMERS
      ? undefined
      : this.#timers[Math.floor((offset - HpetRegister.TIMERS) / TIMER_SIZE)];
  }

  #writeTimer(timer: TimerRegisters, register: number, value: number): void {
    switch (register) {
      case TIMER_CONFIGURATION: {
        const was = this.#driven(timer);
        timer.configuration = value & WRITABLE;
        timer.setValue = (value & TimerBits.SET_VALUE) !== 0 && timer.has(TimerBits.PERIODIC);
        if (timer.has(TimerBits.MODE_32)) timer.comparatorHigh = timer.periodHigh = 0;
        const is = this.#driven(timer);
        if (was === is) return;
        if (was >= 0) this.#board.line(was, false);
        if (is >= 0) this.#board.line(is, true);
        return;
      }
      case TIMER_COMPARATOR:
        timer.accumulated = !timer.has(TimerBits.PERIODIC) || timer.setValue;
        if (timer.accumulated) timer.comparatorLow = value;
        timer.periodLow = value;
        timer.setValue = false;
        return;
      case TIMER_COMPARATOR + 4:
        if (timer.has(TimerBits.MODE_32)) return;
        // The high half goes where the low half, written before it, went.
        if (timer.accumulated) timer.comparatorHigh = value;
        timer.periodHigh = value;
        return;
      case TIMER_ROUTE:
        timer.routeData = value;
        return;
      case TIMER_ROUTE + 4:
        timer.routeAddress = value;
    }
  }

  /** The line that a level-triggered timer holds high; -1 for none. */
  #driven(timer: TimerRegisters): number {
    const pending = (this.#status & 1 << this.#timers.indexOf(timer)) !== 0;
    const level = timer.has(TimerBits.LEVEL) && timer.has(TimerBits.INTERRUPT) &&
      !timer.has(TimerBits.FSB);
    return pending && level ? lineOf(timer) : -1;
  }

  #acknowledge(value: number): void {
    for (const [k, timer] of this.#timers.entries()) {
      if ((value & this.#status & 1 << k) === 0) continue;
      const line = this.#driven(timer);
      this.#status &= ~(1 << k);
      if (line >= 0) this.#board.line(line, false);
    }
  }

  /** Finds out when the timer matches next: a whole turn of the counter away if it does so now. */
  #schedule(timer: TimerRegisters, now: number): void {
    if (!this.#enabled) {
      timer.match = Infinity;
      return;
    }
    const narrow = timer.has(TimerBits.MODE_32);
    const borrow = timer.comparatorLow < this.#low ? 1 : 0;
    const low = timer.comparatorLow - this.#low + borrow * TWO_32;
    const high = narrow ? 0 : (timer.comparatorHigh - this.#high - borrow + 2 * TWO_32) % TWO_32;
    const distance = high * TWO_32 + low;
    timer.match = now + (distance === 0 ? narrow ? TWO_32 : TWO_32 * TWO_32 : distance);
  }

  /** Carries out what has matched by `now`. */
  update(now: number): void {
    this.#advance(now);
    for (const [k, timer] of this.#timers.entries()) {
      if (timer.match > now) continue;
      if (timer.has(TimerBits.PERIODIC)) this.#next(timer, now - timer.match);
      this.#schedule(timer, now);
      this.#interrupt(timer, k);
    }
  }

  /** Moves the comparator of a periodic timer beyond the counter, which is `late` cycles past it. */
  #next(timer: TimerRegisters, late: number): void {
    const period = timer.periodHigh * TWO_32 + timer.periodLow;
    if (period === 0) return;
    const step = (Math.floor(late / period) + 1) * period;
    const low = timer.comparatorLow + step % TWO_32;
    timer.comparatorLow = low % TWO_32;
    if (timer.has(TimerBits.MODE_32)) return;
    const carry = low >= TWO_32 ? 1 : 0;
    timer.comparatorHigh = (timer.comparatorHigh + Math.floor(step / TWO_32) + carry) % TWO_32;
  }

  #interrupt(timer: TimerRegisters, index: number): void {
    const level = timer.has(TimerBits.LEVEL);
    if (level) this.#status |= 1 << index;
    if (!timer.has(TimerBits.INTERRUPT)) return;
    if (timer.has(TimerBits.FSB)) {
      this.#board.message(timer.routeAddress, timer.routeData);
      return;
    }
    const line = lineOf(timer);
    if (line < 0) return;
    this.#board.line(line, true);
    if (!level) this.#board.line(line, false);
  }

  /** When the next timer matches; `Infinity` if none that interrupts does. */
  get nextMatch(): number {
    let next = Infinity;
    for (const timer of this.#timers) {
      // Status bits of level-triggered timers are set without the interrupt, too.
      if (timer.has(TimerBits.INTERRUPT) || timer.has(TimerBits.LEVEL)) {
        next = Math.min(next, timer.match);
      }
    }
    return next;
  }

  /** RESET. */
  reset(now: number): void {
    this.#acknowledge(0xffff_ffff);
    this.load({ block: [0, 0, 0, 0, now], timers: [] });
    for (const timer of this.#timers) Object.assign(timer, new TimerRegisters());
  }

  /** The state. */
  save(): HpetSaved {
    return {
      block: [this.#configuration, this.#status, this.#low, this.#high, this.#since],
      timers: this.#timers.map((timer) => Object.values(timer).map(Number)),
    };
  }

  /** Takes what {@linkcode Hpet.save} returned. */
  load({ block, timers }: HpetSaved): void {
    const [configuration = 0, status = 0, low = 0, high = 0, since = 0] = block;
    this.#configuration = configuration;
    this.#status = status;
    this.#low = low;
    this.#high = high;
    this.#since = since;
    for (const [k, values] of timers.entries()) {
      const timer = this.#timers[k];
      if (timer === undefined) continue;
      const keys = Object.keys(timer);
      Object.assign(timer, Object.fromEntries(keys.map((key, i) => [key, values[i]])));
      timer.setValue = Boolean(timer.setValue);
      timer.accumulated = Boolean(timer.accumulated);
    }
  }
}

/** The line that a timer is routed to; -1 if it cannot be. */
function lineOf(timer: TimerRegisters): number {
  const line = (timer.configuration & TimerBits.ROUTE) >> ROUTE_SHIFT;
  return (HPET_ROUTES >>> line & 1) !== 0 ? line : -1;
}
