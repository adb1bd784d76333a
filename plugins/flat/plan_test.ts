import { assertEquals, assertThrows } from "@std/assert";
import type { MemoryRange, Plugin, Vm } from "../../core/mod.ts";
import { type FlatMemory, scriptedVm } from "../../core/testing/mod.ts";
import { ImageError } from "./error.ts";
import { LoadPlan, type Piece } from "./plan.ts";

const KIB = 1024;

const piece = (gpa: number, size: number, what = "piece", offset?: number): Piece => ({
  what,
  offset,
  gpa,
  bytes: new Uint8Array(size).fill(0xaa),
  size,
});

/** Memory with a ROM at 8000h and a device at 20000h. */
const furniture: Plugin = {
  name: "furniture",
  version: "1.0.0",
  setup(ctx) {
    const hpa = ctx.vm.hostMemory.current.alloc(4096);
    ctx.addMemslot({ name: "rom", gpa: 0x8000, size: 4096, hpa, readonly: true });
    ctx.registerMmio({ name: "gadget", base: 0x2_0000, length: 16 });
  },
};

function vmWith(memory: number | readonly MemoryRange[], plugins: Plugin[] = []) {
  return scriptedVm({ memory, plugins: [...plugins, { ...furniture, requires: ["flat-memory"] }] });
}

/** How often memory was written. */
const writes = (vm: Vm): number => (vm.hostMemory.current as FlatMemory).changes.length;

Deno.test("RAM is what can be written, adjoining pieces as one", () => {
  using plain = scriptedVm({ memory: [{ gpa: 0, size: 8192 }, { gpa: 8192, size: 4096 }] });
  assertEquals(LoadPlan.ram(plain.vm), [{ gpa: 0, size: 12288 }]);
  using furnished = vmWith(256 * KIB);
  assertEquals(LoadPlan.ram(furnished.vm), [
    { gpa: 0, size: 0x8000 },
    { gpa: 0x9000, size: 0x1_7000 },
    { gpa: 0x2_1000, size: 0x1_f000 },
  ]);
});

Deno.test("pieces are written when all of them are placed, and what they lack is zeroed", () => {
  using machine = scriptedVm({ memory: 64 * KIB });
  const { vm } = machine;
  vm.memory.fill(0, 64 * KIB, 0xff);
  const before = writes(vm);
  const plan = new LoadPlan(vm, "x");
  plan.place({ what: "a", gpa: 0x3000, bytes: new Uint8Array([1, 2]), size: 5 });
  plan.place({ what: "b", gpa: 0x2fff, bytes: new Uint8Array([9]), size: 1 });
  plan.place({ what: "c", gpa: 0x3005, bytes: new Uint8Array(0), size: 2 });
  plan.place({ what: "nothing", gpa: 0x3001, bytes: new Uint8Array(0), size: 0 });
  assertEquals(writes(vm), before);
  plan.write();
  const seen = new Uint8Array(10);
  vm.memory.read(0x2ffe, seen);
  assertEquals([...seen], [0xff, 9, 1, 2, 0, 0, 0, 0, 0, 0xff]);
});

Deno.test("what overlaps is refused, naming both", () => {
  using machine = scriptedVm({ memory: 64 * KIB });
  const cases: [gpa: number, size: number, clash: boolean][] = [
    [0x1fff, 1, false],
    [0x1fff, 2, true],
    [0x2000, 1, true],
    [0x20ff, 1, true],
    [0x2100, 1, false],
    [0x1000, 0x8000, true],
    [0x2fff, 2, true],
    [0x2100, 0xf00, false],
  ];
  for (const [gpa, size, clash] of cases) {
    const plan = new LoadPlan(machine.vm, "x.elf");
    plan.place(piece(0x3000, 0x100, "above"));
    plan.place(piece(0x2000, 0x100, "below"));
    const attempt = () => plan.place(piece(gpa, size, "segment 7", 0x74));
    if (!clash) attempt();
    else {
      const error = assertThrows(attempt, ImageError, "overlaps");
      assertEquals([error.field, error.offset], ["segment 7", 0x74]);
    }
  }
  const plan = new LoadPlan(machine.vm, "x.elf");
  plan.place(piece(0x2000, 0x100, "below"));
  assertThrows(
    () => plan.place(piece(0x20f0, 0x20, "segment 7", 0x74)),
    ImageError,
    'image "x.elf": segment 7 (at 74h in the file): 20F0h to 210Fh overlaps below, at 2000h to 20FFh',
  );
});

Deno.test("what lies where no memory is is refused, saying what is there", () => {
  using machine = vmWith(256 * KIB);
  const plan = new LoadPlan(machine.vm, "x");
  const cases: [gpa: number, size: number, message: string][] = [
    [0x3_fff0, 0x11, "it needs 3FFF0h to 40000h, and there is none at 40000h; memory is at 0h to"],
    [0x10_0000, 1, "there is none at 100000h"],
    [2 ** 40, 1, "there is none at 10000000000h"],
    [0x7fff, 2, 'memory "rom" at 8000h is read-only'],
    [0x1_ffff, 2, 'device "gadget" is at 20000h'],
    [0x2_0800, 4, "there is none at 20800h"],
  ];
  for (const [gpa, size, message] of cases) {
    assertThrows(() => plan.place(piece(gpa, size)), ImageError, message);
  }
  plan.place(piece(0x3_fff0, 0x10));
});

Deno.test("pieces without an address go from 64 KiB on, between the others", () => {
  using machine = scriptedVm({ memory: 2048 * KIB });
  const plan = new LoadPlan(machine.vm, "x");
  plan.place(piece(0x1_1000, 0x1000));
  const place = (size: number, align: number, from?: number) =>
    plan.placeFree("table", new Uint8Array(size), align, from);
  assertEquals(place(0x1001, 8), 0x1_2000, "the page before the piece is too small");
  assertEquals(place(0x1000, 4096), 0x1_0000);
  assertEquals(place(8, 8), 0x1_4000, "a page is not shared with something else");
  assertEquals(place(0x8_c000, 4096), 0x10_0000, "neither video memory nor firmware is covered");
  assertEquals(place(1, 0x1_0000), 0x2_0000);
  assertEquals(place(1, 4096, 0x10_0001), 0x18_c000);
});

Deno.test("where there is no room from 64 KiB on, what is below is taken, but not the first page", () => {
  using machine = scriptedVm({ memory: 64 * KIB });
  const plan = new LoadPlan(machine.vm, "x");
  assertEquals(plan.placeFree("table", new Uint8Array(0xf000), 4096), 0x1000);
  const error = assertThrows(
    () => plan.placeFree("the tables", new Uint8Array(1), 1),
    ImageError,
    "no room for 1 bytes in the memory below 4 GiB; memory is at 0h to FFFFh",
  );
  assertEquals([error.field, error.offset], ["the tables", undefined]);
  assertThrows(
    () => plan.placeFree("module 0", new Uint8Array(9), 1, 0x1_0000),
    ImageError,
    "no room for 9 bytes in the memory below 4 GiB from 10000h on",
  );
});

Deno.test("memory from 4 GiB on is not for pieces without an address", () => {
  using machine = scriptedVm({ memory: [{ gpa: 2 ** 32, size: 1024 * KIB }] });
  const plan = new LoadPlan(machine.vm, "x");
  plan.place(piece(2 ** 32, 16));
  assertThrows(() => plan.placeFree("table", new Uint8Array(1), 1), ImageError, "no room");
});
