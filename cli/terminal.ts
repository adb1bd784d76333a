/**
 * The guest's console on standard output, with a line on standard error that says how far the run is.
 *
 * @module
 */

import type { Vm } from "../core/mod.ts";
import { type CliError, outputError } from "./errors.ts";
import type { CliIo } from "./io.ts";

const LINE_FEED = 10;
const CLEAR_LINE = "\r\x1b[K";
const PROGRESS_MS = 1000;

/** Keeps the two apart where both are on one terminal. */
export class Terminal {
  readonly #io: CliIo;
  readonly #broken: (error: CliError) => void;
  #column = false;
  #shown = false;
  #closed = false;

  /** `broken` is called once if standard output can no longer be written, with the reason. */
  constructor(io: CliIo, broken: (error: CliError) => void) {
    this.#io = io;
    this.#broken = broken;
  }

  /** Whether standard output can no longer be written. */
  get closed(): boolean {
    return this.#closed;
  }

  /** What the guest printed. */
  console(bytes: Uint8Array): void {
    if (this.#closed || bytes.length === 0) return;
    this.#hide();
    this.#column = bytes.at(-1) !== LINE_FEED;
    try {
      this.#io.stdout(bytes);
    } catch (error) {
      this.#closed = true;
      this.#broken(outputError(error));
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
