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
    run: (_workload, rounds) =>
      Promise.resolve({
        ms: start + round * rounds,
        console: `sieve rounds ${rounds} checksum ${checksum}\n`,
      }),
  };
}

Deno.test("rounds are found that take about as long as wanted, whatever the start takes", async () => {
  for (const round of [0.001, 0.3, 7]) {
    const { rounds, checksum } = await calibrate(peer("a", 5000, round), WORKLOAD, 100);
    assert(Math.abs(rounds * round - 100) < 10, `${rounds} rounds of ${round} ms`);
    assertEquals(checksum, "0123abcd");
  }
});

Deno.test("a sample is the time of a round, without the start", async () => {
  assertEquals(Math.round(await sample(peer("a", 300, 0.5), WORKLOAD, 1000)), 500_000);
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
    { samples: 1, target: 50 },
  );
  assertEquals([...outcomes].toSorted(), [
    ["broken", { failed: "no such mode" }],
    ["right", { ns: 2e6 }],
    ["wrong", { failed: "checksum deadbeef, not 0123abcd" }],
  ]);
});
