/**
 * Builds the bare-metal guests under `examples/guests`, byte for byte the same wherever the same
 * compiler and linker are.
 *
 * ```sh
 * deno run -A tools/guests.ts              # rebuild every image and the manifest
 * deno run -A tools/guests.ts tour loops   # only these
 * deno run -A tools/guests.ts --check      # compare with what is committed, write nothing
 * ```
 *
 * A guest is a folder with sources; `lib` is shared by all. A source's name says what it is compiled to:
 * `x.c` to both widths, `x.32.c` to 32-bit code only, `x.64.c` to 64-bit code only, `x.S` is assembled as
 * it says itself. A name with `.float` before those endings lets the compiler use x87 and SSE2. 32-bit
 * symbols get a leading underscore, so both widths live in one image. What a guest does not use is
 * dropped by the linker.
 *
 * The images that patch modules run are also written to `patches/images.ts`.
 *
 * Images are multiboot 1 ELF32 files with their symbols, without notes, time stamps or paths. Needs
 * `gcc`, `ld` and `objcopy` for x86-64.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { patchImagesCurrent, writePatchImages } from "./patch_images.ts";

/** A guest's sources could not be turned into an image; the message holds the tool's own words. */
export class GuestBuildError extends Error {
  /** `"GuestBuildError"`. */
  override name = "GuestBuildError";
}

/** An image is not the multiboot ELF it should be; the message names the image and the place. */
export class GuestImageError extends Error {
  /** `"GuestImageError"`. */
  override name = "GuestImageError";
}

/** The first line each tool says of itself. Equal toolchains give equal bytes. */
export interface Toolchain {
  /** What `gcc --version` begins with. */
  readonly gcc: string;
  /** What `ld --version` begins with. */
  readonly ld: string;
}

/** What `manifest.json` records of one image. */
export interface ManifestEntry {
  /** Size of the file in bytes. */
  readonly bytes: number;
  /** SHA-256 of the file, lower-case hexadecimal. */
  readonly sha256: string;
}

/** `examples/guests/manifest.json`: the toolchain that built the committed images, and the images. */
export interface Manifest {
  /** What built the committed images. */
  readonly toolchain: Toolchain;
  /** The images by the name of their guest, sorted. */
  readonly guests: Readonly<Record<string, ManifestEntry>>;
}

/** What {@linkcode inspectImage} found. Addresses are physical. */
export interface ImageInfo {
  /** Where 32-bit execution begins. */
  readonly entry: number;
  /** Offset of the multiboot header in the file, in bytes. */
  readonly headerOffset: number;
  /** The PT_LOAD segments in ascending order; sizes in bytes. */
  readonly segments: readonly {
    readonly address: number;
    readonly fileSize: number;
    readonly memorySize: number;
  }[];
}

/** The folder the guests are in. */
export const GUESTS: URL = new URL("../examples/guests/", import.meta.url);

const COMPILE: readonly string[] = [
  "-std=gnu11",
  "-O2",
  "-march=x86-64",
  "-mtune=generic",
  "-ffreestanding",
  "-mgeneral-regs-only",
  "-mno-red-zone",
  "-fno-pic",
  "-fno-pie",
  "-fno-stack-protector",
  "-fcf-protection=none",
  "-fno-asynchronous-unwind-tables",
  "-fno-exceptions",
  "-fno-ident",
  "-fno-tree-loop-distribute-patterns", // else memcpy() calls itself
  "-ffunction-sections",
  "-fdata-sections",
  "-fno-common",
  "-Wall",
  "-Wextra",
  "-Ilib",
];
// 32-bit code is compiled to text and assembled into a 64-bit object, which ld can link with the rest.
const COMPILE_32: readonly string[] = [
  ...COMPILE.filter((flag) => flag !== "-march=x86-64" && flag !== "-mno-red-zone"),
  "-m32",
  "-march=i686",
  "-fleading-underscore",
];
// x87 is used for long double, SSE2 for the rest; contraction and errno would make results depend on more.
const FLOAT: readonly string[] = ["-msse2", "-mfpmath=sse", "-fno-math-errno", "-ffp-contract=off"];
const LINK: readonly string[] = [
  "-m",
  "elf_x86_64",
  "-T",
  "lib/guest.ld",
  "-nostdlib",
  "-static",
  "--gc-sections",
  "--build-id=none",
  "-z",
  "max-page-size=16", // segments need no page of their own in a file that is copied, not mapped
  "-z",
  "noexecstack",
  "--fatal-warnings",
];

