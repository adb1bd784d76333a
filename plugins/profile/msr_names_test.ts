import { assertEquals } from "@std/assert";
import { msrName } from "./msr_names.ts";

Deno.test("MSRs have the manuals' names", () => {
  assertEquals(msrName(0x10), "TSC");
  assertEquals(msrName(0xc000_0082), "LSTAR");
  assertEquals(msrName(0x830), "X2APIC_ICR");
  assertEquals(msrName(0x810), "X2APIC_ISR0");
  assertEquals(msrName(0x81f), "X2APIC_TMR7");
  assertEquals(msrName(0x827), "X2APIC_IRR7");
  assertEquals(msrName(0x80e), undefined);
  assertEquals(msrName(0x829), undefined);
  assertEquals(msrName(0x12345), undefined);
});
