/**
 * The tables of the ACPI specification 6.5, section 5.2, that describe a PC.
 *
 * @module
 */

import { littleEndian } from "./aml.ts";

/** Identity of whoever made the tables. */
const OEM_ID = "TRAPLN";
const OEM_TABLE_ID = "TRAPLINE";
const CREATOR_ID = "TRPL";
const HEADER = 36;
const CHECKSUM = 9;

function ascii(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

/** Makes all bytes add up to 0 with one of them. */
function setChecksum(bytes: Uint8Array, at: number, length: number = bytes.length): void {
  bytes[at] = 0;
  bytes[at] = -bytes.subarray(0, length).reduce((sum, byte) => sum + byte, 0) & 0xff;
}

/** A table with its header (5.2.6). */
export function table(signature: string, revision: number, content: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(HEADER + content.length);
  bytes.set(ascii(signature));
  bytes.set(littleEndian(bytes.length, 4), 4);
  bytes[8] = revision;
  bytes.set(ascii(OEM_ID), 10);
  bytes.set(ascii(OEM_TABLE_ID), 16);
  bytes.set(littleEndian(1, 4), 24);
  bytes.set(ascii(CREATOR_ID), 28);
  bytes.set(littleEndian(1, 4), 32);
  bytes.set(content, HEADER);
  setChecksum(bytes, CHECKSUM);
  return bytes;
}

/** The root pointer (5.2.5.3), which operating systems look for at multiples of 16. */
export function rootPointer(rsdt: number, xsdt: number): Uint8Array {
  const bytes = new Uint8Array(36);
  bytes.set(ascii("RSD PTR "));
  bytes.set(ascii(OEM_ID), 9);
  bytes[15] = 2;
  bytes.set(littleEndian(rsdt, 4), 16);
  bytes.set(littleEndian(bytes.length, 4), 20);
  bytes.set(littleEndian(xsdt, 8), 24);
  // The first checksum is that of the first version's 20 bytes.
  setChecksum(bytes, 8, 20);
  setChecksum(bytes, 32);
  return bytes;
}

/** Bytes of the firmware control structure. */
export const FACS_BYTES = 64;

/** Offsets in the firmware control structure. */
export const Facs = {
  /** u32: where the operating system wants to wake up, in real mode. */
  WAKING_VECTOR: 12,
  /** u64: the same, in protected mode. */
  X_WAKING_VECTOR: 24,
} as const;

/** The firmware control structure (5.2.10): no waking vector, and a lock that nobody holds. */
export function firmwareControl(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FACS_BYTES);
  bytes.set(ascii("FACS"));
  bytes.set(littleEndian(bytes.length, 4), 4);
  bytes[32] = 2;
  return bytes;
}

/** A generic address (5.2.3.2). */
function genericAddress(space: 0 | 1, bits: number, access: number, address: number): number[] {
  return [space, bits, 0, access, ...littleEndian(address, 8)];
}

/** No register. */
const NOWHERE: readonly number[] = genericAddress(0, 0, 0, 0);

/** What the fixed description table tells of. */
export interface FixedHardware {
  /** First port of the power management registers, and whether the PM timer has 32 bits. */
  readonly pm: { readonly base: number; readonly wide: boolean; readonly sci: number };
  /** Whether port CF9h resets the machine. */
  readonly resetControl: boolean;
  /** Whether there is an 8042. */
  readonly keyboardController: boolean;
  /** Index of the century in the clock's RAM; 0 for none. */
  readonly century: number;
  /** Address of the firmware control structure. */
  readonly facs: number;
  /** Address of the definition block. */
  readonly dsdt: number;
}

/** Fixed feature flags (5.2.9, table 5.10). */
const FadtFlag = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  /** The buttons are no fixed hardware. */
  PWR_BUTTON: 1 << 4,
  SLP_BUTTON: 1 << 5,
  TMR_VAL_EXT: 1 << 8,
  RESET_REG_SUP: 1 << 10,
} as const;

/** Boot architecture flags (5.2.9.3). */
const BootFlag = { LEGACY_DEVICES: 0x01, KEYBOARD: 0x02, NO_VGA: 0x04 } as const;

/** Offsets of registers in the power management block. */
const PM_CONTROL = 4;
const PM_TIMER = 8;
const RESET_PORT = 0xcf9;
const RESET_VALUE = 0x06;
/** More than what says that C2 and C3 are there. */
const NO_C2 = 101;
const NO_C3 = 1001;
const FADT_LENGTH = 244;

