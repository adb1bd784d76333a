/**
 * What the hypervisor does at the exits of APIC virtualization (44, 45 and 56), and at activation. What the
 * guest sees is the same as without APICv.
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin, PluginContext, Registration } from "../../core/mod.ts";
import { Vmcs } from "../../plugins/cpu/mod.ts";
import { ioapic } from "../../plugins/ioapic/mod.ts";
import {
  endOfInterruptHook,
  eoiMessageHook,
  LapicInhibit,
  lapicSlot,
} from "../../plugins/lapic/mod.ts";
import { APICV_INHIBITS, servicingSlot, servicingStale } from "../../plugins/vmx/apicv/mod.ts";
import { vmxSlot } from "../../plugins/vmx/mod.ts";
import { code, dword } from "../silicon/code.ts";
import {
  BASE,
  END,
  ENTER_X2APIC,
  HLT,
  load,
  Machine,
  type MachineOptions,
  Place,
  rdmsr,
  STI,
  store,
  type VmxChoice,
  wrmsr,
} from "../avic/machine.ts";

const TELL = code("e7 80");
const tell = (value: number): number[] => code("b8", dword(value), TELL, "90 90 90 90");
const MODES = [["xAPIC", false], ["x2APIC", true]] as const;

const write = (x2apic: boolean, offset: number, value: number): number[] =>
  x2apic ? wrmsr(0x800 + (offset >> 4), value) : store(offset, value);
const read = (x2apic: boolean, offset: number): number[] =>
  x2apic ? rdmsr(0x800 + (offset >> 4)) : load(offset);
/** Enables the local APIC, in the mode wanted. */
const begin = (x2apic: boolean): number[] =>
  code(x2apic ? ENTER_X2APIC : [], write(x2apic, 0xf0, 0x1ff));

/** A plugin with nothing but a setup. */
const plugin = (name: string, setup: (ctx: PluginContext) => void): Plugin => ({
  name,
  version: "1.0.0",
  setup,
});

