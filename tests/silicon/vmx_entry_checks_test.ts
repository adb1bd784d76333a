/**
 * VM entry's checks, group by group (SDM vol. 3, 27.2 and 27.3): each refused with the failure of its
 * group, each neighbour that is legal let through.
 */
import { assertEquals } from "@std/assert";
import {
  Activity,
  Cr0,
  Cr4,
  Efer,
  EntryControl,
  ExitControl,
  Interruptibility,
  Pin,
  Primary,
  Rflags,
  Secondary,
  SHADOW_VMCS,
  Vmcs,
  VMCS_REVISION,
} from "../../plugins/cpu/mod.ts";
import { Place, Sel } from "./bench.ts";
import { At, exitText, type Fields, standardFields, UNPAGED, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
lab.start();
lab.bench.write(At.GUEST, [0xf4]);
lab.bench.fill(Place.IDT, 0x1000, 0);

const standard = standardFields();
const value = (encoding: number): bigint => BigInt(standard[encoding]!);
/** The standard value of a field with bits set or cleared. */
const with_ = (encoding: number, bits: number | bigint): Fields => ({
  [encoding]: value(encoding) | BigInt.asUintN(64, BigInt(bits)),
});
const without = (encoding: number, bits: number | bigint): Fields => ({
  [encoding]: value(encoding) & ~BigInt(bits),
});
const secondary = (bits: number, more: Fields = {}, primary = 0): Fields => ({
  ...with_(Vmcs.PRIMARY_CONTROLS, (Primary.SECONDARY | primary) >>> 0),
  [Vmcs.SECONDARY_CONTROLS]: bits >>> 0,
  ...more,
});

const EPTP = BigInt(At.SCRATCH) | (3n << 3n) | 6n;
const BEYOND = 1n << 48n;
/** Sapphire Rapids has linear addresses of 57 bits. */
const NOT_CANONICAL = 1n << 56n;

/** Fields, and what an entry with them comes to; the reason of an exit that no entry failure caused is HLT. */
type Case = readonly [name: string, fields: Fields, expected: string];

const OK = "HLT";
const CONTROLS = "VMfail 7";
const HOST = "VMfail 8";
const GUEST = "entry failure, INVALID_GUEST_STATE";

function judge(fields: Fields): string {
  lab.start();
  lab.prepare(fields);
  return exitText(lab.enter());
}

function check(cases: readonly Case[]): void {
  const wrong = cases
    .map(([name, fields, expected]) => [name, judge(fields), expected] as const)
    .filter(([, is, expected]) => is !== expected)
    .map(([name, is, expected]) => `${name}: ${is}, not ${expected}`);
  assertEquals(wrong.join("\n"), "");
}

Deno.test("the standard fields are accepted", () => check([["standard", {}, OK]]));

Deno.test("each control has its allowed settings", () => {
  const vectors = [
    [Vmcs.PIN_CONTROLS, 0x48d, Pin.PREEMPTION_TIMER | Pin.EXTERNAL_INTERRUPT],
    [Vmcs.PRIMARY_CONTROLS, 0x48e, 0],
    [Vmcs.EXIT_CONTROLS, 0x48f, ExitControl.HOST_64BIT | ExitControl.SAVE_TIMER],
    [Vmcs.ENTRY_CONTROLS, 0x490, EntryControl.IA32E_GUEST],
    [Vmcs.SECONDARY_CONTROLS, 0x48b, 0],
  ] as const;
  const cases: Case[] = [];
  for (const [field, msr] of vectors) {
    const allowed = lab.capability(msr - 0x480);
    const base = field === Vmcs.SECONDARY_CONTROLS ? secondary(0) : { [field]: value(field) };
    for (let bit = 0n; bit < 32n; bit++) {
      const mask = 1n << bit;
      const old = BigInt(base[field]!);
      if ((allowed & mask) !== 0n) {
        cases.push([
          `${field.toString(16)}h bit ${bit} = 0`,
          { ...base, [field]: old & ~mask },
          CONTROLS,
        ]);
      }
      if (((allowed >> 32n) & mask) === 0n) {
        cases.push([
          `${field.toString(16)}h bit ${bit} = 1`,
          { ...base, [field]: old | mask },
          CONTROLS,
        ]);
      }
    }
  }
  check(cases);
  // Without "activate secondary controls" the field does not matter.
  check([["secondary controls not activated", { [Vmcs.SECONDARY_CONTROLS]: 0xffff_ffff }, OK]]);
});

Deno.test("execution controls that belong together", () => {
  const nmi = with_(Vmcs.PIN_CONTROLS, Pin.NMI);
  const shadow = Primary.TPR_SHADOW;
  const apic = { [Vmcs.VIRTUAL_APIC_ADDRESS]: At.SCRATCH };
  lab.bench.set32(At.SCRATCH + 0x80, 0x50);
  check([
    ["4 CR3 targets", { [Vmcs.CR3_TARGET_COUNT]: 4 }, OK],
    ["5 CR3 targets", { [Vmcs.CR3_TARGET_COUNT]: 5 }, CONTROLS],
    ["I/O bitmaps", with_(Vmcs.PRIMARY_CONTROLS, Primary.IO_BITMAPS), OK],
    ["I/O bitmap A unaligned", {
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.IO_BITMAPS),
      [Vmcs.IO_BITMAP_A]: 0x800,
    }, CONTROLS],
    ["I/O bitmap B beyond", {
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.IO_BITMAPS),
      [Vmcs.IO_BITMAP_B]: BEYOND,
    }, CONTROLS],
    ["I/O bitmap unaligned but off", { [Vmcs.IO_BITMAP_A]: 1 }, OK],
    ["MSR bitmap unaligned", {
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.MSR_BITMAPS),
      [Vmcs.MSR_BITMAP]: 0x10,
    }, CONTROLS],
    ["MSR bitmap beyond", {
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.MSR_BITMAPS),
      [Vmcs.MSR_BITMAP]: BEYOND,
    }, CONTROLS],
    ["virtual NMIs without NMI exiting", with_(Vmcs.PIN_CONTROLS, Pin.VIRTUAL_NMIS), CONTROLS],
    ["virtual NMIs", with_(Vmcs.PIN_CONTROLS, Pin.NMI | Pin.VIRTUAL_NMIS), OK],
    ["NMI window without virtual NMIs", {
      ...nmi,
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.NMI_WINDOW),
    }, CONTROLS],
    ["TPR shadow", { ...with_(Vmcs.PRIMARY_CONTROLS, shadow), ...apic }, OK],
    ["virtual APIC page unaligned", {
      ...with_(Vmcs.PRIMARY_CONTROLS, shadow),
      [Vmcs.VIRTUAL_APIC_ADDRESS]: At.SCRATCH + 8,
    }, CONTROLS],
    ["TPR threshold at VTPR", {
      ...with_(Vmcs.PRIMARY_CONTROLS, shadow),
      ...apic,
      [Vmcs.TPR_THRESHOLD]: 5,
    }, OK],
    ["TPR threshold above VTPR", {
      ...with_(Vmcs.PRIMARY_CONTROLS, shadow),
      ...apic,
      [Vmcs.TPR_THRESHOLD]: 6,
    }, CONTROLS],
    ["TPR threshold with reserved bits", {
      ...with_(Vmcs.PRIMARY_CONTROLS, shadow),
      ...apic,
      [Vmcs.TPR_THRESHOLD]: 0x10,
    }, CONTROLS],
    ["VPID 0", secondary(Secondary.VPID, { [Vmcs.VPID]: 0 }), CONTROLS],
    ["VPID 1", secondary(Secondary.VPID), OK],
    ["PML without EPT", secondary(Secondary.PML), CONTROLS],
    ["unrestricted guest without EPT", secondary(Secondary.UNRESTRICTED_GUEST), CONTROLS],
    ["mode-based execute without EPT", secondary(Secondary.MODE_BASED_EXECUTE), CONTROLS],
    ["TSC scaling", secondary(Secondary.TSC_SCALING), OK],
    ["TSC multiplier 0", secondary(Secondary.TSC_SCALING, { [Vmcs.TSC_MULTIPLIER]: 0 }), CONTROLS],
    ["VM functions", secondary(Secondary.VM_FUNCTIONS), OK],
    [
      "VM function that is none",
      secondary(Secondary.VM_FUNCTIONS, {
        [Vmcs.VM_FUNCTION_CONTROLS]: 2,
      }),
      CONTROLS,
    ],
    [
      "EPTP switching without EPT",
      secondary(Secondary.VM_FUNCTIONS, {
        [Vmcs.VM_FUNCTION_CONTROLS]: 1,
      }),
      CONTROLS,
    ],
    ["shadow VMCS", secondary(Secondary.SHADOW_VMCS), OK],
    [
      "VMREAD bitmap unaligned",
      secondary(Secondary.SHADOW_VMCS, { [Vmcs.VMREAD_BITMAP]: 1 }),
      CONTROLS,
    ],
    [
      "VMWRITE bitmap beyond",
      secondary(Secondary.SHADOW_VMCS, { [Vmcs.VMWRITE_BITMAP]: BEYOND }),
      CONTROLS,
    ],
    ["saving the timer without it", with_(Vmcs.EXIT_CONTROLS, ExitControl.SAVE_TIMER), CONTROLS],
  ]);
});

