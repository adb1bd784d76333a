/**
 * Where firmware finds the power management registers, and moves them: function 3 of the 82371AB (Intel
 * 290562, 7.1), whose PMBA at 40h says at which ports they are and whose PMREGMISC at 80h whether.
 *
 * @module
 */

import { type PluginContext, resetHook } from "../../core/mod.ts";
import { addPciFunction } from "../pci/mod.ts";

/** What the base that it can tell is a multiple of. */
export const POWER_FUNCTION_UNIT = 64;

/** Offset of PMBA: bits 15:6 are the base, bit 0 says that it is one of ports. */
const BASE = 0x40;
const BASE_BITS = 0xffc0;
const PORTS = 1;
/** Offset of PMREGMISC. */
const MISCELLANEOUS = 0x80;
/** PMIOSE: the registers are there. */
const ENABLED = 1;

/**
 * Puts the function on the bus, with the registers at `base` as if firmware had been there.
 *
 * @param base A multiple of 64.
 * @param moved Hears where the registers are to be, `undefined` for nowhere; at once for the first time.
 */
export function addPowerFunction(
  ctx: PluginContext,
  base: number,
  moved: (base: number | undefined) => void,
): void {
  const update = (): void => {
    const enabled = (power.read(MISCELLANEOUS, 1) & ENABLED) !== 0;
    moved(enabled ? power.read(BASE, 2) & BASE_BITS : undefined);
  };
  const power = addPciFunction(ctx, {
    name: "power management",
    device: 1,
    function: 3,
    vendorId: 0x8086,
    deviceId: 0x7113,
    revision: 3,
    classCode: 0x06_8000,
    registers: [
      [BASE, base & 0xff | PORTS, BASE_BITS & 0xff],
      [BASE + 1, base >> 8, BASE_BITS >> 8],
      [MISCELLANEOUS, ENABLED, ENABLED],
    ],
    written: update,
  });
  update();
  // The bus resets what is on it.
  ctx.on(resetHook, update, { stage: "post", after: ["pci"] });
}
