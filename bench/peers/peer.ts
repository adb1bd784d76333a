/**
 * What can run the guests besides Trapline, and what is asked of it.
 *
 * @module
 */

/** One of the programs that guests measure. */
export interface Workload {
  /** What the table puts it under. */
  readonly group: string;
  /** The image, a folder of `examples/guests`. */
  readonly guest: string;
  /** The program in it, an argument that takes its rounds. */
  readonly program: string;
  /** The width of the code. */
  readonly bits: 32 | 64;
  /** Whether user mode is enough: no ports but the console's, no page tables, no interrupts. */
  readonly userMode: boolean;
}

/** How one run went. */
export interface Run {
  /** Milliseconds on the processor, with a start that is the same whatever the rounds. */
  readonly ms: number;
  /** What the guest printed. */
  readonly console: string;
}

/** Something that runs guests. */
export interface Peer {
  /** What the table calls it. */
  readonly name: string;
  /** Which one it is, in its own words. */
  readonly version: string;
  /**
   * Whether its compilers work beside the guest's run, which is slow until they are done: others take no
   * longer for the first rounds than for all that follow, but for a few milliseconds.
   */
  readonly warms: boolean;
  /** Whether it can be asked to run this at all. */
  can(workload: Workload): boolean;
  /** Runs a workload for so many rounds. */
  run(workload: Workload, rounds: number): Promise<Run>;
}

/** Looks whether a peer is installed; what is missing if not. */
export type FindPeer = () => Promise<Peer | { readonly name: string; readonly missing: string }>;

/** A peer could not run a guest; the message says which and how it ended. */
export class PeerError extends Error {
  /** `"PeerError"`. */
  override name = "PeerError";
}

/** Where a guest's image is. */
export function imageOf(guest: string): URL {
  return new URL(`../../examples/guests/${guest}/${guest}.elf`, import.meta.url);
}

/** The guest's command line. */
export function commandLineOf({ program, bits }: Workload, rounds: number): string {
  return `${program}=${rounds} bits=${bits}`;
}

/** The line with the checksum is the last that a measured program prints. */
const CHECKSUM = /checksum ([0-9a-f]{8})\r?\n/;

/** The checksum a guest printed. */
export function checksumOf(console: string): string | undefined {
  return CHECKSUM.exec(console)?.[1];
}

/** What a program prints, or `undefined` where it is not installed. */
export async function outputOf(program: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
