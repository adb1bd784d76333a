/**
 * Four vCPUs with values of their own in R16–R31 on two processors, and how often one finds another's.
 *
 *     deno run tests/apx/leak.ts [SWITCHES]
 *
 * makes them change places a million times, or as often as it is told, under each hypervisor and with each
 * way to switch R16–R31, and ends with status 1 if any but the one that does not switch lets values through.
 *
 * @module
 */
import { beforeEnterHook, type Plugin } from "../../core/mod.ts";
import { apx, type ApxSwitchName } from "../../plugins/apx/mod.ts";
import { rex2 } from "../silicon/apx/encode.ts";
import { code, dword } from "../silicon/code.ts";
import { type HostName, HYPERVISORS, longGuest } from "./long_guest.ts";

const RAX = 0, RDX = 2, RSI = 6;
/** R16–R31. */
export const EGPRS: readonly number[] = Array.from({ length: 16 }, (_, k) => 16 + k);
const HLT = [0xf4];

/** lea reg, [rsi + n] */
export const leaRsi = (reg: number, n: number): number[] =>
  rex2(0, 0x8d, 1, reg, { base: RSI, index: 4, scale: 0, displacement: n });

/** Sets R16–R31 to RSI + n, then looks `rounds` times whether they are: differences gather in RDX. */
export function watcher(rounds: number): number[] {
  const look = EGPRS.flatMap((n) => [
    ...leaRsi(RAX, n),
    ...rex2(0, 0x33, 1, RAX, n), // xor rax, rN
    ...rex2(0, 0x09, 1, RAX, RDX), // or rdx, rax
  ]);
  const loop = [...look, ...code("48 ff c9")]; // dec rcx
  return code(
    EGPRS.flatMap((n) => leaRsi(n, n)),
    "31 d2 b9", // xor edx, edx; mov ecx, …
    dword(rounds),
    loop,
    "0f 85", // jnz
    dword(-(loop.length + 6)),
    HLT,
  );
}

/** What came of it. */
export interface LeakResult {
  /** How often a processor entered another vCPU than the one before. */
  readonly switches: number;
  /** vCPUs that have found values in R16–R31 that they had not put there. */
  readonly leaks: number;
}

/** Rounds of a guest that never comes to its end. */
const FOR_EVER = 0x7fff_ffff;
/** Instructions to run between two looks at how many switches there have been. */
const STRIDE = 200_000;

/** Lets vCPUs change places until that has happened `switches` times. */
export function leak(host: HostName, variant: ApxSwitchName, switches: number): LeakResult {
  let counted = 0;
  const last: number[] = [];
  const counter: Plugin = {
    name: "switch-counter",
    version: "1.0.0",
    setup: (ctx) =>
      void ctx.on(beforeEnterHook, ({ pcpu, index }) => {
        if (last[pcpu] !== index) counted++;
        last[pcpu] = index;
      }),
  };
  using vm = longGuest(watcher(FOR_EVER), {
    host,
    cpus: 4,
    processors: 2,
    timeslice: 40,
    plugins: [counter, apx({ variant })],
  });
  while (counted < switches) {
    const result = vm.runSync({ instructions: STRIDE });
    if (result.reason !== "limit") throw new Error(`the run ended: ${result.reason}`);
  }
  return { switches: counted, leaks: vm.vcpus.filter(({ regs }) => regs.rdx !== 0n).length };
}

if (import.meta.main) {
  const wanted = Number(Deno.args[0] ?? 1e6);
  let failed = false;
  for (const host of HYPERVISORS) {
    for (const variant of ["none", "posted", "reviewed"] as const) {
      const start = performance.now();
      const { switches, leaks } = leak(host, variant, wanted);
      const seconds = (performance.now() - start) / 1000;
      console.log(
        `${host} ${variant}: ${switches} switches in ${seconds.toFixed(0)} s, ` +
          `${leaks} of 4 vCPUs found values of others`,
      );
      failed ||= (leaks > 0) !== (variant === "none");
    }
  }
  if (failed) Deno.exit(1);
}
