/**
 * Tier 2: a region of blocks as one WebAssembly function, from the same emitters as the interpreter.
 *
 * Operands are constants, general-purpose registers are locals, branches inside the region are branches of
 * WebAssembly. Registers that have been written are stored to the state where the function may be left (at a
 * fault, at the end of the budget, for microcode) and where ways meet, so that each is stored once for all
 * the times it is written in a row. Instructions whose semantics reach registers through the state are
 * carried out by the interpreter's own code, in line.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { jumpSlot } from "../memory/slots.ts";
import { type FlagState, settleFlags } from "../semantics/flags.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { sseMissing } from "../semantics/vector/operands.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { Event, Mode, registerAddress, S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  I64T,
  type Label,
  type ModuleBuilder,
  type Steps,
  type Variable,
} from "../wasm/mod.ts";
import { BlockHeader } from "./block_layout.ts";
import { HANDLER_PARAMS } from "./links.ts";
import { type Records, REGISTERS } from "./records.ts";
import type { RegionBlock, RegionEdge, RegionOp } from "./region_graph.ts";
import { RegionStructure } from "./region_structure.ts";
import { type HandlerRef, InterpretedInstruction } from "./tier1.ts";
import { FlagLocals, narrowFlags, overwritesFlags, OVERWRITTEN } from "./tier2_flags.ts";
import { isSse, usesLocals } from "./tier2_forms.ts";
import { CompiledInstruction, type RegionContext } from "./tier2_instruction.ts";
import { neighboursOf } from "./tier2_neighbours.ts";

/** How many general-purpose registers there are without those of APX. */
const LEGACY_REGISTERS = 16;

/** Most instructions of a loop that keeps what it writes in locals from round to round. */
const MOST_KEPT = 60;

/** Most accesses of a loop that each remember the page they were last in. */
const MOST_SITES = 8;

/** What of the mode its code is for a region has to know. */
export interface RegionMode {
  /** The mode word of its blocks. */
  readonly word: number;
  /** 64-bit code. */
  readonly long: boolean;
  /** R16–R31 exist. */
  readonly apx: boolean;
}

/** With what a block is come to along an edge. */
interface Arrival {
  readonly flags: FlagState;
  /** Registers that the state may not have yet. */
  readonly unsaved: readonly number[];
}

/** What the instructions of a region share. */
class RegionFunction implements RegionContext {
  readonly mc: Microcode;
  readonly f: FunctionBuilder;
  readonly structure: RegionStructure;
  readonly long: boolean;
  readonly mode: number;
  readonly registers: readonly Variable<I64>[];
  readonly budget: Variable<I32>;
  /** The lazy flags where ways meet. */
  readonly #flags: FlagLocals;
  readonly #head: RegionBlock;
  /**
   * All of it is compiled, and asks nobody outside: the interpreter's code in line may change translations and
   * control registers, and so may the program outside.
   */
  readonly #compiled: boolean;
  /** Whether SSE instructions can be executed is found out at the entry, for all of it. */
  readonly #sse: boolean;
  readonly #close: ReadonlySet<RegionBlock>;
  readonly #labels = new Map<RegionBlock, Label>();
  /** With what those blocks are come to that one edge leads to. */
  readonly #arrivals = new Map<RegionBlock, Arrival>();
  /** The lazy flags at the entry. */
  readonly #entry: FlagState;
  /** Nodes to be recorded between two stops, and how many there were at the last. */
  #most = 0;
  #recorded = 0;
  /** Registers that the state may not have yet, where the code being built is. */
  #unsaved = new Set<number>();
  /** For blocks of innermost loops: registers that the state need not have where ways to them meet. */
  readonly #kept = new Map<RegionBlock, ReadonlySet<number>>();
  readonly #records: Records;
  /** Where accesses beside each other have been found. */
  readonly #pointers: Variable<I32>[] = [];

