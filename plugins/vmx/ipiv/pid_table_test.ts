import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../../core/mod.ts";
import { FlatMemory } from "../../../core/testing/mod.ts";
import { ipiv, PidPointerTable } from "./mod.ts";

Deno.test("entries are 8 bytes: a valid bit and the descriptor's address (SDM vol. 3, 30.1.6)", () => {
  for (
    const [last, bytes] of [[0, 0x1000], [511, 0x1000], [512, 0x2000], [4095, 0x8000]] as const
  ) {
    const memory = new FlatMemory(2 ** 17);
    const table = new PidPointerTable(memory, last);
    assertEquals([memory.used, table.lastIndex], [bytes, last]);
    assertEquals([table.low(0), table.low(last)], [0, 0]);
    table.set(last, 0x12_3456_7040);
    assertEquals(memory.readU64(table.hpa + 8 * last), 0x12_3456_7041n);
    table.free();
    assertEquals(memory.used, 0);
  }
});

Deno.test("the number of vCPU ids is from 1 to 4096", () => {
  for (const vcpuIds of [0, 4097, 1.5, NaN]) assertThrows(() => ipiv({ vcpuIds }), ArgumentError);
  assertEquals(ipiv({ vcpuIds: 4096 }).name, "ipiv");
});