Deno.test("the EPT pointer", () => {
  const ept = (pointer: bigint): Fields =>
    secondary(Secondary.EPT, { [Vmcs.EPT_POINTER]: pointer });
  // The tables are empty, so an accepted pointer meets a violation in the walk of the guest's own tables.
  lab.bench.fill(At.SCRATCH, 0x1000, 0);
  const accepted = "EPT_VIOLATION 81";
  check([
    ["write-back, 4 levels", ept(EPTP), accepted],
    ["uncacheable", ept(EPTP & ~7n), accepted],
    ["5 levels", ept(EPTP + 8n), accepted],
    ["accessed and dirty flags", ept(EPTP | 0x40n), "EPT_VIOLATION 83"],
    ["write-through", ept(EPTP ^ 2n), CONTROLS],
    ["3 levels", ept(EPTP - 8n), CONTROLS],
    ["6 levels", ept(EPTP + 16n), CONTROLS],
    ["marks of supervisor shadow stacks", ept(EPTP | 0x80n), accepted],
    ["bit 8", ept(EPTP | 0x100n), CONTROLS],
    ["bit 11", ept(EPTP | 0x800n), CONTROLS],
    ["beyond", ept(EPTP | BEYOND), CONTROLS],
    [
      "PML unaligned",
      secondary(Secondary.EPT | Secondary.PML, {
        [Vmcs.EPT_POINTER]: EPTP,
        [Vmcs.PML_ADDRESS]: 8,
      }),
      CONTROLS,
    ],
    [
      "EPTP list unaligned",
      secondary(Secondary.EPT | Secondary.VM_FUNCTIONS, {
        [Vmcs.EPT_POINTER]: EPTP,
        [Vmcs.VM_FUNCTION_CONTROLS]: 1,
        [Vmcs.EPTP_LIST_ADDRESS]: 8,
      }),
      CONTROLS,
    ],
  ]);
});

