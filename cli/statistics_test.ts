import { assert, assertEquals, assertMatch } from "@std/assert";
import { MemoryCodeCache } from "../plugins/cpu/mod.ts";
import { FakeIo, guest } from "./fixture_test.ts";
import { main } from "./mod.ts";

/** A cache that counts how often it was saved. */
class Kept extends MemoryCodeCache {
  saved = 0;
  constructor() {
    super(1 << 24);
  }
  save(): void {
    this.saved++;
  }
}

const RUN = ["run", guest("tour"), "--vendor=metal", "--no-profile", "--max-instructions=20000000"];

/** The numbers of compiled regions and of those from the cache, as printed. */
function regions(text: string): number[] {
  const line = /regions +(\S+) compiled .*?, (\S+) of them from the cache/.exec(text);
  assert(line !== null, text);
  return line.slice(1).map((number) => Number(number.replaceAll(",", "")));
}

Deno.test("--stats prints shares that come to 100 % and counts that are there", async () => {
  const io = new FakeIo();
  await main([...RUN, "--stats"], io);
  const [, one, two] = /tier 1 ([\d.]+)%, tier 2 ([\d.]+)% of/.exec(io.err)!;
  assertEquals(Math.round(Number(one) + Number(two)), 100);
  const times = [...io.err.matchAll(/ s +([\d.-]+)%$/gm)].map(([, percent]) => Number(percent));
  assertEquals(times.length, 5);
  assert(Math.abs(times.reduce((sum, percent) => sum + percent) - 100) < 0.3, io.err);
  for (const name of ["exits", "page walks", "looks for a block"]) {
    assertMatch(io.err, new RegExp(`^  ${name}.* [1-9][\\d,]* `, "m"));
  }
  const [compiled, cached] = regions(io.err);
  assert(compiled! > 0);
  assertEquals(cached, 0);
});

Deno.test("--code-cache: a second run has all of its code from there; --no-code-cache: none", async () => {
  const caches = { kept: new Kept() };
  const run = async (...options: string[]) => {
    const io = new FakeIo({ caches });
    await main([...RUN, "--stats", "--code-cache=kept", ...options], io);
    return regions(io.err);
  };
  const [compiled] = await run();
  assertEquals(await run(), [compiled, compiled]);
  assertEquals(caches.kept.saved, 2);
  assertEquals(await run("--no-code-cache"), [compiled, 0]);
  assertEquals(caches.kept.saved, 2);
});

Deno.test("a cache that may not be used, or cannot be saved: the run is the same, and it is said", async () => {
  const plain = new FakeIo();
  const status = await main(RUN, plain);
  const denied = new FakeIo();
  assertEquals(await main([...RUN, "--code-cache=elsewhere"], denied), status);
  assertMatch(denied.err, /^trapline: --code-cache elsewhere: no permission/m);
  const full = new Kept();
  full.save = () => {
    throw new Error("No space left on device (os error 28)");
  };
  const failing = new FakeIo({ caches: { full } });
  assertEquals(await main([...RUN, "--code-cache=full"], failing), status);
  assertMatch(failing.err, /^trapline: --code-cache full: not saved: No space left/m);
  const other = Object.assign(new Kept(), { problem: "the file is no cache" });
  const foreign = new FakeIo({ caches: { other } });
  assertEquals(await main([...RUN, "--code-cache=other"], foreign), status);
  assertMatch(foreign.err, /^trapline: --code-cache other: the file is no cache; without/m);
  assertEquals(other.saved, 0);
  assertEquals([denied.out, failing.out, foreign.out], [plain.out, plain.out, plain.out]);
});
