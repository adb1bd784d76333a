/**
 * A cache of compiled code in a file.
 *
 * The file begins with eight bytes that tell the format; then come pieces of code, those used longest ago
 * first: the key (32 bytes), the length of the code and a checksum of both (u32 each, little-endian), the
 * code. What is damaged, cut off or of another format is left out, as if it had never been kept; a file that
 * holds something else is left alone. A new file
 * takes the place of the old one in one step, so that processes which use the same one do not disturb each
 * other; the last one to end has its code kept.
 *
 * @module
 */
import { type CodeCache, MemoryCodeCache } from "./engine/code_cache.ts";

const MAGIC: Uint8Array = new TextEncoder().encode("TLCODE1\n");
/** So many of them are the same in all formats. */
const FAMILY_BYTES = 6;
const KEY_BYTES = 32;
const HEAD_BYTES: number = KEY_BYTES + 8;

/** Bytes of code that a file keeps, unless told otherwise. */
export const DEFAULT_FILE_LIMIT: number = 64 << 20;

/** A checksum of `bytes` that begins with `sum`: enough to tell damage, not malice. */
function checksum(bytes: Uint8Array, sum: number): number {
  for (let k = 0; k < bytes.length; k++) sum = Math.imul(sum ^ bytes[k]!, 0x0100_0193);
  return sum >>> 0;
}

function keyBytes(key: string): Uint8Array {
  return Uint8Array.from(
    { length: KEY_BYTES },
    (_, k) => parseInt(key.slice(2 * k, 2 * k + 2), 16),
  );
}

function keyText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Keeps code in memory, and in a file when asked to. It needs permission to read and to write the file. */
export class FileCodeCache implements CodeCache {
  readonly #path: string;
  readonly #memory: MemoryCodeCache;
  /** Checksums of what has been read and not been used yet. */
  readonly #unchecked = new Map<string, number>();
  #changed = false;
  #problem: string | undefined;

  /**
   * The cache in the file at `path`, of at most `limit` bytes of code. A file that is not there is an empty one;
   * so is one that cannot be used, which {@linkcode FileCodeCache.problem} tells.
   */
  constructor(path: string, limit: number = DEFAULT_FILE_LIMIT) {
    this.#path = path;
    this.#memory = new MemoryCodeCache(limit);
    let file: Uint8Array<ArrayBuffer>;
    try {
      file = Deno.readFileSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) {
        this.#problem = error instanceof Error ? error.message : String(error);
      }
      return;
    }
    this.#read(file);
  }

  /** Why the file cannot be used: it cannot be read, or holds something else, which is left alone. */
  get problem(): string | undefined {
    return this.#problem;
  }

  #read(file: Uint8Array<ArrayBuffer>): void {
    if (file.subarray(0, FAMILY_BYTES).some((byte, k) => byte !== MAGIC[k])) {
      this.#problem = "the file is no cache of compiled code, and is left alone";
      return;
    }
    if (MAGIC.some((byte, k) => file[k] !== byte)) return;
    const words = new DataView(file.buffer, file.byteOffset, file.length);
    for (let at = MAGIC.length; at + HEAD_BYTES <= file.length;) {
      const length = words.getUint32(at + KEY_BYTES, true);
      const start = at + HEAD_BYTES;
      if (start + length > file.length) return;
      const key = keyText(file.subarray(at, at + KEY_BYTES));
      this.#memory.put(key, file.subarray(start, start + length));
      this.#unchecked.set(key, words.getUint32(at + KEY_BYTES + 4, true));
      at = start + length;
    }
  }

  /** See {@linkcode CodeCache.get}. */
  get(key: string): Uint8Array<ArrayBuffer> | undefined {
    const code = this.#memory.get(key);
    const sum = this.#unchecked.get(key);
    if (code === undefined || sum === undefined) return code;
    this.#unchecked.delete(key);
    if (checksum(code, checksum(keyBytes(key), 0)) === sum) return code;
    this.drop(key);
    return undefined;
  }

  /** See {@linkcode CodeCache.put}. */
  put(key: string, code: Uint8Array<ArrayBuffer>): void {
    this.#unchecked.delete(key);
    this.#memory.put(key, code);
    this.#changed = true;
  }

  /** See {@linkcode CodeCache.drop}. */
  drop(key: string): void {
    this.#unchecked.delete(key);
    this.#memory.drop(key);
    this.#changed = true;
  }

  /** Writes the file if there is something new. Throws what the file system does, or the problem there is. */
  save(): void {
    if (!this.#changed) return;
    if (this.#problem !== undefined) throw new Error(this.#problem);
    const pieces: Uint8Array[] = [MAGIC];
    for (const [key, code] of this.#memory.entries()) {
      const head = new Uint8Array(HEAD_BYTES);
      const words = new DataView(head.buffer);
      const bytes = keyBytes(key);
      head.set(bytes);
      words.setUint32(KEY_BYTES, code.length, true);
      const sum = this.#unchecked.get(key) ?? checksum(code, checksum(bytes, 0));
      words.setUint32(KEY_BYTES + 4, sum, true);
      pieces.push(head, code);
    }
    const file = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const piece of pieces) {
      file.set(piece, at);
      at += piece.length;
    }
    const temporary = `${this.#path}.${crypto.randomUUID()}`;
    try {
      Deno.writeFileSync(temporary, file, { createNew: true, mode: 0o600 });
      Deno.renameSync(temporary, this.#path);
    } catch (error) {
      try {
        Deno.removeSync(temporary);
      } catch {
        // It was never made.
      }
      throw error;
    }
    this.#changed = false;
  }
}
