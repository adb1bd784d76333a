/**
 * Interprocessor interrupts that a guest sends under AVIC, and doorbells (APM vol. 2, 15.29.6–15.29.7).
 *
 * @module
 */
import type { Microcode } from "../../microcode/microcode.ts";
import { Event, S } from "../../state/cpu_state.ts";
import { CPU_AREA_BYTES, CPU_AREAS, CPU_STATE } from "../../state/layout.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  type Variable,
} from "../../wasm/mod.ts";
import { SvmExit } from "../exit_codes.ts";
import { IntControl } from "../vmcb.ts";
import { vectorBit, vectorRegister } from "./evaluate.ts";
import { ApicOffset, AvicLogicalEntry, AvicPhysicalEntry, Icr, IncompleteIpi } from "./layout.ts";

/** Host APIC ID of a physical-table entry. Bits 11:0. */
const HOST_ID = 0xfff;

/** First index of the physical table that failed in one of these ways; −1 for none. */
interface Failures {
  readonly target: Variable<I32>;
  readonly page: Variable<I32>;
  readonly notRunning: Variable<I32>;
}

/** What ICR asks for. */
interface Command {
  /** ICR, low half. */
  readonly command: I32;
  /** Destination, 8 or 32 bits. */
  readonly destination: I32;
  /** 1 in x2AVIC mode. */
  readonly x2: I32;
}

function note(f: FunctionBuilder, first: Variable<I32>, index: I32): void {
  f.if(first.get().ltS(0), () => first.set(index));
}

