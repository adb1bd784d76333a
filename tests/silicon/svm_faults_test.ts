/**
 * Exceptions and what exits tell of them (APM vol. 2, 15.7.2, 15.8.4, 15.12).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Cr0,
  EventFormat,
  InterceptWord,
  Misc1,
  Save,
  SaveSegment,
  Seg,
  Vector,
} from "../../plugins/cpu/mod.ts";
import { descriptor, FREE_SELECTOR } from "./bench.ts";
import { hex } from "./code.ts";
import { Pf, Pte } from "./page_path.ts";
import { type GuestMode, SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();

/** A page that tests take away. */
const PAGE = 0x15_0000;
const GUEST_CODE = BigInt(SvmPlace.GUEST_CODE);

const register = (n: number, value: bigint | number): void => {
  if (n === 0) bench.setControl64(Save.RAX, value);
  else if (n === 4) bench.setControl64(Save.RSP, value);
  else bench.state.setRegister(n, BigInt(value));
};

/** An exception and how it comes about. */
interface Row {
  readonly name: string;
  readonly vector: number;
  readonly code: string;
  readonly mode?: GuestMode;
  readonly cpl?: number;
  readonly setup?: () => void;
  /** Error code, in EXITINFO1. */
  readonly error?: number;
  /** EXITINFO2. */
  readonly address?: bigint;
  /** RIP that is saved, from the start of the code. */
  readonly rip?: number;
  /** nRIP that is reported, from the start of the code; 0 if none. */
  readonly next?: number;
}

const ROWS: readonly Row[] = [
  { name: "DIV by 0", vector: Vector.DE, code: "31 c9 f7 f1", rip: 2 },
  {
    name: "single step",
    vector: Vector.DB,
    code: "90",
    rip: 1,
    setup: () => bench.orControl64(Save.RFLAGS, 0x100),
  },
  { name: "INT3", vector: Vector.BP, code: "90 cc", rip: 1, next: 2 },
  {
    name: "INTO",
    vector: Vector.OF,
    code: "ce",
    mode: "protected",
    next: 1,
    setup: () => bench.orControl64(Save.RFLAGS, 0x800),
  },
  {
    name: "BOUND",
    vector: Vector.BR,
    code: "62 03",
    mode: "protected",
    next: 2,
    setup: () => {
      bench.set64(SvmPlace.GUEST_DATA, 0x2_0000_0001n);
      register(0, 3);
      register(3, SvmPlace.GUEST_DATA);
    },
  },
  { name: "UD2", vector: Vector.UD, code: "0f 0b" },
  {
    name: "FWAIT",
    vector: Vector.NM,
    code: "9b",
    setup: () => bench.orControl64(Save.CR0, Cr0.MP | Cr0.TS),
  },
  {
    name: "a segment that is not present",
    vector: Vector.NP,
    code: "8e d8",
    error: FREE_SELECTOR,
    setup: () => {
      bench.setDescriptor(FREE_SELECTOR, descriptor({ access: 0x13 }));
      register(0, FREE_SELECTOR);
    },
  },
  {
    name: "a stack address that is not canonical",
    vector: Vector.SS,
    code: "58",
    error: 0,
    setup: () => register(4, 1n << 47n),
  },
  {
    name: "a stack segment that is not present",
    vector: Vector.SS,
    code: "8e d0",
    error: FREE_SELECTOR,
    setup: () => {
      bench.setDescriptor(FREE_SELECTOR, descriptor({ access: 0x13 }));
      register(0, FREE_SELECTOR);
    },
  },
  {
    name: "a selector beyond the limit",
    vector: Vector.GP,
    code: "8e d8",
    error: 0x2000,
    setup: () => register(0, 0x2003),
  },
  {
    name: "a read of an absent page",
    vector: Vector.PF,
    code: "8b 43 08",
    error: 0,
    address: BigInt(PAGE + 8),
    setup: () => takeAway(SvmPlace.GUEST_TABLES),
  },
  {
    name: "a write to an absent page at CPL 3",
    vector: Vector.PF,
    code: "89 43 08",
    cpl: 3,
    error: Pf.RW | Pf.US,
    address: BigInt(PAGE + 8),
    setup: () => takeAway(SvmPlace.GUEST_TABLES),
  },
  {
    name: "a misaligned access",
    vector: Vector.AC,
    code: "8b 43 01",
    cpl: 3,
    error: 0,
    setup: () => {
      bench.orControl64(Save.CR0, Cr0.AM);
      bench.orControl64(Save.RFLAGS, 0x4_0000);
      register(3, SvmPlace.GUEST_DATA);
    },
  },
];

/** Makes {@linkcode PAGE} absent in the tables at `root`, and points RBX at it. */
function takeAway(root: number): void {
  bench.set64(bench.pageEntry(root, PAGE), 0n);
  register(3, PAGE);
}

