/**
 * A virtio console (Virtual I/O Device Version 1.2, section 5.3) with one port.
 *
 * @module
 */

import { ArgumentError, type Plugin, type Registration } from "../../core/mod.ts";
import { addVirtioDevice, type VirtioFunction } from "./device.ts";
import { gather, scatter } from "./queue.ts";

/** What is typed at a virtio console. What no guest has taken waits here. */
export class ConsoleInput {
  readonly #chunks: Uint8Array[] = [];
  readonly #listeners: Set<() => void> = new Set();
  #closed = false;

  /** Whether {@linkcode ConsoleInput.close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Types bytes, or text, which is sent as UTF-8.
   *
   * @throws {ArgumentError} If it was closed.
   */
  push(data: Uint8Array | string): void {
    if (this.#closed) throw new ArgumentError("console input: it was closed");
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data.slice();
    if (bytes.length > 0) this.#chunks.push(bytes);
    this.#tell();
  }

  /** Nobody will type any more: a guest that waits for it does not wait any longer. */
  close(): void {
    this.#closed = true;
    this.#tell();
  }

  /** Whether something waits. The plugin's own. */
  get waiting(): boolean {
    return this.#chunks.length > 0;
  }

  /** Takes up to `most` bytes. The plugin's own. */
  take(most: number): Uint8Array {
    const [chunk] = this.#chunks;
    if (chunk === undefined) return new Uint8Array();
    if (chunk.length <= most) this.#chunks.shift();
    else this.#chunks[0] = chunk.subarray(most);
    return chunk.subarray(0, most);
  }

  /** Calls `listener` when something was typed, or it was closed. The plugin's own. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Options of {@linkcode virtioConsole}. */
export interface VirtioConsoleOptions {
  /** Name of the plugin, for a VM with several; `"virtioconsole"` if not given. */
  readonly name?: string;
  /** Device number on the PCI bus, 2 to 31; 3 if not given. */
  readonly slot?: number;
  /** Takes what the guest prints, as it prints it; it may keep the bytes. Nowhere if not given. */
  readonly output?: (bytes: Uint8Array) => void;
  /** What is typed. While it is open, a guest that waits for it has not halted for good. */
  readonly input?: ConsoleInput;
}

const TYPE = 3;
/** A simple communication controller, of another kind. */
const CLASS = 0x07_8000;
const QUEUE_SIZE = 64;
const RECEIVE = 0;
const TRANSMIT = 1;
/** Columns, rows, number of ports and the emergency write, none of which are offered. */
const CONFIG_BYTES = 12;

/** A virtio console as a plugin. */
export function virtioConsole(options: VirtioConsoleOptions = {}): Plugin {
  const { name = "virtioconsole", slot = 3, output, input } = options;
  return {
    name,
    version: "1.0.0",
    description: "A virtio console on the PCI bus",
    requires: ["pci"],
    setup(ctx) {
      const { vm } = ctx;
      const { memory } = vm;
      const print = (device: VirtioFunction): void => {
        const queue = device.queues[TRANSMIT];
        if (queue === undefined) return;
        let printed = false;
        for (let chain = queue.take(); chain !== undefined; chain = queue.take()) {
          output?.(gather(memory, chain.readable));
          queue.give(chain, 0);
          printed = true;
        }
        if (printed) device.interrupt(queue);
      };
      const receive = (device: VirtioFunction): void => {
        const queue = device.queues[RECEIVE];
        if (queue === undefined || input === undefined) return;
        let received = false;
        while (input.waiting) {
          const chain = queue.take();
          if (chain === undefined) break;
          const room = chain.writable.reduce((sum, { length }) => sum + length, 0);
          queue.give(chain, scatter(memory, chain.writable, input.take(room)));
          received = true;
        }
        if (received) device.interrupt(queue);
      };
      const device = addVirtioDevice(ctx, slot, {
        name,
        type: TYPE,
        classCode: CLASS,
        features: 0,
        queues: [QUEUE_SIZE, QUEUE_SIZE],
        config: new Uint8Array(CONFIG_BYTES),
        notified: (queue, device) => queue === TRANSMIT ? print(device) : receive(device),
      });
      if (input === undefined) return;
      const source: Registration | undefined = input.closed
        ? undefined
        : ctx.addWakeSource(`${name} input`);
      ctx.onLeave(input.listen(() => {
        device.attempt(() => receive(device));
        if (input.closed) source?.remove();
        vm.wake();
      }));
    },
  };
}
