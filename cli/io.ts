/**
 * What the command line needs of the world, so that tests can be the world.
 *
 * @module
 */

import { type CodeCache, FileCodeCache } from "../plugins/cpu/mod.ts";

/** A file that is written in one piece, when everything else is done. */
export interface OutputFile {
  /** Writes the whole file. */
  write(content: string | Uint8Array<ArrayBuffer>): Promise<void>;
  /** Lets go of it. */
  close(): void;
}

/** A cache of compiled code that can be saved. */
export interface SavedCodeCache extends CodeCache {
  /** Saves it. Throws what the file system does. */
  save(): void;
  /** Why it cannot be used, if it cannot. */
  readonly problem?: string | undefined;
}

/** The world outside. */
export interface CliIo {
  /** Loads a module of plain code by its path, and returns what it exports. */
  importModule(path: string): Promise<{ readonly default?: unknown }>;
  /** Reads a file. Throws what `Deno.readFile` does. */
  readFile(path: string): Promise<Uint8Array>;
  /** Opens a file to be written later, so that it is known now whether it can be. */
  openForWriting(path: string): Promise<OutputFile>;
  /**
   * Writes to standard output, all of it. Throws `Deno.errors.BrokenPipe` if nobody reads it, and
   * other errors if it cannot be written for other reasons.
   */
  stdout(bytes: Uint8Array): void;
  /** Writes to standard error, all of it; what cannot be written is lost, for nobody can be told. */
  stderr(text: string): void;
  /** The cache of compiled code in a file; `undefined` if the process may not read or not write it. */
  openCodeCache(path: string): SavedCodeCache | undefined;
  /** Standard input, if there is one. */
  readonly stdin: ReadableStream<Uint8Array> | undefined;
  /** Whether each of the three is a terminal. */
  readonly terminal: {
    readonly stdin: boolean;
    readonly stdout: boolean;
    readonly stderr: boolean;
  };
  /** Has a terminal hand on keys as they are pressed, Ctrl-C excepted. */
  setRaw(raw: boolean): void;
  /**
   * Calls `handler` at each Ctrl-C and each request to terminate (SIGTERM), which it is told by name,
   * until the function returned is called.
   */
  onInterrupt(handler: (what: "Ctrl-C" | "SIGTERM") => void): () => void;
  /** Ends the process at once. */
  exit(status: number): void;
  /** Milliseconds, for measuring. */
  now(): number;
}

/** The process's own. */
export function denoIo(): CliIo {
  return {
    importModule: (path) => import(moduleUrl(path)),
    readFile: (path) => Deno.readFile(path),
    async openForWriting(path) {
      const file = await Deno.open(path, { write: true, create: true });
      return {
        async write(content) {
          await file.truncate(0);
          const text = typeof content === "string";
          await writeAll(file, text ? new TextEncoder().encode(content) : content);
        },
        close: () => file.close(),
      };
    },
    stdout: (bytes) => writeAllSync(Deno.stdout, bytes),
    stderr(text) {
      try {
        writeAllSync(Deno.stderr, new TextEncoder().encode(text));
      } catch {
        // There is no other place to say it.
      }
    },
    openCodeCache(path) {
      // Nobody is to be asked for a permission in the middle of a run, for something that can be done without.
      const may = (name: "read" | "write"): boolean =>
        Deno.permissions.querySync({ name, path }).state === "granted";
      return may("read") && may("write") ? new FileCodeCache(path) : undefined;
    },
    stdin: Deno.stdin.readable,
    terminal: {
      stdin: Deno.stdin.isTerminal(),
      stdout: Deno.stdout.isTerminal(),
      stderr: Deno.stderr.isTerminal(),
    },
    setRaw: (raw) => Deno.stdin.setRaw(raw, { cbreak: raw }),
    onInterrupt(handler) {
      const interrupted = () => handler("Ctrl-C");
      const terminated = () => handler("SIGTERM");
      // Windows has no SIGTERM that a program could hear.
      const both = Deno.build.os !== "windows";
      Deno.addSignalListener("SIGINT", interrupted);
      if (both) Deno.addSignalListener("SIGTERM", terminated);
      return () => {
        Deno.removeSignalListener("SIGINT", interrupted);
        if (both) Deno.removeSignalListener("SIGTERM", terminated);
      };
    },
    exit: (status) => Deno.exit(status),
    now: () => performance.now(),
  };
}

/** The URL of a path, which may be relative to where the process is. */
function moduleUrl(path: string): string {
  const folder = `file://${Deno.cwd().replaceAll("\\", "/")}/`;
  return new URL(encodeURI(path.replaceAll("\\", "/")).replaceAll("#", "%23"), folder).href;
}

function writeAllSync(file: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

async function writeAll(
  file: { write(bytes: Uint8Array): Promise<number> },
  bytes: Uint8Array,
): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}
