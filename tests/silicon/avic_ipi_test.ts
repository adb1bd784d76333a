/**
 * AVIC: interprocessor interrupts. Every shorthand, destination, mode and failure, against a model of the
 * APM's algorithm (vol. 2, 15.29.6 and 15.29.7) that is written down here once more.
 */
import { assertEquals } from "@std/assert";
import { Control, Msr } from "../../plugins/cpu/mod.ts";
import { AvicLab, Exit, type Mode, Place, store32, wrmsr } from "./avic_lab.ts";
import { code } from "./code.ts";

/** Guest APIC IDs of the lab: four in use, of which 5 has no backing page in memory and 3 does not run. */
const IDS = [0, 1, 2, 3] as const;
const BAD_PAGE_ID = 5;
const MAX_INDEX = 7;
const SENDER = 1;
const VECTOR = 0x51;
const lab = new AvicLab(4, MAX_INDEX);

interface Setup {
  readonly mode: Mode;
  readonly running?: readonly number[];
  readonly badPage?: boolean;
  readonly dfr?: number;
  /** Logical table entries: index to ID. */
  readonly logical?: Readonly<Record<number, number>>;
}

function prepare(
  { mode, running = [0, 1, 2], badPage = false, dfr = 0xffff_ffff, logical = {} }: Setup,
): void {
  lab.clearPhysical();
  lab.memory.fill(lab.logical, 0x1000, 0);
  for (const id of IDS) {
    const cpu = lab.cpus[id]!;
    lab.memory.fill(cpu.page, 0x1000, 0);
    cpu.setApic(0x20, mode === "xavic" ? id << 24 : id);
    cpu.setApic(0xe0, dfr);
    // The bit that an IPI has to take away: it is edge-triggered.
    cpu.setVector(0x180, VECTOR);
    lab.setPhysical(id, cpu.page, running.includes(id), cpu.processor.apicId);
  }
  if (badPage) lab.setPhysical(BAD_PAGE_ID, 0xe_0000_0000, true);
  for (const [index, id] of Object.entries(logical)) lab.setLogical(Number(index), id);
  lab.cpus[SENDER]!.prepare(mode);
}

/** Sends, and says what came of it. */
function send(mode: Mode, low: number, destination: number): {
  readonly code: bigint;
  readonly info1: bigint;
  readonly id: number;
  readonly index: number;
  readonly received: readonly number[];
} {
  const cpu = lab.cpus[SENDER]!;
  const length = mode === "xavic"
    ? cpu.program(store32(0x310, destination << 24), store32(0x300, low))
    : cpu.program(wrmsr(0x830, (BigInt(destination >>> 0) << 32n) | BigInt(low >>> 0)));
  const result = cpu.run();
  if (result === Exit.INCOMPLETE_IPI) assertEquals(cpu.rip, Place.CODE + length, "a trap");
  const info2 = cpu.get64(Control.EXITINFO2);
  const vector = low & 0xff;
  const received = IDS.filter((id) => lab.cpus[id]!.vector(0x200, vector));
  for (const id of received) assertEquals(lab.cpus[id]!.vector(0x180, vector), false, "TMR");
  return {
    code: result,
    info1: cpu.get64(Control.EXITINFO1),
    id: Number(info2 >> 32n),
    index: Number(info2 & 0xfffn),
    received,
  };
}

const done = (received: readonly number[]) => ({ code: Exit.VMMCALL, received });
const incomplete = (id: number, index: number, received: readonly number[] = []) => ({
  code: Exit.INCOMPLETE_IPI,
  id,
  index,
  received,
});

interface Case {
  readonly name: string;
  readonly modes?: readonly Mode[];
  readonly setup?: Omit<Setup, "mode">;
  readonly low: number;
  readonly destination: number;
  readonly expected: ReturnType<typeof done> | ReturnType<typeof incomplete>;
}

const LOGICAL = 0x800;
const ALL = 0x8_0000;
const ALL_BUT_SELF = 0xc_0000;
const SELF = 0x4_0000;
const XAVIC = ["xavic"] as const;
const X2AVIC = ["x2avic"] as const;

