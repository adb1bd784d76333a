/**
 * An instruction of a region: operands are constants, registers are locals.
 *
 * @module
 */
import { hasLinks, registerPlace } from "../decode/form.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { probeWindow, type WindowProbe, type WindowUse } from "../memory/windows.ts";
import { hearOutside, tellOutside } from "../microcode/outside.ts";
import { emitFlagsValue, type FlagState, settleFlags } from "../semantics/flags.ts";
import { Reg } from "../semantics/instruction.ts";
import { registerAddress, S, Seg, segmentAddress, SegmentField } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  i32,
  I32T,
  type I64,
  i64,
  type Variable,
} from "../wasm/mod.ts";
import { MicroOp } from "./block_layout.ts";
import { INDIRECT } from "./jump_edges.ts";
import { followJumpInline, followLink } from "./links.ts";
import { hashOf, type PerfectHash, perfectHash } from "./perfect_hash.ts";
import { type Records, REGISTER_FIELDS } from "./records.ts";
import type { RegionBlock, RegionEdge, RegionOp } from "./region_graph.ts";
import { MemoryInstruction } from "./tier2_memory.ts";
import type { Neighbour, Neighbours } from "./tier2_neighbours.ts";

/** What ends a block, accesses memory and may stay in the region behind it. */
const LAST_ACCESSES: ReadonlySet<string> = new Set([
  ...["CALL", "CALLIND", "RET", "JMPIND", "CALL.shadow", "CALLIND.shadow", "RET.shadow"],
  ...["JMPIND", "CALLIND", "CALLIND.shadow"].flatMap((
    name,
  ) => [`${name}.track`, `${name}.notrack`]),
  ...["MOVS", "STOS", "LODS", "CMPS", "SCAS"],
]);

/** Most targets of an indirect jump that are compared one after the other. */
const MOST_COMPARED = 3;

const lowRip = ({ to }: RegionEdge): number => Number(to.rip & 0xffff_ffffn);

/** What the instructions of a region share. */
export interface RegionContext {
  /** Microcode that can be called. */
  readonly mc: Microcode;
  /** The region's function. */
  readonly f: FunctionBuilder;
  /** 64-bit code. */
  readonly long: boolean;
  /** The mode that all of it is executed in. */
  readonly mode: number;
  /** The general-purpose registers. */
  readonly registers: readonly Variable<I64>[];
  /** Instructions that may still be retired, those of the block at hand charged. */
  readonly budget: Variable<I32>;
  /** Sets register `n`, which the state gets later. */
  setRegister(n: number, value: I64): void;
  /** Stores the registers that the state may not have yet. */
  save(): void;
  /** Takes all registers from the state again. */
  reload(): void;
  /** Builds a way that leaves the function: the registers are stored before `way`. */
  leaving(way: () => void): void;
  /** Whether accesses of `block` remember their pages. */
  remembers(block: RegionBlock): boolean;
  /** The pointers that accesses beside each other keep. */
  pointer(slot: number): Variable<I32>;
  /** Goes on along `edge`; what leads to no compiled block leaves the function through `leave`. */
  follow(
    from: RegionBlock,
    edge: RegionEdge | undefined,
    flags: FlagState,
    leave: () => void,
  ): void;
  /** Goes back to the dispatcher, which goes on at `rip`. */
  leaveAt(rip: I64, flags: FlagState): void;
}

/** An instruction whose operands are constants and whose registers are locals. */
export class CompiledInstruction extends MemoryInstruction {
  readonly #region: RegionContext;
  readonly #block: RegionBlock;
  readonly #op: RegionOp;
  readonly #records: Records;
  readonly #neighbour: Neighbour | undefined;
  #operand: I64 | undefined;
  /** Set where microcode has been called; only for an instruction that ends its block. */
  #called: Variable<I32> | undefined;

