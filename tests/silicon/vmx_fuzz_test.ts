/**
 * VMCSs near a valid one: one field with one to three bits flipped. No entry does anything but run the
 * guest, exit, or be refused; a refusal is that of the field's group; and what is refused has changed
 * nothing.
 *
 * VMX_FUZZ_CASES and VMX_FUZZ_SEED say how many and which.
 */
import { assert, assertEquals } from "@std/assert";
import { S, Vmcs } from "../../plugins/cpu/mod.ts";
import { At, exitText, standardFields, VmxLab } from "./vmx_lab.ts";

const CASES = Number(Deno.env.get("VMX_FUZZ_CASES") ?? 1500);
const SEED = Number(Deno.env.get("VMX_FUZZ_SEED") ?? Math.floor(Math.random() * 0x7fff_ffff));

/** Numbers from 0 to below `n`, the same for the same seed. */
function generator(seed: number): (n: number) => number {
  let state = seed | 1;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
}

type Group = "control" | "information" | "guest" | "host";
const GROUPS: readonly Group[] = ["control", "information", "guest", "host"];
const groupOf = (encoding: number): Group => GROUPS[(encoding >> 10) & 3]!;
const bitsOf = (encoding: number): number => [16, 64, 32, 64][(encoding >> 13) & 3]!;

/** Fields with information on exits are of no matter to an entry; the others may be refused so. */
const REFUSALS: Readonly<Record<Group, RegExp>> = {
  // The mode that the controls ask for has to agree with the host and with the guest.
  control: /^(VMfail [78]|entry failure, (INVALID_GUEST_STATE( 2)?|MSR_LOADING \w+))$/,
  information: /^$/,
  guest: /^entry failure, INVALID_GUEST_STATE( [24])?$/,
  host: /^VMfail 8$/,
};

const isRefusal = (text: string): boolean => /^(VMfail|entry failure)/.test(text);

Deno.test(`${CASES} VMCSs near a valid one, seed ${SEED}`, () => {
  const next = generator(SEED);
  const standard = standardFields();
  const fields = Object.values(Vmcs);
  const counts: Record<string, number> = {};
  let lab: VmxLab | undefined;
  let launched = false;
  for (let k = 0; k < CASES; k++) {
    if (lab === undefined) {
      lab = new VmxLab();
      lab.bench.write(At.GUEST, [0xf4]);
      lab.prepare();
      launched = false;
    }
    const encoding = fields[next(fields.length)]!;
    const old = BigInt.asUintN(64, BigInt(standard[encoding]!));
    let value = old;
    for (let flips = 1 + next(3); flips > 0; flips--) value ^= 1n << BigInt(next(bitsOf(encoding)));
    const name = `${encoding.toString(16)}h = ${value.toString(16)}`;
    const group = groupOf(encoding);
    lab.write({ [encoding]: value });
    const { state } = lab.bench;
    const before = Array.from({ length: 16 }, (_, n) => state.register(n));
    let text = "stopped";
    try {
      text = exitText(lab.enter(!launched, 2000));
    } catch (error) {
      // A host or guest that went astray may meet an instruction that is not there, or no longer read.
      assert(group !== "information", `${name}: ${error}`);
    }
    counts[text.split(" ")[0]!] = (counts[text.split(" ")[0]!] ?? 0) + 1;
    if (isRefusal(text)) {
      assert(REFUSALS[group].test(text), `${name}: ${text}`);
      assertEquals(state.get32(S.nonRoot), 0, name);
      const registers = [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
      const skip = text.startsWith("VMfail") ? new Set([3]) : new Set<number>();
      for (const n of registers) {
        if (!skip.has(n)) assertEquals(state.register(n), before[n], `${name}: register ${n}`);
      }
    } else if (group === "information") assertEquals(text, "HLT", name);
    // What ran may have changed memory or the host: begin afresh. What was refused has not.
    const clean = text === "HLT" || isRefusal(text);
    if (!clean || group === "host") {
      lab = undefined;
      continue;
    }
    launched ||= text === "HLT";
    lab.write({
      [encoding]: old,
      [Vmcs.GUEST_RIP]: At.GUEST,
      [Vmcs.ENTRY_CONTROLS]: standard[Vmcs.ENTRY_CONTROLS]!,
    });
  }
  // Each of the three kinds of refusal has come up, and so have guests that ran.
  for (const kind of ["VMfail", "entry", "HLT"]) assert((counts[kind] ?? 0) > 0, kind);
});