const CONVERT: readonly string[] = [
  "--strip-debug",
  "-R",
  ".comment",
  "-R",
  ".note*",
  "-O",
  "elf32-i386",
];

async function run(program: string, args: readonly string[]): Promise<string> {
  const command = new Deno.Command(program, {
    args: [...args],
    cwd: GUESTS,
    clearEnv: true, // CPATH and its like would change what is built
    env: { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin", LC_ALL: "C" },
  });
  const { success, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  const said = text.decode(stderr).trim();
  if (!success) throw new GuestBuildError(`${program} ${args.join(" ")}: ${said}`);
  if (said !== "") console.error(said);
  return text.decode(stdout);
}

/** The versions of gcc and ld, or `undefined` where gcc, ld or objcopy is missing. */
export async function findToolchain(): Promise<Toolchain | undefined> {
  const firstLine = async (program: string): Promise<string> =>
    (await run(program, ["--version"])).split("\n", 1)[0] ?? "";
  try {
    await run("objcopy", ["--version"]);
    return { gcc: await firstLine("gcc"), ld: await firstLine("ld") };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The names of all guests, sorted: every folder beside `lib`. */
export function guestNames(): string[] {
  const names: string[] = [];
  for (const entry of Deno.readDirSync(GUESTS)) {
    if (entry.isDirectory && entry.name !== "lib") names.push(entry.name);
  }
  return names.sort();
}

/** Compiles every source of a folder into `objects`; answers the object files, in a fixed order. */
async function compileFolder(folder: string, objects: string): Promise<string[]> {
  const sources = [...Deno.readDirSync(new URL(`${folder}/`, GUESTS))]
    .map((entry) => entry.name)
    .filter((name) => /\.[cS]$/.test(name))
    .sort();
  const jobs = sources.flatMap((name): { object: string; work: () => Promise<unknown> }[] => {
    const source = `${folder}/${name}`;
    const base = `${objects}/${folder}-${name}`;
    const float = name.includes(".float.");
    const flags = (options: readonly string[]): string[] =>
      float
        ? [...options.filter((flag) => flag !== "-mgeneral-regs-only"), ...FLOAT]
        : [...options];
    const narrow = {
      object: `${base}.32.o`,
      work: async (): Promise<void> => {
        await run("gcc", [...flags(COMPILE_32), "-S", source, "-o", `${base}.32.s`]);
        const text = await Deno.readTextFile(`${base}.32.s`);
        await Deno.writeTextFile(`${base}.32.s`, `.code32\n${text}`);
        await run("gcc", ["-c", `${base}.32.s`, "-o", `${base}.32.o`]);
      },
    };
    const wide = {
      object: `${base}.64.o`,
      work: () => run("gcc", [...flags(COMPILE), "-c", source, "-o", `${base}.64.o`]),
    };
    if (name.endsWith(".S") || name.endsWith(".64.c")) return [wide];
    return name.endsWith(".32.c") ? [narrow] : [wide, narrow];
  });
  await Promise.all(jobs.map((job) => job.work()));
  return jobs.map((job) => job.object);
}

/**
 * Builds the named guests; answers their images by name. Nothing under `examples/guests` is written.
 *
 * @throws {GuestBuildError} When a tool refuses, or a name is not a guest.
 * @throws {GuestImageError} When what came out is not a valid image.
 */
export async function buildGuests(names: readonly string[]): Promise<Map<string, Uint8Array>> {
  const known = guestNames();
  for (const name of names) {
    if (!known.includes(name)) {
      throw new GuestBuildError(`no guest "${name}"; there are ${known.join(", ")}`);
    }
  }
  const images = new Map<string, Uint8Array>();
  const objects = await Deno.makeTempDir();
  try {
    const shared = await compileFolder("lib", objects);
    for (const name of names) {
      const own = await compileFolder(name, objects);
      const linked = `${objects}/${name}.elf64`;
      const image = `${objects}/${name}.elf`;
      await run("ld", [...LINK, "-o", linked, ...own, ...shared]);
      // A multiboot loader wants ELF32, whatever code is inside.
      await run("objcopy", [...CONVERT, linked, image]);
      const bytes = await Deno.readFile(image);
      inspectImage(name, bytes);
      images.set(name, bytes);
    }
  } finally {
    await Deno.remove(objects, { recursive: true });
  }
  return images;
}

/**
 * Checks that an image is an ELF32 executable for the i386 with a multiboot 1 header in its first 8 KiB,
 * its segments apart, above 1 MiB and inside the file, and its entry inside a segment.
 *
 * @throws {GuestImageError} When it is not.
 */
export function inspectImage(name: string, bytes: Uint8Array): ImageInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const require = (good: boolean, what: string): void => {
    if (!good) throw new GuestImageError(`${name}: ${what}`);
  };
  const HEADER = 52, PROGRAM_HEADER = 32, PT_LOAD = 1;
  require(bytes.length >= HEADER, `${bytes.length} bytes hold no ELF header`);
  require(view.getUint32(0) === 0x7f454c46, "no ELF magic at 0");
  require(bytes[4] === 1 && bytes[5] === 1, "not a little-endian ELF32 (bytes 4 and 5)");
  require(view.getUint16(16, true) === 2, "not an executable (e_type)");
  require(view.getUint16(18, true) === 3, "not for the i386 (e_machine)");
  const entry = view.getUint32(24, true);
  const table = view.getUint32(28, true), count = view.getUint16(44, true);
  require(view.getUint16(42, true) === PROGRAM_HEADER, "odd program header size (e_phentsize)");
  require(table + count * PROGRAM_HEADER <= bytes.length, "program headers past the file's end");

  const segments: { address: number; fileSize: number; memorySize: number }[] = [];
  let end = 0x100000;
  for (let i = 0; i < count; i++) {
    const at = table + i * PROGRAM_HEADER;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = view.getUint32(at + 4, true);
    const address = view.getUint32(at + 12, true);
    const fileSize = view.getUint32(at + 16, true);
    const memorySize = view.getUint32(at + 20, true);
    require(offset + fileSize <= bytes.length, `segment ${i} past the file's end`);
    require(fileSize <= memorySize, `segment ${i} larger in the file than in memory`);
    require(address >= end, `segment ${i} at ${address.toString(16)}h below ${end.toString(16)}h`);
    end = address + memorySize;
    segments.push({ address, fileSize, memorySize });
  }
  require(segments.length > 0, "nothing to load");
  require(
    segments.some((s) => entry >= s.address && entry < s.address + s.fileSize),
    `entry ${entry.toString(16)}h outside every segment`,
  );

  // Multiboot Specification 0.6.96, 3.1: 4-aligned, wholly inside the first 8192 bytes.
  const limit = Math.min(bytes.length, 8192) - 12;
  for (let at = 0; at <= limit; at += 4) {
    if (view.getUint32(at, true) !== 0x1badb002) continue;
    const sum = 0x1badb002 + view.getUint32(at + 4, true) + view.getUint32(at + 8, true);
    require(sum % 2 ** 32 === 0, `multiboot header at ${at}: wrong checksum`);
    return { entry, headerOffset: at, segments };
  }
  throw new GuestImageError(`${name}: no multiboot header in the first 8192 bytes`);
}

/** The lower-case hexadecimal SHA-256 of some bytes. */
export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new Uint8Array(bytes));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Where the committed image of a guest is. */
export function imagePath(name: string): URL {
  return new URL(`${name}/${name}.elf`, GUESTS);
}

const MANIFEST = new URL("manifest.json", GUESTS);

/** Reads `examples/guests/manifest.json`. */
export async function readManifest(): Promise<Manifest> {
  return JSON.parse(await Deno.readTextFile(MANIFEST));
}

/** Whether two toolchains promise equal bytes. */
export function sameToolchain(a: Toolchain, b: Toolchain): boolean {
  return a.gcc === b.gcc && a.ld === b.ld;
}

/**
 * Console output without what depends on the machine: lines that start with `cpu:` or `memory:` are
 * dropped. What is left of a guest's output is its committed `.expected` file.
 */
export function normalizeConsole(text: string): string {
  return text.replaceAll(/^(?:cpu|memory):.*\n/gm, "");
}

async function write(images: ReadonlyMap<string, Uint8Array>, toolchain: Toolchain): Promise<void> {
  const old: Manifest = await readManifest().catch((error): Manifest => {
    if (error instanceof Deno.errors.NotFound) return { toolchain, guests: {} };
    throw error;
  });
  const all = guestNames();
  if (images.size !== all.length && !sameToolchain(old.toolchain, toolchain)) {
    throw new GuestBuildError("another toolchain than the manifest's: rebuild all guests together");
  }
  const guests: Record<string, ManifestEntry> = {};
  for (const name of all) {
    const bytes = images.get(name);
    if (bytes !== undefined) {
      await Deno.writeFile(imagePath(name), bytes);
      guests[name] = { bytes: bytes.length, sha256: await sha256Hex(bytes) };
      console.log(`${name}: ${bytes.length} bytes`);
    } else if (old.guests[name] !== undefined) {
      guests[name] = old.guests[name];
    }
  }
  await Deno.writeTextFile(MANIFEST, JSON.stringify({ toolchain, guests }, null, 2) + "\n");
}

/** Compares built images with the committed ones; answers a line for each that differs. */
export async function compareImages(images: ReadonlyMap<string, Uint8Array>): Promise<string[]> {
  const differences: string[] = [];
  for (const [name, built] of images) {
    const committed = await Deno.readFile(imagePath(name)).catch((error): undefined => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    if (committed === undefined) {
      differences.push(`${name}: no committed image`);
      continue;
    }
    const at = built.findIndex((byte, i) => byte !== committed[i]);
    if (at >= 0 || built.length !== committed.length) {
      differences.push(
        `${name}: built ${built.length} bytes, committed ${committed.length}, first difference at ` +
          `${at < 0 ? built.length : at}`,
      );
    }
  }
  return differences;
}

async function main(): Promise<number> {
  const args = parseArgs(Deno.args, {
    boolean: ["check"],
    unknown: (arg) => {
      if (arg.startsWith("-")) throw new GuestBuildError(`unknown option ${arg}`);
    },
  });
  const names = args._.length > 0 ? args._.map(String) : guestNames();
  const toolchain = await findToolchain();
  if (toolchain === undefined) throw new GuestBuildError("gcc, ld and objcopy are needed");
  const images = await buildGuests(names);
  if (args["check"] !== true) {
    await write(images, toolchain);
    await writePatchImages();
    return 0;
  }
  const manifest = await readManifest();
  if (!sameToolchain(manifest.toolchain, toolchain)) {
    console.log(
      `The sources build, but bytes are not compared: the images come from ${manifest.toolchain.gcc}, ` +
        `${manifest.toolchain.ld}; here are ${toolchain.gcc}, ${toolchain.ld}.`,
    );
    return 0;
  }
  const differences = await compareImages(images);
  if (!await patchImagesCurrent()) differences.push("patches/images.ts holds other images");
  for (const line of differences) console.error(line);
  if (differences.length === 0) console.log(`${images.size} images as committed`);
  return differences.length === 0 ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof GuestBuildError || error instanceof GuestImageError)) throw error;
    console.error(error.message);
    Deno.exit(2);
  }
}
