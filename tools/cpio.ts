/**
 * Archives in the "newc" format of cpio, which Linux takes for its initial RAM disk (Linux,
 * `Documentation/driver-api/early-userspace/buffer-format.rst`).
 *
 * @module
 */

/** What is to be in an archive. */
export type CpioEntry =
  | { readonly path: string; readonly kind: "folder" }
  | { readonly path: string; readonly kind: "file"; readonly bytes: Uint8Array }
  | { readonly path: string; readonly kind: "link"; readonly target: string }
  | {
    readonly path: string;
    readonly kind: "device";
    readonly major: number;
    readonly minor: number;
  };

/** Types of files with permissions: folders, programs, links and character devices. */
const MODES = { folder: 0o40755, file: 0o100755, link: 0o120777, device: 0o20600 } as const;
const ALIGN = 4;

/** Makes an archive of entries, in their order; folders come before what is in them. */
export function cpio(entries: readonly CpioEntry[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const add = (bytes: Uint8Array): void => {
    parts.push(bytes, new Uint8Array(-bytes.length & (ALIGN - 1)));
  };
  const encoder = new TextEncoder();
  const write = (
    path: string,
    mode: number,
    content: Uint8Array,
    major: number,
    minor: number,
  ): void => {
    const name = encoder.encode(`${path}\0`);
    const inode = parts.length;
    const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
    const header = fields.map((field) => field.toString(16).toUpperCase().padStart(8, "0"));
    const head = encoder.encode(`070701${header.join("")}`);
    const both = new Uint8Array(head.length + name.length);
    both.set(head);
    both.set(name, head.length);
    add(both);
    add(content);
  };
  for (const entry of entries) {
    const content = entry.kind === "file"
      ? entry.bytes
      : encoder.encode(entry.kind === "link" ? entry.target : "");
    const [major, minor] = entry.kind === "device" ? [entry.major, entry.minor] : [0, 0];
    write(entry.path, MODES[entry.kind], content, major, minor);
  }
  write("TRAILER!!!", 0, new Uint8Array(), 0, 0);
  const archive = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.length;
  }
  return archive;
}
