/**
 * Times one workload on several peers in turn.
 *
 * @module
 */
import { checksumOf, type Peer, PeerError, type Workload } from "./peer.ts";

/** How to measure. */
export interface Effort {
  /** Samples of each peer. */
  readonly samples: number;
  /** Milliseconds that count in a sample; of a peer that becomes warm first, it may be more. */
  readonly target: number;
  /** Milliseconds before them that do not, for peers that become fast only after a while. */
  readonly warm: number;
}

/** The two runs of a sample: only what the longer one does more counts. */
export interface Rounds {
  readonly short: number;
  readonly long: number;
}

/** What one peer made of a workload. */
export type Outcome =
  | { readonly ns: number } // a round
  | { readonly failed: string };

/** A long run has so many times the rounds of the short one, if there is nothing to warm up. */
const SHORT = 8;
/**
 * How many times as long as warming up is what counts. How long that takes is another time by some hundred
 * milliseconds, and both runs of a sample have a time of their own: with less, a peer once came out five times as
 * fast as it is.
 */
const OVER_WARM = 4;
/** Rounds grow by so much while the number that takes long enough is looked for. */
const GROWTH = 4;
const MOST_ROUNDS = 2 ** 30;

/**
 * Rounds whose difference takes a peer about `target` milliseconds, the first `warm` milliseconds left
 * aside; and the checksum of a single one.
 */
export async function calibrate(
  peer: Peer,
  workload: Workload,
  { target, warm }: { readonly target: number; readonly warm: number },
): Promise<Rounds & { checksum: string | undefined }> {
  const first = await peer.run(workload, 1);
  const checksum = checksumOf(first.console);
  const took = async (rounds: number): Promise<number> =>
    (await peer.run(workload, rounds)).ms - first.ms;
  let rounds = 1, ms = 0;
  while (ms < warm + target / 2 && rounds < MOST_ROUNDS) ms = await took(rounds *= GROWTH);
  if (warm === 0) {
    const long = Math.max(SHORT, Math.round(rounds * target / ms));
    return { short: Math.floor(long / SHORT), long, checksum };
  }
  // Rounds only become faster, so that this part of them takes no less than this part of the time.
  const short = Math.max(1, Math.ceil(rounds * warm / ms));
  const rest = ms - await took(short);
  const round = rest > 0 ? rest / (rounds - short) : ms / rounds;
  return { short, long: short + Math.max(SHORT, Math.round(target / round)), checksum };
}

/** One sample: nanoseconds a round, from two runs that differ in nothing but their rounds. */
export async function sample(peer: Peer, workload: Workload, rounds: Rounds): Promise<number> {
  const short = await peer.run(workload, rounds.short);
  const long = await peer.run(workload, rounds.long);
  return (long.ms - short.ms) * 1e6 / (rounds.long - rounds.short);
}

/**
 * Times a workload on each of the peers that can run it, in turn; the first of them says what the
 * checksum is. Start, warming up and console drop out. What else goes on in a machine only ever makes a
 * run longer, by caches that are shared or compilers that come later: the best run of each length counts.
 */
export async function measure(
  peers: readonly Peer[],
  workload: Workload,
  { samples, target, warm }: Effort,
): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const running: { peer: Peer; rounds: Rounds; short: number; long: number }[] = [];
  let right: string | undefined;
  for (const peer of peers.filter((peer) => peer.can(workload))) {
    try {
      const { checksum, ...rounds } = await calibrate(
        peer,
        workload,
        peer.warms ? { target: Math.max(target, OVER_WARM * warm), warm } : { target, warm: 0 },
      );
      right ??= checksum;
      if (checksum !== right) throw new PeerError(`checksum ${checksum}, not ${right}`);
      running.push({ peer, rounds, short: Infinity, long: Infinity });
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      outcomes.set(peer.name, { failed: error.message });
    }
  }
  for (let k = 0; k < samples; k++) {
    for (const one of running) {
      one.short = Math.min(one.short, (await one.peer.run(workload, one.rounds.short)).ms);
      one.long = Math.min(one.long, (await one.peer.run(workload, one.rounds.long)).ms);
    }
  }
  for (const { peer, rounds, short, long } of running) {
    const ns = (long - short) * 1e6 / (rounds.long - rounds.short);
    // On a machine that does much else, the shorter run may take longer.
    outcomes.set(peer.name, ns > 0 ? { ns } : { failed: "its times are all noise" });
  }
  return outcomes;
}
