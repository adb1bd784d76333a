/**
 * Where the programs of the x87 vectors and their records stand, and what a record is.
 *
 * @module
 */

/** Linear address of the program. */
export const CODE_BASE = 0x1_0000;
/** Bytes there are for it. */
export const CODE_SIZE = 0x1000;
/** Linear address of the records that a program reads. */
export const INPUT_BASE = 0x10_0000;
/** Linear address of the records that it writes. */
export const OUTPUT_BASE = 0x20_0000;
/** Bytes there are for either. */
export const RECORDS_SIZE = 0x8_0000;

/** Offsets in a record. */
export const Record = {
  /** What FRSTOR loads and FNSAVE stores, in the 32-bit protected-mode format. */
  STATE: 0,
  /** A memory operand of up to 16 bytes. */
  MEMORY: 112,
  /** u64: RFLAGS. */
  FLAGS: 128,
  /** Bytes of a record. */
  BYTES: 144,
} as const;

/** Offsets in the state. */
export const State = {
  CONTROL: 0,
  STATUS: 4,
  TAGS: 8,
  INSTRUCTION: 12,
  SELECTOR: 16,
  OPCODE: 18,
  DATA: 20,
  DATA_SELECTOR: 24,
  REGISTERS: 28,
  BYTES: 108,
} as const;

/** Bytes of a register in the state. */
export const REGISTER_BYTES = 10;

/** RFLAGS bits that are compared: OF, DF, SF, ZF, AF, PF, CF. */
export const FLAGS_MASK = 0xcd5n;

/**
 * The program of an instruction: for each of `count` records it loads state and flags, executes `code`,
 * and stores flags and state. It ends with a RET.
 */
export function programOf(code: readonly number[], count: number): Uint8Array<ArrayBuffer> {
  const long = (n: number): number[] => [n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >> 24) & 255];
  const head = [
    ...[0xbb, ...long(INPUT_BASE)], // mov ebx, INPUT_BASE
    ...[0xbd, ...long(OUTPUT_BASE)], // mov ebp, OUTPUT_BASE
    ...[0xb9, ...long(count)], // mov ecx, count
  ];
  const body = [
    ...[0xdd, 0x23], // frstor [rbx]
    ...[0xff, 0xb3, ...long(Record.FLAGS)], // push qword [rbx+FLAGS]
    0x9d, // popfq
    ...code,
    0x9c, // pushfq
    ...[0x8f, 0x85, ...long(Record.FLAGS)], // pop qword [rbp+FLAGS]
    ...[0xdd, 0x75, 0x00], // fnsave [rbp]
    ...[0x48, 0x81, 0xc3, ...long(Record.BYTES)], // add rbx, BYTES
    ...[0x48, 0x81, 0xc5, ...long(Record.BYTES)], // add rbp, BYTES
    ...[0xff, 0xc9], // dec ecx
  ];
  const back = [0x0f, 0x85, ...long(-(body.length + 6))]; // jnz
  return Uint8Array.from([...head, ...body, ...back, 0xc3]);
}

/** `op` with its memory operand in the record that is read. */
export function reading(opcode: number, digit: number): number[] {
  return [opcode, 0x43 | (digit << 3), Record.MEMORY]; // [rbx+MEMORY]
}

/** `op` with its memory operand in the record that is written. */
export function writing(opcode: number, digit: number): number[] {
  return [opcode, 0x45 | (digit << 3), Record.MEMORY]; // [rbp+MEMORY]
}
