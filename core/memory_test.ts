import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import {
  ArgumentError,
  createVmSync,
  MemoryError,
  type MemoryRange,
  memslotHook,
  OverlapError,
  pcMemoryLayout,
  type Plugin,
  type PluginContext,
  PluginError,
} from "./mod.ts";
import { withoutHoles } from "./memory_layout.ts";
import {
  FlatMemory,
  flatMemory,
  ScriptedVendor,
  scriptedVendor,
  scriptedVm,
} from "./testing/mod.ts";

function plugin(name: string, setup: (ctx: PluginContext) => void): Plugin {
  return { name, version: "1.0.0", setup };
}

const MiB = 2 ** 20;
const GiB = 2 ** 30;

Deno.test("RAM lies below 3 GiB and from 4 GiB on", () => {
  assertEquals(pcMemoryLayout(64 * MiB), [{ gpa: 0, size: 64 * MiB }]);
  assertEquals(pcMemoryLayout(3 * GiB), [{ gpa: 0, size: 3 * GiB }]);
  assertEquals(pcMemoryLayout(5 * GiB), [
    { gpa: 0, size: 3 * GiB },
    { gpa: 4 * GiB, size: 2 * GiB },
  ]);
  for (const bytes of [0, -4096, 4095, 1.5, NaN]) {
    assertThrows(() => pcMemoryLayout(bytes), ArgumentError);
  }
});

Deno.test("holes take whole pages out", () => {
  const cut = (...holes: [number, number][]): MemoryRange[] =>
    withoutHoles([{ gpa: 0, size: 0x10000 }], holes.map(([gpa, size]) => ({ gpa, size })));
  assertEquals(cut(), [{ gpa: 0, size: 0x10000 }]);
  assertEquals(cut([0x3800, 0x10]), [{ gpa: 0, size: 0x3000 }, { gpa: 0x4000, size: 0xc000 }]);
  assertEquals(cut([0x3fff, 2]), [{ gpa: 0, size: 0x3000 }, { gpa: 0x5000, size: 0xb000 }]);
  assertEquals(cut([0, 0x1000], [0xf000, 0x9000]), [{ gpa: 0x1000, size: 0xe000 }]);
  assertEquals(cut([0, 0x20000]), []);
  assertEquals(cut([0x10000, 0x1000]), [{ gpa: 0, size: 0x10000 }]);
});

Deno.test("a device's window and a plugin's memory hide the RAM beneath", () => {
  using m = scriptedVm({
    plugins: [plugin("board", (ctx) => {
      ctx.registerMmio({ name: "vga", base: 0xa0000, length: 0x20000, read: () => 0x77 });
      ctx.addMemslot({ name: "bios", gpa: 0xf0000, size: 0x10000, hpa: 0, readonly: true });
    })],
    memory: 2 * MiB,
  });
  assertEquals(m.vm.memory.slots.map(({ name, gpa, size }) => [name, gpa, size]), [
    ["ram", 0, 0xa0000],
    ["ram", 0xc0000, 0x30000],
    ["bios", 0xf0000, 0x10000],
    ["ram", 0x100000, 0x100000],
  ]);
  for (const { gpa, hpa, name } of m.vm.memory.slots) {
    if (name === "ram") assertEquals(hpa % (2 * MiB), gpa % (2 * MiB));
  }
});

Deno.test("multi-byte values are little-endian and may cross memslots", () => {
  using m = scriptedVm({
    memory: [{ gpa: 0x2000, size: 0x1000 }, { gpa: 0x3000, size: 0x1000 }],
  });
  const { memory } = m.vm;
  assertEquals(memory.slots.length, 2);
  memory.writeU64(0x2ffd, 0x8877_6655_4433_2211n);
  assertEquals(memory.readU64(0x2ffd), 0x8877_6655_4433_2211n);
  assertEquals([memory.readU8(0x2fff), memory.readU8(0x3000)], [0x33, 0x44]);
  assertEquals(memory.readU32(0x2ffe), 0x5544_3322);
  assertEquals(memory.readU16(0x2fff), 0x4433);
  memory.writeU32(0x2ffe, 0xdead_beef);
  memory.writeU16(0x2fff, 0x1234);
  memory.writeU8(0x3001, 0x99);
  const bytes = new Uint8Array(6);
  memory.read(0x2ffd, bytes);
  assertEquals([...bytes], [0x11, 0xef, 0x34, 0x12, 0x99, 0x66]);
  memory.fill(0x2ff0, 0x20, 0xcc);
  assertEquals([memory.readU32(0x2ff0), memory.readU32(0x300c)], [0xcccc_cccc, 0xcccc_cccc]);
  assertEquals([memory.readU8(0x2fef), memory.readU8(0x3010)], [0, 0]);
  assertEquals(memory.readU32(0x3000), 0xcccc_cccc);
  assertEquals(memory.readU16(0x3000), 0xcccc);
});

