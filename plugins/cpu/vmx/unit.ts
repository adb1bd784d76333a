/**
 * The VMX unit: VMX operation, VM entries and exits, EPT (SDM vol. 3, ch. 24–31). The twin of `svm/`.
 *
 * What is not implemented is not in the capability MSRs, and a control that asks for it is refused as any
 * reserved one is: SMM monitors, TSX, enclaves, processor trace, protection keys, HLAT, SPP, #VE.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import type { Tag } from "../wasm/mod.ts";
import { defineAccesses } from "./apic/accesses.ts";
import { definePosted } from "./apic/posted.ts";
import { defineVirtualInterrupts } from "./apic/virtual_interrupts.ts";
import { defineEntry } from "./entry.ts";
import { defineEpt } from "./ept.ts";
import { defineEvents } from "./events.ts";
import { defineExit } from "./exit.ts";
import { defineHostStub } from "./host_stub.ts";
import { defineIntercepts } from "./intercepts.ts";
import { defineNotify } from "./notify.ts";
import { defineMsrLists } from "./msr_lists.ts";
import { defineRegion } from "./region.ts";
import { defineTimer } from "./timer.ts";

/** Gives the VMX functions their bodies. */
export function defineVmx(mc: Microcode, tag: Tag): void {
  defineRegion(mc);
  defineMsrLists(mc, tag);
  defineEntry(mc);
  defineExit(mc);
  defineEvents(mc);
  defineIntercepts(mc);
  defineTimer(mc);
  defineNotify(mc);
  defineEpt(mc);
  defineVirtualInterrupts(mc);
  defineAccesses(mc);
  definePosted(mc);
  defineHostStub(mc, tag);
}
