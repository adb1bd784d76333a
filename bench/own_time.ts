/**
 * Time that the thread has run, as far as the system tells.
 *
 * @module
 */

/**
 * Milliseconds this thread has run, on Linux: what others do on the same machine is not in it. The kernel
 * gives nanoseconds on the processor first (Linux, `Documentation/scheduler/sched-stats.rst`). Elsewhere
 * it is the clock on the wall.
 */
export const ownTime: () => number = Deno.build.os === "linux"
  ? () => Number.parseInt(Deno.readTextFileSync("/proc/self/schedstat")) / 1e6
  : () => performance.now();
