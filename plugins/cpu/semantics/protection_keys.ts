/**
 * RDPKRU and WRPKRU (APM vol. 3, ch. 3).
 *
 * @module
 */
import { Vector } from "../microcode/raise.ts";
import { Cr4 } from "../microcode/registers.ts";
import { S } from "../state/cpu_state.ts";
import { i64 } from "../wasm/mod.ts";
import { type Instruction, Reg, type Semantics } from "./instruction.ts";
import { ended } from "./privilege.ts";

/** #UD unless CR4.PKE is set, #GP unless ECX is 0. */
function check(i: Instruction): void {
  const { f } = i;
  i.faultIf(S.cr4.has(f, Cr4.PKE).eqz(), Vector.UD);
  i.faultIf(i.reg(Reg.RCX, 32).ne(0), Vector.GP, 0);
}

const rdpkru = ended((i) => {
  check(i);
  i.setReg(Reg.RAX, 32, S.pkru.get(i.f));
  i.setReg(Reg.RDX, 32, i64(0));
});

const wrpkru = ended((i) => {
  const { f } = i;
  check(i);
  i.faultIf(i.reg(Reg.RDX, 32).ne(0), Vector.GP, 0);
  const value = i.reg(Reg.RAX, 32);
  // The TLB holds what may be accessed, not the keys.
  f.if(S.pkru.get(f).ne(value), () => {
    S.pkru.set(f, value);
    f.call(i.mc.flushTlb);
  });
});

/** Instructions on protection keys by mnemonic. */
export const PROTECTION_KEYS: Readonly<Record<string, Semantics>> = {
  RDPKRU: rdpkru,
  WRPKRU: wrpkru,
};
