/**
 * Debug registers, breakpoints and single steps (APM vol. 2, 13.1).
 */
import { assertEquals } from "@std/assert";
import { Cr4, Msr, S, Seg } from "../../plugins/cpu/mod.ts";
import { Bench, Place, Sel } from "./bench.ts";
import { hex } from "./code.ts";
import { refuseOutside } from "./lab.ts";

const bench = new Bench({
  outside: { ...refuseOutside(), portRead: () => 0, portWrite: () => {} },
});

/** R/Wn. */
const Kind = { EXECUTE: 0, WRITE: 1, PORT: 2, READ_WRITE: 3 } as const;
/** LENn by bytes. */
const LENGTH: Readonly<Record<number, number>> = { 1: 0, 2: 1, 4: 3, 8: 2 };

const DR6_INITIAL = 0xffff_0ff0n;
const BS = 0x4000n;
const BD = 0x2000n;
const RF = 0x1_0000;
const TF = 0x100;

interface Point {
  readonly n: number;
  readonly address: bigint | number;
  readonly kind: number;
  readonly bytes?: number;
  /** `L`, `G`, or nothing. */
  readonly enable?: "L" | "G" | "";
}

/** Sets breakpoints; the others are off. */
function points(...list: readonly Point[]): void {
  let dr7 = 0x400n;
  for (const { n, address, kind, bytes = 1, enable = "L" } of list) {
    bench.state.setAt(S.dr + 8 * n, BigInt.asUintN(64, BigInt(address)));
    if (enable !== "") dr7 |= 1n << BigInt(2 * n + (enable === "G" ? 1 : 0));
    dr7 |= BigInt(kind | (LENGTH[bytes]! << 2)) << BigInt(16 + 4 * n);
  }
  bench.state.set(S.dr7, dr7);
  bench.state.set(S.dr6, DR6_INITIAL);
  bench.processor.refresh();
}

function enter(cpl = 0): void {
  bench.long(cpl);
  bench.handlers(64);
}

/** The debug traps of `code`: offset of RIP, and what DR6 says behind the first one. */
function traps(code: string, budget = 10): [number, bigint] | undefined {
  const start = Number(bench.state.get(S.rip));
  const { events } = bench.execute(hex(`${code} f4`), budget);
  const first = events[0];
  if (first === undefined) return undefined;
  assertEquals(first.vector, 1, `vector ${first.vector} of ${code}`);
  return [Number(first.rip) - start, bench.state.get(S.dr6)];
}

Deno.test("an instruction breakpoint faults before its instruction", () => {
  for (let n = 0; n < 4; n++) {
    for (const enable of ["L", "G", ""] as const) {
      for (const offset of [0, 1, 2]) {
        enter();
        points({ n, address: Place.CODE + offset, kind: Kind.EXECUTE, enable });
        const expected = enable === "" ? undefined : [offset, DR6_INITIAL | (1n << BigInt(n))];
        assertEquals(traps("90 90 90"), expected, `DR${n} ${enable} ${offset}`);
      }
      // Inside of an instruction there is none.
      enter();
      points({ n, address: Place.CODE + 1, kind: Kind.EXECUTE, enable });
      assertEquals(traps("66 90"), undefined);
    }
  }
});

Deno.test("RF holds instruction breakpoints off for one instruction", () => {
  enter();
  points({ n: 0, address: Place.CODE, kind: Kind.EXECUTE }, {
    n: 1,
    address: Place.CODE + 1,
    kind: Kind.EXECUTE,
  });
  bench.flags = RF | 2;
  assertEquals(traps("90 90"), [1, DR6_INITIAL | 2n]);
  // The fault pushes flags without RF, for the handler to set.
  const frame = Number(bench.state.register(4));
  assertEquals(bench.get64(frame + 16) & BigInt(RF), 0n);
  // IRET brings RF: the instruction it returns to is executed.
  bench.set64(frame + 16, bench.get64(frame + 16) | BigInt(RF));
  bench.write(bench.handler(1), hex("48 cf"));
  bench.processor.wake();
  bench.state.set(S.rip, BigInt(bench.handler(1)));
  bench.run(10);
  assertEquals(bench.state.get(S.rip), BigInt(Place.CODE + 3));
  assertEquals(bench.flags & RF, 0);
  bench.fill(bench.handler(1), 4, 0xf4);
});

Deno.test("a faulting instruction's flags have RF, so that it meets no breakpoint twice", () => {
  enter();
  bench.execute(hex("0f 0b"), 2);
  const frame = Number(bench.state.register(4));
  assertEquals(bench.get64(frame + 16) & BigInt(RF), BigInt(RF));
});

