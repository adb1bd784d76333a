/**
 * Notify VM exits: exit 75 of a guest that keeps the processor from reaching an event window (SDM vol. 3,
 * 26.2 and appendix A.3.3), and none of any other.
 */
import { assertEquals } from "@std/assert";
import {
  Cr0,
  Cr4,
  EntryControl,
  Primary,
  Rflags,
  S,
  Secondary,
  Stop,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { gate, Place, Sel, selectorFor } from "./bench.ts";
import { code } from "./code.ts";
import { At, type Entry, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const standard = standardFields();
const IDT = At.DATA + 0x1000;
const HANDLER = At.GUEST + 0x1000;
/** Four PAE page-directory-pointer entries. */
const PDPTES = At.SCRATCH;
/** The processor's own part of the window. */
const THRESHOLD = 128;

/** 32-bit code of CPL 3 with alignment checks, whose #AC handler has CPL 3 as well. */
function misaligned(lab: VmxLab, bits: number, more: Fields): Entry {
  const { bench } = lab;
  lab.start();
  bench.set64(PDPTES, BigInt(Place.TABLES + 0x2000) | 1n);
  bench.fill(PDPTES + 8, 24, 0);
  bench.set64(IDT + 8 * 17, gate(selectorFor(Sel.CODE32, 3), HANDLER, 0xee));
  // push eax
  bench.write(At.GUEST, code("90 50"));
  bench.write(HANDLER, [0xf4]);
  const data = selectorFor(Sel.DATA, 3);
  const segments = Object.fromEntries([0, 2, 3, 4, 5].flatMap((k) => [
    [Vmcs.GUEST_ES_SELECTOR + 2 * k, data],
    [Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k, 0xc0f3],
  ]));
  lab.prepare({
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
      BigInt(Primary.SECONDARY >>> 0),
    [Vmcs.SECONDARY_CONTROLS]: bits >>> 0,
    [Vmcs.ENTRY_CONTROLS]: BigInt(standard[Vmcs.ENTRY_CONTROLS]!) &
      ~BigInt(EntryControl.IA32E_GUEST),
    [Vmcs.GUEST_EFER]: 0,
    [Vmcs.GUEST_CR0]: BigInt(standard[Vmcs.GUEST_CR0]!) | BigInt(Cr0.AM),
    [Vmcs.GUEST_CR3]: PDPTES,
    [Vmcs.GUEST_CR4]: Cr4.PAE | Cr4.VMXE,
    ...segments,
    [Vmcs.GUEST_CS_SELECTOR]: selectorFor(Sel.CODE32, 3),
    [Vmcs.GUEST_CS_ACCESS_RIGHTS]: 0xc0fb,
    [Vmcs.GUEST_IDTR_BASE]: IDT,
    [Vmcs.GUEST_IDTR_LIMIT]: 0x7ff,
    [Vmcs.GUEST_RFLAGS]: Rflags.AC | 2,
    [Vmcs.GUEST_RSP]: At.GUEST_STACK - 2,
    // HLT at CPL 3.
    [Vmcs.EXCEPTION_BITMAP]: 1 << 13,
    ...more,
  });
  return lab.enter(true, 10_000);
}

Deno.test("#AC in the delivery of #AC, again and again, exits", () => {
  const lab = new VmxLab();
  assertEquals(exitText(misaligned(lab, Secondary.NOTIFY, {})), "NOTIFY");
  const { state } = lab.bench;
  assertEquals(state.get32(S.nonRoot), 0);
  // Nothing of it has taken place, and the event under way is told.
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 1));
  assertEquals(lab.read(Vmcs.GUEST_RSP), BigInt(At.GUEST_STACK - 2));
  assertEquals(lab.read(Vmcs.IDT_VECTORING_INFO).toString(16), "80000b11");
  assertEquals(lab.read(Vmcs.IDT_VECTORING_ERROR), 0n);
  assertEquals(lab.read(Vmcs.EXIT_INTERRUPTION_INFO) >> 31n, 0n);
  // A hypervisor that goes on has it exit again.
  assertEquals(exitText(lab.enter(false, 10_000)), "NOTIFY");
  // Without the control the guest has the processor until the run ends.
  assertEquals(misaligned(lab, 0, {}).result, `stop ${Stop.BUDGET}`);
  // With the #AC intercepted it does not begin.
  assertEquals(
    exitText(misaligned(lab, Secondary.NOTIFY, { [Vmcs.EXCEPTION_BITMAP]: 1 << 17 })),
    "EXCEPTION_OR_NMI",
  );
  // With room for the delivery it ends: the handler's HLT is not allowed at CPL 3.
  assertEquals(
    exitText(
      misaligned(lab, Secondary.NOTIFY, {
        [Vmcs.GUEST_RSP]: At.GUEST_STACK - 4,
        [Vmcs.GUEST_RFLAGS]: 2,
      }),
    ),
    "EXCEPTION_OR_NMI",
  );
});

