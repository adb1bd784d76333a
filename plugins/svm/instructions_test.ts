import { assert, assertEquals } from "@std/assert";
import {
  cpuidHook,
  createVmSync,
  eventRequest,
  interruptControllerSlot,
  observeExitHook,
  type Plugin,
  type RunResult,
  UnimplementedError,
  type Vm,
} from "../../core/mod.ts";
import { cpu, type SvmFeatureChoice } from "../cpu/mod.ts";
import { flat } from "../flat/mod.ts";
import { type InvlpgaPolicy, invlpgaSlot, svm, SvmReason } from "./mod.ts";

/** Where the code lies, its descriptor table of gates, and what LIDT reads. */
const CODE = 0x8000;
const IDT = 0x9000;
const IDTR = 0x9800;
/** Where a handler for an exception, interrupt or NMI lies. */
const HANDLER = 0x9900;
const INTERRUPT = 0x21;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** EFER |= or &= ~SVME. */
const SET_SVME = [0xb9, ...u32(0xc000_0080), 0x0f, 0x32, 0x0d, ...u32(0x1000), 0x0f, 0x30];
const CLEAR_SVME = [0xb9, ...u32(0xc000_0080), 0x0f, 0x32, 0x25, ...u32(~0x1000), 0x0f, 0x30];
/** MOV ECX, index; MOV EAX, lo; MOV EDX, hi; WRMSR. */
const wrmsr = (index: number, lo: number, hi = 0): number[] => [
  ...[0xb9, ...u32(index), 0xb8, ...u32(lo), 0xba, ...u32(hi)],
  ...[0x0f, 0x30],
];
/** MOV ECX, index; RDMSR. */
const rdmsr = (index: number): number[] => [0xb9, ...u32(index), 0x0f, 0x32];
/** MOV EAX, page. */
const at = (page: number): number[] => [0xb8, ...u32(page)];
const VMRUN = [0x0f, 0x01, 0xd8];
const VMLOAD = [0x0f, 0x01, 0xda];
const VMSAVE = [0x0f, 0x01, 0xdb];
const STGI = [0x0f, 0x01, 0xdc];
const CLGI = [0x0f, 0x01, 0xdd];
const SKINIT = [0x0f, 0x01, 0xde];
const INVLPGA = [0x0f, 0x01, 0xdf];
/** OUT 80h, AL: what the test does. OUT F4h, AL: the end, with AL as code. */
const ACT = [0xe6, 0x80];
const END = [0xe6, 0xf4];

/** Code in 32-bit protected mode. All gates lead to `handler`. */
function image(code: readonly number[], handler: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(0x2000);
  const gate = [HANDLER & 0xff, HANDLER >> 8, 0x08, 0, 0, 0x8e, 0, 0];
  for (let vector = 0; vector < 64; vector++) bytes.set(gate, IDT - CODE + 8 * vector);
  bytes.set([0xff, 0x01, ...u32(IDT)], IDTR - CODE);
  // MOV ESP, 7000h; LIDT.
  bytes.set([0xbc, ...u32(0x7000), 0x0f, 0x01, 0x1d, ...u32(IDTR), ...code], 0);
  bytes.set(handler, HANDLER - CODE);
  return bytes;
}

interface Ended {
  readonly result: RunResult;
  /** How often each of the vendor's own reasons was met. */
  readonly exits: ReadonlyMap<number, number>;
  /** General registers by number, bits 31:0. */
  readonly registers: readonly number[];
}

interface Options {
  /** On OUT 80h. */
  readonly act?: (vm: Vm) => void;
  readonly handler?: readonly number[];
  readonly plugins?: readonly Plugin[];
  readonly nested?: boolean;
  readonly features?: SvmFeatureChoice;
}

/** Processors that execute VMLOAD, VMSAVE, STGI and CLGI for a guest, and that leave it to software. */
const PROCESSORS: readonly SvmFeatureChoice[] = [
  { vgif: true, v_vmsave_vmload: true },
  { vgif: false, v_vmsave_vmload: false },
];

