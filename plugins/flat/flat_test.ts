import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type Image, type Vm } from "../../core/mod.ts";
import { FlatMemory, type ScriptedVm, scriptedVm } from "../../core/testing/mod.ts";
import { ImageError } from "./error.ts";
import { flat, type FlatOptions } from "./flat.ts";
import { bootSectorLoader } from "./loader.ts";

const MIB = 2 ** 20;

function load(image: Image, memory = 4 * MIB): ScriptedVm {
  return scriptedVm({ memory, images: [image] });
}

function read(vm: Vm, gpa: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  vm.memory.read(gpa, bytes);
  return bytes;
}

const code = new Uint8Array([0xfa, 0xeb, 0xfe]);

Deno.test("without options, a binary is a boot sector", () => {
  using machine = load(flat(code));
  const { vm, vcpu, vendor } = machine;
  assertEquals(read(vm, 0x7c00, 4), new Uint8Array([...code, 0]));
  const { cs, cr0 } = vendor.getSystemState(vcpu);
  assertEquals([cs.selector, cs.base, vcpu.regs.rip, vcpu.regs.rdx, cr0], [
    0,
    0n,
    0x7c00n,
    0x80n,
    0x10n,
  ]);
});

Deno.test("real mode at any segment and offset", () => {
  const cases: [FlatOptions, selector: number, ip: bigint][] = [
    [{ entry: { mode: "real", segment: 0x7c0 } }, 0x7c0, 0n],
    [{ entry: { mode: "real", segment: 0x7c0, offset: 2 } }, 0x7c0, 2n],
    [{ entry: { mode: "real", offset: 0x7c01 } }, 0, 0x7c01n],
    [{ address: 0xf_0000, entry: { mode: "real", segment: 0xf000 } }, 0xf000, 0n],
    [{ address: 0x10_0000, entry: { mode: "real", segment: 0xffff } }, 0xffff, 0x10n],
    [{ address: 0 }, 0, 0n],
    [{ registers: { rdx: 0n, rsp: 0x7c00n } }, 0, 0x7c00n],
  ];
  for (const [options, selector, ip] of cases) {
    using machine = load(flat(code, options));
    const { cs } = machine.vendor.getSystemState(machine.vcpu);
    assertEquals([cs.selector, cs.base, machine.vcpu.regs.rip], [
      selector,
      BigInt(selector * 16),
      ip,
    ]);
    for (const [name, value] of Object.entries(options.registers ?? {})) {
      assertEquals(machine.vcpu.regs[name as "rdx"], value);
    }
  }
});

Deno.test("protected mode with a descriptor table in memory", () => {
  const entry = { mode: "protected32", address: 0x10_0001 } as const;
  using machine = load(flat(code, { address: 0x10_0000, entry, registers: { rsi: 5n } }));
  const { vm, vcpu, vendor } = machine;
  const { cr0, gdt, cs } = vendor.getSystemState(vcpu);
  assertEquals([cr0, cs.selector, vcpu.regs.rip, vcpu.regs.rsi, vcpu.regs.rdx], [
    0x11n,
    8,
    0x10_0001n,
    5n,
    0n,
  ]);
  assertEquals(vm.memory.readU64(Number(gdt.base) + 8), 0x00cf_9b00_0000_ffffn);
});

Deno.test("64-bit mode with page tables in memory, past memory from 4 GiB on", () => {
  const image = flat(code, { address: 2 * MIB, entry: { mode: "long64" } });
  using small = load(image);
  const { cr0, cr3, efer, gdt } = small.vendor.getSystemState(small.vcpu);
  assertEquals([cr0, efer, small.vcpu.regs.rip], [0x8000_0011n, 0x500n, BigInt(2 * MIB)]);
  assertEquals(small.vm.memory.readU64(Number(gdt.base) + 8), 0x00af_9b00_0000_ffffn);
  const entryAt = (vm: Vm, table: number, index: number) => vm.memory.readU64(table + 8 * index);
  const pdpt = Number(entryAt(small.vm, Number(cr3), 0) & ~0xfffn);
  assertEquals([entryAt(small.vm, pdpt, 3) & 1n, entryAt(small.vm, pdpt, 4)], [1n, 0n]);

  const high = [{ gpa: 0, size: MIB }, { gpa: 5 * 2 ** 30, size: MIB }];
  const there = flat(code, { address: 5 * 2 ** 30, entry: { mode: "long64" } });
  using large = scriptedVm({ memory: high, images: [there] });
  const state = large.vendor.getSystemState(large.vcpu);
  const largePdpt = Number(entryAt(large.vm, Number(state.cr3), 0) & ~0xfffn);
  assertEquals([entryAt(large.vm, largePdpt, 5) & 1n, entryAt(large.vm, largePdpt, 6)], [1n, 0n]);
  assertEquals(large.vcpu.regs.rip, BigInt(5 * 2 ** 30));
});