const CASES: readonly Case[] = [
  { name: "physical, running", low: VECTOR, destination: 2, expected: done([2]) },
  { name: "physical, itself", low: VECTOR, destination: 1, expected: done([1]) },
  { name: "physical, asserted", low: VECTOR | 0x4000, destination: 0, expected: done([0]) },
  { name: "physical, not running", low: VECTOR, destination: 3, expected: incomplete(1, 3, [3]) },
  { name: "physical, not valid", low: VECTOR, destination: 4, expected: incomplete(2, 4) },
  { name: "physical, beyond the table", low: VECTOR, destination: 9, expected: incomplete(2, 9) },
  {
    name: "physical, bad backing page",
    setup: { badPage: true },
    low: VECTOR,
    destination: BAD_PAGE_ID,
    expected: incomplete(3, BAD_PAGE_ID),
  },
  { name: "self", low: VECTOR | SELF, destination: 9, expected: done([1]) },
  {
    name: "all, all running",
    setup: { running: IDS },
    low: VECTOR | ALL,
    destination: 0,
    expected: done([0, 1, 2, 3]),
  },
  {
    name: "all, one not running",
    low: VECTOR | ALL,
    destination: 0,
    expected: incomplete(1, 3, IDS),
  },
  {
    name: "all but self, all running",
    setup: { running: IDS },
    low: VECTOR | ALL_BUT_SELF,
    destination: 0,
    expected: done([0, 2, 3]),
  },
  {
    name: "all but self, two not running: the first is reported",
    setup: { running: [1, 3] },
    low: VECTOR | ALL_BUT_SELF,
    destination: 0,
    expected: incomplete(1, 0, [0, 2, 3]),
  },
  {
    name: "all, with a bad backing page",
    setup: { running: IDS, badPage: true },
    low: VECTOR | ALL,
    destination: 0,
    expected: incomplete(3, BAD_PAGE_ID, IDS),
  },
  {
    name: "broadcast by FFh",
    modes: XAVIC,
    setup: { running: IDS },
    low: VECTOR,
    destination: 0xff,
    expected: done(IDS),
  },
  {
    name: "broadcast by FFh, logical",
    modes: XAVIC,
    setup: { running: IDS },
    low: VECTOR | LOGICAL,
    destination: 0xff,
    expected: done(IDS),
  },
  {
    name: "FFh is an ID like any other",
    modes: X2AVIC,
    low: VECTOR,
    destination: 0xff,
    expected: incomplete(2, 0xff),
  },
  {
    name: "broadcast by FFFF_FFFFh",
    modes: X2AVIC,
    setup: { running: IDS },
    low: VECTOR,
    destination: 0xffff_ffff,
    expected: done(IDS),
  },
  {
    name: "flat, two targets",
    modes: XAVIC,
    setup: { logical: { 0: 0, 1: 1, 2: 2 } },
    low: VECTOR | LOGICAL,
    destination: 0b101,
    expected: done([0, 2]),
  },
  {
    name: "flat, one of two not running",
    modes: XAVIC,
    setup: { logical: { 0: 0, 3: 3 } },
    low: VECTOR | LOGICAL,
    destination: 0b1001,
    expected: incomplete(1, 3, [0, 3]),
  },
  {
    name: "flat, one of two not valid: nothing is delivered",
    modes: XAVIC,
    setup: { logical: { 0: 0 } },
    low: VECTOR | LOGICAL,
    destination: 0b1000_0001,
    expected: incomplete(2, 7),
  },
  {
    name: "flat, an entry that leads to no physical one",
    modes: XAVIC,
    setup: { logical: { 0: 6 } },
    low: VECTOR | LOGICAL,
    destination: 1,
    expected: incomplete(2, 0),
  },
  {
    name: "cluster, two of cluster 2",
    modes: XAVIC,
    setup: { dfr: 0x0fff_ffff, logical: { 8: 0, 9: 1, 10: 2 } },
    low: VECTOR | LOGICAL,
    destination: 0x25,
    expected: done([0, 2]),
  },
  {
    name: "cluster, a member that is not there",
    modes: XAVIC,
    setup: { dfr: 0x0fff_ffff, logical: { 8: 0 } },
    low: VECTOR | LOGICAL,
    destination: 0x23,
    expected: incomplete(2, 9),
  },
  {
    name: "cluster, nobody asked for",
    modes: XAVIC,
    setup: { dfr: 0x0fff_ffff },
    low: VECTOR | LOGICAL,
    destination: 0x20,
    expected: incomplete(2, 8),
  },
  {
    name: "logical, cluster 0 members 0 and 2",
    modes: X2AVIC,
    low: VECTOR | LOGICAL,
    destination: 0b101,
    expected: done([0, 2]),
  },
  {
    name: "logical, one not running",
    modes: X2AVIC,
    low: VECTOR | LOGICAL,
    destination: 0b1001,
    expected: incomplete(1, 3, [0, 3]),
  },
  {
    name: "logical, one not valid",
    modes: X2AVIC,
    low: VECTOR | LOGICAL,
    destination: 0b1_0001,
    expected: incomplete(2, 4),
  },
  {
    name: "logical, another cluster",
    modes: X2AVIC,
    low: VECTOR | LOGICAL,
    destination: 0x1_0001,
    expected: incomplete(2, 16),
  },
  ...[1, 2, 3, 4, 5, 6, 7].map((type): Case => ({
    name: `message type ${type}`,
    low: VECTOR | (type << 8),
    destination: 2,
    expected: incomplete(0, 0),
  })),
  { name: "level-triggered", low: VECTOR | 0xc000, destination: 2, expected: incomplete(0, 0) },
  { name: "NMI with a bad vector", low: 0x400, destination: 2, expected: incomplete(0, 0) },
  ...[0, 7, 15].map((vector): Case => ({
    name: `vector ${vector}`,
    low: vector,
    destination: 2,
    expected: incomplete(4, 0),
  })),
  { name: "vector 3 to itself", low: 3 | SELF, destination: 0, expected: incomplete(4, 0) },
  { name: "vector 16", low: 16, destination: 2, expected: done([2]) },
];

