/**
 * Instructions on caches (APM vol. 3, ch. 3 and 4). Nothing is cached, so there is nothing to write back;
 * what they check, they check.
 *
 * @module
 */
import { SvmExit } from "../svm/exit_codes.ts";
import { InterceptWord, Misc1, Misc2 } from "../svm/intercepts.ts";
import { i64 } from "../wasm/mod.ts";
import { Reg, type Semantics } from "./instruction.ts";
import { intercept } from "./intercept.ts";
import { ended, privileged } from "./privilege.ts";

/** Bytes of a cache line. */
export const LINE_BYTES = 64;

const wholeCache = (word: number, mask: number, code: number): Semantics =>
  ended((i) => {
    privileged(i);
    intercept(i, word, mask, code);
  });

/** CLFLUSH, CLFLUSHOPT and CLWB: the address must be readable. */
const flushLine: Semantics = {
  emit: (i) => {
    i.load(8, i.address(1, 0));
  },
};

/** CLZERO: writes zeros to the line that rAX points into. */
const clzero = ended((i) => {
  const { f, mc } = i;
  const start = i.reg(Reg.RAX, i.addressBits).and(-LINE_BYTES);
  i.spill();
  const linear = f.call(mc.segmentAddress, i.segment(), start, LINE_BYTES, 1);
  f.call(mc.probeStore, linear, LINE_BYTES);
  for (let at = 0; at < LINE_BYTES; at += 8) f.call(mc.store64, linear.add(at), i64(0));
}, { addressSize: true });

/** Instructions on caches by mnemonic. WBNOINVD has the intercept of WBINVD (APM vol. 2, 15.9). */
export const CACHES: Readonly<Record<string, Semantics>> = {
  INVD: wholeCache(InterceptWord.MISC1, Misc1.INVD, SvmExit.INVD),
  WBINVD: wholeCache(InterceptWord.MISC2, Misc2.WBINVD, SvmExit.WBINVD),
  WBNOINVD: wholeCache(InterceptWord.MISC2, Misc2.WBINVD, SvmExit.WBINVD),
  CLFLUSH: flushLine,
  CLFLUSHOPT: flushLine,
  CLWB: flushLine,
  CLZERO: clzero,
};