Deno.test("tables keep out of the way of the binary", () => {
  const big = new Uint8Array(0x9_0000).fill(0x90);
  using machine = load(flat(big, { address: 0x1000, entry: { mode: "long64" } }));
  const { cr3, gdt } = machine.vendor.getSystemState(machine.vcpu);
  assertEquals([gdt.base, cr3], [0x9_1000n, 0x9_2000n]);
  assertEquals(read(machine.vm, 0x1000, big.length), big);
});

Deno.test("a reset loads the binary and its tables again", () => {
  using machine = load(flat(code, { address: 0x10_0000, entry: { mode: "long64" } }));
  const { vm, vcpu, vendor } = machine;
  const before = vendor.getSystemState(vcpu);
  vm.memory.fill(0, 4 * MIB, 0xcc);
  vcpu.regs.rip = 0n;
  vm.reset();
  assertEquals(read(vm, 0x10_0000, 3), code);
  assertEquals([vendor.getSystemState(vcpu), vcpu.regs.rip], [before, 0x10_0000n]);
  assertEquals(vm.memory.readU64(Number(before.cr3)) & 1n, 1n);
});

Deno.test("options that cannot be are refused", () => {
  const cases: [FlatOptions, string][] = [
    [{ address: -1 }, 'image "flat": address -1 is not one of 52 bits'],
    [{ address: 0.5 }, "address 0.5"],
    [{ address: 2 ** 52 }, "address 4503599627370496"],
    [{ address: 0x2_0000 }, "offset 131072 of the entry is not one of 16 bits"],
    [{ entry: { mode: "real", segment: 0x1_0000 } }, "segment 65536 of the entry"],
    [{ entry: { mode: "real", segment: 0x800 } }, "offset -1024 of the entry"],
    [
      { entry: { mode: "real", offset: 0x7c03 } },
      "entry 7C03h is not in the binary, which is at 7C00h to 7C02h",
    ],
    [{ entry: { mode: "long64", address: 0x7bff } }, "entry 7BFFh is not in the binary"],
    [
      { address: 2 ** 32, entry: { mode: "protected32" } },
      "entry 100000000h is not one of 32 bits",
    ],
  ];
  for (const [options, message] of cases) {
    assertThrows(() => flat(code, options), ArgumentError, message);
  }
});

Deno.test("a binary that does not fit is refused and leaves memory alone", () => {
  const attempts: [Image, string][] = [
    [flat(new Uint8Array(MIB).fill(1)), "the binary: it needs 7C00h to 107BFFh, and there is none"],
    [flat(code, { address: 16 * MIB, entry: { mode: "long64" } }), "the binary: it needs"],
    [
      flat(new Uint8Array(MIB - 0x1000).fill(1), { address: 0x1000, entry: { mode: "long64" } }),
      "the descriptor table: no room",
    ],
    [
      flat(new Uint8Array(0x9_c000).fill(1), { address: 0x2000, entry: { mode: "long64" } }),
      "the page tables: no room for 24576 bytes",
    ],
  ];
  for (const [image, message] of attempts) {
    let memory: FlatMemory | undefined;
    const spy: Image = {
      name: "spy",
      load: (vm) => {
        memory = vm.hostMemory.current as FlatMemory;
        const before = memory.changes.length;
        try {
          image.load(vm);
        } finally {
          assertEquals(memory.changes.length, before);
        }
      },
    };
    assertThrows(() => scriptedVm({ memory: MIB, images: [spy] }), ImageError, message);
    assertEquals(memory instanceof FlatMemory, true);
  }
  const error = assertThrows(() => flat(new Uint8Array(0)), ImageError);
  assertEquals(error.message, 'image "flat": the file (at 0h in the file): it is empty');
});

Deno.test("boot sectors are told by their size and signature", () => {
  const sector = (size: number) => {
    const bytes = new Uint8Array(size);
    bytes.set([0x55, 0xaa], 510);
    return bytes;
  };
  const cases: [Uint8Array, boolean][] = [
    [sector(512), true],
    [sector(1024), true],
    [sector(513), false],
    [new Uint8Array(512), false],
    [new Uint8Array(0), false],
    [new Uint8Array(511), false],
  ];
  for (const [bytes, expected] of cases) {
    assertEquals(bootSectorLoader.recognizes(bytes), expected);
  }
  using machine = load(bootSectorLoader.load(sector(512), { name: "dos" }));
  assertEquals([machine.vm.memory.readU16(0x7dfe), machine.vcpu.regs.rip], [0xaa55, 0x7c00n]);
  assertEquals(bootSectorLoader.load(sector(512), {}).name, "flat");
  for (const options of [{ commandLine: "x" }, { modules: [{ bytes: code }] }]) {
    assertThrows(
      () => bootSectorLoader.load(sector(512), options),
      ArgumentError,
      "neither command line nor modules",
    );
  }
});
