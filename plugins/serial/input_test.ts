import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import { type InputListener, inputOf, SerialInput } from "./input.ts";
import { BREAK } from "./uart.ts";

/** A listener that writes down what it hears. */
function listener(): InputListener & { log: string[] } {
  const log: string[] = [];
  return {
    log,
    arrived: () => void log.push("arrived"),
    ended: () => void log.push("ended"),
    failed: (error) => void log.push(`failed: ${(error as Error).message}`),
  };
}

/** Everything that can be taken. */
function drain(input: SerialInput): number[] {
  const characters: number[] = [];
  for (let c = input.take(); c >= 0; c = input.take()) characters.push(c);
  return characters;
}

/** Lets promises settle. */
const settle = () => new Promise<void>((resolve) => setTimeout(resolve));

Deno.test("what is pushed can be taken, in order", () => {
  const input = new SerialInput();
  const bytes = new Uint8Array([1, 2, 255]);
  input.push(bytes);
  bytes.fill(9);
  input.push("");
  input.push("aü");
  input.sendBreak();
  input.push("b");
  assertEquals(drain(input), [1, 2, 255, 0x61, 0xc3, 0xbc, BREAK, 0x62]);
  assertEquals(input.take(), -1);
});

Deno.test("listeners hear of what comes, and of the end once", () => {
  const input = new SerialInput();
  const [first, second] = [listener(), listener()];
  input.push("before");
  input.attach(first);
  input.push("x");
  input.attach(second);
  input.sendBreak();
  input.detach(first);
  input.close();
  input.close();
  assertEquals(first.log, ["arrived", "arrived"]);
  assertEquals(second.log, ["arrived", "ended"]);
  assertEquals([input.closed, drain(input).length], [true, 8]);
});

Deno.test("nothing can be pushed onto a closed line", () => {
  const input = new SerialInput();
  input.close();
  assertThrows(() => input.push("x"), ArgumentError, "the line was closed");
  assertThrows(() => input.sendBreak(), ArgumentError, "the line was closed");
});

Deno.test("a stream is read only while somebody listens and nothing waits", async () => {
  let pulled = 0;
  const chunks = ["ab", "c", "de"];
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulled++;
      const chunk = chunks.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(new TextEncoder().encode(chunk));
    },
  }, { highWaterMark: 0 });
  const input = inputOf(stream);
  await settle();
  assertEquals([pulled, input.take()], [0, -1]);

  const one = listener();
  input.attach(one);
  await settle();
  assertEquals([pulled, one.log], [1, ["arrived"]]);
  assertEquals([input.take(), input.take()], [0x61, 0x62]);
  await settle();
  assertEquals(pulled, 1, "nobody has asked for more");
  assertEquals(input.take(), -1);
  await settle();
  assertEquals([pulled, input.take()], [2, 0x63]);
  assertEquals(input.take(), -1);
  await settle();
  assertEquals(drain(input), [0x64, 0x65]);
  await settle();
  assertEquals(one.log, ["arrived", "arrived", "arrived", "ended"]);
  assertEquals([input.closed, stream.locked], [true, false]);
});

Deno.test("a stream that nobody listens to any more is let go of, and loses nothing", async () => {
  let source: ReadableStreamDefaultController<Uint8Array> | undefined;
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => void (source = controller),
  });
  const input = inputOf(stream);
  const one = listener();
  input.attach(one);
  assertEquals(stream.locked, true);
  input.detach(one);
  assertEquals(stream.locked, false);
  source?.enqueue(new Uint8Array([7]));
  await settle();
  assertEquals([one.log, input.take()], [[], -1]);
  const two = listener();
  input.attach(two);
  await settle();
  assertEquals([one.log, two.log, input.take()], [[], ["arrived"], 7]);
  input.detach(two);
});

Deno.test("one stream is one line, whoever asks for it", async () => {
  const stream = ReadableStream.from([new Uint8Array([1, 2]), new Uint8Array([3])]);
  const [old, fresh] = [inputOf(stream), inputOf(stream)];
  assertStrictEquals(old, fresh);
  const one = listener();
  old.attach(one);
  await settle();
  assertEquals(old.take(), 1);
  old.detach(one);
  fresh.attach(listener());
  assertEquals(drain(fresh), [2]);
  await settle();
  assertEquals(drain(fresh), [3]);
  await settle();
  assertEquals(fresh.closed, true);
  const made = new SerialInput();
  assertStrictEquals(inputOf(made), made);
});

Deno.test("a piece of a stream without anything in it is passed over", async () => {
  const input = inputOf(ReadableStream.from([new Uint8Array(0), new Uint8Array([5])]));
  const one = listener();
  input.attach(one);
  await settle();
  assertEquals([one.log, drain(input)], [["arrived"], [5]]);
  await settle();
});

Deno.test("a stream that fails ends the line and says why", async () => {
  const stream = new ReadableStream<Uint8Array>({
    pull: () => Promise.reject(new Error("the cable broke")),
  });
  const input = inputOf(stream);
  const one = listener();
  input.attach(one);
  await settle();
  assertEquals([one.log, input.closed], [["failed: the cable broke"], true]);
  assertEquals(stream.locked, false);
});

Deno.test("pushed characters and a stream share the line", async () => {
  const input = new SerialInput(ReadableStream.from([new Uint8Array([0x62])]));
  input.push("a");
  input.attach(listener());
  assertEquals(drain(input), [0x61]);
  await settle();
  input.push("c");
  assertEquals(drain(input), [0x62, 0x63]);
  input.close();
  await settle();
});