Deno.test("MSR lists: alignment and the address of the last byte", () => {
  const lists = [
    [Vmcs.EXIT_MSR_STORE_COUNT, Vmcs.EXIT_MSR_STORE_ADDRESS],
    [Vmcs.EXIT_MSR_LOAD_COUNT, Vmcs.EXIT_MSR_LOAD_ADDRESS],
    [Vmcs.ENTRY_MSR_LOAD_COUNT, Vmcs.ENTRY_MSR_LOAD_ADDRESS],
  ] as const;
  for (const [count, address] of lists) {
    check([
      ["empty list anywhere", { [address]: 1 }, OK],
      ["unaligned", { [count]: 1, [address]: At.SCRATCH + 8 }, CONTROLS],
      ["beyond", { [count]: 1, [address]: BEYOND }, CONTROLS],
      ["ends beyond", { [count]: 2, [address]: BEYOND - 16n }, CONTROLS],
    ]);
  }
});

Deno.test("events to inject: types, vectors, error codes, lengths", () => {
  const event = (info: number, more: Fields = {}): Fields => ({
    [Vmcs.ENTRY_INTERRUPTION_INFO]: (info | 0x8000_0000) >>> 0,
    ...more,
  });
  // With an IDT of no entries an event that is accepted ends in a triple fault.
  const delivered = "TRIPLE_FAULT";
  const open = with_(Vmcs.GUEST_RFLAGS, Rflags.IF);
  check([
    ["external interrupt", event(0x30, open), delivered],
    ["external interrupt with error code", event(0x830, open), CONTROLS],
    ["reserved type", event(0x100), CONTROLS],
    ["NMI", event(0x202), delivered],
    ["NMI of another vector", event(0x203), CONTROLS],
    ["#UD", event(0x306), delivered],
    ["#GP with error code", event(0xb0d), delivered],
    ["#GP without error code", event(0x30d), delivered],
    ["error code of 17 bits", event(0xb0d, { [Vmcs.ENTRY_EXCEPTION_ERROR]: 0x1_0000 }), CONTROLS],
    ["exception 31", event(0x31f), delivered],
    ["exception 32", event(0x320), CONTROLS],
    ["INT n", event(0x480, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 2 }), delivered],
    ["INT n of length 0", event(0x480), delivered],
    ["INT n of length 15", event(0x480, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 15 }), delivered],
    ["INT n of length 16", event(0x480, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 16 }), CONTROLS],
    ["INT1 of length 16", event(0x501, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 16 }), CONTROLS],
    ["INT3 of length 16", event(0x603, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 16 }), CONTROLS],
    ["#UD of length 16", event(0x306, { [Vmcs.ENTRY_INSTRUCTION_LENGTH]: 16 }), delivered],
    ["INT3 with error code", event(0xe03), CONTROLS],
    ["other event", event(0x700), "MONITOR_TRAP"],
    ["other event of vector 1", event(0x701), CONTROLS],
    ["bit 12", event(0x1306), CONTROLS],
    ["bit 30", event(0x4000_0306), CONTROLS],
    ["not valid, nonsense", { [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x7fff_ffff }, OK],
  ]);
});