/** The fixed description table, in the form of ACPI 2.0 (revision 3). */
export function fixedDescription(hardware: FixedHardware): Uint8Array {
  const { pm, facs, dsdt } = hardware;
  const content = new Uint8Array(FADT_LENGTH - HEADER);
  /** Offsets are those of the specification, from the table's beginning. */
  const put = (offset: number, bytes: readonly number[]): void =>
    content.set(bytes, offset - HEADER);
  const flags = FadtFlag.WBINVD | FadtFlag.PROC_C1 | FadtFlag.PWR_BUTTON | FadtFlag.SLP_BUTTON |
    (pm.wide ? FadtFlag.TMR_VAL_EXT : 0) |
    (hardware.resetControl ? FadtFlag.RESET_REG_SUP : 0);
  const boot = BootFlag.LEGACY_DEVICES | BootFlag.NO_VGA |
    (hardware.keyboardController ? BootFlag.KEYBOARD : 0);
  put(36, littleEndian(facs, 4));
  put(40, littleEndian(dsdt, 4));
  put(46, littleEndian(pm.sci, 2));
  // There is no port to switch between the modes (SMI_CMD, 48): it is always the ACPI mode.
  put(56, littleEndian(pm.base, 4));
  put(64, littleEndian(pm.base + PM_CONTROL, 4));
  put(76, littleEndian(pm.base + PM_TIMER, 4));
  put(88, [4, 2, 0, 4]);
  put(96, littleEndian(NO_C2, 2));
  put(98, littleEndian(NO_C3, 2));
  put(108, [hardware.century]);
  put(109, littleEndian(boot, 2));
  put(112, littleEndian(flags, 4));
  if (hardware.resetControl) {
    put(116, genericAddress(1, 8, 1, RESET_PORT));
    put(128, [RESET_VALUE]);
  }
  put(132, littleEndian(facs, 8));
  put(140, littleEndian(dsdt, 8));
  put(148, genericAddress(1, 32, 2, pm.base));
  put(160, NOWHERE);
  put(172, genericAddress(1, 16, 2, pm.base + PM_CONTROL));
  put(184, NOWHERE);
  put(196, NOWHERE);
  put(208, genericAddress(1, 32, 3, pm.base + PM_TIMER));
  put(220, NOWHERE);
  put(232, NOWHERE);
  return table("FACP", 3, [...content]);
}

/** What the table of interrupt controllers tells of. */
export interface InterruptControllers {
  /** Local APIC IDs, in the order of the processors. */
  readonly apicIds: readonly number[];
  /** Whether there are 8259s besides. */
  readonly pics: boolean;
  /** Whether there is an I/O APIC. */
  readonly ioapic: boolean;
  /** ISA lines that are level-triggered, active high. */
  readonly levelLines: readonly number[];
}

const LAPIC_ADDRESS = 0xfee0_0000;
const IOAPIC_ADDRESS = 0xfec0_0000;
/** IDs from here on need an entry for x2APIC. */
const FIRST_WIDE_ID = 255;
const ALL_PROCESSORS = 0xff;
/** Trigger and polarity: level, active high. */
const LEVEL_HIGH = 0x0d;
/** Pin of the I/O APIC that the timer's line 0 is at. */
const TIMER_PIN = 2;

/** The table of interrupt controllers (5.2.12). */
export function interruptControllers(description: InterruptControllers): Uint8Array {
  const { apicIds, pics, ioapic, levelLines } = description;
  const entries: number[][] = [];
  apicIds.forEach((id, index) => {
    if (id < FIRST_WIDE_ID) entries.push([0, 8, index & 0xff, id, ...littleEndian(1, 4)]);
    else {
      const fields = [id, 1, index].flatMap((field) => littleEndian(field, 4));
      entries.push([9, 16, 0, 0, ...fields]);
    }
  });
  if (ioapic) {
    entries.push([1, 12, 0, 0, ...littleEndian(IOAPIC_ADDRESS, 4), ...littleEndian(0, 4)]);
    const override = (line: number, pin: number, flags: number): number[] => //
    [2, 10, 0, line, ...littleEndian(pin, 4), ...littleEndian(flags, 2)];
    entries.push(override(0, TIMER_PIN, 0));
    for (const line of levelLines) entries.push(override(line, line, LEVEL_HIGH));
  }
  // NMI is at LINT1 of all.
  entries.push([4, 6, ALL_PROCESSORS, 0, 0, 1]);
  if (apicIds.some((id) => id >= FIRST_WIDE_ID)) {
    entries.push([10, 12, 0, 0, ...littleEndian(0xffff_ffff, 4), 1, 0, 0, 0]);
  }
  const head = [...littleEndian(LAPIC_ADDRESS, 4), ...littleEndian(pics ? 1 : 0, 4)];
  return table("APIC", 3, [...head, ...entries.flat()]);
}

/** Capabilities of the event timer's block: vendor 8086h, three timers, 64 bits, revision 1. */
const HPET_BLOCK_ID = 0x8086_2201;
/** Cycles that a periodic interrupt takes at least: 12.8 us. */
const HPET_LEAST_TICKS = 1280;

/** The table of the high precision event timer (IA-PC HPET Specification 1.0a, 3.2.4). */
export function eventTimer(address: number): Uint8Array {
  return table("HPET", 1, [
    ...littleEndian(HPET_BLOCK_ID, 4),
    ...genericAddress(0, 64, 0, address),
    0,
    ...littleEndian(HPET_LEAST_TICKS, 2),
    0,
  ]);
}

/** A table of tables (5.2.7, 5.2.8), with addresses of 4 or 8 bytes. */
export function rootTable(bytes: 4 | 8, addresses: readonly number[]): Uint8Array {
  const content = addresses.flatMap((address) => littleEndian(address, bytes));
  return table(bytes === 4 ? "RSDT" : "XSDT", 1, content);
}
