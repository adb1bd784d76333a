import { assertEquals, assertThrows } from "@std/assert";
import {
  ArgumentError,
  type Image,
  type MemoryRange,
  type Plugin,
  type Vm,
} from "../../core/mod.ts";
import { type ScriptedVm, scriptedVm } from "../../core/testing/mod.ts";
import type { ImageOptions } from "../flat/mod.ts";
import {
  assertLoadRefused,
  assertRefused,
  elfFile,
  HEADER_32,
  HEADER_64,
  kernel,
  multibootHeader,
} from "./fixture_test.ts";
import { elf, multiboot } from "./multiboot.ts";

const MIB = 2 ** 20;

function load(
  image: Image,
  memory: number | readonly MemoryRange[] = 4 * MIB,
  plugins: readonly Plugin[] = [],
): ScriptedVm {
  return scriptedVm({ memory, images: [image], plugins });
}

function readString(vm: Vm, gpa: number): string {
  let text = "";
  for (let at = gpa;; at++) {
    const byte = vm.memory.readU8(at);
    if (byte === 0) return text;
    text += String.fromCharCode(byte);
  }
}

function readBytes(vm: Vm, gpa: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  vm.memory.read(gpa, bytes);
  return bytes;
}

/** The multiboot information as a guest reads it (Multiboot Specification 0.6.96, section 3.3). */
function information({ vm, vcpu }: ScriptedVm) {
  const at = Number(vcpu.regs.rbx);
  const u32 = (offset: number) => vm.memory.readU32(at + offset);
  const modules = Array.from({ length: u32(20) }, (_, i) => {
    const entry = u32(24) + 16 * i;
    const [start, end, text, reserved] = [0, 4, 8, 12].map((o) => vm.memory.readU32(entry + o));
    assertEquals(reserved, 0);
    return { start, end, text: readString(vm, text as number) };
  });
  const map: [start: string, end: string, type: number][] = [];
  for (let entry = u32(48), end = entry + u32(44); entry < end;) {
    const base = vm.memory.readU64(entry + 4);
    const length = vm.memory.readU64(entry + 12);
    map.push([base.toString(16), (base + length).toString(16), vm.memory.readU32(entry + 20)]);
    entry += vm.memory.readU32(entry) + 4;
  }
  return {
    flags: u32(0),
    lower: u32(4),
    upper: u32(8),
    commandLine: readString(vm, u32(16)),
    loader: readString(vm, u32(64)),
    modules,
    map,
  };
}

