/**
 * Deliveries that end in the same exception again: on silicon the processor is lost in its microcode
 * (CVE-2015-5307). Here the budget of a run ends them.
 */
import { assertEquals } from "@std/assert";
import { Cr0, Rflags, S, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, gate, Place, Sel, selectorFor } from "./bench.ts";
import { hex } from "./code.ts";

Deno.test("#AC whose delivery raises #AC goes on until the budget is used up, and then further", () => {
  const bench = new Bench();
  bench.protect(3);
  const { state, processor } = bench;
  // The handler has the same privilege, so what delivery pushes is checked for alignment as well.
  bench.set64(Place.IDT + 8 * 17, gate(selectorFor(Sel.CODE32, 3), bench.handler(17), 0xee));
  state.set32(S.idtLimit, 0x7ff);
  state.set(S.cr0, state.get(S.cr0) | BigInt(Cr0.AM));
  state.setRegister(4, BigInt(bench.stack(3) - 1));
  processor.refresh();
  bench.flags = Rflags.AC;
  const { stop, events } = bench.execute(hex("90 50"), 100);
  assertEquals(stop, Stop.BUDGET);
  assertEquals(processor.retired, 1);
  assertEquals(events.map(({ vector }) => vector), Array(16).fill(17));
  assertEquals(state.get(S.rip), BigInt(Place.CODE + 1));
  assertEquals(bench.run(50).stop, Stop.BUDGET);
  assertEquals(processor.retired, 0);
  // With an aligned stack the delivery comes to an end.
  state.setRegister(4, BigInt(bench.stack(3)));
  assertEquals(bench.run(1).stop, Stop.BUDGET);
  assertEquals(state.get(S.rip), BigInt(bench.handler(17)));
  assertEquals(bench.get32(bench.stack(3) - 16), 0);
  assertEquals(bench.get32(bench.stack(3) - 12), Place.CODE + 1);
});

Deno.test("a breakpoint at the handler of breakpoints goes on until the budget is used up", () => {
  const bench = new Bench();
  bench.protect(0);
  const { state, processor } = bench;
  bench.set64(Place.IDT + 8, gate(selectorFor(Sel.CODE32, 0), bench.handler(1), 0x8e));
  state.set32(S.idtLimit, 0x7ff);
  state.setAt(S.dr, BigInt(bench.handler(1)));
  state.set(S.dr7, 0x402n);
  processor.refresh();
  // INT1 leads to the handler.
  const { stop } = bench.execute(hex("f1"), 100);
  assertEquals(stop, Stop.BUDGET);
  assertEquals(state.get(S.rip), BigInt(bench.handler(1)));
});
