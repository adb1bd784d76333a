/**
 * Control blocks at random: VMRUN refuses them or the guest runs, and whatever it does, the host comes back
 * as it was. And which of them VMRUN refuses: those that the list of checks refuses, and no others;
 * `deno task fuzz` tries a million.
 *
 * SVM_FUZZ_CASES and SVM_FUZZ_SEED say how many of the latter, and which.
 */
import { assert, assertEquals } from "@std/assert";
import { UnimplementedError } from "../../core/mod.ts";
import { Control, InterceptWord, Misc2, S, Seg, Stop } from "../../plugins/cpu/mod.ts";
import { Tally } from "../fuzz/campaign.ts";
import { VMCB_CHECKS } from "../fuzz/vmcb_checks.ts";
import { CONFINED_FIELDS } from "../fuzz/vmcb_fields.ts";
import { fuzzVmcbs } from "../fuzz/vmcb_fuzz.ts";
import { Prng } from "../vectors/prng.ts";
import { Place } from "./bench.ts";
import { silentOutside } from "./lab.ts";
import { type GuestMode, SvmBench, SvmPlace } from "./svm_bench.ts";

const MODES: readonly GuestMode[] = ["long", "compat", "protected", "real", "v86"];
const SEEDS = 3000;
const CASES = Number(Deno.env.get("SVM_FUZZ_CASES") ?? 1500);
const SEED = Number(Deno.env.get("SVM_FUZZ_SEED") ?? Math.floor(Math.random() * 0x7fff_ffff));

/** First and last byte of what the host needs: its code and tables, save area, control blocks, maps. */
const HOST = [0x1_0000, 0x6_ffff] as const;

/** Nested tables keep the guest away from the host, and from memory beyond 2 MiB. */
function confine(bench: SvmBench): void {
  bench.nested();
  for (let at = HOST[0]; at < HOST[1]; at += 0x1000) {
    bench.set64(bench.pageEntry(SvmPlace.NPT, at), 0n);
  }
  for (let k = 1; k < 4; k++) bench.set64(SvmPlace.NPT + 0x2000 + 8 * k, 0n);
}

/** Changes a field: some of its bits, or all. */
function disturb(bench: SvmBench, random: Prng): void {
  const [offset, bytes] = random.pick(CONFINED_FIELDS);
  for (let k = 0; k < bytes; k++) {
    const at = bench.vmcb + offset + k;
    if (random.below(4) !== 0) continue;
    bench.write(at, [bench.read(at, 1)[0]! ^ (1 << random.below(8))]);
  }
}

function hostState(bench: SvmBench): unknown[] {
  const { state } = bench;
  const fields = [S.cr0, S.cr3, S.cr4, S.efer, S.gdtBase, S.idtBase, S.pat, S.dr7];
  return [
    state.register(0),
    state.register(4),
    fields.map((field) => state.get(field)),
    [S.gdtLimit, S.idtLimit, S.cpl, S.nestedPaging, S.asid, S.busLocks, S.avicPage]
      .map((field) => state.get32(field)),
    [Seg.ES, Seg.CS, Seg.SS, Seg.DS].map((n) => state.segment(n)),
    bench.flags & ~0x8d5,
  ];
}

Deno.test("whatever stands in a control block, the host comes back as it was", () => {
  const bench = new SvmBench({ model: "zen5", outside: silentOutside() });
  let ran = 0;
  let refused = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Prng(seed, 0);
    bench.guest(MODES[random.below(MODES.length)], random.below(4) === 0 ? 3 : 0);
    confine(bench);
    if (random.below(2) === 0) bench.guestHandlers(64);
    // A guest that does not come to an end is stopped from outside.
    bench.setControl32(InterceptWord.EXCEPTIONS, random.below(2) === 0 ? 0xffff_ffff : 0);
    const changes = random.below(4);
    for (let k = 0; k < changes; k++) disturb(bench, random);
    bench.orControl32(InterceptWord.MISC2, Misc2.VMRUN);
    const code = Array.from({ length: 24 }, () => random.below(256));
    bench.write(SvmPlace.GUEST_CODE, code);
    bench.processor.writeMsr(0x277, 0x0007_0406_0007_0406n);
    bench.state.set(S.dr7, 0x400n);
    bench.state.setRegister(0, BigInt(bench.vmcb));
    const host = hostState(bench);
    bench.write(Place.CODE, [0x0f, 0x01, 0xd8, 0xf4]);
    let stop: Stop | undefined;
    try {
      ({ stop } = bench.run(300));
    } catch (error) {
      if (!(error instanceof UnimplementedError)) throw new Error(`seed ${seed}`, { cause: error });
      bench.processor.reset();
      bench.standardTables();
      continue;
    }
    if (bench.state.get32(S.guestMode) === 1 || stop === Stop.SHUTDOWN) {
      bench.standardTables();
      continue;
    }
    assertEquals(bench.state.get(S.rip), BigInt(Place.CODE + 4), `seed ${seed}`);
    assertEquals(hostState(bench), host, `seed ${seed}`);
    assertEquals(bench.state.get32(S.gif), 0, `seed ${seed}`);
    if (bench.control64(Control.EXITCODE) === 0xffff_ffff_ffff_ffffn) refused++;
    else ran++;
    bench.standardTables();
  }
  // Neither is the exception.
  if (ran < SEEDS / 4 || refused < SEEDS / 20) throw new Error(`${ran} ran, ${refused} refused`);
});

Deno.test(`${CASES} control blocks near valid ones, seed ${SEED}`, () => {
  const tally = new Tally(VMCB_CHECKS.map(({ rule }) => rule));
  fuzzVmcbs(CASES, SEED, tally);
  assertEquals(tally.cases, CASES);
  const kinds = new Map(tally.kinds);
  for (const kind of ["invalid", "exit"]) assert((kinds.get(kind) ?? 0) > 0, kind);
});
