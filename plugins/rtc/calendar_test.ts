import { assert, assertEquals } from "@std/assert";
import { alarmMatches, readTime, weekdayOf, writeTime } from "./calendar.ts";

const CENTURY = 0x32;

Deno.test("a time reads back in all four formats", () => {
  const dates = ["2000-02-29T23:59:59Z", "1999-12-31T00:00:00Z", "2026-11-21T12:34:56Z"];
  for (const text of [...dates, "0099-07-04T11:59:00Z", "2100-03-01T12:00:00Z"]) {
    const seconds = Date.parse(text) / 1000;
    for (const registerB of [0, 2, 4, 6]) {
      const bytes = new Uint8Array(128);
      const time = { seconds, weekday: weekdayOf(seconds) };
      writeTime(bytes, time, registerB, CENTURY);
      assertEquals(readTime(bytes, registerB, CENTURY), time, `${text} in format ${registerB}`);
    }
  }
});

Deno.test("registers are as the data sheet's examples have them", () => {
  // 21 February 1979, a Wednesday, 5:58:21 in the morning; and in the afternoon.
  const bytes = new Uint8Array(128);
  const at = (text: string, registerB: number): number[] => {
    const seconds = Date.parse(text) / 1000;
    writeTime(bytes, { seconds, weekday: weekdayOf(seconds) }, registerB, CENTURY);
    return [0, 2, 4, 6, 7, 8, 9, CENTURY].map((register) => bytes[register] as number);
  };
  const morning = "1979-02-21T05:58:21Z";
  assertEquals(at(morning, 0x04), [21, 58, 5, 4, 21, 2, 79, 19]);
  assertEquals(at(morning, 0x00), [0x21, 0x58, 0x05, 0x04, 0x21, 0x02, 0x79, 0x19]);
  assertEquals(at("1979-02-21T17:58:21Z", 0x00)[2], 0x85);
  assertEquals(at("1979-02-21T17:58:21Z", 0x02)[2], 0x17);
  assertEquals([at("1979-02-21T00:00:00Z", 0)[2], at("1979-02-21T12:00:00Z", 4)[2]], [0x12, 0x8c]);
});

Deno.test("an alarm matches its time of day; C0h and above match all", () => {
  const bytes = new Uint8Array(128);
  bytes.set([0, 0x30, 0, 0x15, 0, 0x07]);
  const seconds = Date.parse("2026-11-21T07:15:30Z") / 1000;
  assert(alarmMatches(bytes, 2, seconds));
  assert(!alarmMatches(bytes, 2, seconds + 1));
  assert(!alarmMatches(bytes, 2, seconds + 3600));
  bytes[5] = 0xc0;
  assert(alarmMatches(bytes, 2, seconds + 3600));
  bytes[3] = bytes[1] = 0xff;
  for (let i = 0; i < 100; i++) assert(alarmMatches(bytes, 2, seconds + i * 997));
});
