/**
 * The I/O and MSR permission maps (APM vol. 2, 15.10–15.11).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  InterceptWord,
  IoioInfo,
  Misc1,
  Msr,
  S,
  Save,
  SaveSegment,
  Seg,
} from "../../plugins/cpu/mod.ts";
import { code, dword, hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";
import { type GuestMode, SvmBench, SvmPlace } from "./svm_bench.ts";

const ports: string[] = [];
const bench = new SvmBench({
  outside: {
    ...refuseOutside(),
    portRead: (port, bytes) => {
      ports.push(`in${bytes} ${port.toString(16)}`);
      return 0;
    },
    portWrite: (port, bytes) => {
      ports.push(`out${bytes} ${port.toString(16)}`);
    },
  },
});

const NEXT = BigInt(SvmPlace.GUEST_CODE);
const IOPM_BYTES = 0x3000;
const MSRPM_BYTES = 0x2000;

function portGuest(mode: GuestMode = "long", cpl = 0): void {
  bench.guest(mode, cpl);
  bench.orControl32(InterceptWord.MISC1, Misc1.IOIO);
  bench.fill(SvmPlace.IOPM, IOPM_BYTES, 0);
  ports.length = 0;
}

/** Sets the bits of `count` ports. */
function guardPorts(port: number, count = 1): void {
  for (let k = port; k < port + count; k++) {
    const at = SvmPlace.IOPM + (k >> 3);
    bench.write(at, [bench.read(at, 1)[0]! | (1 << (k & 7))]);
  }
}

/** IN and OUT by size of the access, with DX. */
const IN: Readonly<Record<number, string>> = { 1: "ec", 2: "66 ed", 4: "ed" };
const OUT: Readonly<Record<number, string>> = { 1: "ee", 2: "66 ef", 4: "ef" };

const setPort = (port: number): void => bench.state.setRegister(2, BigInt(port));

const SIZE: Readonly<Record<number, number>> = { 1: 0x10, 2: 0x20, 4: 0x40 };

Deno.test("any guarded byte of an access exits, and no other bit", () => {
  for (const port of [0, 1, 6, 7, 8, 0x3f8, 0x7fff, 0x8000, 0xfffc, 0xfffd, 0xfffe, 0xffff]) {
    for (const bytes of [1, 2, 4]) {
      for (let bit = port - 2; bit <= port + bytes + 1; bit++) {
        if (bit < 0) continue;
        for (const [table, type] of [[IN, 1], [OUT, 0]] as const) {
          portGuest();
          guardPorts(bit);
          setPort(port);
          const exit = bench.enter(`${table[bytes]} f4`);
          const inside = bit >= port && bit < port + bytes;
          const name = `port ${port.toString(16)}, ${bytes} bytes, bit ${bit.toString(16)}`;
          assertEquals(exit, inside ? "7b" : "78", name);
          assertEquals(ports.length, inside ? 0 : 1, name);
          if (!inside) continue;
          const next = NEXT + BigInt(hex(table[bytes]!).length);
          const info = BigInt(port * 0x1_0000 + SIZE[bytes]! + type);
          assertEquals(bench.info[0] & ~0x380n, info, name);
          assertEquals(bench.info[1], next, name);
          assertEquals(bench.control64(Control.NRIP), next, name);
          assertEquals(bench.control64(Save.RIP), NEXT, name);
        }
      }
    }
  }
});

Deno.test("the three bits behind port FFFFh are in the map's third page", () => {
  for (let bit = 0; bit < 3; bit++) {
    for (const [bytes, reach] of [[2, 1], [4, 3]] as const) {
      portGuest();
      bench.write(SvmPlace.IOPM + 0x2000, [1 << bit]);
      setPort(0xffff);
      assertEquals(bench.enter(`${OUT[bytes]} f4`), bit < reach ? "7b" : "78", `${bytes} ${bit}`);
    }
  }
});

