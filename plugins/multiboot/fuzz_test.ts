import { assert, assertEquals } from "@std/assert";
import { type FlatMemory, scriptedVm } from "../../core/testing/mod.ts";
import { flat, ImageError } from "../flat/mod.ts";
import { elfFile, kernel, multibootHeader } from "./fixture_test.ts";
import { loadImage } from "./load.ts";
import { elf, multiboot } from "./multiboot.ts";

const MIB = 2 ** 20;
const SEED = 0x5eed;
const ROUNDS = 1500;

/** Whole numbers from 0 to below `limit`, always the same ones (mulberry32). */
function numbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}

const INTERESTING = [
  0,
  1,
  2,
  3,
  4,
  0x7f,
  0x80,
  0xff,
  0xfff,
  0x1000,
  0xffff,
  0x7fff_ffff,
  0xffff_ffff,
];

/** A file with one to four things changed in it, most of them where headers are. */
function mutate(file: Uint8Array, pick: (limit: number) => number): Uint8Array {
  let mutant = file.slice();
  for (let left = 1 + pick(4); left > 0 && mutant.length > 0; left--) {
    const at = pick(pick(4) === 0 ? mutant.length : Math.min(mutant.length, 256));
    const kind = pick(5);
    if (kind === 0) {
      mutant[at] = (mutant[at] as number) ^ 1 << pick(8);
    } else if (kind === 1) {
      mutant[at] = pick(256);
    } else if (kind === 2) {
      const value = INTERESTING[pick(INTERESTING.length)] as number;
      const size = [1, 2, 4, 8][pick(4)] as number;
      for (let i = 0; i < size && at + i < mutant.length; i++) {
        mutant[at + i] = i < 4 ? value >>> (8 * i) : 0;
      }
    } else if (kind === 3) {
      mutant = mutant.slice(0, at);
    } else {
      mutant.copyWithin(at, pick(mutant.length), pick(mutant.length));
    }
  }
  return mutant;
}

async function samples(): Promise<Map<string, Uint8Array>> {
  const addressed = new Uint8Array(256);
  addressed.set(multibootHeader(0x1_0003, [MIB + 16, MIB, MIB + 128, MIB + 4096, MIB + 64]), 16);
  const files = new Map([
    ["address fields", addressed],
    ["64 bits", elfFile({ bits: 64, segments: [{ physical: MIB, bytes: kernel(), size: 4096 }] })],
    ["plain", elfFile({ bits: 64, segments: [{ physical: MIB, bytes: new Uint8Array(64) }] })],
  ]);
  for (const guest of ["tour", "hang", "loops"]) {
    const path = new URL(`../../examples/guests/${guest}/${guest}.elf`, import.meta.url);
    files.set(guest, await Deno.readFile(path));
  }
  return files;
}

Deno.test("whatever is done to an image, it is loaded whole or refused by a typed error", async () => {
  using machine = scriptedVm({ memory: 4 * MIB });
  const { vm } = machine;
  const { changes } = vm.hostMemory.current as FlatMemory;
  const loaders = { loadImage, multiboot, elf, flat };
  const count = { refused: 0, loaded: 0 };
  for (const [name, file] of await samples()) {
    const pick = numbers(SEED);
    for (let round = 0; round < ROUNDS; round++) {
      const mutant = mutate(file, pick);
      for (const [loader, load] of Object.entries(loaders)) {
        changes.length = 0;
        try {
          load(mutant, { name }).load(vm);
          count.loaded++;
        } catch (error) {
          const where = `${loader}, ${name}, seed ${SEED}, round ${round}: ${error}`;
          assert(error instanceof ImageError, where);
          assertEquals([error.image, changes.length], [name, 0], where);
          count.refused++;
        }
      }
    }
  }
  // Neither side of it is empty talk.
  assert(count.refused > 1000 && count.loaded > 1000, JSON.stringify(count));
});

Deno.test("a real image that ends anywhere is loaded whole or refused by a typed error", async () => {
  using machine = scriptedVm({ memory: 4 * MIB });
  const { vm } = machine;
  const { changes } = vm.hostMemory.current as FlatMemory;
  const file = (await samples()).get("tour") as Uint8Array;
  const view = new DataView(file.buffer);
  // The last segment that has something in the file: what follows it may be missing.
  const ends = Array.from({ length: view.getUint16(44, true) }, (_, i) => {
    const header = 52 + 32 * i;
    return view.getUint32(header + 4, true) + view.getUint32(header + 16, true);
  });
  const needed = Math.max(...ends);
  for (let size = 0; size < file.length; size += size < 1024 || size > needed - 64 ? 1 : 97) {
    changes.length = 0;
    let error: unknown;
    try {
      multiboot(file.subarray(0, size), { name: "tour" }).load(vm);
    } catch (thrown) {
      error = thrown;
    }
    assertEquals([error instanceof ImageError, changes.length === 0], [
      size < needed,
      size < needed,
    ], `${size} bytes: ${error}`);
  }
});
