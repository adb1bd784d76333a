/**
 * Building one WebAssembly function from TypeScript that reads like the function itself.
 *
 * Every operator, load, store and call is recorded in program order. Values may be named and used
 * any number of times, before or after other effects: lowering decides what is evaluated where, and
 * drops what nobody uses.
 *
 * @module
 */
import { type Loop, LOOP_OPEN } from "./locals.ts";
import { lower, type LoweredFunction, place, type Steps } from "./lower.ts";
import type { FunctionRef, ModuleBuilder, Signature, Tag } from "./module.ts";
import { I32_TYPE, I64_TYPE, Op, V128_TYPE, type ValueType } from "./opcodes.ts";
import { I32, i32, I64, i64, Node, NodeKind, type Value } from "./value.ts";
import { V128 } from "./vector.ts";

/** A value type as a token, so that signatures are typed. */
export interface TypeToken<T extends I32 | I64 | V128> {
  /** Binary encoding of the type. */
  readonly code: ValueType;
  /** Makes the node of this type for an instruction that yields it. */
  readonly node: (
    fn: FunctionBuilder,
    kind: NodeKind,
    opcode: number,
    args: readonly Node[],
    imm?: number,
    imm2?: number,
    ref?: object,
  ) => T;
}

/** Token of i32. */
export const I32T: TypeToken<I32> = {
  code: I32_TYPE,
  node: (fn, kind, opcode, args, imm, imm2, ref) =>
    new I32(fn, kind, opcode, args, imm, imm2, undefined, ref),
};
/** Token of i64. */
export const I64T: TypeToken<I64> = {
  code: I64_TYPE,
  node: (fn, kind, opcode, args, imm, imm2, ref) =>
    new I64(fn, kind, opcode, args, imm, imm2, undefined, ref),
};
/** Token of v128. */
export const V128T: TypeToken<V128> = {
  code: V128_TYPE,
  node: (fn, kind, opcode, args, imm, imm2, ref) =>
    new V128(fn, kind, opcode, args, imm, imm2, ref),
};

/** What may be given where a value of type `T` is expected. */
export type Operand<T> = T extends I32 ? I32 | number
  : T extends I64 ? I64 | number | bigint
  : T;
/** Any type token. */
export type AnyToken = TypeToken<I32> | TypeToken<I64> | TypeToken<V128>;
/** Value type of a token. */
export type TokenValue<K> = K extends TypeToken<infer T> ? T : never;
/** Value types of a tuple of tokens. */
export type TokenValues<P extends readonly AnyToken[]> = {
  [K in keyof P]: TokenValue<P[K]>;
};
/** Operand types of a tuple of tokens. */
export type TokenOperands<P extends readonly AnyToken[]> = {
  [K in keyof P]: Operand<TokenValue<P[K]>>;
};

/** A place a branch can go to. */
export interface Label {
  /** The block or loop node. */
  readonly node: Node;
}

/** An assignable local of the function. */
export class Variable<T extends I32 | I64 | V128> {
  /** Index of the local; below 0 for a temporary one. */
  readonly local: number;
  readonly #fn: FunctionBuilder;
  readonly #token: TypeToken<T>;

  constructor(fn: FunctionBuilder, token: TypeToken<T>, local: number) {
    this.local = local;
    this.#fn = fn;
    this.#token = token;
  }

  /** The value the variable has at this point of the program. */
  get(): T {
    return this.#fn.record(
      this.#token.node(this.#fn, NodeKind.GET, Op.LOCAL_GET, [], this.local),
    );
  }

  /** Assigns. */
  set(value: Operand<T>): void {
    this.#fn.effect(Op.LOCAL_SET, [lift(this.#token, value)], this.local);
  }
}

/** Turns a number or bigint into a constant of the token's type; passes values through. */
export function lift<T extends I32 | I64 | V128>(token: TypeToken<T>, value: Operand<T>): Value {
  if (typeof value === "number" || typeof value === "bigint") {
    return token.code === I32_TYPE ? i32(Number(value)) : i64(value);
  }
  return value as Value;
}

/** How likely a condition is to hold; becomes a branch hint for V8. */
export type Likelihood = "likely" | "unlikely";

