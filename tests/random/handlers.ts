/**
 * The handlers of a random program's machine. They log what they were called for. After a fault the
 * program goes on with the frame whose address it left in the data; after a trap where it was.
 *
 * @module
 */
import type { Assembler } from "./assembler.ts";
import {
  At,
  Data,
  FIRST_VECTOR,
  LOG_BYTES,
  LOG_ENTRY_BYTES,
  type Machine,
  Sel,
  VECTORS,
} from "./machine.ts";

/** Exceptions that push an error code. */
const WITH_ERROR = [8, 10, 11, 12, 13, 14, 17, 21];
/** Exceptions after which the program goes on where it was. */
const TRAPS = [1, 3, 4];
const EXCEPTIONS = 32;
/** Vectors whose handlers only return: behind those that lead from section to section. */
export const RETURNING: number = FIRST_VECTOR + VECTORS;

/** Attributes of gates: present, DPL, type; the interrupt stack table of 64-bit mode below. */
const GATE = 0x8e00;
const USER_GATE = 0xee00;
const TRAP_GATE = 0xef00;

/** Addresses of the parts that programs use. */
export interface Handlers {
  /** Where SYSCALL and SYSENTER come: code of 32 and of 64 bits alike. */
  readonly dispatch: number;
  /** RETF, by width of the code. */
  readonly farReturns: Readonly<Record<16 | 32 | 64, number>>;
  /** RETF that takes 4 bytes of parameters with it, 32 bits. */
  readonly farReturnParameters: number;
}

class Writer {
  readonly #out: Assembler;
  readonly #long: boolean;

  constructor(out: Assembler, long: boolean) {
    this.#out = out;
    this.#long = long;
    out.width = long ? 64 : 32;
  }

