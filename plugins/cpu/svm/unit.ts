/**
 * The SVM unit: VMRUN, #VMEXIT, VMLOAD, VMSAVE, nested page faults (APM vol. 2, ch. 15).
 *
 * The processor caches one VMCB, found by its physical address and ASID, and of it the groups that
 * {@linkcode CACHED} names: where their clean bits are set, VMRUN does not look at the VMCB (15.15), so that
 * a hypervisor that leaves one set behind a change runs the guest with the old value. The other clean bits
 * are hints that it does not take.
 *
 * @module
 */
import { MicroOp } from "../engine/block_layout.ts";
import { GATE_DPL_CHECKED } from "../microcode/interrupt.ts";
import { type Microcode, Unwind } from "../microcode/microcode.ts";
import { EventFormat, ripOf, Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Dr7, Efer, Rflags } from "../microcode/registers.ts";
import { isInForce, keepInForce } from "../microcode/world.ts";
import { copyBlock } from "../state/copy.ts";
import { pageHoldsCode } from "../memory/physical.ts";
import { Access } from "../memory/walk.ts";
import { FlagsKind } from "../semantics/flags.ts";
import {
  DR6_BS,
  Event,
  Mode,
  registerAddress,
  S,
  Seg,
  segmentAddress,
  SegmentField,
} from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { AVIC_PHYSICAL_MAX_INDEX, AVIC_POINTER } from "./avic/layout.ts";
import { illegalOthers, loadGroups } from "./checks.ts";
import { SVM_EXIT_INVALID, SvmExit } from "./exit_codes.ts";
import { startBusLocks, stopBusLocks } from "../microcode/bus_lock.ts";
import { SvmFeature } from "./features.ts";
import { startPauseFilter } from "./pause_filter.ts";
import { hasVirtualNmi, hasVirtualVmload, offerVirtualNmi } from "./virtual.ts";
import { Clean, Control, IntControl, NestedControl, Save, VMCB_BYTES } from "./vmcb.ts";
import { Image, keepGuest, keepHost, loadGuest, restoreHost } from "./world_image.ts";
import {
  hasVirtualLbr,
  loadExtra,
  loadLastBranch,
  storeExtra,
  storeGuest,
  storeLastBranch,
} from "./world_switch.ts";

/** Groups of fields whose clean bits are honoured. */
const CACHED = Clean.INTERCEPTS | Clean.PERMISSION_MAPS | Clean.NESTED | Clean.CONTROL_REGISTERS |
  Clean.DEBUG_REGISTERS | Clean.TABLES | Clean.SEGMENTS | Clean.CR2 |
  Clean.CET;

/** Most instruction bytes an exit reports. */
const FETCHED_BYTES = 15;

/** Sets RFLAGS without looking at what follows from it; the caller updates the mode. */
function setFlags(f: FunctionBuilder, value: I64): void {
  S.flagsKind.set(f, FlagsKind.VALUE);
  S.flagsA.set(f, value.and(Rflags.ARITHMETIC));
  S.rflags.set(f, value.and(Rflags.ALL & ~Rflags.ARITHMETIC).or(Rflags.ONE));
}

/** 1 in PAE paging that is not long mode's. */
function usesPdptes(f: FunctionBuilder): I32 {
  return S.efer.has(f, Efer.LMA).eqz().and(S.cr4.has(f, Cr4.PAE)).and(S.cr0.has(f, Cr0.PG));
}

/** VMSAVE to memory address `area`. */
export function saveExtra(f: FunctionBuilder, mc: Microcode, area: I32): void {
  storeExtra(f, area);
  f.if(
    pageHoldsCode(f, area),
    () => f.call(mc.codeWritten, area, VMCB_BYTES),
    undefined,
    "unlikely",
  );
}