Deno.test("pages of the maps need not stand together in the processor's own memory", () => {
  // Beyond the bench's memory, page by page, in another order.
  const iopm = 0x100_0000;
  const pages = [0x30_5000, 0x30_2000, 0x30_0000];
  for (const [k, page] of pages.entries()) {
    bench.processors.mapAlias(1, iopm + 0x1000 * k, 0x1000, bench.base + page);
  }
  for (const [port, page] of [[0x7fff, 0x30_2000], [0xffff, 0x30_0000]] as const) {
    portGuest();
    bench.setControl64(Control.IOPM_BASE_PA, iopm);
    for (const at of pages) bench.fill(at, 0x1000, 0);
    bench.fill(0x30_6000, 0x1000, 0);
    bench.write(page, [1]);
    setPort(port);
    assertEquals(bench.enter(`${IN[2]} f4`), "7b", port.toString(16));
    // The byte that follows in the processor's own memory is none of the map's.
    portGuest();
    bench.setControl64(Control.IOPM_BASE_PA, iopm);
    bench.write(page, [0]);
    bench.write(0x30_6000, [1]);
    bench.write(0x30_3000, [1]);
    setPort(port);
    assertEquals(bench.enter(`${IN[2]} f4`), "78", port.toString(16));
  }
});

Deno.test("without the IOIO intercept the map means nothing", () => {
  portGuest();
  bench.setControl32(InterceptWord.MISC1, Misc1.HLT);
  bench.fill(SvmPlace.IOPM, IOPM_BYTES, 0xff);
  setPort(0x80);
  assertEquals(bench.enter("ec ee f4"), "78");
  assertEquals(ports, ["in1 80", "out1 80"]);
});

Deno.test("IN and OUT with an immediate port", () => {
  for (const [text, type] of [["e4 71", 1], ["e6 71", 0]] as const) {
    portGuest();
    guardPorts(0x71);
    assertEquals(bench.enter(text), "7b");
    assertEquals(bench.info[0] & ~0x380n, BigInt(0x71_0010 + type));
    assertEquals(bench.info[1], NEXT + 2n);
  }
});

Deno.test("INS and OUTS: string, repetition, address size and segment are told", () => {
  const { ADDRESS_16, ADDRESS_32, ADDRESS_64, STRING, REP, SEGMENT_SHIFT } = IoioInfo;
  interface Case {
    readonly text: string;
    readonly mode: GuestMode;
    readonly bytes: number;
    readonly size: number;
    readonly in?: boolean;
    readonly rep?: boolean;
    readonly segment: number;
  }
  const cases: readonly Case[] = [
    { text: "6c", mode: "long", bytes: 1, size: ADDRESS_64, in: true, segment: Seg.ES },
    { text: "66 6d", mode: "long", bytes: 2, size: ADDRESS_64, in: true, segment: Seg.ES },
    { text: "f3 6d", mode: "long", bytes: 4, size: ADDRESS_64, in: true, rep: true, segment: 0 },
    { text: "67 6d", mode: "long", bytes: 4, size: ADDRESS_32, in: true, segment: Seg.ES },
    { text: "6e", mode: "long", bytes: 1, size: ADDRESS_64, segment: Seg.DS },
    { text: "64 6f", mode: "long", bytes: 4, size: ADDRESS_64, segment: Seg.FS },
    { text: "f3 65 6e", mode: "long", bytes: 1, size: ADDRESS_64, rep: true, segment: Seg.GS },
    { text: "6f", mode: "protected", bytes: 4, size: ADDRESS_32, segment: Seg.DS },
    { text: "26 6f", mode: "protected", bytes: 4, size: ADDRESS_32, segment: Seg.ES },
    { text: "36 67 6e", mode: "protected", bytes: 1, size: ADDRESS_16, segment: Seg.SS },
    { text: "65 6d", mode: "protected", bytes: 4, size: ADDRESS_32, in: true, segment: Seg.ES },
    { text: "6e", mode: "real", bytes: 1, size: ADDRESS_16, segment: Seg.DS },
    { text: "2e 6e", mode: "real", bytes: 1, size: ADDRESS_16, segment: Seg.CS },
  ];
  for (const { text, mode, bytes, size, segment, ...rest } of cases) {
    portGuest(mode);
    guardPorts(0x3f8, 4);
    setPort(0x3f8);
    bench.state.setRegister(1, 3n);
    const data = mode === "real" ? 0 : SvmPlace.GUEST_DATA;
    bench.state.setRegister(6, BigInt(data));
    bench.state.setRegister(7, BigInt(data));
    const before = bench.block;
    assertEquals(bench.enter(text), "7b", text);
    const flags = STRING | size | SIZE[bytes]! | (rest.in === true ? IoioInfo.IN : 0) |
      (rest.rep === true ? REP : 0) | (segment << SEGMENT_SHIFT);
    assertEquals(bench.info[0], BigInt(0x3f8_0000 + flags), `${text} in ${mode} mode`);
    const rip = bench.control64(Save.RIP);
    assertEquals(bench.info[1], rip + BigInt(hex(text).length), text);
    assertEquals(bench.block.subarray(0x400), before.subarray(0x400), text);
    assertEquals(bench.state.register(1), 3n, text);
    assertEquals(ports, [], text);
  }
});