const HINTS: Record<Likelihood, number> = { unlikely: 1, likely: 2 };

/** Records the body of one function. */
export class FunctionBuilder {
  /** The module the function belongs to. */
  readonly module: ModuleBuilder;
  /** Nodes in program order. */
  readonly nodes: Node[] = [];
  /** Types of all locals, parameters first. */
  readonly locals: ValueType[];
  /** How many of the locals are parameters. */
  readonly parameterCount: number;
  /** Loops by number; the first is the whole function. */
  readonly loops: Loop[] = [{ parent: 0, start: -1, end: LOOP_OPEN }];
  /**
   * Types of the temporary locals, which are -1, -2 and so on: what they are assigned is read right behind, and
   * what else is assigned then may have their place.
   */
  readonly temporaries: ValueType[] = [];
  readonly #scopes: object[] = [{}];
  #loop = 0;

  constructor(module: ModuleBuilder, params: readonly ValueType[]) {
    this.module = module;
    this.locals = [...params];
    this.parameterCount = params.length;
  }

  /** Appends a node that yields a value. Used by the operators of {@linkcode Value}. */
  record<T extends Node>(node: T): T {
    for (const arg of node.args) arg.uses++;
    node.index = this.nodes.length;
    node.loop = this.#loop;
    this.nodes.push(node);
    return node;
  }

  /** Appends a `select`. */
  recordSelect<T extends I32 | I64>(condition: I32, then: T, otherwise: T): T {
    const args = [then, otherwise, condition];
    const node = then instanceof I32
      ? new I32(this, NodeKind.PURE, Op.SELECT, args)
      : new I64(this, NodeKind.PURE, Op.SELECT, args);
    return this.record(node as T);
  }

  /** Appends an instruction that yields nothing. */
  effect(
    opcode: number,
    args: readonly Node[],
    imm = 0,
    imm2 = 0,
    ref?: object,
  ): void {
    this.record(new Node(NodeKind.EFFECT, opcode, args, imm, imm2, undefined, ref));
  }

  /** The innermost block, loop or branch of a condition that is being built. */
  get scope(): object {
    return this.#scopes[this.#scopes.length - 1]!;
  }

  /** Whether what was recorded in `scope` has been evaluated wherever this point is come to. */
  within(scope: object): boolean {
    return this.#scopes.includes(scope);
  }

