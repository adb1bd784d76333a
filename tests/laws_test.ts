/**
 * The three laws of the tree, read off the import graph.
 *
 * 1. `core/` imports nothing outside `core/`, and holds no vendor's word.
 * 2. A plugin imports `core/mod.ts` and the `mod.ts` of plugins that it declares; never another
 *    plugin's inside.
 * 3. `patches/`, `lab/`, `cli/`, `examples/`, `bench/` and `tests/` import only what a user could
 *    import.
 *
 * Tests and benchmarks beside the code may also import `core/testing/mod.ts`, and tests the `mod.ts` of
 * any plugin. From outside the tree only `@std` may be imported, by the core's tests alone.
 */

import { assert, assertEquals } from "@std/assert";

/** Paths from the project's root, with the text of the files. */
type Tree = ReadonlyMap<string, string>;

const ROOT = new URL("../", import.meta.url);
const USERS = ["patches", "lab", "cli", "examples", "bench", "tests"];
const FOLDERS = ["core", "plugins", ...USERS];

/** Words of one vendor's manual. Manuals themselves are cited as APM and SDM. */
const VENDOR_WORDS = new Set(
  ("amd apicv asid avic ept eptp ipiv intel invept invvpid iopm msrpm npt svm vmcb vmclear vmcs " +
    "vmlaunch vmload vmptrld vmread vmresume vmrun vmsave vmwrite vmx vmxon vpid x2avic")
    .split(
      " ",
    ),
);

/** Plugins that live in another's folder, whose vendor they extend. To the laws they are their own. */
const NESTED = ["svm/avic", "vmx/apicv", "vmx/ipiv"];

/** The plugin, by folder under `plugins/`, that a file belongs to. */
function pluginOf(path: string): string {
  const inside = path.slice("plugins/".length);
  return NESTED.find((folder) => inside.startsWith(`${folder}/`)) ?? inside.split("/")[0] as string;
}

/** The name of the plugin that a path is the public face of. */
function faceOf(path: string): string | undefined {
  const folder = /^plugins\/(.+)\/mod\.ts$/.exec(path)?.[1];
  if (folder === undefined || folder.includes("/") && !NESTED.includes(folder)) return undefined;
  return folder.split("/").at(-1);
}

const isTest = (path: string) => /_(test|bench)\.ts$/.test(path);

/** What a file imports or re-exports, as written. */
function specifiers(text: string): string[] {
  const found: string[] = [];
  for (
    const pattern of [
      /^[ \t]*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']/gm,
      /^[ \t]*import\s*["']([^"']+)["']/gm,
      /(?<![.\w])import\(\s*["']([^"']+)["']/g,
    ]
  ) {
    for (const [, specifier] of text.matchAll(pattern)) found.push(specifier as string);
  }
  return found;
}

/** The path that a relative specifier in `from` means. */
function resolve(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

/** Strings and names in the `requires` and `optional` arrays of a plugin's files. */
function declared(tree: Tree, plugin: string): Set<string> {
  const names = new Set<string>();
  for (const [path, text] of tree) {
    if (!path.startsWith("plugins/") || pluginOf(path) !== plugin || isTest(path)) continue;
    for (const [, list] of text.matchAll(/\b(?:requires|optional)\s*:\s*\[([^\]]*)\]/g)) {
      for (const [name] of (list as string).matchAll(/[\w-]+/g)) names.add(name);
    }
  }
  return names;
}

/** Names that a file imports from a module, as written. */
function importedNames(text: string, specifier: string): string[] {
  const names: string[] = [];
  for (
    const [, list, from] of text.matchAll(/import\b[^;"']*?\{([^}]*)\}\s*from\s*["']([^"']+)/g)
  ) {
    if (from !== specifier) continue;
    for (const item of (list as string).split(",")) {
      const name = item.replace(/^\s*type\s/, "").trim().split(/\s+as\s+/).at(-1);
      if (name) names.push(name);
    }
  }
  return names;
}

