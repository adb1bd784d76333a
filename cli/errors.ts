/**
 * Errors that end a command with one message.
 *
 * @module
 */

import { ImageError } from "../plugins/flat/mod.ts";
import { PluginError, TraplineError } from "../core/mod.ts";
import { Status } from "./statuses.ts";

/** Something that the user is to be told in one line, and the status to end with. */
export class CliError extends Error {
  /** Exit status. */
  readonly status: number;

  /** `message` names what is wrong, and where. */
  constructor(status: number, message: string) {
    super(message);
    this.name = "CliError";
    this.status = status;
  }
}

/** The command line is wrong. */
export function usageError(message: string): CliError {
  return new CliError(Status.USAGE, message);
}

/** What went wrong with a file, in words. */
export function fileError(status: number, what: string, path: string, error: unknown): CliError {
  return new CliError(status, `${what} "${path}": ${fileProblem(error)}`);
}

/** Standard output cannot be written to. */
export function outputError(error: unknown): CliError {
  const message = error instanceof Deno.errors.BrokenPipe
    ? "nobody reads standard output any more"
    : `standard output: ${fileProblem(error)}`;
  return new CliError(Status.OUTPUT, message);
}

function fileProblem(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder";
  if (error instanceof Deno.errors.NotADirectory) return "part of the path is not a folder";
  if (error instanceof Deno.errors.PermissionDenied) return "no permission";
  if (error instanceof Deno.errors.NotCapable) {
    return "Deno was not given the permission (--allow-read for files, --allow-write for --json)";
  }
  // The rest is the system's: "Is a directory (os error 21)".
  const message = error instanceof Error ? error.message : String(error);
  return /\(os error 21\)/.test(message) ? "it is a folder" : message;
}

/** Any error in one line, with the status that fits it. */
export function toCliError(error: unknown): CliError {
  if (error instanceof CliError) return error;
  const cause = error instanceof PluginError && error.cause instanceof TraplineError
    ? error.cause
    : error;
  if (cause instanceof ImageError) return new CliError(Status.INPUT, cause.message);
  const message = cause instanceof Error ? cause.message : String(cause);
  return new CliError(Status.ERROR, message === "" ? "an error without a message" : message);
}
