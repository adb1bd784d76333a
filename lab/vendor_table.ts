/**
 * The lab's guests under both makers' hypervisors, with and without what accelerates interrupts: how many
 * exits each takes.
 *
 * @module
 */
import { guestImage, type GuestName } from "../patches/mod.ts";
import { grouped, table } from "./table.ts";
import { compareVendors, differsForGuest, type VendorComparison } from "./vendors.ts";

/** Vendors in the table's columns. */
const VENDORS: readonly string[] = [
  "svm",
  "svm+avic",
  "vmx",
  "vmx+apicv",
  "vmx+apicv+ipiv",
];

interface Row {
  readonly guest: GuestName;
  readonly commandLine: string;
  readonly cpus: number;
  readonly processors: number;
}

/** The rows: storms of IPIs in both modes, and all registers of the local APIC. */
const ROWS: readonly Row[] = [
  { guest: "ipistorm", commandLine: "ipis=1000", cpus: 4, processors: 2 },
  { guest: "ipistorm", commandLine: "ipis=1000 x2apic", cpus: 4, processors: 2 },
  { guest: "apic", commandLine: "rounds=3 x2apic", cpus: 2, processors: 2 },
];

/** Runs each of the table's guests under each vendor. */
export async function runVendorTable(): Promise<VendorComparison[]> {
  const comparisons: VendorComparison[] = [];
  for (const { guest, commandLine, cpus, processors } of ROWS) {
    const image = guestImage(guest);
    const options = { vendors: VENDORS, cpus, processors };
    comparisons.push(await compareVendors({ name: guest, image, commandLine }, options));
  }
  return comparisons;
}

/** Exits of each guest under each vendor as a table. Lines end in a line feed. */
export function formatVendorTable(comparisons: readonly VendorComparison[]): string {
  const [first] = comparisons;
  if (first === undefined) return "";
  const names = first.runs.map(({ vendor }) => vendor);
  const rows = comparisons.map((comparison) => {
    const { guest, cpus, runs } = comparison;
    return [
      guest.name,
      guest.commandLine,
      `${cpus} vCPUs`,
      ...runs.map(({ exits }) => grouped(exits)),
      differsForGuest(comparison) ? "THE GUEST SEES A DIFFERENCE" : "",
    ];
  });
  return `Exits under each vendor, and with what accelerates interrupts\n\n` +
    table([["guest", "", "", ...names], ...rows], 3);
}
