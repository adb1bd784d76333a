import { assertEquals } from "@std/assert";
import {
  attributeNames,
  bitNames,
  CR0_BITS,
  CR4_BITS,
  describePageFaultError,
  describeSegment,
  describeSelectorError,
  EFER_BITS,
  entryFlags,
  flagNames,
  systemTypeName,
} from "./bits.ts";

Deno.test("control registers by the names of their bits", () => {
  assertEquals(bitNames(0x8001_0011n, CR0_BITS), "PE ET WP PG");
  assertEquals(bitNames(0x4_06b0n, CR4_BITS), "PSE PAE PGE OSFXSR OSXMMEXCPT OSXSAVE");
  assertEquals(bitNames(0x1d01n, EFER_BITS), "SCE LME LMA NXE SVME");
  assertEquals(bitNames(1n << 63n, CR0_BITS), "bit63");
  assertEquals(bitNames(0n, CR0_BITS), "");
});

Deno.test("flags", () => {
  assertEquals(flagNames(2n), "");
  assertEquals(flagNames(0x3246n), "PF ZF IF IOPL=3");
  assertEquals(flagNames(0x8d7n), "CF PF AF ZF SF OF");
});

Deno.test("page-table entries", () => {
  assertEquals(entryFlags("PTE", 0n), "0: not present");
  assertEquals(entryFlags("PTE", 0x1000n), "not present");
  assertEquals(entryFlags("PTE", 0x8000_0000_0000_01e7n), "P W U A D G NX");
  assertEquals(entryFlags("PDE", 0xe3n), "P W A D PS");
});

Deno.test("segments", () => {
  assertEquals(attributeNames(0xa9b), "64-bit code, readable, DPL 0");
  assertEquals(attributeNames(0xcfd), "32-bit code, conforming, execute-only, DPL 3");
  assertEquals(attributeNames(0x96), "16-bit data, expand-down, writable, DPL 0");
  assertEquals(attributeNames(0xcf1), "32-bit data, read-only, DPL 3");
  assertEquals(attributeNames(0x8b), "TSS, busy, DPL 0");
  assertEquals(attributeNames(0x0b), "not present");
  assertEquals(systemTypeName(8), "reserved type 8");
  assertEquals(
    describeSegment({ selector: 8, base: 0x10n, limit: 0xffff, attributes: 0x93 }),
    "0008  base 0000000000000010  limit 0000ffff  16-bit data, writable, DPL 0",
  );
});

Deno.test("error codes", () => {
  assertEquals(describeSelectorError(0), "0");
  assertEquals(describeSelectorError(0x33), "33h: IDT vector 6, external");
  assertEquals(describeSelectorError(0x10), "10h: GDT selector 10h");
  assertEquals(describeSelectorError(0x14), "14h: LDT selector 14h");
  assertEquals(describePageFaultError(0, false), "supervisor read, not present");
  assertEquals(describePageFaultError(7, false), "user write, not permitted");
  assertEquals(describePageFaultError(0x15, true), "user instruction fetch, not permitted");
  assertEquals(describePageFaultError(9, false), "supervisor read, reserved bit set in an entry");
  assertEquals(describePageFaultError(0x25, false), "user read, protection key");
});