Deno.test("a REP that has begun exits with what is left", () => {
  portGuest();
  setPort(0x80);
  bench.state.setRegister(1, 5n);
  bench.state.setRegister(6, BigInt(SvmPlace.GUEST_DATA));
  let count = 0;
  bench.outside.portWrite = () => {
    if (++count === 2) guardPorts(0x80);
  };
  assertEquals(bench.enter("f3 6e f4"), "7b");
  assertEquals(bench.state.register(1), 3n);
  assertEquals(bench.state.register(6), BigInt(SvmPlace.GUEST_DATA + 2));
  assertEquals(bench.control64(Save.RIP), NEXT);
  bench.outside.portWrite = (port, bytes) => {
    ports.push(`out${bytes} ${port.toString(16)}`);
  };
});

Deno.test("IOPL and the task's bitmap are looked at before the map", () => {
  for (const open of [false, true]) {
    portGuest("long", 3);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
    guardPorts(0x80);
    setPort(0x80);
    // A bitmap right behind the task state.
    bench.fill(0x3000, 0x200, 0);
    bench.set16(0x3066, 0x68);
    bench.fill(0x3068, 0x20, open ? 0 : 0xff);
    bench.state.setSegment(Seg.TR, {
      selector: 0xf8,
      attributes: 0x8b,
      limit: 0x100,
      base: 0x3000n,
    });
    assertEquals(bench.enter("ec"), open ? "7b" : "4d");
  }
  portGuest("v86");
  bench.set16(0x3066, 0x68);
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
  guardPorts(0x80);
  setPort(0x80);
  bench.state.setSegment(Seg.TR, { selector: 0xf8, attributes: 0x8b, limit: 0x67, base: 0x3000n });
  assertEquals(bench.enter("ec"), "4d");
});

Deno.test("a page fault of OUTS or INS comes behind the intercept", () => {
  const absent = 0x15_0000;
  for (const text of ["6e", "6c"]) {
    for (const guarded of [true, false]) {
      portGuest();
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 14);
      bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, absent), 0n);
      if (guarded) guardPorts(0x80);
      setPort(0x80);
      bench.state.setRegister(6, BigInt(absent));
      bench.state.setRegister(7, BigInt(absent));
      assertEquals(bench.enter(text), guarded ? "7b" : "4e", `${text} ${guarded}`);
    }
  }
});

// MSRs.

function msrGuest(cpl = 0): void {
  bench.guest("long", cpl);
  bench.orControl32(InterceptWord.MISC1, Misc1.MSR);
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
  bench.fill(SvmPlace.MSRPM, MSRPM_BYTES, 0);
}

/** RDMSR or WRMSR of `index` with EDX:EAX of 0. */
const access = (index: number, write: boolean): number[] =>
  code("b9", dword(index), "31 c0 31 d2 0f", write ? "30" : "32", "f4");

/** Bit of the map for `index`; undefined if it has none. */
function mapBit(index: number, write: boolean): number | undefined {
  const range = [0, 0xc000_0000, 0xc001_0000].indexOf((index & ~0x1fff) >>> 0);
  return range < 0 ? undefined : range * 0x4000 + (index & 0x1fff) * 2 + Number(write);
}

const MSRS: readonly number[] = [
  0,
  1,
  0x10,
  0x1b,
  0x174,
  0x277,
  0x808,
  0x830,
  0x1fff,
  0xc000_0000,
  0xc000_0080,
  0xc000_0081,
  0xc000_0102,
  0xc000_1fff,
  0xc001_0000,
  0xc001_0114,
  0xc001_1fff,
];

