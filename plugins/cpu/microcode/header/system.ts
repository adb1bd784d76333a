/**
 * Control registers, MSRs, ports, system calls, extended state.
 *
 * @module
 */
import { I32T, I64T } from "../../wasm/mod.ts";
import type { Fn, I, L, Signatures } from "./signature.ts";

/** What system instructions call. */
export interface SystemRoutines {
  // Control registers, MSRs, ports (microcode/control.ts, microcode/msr.ts, microcode/port.ts).

  /** `(n, value)`: raises #GP unless `value` may be moved to CRn as the processor is now. */
  readonly checkCr: Fn<[I, L]>;
  /** `(value)`: MOV to CR0 of a checked value. */
  readonly writeCr0: Fn<[L]>;
  /** `(value)`: MOV to CR3 of a checked value; #GP for bad PAE entries. */
  readonly writeCr3: Fn<[L]>;
  /** `(value)`: MOV to CR4 of a checked value; #GP for bad PAE entries. */
  readonly writeCr4: Fn<[L]>;
  /** `(cr3)`: loads the four PAE page-directory-pointer entries; 0 if one of them is bad. */
  readonly readPdptes: Fn<[L], I>;
  /** `(index)`: RDMSR: 1 and `S.exchange`, or 0 for #GP. */
  readonly readMsr: Fn<[I], I>;
  /** `(index)`: WRMSR of `S.exchange`: 1, or 0 for #GP. */
  readonly writeMsr: Fn<[I], I>;
  /** `()`: the time-stamp counter as RDTSC reads it. */
  readonly readTsc: Fn<[], L>;
  /** `(port, bytes)`: raises #GP unless IOPL or the TSS's bitmap allows the access. */
  readonly checkPort: Fn<[I, I]>;
  /** `(port, bytes)`: 1 if the I/O permission map intercepts the access. */
  readonly portIntercepted: Fn<[I, I], I>;
  /** `(index, write)`: 1 if the MSR permission map intercepts the access. */
  readonly msrIntercepted: Fn<[I, I], I>;
  /** `(nextRip)`: SYSCALL. */
  readonly systemCall: Fn<[L]>;
  /** `(bits)`: SYSRET. */
  readonly systemReturn: Fn<[I]>;
  /** `()`: SYSENTER. */
  readonly systemEnter: Fn<[]>;
  /** `(bits)`: SYSEXIT. */
  readonly systemExit: Fn<[I]>;

  // Extended state (microcode/extended_state.ts).

  /** `()`: components that are not in their initial configuration (XINUSE). */
  readonly xinuse: Fn<[], L>;
  /** `(value)`: XSETBV of XCR0; raises #GP for bits that cannot be. */
  readonly writeXcr0: Fn<[L]>;
  /** `(area, wanted, how)`: saves the `wanted` components that XCR0 enables, see `SaveHow`. */
  readonly saveExtended: Fn<[L, L, I]>;
  /** `(area, wanted, supervisor)`: XRSTOR, or XRSTORS with `supervisor` 1. */
  readonly restoreExtended: Fn<[L, L, I]>;
}

/** Their signatures. */
export const SYSTEM: Signatures<SystemRoutines> = {
  checkCr: [[I32T, I64T], undefined],
  writeCr0: [[I64T], undefined],
  writeCr3: [[I64T], undefined],
  writeCr4: [[I64T], undefined],
  readPdptes: [[I64T], I32T],
  readMsr: [[I32T], I32T],
  writeMsr: [[I32T], I32T],
  readTsc: [[], I64T],
  checkPort: [[I32T, I32T], undefined],
  portIntercepted: [[I32T, I32T], I32T],
  msrIntercepted: [[I32T, I32T], I32T],
  systemCall: [[I64T], undefined],
  systemReturn: [[I32T], undefined],
  systemEnter: [[], undefined],
  systemExit: [[I32T], undefined],
  xinuse: [[], I64T],
  writeXcr0: [[I64T], undefined],
  saveExtended: [[I64T, I64T, I32T], undefined],
  restoreExtended: [[I64T, I64T, I32T], undefined],
};