const STORES = {
  1: "c6 03 55",
  2: "66 c7 03 55 55",
  4: "c7 03 55 55 55 55",
  8: "48 89 03",
} as const;
const LOADS = { 1: "8a 03", 2: "66 8b 03", 4: "8b 03", 8: "48 8b 03" } as const;

Deno.test("data breakpoints: any byte of the access in the range, on writes or on both", () => {
  const at = Place.DATA + 0x100;
  for (const span of [1, 2, 4, 8]) {
    for (const bytes of [1, 2, 4, 8] as const) {
      for (let from = -9; from <= 9; from++) {
        for (const kind of [Kind.WRITE, Kind.READ_WRITE]) {
          for (const [table, write] of [[STORES, true], [LOADS, false]] as const) {
            enter();
            points({ n: 2, address: at, kind, bytes: span });
            bench.state.setRegister(3, BigInt(at + from));
            const met = from < span && from + bytes > 0 && (write || kind === Kind.READ_WRITE);
            const length = hex(table[bytes]).length;
            assertEquals(
              traps(table[bytes]),
              met ? [length, DR6_INITIAL | 4n] : undefined,
              `${bytes} bytes at ${from}, range of ${span}, kind ${kind}, write ${write}`,
            );
          }
        }
      }
    }
  }
});

Deno.test("the examples of table 13-1", () => {
  const accesses = [[0xeffb, 8], [0xeffe, 2], [0xeffe, 4], [0xf000, 1], [0xf001, 2], [0xf005, 4]];
  const rows = [
    [0xf000, 1, "101100"],
    [0xf004, 4, "000001"],
    [0xf005, 8, "101111"],
  ] as const;
  for (const [address, span, results] of rows) {
    for (const [k, [from, bytes]] of accesses.entries()) {
      enter();
      points({ n: 0, address, kind: Kind.READ_WRITE, bytes: span });
      bench.state.setRegister(3, BigInt(from!));
      const met = traps(LOADS[bytes as 1]) !== undefined;
      assertEquals(met, results[k] === "1", `${address.toString(16)} ${from!.toString(16)}`);
    }
  }
});

Deno.test("a data breakpoint is a trap: the access has been made", () => {
  enter();
  points({ n: 0, address: Place.DATA, kind: Kind.WRITE });
  bench.write(Place.DATA, [0]);
  bench.state.setRegister(3, BigInt(Place.DATA));
  assertEquals(traps("c6 03 55 90"), [3, DR6_INITIAL | 1n]);
  assertEquals(bench.read(Place.DATA, 1)[0], 0x55);
});

Deno.test("several breakpoints of one instruction are one trap", () => {
  enter();
  points(
    { n: 0, address: Place.DATA, kind: Kind.WRITE },
    { n: 1, address: Place.DATA + 2, kind: Kind.READ_WRITE, bytes: 2 },
    { n: 2, address: Place.DATA + 8, kind: Kind.READ_WRITE, bytes: 8 },
    { n: 3, address: Place.DATA, kind: Kind.EXECUTE },
  );
  bench.state.setRegister(3, BigInt(Place.DATA));
  assertEquals(traps("c7 03 01 02 03 04"), [6, DR6_INITIAL | 3n]);
});

Deno.test("an instruction breakpoint comes first, then the data breakpoint of the instruction", () => {
  enter();
  points(
    { n: 0, address: Place.CODE, kind: Kind.EXECUTE },
    { n: 1, address: Place.DATA, kind: Kind.WRITE },
  );
  bench.state.setRegister(3, BigInt(Place.DATA));
  assertEquals(traps("c6 03 55"), [0, DR6_INITIAL | 1n]);
  enter();
  points(
    { n: 0, address: Place.CODE + 3, kind: Kind.EXECUTE },
    { n: 1, address: Place.DATA, kind: Kind.WRITE },
  );
  bench.state.setRegister(3, BigInt(Place.DATA));
  // Of two at one boundary the trap of the previous instruction is first.
  assertEquals(traps("c6 03 55 90"), [3, DR6_INITIAL | 2n]);
});

Deno.test("single steps and breakpoints of one instruction are one trap", () => {
  enter();
  points({ n: 3, address: Place.DATA, kind: Kind.WRITE });
  bench.state.setRegister(3, BigInt(Place.DATA));
  bench.flags = TF | 2;
  assertEquals(traps("c6 03 55"), [3, DR6_INITIAL | BS | 8n]);
});

