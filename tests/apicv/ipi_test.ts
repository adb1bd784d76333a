/**
 * IPI accounting (SDM vol. 3, 30.1.6): which IPIs the processor sends by itself, and which exit behind the
 * write of the ICR for software to send. Whichever it is, the guest receives what it receives without.
 */
import { assertEquals } from "@std/assert";
import { MpState, observeExitHook, type Plugin } from "../../core/mod.ts";
import { ApicvReason } from "../../plugins/vmx/mod.ts";
import { code, dword } from "../silicon/code.ts";
import { END, ENTER_X2APIC, Machine, STI, store, type VmxChoice, wrmsr } from "../avic/machine.ts";

const SPIN = code("b9", dword(30_000), "e2 fe");
const ICR = 0x300;
const SELF_IPI = 0x3f0;

/** A command, its destination in xAPIC and x2APIC mode, and whether hardware sends it in each. */
type Row = readonly [
  name: string,
  command: number,
  xapic: readonly [destination: number, accelerated: boolean],
  x2apic: readonly [destination: number, accelerated: boolean],
];

const ROWS: readonly Row[] = [
  ["physical, fixed, edge", 0x4051, [1, true], [1, true]],
  ["the same, level not asserted", 0x0051, [1, true], [1, true]],
  ["physical, to itself", 0x4051, [0, true], [0, true]],
  ["physical, nobody there", 0x4051, [9, false], [9, false]],
  ["physical, beyond the last index", 0x4051, [200, false], [0x1_0000, false]],
  // LDRs are bits 24 to 26 in xAPIC mode; cluster 0, members 0 to 2, in x2APIC mode.
  ["logical", 0x4851, [6, false], [6, false]],
  ["broadcast", 0x4051, [0xff, false], [0xffff_ffff, false]],
  // VID virtualizes self-IPIs where the page is written, not for the ICR's MSR.
  ["shorthand self", 0x4_4051, [0, true], [0, false]],
  ["shorthand all", 0x8_4051, [0, false], [0, false]],
  ["shorthand others", 0xc_4051, [0, false], [0, false]],
  ["level-triggered", 0xc051, [1, false], [1, false]],
  ["NMI", 0x4400, [1, false], [1, false]],
  ["INIT", 0x4500, [2, false], [2, false]],
  ["start-up", 0x4608, [2, false], [2, false]],
  ["vector below 16", 0x400f, [1, false], [1, false]],
  ["lowest priority", 0x4151, [1, false], [1, false]],
];

interface Outcome {
  /** How many APIC-write exits at the ICR and SELF_IPI. */
  readonly exits: number;
  /** Counts of vector 51h and of NMIs, by vCPU, and what each vCPU does in the end. */
  readonly seen: unknown;
}

function run(
  x2apic: boolean,
  [, command, ...places]: Row,
  vmx: VmxChoice,
): Outcome {
  const [destination] = places[x2apic ? 1 : 0]!;
  let exits = 0;
  const counter: Plugin = {
    name: "icr-counter",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.on(observeExitHook, (_vcpu, { reason, info1Lo }) => {
        const write = reason === ApicvReason.APIC_WRITE;
        if (write && (info1Lo === ICR || info1Lo === SELF_IPI)) exits++;
      }),
  };
  using machine = new Machine({ ids: [0, 1, 2], x2apic, vmx, plugins: [counter] });
  const enable = x2apic ? code(ENTER_X2APIC, wrmsr(0x80f, 0x1ff)) : [...store(0xf0, 0x1ff)];
  const begin = (index: number): number[] =>
    code(enable, x2apic ? "" : store(0xd0, 0x0100_0000 << index), STI);
  const send = x2apic
    ? wrmsr(0x830, command, destination)
    : code(store(0x310, (destination << 24) | 0), store(0x300, command));
  machine.program(0, begin(0), SPIN, send, SPIN, SPIN, "31 c0", END);
  machine.program(1, begin(1), "eb fe");
  machine.program(2, begin(2), "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  const { vcpus } = machine.vm;
  return {
    exits,
    seen: vcpus.map(({ index, mpState }) => [
      machine.received(index, 0x51),
      machine.received(index, 2),
      mpState === MpState.RUNNABLE,
    ]),
  };
}

for (const x2apic of [false, true]) {
  const mode = x2apic ? "x2APIC" : "xAPIC";
  Deno.test(`${mode}: which IPIs exit with IPI virtualization`, () => {
    for (const row of ROWS) {
      const [name, , ...places] = row;
      const [, accelerated] = places[x2apic ? 1 : 0]!;
      const virtual = run(x2apic, row, {});
      assertEquals(virtual.exits, accelerated ? 0 : 1, name);
      const delivered = run(x2apic, row, { ipiv: false });
      // Without it all but self-IPIs exit: behind the write of the page, or at the MSR.
      const self = name === "shorthand self";
      assertEquals(delivered.exits, x2apic || self ? 0 : 1, name);
      const emulated = run(x2apic, row, { apicv: false });
      assertEquals([virtual.seen, delivered.seen], [emulated.seen, emulated.seen], name);
    }
  });
}

Deno.test("what is received is as the manual says", () => {
  const received = (name: string): unknown =>
    run(true, ROWS.find((row) => row[0] === name)!, {}).seen;
  const one = (...counts: number[]): unknown => counts.map((count) => [count, 0, true]);
  assertEquals(received("physical, fixed, edge"), one(0, 1, 0));
  assertEquals(received("logical"), one(0, 1, 1));
  assertEquals(received("broadcast"), one(1, 1, 1));
  assertEquals(received("shorthand others"), one(0, 1, 1));
  assertEquals(received("NMI"), [[0, 0, true], [0, 1, true], [0, 0, true]]);
  assertEquals(received("INIT"), [[0, 0, true], [0, 0, true], [0, 0, false]]);
});

Deno.test("an id above the table's last index is reached by software", () => {
  using machine = new Machine({ ids: [0, 5], x2apic: true, vmx: { ipiv: { vcpuIds: 4 } } });
  const send = code(wrmsr(0x830, 0x4051, 5), SPIN);
  machine.program(0, ENTER_X2APIC, wrmsr(0x80f, 0x1ff), SPIN, send, send, "31 c0", END);
  machine.program(1, ENTER_X2APIC, wrmsr(0x80f, 0x1ff), STI, "eb fe");
  assertEquals(machine.run().reason, "exit-code");
  assertEquals(machine.received(1, 0x51), 2);
  assertEquals(machine.counts.get("APIC_WRITE"), 2);
});
