/**
 * Plugins from people's own modules.
 *
 * @module
 */

import type { Plugin } from "../core/mod.ts";
import { CliError } from "./errors.ts";
import type { CliIo } from "./io.ts";
import { Status } from "./statuses.ts";

/**
 * The plugin that a module exports by default: the object itself, or a function that makes it.
 *
 * @param option The option that names the file, for messages.
 *
 * @throws {CliError} If it cannot be loaded, or exports no plugin.
 */
export async function loadPlugin(option: string, path: string, io: CliIo): Promise<Plugin> {
  const refuse = (message: string): CliError =>
    new CliError(Status.INPUT, `${option} "${path}": ${message}`);
  let exported: unknown;
  try {
    exported = (await io.importModule(path)).default;
    if (typeof exported === "function") exported = await (exported as () => unknown)();
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error));
  }
  if (!isPlugin(exported)) {
    throw refuse("it exports no plugin by default, nor a function that makes one");
  }
  return exported;
}

function isPlugin(value: unknown): value is Plugin {
  if (typeof value !== "object" || value === null) return false;
  const { name, version, setup } = value as { [key: string]: unknown };
  return typeof name === "string" && typeof version === "string" && typeof setup === "function";
}
