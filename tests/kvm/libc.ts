/**
 * The calls of the C library that `/dev/kvm` takes: open, ioctl, mmap.
 *
 * @module
 */

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlNumber: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  mmap: { parameters: ["pointer", "u64", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "u64"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const EINTR = 4;

/** A system call failed. */
export class SystemCallError extends Error {
  /** `"SystemCallError"`. */
  override readonly name = "SystemCallError";
  /** `errno`. */
  readonly code: number;

  constructor(call: string, code: number) {
    super(`${call} failed with error ${code}`);
    this.code = code;
  }
}

/** Memory that was mapped. */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The C library of Linux. */
function load(): Deno.DynamicLibrary<typeof SYMBOLS> {
  try {
    return Deno.dlopen("libc.so.6", SYMBOLS);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new SystemCallError("loading libc.so.6", 0);
  }
}

/** The library, open. */
export class Libc {
  readonly #library = load();

  #fail(call: string): never {
    throw new SystemCallError(call, this.#errno());
  }

  #errno(): number {
    const at = this.#library.symbols.__errno_location();
    return at === null ? 0 : new Deno.UnsafePointerView(at).getInt32();
  }

  /** Opens a file to read and write. */
  open(path: string): number {
    const name = new TextEncoder().encode(`${path}\0`);
    const file = this.#library.symbols.open(name, O_RDWR | O_CLOEXEC);
    return file < 0 ? this.#fail(`open ${path}`) : file;
  }

  close(file: number): void {
    this.#library.symbols.close(file);
  }

  /** Calls it with a number, or with a structure that it reads or writes. */
  ioctl(what: string, file: number, request: number, argument: number | Uint8Array): number {
    const { ioctl, ioctlNumber } = this.#library.symbols;
    for (;;) {
      const result = typeof argument === "number"
        ? ioctlNumber(file, BigInt(request), BigInt(argument))
        : ioctl(file, BigInt(request), argument as Uint8Array<ArrayBuffer>);
      if (result >= 0) return result;
      if (this.#errno() !== EINTR) this.#fail(what);
    }
  }

  /** Maps a file's first bytes, or memory of its own if there is no file. */
  map(bytes: number, file?: number): Mapping {
    const flags = file === undefined ? MAP_PRIVATE_ANONYMOUS : MAP_SHARED;
    const at = this.#library.symbols.mmap(
      null,
      BigInt(bytes),
      PROT_READ_WRITE,
      flags,
      file ?? -1,
      0n,
    );
    const address = Deno.UnsafePointer.value(at);
    if (at === null || address === 0xffff_ffff_ffff_ffffn) this.#fail("mmap");
    const buffer = Deno.UnsafePointerView.getArrayBuffer(at, bytes);
    return { address, bytes: new Uint8Array(buffer) };
  }

  /** Takes a mapping away; its bytes must not be touched again. */
  unmap({ address, bytes }: Mapping): void {
    this.#library.symbols.munmap(Deno.UnsafePointer.create(address), BigInt(bytes.length));
  }
}
