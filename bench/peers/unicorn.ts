/**
 * Unicorn, QEMU's translator as a library, through FFI. It has no devices: a serial port's status and
 * data are answered here, and what needs page tables or interrupts is not asked of it.
 *
 * @module
 */
import { ownTime } from "./clock.ts";
import { INFO_ADDRESS, LOADER_MAGIC, multibootInfo, readElf } from "./elf.ts";
import { commandLineOf, type FindPeer, imageOf, PeerError } from "./peer.ts";

const LIBRARY = "libunicorn.so.2";

// unicorn/unicorn.h and unicorn/x86.h
const UC_ARCH_X86 = 4;
const UC_MODE_32 = 4;
const UC_MODE_64 = 8;
const UC_PROT_ALL = 7;
const UC_HOOK_INSN = 2;
const UC_X86_INS_IN = 218;
const UC_X86_INS_OUT = 500;
const UC_X86_REG_EAX = 19;
const UC_X86_REG_EBX = 21;

const COM1 = 0x3f8;
const COM1_STATUS = 0x3fd;
const COM1_EMPTY = 0x60;
const DEBUG_EXIT = 0xf4;
const MEMORY = 64 * 2 ** 20;

const SYMBOLS = {
  uc_version: { parameters: ["pointer", "pointer"], result: "u32" },
  uc_open: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  uc_close: { parameters: ["pointer"], result: "i32" },
  uc_mem_map: { parameters: ["pointer", "u64", "usize", "u32"], result: "i32" },
  uc_mem_write: { parameters: ["pointer", "u64", "buffer", "usize"], result: "i32" },
  uc_reg_write: { parameters: ["pointer", "i32", "buffer"], result: "i32" },
  uc_emu_start: { parameters: ["pointer", "u64", "u64", "u64", "usize"], result: "i32" },
  uc_emu_stop: { parameters: ["pointer"], result: "i32" },
  uc_strerror: { parameters: ["i32"], result: "pointer" },
  uc_hook_add: {
    parameters: ["pointer", "buffer", "i32", "function", "pointer", "u64", "u64", "i32"],
    result: "i32",
  },
} as const;

/** Unicorn, if the library is installed. */
export const findUnicorn: FindPeer = () => {
  const name = "Unicorn";
  let library: Deno.DynamicLibrary<typeof SYMBOLS>;
  try {
    library = Deno.dlopen(LIBRARY, SYMBOLS);
  } catch (error) {
    return Promise.resolve({ name, missing: `${LIBRARY}: ${(error as Error).message}` });
  }
  const uc = library.symbols;
  const check = (status: number, what: string): void => {
    if (status === 0) return;
    const text = uc.uc_strerror(status);
    const words = text === null ? status : Deno.UnsafePointerView.getCString(text);
    throw new PeerError(`Unicorn: ${what}: ${words}`);
  };
  const version = uc.uc_version(null, null);
  return Promise.resolve({
    name,
    version: `Unicorn ${version >>> 24}.${version >>> 16 & 255}.${version >>> 8 & 255}`,
    warms: false,
    can: ({ userMode }) => userMode,
    async run(workload, rounds) {
      const { entry, segments, symbols } = readElf(await Deno.readFile(imageOf(workload.guest)));
      const handle = new BigUint64Array(1);
      const wide = workload.bits === 64;
      check(uc.uc_open(UC_ARCH_X86, wide ? UC_MODE_64 : UC_MODE_32, handle), "open");
      const engine = Deno.UnsafePointer.create(handle[0]!);
      const write = (address: number, bytes: Uint8Array<ArrayBuffer>): void =>
        check(uc.uc_mem_write(engine, BigInt(address), bytes, BigInt(bytes.length)), "write");
      const register = (id: number, value: number): void =>
        check(uc.uc_reg_write(engine, id, new BigUint64Array([BigInt(value)])), "register");
      let console = "";
      const out = new Deno.UnsafeCallback(
        { parameters: ["pointer", "u32", "i32", "u32", "pointer"], result: "void" },
        (_engine, port, _size, value) => {
          if (port === COM1) console += String.fromCharCode(value & 0xff);
          else if (port === DEBUG_EXIT) uc.uc_emu_stop(engine);
        },
      );
      const input = new Deno.UnsafeCallback(
        { parameters: ["pointer", "u32", "i32", "pointer"], result: "u32" },
        (_engine, port) => port === COM1_STATUS ? COM1_EMPTY : 0xff,
      );
      try {
        check(uc.uc_mem_map(engine, 0n, BigInt(MEMORY), UC_PROT_ALL), "map");
        for (const { address, bytes } of segments) write(address, bytes);
        write(INFO_ADDRESS, multibootInfo(commandLineOf(workload, rounds)));
        // The way from 32-bit to 64-bit mode is not one Unicorn goes; start.S has an entry behind it.
        const begin = wide ? symbols.get("start64")! : entry;
        const info = new Uint8Array(new Uint32Array([INFO_ADDRESS]).buffer);
        if (wide) write(symbols.get("boot_info")!, info);
        register(UC_X86_REG_EAX, LOADER_MAGIC);
        register(UC_X86_REG_EBX, INFO_ADDRESS);
        const hook = new BigUint64Array(1);
        for (const [call, id] of [[out, UC_X86_INS_OUT], [input, UC_X86_INS_IN]] as const) {
          check(
            uc.uc_hook_add(engine, hook, UC_HOOK_INSN, call.pointer, null, 1n, 0n, id),
            "hook",
          );
        }
        const start = ownTime();
        const status = uc.uc_emu_start(engine, BigInt(begin), 0n, 0n, 0n);
        const ms = ownTime() - start;
        // 32-bit programs end on the way to 64-bit mode.
        if (wide || !console.includes("checksum")) check(status, "run");
        return { ms, console };
      } finally {
        check(uc.uc_close(engine), "close");
        out.close();
        input.close();
      }
    },
  });
};
