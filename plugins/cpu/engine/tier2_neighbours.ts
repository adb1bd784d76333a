/**
 * Accesses of a block that lie beside each other, such as fields of a structure, words of a frame, what is
 * pushed in a row: the first of them looks into its window for all, and where it hits, the others go to memory
 * at once.
 *
 * Nothing between them can change a window: what may is not among the instructions below, and ends the
 * neighbourhood. A device or code that is written over is met by an instruction that runs alone, in no region.
 *
 * @module
 */
import { WIDEST, WindowUse } from "../memory/windows.ts";
import { CONDITIONS } from "../semantics/move.ts";
import { Reg } from "../semantics/instruction.ts";
import { registerAddress, S } from "../state/cpu_state.ts";
import { MicroOp } from "./block_layout.ts";
import { type Records, REGISTERS } from "./records.ts";
import type { RegionBlock, RegionOp } from "./region_graph.ts";
import { isVector } from "./tier2_forms.ts";

/** Accesses beside each other. */
export interface Neighbours {
  /** What they are looked up for. */
  readonly use: WindowUse;
  /** Which of the pointers that are kept at the same time is theirs. */
  slot: number;
  /** The part of the function where the first of them has left a pointer, or 0. */
  scope: object | undefined;
}

/** An access that has neighbours. */
export interface Neighbour {
  readonly neighbours: Neighbours;
  /** Bytes from the lowest of them to this one. */
  readonly offset: number;
}

/** What reads its first operand only. */
const READERS: ReadonlySet<string> = new Set([
  ...["CMP", "TEST", "PUSH", "JMPIND", "CALLIND", "MUL", "DIV", "IDIV"],
]);

/** What writes RAX and RDX, and its operand if that is the only one. */
const WIDE: ReadonlySet<string> = new Set(["MUL", "DIV", "IDIV", "CWD", "CBW"]);

/** Integer instructions that write no register but their first operand, or those that {@linkcode track} knows. */
const PLAIN: ReadonlySet<string> = new Set([
  ...["ADD", "SUB", "AND", "OR", "XOR", "ADC", "SBB", "CMP", "TEST", "INC", "DEC", "NEG", "NOT"],
  ...["SHL", "SHR", "SAR", "ROL", "ROR", "IMUL", "MUL", "DIV", "IDIV", "CWD", "CBW", "BSWAP"],
  ...["MOV", "MOVZX", "MOVSX", "MOVSXD", "LEA", "XCHG", "NOP", "PUSH", "POP"],
  ...["JMP", "JMPIND", "CALL", "CALLIND", "RET"],
  ...CONDITIONS.flatMap(([name]) => [`J${name}`, `CMOV${name}`, `SET${name}`]),
]);

/** Vector instructions that write general-purpose registers which are no operands. */
const TEXT = /^V?PCMP[EI]STR/;

/** A register as something unknown and a distance from it. */
interface Place {
  readonly root: number;
  readonly distance: number;
}

interface Access {
  readonly key: string;
  readonly use: WindowUse;
  readonly at: number;
  readonly bytes: number;
}

interface Open {
  readonly neighbours: Neighbours;
  readonly members: { readonly k: number; readonly at: number }[];
  low: number;
  high: number;
}

/** Finds the accesses of one block that lie beside each other. */
class Finder {
  readonly #records: Records;
  readonly #long: boolean;
  readonly #flatStack: boolean;
  readonly #places: Place[] = [];
  readonly #open = new Map<string, Open>();
  readonly #closed: Open[] = [];
  #roots = 0;

  constructor(records: Records, long: boolean, flatStack: boolean) {
    this.#records = records;
    this.#long = long;
    this.#flatStack = flatStack;
    this.#forget();
  }

  /** Looks at instruction `k`; what is not `compiled` may change anything. */
  add(op: RegionOp, k: number, compiled: boolean): void {
    const { name } = op.form;
    if (!compiled || !(PLAIN.has(name) || (isVector(op.form) && !TEXT.test(name)))) {
      this.#forget();
      return;
    }
    const access = this.#access(op);
    if (access !== undefined) this.#join(access, k);
    this.#track(op);
  }

  /** The accesses that have neighbours, by instruction. */
  finish(): Map<number, Neighbour> {
    this.#forget();
    const found = this.#closed.filter(({ members }) => members.length > 1)
      .sort((x, y) => x.members[0]!.k - y.members[0]!.k);
    const until: number[] = [];
    const result = new Map<number, Neighbour>();
    for (const { neighbours, members, low } of found) {
      const free = until.findIndex((last) => last < members[0]!.k);
      neighbours.slot = free < 0 ? until.length : free;
      until[neighbours.slot] = members[members.length - 1]!.k;
      for (const { k, at } of members) result.set(k, { neighbours, offset: at - low });
    }
    return result;
  }

  #forget(): void {
    for (const group of this.#open.values()) this.#closed.push(group);
    this.#open.clear();
    for (let n = 0; n < REGISTERS; n++) this.#renew(n);
  }

