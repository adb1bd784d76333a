/**
 * The debug-exit port: a guest ends its run with a code of its own, by one write to a port.
 *
 * A write of `v`, of any width, ends the run with reason `"exit-code"` and code `(v << 1) | 1`, which
 * is never 0, so that a guest cannot be taken for one that succeeded without saying anything. Ports
 * and code are those of QEMU's device `isa-debug-exit`; kvm-unit-tests and bare-metal kernels use it.
 *
 * @example
 * ```ts
 * import { debugExit } from "@trapline/trapline/debugexit";
 *
 * const plugin = debugExit(); // OUT F4h, AL = 0 ends the run with code 1
 * console.assert(plugin.name === "debugexit");
 * ```
 *
 * Limits: none known. The ports read as 0, as QEMU's do.
 *
 * @module
 */

import { ArgumentError, type Plugin } from "../../core/mod.ts";

/** Options of {@linkcode debugExit}. */
export interface DebugExitOptions {
  /** First port, 0 to FFFFh; F4h if not given. */
  readonly base?: number;
  /** Number of ports, 1 to 4; 4 if not given. */
  readonly ports?: number;
}

/**
 * The debug-exit port as a plugin.
 *
 * @throws {ArgumentError} If the ports are not 1 to 4 ports from 0 to FFFFh.
 */
export function debugExit(options: DebugExitOptions = {}): Plugin {
  const { base = 0xf4, ports = 4 } = options;
  if (!Number.isInteger(ports) || ports < 1 || ports > 4) {
    throw new ArgumentError(`debug exit: ports ${ports} is not an integer from 1 to 4`);
  }
  if (!Number.isInteger(base) || base < 0 || base + ports > 0x1_0000) {
    throw new ArgumentError(`debug exit: base ${base} is not a port from 0 to ${0x1_0000 - ports}`);
  }
  return {
    name: "debugexit",
    version: "1.0.0",
    description: "Ends the run with a code that the guest writes to a port",
    setup(ctx) {
      ctx.registerPio({
        name: "debug exit",
        base,
        length: ports,
        read: () => 0,
        write(_offset, _size, value) {
          ctx.vm.stop({ reason: "exit-code", code: exitCode(value) });
        },
      });
    },
  };
}

/**
 * The code that a write ends the run with: `(value << 1) | 1`, 32 bits unsigned.
 *
 * @param value What was written, up to 32 bits; bit 31 is lost.
 */
export function exitCode(value: number): number {
  return ((value << 1) | 1) >>> 0;
}
