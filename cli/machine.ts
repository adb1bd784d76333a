/**
 * The machine that `trapline run` makes: which plugins, and which image.
 *
 * @module
 */

import {
  ArgumentError,
  type Image,
  PAGE_SIZE,
  type Plugin,
  roundRobin,
  type RoundRobinOptions,
  UnimplementedError,
} from "../core/mod.ts";
import { acpi } from "../plugins/acpi/mod.ts";
import { acpiPm } from "../plugins/acpipm/mod.ts";
import {
  type CodeCache,
  cpu,
  type CpuChoice,
  parseCpuChoice,
  type Tier,
} from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { firmware } from "../plugins/firmware/mod.ts";
import { flat, type FlatEntry } from "../plugins/flat/mod.ts";
import { ferr } from "../plugins/ferr/mod.ts";
import { fwCfg } from "../plugins/fwcfg/mod.ts";
import { hpet } from "../plugins/hpet/mod.ts";
import { i8042 } from "../plugins/i8042/mod.ts";
import { iommu } from "../plugins/iommu/mod.ts";
import { ignoreMsrs } from "../plugins/ignoremsrs/mod.ts";
import { ioapic } from "../plugins/ioapic/mod.ts";
import { lapic } from "../plugins/lapic/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import {
  bzImage,
  elf,
  type ImageOptions,
  loadImage,
  multiboot,
  multiboot2,
  pvh,
  UnknownFormatError,
} from "../plugins/multiboot/mod.ts";
import { pci } from "../plugins/pci/mod.ts";
import { pvIpi } from "../plugins/pvipi/mod.ts";
import { perfCounters } from "../plugins/perfctr/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { pit } from "../plugins/pit/mod.ts";
import { port92 } from "../plugins/port92/mod.ts";
import { postMortem } from "../plugins/postmortem/mod.ts";
import { profile } from "../plugins/profile/mod.ts";
import { rtc } from "../plugins/rtc/mod.ts";
import { serial, type SerialOptions } from "../plugins/serial/mod.ts";
import { apx } from "../plugins/apx/mod.ts";
import { avic } from "../plugins/svm/avic/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { type GuestSymbol, symbols } from "../plugins/symbols/mod.ts";
import { testDevice } from "../plugins/testdev/mod.ts";
import { apicv } from "../plugins/vmx/apicv/mod.ts";
import { ipiv } from "../plugins/vmx/ipiv/mod.ts";
import { memoryDisk, SECTOR, virtioBlk, virtioConsole } from "../plugins/virtio/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { boardParts, type PartChoice } from "./boards.ts";
import { vtd } from "../plugins/vtd/mod.ts";
import { CliError, usageError } from "./errors.ts";
import { Status } from "./statuses.ts";

/** A vendor, with the processors that it runs on. */
export interface VendorChoice {
  /** Makes the vendor. */
  readonly make: () => Plugin;
  /** The model if none is chosen. */
  readonly model: string;
  /** Whose processors it needs, if not any. */
  readonly only?: "amd" | "intel";
}

/** The vendors, by the names that `--vendor` takes. */
export const VENDORS: { readonly [name: string]: VendorChoice } = {
  svm: { make: svm, model: "zen4", only: "amd" },
  vmx: { make: vmx, model: "sapphire-rapids", only: "intel" },
  metal: { make: metal, model: "zen4" },
};

/** All plugins, each with the module that exports it, for `trapline plugins`. */
export const PLUGINS: readonly (readonly [module: string, make: () => Plugin])[] = [
  ["cpu", cpu],
  ["svm", svm],
  ["svm/avic", avic],
  ["vmx", vmx],
  ["vmx/apicv", apicv],
  ["vmx/ipiv", ipiv],
  ["apx", apx],
  ["metal", metal],
  ["pic", pic],
  ["lapic", lapic],
  ["iommu", iommu],
  ["vtd", vtd],
  ["ioapic", ioapic],
  ["pit", pit],
  ["serial", serial],
  ["debugexit", debugExit],
  ["perfctr", perfCounters],
  ["pvipi", pvIpi],
  ["fwcfg", fwCfg],
  ["ignoremsrs", ignoreMsrs],
  ["testdev", testDevice],
  ["rtc", rtc],
  ["hpet", hpet],
  ["acpipm", acpiPm],
  ["port92", port92],
  ["ferr", ferr],
  ["i8042", i8042],
  ["pci", pci],
  ["acpi", acpi],
  ["firmware", () => firmware(new Uint8Array(PAGE_SIZE))],
  ["virtio", () => virtioBlk(memoryDisk(new Uint8Array(SECTOR)))],
  ["virtio", virtioConsole],
  ["profile", profile],
  ["postmortem", postMortem],
  ["symbols", () => symbols([])],
];

