/**
 * The README keeps what it promises: its programs run, its commands and files exist.
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const ROOT = new URL("../", import.meta.url);
const README = await Deno.readTextFile(new URL("README.md", ROOT));
const CONFIG = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT))) as {
  readonly tasks: Readonly<Record<string, unknown>>;
};

/** The fenced blocks of a language, in order. */
function blocks(language: string): string[] {
  const fence = "```";
  const pattern = new RegExp(`^${fence}${language}\\n([^]*?)^${fence}$`, "gm");
  return [...README.matchAll(pattern)].map(([, text]) => text as string);
}

/** Commands in shell blocks, without their comments. */
function commands(): string[] {
  return blocks("sh").flatMap((text) => text.trim().split("\n")).map((line) =>
    line.replace(/\s+#.*$/, "")
  );
}

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs Deno in the project's root, with a program on standard input or without. */
async function deno(args: readonly string[], program?: string): Promise<Ended> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    stdin: program === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  if (program !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(program));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: decode(stdout), err: decode(stderr) };
}

/** Type-checks and runs a program with permission to read. */
function runProgram(text: string): Promise<Ended> {
  return deno(["run", "--quiet", "--check", "--no-prompt", "--allow-read", "-"], text);
}

Deno.test("the program in the README runs a guest and prints its exits", async () => {
  const [program] = blocks("ts");
  assert(program !== undefined);
  const { code, out, err } = await runProgram(program);
  assertEquals([code, err], [0, ""]);
  assertStringIncludes(out, "exits: cpuid 1000\nexit-code exit ");
  assertMatch(out, /\nCPUID +1,000 /);
});

Deno.test("the plugin in the README is a device that a guest can find and read", async () => {
  const [, plugin] = blocks("ts");
  assert(plugin !== undefined);
  const { code, out, err } = await runProgram(`${plugin}
import { cpu, createVm, debugExit, flat, svm } from "@trapline/trapline";
// deno-fmt-ignore
const guest = new Uint8Array([
  0xb8, 0x00, 0x10, 0x00, 0x40, // mov eax, 40001000h
  0x0f, 0xa2,                   // cpuid
  0x89, 0xc2,                   // mov edx, eax
  0xed, 0xed, 0xed,             // in eax, dx, three times
  0xe7, 0xf4,                   // out F4h, eax
]);
using vm = await createVm({
  memory: 2 ** 20,
  plugins: [cpu(), svm(), debugExit(), counter(0x520)],
  images: [flat(guest, { entry: { mode: "protected32" } })],
});
console.log(await vm.run());
`);
  assertEquals([code, err], [0, ""]);
  // (3 << 1) | 1
  assertMatch(out, /reason: "exit-code",\s+code: 7,/);
});

Deno.test("the tasks and files that the README names exist", async () => {
  const tasks = [...README.matchAll(/(?:deno(?:@[\d.]+)?) task ([\w:-]+)/g)].map(([, name]) =>
    name!
  );
  assert(tasks.length > 5);
  for (const name of tasks) assert(Object.hasOwn(CONFIG.tasks, name), `there is no task "${name}"`);
  const links = [...README.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path]) => path!);
  const paths = commands().flatMap((line) => line.match(/\S+\.(?:ts|elf)\b/g) ?? []);
  assert(links.length > 5 && paths.length > 2);
  for (const path of [...links, ...paths]) await Deno.stat(new URL(path, ROOT));
});

Deno.test("links in the README lead to headings that exist", async () => {
  const anchors = [...README.matchAll(/\]\(([^)#:]*)#([^)]+)\)/g)];
  assert(anchors.length > 0);
  for (const [, path, anchor] of anchors) {
    const text = path === "" ? README : await Deno.readTextFile(new URL(path!, ROOT));
    const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-")
    );
    assert(headings.includes(anchor!), `${path} has no heading #${anchor}`);
  }
});

Deno.test("the README's narrow permissions are enough for its command", async () => {
  const line = commands().find((command) => command.startsWith("deno run "));
  assert(line !== undefined);
  const { code, out } = await deno(["run", "--no-prompt", ...line.split(" ").slice(2)]);
  assertEquals(code, 0);
  assertStringIncludes(out, "tour: 163 checks, 0 failed\n");
});

Deno.test("the lab prints the differences that the README shows", async () => {
  const shown = blocks("text").find((text) => text.startsWith("  exit "));
  const [, patch] = /`trapline lab\s([\w-]+)`/.exec(README) ?? [];
  assert(shown !== undefined && patch !== undefined);
  const { code, out } = await deno(["run", "--quiet", "--allow-read", "cli/mod.ts", "lab", patch]);
  assertEquals(code, 0);
  // The README leaves out columns' blanks.
  const words = (line: string) => line.trim().split(/\s+/).join(" ");
  const printed = new Set(out.split("\n").map(words));
  const rows = shown.split("\n").map(words).filter((row) => row !== "");
  assert(rows.length > 5);
  for (const row of rows) assert(printed.has(row), `the lab does not print "${row}"`);
});

Deno.test("the run that the README shows prints the exits that it shows", async () => {
  const line = commands().find((command) => command.includes("--append"));
  const shown = blocks("text").find((text) => text.startsWith("exit "));
  assert(line !== undefined && shown !== undefined);
  const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
  const { code, err } = await deno([...words.slice(1)]);
  assertEquals(code, 1);
  // Addresses change whenever the guest is compiled anew, and the last line has the time that it took.
  const counted = (row: string) => row.slice(0, row.indexOf("%") + 1);
  const printed = new Set(err.split("\n").map(counted));
  const rows = shown.trimEnd().split("\n").slice(1, -1).map(counted);
  assert(rows.length > 5);
  for (const row of rows) assert(printed.has(row), `the run does not print "${row}"`);
});
