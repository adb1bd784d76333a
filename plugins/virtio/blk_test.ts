import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { type DiskImage, memoryDisk, virtioBlk, type VirtioBlkOptions } from "./mod.ts";
import { drive, type Driver } from "./fixture_test.ts";

const REQUEST = 0x2000;
const STATUS = 0x2100;
const DATA = 0x3000;

function disk(sectors = 16): Uint8Array {
  return Uint8Array.from({ length: sectors * 512 }, (_, i) => i >> 9 ^ i & 0xff);
}

function start(bytes: Uint8Array | DiskImage, options: VirtioBlkOptions = {}) {
  const driver = drive(
    virtioBlk(bytes instanceof Uint8Array ? memoryDisk(bytes) : bytes, options),
    4,
  );
  return Object.assign(driver, { features: driver.start() });
}

/** Does a request; returns its status and how many bytes the device has written. */
function request(
  d: Driver,
  type: number,
  sector: number,
  pieces: readonly number[],
  write: boolean,
) {
  const { memory } = d.vm;
  memory.writeU32(REQUEST, type);
  memory.writeU32(REQUEST + 4, 0);
  memory.writeU64(REQUEST + 8, BigInt(sector));
  memory.writeU8(STATUS, 0xff);
  let at = DATA;
  const data = pieces.map((length) => ({ gpa: (at += length) - length, length, write }));
  const { id, length } = d.send(0, [
    { gpa: REQUEST, length: 16 },
    ...data,
    { gpa: STATUS, length: 1, write: true },
  ]);
  assertEquals(id, 0);
  return [memory.readU8(STATUS), length];
}

function read(d: Driver, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  d.vm.memory.read(DATA, bytes);
  return bytes;
}

Deno.test("the device is found: identity, capabilities, capacity", () => {
  using d = start(disk());
  assertEquals([d.config(0, 4), d.config(0x0a, 2), d.config(8, 1)], [0x1042_1af4, 0x0180, 1]);
  assertEquals([...d.places.keys()].sort(), [1, 2, 3, 4]);
  assertEquals([d.deviceConfig(0, 4), d.deviceConfig(4, 4), d.deviceConfig(20, 4)], [16, 0, 512]);
  assertEquals(d.features & 0x270, 0x250);
  assertEquals([d.deviceConfig(16, 2), d.deviceConfig(18, 1), d.deviceConfig(19, 1)], [2, 16, 63]);
  const size = 16 * 63 * 512 * 20_000;
  using large = start({ size, read: () => {} });
  assertEquals(large.deviceConfig(16, 2), 16_383);
});

Deno.test("sectors are read, in one piece or in several", () => {
  const bytes = disk();
  using d = start(bytes);
  assertEquals(request(d, 0, 3, [1024], true), [0, 1025]);
  assertEquals(read(d, 1024), bytes.slice(3 * 512, 5 * 512));
  assertEquals(request(d, 0, 5, [100, 412, 512], true), [0, 1025]);
  assertEquals(read(d, 1024), bytes.slice(5 * 512, 7 * 512));
});

Deno.test("sectors are written, and flushed", () => {
  const bytes = disk();
  let flushes = 0;
  using d = start({ ...memoryDisk(bytes), flush: () => void flushes++ });
  const data = Uint8Array.from({ length: 512 }, (_, i) => 255 - (i & 0xff));
  d.vm.memory.write(DATA, data);
  assertEquals(request(d, 1, 7, [512], false), [0, 1]);
  assertEquals([bytes.slice(7 * 512, 8 * 512), bytes[8 * 512]], [data, 8]);
  assertEquals([request(d, 4, 0, [], false), flushes], [[0, 1], 1]);
});

Deno.test("what cannot be done says so in its status", () => {
  using d = start(disk());
  assertEquals(request(d, 0, 15, [1024], true), [1, 1], "beyond the end");
  assertEquals(request(d, 0, 0, [100], true), [1, 1], "no whole sectors");
  assertEquals(request(d, 0, 2 ** 40, [512], true), [1, 1]);
  assertEquals(request(d, 11, 0, [16], false), [2, 1], "DISCARD is not offered");
  const { read: readDisk, size } = memoryDisk(disk());
  using readonly = start({ read: readDisk, size });
  assertEquals(readonly.features & 0x20, 0x20);
  assertEquals(request(readonly, 1, 0, [512], false), [1, 1]);
});

Deno.test("the serial number", () => {
  using d = start(disk(), { serial: "0123456789abcdefghijklmnop" });
  assertEquals(request(d, 8, 0, [20], true), [0, 21]);
  assertEquals(new TextDecoder().decode(read(d, 20)), "0123456789abcdefghij");
});

