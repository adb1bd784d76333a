import { assert, assertEquals } from "@std/assert";
import * as core from "../core/mod.ts";
import { readHooksPage, renderHooksPage } from "./hooks_doc.ts";

Deno.test("docs/hooks.md is current", async () => {
  assertEquals(await readHooksPage(), await renderHooksPage(), "run tools/hooks_doc.ts");
});

Deno.test("docs/hooks.md has every hook and slot that the core exports", async () => {
  const page = await readHooksPage();
  const names = Object.keys(core).filter((name) => /(Hook|Slot|Request)$/.test(name))
    .filter((name) => !name.startsWith("define"));
  assert(names.length > 20);
  for (const name of names) assert(page.includes(`\`${name}\``), name);
});
