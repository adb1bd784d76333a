/**
 * One counter of an 8254 (Intel 231164, "8254 Programmable Interval Timer").
 *
 * Time is given as the number of cycles that the clock input has had; nothing happens between calls,
 * everything follows from when what was written. The figures in comments are the data sheet's.
 *
 * @module
 */

/** Bits of a control word and, but for the first two, of the status byte. */
export const Control = {
  /** Which counter; 3 is the read-back command. */
  SELECT_SHIFT: 6,
  /** What is read and written: 0 latches the count, 1 is the low byte, 2 the high byte, 3 both. */
  ACCESS_SHIFT: 4,
  /** Mode, 0 to 5; 6 and 7 are 2 and 3. */
  MODE_SHIFT: 1,
  /** Counts in decimal. */
  BCD: 1,
} as const;

/** Status byte: level of OUT. */
const STATUS_OUT = 0x80;
/** Status byte: the count written last has not been loaded yet. */
const STATUS_NULL = 0x40;

/** Which bytes of the count are accessed. */
const Access = { LOW: 1, HIGH: 2, BOTH: 3 } as const;

/** A counter's state, as plain data. Times are in cycles. */
export type ChannelSaved = {
  /** Bits 5:0 of the control word. */
  readonly control: number;
  /** Level of GATE. */
  readonly gate: boolean;
  /** Whether a count has been loaded, or is to be, since the control word. */
  readonly armed: boolean;
  /** The count, 1 to 65536. */
  readonly count: number;
  /** When it was loaded. */
  readonly start: number;
  /** Cycles counted when GATE stopped it, −1 while it runs. */
  readonly stopped: number;
  /** The count that replaces it at the end of a period, 0 if there is none. */
  readonly next: number;
  /** When it does. */
  readonly boundary: number;
  /** Mode 1: whether it was triggered while OUT was low, which it then stays. */
  readonly retriggered: boolean;
  /** First byte of two that are written, −1 if the next is the first. */
  readonly written: number;
  /** Whether the next byte read is the second of two. */
  readonly second: boolean;
  /** Bytes of the latched count that are still to be read, 0 to 2. */
  readonly latched: number;
  /** The latched count. */
  readonly latch: number;
  /** The latched status, −1 if there is none. */
  readonly status: number;
};

/** One counter. */
export class Channel {
  #control = 0;
  #gate: boolean;
  #armed = false;
  #count = 0x1_0000;
  #start = 0;
  #stopped = -1;
  #next = 0;
  #boundary = 0;
  #retriggered = false;
  #written = -1;
  #second = false;
  #latched = 0;
  #latch = 0;
  #status = -1;

  /** @param gate Level of GATE at first. */
  constructor(gate: boolean) {
    this.#gate = gate;
  }

  get #mode(): number {
    const mode = (this.#control >> Control.MODE_SHIFT) & 7;
    return mode > 5 ? mode - 4 : mode;
  }

  get #access(): number {
    return (this.#control >> Control.ACCESS_SHIFT) & 3;
  }

  get #bcd(): boolean {
    return (this.#control & Control.BCD) !== 0;
  }

