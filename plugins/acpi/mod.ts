/**
 * ACPI tables: they tell an operating system what the board has.
 *
 * The root pointer is at E0000h, with RSDT and XSDT, the fixed description table (FADT), the interrupt
 * controllers (MADT), the event timer (HPET), and a definition block (DSDT) with the PCI bus and its
 * interrupt routing, ISA devices, and the sleep types that switch the machine off or let it sleep. They
 * describe the plugins that are there, and the vCPUs. They are in a ROM of 64 KiB on the bus, from E0000h
 * on, in which the firmware control structure (FACS) alone can be written. When the machine wakes from
 * S3, the first vCPU goes on at the waking vector that it has, in real mode, as firmware would have it;
 * at the reset vector if it has none.
 *
 * Limits: there are no control methods, only data. A waking vector for protected mode
 * (X_Firmware_Waking_Vector) stops the machine with an error. Tables tell of the local APICs and the
 * I/O APIC at their usual addresses. They are written when they are first read, and again after a vCPU was
 * added and after a reset; plugins that come or go in between are described from then on.
 *
 * @example Where a guest finds them
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { acpi } from "@trapline/trapline/acpi";
 *
 * using machine = scriptedVm({ plugins: [acpi()] });
 * console.assert(machine.vm.mmio.read(0xe_0000, 4) === 0x2044_5352); // "RSD "
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  Gpr,
  type Plugin,
  resetHook,
  UnimplementedError,
  type Vcpu,
  vcpuCreatedHook,
  type Vm,
} from "../../core/mod.ts";
import { type AcpiPm, acpiPmSlot, SLEEP_TYPE_S3, SLEEP_TYPE_S5, wakeHook } from "../acpipm/mod.ts";
import { type HpetPlace, hpetSlot } from "../hpet/mod.ts";
import { ioapicSlot } from "../ioapic/mod.ts";
import { type PciBus, pciSlot } from "../pci/mod.ts";
import { picSlot } from "../pic/mod.ts";
import { definitionBlock, type IsaDevice } from "./dsdt.ts";
import {
  eventTimer,
  Facs,
  FACS_BYTES,
  firmwareControl,
  fixedDescription,
  interruptControllers,
  rootPointer,
  rootTable,
  table,
} from "./tables.ts";

/** Where the tables are. */
export const ACPI_BASE = 0xe_0000;
/** Bytes that they may have. */
export const ACPI_SIZE = 0x1_0000;

/** First and last address that PCI devices may have: what RAM leaves free below the I/O APIC. */
const PCI_MEMORY: readonly [number, number] = [0xc000_0000, 0xfebf_ffff];
/** Index of the century in the clock's RAM. */
const CENTURY = 0x32;
const ROOT_POINTER_BYTES = 36;
/** FACS lies at a multiple of 64; the others may as well. */
const ALIGN = 64;
const PINS: readonly number[] = [1, 2, 3, 4];

/** Ports by which devices are recognized. */
const KEYBOARD_PORT = 0x64;
const CLOCK_PORT = 0x70;

/** Devices on the ISA bus: described if something answers at their ports. */
const ISA_DEVICES: readonly IsaDevice[] = [
  { name: "RTC", id: "PNP0B00", ports: [[CLOCK_PORT, 2]], line: 8 },
  { name: "KBD", id: "PNP0303", ports: [[0x60, 1], [KEYBOARD_PORT, 1]], line: 1 },
  { name: "COM1", id: "PNP0501", ports: [[0x3f8, 8]], line: 4 },
  { name: "COM2", id: "PNP0501", ports: [[0x2f8, 8]], line: 3 },
];

/** What there is to describe. */
interface Parts {
  readonly pm: AcpiPm | undefined;
  readonly hpet: HpetPlace | undefined;
  readonly pci: PciBus | undefined;
  readonly pics: boolean;
  readonly ioapic: boolean;
}

