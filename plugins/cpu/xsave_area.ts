/**
 * XSAVE areas of standard form: after RESET, and with R16–R31. The vCPU's register storage is where they are kept; an area
 * only carries a copy of them (SDM vol. 1, 13.4; CPUID (0Dh,19)).
 *
 * @module
 */
import { Gpr } from "../../core/mod.ts";
import { Xcr0 } from "./microcode/registers.ts";
import { XSAVE_BYTES } from "./state/xsave.ts";

/** Place and size of component 19, and of XSTATE_BV. */
const APX_OFFSET = 960;
const APX_BYTES = 128;
const XSTATE_BV = 512;
/** Words of R16–R31 in a storage of registers. */
const FIRST = 2 * (Gpr.R15 + 1);
const WORDS = APX_BYTES / 4;

/**
 * x87, SSE and AVX state and PKRU after RESET, in standard form (SDM vol. 3, table 10-1): FCW 40h, registers zero
 * and not empty, MXCSR 1F80h, PKRU 0. INIT leaves it as it is.
 */
export function resetXsave(): Uint8Array {
  const area = new Uint8Array(XSAVE_BYTES);
  const view = new DataView(area.buffer);
  view.setUint16(0, 0x40, true);
  // The abridged tag word: a bit for each register that is not empty.
  area[4] = 0xff;
  view.setUint32(24, 0x1f80, true);
  view.setUint32(XSTATE_BV, Xcr0.X87 | Xcr0.SSE, true);
  return area;
}

/** A copy of `area`, x87, SSE, AVX and PKRU, with the R16–R31 of `registers` behind it. */
export function withExtendedRegisters(area: Uint8Array, registers: Uint32Array): Uint8Array {
  const whole = new Uint8Array(APX_OFFSET + APX_BYTES);
  whole.set(area);
  const view = new DataView(whole.buffer);
  for (let k = 0; k < WORDS; k++) {
    view.setUint32(APX_OFFSET + 4 * k, registers[FIRST + k]!, true);
  }
  view.setUint32(XSTATE_BV, view.getUint32(XSTATE_BV, true) | Xcr0.APX, true);
  return whole;
}

/** Sets R16–R31 of `registers` from `area`; zero if the area does not have them. */
export function setExtendedRegisters(registers: Uint32Array, area: Uint8Array): void {
  const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
  const present = area.length >= APX_OFFSET + APX_BYTES &&
    (view.getUint32(XSTATE_BV, true) & Xcr0.APX) !== 0;
  for (let k = 0; k < WORDS; k++) {
    registers[FIRST + k] = present ? view.getUint32(APX_OFFSET + 4 * k, true) : 0;
  }
}