Deno.test("host state", () => {
  const off = ExitControl.HOST_64BIT;
  check([
    ["CR0.PE clear", without(Vmcs.HOST_CR0, Cr0.PE), HOST],
    ["CR0.NE clear", without(Vmcs.HOST_CR0, Cr0.NE), HOST],
    ["CR0.PG clear", without(Vmcs.HOST_CR0, 0x8000_0000), HOST],
    ["CR0 bit 32", with_(Vmcs.HOST_CR0, 1n << 32n), HOST],
    ["CR4.VMXE clear", without(Vmcs.HOST_CR4, Cr4.VMXE), HOST],
    ["CR4.PAE clear", without(Vmcs.HOST_CR4, Cr4.PAE), HOST],
    ["CR4 reserved bit", with_(Vmcs.HOST_CR4, 1n << 31n), HOST],
    ["CR3 beyond", with_(Vmcs.HOST_CR3, BEYOND), HOST],
    ...[
      Vmcs.HOST_SYSENTER_ESP,
      Vmcs.HOST_SYSENTER_EIP,
      Vmcs.HOST_FS_BASE,
      Vmcs.HOST_GS_BASE,
      Vmcs.HOST_TR_BASE,
      Vmcs.HOST_GDTR_BASE,
      Vmcs.HOST_IDTR_BASE,
      Vmcs.HOST_RIP,
    ].map((field): Case => [`${field.toString(16)}h`, { [field]: NOT_CANONICAL }, HOST]),
    ...[
      Vmcs.HOST_ES_SELECTOR,
      Vmcs.HOST_CS_SELECTOR,
      Vmcs.HOST_SS_SELECTOR,
      Vmcs.HOST_DS_SELECTOR,
      Vmcs.HOST_FS_SELECTOR,
      Vmcs.HOST_GS_SELECTOR,
      Vmcs.HOST_TR_SELECTOR,
    ].flatMap((field): Case[] =>
      [1, 2, 4].map((bit) => [`${field.toString(16)}h bit ${bit}`, with_(field, bit), HOST])
    ),
    ["CS null", { [Vmcs.HOST_CS_SELECTOR]: 0 }, HOST],
    ["TR null", { [Vmcs.HOST_TR_SELECTOR]: 0 }, HOST],
    ["SS null in 64-bit mode", { [Vmcs.HOST_SS_SELECTOR]: 0 }, OK],
    ["PAT", {
      ...with_(Vmcs.EXIT_CONTROLS, ExitControl.LOAD_PAT),
      [Vmcs.HOST_PAT]: 0x0007_0406_0007_0406n,
    }, OK],
    ["PAT with type 2", {
      ...with_(Vmcs.EXIT_CONTROLS, ExitControl.LOAD_PAT),
      [Vmcs.HOST_PAT]: 0x0007_0406_0007_0402n,
    }, HOST],
    ["EFER without LMA", without(Vmcs.HOST_EFER, Efer.LMA), HOST],
    ["EFER without LME", without(Vmcs.HOST_EFER, Efer.LME), HOST],
    ["EFER reserved bit", with_(Vmcs.HOST_EFER, Efer.SVME), HOST],
    ["32-bit host in long mode", without(Vmcs.EXIT_CONTROLS, off), HOST],
  ]);
});

