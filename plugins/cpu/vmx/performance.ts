/**
 * IA32_PERF_GLOBAL_CTRL across VM entries and VM exits (SDM vol. 3, 27.2.2, 27.3.1.1, 27.3.2.1, 28.5.1).
 *
 * The performance counters are a unit of its own, outside of this one, and only it knows which bits of the
 * register there are. So a value is tried: what the register does not take is reserved in it, all of it where
 * there are no counters.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, I32T, I64T } from "../wasm/mod.ts";
import { EntryControl, ExitControl } from "./controls.ts";
import { readField, readField32, Vmcs } from "./fields.ts";

const PERF_GLOBAL_CTRL = 0x38f;

/** Writes a field's value to the register; 1 if it takes it. */
function write(f: FunctionBuilder, mc: Microcode, field: number): I32 {
  f.store64(0, readField(f, field), S.exchange);
  return f.call(mc.listWriteMsr, PERF_GLOBAL_CTRL);
}

/** 1 if VM exits are to load a value for the host that cannot be; the register stays as it is. */
export function illegalHostCounters(f: FunctionBuilder, mc: Microcode): I32 {
  const load = readField32(f, Vmcs.EXIT_CONTROLS).and(ExitControl.LOAD_PERF_GLOBAL_CTRL);
  const bad = f.variable(I32T, 0);
  f.if(
    load,
    () => {
      bad.set(f.call(mc.listReadMsr, PERF_GLOBAL_CTRL).eqz());
      f.if(bad.get().eqz(), () => {
        const old = f.variable(I64T, f.load64(0, S.exchange));
        bad.set(write(f, mc, Vmcs.HOST_PERF_GLOBAL_CTRL).eqz());
        f.store64(0, old.get(), S.exchange);
        f.call(mc.listWriteMsr, PERF_GLOBAL_CTRL);
      });
    },
    undefined,
    "unlikely",
  );
  return bad.get();
}

/** Loads the guest's value if the VM entry is to; 0 if it cannot be. */
export function loadGuestCounters(f: FunctionBuilder, mc: Microcode): I32 {
  const load = readField32(f, Vmcs.ENTRY_CONTROLS).and(EntryControl.LOAD_PERF_GLOBAL_CTRL);
  const done = f.variable(I32T, 1);
  f.if(load, () => done.set(write(f, mc, Vmcs.GUEST_PERF_GLOBAL_CTRL)), undefined, "unlikely");
  return done.get();
}

/** Loads the host's value if the VM exit is to. VM entry has seen to it that it can be. */
export function loadHostCounters(f: FunctionBuilder, mc: Microcode): void {
  const load = readField32(f, Vmcs.EXIT_CONTROLS).and(ExitControl.LOAD_PERF_GLOBAL_CTRL);
  f.if(load, () => write(f, mc, Vmcs.HOST_PERF_GLOBAL_CTRL), undefined, "unlikely");
}
