/**
 * x87 control instructions (SDM vol. 1, 8.1; vol. 2A; APM vol. 5): the words they read and write, and the
 * exceptions that come before.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { Cr0, S, Vector } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

const bench = new Bench();
const { DATA } = Place;

/** Runs `code` in 64-bit mode with RBX at the data; the first exception, if there is one. */
function run(code: string, prepare: () => void = () => {}): number | undefined {
  bench.long();
  bench.state.setRegister(3, BigInt(DATA));
  bench.set64(DATA, -1n & 0xffff_ffff_ffff_ffffn);
  bench.state.set32(S.fpuControl, 0x37f);
  bench.state.set32(S.fpuTag, 0xffff);
  prepare();
  return bench.execute(hex(`${code} f4`), 10).events[0]?.vector;
}

const words = (): [number, number, number] => [
  bench.state.get32(S.fpuControl),
  bench.state.get32(S.fpuStatus),
  bench.state.get32(S.fpuTag),
];

const WAITING = ["d9 d0", "d9 2b", "d9 e8", "d8 c1", "d9 03", "d9 1b", "dd 23", "d9 23"];
const NO_WAIT = [
  ..."db e3,db e2,d9 3b,dd 3b,df e0,db e0,db e1,db e4".split(","),
  ..."d9 33,dd 33".split(","),
];

Deno.test("FNINIT: all masked, 64-bit precision, all empty", () => {
  assertEquals(run("db e3"), undefined);
  assertEquals(words(), [0x37f, 0, 0xffff]);
});

Deno.test("FLDCW and FNSTCW: the bits that exist, and bit 6 is 1", () => {
  for (let bit = 0; bit < 16; bit++) {
    const set = 1 << bit;
    run("d9 2b d9 7b 02", () => bench.set16(DATA, set));
    assertEquals(bench.get16(DATA + 2), (set & 0x1f3f) | 0x40, `bit ${bit}`);
    assertEquals(bench.get16(DATA + 4), 0xffff);
  }
});

Deno.test("FNSTSW to memory and to AX, which leaves the rest of RAX", () => {
  const status = (): void => {
    bench.state.set32(S.fpuControl, 0x37f);
    bench.state.set32(S.fpuStatus, 0x3821);
    bench.state.setRegister(0, 0x1122_3344_5566_7788n);
  };
  run("dd 3b df e0", status);
  assertEquals([bench.get16(DATA), bench.get16(DATA + 2)], [0x3821, 0xffff]);
  assertEquals(bench.state.register(0), 0x1122_3344_5566_3821n);
});

Deno.test("FNCLEX clears flags, summary and busy, not the top and the condition codes", () => {
  run("db e2", () => bench.state.set32(S.fpuStatus, 0xffff));
  assertEquals(bench.state.get32(S.fpuStatus), 0x7f00);
});

Deno.test("#NM with CR0.EM or CR0.TS, for each of them", () => {
  for (const code of [...WAITING, ...NO_WAIT]) {
    for (const [bit, fits] of [[Cr0.EM, false], [Cr0.TS, false], [Cr0.MP, true]] as const) {
      const vector = run(code, () => {
        bench.state.set(S.cr0, bench.state.get(S.cr0) | BigInt(bit));
      });
      assertEquals(vector, fits ? undefined : Vector.NM, `${code} CR0 bit ${bit.toString(16)}h`);
    }
  }
});

Deno.test("a pending exception: #MF for those that wait, nothing for the others", () => {
  const pending = (): void => {
    bench.state.set32(S.fpuControl, 0x37e);
    bench.state.set32(S.fpuStatus, 0x8081);
  };
  for (const code of WAITING) assertEquals(run(code, pending), Vector.MF, code);
  for (const code of NO_WAIT) assertEquals(run(code, pending), undefined, code);
});

Deno.test("to take the mask off a flag that is set makes the exception pending", () => {
  const flagged = (): void => {
    bench.state.set32(S.fpuControl, 0x37f);
    bench.state.set32(S.fpuStatus, 0x0004);
    bench.set16(DATA, 0x37b);
  };
  assertEquals(run("d9 2b", flagged), undefined);
  assertEquals(bench.state.get32(S.fpuStatus), 0x8084);
  assertEquals(run("d9 2b d9 d0", flagged), Vector.MF);
});

Deno.test("FWAIT: #NM only with both MP and TS, #MF for what is pending", () => {
  const bits = (cr0: number, status = 0): number | undefined =>
    run("9b", () => {
      bench.state.set(S.cr0, bench.state.get(S.cr0) | BigInt(cr0));
      bench.state.set32(S.fpuStatus, status);
    });
  assertEquals(bits(Cr0.MP), undefined);
  assertEquals(bits(Cr0.TS), undefined);
  assertEquals(bits(Cr0.EM), undefined);
  assertEquals(bits(Cr0.MP | Cr0.TS), Vector.NM);
  assertEquals(bits(0, 0x8081), Vector.MF);
  assertEquals(bits(Cr0.MP | Cr0.TS, 0x8081), Vector.NM);
});

Deno.test("with CR0.NE clear a pending exception stops the machine, which has no FERR# pin", () => {
  const clear = (): void => {
    bench.state.set(S.cr0, bench.state.get(S.cr0) & ~BigInt(Cr0.NE));
    bench.state.set32(S.fpuControl, 0x37e);
    bench.state.set32(S.fpuStatus, 0x8081);
  };
  for (const code of ["9b", ...WAITING]) assertThrows(() => run(code, clear), Error, "FERR#");
  for (const code of NO_WAIT) assertEquals(run(code, clear), undefined, code);
});

Deno.test("FISTTP came with SSE3", () => {
  for (const code of ["db 0b", "dd 0b", "df 0b"]) {
    assertEquals(run(code), undefined, code);
    const older = new Bench({ features: { pni: false } });
    older.long();
    older.state.setRegister(3, BigInt(DATA));
    assertEquals(older.judge(hex(code)), "#6", code);
  }
});

Deno.test("undefined encodings of the x87 escapes are #UD", () => {
  const undefinedOnes = [
    ..."d9 d1,d9 e2,d9 e6,d9 ef,d9 0b,da e0,da e8,da f0,da f8,db e5,db f8,db 23,db 33".split(","),
    ..."dd 2b,dd f0,dd f8,de d8,de da,df e1,df f8".split(","),
  ];
  for (const code of undefinedOnes) assertEquals(run(code), Vector.UD, code);
});