Deno.test("guest registers", () => {
  check([
    ["CR0.NE clear", without(Vmcs.GUEST_CR0, Cr0.NE), GUEST],
    ["CR0.PG clear", without(Vmcs.GUEST_CR0, 0x8000_0000), GUEST],
    ["CR0 bit 32", with_(Vmcs.GUEST_CR0, 1n << 32n), GUEST],
    ["CR4.VMXE clear", without(Vmcs.GUEST_CR4, Cr4.VMXE), GUEST],
    ["CR4.PAE clear in long mode", without(Vmcs.GUEST_CR4, Cr4.PAE), GUEST],
    ["CR3 beyond", with_(Vmcs.GUEST_CR3, BEYOND), GUEST],
    ["DR7 bit 32", {
      ...with_(Vmcs.ENTRY_CONTROLS, EntryControl.LOAD_DEBUG),
      ...with_(Vmcs.GUEST_DR7, 1n << 32n),
    }, GUEST],
    ["DR7 bit 32 not loaded", with_(Vmcs.GUEST_DR7, 1n << 32n), OK],
    ["DEBUGCTL reserved", {
      ...with_(Vmcs.ENTRY_CONTROLS, EntryControl.LOAD_DEBUG),
      [Vmcs.GUEST_DEBUGCTL]: 4,
    }, GUEST],
    ["SYSENTER_ESP", { [Vmcs.GUEST_SYSENTER_ESP]: NOT_CANONICAL }, GUEST],
    ["SYSENTER_EIP", { [Vmcs.GUEST_SYSENTER_EIP]: NOT_CANONICAL }, GUEST],
    ["PAT with type 3", {
      ...with_(Vmcs.ENTRY_CONTROLS, EntryControl.LOAD_PAT),
      [Vmcs.GUEST_PAT]: 3,
    }, GUEST],
    ["EFER reserved bit", with_(Vmcs.GUEST_EFER, Efer.SVME), GUEST],
    ["EFER.LMA not as the entry control", without(Vmcs.GUEST_EFER, Efer.LMA), GUEST],
    ["EFER.LME not as LMA", without(Vmcs.GUEST_EFER, Efer.LME), GUEST],
    ["RFLAGS bit 1 clear", { [Vmcs.GUEST_RFLAGS]: 0 }, GUEST],
    ["RFLAGS bit 3", { [Vmcs.GUEST_RFLAGS]: 0xa }, GUEST],
    ["RFLAGS bit 22", { [Vmcs.GUEST_RFLAGS]: 0x40_0002 }, GUEST],
    ["RFLAGS.VM in long mode", { [Vmcs.GUEST_RFLAGS]: 0x2_0002 }, GUEST],
    ["RIP not canonical", { [Vmcs.GUEST_RIP]: NOT_CANONICAL }, GUEST],
    ["GDTR base", { [Vmcs.GUEST_GDTR_BASE]: NOT_CANONICAL }, GUEST],
    ["IDTR base", { [Vmcs.GUEST_IDTR_BASE]: NOT_CANONICAL }, GUEST],
    ["GDTR limit", { [Vmcs.GUEST_GDTR_LIMIT]: 0x1_0000 }, GUEST],
    ["IDTR limit", { [Vmcs.GUEST_IDTR_LIMIT]: 0x1_0000 }, GUEST],
    ["external interrupt with IF clear", { [Vmcs.ENTRY_INTERRUPTION_INFO]: 0x8000_0030 }, GUEST],
  ]);
});

