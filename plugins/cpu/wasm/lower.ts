/**
 * From recorded nodes to WebAssembly code.
 *
 * Nodes stand in program order. A value nobody uses disappears, with what only it used. A value used
 * once is evaluated where it is used, if nothing that could change it stands in between and it would
 * not move into a loop; every other value is evaluated where it was written and kept in a local.
 *
 * @module
 */
import { ByteSink } from "./bytes.ts";
import type { FunctionBuilder } from "./function.ts";
import type { FunctionRef, Signature, Tag } from "./module.ts";
import { LocalPool, Spans } from "./locals.ts";
import { I32_WRAP_I64, I64_EXTEND_I32_S, I64_EXTEND_I32_U, Op } from "./opcodes.ts";
import { I32, I64, type Node, NodeKind } from "./value.ts";
import { V128 } from "./vector.ts";

/** A branch hint: byte offset in the function body and 0 (unlikely) or 1 (likely). */
export interface BranchHint {
  /** Offset from the first byte of the body (its local declarations). */
  readonly offset: number;
  /** 1 if the branch is likely taken. */
  readonly likely: 0 | 1;
}

/** A lowered function. */
export interface LoweredFunction {
  /** Local declarations and code, without the size in front. */
  readonly body: Uint8Array;
  /** Hints in code order. */
  readonly hints: readonly BranchHint[];
}

/** Work that is done in parts, with a result behind the last. */
export type Steps<T> = Generator<undefined, T, void>;

/** Does all of it; its result. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** Lowers the recorded nodes of `fn`, which {@linkcode place} has seen, some `most` of them in a step. */
export function lower(fn: FunctionBuilder, spans: Spans, most: number): Steps<LoweredFunction> {
  return new Emitter(fn, spans).run(most);
}

const isMemoryEffect = (opcode: number): boolean =>
  (opcode >= Op.I32_STORE && opcode <= Op.I64_STORE32) || opcode === Op.CALL ||
  opcode === Op.CALL_INDIRECT || opcode >= 0xfc00;

/** In {@linkcode Node.root}: evaluated at each use. */
const EVERYWHERE = -2;

/** In place of a temporary local that nobody reads. */
const NOWHERE = -1;

/** Operators that cost nothing, or hardly anything, beside what they are applied to. */
const CHEAP: ReadonlySet<number> = new Set([I32_WRAP_I64, I64_EXTEND_I32_S, I64_EXTEND_I32_U]);

/**
 * Decides for each value whether it is dropped, evaluated at its use, or kept in a local, for some `most` of them
 * in a step.
 */
export function* place(fn: FunctionBuilder, most: number): Steps<Spans> {
  const { nodes, loops } = fn;
  const spans = new Spans(nodes.length, loops);
  const memory = new Int32Array(nodes.length + 1);
  const locals = new Int32Array(nodes.length + 1);
  for (let i = 0; i < nodes.length; i++) {
    const { kind, opcode } = nodes[i]!;
    const effect = kind === NodeKind.EFFECT;
    memory[i + 1] = memory[i]! + Number(effect && isMemoryEffect(opcode));
    locals[i + 1] = locals[i]! + Number(effect && opcode === Op.LOCAL_SET);
  }
  const user = new Int32Array(nodes.length).fill(-1);
  let left = most;
  for (let i = nodes.length - 1; i >= 0; i--) {
    if (--left === 0) {
      left = most;
      yield;
    }
    const node = nodes[i]!;
    const { kind } = node;
    if (kind === NodeKind.EFFECT || kind === NodeKind.CONTROL) {
      node.root = i;
    } else if (node.uses === 0) {
      for (const arg of node.args) arg.uses--;
      continue;
    } else if (node.uses === 1) {
      const root = nodes[user[i]!]!.root;
      const at = root >= 0 ? root : user[i]!;
      const still = kind === NodeKind.PURE ||
        (kind === NodeKind.LOAD ? memory : locals)[at] ===
          (kind === NodeKind.LOAD ? memory : locals)[i];
      if (still && nodes[at]!.loop === node.loop) node.root = at;
    } else if (CHEAP.has(node.opcode) && node.args[0]!.kind !== NodeKind.CONST) {
      // Often only one of the uses is where the function goes; in a local the value would be there always.
      node.root = EVERYWHERE;
      node.args[0]!.uses += node.uses - 1;
    }
    // Where it is evaluated, at last.
    const at = node.root >= 0 ? node.root : node.root === EVERYWHERE ? spans.values[i]! : i;
    for (const arg of node.args) {
      if (arg.index < 0) continue;
      user[arg.index] = i;
      spans.useValue(arg.index, at, nodes[at]!.loop);
    }
    if (kind === NodeKind.GET && node.imm < 0) spans.useTemporary(node.imm, at);
  }
  return spans;
}