Deno.test("the interrupt comes with a request, and goes when its status is read", () => {
  using d = start(disk());
  request(d, 0, 0, [512], true);
  assertEquals(d.edges, ["11 up"]);
  assertEquals([d.isr(), d.isr()], [1, 0]);
  assertEquals(d.edges, ["11 up", "11 down"]);
  // The driver's flag in the available ring.
  d.vm.memory.writeU16(d.queueBase(0) + 0x1000, 1);
  request(d, 0, 0, [512], true);
  assertEquals([d.edges.length, d.isr()], [2, 0]);
});

Deno.test("several requests at once, and descriptors in a table of their own", () => {
  const bytes = disk();
  using d = start(bytes);
  const { memory } = d.vm;
  const table = d.queueBase(0);
  for (const [i, sector] of [2, 9].entries()) {
    const header = REQUEST + 0x40 * i;
    memory.writeU32(header, 0);
    memory.writeU64(header + 8, BigInt(sector));
    const indirect = 0x5000 + 0x100 * i;
    d.describe(indirect, 0, { gpa: header, length: 16 }, 1);
    d.describe(indirect, 1, { gpa: DATA + 512 * i, length: 512, write: true }, 2);
    d.describe(indirect, 2, { gpa: STATUS + i, length: 1, write: true }, undefined);
    d.describe(table, 3 + i, { gpa: indirect, length: 48 }, undefined, 4);
    d.offer(0, 3 + i);
  }
  d.notify(0);
  assertEquals([d.usedIndex(0), d.used(0, 0), d.used(0, 1)], [
    2,
    { id: 3, length: 513 },
    { id: 4, length: 513 },
  ]);
  assertEquals(
    read(d, 1024),
    Uint8Array.from([...bytes.slice(1024, 1536), ...bytes.slice(4608, 5120)]),
  );
  assertEquals(d.edges, ["11 up"]);
});

Deno.test("a queue that makes no sense: the device asks for a reset and works after it", () => {
  const broken: [string, (d: Driver) => void][] = [
    ["a descriptor that is not there", (d) => d.offer(0, 8)],
    ["an endless chain", (d) => {
      d.describe(d.queueBase(0), 0, { gpa: REQUEST, length: 16 }, 0);
      d.offer(0, 0);
    }],
    ["memory that is not there", (d) => {
      d.describe(d.queueBase(0), 0, { gpa: 0xf000_0000, length: 16 }, 1);
      d.describe(d.queueBase(0), 1, { gpa: STATUS, length: 1, write: true }, undefined);
      d.offer(0, 0);
    }],
    ["no status", (d) => {
      d.describe(d.queueBase(0), 0, { gpa: REQUEST, length: 16 }, undefined);
      d.offer(0, 0);
    }],
    ["more than there can be", (d) => d.vm.memory.writeU16(d.queueBase(0) + 0x1002, 9)],
    ["an address of 64 bits", (d) => d.set(0x24, 4, 0xffff_ffff)],
  ];
  for (const [name, spoil] of broken) {
    using d = start(disk());
    spoil(d);
    d.offer(0, 0);
    d.notify(0);
    assertEquals([d.get(0x14, 1), d.isr()], [0x4f, 2], name);
    assertEquals(d.usedIndex(0), 0, name);
    d.start();
    assertEquals(request(d, 0, 0, [512], true), [0, 513], name);
  }
});

Deno.test("features are refused that were not offered, and the old interface", () => {
  using d = drive(virtioBlk(memoryDisk(disk())), 4);
  const agree = (low: number, high: number): number => {
    d.set(0x14, 1, 0);
    d.set(8, 4, 0);
    d.set(0xc, 4, low);
    d.set(8, 4, 1);
    d.set(0xc, 4, high);
    d.set(0x14, 1, 0x0b);
    return d.get(0x14, 1) & 8;
  };
  assertEquals([agree(0, 1), agree(0x0100_0000, 1), agree(0, 0), agree(0, 3)], [8, 0, 0, 0]);
});

Deno.test("a reset of the machine stops the device; saved state goes over", () => {
  const bytes = disk();
  using d = start(bytes);
  d.vm.swap("virtioblk", virtioBlk(memoryDisk(bytes)));
  assertEquals(request(d, 0, 1, [512], true), [0, 513]);
  d.vm.reset();
  assertEquals([d.get(0x14, 1), d.edges.at(-1)], [0, "11 down"]);
});

Deno.test("a disk that is not of whole sectors is refused", () => {
  for (const size of [0, 100, 513]) {
    assertThrows(() => virtioBlk(memoryDisk(new Uint8Array(size))), ArgumentError, `${size} bytes`);
  }
});
