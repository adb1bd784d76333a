/**
 * How one piece of code goes on with another without the dispatcher: along links and the jump cache.
 *
 * Interpreter handlers and compiled regions leave in the same way, and whatever the first micro-op of the
 * block they come to names as its handler, one or the other, goes on.
 *
 * @module
 */
import type { Microcode } from "../microcode/microcode.ts";
import { type FlagState, settleFlags } from "../semantics/flags.ts";
import { jumpSlot } from "../memory/slots.ts";
import { S } from "../state/cpu_state.ts";
import {
  type FunctionBuilder,
  type I32,
  I32T,
  type I64,
  I64T,
  type TypeToken,
} from "../wasm/mod.ts";
import { BlockHeader, MicroOp, NEVER_LINK, UNLINKED } from "./block_layout.ts";
import { noteEdge } from "./jump_edges.ts";

/** Parameters of a handler: micro-op, budget, flag kind and operands. */
export const HANDLER_PARAMS: readonly [
  TypeToken<I32>,
  TypeToken<I32>,
  TypeToken<I32>,
  TypeToken<I64>,
  TypeToken<I64>,
] = [I32T, I32T, I32T, I64T, I64T];

/** Signature of a handler. */
export const HANDLER: { readonly params: typeof HANDLER_PARAMS; readonly result: undefined } = {
  params: HANDLER_PARAMS,
  result: undefined,
};

/** What goes from one handler to the next. */
export interface Flow {
  /** Microcode that can be called. */
  readonly mc: Microcode;
  /** The function the code goes to. */
  readonly f: FunctionBuilder;
  /** Budget that is left, the block at hand charged. */
  readonly budget: I32;
  /** The lazy flags. */
  readonly flags: FlagState;
}

/** Goes on with `block` if the budget allows all of it. */
export function chain({ f, budget, flags }: Flow, block: I32): void {
  const left = budget.sub(f.load16(block, BlockHeader.COUNT));
  f.if(
    left.geS(0),
    () => {
      const first = block.add(BlockHeader.BYTES);
      const { kind, a, b } = settleFlags(flags);
      f.returnCallIndirect(HANDLER, f.load16(first, MicroOp.HANDLER), [first, left, kind, a, b]);
    },
    undefined,
    "likely",
  );
}

/** Goes on along link `field` of micro-op `uop`, which leads to `target`, if there is a way. */
export function followLink(flow: Flow, uop: I32, field: number, target: () => I64): void {
  const { f, mc } = flow;
  const link = f.load32(uop, field);
  f.if(link.gtU(NEVER_LINK), () => chain(flow, link), undefined, "likely");
  f.if(link.eq(UNLINKED), () => S.link.set(f, uop.add(field)), () => {
    const block = f.call(mc.findJump, target());
    f.if(block.ne(0), () => chain(flow, block));
  });
}

/** Goes on at `target`, if the jump cache knows it; notes that `from` has led there, if given. */
export function followJump(flow: Flow, target: I64, from?: I32): void {
  const { f, mc } = flow;
  const block = f.call(mc.findJump, target);
  f.if(
    block.ne(0),
    () => {
      if (from !== undefined) noteEdge(f, from, block);
      chain(flow, block);
    },
    undefined,
    "likely",
  );
}

/** The jump cache's entry for `rip`: 1 if it leads to a block of the present mode, and that block. */
export function jumpEntry(
  f: FunctionBuilder,
  rip: I64,
): { readonly hit: I32; readonly block: () => I32 } {
  const entry = S.jumpCache.get(f).add(jumpSlot(rip.wrap()));
  const hit = f.load64(entry).eq(rip).and(f.load32(entry, 12).eq(S.mode.get(f)));
  return { hit, block: () => f.load32(entry, 8) };
}

/** As {@linkcode followJump}, without a call. */
export function followJumpInline(flow: Flow, target: I64, from?: I32): void {
  const { f } = flow;
  const { hit, block } = jumpEntry(f, target);
  f.if(
    hit,
    () => {
      const to = block();
      if (from !== undefined) noteEdge(f, from, to);
      chain(flow, to);
    },
    undefined,
    "likely",
  );
}
