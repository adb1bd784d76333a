import { assertEquals } from "@std/assert";
import { initSystemState, resetSystemState } from "./system_state.ts";

Deno.test("INIT leaves MSRs, XCR0 and the time-stamp counter alone, and resets the rest", () => {
  const reset = resetSystemState();
  const before = {
    ...reset,
    cr3: 0x1000n,
    efer: 0xd01n,
    dr7: 0x455n,
    star: 5n,
    pat: 6n,
    xcr0: 7n,
    tscOffset: 8n,
    nmiMasked: true,
  };
  assertEquals(initSystemState(before), { ...reset, star: 5n, pat: 6n, xcr0: 7n, tscOffset: 8n });
});
