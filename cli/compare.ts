/**
 * `trapline compare`.
 *
 * @module
 */
import { ArgumentError } from "../core/mod.ts";
import { COMPARED_VENDORS, compareVendors, differsForGuest, formatComparison } from "../lab/mod.ts";
import { type OptionSpec, parseArguments } from "./arguments.ts";
import { fileError, outputError, usageError } from "./errors.ts";
import type { CliIo, OutputFile } from "./io.ts";
import { parseCount } from "./numbers.ts";
import { Status } from "./statuses.ts";

/** The options of `trapline compare`. */
export const COMPARE_OPTIONS: readonly OptionSpec[] = [
  {
    name: "vendors",
    value: "LIST",
    help: `two or more of ${COMPARED_VENDORS.join(", ")};\nsvm,vmx,metal if not given`,
  },
  { name: "cpus", value: "N", help: "number of vCPUs; 1 if not given" },
  { name: "pcpus", value: "M", help: "number of host processors; as many if not given" },
  { name: "append", value: "TEXT", help: "arguments for the guest" },
  {
    name: "max-instructions",
    value: "N",
    help: "end after so many instructions; 1e9 if not given",
  },
  { name: "json", value: "FILE", help: "write the comparison to a file" },
  { name: "help", help: "print this" },
];

async function open(path: string, io: CliIo): Promise<OutputFile> {
  try {
    return await io.openForWriting(path);
  } catch (error) {
    throw fileError(Status.OUTPUT, "--json", path, error);
  }
}

/** Carries out `trapline compare`. Returns the exit status. */
export async function compare(words: readonly string[], io: CliIo): Promise<number> {
  const args = parseArguments(words, COMPARE_OPTIONS);
  const [path, extra] = args.operands;
  if (path === undefined) throw usageError("compare: no image given");
  if (extra !== undefined) throw usageError(`compare: "${extra}" is one too many`);
  const count = (option: string, most: number): number | undefined => {
    const text = args.value(option);
    return text === undefined ? undefined : parseCount(`--${option}`, text, 1, most);
  };
  const [cpus, processors] = [count("cpus", 31), count("pcpus", 31)];
  const limit = count("max-instructions", Number.MAX_SAFE_INTEGER);
  const vendors = args.value("vendors")?.split(",");
  const image = await io.readFile(path).catch((error) => {
    throw fileError(Status.INPUT, "image", path, error);
  });
  const json = args.value("json");
  const file = json === undefined ? undefined : await open(json, io);
  try {
    const guest = { name: path, image, commandLine: args.value("append") ?? "" };
    const comparison = await compareVendors(guest, {
      ...(vendors === undefined ? {} : { vendors }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(processors === undefined ? {} : { processors }),
      ...(limit === undefined ? {} : { limit }),
    });
    try {
      io.stdout(new TextEncoder().encode(formatComparison(comparison)));
    } catch (error) {
      throw outputError(error);
    }
    try {
      await file?.write(JSON.stringify(comparison, null, 2) + "\n");
    } catch (error) {
      throw fileError(Status.OUTPUT, "--json", json!, error);
    }
    return differsForGuest(comparison) ? Status.DIFFERENT : Status.OK;
  } catch (error) {
    if (error instanceof ArgumentError) throw usageError(`compare: ${error.message}`);
    throw error;
  } finally {
    file?.close();
  }
}
