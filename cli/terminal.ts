/**
 * The guest's console on standard output, with a line on standard error that says how far the run is.
 *
 * @module
 */

import type { Vm } from "../core/mod.ts";
import type { CliIo } from "./io.ts";

const LINE_FEED = 10;
const CLEAR_LINE = "\r\x1b[K";
const PROGRESS_MS = 1000;

/** Keeps the two apart where both are on one terminal. */
export class Terminal {
  readonly #io: CliIo;
  readonly #broken: () => void;
  #column = false;
  #shown = false;
  #brokenPipe = false;

  /** `broken` is called once if nobody reads standard output any more. */
  constructor(io: CliIo, broken: () => void) {
    this.#io = io;
    this.#broken = broken;
  }

  /** Whether standard output was closed by its reader. */
  get brokenPipe(): boolean {
    return this.#brokenPipe;
  }

  /** What the guest printed. */
  console(bytes: Uint8Array): void {
    if (this.#brokenPipe || bytes.length === 0) return;
    this.#hide();
    this.#column = bytes.at(-1) !== LINE_FEED;
    try {
      this.#io.stdout(bytes);
    } catch (error) {
      if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      this.#brokenPipe = true;
      this.#broken();
    }
  }

  /** What is to be said about the run. */
  say(text: string): void {
    this.#hide();
    const { stdout, stderr } = this.#io.terminal;
    if (stdout && stderr && this.#column) this.#io.stderr("\n");
    this.#column = false;
    this.#io.stderr(text);
  }

  /** Shows now and then how far a run is, until the function returned is called. */
  watch(vm: Vm): () => void {
    const { stdout, stderr } = this.#io.terminal;
    if (!stderr) return () => {};
    const start = this.#io.now();
    let before = { time: start, instructions: vm.instructions };
    const timer = setInterval(() => {
      // In the middle of a guest's line there is no place for another.
      if (stdout && this.#column) return;
      const time = this.#io.now();
      const mips = (vm.instructions - before.instructions) / (time - before.time) / 1000;
      before = { time, instructions: vm.instructions };
      this.#io.stderr(
        `${CLEAR_LINE}${((time - start) / 1000).toFixed(0)} s, ` +
          `${(vm.instructions / 1e6).toFixed(0)} million instructions, ${vm.exits} exits, ` +
          `${mips.toFixed(0)} MIPS`,
      );
      this.#shown = true;
    }, PROGRESS_MS);
    return () => {
      clearInterval(timer);
      this.#hide();
    };
  }

  #hide(): void {
    if (!this.#shown) return;
    this.#shown = false;
    this.#io.stderr(CLEAR_LINE);
  }
}