Deno.test("each MSR has two bits in the map, for reading and writing", () => {
  for (const index of MSRS) {
    for (const write of [false, true]) {
      const bit = mapBit(index, write)!;
      // The bit alone exits; all others do not.
      for (const alone of [true, false]) {
        msrGuest();
        bench.fill(SvmPlace.MSRPM, MSRPM_BYTES, alone ? 0 : 0xff);
        const at = SvmPlace.MSRPM + (bit >> 3);
        bench.write(at, [bench.read(at, 1)[0]! ^ (1 << (bit & 7))]);
        const exit = bench.enter(access(index, write));
        const name = `${write ? "WRMSR" : "RDMSR"} ${index.toString(16)} ${alone}`;
        if (!alone) {
          assertEquals(["78", "4d"].includes(exit), true, `${name}: ${exit}`);
          continue;
        }
        assertEquals(exit, "7c", name);
        assertEquals(bench.info, [BigInt(write), 0n], name);
        assertEquals(bench.control64(Save.RIP), NEXT + 9n, name);
        assertEquals(bench.control64(Control.NRIP), NEXT + 11n, name);
      }
    }
  }
});

Deno.test("the fact sheet's bytes and bits", () => {
  for (
    const [index, write, byte, bit] of [
      [0x830, false, 0x20c, 0],
      [0x830, true, 0x20c, 1],
      [0x808, false, 0x202, 0],
      [0x80b, true, 0x202, 7],
      [0x83f, false, 0x20f, 6],
      [0x832, true, 0x20c, 5],
    ] as const
  ) {
    msrGuest();
    bench.write(SvmPlace.MSRPM + byte, [1 << bit]);
    assertEquals(bench.enter(access(index, write)), "7c", index.toString(16));
  }
});

Deno.test("MSRs outside of the three ranges always exit while MSRs are guarded", () => {
  const outside = [
    0x2000,
    0x4000_0000,
    0xbfff_ffff,
    0xc000_2000,
    0xc000_ffff,
    0xc001_2000,
    0xffff_ffff,
  ];
  for (const index of outside) {
    for (const write of [false, true]) {
      msrGuest();
      assertEquals(bench.enter(access(index, write)), "7c", index.toString(16));
      assertEquals(bench.info[0], BigInt(write));
      msrGuest();
      bench.setControl32(InterceptWord.MISC1, Misc1.HLT);
      assertEquals(bench.enter(access(index, write)), "4d", index.toString(16));
    }
  }
});

Deno.test("#GP for CPL comes before the map, #GP for the MSR behind it", () => {
  for (const write of [false, true]) {
    msrGuest(3);
    bench.fill(SvmPlace.MSRPM, MSRPM_BYTES, 0xff);
    assertEquals(bench.enter(access(0x10, write)), "4d");
    // C000_0108h does not exist; a reserved bit of EFER.
    msrGuest();
    bench.fill(SvmPlace.MSRPM, MSRPM_BYTES, 0xff);
    assertEquals(bench.enter(access(0xc000_0108, write)), "7c");
    msrGuest();
    assertEquals(bench.enter(access(0xc000_0108, write)), "4d");
  }
});

Deno.test("TSC_OFFSET is added to what the guest reads, and to nothing the host reads", () => {
  // rdtsc; mov rbx, rax; rdtscp; mov rsi, rax; mov ecx, 10h; rdmsr; hlt
  const text = "0f 31 89 c3 0f 01 f9 89 c6 b9 10 00 00 00 0f 32 f4";
  bench.guest();
  bench.processor.writeMsr(Msr.TSC, 0n);
  const before = bench.processor.readMsr(Msr.TSC)!;
  bench.setControl64(Control.TSC_OFFSET, 0x1000_0000);
  assertEquals(bench.enter(text), "78");
  const { state } = bench;
  for (const value of [state.register(3), state.register(6), bench.control64(Save.RAX)]) {
    const since = value - 0x1000_0000n - before;
    assertEquals(since > -100n && since < 100n, true, value.toString(16));
  }
  assertEquals(state.get(S.tscOffset), 0n);
  bench.host();
  assertEquals(bench.processor.readMsr(Msr.TSC)! - before < 100n, true);
  assertEquals(bench.control32(Save.CS + SaveSegment.LIMIT) >>> 0, 0xffff_ffff);
});
