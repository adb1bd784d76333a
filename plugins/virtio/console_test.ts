import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { ConsoleInput, virtioConsole } from "./mod.ts";
import { drive, type Driver } from "./fixture_test.ts";

const TEXT = 0x3000;

function receiveBuffer(d: Driver, index: number, length: number): void {
  d.describe(d.queueBase(0), index, { gpa: TEXT + 0x100 * index, length, write: true }, undefined);
  d.offer(0, index);
  d.notify(0);
}

function text(d: Driver, gpa: number, length: number): string {
  const bytes = new Uint8Array(length);
  d.vm.memory.read(gpa, bytes);
  return new TextDecoder().decode(bytes);
}

Deno.test("what the guest prints comes out, from all pieces of a buffer", () => {
  let printed = "";
  using d = drive(
    virtioConsole({ output: (bytes) => void (printed += new TextDecoder().decode(bytes)) }),
    3,
  );
  assertEquals([d.config(0, 4), d.config(0x0a, 2)], [0x1043_1af4, 0x0780]);
  assertEquals(d.start() & 7, 0);
  d.vm.memory.write(TEXT, new TextEncoder().encode("hello, world\n"));
  assertEquals(d.send(1, [{ gpa: TEXT, length: 5 }, { gpa: TEXT + 5, length: 8 }]).length, 0);
  assertEquals([printed, d.edges], ["hello, world\n", ["11 up"]]);
  assertEquals(d.isr(), 1);
});

Deno.test("what is typed fills buffers as they come", () => {
  const input = new ConsoleInput();
  input.push("before ");
  using d = drive(virtioConsole({ input }), 3);
  d.start();
  receiveBuffer(d, 0, 64);
  assertEquals([d.used(0, 0), text(d, TEXT, 7)], [{ id: 0, length: 7 }, "before "]);
  input.push("typed");
  assertEquals(d.usedIndex(0), 1, "there is no buffer");
  receiveBuffer(d, 1, 3);
  receiveBuffer(d, 2, 3);
  assertEquals([d.used(0, 1).length, d.used(0, 2).length], [3, 2]);
  assertEquals(text(d, TEXT + 0x100, 3) + text(d, TEXT + 0x200, 2), "typed");
  receiveBuffer(d, 3, 8);
  d.isr();
  d.edges.length = 0;
  input.push(new Uint8Array([0x21]));
  assertEquals([d.used(0, 3).length, d.edges], [1, ["11 up"]]);
});

Deno.test("an open input may wake the VM; closed, it cannot be typed at", () => {
  const input = new ConsoleInput();
  using d = drive(virtioConsole({ input }), 3);
  assertEquals(d.vm.wakeSources, ["virtioconsole input"]);
  input.close();
  assertEquals([d.vm.wakeSources, input.closed], [[], true]);
  assertThrows(() => input.push("x"), ArgumentError, "closed");
});