  /** `opcode reg, [absolute]`. */
  absolute(opcode: number, reg: number, address: number): void {
    const out = this.#out;
    if (this.#long) out.put(opcode, reg << 3 | 4, 0x25);
    else out.put(opcode, reg << 3 | 5);
    out.put32(address);
  }

  /** What was pushed `words` words below the stack's top goes to the log's entry, `offset` bytes into it. */
  #log(words: number, offset: number): void {
    const out = this.#out;
    const size = this.#long ? 8 : 4;
    if (this.#long) out.put(0x48);
    out.put(0x8b, 0x44, 0x24, words * size); // mov eax, [esp + …]
    if (this.#long) out.put(0x48);
    out.put(0x89, 0x81); // mov [ecx + …], eax
    out.put32(At.LOG + offset);
  }

  /** What faults and traps have in common: vector and error code have been pushed. */
  #record(): void {
    const out = this.#out;
    out.put(0x50, 0x51); // push eax; push ecx
    let pushed = 2;
    if (!this.#long) {
      out.put(0x1e, 0x66, 0xb8); // push ds; mov ax, …
      out.put16(Sel.DATA);
      out.put(0x8e, 0xd8); // mov ds, ax
      pushed = 3;
    }
    this.absolute(0x8b, 1, At.DATA + Data.LOGGED);
    const fields = this.#long ? 7 : 5;
    const size = this.#long ? 8 : 4;
    for (let field = 0; field < fields; field++) this.#log(pushed + field, field * size);
    out.put(0x83, 0xc1, LOG_ENTRY_BYTES, 0x81, 0xe1); // add ecx, …; and ecx, …
    out.put32(LOG_BYTES - 1);
    this.absolute(0x89, 1, At.DATA + Data.LOGGED);
    if (!this.#long) out.put(0x1f); // pop ds
    out.put(0x59, 0x58); // pop ecx; pop eax
  }

  fault(): number {
    const out = this.#out;
    const { here } = out;
    this.#record();
    if (this.#long) {
      this.absolute(0x8b, 4, At.DATA + Data.RECOVER);
      out.put(0x48, 0xcf); // iretq
    } else {
      out.put(0x66, 0xb8);
      out.put16(Sel.DATA);
      out.put(0x8e, 0xd0, 0x36); // mov ss, ax; ss:
      this.absolute(0x8b, 4, At.DATA + Data.RECOVER);
      out.put(0xcf);
    }
    return here;
  }

  trap(): number {
    const out = this.#out;
    const { here } = out;
    this.#record();
    const size = this.#long ? 8 : 4;
    // Steps end here: TF in the frame is cleared.
    out.put(0x81, 0x64, 0x24, 4 * size);
    out.put32(~0x100);
    if (this.#long) out.put(0x48, 0x83, 0xc4, 16, 0x48, 0xcf);
    else out.put(0x83, 0xc4, 8, 0xcf);
    return here;
  }

  /** Pushes the vector, and 0 before it where there is no error code, and goes to `common`. */
  entry(vector: number, error: boolean, common: number): number {
    const out = this.#out;
    const { here } = out;
    if (!error) out.put(0x6a, 0);
    out.put(0x6a, vector);
    out.near([0xe9], common);
    return here;
  }
}

function protectedHandlers(out: Assembler, machine: Machine, long: boolean): void {
  const writer = new Writer(out, long);
  const fault = writer.fault();
  const trap = writer.trap();
  const table = long ? At.LONG_IDT : At.IDT;
  const stride = long ? 16 : 8;
  const selector = long ? Sel.CODE64 : Sel.CODE32;
  for (let vector = 0; vector < EXCEPTIONS; vector++) {
    const trapping = TRAPS.includes(vector);
    const entry = writer.entry(vector, WITH_ERROR.includes(vector), trapping ? trap : fault);
    // INT3 and INTO are for everybody.
    const attributes = vector === 3 || vector === 4 ? USER_GATE : GATE;
    const stack = long && vector === 8 ? 1 : 0;
    machine.setGate(table + vector * stride, selector, entry, attributes | stack, long);
  }
  for (const [k, attributes] of [USER_GATE, TRAP_GATE].entries()) {
    const vector = RETURNING + k;
    const entry = writer.entry(vector, false, trap);
    machine.setGate(table + vector * stride, selector, entry, attributes, long);
  }
}

/** Real mode's: all exceptions lead to the frame that the program chose. */
function realHandlers(out: Assembler, machine: Machine): void {
  out.width = 16;
  const common = out.here;
  // mov ax, …; mov ds, ax; mov ax, …; mov es, ax; mov bx, [LOGGED]
  out.put(0xb8);
  out.put16(At.DATA >> 4);
  out.put(0x8e, 0xd8, 0xb8);
  out.put16(At.LOG >> 4);
  out.put(0x8e, 0xc0, 0x8b, 0x1e);
  out.put16(Data.LOGGED);
  // Vector, IP, CS, FLAGS: pop ax; mov es:[bx + …], ax
  for (let field = 0; field < 4; field++) out.put(0x58, 0x26, 0x89, 0x47, 2 * field);
  out.put(0x83, 0xc3, LOG_ENTRY_BYTES, 0x81, 0xe3);
  out.put16(LOG_BYTES - 1);
  out.put(0x89, 0x1e);
  out.put16(Data.LOGGED);
  // Frames are in the 64 KiB from 2_0000h on.
  out.put(0xb8);
  out.put16(0x2000);
  out.put(0x8e, 0xd0, 0x8b, 0x26); // mov ss, ax; mov sp, [RECOVER]
  out.put16(Data.RECOVER);
  out.put(0xcf);
  for (let vector = 0; vector < 256; vector++) {
    machine.view.setUint16(At.IVT + 4 * vector, out.at, true);
    machine.view.setUint16(At.IVT + 4 * vector + 2, At.CODE >> 4, true);
    // One for all that programs ask for themselves.
    if (vector >= EXCEPTIONS) continue;
    out.put(0x6a, vector);
    out.near([0xe9], common);
  }
  out.put(0x6a, 0x55);
  out.near([0xe9], common);
}

/** Writes the handlers, and the gates that lead to them. */
export function writeHandlers(out: Assembler, machine: Machine): Handlers {
  if (machine.long) protectedHandlers(out, machine, true);
  protectedHandlers(out, machine, false);
  realHandlers(out, machine);
  const dispatch = out.here;
  out.put(0xbb); // mov ebx, DATA; jmp [ebx + DISPATCH]
  out.put32(At.DATA);
  out.put(0xff, 0xa3);
  out.put32(Data.DISPATCH);
  const farReturns = { 16: out.here, 32: out.here, 64: out.here + 1 };
  out.put(0xcb, 0x48, 0xcb);
  const farReturnParameters = out.here;
  out.put(0xca, 4, 0);
  // The other task: it returns, and returns again when it is called again.
  machine.setOtherTask(out.here);
  out.put(0xcf, 0xeb, 0xfd);
  return { dispatch, farReturns, farReturnParameters };
}
