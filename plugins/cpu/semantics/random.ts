/**
 * RDRAND and RDSEED (SDM vol. 1, 7.3.17). The numbers come from a generator that starts from the seed of
 * the machine and the processor's number, so that runs can be repeated; they are no secret.
 *
 * @module
 */
import { S } from "../state/cpu_state.ts";
import { Secondary } from "../vmx/controls.ts";
import { VmxExit } from "../vmx/exit_reasons.ts";
import { type FunctionBuilder, i32, type I64, I64T } from "../wasm/mod.ts";
import type { Instruction, Semantics } from "./instruction.ts";
import { ended } from "./privilege.ts";
import { exitVmx, reportOperand } from "./vmx_intercept.ts";

/** Steele and Vigna's splitmix64: the step of the state, and the two multipliers of its output. */
const STEP = 0x9e37_79b9_7f4a_7c15n;
const MIX_1 = 0xbf58_476d_1ce4_e5b9n;
const MIX_2 = 0x94d0_49bb_1331_11ebn;

/** The next 64 random bits. */
function next(f: FunctionBuilder): I64 {
  const state = f.variable(I64T, S.random.get(f).add(STEP)).get();
  S.random.set(f, state);
  const first = f.variable(I64T, state.xor(state.shrU(30)).mul(MIX_1)).get();
  const second = f.variable(I64T, first.xor(first.shrU(27)).mul(MIX_2)).get();
  return second.xor(second.shrU(31));
}

/** The exit tells the operand's register (6:3) and its size (12:11 of the instruction information). */
function exit(i: Instruction, control: number, reason: number): void {
  const { f } = i;
  f.if(
    S.nonRoot.get(f).and(S.secondaryControls.has(f, control)),
    () => {
      reportOperand(i, 0, { size: { 16: 0, 32: 1, 64: 2 }[i.width(0)] ?? 0 });
      exitVmx(i, reason);
    },
    undefined,
    "unlikely",
  );
}

/** CF is set, for there always is a number; the other flags are clear. */
const random = (control: number, reason: number): Semantics =>
  ended((i) => {
    exit(i, control, reason);
    i.write(0, next(i.f));
    i.flagsValue(i32(1));
  });

/** Random numbers by mnemonic. */
export const RANDOM: Readonly<Record<string, Semantics>> = {
  RDRAND: random(Secondary.RDRAND, VmxExit.RDRAND),
  RDSEED: random(Secondary.RDSEED, VmxExit.RDSEED),
};
