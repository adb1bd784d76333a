/**
 * IA32_PERF_GLOBAL_CTRL, loaded by VM entries and VM exits where their controls say so (SDM vol. 3, 27.2.2,
 * 27.3.1.1, 27.3.2.1, 28.5.1). The register stands outside, as the performance counters do.
 */
import { assertEquals } from "@std/assert";
import { EntryControl, EventFormat, ExitControl, Vector, Vmcs } from "../../plugins/cpu/mod.ts";
import { At, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const PERF_GLOBAL_CTRL = 0x38f;
/** Four general counters, three fixed ones. */
const DEFINED = 0x7_0000_000fn;

const lab = new VmxLab();
const { bench } = lab;
let register = 0n;
let writes = 0;

const refuse = (): boolean => {
  const event = Vector.GP | EventFormat.EXCEPTION | EventFormat.ERROR | EventFormat.VALID;
  bench.processor.failInstruction(event, 0);
  return true;
};
bench.outside.msrRead = (index) => {
  if (index !== PERF_GLOBAL_CTRL) return refuse();
  bench.processor.exchange[0] = Number(register & 0xffff_ffffn);
  bench.processor.exchange[1] = Number(register >> 32n);
  return true;
};
bench.outside.msrWrite = (index) => {
  const { exchange } = bench.processor;
  const value = BigInt(exchange[0]! >>> 0) | (BigInt(exchange[1]! >>> 0) << 32n);
  if (index !== PERF_GLOBAL_CTRL || (value & ~DEFINED) !== 0n) return refuse();
  register = value;
  writes++;
  return true;
};

const controls = (field: number, bit: number): Fields => ({
  [field]: Number(standardFields()[field]) | bit,
});
const ENTRY = controls(Vmcs.ENTRY_CONTROLS, EntryControl.LOAD_PERF_GLOBAL_CTRL);
const EXIT = controls(Vmcs.EXIT_CONTROLS, ExitControl.LOAD_PERF_GLOBAL_CTRL);

/** What comes of an entry, what the guest reads, and what the host is left with. */
function enter(fields: Fields): readonly [string, bigint, bigint] {
  register = 5n;
  writes = 0;
  lab.start();
  // mov ecx, 38fh; rdmsr; hlt
  bench.write(At.GUEST, [0xb9, 0x8f, 0x03, 0, 0, 0x0f, 0x32, 0xf4]);
  bench.state.setRegister(0, 0n);
  bench.state.setRegister(2, 0n);
  lab.prepare({
    ...controls(Vmcs.PRIMARY_CONTROLS, 0x1000_0000),
    [Vmcs.MSR_BITMAP]: At.SCRATCH,
    ...fields,
  });
  bench.fill(At.SCRATCH, 0x1000, 0);
  const text = exitText(lab.enter());
  const seen = (bench.state.register(2) << 32n) | (bench.state.register(0) & 0xffff_ffffn);
  return [text, text === "HLT" ? seen : 0n, register];
}

Deno.test("entries load the guest's value, exits the host's, where the controls say so", () => {
  const values = {
    [Vmcs.GUEST_PERF_GLOBAL_CTRL]: 0x1_0000_0002n,
    [Vmcs.HOST_PERF_GLOBAL_CTRL]: 0x4_0000_0008n,
  };
  assertEquals(enter(values), ["HLT", 5n, 5n]);
  assertEquals(writes, 0);
  assertEquals(enter({ ...values, ...ENTRY }), ["HLT", 0x1_0000_0002n, 0x1_0000_0002n]);
  assertEquals(enter({ ...values, ...EXIT }), ["HLT", 5n, 0x4_0000_0008n]);
  assertEquals(enter({ ...values, ...ENTRY, ...EXIT }), [
    "HLT",
    0x1_0000_0002n,
    0x4_0000_0008n,
  ]);
});

Deno.test("bits that the register does not have fail the entry, and change nothing", () => {
  for (let bit = 0n; bit < 64n; bit++) {
    const value = 1n << bit;
    const fine = (DEFINED & value) !== 0n;
    const guest = { [Vmcs.GUEST_PERF_GLOBAL_CTRL]: value };
    const host = { [Vmcs.HOST_PERF_GLOBAL_CTRL]: value };
    assertEquals(enter({ ...guest, ...host }), ["HLT", 5n, 5n], `bit ${bit}`);
    const guests = fine ? ["HLT", value, value] : ["entry failure, INVALID_GUEST_STATE", 0n, 5n];
    assertEquals(enter({ ...guest, ...ENTRY }), guests as [string, bigint, bigint], `bit ${bit}`);
    const hosts = fine ? ["HLT", 5n, value] : ["VMfail 8", 0n, 5n];
    assertEquals(enter({ ...host, ...EXIT }), hosts as [string, bigint, bigint], `bit ${bit}`);
  }
});

Deno.test("a failed entry loads the host's value, as any exit does", () => {
  const fields = {
    ...ENTRY,
    ...EXIT,
    [Vmcs.GUEST_PERF_GLOBAL_CTRL]: 1n,
    [Vmcs.HOST_PERF_GLOBAL_CTRL]: 2n,
    [Vmcs.GUEST_RFLAGS]: 0,
  };
  assertEquals(enter(fields), ["entry failure, INVALID_GUEST_STATE", 0n, 2n]);
});

Deno.test("where there are no counters, nothing can be loaded into them", () => {
  const { msrRead, msrWrite } = bench.outside;
  bench.outside.msrRead = bench.outside.msrWrite = refuse;
  assertEquals(enter(EXIT)[0], "VMfail 8");
  assertEquals(enter(ENTRY)[0], "entry failure, INVALID_GUEST_STATE");
  bench.outside.msrRead = msrRead;
  bench.outside.msrWrite = msrWrite;
});
