/**
 * Modules of a Linux kernel, in the order in which they can be loaded.
 *
 * @module
 */

/** Names of the modules that a module needs, as it says itself (`depends=` in its section `.modinfo`). */
export function dependencies(module: Uint8Array): readonly string[] {
  const key = "\0depends=";
  // Every byte a character, so that places in the text are places in the file.
  const text = new TextDecoder("latin1").decode(module);
  const at = text.indexOf(key);
  if (at < 0) return [];
  const from = at + key.length;
  const list = text.slice(from, text.indexOf("\0", from));
  return list === "" ? [] : list.split(",");
}

/** A module's name is that of its file, with `_` for `-`; the file may be compressed by xz. */
export function moduleName(file: string): string {
  return file.replace(/^.*\//, "").replace(/\.ko(\.xz)?$/, "").replaceAll("-", "_");
}

/**
 * `names` and all that they need, what is needed first. `open` returns a module's file, or `undefined` for
 * one that is not there: part of the kernel, or none at all.
 *
 * @throws {Error} If one of `names` is not there.
 */
export function loadOrder(
  names: readonly string[],
  open: (name: string) => Uint8Array | undefined,
): ReadonlyMap<string, Uint8Array> {
  const order = new Map<string, Uint8Array>();
  const seen = new Set<string>();
  const add = (name: string, bytes: Uint8Array | undefined): void => {
    if (bytes === undefined || seen.has(name)) return;
    seen.add(name);
    for (const needed of dependencies(bytes)) add(moduleName(needed), open(moduleName(needed)));
    order.set(name, bytes);
  };
  for (const given of names) {
    const name = moduleName(given);
    const bytes = open(name);
    if (bytes === undefined) throw new Error(`there is no module ${name}`);
    add(name, bytes);
  }
  return order;
}