/** Runs code; without a handler an exception ends with code EEh. */
function execute(code: readonly number[], options: Options = {}): Ended {
  const { act = () => {}, handler = [0xb0, 0xee, ...END], plugins = [], nested = true, features } =
    options;
  const exits = new Map<number, number>();
  const board: Plugin = {
    name: "board",
    version: "1.0.0",
    setup(ctx) {
      ctx.registerPio({ name: "act", base: 0x80, length: 1, write: () => act(ctx.vm) });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: (_offset, _size, code) => ctx.vm.stop({ reason: "exit-code", code }),
      });
      ctx.on(observeExitHook, (_vcpu, { reason }) => {
        exits.set(reason, (exits.get(reason) ?? 0) + 1);
      });
    },
  };
  using vm = createVmSync({
    memory: 2 ** 21,
    plugins: [
      cpu(features === undefined ? {} : { features }),
      svm({ nested }),
      board,
      ...plugins,
    ],
    images: [flat(image(code, handler), { address: CODE, entry: { mode: "protected32" } })],
  });
  const result = vm.runSync({ instructions: 10_000 });
  const { regs } = vm.vcpus[0]!;
  return { result, exits, registers: Array.from({ length: 8 }, (_, k) => regs.lo(k)) };
}

function codeOf({ result }: Ended): number | string {
  return result.reason === "exit-code" ? result.code : `${result.reason}`;
}

/** Ends with 1 if `code` raises no exception. */
const outcome = (code: readonly number[], options?: Options): number | string =>
  codeOf(execute([...code, 0xb0, 0x01, ...END], options));

/** Ends with the vector of the exception, which must be one without an error code. */
const INSTRUCTIONS: readonly (readonly [string, readonly number[], number])[] = [
  ["VMRUN", VMRUN, SvmReason.VMRUN],
  ["VMLOAD", VMLOAD, SvmReason.VMLOAD],
  ["VMSAVE", VMSAVE, SvmReason.VMSAVE],
  ["STGI", STGI, SvmReason.STGI],
  ["CLGI", CLGI, SvmReason.CLGI],
  ["INVLPGA", INVLPGA, SvmReason.INVLPGA],
  ["SKINIT", SKINIT, SvmReason.SKINIT],
];

for (const [name, bytes, reason] of INSTRUCTIONS) {
  Deno.test(`${name} is undefined while EFER.SVME is clear, before and after it was set`, () => {
    for (const before of [[], SET_SVME.concat(CLEAR_SVME)]) {
      const ended = execute([...before, ...at(0x1_0000), ...bytes, 0xb0, 0x01, ...END]);
      assertEquals(codeOf(ended), 0xee);
      // No processor here has SKINIT, and undefined it is before it is intercepted.
      assertEquals(ended.exits.get(reason) ?? 0, reason === SvmReason.SKINIT ? 0 : 1);
      // #UD, and not #GP: nothing is on the stack in front of EIP, CS and EFLAGS.
      assertEquals(ended.registers[4], 0x7000 - 12);
    }
  });
}

Deno.test("they are executed while EFER.SVME is set; SKINIT is not there at all", () => {
  for (const [name, bytes] of INSTRUCTIONS) {
    if (name === "VMRUN") continue;
    const wanted = name === "SKINIT" ? 0xee : 1;
    for (const features of PROCESSORS) {
      const code = [...SET_SVME, ...at(0x1_0000), ...bytes];
      assertEquals(outcome(code, { features }), wanted, name);
    }
  }
});

Deno.test("VMRUN stops the vCPU with an error that names it", () => {
  const { result } = execute([...SET_SVME, ...at(0x1_0000), ...VMRUN]);
  assert(result.reason === "error");
  const { error } = result;
  assert(error instanceof UnimplementedError || error.cause instanceof UnimplementedError);
  assertEquals(error.message.includes("VMRUN"), true);
});

