/**
 * SVM for a host that is the program outside: what a hypervisor's entry stub does around VMRUN. The twin of
 * `vmx/host_stub.ts`. It knows where the VMCB stands in memory, so that this is looked up once.
 *
 * The registers that VMRUN takes from the VMCB are written there, the others are loaded; VMLOAD, VMRUN; and
 * behind the #VMEXIT, VMSAVE and the registers.
 *
 * @module
 */
import { Stop } from "../engine/run.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { chargedInstructions } from "../microcode/outside.ts";
import { copySlots } from "../state/copy.ts";
import { Event, registerAddress, S } from "../state/cpu_state.ts";
import { type I32, i32, I32T, type I64 } from "../wasm/mod.ts";
import { SvmExit } from "./exit_codes.ts";
import { saveExtra } from "./unit.ts";
import { Save } from "./vmcb.ts";
import { loadExtra } from "./world_switch.ts";

/** General registers that VMRUN leaves to software: all but RAX and RSP. */
const SWITCHED: readonly number[] = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/** Those that VMRUN takes from the VMCB: their place in the storage of registers, and in the save area. */
const IN_VMCB: readonly (readonly [number, number])[] = [
  [0, Save.RAX],
  [4, Save.RSP],
  [32, Save.RIP],
  [33, Save.RFLAGS],
];

const physicalOf = (low: I32, high: I32): I64 => low.extendU().or(high.extendU().shl(32));

/** Gives the stub's functions their bodies. */
export function defineSvmHostStub(mc: Microcode): void {
  const { module } = mc;

  /** #VMEXIT between two instructions, for a reason from outside. */
  const forceExit = module.define("forceExit", [I32T], undefined, (f, code) => {
    f.if(S.guestMode.get(f), () => {
      // An exit behind the last instruction comes before any other.
      f.if(
        S.events.has(f, Event.VMEXIT_TRAP),
        () =>
          f.call(mc.vmexit, S.trapCode.get(f).extendU(), S.trapInfo1.get(f), S.trapInfo2.get(f)),
        () => f.call(mc.vmexit, code.extendU(), 0, 0),
      );
    });
    S.events.clear(f, Event.EXIT | Event.SHUTDOWN);
  });

  const leave = module.define(
    "leaveStub",
    [I32T, I32T, I32T],
    undefined,
    (f, block, registers, stop) => {
      f.if(stop.ne(Stop.VMEXIT), () => {
        // The guest is to exit at this boundary though nothing in it asked for it. A triple fault or INIT that
        // is not intercepted takes the host down with it.
        const code = stop.eq(Stop.SHUTDOWN).select(
          i32(SvmExit.SHUTDOWN),
          stop.eq(Stop.INIT).select(i32(SvmExit.INIT), i32(SvmExit.INTR)),
        );
        f.call(forceExit, code);
      });
      saveExtra(f, mc, block);
      copySlots(f, registers, 0, i32(0), registerAddress(0), SWITCHED);
      for (const [n, offset] of IN_VMCB) f.store64(registers, f.load64(block, offset), 8 * n);
      S.retired.set(f, chargedInstructions(f));
    },
  );

  module.body(mc.enterGuest, (f, low, high, registers, budget) => {
    const vmcb = physicalOf(low, high);
    const block = f.call(mc.vmcbAddress, vmcb);
    for (const [n, offset] of IN_VMCB) f.store64(block, f.load64(registers, 8 * n), offset);
    loadExtra(f, block);
    copySlots(f, i32(0), registerAddress(0), registers, 0, SWITCHED);
    f.store64(0, vmcb, registerAddress(0));
    f.call(mc.vmrunAt, block, vmcb, S.rip.get(f));
    f.call(leave, block, registers, f.call(mc.run, budget));
  });

  module.body(mc.leaveGuestStub, (f, low, high, registers, stop) => {
    f.call(leave, f.call(mc.vmcbAddress, physicalOf(low, high)), registers, stop);
  });
}
