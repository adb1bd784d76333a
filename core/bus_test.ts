import { assertEquals, assertThrows } from "@std/assert";
import { type MmioRegion, type Plugin, PluginError, unclaimedHook } from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

/** Sixteen registers of a byte that remember, and a log of the accesses that reach them. */
function registers(
  rest: Partial<MmioRegion>,
): { region: MmioRegion; bytes: Uint8Array; log: string[] } {
  const bytes = new Uint8Array(16);
  const log: string[] = [];
  const region: MmioRegion = {
    name: "registers",
    base: 0x100,
    length: 16,
    read(offset, size) {
      log.push(`r${size}@${offset}`);
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + (bytes[offset + i] ?? 0);
      return value;
    },
    write(offset, size, value) {
      log.push(`w${size}@${offset}=${value.toString(16)}`);
      for (let i = 0; i < size; i++) bytes[offset + i] = value >>> (8 * i);
    },
    ...rest,
  };
  return { region, bytes, log };
}

function machine(...regions: { bus: "pio" | "mmio"; region: MmioRegion }[]) {
  const unclaimed: string[] = [];
  const plugin: Plugin = {
    name: "device",
    version: "1.0.0",
    setup(ctx) {
      for (const { bus, region } of regions) {
        if (bus === "pio") ctx.registerPio(region);
        else ctx.registerMmio(region);
      }
      ctx.on(unclaimedHook, (bus, address, size, write, value) => {
        unclaimed.push(`${bus} ${write ? "w" : "r"}${size}@${address.toString(16)}=${value}`);
      });
    },
  };
  return { ...scriptedVm({ plugins: [plugin], memory: 2 ** 20 }), unclaimed };
}

Deno.test("accesses reach a device at their width, as unsigned values", () => {
  const { region, log } = registers({});
  using m = machine({ bus: "pio", region });
  m.vm.pio.write(0x100, 4, 0x8899_aabb | 0);
  m.vm.pio.write(0x104, 2, 0x1_2345);
  m.vm.pio.write(0x106, 1, -1);
  assertEquals(m.vm.pio.read(0x100, 4), 0x8899_aabb);
  assertEquals(m.vm.pio.read(0x104, 2), 0x2345);
  assertEquals(m.vm.pio.read(0x106, 1), 0xff);
  assertEquals(log, ["w4@0=8899aabb", "w2@4=2345", "w1@6=ff", "r4@0", "r2@4", "r1@6"]);
});

Deno.test("an answer that is too wide is cut off", () => {
  using m = machine({ bus: "pio", region: registers({ read: () => -2 }).region });
  assertEquals([1, 2, 4].map((size) => m.vm.pio.read(0x100, size)), [0xfe, 0xfffe, 0xffff_fffe]);
});

Deno.test("a narrow device gets wide accesses in pieces, lowest address first", () => {
  const { region, log } = registers({ width: 1 });
  using m = machine({ bus: "pio", region });
  m.vm.pio.write(0x103, 4, 0x4433_2211);
  assertEquals(log.splice(0), ["w1@3=11", "w1@4=22", "w1@5=33", "w1@6=44"]);
  assertEquals(m.vm.pio.read(0x103, 4), 0x4433_2211);
  assertEquals(log, ["r1@3", "r1@4", "r1@5", "r1@6"]);
});

Deno.test("ports without a device read as all ones and drop writes, and somebody may watch", () => {
  using m = machine();
  assertEquals([1, 2, 4].map((size) => m.vm.pio.read(0x92, size)), [0xff, 0xffff, 0xffff_ffff]);
  m.vm.pio.write(0x92, 2, 0x1_0003);
  assertEquals(m.unclaimed, ["pio r1@92=0", "pio r2@92=0", "pio r4@92=0", "pio w2@92=3"]);
});

Deno.test("an access over the edge of a device is taken apart there", () => {
  const { region, log } = registers({});
  using m = machine({ bus: "pio", region });
  assertEquals(m.vm.pio.read(0x10e, 4), 0xffff_0000);
  assertEquals([log.splice(0), m.unclaimed.splice(0)], [["r2@14"], ["pio r2@110=0"]]);
  m.vm.pio.write(0xff, 2, 0x4321);
  assertEquals([log.splice(0), m.unclaimed.splice(0)], [["w1@0=43"], ["pio w1@ff=33"]]);
});