Deno.test("an rAX that is no page of memory is #GP", () => {
  for (const bytes of [VMRUN, VMLOAD, VMSAVE]) {
    for (const page of [0x1_0004, 0x8000_0000]) {
      for (const features of PROCESSORS) {
        const code = [...SET_SVME, ...at(page), ...bytes, 0xb0, 1, ...END];
        const ended = execute(code, { features });
        assertEquals(codeOf(ended), 0xee);
        // #GP, and not #UD: an error code is in front of the rest.
        assertEquals(ended.registers[4], 0x7000 - 16);
      }
    }
  }
});

Deno.test("EFER.SVME, VM_CR and VM_HSAVE_PA", () => {
  const nested = false;
  assertEquals(outcome(SET_SVME, { nested }), 0xee);
  assertEquals(outcome(rdmsr(0xc001_0114), { nested }), 0xee);
  assertEquals(outcome(rdmsr(0xc001_0117), { nested }), 0xee);

  assertEquals(outcome(wrmsr(0xc001_0114, 0x20)), 0xee);
  assertEquals(outcome(wrmsr(0xc001_0114, 0x10)), 1);
  assertEquals(outcome([...wrmsr(0xc001_0114, 0x10), ...SET_SVME]), 0xee);
  assertEquals(outcome([...SET_SVME, ...wrmsr(0xc001_0114, 0x10)]), 0xee);
  // Once locked, SVMDIS stays as it is, without a fault.
  const locked = [...wrmsr(0xc001_0114, 0x18), ...wrmsr(0xc001_0114, 0), ...rdmsr(0xc001_0114)];
  assertEquals(codeOf(execute([...locked, ...END])), 0x18);

  assertEquals(outcome(wrmsr(0xc001_0117, 0x1000)), 1);
  assertEquals(outcome(wrmsr(0xc001_0117, 0x1001)), 0xee);
  assertEquals(outcome(wrmsr(0xc001_0117, 0, 0x8000_0000)), 0xee);
});

/** CPUID leaf 0 names another maker. */
function maker(name: string): Plugin {
  const word = (offset: number): number =>
    [0, 1, 2, 3].reduce((sum, k) => sum | (name.charCodeAt(offset + k) << (8 * k)), 0) >>> 0;
  return {
    name: "maker",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(cpuidHook, 0, (result) => {
        [result.ebx, result.edx, result.ecx] = [word(0), word(4), word(8)];
        return result;
      });
    },
  };
}

Deno.test("VMLOAD drops bits 63:32 of SYSENTER_ESP and SYSENTER_EIP of an Intel-compatible guest", () => {
  const code = (index: number) => [
    ...SET_SVME,
    ...wrmsr(index, 0x9abc_def0, 0x1234),
    // Before VMLOAD the MSR holds all of it.
    ...rdmsr(index),
    ...[0x89, 0xd3], // MOV EBX, EDX
    ...at(0x1_0000),
    ...VMSAVE,
    ...VMLOAD,
    ...rdmsr(index),
    ...[0x89, 0xc1, 0x89, 0xd6, 0xb0, 0x01], // MOV ECX, EAX; MOV ESI, EDX; MOV AL, 1
    ...END,
  ];
  for (const index of [0x175, 0x176]) {
    for (const [name, high] of [["GenuineIntel", 0], ["AuthenticAMD", 0x1234]] as const) {
      const ended = execute(code(index), { plugins: [maker(name)] });
      assertEquals(codeOf(ended), 1);
      const [, ecx, , ebx, , , esi] = ended.registers;
      assertEquals([ebx, ecx, esi], [0x1234, 0x9abc_def0, high], name);
    }
  }
});

/** What the handlers of the tests below do: MOV BH, BL, and back. */
const NOTE = [0x88, 0xdf, 0xcf];
/** MOV BX, 700h: BH is 7 until the handler was called. MOV BL, 1. NOP. MOV AL, BH; end. */
const BEGIN = [0x66, 0xbb, 0x00, 0x07];
const MARK = [0xb3, 0x01];
const TELL = [0x90, 0x90, 0x88, 0xf8, ...END];

