/**
 * VMX operation: entering and leaving it, VMCS pointers, fields, and the failure conventions of VMX
 * instructions (SDM vol. 3, ch. 31).
 */
import { assert, assertEquals } from "@std/assert";
import {
  Cr4,
  Efer,
  FeatureControl,
  Msr,
  S,
  SHADOW_VMCS,
  Vmcs,
  VMCS_REVISION,
  VmxMsr,
} from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";
import { At, standardFields, VMCS_FIELDS, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;

const INSTRUCTIONS: Readonly<Record<string, string>> = {
  VMCLEAR: "66 0f c7 33",
  VMPTRLD: "0f c7 33",
  VMPTRST: "0f c7 3b",
  VMREAD: "0f 78 c3",
  VMWRITE: "0f 79 c3",
  VMLAUNCH: "0f 01 c2",
  VMRESUME: "0f 01 c3",
  VMXOFF: "0f 01 c4",
  INVEPT: "66 0f 38 80 03",
  INVVPID: "66 0f 38 81 03",
};

Deno.test("outside of VMX operation every VMX instruction but VMXON is undefined", () => {
  lab.start();
  assertEquals(lab.run(hex("0f01c4")), "VMsucceed");
  assertEquals(bench.state.get32(S.vmxOn), 0);
  bench.state.setRegister(3, BigInt(At.POINTER));
  for (
    const [name, bytes] of Object.entries({ ...INSTRUCTIONS, VMCALL: "0f01c1", VMFUNC: "0f01d4" })
  ) {
    lab.cold();
    assertEquals(lab.run(hex(bytes)), "#6", name);
  }
});

Deno.test("a processor of the other vendor knows none of them", () => {
  const amd = new Bench();
  for (
    const [name, bytes] of Object.entries({
      ...INSTRUCTIONS,
      VMXON: "f3 0f c7 33",
      VMCALL: "0f01c1",
    })
  ) {
    amd.long();
    amd.state.setRegister(3, BigInt(At.POINTER));
    assertEquals(amd.judge(hex(bytes)), "#6", name);
  }
  assertEquals(amd.processor.readMsr(VmxMsr.BASIC), undefined);
  assertEquals(amd.processor.readMsr(Msr.FEATURE_CONTROL), undefined);
  // And an Intel processor has no EFER.SVME.
  lab.cold();
  assertEquals(bench.processor.writeMsr(Msr.EFER, BigInt(Efer.LME | Efer.LMA | Efer.SVME)), false);
});

Deno.test("in VMX operation a privilege of 3 is #GP(0)", () => {
  for (const [name, bytes] of Object.entries({ ...INSTRUCTIONS, VMXON: "f3 0f c7 33" })) {
    lab.elsewhere(() => bench.long(3));
    bench.state.setRegister(3, BigInt(At.POINTER));
    assertEquals(bench.judge(hex(bytes)), "#13(0)", name);
  }
});

Deno.test("compatibility mode and real mode are #UD", () => {
  for (const [name, bytes] of Object.entries({ ...INSTRUCTIONS, VMXON: "f3 0f c7 33" })) {
    lab.elsewhere(() => bench.long(0, 32));
    assertEquals(bench.judge(hex(bytes)), "#6", name);
    lab.elsewhere(() => bench.real());
    assertEquals(bench.judge(hex(bytes)), "#6", name);
  }
});

Deno.test("VMXON: what it takes", () => {
  const vmxon = (pointer: number | bigint): string => lab.pointer("f3 0f c7 33", pointer);
  const off = (): void => {
    lab.start();
    lab.run(hex("0f01c4"));
    lab.cold();
  };
  off();
  bench.state.set(S.cr4, BigInt(Cr4.PAE));
  assertEquals(vmxon(At.VMXON), "#6");
  // CR0.NE is fixed to 1.
  off();
  bench.state.set(S.cr0, bench.state.get(S.cr0) & ~0x20n);
  assertEquals(vmxon(At.VMXON), "#13");
  off();
  assertEquals(vmxon(At.VMXON + 8), "VMfailInvalid");
  assertEquals(vmxon(1n << 48n), "VMfailInvalid");
  bench.set32(At.OTHER, VMCS_REVISION + 1);
  assertEquals(vmxon(At.OTHER), "VMfailInvalid");
  bench.set32(At.OTHER, VMCS_REVISION | SHADOW_VMCS);
  assertEquals(vmxon(At.OTHER), "VMfailInvalid");
  bench.set32(At.OTHER, VMCS_REVISION);
  assertEquals(vmxon(At.VMXON), "VMsucceed");
  assertEquals(vmxon(At.VMXON), "VMfailInvalid");
  assertEquals(lab.vmptrld(At.VMCS), "VMsucceed");
  assertEquals(vmxon(At.VMXON), "VMfail 15");
});

Deno.test("IA32_FEATURE_CONTROL: VMXON needs it locked and enabled; locked it is read-only", () => {
  for (
    const [value, expected] of [[0n, "#13"], [1n, "#13"], [4n, "#13"], [5n, "VMsucceed"]] as const
  ) {
    const fresh = new Bench({ model: "skylake-sp" });
    fresh.long();
    fresh.state.set(S.cr4, BigInt(Cr4.PAE | Cr4.VMXE));
    fresh.processor.refresh();
    assertEquals(fresh.processor.writeMsr(Msr.FEATURE_CONTROL, value), true);
    fresh.set32(At.VMXON, VMCS_REVISION);
    fresh.set64(At.POINTER, BigInt(At.VMXON));
    fresh.state.setRegister(3, BigInt(At.POINTER));
    const { events } = fresh.execute(hex("f3 0f c7 33"));
    assertEquals(events.length === 0 ? "VMsucceed" : `#${events[0]!.vector}`, expected, `${value}`);
    const locked = (value & BigInt(FeatureControl.LOCK)) !== 0n;
    assertEquals(fresh.processor.writeMsr(Msr.FEATURE_CONTROL, 5n), !locked);
    assertEquals(fresh.processor.writeMsr(Msr.FEATURE_CONTROL, 2n), false);
  }
});

Deno.test("in VMX operation CR4.VMXE and the fixed bits of CR0 cannot be cleared", () => {
  const mov = (cr: number, value: bigint): string => {
    lab.start();
    bench.state.setRegister(0, value);
    return lab.run([0x0f, 0x22, 0xc0 | (cr << 3)]);
  };
  assertEquals(mov(4, BigInt(Cr4.PAE)), "#13");
  assertEquals(mov(4, BigInt(Cr4.PAE | Cr4.VMXE)), "VMsucceed");
  const cr0 = bench.state.get(S.cr0);
  assertEquals(mov(0, cr0), "VMsucceed");
  assertEquals(mov(0, cr0 & ~0x20n), "#13");
  assertEquals(mov(0, cr0 & ~0x8000_0000n), "#13");
});

Deno.test("VMCLEAR and VMPTRLD: addresses, the VMXON region, revisions", () => {
  lab.start();
  assertEquals(lab.vmptrld(At.VMCS + 4), "VMfailInvalid");
  assertEquals(lab.vmclear(At.VMCS), "VMsucceed");
  assertEquals(lab.vmptrld(At.VMCS), "VMsucceed");
  assertEquals(lab.vmclear(At.OTHER + 0x800), "VMfail 2");
  assertEquals(lab.vmclear(1n << 50n), "VMfail 2");
  assertEquals(lab.vmclear(At.VMXON), "VMfail 3");
  assertEquals(lab.vmptrld(At.OTHER + 0x10), "VMfail 9");
  assertEquals(lab.vmptrld(-0x1000n), "VMfail 9");
  assertEquals(lab.vmptrld(At.VMXON), "VMfail 10");
  bench.set32(At.OTHER, VMCS_REVISION ^ 1);
  assertEquals(lab.vmptrld(At.OTHER), "VMfail 11");
  bench.set32(At.OTHER, VMCS_REVISION | SHADOW_VMCS);
  assertEquals(lab.vmptrld(At.OTHER), "VMsucceed");
  bench.set32(At.OTHER, VMCS_REVISION);
  // A processor without VMCS shadowing does not know the indicator.
  const plain = new VmxLab("skylake-sp", { shadow_vmcs: false });
  plain.bench.set32(At.OTHER, VMCS_REVISION | SHADOW_VMCS);
  plain.vmptrld(At.VMCS);
  assertEquals(plain.vmptrld(At.OTHER), "VMfail 11");
});

Deno.test("VMPTRST stores the current pointer; VMCLEAR of it leaves none", () => {
  lab.start();
  const current = (): bigint => {
    assertEquals(lab.pointer("0f c7 3b", 0), "VMsucceed");
    return bench.get64(At.POINTER);
  };
  assertEquals(current(), 0xffff_ffff_ffff_ffffn);
  lab.vmptrld(At.VMCS);
  assertEquals(current(), BigInt(At.VMCS));
  lab.vmclear(At.OTHER);
  assertEquals(current(), BigInt(At.VMCS));
  lab.vmclear(At.VMCS);
  assertEquals(current(), 0xffff_ffff_ffff_ffffn);
  assertEquals(lab.vmwrite(Vmcs.GUEST_RIP, 1), "VMfailInvalid");
});

Deno.test("every field keeps what is written, cut to its width; halves are fields of their own", () => {
  lab.start();
  lab.vmptrld(At.VMCS);
  const pattern = 0x8765_4321_0fed_cba9n;
  for (const [name, encoding] of VMCS_FIELDS) {
    assertEquals(lab.vmwrite(encoding, pattern), "VMsucceed", name);
    const width = (encoding >> 13) & 3;
    const expected = width === 0
      ? pattern & 0xffffn
      : width === 2
      ? pattern & 0xffff_ffffn
      : pattern;
    assertEquals(lab.read(encoding), expected, name);
    if (width !== 1) continue;
    assertEquals(lab.read(encoding + 1), pattern >> 32n, name);
    assertEquals(lab.vmwrite(encoding + 1, 0x1234_5678), "VMsucceed");
    assertEquals(lab.read(encoding), 0x1234_5678_0fed_cba9n, name);
  }
  // Each has a place of its own.
  const values = VMCS_FIELDS.map(([, encoding]) => encoding);
  for (const [k, encoding] of values.entries()) lab.vmwrite(encoding, k);
  for (const [k, encoding] of values.entries()) assertEquals(lab.read(encoding), BigInt(k));
});

Deno.test("an encoding that is no field is VMfail 12", () => {
  const lab = new VmxLab("sapphire-rapids", { shstk: false, ibt: false });
  lab.start();
  lab.vmptrld(At.VMCS);
  const fields = new Set<number>(VMCS_FIELDS.map(([, encoding]) => encoding));
  const wrong: (number | bigint)[] = [
    0x7fff,
    0x8000,
    0x1_0000,
    0x1000_4002,
    1n << 63n,
    0x4003,
    0x6801,
    0x0801,
  ];
  for (let k = 0; k < 64; k++) {
    for (let kind = 0; kind < 16; kind++) {
      const encoding = ((kind & 12) << 11) | ((kind & 3) << 10) | (k << 1);
      if (!fields.has(encoding)) wrong.push(encoding);
    }
  }
  for (const encoding of wrong) assertEquals(lab.vmwrite(encoding, 1), "VMfail 12", `${encoding}`);
  lab.bench.state.setRegister(0, 0x4003n);
  assertEquals(lab.run(hex("0f 78 c3")), "VMfail 12");
});

Deno.test("IA32_VMX_VMCS_ENUM has the highest index of any field", () => {
  const highest = Math.max(...Object.values(Vmcs).map((encoding) => (encoding >> 1) & 0x1ff));
  assertEquals(lab.capability(VmxMsr.VMCS_ENUM - VmxMsr.BASIC), BigInt(highest << 1));
});

Deno.test("the TRUE capabilities allow what the others allow, and more only where default1 ends", () => {
  for (const model of ["haswell", "skylake-sp", "sapphire-rapids"] as const) {
    const one = new VmxLab(model);
    const msr = (index: number): bigint => one.capability(index - VmxMsr.BASIC);
    const pairs = [
      [VmxMsr.PIN, VmxMsr.TRUE_PIN, 0x16n],
      [VmxMsr.PRIMARY, VmxMsr.TRUE_PRIMARY, 0x0401_e172n],
      [VmxMsr.EXIT, VmxMsr.TRUE_EXIT, 0x3_6dffn],
      [VmxMsr.ENTRY, VmxMsr.TRUE_ENTRY, 0x11ffn],
    ] as const;
    for (const [plain, exact, default1] of pairs) {
      assertEquals(msr(plain) & 0xffff_ffffn, default1);
      assertEquals(msr(plain) >> 32n, msr(exact) >> 32n);
      assertEquals(msr(exact) & ~msr(plain) & 0xffff_ffffn, 0n);
      // What must be 1 may be 1.
      assertEquals((msr(exact) & 0xffff_ffffn) & ~(msr(exact) >> 32n), 0n);
    }
    assertEquals(msr(VmxMsr.BASIC) & 0xffff_ffffn, BigInt(VMCS_REVISION));
    assertEquals((msr(VmxMsr.BASIC) >> 32n) & 0x1fffn, 0x1000n);
    assertEquals(one.bench.processor.writeMsr(VmxMsr.BASIC, 0n), false);
  }
});

Deno.test("launch states: VMLAUNCH wants a clear VMCS, VMRESUME one that was launched", () => {
  lab.start();
  assertEquals(lab.run(hex("0f01c2")), "VMfailInvalid");
  assertEquals(lab.run(hex("0f01c3")), "VMfailInvalid");
  bench.write(At.GUEST, hex("f4 f4 f4"));
  lab.prepare();
  assertEquals(lab.enter(false).result, "VMfail 5");
  assertEquals(lab.enter(true).result, "exit");
  assertEquals(lab.enter(true).result, "VMfail 4");
  assertEquals(lab.enter(false).result, "exit");
  assertEquals(lab.vmclear(At.VMCS), "VMsucceed");
  lab.vmptrld(At.VMCS);
  assertEquals(lab.enter(false).result, "VMfail 5");
});

Deno.test("in the shadow of MOV SS an entry is VMfail 26, in that of STI it is not", () => {
  bench.write(At.GUEST, hex("f4"));
  lab.start();
  lab.prepare();
  // mov eax, ss; mov ss, eax; vmlaunch
  assertEquals(lab.run(hex("8c d0 8e d0 0f 01 c2")), "VMfail 26");
  bench.write(Place.CODE, [...hex("fa fb 0f 01 c2 f4")]);
  bench.state.set(S.rip, BigInt(Place.CODE));
  bench.run(100);
  assertEquals(bench.state.rip, BigInt(At.EXIT + 1));
});

Deno.test("a shadow VMCS cannot be entered", () => {
  lab.start();
  lab.prepare();
  assertEquals(lab.vmclear(At.VMCS), "VMsucceed");
  bench.set32(At.VMCS, VMCS_REVISION | SHADOW_VMCS);
  assertEquals(lab.vmptrld(At.VMCS), "VMsucceed");
  assertEquals(lab.enter().result, "VMfailInvalid");
  bench.set32(At.VMCS, VMCS_REVISION);
  assert(Object.keys(standardFields()).length > 100);
});

Deno.test("VMCALL in root operation is VMfail 1, VMFUNC is undefined", () => {
  lab.start();
  assertEquals(lab.run(hex("0f01c1")), "VMfailInvalid");
  lab.vmptrld(At.VMCS);
  assertEquals(lab.run(hex("0f01c1")), "VMfail 1");
  assertEquals(lab.run(hex("0f01d4")), "#6");
});

Deno.test("INVEPT and INVVPID: types and descriptors", () => {
  lab.start();
  lab.vmptrld(At.VMCS);
  const run = (bytes: string, type: number, low: bigint, high = 0n): string => {
    bench.set64(At.POINTER, low);
    bench.set64(At.POINTER + 8, high);
    bench.state.setRegister(0, BigInt(type));
    bench.state.setRegister(3, BigInt(At.POINTER));
    return lab.run(hex(bytes));
  };
  const invept = (type: number, low: bigint, high?: bigint) =>
    run("66 0f 38 80 03", type, low, high);
  const invvpid = (type: number, low: bigint, high?: bigint) =>
    run("66 0f 38 81 03", type, low, high);
  const eptp = 0x5000n | (3n << 3n) | 6n;
  assertEquals(invept(0, eptp), "VMfail 28");
  assertEquals(invept(1, eptp), "VMsucceed");
  assertEquals(invept(1, eptp | 0x40n), "VMsucceed");
  assertEquals(invept(1, eptp ^ 4n), "VMfail 28");
  assertEquals(invept(1, eptp ^ 8n), "VMfail 28");
  assertEquals(invept(1, eptp | (1n << 48n)), "VMfail 28");
  assertEquals(invept(2, 0n), "VMsucceed");
  assertEquals(invept(3, eptp), "VMfail 28");
  assertEquals(invvpid(0, 1n, 0x1000n), "VMsucceed");
  assertEquals(invvpid(0, 1n, 1n << 56n), "VMfail 28");
  assertEquals(invvpid(0, 0n, 0x1000n), "VMfail 28");
  assertEquals(invvpid(1, 1n), "VMsucceed");
  assertEquals(invvpid(1, 0n), "VMfail 28");
  assertEquals(invvpid(1, 0x1_0001n), "VMfail 28");
  assertEquals(invvpid(2, 0n), "VMsucceed");
  assertEquals(invvpid(3, 1n), "VMsucceed");
  assertEquals(invvpid(4, 1n), "VMfail 28");
});