/** Gives the SVM functions their bodies. */
export function defineSvm(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.vmcbAddress, (f, vmcb) => {
    const beyond = vmcb.shrU(S.physicalBits.get(f).extendU()).ne(0);
    f.if(vmcb.has(0xfff).or(beyond), () => f.call(mc.raiseError, Vector.GP, 0));
    const address = f.call(mc.physical, vmcb);
    // A VMCB where there is no memory is left to the system by the manual; it is refused here.
    f.if(address.eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    f.return(address);
  });

  /** Memory address of what VMLOAD and VMSAVE name: by guest physical address where that is virtual. */
  const operand = (f: FunctionBuilder, pa: I64, access: number): I32 => {
    const physical = f.choose(
      I64T,
      hasVirtualVmload(f),
      () => {
        S.fetching.set(f, 0);
        return f.call(mc.nestedTranslate, pa, access);
      },
      () => pa,
      "unlikely",
    );
    return f.call(mc.vmcbAddress, physical);
  };

  module.body(mc.vmload, (f, vmcb) => {
    // Nothing of the mode follows from what is loaded.
    loadExtra(f, operand(f, vmcb, Access.READ));
  });

  module.body(mc.vmsave, (f, vmcb) => {
    // The instruction is the last of its block, so that nothing stale is executed behind it.
    saveExtra(f, mc, f.variable(I32T, operand(f, vmcb, Access.WRITE)).get());
  });

  /** Leaves guest mode: the host's state comes back from the save area. */
  const loadHost = module.define("loadHost", [], undefined, (f) => {
    S.guestMode.set(f, 0);
    S.gif.set(f, 0);
    // Without nested paging there is one PAT, and what the guest wrote stays (APM vol. 2, 15.25.8).
    f.if(S.nestedPaging.get(f), () => S.pat.set(f, f.load64(0, S.hostImage + Image.PAT)));
    S.nestedPaging.set(f, 0);
    S.tscOffset.set(f, 0);
    S.asid.set(f, 0);
    S.delivering.set(f, 0);
    S.stepping.set(f, 0);
    S.intControl.clear(f, IntControl.V_IRQ | IntControl.V_INTR_MASKING);
    for (let at = 0; at < 24; at += 8) f.store64(0, 0, S.intercepts + at);
    const gone = Event.SHADOW | Event.SHADOW_NEW | Event.SHADOW_SS | Event.SINGLE_STEP |
      Event.TRAP | Event.HALTED | Event.VINTR | Event.INJECT | Event.EXCEPTION | Event.ALONE |
      Event.RESUME | Event.RESUME_NEW | Event.AVIC | Event.DOORBELL | Event.VMEXIT_TRAP |
      Event.VNMI;
    S.events.clear(f, gone);
    S.avicPage.set(f, 0);
    S.avicBar.set(f, -1);
    S.trapBits.set(f, 0);
    S.breakpointHits.set(f, 0);
    f.if(S.hostOutside.get(f), () => S.events.or(f, Event.EXIT));
    S.physicalMap.set(f, S.smm.get(f).select(S.smmMap.get(f), S.hostMap.get(f)));
    setFlags(f, f.load64(0, S.hostImage + Image.RFLAGS).and(~Rflags.VM));
    S.rip.set(f, f.load64(0, S.hostImage + Image.RIP));
    S.dr7.set(f, Dr7.FIXED);
    f.if(hasVirtualLbr(f), () => loadLastBranch(f, S.hostArea.get(f)), undefined, "unlikely");
    S.virtExt.set(f, 0);
    S.busLocks.set(f, 0);
    restoreHost(f, mc);
    // A host in PAE mode gets its page-directory pointers from memory again; bad ones shut it down.
    f.if(usesPdptes(f), () => {
      f.if(f.call(mc.readPdptes, S.cr3.get(f)).eqz(), () => S.events.or(f, Event.SHUTDOWN));
    });
    // With TF set VMRUN traps when it is over (APM vol. 2, 15.5.1).
    f.if(S.rflags.has(f, Rflags.TF), () => {
      S.trapBits.set(f, DR6_BS);
      S.events.or(f, Event.TRAP);
    });
  });

  const loadDirty = module.define(
    "vmcbLoad",
    [I32T, I32T, I32T],
    I32T,
    (f, vmcb, dirty, nested) => f.return(loadGroups(f, vmcb, dirty, nested)),
  );

  /** The VMCB is illegal: a #VMEXIT, and nothing of it is cached. */
  const refuse = module.define("vmcbRefuse", [I32T], undefined, (f, vmcb) => {
    S.cachedVmcb.set(f, 0);
    f.store64(vmcb, SVM_EXIT_INVALID, Control.EXITCODE);
    f.store64(vmcb, 0, Control.EXITINTINFO);
    S.exits.set(f, S.exits.get(f).add(1));
    f.call(loadHost);
  });

  module.body(mc.vmrun, (f, vmcbPa, nextRip) => {
    f.call(mc.vmrunAt, f.call(mc.vmcbAddress, vmcbPa), vmcbPa, nextRip);
  });

  module.body(mc.vmrunAt, (f, vmcb, vmcbPa, nextRip) => {
    const hostArea = f.call(mc.physical, S.hsavePa.get(f));
    f.if(hostArea.eqz(), () => f.call(mc.raiseError, Vector.GP, 0));
    S.hostArea.set(f, hostArea);
    S.vmcb.set(f, vmcb);
    S.vmcbPhysical.set(f, vmcbPa);
    const flags = f.call(mc.readFlags);
    keepHost(f);
    f.store64(0, flags.and(~Rflags.RF), S.hostImage + Image.RFLAGS);
    f.store64(0, nextRip, S.hostImage + Image.RIP);
    // From here on the instruction has retired. The trap that the host's TF asks for comes behind the
    // #VMEXIT, and nothing the guest did not do itself may trap in it.
    S.uop.set(f, 0);
    S.stepping.set(f, 0);
    S.breakpointHits.set(f, 0);

    const asid = f.load32(vmcb, Control.ASID);
    // Without nested paging NP_ENABLE is one of the reserved bits, which are ignored: it is not among what
    // VMRUN checks (15.5.1), and KVM passes over it for its guests (Linux commit e0b6f031d64c).
    const nestedControl = f.load32(vmcb, Control.NESTED_CONTROL);
    const nested = nestedControl.and(S.svmFeatures.get(f)).and(SvmFeature.NESTED_PAGING);
    const cached = S.cachedVmcb.get(f).eq(vmcbPa.or(1)).and(S.cachedAsid.get(f).eq(asid))
      .and(S.cachedNested.get(f).eq(nested));
    const clean = cached.select(f.load32(vmcb, Control.CLEAN_BITS), i32(0));
    const dirty = clean.xor(-1).and(CACHED);
    const illegal = f.variable(I32T, 0);
    f.if(dirty, () => illegal.set(f.call(loadDirty, vmcb, dirty, nested)), undefined, "unlikely");
    f.if(
      illegal.get().or(illegalOthers(mc, f, vmcb, nested)),
      () => {
        f.call(refuse, vmcb);
        f.return();
      },
      undefined,
      "unlikely",
    );
    S.cachedVmcb.set(f, vmcbPa.or(1));
    S.cachedAsid.set(f, asid);
    S.cachedNested.set(f, nested);

    S.hostIf.set(f, flags.has(Rflags.IF));
    S.hostCr0.set(f, S.cr0.get(f));
    S.hostCr3.set(f, S.cr3.get(f));
    S.hostCr4.set(f, S.cr4.get(f));
    S.hostEfer.set(f, S.efer.get(f));
    copyBlock(f, S.intercepts, S.cachedIntercepts, 24);
    S.tscOffset.set(f, S.cachedTscOffset.get(f));
    S.asid.set(f, asid);
    S.nestedPaging.set(f, nested);
    const trap = nestedControl.and(NestedControl.GMET).ne(0);
    S.guestModeTrap.set(f, trap.and(S.svmFeatures.has(f, SvmFeature.GMET)));
    S.virtExt.set(f, f.load32(vmcb, Control.VIRT_EXT));
    startPauseFilter(mc, f, vmcb);
    startBusLocks(f, vmcb);
    const control = f.load32(vmcb, Control.INT_CONTROL);
    S.intControl.set(f, control);
    S.intVector.set(f, f.load32(vmcb, Control.INT_CONTROL + 4));

    const guestFlags = f.load64(vmcb, Save.RFLAGS);
    const virtual = guestFlags.has(Rflags.VM);
    setFlags(f, guestFlags);
    loadGuest(f);
    const real = S.cr0.has(f, Cr0.PE).eqz();
    f.store64(0, f.load64(vmcb, Save.RSP), registerAddress(4));
    f.store64(0, f.load64(vmcb, Save.RAX), registerAddress(0));
    // Only with nested paging has the guest a PAT of its own.
    f.if(nested, () => S.pat.set(f, f.load64(0, S.guestImage + Image.PAT)));
    f.if(
      hasVirtualLbr(f),
      () => {
        storeLastBranch(f, hostArea);
        loadLastBranch(f, vmcb);
      },
      undefined,
      "unlikely",
    );
    S.rip.set(f, f.load64(vmcb, Save.RIP));
    const cpl = f.load32(0, S.guestImage + Image.CPL);
    S.cpl.set(f, real.select(i32(0), virtual.select(i32(3), cpl)));
    S.guestMode.set(f, 1);
    S.physicalMap.set(f, S.guestMap.get(f));
    S.gif.set(f, 1);
    const shadow = f.load32(vmcb, Control.INT_STATE).and(1).select(i32(Event.SHADOW_NEW), i32(0));
    // Under AVIC V_IRQ and what belongs to it mean nothing.
    const requested = control.and(IntControl.V_IRQ | IntControl.AVIC).eq(IntControl.V_IRQ);
    const pending = requested.select(i32(Event.VINTR), i32(0));
    const resume = guestFlags.has(Rflags.RF).select(i32(Event.RESUME_NEW), i32(0));
    S.events.or(f, shadow.or(pending).or(resume));

    const flush = f.load8(vmcb, Control.TLB_CONTROL);
    f.if(flush.ne(0), () => {
      f.call(mc.flushContexts, asid, 0, flush.eq(1).select(i32(2), i32(1)));
    });
    // Where nothing was loaded from the VMCB but what the processor had of it, all may be in force still.
    const inForce = dirty.or(flush).or(hasVirtualLbr(f)).eqz().and(isInForce(f, vmcbPa.or(1)));
    f.if(
      inForce.eqz(),
      () => {
        f.call(mc.selectContext, asid);
        f.call(mc.updateMode);
      },
      undefined,
      "unlikely",
    );

    // Without nested paging the PAE entries are read now, and bad ones are illegal state.
    f.if(usesPdptes(f).and(S.nestedPaging.get(f).eqz()), () => {
      f.if(f.call(mc.readPdptes, S.cr3.get(f)).eqz(), () => {
        f.call(refuse, vmcb);
        f.return();
      });
    });

    f.if(control.and(IntControl.AVIC).ne(0), () => {
      const x2 = control.and(IntControl.X2AVIC).ne(0);
      const table = f.load64(vmcb, Control.AVIC_PHYSICAL_TABLE);
      const bar = f.load64(vmcb, Control.AVIC_APIC_BAR).and(AVIC_POINTER);
      S.avicPage.set(f, f.call(mc.physical, f.load64(vmcb, Control.AVIC_BACKING_PAGE)));
      S.avicBar.set(f, x2.select(i64(-1), bar));
      S.avicLogicalTable.set(f, f.load64(vmcb, Control.AVIC_LOGICAL_TABLE).and(AVIC_POINTER));
      S.avicPhysicalTable.set(f, table.and(AVIC_POINTER));
      S.avicMaxIndex.set(f, table.wrap().and(AVIC_PHYSICAL_MAX_INDEX));
      f.call(mc.avicEvaluate);
    });

    const event = f.load32(vmcb, Control.EVENTINJ);
    f.if(event.shrU(31), () => {
      const vector = event.and(0xff);
      const type = event.and(EventFormat.TYPE);
      // The vector of an NMI is always 2 (APM vol. 2, 15.20).
      const isNmi = type.eq(EventFormat.NMI);
      // INT n, INT3 and INTO push the RIP behind them and are subject to the gate's DPL.
      const trap = type.eq(EventFormat.EXCEPTION)
        .and(vector.eq(Vector.BP).or(vector.eq(Vector.OF)));
      const soft = type.eq(EventFormat.SOFTWARE).or(trap);
      const checked = soft.select(i32(GATE_DPL_CHECKED), i32(0));
      const kept = isNmi.select(event.and(0x8000_0f00).or(Vector.NMI), event.and(0x8000_0fff));
      S.injection.set(f, kept.or(checked));
      S.injectionError.set(f, f.load32(vmcb, Control.EVENTINJ + 4));
      const rip = S.rip.get(f);
      S.injectionRip.set(f, soft.select(f.load64(vmcb, Control.NRIP), rip));
      S.events.or(f, Event.INJECT);
      // Where NMIs are virtual, an injected one keeps others off until IRET.
      f.if(isNmi.and(hasVirtualNmi(f)), () => S.intControl.or(f, IntControl.V_NMI_MASK));
    });
    offerVirtualNmi(f);
  });

  /** Memory address of the code at `linear`; 0 if it cannot be fetched. Nothing comes of a fault. */
  const peek = module.define("peek", [I64T], I32T, (f, linear) => {
    S.peeking.set(f, 1);
    const address = f.call(mc.tryFetch, linear.wrap(), linear.shrU(32).wrap());
    S.peeking.set(f, 0);
    f.return(address);
  });

  /** Copies bytes from CS:RIP on to the VMCB, as many as can be fetched (APM vol. 2, 15.8.4). */
  const reportBytes = module.define("reportBytes", [I32T], undefined, (f, vmcb) => {
    const rip = S.rip.get(f);
    const cs = segmentAddress(Seg.CS);
    const linear = f.variable(I64T, rip);
    const most = f.variable(I32T, FETCHED_BYTES);
    f.if(S.mode.has(f, Mode.LONG).eqz(), () => {
      linear.set(rip.add(f.load64(0, cs + SegmentField.BASE)).and(0xffff_ffff));
      const room = f.load32(0, cs + SegmentField.LIMIT).extendU().add(1).sub(rip);
      f.if(room.ltU(FETCHED_BYTES), () => most.set(room.wrap()));
    });
    f.store64(vmcb, 0, Control.FETCHED);
    f.store64(vmcb, 0, Control.FETCHED + 8);
    const inPage = i32(0x1000).sub(linear.get().wrap().and(0xfff));
    const head = inPage.ltU(most.get()).select(inPage, most.get());
    const first = f.call(peek, linear.get());
    f.if(first.eqz(), () => f.return());
    f.copy(vmcb.add(Control.FETCHED + 1), first, head);
    f.store8(vmcb, head, Control.FETCHED);
    f.if(head.ltU(most.get()), () => {
      const second = f.call(peek, linear.get().add(head.extendU()));
      f.if(second.eqz(), () => f.return());
      f.copy(vmcb.add(Control.FETCHED + 1).add(head), second, most.get().sub(head));
      f.store8(vmcb, most.get(), Control.FETCHED);
    });
  });

  const leaveGuest = module.define(
    "leaveGuest",
    [I64T, I64T, I64T, I64T],
    undefined,
    (f, code, info1, info2, nextRip) => {
      const vmcb = S.vmcb.get(f);
      f.call(mc.settle);
      keepGuest(f);
      storeGuest(f, vmcb);
      f.if(hasVirtualLbr(f), () => storeLastBranch(f, vmcb), undefined, "unlikely");
      f.if(S.nestedPaging.get(f), () => f.store64(vmcb, S.pat.get(f), Save.G_PAT));
      f.store64(vmcb, f.call(mc.readFlags), Save.RFLAGS);
      f.store64(vmcb, S.rip.get(f), Save.RIP);
      f.store8(vmcb, S.cpl.get(f), Save.CPL);
      // A virtual NMI that did not get to its handler masks no others (APM vol. 2, 15.21.10).
      const delivering = S.delivering.get(f);
      const lostNmi = delivering.and(EventFormat.TYPE).eq(EventFormat.NMI).and(hasVirtualNmi(f));
      const unmasked = lostNmi.select(i32(~IntControl.V_NMI_MASK), i32(-1));
      f.store32(vmcb, S.intControl.get(f).and(unmasked), Control.INT_CONTROL);
      f.store64(
        vmcb,
        S.events.has(f, Event.SHADOW | Event.SHADOW_NEW).extendU(),
        Control.INT_STATE,
      );
      stopBusLocks(f, vmcb);
      f.store64(vmcb, code, Control.EXITCODE);
      f.store64(vmcb, info1, Control.EXITINFO1);
      f.store64(vmcb, info2, Control.EXITINFO2);
      f.store64(vmcb, nextRip, Control.NRIP);
      // The event being delivered when the exit came, or 0.
      const hasError = delivering.and(EventFormat.ERROR).ne(0);
      const error = hasError.select(S.deliveringError.get(f), i32(0));
      f.store32(vmcb, delivering, Control.EXITINTINFO);
      f.store32(vmcb, error, Control.EXITINTINFO + 4);
      // Whether silicon clears V in memory is not settled; clearing it is what software relies on least.
      f.store32(vmcb, f.load32(vmcb, Control.EVENTINJ).and(0x7fff_ffff), Control.EVENTINJ);
      S.exits.set(f, S.exits.get(f).add(1));
      keepInForce(f, S.vmcbPhysical.get(f).or(1));
      f.call(loadHost);
    },
  );

  module.body(mc.vmexit, (f, code, info1, info2) => {
    const vmcb = S.vmcb.get(f);
    f.call(mc.settle);
    const withBytes = code.eq(SvmExit.NPF).or(code.eq(SvmExit.EXCEPTION + Vector.PF));
    // Bytes are reported for faults on data, not on fetches.
    f.if(withBytes.and(S.fetching.get(f).eqz()), () => f.call(reportBytes, vmcb), () => {
      f.store8(vmcb, 0, Control.FETCHED);
    });
    f.call(leaveGuest, code, info1, info2, 0);
  });

  module.body(mc.vmexitInstruction, (f, code, info1, info2) => {
    const uop = S.uop.get(f);
    f.store8(S.vmcb.get(f), 0, Control.FETCHED);
    const next = ripOf(f, uop).add(f.load8(uop, MicroOp.LENGTH).extendU());
    f.call(leaveGuest, code, info1, info2, next);
  });

  module.body(mc.nestedFault, (f, gpa, error, isTable) => {
    f.if(S.peeking.get(f), () => f.call(mc.unwindTo, Unwind.EXCEPTION));
    // Bit 32: the final translation, bit 33: a guest page table (APM vol. 2, 15.25.6).
    const where = isTable.select(i64(1n << 33n), i64(1n << 32n));
    f.call(mc.vmexit, SvmExit.NPF, error.extendU().or(where), gpa);
    f.call(mc.unwindTo, Unwind.VMEXIT);
  });
}