class Emitter {
  readonly #fn: FunctionBuilder;
  readonly #code = new ByteSink();
  readonly #hints: BranchHint[] = [];
  readonly #labels: Node[] = [];
  readonly #spans: Spans;
  readonly #pool: LocalPool;
  /** Where temporary locals are. */
  readonly #places = new Map<number, number>();

  constructor(fn: FunctionBuilder, spans: Spans) {
    this.#fn = fn;
    this.#spans = spans;
    this.#pool = new LocalPool(fn.locals);
  }

  *run(most: number): Steps<LoweredFunction> {
    let left = most;
    for (const node of this.#fn.nodes) {
      if (--left === 0) {
        left = most;
        yield;
      }
      if (node.kind === NodeKind.CONTROL) {
        this.#control(node);
      } else if (node.kind === NodeKind.EFFECT) {
        this.#instruction(node);
        if (node.type !== undefined) {
          if (node.uses === 0) this.#code.u8(Op.DROP);
          else this.#keep(node);
        }
      } else if (node.uses > 0 && node.root === -1) {
        this.#instruction(node);
        this.#keep(node);
      }
      this.#pool.passed(node.index);
    }
    this.#code.u8(Op.END);
    return this.#assemble();
  }

  #assemble(): LoweredFunction {
    const types = this.#fn.locals.slice(this.#fn.parameterCount);
    const runs: [number, number][] = [];
    for (const type of types) {
      const last = runs[runs.length - 1];
      if (last !== undefined && last[1] === type) last[0]++;
      else runs.push([1, type]);
    }
    const body = new ByteSink();
    body.uleb(runs.length);
    for (const [count, type] of runs) {
      body.uleb(count);
      body.u8(type);
    }
    const shift = body.length;
    body.raw(this.#code.bytes());
    return {
      body: body.bytes(),
      hints: this.#hints.map(({ offset, likely }) => ({ offset: offset + shift, likely })),
    };
  }

