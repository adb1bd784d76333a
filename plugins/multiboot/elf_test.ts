import { assertEquals } from "@std/assert";
import { ImageReader } from "../flat/mod.ts";
import { isElf, physicalEntry, readElf } from "./elf.ts";
import {
  assertRefused,
  elfFile,
  type ElfFixture,
  HEADER_32,
  HEADER_64,
  patch,
  PROGRAM_HEADER_32,
  type Refusal,
} from "./fixture_test.ts";

const read = (file: Uint8Array) => readElf(new ImageReader("k", file));
const bytes = (size: number) => new Uint8Array(size).fill(0x90);

Deno.test("segments come with their addresses, sorted, and those without a size not at all", () => {
  for (const bits of [32, 64] as const) {
    const elf = read(elfFile({
      bits,
      entry: 0xc000_0004n,
      segments: [
        { physical: 0x20_0000, virtual: 0xc000_0000n, bytes: bytes(8), size: 0x1000 },
        { physical: 0x10_0000, bytes: bytes(3) },
        { physical: 0x30_0000, bytes: bytes(0) },
        { physical: 0x40_0000, bytes: bytes(0), size: 5 },
        { physical: 0x50_0000, bytes: bytes(9), type: 4 },
      ],
    }));
    assertEquals([elf.bits, elf.entry], [bits, 0xc000_0004n]);
    assertEquals(
      elf.segments.map((s) => [s.index, s.physical, s.virtual, s.bytes.length, s.size]),
      [
        [1, 0x10_0000, 0x10_0000n, 3, 3],
        [0, 0x20_0000, 0xc000_0000n, 8, 0x1000],
        [3, 0x40_0000, 0x40_0000n, 0, 5],
      ],
    );
  }
});

Deno.test("addresses of 64 bits are taken as they are", () => {
  const elf = read(elfFile({
    bits: 64,
    segments: [{ physical: 2 ** 51, virtual: 0xffff_ffff_8000_0000n, bytes: bytes(16) }],
  }));
  assertEquals([elf.entry, elf.segments[0]?.virtual, elf.segments[0]?.physical], [
    0xffff_ffff_8000_000cn,
    0xffff_ffff_8000_0000n,
    2 ** 51,
  ]);
});

Deno.test("the entry is an address of the program, or else a physical one", () => {
  const entry = (fixture: ElfFixture) => {
    const reader = new ImageReader("k", elfFile(fixture));
    return physicalEntry(reader, readElf(reader));
  };
  const high = [{ physical: 0x10_0000, virtual: 0xc000_0000n, bytes: bytes(16), size: 64 }];
  assertEquals(entry({ segments: high }), 0x10_000c);
  assertEquals(entry({ segments: high, entry: 0x10_0004n }), 0x10_0004);
  assertEquals(entry({ segments: high, entry: 0xc000_0000n }), 0x10_0000);
  assertEquals(entry({ segments: high, entry: 0x10_0000n }), 0x10_0000);
  const crossed = [
    { physical: 0x10_0000, virtual: 0x20_0000n, bytes: bytes(16) },
    { physical: 0x20_0000, virtual: 0x30_0000n, bytes: bytes(16) },
  ];
  assertEquals(entry({ segments: crossed, entry: 0x20_0003n }), 0x10_0003, "virtual comes first");
  for (const at of [0xc000_0010n, 0xbfff_ffffn, 0x10_0010n, 0n]) {
    assertRefused(() => entry({ segments: high, entry: at }), {
      field: "e_entry",
      offset: 24,
      message: `${at.toString(16).toUpperCase()}h is not in a segment of the file`,
    }, "what is zeroed holds no code either");
  }
});

Deno.test("every field that is wrong is named, with its place", () => {
  const table = HEADER_32;
  const cases: [
    name: string,
    at: number,
    size: number,
    value: number,
    ...Parameters<typeof refusal>,
  ][] = [
    ["magic", 0, 4, 0x464c_457e, "ELF magic", 0, "it is not 7Fh 'E' 'L' 'F'"],
    ["class", 4, 1, 3, "EI_CLASS", 4, "3 is neither 1 (32 bits) nor 2 (64 bits)"],
    ["data", 5, 1, 2, "EI_DATA", 5, "2, not 1 (little-endian)"],
    ["identification version", 6, 1, 0, "EI_VERSION", 6, "0, not 1"],
    ["relocatable", 16, 2, 1, "e_type", 16, "1, not 2: the file is a relocatable object: link it"],
    ["shared", 16, 2, 3, "e_type", 16, "position-independent: link it at a fixed address"],
    ["core", 16, 2, 4, "e_type", 16, "the file is a core dump"],
    ["unknown type", 16, 2, 0xfe00, "e_type", 16, "65024, not 2"],
    ["machine", 18, 2, 62, "e_machine", 18, "62, not 3 (i386)"],
    ["version", 20, 4, 2, "e_version", 20, "2, not 1"],
    ["table", 28, 4, 0xffff_fff0, "e_phoff", 28, "1 program headers at FFFFFFF0h go beyond"],
    ["entry size", 42, 2, 56, "e_phentsize", 42, "56, not 32"],
    ["no headers", 44, 2, 0, "e_phnum", 44, "there are no program headers"],
    ["many headers", 44, 2, 0xffff, "e_phnum", 44, "65535 or more is not supported"],
    ["more headers", 44, 2, 4, "e_phoff", 28, "4 program headers at 34h go beyond"],
    ["interpreter", table, 4, 3, "p_type of segment 0", table, "asks for a dynamic linker"],
    ["nothing to load", table, 4, 4, "e_phnum", 44, "no segment is to be loaded (PT_LOAD)"],
    [
      "offset",
      table + 4,
      4,
      0x61,
      "p_filesz of segment 0",
      table + 16,
      "40h bytes at 61h go beyond",
    ],
    ["file size", table + 16, 4, 0x41, "p_filesz of segment 0", table + 16, "41h is more than its"],
    ["memory size", table + 20, 4, 0x3f, "p_filesz of segment 0", table + 16, "40h is more than"],
    [
      "address",
      table + 12,
      4,
      0xffff_ffc1,
      "p_paddr of segment 0",
      table + 12,
      "40h bytes at FFFFFFC1h leave 32 bits of address",
    ],
  ];
  for (const [name, at, size, value, ...rest] of cases) {
    assertRefused(() => read(patch(elfFile(), at, size, value)), refusal(...rest), name);
  }
});