  /** Modes 2 and 3 go on by themselves. */
  get #periodic(): boolean {
    return this.#mode === 2 || this.#mode === 3;
  }

  /** Modes 1 and 5 begin when GATE rises, and not before. */
  get #triggered(): boolean {
    return this.#mode === 1 || this.#mode === 5;
  }

  /** Length of the high half of a period of mode 3. */
  get #half(): number {
    return Math.ceil(this.#count / 2);
  }

  /** Level of GATE. */
  get gate(): boolean {
    return this.#gate;
  }

  /** Cycles since the count was loaded; negative until it is. */
  #elapsed(now: number): number {
    return this.#stopped >= 0 ? this.#stopped : now - this.#start;
  }

  /** A count that was written in a periodic mode takes over when a period, or half of one, ends. */
  #advance(now: number): void {
    if (this.#next === 0 || this.#stopped >= 0) return;
    const boundary = this.#boundary;
    if (now < boundary) return;
    const high = this.#mode === 2 || (boundary - this.#start) % this.#count === 0;
    this.#count = this.#next;
    this.#next = 0;
    this.#start = high ? boundary : boundary - this.#half;
  }

  #endOfPart(now: number): number {
    const elapsed = Math.max(0, now - this.#start);
    const period = Math.floor(elapsed / this.#count) * this.#count;
    const half = this.#start + period + this.#half;
    return this.#mode === 3 && now < half ? half : this.#start + period + this.#count;
  }

  // Writing

  /** Takes a control word, bits 5:0 with an access other than 0: counting stops until a count comes. */
  setControl(control: number): void {
    this.#control = control & 0x3f;
    this.#armed = false;
    this.#stopped = -1;
    this.#next = 0;
    this.#written = -1;
    this.#second = false;
    this.#latched = 0;
    this.#status = -1;
  }

  /** Writes a byte of the count. */
  write(value: number, now: number): void {
    switch (this.#access) {
      case Access.LOW:
        return this.#load(value, now);
      case Access.HIGH:
        return this.#load(value << 8, now);
    }
    if (this.#written < 0) {
      this.#written = value;
      // In mode 0 the first byte stops the count, and OUT goes low.
      if (this.#mode === 0) this.#armed = false;
      return;
    }
    const count = this.#written | (value << 8);
    this.#written = -1;
    this.#load(count, now);
  }

  #load(value: number, now: number): void {
    this.#advance(now);
    const count = this.#decode(value);
    if (this.#armed && this.#periodic && this.#stopped < 0 && now >= this.#start) {
      this.#next = count;
      this.#boundary = this.#endOfPart(now);
      return;
    }
    const counting = this.#armed && this.#triggered && now < this.#start + this.#count;
    this.#armed = true;
    if (counting) {
      // The one-shot under way goes on; the next trigger takes the new count.
      this.#next = count;
      this.#boundary = Infinity;
      return;
    }
    this.#count = count;
    this.#next = 0;
    // Loaded with the next cycle, if GATE lets it.
    this.#start = this.#triggered ? Infinity : now + 1;
    this.#stopped = this.#gate || this.#triggered ? -1 : 0;
    this.#retriggered = false;
  }

  /** Drives GATE. */
  setGate(level: boolean, now: number): void {
    if (level === this.#gate) return;
    this.#advance(now);
    this.#gate = level;
    if (!this.#armed) return;
    if (this.#triggered) {
      if (level) this.#trigger(now);
    } else if (this.#periodic) {
      // Low stops it with OUT high; the rise begins a period.
      if (level) this.#trigger(now);
      else this.#stopped = 0;
    } else if (level) {
      this.#start = now - this.#stopped;
      this.#stopped = -1;
    } else {
      this.#stopped = Math.max(0, now - this.#start);
    }
  }

  #trigger(now: number): void {
    this.#retriggered = this.#mode === 1 && !this.output(now);
    if (this.#next !== 0) this.#count = this.#next;
    this.#next = 0;
    this.#start = now + 1;
    this.#stopped = -1;
  }

  // Reading

  /** Latches the count, unless one is latched that was not read yet. */
  latchCount(now: number): void {
    if (this.#latched > 0) return;
    this.#latch = this.value(now);
    this.#latched = this.#access === Access.BOTH ? 2 : 1;
  }

  /** Latches the status, unless one is latched that was not read yet. */
  latchStatus(now: number): void {
    if (this.#status >= 0) return;
    this.#advance(now);
    const waits = !this.#armed || this.#next !== 0 || now < this.#start;
    this.#status = this.#control | (this.output(now) ? STATUS_OUT : 0) | (waits ? STATUS_NULL : 0);
  }

  /** Reads a byte: latched status, latched count, or the count as it runs. */
  read(now: number): number {
    if (this.#status >= 0) {
      const status = this.#status;
      this.#status = -1;
      return status;
    }
    const value = this.#latched > 0 ? this.#latch : this.value(now);
    if (this.#latched > 0) this.#latched--;
    if (this.#access === Access.HIGH) return value >> 8;
    if (this.#access === Access.LOW) return value & 0xff;
    const second = this.#second;
    this.#second = !second;
    return second ? value >> 8 : value & 0xff;
  }

  /** The count, as it is read. */
  value(now: number): number {
    this.#advance(now);
    const range = this.#bcd ? 10_000 : 0x1_0000;
    const elapsed = this.#elapsed(now);
    let count = this.#count;
    if (this.#armed && elapsed >= 0 && elapsed !== Infinity) {
      if (this.#mode === 2) count -= elapsed % count;
      else if (this.#mode === 3) count = this.#halvedCount(elapsed % count);
      else count -= elapsed % range;
    }
    return this.#encode(((count % range) + range) % range);
  }

  /** Mode 3 counts down by two, twice a period, from the even count that is not above. */
  #halvedCount(phase: number): number {
    const top = this.#count - (this.#count % 2);
    const half = this.#half;
    return top - 2 * (phase < half ? phase : phase - half);
  }

  // OUT

  /** Level of OUT. */
  output(now: number): boolean {
    this.#advance(now);
    if (!this.#armed) return this.#mode !== 0;
    if (this.#periodic && this.#stopped >= 0) return true;
    const elapsed = this.#elapsed(now);
    const count = this.#count;
    switch (this.#mode) {
      case 0:
        return elapsed >= count;
      case 1:
        return elapsed < 0 ? !this.#retriggered : elapsed >= count;
      case 2:
        return elapsed < 0 || elapsed % count !== count - 1;
      case 3:
        return elapsed < 0 || elapsed % count < this.#half;
      default:
        return elapsed < count || elapsed >= count + 1;
    }
  }

  /** The first time after `now` at which OUT changes, if nothing is written; `Infinity` if it does not. */
  nextChange(now: number): number {
    this.#advance(now);
    if (!this.#armed || this.#stopped >= 0 || this.#start === Infinity) return Infinity;
    const count = this.#count;
    const start = this.#start;
    if (!this.#periodic) {
      const first = this.#mode !== 1 ? start + count : this.#retriggered ? now : start;
      const last = this.#mode === 0 ? first : this.#mode === 1 ? start + count : first + 1;
      return now < first ? first : now < last ? last : Infinity;
    }
    const fall = this.#mode === 2 ? count - 1 : this.#half;
    if (fall === 0 || fall === count) return Infinity;
    const elapsed = Math.max(0, now - start);
    const period = start + Math.floor(elapsed / count) * count;
    const change = now < period + fall ? period + fall : period + count;
    // Where a new count takes over, the level is worked out anew.
    return this.#next === 0 ? change : Math.min(change, this.#boundary);
  }

  /** A count of 0 stands for the largest. */
  #decode(value: number): number {
    if (!this.#bcd) return value === 0 ? 0x1_0000 : value;
    let decimal = 0;
    for (let shift = 12; shift >= 0; shift -= 4) decimal = 10 * decimal + ((value >> shift) & 15);
    return decimal === 0 ? 10_000 : decimal;
  }

  #encode(value: number): number {
    if (!this.#bcd) return value;
    let digits = 0;
    for (let shift = 0; shift < 16; shift += 4) {
      digits |= value % 10 << shift;
      value = Math.floor(value / 10);
    }
    return digits;
  }

  // State

  /** Everything that is needed to make it again. */
  save(): ChannelSaved {
    return {
      control: this.#control,
      gate: this.#gate,
      armed: this.#armed,
      count: this.#count,
      start: this.#start,
      stopped: this.#stopped,
      next: this.#next,
      boundary: this.#boundary,
      retriggered: this.#retriggered,
      written: this.#written,
      second: this.#second,
      latched: this.#latched,
      latch: this.#latch,
      status: this.#status,
    };
  }

  /** Takes what {@linkcode Channel.save} returned. */
  load(saved: ChannelSaved): void {
    this.#control = saved.control;
    this.#gate = saved.gate;
    this.#armed = saved.armed;
    this.#count = saved.count;
    this.#start = saved.start;
    this.#stopped = saved.stopped;
    this.#next = saved.next;
    this.#boundary = saved.boundary;
    this.#retriggered = saved.retriggered;
    this.#written = saved.written;
    this.#second = saved.second;
    this.#latched = saved.latched;
    this.#latch = saved.latch;
    this.#status = saved.status;
  }
}
