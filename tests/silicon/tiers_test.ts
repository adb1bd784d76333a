/**
 * The interpreter and compiled regions leave the same behind: the same programs on both, stopped at the same
 * places, compared in registers, flags, memory and time.
 */
import { assert, assertEquals } from "@std/assert";
import { Control, createHost, Save, SvmExit, type Tier } from "../../plugins/cpu/mod.ts";
import { code, dword } from "./code.ts";
import { Lab, refuseOutside } from "./lab.ts";
import { DATA_AT, FUNCTIONS_AT, makeProgram, PROGRAM_AT, Random, STACK_AT } from "./programs.ts";

const TIERS: readonly Tier[] = [1, 2, "auto"];
const PAGES = 4;
const PAGE = 0x1000;
/** How programs end: by #DE, #BP or #UD. */
const ENDS: ReadonlySet<number> = new Set([0, 3, 6].map((vector) => SvmExit.EXCEPTION + vector));
/** Supervisor pages, accessed and dirty. */
const FLAGS = 0x63n;

function makeLab(tier: Tier): Lab {
  const lab = new Lab(refuseOutside(), { tier });
  for (const at of [PROGRAM_AT, FUNCTIONS_AT, DATA_AT, STACK_AT]) lab.map(at, PAGES * PAGE, FLAGS);
  // The data's pages stand in memory the other way round, so that a split access shows.
  for (let k = 0; k < PAGES; k++) {
    const page = BigInt(lab.base + DATA_AT + (PAGES - 1 - k) * PAGE);
    lab.memory.writeU64(lab.pte(DATA_AT + k * PAGE), page | FLAGS);
  }
  return lab;
}

/** What a program has come to. */
function stateOf(lab: Lab): Record<string, string> {
  const state: Record<string, string> = {
    exit: lab.get64(Control.EXITCODE).toString(16),
    rip: lab.get64(Save.RIP).toString(16),
    rflags: lab.get64(Save.RFLAGS).toString(16),
    retired: String(lab.processor.retired),
  };
  for (let n = 0; n < 16; n++) state[`r${n}`] = lab.register(n).toString(16);
  return state;
}

function start(lab: Lab, program: ReturnType<typeof makeProgram>, mode: 32 | 64): void {
  lab.prepare(mode, 0);
  lab.write(PROGRAM_AT, program.main);
  lab.write(FUNCTIONS_AT, program.functions);
  lab.write(DATA_AT, program.data);
  lab.write(STACK_AT, new Uint8Array(PAGES * PAGE));
  lab.set64(Save.RIP, BigInt(PROGRAM_AT));
  for (const [n, value] of program.registers.entries()) lab.setRegister(n, value);
  lab.setRegister(4, BigInt(STACK_AT + PAGES * PAGE - 64));
}

for (const mode of [64, 32] as const) {
  Deno.test(`random ${mode}-bit programs stop in the same states in all tiers`, () => {
    const seeds = 25;
    const labs = TIERS.map(makeLab);
    const reached: number[] = [];
    for (let k = 0; k < seeds; k++) {
      const seed = 1000 * mode + k;
      const program = makeProgram(seed, mode);
      for (const lab of labs) start(lab, program, mode);
      const random = new Random(seed);
      let stops = 0;
      for (;; stops++) {
        // Mostly long pieces, so that compiled loops are in the middle when the budget ends.
        const budget = 1 + random.below(random.below(3) === 0 ? 20 : 5000);
        const states = labs.map((lab) => {
          lab.run(budget);
          return stateOf(lab);
        });
        for (const [n, tier] of TIERS.entries()) {
          assertEquals(states[n], states[0], `seed ${seed}, stop ${stops}, tier ${tier}`);
        }
        const { exit } = states[0]!;
        if (exit !== SvmExit.INTR.toString(16)) {
          assert(ENDS.has(parseInt(exit!, 16)), `seed ${seed} ends with exit ${exit}`);
          break;
        }
        assert(stops < 1000, `seed ${seed} does not end`);
      }
      const memory = labs.map((lab) => lab.read(PROGRAM_AT, STACK_AT + PAGES * PAGE - PROGRAM_AT));
      for (const [n, tier] of TIERS.entries()) {
        const at = memory[n]!.findIndex((byte, i) => byte !== memory[0]![i]);
        assertEquals(at, -1, `seed ${seed}, tier ${tier}: memory at ${at + PROGRAM_AT}`);
      }
      reached.push(stops);
    }
    assert(reached.filter((stops) => stops > 3).length > seeds / 3, "few programs ran for long");
  });
}

