/**
 * x2AVIC is functionally APICv with IPI virtualization: the same writes of x2APIC MSRs pass on both sides
 * (the note of KVM 8c63179d975f), and so do the same reads. Read off the two hardware maps, and counted.
 */
import { assertEquals } from "@std/assert";
import { svmSlot } from "../../plugins/svm/mod.ts";
import {
  type apicvAccelerated,
  apicvReadSlot,
  apicvWriteSlot,
} from "../../plugins/vmx/apicv/mod.ts";
import { msrBitmapBit, vmxSlot } from "../../plugins/vmx/mod.ts";
import { msrpmBit } from "../../plugins/svm/mod.ts";
import { Control, Vmcs } from "../../plugins/cpu/mod.ts";
import { code, dword } from "../silicon/code.ts";
import {
  END,
  ENTER_X2APIC,
  Machine,
  type MachineOptions,
  rdmsr,
  STI,
  wrmsr,
} from "../avic/machine.ts";

const TELL = code("e7 80");
const SPIN = code("b9", dword(20_000), "e2 fe");
const X2APIC = Array.from({ length: 0x100 }, (_, k) => 0x800 + k);

interface Passed {
  readonly reads: number[];
  readonly writes: number[];
}

/** What passes according to the map that the VMCB or VMCS points to, in host memory. */
function passed(machine: Machine): Passed {
  const { vm } = machine;
  const memory = vm.hostMemory.current;
  const [vcpu] = vm.vcpus;
  const bit = (base: number, at: number): boolean =>
    (memory.readU8(base + (at >> 3)) & (1 << (at & 7))) !== 0;
  if (machine.vmx) {
    const map = Number(vm.slots.ref(vmxSlot).current.of(vcpu!).vmcs.get64(Vmcs.MSR_BITMAP));
    return {
      reads: X2APIC.filter((msr) => !bit(map, msrBitmapBit(msr))),
      writes: X2APIC.filter((msr) => !bit(map, 0x800 * 8 + msrBitmapBit(msr))),
    };
  }
  const map = Number(vm.slots.ref(svmSlot).current.of(vcpu!).vmcb.get64(Control.MSRPM_BASE_PA));
  return {
    reads: X2APIC.filter((msr) => !bit(map, msrpmBit(msr))),
    writes: X2APIC.filter((msr) => !bit(map, msrpmBit(msr) + 1)),
  };
}

/** Two vCPUs on two processors; one uses every register there is, and sends the other fixed IPIs. */
function run(options: MachineOptions): { passed: Passed; exits: Record<string, number> } {
  using machine = new Machine({ ids: [0, 1], x2apic: true, ...options });
  let maps: Passed | undefined;
  machine.onTold = () => void (maps = passed(machine));
  const readable = [0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, 0x810, 0x817, 0x820, 0x828, 0x830];
  const registers = [...readable, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x839, 0x83e];
  const values: [number, number][] = [
    [0x80f, 0x1ff],
    [0x808, 0x20],
    [0x808, 0],
    [0x828, 0],
    [0x832, 0x1_00e1],
    [0x833, 0x1_00e2],
    [0x834, 0x1_00e3],
    [0x835, 0x1_00e4],
    [0x836, 0x1_00e5],
    [0x837, 0x1_00e6],
    [0x83e, 0xb],
    [0x838, 0],
    [0x83f, 0x51],
  ];
  machine.program(
    0,
    ENTER_X2APIC,
    values.flatMap(([msr, value]) => wrmsr(msr, value)),
    registers.flatMap((msr) => rdmsr(msr)),
    STI,
    SPIN,
    TELL,
    Array.from({ length: 5 }, () => code(wrmsr(0x830, 0x4061, 1), SPIN)).flat(),
    "31 c0",
    END,
  );
  machine.program(1, ENTER_X2APIC, wrmsr(0x80f, 0x1ff), STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(0, 0x51), 1);
  assertEquals(machine.received(1, 0x61), 5);
  const exits = [...machine.counts].filter(([name]) => name !== "IO").sort();
  return { passed: maps!, exits: Object.fromEntries(exits) };
}

Deno.test("x2AVIC passes for write exactly what APICv with IPI virtualization does", () => {
  const amd = run({});
  const intel = run({ vmx: {} });
  assertEquals(amd.passed.writes, [0x808, 0x80b, 0x830, 0x83f]);
  assertEquals(intel.passed.writes, amd.passed.writes);
  assertEquals(intel.passed.reads, amd.passed.reads);
  // One guest, and the same exits at the same MSRs under both.
  assertEquals(intel.exits, amd.exits);
  assertEquals(intel.exits["WRMSR 830"], undefined);
  assertEquals(intel.exits["WRMSR 83f"], undefined);
  assertEquals(intel.exits["WRMSR 80f"], 2);
  assertEquals(intel.exits["RDMSR 839"], 1);
});

Deno.test("without IPI virtualization the ICR exits, without APICv all but the task priority", () => {
  const apicv = run({ vmx: { ipiv: false } });
  assertEquals(apicv.passed.writes, [0x808, 0x80b, 0x83f]);
  assertEquals(apicv.exits["WRMSR 830"], 5);
  const plain = run({ vmx: { apicv: false } });
  assertEquals(plain.passed, { reads: [0x808], writes: [0x808] });
  assertEquals(plain.exits["WRMSR 808"], undefined);
  assertEquals(plain.exits["WRMSR 80b"], 6);
  assertEquals(plain.exits["WRMSR 83f"], 1);
  // A processor that cannot do more, and one that cannot do that.
  const haswell = run({ vmx: {}, cpu: { model: "haswell" } });
  assertEquals(haswell.passed.writes, [0x808, 0x80b, 0x83f]);
  const cpu = { model: "haswell", features: { virtual_x2apic: false } } as const;
  assertEquals(run({ vmx: {}, cpu }).passed, { reads: [], writes: [] });
});

Deno.test("what passes is a policy on each side", () => {
  const none = {
    name: "policy",
    version: "1.0.0",
    provides: [apicvReadSlot, apicvWriteSlot],
    setup(ctx: { provide: (slot: typeof apicvReadSlot, value: typeof apicvAccelerated) => void }) {
      ctx.provide(apicvReadSlot, { name: "none", msrs: () => [] });
      ctx.provide(apicvWriteSlot, { name: "tpr", msrs: () => [0x808] });
    },
  };
  const own = run({ vmx: {}, plugins: [none] });
  assertEquals(own.passed, { reads: [], writes: [0x808] });
  assertEquals(own.exits["WRMSR 80b"], 6);
  assertEquals(own.exits["WRMSR 830"], 5);
});
