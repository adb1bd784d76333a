/**
 * Trapline, a hypervisor framework: the core, and the factories of all its plugins in one place.
 *
 * Everything here is also exported from a module of its own, with what only few need besides:
 * `@trapline/trapline/core`, `/cpu`, `/svm`, `/metal` and so on.
 *
 * @example Run an image and print its exits
 * ```ts ignore
 * import {
 *   createVm, cpu, debugExit, exitProfile, formatProfile, loadImage, pic, profile, serial, svm,
 * } from "@trapline/trapline";
 *
 * using vm = await createVm({
 *   memory: 128 * 2 ** 20,
 *   plugins: [
 *     cpu(),
 *     svm(),
 *     pic(),
 *     debugExit(),
 *     serial({ output: (bytes) => Deno.stdout.writeSync(bytes) }),
 *     profile(),
 *   ],
 *   images: [loadImage(await Deno.readFile("kernel.elf"))],
 * });
 * const result = await vm.run();
 * console.log(result.reason);
 * console.log(formatProfile(exitProfile(vm)));
 * ```
 *
 * @module
 */

export * from "./core/mod.ts";
export { cpu, type CpuOptions, processorsSlot } from "./plugins/cpu/mod.ts";
export { apicv } from "./plugins/vmx/apicv/mod.ts";
export { ipiv, type IpivOptions } from "./plugins/vmx/ipiv/mod.ts";
export { vmx } from "./plugins/vmx/mod.ts";
export { iommu } from "./plugins/iommu/mod.ts";
export { vtd } from "./plugins/vtd/mod.ts";
export { metal } from "./plugins/metal/mod.ts";
export { svm } from "./plugins/svm/mod.ts";
export { avic, type AvicOptions } from "./plugins/svm/avic/mod.ts";
export { apx, type ApxOptions } from "./plugins/apx/mod.ts";
export { pic, type PicOptions } from "./plugins/pic/mod.ts";
export { lapic, type LapicOptions } from "./plugins/lapic/mod.ts";
export { ioapic, type IoApicOptions } from "./plugins/ioapic/mod.ts";
export { pit, type PitOptions } from "./plugins/pit/mod.ts";
export { COM, serial, SerialInput, type SerialOptions } from "./plugins/serial/mod.ts";
export { debugExit, type DebugExitOptions } from "./plugins/debugexit/mod.ts";
export { perfCounters } from "./plugins/perfctr/mod.ts";
export { pvIpi } from "./plugins/pvipi/mod.ts";
export { fwCfg, type FwCfgOptions } from "./plugins/fwcfg/mod.ts";
export { ignoreMsrs, type IgnoreMsrsOptions } from "./plugins/ignoremsrs/mod.ts";
export { testDevice } from "./plugins/testdev/mod.ts";
export { rtc, type RtcOptions } from "./plugins/rtc/mod.ts";
export { hpet, type HpetOptions } from "./plugins/hpet/mod.ts";
export { acpiPm, type AcpiPmOptions } from "./plugins/acpipm/mod.ts";
export {
  memoryDisk,
  virtioBlk,
  type VirtioBlkOptions,
  virtioConsole,
  type VirtioConsoleOptions,
} from "./plugins/virtio/mod.ts";
export { firmware } from "./plugins/firmware/mod.ts";
export { acpi } from "./plugins/acpi/mod.ts";
export { ferr } from "./plugins/ferr/mod.ts";
export { port92 } from "./plugins/port92/mod.ts";
export { i8042 } from "./plugins/i8042/mod.ts";
export { addPciFunction, pci, type PciFunctionOptions } from "./plugins/pci/mod.ts";
export { flat, type FlatEntry, type FlatOptions } from "./plugins/flat/mod.ts";
export {
  bzImage,
  type BzImageOptions,
  elf,
  type ElfSymbol,
  elfSymbols,
  ImageError,
  type ImageModule,
  type ImageOptions,
  loadImage,
  type LoadImageOptions,
  multiboot,
  multiboot2,
  pvh,
} from "./plugins/multiboot/mod.ts";
export {
  type ExitProfile,
  exitProfile,
  formatProfile,
  type FormatProfileOptions,
  profile,
  type ProfileOptions,
} from "./plugins/profile/mod.ts";
export { type GuestSymbol, parseSymbolList, symbols } from "./plugins/symbols/mod.ts";
export {
  examine,
  formatPostMortem,
  type PostMortem,
  postMortem,
  type PostMortemOptions,
} from "./plugins/postmortem/mod.ts";
