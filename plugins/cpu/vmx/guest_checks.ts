/**
 * VM entry's checks on the guest-state area (SDM vol. 3, 27.3.1): one that fails is a VM exit with
 * reason 33.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { validPat } from "../microcode/msr.ts";
import { Vector } from "../microcode/raise.ts";
import { Cr0, Cr4, Efer, Rflags } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64 } from "../wasm/mod.ts";
import { fixedBitsHold, VmxMsr } from "./capabilities.ts";
import { EventType, readControls } from "./control_checks.ts";
import {
  AccessRights,
  Activity,
  EntryControl,
  Interruptibility,
  PendingDebug,
  Pin,
  Secondary,
} from "./controls.ts";
import { EntryFailure } from "./exit_reasons.ts";
import {
  readField,
  readField32,
  SHADOW_VMCS,
  Vmcs,
  VMCS_REVISION,
  VmcsGroup,
  VmcsRegion,
} from "./fields.ts";
import { notCanonical } from "../memory/canonical.ts";
import { illegalCet, illegalEfer } from "./host_checks.ts";
import { illegalAddress } from "./region.ts";
import { CODE_AND_DATA, CS, DS, ES, FS, GS, LDTR, type SegmentFields, SS, TR } from "./segments.ts";

/** What {@linkcode illegalGuest} finds nothing wrong with. */
export const GUEST_OK = -1;

/** RFLAGS bits that must be 0. */
const RFLAGS_RESERVED = ~BigInt(Rflags.ALL | Rflags.ONE);
/** DEBUGCTL bits that there are: LBR and BTF. */
const DEBUGCTL_DEFINED = 0x3;
const BTF = 0x2;
/** Bits of the access rights that must be 0. */
const RIGHTS_RESERVED = 0xfffe_0f00;
/** Bits of a PDPTE that must be 0 if it is present. */
const PDPTE_RESERVED = 0xfff0_0000_0000_01e6n;

/** What several checks look at. */
interface Guest {
  readonly f: FunctionBuilder;
  readonly cr0: I64;
  readonly cr4: I64;
  readonly flags: I64;
  readonly long: I32;
  readonly v86: I32;
  readonly unrestricted: I32;
  /** VM-entry interruption information, 0 if it is not valid. */
  readonly event: I32;
}

const any = (checks: readonly I32[]): I32 => checks.reduce((some, check) => some.or(check));

/**
 * The exit qualification that tells what is wrong with the guest state of the current VMCS, or
 * {@linkcode GUEST_OK}. What does not depend on anything in `written` ({@linkcode VmcsGroup}) has been
 * found right before, or was saved by a VM exit, and is not looked at. What stands in memory always is.
 */
export function illegalGuest(f: FunctionBuilder, mc: Microcode, written: I32): I32 {
  const { pin, secondary } = readControls(f);
  const entry = readField32(f, Vmcs.ENTRY_CONTROLS);
  const flags = readField(f, Vmcs.GUEST_RFLAGS);
  const info = readField32(f, Vmcs.ENTRY_INTERRUPTION_INFO);
  const guest: Guest = {
    f,
    cr0: readField(f, Vmcs.GUEST_CR0),
    cr4: readField(f, Vmcs.GUEST_CR4),
    flags,
    long: entry.and(EntryControl.IA32E_GUEST).ne(0),
    v86: flags.has(Rflags.VM),
    unrestricted: secondary.and(Secondary.UNRESTRICTED_GUEST).ne(0),
    event: info.ltS(0).select(info, i32(0)),
  };
  const result = f.variable(I32T, GUEST_OK);
  const wrong = f.variable(I32T, 0);
  f.if(
    written.and(VmcsGroup.CONTROLS | VmcsGroup.GUEST),
    () => {
      const checks = [illegalRegisters(guest, entry), illegalSegments(guest), illegalTables(guest)];
      wrong.set(any(checks));
    },
    undefined,
    "unlikely",
  );
  f.if(written, () => wrong.set(wrong.get().or(illegalFlow(guest))));
  f.if(
    written.and(~VmcsGroup.FLOW),
    () => wrong.set(wrong.get().or(illegalState(guest, pin))),
    undefined,
    "unlikely",
  );
  f.if(wrong.get(), () => result.set(EntryFailure.DEFAULT), () => {
    f.if(illegalLink(f, mc, secondary), () => result.set(EntryFailure.LINK_POINTER), () => {
      f.if(illegalPdptes(guest, mc, secondary), () => result.set(EntryFailure.PDPTE));
    });
  });
  return result.get();
}

