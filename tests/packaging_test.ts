/**
 * The package: what it exports, what it is made of, and what a checkout needs.
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import * as everything from "@trapline/trapline";
import { denoIo, main } from "../cli/mod.ts";

const ROOT = new URL("../", import.meta.url);
const read = (path: string): Promise<string> => Deno.readTextFile(new URL(path, ROOT));

interface Config {
  readonly name: string;
  readonly license: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly tasks: Readonly<Record<string, { readonly description?: string }>>;
}

const CONFIG = JSON.parse(await read("deno.json")) as Config;

/** Every `mod.ts` under a folder, as paths from the root. */
async function faces(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(`${folder}/`, ROOT))) {
    const path = `${folder}/${name}`;
    if (isDirectory) found.push(...await faces(path));
    else if (name === "mod.ts") found.push(`./${path}`);
  }
  return found;
}

/** Parts of the processor with a face of their own that is not for users. */
const INSIDE = /^\.\/plugins\/(?:cpu|svm)\/(?!mod\.ts|avic\/mod\.ts)/;

Deno.test("every plugin is exported", async () => {
  const exported = new Set(Object.values(CONFIG.exports));
  for (const path of exported) await Deno.stat(new URL(path, ROOT));
  const plugins = (await faces("plugins")).filter((path) => !INSIDE.test(path));
  assert(plugins.length > 10);
  for (const path of plugins) assert(exported.has(path), `${path} is not in deno.json's exports`);
});

Deno.test("the whole package has the factory of every plugin that the command line lists", async () => {
  let printed = "";
  const io = {
    ...denoIo(),
    stdout: (bytes: Uint8Array) => void (printed += new TextDecoder().decode(bytes)),
  };
  assertEquals(await main(["plugins"], io), 0);
  const rows = printed.trimEnd().split("\n").map((row) => row.split(/ {2,}/));
  const listed = new Set(rows.map(([, module]) => module!.replace(CONFIG.name, ".")));
  for (const [name, path] of Object.entries(CONFIG.exports)) {
    if (!path.startsWith("./plugins/")) continue;
    const module = await import(new URL(path, ROOT).href) as Record<string, unknown>;
    const whole = everything as Record<string, unknown>;
    assert(
      Object.keys(module).some((key) => /^[a-z]/.test(key) && whole[key] === module[key]),
      `mod.ts has no factory of ${name}`,
    );
    // Loaders make images, not plugins.
    if (name === "./multiboot" || name === "./flat") continue;
    assert(listed.has(name), `trapline plugins does not list ${name}`);
  }
});

Deno.test("the package imports nothing from outside", async () => {
  const published = ["core", "plugins", "patches", "lab", "cli"];
  const visit = async (folder: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(new URL(`${folder}/`, ROOT))) {
      const path = `${folder}/${name}`;
      if (isDirectory) await visit(path);
      else if (/\.ts$/.test(name) && !/_test\.ts$/.test(name)) {
        const text = (await read(path)).replace(/\/\*\*[^]*?\*\//g, "");
        const outside = [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom "([^".][^"]*)"/gm)];
        assertEquals(outside.map(([, specifier]) => specifier), [], path);
      }
    }
  };
  for (const folder of published) await visit(folder);
});

Deno.test("the lock file names packages and their sums, and no host", async () => {
  const lock = await read("deno.lock");
  assertStringIncludes(lock, '"integrity"');
  assertEquals(lock.match(/https?:|tarball/g), null);
});

Deno.test("the tasks that the documents name exist", async () => {
  for (const path of ["CONTRIBUTING.md", "docs/architecture.md", "examples/guests/README.md"]) {
    for (const [, name] of (await read(path)).matchAll(/deno(?:@[\d.]+)? task ([\w:-]+)/g)) {
      assert(Object.hasOwn(CONFIG.tasks, name!), `${path}: there is no task "${name}"`);
    }
  }
});

Deno.test("every folder and file that the documents point to exists", async () => {
  for (const path of ["CONTRIBUTING.md", "docs/architecture.md", "examples/guests/README.md"]) {
    const text = await read(path);
    for (const [, link] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      await Deno.stat(new URL(link!, new URL(path, ROOT)));
    }
    for (
      const [, file] of text.matchAll(
        /`((?:core|plugins|cli|lab|patches|tests|tools|examples)\/[\w./-]+)`/g,
      )
    ) {
      await Deno.stat(new URL(file!, ROOT));
    }
  }
});

Deno.test("license, tasks and the script for continuous integration", async () => {
  assertEquals(CONFIG.license, "Apache-2.0");
  assertMatch(await read("LICENSE"), /Apache License\s+Version 2\.0, January 2004/);
  for (const [name, { description }] of Object.entries(CONFIG.tasks)) {
    assert(description !== undefined, `the task "${name}" has no description`);
  }
  const script = await read(".ci/run");
  assertStringIncludes(script, "npx -y deno@2.9.6");
  const named = [...script.matchAll(/deno task ([\w:-]+)/g)].map(([, name]) => name!);
  assert(named.includes("test") && named.includes("start"));
  for (const name of named) assert(Object.hasOwn(CONFIG.tasks, name), name);
  for await (const { name } of Deno.readDir(new URL("examples/", ROOT))) {
    if (name.endsWith(".ts")) assertStringIncludes(script, `examples/${name}`);
  }
});
