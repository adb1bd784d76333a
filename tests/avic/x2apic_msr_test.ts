/**
 * Which exits the x2APIC MSRs take under x2AVIC, with the lists that KVM has and with the one it had
 * (APM vol. 2, table 15-22; KVM 7f4b7092d9a1 and 8c63179d975f).
 */
import { assert, assertEquals } from "@std/assert";
import type { Plugin } from "../../core/mod.ts";
import { svmSlot } from "../../plugins/svm/mod.ts";
import {
  acceleratedMsrs,
  formerMsrs,
  maxIndexSlot,
  modeMaxIndex,
  readableMsrs,
  x2apicReadSlot,
  x2apicWriteSlot,
} from "../../plugins/svm/avic/mod.ts";
import { code, dword } from "../silicon/code.ts";
import { END, ENTER_X2APIC, Machine, rdmsr, wrmsr } from "./machine.ts";

/** What an access comes to: nothing, an exit for the MSR, exit 402h, or #GP without an exit. */
type Outcome = "-" | "MSR" | "402" | "GP";

/** An MSR; reading it with the former list and now, writing it with the former list and now. */
type Row = readonly [number, Outcome, Outcome, Outcome, Outcome];

const many = (first: number, last: number, ...row: [Outcome, Outcome, Outcome, Outcome]): Row[] =>
  Array.from({ length: last - first + 1 }, (_, k) => [first + k, ...row]);

const ROWS: readonly Row[] = [
  ...many(0x800, 0x801, "MSR", "MSR", "MSR", "MSR"),
  [0x802, "-", "-", "GP", "MSR"],
  [0x803, "-", "-", "402", "MSR"],
  ...many(0x804, 0x807, "MSR", "MSR", "MSR", "MSR"),
  [0x808, "-", "-", "-", "-"],
  [0x809, "402", "MSR", "402", "MSR"],
  [0x80a, "-", "-", "402", "MSR"],
  [0x80b, "-", "MSR", "-", "-"],
  [0x80c, "GP", "MSR", "GP", "MSR"],
  [0x80d, "-", "-", "402", "MSR"],
  [0x80e, "GP", "MSR", "GP", "MSR"],
  [0x80f, "-", "-", "402", "MSR"],
  // ISR, TMR and IRR: only the first register of each was in the list.
  ...[0x810, 0x818, 0x820].flatMap((first) => [
    ...many(first, first, "-", "-", "402", "MSR"),
    ...many(first + 1, first + 7, "MSR", "-", "MSR", "MSR"),
  ]),
  [0x828, "-", "-", "402", "MSR"],
  ...many(0x829, 0x82f, "MSR", "MSR", "MSR", "MSR"),
  [0x830, "-", "-", "-", "-"],
  [0x831, "GP", "MSR", "GP", "MSR"],
  [0x832, "MSR", "-", "MSR", "MSR"],
  ...many(0x833, 0x837, "-", "-", "402", "MSR"),
  [0x838, "-", "-", "402", "MSR"],
  [0x839, "402", "MSR", "402", "MSR"],
  ...many(0x83a, 0x83d, "MSR", "MSR", "MSR", "MSR"),
  [0x83e, "-", "-", "402", "MSR"],
  [0x83f, "MSR", "MSR", "MSR", "-"],
  ...many(0x840, 0x8ff, "MSR", "MSR", "MSR", "MSR"),
];

const maxIndexPolicy: Plugin = {
  name: "max-index",
  version: "1.0.0",
  provides: [maxIndexSlot],
  setup: (ctx) => ctx.provide(maxIndexSlot, modeMaxIndex),
};

const policy = (former: boolean): Plugin => ({
  name: "policy",
  version: "1.0.0",
  provides: [x2apicReadSlot, x2apicWriteSlot],
  setup(ctx) {
    ctx.provide(x2apicReadSlot, former ? formerMsrs : readableMsrs);
    ctx.provide(x2apicWriteSlot, former ? formerMsrs : acceleratedMsrs);
  },
});

/** A value that each register takes: 0, or an IPI to oneself, which is delivered behind the end. */
const valueOf = (msr: number): number => msr === 0x830 ? 0x4_0050 : msr === 0x83f ? 0x50 : 0;

Deno.test("the permission map is written only when what passes changes", () => {
  using machine = new Machine({ x2apic: true });
  const { vm } = machine;
  const host = vm.hostMemory.current;
  const writes: number[] = [];
  const { msrpm } = vm.slots.ref(svmSlot).current.of(vm.vcpus[0]!);
  const write = host.writeU8.bind(host);
  host.writeU8 = (hpa, value) => {
    if (hpa >= msrpm.hpa && hpa < msrpm.hpa + 0x2000) writes[writes.length - 1]!++;
    write(hpa, value);
  };
  const open = () => [msrpm.intercepts(0x80f, true), msrpm.intercepts(0x808, true)];
  const seen: boolean[][] = [];
  machine.onTold = (value) => {
    writes.push(0);
    seen.push(open());
    // A policy that activation looks at: AVIC is switched to the mode that it is in.
    if (value === 2) vm.load(maxIndexPolicy);
    if (value === 3) vm.load(policy(true));
    if (value === 4) vm.unload("policy");
  };
  const tell = (value: number) => code("b8", dword(value), "e7 80");
  machine.program(0, tell(1), ENTER_X2APIC, tell(2), tell(3), tell(4), tell(5), "31 c0", END);
  assertEquals(machine.run().reason, "exit-code");
  // Nothing in xAPIC mode; SVR not with the list of now, but with the former one.
  assertEquals(seen, [[true, true], [true, false], [true, false], [false, false], [true, false]]);
  const [entering, activatedAgain, former, back] = writes;
  assertEquals(activatedAgain, 0);
  assert(entering! > 0 && former! > 0 && back! > 0, writes.join());
});

/** What all accesses of one kind come to, in the order of {@linkcode ROWS}. */
function outcomes(former: boolean, write: boolean): Outcome[] {
  using machine = new Machine({ x2apic: true, plugins: [policy(former)] });
  machine.skipFaults(0);
  // Each access stands behind a port write that tells its MSR.
  const accesses = ROWS.flatMap(([msr]) =>
    code("b8", dword(msr), "e7 80", write ? wrmsr(msr, valueOf(msr)) : rdmsr(msr))
  );
  const found: Outcome[] = [];
  let faults = 0;
  const look = (msr: number): void => {
    const exits = machine.take();
    const before = faults;
    faults = machine.received(0, 13);
    if (msr === ROWS[0]![0]) return;
    const way = write ? "WRMSR" : "RDMSR";
    if (exits.length === 0) found.push(faults > before ? "GP" : "-");
    else if (exits.join() === "0 AVIC_NOACCEL") found.push("402");
    else {
      assertEquals(exits, [`0 ${way} ${ROWS[found.length]![0].toString(16)}`]);
      found.push("MSR");
    }
  };
  machine.onTold = look;
  machine.program(0, ENTER_X2APIC, accesses, "b8 00 00 00 00 e7 80", END);
  assertEquals(machine.run().reason, "exit-code");
  return found;
}

for (const [way, write, column] of [["RDMSR", false, 1], ["WRMSR", true, 3]] as const) {
  Deno.test(`${way} of the x2APIC's MSRs takes the exits that the lists say`, () => {
    const former = outcomes(true, write);
    const now = outcomes(false, write);
    assertEquals(now.length, 256);
    for (const [k, row] of ROWS.entries()) {
      const label = `${way} ${row[0].toString(16)}h`;
      assertEquals([former[k], now[k]], [row[column], row[column + 1]], label);
    }
  });
}
