/**
 * ACPI machine language, as much of it as describes a board (ACPI specification 6.5, chapter 20, and
 * section 6.4 for resources).
 *
 * Each function returns the bytes of one term; terms that contain others take them as arguments.
 *
 * @module
 */

/** The bytes of a term. */
export type Aml = readonly number[];

/** Operation codes (20.3). */
const Op = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE: 0x0a,
  WORD: 0x0b,
  DWORD: 0x0c,
  STRING: 0x0d,
  QWORD: 0x0e,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  DUAL_NAME: 0x2e,
  MULTI_NAME: 0x2f,
  EXTENDED: 0x5b,
  ROOT: 0x5c,
  /** Behind EXTENDED. */
  DEVICE: 0x82,
} as const;

const SEGMENT = 4;

/** The least significant bytes of a number below 2^53. */
export function littleEndian(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}

function ascii(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

/** A package length (20.2.4) and what it counts, which is itself and the content. */
function counted(content: Aml): number[] {
  const length = content.length;
  if (length + 1 < 0x40) return [length + 1, ...content];
  let more = 1;
  while (length + 1 + more >= 2 ** (4 + 8 * more)) more++;
  const total = length + 1 + more;
  return [more << 6 | total & 0x0f, ...littleEndian(Math.floor(total / 16), more), ...content];
}

/** A path such as `\_SB.PCI0` or `_HID`; segments are filled up with underscores. */
export function path(text: string): number[] {
  const absolute = text.startsWith("\\");
  const rest = absolute ? text.slice(1) : text;
  const segments = rest === "" ? [] : rest.split(".").map((name) => name.padEnd(SEGMENT, "_"));
  const bytes = segments.flatMap(ascii);
  const root = absolute ? [Op.ROOT] : [];
  switch (segments.length) {
    case 0:
      return [...root, Op.ZERO];
    case 1:
      return [...root, ...bytes];
    case 2:
      return [...root, Op.DUAL_NAME, ...bytes];
    default:
      return [...root, Op.MULTI_NAME, segments.length, ...bytes];
  }
}

/** An integer from 0 to 2^53 - 1, in its shortest form. */
export function integer(value: number): number[] {
  if (value === 0) return [Op.ZERO];
  if (value === 1) return [Op.ONE];
  if (value < 0x100) return [Op.BYTE, value];
  if (value < 0x1_0000) return [Op.WORD, ...littleEndian(value, 2)];
  if (value < 2 ** 32) return [Op.DWORD, ...littleEndian(value, 4)];
  return [Op.QWORD, ...littleEndian(value, 8)];
}

/** A string. */
export function string(text: string): number[] {
  return [Op.STRING, ...ascii(text), 0];
}

/** A compressed identity such as `PNP0A03` (19.3.4, `EISAID`): an integer. */
export function eisaId(text: string): number[] {
  const letter = (i: number): number => (text.charCodeAt(i) - 0x40) & 0x1f;
  const vendor = letter(0) << 10 | letter(1) << 5 | letter(2);
  const product = Number.parseInt(text.slice(3), 16);
  // The number is one with its most significant byte first.
  return [Op.DWORD, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

/** A named object. */
export function name(where: string, value: Aml): number[] {
  return [Op.NAME, ...path(where), ...value];
}

/** Objects within a scope. */
export function scope(where: string, ...content: Aml[]): number[] {
  return [Op.SCOPE, ...counted([...path(where), ...content.flat()])];
}

/** A device. */
export function device(where: string, ...content: Aml[]): number[] {
  return [Op.EXTENDED, Op.DEVICE, ...counted([...path(where), ...content.flat()])];
}

/** A package of up to 255 objects. */
export function packageOf(...elements: Aml[]): number[] {
  return [Op.PACKAGE, ...counted([elements.length, ...elements.flat()])];
}

/** A resource template: a buffer of descriptors with the end tag (6.4.2.9), whose checksum is not used. */
export function resources(...descriptors: Aml[]): number[] {
  const bytes = [...descriptors.flat(), 0x79, 0x00];
  return [Op.BUFFER, ...counted([...integer(bytes.length), ...bytes])];
}

/** I/O ports at a fixed place (6.4.2.5). */
export function ioPorts(base: number, length: number): number[] {
  return [0x47, 0x01, ...littleEndian(base, 2), ...littleEndian(base, 2), 1, length];
}

/** An ISA interrupt, edge-triggered (6.4.2.1). */
export function irq(line: number): number[] {
  return [0x22, ...littleEndian(2 ** line, 2)];
}

/** Memory at a fixed place below 4 GiB, writable (6.4.3.4). */
export function memory32(base: number, length: number): number[] {
  return [0x86, 9, 0, 1, ...littleEndian(base, 4), ...littleEndian(length, 4)];
}

/** What an address space descriptor is about. */
const Space = { MEMORY: 0, IO: 1, BUS: 2 } as const;
/** The range is fixed at both ends, and the device produces it for what is behind it. */
const FIXED = 0x0c;

function words(space: number, flags: number, first: number, last: number): number[] {
  const fields = [0, first, last, 0, last - first + 1];
  return [0x88, 13, 0, space, FIXED, flags, ...fields.flatMap((field) => littleEndian(field, 2))];
}

/** Bus numbers that a bridge decodes (6.4.3.5.3). */
export function busNumbers(first: number, last: number): number[] {
  return words(Space.BUS, 0, first, last);
}

/** Ports that a bridge passes on (6.4.3.5.3). */
export function portWindow(first: number, last: number): number[] {
  // The whole range, ISA's and others.
  return words(Space.IO, 3, first, last);
}

/** Memory below 4 GiB that a bridge passes on, not cacheable, writable (6.4.3.5.2). */
export function memoryWindow(first: number, last: number): number[] {
  const fields = [0, first, last, 0, last - first + 1];
  const values = fields.flatMap((field) => littleEndian(field, 4));
  return [0x87, 23, 0, Space.MEMORY, FIXED, 1, ...values];
}
