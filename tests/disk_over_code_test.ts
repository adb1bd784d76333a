/**
 * A guest that has a disk read sectors over the code that it is running: the next instruction is the new one,
 * interpreted or compiled, on the bare processor and under both hypervisors.
 */

import { assert, assertEquals } from "@std/assert";
import { createVmSync, type Plugin, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel, processorsSlot, type Tier } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { pci } from "../plugins/pci/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { memoryDisk, SECTOR, virtioBlk } from "../plugins/virtio/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const HOSTS: readonly (readonly [name: string, vendor: () => Plugin, model: CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["vmx", vmx, "sapphire-rapids"],
];

const CODE = 0x8000;
const HEADER = 0x2000;
const STATUS = 0x2100;
const DESCRIPTORS = 0x1_0000;
const AVAILABLE = 0x1_1000;
const USED = 0x1_2000;
const SLOT = 4;
/** Sectors that are read, and rounds of the loop with each: enough for it to be compiled. */
const READS = 16;
const ROUNDS = 60_000;

const dword = (value: number): number[] => [0, 8, 16, 24].map((shift) => value >>> shift & 0xff);

/** What sector `k` adds in each round, and once behind the read that brings it. */
const inRound = (k: number): number => 0x101 * k + 3;
const behind = (k: number): number => 0x0100_0193 * (k + 1) >>> 0;

/** The code, as sector `k` has it. EBX is 0, ECX the reads, EDX the rounds. */
function sector(k: number, notify: number): number[] {
  const loop = [
    ...[0x05, ...dword(inRound(k))], // add eax, …
    0x4a, // dec edx
    ...[0x75, 0xf8], // jnz to the add
    ...[0xba, ...dword(ROUNDS)], // mov edx, …
    ...[0x66, 0xff, 0x05, ...dword(AVAILABLE + 2)], // inc word: one more is available
    ...[0xff, 0x05, ...dword(HEADER + 8)], // inc dword: the next sector
    ...[0x66, 0x89, 0x1d, ...dword(notify)], // mov [notify], bx
    ...[0x05, ...dword(behind(k))], // add eax, …
    0x49, // dec ecx
  ];
  const code = [...loop, 0x75, 256 - (loop.length + 2), 0xe6, 0xf4]; // jnz to the start; out
  return [...code, ...new Array<number>(SECTOR - code.length).fill(0xcc)];
}

/** Makes the device ready with one queue, and a chain that reads a sector to {@linkcode CODE}. */
function prepare(vm: Vm): { readonly notify: number } {
  const { memory, pio, mmio } = vm;
  const config = (offset: number, size: number): number => {
    pio.write(0xcf8, 4, 0x8000_0000 + SLOT * 0x800 + (offset & ~3));
    return pio.read(0xcfc + (offset & 3), size);
  };
  const bar = (config(0x10, 4) & ~15) >>> 0;
  const places = new Map<number, number>();
  for (let at = config(0x34, 1); at !== 0; at = config(at + 1, 1)) {
    if (config(at, 1) === 9) places.set(config(at + 3, 1), bar + config(at + 8, 4));
  }
  const common = places.get(1)!;
  const set = (offset: number, size: number, value: number): void =>
    mmio.write(common + offset, size, value, 0);
  for (const status of [0, 1, 3]) set(0x14, 1, status);
  for (const [half, wanted] of [[0, 0], [1, 1]] as const) {
    // Of the features only VIRTIO_F_VERSION_1, bit 32.
    set(8, 4, half);
    set(0xc, 4, wanted);
  }
  set(0x14, 1, 0x0b);
  set(0x16, 2, 0);
  set(0x18, 2, 8);
  for (const [k, part] of [DESCRIPTORS, AVAILABLE, USED].entries()) {
    set(0x20 + 8 * k, 4, part);
    set(0x24 + 8 * k, 4, 0);
  }
  set(0x1c, 2, 1);
  set(0x14, 1, 0x0f);
  const NEXT = 1, WRITE = 2, NO_INTERRUPT = 1;
  const chain = [[HEADER, 16, NEXT], [CODE, SECTOR, NEXT | WRITE], [STATUS, 1, WRITE]] as const;
  for (const [k, [address, length, flags]] of chain.entries()) {
    memory.writeU64(DESCRIPTORS + 16 * k, BigInt(address));
    memory.writeU32(DESCRIPTORS + 16 * k + 8, length);
    memory.writeU16(DESCRIPTORS + 16 * k + 12, flags);
    memory.writeU16(DESCRIPTORS + 16 * k + 14, k + 1);
  }
  memory.writeU16(AVAILABLE, NO_INTERRUPT);
  return { notify: places.get(2)! };
}

function run(vendor: () => Plugin, model: CpuModel, tier: Tier) {
  const disk = new Uint8Array((READS + 1) * SECTOR);
  const end: Plugin = {
    name: "end",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: () => ctx.vm.stop({ reason: "exit-code", code: 1 }),
      }),
  };
  using vm = createVmSync({
    memory: 2 ** 21,
    plugins: [
      cpu({ model, tier }),
      ...[vendor(), pci(), virtioBlk(memoryDisk(disk), { slot: SLOT }), end],
    ],
    images: [
      flat(new Uint8Array(SECTOR), {
        address: CODE,
        entry: { mode: "protected32" },
        registers: { rax: 0n, rbx: 0n, rcx: BigInt(READS), rdx: BigInt(ROUNDS), rsp: 0x7000n },
      }),
    ],
  });
  const { notify } = prepare(vm);
  for (let k = 0; k <= READS; k++) disk.set(sector(k, notify), k * SECTOR);
  vm.memory.write(CODE, disk.subarray(0, SECTOR));
  const result = vm.runSync({ instructions: 10 * READS * ROUNDS });
  assertEquals(result.reason, "exit-code", JSON.stringify(result));
  const { blocks, regions } = vm.slots.ref(processorsSlot).current.statistics;
  return {
    sum: Number(vm.vcpus[0]!.regs.rax & 0xffff_ffffn),
    instructions: result.instructions,
    used: vm.memory.readU16(USED + 2),
    compiled: regions.compiled,
    invalidated: blocks.invalidated,
  };
}

for (const [name, vendor, model] of HOSTS) {
  Deno.test(`${name}: what a disk reads over the code that asks for it is what is run next`, () => {
    let sum = 0;
    for (let k = 0; k < READS; k++) sum += ROUNDS * inRound(k) + behind(k + 1);
    for (const tier of [1, 2, "auto"] as const) {
      const { compiled, invalidated, ...left } = run(vendor, model, tier);
      // The OUT at the end is one more.
      const instructions = READS * (3 * ROUNDS + 7) + 1;
      assertEquals(left, { sum: sum % 2 ** 32, instructions, used: READS }, `tier ${tier}`);
      assert(invalidated >= READS, `tier ${tier}: ${invalidated} blocks invalidated`);
      if (tier === 1) assertEquals(compiled, 0);
      else assert(compiled >= READS, `tier ${tier}: ${compiled} regions compiled`);
    }
  });
}
