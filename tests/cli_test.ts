/**
 * The command line as a process, with the permissions that it is documented to need.
 */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const ROOT = new URL("../", import.meta.url);

const guest = (name: string): string => `examples/guests/${name}/${name}.elf`;

function command(permissions: readonly string[], args: readonly string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--quiet", ...permissions, "cli/mod.ts", ...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

interface Finished {
  readonly code: number;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

function told({ code, stdout, stderr }: Finished): { code: number; out: string; err: string } {
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: decode(stdout), err: decode(stderr) };
}

Deno.test("a run needs permission to read the image, and no other", async () => {
  const image = guest("tour");
  const { code, out, err } = told(
    await command([`--allow-read=${image}`], ["run", image, "--success=1"]).output(),
  );
  assertEquals(code, 0);
  assertStringIncludes(out, "tour: begin\n");
  assertStringIncludes(out, "tour: 163 checks, 0 failed\n");
  assertMatch(err, /^trapline: the guest ended with code 1\n\nexit +count +share +at RIP\n/);
  assertMatch(err, /\nsvm: [\d,]+ instructions, .* MIPS\n$/);
});

Deno.test("without that permission there is a message, not a stack trace", async () => {
  const { code, out, err } = told(await command([], ["run", guest("tour")]).output());
  assertEquals([code, out], [66, ""]);
  assertMatch(err, /^trapline: image "[^\n]*--allow-read[^\n]*\n$/);
});

Deno.test("--json needs permission to write that file", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  try {
    const image = guest("exits");
    const args = ["run", image, "--append=cpuid=2", `--json=${path}`];
    const refused = told(await command([`--allow-read=${image}`], args).output());
    assertEquals([refused.code, refused.out], [74, ""]);
    assertStringIncludes(refused.err, "--allow-write");
    // What was there before is overwritten, not patched.
    await Deno.writeTextFile(path, "x".repeat(100_000));
    const good = told(
      await command([`--allow-read=${image}`, `--allow-write=${path}`], args).output(),
    );
    assertEquals([good.code, good.out], [1, "exits: cpuid 2\n"]);
    const record = JSON.parse(await Deno.readTextFile(path));
    assertEquals([record.schema, record.version, record.status], ["trapline-run", 1, 1]);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("Ctrl-C ends a run with the profile so far", async () => {
  const child = command(["--allow-read"], ["run", guest("spin")]).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  assertEquals(new TextDecoder().decode(value), "spin: for ever\n");
  child.kill("SIGINT");
  const err = await new Response(child.stderr).text();
  const { code, signal } = await child.status;
  await reader.cancel();
  assertEquals([code, signal], [130, null]);
  assertMatch(
    err,
    /^trapline: stopped with vCPU 0 at RIP 10002[0-9a-f]h \(main\+1[0-9a-f]h\), .*: Ctrl-C\n/,
  );
  assertMatch(err, /\nIO +38 /);
});

Deno.test({
  name: "SIGTERM ends a run with the profile so far, too",
  ignore: Deno.build.os === "windows",
  async fn() {
    const child = command(["--allow-read"], ["run", guest("spin"), "--no-stdin"]).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGTERM");
    const err = await new Response(child.stderr).text();
    const { code, signal } = await child.status;
    await reader.cancel();
    assertEquals([code, signal], [130, null]);
    assertMatch(err, /^trapline: stopped .*: SIGTERM\n/);
    assertMatch(err, /\nIO +38 /);
  },
});

Deno.test("a full disk and a closed standard error are no reason for a stack trace", async () => {
  const full = await Deno.open("/dev/full", { write: true }).catch(() => undefined);
  if (full === undefined) return; // only Linux has one
  full.close();
  const shell = (line: string) =>
    new Deno.Command("sh", {
      args: ["-c", `"$0" run --no-prompt --quiet --allow-read cli/mod.ts ${line}`, Deno.execPath()],
      cwd: ROOT,
      stdin: "null",
    }).output();
  const lost = told(await shell(`run ${guest("tour")} --quiet >/dev/full`));
  assertEquals(lost.code, 74);
  assertMatch(lost.err, /^trapline: stopped with .*: standard output: No space left[^\n]*\n$/);
  const silent = told(await shell(`run ${guest("hang")} 2>/dev/full`));
  assertEquals([silent.code, silent.out], [132, "hang: halting with interrupts off\n"]);
});

Deno.test("a death is told in the status and in words", async () => {
  const { code, err } = told(await command(["--allow-read"], ["run", guest("hang")]).output());
  assertEquals(code, 132);
  assertStringIncludes(
    err,
    "trapline: vCPU 0 halted for good by HLT at RIP 100029h (main+19h), interrupts off",
  );
});

Deno.test("a wrong word is told in one line", async () => {
  const { code, out, err } = told(await command([], ["run", "x", "--memory=lots"]).output());
  assertEquals([code, out], [64, ""]);
  assertEquals(err.split("\n").length, 2);
});