function illegalRegisters({ f, cr0, cr4, long, unrestricted }: Guest, entry: I32): I32 {
  const get = (encoding: number): I64 => readField(f, encoding);
  const strict = fixedBitsHold(f, cr0, VmxMsr.CR0_FIXED0);
  const free = fixedBitsHold(f, cr0, VmxMsr.CR0_FIXED0, Cr0.PE | Cr0.PG);
  const paging = cr0.has(Cr0.PG);
  const efer = get(Vmcs.GUEST_EFER);
  const debug = entry.and(EntryControl.LOAD_DEBUG).ne(0);
  const lma = efer.has(Efer.LMA);
  return any([
    unrestricted.select(free, strict).eqz(),
    paging.and(cr0.has(Cr0.PE).eqz()),
    fixedBitsHold(f, cr4, VmxMsr.CR4_FIXED0).eqz(),
    cr4.has(Cr4.CET).and(cr0.has(Cr0.WP).eqz()),
    entry.and(EntryControl.LOAD_CET).ne(0).and(illegalCet(f, Vmcs.GUEST_S_CET, long)),
    debug.and(get(Vmcs.GUEST_DEBUGCTL).has(~BigInt(DEBUGCTL_DEFINED))),
    debug.and(get(Vmcs.GUEST_DR7).shrU(32).ne(0)),
    long.and(paging.eqz().or(cr4.has(Cr4.PAE).eqz())),
    long.eqz().and(cr4.has(Cr4.PCIDE)),
    illegalAddress(f, get(Vmcs.GUEST_CR3), 1),
    notCanonical(f, get(Vmcs.GUEST_SYSENTER_ESP)),
    notCanonical(f, get(Vmcs.GUEST_SYSENTER_EIP)),
    entry.and(EntryControl.LOAD_PAT).ne(0).and(validPat(get(Vmcs.GUEST_PAT)).eqz()),
    entry.and(EntryControl.LOAD_EFER).ne(0).and(
      illegalEfer(efer).or(lma.ne(long)).or(paging.and(efer.has(Efer.LME).ne(lma))),
    ),
  ]);
}

/** A segment's fields, read. */
function segment(f: FunctionBuilder, fields: SegmentFields) {
  const rights = readField32(f, fields.rights);
  return {
    selector: readField32(f, fields.selector),
    base: readField(f, fields.base),
    limit: readField32(f, fields.limit),
    rights,
    usable: rights.and(AccessRights.UNUSABLE).eqz(),
    type: rights.and(15),
    dpl: rights.shrU(5).and(3),
    memory: rights.and(0x10).ne(0),
    present: rights.and(0x80).ne(0),
  };
}

type Segment = ReturnType<typeof segment>;

/** 1 if the granularity bit cannot go with the limit, or a reserved bit is set. */
function illegalRights({ rights, limit }: Segment): I32 {
  const granular = rights.and(AccessRights.G).ne(0);
  return rights.and(RIGHTS_RESERVED).ne(0)
    .or(limit.and(0xfff).ne(0xfff).and(granular))
    .or(limit.shrU(20).ne(0).and(granular.eqz()));
}

