/**
 * Bus-lock detection of VMX: exit 74 behind the instruction, bit 26 of another exit's reason that came
 * first, and the capability MSR (SDM vol. 3, 26.2, 28.2 and appendix A.3.3).
 */
import { assertEquals } from "@std/assert";
import { Primary, Rflags, Secondary, Vmcs } from "../../plugins/cpu/mod.ts";
import { code } from "./code.ts";
import { At, exitText, type Fields, standardFields, VmxLab } from "./vmx_lab.ts";

const standard = standardFields();

const secondary = (bits: number, more: Fields = {}): Fields => ({
  [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
    BigInt(Primary.SECONDARY >>> 0),
  [Vmcs.SECONDARY_CONTROLS]: bits >>> 0,
  ...more,
});
const DETECTED = 1 << 26;

/** Across a line, and within one. */
const SPLIT = At.DATA + 0x3d;
const WHOLE = At.DATA + 0x38;

function lockAt(lab: VmxLab, address: number, fields: Fields, bytes = "f0 01 03 90"): string {
  lab.start();
  lab.bench.fill(At.DATA, 0x1000, 0);
  lab.bench.write(At.GUEST, [...code(bytes), 0xf4]);
  lab.prepare(fields);
  lab.bench.state.setRegister(0, 5n);
  lab.bench.state.setRegister(3, BigInt(address));
  return exitText(lab.enter());
}

Deno.test("a bus lock exits behind the instruction that made it", () => {
  const lab = new VmxLab();
  const on = secondary(Secondary.BUS_LOCK_DETECTION);
  for (const bytes of ["f0 01 03 90", "87 03 90", "f0 0f c1 03 90", "f0 48 0f ba 2b 07 90"]) {
    assertEquals(lockAt(lab, SPLIT, on, bytes), "BUS_LOCK", bytes);
    const length = code(bytes).length - 1;
    assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + length), bytes);
    // Whether the flag is set as well is the processor's choice; here it is of other exits alone.
    assertEquals(lab.read(Vmcs.EXIT_REASON), 74n);
    assertEquals(lockAt(lab, WHOLE, on, bytes), "HLT", bytes);
  }
  // It has taken place, once.
  lockAt(lab, SPLIT, on);
  assertEquals(lab.bench.get32(SPLIT), 5);
  assertEquals(exitText(lab.enter(false)), "HLT");
  assertEquals(lab.bench.get32(SPLIT), 5);
  assertEquals(lockAt(lab, SPLIT, secondary(0)), "HLT");
  assertEquals(lockAt(lab, SPLIT, {}), "HLT");
});

Deno.test("a debug trap behind the same instruction exits first, or stays pending", () => {
  const lab = new VmxLab();
  const stepped = (bitmap: number): Fields =>
    secondary(Secondary.BUS_LOCK_DETECTION, {
      [Vmcs.GUEST_RFLAGS]: Rflags.TF | 2,
      [Vmcs.EXCEPTION_BITMAP]: bitmap,
    });
  assertEquals(lockAt(lab, SPLIT, stepped(2)), "EXCEPTION_OR_NMI 4000");
  assertEquals(Number(lab.read(Vmcs.EXIT_REASON)), DETECTED);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 3));
  assertEquals(lockAt(lab, SPLIT, stepped(0)), "BUS_LOCK");
  assertEquals(lab.read(Vmcs.GUEST_PENDING_DEBUG), 0x4000n);
  assertEquals(lab.read(Vmcs.GUEST_RIP), BigInt(At.GUEST + 3));
  lab.write({ [Vmcs.EXCEPTION_BITMAP]: 2 });
  assertEquals(exitText(lab.enter(false)), "EXCEPTION_OR_NMI 4000");
  assertEquals(lab.read(Vmcs.EXIT_REASON), 0n);
});

Deno.test("an exit that comes first has bit 26 of its reason set", () => {
  const lab = new VmxLab();
  const monitored = secondary(Secondary.BUS_LOCK_DETECTION, {
    [Vmcs.PRIMARY_CONTROLS]: BigInt(standard[Vmcs.PRIMARY_CONTROLS]!) |
      BigInt((Primary.SECONDARY | Primary.MONITOR_TRAP_FLAG) >>> 0),
  });
  assertEquals(lockAt(lab, SPLIT, monitored), "MONITOR_TRAP");
  assertEquals(Number(lab.read(Vmcs.EXIT_REASON)), DETECTED | 37);
  // The next instruction locks nothing, and there is no exit to be taken any more.
  assertEquals(exitText(lab.enter(false)), "MONITOR_TRAP");
  assertEquals(Number(lab.read(Vmcs.EXIT_REASON)), 37);
});

Deno.test("a host's bus locks are nobody's business", () => {
  const lab = new VmxLab();
  assertEquals(lockAt(lab, WHOLE, secondary(Secondary.BUS_LOCK_DETECTION)), "HLT");
  lab.bench.state.setRegister(0, 5n);
  lab.bench.state.setRegister(3, BigInt(SPLIT));
  lab.run(code("f0 01 03"));
  assertEquals(lab.bench.get32(SPLIT), 5);
});

Deno.test("a processor without it refuses the control", () => {
  const bit = 1n << 62n;
  assertEquals(new VmxLab().capability(0xb) & bit, bit);
  for (
    const lab of [
      new VmxLab("skylake-sp"),
      new VmxLab("sapphire-rapids", { bus_lock_detection: false }),
    ]
  ) {
    assertEquals(lab.capability(0xb) & bit, 0n);
    assertEquals(lockAt(lab, SPLIT, secondary(Secondary.BUS_LOCK_DETECTION)), "VMfail 7");
    assertEquals(lockAt(lab, SPLIT, secondary(0)), "HLT");
  }
});
