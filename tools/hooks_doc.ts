/**
 * Writes `docs/hooks.md`, the list of the core's hooks, slots and requests, from the doc comments and
 * types in the code.
 *
 *     deno run -A tools/hooks_doc.ts           # writes the page
 *     deno run -A tools/hooks_doc.ts --check   # fails if the page is not current
 */

import * as core from "../core/mod.ts";

const PAGE = new URL("../docs/hooks.md", import.meta.url);
const MODULE = new URL("../core/mod.ts", import.meta.url);

/** A type as `deno doc --json` gives it: the kinds that hooks and slots use. */
type TsType =
  | { kind: "keyword"; value: string }
  | { kind: "literal"; value: { kind: string; string?: string } }
  | { kind: "union"; value: TsType[] }
  | { kind: "typeRef"; value: { typeName: string; typeParams?: TsType[] } }
  | {
    kind: "fnOrConstructor";
    value: { tsType: TsType; params: { kind: string; name: string; tsType: TsType }[] };
  };

interface Declaration {
  location: { filename: string; line: number };
  jsDoc?: { doc?: string };
  kind: string;
  def: { tsType?: TsType };
}

interface Documentation {
  version: number;
  nodes: Record<string, { symbols: { name: string; declarations: Declaration[] }[] }>;
}

/** An exported constant of the core. */
interface Item {
  name: string;
  doc: string;
  type: { typeName: string; typeParams?: TsType[] };
  value: unknown;
  place: string;
}

/** A type in TypeScript. */
function print(type: TsType): string {
  switch (type.kind) {
    case "keyword":
      return type.value;
    case "literal":
      return JSON.stringify(type.value.string);
    case "union":
      return type.value.map(print).join(" | ");
    case "typeRef": {
      const { typeName, typeParams = [] } = type.value;
      return typeParams.length === 0
        ? typeName
        : `${typeName}<${typeParams.map(print).join(", ")}>`;
    }
    case "fnOrConstructor": {
      const params = type.value.params.map((param) => `${param.name}: ${print(param.tsType)}`);
      return `(${params.join(", ")}) => ${print(type.value.tsType)}`;
    }
    default:
      throw new Error(`cannot print the type ${JSON.stringify(type)}`);
  }
}

async function deno(args: string[], input = ""): Promise<string> {
  const process = new Deno.Command(Deno.execPath(), {
    args,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { success, stdout, stderr } = await process.output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`deno ${args[0]}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** The core's exported constants, in the order of the source. */
async function items(): Promise<Item[]> {
  const text = await deno(["doc", "--json", MODULE.href]);
  const documentation = JSON.parse(text) as Documentation;
  if (documentation.version !== 2) {
    throw new Error(`deno doc: output version ${documentation.version}; this tool reads version 2`);
  }
  const found: Item[] = [];
  for (const { symbols } of Object.values(documentation.nodes)) {
    for (const { name, declarations } of symbols) {
      for (const { kind, def, jsDoc, location } of declarations) {
        if (kind !== "variable" || def.tsType?.kind !== "typeRef") continue;
        if (jsDoc?.doc === undefined) throw new Error(`${name} has no doc comment`);
        found.push({
          name,
          doc: jsDoc.doc,
          type: def.tsType.value,
          value: Reflect.get(core, name),
          place: `${location.filename}:${String(location.line).padStart(6, "0")}`,
        });
      }
    }
  }
  return found.sort((a, b) => a.place < b.place ? -1 : 1);
}

/** Doc comments link with `{@linkcode name}`; on the page a code span does. */
function prose(doc: string): string {
  return doc.replaceAll(/\{@linkcode ([^}]+)\}/g, "`$1`");
}

function hookSection(item: Item): string {
  const hook = item.value as
    | core.Hook<core.Handler, core.HookKind>
    | core.KeyedHook<
      core.Handler,
      core.HookKind
    >;
  const [handler] = item.type.typeParams ?? [];
  if (handler === undefined) throw new Error(`${item.name} has no handler type`);
  const keys = hook.keys === undefined
    ? ""
    : hook.keys === "sparse"
    ? ", keyed"
    : `, keyed (0 to ${hook.keys - 1})`;
  return `### \`${item.name}\`

*${hook.kind}${keys}*

\`\`\`ts
type Handler = ${print(handler)};
\`\`\`

${prose(item.doc)}
`;
}

function slotSection(item: Item): string {
  const slot = item.value as core.Slot<unknown>;
  const [service] = item.type.typeParams ?? [];
  if (service === undefined) throw new Error(`${item.name} has no service type`);
  const fallback = slot.fallback === undefined ? "" : " There is one without a plugin.";
  return `### \`${item.name}\`

Provider: \`${print(service)}\`.${fallback}

${prose(item.doc)}
`;
}

function requestRow(item: Item): string {
  return `| \`${item.name}\` | ${prose(item.doc).replaceAll("\n", " ")} |`;
}

/** The page as it ought to be. */
export async function renderHooksPage(): Promise<string> {
  const all = await items();
  const of = (...types: string[]) => all.filter(({ type }) => types.includes(type.typeName));
  const page = `<!-- Written by tools/hooks_doc.ts from the code. Do not edit. -->

# Hooks, slots and requests of the core

A plugin registers handlers for hooks with \`ctx.on(hook, handler)\`, or \`ctx.on(hook, key, handler)\`
where a hook has keys; it provides slots with \`ctx.provide\` and uses them with \`ctx.use\`. All names
below are exported by \`core/mod.ts\`.

How the handlers of a hook are combined is its kind: **first**, until one answers with something other
than \`undefined\`; **each**, all of them; **fold**, the first argument passes through all of them;
**gather**, the answers are collected.

Handlers run by stage (\`pre\`, normal, \`post\`), within a stage as \`before\` and \`after\` say, and
otherwise in the order of the plugins. What a handler throws becomes a \`PluginError\` that names the
plugin, the hook and the vCPU; thrown while a vCPU runs, it ends the run.

## Hooks

${of("Hook", "KeyedHook").map(hookSection).join("\n")}

## Slots

${of("Slot").map(slotSection).join("\n")}

## Requests

\`vcpu.request(…)\` makes a request; it is handled before the vCPU's next entry, in this order.

| request | meaning |
| --- | --- |
${of("VcpuRequest").map(requestRow).join("\n")}
`;
  return await deno(["fmt", "--ext", "md", "--line-width", "100", "-"], page);
}

/** The page as it is; empty if there is none. */
export async function readHooksPage(): Promise<string> {
  try {
    return await Deno.readTextFile(PAGE);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

if (import.meta.main) {
  const page = await renderHooksPage();
  if (Deno.args.includes("--check")) {
    if (page !== await readHooksPage()) {
      console.error("docs/hooks.md is not current: run tools/hooks_doc.ts");
      Deno.exit(1);
    }
  } else {
    await Deno.mkdir(new URL(".", PAGE), { recursive: true });
    await Deno.writeTextFile(PAGE, page);
  }
}