Deno.test("B0 to B3 are updated with each trap, BD and BS stay until software clears them", () => {
  enter();
  points({ n: 1, address: Place.DATA, kind: Kind.WRITE });
  bench.state.set(S.dr6, DR6_INITIAL | 0xdn | BD | BS);
  bench.state.setRegister(3, BigInt(Place.DATA));
  assertEquals(traps("c6 03 55"), [3, DR6_INITIAL | 2n | BD | BS]);
});

Deno.test("an instruction that faults meets no data breakpoint", () => {
  enter();
  points({ n: 0, address: Place.DATA, kind: Kind.READ_WRITE });
  bench.state.setRegister(3, BigInt(Place.DATA));
  // push [rbx] with a stack pointer that is not canonical.
  bench.state.setRegister(4, 0x8000_0000_0100n);
  bench.state.set32(S.idtLimit, 0);
  const { events } = bench.execute(hex("ff 33"), 3);
  assertEquals(events[0]?.vector, 12);
  assertEquals(bench.state.get(S.dr6), DR6_INITIAL);
  assertEquals(bench.state.get32(S.trapBits), 0);
});

Deno.test("a breakpoint behind MOV SS waits for one instruction", () => {
  enter();
  points({ n: 0, address: Place.DATA, kind: Kind.READ_WRITE, bytes: 2 });
  bench.set16(Place.DATA, Sel.DATA);
  bench.state.setRegister(3, BigInt(Place.DATA));
  assertEquals(traps("8e 13 90 90"), [3, DR6_INITIAL | 1n]);
  // So do single steps.
  enter();
  points();
  bench.state.setRegister(0, BigInt(Sel.DATA));
  bench.flags = TF | 2;
  assertEquals(traps("8e d0 90 90"), [3, DR6_INITIAL | BS]);
});

Deno.test("an instruction breakpoint behind MOV SS: AMD's processors take it, Intel's do not", () => {
  for (const [model, hit] of [["zen4", true], ["skylake-sp", false]] as const) {
    const own = new Bench({ model });
    own.long();
    own.handlers(64);
    own.state.setAt(S.dr, BigInt(Place.CODE + 2));
    own.state.set(S.dr7, 0x401n);
    own.state.setRegister(0, BigInt(Sel.DATA));
    own.processor.refresh();
    const { events } = own.execute(hex("8e d0 90 90 f4"), 10);
    const seen = events.map(({ vector, rip }) => [vector, Number(rip) - Place.CODE]);
    assertEquals(seen, hit ? [[1, 2]] : [], model);
  }
});

Deno.test("a repeated string instruction traps behind the round that met the breakpoint", () => {
  enter();
  points({ n: 0, address: Place.DATA + 2, kind: Kind.WRITE });
  bench.state.setRegister(7, BigInt(Place.DATA));
  bench.state.setRegister(1, 5n);
  assertEquals(traps("f3 aa"), [0, DR6_INITIAL | 1n]);
  assertEquals(bench.state.register(1), 2n);
  assertEquals(bench.state.register(7), BigInt(Place.DATA + 3));
  // The last round's trap is behind the instruction.
  enter();
  points({ n: 0, address: Place.DATA + 4, kind: Kind.WRITE });
  bench.state.setRegister(7, BigInt(Place.DATA));
  bench.state.setRegister(1, 5n);
  assertEquals(traps("f3 aa"), [2, DR6_INITIAL | 1n]);
  assertEquals(bench.state.register(1), 0n);
});

Deno.test("I/O breakpoints need CR4.DE", () => {
  for (const de of [false, true]) {
    for (
      const [code, port, bytes] of [
        ["e4 80", 0x80, 1],
        ["e6 80", 0x80, 1],
        ["66 e5 7f", 0x7f, 2],
        ["e5 7d", 0x7d, 4],
        ["e4 7f", 0x7f, 1],
        ["e4 81", 0x81, 1],
      ] as const
    ) {
      enter();
      bench.state.set(S.cr4, BigInt(Cr4.PAE | (de ? Cr4.DE : 0)));
      points({ n: 1, address: 0x80, kind: Kind.PORT });
      const met = de && port <= 0x80 && port + bytes > 0x80;
      const length = hex(code).length;
      assertEquals(traps(code), met ? [length, DR6_INITIAL | 2n] : undefined, `${code} ${de}`);
    }
    // Memory at the same address is none.
    enter();
    bench.state.set(S.cr4, BigInt(Cr4.PAE | (de ? Cr4.DE : 0)));
    points({ n: 1, address: Place.DATA, kind: Kind.PORT, bytes: 4 });
    bench.state.setRegister(3, BigInt(Place.DATA));
    assertEquals(traps("8b 03"), undefined);
  }
});

