import { assertEquals, assertThrows } from "@std/assert";
import { TraplineError } from "../../core/mod.ts";
import { ImageError, ImageReader } from "./error.ts";

Deno.test("an error names the image, the field and the place", () => {
  const error = new ImageError("a.elf", "e_type", 16, "3, not 2");
  assertEquals(error.message, 'image "a.elf": e_type (at 10h in the file): 3, not 2');
  assertEquals([error.name, error.image, error.field, error.offset], [
    "ImageError",
    "a.elf",
    "e_type",
    16,
  ]);
  assertEquals(error instanceof TraplineError, true);
  assertEquals(new ImageError("b", "module 0", undefined, "no").message, 'image "b": module 0: no');
});

Deno.test("fields are little-endian and end with the file", () => {
  const whole = new Uint8Array([0xee, 1, 2, 3, 4, 5, 6, 7, 0x88, 0xee]);
  // A view that begins elsewhere than its buffer.
  const reader = new ImageReader("x", whole.subarray(1, 9));
  assertEquals([reader.u8(7, "f"), reader.u16(6, "f"), reader.u32(4, "f")], [
    0x88,
    0x8807,
    0x8807_0605,
  ]);
  assertEquals([reader.u64(0, "f"), reader.size], [0x8807_0605_0403_0201n, 8]);
  for (const [read, offset] of [["u8", 8], ["u16", 7], ["u32", 5], ["u64", 1]] as const) {
    const error = assertThrows(() => reader[read](offset, "p_x"), ImageError, "file ends at 8h");
    assertEquals([error.field, error.offset], ["p_x", offset]);
  }
});

Deno.test("a size of 64 bits must be one that can be counted with", () => {
  const bytes = new Uint8Array(8);
  const reader = new ImageReader("x", bytes);
  bytes.fill(0xff, 0, 6).set([0x1f], 6);
  assertEquals(reader.size64(0, "f"), Number.MAX_SAFE_INTEGER);
  bytes[6] = 0x20;
  assertThrows(() => reader.size64(0, "f"), ImageError, "20FFFFFFFFFFFFh is too large");
});
