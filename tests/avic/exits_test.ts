/**
 * What the hypervisor does at AVIC's exits: incomplete IPIs (401h), and accesses that hardware does not
 * accelerate (402h). What the guest sees is the same as without AVIC.
 */
import { assert, assertEquals } from "@std/assert";
import { MpState } from "../../core/mod.ts";
import { Control } from "../../plugins/cpu/mod.ts";
import {
  endOfInterruptHook,
  eoiMessageHook,
  LapicInhibit,
  lapicSlot,
} from "../../plugins/lapic/mod.ts";
import { svmSlot } from "../../plugins/svm/mod.ts";
import { code, dword } from "../silicon/code.ts";
import {
  END,
  ENTER_X2APIC,
  HLT,
  load,
  Machine,
  type MachineOptions,
  rdmsr,
  STI,
  store,
  wrmsr,
} from "./machine.ts";

/** `out 80h, eax` */
const TELL = code("e7 80");
const NOP = "90 90 90 90";
/** `hlt; jmp $-1` */
const SLEEP = "f4 eb fd";

const write = (x2apic: boolean, offset: number, value: number): number[] =>
  x2apic ? wrmsr(0x800 + (offset >> 4), value) : store(offset, value);
const read = (x2apic: boolean, offset: number): number[] =>
  x2apic ? rdmsr(0x800 + (offset >> 4)) : load(offset);
/** Sends an IPI. */
const ipi = (x2apic: boolean, command: number, destination: number): number[] =>
  x2apic
    ? wrmsr(0x830, command, destination)
    : code(store(0x310, destination << 24), store(0x300, command));
/** Enables the local APIC, in the mode wanted. */
const begin = (x2apic: boolean): number[] =>
  code(x2apic ? ENTER_X2APIC : [], write(x2apic, 0xf0, 0x1ff));
/** Latches errors and tells them. */
const tellErrors = (x2apic: boolean): number[] =>
  code(write(x2apic, 0x280, 0), read(x2apic, 0x280), TELL);

/** Takes 20,000 instructions: time for the others. */
const SPIN = code("b9", dword(20_000), "e2 fe");

const MODES = [["xAPIC", false], ["x2APIC", true]] as const;

/** Runs with and without AVIC, and checks that the guest says and receives the same. */
function same(
  options: MachineOptions,
  program: (machine: Machine) => void,
  vectors: readonly number[],
): Machine {
  const machines = [{}, { avic: false as const }].map((more) => {
    const machine = new Machine({ ...options, ...more });
    program(machine);
    assertEquals(machine.run().reason, "exit-code");
    return machine;
  });
  const [first, second] = machines as [Machine, Machine];
  const seen = (machine: Machine) => ({
    told: machine.told,
    received: machine.vm.vcpus.map((_, index) =>
      vectors.map((vector) => machine.received(index, vector))
    ),
  });
  assertEquals(seen(first), seen(second));
  second[Symbol.dispose]();
  return first;
}

