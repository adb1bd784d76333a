/**
 * Time on the processor, in which what else the machine does has no part.
 *
 * @module
 */

/** Milliseconds on the processor of a thread or process as `/proc` has them. */
function scheduled(path: string): number {
  // Nanoseconds on the processor come first (Linux, Documentation/scheduler/sched-stats.rst).
  return Number.parseInt(Deno.readTextFileSync(path)) / 1e6;
}

/** Whether this system tells it. Elsewhere the clock on the wall has to do. */
const KNOWN: boolean = Deno.build.os === "linux";

/**
 * Milliseconds that this thread has run. The compilers of V8, on threads of their own, are not in it.
 *
 * The kernel adds what a thread runs up to its account with every tick of its clock, some milliseconds apart, and
 * when somebody asks for its times (`thread_group_cputime`), as reading `stat` does; reading `schedstat`
 * does not.
 */
export function ownTime(): number {
  if (!KNOWN) return performance.now();
  Deno.readTextFileSync("/proc/self/stat");
  return scheduled("/proc/self/schedstat");
}

/** Milliseconds that a process that still runs has run, all threads together. */
export function timeOf(pid: number): number {
  if (!KNOWN) return performance.now();
  const threads = [...Deno.readDirSync(`/proc/${pid}/task`)];
  return threads.reduce(
    (sum, { name }) => sum + scheduled(`/proc/${pid}/task/${name}/schedstat`),
    0,
  );
}

/** How a program went. */
export interface Timed {
  /** Its time. */
  readonly ms: number;
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function timed(program: string, args: readonly string[]): Promise<Timed> {
  const text = new TextDecoder();
  const start = performance.now();
  // bash tells the time of its children: two lines, its own first, each "user system" as 0m0.000s.
  const script = '"$@"; status=$?; times; exit $status';
  const command = KNOWN ? ["bash", "-c", script, "bash", program, ...args] : [program, ...args];
  const { code, stdout, stderr } = await new Deno.Command(command[0]!, {
    args: command.slice(1),
    env: { LC_ALL: "C" },
    stdin: "null",
  }).output();
  const wall = performance.now() - start;
  const printed = text.decode(stdout);
  const [, own, told] = /^([^]*)\S+ \S+\n(\S+ \S+)\n$/.exec(printed) ?? [];
  if (!KNOWN || told === undefined || own === undefined) {
    return { ms: wall, code, stdout: printed, stderr: text.decode(stderr) };
  }
  let ms = 0;
  for (const [, minutes, seconds] of told.matchAll(/(\d+)m([\d.]+)s/g)) {
    ms += Number(minutes) * 60_000 + Number(seconds) * 1000;
  }
  return { ms, code, stdout: own, stderr: text.decode(stderr) };
}
