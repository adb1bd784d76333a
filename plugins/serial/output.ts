/**
 * Where a UART's characters go.
 *
 * @module
 */

/** A place for bytes that may take its time: the writer of a `WritableStream`, for one. */
export interface SerialWriter {
  /** Takes all of the bytes. A promise that is rejected ends the run. */
  write(bytes: Uint8Array): unknown;
}

/** Where characters go: called, or written to, with bytes that it may keep. */
export type SerialOutput = ((bytes: Uint8Array) => void) | SerialWriter;

/** Characters that are gathered before they are handed on at the latest. */
const CAPACITY = 4096;

/**
 * Gathers the characters of one line, so that what a guest prints does not cost a call for each.
 *
 * They are handed on when 4096 have gathered, when the program gives way to the event loop, and when
 * {@linkcode OutputBuffer.flush} is called.
 */
export class OutputBuffer {
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #failed: (error: unknown) => void;
  readonly #bytes: Uint8Array = new Uint8Array(CAPACITY);
  readonly #later: () => void;
  #count = 0;
  #scheduled = false;

  /** @param failed Hears of errors that cannot be thrown to anybody. */
  constructor(output: SerialOutput, failed: (error: unknown) => void) {
    this.#failed = failed;
    this.#sink = typeof output === "function" ? output : (bytes) => {
      Promise.resolve(output.write(bytes)).catch(failed);
    };
    this.#later = () => {
      this.#scheduled = false;
      try {
        this.flush();
      } catch (error) {
        this.#failed(error);
      }
    };
  }

  /** Adds a character. Throws what the place for it throws. */
  put(character: number): void {
    this.#bytes[this.#count++] = character;
    if (this.#count === CAPACITY) return this.flush();
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#later);
  }

  /** Hands on what has gathered. Throws what the place for it throws. */
  flush(): void {
    if (this.#count === 0) return;
    const bytes = this.#bytes.slice(0, this.#count);
    this.#count = 0;
    this.#sink(bytes);
  }
}