for (const [mode, x2apic] of MODES) {
  Deno.test(`${mode}: a type that is not accelerated is sent by software`, () => {
    using machine = same({ x2apic, ids: [0, 1] }, (machine) => {
      // An NMI, a level-triggered interrupt, and in xAPIC mode one to the lowest priority.
      const lowest = x2apic ? "" : ipi(false, 0x4151, 0xff);
      machine.program(0, begin(x2apic), SPIN, ipi(x2apic, 0x4400, 1), lowest, SPIN, "31 c0", END);
      machine.program(1, begin(x2apic), STI, SLEEP);
    }, [2, 0x51]);
    assertEquals(machine.received(1, 2), 1);
    const { incomplete } = exitsOf(machine);
    assertEquals(incomplete, x2apic ? 1 : 2);
  });

  Deno.test(`${mode}: a target that waits in HLT is woken, and receives the interrupt once`, () => {
    using machine = same({ x2apic, ids: [0, 1] }, (machine) => {
      const sends = [0x51, 0x52, 0x51].map((vector) => code(ipi(x2apic, 0x4000 | vector, 1), SPIN));
      // Time for the other to halt, before each.
      machine.program(0, begin(x2apic), SPIN, sends.flat(), "31 c0", END);
      machine.program(1, begin(x2apic), STI, SLEEP);
    }, [0x51, 0x52]);
    assertEquals([machine.received(1, 0x51), machine.received(1, 0x52)], [2, 1]);
    assertEquals(exitsOf(machine).incomplete, 3);
  });

  Deno.test(`${mode}: a target that runs receives it without an exit`, () => {
    using machine = new Machine({ x2apic, ids: [0, 1] });
    machine.program(
      0,
      begin(x2apic),
      SPIN,
      ipi(x2apic, 0x4051, 1),
      SPIN,
      "31 c0",
      END,
    );
    machine.program(1, begin(x2apic), STI, "eb fe");
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(machine.received(1, 0x51), 1);
    assertEquals(exitsOf(machine), { incomplete: 0, windows: 0 });
  });

  Deno.test(`${mode}: nobody there, and a vector below 16, are the local APIC's errors`, () => {
    using machine = same({ x2apic }, (machine) => {
      const missing = code(ipi(x2apic, 0x4051, 9), tellErrors(x2apic));
      const vector = code(ipi(x2apic, 0x4005, 0), tellErrors(x2apic));
      machine.program(0, begin(x2apic), missing, vector, "31 c0", END);
    }, []);
    // Send accept error, send illegal vector (APM vol. 2, 16.4.6).
    assertEquals(machine.told, [0x04, 0x20]);
    assertEquals(exitsOf(machine).incomplete, 2);
  });

  Deno.test(`${mode}: a target in the table without memory stops the vCPU with an error`, () => {
    using machine = new Machine({ x2apic });
    const { vm } = machine;
    machine.program(0, begin(x2apic), TELL, ipi(x2apic, 0x4051, 7));
    machine.onTold = () => {
      const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
      const table = Number(vmcb.get64(Control.AVIC_PHYSICAL_TABLE) & ~0xfffn);
      vm.hostMemory.current.writeU64(table + 8 * 7, (1n << 63n) | 0xf_ffff_f000n);
    };
    const end = machine.run();
    assert(end.reason === "error");
    assert(end.error.message.includes("target 7"), end.error.message);
  });

  Deno.test(`${mode}: a level-triggered interrupt's end is announced, an edge's is not`, () => {
    using machine = new Machine({ x2apic });
    const { vm } = machine;
    const messages: number[] = [];
    const ends: number[] = [];
    vm.load({
      name: "listener",
      version: "1.0.0",
      setup(ctx) {
        ctx.on(eoiMessageHook, (_vcpu, vector) => void messages.push(vector));
        ctx.on(endOfInterruptHook, (_vcpu, vector) => void ends.push(vector));
      },
    });
    const own = vm.slots.ref(lapicSlot).current.of(vm.vcpus[0]!);
    // Level 61h, then edge 71h above it.
    machine.onTold = (value) => void own.accept(value & 0xff, value > 0xff);
    const tell = (value: number) => code("b8", dword(value), TELL, NOP);
    machine.program(0, begin(x2apic), STI, tell(0x161), tell(0x71), "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    assertEquals([machine.received(0, 0x61), machine.received(0, 0x71)], [1, 1]);
    assertEquals(messages, [0x61]);
    assertEquals(ends, [0x61]);
    assertEquals([own.highestIrr, own.highestIsr], [-1, -1]);
  });

  Deno.test(`${mode}: all registers take and give the same as without AVIC`, () => {
    // Offsets and values; read back behind each write.
    const values: [number, number][] = [
      [0x80, 0x35],
      [0x80, 0],
      [0xf0, 0x1f7],
      [0x320, 0x1_00e1],
      [0x330, 0x1_04e2],
      [0x340, 0x1_00e3],
      [0x350, 0x1_80e4],
      [0x360, 0x1_04e5],
      [0x370, 0x1_00e6],
      [0x3e0, 0xb],
      [0xf0, 0xf7],
      [0x330, 0x00e2],
      [0xf0, 0x1f7],
      [0x280, 0],
      ...(x2apic
        ? []
        : [[0xe0, 0x0fff_ffff], [0xd0, 0x1200_0000], [0xc0, 0x55]] as [number, number][]),
    ];
    using machine = same({ x2apic, avic: {} }, (machine) => {
      const all = [0x20, 0x30, 0x80, 0xa0, 0xd0, 0xf0, 0x100, 0x180, 0x200, 0x280, 0x320, 0x380];
      if (!x2apic) all.push(0x90, 0xc0, 0xe0);
      const access = values.flatMap(([offset, value]) =>
        code(write(x2apic, offset, value), read(x2apic, offset), TELL)
      );
      const reads = all.flatMap((offset) => code(read(x2apic, offset), TELL));
      machine.program(0, x2apic ? ENTER_X2APIC : "", reads, access, reads, "31 c0", END);
    }, []);
    assert(machine.told.length > 30);
  });

  Deno.test(`${mode}: the timer is started by a write that hardware left to software`, () => {
    using machine = new Machine({ x2apic });
    machine.program(
      0,
      begin(x2apic),
      write(x2apic, 0x3e0, 0xb),
      write(x2apic, 0x320, 0xe1),
      STI,
      write(x2apic, 0x380, 50_000),
      HLT,
      read(x2apic, 0x390),
      TELL,
      "31 c0",
      END,
    );
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(machine.received(0, 0xe1), 1);
    assertEquals(machine.told, [0]);
  });
}

/** Exits 401h and interrupt windows. */
function exitsOf({ counts }: Machine): { incomplete: number; windows: number } {
  return {
    incomplete: counts.get("AVIC_INCOMPLETE_IPI") ?? 0,
    windows: counts.get("INTERRUPT_WINDOW") ?? 0,
  };
}

/** Entry of the logical APIC ID table at `index`. */
function logicalEntry(machine: Machine, index: number): number {
  const { vm } = machine;
  const { vmcb } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
  const table = Number(vmcb.get64(Control.AVIC_LOGICAL_TABLE) & ~0xfffn);
  return vm.hostMemory.current.readU32(table + 4 * index);
}

Deno.test("logical IDs: the table follows LDR and DFR, and hardware sends by it", () => {
  using machine = new Machine({ ids: [0, 1, 2] });
  const seen: number[][] = [];
  machine.onTold = () => void seen.push([0, 1, 4, 5, 9].map((k) => logicalEntry(machine, k)));
  machine.program(
    0,
    begin(false),
    store(0xd0, 0x0100_0000),
    SPIN,
    // Flat: to 1 and 2.
    ipi(false, 0x4851, 0x06),
    SPIN,
    TELL,
    // Others go over to the cluster model while this one waits.
    store(0xe0, 0x0fff_ffff),
    store(0xd0, 0x1100_0000),
    SPIN,
    SPIN,
    SPIN,
    TELL,
    // Cluster 1, member 1, which is vCPU 1.
    ipi(false, 0x4852, 0x12),
    SPIN,
    "31 c0",
    END,
  );
  const other = (flat: number, cluster: number) =>
    code(
      begin(false),
      store(0xd0, flat << 24),
      STI,
      "b9",
      dword(60_000),
      "e2 fe",
      store(0xe0, 0x0fff_ffff),
      store(0xd0, cluster << 24),
      "eb fe",
    );
  machine.program(1, other(2, 0x12));
  machine.program(2, other(4, 0x22));
  assertEquals(machine.run().reason, "exit-code");
  const valid = (id: number) => 0x8000_0000 + id;
  assertEquals(seen, [
    [valid(0), valid(1), 0, 0, 0],
    [0, 0, valid(0), valid(1), valid(2)],
  ]);
  assertEquals([1, 2].map((k) => machine.received(k, 0x51)), [1, 1]);
  assertEquals([1, 2].map((k) => machine.received(k, 0x52)), [1, 0]);
});

Deno.test("IDs that the guest changes put an end to acceleration", () => {
  const reasonsOf = (...program: (readonly number[])[]): unknown => {
    using machine = new Machine({ ids: [0, 1] });
    machine.program(0, begin(false), ...program, "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    const { vm } = machine;
    // A vCPU that waits learns of it before its next entry.
    return [vm.vcpus[0]!.accelerated, vm.inhibits.reasons()];
  };
  assertEquals(reasonsOf(), [true, []]);
  const { APIC_ID_MODIFIED, APIC_BASE_MODIFIED, PHYSICAL_ID_ALIASED } = LapicInhibit;
  const id = store(0x20, 0x0500_0000);
  assertEquals(reasonsOf(id), [false, [APIC_ID_MODIFIED]]);
  const alias = store(0x20, 0x0100_0000);
  assertEquals(reasonsOf(alias), [false, [APIC_ID_MODIFIED, PHYSICAL_ID_ALIASED]]);
  const back = store(0x20, 0);
  assertEquals(reasonsOf(id, back), [false, [APIC_ID_MODIFIED]]);
  const moved = code(
    "b9",
    dword(0x1b),
    "0f 32 25",
    dword(0xfff),
    "0d",
    dword(0xfec8_0000),
    "0f 30",
  );
  assertEquals(reasonsOf(moved), [false, [APIC_BASE_MODIFIED]]);
});

Deno.test("a local APIC that is off is not accelerated, and is again when it is on", () => {
  using machine = new Machine();
  const { vm } = machine;
  const states: boolean[] = [];
  machine.onTold = (_value, vcpu) => void states.push(vcpu.accelerated);
  const base = (value: number) => wrmsr(0x1b, value);
  machine.program(
    0,
    TELL,
    base(0xfee0_0100),
    TELL,
    base(0xfee0_0900),
    TELL,
    begin(true),
    TELL,
    STI,
    ipi(true, 0x4_4051, 0),
    "31 c0",
    END,
  );
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(states, [true, false, true, true]);
  assertEquals(vm.vcpus[0]!.mpState, MpState.RUNNABLE);
});
