import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  buildGuests,
  compareImages,
  findToolchain,
  GuestBuildError,
  GuestImageError,
  guestNames,
  GUESTS,
  imagePath,
  inspectImage,
  normalizeConsole,
  readManifest,
  sameToolchain,
  sha256Hex,
} from "./guests.ts";
import { patchImagesCurrent } from "./patch_images.ts";

/** How each guest ends when it is given no arguments: a debug-exit status, a reset, or not at all. */
const ENDINGS: Readonly<Record<string, number | "reset" | "never">> = {
  apic: 1,
  apichost: 1,
  apx: 1,
  egprs: 1,
  exits: 1,
  floats: 1,
  hang: "never",
  ipistorm: 1,
  kernels: 1,
  locks: 1,
  loops: 1,
  moves: 1,
  smp: 1,
  spin: "never",
  steps: 1,
  svm: 1,
  system: 1,
  ticks: 1,
  tour: 1,
  triple: "reset",
  wildjump: "reset",
};

/** Guests that compare clocks with each other, which an emulator of wall-clock time does not keep in step. */
const TIMED: ReadonlySet<string> = new Set(["ticks"]);

function expectedConsole(name: string): Promise<string> {
  return Deno.readTextFile(new URL(`${name}/${name}.expected`, GUESTS));
}

Deno.test("manifest and images agree", async () => {
  const manifest = await readManifest();
  assertEquals(Object.keys(manifest.guests), guestNames());
  for (const [name, entry] of Object.entries(manifest.guests)) {
    const bytes = await Deno.readFile(imagePath(name));
    assertEquals({ bytes: bytes.length, sha256: await sha256Hex(bytes) }, entry, name);
  }
});

Deno.test("patches/images.ts holds the images that patches run", async () => {
  assert(await patchImagesCurrent());
});

Deno.test("every image is a multiboot ELF, small, with its header first", async () => {
  for (const name of guestNames()) {
    const bytes = await Deno.readFile(imagePath(name));
    const info = inspectImage(name, bytes);
    assertEquals(info.segments[0]?.address, 0x100000, name);
    assert(info.headerOffset < 256, `${name}: header at ${info.headerOffset}`);
    assert(bytes.length <= 48 * 1024, `${name}: ${bytes.length} bytes`);
  }
});

Deno.test("inspectImage() refuses what a loader could not load", async () => {
  const good = await Deno.readFile(imagePath("hang"));
  const { headerOffset } = inspectImage("hang", good);
  const programHeaders = new DataView(good.buffer).getUint32(28, true);
  const cases: [string, (view: DataView) => void][] = [
    ["no ELF magic", (v) => v.setUint8(0, 0)],
    ["not a little-endian ELF32", (v) => v.setUint8(4, 2)],
    ["not an executable", (v) => v.setUint16(16, 1, true)],
    ["not for the i386", (v) => v.setUint16(18, 62, true)],
    ["entry 10h outside every segment", (v) => v.setUint32(24, 0x10, true)],
    ["program headers past the file's end", (v) => v.setUint32(28, v.byteLength, true)],
    ["odd program header size", (v) => v.setUint16(42, 56, true)],
    ["nothing to load", (v) => v.setUint16(44, 0, true)],
    ["segment 0 at ff000h below 100000h", (v) => v.setUint32(programHeaders + 12, 0xff000, true)],
    ["segment 0 past the file's end", (v) => v.setUint32(programHeaders + 16, 1 << 20, true)],
    ["segment 0 larger in the file", (v) => v.setUint32(programHeaders + 20, 16, true)],
    ["wrong checksum", (v) => v.setUint32(headerOffset + 8, 0, true)],
    ["no multiboot header", (v) => v.setUint32(headerOffset, 0, true)],
  ];
  for (const [message, spoil] of cases) {
    const bytes = good.slice();
    spoil(new DataView(bytes.buffer));
    assertThrows(() => inspectImage("hang", bytes), GuestImageError, message);
  }
  assertThrows(() => inspectImage("hang", good.slice(0, 20)), GuestImageError, "20 bytes");
});

Deno.test("the sources build, to the committed bytes where the toolchain is the same", async () => {
  const here = await findToolchain();
  if (here === undefined) {
    console.log("notice: no gcc, ld and objcopy here; the guests were not built");
    return;
  }
  const images = await buildGuests(guestNames());
  assertEquals([...images.keys()], guestNames());
  const { toolchain } = await readManifest();
  if (sameToolchain(here, toolchain)) {
    assertEquals(await compareImages(images), []);
  } else {
    console.log(`notice: ${here.gcc} and ${here.ld} are not the manifest's; bytes not compared`);
  }
});

Deno.test("compareImages() names what differs and where", async () => {
  const bytes = await Deno.readFile(imagePath("hang"));
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  assertEquals(await compareImages(new Map([["hang", bytes]])), [
    `hang: built ${bytes.length} bytes, committed ${bytes.length}, first difference at 100`,
  ]);
});

Deno.test("buildGuests() refuses a name that is no guest", async () => {
  await assertRejects(() => buildGuests(["lib"]), GuestBuildError, 'no guest "lib"; there are');
});

Deno.test("normalizeConsole() drops the machine's own lines and no others", () => {
  assertEquals(
    normalizeConsole("tour: begin\ncpu: vendor\nmemory: 1\nok   cpu: kept\ntour: end\n"),
    "tour: begin\nok   cpu: kept\ntour: end\n",
  );
});

Deno.test("every guest has expected output, and none of it depends on the machine", async () => {
  assertEquals(Object.keys(ENDINGS), guestNames());
  for (const name of guestNames()) {
    const text = await expectedConsole(name);
    assert(text !== "" && !text.includes("FAIL"), name);
    assertEquals(normalizeConsole(text), text, name);
  }
});

/** Runs an image under QEMU's own translator until it ends or has printed as much as expected. */
async function runQemu(name: string, length: number): Promise<[string, number | "never"]> {
  const command = new Deno.Command("qemu-system-x86_64", {
    args: [
      ...["-accel", "tcg", "-kernel", imagePath(name).pathname, "-serial", "stdio"],
      ...["-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot"],
      ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  });
  const child = command.spawn();
  let text = "";
  let killed = false;
  const stop = (): void => {
    killed = true;
    child.kill();
  };
  const timer = setTimeout(stop, 60_000);
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (ENDINGS[name] === "never" && text.length >= length) stop();
  }
  const { code } = await child.status;
  clearTimeout(timer);
  return [normalizeConsole(text), killed ? "never" : code];
}

Deno.test("QEMU, where there is one, prints what is expected and ends as it should", async () => {
  try {
    await new Deno.Command("qemu-system-x86_64", { args: ["--version"] }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("notice: no qemu-system-x86_64 here; the guests were not run");
    return;
  }
  for (const name of guestNames().filter((name) => !TIMED.has(name))) {
    const expected = await expectedConsole(name);
    const ending = ENDINGS[name] === "reset" ? 0 : ENDINGS[name];
    assertEquals(await runQemu(name, expected.length), [expected, ending], name);
  }
});