  #keep(node: Node): void {
    node.local = this.#pool.take(node.type!, this.#spans.values[node.index]!);
    this.#code.u8(Op.LOCAL_SET);
    this.#code.uleb(node.local);
  }

  /** The local that was recorded as `local`. */
  #place(local: number): number {
    if (local >= 0) return local;
    let place = this.#places.get(local);
    if (place === undefined) {
      const until = this.#spans.temporaries.get(local);
      place = until === undefined ? NOWHERE : this.#pool.take(this.#fn.temporaries[~local]!, until);
      this.#places.set(local, place);
    }
    return place;
  }

  #hint(hint: number): void {
    if (hint === 0) return;
    this.#hints.push({ offset: this.#code.length, likely: hint === 2 ? 1 : 0 });
  }

  #depth(label: object): number {
    const at = this.#labels.lastIndexOf(label as Node);
    if (at < 0) throw new Error("branch to a label that does not enclose it");
    return this.#labels.length - 1 - at;
  }

  #control(node: Node): void {
    const code = this.#code;
    switch (node.opcode) {
      case Op.IF:
        this.#value(node.args[0]!);
        this.#hint(node.imm);
        code.u8(Op.IF);
        code.u8(0x40);
        this.#labels.push(node);
        break;
      case Op.ELSE:
        code.u8(Op.ELSE);
        break;
      case Op.END:
        code.u8(Op.END);
        this.#labels.pop();
        break;
      case Op.TRY_TABLE: {
        const { tag, label } = node.ref as { tag: Tag; label: Node };
        const depth = this.#depth(label);
        code.raw([Op.TRY_TABLE, 0x40, 1, 0]);
        code.uleb(tag.index);
        code.uleb(depth);
        this.#labels.push(node);
        break;
      }
      default:
        code.u8(node.opcode);
        code.u8(0x40);
        this.#labels.push(node);
    }
  }

  #value(node: Node): void {
    if (node.kind === NodeKind.CONST) {
      this.#constant(node);
    } else if (node.local >= 0) {
      this.#code.u8(Op.LOCAL_GET);
      this.#code.uleb(node.local);
    } else {
      if (node.root === -1) throw new Error("a value is used where it was not evaluated");
      this.#instruction(node);
    }
  }

  #constant(node: Node): void {
    if (node instanceof I32) {
      this.#code.u8(Op.I32_CONST);
      this.#code.sleb32(node.constant!);
    } else if (node instanceof I64) {
      this.#code.u8(Op.I64_CONST);
      this.#code.sleb64(node.constant!);
    } else if (node instanceof V128) {
      this.#opcode(Op.V128_CONST);
      for (let at = 0n; at < 128n; at += 8n) {
        this.#code.u8(Number((node.constant! >> at) & 0xffn));
      }
    }
  }

  #opcode(opcode: number): void {
    if (opcode < 0x100) this.#code.u8(opcode);
    else {
      this.#code.u8(opcode >> 8);
      this.#code.uleb(opcode & 0xff);
    }
  }

  #instruction(node: Node): void {
    for (const arg of node.args) this.#value(arg);
    const code = this.#code;
    const { opcode } = node;
    if (opcode === Op.LOCAL_SET) {
      const place = this.#place(node.imm);
      code.u8(place === NOWHERE ? Op.DROP : Op.LOCAL_SET);
      if (place !== NOWHERE) code.uleb(place);
      return;
    }
    if (opcode === Op.BR_IF) this.#hint(node.imm);
    this.#opcode(opcode);
    switch (opcode) {
      case Op.LOCAL_GET:
        code.uleb(this.#place(node.imm));
        return;
      case Op.BR:
      case Op.BR_IF:
        code.uleb(this.#depth(node.ref!));
        return;
      case Op.BR_TABLE: {
        const labels = node.ref as readonly { node: Node }[];
        code.uleb(labels.length - 1);
        for (const { node: label } of labels) code.uleb(this.#depth(label));
        return;
      }
      case Op.CALL:
      case Op.RETURN_CALL:
        code.uleb(this.#fn.module.functionIndex(node.ref as FunctionRef));
        return;
      case Op.CALL_INDIRECT:
      case Op.RETURN_CALL_INDIRECT:
        code.uleb(this.#fn.module.typeIndex(node.ref as Signature));
        code.u8(0);
        return;
      case Op.THROW:
        code.uleb((node.ref as Tag).index);
        return;
      case Op.MEMORY_COPY:
        code.raw([0, 0]);
        return;
      case Op.MEMORY_FILL:
        code.u8(0);
        return;
      case Op.I8X16_SHUFFLE:
        code.raw(node.ref as readonly number[]);
        return;
    }
    if (
      node.kind === NodeKind.LOAD || (opcode >= Op.I32_STORE && opcode <= Op.I64_STORE32) ||
      opcode === Op.V128_STORE
    ) {
      // Alignment is a hint only; byte alignment is always valid.
      code.u8(0);
      code.uleb(node.imm);
    } else if (opcode >= 0xfd00 && node.imm >= 0) {
      code.u8(node.imm);
    }
  }
}
