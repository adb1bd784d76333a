/**
 * A world for the command line to be tested in.
 *
 * @module
 */

import type { CliIo, OutputFile, SavedCodeCache } from "./io.ts";

/** Options of {@linkcode FakeIo}. */
export interface FakeOptions {
  /** Files besides the real ones. */
  readonly files?: Readonly<Record<string, Uint8Array | Error>>;
  /** Modules that can be imported. */
  readonly modules?: Readonly<Record<string, { readonly default?: unknown }>>;
  /** Caches of compiled code that may be used, by path. */
  readonly caches?: Readonly<Record<string, SavedCodeCache>>;
  /** Standard input. */
  readonly stdin?: ReadableStream<Uint8Array>;
  /** Which of the three are terminals. */
  readonly terminal?: Partial<CliIo["terminal"]>;
  /** Bytes that standard output takes before nobody reads it any more. */
  readonly stdoutLimit?: number;
}

/** A world that remembers what was done to it. */
export class FakeIo implements CliIo {
  readonly terminal: CliIo["terminal"];
  readonly stdin: ReadableStream<Uint8Array> | undefined;
  readonly written: Record<string, string> = {};
  readonly writtenBytes: Record<string, Uint8Array> = {};
  readonly closed: string[] = [];
  readonly raw: boolean[] = [];
  readonly exits: number[] = [];
  /** Everything in order: what went out, and where. */
  readonly log: [where: "out" | "err", text: string][] = [];
  readonly #files: Readonly<Record<string, Uint8Array | Error>>;
  readonly #modules: Readonly<Record<string, { readonly default?: unknown }>>;
  readonly #caches: Readonly<Record<string, SavedCodeCache>>;
  readonly #handlers: Set<(what: "Ctrl-C" | "SIGTERM") => void> = new Set();
  readonly #decoder: TextDecoder = new TextDecoder();
  #left: number;

  constructor(options: FakeOptions = {}) {
    this.#files = options.files ?? {};
    this.#modules = options.modules ?? {};
    this.#caches = options.caches ?? {};
    this.stdin = options.stdin;
    this.terminal = { stdin: false, stdout: false, stderr: false, ...options.terminal };
    this.#left = options.stdoutLimit ?? Infinity;
  }

  get out(): string {
    return this.log.filter(([where]) => where === "out").map(([, text]) => text).join("");
  }

  get err(): string {
    return this.log.filter(([where]) => where === "err").map(([, text]) => text).join("");
  }

  /** Ctrl-C handlers in force. */
  get listeners(): number {
    return this.#handlers.size;
  }

  interrupt(what: "Ctrl-C" | "SIGTERM" = "Ctrl-C"): void {
    for (const handler of this.#handlers) handler(what);
  }

  readFile(path: string): Promise<Uint8Array> {
    const file = this.#files[path];
    if (file instanceof Error) return Promise.reject(file);
    return file === undefined ? Deno.readFile(path) : Promise.resolve(file);
  }

  importModule(path: string): Promise<{ readonly default?: unknown }> {
    const module = this.#modules[path];
    return module === undefined
      ? Promise.reject(new TypeError(`Module not found "${path}".`))
      : Promise.resolve(module);
  }

  openForWriting(path: string): Promise<OutputFile> {
    const file = this.#files[path];
    if (file instanceof Error) return Promise.reject(file);
    return Promise.resolve({
      write: (content: string | Uint8Array) => {
        if (typeof content === "string") this.written[path] = content;
        else this.writtenBytes[path] = content.slice();
        return Promise.resolve();
      },
      close: () => void this.closed.push(path),
    });
  }

  openCodeCache(path: string): SavedCodeCache | undefined {
    return this.#caches[path];
  }

  stdout(bytes: Uint8Array): void {
    this.#left -= bytes.length;
    if (this.#left < 0) throw new Deno.errors.BrokenPipe("Broken pipe (os error 32)");
    this.log.push(["out", this.#decoder.decode(bytes, { stream: true })]);
  }

  stderr(text: string): void {
    this.log.push(["err", text]);
  }

  setRaw(raw: boolean): void {
    this.raw.push(raw);
  }

  onInterrupt(handler: (what: "Ctrl-C" | "SIGTERM") => void): () => void {
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }

  exit(status: number): void {
    this.exits.push(status);
  }

  now(): number {
    return performance.now();
  }
}

/** Path of one of the guests. */
export function guest(name: string): string {
  return new URL(`../examples/guests/${name}/${name}.elf`, import.meta.url).pathname;
}
