/**
 * VMX by a host that is the program outside: the processor's methods do what the instructions do.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { ExitInformation, Pin, Seg, Vmcs, VmxExit } from "../../plugins/cpu/mod.ts";
import type { Bench } from "./bench.ts";
import { code } from "./code.ts";
import { At, standardFields, VmxLab } from "./vmx_lab.ts";

const lab = new VmxLab();
const { bench } = lab;

/** A processor outside of VMX operation whose exits return to the program. */
function start(): Bench["processor"] {
  lab.cold();
  const { processor } = bench;
  processor.setHostOutside(true);
  return processor;
}

/** Physical addresses of the bench are those of its address space. */
function current(fields: Readonly<Record<number, number | bigint>>): Bench["processor"] {
  const processor = start();
  processor.vmxon(At.VMXON);
  processor.vmclear(At.VMCS);
  processor.vmptrld(At.VMCS);
  for (const [encoding, value] of Object.entries({ ...standardFields(), ...fields })) {
    const wide = BigInt.asUintN(64, BigInt(value));
    processor.vmwrite(Number(encoding), Number(wide & 0xffff_ffffn), Number(wide >> 32n));
  }
  return processor;
}

const area = bench.memory.view(bench.base + At.DATA, 272);
/** R0–R31, RIP and RFLAGS. */
const registers = new BigUint64Array(area.buffer, area.byteOffset, 34);
const [RSP, RIP, RFLAGS] = [4, 32, 33] as const;

/** Registers of a guest at its first instruction. */
function begin(): void {
  registers.fill(0n);
  registers[RIP] = BigInt(At.GUEST);
  registers[RFLAGS] = 2n;
}

Deno.test("what fails throws with the error of the manual", () => {
  const processor = start();
  assertThrows(() => processor.vmread(Vmcs.GUEST_RIP), Error, "VMfailInvalid");
  assertThrows(() => processor.vmxon(At.VMXON + 8), Error, "VMfailInvalid");
  processor.vmxon(At.VMXON);
  processor.vmptrld(At.VMCS);
  assertThrows(() => processor.vmptrld(At.VMXON), Error, "error 10");
  assertThrows(() => processor.vmclear(At.VMXON), Error, "error 3");
  assertThrows(() => processor.vmread(0x7ffe), Error, "error 12");
  assertThrows(() => processor.vmwrite(0x7ffe, 0, 0), Error, "error 12");
  assertThrows(() => processor.invept(0, 0), Error, "error 28");
  assertThrows(() => processor.invvpid(1, 0), Error, "error 28");
  processor.invept(2, 0);
  processor.invvpid(1, 1);
});

Deno.test("fields go out and in by halves", () => {
  const processor = current({});
  processor.vmwrite(Vmcs.GUEST_FS_BASE, 0x8765_4321, 0xfedc_ba98);
  assertEquals(processor.vmread(Vmcs.GUEST_FS_BASE), 0x8765_4321);
  assertEquals(processor.exchange[1]! >>> 0, 0xfedc_ba98);
});

Deno.test("an entry switches all general registers, and comes back behind the exit", () => {
  const processor = current({});
  // xchg rax, r15; stc; add rsp, 8; hlt; cpuid
  bench.write(At.GUEST, code("49 97 f9 48 83 c4 08 f9 f4 0f a2"));
  begin();
  for (let n = 0; n < 16; n++) registers[n] = BigInt(0x1000 + n);
  assertEquals(processor.enterVmx(registers, true, 1000), 0);
  assertEquals(processor.vmread(Vmcs.EXIT_REASON), VmxExit.HLT);
  assertEquals(registers[0], 0x100fn);
  assertEquals(registers[15], 0x1000n);
  assertEquals(registers[RSP], 0x100cn);
  assertEquals(registers[RIP], BigInt(At.GUEST + 8));
  // CF, which STC has set; of the sum's flags PF.
  assertEquals(registers[RFLAGS], 7n);
  // What the stub has read is what the VMCS has.
  const { exitInformation: information } = processor;
  assertEquals(information[ExitInformation.REASON], VmxExit.HLT);
  assertEquals(information[ExitInformation.LENGTH], 1);
  assertEquals(processor.vmread(Vmcs.GUEST_RIP), At.GUEST + 8);
  registers[RIP]! += 1n;
  assertEquals(processor.enterVmx(registers, true, 1000), 4);
  assertEquals(processor.enterVmx(registers, false, 1000), 0);
  assertEquals(processor.vmread(Vmcs.EXIT_REASON), VmxExit.CPUID);
});

Deno.test("a budget that is used up is an external interrupt; a refused entry runs nothing", () => {
  const processor = current({ [Vmcs.PIN_CONTROLS]: 0x16 | Pin.EXTERNAL_INTERRUPT });
  // inc rax; jmp
  bench.write(At.GUEST, code("48 ff c0 eb fb"));
  begin();
  assertEquals(processor.enterVmx(registers, true, 101), 0);
  assertEquals(processor.vmread(Vmcs.EXIT_REASON), VmxExit.EXTERNAL_INTERRUPT);
  assertEquals(registers[0], 51n);
  assertEquals(processor.retired, 101);
  processor.vmwrite(Vmcs.CR3_TARGET_COUNT, 5, 0);
  assertEquals(processor.enterVmx(registers, false, 101), 7);
  processor.vmwrite(Vmcs.CR3_TARGET_COUNT, 0, 0);
  processor.vmwrite(Vmcs.HOST_TR_SELECTOR, 0, 0);
  assertEquals(processor.enterVmx(registers, false, 101), 8);
  assertEquals(registers[0], 51n);
});

Deno.test("each exit loads the host's segments, and saves the guest's, as they are by then", () => {
  const processor = current({});
  // cpuid: exits each time, RIP stays. Behind it, mov fs, ax; jmp to the CPUID
  bench.write(At.GUEST, code("0f a2 8e e0 eb fa"));
  const host = () => {
    const { selector, base } = processor.state.segment(Seg.FS);
    return [selector, base];
  };
  const guest = () => [
    processor.vmread(Vmcs.GUEST_FS_SELECTOR),
    processor.vmread(Vmcs.GUEST_FS_ACCESS_RIGHTS) & 0x1_0000,
  ];
  const enter = (launch = false) => {
    assertEquals(processor.enterVmx(registers, launch, 1000), 0);
    assertEquals(processor.vmread(Vmcs.EXIT_REASON), VmxExit.CPUID);
  };
  begin();
  enter(true);
  const before = guest();
  for (let k = 0; k < 3; k++) {
    enter();
    assertEquals(guest(), before);
  }
  // The guest's own: a null selector, which is unusable.
  registers[RIP] = BigInt(At.GUEST + 2);
  registers[0] = 3n;
  enter();
  assertEquals(guest(), [3, 0x1_0000]);
  enter();
  assertEquals(guest(), [3, 0x1_0000]);
  // VMWRITE between an exit and the next entry.
  processor.vmwrite(Vmcs.GUEST_FS_SELECTOR, 0x2b, 0);
  enter();
  assertEquals(guest(), [0x2b, 0x1_0000]);
  for (const [selector, base] of [[0x18, 0x1000], [0x20, 0x5000]] as const) {
    processor.vmwrite(Vmcs.HOST_FS_SELECTOR, selector, 0);
    processor.vmwrite(Vmcs.HOST_FS_BASE, base, 0);
    for (let k = 0; k < 2; k++) {
      enter();
      assertEquals(host(), [selector, BigInt(base)]);
    }
  }
});
