import { assertEquals, assertThrows } from "@std/assert";
import { dependencies, loadOrder, moduleName } from "./kernel_modules.ts";

/** A file with a section like a module's, behind bytes of all kinds. */
function module(depends: string): Uint8Array {
  const info = `\0license=GPL\0depends=${depends}\0retpoline=Y\0name=x\0`;
  return new Uint8Array([
    ...Array.from({ length: 256 }, (_, k) => k),
    ...new TextEncoder().encode(info),
    0xff,
  ]);
}

Deno.test("a module's dependencies are in its file", () => {
  assertEquals(dependencies(module("virtio_ring,virtio")), ["virtio_ring", "virtio"]);
  assertEquals(dependencies(module("")), []);
  assertEquals(dependencies(new Uint8Array(10)), []);
  assertEquals(moduleName("./kernel/arch/x86/crypto/sha512-ssse3.ko"), "sha512_ssse3");
});

Deno.test("what is needed is loaded first, and once", () => {
  const files: Readonly<Record<string, Uint8Array>> = {
    virtio: module(""),
    virtio_ring: module("virtio"),
    virtio_pci: module("virtio-ring,virtio,built_in"),
    virtio_blk: module("virtio,virtio_ring"),
  };
  const order = loadOrder(["virtio_blk", "virtio-pci"], (name) => files[name]);
  assertEquals([...order.keys()], ["virtio", "virtio_ring", "virtio_blk", "virtio_pci"]);
  assertEquals(order.get("virtio_pci"), files.virtio_pci);
  assertThrows(() => loadOrder(["nosuch"], (name) => files[name]), Error, "no module nosuch");
});
