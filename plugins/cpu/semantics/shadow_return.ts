/**
 * What near calls and returns do to the shadow stack (SDM vol. 2, CALL and RET; APM vol. 2, 18.4).
 *
 * Here is what they do as long as they stay in the page of the last store; for all else, faults among it,
 * there is microcode.
 *
 * @module
 */
import { pageHoldsCode } from "../memory/physical.ts";
import { findShadow } from "../memory/tlb.ts";
import { shadowMmu } from "../microcode/cet.ts";
import { S } from "../state/cpu_state.ts";
import { i32, I32T, type I64, I64T } from "../wasm/mod.ts";
import type { Instruction } from "./instruction.ts";

/** Width of a near return address on the shadow stack. */
const shadowBits = (i: Instruction): 32 | 64 => i.code === 64 ? 64 : 32;

/** SSP moved by `bytes`; outside of 64-bit mode it has 32 bits. */
const moved = (i: Instruction, bytes: number): I64 =>
  S.ssp.get(i.f).add(bytes).zeroExtend(shadowBits(i));

/** Pushes return address `value`; faults before anything has changed. */
export function pushShadow(i: Instruction, value: I64): void {
  const { f } = i;
  const bits = shadowBits(i);
  const top = f.variable(I64T, moved(i, -bits / 8)).get();
  const { hit, address } = findShadow(f, top, i32(bits / 8), shadowMmu(S.cpl.get(f)));
  const place = f.variable(I32T, f.choose(I32T, hit, address, () => 0)).get();
  f.if(
    place.ne(0).and(pageHoldsCode(f, place).eqz()),
    () => {
      if (bits === 64) f.store64(place, value);
      else f.store32(place, value.wrap());
      S.ssp.set(f, top);
    },
    () => {
      i.spill();
      f.call(i.mc.shadowPush, bits, value);
    },
    "likely",
  );
}

/** Pops a return address, which must be `target`; faults before anything has changed. */
export function popShadow(i: Instruction, target: I64): void {
  const { f } = i;
  const bits = shadowBits(i);
  const { hit, address } = findShadow(f, S.ssp.get(f), i32(bits / 8), shadowMmu(S.cpl.get(f)));
  const same = f.choose(
    I32T,
    hit,
    () => (bits === 64 ? f.load64(address()) : f.load32(address()).extendU()).eq(target),
    () => 0,
  );
  f.if(
    same,
    () => S.ssp.set(f, moved(i, bits / 8)),
    () => {
      i.spill();
      f.call(i.mc.shadowPop, bits, target);
    },
    "likely",
  );
}
