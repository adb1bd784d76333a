import { assertEquals } from "@std/assert";
import {
  device,
  eisaId,
  integer,
  ioPorts,
  irq,
  memory32,
  name,
  packageOf,
  path,
  resources,
  scope,
  string,
} from "./aml.ts";

const text = (value: string): number[] => [...new TextEncoder().encode(value)];

Deno.test("integers take the shortest form", () => {
  const cases: [number, number[]][] = [
    [0, [0x00]],
    [1, [0x01]],
    [2, [0x0a, 2]],
    [0xff, [0x0a, 0xff]],
    [0x100, [0x0b, 0, 1]],
    [0x1_0000, [0x0c, 0, 0, 1, 0]],
    [0x1_0000_0000, [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]],
  ];
  for (const [value, bytes] of cases) assertEquals(integer(value), bytes);
});

Deno.test("names have segments of four, and prefixes for two and more", () => {
  assertEquals(path("_HID"), text("_HID"));
  assertEquals(path("\\_SB"), [0x5c, ...text("_SB_")]);
  assertEquals(path("\\_SB.PCI0"), [0x5c, 0x2e, ...text("_SB_PCI0")]);
  assertEquals(path("A.B.C"), [0x2f, 3, ...text("A___B___C___")]);
  assertEquals(path("\\"), [0x5c, 0]);
});

Deno.test("identities are compressed as the specification's example", () => {
  // PNP0A03 is the integer 030AD041h (ACPI specification, 6.1.5 and 19.3.4).
  assertEquals(eisaId("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
});

Deno.test("package lengths count themselves, in one to four bytes", () => {
  const lengthOf = (content: number): number[] => {
    // A scope named A, and a string that makes its content as long as wanted.
    const bytes = scope("A", string("x".repeat(content - 6)));
    return bytes.slice(1, bytes.indexOf(0x41, 2));
  };
  assertEquals(lengthOf(62), [63]);
  // Bits 3:0 of the first byte are the lowest, its bits 7:6 count the others.
  assertEquals(lengthOf(63), [0x41, 0x04]);
  assertEquals(lengthOf(0xffd), [0x4f, 0xff]);
  assertEquals(lengthOf(0xffe), [0x81, 0x00, 0x01]);
  assertEquals(lengthOf(0xf_fffc), [0x8f, 0xff, 0xff]);
  assertEquals(lengthOf(0xf_fffd), [0xc1, 0x00, 0x00, 0x01]);
});

Deno.test("terms contain one another", () => {
  assertEquals(name("_UID", integer(3)), [0x08, ...text("_UID"), 0x0a, 3]);
  assertEquals(packageOf(integer(0), integer(5)), [0x12, 5, 2, 0, 0x0a, 5]);
  assertEquals(device("DEV0", name("_UID", integer(1))), [
    ...[0x5b, 0x82, 11],
    ...text("DEV0"),
    ...[0x08, ...text("_UID"), 1],
  ]);
});

Deno.test("resource descriptors, closed by an end tag", () => {
  assertEquals(ioPorts(0x3f8, 8), [0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8]);
  assertEquals([irq(4), irq(8)], [[0x22, 0x10, 0], [0x22, 0, 1]]);
  assertEquals(memory32(0xfed0_0000, 0x400), [0x86, 9, 0, 1, 0, 0, 0xd0, 0xfe, 0, 4, 0, 0]);
  assertEquals(resources(irq(4)), [0x11, 8, 0x0a, 5, 0x22, 0x10, 0, 0x79, 0]);
});
