/**
 * Intercepts of the newer system instructions (APM vol. 2, tables 15-7 and 15-9): exit codes, EXITINFO1
 * and 2, and the order of the intercept and the instruction's own exceptions.
 */
import { assertEquals } from "@std/assert";
import { InterceptWord, Misc1, Misc2, Misc3, Save } from "../../plugins/cpu/mod.ts";
import { hex } from "./code.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench({ model: "max", features: { monitor: true } });
const { MISC2, MISC3 } = InterceptWord;

/** A page that the guest's tables do not map. */
const ABSENT = 0x7_0000_0000n;

interface Row {
  readonly name: string;
  readonly code: string;
  /** Intercept word and bit. */
  readonly intercept: readonly [number, number];
  /** The exit with the intercept, and without. */
  readonly exits: readonly [string, string];
  readonly cpl?: 0 | 3;
  readonly rax?: bigint;
  readonly rcx?: bigint;
  readonly rbx?: bigint;
  readonly info?: readonly [bigint, bigint];
}

const UD2 = "46";
const GP = "4d";
const UD = "46";
const PF = "4e";
const DATA = BigInt(SvmPlace.GUEST_DATA);

const ROWS: readonly Row[] = [
  {
    name: "MONITOR",
    code: "0f 01 c8",
    intercept: [MISC2, Misc2.MONITOR],
    exits: ["8a", UD2],
    rax: DATA,
  },
  {
    name: "MONITOR with ECX",
    code: "0f 01 c8",
    intercept: [MISC2, Misc2.MONITOR],
    exits: [GP, GP],
    rcx: 1n,
  },
  {
    name: "MONITOR of nothing",
    code: "0f 01 c8",
    intercept: [MISC2, Misc2.MONITOR],
    exits: [PF, PF],
    rax: ABSENT,
  },
  {
    name: "MONITORX",
    code: "0f 01 fa",
    intercept: [MISC2, Misc2.MONITOR],
    exits: ["8a", UD2],
    rax: DATA,
  },
  { name: "MWAIT", code: "0f 01 c9", intercept: [MISC2, Misc2.MWAIT], exits: ["8b", UD2] },
  {
    name: "MWAIT with ECX",
    code: "0f 01 c9",
    intercept: [MISC2, Misc2.MWAIT],
    exits: [GP, GP],
    rcx: 4n,
  },
  { name: "MWAITX", code: "0f 01 fb", intercept: [MISC2, Misc2.MWAIT], exits: ["8b", UD2] },
  {
    name: "MWAIT, not armed",
    code: "0f 01 c9",
    intercept: [MISC2, Misc2.MWAIT_CONDITIONAL],
    exits: [UD2, UD2],
  },
  {
    name: "MWAIT, armed",
    code: "0f 01 c8 0f 01 c9",
    intercept: [MISC2, Misc2.MWAIT_CONDITIONAL],
    // Not intercepted, it waits.
    exits: ["8c", "halted"],
    rax: DATA,
  },
  { name: "RDPRU", code: "0f 01 fd", intercept: [MISC2, Misc2.RDPRU], exits: ["8e", UD2] },
  { name: "WBNOINVD", code: "f3 0f 09", intercept: [MISC2, Misc2.WBINVD], exits: ["89", UD2] },
  {
    name: "WBNOINVD of a user",
    code: "f3 0f 09",
    intercept: [MISC2, Misc2.WBINVD],
    exits: [GP, GP],
    cpl: 3,
  },
  {
    name: "INVPCID",
    code: "66 0f 38 82 43 10",
    intercept: [MISC3, Misc3.INVPCID],
    exits: ["a2", UD2],
    rbx: DATA,
    rax: 2n,
    info: [DATA + 0x10n, 2n],
  },
  {
    name: "INVPCID of a type that is none: the intercept is first",
    code: "66 0f 38 82 03",
    intercept: [MISC3, Misc3.INVPCID],
    exits: ["a2", GP],
    rbx: DATA,
    rax: 7n,
    info: [DATA, 7n],
  },
  {
    name: "INVPCID with its operand nowhere: likewise",
    code: "66 0f 38 82 03",
    intercept: [MISC3, Misc3.INVPCID],
    exits: ["a2", PF],
    rbx: ABSENT,
    rax: 2n,
    info: [ABSENT, 2n],
  },
  {
    name: "INVPCID of a user",
    code: "66 0f 38 82 03",
    intercept: [MISC3, Misc3.INVPCID],
    exits: [GP, GP],
    cpl: 3,
  },
  {
    name: "INVPCID of a register",
    code: "66 0f 38 82 c3",
    intercept: [MISC3, Misc3.INVPCID],
    exits: [UD, UD],
  },
];

for (
  const { name, code, intercept: [word, mask], exits, cpl = 0, rax = 0n, rcx = 0n, rbx = 0n, info }
    of ROWS
) {
  Deno.test(name, () => {
    for (const on of [true, false]) {
      bench.guest("long", cpl);
      bench.setControl32(InterceptWord.EXCEPTIONS, 0xffff_ffff);
      bench.setControl32(InterceptWord.MISC1, Misc1.SHUTDOWN);
      bench.set64(SvmPlace.GUEST_DATA, 0n);
      bench.set64(SvmPlace.GUEST_DATA + 8, 0n);
      bench.set64(SvmPlace.GUEST_DATA + 16, 0n);
      bench.set64(SvmPlace.GUEST_DATA + 24, 0n);
      bench.setControl64(Save.RAX, rax);
      bench.state.setRegister(1, rcx);
      bench.state.setRegister(3, rbx);
      if (on) bench.orControl32(word, mask);
      assertEquals(bench.enter(`${code} 0f 0b`, 8), exits[on ? 0 : 1], on ? "on" : "off");
      if (on && info !== undefined) {
        assertEquals(bench.info, info);
        assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE));
      }
      if (!on && exits[1] === UD2 && exits[0] !== UD) {
        const length = BigInt(hex(code).length);
        assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE) + length);
      }
    }
  });
}
