import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, rawImage } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { ImageError, type ImageLoader, type ImageOptions } from "../flat/mod.ts";
import { elfFile, kernel, multibootHeader } from "./fixture_test.ts";
import { LOADERS, loadImage, type LoadImageOptions } from "./load.ts";

const MIB = 2 ** 20;

/** Where the first vCPU is after a file was loaded: CR0, CS, RIP. */
function entered(file: Uint8Array, options: LoadImageOptions = {}): [string, number, bigint] {
  using machine = scriptedVm({ memory: 4 * MIB, images: [loadImage(file, options)] });
  const { vcpu, vendor } = machine;
  const { cr0, cs, efer } = vendor.getSystemState(vcpu);
  const mode = (cr0 & 1n) === 0n ? "real" : efer === 0n ? "protected" : "long";
  return [mode, cs.selector, vcpu.regs.rip];
}

const segment = (bytes: Uint8Array) => ({ segments: [{ physical: MIB, bytes }] });

function bootSector(): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

Deno.test("a file is what its magic says", () => {
  const addressed = new Uint8Array(64);
  addressed.set(multibootHeader(0x1_0000, [MIB, MIB, 0, 0, MIB + 32]));
  const cases: [name: string, file: Uint8Array, ...ReturnType<typeof entered>][] = [
    ["multiboot, 32 bits", elfFile(), "protected", 8, 0x10_000cn],
    ["multiboot, 64 bits", elfFile({ bits: 64 }), "protected", 8, 0x10_000cn],
    ["multiboot with address fields", addressed, "protected", 8, 0x10_0020n],
    ["ELF, 32 bits", elfFile(segment(new Uint8Array(32))), "protected", 8, 0x10_000cn],
    ["ELF, 64 bits", elfFile({ bits: 64, ...segment(new Uint8Array(32)) }), "long", 8, 0x10_000cn],
    ["boot sector", bootSector(), "real", 0, 0x7c00n],
  ];
  for (const [name, file, ...expected] of cases) assertEquals(entered(file), expected, name);
});

Deno.test("an ELF file with a broken multiboot header is not taken for a plain one", () => {
  const broken = kernel();
  broken[8] = 0;
  assertThrows(() => loadImage(elfFile(segment(broken))), ImageError, "multiboot checksum");
  // In a boot sector the magic is more likely an operand of a boot loader's code.
  const sector = bootSector();
  sector.set(multibootHeader(0).subarray(0, 4), 64);
  assertEquals(entered(sector), ["real", 0, 0x7c00n]);
});

Deno.test("what is of no known format is refused, naming those that are known", () => {
  for (const file of [new Uint8Array(0), new Uint8Array(100), bootSector().subarray(1)]) {
    const error = assertThrows(() => loadImage(file, { name: "notes.txt" }), ImageError);
    assertEquals(
      error.message,
      `image "notes.txt": the file: its ${file.length} bytes are of none of the formats known: ` +
        "bzImage, multiboot, multiboot 2, PVH, ELF, boot sector",
    );
  }
});

Deno.test("options reach the format, or are refused by it", () => {
  using machine = scriptedVm({
    memory: 4 * MIB,
    images: [
      loadImage(elfFile(), { name: "k", commandLine: "arg", modules: [{ bytes: kernel() }] }),
    ],
  });
  const info = Number(machine.vcpu.regs.rbx);
  const line = new Uint8Array(6);
  machine.vm.memory.read(machine.vm.memory.readU32(info + 16), line);
  assertEquals(new TextDecoder().decode(line), "k arg\0");
  assertEquals(machine.vm.memory.readU32(info + 20), 1);
  assertThrows(() => loadImage(bootSector(), { commandLine: "x" }), ArgumentError, "boot sector");
});

Deno.test("further formats can be given", () => {
  const seen: ImageOptions[] = [];
  const own: ImageLoader = {
    name: "own",
    recognizes: (bytes) => bytes[0] === 0x23,
    load(bytes, options) {
      seen.push(options);
      return rawImage("own", 0, bytes);
    },
  };
  const options = { name: "x", loaders: [own, ...LOADERS] };
  assertEquals(loadImage(new Uint8Array([0x23]), options).name, "own");
  assertEquals(seen, [{ name: "x" }]);
  assertEquals(loadImage(elfFile(), options).name, "x");
  assertThrows(
    () => loadImage(elfFile(), { loaders: [own] }),
    ImageError,
    'image "image": the file: its 160 bytes are of none of the formats known: own',
  );
});
