import { assertEquals } from "@std/assert";
import { ImageReader } from "../flat/mod.ts";
import { assertRefused, multibootHeader } from "./fixture_test.ts";
import { findHeader, readAddresses, readHeader } from "./header.ts";

/** A file of zeros with a header at an offset. */
function fileWith(offset: number, header: Uint8Array, size = 16384): Uint8Array {
  const file = new Uint8Array(size);
  file.set(header, offset);
  return file;
}

const parse = (file: Uint8Array) => readHeader(new ImageReader("k", file));

Deno.test("the header lies in the first 8 KiB at a multiple of 4, all of it", () => {
  const cases: [offset: number, size: number, found: boolean][] = [
    [0, 16384, true],
    [0, 12, true],
    [0, 11, false],
    [4, 16384, true],
    [2, 16384, false],
    [8180, 16384, true],
    [8184, 16384, false],
    [8192, 16384, false],
  ];
  for (const [offset, size, found] of cases) {
    const header = multibootHeader(3).subarray(0, size);
    assertEquals(
      findHeader(fileWith(offset, header, size)),
      found ? { offset, sound: true } : undefined,
      `at ${offset} of ${size}`,
    );
  }
});

Deno.test("a magic that is not a header does not hide one", () => {
  const file = fileWith(64, multibootHeader(0));
  file.set(multibootHeader(0).subarray(0, 4), 16);
  assertEquals(findHeader(file), { offset: 64, sound: true });
  file[64 + 8] = 0;
  assertEquals(findHeader(file), { offset: 16, sound: false });
});

Deno.test("flags that a loader may ignore are ignored, the others refused", () => {
  for (let bit = 0; bit < 32; bit++) {
    const file = fileWith(32, multibootHeader((1 << bit) >>> 0));
    if (bit === 2) {
      const message = "bit 2: it demands a video mode";
      assertRefused(() => parse(file), { field: "multiboot flags", offset: 36, message }, "video");
    } else if (bit > 1 && bit < 16) {
      const message = `bit ${bit}: it demands what is not defined`;
      assertRefused(() => parse(file), { field: "multiboot flags", offset: 36, message }, "bit");
    } else {
      assertEquals(parse(file), { offset: 32, hasAddresses: bit === 16 });
    }
  }
});

Deno.test("no header, and one with a wrong checksum", () => {
  assertRefused(() => parse(new Uint8Array(100)), {
    field: "multiboot header",
    offset: undefined,
    message: "no magic 1BADB002h at a multiple of 4 in the first 8192 of 100 bytes",
  }, "none");
  const file = fileWith(32, multibootHeader(3));
  file[32 + 8] = 0;
  assertRefused(() => parse(file), {
    field: "multiboot checksum",
    offset: 40,
    message: "E4524F00h, not E4524FFBh",
  }, "checksum");
});

Deno.test("address fields must lie in the first 8 KiB, too", () => {
  const header = multibootHeader(0x1_0000);
  assertEquals(parse(fileWith(8160, header)).hasAddresses, true);
  assertRefused(() => parse(fileWith(8164, header)), {
    field: "multiboot header",
    offset: 8164,
    message: "its address fields go beyond the first 8192 bytes",
  }, "beyond");
});

/** Reads address fields of a header at 40h in a file of 1000h bytes. */
function addresses(
  fields: { header?: number; load?: number; loadEnd?: number; bssEnd?: number; entry?: number },
  size = 0x1000,
) {
  const { header = 0x10_0040, load = 0x10_0000, loadEnd = 0, bssEnd = 0, entry = 0x10_0100 } =
    fields;
  const words = multibootHeader(0x1_0000, [header, load, loadEnd, bssEnd, entry]);
  const file = fileWith(0x40, words, 0x1000).subarray(0, size);
  file.fill(0x77, 0x60);
  const reader = new ImageReader("k", file);
  const { piece, entry: start } = readAddresses(reader, readHeader(reader));
  return {
    start,
    gpa: piece.gpa,
    from: piece.bytes.byteOffset,
    length: piece.bytes.length,
    size: piece.size,
  };
}

Deno.test("address fields say what of the file goes where", () => {
  const whole = { start: 0x10_0100, gpa: 0x10_0000, from: 0, length: 0x1000, size: 0x1000 };
  assertEquals(addresses({}), whole);
  assertEquals(addresses({ load: 0x10_0010 }), {
    ...whole,
    gpa: 0x10_0010,
    from: 0x10,
    length: 0xff0,
    size: 0xff0,
  });
  assertEquals(addresses({ loadEnd: 0x10_0200 }), { ...whole, length: 0x200, size: 0x200 });
  assertEquals(addresses({ loadEnd: 0x10_0200, bssEnd: 0x20_0000 }), {
    ...whole,
    length: 0x200,
    size: 0x10_0000,
  });
  assertEquals(addresses({ bssEnd: 0x10_1000 }), whole);
  const least = { ...whole, start: 0x10_0040, length: 0x60, size: 0x60 };
  assertEquals(addresses({ loadEnd: 0x10_0060, entry: 0x10_0040 }), least);
  const later = { ...least, gpa: 0x10_0010, from: 0x10, length: 0x50, size: 0x50 };
  assertEquals(addresses({ load: 0x10_0010, loadEnd: 0x10_0060, entry: 0x10_0040 }), later);
  const top = { load: 2 ** 32 - 0x1000, header: 2 ** 32 - 0xfc0, entry: 2 ** 32 - 0xf00 };
  assertEquals(addresses(top), { ...whole, gpa: top.load, start: top.entry });
});

Deno.test("address fields that contradict each other or the file are refused", () => {
  const cases: [Parameters<typeof addresses>[0], field: string, offset: number, message: string][] =
    [
      [{ load: 0x10_0041 }, "load_addr", 0x50, "100041h is above header_addr"],
      [{ header: 0x10_0041 }, "header_addr", 0x4c, "the image would begin 1 bytes before the file"],
      [{ loadEnd: 0x10_005f }, "load_end_addr", 0x54, "10005Fh is before the header's end"],
      [{ loadEnd: 0x0f_0000 }, "load_end_addr", 0x54, "F0000h is before the header's end"],
      [
        { loadEnd: 0x10_1001 },
        "load_end_addr",
        0x54,
        "1001h bytes from 0h on go beyond the file's",
      ],
      [{ bssEnd: 0x10_0fff }, "bss_end_addr", 0x58, "100FFFh is before the data's end"],
      [{ entry: 0x0f_ffff }, "entry_addr", 0x5c, "FFFFFh is not in the image"],
      [{ entry: 0x10_1000 }, "entry_addr", 0x5c, "101000h is not in the image"],
      [{ bssEnd: 0x20_0000, entry: 0x10_1000 }, "entry_addr", 0x5c, "101000h is not in the image"],
      [
        { load: 0xffff_ff00, header: 0xffff_ff40, entry: 0xffff_ff80 },
        "load_addr",
        0x50,
        "FFFFFF00h: the image leaves 4 GiB",
      ],
    ];
  for (const [fields, field, offset, message] of cases) {
    assertRefused(() => addresses(fields), { field, offset, message }, JSON.stringify(fields));
  }
});

Deno.test("a file that ends in its address fields is refused by the one it lacks", () => {
  const names = ["header_addr", "load_addr", "load_end_addr", "bss_end_addr", "entry_addr"];
  names.forEach((field, i) => {
    const offset = 0x4c + 4 * i;
    assertRefused(() => addresses({}, offset + 3), {
      field,
      offset,
      message: "the file ends at",
    }, field);
  });
});