Deno.test("an NMI waits for STGI", () => {
  const act = (vm: Vm) => vm.vcpus[0]!.events.queueNmi();
  for (const features of PROCESSORS) {
    const noted = (code: readonly number[]) =>
      codeOf(execute([...code, ...TELL], { act, handler: NOTE, features }));
    assertEquals(noted([...BEGIN, ...ACT, ...MARK]), 0);
    assertEquals(noted([...SET_SVME, ...BEGIN, ...CLGI, ...ACT, ...MARK, ...STGI]), 1);
    // Clearing EFER.SVME sets GIF as well: there is no flag without SVM.
    assertEquals(noted([...SET_SVME, ...BEGIN, ...CLGI, ...ACT, ...MARK, ...CLEAR_SVME]), 1);
    assertEquals(noted([...SET_SVME, ...BEGIN, ...CLGI, ...ACT, ...MARK]), 7);
  }
});

/** An interrupt controller with one interrupt, raised by the test. */
class OneInterrupt {
  raised = false;
  plugin(): Plugin {
    return {
      name: "one-interrupt",
      version: "1.0.0",
      provides: [interruptControllerSlot],
      setup: (ctx) => {
        ctx.provide(interruptControllerSlot, {
          hasInterrupt: () => this.raised,
          acknowledge: () => {
            this.raised = false;
            return INTERRUPT;
          },
        });
      },
    };
  }
}

Deno.test("an interrupt waits for STGI and for EFLAGS.IF, in either order", () => {
  const [STI, CLI] = [[0xfb], [0xfa]];
  const cases: readonly (readonly [readonly number[], number])[] = [
    [[...STI, ...CLGI, ...ACT, ...MARK, ...STGI], 1],
    [[...CLI, ...CLGI, ...ACT, ...STGI, ...MARK, ...STI], 1],
    [[...CLI, ...CLGI, ...ACT, ...STI, 0x90, ...MARK, ...STGI], 1],
    [[...STI, ...ACT, 0x90, ...MARK, ...CLGI, ...STGI], 0],
    [[...STI, ...CLGI, ...ACT, ...MARK], 7],
  ];
  for (const [code, wanted] of cases) {
    for (const features of PROCESSORS) {
      const controller = new OneInterrupt();
      const act = (vm: Vm) => {
        controller.raised = true;
        vm.requestAll(eventRequest);
      };
      const plugins = [controller.plugin()];
      const all = [...SET_SVME, ...BEGIN, ...code, ...TELL];
      assertEquals(codeOf(execute(all, { act, handler: NOTE, plugins, features })), wanted);
    }
  }
});

Deno.test("INVLPGA does what its policy says, and an exchanged policy is obeyed", () => {
  const unchecked: InvlpgaPolicy = { name: "unchecked", checked: false };
  const policy: Plugin = {
    name: "svm-invlpga",
    version: "1.0.0",
    provides: [invlpgaSlot],
    setup: (ctx) => ctx.provide(invlpgaSlot, unchecked),
  };
  const code = [...at(0x1_0000), ...INVLPGA];
  assertEquals(outcome(code), 0xee);
  assertEquals(outcome(code, { plugins: [policy] }), 1);
  const act = (vm: Vm) => vm.unload("svm-invlpga");
  assertEquals(outcome([...ACT, ...code], { plugins: [policy], act }), 0xee);
});

Deno.test("code that VMSAVE overwrites is the new code", () => {
  const [page, star] = [0x1_0000, 0x600];
  const call = [0xb8, ...u32(page + star), 0xff, 0xd0]; // MOV EAX, address; CALL EAX
  const code = [
    ...SET_SVME,
    ...[0x31, 0xdb], // XOR EBX, EBX
    ...[0xc6, 0x05, ...u32(page + star), 0xc3], // MOV BYTE [address], RET
    ...call,
    ...wrmsr(0xc000_0081, 0x90c3_05b3), // STAR: MOV BL, 5; RET
    ...at(page),
    ...VMSAVE,
    ...call,
    ...[0x88, 0xd8], // MOV AL, BL
    ...END,
  ];
  for (const features of PROCESSORS) assertEquals(codeOf(execute(code, { features })), 5);
});
