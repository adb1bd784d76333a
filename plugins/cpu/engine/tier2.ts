/**
 * Tier 2: a region of blocks as one WebAssembly function, from the same emitters as the interpreter.
 *
 * Operands are constants, general-purpose registers are locals, branches inside the region are branches of
 * WebAssembly. A register is written to the state as well whenever it is written, so that the state is whole
 * wherever the function may be left: at a fault, at the end of the budget, for microcode. Instructions whose
 * semantics reach registers through the state are carried out by the interpreter's own code, in line.
 *
 * @module
 */
import { registerPlace } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { type FlagState, settleFlags } from "../semantics/flags.ts";
import { Instruction, Reg } from "../semantics/instruction.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { Pseudo } from "../semantics/pseudo.ts";
import { registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import { probe } from "../memory/access.ts";
import { jumpSlot } from "../memory/tlb.ts";
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
  type Variable,
} from "../wasm/mod.ts";
import { BlockHeader, MicroOp } from "./block_layout.ts";
import { followJumpInline, followLink, HANDLER_PARAMS } from "./links.ts";
import type { RegionBlock, RegionEdge, RegionOp } from "./region_graph.ts";
import { RegionStructure } from "./region_structure.ts";
import { type HandlerRef, InterpretedInstruction } from "./tier1.ts";
import { usesLocals } from "./tier2_forms.ts";

/** How many general-purpose registers there are, those of APX included. */
const REGISTERS = 32;
/** How many there are without. */
const LEGACY_REGISTERS = 16;

/** Transfers of control that access memory and may stay in the region behind it. */
const TRANSFERS: ReadonlySet<string> = new Set(["CALL", "CALLIND", "RET", "JMPIND"]);

/** Most accesses of a loop that each remember the page they were last in. */
const MOST_SITES = 8;

const REGISTER_FIELDS = [MicroOp.REG0, MicroOp.REG1, MicroOp.BASE] as const;

/** What of the mode its code is for a region has to know. */
export interface RegionMode {
  /** 64-bit code. */
  readonly long: boolean;
  /** R16–R31 exist. */
  readonly apx: boolean;
}

