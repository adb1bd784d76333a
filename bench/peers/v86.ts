/**
 * v86, which compiles 32-bit code to WebAssembly, in a Deno process of its own.
 *
 * @module
 */
import { commandLineOf, type FindPeer, imageOf, outputOf, PeerError } from "./peer.ts";
import { V86_PACKAGE } from "./v86_package.ts";

/** Where it goes on at all, no run of a measurement takes a tenth of this. */
const LIMIT_MS = 60_000;

/**
 * Where Deno put the package's WebAssembly, which v86 looks for in the current directory. Deno keeps a
 * folder for each registry that packages came from.
 */
async function wasmPath(): Promise<string | undefined> {
  const info = JSON.parse(await outputOf(Deno.execPath(), "info", "--json") ?? "{}");
  const [name, version] = V86_PACKAGE.replace("npm:", "").split("@");
  for (const registry of Deno.readDirSync(info.npmCache)) {
    const path = `${info.npmCache}/${registry.name}/${name}/${version}/build/v86.wasm`;
    if (await Deno.stat(path).then(({ isFile }) => isFile, () => false)) return path;
  }
  return undefined;
}

/** v86, if it can be imported. */
export const findV86: FindPeer = async () => {
  const name = "v86";
  try {
    await import(V86_PACKAGE);
  } catch (error) {
    return { name, missing: `${V86_PACKAGE}: ${(error as Error).message}` };
  }
  const wasm = await wasmPath();
  if (wasm === undefined) return { name, missing: `no v86.wasm in the cache of ${V86_PACKAGE}` };
  const machine = new URL("v86_machine.ts", import.meta.url).pathname;
  return {
    name,
    version: V86_PACKAGE.replace("npm:", "").replace("@", " "),
    warms: true,
    can: ({ bits }) => bits === 32,
    async run(workload, rounds) {
      const commandLine = commandLineOf(workload, rounds);
      const { stdout, stderr, signal } = await new Deno.Command(Deno.execPath(), {
        args: [
          ...["run", "-A", "--no-check", "--no-lock", machine, wasm],
          ...[imageOf(workload.guest).pathname, commandLine],
        ],
        signal: AbortSignal.timeout(LIMIT_MS),
        stdin: "null",
      }).output();
      const text = new TextDecoder();
      const line = text.decode(stdout).split("\n").find((line) => line.startsWith("{"));
      if (line !== undefined) return JSON.parse(line);
      if (signal !== null) {
        throw new PeerError(
          `it stops going on: "${commandLine}" was not done in ${LIMIT_MS / 1000} s`,
        );
      }
      throw new PeerError(`v86: ${text.decode(stderr).split("\n", 1)[0]}`);
    },
  };
};
