import { assertEquals } from "@std/assert";
import { cpio } from "./cpio.ts";

/** Takes an archive apart: name, mode, content, device. */
function parse(bytes: Uint8Array): [name: string, mode: number, content: string, device: string][] {
  const text = (from: number, to: number) => new TextDecoder().decode(bytes.subarray(from, to));
  const found: [string, number, string, string][] = [];
  for (let at = 0; at < bytes.length;) {
    assertEquals(text(at, at + 6), "070701");
    const field = (i: number) => Number.parseInt(text(at + 6 + 8 * i, at + 14 + 8 * i), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const name = text(at + 110, at + 110 + nameSize - 1);
    assertEquals(bytes[at + 110 + nameSize - 1], 0);
    const content = (at + 110 + nameSize + 3) & ~3;
    found.push([name, mode, text(content, content + size), `${field(9)}:${field(10)}`]);
    at = (content + size + 3) & ~3;
  }
  return found;
}

Deno.test("an archive has its entries, aligned, and a trailer", () => {
  const archive = cpio([
    { path: "bin", kind: "folder" },
    { path: "bin/tool", kind: "file", bytes: new TextEncoder().encode("hello") },
    { path: "bin/sh", kind: "link", target: "tool" },
    { path: "console", kind: "device", major: 5, minor: 1 },
  ]);
  assertEquals(archive.length % 4, 0);
  assertEquals(parse(archive), [
    ["bin", 0o40755, "", "0:0"],
    ["bin/tool", 0o100755, "hello", "0:0"],
    ["bin/sh", 0o120777, "tool", "0:0"],
    ["console", 0o20600, "", "5:1"],
    ["TRAILER!!!", 0, "", "0:0"],
  ]);
});