Deno.test("the stack and the tables of an event meet breakpoints only where instructions do", () => {
  // PUSH is a write of the instruction's own.
  enter();
  points({ n: 0, address: bench.stack(0) - 8, kind: Kind.WRITE, bytes: 8 });
  assertEquals(traps("50"), [1, DR6_INITIAL | 1n]);
});

Deno.test("general detect: any access to a debug register faults, and clears GD", () => {
  for (let n = 0; n < 8; n++) {
    for (const opcode of ["21", "23"]) {
      enter();
      bench.state.set(S.dr7, 0x2400n);
      bench.state.set(S.dr6, DR6_INITIAL | 2n);
      bench.processor.refresh();
      const modrm = (0xc0 | (n << 3)).toString(16);
      assertEquals(traps(`0f ${opcode} ${modrm}`), [0, DR6_INITIAL | BD], `DR${n}`);
      assertEquals(bench.state.get(S.dr7), 0x400n);
    }
  }
});

Deno.test("in 32-bit code addresses have 32 bits, and segments their bases", () => {
  bench.protect();
  bench.handlers(32);
  bench.state.setSegment(Seg.DS, {
    selector: Sel.DATA,
    attributes: 0xc93,
    limit: 0xffff_ffff,
    base: 0x1000n,
  });
  points({ n: 0, address: Place.DATA, kind: Kind.WRITE });
  bench.state.setRegister(3, BigInt(Place.DATA - 0x1000));
  assertEquals(traps("c6 03 55"), [3, DR6_INITIAL | 1n]);
  // Code with a base.
  bench.real();
  bench.write(0x200, [0xf4]);
  bench.set32(Place.IDT + 4, 0x200);
  bench.state.set32(S.idtLimit, 0x3ff);
  bench.state.setSegment(Seg.CS, {
    selector: 0x600,
    attributes: 0x9b,
    limit: 0xffff,
    base: 0x6000n,
  });
  bench.state.set(S.rip, 0n);
  points({ n: 2, address: 0x6002, kind: Kind.EXECUTE });
  bench.write(0x6000, hex("90 90 90 f4"));
  const { events } = bench.run(10);
  assertEquals(events.map(({ vector, rip }) => [vector, rip]), [[1, 2n]]);
});

Deno.test("single steps: POPF and IRET trap one instruction later, SYSRET at once", () => {
  enter();
  // push 102h; popfq; nop; nop
  assertEquals(traps("68 02 01 00 00 9d 90 90"), [7, DR6_INITIAL | BS]);
  enter();
  bench.processor.writeMsr(Msr.STAR, 0x0023_0018_0000_0000n);
  bench.state.setRegister(1, BigInt(Place.CODE + 0x20));
  bench.state.setRegister(11, BigInt(TF | 2));
  bench.state.set(S.efer, bench.state.get(S.efer) | 1n);
  assertEquals(traps("48 0f 07"), [0x20, DR6_INITIAL | BS]);
});

Deno.test("a pending interrupt comes behind the single-step trap, before its handler's first instruction", () => {
  enter();
  bench.outside.acknowledge = () => {
    bench.processor.setInterruptLine(false);
    return 0x42;
  };
  // A trap gate, which leaves IF as it is.
  bench.handlers(64, 0xef);
  bench.flags = TF | 0x202;
  bench.write(Place.CODE, hex("90 f4"));
  bench.write(Place.CODE + 1, hex("f4"));
  bench.state.set(S.rip, BigInt(Place.CODE));
  // It arrives while the instruction runs: STI's shadow holds it off until then.
  bench.processor.interruptShadow = true;
  bench.processor.setInterruptLine(true);
  const { events } = bench.run(10);
  assertEquals(
    events.map(({ vector, rip }) => [vector, rip]),
    [[1, BigInt(Place.CODE + 1)], [0x42, BigInt(bench.handler(1))]],
  );
});

Deno.test("bits of DR6 and DR7 that do not exist keep their values", () => {
  for (
    const [register, opcode, ones, writable] of [
      [6, "0f 23 f0", 0xffff_0ff0n, 0xe00fn],
      [7, "0f 23 f8", 0x400n, 0xffff_23ffn],
    ] as const
  ) {
    for (const value of [0n, 0xffff_ffffn]) {
      enter();
      // No breakpoint, and no general detect.
      bench.state.setRegister(0, register === 7 ? value & ~0x20ffn : value);
      const written = bench.state.register(0);
      assertEquals(bench.execute(hex(`${opcode} f4`), 1).events, []);
      const field = register === 6 ? S.dr6 : S.dr7;
      assertEquals(bench.state.get(field), (written & writable) | ones, `DR${register}`);
    }
  }
});
