/**
 * Where firmware finds the power management registers, and moves them: function 3 of the 82371AB (Intel
 * 290562, 7.1), whose PMBA at 40h says at which ports they are and whose PMREGMISC at 80h whether.
 *
 * With it are the ports APMC and APMS, B2h and B3h, which keep a byte each: a write to the first is a system
 * management interrupt if DEVACTB at 58h has bit 25, APMC_EN. The first vCPU alone gets it, as in QEMU, so that
 * firmware needs not be ready for it on others. A vendor without system management mode has the bit set from
 * the beginning and there is no interrupt: SeaBIOS takes that for done.
 *
 * Limits: SMI_EN of the register GLBCTL is not there, and no other source of such interrupts is.
 *
 * @module
 */

import { type PluginContext, resetHook, vcpuCreatedHook } from "../../core/mod.ts";
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
/** Offset of the last byte of DEVACTB, and APMC_EN in it. */
const DEVICE_ACTIVITY = 0x5b;
const APMC_ENABLED = 0x02;
const APMC_PORT = 0xb2;

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
      [DEVICE_ACTIVITY, 0, APMC_ENABLED],
      [MISCELLANEOUS, ENABLED, ENABLED],
    ],
    written: update,
  });
  update();
  const { vm } = ctx;
  const bytes = ctx.vmState<Uint8Array>({
    name: "apm",
    version: 1,
    init: () => new Uint8Array(2),
    save: (bytes) => bytes.slice(),
    load: (saved) => (saved as Uint8Array).slice(),
  }).current;
  ctx.registerPio({
    name: "advanced power management control",
    base: APMC_PORT,
    length: 2,
    width: 1,
    read: (offset) => bytes[offset]!,
    write(offset, _size, value) {
      bytes[offset] = value;
      const [vcpu] = vm.vcpus;
      if (offset !== 0 || vcpu === undefined) return;
      const enabled = (power.read(DEVICE_ACTIVITY, 1) & APMC_ENABLED) !== 0;
      if (enabled) vm.vendor.current.raiseSmi?.(vcpu);
    },
  });
  const knowVendor = (): void => {
    if (vm.vendor.current.raiseSmi === undefined) power.set(DEVICE_ACTIVITY, 1, APMC_ENABLED);
  };
  ctx.on(vcpuCreatedHook, ({ index }) => {
    if (index === 0) knowVendor();
  });
  // The bus resets what is on it.
  ctx.on(resetHook, () => {
    bytes.fill(0);
    update();
    knowVendor();
  }, { stage: "post", after: ["pci"] });
}