const BOTH: readonly Mode[] = ["xavic", "x2avic"];
for (const { name, modes = BOTH, setup = {}, low, destination, expected } of CASES) {
  for (const mode of modes) {
    Deno.test(`${mode} IPI: ${name}`, () => {
      prepare({ mode, ...setup });
      const actual = send(mode, low, destination);
      assertEquals({ code: actual.code, received: [...actual.received] }, {
        code: expected.code,
        received: [...expected.received],
      });
      const sender = lab.cpus[SENDER]!;
      const high = mode === "xavic" ? (destination << 24) >>> 0 : destination >>> 0;
      assertEquals([sender.apic(0x300), sender.apic(0x310)], [low, high], "ICR");
      if ("id" in expected) {
        assertEquals([actual.id, actual.index], [expected.id, expected.index]);
        assertEquals(actual.info1, (BigInt(high) << 32n) | BigInt(low), "EXITINFO1");
        assertEquals(sender.get64(Control.NRIP), 0n);
      }
    });
  }
}

Deno.test("x2AVIC: SELF_IPI", () => {
  prepare({ mode: "x2avic" });
  const sender = lab.cpus[SENDER]!;
  sender.program(wrmsr(0x83f, 0x7an));
  assertEquals([sender.run(), sender.vector(0x200, 0x7a)], [Exit.VMMCALL, true]);
  sender.prepare("x2avic");
  sender.program(wrmsr(0x83f, 9n));
  assertEquals(sender.run(), Exit.INCOMPLETE_IPI);
  assertEquals(sender.get64(Control.EXITINFO2), 4n << 32n);
});

Deno.test("the doorbell of an IPI is answered by the guest that runs there, and by no other", () => {
  for (const mode of ["xavic", "x2avic"] as const) {
    prepare({ mode });
    const target = lab.cpus[2]!;
    target.prepare(mode, true);
    // It spins until its time is up.
    target.program("eb fe");
    target.run(1000);
    target.run(1000);
    assertEquals(target.handled, -1);
    send(mode, VECTOR, 2);
    target.run(1000);
    assertEquals(
      [target.handled, target.vector(0x100, VECTOR)],
      [Place.CODE, true].map((x) => x === Place.CODE ? VECTOR : x),
    );
  }
});

Deno.test("a doorbell is for one physical APIC ID, which is any of 32 bits", () => {
  prepare({ mode: "x2avic" });
  const [first, second] = [lab.cpus[0]!.processor, lab.cpus[2]!.processor];
  const target = lab.cpus[2]!;
  const old = second.apicId;
  second.apicId = 0x1_2345;
  target.prepare("x2avic", true);
  target.program(code("fb", "eb fe"));
  target.run(100);
  // IRR is set by hand: nothing happens until somebody rings.
  target.setVector(0x200, 0x60);
  first.writeMsr(Msr.AVIC_DOORBELL, 0x2345n);
  first.writeMsr(Msr.AVIC_DOORBELL, 0x1_2345n);
  target.run(100);
  assertEquals(target.handled, 0x60);
  second.apicId = old;
});
