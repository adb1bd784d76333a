/**
 * Bochs, an interpreter, as a whole machine. It knows no multiboot: a ROM of ours takes the BIOS's place
 * and brings the guest in. It has no debug-exit port either, so a run ends when the checksum is printed.
 *
 * @module
 */
import { timeOf } from "./clock.ts";
import { multibootInfo, readElf } from "./elf.ts";
import {
  checksumOf,
  commandLineOf,
  type FindPeer,
  imageOf,
  outputOf,
  PeerError,
  type Workload,
} from "./peer.ts";

const PROGRAM = "bochs-bin";
const VGA_ROM = "/usr/share/bochs/VGABIOS-lgpl-latest";
const ROM_SIZE = 0x20000;
const TOP_SIZE = 0x100;
const LIMIT_MS = 120_000;
const POLL_MS = 2;

async function assembleTop(folder: string): Promise<Uint8Array | undefined> {
  const source = new URL("bochs_rom.S", import.meta.url).pathname;
  const object = `${folder}/rom.o`, binary = `${folder}/rom.bin`;
  if (await outputOf("gcc", "-c", source, "-o", object) === undefined) return undefined;
  if (await outputOf("objcopy", "-O", "binary", object, binary) === undefined) return undefined;
  return await Deno.readFile(binary);
}

async function romOf(workload: Workload, rounds: number, top: Uint8Array): Promise<Uint8Array> {
  const { entry, segments } = readElf(await Deno.readFile(imageOf(workload.guest)));
  const base = segments[0]!.address, last = segments.at(-1)!;
  const info = multibootInfo(commandLineOf(workload, rounds));
  const size = last.address - base + last.bytes.length;
  const rom = new Uint8Array(ROM_SIZE);
  const view = new DataView(rom.buffer);
  view.setUint32(0, entry, true);
  view.setUint32(4, info.length, true);
  rom.set(info, 8);
  view.setUint32(8 + info.length, size, true);
  for (const { address, bytes } of segments) rom.set(bytes, 12 + info.length + address - base);
  rom.set(top, ROM_SIZE - TOP_SIZE);
  return rom;
}

const configuration = (folder: string): string =>
  `memory: guest=64, host=64
romimage: file=${folder}/rom.img, address=0xfffe0000
vgaromimage: file=${VGA_ROM}
display_library: term
cpu: count=1, ips=200000000
clock: sync=none
com1: enabled=1, mode=file, dev=${folder}/com1.txt
log: /dev/null
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
`;

/** Bochs, if it and what assembles its ROM are on the PATH. */
export const findBochs: FindPeer = async () => {
  const name = "Bochs";
  const help = await outputOf(PROGRAM, "--help");
  if (help === undefined) return { name, missing: `${PROGRAM} is not on the PATH` };
  const folder = await Deno.makeTempDir();
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const top = await assembleTop(folder);
  if (top === undefined) return { name, missing: "gcc and objcopy, for its ROM" };
  await Deno.writeTextFile(`${folder}/bochsrc`, configuration(folder));
  return {
    name,
    version: /Bochs x86 Emulator [\d.]+/.exec(help)?.[0] ?? PROGRAM,
    warms: false,
    can: () => true,
    async run(workload, rounds) {
      await Deno.writeFile(`${folder}/rom.img`, await romOf(workload, rounds, top));
      await Deno.writeTextFile(`${folder}/com1.txt`, "");
      const child = new Deno.Command(PROGRAM, {
        args: ["-q", "-f", `${folder}/bochsrc`],
        env: { TERM: "xterm" }, // the display needs one, though it shows nothing
        stdin: "piped",
        stdout: "null",
        stderr: "null",
      }).spawn();
      const start = performance.now();
      let ended = false;
      child.status.then(() => void (ended = true));
      const stdin = child.stdin.getWriter();
      try {
        await stdin.write(new TextEncoder().encode("c\n")); // Debian's asks what to do
        for (;;) {
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
          const console = await Deno.readTextFile(`${folder}/com1.txt`);
          if (ended) throw new PeerError(`Bochs ended with status ${(await child.status).code}`);
          if (checksumOf(console) !== undefined) return { ms: timeOf(child.pid), console };
          if (performance.now() - start > LIMIT_MS) {
            throw new PeerError(`Bochs: nothing after ${LIMIT_MS} ms`);
          }
        }
      } finally {
        if (!ended) child.kill("SIGKILL");
        await stdin.close().catch(() => {});
        await child.status;
      }
    },
  };
};