  #renew(n: number): void {
    this.#places[n] = { root: ++this.#roots, distance: 0 };
  }

  #move(n: number, distance: number): void {
    const { root, distance: before } = this.#places[n]!;
    this.#places[n] = { root, distance: this.#cut(before + distance) };
  }

  /** Addresses of 32-bit code wrap. */
  #cut(address: number): number {
    return this.#long ? address : address | 0;
  }

  /** Bits of an address. */
  get #width(): number {
    return this.#long ? 64 : 32;
  }

  #join({ key, use, at, bytes }: Access, k: number): void {
    const open = this.#open.get(key);
    if (open !== undefined) {
      const low = Math.min(open.low, at);
      const high = Math.max(open.high, at + bytes);
      if (high - low <= WIDEST) {
        open.members.push({ k, at });
        open.low = low;
        open.high = high;
        return;
      }
      this.#closed.push(open);
    }
    const neighbours = { use, slot: 0, scope: undefined };
    this.#open.set(key, { neighbours, members: [{ k, at }], low: at, high: at + bytes });
  }

  /** The one access of `op` that can be told from its operands. */
  #access(op: RegionOp): Access | undefined {
    const { form, record } = op;
    const { name, operands, address } = form;
    const memory = operands.findIndex(({ kind }) => kind === "M");
    const stack = name === "PUSH" || name === "POP" || name === "CALL" || name === "RET";
    if (memory < 0) return stack ? this.#stackAccess(op) : undefined;
    if (stack || name === "CALLIND" || name === "LEA" || name === "NOP") return undefined;
    if (address === undefined || address === "gen") return undefined;
    const base = this.#register(this.#records.half(record + MicroOp.BASE));
    const index = this.#register(this.#records.half(record + MicroOp.INDEX_REG));
    const scale = this.#records.byte(record + MicroOp.ADDRESSING) & 3;
    const framed = (address === "b64" || address === "b32") &&
      (base === Reg.RSP || base === Reg.RBP);
    const writes = memory === 0 && !READERS.has(name);
    const use = framed ? WindowUse.STACK : writes ? WindowUse.WRITE : WindowUse.READ;
    let at = Number(this.#records.long(record + MicroOp.DISPLACEMENT));
    let key = `${use}`;
    if (base !== undefined) {
      const { root, distance } = this.#places[base]!;
      key += `,${root}`;
      at += distance;
    }
    if (index !== undefined) {
      const { root, distance } = this.#places[index]!;
      key += `+${root}*${scale}`;
      at += distance * 2 ** scale;
    }
    // With five levels of page tables there are addresses that a number does not hold exactly.
    if (!Number.isSafeInteger(at)) return undefined;
    return { key, use, at: this.#cut(at), bytes: operands[memory]!.bits / 8 };
  }

  #stackAccess({ form }: RegionOp): Access | undefined {
    if (!this.#stacks(form.stack)) return undefined;
    const { root, distance } = this.#places[Reg.RSP]!;
    const bytes = form.bits / 8;
    const pushes = form.name === "PUSH" || form.name === "CALL";
    const at = this.#cut(pushes ? distance - bytes : distance);
    return { key: `${WindowUse.STACK},${root}`, use: WindowUse.STACK, at, bytes };
  }

  /** Whether a stack pointer of `bits` is the whole of an address. */
  #stacks(bits: number): boolean {
    return bits === this.#width && (this.#long || this.#flatStack);
  }

  /** The number of the register at `address`; `undefined` where there is none. */
  #register(address: number): number | undefined {
    return address === S.zero ? undefined : (address - registerAddress(0)) >> 3;
  }

  /** Notes what `op` does to registers. */
  #track(op: RegionOp): void {
    const { form, record } = op;
    const { name, operands, bits } = form;
    const whole = operands[0]?.bits === this.#width;
    const n = this.#records.firstRegister(op);
    if (name === "PUSH" || name === "POP") {
      if (!this.#stacks(form.stack)) this.#renew(Reg.RSP);
      else this.#move(Reg.RSP, (name === "PUSH" ? -1 : 1) * bits / 8);
      if (name === "POP" && n !== undefined) this.#renew(n);
      return;
    }
    if (WIDE.has(name) || (name === "IMUL" && operands.length === 1)) {
      this.#renew(Reg.RAX);
      this.#renew(Reg.RDX);
    }
    // Where the operands of XCHG are, is not looked at.
    if (name === "XCHG") { for (let k = 0; k < REGISTERS; k++) this.#renew(k); }
    if (n === undefined || READERS.has(name)) return;
    const constant = operands[1]?.kind === "I";
    if (whole && constant && (name === "ADD" || name === "SUB")) {
      const by = Number(this.#records.long(record + MicroOp.IMMEDIATE));
      this.#move(n, name === "ADD" ? by : -by);
    } else if (whole && (name === "INC" || name === "DEC")) {
      this.#move(n, name === "INC" ? 1 : -1);
    } else this.#renew(n);
  }
}

/**
 * The accesses of `block` that have neighbours, by instruction; `compiled` tells which of its instructions are
 * not carried out by the interpreter's code.
 */
export function neighboursOf(
  block: RegionBlock,
  records: Records,
  long: boolean,
  flatStack: boolean,
  compiled: (op: RegionOp, k: number) => boolean,
): ReadonlyMap<number, Neighbour> {
  const finder = new Finder(records, long, flatStack);
  for (const [k, op] of block.ops.entries()) finder.add(op, k, compiled(op, k));
  return finder.finish();
}
