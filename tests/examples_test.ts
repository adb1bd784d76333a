/**
 * The examples, run as their first lines say, with the permissions they name and no others.
 */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const ROOT = new URL("../", import.meta.url);

/** Runs an example by the command that its own comment gives; what it printed. */
async function example(name: string, ...args: string[]): Promise<string> {
  const path = `examples/${name}.ts`;
  const text = await Deno.readTextFile(new URL(path, ROOT));
  const [, line = ""] = /^ \* {5}deno (run .*)$/m.exec(text) ?? [];
  const words = line.split(" ").filter((word) => !word.startsWith("["));
  assertEquals(words[0], "run", `${path} says how to run it`);
  assertEquals(words.at(-1)?.replace("]", ""), path);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...words.slice(1), ...args],
    cwd: ROOT,
    stdin: "null",
  }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals([code, decode(stderr).replace(/^.*Check.*\n/gm, "")], [0, ""]);
  return decode(stdout);
}

Deno.test("example 1: runs an image and prints its exits", async () => {
  const text = await example("01_run_image");
  assertMatch(text, /^exit 1 at [0-9a-f]+h: NESTED_PAGE_FAULT gpa/);
  assertEquals(text.match(/^exit \d+ at/gm)?.length, 10);
  assertStringIncludes(text, "exits: outs 32\nexits: cpuid 3\nexits: rdmsr 2\n");
  assertStringIncludes(text, "the guest ended with code 1\n");
  assertMatch(text, /\nCPUID +3 /);
});

Deno.test("example 1: takes an image and its arguments", async () => {
  const text = await example("01_run_image", "examples/guests/loops/loops.elf", "sort=2");
  assertMatch(text, /^loops: sort rounds 2 checksum [0-9a-f]{8}$/m);
});

Deno.test("example 2: a third party's device, hypercall and hook", async () => {
  assertEquals(
    await example("02_third_party_plugin"),
    "vCPU 0 at 7c0dh: 32 degrees\n" +
      "vCPU 0 at 7c0dh: 35 degrees\n" +
      "the guest ended with code 1, after 12 exits\n",
  );
});

Deno.test("example 3: a policy that is swapped changes the exits", async () => {
  assertEquals(
    await example("03_swap_policy"),
    "slow    1000 operations, 11002 exits, 32000 instructions: 11.0 exits an operation\n" +
      "instant 1000 operations, 2000 exits, 5000 instructions: 2.0 exits an operation\n",
  );
});

Deno.test("example 4: a program written for APX takes fewer instructions where it is to", async () => {
  const [head, ...rows] = (await example("04_apx")).trimEnd().split("\n");
  assertStringIncludes(head!, "without APX   with APX");
  const counts = rows.map((row) => /^(\w+) +[0-9a-f]+ +(\d+) +(\d+)/.exec(row)!.slice(1));
  assertEquals(counts.map(([name]) => name), ["mix", "words", "list", "medians", "tree"]);
  for (const [name, plain, apx] of counts) {
    // The list takes a few more, in place of a branch.
    assertEquals(Number(apx) < Number(plain), name !== "list", name);
  }
});
