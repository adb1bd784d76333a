/**
 * VMX instructions of a host that is the program outside: their operands, and their failures as errors.
 *
 * @module
 */
import { StubFailure } from "../vmx/host_stub.ts";

/** The error for a VMX instruction of the host that did not succeed. */
export function vmfail(instruction: string, result: number): Error {
  if (result === StubFailure.INVALID) return new Error(`${instruction}: VMfailInvalid`);
  if (result === StubFailure.FAULT) return new Error(`${instruction}: #GP`);
  return new Error(`${instruction}: VMfailValid, error ${result}`);
}

/** VMXON, VMCLEAR or VMPTRLD with the host physical address `address`. Throws if it fails. */
export function usePointer(
  exports: Record<string, CallableFunction>,
  name: string,
  operation: number,
  address: number,
): void {
  const low = address % 0x1_0000_0000;
  const high = Math.floor(address / 0x1_0000_0000);
  const result = exports.vmxHostPointer!(operation, low | 0, high | 0) as number;
  if (result !== 0) throw vmfail(name, result);
}

/** INVEPT (`vpid` 0) or INVVPID (1) of `type` for `operand`. Throws if it fails. */
export function invalidate(
  exports: Record<string, CallableFunction>,
  name: string,
  vpid: number,
  type: number,
  operand: number,
): void {
  const low = operand % 0x1_0000_0000;
  const high = Math.floor(operand / 0x1_0000_0000);
  const result = exports.vmxHostInvalidate!(vpid, type, low | 0, high | 0) as number;
  if (result !== 0) throw vmfail(name, result);
}
