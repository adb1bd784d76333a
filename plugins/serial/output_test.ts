import { assertEquals, assertThrows } from "@std/assert";
import { OutputBuffer } from "./output.ts";

const never = (error: unknown): void => {
  throw error;
};

Deno.test("characters are handed on together, at the latest when 4096 have gathered", async () => {
  const pieces: number[][] = [];
  const buffer = new OutputBuffer((bytes) => void pieces.push([...bytes]), never);
  buffer.put(1);
  buffer.put(2);
  assertEquals(pieces, []);
  buffer.flush();
  buffer.flush();
  assertEquals(pieces.splice(0), [[1, 2]]);
  for (let i = 0; i < 4097; i++) buffer.put(i & 0xff);
  assertEquals(pieces.map((piece) => piece.length), [4096]);
  await Promise.resolve();
  assertEquals(pieces.map((piece) => piece.length), [4096, 1]);
  buffer.put(3);
  await Promise.resolve();
  assertEquals(pieces.at(-1), [3], "each time that the program gives way");
});

Deno.test("one look later is enough for however many characters", async () => {
  const { queueMicrotask } = globalThis;
  let looks = 0;
  globalThis.queueMicrotask = (callback) => {
    looks++;
    queueMicrotask(callback);
  };
  try {
    const buffer = new OutputBuffer(() => {}, never);
    for (let i = 0; i < 100; i++) buffer.put(i);
    assertEquals(looks, 1);
    await Promise.resolve();
    buffer.put(1);
    assertEquals(looks, 2);
    await Promise.resolve();
  } finally {
    globalThis.queueMicrotask = queueMicrotask;
  }
});

Deno.test("the bytes may be kept", () => {
  const pieces: Uint8Array[] = [];
  const buffer = new OutputBuffer((bytes) => void pieces.push(bytes), never);
  for (const character of [1, 2]) {
    buffer.put(character);
    buffer.flush();
  }
  assertEquals(pieces, [new Uint8Array([1]), new Uint8Array([2])]);
});

Deno.test("a writer is written to", async () => {
  const pieces: Uint8Array[] = [];
  const stream = new WritableStream<Uint8Array>({ write: (bytes) => void pieces.push(bytes) });
  const writer = stream.getWriter();
  const buffer = new OutputBuffer(writer, never);
  buffer.put(0x41);
  buffer.flush();
  buffer.put(0x42);
  buffer.flush();
  await writer.close();
  assertEquals(pieces, [new Uint8Array([0x41]), new Uint8Array([0x42])]);
});

Deno.test("an error goes to the caller, or where there is none to the one who is told", async () => {
  const errors: unknown[] = [];
  const buffer = new OutputBuffer(() => {
    throw new Error("full");
  }, (error) => void errors.push((error as Error).message));
  buffer.put(1);
  assertThrows(() => buffer.flush(), Error, "full");
  buffer.put(2);
  await Promise.resolve();
  assertEquals(errors, ["full"]);

  const rejecting = new OutputBuffer(
    { write: () => Promise.reject(new Error("gone")) },
    (error) => void errors.push((error as Error).message),
  );
  rejecting.put(1);
  rejecting.flush();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(errors, ["full", "gone"]);
});