/** What the instructions of a region share. */
class RegionFunction {
  readonly mc: Microcode;
  readonly f: FunctionBuilder;
  readonly structure: RegionStructure;
  readonly long: boolean;
  readonly registers: readonly Variable<I64>[];
  readonly budget: Variable<I32>;
  /** Page that the stack was last seen writable in; all ones for none. */
  readonly stackPage: Variable<I64>;
  /** What is added to an address in that page to get where it stands in memory. */
  readonly stackDelta: Variable<I32>;
  /** The lazy flags where ways meet. */
  readonly kind: Variable<I32>;
  readonly a: Variable<I64>;
  readonly b: Variable<I64>;
  readonly #close: ReadonlySet<RegionBlock>;
  readonly #labels = new Map<RegionBlock, Label>();
  readonly #records: Records;

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
    this.#records = records;
    this.structure = new RegionStructure(head);
    this.#close = this.#closeLoops();
    this.budget = f.variable(I32T, budget);
    this.kind = f.variable(I32T, flags.kind);
    this.a = f.variable(I64T, flags.a);
    this.b = f.variable(I64T, flags.b);
    this.stackPage = f.variable(I64T, -1);
    this.stackDelta = f.variable(I32T, 0);
    this.registers = Array.from(
      { length: mode.apx ? REGISTERS : LEGACY_REGISTERS },
      (_, n) => f.variable(I64T, f.load64(0, registerAddress(n))),
    );
    this.#tree(head, flags);
  }

  /** Blocks of innermost loops with so few accesses that each may remember its page. */
  #closeLoops(): Set<RegionBlock> {
    const close = new Set<RegionBlock>();
    // What the interpreter's code does in line may change translations.
    const blocks = [...this.structure.places.keys()];
    if (!blocks.every((block) => block.ops.every((op, k) => this.#compiles(block, op, k)))) {
      return close;
    }
    for (const body of this.structure.innermost()) {
      const sites = [...body].flatMap(({ ops }) => ops)
        .filter(({ form }) => form.operands.some(({ kind }) => kind === "M"));
      if (sites.length <= MOST_SITES) { for (const block of body) close.add(block); }
    }
    return close;
  }

  /** Whether accesses of `block` remember their pages. */
  remembers(block: RegionBlock): boolean {
    return this.#close.has(block);
  }

  /** Takes the registers from the state again. */
  reload(): void {
    // What has been done may have changed translations, or which of them count.
    this.stackPage.set(-1);
    for (const [n, register] of this.registers.entries()) {
      register.set(this.f.load64(0, registerAddress(n)));
    }
  }

  /** Emits `block` and all that it dominates. */
  #tree(block: RegionBlock, flags: FlagState): void {
    const { f, structure } = this;
    const place = structure.places.get(block)!;
    const merges = place.children
      .filter((child) => structure.places.get(child)!.forward > 1)
      .sort((x, y) => structure.places.get(y)!.order - structure.places.get(x)!.order);
    if (!place.loop) return this.#within(block, merges, flags);
    this.#store(flags);
    f.loop((again) => {
      this.#labels.set(block, again);
      this.#within(block, merges, this.#stored());
      this.#labels.delete(block);
    });
  }

  /** Emits `block` inside the blocks of WebAssembly that lead to `merges`, the outermost first. */
  #within(block: RegionBlock, merges: readonly RegionBlock[], flags: FlagState): void {
    const [outer, ...inner] = merges;
    if (outer === undefined) return this.#ops(block, flags);
    this.f.block((out) => {
      this.#labels.set(outer, out);
      this.#within(block, inner, flags);
      this.#labels.delete(outer);
    });
    this.#tree(outer, this.#stored());
  }

  #store(flags: FlagState): void {
    const { kind, a, b } = settleFlags(flags);
    this.kind.set(kind);
    this.a.set(a);
    this.b.set(b);
  }

  #stored(): FlagState {
    return { kind: this.kind.get(), a: this.a.get(), b: this.b.get() };
  }

  #compiles(block: RegionBlock, op: RegionOp, k: number): boolean {
    // What a device does to the state is to be seen, so what the dispatcher looks after is not compiled.
    const watched = block.ops[k + 1]?.form.name === Pseudo.BOUNDARY;
    return usesLocals(op.form) && !watched && this.#records.inRegisters(op);
  }

  #ops(block: RegionBlock, flags: FlagState): void {
    const { f, mc } = this;
    let state = flags;
    for (const [k, op] of block.ops.entries()) {
      const { emit } = SEMANTICS[op.form.name]!;
      if (this.#compiles(block, op, k)) {
        const i = new CompiledInstruction(this, block, op, this.#records, state);
        emit(i);
        state = i.flags;
      } else {
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
    if (edge === undefined || kind === "irregular") return leave();
    const { to } = edge;
    if (edge.guarded) f.if(this.#cached(to).eqz(), leave, undefined, "unlikely");
    const left = this.budget.get().sub(to.count);
    f.if(left.ltS(0), () => this.leaveAt(i64(to.rip), flags), undefined, "unlikely");
    this.budget.set(left);
    if (kind === "single") return this.#tree(to, flags);
    this.#store(flags);
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
    S.rip.set(f, rip);
    S.budget.set(f, this.budget.get());
    S.flagsKind.set(f, kind);
    S.flagsA.set(f, a);
    S.flagsB.set(f, b);
    f.return();
  }
}

/** Reads micro-op records while code is built from them. */
export class Records {
  readonly #bytes: DataView;

  /** `memory` holds the records. */
  constructor(memory: ArrayBuffer) {
    this.#bytes = new DataView(memory);
  }

  /** The 32-bit word at `address`. */
  word(address: number): number {
    return this.#bytes.getInt32(address, true);
  }

  /** The 16-bit word at `address`. */
  half(address: number): number {
    return this.#bytes.getUint16(address, true);
  }

  /** The byte at `address`. */
  byte(address: number): number {
    return this.#bytes.getUint8(address);
  }

  /** The 64-bit word at `address`. */
  long(address: number): bigint {
    return this.#bytes.getBigInt64(address, true);
  }

  /** Whether all registers among the operands of `op` are general-purpose or vector ones. */
  inRegisters({ record, form }: RegionOp): boolean {
    return form.operands.every(({ kind }, k) => {
      if (kind !== "R") return true;
      const address = this.half(record + REGISTER_FIELDS[registerPlace(form.operands, k)]!);
      return address >= registerAddress(0) && address < registerAddress(REGISTERS);
    });
  }
}

/** An instruction whose operands are constants and whose registers are locals. */
class CompiledInstruction extends Instruction {
  readonly #region: RegionFunction;
  readonly #block: RegionBlock;
  readonly #op: RegionOp;
  readonly #records: Records;
  /** Set where microcode has been called; only for an instruction that ends its block. */
  #called: Variable<I32> | undefined;

  constructor(
    region: RegionFunction,
    block: RegionBlock,
    op: RegionOp,
    records: Records,
    flags: FlagState,
  ) {
    super(region.mc, region.f, op.form, flags);
    this.#region = region;
    this.#block = block;
    this.#op = op;
    this.#records = records;
    if (TRANSFERS.has(op.form.name)) {
      this.#called = region.f.variable(I32T, 0);
    }
  }

  /** Register number and bit offset (AH, CH, DH, BH) of a state address. */
  #place(address: number): readonly [number, number] {
    const offset = address - registerAddress(0);
    return [offset >> 3, (offset & 7) * 8];
  }

  #read(address: number, bits: number, signed: boolean): I64 {
    if (address === S.zero) return i64(0);
    const [n, shift] = this.#place(address);
    const value = this.#region.registers[n]!.get().shrU(shift);
    return signed ? value.signExtend(bits) : value.zeroExtend(bits);
  }

  #write(address: number, bits: number, value: I64): void {
    const { f } = this;
    const [n, shift] = this.#place(address);
    const register = this.#region.registers[n]!;
    let whole = value.zeroExtend(bits);
    if (bits < 32) {
      const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
      whole = register.get().and(~mask).or(whole.shl(shift));
    }
    f.store64(0, whole, registerAddress(n));
    register.set(whole);
  }

  /** What the record holds for register operand `k`. */
  #registerWord(k: number): number {
    const { record, form } = this.#op;
    return this.#records.half(record + REGISTER_FIELDS[registerPlace(form.operands, k)]!);
  }

  protected readRegister(k: number, bits: number, signed: boolean): I64 {
    return this.#read(this.#registerWord(k), bits, signed);
  }

  protected writeRegister(k: number, bits: number, value: I64): void {
    this.#write(this.#registerWord(k), bits, value);
  }

  vectorAddress(k: number): I32 {
    return i32(this.#registerWord(k));
  }

  protected smallConstant(k: number): I32 {
    return i32(this.#registerWord(k));
  }

  protected readFixed(n: number, bits: number, signed: boolean): I64 {
    return this.#read(registerAddress(n), bits, signed);
  }

  protected writeFixed(n: number, bits: number, value: I64): void {
    this.#write(registerAddress(n), bits, value);
  }

  immediate(): I64 {
    return i64(this.#records.long(this.#op.record + MicroOp.IMMEDIATE));
  }

  second(): I64 {
    return i64(this.#records.long(this.#op.record + MicroOp.DISPLACEMENT));
  }

  get #addressing(): number {
    return this.#records.byte(this.#op.record + MicroOp.ADDRESSING);
  }

  offset(): I64 {
    const { record } = this.#op;
    const addressing = this.#addressing;
    return this.#read(this.#records.half(record + MicroOp.BASE), 64, false)
      .add(
        this.#read(this.#records.half(record + MicroOp.INDEX_REG), 64, false).shl(addressing & 3),
      )
      .add(this.second())
      .zeroExtend(16 << ((addressing >> 2) & 3));
  }

  protected operandAddress(bytes: number, access: number): I64 {
    if (this.form.address !== "gen") return this.offset();
    const segment = (this.#addressing >> 4) & 7;
    if (this.#region.long) {
      if (segment < Seg.FS) return this.offset();
      return this.offset().add(this.f.load64(0, segmentAddress(segment) + SegmentField.BASE));
    }
    const offset = this.offset();
    this.spill();
    return this.f.call(this.mc.segmentAddress, segment, offset, bytes, access);
  }

  /** Whether an access is to the stack in all likelihood. */
  #stackLike(implicit: boolean): boolean {
    if (implicit) return true;
    const { record, form } = this.#op;
    if (form.address !== "b64" && form.address !== "b32") return false;
    const base = this.#records.half(record + MicroOp.BASE);
    return base === registerAddress(Reg.RSP) || base === registerAddress(Reg.RBP);
  }

  override load(bits: number, linear: I64, stack = false): I64 {
    if (!this.#stackLike(stack)) {
      return this.#region.remembers(this.#block)
        ? this.#rememberedLoad(bits, linear)
        : super.load(bits, linear, stack);
    }
    const { f } = this;
    const { stackDelta } = this.#region;
    return f.choose(
      I64T,
      this.#inStackPage(bits, linear),
      () => f.loadZ(bits, linear.wrap().add(stackDelta.get())),
      () => super.load(bits, linear, stack),
      "likely",
    );
  }

  override store(bits: number, linear: I64, value: I64, stack = false): void {
    if (!this.#stackLike(stack)) {
      return this.#region.remembers(this.#block)
        ? this.#rememberedStore(bits, linear, value)
        : super.store(bits, linear, value, stack);
    }
    const { f } = this;
    const { stackDelta, stackPage } = this.#region;
    const low = linear.wrap();
    f.if(
      this.#inStackPage(bits, linear),
      () => f.storeLow(bits, low.add(stackDelta.get()), value),
      () => {
        const { hit, address } = probe(f, linear, bits / 8, true);
        f.if(hit, () => {
          const at = address();
          stackPage.set(linear.and(~0xfff));
          stackDelta.set(at.sub(low));
          f.storeLow(bits, at, value);
        }, () => super.store(bits, linear, value, stack));
      },
      "likely",
    );
  }

  /**
   * What tells the page of an aligned access: never 0, and of an address that is not aligned no page's.
   */
  #pageKey(bits: number, linear: I64): I64 {
    return linear.or(0xfff & ~(bits / 8 - 1));
  }

  #rememberedLoad(bits: number, linear: I64): I64 {
    const { f } = this;
    const page = f.zeroed(I64T);
    const delta = f.zeroed(I32T);
    const low = linear.wrap();
    const key = this.#pageKey(bits, linear);
    return f.choose(
      I64T,
      page.get().eq(key),
      () => f.loadZ(bits, low.add(delta.get())),
      () => {
        const { hit, address } = probe(f, linear, bits / 8, false);
        return f.choose(I64T, hit, () => {
          const at = address();
          page.set(this.#pageKey(bits, linear.and(~0xfff)));
          delta.set(at.sub(low));
          return f.loadZ(bits, at);
        }, () => super.load(bits, linear));
      },
      "likely",
    );
  }

  #rememberedStore(bits: number, linear: I64, value: I64): void {
    const { f } = this;
    const page = f.zeroed(I64T);
    const delta = f.zeroed(I32T);
    const low = linear.wrap();
    const key = this.#pageKey(bits, linear);
    f.if(
      page.get().eq(key),
      () => f.storeLow(bits, low.add(delta.get()), value),
      () => {
        const { hit, address } = probe(f, linear, bits / 8, true);
        f.if(hit, () => {
          const at = address();
          page.set(this.#pageKey(bits, linear.and(~0xfff)));
          delta.set(at.sub(low));
          f.storeLow(bits, at, value);
        }, () => super.store(bits, linear, value));
      },
      "likely",
    );
  }

  #inStackPage(bits: number, linear: I64): I32 {
    // An aligned access lies in one page; any other takes the longer way.
    return this.#region.stackPage.get().eq(linear.and(~0xfff | (bits / 8 - 1)));
  }

  segment(): I32 {
    return i32((this.#addressing >> 4) & 7);
  }

  rip(): I64 {
    return i64(this.#block.rip + BigInt(this.#records.half(this.#op.record + MicroOp.OFFSET)));
  }

  nextRip(): I64 {
    return this.rip().add(this.#records.byte(this.#op.record + MicroOp.LENGTH));
  }

  recordAddress(): I32 {
    return i32(this.#op.record);
  }

  registerNumber(k: number): I32 {
    return i32(this.#place(this.#registerWord(k))[0]);
  }

  protected emitSpill(): void {
    const { f } = this;
    const { kind, a, b } = settleFlags(this.flagsAtFault);
    S.uop.set(f, this.#op.record);
    S.budget.set(f, this.#region.budget.get());
    S.flagsKind.set(f, kind);
    S.flagsA.set(f, a);
    S.flagsB.set(f, b);
    this.#called?.set(1);
  }

  /**
   * What a call pushes may be written to a device or over code, of this very region even, and what a return
   * pops may be read from a device, which may do anything: the dispatcher goes on then.
   */
  #leaveIfCalled(target: I64): void {
    const called = this.#called;
    if (called === undefined) return;
    this.f.if(
      called.get(),
      () => this.#region.leaveAt(target, this.flags),
      undefined,
      "unlikely",
    );
  }

  branchTaken(): void {
    const { record } = this.#op;
    const target = this.second();
    this.#leaveIfCalled(target);
    this.#region.follow(this.#block, this.#block.taken, this.flags, () => {
      followLink(this.#flow(), i32(record), MicroOp.TAKEN_LINK, () => target);
      this.#region.leaveAt(target, this.flags);
    });
    this.ended = true;
  }

  branchNotTaken(): void {
    const { record } = this.#op;
    this.#region.follow(this.#block, this.#block.next, this.flags, () => {
      followLink(this.#flow(), i32(record), MicroOp.NEXT_LINK, () => this.nextRip());
      this.#region.leaveAt(this.nextRip(), this.flags);
    });
    this.ended = true;
  }

  #flow(): { mc: Microcode; f: FunctionBuilder; budget: I32; flags: FlagState } {
    return { mc: this.mc, f: this.f, budget: this.#region.budget.get(), flags: this.flags };
  }

  jumpTo(target: I64): void {
    const { f } = this;
    this.#leaveIfCalled(target);
    for (const edge of this.#block.returns) {
      f.if(
        target.eq(i64(edge.to.rip)),
        () => {
          this.#region.follow(this.#block, edge, this.flags, () => {
            followJumpInline(this.#flow(), target);
            this.#region.leaveAt(target, this.flags);
          });
        },
        undefined,
        "likely",
      );
    }
    followJumpInline(this.#flow(), target);
    this.leaveAt(target);
  }

  leaveAt(rip: I64): void {
    this.ended = true;
    this.#region.leaveAt(rip, this.flags);
  }

  leaveAsIs(): void {
    this.ended = true;
    this.f.return();
  }
}

/** Builds the function of the region with `head` as its entry. */
export function buildRegion(
  module: ModuleBuilder,
  mc: Microcode,
  name: string,
  head: RegionBlock,
  records: Records,
  mode: RegionMode,
): HandlerRef {
  return module.define(name, HANDLER_PARAMS, undefined, (f, _uop, budget, kind, a, b) => {
    new RegionFunction(mc, f, head, records, budget, { kind, a, b }, mode);
  });
}
