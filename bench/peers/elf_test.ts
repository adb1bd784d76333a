import { assert, assertEquals } from "@std/assert";
import { multibootInfo, readElf } from "./elf.ts";
import { imageOf } from "./peer.ts";

Deno.test("an image's segments, entry and symbols", async () => {
  const { entry, segments, symbols } = readElf(await Deno.readFile(imageOf("system")));
  assertEquals(segments[0]?.address, 0x100000);
  assertEquals(symbols.get("start"), entry);
  assert(symbols.get("start64")! > entry);
});

Deno.test("multiboot information points at the command line", () => {
  const bytes = multibootInfo("a=1 b");
  const view = new DataView(bytes.buffer);
  assertEquals(view.getUint32(0, true), 4);
  assertEquals(
    new TextDecoder().decode(bytes.subarray(view.getUint32(16, true) - 0x5000)),
    "a=1 b\0\0\0",
  );
});
