import { assert, assertEquals } from "@std/assert";
import { calibrate, measure, sample } from "./measure.ts";
import { type Peer, PeerError, type Workload } from "./peer.ts";

const WORKLOAD: Workload = {
  group: "loops",
  guest: "loops",
  program: "sieve",
  bits: 64,
  userMode: true,
};

/** A peer that takes so many milliseconds to start and so many for a round. */
function peer(name: string, start: number, round: number, checksum = "0123abcd"): Peer {
  return {
    name,
    version: "1",
    can: () => true,
    warms: false,
    run: (_workload, rounds) =>
      Promise.resolve({
        ms: start + round * rounds,
        console: `sieve rounds ${rounds} checksum ${checksum}\n`,
      }),
  };
}

/** One that takes ten times as long for a round until it has run for 200 ms. */
function compiler(round: number): Peer {
  const slow = 200 / (10 * round);
  return {
    ...peer("compiler", 0, 0),
    warms: true,
    run: (_workload, rounds) =>
      Promise.resolve({
        ms: 300 + round * (rounds + 9 * Math.min(rounds, slow)),
        console: `sieve rounds ${rounds} checksum 0123abcd\n`,
      }),
  };
}

Deno.test("rounds are found that take about as long as wanted, whatever the start takes", async () => {
  for (const round of [0.001, 0.3, 7]) {
    const { short, long, checksum } = await calibrate(peer("a", 5000, round), WORKLOAD, {
      target: 100,
      warm: 0,
    });
    assert(short < long / 4, `${short} of ${long} rounds`);
    assert(Math.abs(long * round - 100) < 10, `${long} rounds of ${round} ms`);
    assertEquals(checksum, "0123abcd");
  }
});

Deno.test("a peer that compiles beside the guest is warm before its time counts", async () => {
  for (const round of [0.001, 0.05, 2]) {
    const { short, long } = await calibrate(compiler(round), WORKLOAD, { target: 100, warm: 400 });
    assert(round * short >= 200, `${short} rounds of ${round} ms`);
    assert(Math.abs((long - short) * round - 100) < 17, `${long - short} rounds of ${round} ms`);
    const effort = { samples: 2, target: 100, warm: 400 };
    const outcomes = await measure([compiler(round)], WORKLOAD, effort);
    const outcome = outcomes.get("compiler")!;
    assert("ns" in outcome);
    assertEquals(Math.round(outcome.ns), round * 1e6);
  }
});

Deno.test("how long a peer takes to become warm makes no great difference", async () => {
  const even = compiler(0.05);
  let runs = 0;
  const fickle: Peer = {
    ...even,
    async run(workload, rounds) {
      const { ms, console } = await even.run(workload, rounds);
      return { ms: runs++ % 2 === 0 ? ms + 200 : ms, console };
    },
  };
  const outcomes = await measure([fickle], WORKLOAD, { samples: 1, target: 100, warm: 400 });
  const outcome = outcomes.get("compiler")!;
  assert("ns" in outcome);
  assert(Math.abs(outcome.ns / 50_000 - 1) < 0.15, `${outcome.ns} ns`);
});

Deno.test("the best of several runs counts", async () => {
  const late = [0, 0, 900, 0, 40, 70, 0, 0, 30, 10];
  let runs = 0;
  const uneven: Peer = {
    ...peer("uneven", 0, 0),
    run: (_workload, rounds) =>
      Promise.resolve({
        ms: 10 + 30 * rounds + (late[runs++] ?? 0),
        console: "checksum 0123abcd\n",
      }),
  };
  const outcomes = await measure([uneven], WORKLOAD, { samples: 4, target: 50, warm: 0 });
  assertEquals(outcomes.get("uneven"), { ns: 30e6 });
});

Deno.test("a sample is the time of a round, without the start", async () => {
  const rounds = { short: 100, long: 1000 };
  assertEquals(Math.round(await sample(peer("a", 300, 0.5), WORKLOAD, rounds)), 500_000);
});

Deno.test("peers that fail, or come to another checksum, are not timed", async () => {
  const broken: Peer = {
    ...peer("broken", 1, 1),
    run: () => Promise.reject(new PeerError("no such mode")),
  };
  const unable: Peer = { ...peer("unable", 1, 1), can: () => false };
  const outcomes = await measure(
    [peer("right", 1, 2), peer("wrong", 1, 1, "deadbeef"), broken, unable],
    WORKLOAD,
    { samples: 1, target: 50, warm: 0 },
  );
  assertEquals([...outcomes].toSorted(), [
    ["broken", { failed: "no such mode" }],
    ["right", { ns: 2e6 }],
    ["wrong", { failed: "checksum deadbeef, not 0123abcd" }],
  ]);
});
