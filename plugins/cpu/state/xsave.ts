/**
 * x87, SSE and AVX state and PKRU as an XSAVE area in standard format (SDM vol. 1, 13.4).
 *
 * @module
 */
import { S } from "./cpu_state.ts";

/** Bytes of an XSAVE area in standard form with x87, SSE and AVX state and PKRU. */
export const XSAVE_BYTES = 840;
/** Components of the area: x87, SSE, AVX and PKRU. */
const COMPONENTS = 0x207;

/** Offsets in the area. */
const Xsave = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FDP: 16,
  MXCSR: 24,
  ST: 32,
  XMM: 160,
  XSTATE_BV: 512,
  YMM: 576,
  PKRU: 832,
} as const;

/** The tag word with one bit a register (1 = not empty) that FXSAVE stores. */
function abridged(full: number): number {
  let tags = 0;
  for (let k = 0; k < 8; k++) if (((full >> (2 * k)) & 3) !== 3) tags |= 1 << k;
  return tags;
}

/** The full tag word: registers in use are marked valid, as FXRSTOR would work out anew. */
function expanded(tags: number): number {
  let full = 0;
  for (let k = 0; k < 8; k++) if ((tags & (1 << k)) === 0) full |= 3 << (2 * k);
  return full;
}

/** TOP: the area has ST0 first, the state physical register 0. */
function topOf(state: DataView): number {
  return (state.getUint32(S.fpuStatus.address, true) >> 11) & 7;
}

/**
 * Copies `bytes` bytes, a multiple of 4. Guests change places on a processor with every instruction that
 * is emulated: views of each register's bytes would cost ten times as much.
 */
function copyWords(from: DataView, source: number, to: DataView, at: number, bytes: number): void {
  for (let k = 0; k < bytes; k += 4) to.setUint32(at + k, from.getUint32(source + k, true), true);
}

/** Copies an 80-bit register. */
function copyReal(from: DataView, source: number, to: DataView, at: number): void {
  copyWords(from, source, to, at, 8);
  to.setUint16(at + 8, from.getUint16(source + 8, true), true);
}

/** Reads the loaded processor's x87, SSE and AVX state and PKRU out of `memory`. */
export function readXsave(memory: Uint8Array): Uint8Array {
  const area = new Uint8Array(XSAVE_BYTES);
  const out = new DataView(area.buffer);
  const state = new DataView(memory.buffer, memory.byteOffset);
  out.setUint16(Xsave.FCW, state.getUint32(S.fpuControl.address, true), true);
  out.setUint16(Xsave.FSW, state.getUint32(S.fpuStatus.address, true), true);
  out.setUint8(Xsave.FTW, abridged(state.getUint32(S.fpuTag.address, true)));
  out.setUint16(Xsave.FOP, state.getUint32(S.fpuOpcode.address, true), true);
  out.setBigUint64(Xsave.FIP, state.getBigUint64(S.fpuInstruction.address, true), true);
  out.setBigUint64(Xsave.FDP, state.getBigUint64(S.fpuData.address, true), true);
  out.setUint32(Xsave.MXCSR, state.getUint32(S.mxcsr.address, true), true);
  const top = topOf(state);
  for (let k = 0; k < 8; k++) {
    const register = S.st + 16 * ((top + k) & 7);
    copyReal(state, register, out, Xsave.ST + 16 * k);
  }
  for (let k = 0; k < 16; k++) {
    const register = S.vectors + 64 * k;
    copyWords(state, register, out, Xsave.XMM + 16 * k, 16);
    copyWords(state, register + 16, out, Xsave.YMM + 16 * k, 16);
  }
  out.setUint32(Xsave.PKRU, state.getUint32(S.pkru.address, true), true);
  out.setUint32(Xsave.XSTATE_BV, COMPONENTS, true);
  return area;
}

/** PKRU in an area; 0 if the area is too short to have it. */
export function pkruOf(area: Uint8Array): number {
  if (area.length < Xsave.PKRU + 4) return 0;
  return new DataView(area.buffer, area.byteOffset).getUint32(Xsave.PKRU, true);
}

/**
 * Writes the loaded processor's x87, SSE and AVX state and PKRU; what a shorter area does not have is
 * cleared. The TLB is the caller's.
 */
export function writeXsave(memory: Uint8Array, area: Uint8Array): void {
  const source = new DataView(area.buffer, area.byteOffset);
  const state = new DataView(memory.buffer, memory.byteOffset);
  state.setUint32(S.fpuControl.address, source.getUint16(Xsave.FCW, true), true);
  state.setUint32(S.fpuStatus.address, source.getUint16(Xsave.FSW, true), true);
  state.setUint32(S.fpuTag.address, expanded(source.getUint8(Xsave.FTW)), true);
  state.setUint32(S.fpuOpcode.address, source.getUint16(Xsave.FOP, true), true);
  state.setBigUint64(S.fpuInstruction.address, source.getBigUint64(Xsave.FIP, true), true);
  state.setBigUint64(S.fpuData.address, source.getBigUint64(Xsave.FDP, true), true);
  state.setUint32(S.mxcsr.address, source.getUint32(Xsave.MXCSR, true), true);
  const top = topOf(state);
  for (let k = 0; k < 8; k++) {
    const register = S.st + 16 * ((top + k) & 7);
    copyReal(source, Xsave.ST + 16 * k, state, register);
  }
  const hasYmm = area.length >= Xsave.YMM + 16 * 16;
  for (let k = 0; k < 16; k++) {
    const register = S.vectors + 64 * k;
    copyWords(source, Xsave.XMM + 16 * k, state, register, 16);
    if (hasYmm) copyWords(source, Xsave.YMM + 16 * k, state, register + 16, 16);
    else memory.fill(0, register + 16, register + 32);
  }
  state.setBigUint64(S.pkru.address, BigInt(pkruOf(area)), true);
}
