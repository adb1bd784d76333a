/**
 * Times one workload on several peers in turn.
 *
 * @module
 */
import { checksumOf, type Peer, PeerError, type Workload } from "./peer.ts";
import { median } from "./statistics.ts";

/** How to measure. */
export interface Effort {
  /** Samples of each peer. */
  readonly samples: number;
  /** Milliseconds a sample is to take. */
  readonly target: number;
}

/** What one peer made of a workload. */
export type Outcome =
  | { readonly ns: number } // a round
  | { readonly failed: string };

/** A long run has so many times the rounds of the short one that is taken off it. */
const SHORT = 8;
/** Rounds grow by so much while the number that takes long enough is looked for. */
const GROWTH = 4;
const MOST_ROUNDS = 2 ** 30;

/** Rounds that take a peer about as long as they should, and the checksum of a single one. */
export async function calibrate(
  peer: Peer,
  workload: Workload,
  target: number,
): Promise<{ rounds: number; checksum: string | undefined }> {
  const first = await peer.run(workload, 1);
  let rounds = 1;
  for (let ms = 0; ms < target / 2 && rounds < MOST_ROUNDS;) {
    rounds *= GROWTH;
    ms = (await peer.run(workload, rounds)).ms - first.ms;
    if (ms >= target / 2) rounds = Math.max(SHORT, Math.round(rounds * target / ms));
  }
  return { rounds: Math.max(SHORT, rounds), checksum: checksumOf(first.console) };
}

/** One sample: nanoseconds a round, from two runs that differ in nothing but their rounds. */
export async function sample(peer: Peer, workload: Workload, rounds: number): Promise<number> {
  const few = Math.floor(rounds / SHORT);
  const short = await peer.run(workload, few);
  const long = await peer.run(workload, rounds);
  return (long.ms - short.ms) * 1e6 / (rounds - few);
}

/**
 * Times a workload on each of the peers that can run it, in turn; the first of them says what the
 * checksum is. Start and console drop out of each sample.
 */
export async function measure(
  peers: readonly Peer[],
  workload: Workload,
  { samples, target }: Effort,
): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const running: { peer: Peer; rounds: number; ns: number[] }[] = [];
  let right: string | undefined;
  for (const peer of peers.filter((peer) => peer.can(workload))) {
    try {
      const { rounds, checksum } = await calibrate(peer, workload, target);
      right ??= checksum;
      if (checksum !== right) throw new PeerError(`checksum ${checksum}, not ${right}`);
      running.push({ peer, rounds, ns: [] });
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      outcomes.set(peer.name, { failed: error.message });
    }
  }
  for (let k = 0; k < samples; k++) {
    for (const { peer, rounds, ns } of running) ns.push(await sample(peer, workload, rounds));
  }
  for (const { peer, ns } of running) {
    const middle = median(ns);
    // On a machine that does much else, the shorter run may take longer.
    outcomes.set(peer.name, middle > 0 ? { ns: middle } : { failed: "its times are all noise" });
  }
  return outcomes;
}
