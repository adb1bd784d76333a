import { assertEquals } from "@std/assert";
import { scriptedVm } from "../../core/testing/mod.ts";
import { firmwareVectors } from "./vectors.ts";

Deno.test("vectors lead to handlers that end what the 8259s have in service", () => {
  using machine = scriptedVm({ images: [firmwareVectors()], memory: 2 ** 20 });
  const { memory } = machine.vm;
  const code = (vector: number, length: number): number[] => {
    const entry = memory.readU32(4 * vector);
    const bytes = new Uint8Array(length);
    memory.read((entry >>> 16) * 16 + (entry & 0xffff), bytes);
    return [...bytes];
  };
  for (const vector of [0x00, 0x07, 0x10, 0x6f, 0x78, 0xff]) {
    assertEquals(code(vector, 1), [0xcf], vector.toString(16));
  }
  for (const vector of [0x08, 0x0f]) {
    assertEquals(code(vector, 7), [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]);
  }
  for (const vector of [0x70, 0x77]) {
    assertEquals(code(vector, 9), [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]);
  }
  // RSM at SMBASE + 8000h.
  assertEquals(memory.readU16(0x3_8000), 0xaa0f);
});