  constructor(
    region: RegionContext,
    block: RegionBlock,
    op: RegionOp,
    records: Records,
    neighbour: Neighbour | undefined,
    flags: FlagState,
  ) {
    super(region.mc, region.f, op.form, flags);
    this.#region = region;
    this.#block = block;
    this.#op = op;
    this.#records = records;
    this.#neighbour = neighbour;
    if (LAST_ACCESSES.has(op.form.name)) {
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
    const [n, shift] = this.#place(address);
    const register = this.#region.registers[n]!;
    let whole = value.zeroExtend(bits);
    if (bits < 32) {
      const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
      whole = register.get().and(~mask).or(whole.shl(shift));
    }
    this.#region.setRegister(n, whole);
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

  override loopChanges(n: number): void {
    this.#region.setRegister(n, this.#region.registers[n]!.get());
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
    this.#operand = this.#operandAddress(bytes, access);
    return this.#operand;
  }

  #operandAddress(bytes: number, access: number): I64 {
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

  protected isStack(implicit: boolean): boolean {
    if (implicit) return true;
    const { record, form } = this.#op;
    if (form.address !== "b64" && form.address !== "b32") return false;
    const base = this.#records.half(record + MicroOp.BASE);
    return base === registerAddress(Reg.RSP) || base === registerAddress(Reg.RBP);
  }

  protected remembers(): boolean {
    return this.#region.remembers(this.#block);
  }

  override hasMode(bit: number): I32 {
    return i32(Number((this.#region.mode & bit) !== 0));
  }

  protected neighbour(linear: I64, stack: boolean): Neighbour | undefined {
    return stack || linear === this.#operand ? this.#neighbour : undefined;
  }

  protected pointerOf({ slot }: Neighbours): Variable<I32> {
    return this.#region.pointer(slot);
  }

  protected window(use: WindowUse, linear: I64): WindowProbe {
    return probeWindow(this.f, use, linear, this.#region.long);
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

  budget(): I32 {
    return this.#region.budget.get();
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
    this.#spillButFlags();
    S.flagsKind.set(f, kind);
    S.flagsA.set(f, a);
    S.flagsB.set(f, b);
  }

  #spillButFlags(): void {
    const { f } = this;
    this.#region.save();
    S.uop.set(f, this.#op.record);
    S.budget.set(f, this.#region.budget.get());
    this.#called?.set(1);
  }

  protected takeRegisters(): void {
    this.#region.reload();
  }

  protected override tellOutside(): void {
    const { f, mc } = this;
    this.#spillButFlags();
    const ahead = this.#block.count - this.#records.byte(this.#op.record + MicroOp.ORDINAL);
    tellOutside(f, this.rip(), ahead, emitFlagsValue(mc, f, this.flagsAtFault));
  }

  protected override hearOutside(): void {
    hearOutside(this.mc, this.f);
  }

  /**
   * What a call pushes may be written to a device or over code, of this very region even, and what a return
   * pops may be read from a device, which may do anything: the dispatcher goes on then. So it is with what
   * a string instruction moves.
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
    this.#leaveIfCalled(this.nextRip());
    const linked = hasLinks(this.form.operands);
    this.#region.follow(this.#block, this.#block.next, this.flags, () => {
      if (!linked) followJumpInline(this.#flow(), this.nextRip());
      else followLink(this.#flow(), i32(record), MicroOp.NEXT_LINK, () => this.nextRip());
      this.#region.leaveAt(this.nextRip(), this.flags);
    });
    this.ended = true;
  }

  #flow(): { mc: Microcode; f: FunctionBuilder; budget: I32; flags: FlagState } {
    return { mc: this.mc, f: this.f, budget: this.#region.budget.get(), flags: this.flags };
  }

  jumpTo(target: I64): void {
    this.#leaveIfCalled(target);
    const from = INDIRECT.has(this.form.name) ? i32(this.#op.record) : undefined;
    const { jumps } = this.#block;
    const hash = jumps.length > MOST_COMPARED ? perfectHash(jumps.map(lowRip)) : undefined;
    if (hash === undefined) { for (const edge of jumps) this.#jumpIf(target, edge, from); }
    else this.#jumpAmong(target, jumps, hash, from);
    this.#region.leaving(() => {
      followJumpInline(this.#flow(), target, from);
      this.leaveAt(target);
    });
  }

  /** Goes on along `edge` if `target` is where it leads. */
  #jumpIf(target: I64, edge: RegionEdge, from: I32 | undefined): void {
    this.f.if(
      target.eq(i64(edge.to.rip)),
      () => {
        this.#region.follow(this.#block, edge, this.flags, () => {
          followJumpInline(this.#flow(), target, from);
          this.#region.leaveAt(target, this.flags);
        });
      },
      undefined,
      "likely",
    );
  }

  /** Goes on along the one of `edges` that leads to `target`, if one does. */
  #jumpAmong(
    target: I64,
    edges: readonly RegionEdge[],
    hash: PerfectHash,
    from: I32 | undefined,
  ): void {
    const cases = Array.from({ length: 2 ** (32 - hash.shift) }, (): () => void => () => {});
    for (const edge of edges) {
      cases[hashOf(hash, lowRip(edge))] = () => this.#jumpIf(target, edge, from);
    }
    this.f.switch(target.wrap().mul(hash.multiplier).shrU(hash.shift), cases, () => {});
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