/** Runs machine code at PROGRAM_AT to its INT3 in each tier; yields the labs. */
function runAll(bytes: readonly number[], prepare: (lab: Lab) => void = () => {}): Lab[] {
  return TIERS.map((tier) => {
    const lab = makeLab(tier);
    lab.prepare(64, 0);
    lab.write(PROGRAM_AT, new Uint8Array(bytes));
    lab.set64(Save.RIP, BigInt(PROGRAM_AT));
    lab.setRegister(4, BigInt(STACK_AT + PAGES * PAGE - 64));
    prepare(lab);
    assertEquals(lab.run(10_000_000), BigInt(SvmExit.EXCEPTION + 3));
    return lab;
  });
}

Deno.test("a loop that changes its own next instruction is never stale", () => {
  // Each round writes the count to the immediate of the ADD that follows.
  const bytes = code(
    "31 c0", // xor eax, eax
    "b9 d0 07 00 00", // mov ecx, 2000
    "89 0d 01 00 00 00", // mov [rip + 1], ecx
    "05 00 00 00 00", // add eax, imm32
    "ff c9", // dec ecx
    "75 f1", // jnz to the MOV
    "cc",
  );
  for (const lab of runAll(bytes)) assertEquals(lab.register(0), 2001000n);
});

Deno.test("a call that pushes its return address over its own target goes on with what it wrote", () => {
  // The return address becomes the callee's first bytes, of which only the tiers agree what they do.
  const at = PROGRAM_AT + 0x100;
  const bytes = code(
    "b9 f4 01 00 00", // mov ecx, 500
    "48 bc",
    dword(at + 8),
    dword(0), // mov rsp, at + 8
    "c6 04 25",
    dword(at),
    "c3", // mov byte [at], RET
    "e8",
    dword(0x100 - 0x1c), // call at
    "ff c9", // dec ecx
    "75 e7", // jnz
    "cc",
  );
  const states = TIERS.map((tier) => {
    const lab = makeLab(tier);
    lab.prepare(64, 0);
    lab.write(PROGRAM_AT, new Uint8Array(bytes));
    lab.set64(Save.RIP, BigInt(PROGRAM_AT));
    lab.run(20_000);
    return stateOf(lab);
  });
  assertEquals(states[1], states[0]);
  assertEquals(states[2], states[0]);
});

Deno.test("a fault in the middle of a compiled loop leaves the state of before the instruction", () => {
  // Stores go on until they leave the mapped pages.
  const bytes = code(
    "be",
    dword(DATA_AT), // mov esi, DATA_AT
    "48 01 f0", // add rax, rsi
    "48 89 06", // mov [rsi], rax
    "83 ee f8", // sub esi, -8
    "eb f5", // jmp to the ADD
  );
  const states = TIERS.map((tier) => {
    const lab = makeLab(tier);
    lab.prepare(64, 0);
    lab.write(PROGRAM_AT, new Uint8Array(bytes));
    lab.set64(Save.RIP, BigInt(PROGRAM_AT));
    lab.run(10_000_000);
    assertEquals(lab.get64(Control.EXITCODE), BigInt(SvmExit.EXCEPTION + 14));
    assertEquals(lab.get64(Control.EXITINFO2), BigInt(DATA_AT + PAGES * PAGE));
    return stateOf(lab);
  });
  assertEquals(states[1], states[0]);
  assertEquals(states[2], states[0]);
});

