/**
 * The processor itself, as the limit: the sources of the measured programs, built as programs of Linux.
 *
 * @module
 */
import { timed } from "./clock.ts";
import { commandLineOf, type FindPeer, outputOf, PeerError } from "./peer.ts";

const GUESTS = new URL("../../examples/guests/", import.meta.url);
const HERE = new URL(".", import.meta.url);
const SHARED = ["arguments", "console", "crc32", "exit", "measured", "sha256", "string"];

/** The flags of `tools/guests.ts` that bear on the code. */
const FLAGS = [
  ...["-std=gnu11", "-O2", "-mtune=generic", "-ffreestanding", "-fno-pic", "-fno-pie", "-no-pie"],
  ...["-fno-stack-protector", "-fcf-protection=none", "-fno-tree-loop-distribute-patterns"],
  ...["-nostdlib", "-static", "-include", new URL("native.h", HERE).pathname],
  ...["-I", new URL("lib", GUESTS).pathname],
];
const INTEGERS = ["-mgeneral-regs-only"];
const FLOATS = ["-msse2", "-mfpmath=sse", "-fno-math-errno", "-ffp-contract=off"];
const WIDTHS = { 32: ["-m32", "-march=i686"], 64: ["-m64", "-march=x86-64"] } as const;

async function build(guest: string, bits: 32 | 64, folder: string): Promise<string> {
  const path = new URL(`${guest}/`, GUESTS);
  const own = [...Deno.readDirSync(path)].map(({ name }) => name)
    .filter((name) => name.endsWith(".c") && (guest === "loops" || !name.startsWith("main.")));
  const sources = [
    ...own.map((name) => new URL(name, path).pathname),
    ...SHARED.map((name) => new URL(`lib/${name}.c`, GUESTS).pathname),
    new URL("native.c", HERE).pathname,
  ];
  const program = `${folder}/${guest}.${bits}`;
  // The guest "loops" is all in its main().
  const entry = guest === "loops" ? ["-DPROGRAMS=main"] : [`-DPROGRAMS=${guest}_run`];
  const objects: string[] = [];
  for (const [n, source] of sources.entries()) {
    const object = `${program}.${n}.o`;
    const kind = source.endsWith(".float.c") ? FLOATS : INTEGERS;
    await gcc([...FLAGS, ...WIDTHS[bits], ...kind, ...entry, "-c", source, "-o", object]);
    objects.push(object);
  }
  await gcc([...FLAGS, ...WIDTHS[bits], ...objects, "-o", program]);
  return program;
}

async function gcc(args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("gcc", { args: [...args] }).output();
  if (!success) throw new PeerError(`gcc ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** Native code, if gcc is there and this is Linux on an x86-64 processor. */
export const findNative: FindPeer = async () => {
  const name = "native";
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    return { name, missing: "this is not Linux on x86-64" };
  }
  const version = (await outputOf("gcc", "--version"))?.split("\n", 1)[0];
  if (version === undefined) return { name, missing: "gcc is not on the PATH" };
  const folder = await Deno.makeTempDir();
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const programs = new Map<string, Promise<string>>();
  return {
    name,
    version,
    warms: false,
    can: ({ userMode }) => userMode,
    async run(workload, rounds) {
      const key = `${workload.guest}.${workload.bits}`;
      const built = programs.get(key) ?? build(workload.guest, workload.bits, folder);
      programs.set(key, built);
      const { ms, code, stdout } = await timed(await built, [commandLineOf(workload, rounds)]);
      if (code !== 0) throw new PeerError(`${key}: status ${code}`);
      return { ms, console: stdout };
    },
  };
};
