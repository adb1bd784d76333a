/**
 * The time-of-day registers of an MC146818 (data sheet, "Time, calendar, and alarm locations"), and the
 * seconds that they stand for.
 *
 * @module
 */

/** Register numbers of the time of day, the alarm and the calendar. */
export const TimeRegister = {
  /** Seconds, 0 to 59. */
  SECONDS: 0,
  /** Seconds of the alarm; C0h to FFh is every second. */
  SECONDS_ALARM: 1,
  /** Minutes, 0 to 59. */
  MINUTES: 2,
  /** Minutes of the alarm. */
  MINUTES_ALARM: 3,
  /** Hours: 0 to 23, or 1 to 12 with bit 7 for the afternoon. */
  HOURS: 4,
  /** Hours of the alarm. */
  HOURS_ALARM: 5,
  /** Day of the week, 1 for Sunday to 7. */
  WEEKDAY: 6,
  /** Day of the month, 1 to 31. */
  DAY: 7,
  /** Month, 1 to 12. */
  MONTH: 8,
  /** Year of the century, 0 to 99. */
  YEAR: 9,
} as const;

/** Register B: binary instead of BCD. */
const BINARY = 0x04;
/** Register B: 24 hours instead of 12. */
const HOURS_24 = 0x02;
const AFTERNOON = 0x80;

/** The time of day in numbers. */
export interface CalendarTime {
  /** Whole seconds since the beginning of 1970, UTC. */
  readonly seconds: number;
  /** Day of the week, 1 to 7: a counter of its own, which software may have set to anything. */
  readonly weekday: number;
}

function encode(value: number, registerB: number): number {
  return (registerB & BINARY) !== 0 ? value : Math.floor(value / 10) << 4 | value % 10;
}

function decode(value: number, registerB: number): number {
  return (registerB & BINARY) !== 0 ? value : (value >> 4) * 10 + (value & 0x0f);
}

/** An hour, 0 to 23, as a register has it. */
export function encodeHour(hour: number, registerB: number): number {
  if ((registerB & HOURS_24) !== 0) return encode(hour, registerB);
  const of12 = hour % 12 === 0 ? 12 : hour % 12;
  return encode(of12, registerB) | (hour >= 12 ? AFTERNOON : 0);
}

function decodeHour(value: number, registerB: number): number {
  if ((registerB & HOURS_24) !== 0) return decode(value, registerB);
  return decode(value & ~AFTERNOON, registerB) % 12 + ((value & AFTERNOON) !== 0 ? 12 : 0);
}

/** Writes a time into the registers 0, 2, 4 and 6 to 9 of `bytes`, and the century into `century`. */
export function writeTime(
  bytes: Uint8Array,
  { seconds, weekday }: CalendarTime,
  registerB: number,
  century: number,
): void {
  const date = new Date(seconds * 1000);
  const year = date.getUTCFullYear();
  bytes[TimeRegister.SECONDS] = encode(date.getUTCSeconds(), registerB);
  bytes[TimeRegister.MINUTES] = encode(date.getUTCMinutes(), registerB);
  bytes[TimeRegister.HOURS] = encodeHour(date.getUTCHours(), registerB);
  bytes[TimeRegister.WEEKDAY] = encode(weekday, registerB);
  bytes[TimeRegister.DAY] = encode(date.getUTCDate(), registerB);
  bytes[TimeRegister.MONTH] = encode(date.getUTCMonth() + 1, registerB);
  bytes[TimeRegister.YEAR] = encode(year % 100, registerB);
  bytes[century] = encode(Math.floor(year / 100), registerB);
}

/**
 * The time that the registers stand for. Values that no clock shows, such as a 31st of February, count
 * on from the last one there is; the data sheet leaves them undefined.
 */
export function readTime(bytes: Uint8Array, registerB: number, century: number): CalendarTime {
  const at = (register: number): number => decode(bytes[register] as number, registerB);
  const year = at(century) * 100 + at(TimeRegister.YEAR);
  const milliseconds = Date.UTC(
    year,
    at(TimeRegister.MONTH) - 1,
    at(TimeRegister.DAY),
    decodeHour(bytes[TimeRegister.HOURS] as number, registerB),
    at(TimeRegister.MINUTES),
    at(TimeRegister.SECONDS),
  );
  // Date.UTC takes the years 0 to 99 for those of the twentieth century.
  const shift = year < 100 ? Date.UTC(year + 400, 0) - Date.UTC(year + 2300, 0) : 0;
  return { seconds: (milliseconds + shift) / 1000, weekday: at(TimeRegister.WEEKDAY) };
}

/** Day of the week of a time, 1 for Sunday to 7 for Saturday. */
export function weekdayOf(seconds: number): number {
  return new Date(seconds * 1000).getUTCDay() + 1;
}

/** From C0h on an alarm register matches everything. */
const DONT_CARE = 0xc0;

/** Whether the alarm registers match the time of day at `seconds`. */
export function alarmMatches(bytes: Uint8Array, registerB: number, seconds: number): boolean {
  const day = ((seconds % 86_400) + 86_400) % 86_400;
  const match = (register: number, value: number): boolean => {
    const alarm = bytes[register] as number;
    return alarm >= DONT_CARE || alarm === value;
  };
  return match(TimeRegister.SECONDS_ALARM, encode(day % 60, registerB)) &&
    match(TimeRegister.MINUTES_ALARM, encode(Math.floor(day / 60) % 60, registerB)) &&
    match(TimeRegister.HOURS_ALARM, encodeHour(Math.floor(day / 3600), registerB));
}
