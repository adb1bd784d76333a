/**
 * Memory accesses of compiled instructions.
 *
 * An access looks into the window for its kind first (`memory/windows.ts`), then, in loops that make few,
 * at the page it was in the last time, then into the TLB, and takes the slow path at last.
 *
 * @module
 */
import { probe, type TlbProbe } from "../memory/access.ts";
import { WIDEST, type WindowProbe, WindowUse } from "../memory/windows.ts";
import type { Neighbour, Neighbours } from "./tier2_neighbours.ts";
import { Instruction } from "../semantics/instruction.ts";
import { type I32, I32T, type I64, I64T, type Variable } from "../wasm/mod.ts";

/** What an access finds in a window, or beside a neighbour. */
interface Looked extends WindowProbe {
  /** Bytes from the address that was found to that of the access. */
  readonly offset: number;
  /** Has neighbours know that there is no pointer for them. */
  readonly lost: () => void;
}

/** An instruction whose accesses try what is quicker than the TLB. */
export abstract class MemoryInstruction extends Instruction {
  /** Whether an access is to the stack in all likelihood; it is if it is `implicit`. */
  protected abstract isStack(implicit: boolean): boolean;

  /** Whether each access remembers the page it was last in. */
  protected abstract remembers(): boolean;

  /** Looks `linear` up in the window for `use`. */
  protected abstract window(use: WindowUse, linear: I64): WindowProbe;

  /** The neighbours of an access at `linear`, if it has any. */
  protected abstract neighbour(linear: I64, stack: boolean): Neighbour | undefined;

  /** The pointer that neighbours keep. */
  protected abstract pointerOf(neighbours: Neighbours): Variable<I32>;

  /** Looks `bits` at `linear` up in the window for `use`, or goes where a neighbour was found. */
  #looked(bits: number, use: WindowUse, linear: I64, stack: boolean): Looked {
    const { f } = this;
    const nothing = (): void => {};
    const alone = (): Looked => ({ ...this.window(use, linear), offset: 0, lost: nothing });
    const beside = this.neighbour(linear, stack);
    if (beside === undefined || beside.neighbours.use !== use) return alone();
    if (beside.offset + bits / 8 > WIDEST) return alone();
    const { neighbours, offset } = beside;
    const pointer = this.pointerOf(neighbours);
    const found = (): I32 => pointer.get();
    if (neighbours.scope !== undefined) {
      if (!f.within(neighbours.scope)) return alone();
      return { hit: pointer.get(), address: found, offset, miss: nothing, lost: nothing };
    }
    neighbours.scope = f.scope;
    const { hit, address, miss } = this.window(use, linear.sub(offset));
    return {
      hit,
      address: () => {
        pointer.set(address());
        return pointer.get();
      },
      offset,
      miss,
      lost: () => pointer.set(0),
    };
  }

  override load(bits: number, linear: I64, stack = false): I64 {
    const { f } = this;
    const use = this.isStack(stack) ? WindowUse.STACK : WindowUse.READ;
    const { hit, address, offset, miss, lost } = this.#looked(bits, use, linear, stack);
    const outside = (): I64 => {
      lost();
      if (this.remembers() && !stack) return this.#rememberedLoad(bits, linear, miss);
      miss();
      return super.load(bits, linear, stack);
    };
    if (bits === 64) {
      return f.choose(I64T, hit, () => f.load64(address(), offset), outside, "likely");
    }
    // What computes with 32 bits needs no extension of what was loaded.
    const low = f.choose(
      I32T,
      hit,
      () => f.load(bits, address(), offset),
      () => outside().wrap(),
      "likely",
    );
    return low.extendU().bounded(bits);
  }

  override store(bits: number, linear: I64, value: I64, stack = false): void {
    const { f } = this;
    const use = this.isStack(stack) ? WindowUse.STACK : WindowUse.WRITE;
    const { hit, address, offset, miss, lost } = this.#looked(bits, use, linear, stack);
    f.if(hit, () => f.storeLow(bits, address(), value, offset), () => {
      lost();
      if (this.remembers() && !stack) {
        this.#rememberedStore(bits, linear, value, miss);
        return;
      }
      miss();
      super.store(bits, linear, value, stack);
    }, "likely");
  }

  override lookUp(bits: number, linear: I64, write: boolean): TlbProbe {
    const { f } = this;
    const use = this.isStack(false) ? WindowUse.STACK : write ? WindowUse.WRITE : WindowUse.READ;
    const { hit, address, offset, miss, lost } = this.#looked(bits, use, linear, false);
    const pointer = f.choose(I32T, hit, () => address().add(offset), () => {
      lost();
      miss();
      const probed = super.lookUp(bits, linear, write);
      return f.choose(I32T, probed.hit, probed.address, () => 0);
    }, "likely");
    return { hit: pointer, address: () => pointer };
  }

  protected override pointerForWrite(bits: number, linear: I64): I32 {
    return this.lookUp(bits, linear, true).hit;
  }

  /**
   * What tells the page of an aligned access: never 0, and of an address that is not aligned no page's.
   */
  #pageKey(bits: number, linear: I64): I64 {
    return linear.or(0xfff & ~(bits / 8 - 1));
  }

  /** Looks `linear` up in the TLB, and remembers its page if it is there. */
  #remember(
    bits: number,
    linear: I64,
    write: boolean,
    page: Variable<I64>,
    delta: Variable<I32>,
  ): { readonly hit: I32; readonly address: () => I32 } {
    const { hit, address } = probe(this.f, linear, bits / 8, write);
    return {
      hit,
      address: () => {
        const at = address();
        page.set(this.#pageKey(bits, linear.and(~0xfff)));
        delta.set(at.sub(linear.wrap()));
        return at;
      },
    };
  }

  #rememberedLoad(bits: number, linear: I64, miss: () => void): I64 {
    const { f } = this;
    const page = f.zeroed(I64T);
    const delta = f.zeroed(I32T);
    const same = page.get().eq(this.#pageKey(bits, linear));
    return f.choose(I64T, same, () => f.loadZ(bits, linear.wrap().add(delta.get())), () => {
      miss();
      const { hit, address } = this.#remember(bits, linear, false, page, delta);
      return f.choose(
        I64T,
        hit,
        () => f.loadZ(bits, address()),
        () => super.load(bits, linear),
      );
    }, "likely");
  }

  #rememberedStore(bits: number, linear: I64, value: I64, miss: () => void): void {
    const { f } = this;
    const page = f.zeroed(I64T);
    const delta = f.zeroed(I32T);
    const same = page.get().eq(this.#pageKey(bits, linear));
    f.if(same, () => f.storeLow(bits, linear.wrap().add(delta.get()), value), () => {
      miss();
      const { hit, address } = this.#remember(bits, linear, true, page, delta);
      f.if(
        hit,
        () => f.storeLow(bits, address(), value),
        () => super.store(bits, linear, value),
      );
    }, "likely");
  }
}