function checkImport(
  tree: Tree,
  path: string,
  text: string,
  specifier: string,
): string | undefined {
  const [top] = path.split("/") as [string];
  const test = isTest(path);
  if (!specifier.startsWith(".")) {
    if (/^@std\//.test(specifier)) return top !== "core" || test ? undefined : "is outside core/";
    if (USERS.includes(top) && /^@trapline\/trapline(?:\/|$)/.test(specifier)) return undefined;
    return "is outside the tree";
  }
  const target = resolve(path, specifier);
  if (!tree.has(target)) return "does not exist";
  if (top === "core") {
    return target.startsWith("core/") ? undefined : "is outside core/";
  }
  if (target === "core/mod.ts") return undefined;
  if (target === "core/testing/mod.ts") {
    return test || USERS.includes(top) ? undefined : "is for tests";
  }
  if (top === "plugins") {
    const folder = pluginOf(path);
    if (target.startsWith("plugins/") && pluginOf(target) === folder) return undefined;
    const other = faceOf(target);
    if (other === undefined) return "is not the public face of a plugin or of the core";
    const names = declared(tree, folder);
    const known = names.has(other) ||
      importedNames(text, specifier).some((name) => names.has(name));
    return known || test ? undefined : `belongs to a plugin that "${folder}" does not declare`;
  }
  if (target.startsWith(`${top}/`) || faceOf(target) !== undefined) return undefined;
  if (["patches/mod.ts", "lab/mod.ts", "cli/mod.ts"].includes(target)) return undefined;
  return "is not what a user could import";
}

/** Words of a text, with camelCase and snake_case taken apart as well as whole. */
function words(text: string): string[] {
  return [...text.matchAll(/[A-Za-z0-9]+/g)].flatMap(([word]) => [
    word,
    ...word.split(/(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/),
  ]);
}

/** Everything in `tree` that breaks a law, one sentence each. */
function violations(tree: Tree): string[] {
  const found: string[] = [];
  for (const [path, text] of tree) {
    for (const specifier of specifiers(text)) {
      const wrong = checkImport(tree, path, text, specifier);
      if (wrong !== undefined) found.push(`${path} imports "${specifier}", which ${wrong}`);
    }
    if (!path.startsWith("core/")) continue;
    const vendor = new Set(words(text).filter((word) => VENDOR_WORDS.has(word.toLowerCase())));
    for (const word of vendor) found.push(`${path} says "${word}", a vendor's word`);
  }
  return found;
}

async function readTree(): Promise<Tree> {
  const tree = new Map<string, string>();
  const visit = async (folder: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(new URL(`${folder}/`, ROOT))) {
      const path = `${folder}/${name}`;
      if (isDirectory) await visit(path);
      else if (name.endsWith(".ts")) tree.set(path, await Deno.readTextFile(new URL(path, ROOT)));
    }
  };
  for (const folder of FOLDERS) {
    try {
      await visit(folder);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return tree;
}

Deno.test("the tree keeps the three laws", async () => {
  const tree = await readTree();
  assert(tree.size > 50);
  assertEquals(violations(tree), []);
});

/** A file that imports `specifiers`, written so that this file does not seem to. */
function file(imports: readonly string[], rest = ""): string {
  const from = "from";
  return imports.map((specifier) => `import { x } ${from} "${specifier}";\n`).join("") + rest;
}

const BASE: [string, string][] = [
  ["core/mod.ts", ""],
  ["core/vm.ts", ""],
  ["core/testing/mod.ts", ""],
  ["plugins/a/mod.ts", ""],
  ["plugins/a/inside.ts", ""],
  ["plugins/b/mod.ts", file(["../../core/mod.ts", "./inside.ts"])],
  ["plugins/b/inside.ts", ""],
  ["cli/mod.ts", ""],
];

/** What is wrong with one more file in a small tree. */
function verdict(path: string, text: string): string[] {
  return violations(new Map([...BASE, [path, text]])).map((sentence) =>
    sentence.slice(path.length)
  );
}

Deno.test("law 1: the core imports nothing else", () => {
  assertEquals(verdict("core/x.ts", file(["./vm.ts"])), []);
  assertEquals(verdict("core/x.ts", file(["../plugins/a/mod.ts"])), [
    ' imports "../plugins/a/mod.ts", which is outside core/',
  ]);
  for (const specifier of ["npm:x", "node:fs", "jsr:@std/cli"]) {
    assertEquals(verdict("core/x.ts", file([specifier])).length, 1);
  }
  assertEquals(verdict("core/x.ts", file(["@std/cli"])).length, 1);
  assertEquals(verdict("core/x_test.ts", file(["@std/assert"])), []);
  assertEquals(verdict("core/x.ts", file(["./missing.ts"])), [
    ' imports "./missing.ts", which does not exist',
  ]);
});

Deno.test("law 1: the core holds no vendor's word", () => {
  const say = (text: string) => verdict("core/x.ts", text);
  for (
    const text of ["the VMCB", "vmcbHpa", "readVmcs()", "isX2Avic", "AVIC_MODE", "// on AMD only"]
  ) {
    assertEquals(say(text).length > 0, true, text);
  }
  for (const text of ["accept", "intellect", "VMCALL or VMMCALL", "APM vol. 2", "svmvisor"]) {
    assertEquals(say(text), [], text);
  }
});

Deno.test("law 2: a plugin imports the core and the plugins that it declares", () => {
  const b = (path: string, imports: string[], rest = "") =>
    verdict(`plugins/b/${path}`, file(imports, rest));
  assertEquals(b("x.ts", ["../../core/mod.ts", "./inside.ts", "@std/streams"]), []);
  assertEquals(b("x.ts", ["../../core/vm.ts"]).length, 1);
  assertEquals(b("x.ts", ["../a/mod.ts"]), [
    ' imports "../a/mod.ts", which belongs to a plugin that "b" does not declare',
  ]);
  assertEquals(b("x.ts", ["../a/mod.ts"], 'const p = { requires: ["c", "a"] };'), []);
  assertEquals(b("x.ts", ["../a/mod.ts"], "const p = { optional: [\n  x,\n] };"), []);
  assertEquals(b("x.ts", ["../a/mod.ts"], "const p = { requires: [y] };").length, 1);
  assertEquals(b("x.ts", ["../a/inside.ts"], 'const p = { requires: ["a"] };').length, 1);
  assertEquals(b("x.ts", ["../../core/testing/mod.ts"]).length, 1);
  assertEquals(b("x_test.ts", ["../../core/testing/mod.ts", "../a/mod.ts", "@std/assert"]), []);
  assertEquals(b("x_test.ts", ["../a/inside.ts"]).length, 1);
  assertEquals(b("deep/x.ts", ["../../../core/mod.ts", "../inside.ts"]), []);
  assertEquals(b("x.ts", ["npm:left-pad"]).length, 1);
});

Deno.test("law 2: a plugin in another's folder is a plugin of its own", () => {
  const nested = (imports: string[], rest = "") =>
    violations(
      new Map([
        ...BASE,
        ["plugins/svm/mod.ts", ""],
        ["plugins/svm/inside.ts", ""],
        ["plugins/svm/avic/mod.ts", file(imports, rest)],
        ["plugins/svm/avic/inside.ts", ""],
      ]),
    );
  assertEquals(nested(["./inside.ts", "../../../core/mod.ts"]), []);
  assertEquals(nested(["../inside.ts"], 'const p = { requires: ["svm"] };').length, 1);
  assertEquals(nested(["../mod.ts"]).length, 1);
  assertEquals(nested(["../mod.ts"], 'const p = { requires: ["svm"] };'), []);
  const tree = new Map([...BASE, ["plugins/svm/avic/mod.ts", ""], ["plugins/svm/x/mod.ts", ""]]);
  const from = (face: string) =>
    violations(new Map([...tree, ["tests/x.ts", file([`../plugins/svm/${face}/mod.ts`])]]));
  assertEquals(from("avic"), []);
  assertEquals(from("x").length, 1);
});

Deno.test("law 3: the rest imports what a user could", () => {
  for (const top of ["cli", "examples", "bench", "tests"]) {
    const ok = ["../core/mod.ts", "../core/testing/mod.ts", "../plugins/a/mod.ts", "@std/assert"];
    assertEquals(verdict(`${top}/x.ts`, file(ok)), []);
    assertEquals(verdict(`${top}/x.ts`, file(["@trapline/trapline/core"])), []);
    for (const specifier of ["../core/vm.ts", "../plugins/a/inside.ts", "../tools/x.ts"]) {
      assertEquals(verdict(`${top}/x.ts`, file([specifier])).length, 1, specifier);
    }
  }
});

Deno.test("all forms of import are seen", () => {
  // Taken apart, so that this file does not seem to import what it tests with.
  const [from, im] = ["from", "import"];
  const forms = [
    `${im} "node:fs";`,
    `import x ${from} 'node:fs';`,
    `import type {\n  A,\n  B,\n} ${from} "node:fs";`,
    `export * ${from} "node:fs";`,
    `export { x } ${from} "node:fs";`,
    `const x = await ${im}("node:fs");`,
  ];
  for (const form of forms) assertEquals(verdict("core/x.ts", form).length, 1, form);
  assertEquals(verdict("core/x.ts", 'builder.import("node:fs");'), []);
  assertEquals(verdict("core/x.ts", ` * import x ${from} "node:fs";\n`), []);
});
