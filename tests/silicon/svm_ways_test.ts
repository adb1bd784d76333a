/**
 * Guests of random bytes, in every mode: with nested paging, without, and with branches recorded they end
 * the same, to the last byte.
 */
import { assertEquals } from "@std/assert";
import { UnimplementedError } from "../../core/mod.ts";
import { Control, InterceptWord, Misc1, Msr, S } from "../../plugins/cpu/mod.ts";
import { Prng } from "../vectors/prng.ts";
import { refuseOutside } from "./lab.ts";
import { type GuestMode, SvmBench, SvmPlace } from "./svm_bench.ts";

const SEEDS = 600;
const MODES: readonly GuestMode[] = ["long", "compat", "protected", "real", "v86"];
const MEMORY = 0x20_0000;
/** Registers that neither VMRUN nor the bench sets, and a guest may have changed. */
const LEFT_OVER = [
  S.cr8,
  S.star,
  S.lstar,
  S.cstar,
  S.sfmask,
  S.kernelGsBase,
  S.sysenterCs,
  S.sysenterEsp,
  S.sysenterEip,
  S.tscAux,
  S.tscAdjust,
];

/** Set once a guest has asked for a device: what is at an address beyond memory is no part of this. */
let devices = false;
const bench = new SvmBench({
  memory: MEMORY,
  outside: {
    ...refuseOutside(),
    deviceRead: () => {
      devices = true;
    },
    deviceWrite: () => {
      devices = true;
    },
    portRead: () => 0,
    portWrite: () => {},
    cpuid: () => {},
  },
});

/** Ways to run the same guest. */
const WAYS: Readonly<Record<string, () => void>> = {
  plain: () => {},
  nested: () => bench.nested(),
  recorded: () => void bench.processor.writeMsr(Msr.DEBUGCTL, 1n),
};

/** Everything a guest of `seed` leaves behind. */
function end(seed: number, way: string): string {
  const random = new Prng(seed, 1);
  bench.fill(0, MEMORY, 0);
  bench.standardTables();
  bench.guest(MODES[random.below(MODES.length)], random.below(3) === 0 ? 3 : 0);
  bench.guestHandlers();
  const { state } = bench;
  for (const field of LEFT_OVER) state.set(field, 0n);
  bench.processor.setTsc(0);
  bench.processor.writeMsr(Msr.PAT, 0x0007_0406_0007_0406n);
  bench.processor.writeMsr(Msr.DEBUGCTL, 0n);
  bench.setControl32(InterceptWord.EXCEPTIONS, random.below(2) === 0 ? 0xffff_ffff : 0);
  bench.orControl32(InterceptWord.MISC1, Misc1.RDPMC);
  bench.write(SvmPlace.GUEST_CODE, Array.from({ length: 48 }, () => random.below(256)));
  for (let n = 1; n < 16; n++) {
    const pointer = SvmPlace.GUEST_DATA + random.below(0x1000);
    state.setRegister(n, BigInt(random.below(3) === 0 ? random.next() : pointer));
  }
  WAYS[way]!();
  devices = false;
  const exit = bench.resume(300);
  const registers = Array.from({ length: 15 }, (_, n) => state.register(n + 1));
  const save = bench.read(bench.vmcb + 0x400, 0x260);
  const info = exit === "invalid" ? [] : bench.info;
  const memory = bench.read(SvmPlace.GUEST_CODE, MEMORY - SvmPlace.GUEST_CODE);
  let digest = 0;
  for (const word of new Uint32Array(memory.buffer)) digest = (Math.imul(digest, 31) + word) | 0;
  return [exit, info, bench.control64(Control.EXITINTINFO), registers, save, digest].join(" ");
}

Deno.test("a guest ends the same in every way it is run", () => {
  let compared = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const plain = end(seed, "plain");
      let outside = devices;
      for (const way of ["nested", "recorded"]) {
        const other = end(seed, way);
        outside ||= devices || other.startsWith("400 ");
        if (!outside) assertEquals(other, plain, `seed ${seed}, ${way}`);
      }
      if (!outside) compared++;
    } catch (error) {
      if (!(error instanceof UnimplementedError)) throw error;
      bench.processor.reset();
    }
  }
  if (compared < SEEDS / 2) {
    throw new Error(`only ${compared} of ${SEEDS} guests could be compared`);
  }
});