function prepare({ mode, cpl, setup }: Row): void {
  bench.guest(mode, cpl);
  bench.setControl64(Save.CR2, 0x1234_5678_9abcn);
  setup?.();
}

Deno.test("each exception exits with its code, error code and address, the state as it was", () => {
  for (const row of ROWS) {
    prepare(row);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << row.vector);
    for (const offset of [Control.NRIP, Control.FETCHED, Control.EXITINTINFO]) {
      bench.setControl64(offset, -1);
    }
    const before = bench.block;
    const base = bench.control64(Save.RIP);
    assertEquals(bench.enter(row.code), (0x40 + row.vector).toString(16), row.name);
    assertEquals(bench.info, [BigInt(row.error ?? 0), row.address ?? 0n], row.name);
    assertEquals(bench.control64(Save.RIP), base + BigInt(row.rip ?? 0), row.name);
    const next = row.next === undefined ? 0n : base + BigInt(row.next);
    assertEquals(bench.control64(Control.NRIP), next, row.name);
    assertEquals(bench.control64(Control.EXITINTINFO), 0n, row.name);
    const bytes = bench.read(bench.vmcb + Control.FETCHED, 1)[0];
    assertEquals(bytes, row.vector === Vector.PF ? 15 : 0, row.name);
    // CR2 is not written before the intercept; DR6 is.
    if (row.rip === undefined) {
      assertEquals(bench.block.subarray(0x400), before.subarray(0x400), row.name);
    }
    assertEquals(bench.control64(Save.CR2), 0x1234_5678_9abcn, row.name);
  }
});

Deno.test("without its bit an exception goes to the guest's own handler", () => {
  for (const row of ROWS) {
    prepare(row);
    bench.setControl32(InterceptWord.EXCEPTIONS, ~(1 << row.vector));
    // A stack that delivery can use, at CPL 0, where the handler's HLT exits.
    bench.guestHandlers(row.mode === "protected" ? 32 : 64);
    if (row.vector === Vector.SS) bench.setControl32(InterceptWord.EXCEPTIONS, 0);
    const exit = bench.enter(row.code);
    if (row.name === "a stack address that is not canonical") {
      // Its frame cannot be pushed either.
      assertEquals(exit, "7f");
      continue;
    }
    assertEquals(exit, "78", row.name);
    assertEquals(bench.control64(Save.RIP), BigInt(bench.guestHandler(row.vector)), row.name);
    const address = row.vector === Vector.PF ? row.address! : 0x1234_5678_9abcn;
    assertEquals(bench.control64(Save.CR2), address, row.name);
  }
});

Deno.test("an exception on the way to a handler: the intercept comes before the combination", () => {
  const events = EventFormat.VALID | EventFormat.EXCEPTION;
  // #UD meets an empty interrupt table: #GP(33h), that meets it too: #DF, and that ends in a shutdown.
  const cases: readonly (readonly [number, string, number, number, number])[] = [
    [1 << 13, "4d", 0x33, Vector.UD, 0],
    [1 << 13 | 1 << 8, "4d", 0x33, Vector.UD, 0],
    [1 << 8, "48", 0, Vector.GP | EventFormat.ERROR, 0x33],
    [0, "7f", 0, 0, 0],
  ];
  for (const [mask, exit, error, event, eventError] of cases) {
    bench.guest();
    bench.setControl32(InterceptWord.EXCEPTIONS, mask);
    assertEquals(bench.enter("0f 0b"), exit);
    if (exit === "7f") continue;
    assertEquals(bench.info[0], BigInt(error), exit);
    const expected = BigInt((events | event) >>> 0) | (BigInt(eventError) << 32n);
    assertEquals(bench.control64(Control.EXITINTINFO), expected, exit);
    assertEquals(bench.control64(Save.RIP), GUEST_CODE);
  }
});

Deno.test("EXITINTINFO names the event that was being delivered, of every type", () => {
  const valid = BigInt(EventFormat.VALID) & 0xffff_ffffn;
  const cases: readonly (readonly [string, string, bigint])[] = [
    ["INT n", "cd 42", valid | 0x442n],
    ["INT3", "cc", valid | 0x303n],
    ["INT1", "f1", valid | 0x301n],
    ["#DE", "31 c9 f7 f1", valid | 0x300n],
    ["#GP with an error code", "8e d8", valid | 0xb0dn | (0x2000n << 32n)],
  ];
  for (const [name, code, event] of cases) {
    bench.guest();
    bench.guestHandlers();
    register(0, 0x2000);
    register(4, PAGE + 0x800);
    bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), 0n);
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    const before = bench.control64(Save.RSP);
    assertEquals(bench.enter(code), "4e", name);
    assertEquals(bench.control64(Control.EXITINTINFO), event, name);
    assertEquals(bench.info, [BigInt(Pf.RW), BigInt(PAGE + 0x800 - 8)], name);
    // The event is as if it had not come yet: the instruction's RIP, the old stack.
    const offset = name === "#DE" ? 2n : 0n;
    assertEquals(bench.control64(Save.RIP), GUEST_CODE + offset, name);
    assertEquals(bench.control64(Save.RSP), before, name);
    // It is a data fault, so the instruction's bytes are told.
    assertEquals(bench.read(bench.vmcb + Control.FETCHED, 1)[0], 15, name);
  }
});