  constructor(
    mc: Microcode,
    f: FunctionBuilder,
    head: RegionBlock,
    records: Records,
    budget: I32,
    flags: FlagState,
    mode: RegionMode,
  ) {
    this.mc = mc;
    this.f = f;
    this.long = mode.long;
    this.mode = mode.word;
    this.#records = records;
    this.#head = head;
    this.structure = RegionStructure.of(head);
    const blocks = [...this.structure.places.keys()];
    this.#compiled = blocks.every((block) =>
      block.ops.every((op, k) =>
        this.#compiles(block, op, k) && SEMANTICS[op.form.name]!.asks !== true
      )
    );
    this.#sse = this.#compiled && blocks.some(({ ops }) => ops.some(({ form }) => isSse(form)));
    this.#close = this.#closeLoops();
    const short = (body: ReadonlySet<RegionBlock>): boolean =>
      [...body].reduce((sum, { ops }) => sum + ops.length, 0) <= MOST_KEPT;
    for (const body of this.structure.innermostParts(short)) this.#keepIn(body);
    this.budget = f.variable(I32T, budget);
    this.#flags = new FlagLocals(f, mode.long);
    this.registers = Array.from(
      { length: mode.apx ? REGISTERS : LEGACY_REGISTERS },
      (_, n) => f.variable(I64T, f.load64(0, registerAddress(n))),
    );
    this.#entry = mode.long ? flags : narrowFlags(mc, f, flags);
  }

  /** Emits all of it; stops behind instructions wherever `most` nodes have been recorded since. */
  *emit(most: number): Steps<void> {
    this.#checkEntry(this.#head, this.#entry);
    this.#most = most;
    yield* this.#tree(this.#head, this.#entry);
  }

  /**
   * The budget is looked at here and at the heads of loops, for all blocks up to the next one. Where it does
   * not last so far, or the region's SSE instructions would fault, the interpreter goes on, which looks at each block: it is kept from coming back here at
   * once by the next instruction's running alone.
   */
  #checkEntry(head: RegionBlock, flags: FlagState): void {
    const { f } = this;
    const short = this.budget.get().ltS(this.structure.reach(head));
    const missing = this.#sse ? sseMissing(f) : i32(0);
    f.if(
      short.or(missing),
      () => {
        // Where only the slice ends there will be a new one.
        f.if(S.sliceHeld.get(f).eqz().or(missing), () => S.events.or(f, Event.ALONE));
        S.leftRegion.set(f, head.address);
        S.leftBefore.set(f, head.address);
        this.budget.set(this.budget.get().add(head.count));
        this.leaveAt(i64(head.rip), flags);
      },
      undefined,
      "unlikely",
    );
  }

  /**
   * Blocks of innermost loops with so few accesses that each may remember its page. Loops that share their head
   * with a longer one are left out: a matrix product took a third longer with them.
   */
  #closeLoops(): Set<RegionBlock> {
    const close = new Set<RegionBlock>();
    if (!this.#compiled) return close;
    const sites = ({ ops }: RegionBlock): number =>
      ops.filter(({ form }) => form.operands.some(({ kind }) => kind === "M")).length;
    for (const body of this.structure.innermost()) {
      const all = [...body].reduce((sum, block) => sum + sites(block), 0);
      if (all <= MOST_SITES) { for (const block of body) close.add(block); }
    }
    return close;
  }

  /** Keeps the registers that instructions of loop `body` have as their first operand. */
  #keepIn(body: ReadonlySet<RegionBlock>): void {
    const ops = [...body].flatMap((block) => block.ops);
    const kept = new Set(ops.map((op) => this.#records.firstRegister(op)));
    kept.delete(undefined);
    for (const block of body) this.#kept.set(block, kept as Set<number>);
  }

  /** Whether accesses of `block` remember their pages. */
  remembers(block: RegionBlock): boolean {
    return this.#close.has(block);
  }

  /** The pointer `slot` of accesses beside each other. */
  pointer(slot: number): Variable<I32> {
    return this.#pointers[slot] ??= this.f.zeroed(I32T);
  }

  /** Sets register `n`, which the state gets later. */
  setRegister(n: number, value: I64): void {
    this.registers[n]!.set(value);
    this.#unsaved.add(n);
  }

  /** Stores the registers that the state may not have yet. */
  save(): void {
    for (const n of this.#unsaved) {
      this.f.store64(0, this.registers[n]!.get(), registerAddress(n));
    }
  }

  /** Stores them for good: all that is built behind comes here first. */
  #saveAll(): void {
    this.save();
    this.#unsaved.clear();
  }

  /** Stores what is to be stored where ways to `block` meet. */
  #saveFor(block: RegionBlock): void {
    const kept = this.#kept.get(block);
    this.#apart(() => {
      for (const n of kept ?? []) this.#unsaved.delete(n);
      this.save();
    });
  }

  /** Builds a way that leaves the function. */
  leaving(way: () => void): void {
    this.#apart(() => {
      this.#saveAll();
      way();
    });
  }

  /** Builds what only some come to; what is built behind it does not come from there. */
  #apart(way: () => void): void {
    const unsaved = new Set(this.#unsaved);
    way();
    this.#unsaved = unsaved;
  }

  /** Takes all registers from the state again. */
  reload(): void {
    for (const [n, register] of this.registers.entries()) {
      register.set(this.f.load64(0, registerAddress(n)));
    }
  }

  /** Emits `block` and all that it dominates. */
  *#tree(block: RegionBlock, flags: FlagState): Steps<void> {
    const { f, structure } = this;
    const { loop, children } = structure.places.get(block)!;
    if (loop) {
      this.#setFlags(block, flags);
      this.#saveFor(block);
      this.#unsaved = new Set(this.#kept.get(block));
      this.#labels.set(block, f.openLoop());
    }
    yield* this.#within(block, children, loop ? this.#flagsAt(block) : flags);
    if (loop) {
      this.#labels.delete(block);
      f.closeLoop();
    }
  }

  /** Emits `block`, and behind it the blocks that it is the nearest dominator of: what leads there branches there. */
  *#within(
    block: RegionBlock,
    children: readonly RegionBlock[],
    flags: FlagState,
  ): Steps<void> {
    const { f, structure } = this;
    for (const child of [...children].reverse()) this.#labels.set(child, f.openBlock());
    yield* this.#ops(block, flags);
    for (const child of children) {
      this.#labels.delete(child);
      f.closeBlock();
      const merge = structure.places.get(child)!.forward > 1;
      const arrival = merge
        ? { flags: this.#flagsAt(child), unsaved: this.#kept.get(child) ?? [] }
        : this.#arrivals.get(child);
      // A condition that is known may have left out the only edge.
      if (arrival === undefined) continue;
      this.#unsaved = new Set(arrival.unsaved);
      yield* this.#tree(child, arrival.flags);
    }
  }

  /** Leaves `flags` where they are looked for behind several ways to `block`. */
  #setFlags(block: RegionBlock, flags: FlagState): void {
    if (!this.#overwritesFlags(block)) this.#flags.set(flags);
  }

  #flagsAt(block: RegionBlock): FlagState {
    return this.#overwritesFlags(block) ? OVERWRITTEN : this.#flags.get();
  }

  #overwritesFlags(block: RegionBlock): boolean {
    return this.#compiled && overwritesFlags(block);
  }

  #compiles(block: RegionBlock, op: RegionOp, k: number): boolean {
    // What a device does to the state is to be seen, so what the dispatcher looks after is not compiled.
    const watched = block.ops[k + 1]?.form.name === Pseudo.BOUNDARY;
    return usesLocals(op.form) && !watched && this.#records.inRegisters(op);
  }

  *#ops(block: RegionBlock, flags: FlagState): Steps<void> {
    const { f, mc } = this;
    let state = flags;
    const neighbours = neighboursOf(
      block,
      this.#records,
      this.long,
      (this.mode & Mode.FLAT_SS) !== 0,
      (op, k) => this.#compiles(block, op, k),
    );
    for (const [k, op] of block.ops.entries()) {
      const { emit } = SEMANTICS[op.form.name]!;
      if (this.#compiles(block, op, k)) {
        const i = new CompiledInstruction(
          this,
          block,
          op,
          this.#records,
          neighbours.get(k),
          state,
        );
        i.sseChecked = this.#sse;
        emit(i);
        state = i.flags;
      } else {
        this.#saveAll();
        const i = new InterpretedInstruction(
          mc,
          f,
          op.form,
          i32(op.record),
          this.budget.get(),
          state,
        );
        emit(i);
        state = i.flags;
        if (!i.ended) this.reload();
      }
      if (f.nodes.length - this.#recorded >= this.#most) {
        yield;
        this.#recorded = f.nodes.length;
      }
    }
  }

  /** Goes on along `edge`; what leads to no compiled block leaves the function through `leave`. */
  follow(
    from: RegionBlock,
    edge: RegionEdge | undefined,
    flags: FlagState,
    leave: () => void,
  ): void {
    const { f, structure } = this;
    const kind = edge === undefined ? "irregular" : structure.kind(from, edge.to);
    if (edge === undefined || kind === "irregular") return this.leaving(leave);
    const { to } = edge;
    if (edge.guarded) {
      f.if(this.#cached(to).eqz(), () => this.leaving(leave), undefined, "unlikely");
    }
    if (structure.places.get(to)!.loop) {
      f.if(
        this.budget.get().ltS(structure.reach(to) + to.count),
        () => {
          S.leftRegion.set(f, this.#head.address);
          S.leftBefore.set(f, to.address);
          this.leaveAt(i64(to.rip), flags);
        },
        undefined,
        "unlikely",
      );
    }
    this.budget.set(this.budget.get().sub(to.count));
    if (kind === "single") {
      if (this.#arrivals.has(to)) throw new Error("a region has an edge twice");
      this.#arrivals.set(to, { flags, unsaved: [...this.#unsaved] });
    } else {
      this.#setFlags(to, flags);
      this.#saveFor(to);
    }
    const label = this.#labels.get(to);
    if (label === undefined) throw new Error("an edge of a region leads out of its structure");
    f.branch(label);
  }

  /** 1 if the jump cache still leads to `block`. */
  #cached({ address, rip }: RegionBlock): I32 {
    const { f } = this;
    const entry = S.jumpCache.get(f).add(jumpSlot(i32(Number(BigInt.asIntN(32, rip)))));
    return f.load64(entry).eq(i64(rip))
      .and(f.load32(entry, 8).eq(address))
      .and(f.load32(entry, 12).eq(this.#records.word(address + BlockHeader.MODE)));
  }

  /** Goes back to the dispatcher, which goes on at `rip`. */
  leaveAt(rip: I64, flags: FlagState): void {
    const { f } = this;
    const { kind, a, b } = settleFlags(flags);
    this.save();
    S.rip.set(f, rip);
    S.budget.set(f, this.budget.get());
    S.flagsKind.set(f, kind);
    S.flagsA.set(f, a);
    S.flagsB.set(f, b);
    f.return();
  }
}

/**
 * Builds the function of the region with `head` as its entry, and yields its reference at last; before that,
 * yields `undefined` wherever some `most` nodes have been recorded since.
 */
export function* buildRegion(
  module: ModuleBuilder,
  mc: Microcode,
  name: string,
  head: RegionBlock,
  records: Records,
  mode: RegionMode,
  most: number,
): Steps<HandlerRef> {
  const ref = module.declare(name, HANDLER_PARAMS, undefined);
  let region: RegionFunction | undefined;
  module.body(ref, (f, _uop, budget, kind, a, b) => {
    region = new RegionFunction(mc, f, head, records, budget, { kind, a, b }, mode);
  });
  yield* region!.emit(most);
  return ref;
}