Deno.test("the window is added to the processor's own threshold", () => {
  const lab = new VmxLab();
  for (const window of [0, 1, 500]) {
    const before = lab.bench.state.get32(S.eventCount);
    const fields = { [Vmcs.NOTIFY_WINDOW]: window };
    assertEquals(exitText(misaligned(lab, Secondary.NOTIFY, fields)), "NOTIFY");
    assertEquals(lab.bench.state.get32(S.eventCount) - before, THRESHOLD + window, `${window}`);
  }
});

Deno.test("#DB whose delivery meets its own breakpoint, again and again, exits", () => {
  const lab = new VmxLab();
  const { bench } = lab;
  const top = At.GUEST_STACK + 0x800;
  const enter = (bits: number, point: number, more: Fields = {}): Entry => {
    lab.start();
    // An interrupt gate with stack 1 of the TSS, so that each delivery writes what the last one wrote.
    bench.set64(IDT + 16, gate(Sel.CODE64, HANDLER, 0xee, 1));
    bench.set64(IDT + 24, 0n);
    bench.set64(Place.TSS + 0x24, BigInt(top));
    bench.write(HANDLER, [0xf4]);
    bench.write(At.GUEST, code("48 89 03 90"));
    lab.prepare({
      [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
        BigInt(Primary.SECONDARY >>> 0),
      [Vmcs.SECONDARY_CONTROLS]: bits >>> 0,
      [Vmcs.GUEST_IDTR_BASE]: IDT,
      [Vmcs.GUEST_IDTR_LIMIT]: 0xfff,
      [Vmcs.ENTRY_CONTROLS]: BigInt(standard[Vmcs.ENTRY_CONTROLS]!) |
        BigInt(EntryControl.LOAD_DEBUG),
      // Breakpoints 0 and 1: writes of 8 bytes.
      [Vmcs.GUEST_DR7]: 0x400 | 0xa | (0x99 << 16),
      ...more,
    });
    bench.state.setAt(S.dr, BigInt(At.DATA));
    bench.state.setAt(S.dr + 8, BigInt(point));
    bench.state.set(S.dr6, 0xffff_0ff0n);
    bench.state.setRegister(3, BigInt(At.DATA));
    return lab.enter(true, 10_000);
  };
  assertEquals(exitText(enter(Secondary.NOTIFY, top - 8)), "NOTIFY");
  // It is not in the middle of a delivery, but in front of one, which is still pending.
  assertEquals(lab.read(Vmcs.IDT_VECTORING_INFO), 0n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(HANDLER));
  assertEquals(lab.read(Vmcs.GUEST_PENDING_DEBUG), 0x1002n);
  assertEquals(bench.state.get(S.dr6) & 15n, 2n);
  assertEquals(enter(0, top - 8).result, `stop ${Stop.BUDGET}`);
  // Nowhere near the frame there is but one #DB.
  assertEquals(exitText(enter(Secondary.NOTIFY, top + 8)), "HLT");
  assertEquals(bench.state.get(S.dr6) & 15n, 1n);
});

Deno.test("a processor without it refuses the control", () => {
  const bit = 1n << 63n;
  assertEquals(new VmxLab().capability(0xb) & bit, bit);
  for (
    const lab of [
      new VmxLab("skylake-sp"),
      new VmxLab("sapphire-rapids", { notify_vm_exiting: false }),
    ]
  ) {
    assertEquals(lab.capability(0xb) & bit, 0n);
    assertEquals(exitText(misaligned(lab, Secondary.NOTIFY, {})), "VMfail 7");
  }
});