function illegalSegments(guest: Guest): I32 {
  const { f, cr0, long, v86, unrestricted } = guest;
  const read = (fields: SegmentFields): Segment => segment(f, fields);
  const high = ({ base }: Segment): I32 => base.shrU(32).ne(0);
  const cs = read(CS);
  const ss = read(SS);
  const tr = read(TR);
  const ldtr = read(LDTR);
  const data = [DS, ES, FS, GS].map(read);

  // Virtual-8086 mode leaves no choice.
  const virtual = any(
    CODE_AND_DATA.map(read).map(({ selector, base, limit, rights }) =>
      base.ne(selector.shl(4).extendU()).or(limit.ne(0xffff)).or(rights.ne(0xf3))
    ),
  );

  const accessedCode = cs.type.and(9).eq(9);
  const dataCode = cs.type.eq(3);
  const conforming = cs.type.and(4).ne(0);
  const csDpl = dataCode.select(
    cs.dpl.ne(0),
    conforming.select(cs.dpl.gtU(ss.dpl), cs.dpl.ne(ss.dpl)),
  );
  const real = cr0.has(Cr0.PE).eqz();
  const ordinary = any([
    unrestricted.eqz().and(ss.selector.xor(cs.selector).and(3).ne(0)),
    accessedCode.or(dataCode.and(unrestricted)).eqz(),
    cs.memory.eqz(),
    csDpl,
    cs.present.eqz(),
    cs.rights.and(AccessRights.DB).ne(0).and(long).and(cs.rights.and(AccessRights.L).ne(0)),
    illegalRights(cs),
    unrestricted.eqz().and(ss.dpl.ne(ss.selector.and(3))),
    dataCode.or(real).and(ss.dpl.ne(0)),
    ss.usable.and(any([
      ss.type.eq(3).or(ss.type.eq(7)).eqz(),
      ss.memory.eqz(),
      ss.present.eqz(),
      illegalRights(ss),
    ])),
    ...data.map((one) =>
      one.usable.and(any([
        one.type.and(1).eqz(),
        one.type.and(10).eq(8),
        one.memory.eqz(),
        unrestricted.eqz().and(one.type.ltU(12)).and(one.dpl.ltU(one.selector.and(3))),
        one.present.eqz(),
        illegalRights(one),
      ]))
    ),
  ]);

  const busy = tr.type.eq(11).or(tr.type.eq(3).and(long.eqz()));
  return any([
    v86.select(virtual, ordinary),
    tr.selector.and(4).ne(0),
    notCanonical(f, tr.base),
    busy.eqz(),
    tr.memory,
    tr.present.eqz(),
    illegalRights(tr),
    tr.usable.eqz(),
    ldtr.usable.and(any([
      ldtr.selector.and(4).ne(0),
      notCanonical(f, ldtr.base),
      ldtr.type.ne(2),
      ldtr.memory,
      ldtr.present.eqz(),
      illegalRights(ldtr),
    ])),
    notCanonical(f, data[2]!.base),
    notCanonical(f, data[3]!.base),
    high(cs),
    ss.usable.and(high(ss)),
    data[0]!.usable.and(high(data[0]!)),
    data[1]!.usable.and(high(data[1]!)),
  ]);
}

function illegalTables({ f }: Guest): I32 {
  return any([
    notCanonical(f, readField(f, Vmcs.GUEST_GDTR_BASE)),
    notCanonical(f, readField(f, Vmcs.GUEST_IDTR_BASE)),
    readField32(f, Vmcs.GUEST_GDTR_LIMIT).shrU(16).ne(0),
    readField32(f, Vmcs.GUEST_IDTR_LIMIT).shrU(16).ne(0),
  ]);
}

function illegalFlow({ f, cr0, flags, long, v86, event }: Guest): I32 {
  const rip = readField(f, Vmcs.GUEST_RIP);
  const wide = long.and(readField32(f, CS.rights).and(AccessRights.L).ne(0));
  const external = event.ltS(0).and(event.shrU(8).and(7).eq(EventType.EXTERNAL));
  return any([
    wide.select(notCanonical(f, rip), rip.shrU(32).ne(0)),
    flags.has(RFLAGS_RESERVED),
    flags.has(Rflags.ONE).eqz(),
    v86.and(long.or(cr0.has(Cr0.PE).eqz())),
    external.and(flags.has(Rflags.IF).eqz()),
  ]);
}

