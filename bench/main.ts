/**
 * `deno task bench`: the quick figures of `speed.ts`, or with `--against REV` the comparison with another
 * commit of `against.ts`.
 *
 * @module
 */
if (Deno.args.includes("--against")) await import("./against.ts");
else await import("./speed.ts");