Deno.test("addresses translate to host memory, and writes are reported to it", () => {
  using m = scriptedVm({ memory: [{ gpa: 0x5000, size: 0x1000 }] });
  const { memory } = m.vm;
  const [slot] = memory.slots;
  assertEquals(memory.translate(0x5123), (slot?.hpa ?? NaN) + 0x123);
  assertEquals([memory.translate(0x4fff), memory.translate(0x6000)], [undefined, undefined]);
  assertEquals(memory.lookup(0x5fff), slot);
  assertEquals(memory.firstIn(0, 0x5001), slot);
  const host = m.vm.hostMemory.current;
  assertInstanceOf(host, FlatMemory);
  host.changes.length = 0;
  const [at, written] = [slot?.hpa ?? NaN, host.changes];
  memory.writeU8(0x5001, 1);
  memory.writeU16(0x5002, 2);
  memory.writeU32(0x5004, 3);
  memory.writeU64(0x5008, 4n);
  assertEquals(written.splice(0), [[at + 1, 1], [at + 2, 2], [at + 4, 4], [at + 8, 8]]);
  memory.write(0x5010, new Uint8Array([1, 2, 3]));
  assertEquals(host.changes, [[(slot?.hpa ?? NaN) + 0x10, 3]]);
  assertEquals(host.readU16((slot?.hpa ?? NaN) + 0x10), 0x201);
});

Deno.test("accesses outside memory, and writes to ROM, are errors that name the address", () => {
  using m = scriptedVm({
    memory: [{ gpa: 0x1000, size: 0x1000 }],
    plugins: [plugin("rom", (ctx) => {
      ctx.addMemslot({ name: "bios", gpa: 0x2000, size: 0x1000, hpa: 0, readonly: true });
    })],
  });
  const { memory } = m.vm;
  const cases: [() => unknown, number, string][] = [
    [() => memory.readU8(0xfff), 0xfff, "no guest memory at gpa fffh"],
    [() => memory.readU32(0x2ffe), 0x3000, "no guest memory at gpa 3000h"],
    [() => memory.writeU32(0x1ffe, 0), 0x2000, 'guest memory at gpa 2000h is read-only ("bios")'],
    [() => memory.fill(0x2000, 1, 0), 0x2000, 'guest memory at gpa 2000h is read-only ("bios")'],
    [() => memory.write(0, new Uint8Array(1)), 0, "no guest memory at gpa 0h"],
  ];
  for (const [access, address, message] of cases) {
    const error = assertThrows(access, MemoryError);
    assertEquals([error.address, error.message], [address, message]);
  }
  assertEquals(memory.readU32(0x1ffe), 0);
});

Deno.test("memslots must fit pages, and must not overlap memslots or devices", () => {
  using m = scriptedVm({
    plugins: [plugin("device", (ctx) => {
      ctx.registerMmio({ name: "registers", base: 0xfee0_0010, length: 16 });
    })],
  });
  let context: PluginContext | undefined;
  m.vm.load(plugin("late", (ctx) => void (context = ctx)));
  const add = (gpa: number, size: number, hpa: number) => () =>
    context?.addMemslot({ name: "late", gpa, size, hpa });
  for (const [gpa, size, hpa] of [[1, 4096, 0], [4096, 1, 0], [4096, 4096, 1], [-4096, 4096, 0]]) {
    assertThrows(add(gpa ?? 0, size ?? 0, hpa ?? 0), ArgumentError);
  }
  assertThrows(
    add(0x1000, 0x1000, 0),
    OverlapError,
    'memslot: "late" of plugin "late" (1000h to 1fffh) overlaps "ram" of plugin "core" (0h to fffffh)',
  );
  assertThrows(
    add(0xfee0_0000, 0x1000, 0),
    OverlapError,
    'memslot: "late" of plugin "late" (fee00000h to fee00fffh) overlaps "registers" of plugin "device"',
  );
  assertThrows(
    () => context?.registerMmio({ name: "x", base: 0xffffe, length: 4 }),
    OverlapError,
    'MMIO: "x" of plugin "late" (ffffeh to 100001h) overlaps "ram" of plugin "core"',
  );
});

Deno.test("memslots that come and go are announced", () => {
  const log: string[] = [];
  using m = scriptedVm({
    plugins: [plugin("watcher", (ctx) => {
      ctx.on(memslotHook, (slot, added) => {
        log.push(`${added ? "+" : "-"}${slot.name} ${ctx.vm.memory.lookup(slot.gpa)?.name}`);
      });
    })],
  });
  m.vm.load(plugin("rom", (ctx) => {
    ctx.addMemslot({ name: "rom", gpa: 0xffff_f000, size: 0x1000, hpa: 0 });
  }));
  m.vm.unload("rom");
  assertEquals(log, ["+ram ram", "+rom rom", "-rom undefined"]);
});

Deno.test("RAM is given back when the VM is closed, and refused when there is too little", () => {
  const memory = new FlatMemory(4 * MiB);
  const provider: Plugin = {
    ...flatMemory(),
    setup: (ctx) => {
      const [slot] = flatMemory().provides ?? [];
      if (slot !== undefined) ctx.provide(slot, memory);
    },
  };
  const make = (bytes: number) =>
    createVmSync({ memory: bytes, plugins: [provider, scriptedVendor(new ScriptedVendor())] });
  const vm = make(2 * MiB);
  assertEquals(memory.used, 2 * MiB);
  vm.close();
  assertEquals(memory.used, 0);
  assertThrows(() => make(8 * MiB), MemoryError);
  assertEquals(memory.used, 0);
  assertThrows(
    () => createVmSync({ memory: MiB, plugins: [provider, provider] }),
    Error,
    'two plugins are named "flat-memory"',
  );
  assertThrows(
    () => {
      const bad = plugin("bad", () => {
        throw new Error("no");
      });
      createVmSync({ memory: MiB, plugins: [provider, scriptedVendor(new ScriptedVendor()), bad] });
    },
    PluginError,
  );
});
