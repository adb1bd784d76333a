import { assertEquals } from "@std/assert";
import { acceleratedReads, acceleratedWrites, type LapicFeatures } from "./mod.ts";

const AMD: LapicFeatures = {
  vendor: "amd",
  x2apic: true,
  tscDeadline: false,
  cmci: false,
  eoiSuppression: false,
  extended: false,
};
const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, k) => first + k);

Deno.test("reads that hardware answers: KVM's readable registers but the current count", () => {
  // ID, version, TPR, PPR, LDR, SVR; ISR, TMR, IRR and ESR; ICR; LVT; initial count; divide.
  const expected = [
    ...[0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f],
    ...range(0x810, 0x828),
    0x830,
    ...range(0x832, 0x838),
    0x83e,
  ];
  assertEquals(acceleratedReads(AMD), expected);
  assertEquals(acceleratedReads({ ...AMD, extended: true }), expected);
  assertEquals(acceleratedReads({ ...AMD, vendor: "intel" }), expected);
  const cmci = acceleratedReads({ ...AMD, vendor: "intel", cmci: true });
  assertEquals(cmci, [...expected, 0x82f].sort((a, b) => a - b));
});

Deno.test("writes that hardware carries out: by what it has", () => {
  assertEquals(acceleratedWrites(false, false), [0x808]);
  assertEquals(acceleratedWrites(true, false), [0x808, 0x80b, 0x83f]);
  assertEquals(acceleratedWrites(true, true), [0x808, 0x80b, 0x830, 0x83f]);
});