Deno.test("guest segments of protected mode", () => {
  const rights = (field: number, bits: number): Fields => ({ [field]: bits });
  const cs = Vmcs.GUEST_CS_ACCESS_RIGHTS;
  const ss = Vmcs.GUEST_SS_ACCESS_RIGHTS;
  const ds = Vmcs.GUEST_DS_ACCESS_RIGHTS;
  const tr = Vmcs.GUEST_TR_ACCESS_RIGHTS;
  const ldtr = Vmcs.GUEST_LDTR_ACCESS_RIGHTS;
  const types = (field: number, base: number, legal: readonly number[], from = 0): Case[] =>
    Array.from({ length: 16 }, (_, type): Case => [
      `${field.toString(16)}h type ${type}`,
      rights(field, (base & ~15) | type),
      legal.includes(type) ? OK : GUEST,
    ]).slice(from);
  check([
    // Conforming code may have any DPL up to SS's; here both are 0.
    ...types(cs, 0xa09b, [9, 11, 13, 15]),
    ...types(ss, 0xc093, [3, 7]),
    ...types(ds, 0xc093, [1, 3, 5, 7, 11, 15]),
    ...types(tr, 0x8b, [11]),
    ...types(ldtr, 0x82, [2]),
    ["CS not memory", rights(cs, 0xa08b), GUEST],
    ["CS not present", rights(cs, 0xa01b), GUEST],
    ["CS of DPL 3", rights(cs, 0xa0fb), GUEST],
    ["CS with L and D", rights(cs, 0xe09b), GUEST],
    ["CS reserved bit", rights(cs, 0xa19b), GUEST],
    ["CS reserved bit 17", rights(cs, 0x2_a09b), GUEST],
    ["CS limit needs G", { [Vmcs.GUEST_CS_LIMIT]: 0xffff_ffff, [cs]: 0x209b }, GUEST],
    ["CS limit forbids G", { [Vmcs.GUEST_CS_LIMIT]: 0xffff, [cs]: 0x209b }, OK],
    ["CS limit not of pages", { [Vmcs.GUEST_CS_LIMIT]: 0x1234 }, GUEST],
    ["CS base above 4 GiB", { [Vmcs.GUEST_CS_BASE]: 1n << 32n }, GUEST],
    ["SS RPL not CS's", { [Vmcs.GUEST_SS_SELECTOR]: Sel.DATA | 1 }, GUEST],
    ["SS DPL not RPL", rights(ss, 0xc0f3), GUEST],
    ["SS not present", rights(ss, 0xc013), GUEST],
    ["SS unusable", rights(ss, 0x1_0000), OK],
    ["SS base above 4 GiB", { [Vmcs.GUEST_SS_BASE]: 1n << 32n }, GUEST],
    ["DS DPL below RPL", { [Vmcs.GUEST_DS_SELECTOR]: Sel.DATA | 3 }, GUEST],
    ["DS conforming code, DPL below RPL", {
      [Vmcs.GUEST_DS_SELECTOR]: Sel.DATA | 3,
      [ds]: 0xc09f,
    }, OK],
    ["DS unusable, nonsense", rights(ds, 0x1_ffff & ~0xf00), OK],
    ["DS base above 4 GiB", { [Vmcs.GUEST_DS_BASE]: 1n << 32n }, GUEST],
    ["ES base above 4 GiB", { [Vmcs.GUEST_ES_BASE]: 1n << 32n }, GUEST],
    ["FS base above 4 GiB", { [Vmcs.GUEST_FS_BASE]: 1n << 32n }, OK],
    ["FS base not canonical", { [Vmcs.GUEST_FS_BASE]: NOT_CANONICAL }, GUEST],
    ["GS base not canonical though unusable", {
      [Vmcs.GUEST_GS_BASE]: NOT_CANONICAL,
      [Vmcs.GUEST_GS_ACCESS_RIGHTS]: 0x1_0000,
    }, GUEST],
    ["TR unusable", rights(tr, 0x1_008b), GUEST],
    ["TR in the LDT", { [Vmcs.GUEST_TR_SELECTOR]: 0xfc }, GUEST],
    ["TR base", { [Vmcs.GUEST_TR_BASE]: NOT_CANONICAL }, GUEST],
    ["TR not present", rights(tr, 0x0b), GUEST],
    ["TR memory", rights(tr, 0x9b), GUEST],
    ["LDTR in the LDT", { [ldtr]: 0x82, [Vmcs.GUEST_LDTR_SELECTOR]: 4 }, GUEST],
    ["LDTR unusable in the LDT", { [Vmcs.GUEST_LDTR_SELECTOR]: 4 }, OK],
    ["LDTR base", { [ldtr]: 0x82, [Vmcs.GUEST_LDTR_BASE]: NOT_CANONICAL }, GUEST],
  ]);
});

Deno.test("guest segments of virtual-8086 mode", () => {
  const names = [0, 1, 2, 3, 4, 5];
  const virtual: Record<number, bigint | number> = {
    [Vmcs.GUEST_RFLAGS]: 0x2_3002,
    [Vmcs.GUEST_EFER]: 0,
    ...without(Vmcs.ENTRY_CONTROLS, EntryControl.IA32E_GUEST),
    [Vmcs.GUEST_CR4]: Cr4.VMXE | Cr4.PSE,
    [Vmcs.GUEST_CR3]: At.SCRATCH,
    [Vmcs.GUEST_RIP]: 0,
    [Vmcs.GUEST_RSP]: 0x100,
  };
  for (const k of names) {
    virtual[Vmcs.GUEST_ES_SELECTOR + 2 * k] = 0x1000;
    virtual[Vmcs.GUEST_ES_BASE + 2 * k] = 0x1_0000;
    virtual[Vmcs.GUEST_ES_LIMIT + 2 * k] = 0xffff;
    virtual[Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k] = 0xf3;
  }
  // One 4 MiB page for all; HLT is privileged, and with no IDT its #GP ends in a triple fault.
  lab.bench.set32(At.SCRATCH, 0xe7);
  lab.bench.write(0x1_0000, [0xf4]);
  const cases: Case[] = [["as it must be", virtual, "TRIPLE_FAULT"]];
  for (const k of names) {
    cases.push(
      [`base ${k}`, { ...virtual, [Vmcs.GUEST_ES_BASE + 2 * k]: 0x1_0010 }, GUEST],
      [`limit ${k}`, { ...virtual, [Vmcs.GUEST_ES_LIMIT + 2 * k]: 0xfffe }, GUEST],
      [`rights ${k}`, { ...virtual, [Vmcs.GUEST_ES_ACCESS_RIGHTS + 2 * k]: 0x93 }, GUEST],
    );
  }
  check(cases);
});

