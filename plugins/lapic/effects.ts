/**
 * What writes of registers do besides storing the value.
 *
 * @module
 */

import type { Lapic } from "./lapic.ts";
import { Icr } from "./message.ts";
import { Extended, LapicRegister, Lvt, Svr } from "./registers.ts";

const R = LapicRegister;

/** What a write of `value` to the register at `offset` does, once what can be stored is stored. */
export type Effect = (lapic: Lapic, value: number, offset: number) => void;

/** What a write does besides storing, by register: offset / 10h of the first of its kind. */
export const EFFECTS: (Effect | undefined)[] = new Array(0x100).fill(undefined);

const lvtWritten: Effect = (lapic, _value, offset) => lapic.lvt.settle(offset);

const TABLE: readonly (readonly [number, Effect])[] = [
  [R.ID, (lapic) => lapic.announce("id")],
  [R.TPR, (lapic, value) => {
    lapic.setTaskPriority(value);
    lapic.announceTaskPriority();
  }],
  [R.EOI, (lapic) => lapic.endOfInterrupt()],
  [R.LDR, (lapic) => lapic.announce("ldr")],
  [R.DFR, (lapic, value) => {
    // Bits 27:0 read as ones.
    lapic.registers.set(R.DFR, value | 0x0fff_ffff);
    lapic.announce("dfr");
  }],
  [R.SVR, (lapic, value) => {
    if ((value & Svr.ENABLE) === 0) lapic.lvt.maskAll();
    lapic.announce("enable");
  }],
  [R.ESR, (lapic) => lapic.latchErrors()],
  [R.ICR, (lapic, value) => lapic.sendIcr(value & ~Icr.BUSY)],
  [R.LVT_TIMER, (lapic, _value, offset) => {
    const mode = (lapic.registers.get(offset) & Lvt.TIMER_MODE) >>> 17;
    if (lapic.timer.setMode(mode)) lapic.registers.set(R.TIMER_INITIAL, 0);
    lapic.lvt.settle(offset);
    lapic.timer.setMasked((lapic.registers.get(offset) & Lvt.MASK) !== 0);
  }],
  [R.LVT_THERMAL, lvtWritten],
  [R.LVT_PERF, lvtWritten],
  [R.LVT_LINT0, lvtWritten],
  [R.LVT_LINT1, lvtWritten],
  [R.LVT_ERROR, lvtWritten],
  [R.LVT_CMCI, lvtWritten],
  [R.EXT_LVT, lvtWritten],
  [R.TIMER_INITIAL, (lapic, value) => {
    if (!lapic.timer.start(value)) lapic.registers.set(R.TIMER_INITIAL, 0);
  }],
  [R.TIMER_DIVIDE, (lapic, value) => lapic.timer.setDivide(value)],
  [R.SELF_IPI, (lapic, value) => lapic.sendSelf(value & 0xff)],
  [R.SEOI, (lapic, value) => {
    const enabled = (lapic.registers.get(R.EXT_CONTROL) & Extended.SEOI) !== 0;
    if (enabled) lapic.endSpecific(value & 0xff);
  }],
];
for (const [offset, effect] of TABLE) EFFECTS[offset >> 4] = effect;