for (const [mode, x2apic] of MODES) {
  Deno.test(`${mode}: all registers take and give the same as without APICv`, () => {
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
    const all = [
      0x20,
      0x30,
      0x80,
      0xa0,
      0xd0,
      0xf0,
      0x100,
      0x180,
      0x200,
      0x280,
      0x320,
      0x380,
      0x390,
    ];
    if (!x2apic) all.push(0x90, 0xc0, 0xe0, 0x300, 0x310);
    const told = (lapic: "amd" | "intel", vmx: VmxChoice): number[] => {
      using machine = new Machine({ x2apic, vmx, lapic: { vendor: lapic } });
      const reads = all.flatMap((offset) => code(read(x2apic, offset), TELL));
      const access = values.flatMap(([offset, value]) =>
        code(write(x2apic, offset, value), read(x2apic, offset), TELL)
      );
      const enter = x2apic ? ENTER_X2APIC : "";
      machine.program(0, enter, reads, access, reads, "31 c0", END);
      assertEquals(machine.run().reason, "exit-code");
      return machine.told;
    };
    for (const vendor of ["amd", "intel"] as const) {
      const expected = told(vendor, { apicv: false });
      assert(expected.length >= 40);
      assertEquals(told(vendor, {}), expected);
      assertEquals(told(vendor, { ipiv: false }), expected);
    }
  });

  Deno.test(`${mode}: the timer is started by a write that hardware left to software`, () => {
    using machine = new Machine({ x2apic, vmx: {} });
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
    assertEquals([machine.received(0, 0xe1), machine.told], [1, [0]]);
  });

  Deno.test(`${mode}: a level-triggered interrupt's end exits and is announced, an edge's is not`, () => {
    const messages: number[] = [];
    const ends: number[] = [];
    const listener = plugin("listener", (ctx) => {
      ctx.on(eoiMessageHook, (_vcpu, vector) => void messages.push(vector));
      ctx.on(endOfInterruptHook, (_vcpu, vector) => void ends.push(vector));
    });
    using machine = new Machine({ x2apic, vmx: {}, plugins: [listener] });
    const { vm } = machine;
    const own = vm.slots.ref(lapicSlot).current.of(vm.vcpus[0]!);
    // Level 61h, then edge 71h above it, and 61h as an edge.
    machine.onTold = (value) => void own.accept(value & 0xff, value > 0xff);
    machine.program(
      0,
      begin(x2apic),
      STI,
      tell(0x161),
      tell(0x71),
      tell(0x61),
      tell(0x161),
      "31 c0",
      END,
    );
    assertEquals(machine.run().reason, "exit-code");
    assertEquals([machine.received(0, 0x61), machine.received(0, 0x71)], [3, 1]);
    assertEquals(messages, [0x61, 0x61]);
    // The vector stays in the bitmap: its end as an edge exits, too, and is no message.
    assertEquals(ends, [0x61, 0x61, 0x61]);
    assertEquals(machine.counts.get("EOI_INDUCED"), 3);
    assertEquals([own.highestIrr, own.highestIsr], [-1, -1]);
  });

  Deno.test(`${mode}: I/O APIC entries are in the EOI-exit bitmap of those they are for`, () => {
    // The line is still high at the first end, so that 41h comes once more.
    const device = plugin("device", (ctx) => {
      ctx.on(eoiMessageHook, () => ctx.vm.setIrqLine(4, false), { stage: "post" });
    });
    const plugins = [ioapic(), device];
    using machine = new Machine({ x2apic, ids: [0, 1], vmx: {}, plugins });
    const { vm } = machine;
    const bitmap = (index: number): string =>
      [0, 2, 4, 6].map((k) => {
        const { vmcs } = vm.slots.ref(vmxSlot).current.of(vm.vcpus[index]!);
        return vmcs.get64(Vmcs.EOI_EXIT_BITMAP0 + k).toString(16);
      }).join(" ");
    const entry = (pin: number, low: number, high: number): void => {
      for (const [index, value] of [[0x11 + 2 * pin, high], [0x10 + 2 * pin, low]]) {
        vm.mmio.write(0xfec0_0000, 4, index!, 0);
        vm.mmio.write(0xfec0_0010, 4, value!, 0);
      }
    };
    const seen: string[][] = [];
    machine.onTold = (value) => {
      if (value === 1) {
        // Level 41h to APIC ID 0, level 0C2h to ID 1, edge 43h to ID 0.
        entry(4, 0x8041, 0);
        entry(5, 0x80c2, 0x0100_0000);
        entry(6, 0x43, 0);
      } else {
        seen.push([bitmap(0), bitmap(1)]);
        vm.setIrqLine(4, true);
      }
    };
    const spin = code("b9", dword(30_000), "e2 fe");
    machine.program(
      0,
      begin(x2apic),
      STI,
      tell(1),
      spin,
      tell(2),
      "31 c0",
      END,
    );
    machine.program(1, begin(x2apic), "eb fe");
    assertEquals(machine.run().reason, "exit-code");
    assertEquals(seen, [["0 2 0 0", "0 0 0 4"]]);
    assertEquals([machine.received(0, 0x41), machine.counts.get("EOI_INDUCED")], [2, 2]);
    // Remote IRR is clear.
    assertEquals(vm.mmio.read(0xfec0_0010, 4) & 0x4000, 0);
  });

  Deno.test(`${mode}: activation with an interrupt in service, and as it was before`, () => {
    const handler = (machine: Machine): void => {
      const end = x2apic
        ? code("50 51 52", wrmsr(0x80b, 0), "5a 59 58")
        : code("53", store(0xb0, 0), "5b");
      // Told before the end: APICv is switched on there.
      const count = code("f0 48 ff 04 25", dword(BASE + Place.COUNTS + 8 * 0x61));
      const bytes = code(count, "e7 80", end, "48 cf");
      assert(bytes.length <= 64);
      machine.vm.memory.write(BASE + Place.HANDLERS + 64 * 0x61, new Uint8Array(bytes));
    };
    const run = (former: boolean): [number, number, number, number] => {
      let held: Registration | undefined;
      let context: PluginContext | undefined;
      const plugins = [
        plugin("inhibitor", (ctx) => {
          context = ctx;
        }),
        ...(former
          ? [{
            ...plugin("former", (ctx) => ctx.provide(servicingSlot, servicingStale)),
            provides: [servicingSlot],
          }]
          : []),
      ];
      using machine = new Machine({ x2apic, vmx: {}, plugins });
      const { vm } = machine;
      const own = vm.slots.ref(lapicSlot).current.of(vm.vcpus[0]!);
      handler(machine);
      let tells = 0;
      machine.onTold = (value) => {
        switch (++tells) {
          case 1:
            held = context!.inhibit(LapicInhibit.BLOCKIRQ);
            own.accept(0x61, false);
            break;
          case 2:
            // In the handler.
            held!.remove();
            break;
          default:
            own.accept(value & 0xff, false);
        }
      };
      machine.program(0, begin(x2apic), STI, tell(0), tell(0x51), tell(0x71), "31 c0", END);
      assertEquals(machine.run().reason, "exit-code");
      const [received61, received51, received71] = [0x61, 0x51, 0x71].map((vector) =>
        machine.received(0, vector)
      );
      return [received61!, received51!, received71!, own.highestIsr];
    };
    assertEquals(run(false), [1, 1, 1, -1]);
    // The EOI did not end 61h: lower ones wait for ever.
    assertEquals(run(true), [1, 0, 1, 0x61]);
  });

  Deno.test(`${mode}: software's own end of an interrupt under APICv is seen by hardware`, () => {
    using machine = new Machine({ x2apic, vmx: {} });
    const { vm } = machine;
    const own = vm.slots.ref(lapicSlot).current.of(vm.vcpus[0]!);
    // 61h's handler does not end it; a hypervisor's emulator does, and 51h is let in.
    machine.onTold = (value) => {
      if (value === 0) own.accept(0x61, false);
      else {
        own.accept(0x51, false);
        own.endOfInterrupt();
      }
    };
    vm.memory.write(BASE + Place.HANDLERS + 64 * 0x61, new Uint8Array(code("48 cf")));
    machine.program(0, begin(x2apic), STI, tell(0), tell(1), "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    assertEquals([machine.received(0, 0x51), own.highestIsr], [1, -1]);
  });
}

Deno.test("xAPIC: reads of other widths and places are carried out by the emulator", () => {
  const program = (vmx: VmxChoice): number[] => {
    using machine = new Machine({ vmx });
    machine.program(
      0,
      begin(false),
      // mov ebx, base; mov al, [rbx+31h]; mov eax, [rbx+32h]; mov rax, [rbx+30h]; mov eax, [rbx+44h]
      "bb 00 00 e0 fe 31 c0 8a 43 31",
      TELL,
      "8b 43 32",
      TELL,
      "48 8b 43 30",
      TELL,
      "8b 43 44",
      TELL,
      // 8 bytes to the TPR, which are dropped; a byte to it, too.
      "31 c0 b0 20 48 89 83 80 00 00 00 88 83 80 00 00 00 8b 83 80 00 00 00",
      TELL,
      "31 c0",
      END,
    );
    assertEquals(machine.run().reason, "exit-code");
    if (vmx.apicv !== false) assert(machine.counts.get("APIC_ACCESS")! > 0);
    return machine.told;
  };
  const [with_, without] = [program({}), program({ apicv: false })];
  // A byte of the TPR is written by hardware, and dropped by software: the manual has it undefined.
  assertEquals(with_.slice(0, 4), without.slice(0, 4));
});

Deno.test("IDs that the guest changes put an end to acceleration, logical ones do not", () => {
  const reasonsOf = (...program: (readonly number[])[]): unknown => {
    using machine = new Machine({ ids: [0, 1], vmx: {} });
    machine.program(0, begin(false), ...program, "31 c0", END);
    assertEquals(machine.run().reason, "exit-code");
    const { vm } = machine;
    return [vm.vcpus[0]!.accelerated, vm.inhibits.reasons()];
  };
  const { APIC_ID_MODIFIED, APIC_BASE_MODIFIED, LOGICAL_ID_ALIASED, PHYSICAL_ID_ALIASED } =
    LapicInhibit;
  assertEquals(reasonsOf(), [true, []]);
  assertEquals(reasonsOf(store(0x20, 0x0500_0000)), [false, [APIC_ID_MODIFIED]]);
  const alias = store(0x20, 0x0100_0000);
  assertEquals(reasonsOf(alias), [false, [APIC_ID_MODIFIED, PHYSICAL_ID_ALIASED]]);
  assertEquals(reasonsOf(store(0xd0, 0x0300_0000)), [true, [LOGICAL_ID_ALIASED]]);
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

Deno.test("APICv minds bits 0 to 6 of KVM's reasons, and a local APIC that is off", () => {
  assertEquals(APICV_INHIBITS.map(({ name }) => name), [
    "DISABLED",
    "HYPERV",
    "ABSENT",
    "BLOCKIRQ",
    "PHYSICAL_ID_ALIASED",
    "APIC_ID_MODIFIED",
    "APIC_BASE_MODIFIED",
    "APIC_DISABLED",
  ]);
});

Deno.test("processors without APICv do without, and say so", () => {
  const features: MachineOptions["cpu"] = {
    model: "haswell",
    features: { vid: false, posted_intr: false },
  };
  using machine = new Machine({ vmx: {}, cpu: features });
  machine.program(0, begin(false), STI, store(0x300, 0x4_4051), "90 90 31 c0", END);
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.vm.inhibits.reasons(), [LapicInhibit.DISABLED]);
  assertEquals([machine.vm.vcpus[0]!.accelerated, machine.received(0, 0x51)], [false, 1]);
});

Deno.test("a local APIC that changes its mode, or is off for a while, is accelerated accordingly", () => {
  using machine = new Machine({ vmx: {} });
  const states: [boolean, number][] = [];
  machine.onTold = (_value, vcpu) => {
    const { vmcs } = machine.vm.slots.ref(vmxSlot).current.of(vcpu);
    states.push([vcpu.accelerated, vmcs.get32(Vmcs.SECONDARY_CONTROLS) & 0x311]);
  };
  const base = (value: number) => wrmsr(0x1b, value);
  const modes = [0xfee0_0900, 0xfee0_0d00, 0xfee0_0100, 0xfee0_0900, 0xfee0_0d00];
  machine.program(0, TELL, modes.flatMap((value) => code(base(value), TELL)), "31 c0", END);
  assertEquals(machine.run().reason, "exit-code");
  const [xapic, x2apic] = [0x301, 0x310];
  assertEquals(states, [
    [true, xapic],
    [true, xapic],
    [true, x2apic],
    [false, 0],
    [true, xapic],
    [true, x2apic],
  ]);
});

Deno.test("a vCPU that is added leaves what passes for the others as it is", () => {
  using machine = new Machine({ vmx: {}, x2apic: true });
  const { vm } = machine;
  const [vcpu] = vm.vcpus;
  machine.program(0, begin(true), TELL, "31 c0", END);
  const open: boolean[][] = [];
  const passes = (): void => {
    const { msrBitmap } = vm.slots.ref(vmxSlot).current.of(vcpu!);
    open.push([0x808, 0x80b, 0x830, 0x83f].map((msr) => !msrBitmap.intercepts(msr, true)));
  };
  assertEquals(machine.run().reason, "exit-code");
  passes();
  vm.addVcpu(1);
  passes();
  assertEquals(open, [[true, true, true, true], [true, true, true, true]]);
});
