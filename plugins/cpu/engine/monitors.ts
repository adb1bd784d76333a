/**
 * What MONITOR watches: one line of memory for each processor, and who waits for a store to it.
 *
 * A watched line is treated like decoded code: stores to it take the slow path, whoever makes them, and
 * end up here.
 *
 * @module
 */
import { Event, S } from "../state/cpu_state.ts";
import type { Field32 } from "../state/field.ts";
import { CPU_AREA_BYTES, CPU_AREAS, CPU_STATE } from "../state/layout.ts";
import type { Blocks } from "./blocks.ts";

/** Bytes of a line, as CPUID leaf 5 has it. */
export const MONITOR_LINE_BYTES = 64;

/** The monitors of a machine's processors. */
export class Monitors {
  readonly #words: Int32Array;
  readonly #blocks: Blocks;
  /** Memory address of each processor's line, plus 1; 0 for none. */
  readonly #lines: Uint32Array;
  readonly #loaded: () => number;
  readonly #woken: (cpu: number) => void;

  /** `loaded` tells which processor is loaded; `woken` hears of one that a store has woken. */
  constructor(
    words: Int32Array,
    blocks: Blocks,
    cpus: number,
    loaded: () => number,
    woken: (cpu: number) => void,
  ) {
    this.#words = words;
    this.#blocks = blocks;
    this.#lines = new Uint32Array(cpus);
    this.#loaded = loaded;
    this.#woken = woken;
    blocks.onWatchedWrite = (address, bytes) => this.#written(address, bytes);
  }

  /** MONITOR of the loaded processor: it watches the line around memory address `address`, 0 for none. */
  arm(address: number): void {
    const cpu = this.#loaded();
    const line = address & ~(MONITOR_LINE_BYTES - 1);
    this.#forget(cpu);
    if (address === 0) return;
    this.#lines[cpu] = line + 1;
    this.#blocks.watch(line >>> 0, MONITOR_LINE_BYTES);
  }

  /** Processor `cpu` goes on: what it waited for slows stores in the page down no longer. */
  disarm(cpu: number): void {
    if (this.#words[this.#place(cpu, S.monitorArmed)] === 0) this.#forget(cpu);
  }

  /** Where `field` of processor `cpu` is now. */
  #place(cpu: number, field: Field32): number {
    const area = cpu === this.#loaded() ? CPU_STATE : CPU_AREAS + cpu * CPU_AREA_BYTES;
    return (area + field.address - CPU_STATE) >> 2;
  }

  #forget(cpu: number): void {
    const line = this.#lines[cpu]! - 1;
    this.#lines[cpu] = 0;
    if (line < 0 || this.#lines.includes(line + 1)) return;
    this.#blocks.unwatch(line);
  }

  /** `bytes` at `address` are being written. */
  #written(address: number, bytes: number): void {
    for (let cpu = 0; cpu < this.#lines.length; cpu++) {
      const line = this.#lines[cpu]! - 1;
      if (line < 0 || address >= line + MONITOR_LINE_BYTES || address + bytes <= line) continue;
      this.#forget(cpu);
      this.#words[this.#place(cpu, S.monitorArmed)] = 0;
      if (this.endWait(cpu)) this.#woken(cpu);
    }
  }

  /** Ends the wait of processor `cpu`; whether it waited. */
  endWait(cpu: number): boolean {
    const wait = this.#place(cpu, S.monitorWait);
    const events = this.#place(cpu, S.events);
    const waits = this.#words[wait] !== 0 && (this.#words[events]! & Event.HALTED) !== 0;
    this.#words[wait] = 0;
    if (waits) this.#words[events]! &= ~Event.HALTED;
    return waits;
  }
}