/** Activity, interruptibility and pending debug exceptions (27.3.1.5). */
function illegalState({ f, flags, event }: Guest, pin: I32): I32 {
  const activity = readField32(f, Vmcs.GUEST_ACTIVITY);
  const blocking = readField32(f, Vmcs.GUEST_INTERRUPTIBILITY);
  const has = (bit: number): I32 => blocking.and(bit).ne(0);
  const valid = event.ltS(0);
  const type = event.shrU(8).and(7);
  const vector = event.and(0xff);
  const is = (kind: number): I32 => valid.and(type.eq(kind));
  const exception = (number: number): I32 => is(EventType.EXCEPTION).and(vector.eq(number));
  const nmi = is(EventType.NMI);
  const machineCheck = exception(Vector.MC);
  const inHalt = is(EventType.EXTERNAL).or(nmi).or(exception(Vector.DB)).or(machineCheck)
    .or(is(EventType.OTHER));
  const halted = activity.eq(Activity.HLT);
  const shadow = has(Interruptibility.STI | Interruptibility.MOV_SS);
  const pending = readField(f, Vmcs.GUEST_PENDING_DEBUG);
  const traps = flags.has(Rflags.TF).and(readField(f, Vmcs.GUEST_DEBUGCTL).has(BTF).eqz());
  return any([
    activity.gtU(Activity.WAIT_FOR_SIPI),
    halted.and(readField32(f, SS.rights).shrU(5).and(3).ne(0)),
    activity.ne(Activity.ACTIVE).and(shadow),
    valid.and(halted).and(inHalt.eqz()),
    valid.and(activity.eq(Activity.SHUTDOWN)).and(nmi.or(machineCheck).eqz()),
    valid.and(activity.eq(Activity.WAIT_FOR_SIPI)),
    blocking.and(~15).ne(0),
    has(Interruptibility.SMI),
    has(Interruptibility.STI).and(has(Interruptibility.MOV_SS)),
    has(Interruptibility.STI).and(flags.has(Rflags.IF).eqz()),
    is(EventType.EXTERNAL).and(shadow),
    nmi.and(has(Interruptibility.MOV_SS)),
    nmi.and(pin.and(Pin.VIRTUAL_NMIS).ne(0)).and(has(Interruptibility.NMI)),
    pending.has(~BigInt(PendingDebug.BREAKPOINTS | PendingDebug.ENABLED | PendingDebug.BS)),
    // A trap that single-stepping owes has to be there where it is still to come, and nowhere else.
    shadow.or(halted).and(pending.has(PendingDebug.BS).ne(traps)),
  ]);
}

function illegalLink(f: FunctionBuilder, mc: Microcode, secondary: I32): I32 {
  const link = readField(f, Vmcs.LINK_POINTER);
  const wrong = f.variable(I32T, 0);
  f.if(link.ne(-1), () => {
    wrong.set(illegalAddress(f, link, 0x1000).or(link.eq(S.vmcsPointer.get(f))));
    f.if(wrong.get().eqz(), () => {
      const region = f.call(mc.physical, link);
      f.if(region.eqz(), () => wrong.set(1), () => {
        const first = f.load32(region, VmcsRegion.REVISION);
        const shadow = secondary.and(Secondary.SHADOW_VMCS).ne(0);
        wrong.set(first.and(~SHADOW_VMCS).ne(VMCS_REVISION).or(first.shrU(31).ne(shadow)));
      });
    });
  });
  return wrong.get();
}

/** With PAE paging the four entries come from the VMCS under EPT, and from memory without it. */
function illegalPdptes({ f, cr0, cr4, long }: Guest, mc: Microcode, secondary: I32): I32 {
  const wrong = f.variable(I32T, 0);
  f.if(cr0.has(Cr0.PG).and(cr4.has(Cr4.PAE)).and(long.eqz()), () => {
    const ept = secondary.and(Secondary.EPT).ne(0);
    const base = readField(f, Vmcs.GUEST_CR3).and(0xffff_ffe0);
    const reserved = S.reservedPte.get(f).or(PDPTE_RESERVED);
    for (let k = 0; k < 4; k++) {
      const entry = ept.select(
        readField(f, Vmcs.GUEST_PDPTE0 + 2 * k),
        f.call(mc.readPhysical, base.add(8 * k)),
      );
      f.if(entry.has(1).and(entry.has(reserved)), () => wrong.set(1));
    }
  });
  return wrong.get();
}