  #control(opcode: number, args: readonly Node[] = [], imm = 0, ref?: object): Node {
    if (opcode === Op.END || opcode === Op.ELSE) this.#scopes.pop();
    if (opcode !== Op.END) this.#scopes.push({});
    return this.record(new Node(NodeKind.CONTROL, opcode, args, imm, 0, undefined, ref));
  }

  /** A new variable, assigned `initial` here. */
  variable<T extends I32 | I64 | V128>(token: TypeToken<T>, initial: Operand<T>): Variable<T> {
    const variable = new Variable(this, token, this.locals.length);
    this.locals.push(token.code);
    variable.set(initial);
    return variable;
  }

  /** A new variable that is zero when the function is entered, and keeps what it is assigned. */
  zeroed<T extends I32 | I64 | V128>(token: TypeToken<T>): Variable<T> {
    const variable = new Variable(this, token, this.locals.length);
    this.locals.push(token.code);
    return variable;
  }

  /** The parameter `index` as an assignable variable. */
  parameter<T extends I32 | I64 | V128>(token: TypeToken<T>, index: number): Variable<T> {
    return new Variable(this, token, index);
  }

  #load<T extends I32 | I64 | V128>(
    token: TypeToken<T>,
    opcode: number,
    address: I32 | number,
    offset: number,
  ): T {
    const [base, displacement] = fixed(address, offset);
    return this.record(token.node(this, NodeKind.LOAD, opcode, [base], displacement));
  }

  /** `bits` (8, 16, 32) at `address + offset`, zero-extended to i32. */
  load(bits: number, address: I32 | number, offset = 0): I32 {
    return this.#load(I32T, LOAD_NARROW[bits]!, address, offset);
  }
  /** i32 at `address + offset`, zero-extended from 8 bits. */
  load8(address: I32 | number, offset = 0): I32 {
    return this.#load(I32T, Op.I32_LOAD8_U, address, offset);
  }
  /** i32 at `address + offset`, zero-extended from 16 bits. */
  load16(address: I32 | number, offset = 0): I32 {
    return this.#load(I32T, Op.I32_LOAD16_U, address, offset);
  }
  /** i32 at `address + offset`. */
  load32(address: I32 | number, offset = 0): I32 {
    return this.#load(I32T, Op.I32_LOAD, address, offset);
  }
  /** i64 at `address + offset`. */
  load64(address: I32 | number, offset = 0): I64 {
    return this.#load(I64T, Op.I64_LOAD, address, offset);
  }
  /** `bits` (8, 16, 32, 64) at `address + offset`, zero-extended to i64. */
  loadZ(bits: number, address: I32 | number, offset = 0): I64 {
    return this.#load(I64T, LOAD_ZERO[bits]!, address, offset).bounded(bits);
  }
  /** `bits` (8, 16, 32, 64) at `address + offset`, sign-extended to i64. */
  loadS(bits: number, address: I32 | number, offset = 0): I64 {
    return this.#load(I64T, LOAD_SIGN[bits]!, address, offset);
  }
  /** 128 bits at `address + offset`. */
  load128(address: I32 | number, offset = 0): V128 {
    return this.#load(V128T, Op.V128_LOAD, address, offset);
  }

  /** `bits` (32, 64, 128) at `address + offset` as the low lane of a vector, the rest of which is 0. */
  loadVector(bits: number, address: I32 | number, offset = 0): V128 {
    return this.#load(V128T, LOAD_VECTOR[bits]!, address, offset);
  }

  /** Stores the low 8 bits. */
  store8(address: I32 | number, value: I32 | number, offset = 0): void {
    this.#store(Op.I32_STORE8, address, i32(value), offset);
  }
  /** Stores the low 16 bits. */
  store16(address: I32 | number, value: I32 | number, offset = 0): void {
    this.#store(Op.I32_STORE16, address, i32(value), offset);
  }
  /** Stores 32 bits. */
  store32(address: I32 | number, value: I32 | number, offset = 0): void {
    this.#store(Op.I32_STORE, address, i32(value), offset);
  }
  /** Stores 64 bits. */
  store64(address: I32 | number, value: I64 | number | bigint, offset = 0): void {
    this.#store(Op.I64_STORE, address, i64(value), offset);
  }
  /** Stores the low `bits` (8, 16, 32, 64) of an i64. */
  storeLow(bits: number, address: I32 | number, value: I64, offset = 0): void {
    this.#store(STORE_LOW[bits]!, address, value, offset);
  }
  /** Stores 128 bits. */
  store128(address: I32 | number, value: V128, offset = 0): void {
    this.#store(Op.V128_STORE, address, value, offset);
  }

  #store(opcode: number, address: I32 | number, value: Node, offset: number): void {
    const [base, displacement] = fixed(address, offset);
    this.effect(opcode, [base, value], displacement);
  }

  /** memory.copy of `length` bytes (the areas may overlap). */
  copy(to: I32 | number, from: I32 | number, length: I32 | number): void {
    this.effect(Op.MEMORY_COPY, [i32(to), i32(from), i32(length)]);
  }
  /** memory.fill of `length` bytes. */
  fill(address: I32 | number, value: I32 | number, length: I32 | number): void {
    this.effect(Op.MEMORY_FILL, [i32(address), i32(value), i32(length)]);
  }

  /** Runs `then` if the condition is non-zero, else `otherwise`. */
  if(
    condition: I32,
    then: () => void,
    otherwise?: () => void,
    likelihood?: Likelihood,
  ): void {
    if (condition.constant !== undefined) {
      if (condition.constant !== 0) then();
      else otherwise?.();
      return;
    }
    this.#control(Op.IF, [condition], likelihood === undefined ? 0 : HINTS[likelihood]);
    then();
    if (otherwise !== undefined) {
      this.#control(Op.ELSE);
      otherwise();
    }
    this.#control(Op.END);
  }

  /** The value of `then` if the condition is non-zero, else of `otherwise`; only one is evaluated. */
  choose<T extends I32 | I64 | V128>(
    token: TypeToken<T>,
    condition: I32,
    then: () => Operand<T>,
    otherwise: () => Operand<T>,
    likelihood?: Likelihood,
  ): T {
    if (condition.constant !== undefined) {
      return lift(token, condition.constant !== 0 ? then() : otherwise()) as T;
    }
    const result = new Variable(this, token, -this.temporaries.push(token.code));
    this.if(condition, () => result.set(then()), () => result.set(otherwise()), likelihood);
    return result.get();
  }

  /** A block; branching to the label leaves it. */
  block(body: (out: Label) => void): void {
    body(this.openBlock());
    this.closeBlock();
  }

  /** Begins a block, up to {@linkcode FunctionBuilder.closeBlock}. */
  openBlock(): Label {
    return { node: this.#control(Op.BLOCK) };
  }

  /** Ends the block that was begun last. */
  closeBlock(): void {
    this.#control(Op.END);
  }

  /** A loop; branching to the label starts the next round, falling off the end leaves. */
  loop(body: (again: Label) => void): void {
    body(this.openLoop());
    this.closeLoop();
  }

  /** Begins a loop, up to {@linkcode FunctionBuilder.closeLoop}. */
  openLoop(): Label {
    // The marker itself belongs to the outer loop: values it would inline belong there.
    const node = this.#control(Op.LOOP);
    this.loops.push({ parent: this.#loop, start: node.index, end: LOOP_OPEN });
    this.#loop = this.loops.length - 1;
    return { node };
  }

  /** Ends the loop that was begun last. */
  closeLoop(): void {
    this.#control(Op.END);
    const loop = this.loops[this.#loop]!;
    loop.end = this.nodes.length - 1;
    this.#loop = loop.parent;
  }

  /** Runs `body` for as long as `condition` (evaluated before each round) is non-zero. */
  while(condition: () => I32, body: () => void): void {
    this.block((out) =>
      this.loop((again) => {
        this.branchIf(condition().eqz(), out);
        body();
        this.branch(again);
      })
    );
  }

  /** Unconditional branch. */
  branch(label: Label): void {
    this.effect(Op.BR, [], 0, 0, label.node);
  }

  /** Branch if the condition is non-zero. */
  branchIf(condition: I32, label: Label, likelihood?: Likelihood): void {
    const hint = likelihood === undefined ? 0 : HINTS[likelihood];
    this.effect(Op.BR_IF, [condition], hint, 0, label.node);
  }

  /** Runs one of `cases` by `index`; an index beyond them runs `otherwise`. */
  switch(index: I32, cases: readonly (() => void)[], otherwise: () => void): void {
    const open = (depth: number, out: Label, labels: Label[]): void => {
      if (depth > cases.length) {
        this.record(
          new Node(NodeKind.EFFECT, Op.BR_TABLE, [index], 0, 0, undefined, [...labels].reverse()),
        );
        return;
      }
      const body = depth === 0 ? otherwise : cases[cases.length - depth]!;
      this.block((label) => open(depth + 1, out, [...labels, label]));
      body();
      this.branch(out);
    };
    this.block((out) => open(0, out, []));
  }

  /** Runs `body`; an exception with `tag` thrown inside runs `handler`. */
  tryCatch(tag: Tag, body: () => void, handler: () => void): void {
    this.block((after) => {
      this.block((caught) => {
        this.#control(Op.TRY_TABLE, [], 0, { tag, label: caught.node });
        body();
        this.#control(Op.END);
        this.branch(after);
      });
      handler();
    });
  }

  /** Throws an exception without payload. */
  throw(tag: Tag): void {
    this.effect(Op.THROW, [], 0, 0, tag);
  }

  /** Traps. For what cannot be reached. */
  unreachable(): void {
    this.effect(Op.UNREACHABLE, []);
  }

  /** Returns, with a value where the function has a result. */
  return(value?: I32 | I64 | V128 | number): void {
    this.effect(
      Op.RETURN,
      value === undefined ? [] : [typeof value === "number" ? i32(value) : value],
    );
  }

  /** Calls a function and yields its result (or nothing). */
  call<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    target: FunctionRef<P, R>,
    ...args: TokenOperands<P>
  ): R extends AnyToken ? TokenValue<R> : void {
    const lifted = target.signature.params.map((token, i) =>
      lift(token as TypeToken<I32>, args[i] as Operand<I32>)
    );
    this.module.use(target);
    const { result } = target.signature;
    if (result === undefined) {
      this.effect(Op.CALL, lifted, 0, 0, target);
      return undefined as R extends AnyToken ? TokenValue<R> : void;
    }
    const node = result.node(this, NodeKind.EFFECT, Op.CALL, lifted, 0, 0, target);
    return this.record(node) as R extends AnyToken ? TokenValue<R> : void;
  }

  /**
   * Calls a function whose result depends on its arguments alone and that does nothing else: the call
   * disappears if nobody uses the result.
   */
  callPure<const P extends readonly AnyToken[], R extends AnyToken>(
    target: FunctionRef<P, R>,
    ...args: TokenOperands<P>
  ): TokenValue<R> {
    const lifted = target.signature.params.map((token, i) =>
      lift(token as TypeToken<I32>, args[i] as Operand<I32>)
    );
    this.module.use(target);
    const { result } = target.signature;
    const node = result.node(this, NodeKind.PURE, Op.CALL, lifted, 0, 0, target);
    return this.record(node) as TokenValue<R>;
  }

  /** Tail call. */
  returnCall<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    target: FunctionRef<P, R>,
    ...args: TokenOperands<P>
  ): void {
    const lifted = target.signature.params.map((token, i) =>
      lift(token as TypeToken<I32>, args[i] as Operand<I32>)
    );
    this.module.use(target);
    this.effect(Op.RETURN_CALL, lifted, 0, 0, target);
  }

  /** Tail call through the module's table. */
  returnCallIndirect(signature: Signature, index: I32, args: readonly Value[]): void {
    this.effect(Op.RETURN_CALL_INDIRECT, [...args, index], 0, 0, signature);
  }

  /** Call through the module's table of a function without result. */
  callIndirect(signature: Signature, index: I32, args: readonly Value[]): void {
    this.effect(Op.CALL_INDIRECT, [...args, index], 0, 0, signature);
  }

  /**
   * Encodes the body, local declarations, code and end, some `most` nodes in a step. Nothing may be recorded
   * from the first step on.
   */
  *encode(most: number): Steps<LoweredFunction> {
    const spans = yield* place(this, most);
    return yield* lower(this, spans, most);
  }
}

/** Folds a constant address into the offset, so that low addresses carry no bounds check. */
function fixed(address: I32 | number, offset: number): [I32, number] {
  const base = i32(address);
  if (base.constant !== undefined && base.constant !== 0 && base.constant + offset >= 0) {
    return [i32(0), (base.constant >>> 0) + offset];
  }
  return [base, offset];
}

const LOAD_ZERO: Readonly<Record<number, number>> = {
  8: Op.I64_LOAD8_U,
  16: Op.I64_LOAD16_U,
  32: Op.I64_LOAD32_U,
  64: Op.I64_LOAD,
};
const LOAD_NARROW: Readonly<Record<number, number>> = {
  8: Op.I32_LOAD8_U,
  16: Op.I32_LOAD16_U,
  32: Op.I32_LOAD,
};
const LOAD_VECTOR: Readonly<Record<number, number>> = {
  32: Op.V128_LOAD32_ZERO,
  64: Op.V128_LOAD64_ZERO,
  128: Op.V128_LOAD,
};
const LOAD_SIGN: Readonly<Record<number, number>> = {
  8: Op.I64_LOAD8_S,
  16: Op.I64_LOAD16_S,
  32: Op.I64_LOAD32_S,
  64: Op.I64_LOAD,
};
const STORE_LOW: Readonly<Record<number, number>> = {
  8: Op.I64_STORE8,
  16: Op.I64_STORE16,
  32: Op.I64_STORE32,
  64: Op.I64_STORE,
};
