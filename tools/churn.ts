/**
 * A guest that makes code without end, for as long as is wanted: memory must not grow.
 *
 *     deno task churn [--minutes 5]
 *
 * It writes functions into a ring of 64 MiB, calls each often enough to have it compiled, and goes on.
 * Every ten seconds a line says what has been compiled, what lives, and how much memory the process has. The
 * exit status is 1 if there is half as much again at the end as after the first quarter.
 *
 * @module
 */
import { taskOptions } from "../bench/options.ts";
import { S } from "../plugins/cpu/mod.ts";
import { Bench } from "../tests/silicon/bench.ts";
import { code, dword } from "../tests/silicon/code.ts";

const USAGE = `deno task churn: a guest makes code without end; memory must not grow

  --minutes N      how long (5)`;

const MIB = 1 << 20;
const BUFFER = 64 * MIB;
const AT = 0x10_0000;
const LINE_MS = 10_000;
/** Calls of each function: enough to have it compiled where everything is. */
const CALLS = 20;
/** Bytes of WebAssembly that may live. */
const CODE_LIMIT: number = 4 * MIB;

/** Makes functions of 64 additions and calls them. */
function churn(): number[] {
  const fill = code(
    "bd 40 00 00 00 89 fb", // mov ebp, 64; mov ebx, edi
    "c6 03 05 89 4b 01 83 c3 05", // more: mov byte [ebx], ADD; mov [ebx + 1], ecx; add ebx, 5
    "4d 75 f4", // dec ebp; jnz more
    "c6 03 c3", // mov byte [ebx], RET
  );
  const call = code("bd", dword(CALLS), "ff d7 4d 75 fb"); // mov ebp, CALLS; call edi; dec ebp; jnz
  const next = code("81 c7", dword(0x400), "81 e7", dword(BUFFER | (BUFFER - 1)), "41"); // inc ecx
  const round = [...fill, ...call, ...next];
  return code("bf", dword(BUFFER), round, "e9", dword(-(round.length + 5) >>> 0));
}

const given = taskOptions({
  name: "churn",
  usage: USAGE,
  valued: ["minutes"],
  numbers: { minutes: 1 },
});
const minutes = Number(given.get("minutes") ?? 5);
const bench = new Bench({ memory: 2 * BUFFER, tier: 2, codeLimit: CODE_LIMIT });
bench.write(AT, churn());
bench.protect();
bench.state.set(S.rip, BigInt(AT));
bench.state.setRegister(4, BigInt(AT));

const start = performance.now();
const end = start + minutes * 60_000;
const quarter = start + minutes * 15_000;
let early = 0;
for (let line = start + LINE_MS; performance.now() < end;) {
  bench.run(1_000_000);
  // Collected modules are given back when nothing runs.
  await new Promise((resolve) => setTimeout(resolve, 0));
  const now = performance.now();
  const rss = Math.round(Deno.memoryUsage().rss / MIB);
  // On a machine that does much else the first turn may last longer than the quarter.
  if (now < quarter || early === 0) early = Math.max(early, rss);
  if (now < line && now < end) continue;
  line += LINE_MS;
  const { compiled, live, liveBytes, evicted } = bench.processors.statistics.regions;
  console.log(
    `${
      ((now - start) / 1000).toFixed(0)
    } s: ${compiled} regions compiled, ${evicted} dropped for room, ` +
      `${live} live (${(liveBytes / MIB).toFixed(1)} MiB); ${rss} MiB of memory`,
  );
}
const late = Math.round(Deno.memoryUsage().rss / MIB);
console.log(`${early} MiB at most in the first quarter, ${late} MiB at the end`);
Deno.exit(late > 1.5 * early ? 1 : 0);
