/**
 * Where compiled code may be kept from one machine or one process to the next.
 *
 * @module
 */

/**
 * A store of compiled code, by what it was compiled from. What `get` yields is run as part of the
 * processor, with all of the machine's memory in its reach: a store must not hold what others than the
 * user may have written, and must not change what it was given.
 */
export interface CodeCache {
  /** What was put under `key`, 64 hexadecimal digits; `undefined` if it is not there (any more). */
  get(key: string): Uint8Array<ArrayBuffer> | undefined;
  /** Keeps `code`, a WebAssembly module, for `key`; or not. It is not written to afterwards. */
  put(key: string, code: Uint8Array<ArrayBuffer>): void;
  /** Forgets `key`: what was under it is not what it should be. */
  drop(key: string): void;
}

/** Keeps code in memory up to a number of bytes; what was used longest ago goes first. */
export class MemoryCodeCache implements CodeCache {
  readonly #limit: number;
  readonly #entries = new Map<string, Uint8Array<ArrayBuffer>>();
  #bytes = 0;

  /** An empty cache of at most `limit` bytes of code. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes of code that it holds. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Keys and code, what was used longest ago first. */
  entries(): IterableIterator<[string, Uint8Array<ArrayBuffer>]> {
    return this.#entries.entries();
  }

  /** See {@linkcode CodeCache.get}. */
  get(key: string): Uint8Array<ArrayBuffer> | undefined {
    const code = this.#entries.get(key);
    if (code === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, code);
    return code;
  }

  /** See {@linkcode CodeCache.put}. */
  put(key: string, code: Uint8Array<ArrayBuffer>): void {
    this.drop(key);
    this.#entries.set(key, code);
    this.#bytes += code.length;
    for (const [oldest] of this.#entries) {
      if (this.#bytes <= this.#limit) break;
      this.drop(oldest);
    }
  }

  /** See {@linkcode CodeCache.drop}. */
  drop(key: string): void {
    const code = this.#entries.get(key);
    if (code === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= code.length;
  }
}