/** ACPI tables as a plugin. */
export function acpi(): Plugin {
  return {
    name: "acpi",
    version: "1.0.0",
    description: "ACPI tables at E0000h that describe the board",
    optional: [
      "acpipm",
      acpiPmSlot,
      "hpet",
      hpetSlot,
      "ioapic",
      ioapicSlot,
      "pci",
      pciSlot,
      "pic",
      picSlot,
    ],
    setup(ctx) {
      const { vm } = ctx;
      const pm = ctx.useOptional(acpiPmSlot);
      const hpet = ctx.useOptional(hpetSlot);
      const ioapic = ctx.useOptional(ioapicSlot);
      const pci = ctx.useOptional(pciSlot);
      const pics = ctx.useOptional(picSlot);
      const facs = ctx.vmState<Uint8Array<ArrayBuffer>>({
        name: "facs",
        version: 1,
        init: firmwareControl,
        save: (bytes) => bytes.slice(),
        load: (saved) => (saved as Uint8Array<ArrayBuffer>).slice(),
      }).current;
      const facsView = new DataView(facs.buffer);
      /** Made when somebody looks: vCPUs come one by one. */
      let rom: Rom | undefined;
      const contents = (): Rom =>
        rom ??= describe(vm, {
          pm: pm.current,
          hpet: hpet.current,
          pci: pci.current,
          pics: pics.current !== undefined,
          ioapic: ioapic.current !== undefined,
        });
      ctx.registerMmio({
        name: "ACPI tables",
        base: ACPI_BASE,
        length: ACPI_SIZE,
        read(offset, size) {
          const { view, facsAt } = contents();
          const inside = offset - facsAt;
          if (inside >= 0 && inside + size <= FACS_BYTES) return readView(facsView, inside, size);
          return readView(view, offset, size);
        },
        write(offset, size, value) {
          const inside = offset - contents().facsAt;
          if (inside < 0 || inside + size > FACS_BYTES) return;
          for (let i = 0; i < size; i++) facs[inside + i] = value >>> (8 * i);
        },
      });
      const forget = (): void => void (rom = undefined);
      ctx.on(vcpuCreatedHook, forget);
      // The waking vector is of the boot that wrote it, and must outlast the reset that wakes.
      let vector = 0;
      let wide = 0n;
      ctx.on(resetHook, () => {
        forget();
        vector = facsView.getUint32(Facs.WAKING_VECTOR, true);
        wide = facsView.getBigUint64(Facs.X_WAKING_VECTOR, true);
        facs.set(firmwareControl());
      });
      ctx.on(wakeHook, () => {
        if (wide !== 0n) {
          throw new UnimplementedError(
            `acpi: no waking in protected mode, at X_Firmware_Waking_Vector ${wide.toString(16)}h`,
          );
        }
        const [vcpu] = vm.vcpus;
        if (vcpu !== undefined && vector !== 0) goTo(vcpu, vector);
      });
    },
  };
}

/** Reads 1, 2 or 4 bytes. */
function readView(view: DataView, offset: number, size: number): number {
  if (size === 1) return view.getUint8(offset);
  return size === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true);
}

/** Real mode at a physical address: CS has its bits 19:4, IP the others (16.3.1). */
function goTo(vcpu: Vcpu, address: number): void {
  const vendor = vcpu.vm.vendor.current;
  const state = vendor.getSystemState(vcpu);
  state.cs.selector = (address >>> 4) & 0xffff;
  state.cs.base = BigInt(state.cs.selector * 16);
  vendor.setSystemState(vcpu, state);
  vcpu.regs.setPair(Gpr.RIP, address & 0xf, 0);
}

/** All tables, and the offset of the one that is not read from the ROM. */
interface Rom {
  readonly view: DataView;
  readonly facsAt: number;
}

/** All tables, as the ROM has them. */
function describe(vm: Vm, { pm, hpet, pci, pics, ioapic }: Parts): Rom {
  let facsAt = Infinity;
  const place = new Placement();
  const pointer = place.reserve(ROOT_POINTER_BYTES);
  const listed: number[] = [];
  if (pm !== undefined) {
    const block = definitionBlock({
      sleepTypes: { S3: SLEEP_TYPE_S3, S5: SLEEP_TYPE_S5 },
      pci: pci === undefined
        ? undefined
        : { memory: PCI_MEMORY, lineOf: (device, pin) => pci.lineOf(device, pin) },
      hpet: hpet?.base,
      isa: ISA_DEVICES.filter(({ ports }) => ports.every(([port]) => answers(vm, port))),
    });
    const facs = place.add(firmwareControl());
    facsAt = facs - ACPI_BASE;
    const dsdt = place.add(table("DSDT", 2, block));
    listed.push(place.add(fixedDescription({
      pm,
      resetControl: pci !== undefined,
      keyboardController: answers(vm, KEYBOARD_PORT),
      century: answers(vm, CLOCK_PORT) ? CENTURY : 0,
      facs,
      dsdt,
    })));
  }
  const lines = [
    ...pm === undefined ? [] : [pm.sci],
    ...pci === undefined ? [] : PINS.map((pin) => pci.lineOf(0, pin)),
  ];
  listed.push(place.add(interruptControllers({
    apicIds: vm.vcpus.map(({ id }) => id),
    pics,
    ioapic,
    levelLines: [...new Set(lines)].filter((line) => line >= 0).sort((a, b) => a - b),
  })));
  if (hpet !== undefined) listed.push(place.add(eventTimer(hpet.base)));
  const rsdt = place.add(rootTable(4, listed));
  place.set(pointer, rootPointer(rsdt, place.add(rootTable(8, listed))));
  return { view: new DataView(place.bytes.buffer), facsAt };
}

/** Whether some device has a port. */
function answers(vm: Vm, port: number): boolean {
  return vm.pio.regions.some(({ base, length }) => port >= base && port < base + length);
}

/** Tables one behind the other. */
class Placement {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(ACPI_SIZE);
  #next = 0;

  /** Makes room, and returns its guest physical address. */
  reserve(length: number): number {
    const at = this.#next;
    if (at + length > ACPI_SIZE) {
      throw new ArgumentError(`acpi: the tables take more than their ${ACPI_SIZE} bytes`);
    }
    this.#next = Math.ceil((at + length) / ALIGN) * ALIGN;
    return ACPI_BASE + at;
  }

  /** Fills room that was made. */
  set(address: number, content: Uint8Array): void {
    this.bytes.set(content, address - ACPI_BASE);
  }

  /** Makes room and fills it. */
  add(content: Uint8Array): number {
    const address = this.reserve(content.length);
    this.set(address, content);
    return address;
  }
}
