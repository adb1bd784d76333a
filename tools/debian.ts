/**
 * Files out of Debian's packages, for tasks that run unmodified software: fetched by apt-get, unpacked by
 * dpkg-deb and tar, kept in the user's cache folder. Nothing is installed and root is not needed, but apt
 * must know where Debian's packages are.
 *
 * Several tasks may do so at once: each works in a folder of its own, and what it has made comes to its
 * place by a rename.
 *
 * @module
 */

/** The packages, for one task. */
export class Debian {
  /** Where everything is kept. */
  readonly folder: string;
  readonly #task: string;

  /** `task` is what messages begin with. */
  constructor(task: string) {
    const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "."}/.cache`;
    this.folder = `${cache}/trapline/debian`;
    this.#task = task;
  }

  /** Says something to who waits. */
  say(message: string): void {
    console.error(`${this.#task}: ${message}`);
  }

  /** Ends the program with a message. */
  give(message: string): never {
    this.say(message);
    Deno.exit(1);
  }

  /** The package that `name` depends on whose name matches `pattern`. */
  async dependency(name: string, pattern: RegExp): Promise<string> {
    await Deno.mkdir(this.folder, { recursive: true });
    const output = await this.#run("apt-cache", ["depends", name], this.folder);
    const lines = new TextDecoder().decode(output).matchAll(/Depends: (\S+)/g);
    return Array.from(lines, ([, found]) => found!).find((found) => pattern.test(found)) ??
      this.give(`apt does not know ${name}: it needs Debian's packages for amd64`);
  }

  /**
   * A folder with those files and folders of a package, which are paths like `boot/vmlinuz`; for a
   * folder, all that is in it. Only the first time they are fetched.
   */
  async files(name: string, paths: readonly string[]): Promise<string> {
    const place = `${this.folder}/${name}-${await digest(paths.join("\n"))}`;
    if (await exists(place)) return place;
    await Deno.mkdir(this.folder, { recursive: true });
    const own = await Deno.makeTempDir({ dir: this.folder, prefix: "part-" });
    try {
      this.say(`downloading ${name}`);
      await this.#run("apt-get", ["download", name], own);
      const [deb] = Array.from(Deno.readDirSync(own), ({ name }) => name);
      if (deb === undefined) this.give(`apt-get has downloaded no ${name}`);
      this.say(`unpacking ${deb}`);
      await Deno.mkdir(`${own}/files`);
      await this.#unpack(`${own}/${deb}`, paths, `${own}/files`);
      await settle(`${own}/files`, place);
    } finally {
      await Deno.remove(own, { recursive: true });
    }
    return place;
  }

  /** Writes a file, all of it or nothing, and returns its path: its name gets a digest of what is in it. */
  async keep(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
    const place = `${this.folder}/${name}-${await digest(bytes)}`;
    if (await exists(place)) return place;
    const own = await Deno.makeTempFile({ dir: this.folder, prefix: "part-" });
    await Deno.writeFile(own, bytes);
    await Deno.rename(own, place);
    return place;
  }

  /** What a file compressed by xz holds. */
  unpackXz(path: string): Uint8Array {
    try {
      const { success, stdout } = new Deno.Command("xz", { args: ["-dc", path] }).outputSync();
      return success ? stdout : this.give(`${path} cannot be unpacked`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      this.give("there is no xz, by which this kernel's modules are compressed");
    }
  }

  /** Runs a command in a folder; returns its standard output. */
  async #run(name: string, args: readonly string[], cwd: string): Promise<Uint8Array> {
    const output = await this.#start(name, args, { cwd }).output();
    if (!output.success) {
      this.give(`${name} ${args.join(" ")} failed; "apt-get update" may help`);
    }
    return output.stdout;
  }

  /** Unpacks parts of a package. */
  async #unpack(deb: string, paths: readonly string[], to: string): Promise<void> {
    const source = this.#start("dpkg-deb", ["--fsys-tarfile", deb], {});
    const words = ["-xf", "-", "--wildcards", ...paths.map((path) => `./${path}`)];
    const sink = this.#start("tar", words, { cwd: to, stdin: "piped" });
    await source.stdout.pipeTo(sink.stdin);
    const ends = await Promise.all([source.status, sink.output()]);
    if (!ends.every(({ success }) => success)) this.give(`${deb} cannot be unpacked`);
  }

  #start(
    name: string,
    args: readonly string[],
    options: { readonly cwd?: string; readonly stdin?: "piped" },
  ): Deno.ChildProcess {
    try {
      return new Deno.Command(name, {
        args: [...args],
        stdin: "null",
        stdout: "piped",
        stderr: "inherit",
        ...options,
      }).spawn();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      this.give(`there is no ${name}: this needs Debian, or a system with its apt and dpkg`);
    }
  }
}

/** Eight hexadecimal digits that differ where `content` does. */
async function digest(content: string | Uint8Array<ArrayBuffer>): Promise<string> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).subarray(0, 4).toHex();
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Moves a folder to its place, unless another has put the same there in the meantime. */
async function settle(from: string, to: string): Promise<void> {
  try {
    await Deno.rename(from, to);
  } catch (error) {
    if (!await exists(to)) throw error;
  }
}