/** What the processor does of a guest's interrupts by itself. */
export interface Acceleration {
  /** AVIC, under svm. */
  readonly avic: boolean;
  /** APICv, under vmx. */
  readonly apicv: boolean;
  /** IPI virtualization, with APICv. */
  readonly ipiv: boolean;
}

/** The plugins that accelerate interrupts. */
export function acceleratorPlugins(acceleration: Acceleration): Plugin[] {
  return [
    ...(acceleration.avic ? [avic()] : []),
    ...(acceleration.apicv ? [apicv()] : []),
    ...(acceleration.ipiv ? [ipiv()] : []),
  ];
}

/** What a machine is made of. */
export interface MachineOptions {
  /** One of {@linkcode BOARDS}; basic if not given. */
  readonly machine?: string;
  /** Parts of the board that are left out or have others in their places. */
  readonly parts?: readonly PartChoice[];
  /** Plugins besides. */
  readonly more?: readonly Plugin[];
  /** The firmware configuration device, where it tells more than of the machine. */
  readonly fwCfg?: Plugin;
  /** One of {@linkcode VENDORS}. */
  readonly vendor: string;
  /** The processor, as `parseCpuChoice` reads it; the vendor's usual one if `undefined`. */
  readonly cpu: string | undefined;
  /** Hears of MSRs that do not exist, which are then ignored; with `undefined` they raise #GP. */
  readonly ignoredMsr: ((text: string) => void) | undefined;
  /** What accelerates interrupts, if the vendor has it. */
  readonly acceleration: Acceleration;
  /** How guest code is run; see the cpu plugin. */
  readonly tier?: Tier;
  /** Where compiled code is kept. */
  readonly codeCache?: CodeCache | undefined;
  /** Whether runs and exits are timed. */
  readonly timed?: boolean;
  /** How vCPUs take turns. */
  readonly scheduler: RoundRobinOptions;
  /** The console. */
  readonly serial: SerialOptions;
  /** Whether exits are counted. */
  readonly profile: boolean;
  /** How many of the last exits to remember. */
  readonly lastExits: number;
  /** Names for the guest's addresses. */
  readonly symbols: readonly GuestSymbol[];
}

/**
 * The plugins of a machine.
 *
 * @throws {CliError} If there is no such vendor, board or part.
 */
export function machinePlugins(options: MachineOptions): Plugin[] {
  const { acceleration } = options;
  const vendor = Object.hasOwn(VENDORS, options.vendor) ? VENDORS[options.vendor] : undefined;
  if (vendor === undefined) {
    const names = Object.keys(VENDORS).join(", ");
    throw usageError(`--vendor ${options.vendor}: there is no such vendor; there are ${names}`);
  }
  const choice = chooseCpu(options.vendor, vendor, options.cpu);
  const parts = boardParts(options.machine ?? "basic", options.serial, [
    ...processorParts(choice.vendor),
    ...(options.fwCfg === undefined ? [] : [{ part: "fwcfg", plugin: options.fwCfg }]),
    ...(options.parts ?? []),
  ]);
  return [
    cpu({
      ...choice,
      ...(options.tier === undefined ? {} : { tier: options.tier }),
      ...(options.codeCache === undefined ? {} : { codeCache: options.codeCache }),
      timed: options.timed ?? false,
    }),
    vendor.make(),
    roundRobin(options.scheduler),
    ...parts,
    ...paravirtual(options.vendor, parts),
    ...(options.ignoredMsr === undefined ? [] : [ignoreMsrs({ log: options.ignoredMsr })]),
    ...acceleratorPlugins(acceleration),
    postMortem({ exits: options.lastExits }),
    ...(options.symbols.length > 0 ? [symbols(options.symbols)] : []),
    ...(options.profile ? [profile()] : []),
    ...(options.more ?? []),
  ];
}