/** Gives the IPI functions their bodies. */
export function defineIpi(mc: Microcode): void {
  const { module } = mc;

  // The other processors are saved in their areas; a doorbell that arrives there is seen before their
  // next instruction.
  module.body(mc.ringDoorbell, (f, apicId) => {
    f.if(S.apicId.get(f).eq(apicId), () => {
      S.events.or(f, Event.DOORBELL);
      f.return();
    });
    const k = f.variable(I32T, 0);
    f.while(() => k.get().ltU(S.cpuCount.get(f)), () => {
      const area = k.get().mul(CPU_AREA_BYTES).add(CPU_AREAS - CPU_STATE);
      const other = k.get().ne(S.cpuIndex.get(f));
      f.if(other.and(f.load32(area, S.apicId.address).eq(apicId)), () => {
        const events = f.load32(area, S.events.address);
        f.store32(area, events.or(Event.DOORBELL), S.events.address);
        f.return();
      });
      k.set(k.get().add(1));
    });
  });

  const incomplete = (f: FunctionBuilder, id: number, index: I32 | number): void => {
    const page = S.avicPage.get(f);
    S.trapCode.set(f, SvmExit.AVIC_INCOMPLETE_IPI);
    S.trapInfo1.set(
      f,
      f.load32(page, ApicOffset.ICR).extendU()
        .or(f.load32(page, ApicOffset.ICR_HIGH).extendU().shl(32)),
    );
    S.trapInfo2.set(f, i32(index).extendU().or(BigInt(id) << 32n));
    S.events.or(f, Event.VMEXIT_TRAP);
  };

  /** Sets IRR in the page of physical-table entry `index` and rings its processor's doorbell. */
  const deliver = (
    f: FunctionBuilder,
    entry: I64,
    page: I32,
    vector: I32,
    index: I32,
    failures: Failures,
  ): void => {
    const requests = vectorRegister(page, ApicOffset.IRR, vector);
    f.store32(requests, f.load32(requests).or(vectorBit(vector)));
    // TMR: an IPI that is accelerated is edge-triggered.
    const modes = vectorRegister(page, ApicOffset.TMR, vector);
    f.store32(modes, f.load32(modes).and(vectorBit(vector).xor(-1)));
    f.if(
      entry.has(AvicPhysicalEntry.IS_RUNNING),
      () => f.call(mc.ringDoorbell, entry.wrap().and(HOST_ID)),
      () => note(f, failures.notRunning, index),
    );
  };

  const entryAt = (f: FunctionBuilder, index: I32): I64 =>
    f.call(mc.readPhysical, S.avicPhysicalTable.get(f).add(index.extendU().shl(3)));

  const pageOf = (f: FunctionBuilder, entry: I64): I32 =>
    f.call(mc.physical, entry.and(AvicPhysicalEntry.BACKING_PAGE));

  /** Checks one target of a directed IPI. */
  const check = (f: FunctionBuilder, index: I32, shown: I32, failures: Failures): void => {
    f.if(
      index.gtU(S.avicMaxIndex.get(f)),
      () => note(f, failures.target, shown),
      () => {
        const entry = entryAt(f, index);
        f.if(
          entry.has(AvicPhysicalEntry.VALID).eqz(),
          () => note(f, failures.target, shown),
          () => f.if(pageOf(f, entry).eqz(), () => note(f, failures.page, index)),
        );
      },
    );
  };

  const send = (f: FunctionBuilder, index: I32, vector: I32, failures: Failures): void => {
    const entry = entryAt(f, index);
    deliver(f, entry, pageOf(f, entry), vector, index, failures);
  };

  /**
   * Visits each target of a directed IPI: its index in the physical table, and the index to report if it
   * does not exist, which for a logical ID is that of the logical table.
   */
  const eachTarget = (
    f: FunctionBuilder,
    { command, destination, x2 }: Command,
    failures: Failures,
    visit: (index: I32, shown: I32) => void,
  ): void => {
    const logical = command.and(Icr.LOGICAL).ne(0);
    f.if(logical.eqz(), () => visit(destination, destination.and(HOST_ID)), () => {
      f.if(x2, () => {
        // Cluster in 31:16, members in 15:0; the ID follows from both.
        const first = destination.shrU(16).shl(4);
        eachBit(f, destination.and(0xffff), (bit) => {
          const index = first.add(bit);
          visit(index, index.and(HOST_ID));
        });
        f.if(destination.and(0xffff).eqz(), () => note(f, failures.target, first.and(HOST_ID)));
      }, () => {
        const flat = f.load32(S.avicPage.get(f), ApicOffset.DFR).shrU(28).eq(15);
        const members = flat.select(destination, destination.and(15));
        const first = flat.select(i32(0), destination.shrU(4).shl(2));
        eachBit(f, members, (bit) => {
          const index = first.add(bit);
          const at = S.avicLogicalTable.get(f).add(index.extendU().shl(2));
          const entry = f.call(mc.readPhysical, at).wrap();
          f.if(
            entry.and(AvicLogicalEntry.VALID).eqz(),
            () => note(f, failures.target, index),
            () => visit(entry.and(AvicLogicalEntry.GUEST_APIC_ID), index),
          );
        });
        f.if(members.eqz(), () => note(f, failures.target, first));
      });
    });
  };

  module.body(mc.avicSend, (f) => {
    const page = S.avicPage.get(f);
    const command = f.load32(page, ApicOffset.ICR);
    const x2 = S.intControl.has(f, IntControl.X2AVIC);
    const high = f.load32(page, ApicOffset.ICR_HIGH);
    const destination = x2.select(high, high.shrU(24));
    const vector = command.and(Icr.VECTOR);
    // Which of the two reports when both apply is not settled; the type comes first here.
    f.if(command.and(Icr.MESSAGE_TYPE | Icr.LEVEL).ne(0), () => {
      incomplete(f, IncompleteIpi.INVALID_TYPE, 0);
      f.return();
    });
    f.if(vector.ltU(16), () => {
      incomplete(f, IncompleteIpi.INVALID_VECTOR, 0);
      f.return();
    });
    f.store32(page, command.and(~Icr.BUSY), ApicOffset.ICR);
    const shorthand = command.and(Icr.SHORTHAND);
    f.if(shorthand.eq(Icr.SELF), () => {
      f.call(mc.avicSelf, vector);
      f.return();
    });
    const failures: Failures = {
      target: f.variable(I32T, -1),
      page: f.variable(I32T, -1),
      notRunning: f.variable(I32T, -1),
    };
    const everyone = x2.select(i32(-1), i32(0xff));
    const broadcast = shorthand.ne(0).or(destination.eq(everyone));
    f.if(broadcast, () => {
      const ownId = f.load32(page, ApicOffset.ID);
      const own = x2.select(ownId, ownId.shrU(24));
      const butSelf = shorthand.eq(Icr.ALL_BUT_SELF);
      const k = f.variable(I32T, 0);
      f.while(() => k.get().leU(S.avicMaxIndex.get(f)), () => {
        const index = k.get();
        const entry = entryAt(f, index);
        const wanted = entry.has(AvicPhysicalEntry.VALID).and(butSelf.and(index.eq(own)).eqz());
        f.if(wanted, () => {
          const target = pageOf(f, entry);
          f.if(
            target.eqz(),
            () => note(f, failures.page, index),
            () => deliver(f, entry, target, vector, index, failures),
          );
        });
        k.set(index.add(1));
      });
    }, () => {
      const parts = { command, destination, x2 };
      // Nothing is delivered if any target cannot be, so all are looked up first.
      eachTarget(f, parts, failures, (index, shown) => check(f, index, shown, failures));
      f.if(failures.target.get().geS(0), () => {
        incomplete(f, IncompleteIpi.INVALID_TARGET, failures.target.get());
        f.return();
      });
      f.if(failures.page.get().geS(0), () => {
        incomplete(f, IncompleteIpi.INVALID_BACKING_PAGE, failures.page.get());
        f.return();
      });
      eachTarget(f, parts, failures, (index) => send(f, index, vector, failures));
    });
    f.if(failures.page.get().geS(0), () => {
      incomplete(f, IncompleteIpi.INVALID_BACKING_PAGE, failures.page.get());
      f.return();
    });
    f.if(failures.notRunning.get().geS(0), () => {
      incomplete(f, IncompleteIpi.TARGET_NOT_RUNNING, failures.notRunning.get());
    });
  });

  module.body(mc.avicSelf, (f, vector) => {
    const page = S.avicPage.get(f);
    const requests = vectorRegister(page, ApicOffset.IRR, vector);
    f.store32(requests, f.load32(requests).or(vectorBit(vector)));
    const modes = vectorRegister(page, ApicOffset.TMR, vector);
    f.store32(modes, f.load32(modes).and(vectorBit(vector).xor(-1)));
    f.call(mc.avicEvaluate);
  });

  module.body(mc.avicSelfIpi, (f, vector) => {
    f.if(vector.ltU(16), () => {
      // What SELF_IPI reports is not written down: as the ICR write it stands for.
      S.trapCode.set(f, SvmExit.AVIC_INCOMPLETE_IPI);
      S.trapInfo1.set(f, vector.or(Icr.SELF).extendU());
      S.trapInfo2.set(f, i64(BigInt(IncompleteIpi.INVALID_VECTOR) << 32n));
      S.events.or(f, Event.VMEXIT_TRAP);
      f.return();
    });
    f.call(mc.avicSelf, vector);
  });
}

/** Calls `body` with the number of each bit set in `bits`, from the lowest on. */
function eachBit(f: FunctionBuilder, bits: I32, body: (bit: I32) => void): void {
  const left = f.variable(I32T, bits);
  f.while(() => left.get().ne(0), () => {
    body(left.get().ctz());
    left.set(left.get().and(left.get().sub(1)));
  });
}
