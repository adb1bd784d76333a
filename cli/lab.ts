/**
 * `trapline patches` and `trapline lab`.
 *
 * @module
 */
import { ArgumentError } from "../core/mod.ts";
import {
  breaksGuest,
  differsForGuest,
  formatMatrix,
  formatReport,
  formatSummary,
  formatVendorTable,
  labHtml,
  type LabOptions,
  type LabReport,
  runMatrix,
  runPatch,
  runVendorTable,
} from "../lab/mod.ts";
import { findPatch, type Patch, PATCHES, patchVariants } from "../patches/mod.ts";
import { type OptionSpec, parseArguments, type ParsedArguments } from "./arguments.ts";
import { fileError, outputError, usageError } from "./errors.ts";
import type { CliIo, OutputFile } from "./io.ts";
import { parseCount } from "./numbers.ts";
import { Status } from "./statuses.ts";

/** The options of `trapline lab`. */
export const LAB_OPTIONS: readonly OptionSpec[] = [
  { name: "guest", value: "IMAGE", help: "run this image in place of the patches' own guests" },
  { name: "append", value: "TEXT", help: "arguments for that guest" },
  { name: "cpus", value: "N", help: "number of vCPUs; what the patch's scenario has if not given" },
  { name: "pcpus", value: "M", help: "number of host processors; likewise" },
  { name: "json", value: "FILE", help: "write the reports to a file" },
  { name: "html", value: "FILE", help: "write a page with charts to a file" },
  { name: "matrix", help: "run all combinations of the patches on the first one's guest" },
  { name: "vendors", help: "count the exits of guests under svm and vmx behind that, too" },
  { name: "rips", help: "say where in the guest the exits came from" },
  { name: "all", help: "show rows without a difference, too" },
  { name: "help", help: "print this" },
];

/** Carries out `trapline patches`. */
export function listPatches(): string {
  const rows = PATCHES.map((patch) => {
    const variants = patchVariants(patch).map(({ name }) => name).join(" ");
    return [patch.id, patch.state, variants, patch.title.replace(/^KVM: /, "")];
  });
  const width = (column: number) => Math.max(...rows.map((row) => row[column]!.length));
  const widths = [width(0), width(1), width(2)];
  return rows.map((row) =>
    row.map((cell, k) => cell.padEnd(widths[k] ?? 0)).join("  ").trimEnd() + "\n"
  ).join("");
}

function choosePatches(ids: readonly string[]): readonly Patch[] {
  if (ids.length === 0) return PATCHES;
  return ids.map((id) => {
    const patch = findPatch(id);
    if (patch !== undefined) return patch;
    const names = PATCHES.map(({ id }) => id).join(", ");
    throw usageError(`lab: there is no patch "${id}"; there are ${names}`);
  });
}

async function chooseMachine(args: ParsedArguments, io: CliIo): Promise<LabOptions> {
  const number = (option: string): number | undefined => {
    const text = args.value(option);
    return text === undefined ? undefined : parseCount(`--${option}`, text, 1, 64);
  };
  const [cpus, processors] = [number("cpus"), number("pcpus")];
  const path = args.value("guest");
  const commandLine = args.value("append");
  if (path === undefined && commandLine !== undefined) {
    throw usageError("--append is for the guest that --guest names");
  }
  const guest = path === undefined ? {} : {
    guest: { name: path, image: await readGuest(path, io), commandLine: commandLine ?? "" },
  };
  return {
    ...guest,
    ...(cpus === undefined ? {} : { cpus }),
    ...(processors === undefined ? {} : { processors }),
  };
}

function readGuest(path: string, io: CliIo): Promise<Uint8Array> {
  return io.readFile(path).catch((error) => {
    throw fileError(Status.INPUT, "image", path, error);
  });
}

interface Output {
  readonly option: string;
  readonly path: string;
  readonly file: OutputFile;
}

/** Opens the files first, so that nothing is run in vain. */
async function openOutputs(args: ParsedArguments, io: CliIo): Promise<Output[]> {
  const outputs: Output[] = [];
  for (const option of ["json", "html"]) {
    const path = args.value(option);
    if (path === undefined) continue;
    try {
      outputs.push({ option, path, file: await io.openForWriting(path) });
    } catch (error) {
      for (const { file } of outputs) file.close();
      throw fileError(Status.OUTPUT, `--${option}`, path, error);
    }
  }
  return outputs;
}

async function write(outputs: readonly Output[], option: string, text: string): Promise<void> {
  const output = outputs.find((one) => one.option === option);
  if (output === undefined) return;
  try {
    await output.file.write(text);
  } catch (error) {
    throw fileError(Status.OUTPUT, `--${option}`, output.path, error);
  }
}

/** Carries out `trapline lab`. Returns the exit status. */
export async function lab(words: readonly string[], io: CliIo): Promise<number> {
  const args = parseArguments(words, LAB_OPTIONS);
  const patches = choosePatches(args.operands);
  const options = await chooseMachine(args, io);
  const print = (text: string): void => {
    try {
      io.stdout(new TextEncoder().encode(text));
    } catch (error) {
      throw outputError(error);
    }
  };
  const format = { rips: args.has("rips"), all: args.has("all") };
  if (args.has("matrix") && args.has("html")) {
    throw usageError("--html shows patches one by one; it does not go with --matrix");
  }
  const outputs = await openOutputs(args, io);
  try {
    if (args.has("matrix")) {
      const matrix = await runMatrix(patches, options);
      print(formatMatrix(matrix, format));
      await write(outputs, "json", JSON.stringify(matrix, null, 2) + "\n");
      return Status.OK;
    }
    const reports: LabReport[] = [];
    for (const patch of patches) {
      const report = await runPatch(patch, options);
      print(`${formatReport(report, format)}\n`);
      reports.push(report);
    }
    print(formatSummary(reports));
    await write(outputs, "json", JSON.stringify(reports, null, 2) + "\n");
    await write(outputs, "html", labHtml(reports));
    let broken = reports.some(({ scenarios }) => scenarios.some(breaksGuest));
    if (args.has("vendors")) {
      const comparisons = await runVendorTable();
      print(`\n${formatVendorTable(comparisons)}`);
      broken ||= comparisons.some(differsForGuest);
    }
    return broken ? Status.DIFFERENT : Status.OK;
  } catch (error) {
    if (error instanceof ArgumentError) throw usageError(`lab: ${error.message}`);
    throw error;
  } finally {
    for (const { file } of outputs) file.close();
  }
}