/** What a hypervisor offers guests that know of it; on the bare processor there is none to ask. */
export function paravirtual(vendor: string, parts: readonly Plugin[]): Plugin[] {
  return vendor !== "metal" && parts.some(({ name }) => name === "lapic") ? [pvIpi()] : [];
}

/** Parts of a board that are different for processors of a vendor's. */
export function processorParts(vendor: "amd" | "intel"): readonly PartChoice[] {
  if (vendor === "amd") return [];
  return [
    { part: "lapic", plugin: lapic({ vendor, tscDeadline: true }) },
    { part: "perfctr", plugin: perfCounters({ vendor }) },
  ];
}

/** The processor for a vendor, who may need one of Intel's or of AMD's. */
export function chooseCpu(
  name: string,
  { model, only }: VendorChoice,
  text: string | undefined,
): CpuChoice {
  let choice: CpuChoice;
  try {
    choice = parseCpuChoice(text ?? model);
  } catch (error) {
    if (error instanceof ArgumentError || error instanceof UnimplementedError) {
      throw usageError(`--cpu ${text}: ${error.message}`);
    }
    throw error;
  }
  if (only !== undefined && choice.vendor !== only) {
    const [needed, has] = only === "amd" ? ["SVM", "VMX"] : ["VMX", "SVM"];
    throw usageError(
      `--cpu ${text}: --vendor ${name} needs ${needed}, and ${choice.model} has ${has}`,
    );
  }
  return choice;
}

/** Formats that `--format` takes. */
const FORMATS = [
  "auto",
  "bzimage",
  "multiboot",
  "multiboot2",
  "pvh",
  "elf",
  "flat",
  "firmware",
] as const;
/** The loaders of formats that are not to be found out. */
const BY_FORMAT: ReadonlyMap<string, (bytes: Uint8Array, options: ImageOptions) => Image> = new Map(
  [["bzimage", bzImage], ["multiboot", multiboot], ["multiboot2", multiboot2], ["pvh", pvh], [
    "elf",
    elf,
  ]],
);
/** Nothing, with the name of the firmware. */
function firmwareImage({ name = "firmware", commandLine, modules }: ImageOptions): Image {
  if (commandLine !== undefined || (modules?.length ?? 0) > 0) {
    throw usageError("--format firmware: firmware takes neither arguments nor modules");
  }
  return { name, load() {} };
}
/** Modes that `--entry` takes. */
const ENTRIES = ["real", "protected32", "long64"] as const;

/** How an image is to be understood. */
export interface ImageChoice {
  /** One of auto, bzimage, multiboot, pvh, elf, flat and firmware. */
  readonly format: string;
  /** For flat images: one of real, protected32 and long64. */
  readonly entry: string | undefined;
  /** For flat images: where the first byte goes. */
  readonly address: number | undefined;
}

/**
 * Makes an image of a file.
 *
 * @throws {CliError} If the options do not go together.
 * @throws {ImageError} If the file is not such an image.
 */
export function makeImage(bytes: Uint8Array, choice: ImageChoice, options: ImageOptions): Image {
  const { format } = choice;
  if (!(FORMATS as readonly string[]).includes(format)) {
    throw usageError(`--format ${format}: formats are ${FORMATS.join(", ")}`);
  }
  if (format !== "flat") {
    // Firmware is a plugin: there is nothing to load, and nothing that it could be handed.
    if (format === "firmware") return firmwareImage(options);
    for (const [name, value] of [["--entry", choice.entry], ["--load-address", choice.address]]) {
      if (value !== undefined) throw usageError(`${name} is for --format flat`);
    }
    try {
      const load = BY_FORMAT.get(format) ?? loadImage;
      return load(bytes, options);
    } catch (error) {
      if (!(error instanceof UnknownFormatError)) throw error;
      throw new CliError(Status.INPUT, `${error.message}; --format flat takes any bytes`);
    }
  }
  const mode = ENTRIES.find((name) => name === (choice.entry ?? "real"));
  if (mode === undefined) {
    throw usageError(`--entry ${choice.entry}: modes are ${ENTRIES.join(", ")}`);
  }
  if (options.commandLine !== undefined) {
    throw usageError("--append: a flat image takes no arguments");
  }
  if ((options.modules?.length ?? 0) > 0) {
    throw usageError("--module: a flat image takes no modules");
  }
  const entry: FlatEntry = { mode };
  return flat(bytes, {
    entry,
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(choice.address === undefined ? {} : { address: choice.address }),
  });
}