Deno.test("a segment may end where addresses do", () => {
  const last = patch(elfFile(), HEADER_32 + 12, 4, 2 ** 32 - 64);
  assertEquals(read(last).segments[0]?.physical, 2 ** 32 - 64);
});

Deno.test("a file of 64 bits has its fields elsewhere", () => {
  const table = HEADER_64;
  const cases: [
    name: string,
    at: number,
    size: number,
    value: number,
    ...Parameters<typeof refusal>,
  ][] = [
    ["machine", 18, 2, 3, "e_machine", 18, "3, not 62 (x86-64)"],
    ["entry size", 54, 2, 32, "e_phentsize", 54, "32, not 56"],
    ["no headers", 56, 2, 0, "e_phnum", 56, "there are no program headers"],
    ["table", 38, 2, 0x100, "e_phoff", 32, "100000000000040h is too large"],
    ["offset", table + 14, 2, 0x8000, "p_offset of segment 0", table + 8, "is too large"],
    ["size", table + 47, 1, 0x01, "p_memsz of segment 0", table + 40, "is too large"],
    [
      "address",
      table + 30,
      1,
      0x10,
      "p_paddr of segment 0",
      table + 24,
      "leave 52 bits of address",
    ],
    ["file size", table + 36, 1, 1, "p_filesz of segment 0", table + 32, "is more than its size"],
  ];
  for (const [name, at, size, value, ...rest] of cases) {
    assertRefused(
      () => read(patch(elfFile({ bits: 64 }), at, size, value)),
      refusal(...rest),
      name,
    );
  }
});

function refusal(field: string, offset: number, message: string): Refusal {
  return { field, offset, message };
}

Deno.test("segments that overlap are refused, naming both", () => {
  const at = (first: number, second: number) =>
    elfFile({
      segments: [
        { physical: first, bytes: bytes(16), size: 0x100 },
        { physical: second, bytes: bytes(16), size: 0x100 },
      ],
    });
  read(at(0x10_0000, 0x10_0100));
  read(at(0x10_0100, 0x10_0000));
  const paddr = (index: number) => HEADER_32 + PROGRAM_HEADER_32 * index + 12;
  assertRefused(() => read(at(0x10_0000, 0x10_00ff)), {
    field: "p_paddr of segment 1",
    offset: paddr(1),
    message: "1000FFh lies in segment 0, which is at 100000h to 1000FFh",
  }, "above");
  assertRefused(() => read(at(0x10_0080, 0x10_0000)), {
    field: "p_paddr of segment 0",
    offset: paddr(0),
    message: "100080h lies in segment 1",
  }, "below");
});

Deno.test("a file that ends anywhere before its last segment does is refused", () => {
  for (const bits of [32, 64] as const) {
    const file = elfFile({ bits });
    for (let size = 0; size < file.length; size++) {
      const attempt = () => read(file.subarray(0, size));
      assertRefused(attempt, truncated(bits, size), `${bits} bits, ${size} bytes`);
    }
    read(file);
  }
});

/** What a file of the fixture's form is to be refused with when it has `size` bytes. */
function truncated(bits: 32 | 64, size: number): Refusal {
  const fields: [end: number, field: string, offset: number][] = bits === 32
    ? [
      [18, "e_type", 16],
      [20, "e_machine", 18],
      [24, "e_version", 20],
      [28, "e_entry", 24],
      [
        32,
        "e_phoff",
        28,
      ],
      [44, "e_phentsize", 42],
      [46, "e_phnum", 44],
      [84, "e_phoff", 28],
    ]
    : [
      [18, "e_type", 16],
      [20, "e_machine", 18],
      [24, "e_version", 20],
      [32, "e_entry", 24],
      [
        40,
        "e_phoff",
        32,
      ],
      [56, "e_phentsize", 54],
      [58, "e_phnum", 56],
      [120, "e_phoff", 32],
    ];
  const message = "ends at";
  if (size < 4) return { field: "ELF magic", offset: 0, message: "it is not" };
  if (size < 7) {
    const field = ["EI_CLASS", "EI_DATA", "EI_VERSION"][size - 4] as string;
    return { field, offset: size, message };
  }
  const missing = fields.find(([end]) => size < end);
  if (missing !== undefined) {
    const [end, field, offset] = missing;
    const table = end === fields.at(-1)?.[0];
    return { field, offset, message: table ? "go beyond the file's end" : message };
  }
  return {
    field: "p_filesz of segment 0",
    offset: bits === 32 ? HEADER_32 + 16 : HEADER_64 + 32,
    message: "go beyond the file's end",
  };
}

Deno.test("ELF files are told by their magic", () => {
  assertEquals([isElf(elfFile()), isElf(new Uint8Array([0x7f, 0x45, 0x4c])), isElf(bytes(99))], [
    true,
    false,
    false,
  ]);
});
