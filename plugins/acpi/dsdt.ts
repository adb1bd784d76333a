/**
 * The differentiated definition block: what the board has, in machine language.
 *
 * @module
 */

import {
  type Aml,
  busNumbers,
  device,
  eisaId,
  integer,
  ioPorts,
  irq,
  memory32,
  memoryWindow,
  name,
  packageOf,
  portWindow,
  resources,
  scope,
} from "./aml.ts";

/** What the definition block tells of. */
export interface BoardDescription {
  /** SLP_TYP of the sleep states that there are, by their names, such as `S5`. */
  readonly sleepTypes: Readonly<Record<string, number>>;
  /** The PCI bus, if there is one. */
  readonly pci: {
    /** First and last address for devices. */
    readonly memory: readonly [first: number, last: number];
    /** Line of a device's interrupt pin (1 to 4); -1 for none. */
    readonly lineOf: (device: number, pin: number) => number;
  } | undefined;
  /** Address of the high precision event timer, if there is one. */
  readonly hpet: number | undefined;
  /** Devices on the ISA bus. */
  readonly isa: readonly IsaDevice[];
}

/** A device on the ISA bus. */
export interface IsaDevice {
  /** Name of four characters. */
  readonly name: string;
  /** Its identity, such as `PNP0501`. */
  readonly id: string;
  /** Its ports: first and how many. */
  readonly ports: readonly (readonly [base: number, length: number])[];
  /** Its interrupt line, if it has one. */
  readonly line?: number;
}

const SLOTS = 32;
const PINS = 4;
/** Length of the event timer's registers. */
const HPET_LENGTH = 0x400;

function isaDevice({ name: called, id, ports, line }: IsaDevice, index: number): Aml {
  const descriptors = ports.map(([base, length]) => ioPorts(base, length));
  return device(
    called,
    name("_HID", eisaId(id)),
    name("_UID", integer(index)),
    name("_CRS", resources(...descriptors, ...line === undefined ? [] : [irq(line)])),
  );
}

/** The routing of interrupts (6.2.13): for each device and pin the line it is on. */
function routing(lineOf: (device: number, pin: number) => number): Aml {
  const rows: Aml[] = [];
  for (let slot = 0; slot < SLOTS; slot++) {
    for (let pin = 1; pin <= PINS; pin++) {
      const line = lineOf(slot, pin);
      if (line < 0) continue;
      const address = slot * 0x1_0000 + 0xffff;
      rows.push(packageOf(integer(address), integer(pin - 1), integer(0), integer(line)));
    }
  }
  return packageOf(...rows);
}

/** The definition block's terms. */
export function definitionBlock(board: BoardDescription): number[] {
  const { sleepTypes, pci, hpet } = board;
  const isa = board.isa.map(isaDevice);
  const terms: Aml[] = [];
  for (const [state, type] of Object.entries(sleepTypes)) {
    // SLP_TYP for PM1a and PM1b control, and two that are reserved (7.4.2).
    terms.push(name(`\\_${state}`, packageOf(...[type, type, 0, 0].map(integer))));
  }
  const devices: Aml[] = [];
  if (pci === undefined) {
    devices.push(...isa);
  } else {
    devices.push(
      device(
        "PCI0",
        name("_HID", eisaId("PNP0A03")),
        name("_UID", integer(0)),
        name(
          "_CRS",
          resources(
            busNumbers(0, 0xff),
            ioPorts(0xcf8, 8),
            portWindow(0, 0xcf7),
            portWindow(0xd00, 0xffff),
            memoryWindow(...pci.memory),
          ),
        ),
        name("_PRT", routing(pci.lineOf)),
        // The ISA bridge is device 1.
        device("ISA", name("_ADR", integer(0x1_0000)), ...isa),
      ),
    );
  }
  if (hpet !== undefined) {
    devices.push(
      device(
        "HPET",
        name("_HID", eisaId("PNP0103")),
        name("_UID", integer(0)),
        name("_CRS", resources(memory32(hpet, HPET_LENGTH))),
      ),
    );
  }
  terms.push(scope("\\_SB", ...devices));
  return terms.flat();
}