Deno.test("time goes on inside a slice as if there were none", () => {
  // RDTSC in a long loop; the differences are summed up.
  const bytes = code(
    "b9 a0 86 01 00", // mov ecx, 100000
    "0f 31", // rdtsc
    "01 c3", // add ebx, eax
    "ff c9", // dec ecx
    "75 f8", // jnz
    "cc",
  );
  const [a, b, c] = runAll(bytes).map(stateOf);
  assertEquals(b, a);
  assertEquals(c, a);
});

Deno.test("regions are compiled where code is hot, and dropped where it is written", () => {
  const { processors, memory } = createHost({ tier: "auto" });
  assertEquals(processors.regions.compiled, 0);
  assert(memory.alloc(PAGE) > 0);
  const lab = makeLab("auto");
  lab.prepare(64, 0);
  lab.write(PROGRAM_AT, new Uint8Array(code("48 ff c0 eb fb")));
  lab.set64(Save.RIP, BigInt(PROGRAM_AT));
  lab.run(1_000_000);
  const { regions } = lab.processors;
  assertEquals([regions.compiled, regions.dropped], [1, 0]);
  assertEquals(lab.register(0), 500_000n);
  lab.write(PROGRAM_AT, new Uint8Array(code("48 ff c8 eb fb")));
  lab.run(1_000_000);
  assertEquals([regions.compiled, regions.dropped], [2, 1]);
  assertEquals(lab.register(0), 0n);
});

Deno.test("an access over a page's end is split, even where the stack's page is known", () => {
  // The stack is in the second of two pages that stand in memory the other way round; RBP points to the last
  // bytes of the first.
  const bytes = code(
    "b9 14 00 00 00", // mov ecx, 20
    "51", // push rcx
    "48 03 55 00", // add rdx, [rbp]
    "48 89 55 00", // mov [rbp], rdx
    "58", // pop rax
    "ff c9", // dec ecx
    "75 f2", // jnz to the PUSH
    "cc",
  );
  const labs = runAll(bytes, (lab) => {
    lab.memory.writeU64(lab.pte(STACK_AT), BigInt(lab.base + STACK_AT + PAGE) | FLAGS);
    lab.memory.writeU64(lab.pte(STACK_AT + PAGE), BigInt(lab.base + STACK_AT) | FLAGS);
    lab.write(STACK_AT + 2 * PAGE - 3, new Uint8Array([1, 0, 0]));
    lab.write(STACK_AT, new Uint8Array(5));
    lab.setRegister(2, 0n);
    lab.setRegister(4, BigInt(STACK_AT + 2 * PAGE - 64));
    lab.setRegister(5, BigInt(STACK_AT + PAGE - 3));
  });
  for (const lab of labs) {
    assertEquals(lab.register(2), 1n << 19n);
    assertEquals([...lab.read(STACK_AT + 2 * PAGE - 3, 3)], [0, 0, 8]);
  }
});

Deno.test("a loop that walks over a page's end at odd addresses reads and writes both pages", () => {
  // RSI is odd and goes up by 8: the last access in a page is like those before, and split.
  const bytes = code(
    "be",
    dword(DATA_AT + 1), // mov esi
    "b9 58 02 00 00", // mov ecx, 600
    "48 03 06", // add rax, [rsi]
    "48 89 46 10", // mov [rsi + 16], rax
    "83 c6 08", // add esi, 8
    "ff c9", // dec ecx
    "75 f2", // jnz to the ADD
    "cc",
  );
  const data = Uint8Array.from({ length: PAGES * PAGE }, (_, k) => k * 37 + (k >> 8));
  const labs = runAll(bytes, (lab) => {
    lab.write(DATA_AT, data);
    lab.setRegister(0, 0n);
  });
  const [first, ...others] = labs.map((lab) => lab.read(DATA_AT, PAGES * PAGE));
  for (const other of others) assertEquals(other.findIndex((byte, k) => byte !== first![k]), -1);
  for (const lab of labs) assertEquals(lab.register(0), labs[0]!.register(0));
});
