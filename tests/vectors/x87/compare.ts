/**
 * Comparing what an instruction left on two processors.
 *
 * @module
 */
import type { Form } from "./forms.ts";
import { Record, REGISTER_BYTES, State } from "./layout.ts";

const C1 = 0x200;
const SIGN = 1n << 79n;

/** An 80-bit real as a number that grows with it, and by 1 from one real to the next. */
function ordinal(view: DataView, at: number): bigint {
  const bits = BigInt(view.getUint16(at + 8, true)) << 64n | view.getBigUint64(at, true);
  // The integer bit says nothing, so that the exponent goes up where the significand starts anew.
  const size = (bits >> 64n & 0x7fffn) << 63n | bits & ((1n << 63n) - 1n);
  return (bits & SIGN) !== 0n ? -size : size;
}

/** Whether two records, with registers in physical order, are the same as far as `form` must be. */
export function same(form: Form, left: Uint8Array, right: Uint8Array): boolean {
  const a = new DataView(left.buffer, left.byteOffset, Record.BYTES);
  const b = new DataView(right.buffer, right.byteOffset, Record.BYTES);
  const equal = (from: number, to: number): boolean => {
    for (let k = from; k < to; k++) if (left[k] !== right[k]) return false;
    return true;
  };
  if (!form.approximate) return equal(0, Record.BYTES);
  const status = (view: DataView): number => view.getUint16(State.STATUS, true) & ~C1;
  if (status(a) !== status(b)) return false;
  if (!equal(State.CONTROL, State.STATUS) || !equal(State.TAGS, State.REGISTERS)) return false;
  for (let k = 0; k < 8; k++) {
    const at = State.REGISTERS + REGISTER_BYTES * k;
    if (equal(at, at + REGISTER_BYTES)) continue;
    const distance = ordinal(a, at) - ordinal(b, at);
    if (distance < -1n || distance > 1n) return false;
  }
  return equal(Record.MEMORY, Record.BYTES);
}