Deno.test("activity, interruptibility, pending debug exceptions", () => {
  const event = (info: number): Fields => ({
    [Vmcs.ENTRY_INTERRUPTION_INFO]: (info | 0x8000_0000) >>> 0,
  });
  const blocking = (bits: number, more: Fields = {}): Fields => ({
    [Vmcs.GUEST_INTERRUPTIBILITY]: bits,
    ...more,
  });
  const activity = (state: number, more: Fields = {}): Fields => ({
    [Vmcs.GUEST_ACTIVITY]: state,
    ...more,
  });
  const open = { [Vmcs.GUEST_RFLAGS]: 0x202 };
  const { STI, MOV_SS, NMI, SMI } = Interruptibility;
  const delivered = "TRIPLE_FAULT";
  check([
    ["activity 4", activity(4), GUEST],
    [
      "HLT at DPL 3",
      activity(Activity.HLT, {
        [Vmcs.GUEST_SS_ACCESS_RIGHTS]: 0xc0f3,
        [Vmcs.GUEST_CS_ACCESS_RIGHTS]: 0xa0fb,
        [Vmcs.GUEST_SS_SELECTOR]: Sel.DATA | 3,
        [Vmcs.GUEST_CS_SELECTOR]: Sel.CODE64 | 3,
      }),
      GUEST,
    ],
    ["HLT with blocking by STI", activity(Activity.HLT, { ...blocking(STI), ...open }), GUEST],
    ["HLT and an interrupt", activity(Activity.HLT, { ...event(0x30), ...open }), delivered],
    ["HLT and an NMI", activity(Activity.HLT, event(0x202)), delivered],
    ["HLT and #DB", activity(Activity.HLT, event(0x301)), delivered],
    ["HLT and #MC", activity(Activity.HLT, event(0x312)), delivered],
    ["HLT and #UD", activity(Activity.HLT, event(0x306)), GUEST],
    ["HLT and INT n", activity(Activity.HLT, event(0x480)), GUEST],
    ["HLT and MTF", activity(Activity.HLT, event(0x700)), "MONITOR_TRAP"],
    ["shutdown and an NMI", activity(Activity.SHUTDOWN, event(0x202)), delivered],
    ["shutdown and #MC", activity(Activity.SHUTDOWN, event(0x312)), delivered],
    ["shutdown and an interrupt", activity(Activity.SHUTDOWN, { ...event(0x30), ...open }), GUEST],
    ["wait-for-SIPI and an NMI", activity(Activity.WAIT_FOR_SIPI, event(0x202)), GUEST],
    ["STI", blocking(STI, open), OK],
    ["STI with IF clear", blocking(STI), GUEST],
    ["MOV SS", blocking(MOV_SS), OK],
    ["STI and MOV SS", blocking(STI | MOV_SS, open), GUEST],
    ["SMI", blocking(SMI), GUEST],
    ["NMI", blocking(NMI), OK],
    ["bit 4", blocking(0x10), GUEST],
    ["bit 5", blocking(0x20), GUEST],
    ["interrupt behind STI", blocking(STI, { ...event(0x30), ...open }), GUEST],
    ["interrupt behind MOV SS", blocking(MOV_SS, { ...event(0x30), ...open }), GUEST],
    ["NMI behind MOV SS", blocking(MOV_SS, event(0x202)), GUEST],
    [
      "NMI while virtual NMIs are blocked",
      blocking(NMI, {
        ...event(0x202),
        ...with_(Vmcs.PIN_CONTROLS, Pin.NMI | Pin.VIRTUAL_NMIS),
      }),
      GUEST,
    ],
    ["NMI while NMIs are blocked", blocking(NMI, event(0x202)), delivered],
    ["pending breakpoint not enabled", { [Vmcs.GUEST_PENDING_DEBUG]: 1 }, OK],
    ["pending bit 4", { [Vmcs.GUEST_PENDING_DEBUG]: 0x10 }, GUEST],
    ["pending bit 13", { [Vmcs.GUEST_PENDING_DEBUG]: 0x2000 }, GUEST],
    [
      "TF behind STI with BS",
      blocking(STI, {
        [Vmcs.GUEST_RFLAGS]: 0x302,
        [Vmcs.GUEST_PENDING_DEBUG]: 0x4000,
      }),
      delivered,
    ],
    ["TF behind STI without BS", blocking(STI, { [Vmcs.GUEST_RFLAGS]: 0x302 }), GUEST],
    [
      "BS behind STI without TF",
      blocking(STI, { ...open, [Vmcs.GUEST_PENDING_DEBUG]: 0x4000 }),
      GUEST,
    ],
  ]);
});

