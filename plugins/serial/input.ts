/**
 * What comes in on a serial line from outside.
 *
 * @module
 */

import { ArgumentError } from "../../core/mod.ts";
import { BREAK } from "./uart.ts";

/** Who hears of what comes in. The plugin's own. */
export interface InputListener {
  /** There is something to take. */
  arrived(): void;
  /** There will not be any more than what can be taken now. */
  ended(): void;
  /** The stream behind it failed; there will not be any more. */
  failed(error: unknown): void;
}

/**
 * The far end of a serial line: what is pushed here, the guest receives.
 *
 * Nothing is lost while the guest does not read, nor while no VM has the line: it waits here.
 *
 * @example A program that types
 * ```ts
 * import { serial, SerialInput } from "@trapline/trapline/serial";
 *
 * const keyboard = new SerialInput();
 * const plugin = serial({ input: keyboard });
 * keyboard.push("ls\n");
 * keyboard.close(); // nobody will type any more: a guest that waits has halted for good
 * console.assert(plugin.name === "serial");
 * ```
 */
export class SerialInput {
  readonly #listeners: Set<InputListener> = new Set();
  readonly #stream: ReadableStream<Uint8Array> | undefined;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined = undefined;
  /** What was pushed and not taken; a break stands for itself. */
  readonly #chunks: (Uint8Array | typeof BREAK)[] = [];
  /** How much of the first chunk was taken. */
  #taken = 0;
  #closed = false;
  #received = false;

  /**
   * An empty line.
   *
   * @param stream Where its characters come from, besides those pushed. It is read when all that came
   * before was taken, and only while a VM has the line.
   */
  constructor(stream?: ReadableStream<Uint8Array>) {
    this.#stream = stream;
  }

  /** Whether anything has ever come in. */
  get received(): boolean {
    return this.#received;
  }

  /** Whether {@linkcode SerialInput.close} was called, or the stream has ended. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Sends characters to the guest.
   *
   * @param data Bytes, or text, which is sent as UTF-8.
   *
   * @throws {ArgumentError} If the line was closed.
   */
  push(data: Uint8Array | string): void {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data.slice();
    this.#add(bytes);
  }

  /**
   * Sends a break: the line is held for longer than a character takes.
   *
   * @throws {ArgumentError} If the line was closed.
   */
  sendBreak(): void {
    this.#add(BREAK);
  }

  /** Nothing more will come. A VM in which everybody waits does not wait for this line any longer. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const listener of this.#listeners) listener.ended();
  }

  /** Takes the next character, -1 if none waits. The plugin's own. */
  take(): number {
    const [chunk] = this.#chunks;
    if (chunk === undefined) {
      this.#pull();
      return -1;
    }
    const isBreak = typeof chunk === "number";
    const character = isBreak ? chunk : chunk[this.#taken++] as number;
    if (isBreak || this.#taken === chunk.length) {
      this.#chunks.shift();
      this.#taken = 0;
    }
    return character;
  }

  /** Begins to tell a listener. The plugin's own. */
  attach(listener: InputListener): void {
    this.#listeners.add(listener);
    this.#pull();
  }

  /** Ends it. The plugin's own. */
  detach(listener: InputListener): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size > 0) return;
    this.#reader?.releaseLock();
    this.#reader = undefined;
  }

  #add(chunk: Uint8Array | typeof BREAK): void {
    if (this.#closed) throw new ArgumentError("serial input: the line was closed");
    if (typeof chunk !== "number" && chunk.length === 0) return;
    this.#received = true;
    this.#chunks.push(chunk);
    for (const listener of this.#listeners) listener.arrived();
  }

  /** Reads the stream once, if all that came before was taken. */
  #pull(): void {
    if (this.#stream === undefined || this.#reader !== undefined || this.#closed) return;
    if (this.#listeners.size === 0 || this.#chunks.length > 0) return;
    const reader = this.#stream.getReader();
    this.#reader = reader;
    reader.read().then(
      ({ done, value }) => {
        // Released in the meantime or not, what was read belongs to the line.
        if (this.#reader === reader) {
          this.#reader = undefined;
          reader.releaseLock();
        }
        if (this.#closed) return;
        if (done) this.close();
        else this.#add(value);
        this.#pull();
      },
      (error: unknown) => {
        // The lock was released because nobody listens; the stream still has what comes.
        if (this.#reader !== reader) return;
        this.#reader = undefined;
        reader.releaseLock();
        this.#closed = true;
        for (const listener of this.#listeners) listener.failed(error);
      },
    );
  }
}

const ofStreams: WeakMap<ReadableStream<Uint8Array>, SerialInput> = new WeakMap();

/** The line of a stream: the same one each time, so that what was read ahead is never lost. */
export function inputOf(source: SerialInput | ReadableStream<Uint8Array>): SerialInput {
  if (source instanceof SerialInput) return source;
  let input = ofStreams.get(source);
  if (input === undefined) ofStreams.set(source, input = new SerialInput(source));
  return input;
}
