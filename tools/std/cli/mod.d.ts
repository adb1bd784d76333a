export interface ParseArgsOptions {
  alias?: Record<string, string | readonly string[]>;
  boolean?: boolean | readonly string[];
  collect?: readonly string[];
  default?: Record<string, unknown>;
  negatable?: readonly string[];
  stopEarly?: boolean;
  string?: readonly string[];
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}
export interface Args {
  [name: string]: unknown;
  _: (string | number)[];
}
export declare function parseArgs(
  args: readonly string[],
  options?: ParseArgsOptions,
): Args;
