/**
 * Last-branch records: where the last branch, interrupt or exception came from and led to (APM vol. 2,
 * 13.1.6). While they are kept, instructions run one by one (`Event.BRANCHES`).
 *
 * A conditional branch whose target is the next instruction counts as not taken.
 *
 * @module
 */
import { BlockHeader, Transfer } from "../engine/block_layout.ts";
import { S } from "../state/cpu_state.ts";
import type { FunctionBuilder, I32, I64 } from "../wasm/mod.ts";
import type { Microcode } from "./microcode.ts";
import { EventFormat, Vector } from "./raise.ts";
import { DebugCtl } from "./registers.ts";

/** Gives the recording functions their bodies. */
export function defineLastBranch(mc: Microcode): void {
  const { module } = mc;

  module.body(mc.recordBranch, (f, block) => {
    const kind = f.load32(block, BlockHeader.TRANSFER);
    const from = f.load64(block, BlockHeader.RIP);
    const next = from.add(f.load16(block, BlockHeader.LENGTH).extendU());
    const to = S.rip.get(f);
    const taken = kind.eq(Transfer.ALWAYS).or(kind.eq(Transfer.IF_TAKEN).and(to.ne(next)));
    f.if(taken.and(S.debugCtl.has(f, DebugCtl.LBR)), () => record(f, from, to));
    f.return(taken);
  });

  // Not for #DB (ICEBP's as well) and #MC: they leave the records as they are, and #DB ends recording.
  module.body(mc.recordEvent, (f, event, from) => {
    const vector = event.and(0xff);
    const isException = event.and(EventFormat.TYPE).eq(EventFormat.EXCEPTION);
    const is = (n: number): I32 => isException.and(vector.eq(n));
    const kept = is(Vector.DB).or(is(Vector.MC));
    f.if(kept.eqz().and(S.debugCtl.has(f, DebugCtl.LBR)), () => {
      S.lastIntFrom.set(f, S.lastBranchFrom.get(f));
      S.lastIntTo.set(f, S.lastBranchTo.get(f));
      record(f, from, S.rip.get(f));
    });
    f.if(is(Vector.DB), () => {
      S.debugCtl.set(f, S.debugCtl.get(f).and(~(DebugCtl.LBR | DebugCtl.BTF)));
      f.call(mc.updateMode);
    });
  });
}

function record(f: FunctionBuilder, from: I64, to: I64): void {
  S.lastBranchFrom.set(f, from);
  S.lastBranchTo.set(f, to);
}
