import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { fwCfg, FwCfgItem, type FwCfgOptions } from "./mod.ts";

/** Reads `count` bytes of item `key` of a machine with `cpus` vCPUs. */
function readItem(key: number, count: number, options: FwCfgOptions = {}, cpus = 1): number[] {
  using machine = scriptedVm({ plugins: [fwCfg(options)], cpus, memory: 0x9_5000 });
  const { pio } = machine.vm;
  pio.write(0x510, 2, key);
  return Array.from({ length: count }, () => pio.read(0x511, 1));
}

Deno.test("fw_cfg: the machine's items, and zeros behind them", () => {
  const text = (characters: string) => Array.from(characters, (c) => c.charCodeAt(0));
  assertEquals(readItem(FwCfgItem.SIGNATURE, 5), [...text("QEMU"), 0]);
  assertEquals(readItem(FwCfgItem.ID, 5), [1, 0, 0, 0, 0]);
  assertEquals(readItem(FwCfgItem.RAM_SIZE, 9), [0x00, 0x50, 0x09, 0, 0, 0, 0, 0, 0]);
  assertEquals(readItem(FwCfgItem.NB_CPUS, 3, {}, 3), [3, 0, 0]);
  assertEquals(readItem(FwCfgItem.MAX_CPUS, 3, {}, 3), [3, 0, 0]);
  assertEquals(readItem(FwCfgItem.FILE_DIR, 4), [0, 0, 0, 0]);
  assertEquals(readItem(0x4321, 2), [0, 0]);
});

Deno.test("fw_cfg: selecting begins an item anew", () => {
  using machine = scriptedVm({ plugins: [fwCfg()] });
  const { pio } = machine.vm;
  for (let round = 0; round < 2; round++) {
    pio.write(0x510, 2, FwCfgItem.SIGNATURE);
    assertEquals(pio.read(0x511, 1), "Q".charCodeAt(0));
    assertEquals(pio.read(0x511, 1), "E".charCodeAt(0));
  }
  // Neither a byte written nor the selector read changes where the reading is.
  pio.write(0x510, 1, 5);
  pio.write(0x511, 1, 5);
  assertEquals(pio.read(0x510, 1), 0xff);
  assertEquals(pio.read(0x511, 1), "M".charCodeAt(0));
});

Deno.test("fw_cfg: items of one's own, also instead of the machine's", () => {
  const items = new Map([[0x8000, Uint8Array.of(1, 2)], [FwCfgItem.NB_CPUS, Uint8Array.of(7)]]);
  assertEquals(readItem(0x8000, 3, { items }), [1, 2, 0]);
  assertEquals(readItem(FwCfgItem.NB_CPUS, 2, { items }), [7, 0]);
});

Deno.test("fw_cfg: keys that cannot be are refused", () => {
  for (const key of [-1, 0x1_0000, 0.5]) {
    assertThrows(() => fwCfg({ items: new Map([[key, Uint8Array.of()]]) }), ArgumentError);
  }
});