Deno.test("ports wrap around", () => {
  const { region, bytes } = registers({ base: 0 });
  bytes[0] = 0x12;
  using m = machine({ bus: "pio", region });
  assertEquals(m.vm.pio.read(0xffff, 2), 0x12ff);
  m.vm.pio.write(0xffff, 2, 0x3456);
  assertEquals(bytes[0], 0x34);
});

Deno.test("a device without read or write is all ones and drops writes", () => {
  using m = machine({ bus: "pio", region: { name: "mute", base: 0x80, length: 1 } });
  assertEquals(m.vm.pio.read(0x80, 1), 0xff);
  m.vm.pio.write(0x80, 1, 3);
  assertEquals(m.unclaimed, []);
});

Deno.test("memory accesses of 8 bytes come in halves, or whole to a device that takes them", () => {
  const narrow = registers({ name: "narrow", base: 0xfed0_0000 });
  const wide = registers({
    name: "wide",
    base: 0xfed0_1000,
    read64: (offset, out) => {
      out[0] = offset;
      out[1] = 0xffff_ffff;
    },
    write64: (offset, lo, hi) =>
      void wide.log.push(`w8@${offset}=${hi.toString(16)}:${lo.toString(16)}`),
  });
  using m = machine({ bus: "mmio", region: narrow.region }, { bus: "mmio", region: wide.region });
  const { mmio } = m.vm;
  mmio.write(0xfed0_0004, 8, 0x1122_3344, 0x5566_7788);
  assertEquals([mmio.read(0xfed0_0004, 8), mmio.high], [0x1122_3344, 0x5566_7788]);
  assertEquals(narrow.log, ["w4@4=11223344", "w4@8=55667788", "r4@4", "r4@8"]);

  mmio.write(0xfed0_1008, 8, -1, 2);
  assertEquals([mmio.read(0xfed0_1008, 8), mmio.high], [8, 0xffff_ffff]);
  assertEquals(wide.log.splice(0), ["w8@8=2:ffffffff"]);
  // Half of it lies outside the device.
  mmio.write(0xfed0_100c, 8, 5, 6);
  assertEquals([wide.log.splice(0), m.unclaimed.splice(0)], [["w4@12=5"], ["mmio w4@fed01010=6"]]);
  assertEquals([mmio.read(0xfed0_100c, 8), mmio.high], [5, 0xffff_ffff]);
  assertEquals(wide.log, ["r4@12"]);
});

Deno.test("memory without a device reads as all ones; edges are taken apart", () => {
  const { region, log } = registers({ base: 0xfed0_0000 });
  using m = machine({ bus: "mmio", region });
  const { mmio } = m.vm;
  assertEquals([mmio.read(0xfec0_0000, 8), mmio.high], [0xffff_ffff, 0xffff_ffff]);
  assertEquals(m.unclaimed.splice(0), ["mmio r4@fec00000=0", "mmio r4@fec00004=0"]);
  mmio.write(0xfecf_fffe, 4, 0x4433_2211, 0);
  assertEquals([log.splice(0), m.unclaimed.splice(0)], [["w2@0=4433"], ["mmio w2@fecffffe=8721"]]);
  assertEquals(mmio.read(0xfed0_000f, 2), 0xff00);
  assertEquals([log, m.unclaimed], [["r1@15"], ["mmio r1@fed00010=0"]]);
});

Deno.test("what a device throws names the device, its plugin and the vCPU", () => {
  const boom = () => {
    throw new Error("boom");
  };
  using m = machine({
    bus: "mmio",
    region: { name: "bad", base: 0xfed0_0000, length: 16, read: boom, read64: boom, write64: boom },
  });
  const { mmio } = m.vm;
  assertThrows(
    () => mmio.read(0xfed0_0000, 4),
    PluginError,
    'plugin "device" failed in read of "bad": boom',
  );
  assertThrows(
    () => mmio.read(0xfed0_0000, 8, m.vcpu),
    PluginError,
    'read of "bad" on vCPU 0: boom',
  );
  assertThrows(() => mmio.write(0xfed0_0000, 8, 0, 0), PluginError, 'write of "bad": boom');
});
