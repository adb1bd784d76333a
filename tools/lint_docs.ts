/**
 * Checks the documentation of everything that is exported, all modules at once, so that a type that one
 * module exports may be used by another.
 *
 *     deno run --allow-read=deno.json --allow-run tools/lint_docs.ts
 *
 * @module
 */

const config = JSON.parse(await Deno.readTextFile("deno.json")) as {
  exports: Record<string, string>;
};
const { code } = await new Deno.Command(Deno.execPath(), {
  args: ["doc", "--lint", ...Object.values(config.exports)],
}).spawn().status;
Deno.exit(code);