Deno.test("a kernel is entered in the state that the specification and QEMU give it", () => {
  using machine = load(multiboot(elfFile(), { name: "k.elf" }));
  const { vm, vcpu, vendor } = machine;
  const { cs, ds, es, fs, gs, ss, gdt, cr0, cr4, efer } = vendor.getSystemState(vcpu);
  const flat = (selector: number, attributes: number) => ({
    selector,
    base: 0n,
    limit: 0xffff_ffff,
    attributes,
  });
  assertEquals(cs, flat(0x08, 0xc9b));
  for (const segment of [ds, es, fs, gs, ss]) assertEquals(segment, flat(0x10, 0xc93));
  assertEquals([cr0, cr4, efer, vcpu.regs.rflags], [0x11n, 0n, 0n, 2n]);
  assertEquals([vcpu.regs.rax, vcpu.regs.rip], [0x2bad_b002n, 0x10_000cn]);
  // The descriptors are there, for a guest that loads a segment before it has a table of its own.
  assertEquals(gdt.limit, 23);
  const descriptors = [0, 8, 16].map((offset) => vm.memory.readU64(Number(gdt.base) + offset));
  assertEquals(descriptors, [0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
});

Deno.test("segments are where they belong, with what they lack zeroed", () => {
  const file = elfFile({
    segments: [
      { physical: MIB, bytes: kernel() },
      { physical: 0x20_0000, virtual: 0xc020_0000n, bytes: new Uint8Array([1, 2, 3]), size: 100 },
      { physical: 0x30_0000, bytes: new Uint8Array(0), size: 64 },
    ],
  });
  const dirty: Image = { name: "dirt", load: (vm) => vm.memory.fill(0, 4 * MIB, 0xcc) };
  using machine = scriptedVm({ memory: 4 * MIB, images: [dirty, multiboot(file)] });
  const { vm } = machine;
  assertEquals(readBytes(vm, MIB, 64), kernel());
  assertEquals(
    readBytes(vm, 0x20_0000, 101),
    new Uint8Array([1, 2, 3, ...Array(97).fill(0), 0xcc]),
  );
  assertEquals(readBytes(vm, 0x30_0000, 65), new Uint8Array([...Array(64).fill(0), 0xcc]));
});

Deno.test("a kernel of 64 bits is entered in 32-bit mode all the same", () => {
  const segments = [{ physical: MIB, virtual: 0xffff_ffff_8010_0000n, bytes: kernel() }];
  using machine = load(multiboot(elfFile({ bits: 64, segments })));
  const { vcpu, vendor } = machine;
  assertEquals([vcpu.regs.rip, vendor.getSystemState(vcpu).efer], [0x10_000cn, 0n]);
});

Deno.test("an image with address fields needs no format", () => {
  const header = multibootHeader(0x1_0003, [0x20_0010, 0x20_0000, 0, 0x20_1000, 0x20_0030]);
  const file = new Uint8Array(64).fill(0x90);
  file.set(header, 0x10);
  using machine = load(multiboot(file));
  assertEquals(readBytes(machine.vm, 0x20_0000, 64), file);
  assertEquals(machine.vcpu.regs.rip, 0x20_0030n);

  // An ELF file that has them as well is loaded by them.
  const both = elfFile();
  both.set(
    multibootHeader(0x1_0003, [0x30_0060, 0x30_0000, 0, 0, 0x30_0080]),
    HEADER_32 + 32 + 12,
  );
  using other = load(multiboot(both));
  assertEquals([other.vcpu.regs.rip, readBytes(other.vm, 0x30_0000, 4)], [
    0x30_0080n,
    new Uint8Array([0x7f, 0x45, 0x4c, 0x46]),
  ]);
});

Deno.test("the information: flags, memory, command line, loader", () => {
  using machine = load(multiboot(elfFile(), { name: "k.elf", commandLine: "a=1 b" }), 12 * MIB);
  assertEquals(information(machine), {
    flags: 0x24d,
    lower: 640,
    upper: 11 * 1024,
    commandLine: "k.elf a=1 b",
    loader: "trapline",
    modules: [],
    map: [
      ["0", "a0000", 1],
      ["a0000", "100000", 2],
      ["100000", "c00000", 1],
    ],
  });
});

Deno.test("the command line begins with a program name of one word", () => {
  const cases: [ImageOptions, string][] = [
    [{}, "kernel.elf"],
    [{ name: "x.elf" }, "x.elf"],
    [{ name: "x.elf", commandLine: "" }, "x.elf"],
    [{ name: " my kernel\t.elf ", commandLine: "  a" }, "my_kernel_.elf   a"],
    [{ name: " ", commandLine: "a" }, "kernel.elf a"],
  ];
  for (const [options, expected] of cases) {
    using machine = load(multiboot(elfFile(), options));
    assertEquals(information(machine).commandLine, expected);
  }
});

Deno.test("the memory map tells of holes, ROM, and memory from 4 GiB on", () => {
  const rom: Plugin = {
    name: "rom",
    version: "1.0.0",
    requires: ["flat-memory"],
    setup(ctx) {
      const hpa = ctx.vm.hostMemory.current.alloc(0x2_0000);
      ctx.addMemslot({ name: "bios", gpa: 0xf_0000, size: 0x1_0000, hpa, readonly: true });
      ctx.addMemslot({ name: "flash", gpa: 0x8000_0000, size: 0x1_0000, hpa, readonly: true });
      ctx.registerMmio({ name: "gadget", base: 0x28_0000, length: 4 });
    },
  };
  const ranges = [{ gpa: 0, size: 4 * MIB }, { gpa: 2 ** 32, size: MIB }];
  using machine = load(multiboot(elfFile()), ranges, [rom]);
  const { lower, upper, map } = information(machine);
  assertEquals([lower, upper], [640, 1536]);
  assertEquals(map, [
    ["0", "a0000", 1],
    ["a0000", "100000", 2],
    ["100000", "280000", 1],
    ["281000", "400000", 1],
    ["80000000", "80010000", 2],
    ["100000000", "100100000", 1],
  ]);
});

Deno.test("memory that does not begin at 0 is told of as it is", () => {
  const ranges = [{ gpa: 0x2000, size: 0x8000 }, { gpa: MIB, size: MIB }];
  using machine = load(multiboot(elfFile()), ranges);
  const { lower, upper, map } = information(machine);
  assertEquals([lower, upper, map[0]], [0, 1024, ["2000", "a000", 1]]);
});

Deno.test("memory that ends at 1 MiB has nothing from there on", () => {
  const low = elfFile({ segments: [{ physical: 0x2_0000, bytes: kernel() }] });
  using machine = load(multiboot(low), MIB);
  const { lower, upper } = information(machine);
  assertEquals([lower, upper], [640, 0]);
});

Deno.test("ROM between 640 KiB and 1 MiB is in what is reserved there anyway", () => {
  const rom: Plugin = {
    name: "rom",
    version: "1.0.0",
    requires: ["flat-memory"],
    setup(ctx) {
      const hpa = ctx.vm.hostMemory.current.alloc(0x1000);
      for (const gpa of [0xa_0000, 0xf_f000]) {
        ctx.addMemslot({ name: `rom ${gpa}`, gpa, size: 0x1000, hpa, readonly: true });
      }
    },
  };
  using machine = load(multiboot(elfFile()), 4 * MIB, [rom]);
  assertEquals(information(machine).map, [
    ["0", "a0000", 1],
    ["a0000", "100000", 2],
    ["100000", "400000", 1],
  ]);
});

Deno.test("modules follow the image from 1 MiB on, at pages, with their texts", () => {
  const modules = [
    { bytes: new Uint8Array(5000).fill(1), text: "initrd arg" },
    { bytes: new Uint8Array(0), text: "empty" },
    { bytes: new Uint8Array([7]) },
  ];
  const file = elfFile({ segments: [{ physical: MIB, bytes: kernel(), size: 0x1_2345 }] });
  using machine = load(multiboot(file, { modules }));
  const found = information(machine).modules;
  assertEquals(found, [
    { start: 0x11_3000, end: 0x11_4388, text: "initrd arg" },
    { start: 0x11_5000, end: 0x11_5000, text: "empty" },
    { start: 0x11_5000, end: 0x11_5001, text: "" },
  ]);
  assertEquals(readBytes(machine.vm, 0x11_3000, 5000), modules[0]?.bytes);
  assertEquals(machine.vm.memory.readU8(0x11_5000), 7);

  // An image in low memory leaves what is above 1 MiB to them.
  const low = elfFile({ segments: [{ physical: 0x8000, bytes: kernel() }] });
  using other = load(multiboot(low, { modules }));
  assertEquals(information(other).modules[0]?.start, MIB);
});

Deno.test("nothing of the loader's is in the first page or in the image", () => {
  const spread = (physical: number, size: number) => ({ physical, bytes: kernel(), size });
  const cases: [memory: number, at: number, size: number][] = [
    [4 * MIB, MIB, 0x1000],
    [4 * MIB, 0x8000, 0x5a30], // where real-mode tests are linked
    [4 * MIB, 0x1_0000, 0x8_0000],
    [4 * MIB, 0x2000, 0x9_e000],
    [MIB, 0x2000, 0x9_d000],
    [4 * MIB, 0, 0x9_f000],
  ];
  for (const [memory, at, size] of cases) {
    const file = elfFile({ segments: [spread(at, size)] });
    using machine = load(multiboot(file, { commandLine: "x".repeat(300) }), memory);
    const { gdt } = machine.vendor.getSystemState(machine.vcpu);
    const line = information(machine).commandLine;
    assertEquals(line.length, 311);
    const info = Number(machine.vcpu.regs.rbx);
    for (
      const [start, length] of [[info, 120 + 3 * 24 + 311 + 1 + 9], [Number(gdt.base), 24]] as const
    ) {
      const apart = start + length <= at || start >= at + size;
      assertEquals([apart, start >= 0x1000, start % 8], [true, true, 0], `image at ${at}`);
    }
    assertEquals(readBytes(machine.vm, at, 64), kernel());
  }
});

Deno.test("a reset loads all of it again", () => {
  const modules = [{ bytes: new Uint8Array([7]), text: "m" }];
  using machine = load(multiboot(elfFile(), { name: "k", modules }));
  const { vm, vcpu, vendor } = machine;
  const before = [vendor.getSystemState(vcpu), information(machine), vcpu.regs.clone().rip];
  vm.memory.fill(0, 4 * MIB, 0xcc);
  vcpu.regs.rip = 0x1234n;
  vm.reset();
  assertEquals([vendor.getSystemState(vcpu), information(machine), vcpu.regs.rip], before);
  assertEquals([readBytes(vm, MIB, 64), vm.memory.readU8(MIB + 4096)], [kernel(), 7]);
});

Deno.test("images that do not fit are refused and leave memory alone", () => {
  const at = (physical: number, size = 64) =>
    multiboot(elfFile({ segments: [{ physical, bytes: kernel(), size }] }), { name: "k" });
  const segment = { field: "segment 0", offset: HEADER_32 };
  assertLoadRefused(at(2 * MIB), 2 * MIB, {
    ...segment,
    message:
      "it needs 200000h to 20003Fh, and there is none at 200000h; memory is at 0h to 1FFFFFh",
  });
  assertLoadRefused(at(MIB, 12 * MIB), 8 * MIB, {
    ...segment,
    message: "it needs 100000h to CFFFFFh, and there is none at 800000h",
  });
  const gadget: Plugin = {
    name: "gadget",
    version: "1.0.0",
    setup: (ctx) => void ctx.registerMmio({ name: "gadget", base: 0x18_0000, length: 4 }),
  };
  assertLoadRefused(at(MIB, MIB), 4 * MIB, {
    ...segment,
    message: 'device "gadget" is at 180000h',
  }, [gadget]);
  const modules = [{ bytes: new Uint8Array(MIB), text: "big" }];
  assertLoadRefused(multiboot(elfFile(), { modules }), 2 * MIB, {
    field: 'module 0 "big"',
    offset: undefined,
    message: "no room for 1048576 bytes in the memory below 4 GiB from 100040h on",
  });
  const full = elfFile({ segments: [{ physical: 0, bytes: kernel(), size: MIB }] });
  assertLoadRefused(multiboot(full), MIB, {
    field: "the multiboot information",
    offset: undefined,
    message: "no room for",
  });
});

Deno.test("images that cannot be are refused before there is a VM", () => {
  assertRefused(
    () => multiboot(elfFile({ segments: [{ physical: MIB, bytes: new Uint8Array(64) }] })),
    {
      field: "multiboot header",
      offset: undefined,
      message: 'image "kernel.elf": multiboot header: no magic',
    },
    "no header",
  );
  const high = [{ physical: MIB, bytes: kernel() }, { physical: 2 ** 32 - 4, bytes: kernel() }];
  assertRefused(() => multiboot(elfFile({ bits: 64, segments: high })), {
    field: "p_paddr of segment 1",
    offset: HEADER_64 + 56,
    message: "FFFFFFFCh: code of 32 bits cannot reach it",
  }, "beyond 4 GiB");
  const top = [{ physical: MIB, bytes: kernel() }, { physical: 2 ** 32 - 64, bytes: kernel() }];
  assertEquals(multiboot(elfFile({ bits: 64, segments: top })).name, "kernel.elf");
  assertRefused(() => multiboot(elfFile({ entry: 0n })), {
    field: "e_entry",
    offset: 24,
    message: "0h is not in a segment of the file",
  }, "entry");
  assertRefused(() => multiboot(new Uint8Array([...kernel()])), {
    field: "ELF magic",
    offset: 0,
    message: "it is not",
  }, "neither ELF nor address fields");
  assertRefused(() => multiboot(new Uint8Array(0)), {
    field: "multiboot header",
    offset: undefined,
    message: "of 0 bytes",
  }, "empty");
});

Deno.test("texts that the guest could not read are refused", () => {
  const cases: [ImageOptions, string][] = [
    [{ name: "k", commandLine: "a\0b" }, 'image "k": the command line holds a NUL'],
    [{ name: "k\0" }, "the command line holds a NUL"],
    [{ modules: [{ bytes: kernel(), text: "\0" }] }, "the text of module 0 holds a NUL"],
  ];
  for (const [options, message] of cases) {
    assertThrows(() => multiboot(elfFile(), options), ArgumentError, message);
  }
});

Deno.test("texts are UTF-8", () => {
  using machine = load(multiboot(elfFile(), { commandLine: "größe=µ" }));
  const line = information(machine).commandLine;
  const bytes = Uint8Array.from(line, (character) => character.charCodeAt(0));
  assertEquals(new TextDecoder().decode(bytes), "kernel.elf größe=µ");
});

const plain = (bits: 32 | 64, segments?: { physical: number; virtual?: bigint }[]) =>
  elfFile({
    bits,
    segments: (segments ?? [{ physical: MIB }]).map((s) => ({ ...s, bytes: new Uint8Array(32) })),
  });

Deno.test("a plain ELF file of 32 bits is entered as a multiboot image is", () => {
  using machine = load(elf(plain(32), { name: "k", commandLine: "x" }));
  const { vcpu, vendor } = machine;
  const { cr0, cs } = vendor.getSystemState(vcpu);
  assertEquals([vcpu.regs.rax, vcpu.regs.rip, cr0, cs.attributes], [
    0x2bad_b002n,
    0x10_000cn,
    0x11n,
    0xc9b,
  ]);
  assertEquals(information(machine).commandLine, "k x");
});

Deno.test("a plain ELF file of 64 bits is entered in 64-bit mode", () => {
  using machine = load(elf(plain(64), { name: "k", commandLine: "x" }));
  const { vm, vcpu, vendor } = machine;
  const { cr0, cr3, efer, cs } = vendor.getSystemState(vcpu);
  assertEquals([cr0, efer, cs.attributes, vcpu.regs.rip], [
    0x8000_0011n,
    0x500n,
    0xa9b,
    0x10_000cn,
  ]);
  assertEquals([vcpu.regs.rax, vcpu.regs.rdi], [0x2bad_b002n, vcpu.regs.rbx]);
  assertEquals([information(machine).commandLine, vm.memory.readU64(Number(cr3)) & 1n], [
    "k x",
    1n,
  ]);

  const ranges = [{ gpa: 0, size: 2 * MIB }, { gpa: 2 ** 32, size: MIB }];
  using high = load(elf(plain(64, [{ physical: 2 ** 32 }])), ranges);
  assertEquals(high.vcpu.regs.rip, 0x1_0000_000cn);
});

Deno.test("a plain ELF file of 64 bits that is not linked where it lies is refused", () => {
  const linked = plain(64, [{ physical: MIB }, { physical: 2 * MIB, virtual: 0xffff_8000n }]);
  assertRefused(() => elf(linked), {
    field: "p_vaddr of segment 1",
    offset: HEADER_64 + 56 + 16,
    message: "FFFF8000h is not its physical address, 200000h",
  }, "virtual");
  using machine = load(elf(plain(32, [{ physical: MIB, virtual: 0xc010_0000n }])));
  assertEquals(machine.vcpu.regs.rip, 0x10_000cn, "code of 32 bits sees to that by itself");
});
