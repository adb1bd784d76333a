/**
 * Control-flow enforcement of VMX guests: the controls that load it, VM entry's checks (SDM vol. 3, 27.2.2 and
 * 27.3.1.1), what VM exits save, EPT's marks for supervisor shadow stacks (29.3.3.2), exits of XSAVES.
 */
import { assertEquals } from "@std/assert";
import {
  Cr0,
  Cr4,
  EntryControl,
  ExitControl,
  Primary,
  S,
  Secondary,
  Vmcs,
} from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { At, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;
const { state } = bench;
const standard = standardFields();
const value = (encoding: number): bigint => BigInt(standard[encoding]!);
const with_ = (encoding: number, bits: number): Fields => ({
  [encoding]: value(encoding) | BigInt(bits),
});

/** Entries load the guest's, exits the host's. */
const LOAD: Fields = {
  ...with_(Vmcs.ENTRY_CONTROLS, EntryControl.LOAD_CET),
  ...with_(Vmcs.EXIT_CONTROLS, ExitControl.LOAD_CET),
};
const NONE: Fields = {
  [Vmcs.GUEST_S_CET]: 0,
  [Vmcs.GUEST_SSP]: 0,
  [Vmcs.GUEST_INTERRUPT_SSP_TABLE]: 0,
  [Vmcs.HOST_S_CET]: 0,
  [Vmcs.HOST_SSP]: 0,
  [Vmcs.HOST_INTERRUPT_SSP_TABLE]: 0,
};
const HOST = "VMfail 8";
const GUEST = "entry failure, INVALID_GUEST_STATE";
/** Linear addresses have 57 bits. */
const NOT_CANONICAL = 1n << 56n;

function judge(fields: Fields): string {
  lab.start();
  bench.write(At.GUEST, [0xf4]);
  lab.prepare({ ...NONE, ...fields });
  return exitText(lab.enter());
}

/** Fields of the guest, and of the host; the same is wrong with both. */
const FIELDS = [
  [Vmcs.GUEST_S_CET, Vmcs.GUEST_CR0, Vmcs.GUEST_CR4, GUEST],
  [Vmcs.HOST_S_CET, Vmcs.HOST_CR0, Vmcs.HOST_CR4, HOST],
] as const;

for (const [control, cr0, cr4, failure] of FIELDS) {
  const [ssp, table] = [control + 2, control + 4];
  const cases: readonly (readonly [string, Fields, string])[] = [
    ["all of S_CET", { [control]: 0x43fn | (1n << 40n) }, "HLT"],
    ["a reserved bit of S_CET", { [control]: 0x40 }, failure],
    ["TRACKER and SUPPRESS", { [control]: 0xc04 }, failure],
    ["a bitmap that is not canonical", { [control]: NOT_CANONICAL }, failure],
    ["SSP", { [ssp]: 0x1004 }, "HLT"],
    ["SSP not a multiple of 4", { [ssp]: 0x1002 }, failure],
    ["SSP not canonical", { [ssp]: NOT_CANONICAL }, failure],
    ["a table that is not canonical", { [table]: NOT_CANONICAL }, failure],
  ];
  Deno.test(`entry's checks on the fields from ${control.toString(16)}h on`, () => {
    for (const [name, fields, expected] of cases) {
      assertEquals(judge({ ...LOAD, ...fields }), expected, name);
      assertEquals(judge(fields), "HLT", `${name}, not loaded`);
    }
    const withoutWp = { [cr0]: value(cr0) & ~BigInt(Cr0.WP) };
    assertEquals(judge({ [cr4]: value(cr4) | BigInt(Cr4.CET) }), "HLT");
    assertEquals(judge({ [cr4]: value(cr4) | BigInt(Cr4.CET), ...withoutWp }), failure);
  });
}

Deno.test("entries and exits load the three where the controls say so, and exits always save them", () => {
  for (const [controls, loads] of [[{}, false], [LOAD, true]] as const) {
    lab.start();
    bench.processor.writeMsr(0x6a2, 2n);
    // mov ecx, 6a2h; rdmsr; hlt
    bench.write(At.GUEST, [0xb9, 0xa2, 6, 0, 0, 0x0f, 0x32, 0xf4]);
    lab.prepare({
      ...NONE,
      ...controls,
      ...with_(Vmcs.PRIMARY_CONTROLS, Primary.MSR_BITMAPS),
      [Vmcs.MSR_BITMAP]: At.SCRATCH,
      [Vmcs.GUEST_S_CET]: 1,
      [Vmcs.GUEST_SSP]: 0x4000,
      [Vmcs.GUEST_INTERRUPT_SSP_TABLE]: 0x5000,
      [Vmcs.HOST_S_CET]: 0x10,
      [Vmcs.HOST_SSP]: 0x6000,
      [Vmcs.HOST_INTERRUPT_SSP_TABLE]: 0x7000,
    });
    bench.fill(At.SCRATCH, 0x1000, 0);
    assertEquals(exitText(lab.enter()), "HLT");
    assertEquals(state.register(0), loads ? 1n : 2n);
    assertEquals(state.get(S.sCet), loads ? 0x10n : 2n);
    assertEquals(state.get(S.ssp), loads ? 0x6000n : 0n);
    assertEquals(state.get(S.sspTable), loads ? 0x7000n : 0n);
    assertEquals(lab.read(Vmcs.GUEST_S_CET), loads ? 1n : 2n);
    assertEquals(lab.read(Vmcs.GUEST_SSP), loads ? 0x4000n : 0n);
    bench.processor.writeMsr(0x6a2, 0n);
  }
});

Deno.test("without the feature there are neither the controls nor the fields", () => {
  const old = new VmxLab("skylake-sp");
  old.prepare();
  assertEquals(old.vmwrite(Vmcs.GUEST_S_CET, 0), "VMfail 12");
  assertEquals(old.vmwrite(Vmcs.HOST_INTERRUPT_SSP_TABLE, 0), "VMfail 12");
  assertEquals((old.capability(0xf) >> 60n) & 1n, 0n);
  assertEquals((old.capability(0x10) >> 52n) & 1n, 0n);
  assertEquals((lab.capability(0xf) >> 60n) & 1n, 1n);
  assertEquals((lab.capability(0x10) >> 52n) & 1n, 1n);
});

// EPT: four levels that map 8 MiB to themselves, the last in pages of 4 KiB for the first 2 MiB.

const PML4 = At.SCRATCH;
const [PDPT, PD, PT] = [PML4 + 0x1000, PML4 + 0x2000, PML4 + 0x3000];
/** The shadow stack of the guest: a page of the region of 2 MiB that the bench's tables map in one. */
const STACK = 0x60_0000;
const MARK = 1n << 60n;

function extended(leaf: bigint, pointer: bigint): string {
  lab.start();
  bench.fill(PML4, 0x4000, 0);
  bench.set64(PML4, BigInt(PDPT) | 7n);
  bench.set64(PDPT, BigInt(PD) | 7n);
  for (let k = 0; k < 4; k++) bench.set64(PD + 8 * k, BigInt(k * 0x20_0000) | 0xb7n);
  bench.set64(PD + 8 * 3, BigInt(PT) | 7n);
  for (let k = 0; k < 512; k++) bench.set64(PT + 8 * k, BigInt(STACK + 0x1000 * k) | leaf);
  const entry = Place.TABLES + 0x2000 + 8 * 3;
  const before = bench.get64(entry);
  bench.set64(entry, BigInt(STACK) | 0xe1n);
  // lea rax,[rip+2]; call rax; hlt
  bench.write(At.GUEST, [0x48, 0x8d, 5, 2, 0, 0, 0, 0xff, 0xd0, 0xf4]);
  lab.prepare({
    ...NONE,
    ...LOAD,
    ...with_(Vmcs.PRIMARY_CONTROLS, Primary.SECONDARY),
    [Vmcs.SECONDARY_CONTROLS]: Secondary.EPT,
    [Vmcs.EPT_POINTER]: BigInt(PML4) | 0x1en | pointer,
    ...with_(Vmcs.GUEST_CR4, Cr4.CET),
    [Vmcs.GUEST_S_CET]: 1,
    [Vmcs.GUEST_SSP]: STACK + 0x1000,
  });
  const result = exitText(lab.enter());
  bench.set64(entry, before);
  return result;
}

/** Leaf of EPT, bit 7 of the pointer, and what a push of a supervisor's comes to. */
const LEAVES: readonly (readonly [string, bigint, bigint, string])[] = [
  ["writable", 0x33n, 0n, "HLT"],
  ["read-only", 0x31n, 0n, "EPT_VIOLATION 218a"],
  ["read-only and marked, without marks in force", 0x31n | MARK, 0n, "EPT_VIOLATION 218a"],
  ["read-only and marked", 0x31n | MARK, 0x80n, "HLT"],
  ["writable and marked", 0x33n | MARK, 0x80n, "HLT"],
  ["writable and not marked", 0x33n, 0x80n, "EPT_VIOLATION 219a"],
  ["not readable and marked", 0x34n | MARK, 0x80n, "EPT_VIOLATION 61a2"],
];

for (const [name, leaf, pointer, expected] of LEAVES) {
  Deno.test(`a supervisor shadow stack in an EPT page that is ${name}: ${expected}`, () => {
    assertEquals(extended(leaf, pointer), expected);
  });
}

Deno.test("XSAVES and XRSTORS exit for components of XSS that the bitmap has", () => {
  for (const [bitmap, exits] of [[0n, false], [0x1000n, false], [0x800n, true]] as const) {
    for (const [code, reason] of [[0x2b, "XSAVES"], [0x1b, "XRSTORS"]] as const) {
      lab.start();
      bench.fill(At.DATA, 0x400, 0);
      bench.set64(At.DATA + 520, 1n << 63n);
      bench.processor.writeMsr(0xda0, 0x1800n);
      state.setRegister(3, BigInt(At.DATA));
      // mov ebx, DATA; mov eax, 800h; xor edx, edx; xsaves/xrstors [rbx]; hlt
      bench.write(At.GUEST, [
        ...[0xbb, 0, 0, 0x21, 0, 0xb8, 0, 8, 0, 0, 0x31, 0xd2, 0x0f, 0xc7, code, 0xf4],
      ]);
      lab.prepare({
        ...NONE,
        ...with_(Vmcs.PRIMARY_CONTROLS, Primary.SECONDARY),
        [Vmcs.SECONDARY_CONTROLS]: Secondary.XSAVES,
        [Vmcs.XSS_EXITING_BITMAP]: bitmap,
        ...with_(Vmcs.GUEST_CR4, Cr4.OSXSAVE),
      });
      assertEquals(exitText(lab.enter()), exits ? reason : "HLT");
    }
  }
});
