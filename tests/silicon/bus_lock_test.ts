/**
 * The bus-lock threshold (APM vol. 2, 15.14.5 and 7.3.3).
 */
import { assertEquals } from "@std/assert";
import { Control, Cr0, InterceptWord, Misc3, Save } from "../../plugins/cpu/mod.ts";
import { hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

let devices = 0;
const outside = {
  ...refuseOutside(),
  deviceRead: () => {
    devices++;
    WITH.processor.exchange[0] = 0;
    WITH.processor.exchange[1] = 0;
  },
  deviceWrite: () => {
    devices++;
  },
};
const WITH = new SvmBench({ model: "zen5", outside });
const WITHOUT = new SvmBench({ model: "zen5", outside, features: { bus_lock_threshold: false } });

const NEXT = BigInt(SvmPlace.GUEST_CODE);
const DATA = SvmPlace.GUEST_DATA;
/** No memory. */
const DEVICE = 0x15_0000;

/** A guest with RBX at `address`. */
function prepare(bench: SvmBench, count: number, address: number, on = true): void {
  bench.guest();
  bench.fill(DATA, 0x1000, 0);
  bench.setControl32(InterceptWord.MISC3, on ? Misc3.BUS_LOCK : 0);
  bench.set16(bench.vmcb + Control.BUS_LOCK_COUNT, count);
  bench.state.setRegister(3, BigInt(address));
  bench.state.setRegister(1, 1n);
}

const count = (bench: SvmBench): number => bench.get16(bench.vmcb + Control.BUS_LOCK_COUNT);

/** Locked instructions on [rbx], their operand in bytes. */
const LOCKED: readonly (readonly [string, string, number])[] = [
  ["ADD", "f0 01 0b", 4],
  ["OR", "f0 09 0b", 4],
  ["ADC", "f0 11 0b", 4],
  ["SBB", "f0 19 0b", 4],
  ["AND", "f0 21 0b", 4],
  ["SUB", "f0 29 0b", 4],
  ["XOR", "f0 31 0b", 4],
  ["ADD imm", "f0 83 03 01", 4],
  ["ADD, 64 bits", "f0 48 01 0b", 8],
  ["ADD, 16 bits", "f0 66 01 0b", 2],
  ["INC", "f0 ff 03", 4],
  ["DEC", "f0 ff 0b", 4],
  ["NOT", "f0 f7 13", 4],
  ["NEG", "f0 f7 1b", 4],
  ["BTS", "f0 0f ab 0b", 4],
  ["BTR", "f0 0f b3 0b", 4],
  ["BTC imm", "f0 0f ba 3b 01", 4],
  ["XADD", "f0 0f c1 0b", 4],
  ["CMPXCHG", "f0 0f b1 0b", 4],
  ["CMPXCHG8B", "f0 0f c7 0b", 8],
  ["XCHG with LOCK", "f0 87 0b", 4],
  ["XCHG", "87 0b", 4],
  ["XCHG, 8 bytes", "48 87 0b", 8],
];

Deno.test("a locked access that spans two lines is counted, and the one too many exits", () => {
  for (const [name, code, bytes] of LOCKED) {
    for (const line of [0x40, 0x1000]) {
      const address = DATA + line - 1;
      prepare(WITH, 1, address);
      assertEquals(WITH.enter(`90 ${code} f4`), "78", name);
      assertEquals(count(WITH), 0, name);
      prepare(WITH, 0, address);
      const before = WITH.block;
      const memory = WITH.read(DATA, 0x1008);
      assertEquals(WITH.enter(`90 ${code} f4`), "a5", name);
      assertEquals(WITH.info, [0n, 0n], name);
      // It has not been executed.
      assertEquals(WITH.control64(Save.RIP), NEXT + 1n, name);
      assertEquals(WITH.control64(Control.NRIP), 0n, name);
      assertEquals(WITH.read(DATA, 0x1008), memory, name);
      assertEquals(WITH.control64(Save.RAX), 0n, name);
      assertEquals(WITH.state.register(1), 1n, name);
      const rip = Save.RIP + 8;
      assertEquals(WITH.block.subarray(rip), before.subarray(rip), name);
      assertEquals(count(WITH), 0, name);
    }
    // Within a line, up to its end, it is no bus lock.
    prepare(WITH, 0, DATA + 0x40 - bytes);
    assertEquals(WITH.enter(`${code} f4`), "78", name);
  }
});

Deno.test("every place in and across a line", () => {
  for (let at = 0; at < 0x80; at++) {
    prepare(WITH, 5, DATA + at);
    assertEquals(WITH.enter("f0 48 01 0b f4"), "78");
    const split = (at & 63) > 56;
    assertEquals(count(WITH), split ? 4 : 5, `at ${at}`);
    assertEquals(WITH.read(DATA + at, 1)[0], 1);
  }
});

Deno.test("the same access without a lock is none", () => {
  for (const code of ["01 0b", "ff 03", "0f ab 0b", "0f c1 0b", "89 0b", "8b 0b", "d1 03"]) {
    prepare(WITH, 0, DATA + 0x3f);
    assertEquals(WITH.enter(`${code} f4`), "78", code);
  }
});

Deno.test("a bit's own address counts", () => {
  // bts [rbx], rcx with a bit of the eight bytes 56 bytes on.
  for (const [offset, exit] of [[0, "78"], [2, "a5"]] as const) {
    prepare(WITH, 0, DATA + offset);
    WITH.state.setRegister(1, 0x1f0n);
    assertEquals(WITH.enter("f0 48 0f ab 0b f4"), exit);
  }
});

Deno.test("the count runs down, one for each bus lock", () => {
  const five = Array.from({ length: 5 }, () => "f0 01 0b").join(" ");
  for (const start of [0, 1, 3, 4, 5, 0xffff]) {
    prepare(WITH, start, DATA + 0x3e);
    const exit = WITH.enter(`${five} f4`);
    const done = Math.min(start, 5);
    assertEquals(exit, start >= 5 ? "78" : "a5", `${start}`);
    assertEquals(count(WITH), start - done);
    assertEquals(WITH.get32(DATA + 0x3e), done);
    if (exit === "a5") assertEquals(WITH.control64(Save.RIP), NEXT + BigInt(3 * done));
  }
});

Deno.test("with more to spend the instruction goes on where it stopped", () => {
  prepare(WITH, 0, DATA + 0x3e);
  assertEquals(WITH.enter("f0 01 0b f4"), "a5");
  WITH.set16(WITH.vmcb + Control.BUS_LOCK_COUNT, 1);
  assertEquals(WITH.resume(), "78");
  assertEquals(count(WITH), 0);
  assertEquals(WITH.get32(DATA + 0x3e), 1);
});

Deno.test("a locked access to a device is a bus lock, aligned or not", () => {
  for (const start of [0, 1]) {
    prepare(WITH, start, DEVICE);
    WITH.nested();
    WITH.set64(WITH.pageEntry(SvmPlace.NPT, DEVICE), 0xf_f000_0000n | 0x67n);
    devices = 0;
    assertEquals(WITH.enter("90 f0 01 0b 90 f4"), start === 0 ? "a5" : "78");
    assertEquals(devices, start === 0 ? 0 : 2);
    assertEquals(count(WITH), 0);
  }
});

Deno.test("without the intercept or the feature nothing is counted", () => {
  for (const [bench, on] of [[WITH, false], [WITHOUT, true], [WITHOUT, false]] as const) {
    prepare(bench, 0, DATA + 0x3f, on);
    assertEquals(bench.enter("f0 01 0b f4"), "78");
    assertEquals(count(bench), 0);
    prepare(bench, 7, DATA + 0x3f, on);
    assertEquals(bench.enter("f0 01 0b f4"), "78");
    assertEquals(count(bench), 7);
  }
  // And nothing in the host.
  WITH.host();
  WITH.state.setRegister(3, BigInt(DATA + 0x3f));
  assertEquals(WITH.execute(hex("f0 01 0b")).events, []);
});

Deno.test("an access that faults is not counted", () => {
  const absent = 0x15_0000;
  for (const before of [4, 2]) {
    prepare(WITH, 0, absent - before);
    WITH.setControl32(InterceptWord.EXCEPTIONS, 1 << 14);
    WITH.set64(WITH.pageEntry(SvmPlace.GUEST_TABLES, absent), 0n);
    const exit = WITH.enter("f0 48 01 0b f4");
    assertEquals(exit, "4e");
    assertEquals(WITH.info[1], BigInt(absent));
  }
  WITH.guest("long", 3);
  WITH.setControl32(InterceptWord.MISC3, Misc3.BUS_LOCK);
  WITH.set16(WITH.vmcb + Control.BUS_LOCK_COUNT, 0);
  WITH.setControl32(InterceptWord.EXCEPTIONS, 1 << 17);
  WITH.orControl64(Save.CR0, Cr0.AM);
  WITH.orControl64(Save.RFLAGS, 0x4_0000);
  WITH.state.setRegister(3, BigInt(DATA + 0x3f));
  assertEquals(WITH.enter("f0 01 0b"), "51");
});