// Instruction bytes.

const bytesTold = (): number[] => {
  const count = bench.read(bench.vmcb + Control.FETCHED, 1)[0]!;
  return [...bench.read(bench.vmcb + Control.FETCHED + 1, count)];
};

Deno.test("the bytes from RIP on are told, fifteen or as many as can be fetched", () => {
  const load = hex("8b 03");
  const text = [...load, ...Array.from({ length: 40 }, (_, k) => 0x90 + k)];
  const border = SvmPlace.GUEST_CODE + 0x1000;
  for (let before = 1; before <= 16; before++) {
    for (const next of ["present", "absent", "not executable"] as const) {
      bench.guest();
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
      takeAway(SvmPlace.GUEST_TABLES);
      const rip = border - before;
      bench.setControl64(Save.RIP, rip);
      const entry = bench.pageEntry(SvmPlace.GUEST_TABLES, border);
      if (next === "absent") bench.set64(entry, 0n);
      if (next === "not executable") bench.set64(entry, bench.get64(entry) | Pte.NX);
      bench.write(rip, text);
      assertEquals(bench.resume(), "4e");
      // An instruction that crosses into a page that cannot be fetched from faults there.
      if (before === 1 && next !== "present") {
        assertEquals(bench.info[1], BigInt(border));
        assertEquals(bytesTold(), []);
        continue;
      }
      assertEquals(bench.info[1], BigInt(PAGE), `${before} ${next}`);
      const count = next === "present" ? 15 : Math.min(before, 15);
      assertEquals(bytesTold(), text.slice(0, count), `${before} bytes, then ${next}`);
    }
  }
});

Deno.test("bytes beyond the limit of CS are not told, and the base counts", () => {
  for (const room of [2, 3, 14, 15, 16]) {
    bench.guest("protected");
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.GP);
    bench.nested();
    takeAway(SvmPlace.NPT);
    bench.setControl64(Save.CS + SaveSegment.BASE, SvmPlace.GUEST_CODE);
    bench.setControl64(Save.RIP, 0x100);
    bench.setControl32(Save.CS + SaveSegment.LIMIT, 0x100 + room - 1);
    const text = [...hex("8b 03"), ...Array.from({ length: 20 }, (_, k) => k)];
    assertEquals(bench.enter(text), "400");
    assertEquals(bytesTold(), text.slice(0, Math.min(room, 15)), `${room} bytes`);
  }
});

Deno.test("a fault of the fetch itself tells no bytes", () => {
  for (const nested of [false, true]) {
    bench.guest();
    if (nested) bench.nested();
    bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
    takeAway(nested ? SvmPlace.NPT : SvmPlace.GUEST_TABLES);
    bench.setControl64(Save.RIP, PAGE);
    bench.setControl64(Control.FETCHED, -1);
    assertEquals(bench.resume(), nested ? "400" : "4e");
    assertEquals(bytesTold(), []);
  }
});

Deno.test("a nested fault that only the report would meet is not taken", () => {
  bench.guest();
  bench.nested();
  takeAway(SvmPlace.NPT);
  const border = SvmPlace.GUEST_CODE + 0x1000;
  bench.set64(bench.pageEntry(SvmPlace.NPT, border), 0n);
  bench.setControl64(Save.RIP, border - 4);
  bench.write(border - 4, hex("8b 03 90 90"));
  assertEquals(bench.resume(), "400");
  assertEquals(bench.info[1], BigInt(PAGE));
  assertEquals(bytesTold(), hex("8b 03 90 90"));
});

Deno.test("#TS on the way to an inner stack carries the event", () => {
  bench.guest("long", 3);
  bench.guestHandlers();
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.TS);
  bench.state.setSegment(Seg.TR, { selector: 0xf8, attributes: 0x8b, limit: 3, base: 0n });
  assertEquals(bench.enter("cd 42"), "4a");
  assertEquals(bench.info[0], 0xf8n);
  assertEquals(bench.control64(Control.EXITINTINFO), 0x8000_0442n);
  assertEquals(bench.control64(Save.RIP), GUEST_CODE);
  assertEquals(bench.control32(InterceptWord.MISC1) & Misc1.HLT, Misc1.HLT);
});
