/**
 * Code that asks the program outside in a loop goes on by itself where nothing has happened there, and what
 * does happen is seen behind the very instruction: the same at the same count of instructions in all tiers.
 */
import { assert, assertEquals } from "@std/assert";
import { Cr4, S, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { code, dword } from "./code.ts";

/** Device memory, beyond the bench's. */
const DEVICE = 0x50_0000;
/** An MSR that the processor does not keep itself. */
const MSR = 0x150;
const ROUNDS = 1500;
/** The round in which something happens. */
const CHOSEN = 1200;
const TIERS = [1, 2, "auto"] as const;
/** INC ESI behind the access. */
const STEP = 2;

const ACCESSES: readonly (readonly [name: string, bytes: readonly number[]])[] = [
  ["OUT DX, AL", code("ee")],
  ["IN AL, DX", code("ec")],
  ["OUT 80h, EAX", code("e7 80")],
  ["IN EAX, 80h", code("e5 80")],
  ["CPUID", code("0f a2")],
  ["RDMSR", code("0f 32")],
  ["WRMSR", code("0f 30")],
  ["RDPMC", code("0f 33")],
  ["a store to a device", code("89 07")],
  ["a load from a device", code("8b 07")],
  ["a store to a device by MOVNTI", code("0f c3 07")],
];

/** A loop of `ROUNDS` rounds around `access`, with a HLT behind it. */
function loopOf(access: readonly number[]): number[] {
  const body = code(access, "ff c6 81 fe", dword(ROUNDS)); // inc esi; cmp esi, ROUNDS
  return code(body, "75", [(-(body.length + 2)) & 0xff], "f4");
}

interface Ended {
  /** Of each time that the program outside was asked: instructions retired, RIP, RSI and RFLAGS. */
  readonly asked: readonly string[];
  readonly stops: readonly Stop[];
  readonly registers: readonly bigint[];
  readonly rip: bigint;
  readonly events: readonly string[];
  readonly dispatches: number;
}

/** Runs the loop; `happen` is called when the access of round `CHOSEN` asks. */
function run(
  tier: typeof TIERS[number],
  access: readonly number[],
  happen: (bench: Bench) => void = () => {},
  prepare: (bench: Bench) => void = () => {},
): Ended {
  const bench = new Bench({ memory: 0x40_0000, tier });
  const { outside, processor } = bench;
  bench.long(0);
  bench.handlers(64);
  const asked: string[] = [];
  let rounds = 0;
  const ask = (): void => {
    const { state } = bench;
    const rip = state.rip.toString(16);
    const flags = state.get(S.rflags).toString(16);
    asked.push(`${processor.retiredOutside} ${rip} ${state.register(6)} ${flags}`);
    assertEquals(processor.retiredOutside, processor.retired);
    if (++rounds === CHOSEN) happen(bench);
  };
  const answer = (): void => {
    ask();
    processor.exchange.fill(0x1234_5678, 0, 4);
    processor.exchange[1] = 0;
  };
  outside.portRead = () => (ask(), 0x9876_5432);
  outside.portWrite = ask;
  outside.deviceRead = answer;
  outside.deviceWrite = ask;
  outside.cpuid = answer;
  outside.msrRead = () => (answer(), true);
  outside.msrWrite = () => (ask(), true);
  outside.counterRead = () => (answer(), true);
  outside.acknowledge = () => {
    bench.processor.setInterruptLine(false);
    return 0x30;
  };
  bench.write(Place.CODE, loopOf(access));
  prepare(bench);
  for (const [n, value] of [[0, 0], [1, MSR], [2, 0x80], [3, 0], [6, 0], [7, DEVICE]] as const) {
    bench.state.setRegister(n, BigInt(value));
  }
  bench.state.set(S.rflags, 0x202n);
  processor.refresh();
  const stops: Stop[] = [];
  const events: string[] = [];
  while (stops.at(-1) !== Stop.HALT && stops.length < 5) {
    try {
      const outcome = bench.run(100_000);
      stops.push(outcome.stop);
      for (const { vector, rip } of outcome.events) events.push(`${vector} at ${rip.toString(16)}`);
    } catch (error) {
      assert(error instanceof Error && error.message === "outside");
      assertEquals(bench.state.rip, BigInt(Place.CODE));
      stops.push(Stop.REQUEST);
      processor.absorbFlags();
    }
  }
  return {
    asked,
    stops,
    events,
    registers: Array.from({ length: 16 }, (_, n) => bench.state.register(n)),
    rip: bench.state.rip,
    dispatches: bench.processors.statistics.dispatches,
  };
}

/** The same in all tiers; yields what the first comes to. */
function inAllTiers(
  access: readonly number[],
  happen?: (bench: Bench) => void,
  prepare?: (bench: Bench) => void,
): Omit<Ended, "dispatches"> {
  const [first, ...others] = TIERS.map((tier) => {
    const { dispatches: _, ...ended } = run(tier, access, happen, prepare);
    return ended;
  });
  for (const [k, other] of others.entries()) {
    assertEquals(other, first, `tier ${TIERS[k + 1]}`);
  }
  return first!;
}

/** RIP behind the access, in hexadecimal. */
const behind = (access: readonly number[]): string => (Place.CODE + access.length).toString(16);

for (const [name, access] of ACCESSES) {
  Deno.test(`${name} in a loop does without the dispatcher`, () => {
    for (const tier of TIERS) {
      const { dispatches, asked, stops } = run(tier, access);
      assertEquals([asked.length, stops], [ROUNDS, [Stop.HALT]]);
      assert(dispatches < ROUNDS / 4, `tier ${tier}: ${dispatches} times through it`);
    }
  });

  Deno.test(`${name}: an interrupt that is raised outside comes behind it`, () => {
    const { events, registers, asked } = inAllTiers(
      access,
      ({ processor }) => processor.setInterruptLine(true),
    );
    assertEquals(events, [`${0x30} at ${behind(access)}`]);
    assertEquals([registers[6], asked.length], [BigInt(CHOSEN - 1), CHOSEN]);
  });

  Deno.test(`${name}: an NMI that is raised outside comes behind it`, () => {
    const { events } = inAllTiers(access, ({ processor }) => processor.raiseNmi());
    assertEquals(events, [`2 at ${behind(access)}`]);
  });

  Deno.test(`${name}: a limit that is set outside ends the run exactly there`, () => {
    const { stops, asked } = inAllTiers(access, ({ processor }) => processor.limit(3));
    assertEquals(stops, [Stop.BUDGET, Stop.HALT]);
    assertEquals(asked.length, ROUNDS);
    // The access, INC and CMP; JNE is the first of the next run.
    assertEquals(asked[CHOSEN]!.split(" ")[0], "1");
  });

  Deno.test(`${name}: registers and flags that are changed outside are changed behind it`, () => {
    const { asked, registers } = inAllTiers(access, ({ state }) => {
      state.setRegister(6, BigInt(ROUNDS - 10));
      state.setRegister(12, 0x1122_3344_5566_7788n);
      state.set(S.rflags, state.get(S.rflags) | 0x4_0001n);
    });
    assertEquals(asked.length, CHOSEN + 9);
    assertEquals(registers[12], 0x1122_3344_5566_7788n);
    // AC stays.
    assertEquals(asked.at(-1)!.split(" ")[3]!.padStart(5, "0").slice(-5, -4), "4");
  });

  Deno.test(`${name}: what is thrown outside leaves the state of before`, () => {
    const { stops, asked } = inAllTiers(access, () => {
      throw new Error("outside");
    });
    assertEquals(stops, [Stop.REQUEST, Stop.HALT]);
    assertEquals(asked.length, ROUNDS + 1);
    assertEquals(asked[CHOSEN]!.split(" ").slice(1), asked[CHOSEN - 1]!.split(" ").slice(1));
  });

  Deno.test(`${name}: single-stepping that begins outside begins behind the next`, () => {
    const { events } = inAllTiers(access, ({ state }) => {
      state.set(S.rflags, state.get(S.rflags) | 0x100n);
    });
    assertEquals(events[0]!.split(" ")[0], "1");
  });

  Deno.test(`${name}: code that is written outside, the next instruction, is executed as it is`, () => {
    const { registers, asked } = inAllTiers(access, (bench) => {
      // HLT in place of INC ESI, as by a device's DMA.
      bench.write(Place.CODE + access.length, [0xf4]);
    });
    assertEquals([registers[6], asked.length], [BigInt(CHOSEN - 1), CHOSEN]);
  });

  Deno.test(`${name}: code further on that is written outside is executed as it is`, () => {
    const { registers, asked } = inAllTiers(access, (bench) => {
      // The comparison's constant.
      bench.write(Place.CODE + access.length + STEP + 2, dword(CHOSEN + 100));
    });
    assertEquals([registers[6], asked.length], [BigInt(CHOSEN + 100), CHOSEN + 100]);
  });

  Deno.test(`${name}: code that is mapped elsewhere outside is executed from there`, () => {
    const other = 0x20_0000;
    const { registers, asked } = inAllTiers(access, (bench) => {
      bench.set64(Place.TABLES + 0x2000, BigInt(other) | 0xe7n);
      bench.processor.flushTlbs();
    }, (bench) => {
      const copy = loopOf(access);
      copy[access.length] = 0xf4;
      bench.write(other + Place.CODE, copy);
    });
    assertEquals([registers[6], asked.length], [BigInt(CHOSEN - 1), CHOSEN]);
  });

  Deno.test(`${name}: a mode that is another one behind it`, () => {
    // The loop means the same in compatibility mode.
    const { registers, asked } = inAllTiers(access, (bench) => {
      const { state, processor } = bench;
      const cs = state.segment(1);
      state.setSegment(1, { ...cs, attributes: 0xc9b });
      state.set(S.cr4, BigInt(Cr4.PAE | Cr4.PGE));
      processor.refresh();
    });
    assertEquals(asked.length, ROUNDS);
    assertEquals(registers[6], BigInt(ROUNDS));
  });
}
