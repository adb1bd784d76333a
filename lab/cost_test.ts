import { assertEquals } from "@std/assert";
import { exitReasons } from "../core/mod.ts";
import { exitCycles, HANDLER_CYCLES, handlerClass, WORLD_SWITCH_CYCLES } from "./cost.ts";

Deno.test("every exit costs a world switch and its handler", () => {
  for (const { name } of exitReasons()) {
    assertEquals(exitCycles(name) - WORLD_SWITCH_CYCLES, HANDLER_CYCLES[handlerClass(name)]);
  }
  assertEquals(handlerClass("WRMSR"), "register");
  assertEquals(handlerClass("NESTED_PAGE_FAULT"), "paging");
  assertEquals(handlerClass("CR_ACCESS"), "decode");
  assertEquals(handlerClass("IO"), "device");
  // A trap tells which register was written; at a fault the instruction has to be decoded.
  assertEquals(handlerClass("AVIC_NOACCEL", "write APIC 0F0h"), "register");
  assertEquals(handlerClass("AVIC_NOACCEL", "read APIC 390h"), "decode");
});