Deno.test("the link pointer", () => {
  const link = (pointer: bigint | number, more: Fields = {}): Fields => ({
    [Vmcs.LINK_POINTER]: pointer,
    ...more,
  });
  const failed = `${GUEST} 4`;
  lab.bench.set32(At.OTHER, VMCS_REVISION);
  lab.bench.set32(At.SCRATCH, VMCS_REVISION | SHADOW_VMCS);
  lab.bench.set32(At.SCRATCH + 0x1000, 0);
  check([
    ["a VMCS", link(At.OTHER), OK],
    ["unaligned", link(At.OTHER + 8), failed],
    ["beyond", link(BEYOND), failed],
    ["the current VMCS", link(At.VMCS), failed],
    ["no VMCS", link(At.SCRATCH + 0x1000), failed],
    ["a shadow VMCS without shadowing", link(At.SCRATCH), failed],
    ["a shadow VMCS", secondary(Secondary.SHADOW_VMCS, link(At.SCRATCH)), OK],
    ["no shadow VMCS with shadowing", secondary(Secondary.SHADOW_VMCS, link(At.OTHER)), failed],
  ]);
});

Deno.test("PDPTEs of a guest with PAE paging", () => {
  const pae: Fields = {
    ...UNPAGED,
    [Vmcs.GUEST_CR0]: value(Vmcs.GUEST_CR0),
    [Vmcs.GUEST_CR4]: value(Vmcs.GUEST_CR4),
    [Vmcs.GUEST_CR3]: At.SCRATCH,
  };
  lab.bench.fill(At.SCRATCH, 0x1000, 0);
  // The first entry leads to the bench's page directory.
  lab.bench.set64(At.SCRATCH, BigInt(Place.TABLES + 0x2000) | 1n);
  check([["from memory", pae, OK]]);
  for (const bit of [1n, 2n, 5n, 8n, 48n, 63n]) {
    lab.bench.set64(At.SCRATCH + 24, 1n | (1n << bit));
    check([[`reserved bit ${bit}`, pae, `${GUEST} 2`]]);
    lab.bench.set64(At.SCRATCH + 24, 1n << bit);
    check([[`reserved bit ${bit}, not present`, pae, OK]]);
  }
});

Deno.test("a failed entry leaves the launch state and the guest, and loads the host", () => {
  lab.start();
  lab.prepare({ [Vmcs.GUEST_RFLAGS]: 0, [Vmcs.HOST_FS_BASE]: 0x1234_5678 });
  assertEquals(exitText(lab.enter()), GUEST);
  assertEquals(lab.bench.state.segment(4).base, 0x1234_5678n);
  // Still clear: VMRESUME is refused, VMLAUNCH is not.
  assertEquals(lab.enter(false).result, "VMfail 5");
  lab.write({ [Vmcs.GUEST_RFLAGS]: 2 });
  assertEquals(exitText(lab.enter()), OK);
});

Deno.test("VM-entry MSR loading: the failing entry is the qualification", () => {
  const list = (entries: readonly (readonly [number, bigint])[]): Fields => {
    for (const [k, [index, content]] of entries.entries()) {
      lab.bench.set64(At.SCRATCH + 16 * k, BigInt(index));
      lab.bench.set64(At.SCRATCH + 16 * k + 8, content);
    }
    return {
      [Vmcs.ENTRY_MSR_LOAD_ADDRESS]: At.SCRATCH,
      [Vmcs.ENTRY_MSR_LOAD_COUNT]: entries.length,
    };
  };
  const failed = (n: number): string => `entry failure, MSR_LOADING ${n.toString(16)}`;
  const star = [0xc000_0081, 0x1122_3344_5566_7788n] as const;
  assertEquals(judge(list([star])), OK);
  assertEquals(lab.bench.processor.readMsr(0xc000_0081), star[1]);
  assertEquals(judge(list([star, [0xc000_0100, 0n]])), failed(2));
  assertEquals(judge(list([star, star, [0xc000_0101, 0n]])), failed(3));
  assertEquals(judge(list([[0x480, 0n]])), failed(1));
  assertEquals(judge(list([[0xc000_0082, NOT_CANONICAL]])), failed(1));
  // What is beyond the recommended length fails.
  assertEquals(judge({ ...list(Array.from({ length: 513 }, () => star)) }), failed(513));
  assertEquals(judge({ ...list(Array.from({ length: 512 }, () => star)) }), OK);
  const reserved = list([star]);
  lab.bench.set32(At.SCRATCH + 4, 1);
  assertEquals(judge(reserved), failed(1));
});
