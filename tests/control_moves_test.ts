/**
 * Moves to control registers: hypervisors answer most of them by storing the value, and no guest can tell.
 */

import { assertEquals } from "@std/assert";
import { createVmSync, type Plugin, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel, processorsSlot } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { flat, type FlatEntry } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const HOSTS: readonly (readonly [name: string, vendor: () => Plugin, model: CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["metal, Intel", metal, "sapphire-rapids"],
  ["vmx", vmx, "sapphire-rapids"],
];

/** RAX to RDI without RSP and RBP, and R8. */
const SEEN: readonly number[] = [0, 1, 2, 3, 6, 7, 8];

/** What `code` leaves in registers, how many instructions it takes, and how many a processor emulates. */
function run(
  vendor: () => Plugin,
  model: CpuModel,
  code: readonly number[],
  entry: FlatEntry,
): { registers: string[]; instructions: number; emulated: number } {
  using vm: Vm = createVmSync({
    memory: 2 ** 21,
    plugins: [cpu({ model }), vendor(), debugExit()],
    images: [flat(new Uint8Array([...code, 0xb0, 0x00, 0xe6, 0xf4]), {
      address: 0x8000,
      entry,
      registers: { rsp: 0x7000n },
    })],
  });
  const { spare } = vm.slots.ref(processorsSlot).current;
  let emulated = 0;
  const { enterGuest, run: runProcessor } = spare;
  spare.enterGuest = (...operands) => {
    emulated++;
    enterGuest.apply(spare, operands);
  };
  spare.run = (budget) => {
    emulated++;
    return runProcessor.call(spare, budget);
  };
  const result = vm.runSync({ instructions: 20_000 });
  assertEquals(result.reason, "exit-code", JSON.stringify(result));
  const { regs } = vm.vcpus[0]!;
  return {
    registers: SEEN.map((index) => regs.get(index).toString(16)),
    instructions: result.instructions,
    emulated,
  };
}

/** Runs `code` everywhere; hypervisors emulate `most` of it. */
function compare(
  code: readonly number[],
  entry: FlatEntry,
  most: number,
  registers: readonly string[],
): void {
  let instructions: number | undefined;
  for (const [name, vendor, model] of HOSTS) {
    const outcome = run(vendor, model, code, entry);
    instructions ??= outcome.instructions;
    const emulated = vendor === metal ? 0 : most;
    assertEquals(outcome, { registers: [...registers], instructions, emulated }, name);
  }
}

const bytes32 = (value: number): number[] =>
  [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
const store = (
  at: number,
  value: number,
): number[] => [0xc7, 0x05, ...bytes32(at), ...bytes32(value)];

/** Page table at 11000h: the first 4 MiB by 4 KiB, one to one. Paging goes on: one emulated instruction. */
const PAGING: readonly number[] = [
  ...[0xb8, 0x03, 0x00, 0x00, 0x00, 0xb9, 0x00, 0x04, 0x00, 0x00], // mov eax, 3; mov ecx, 1024
  ...[0xbf, 0x00, 0x10, 0x01, 0x00], // mov edi, 11000h
  ...[0xab, 0x05, 0x00, 0x10, 0x00, 0x00, 0xe2, 0xf8], // stosd; add eax, 1000h; loop
  ...store(0x1_0000, 0x1_1003),
  ...[0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xd8], // mov cr3, 10000h
  ...[0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0], // CR0.PG
];
/** Where the page at 40000h, a global one, is, and whether it can be written. */
const place = (page: number, flags: number): number[] => store(0x1_1100, page | 0x100 | flags);
const PAGES: readonly number[] = [
  ...store(0x2_0000, 0x1111_1111),
  ...store(0x2_1000, 0x2222_2222),
  ...place(0x2_0000, 3),
  ...[0x0f, 0x20, 0xe0, 0x0c, 0x80, 0x0f, 0x22, 0xe0], // CR4.PGE
  ...[0x8b, 0x1d, ...bytes32(0x4_0000)], // mov ebx, [40000h]
  ...place(0x2_1000, 3),
];
const READ_ESI = [0x8b, 0x35, ...bytes32(0x4_0000)];

Deno.test("a change of CR4.PGE drops global translations", () => {
  compare(
    [
      ...[...PAGING, ...PAGES],
      ...[0x0f, 0x20, 0xe1, 0x80, 0xe1, 0x7f, 0x0f, 0x22, 0xe1], // ecx = cr4 without PGE
      ...[0x80, 0xc9, 0x80, 0x0f, 0x22, 0xe1], // and with it
      ...READ_ESI,
    ],
    { mode: "protected32" },
    1,
    ["0", "80", "0", "11111111", "22222222", "12000", "0"],
  );
});

Deno.test("so does one that comes with another bit, which is emulated", () => {
  compare(
    [
      ...[...PAGING, ...PAGES],
      ...[0x0f, 0x20, 0xe1, 0x81, 0xf1, 0x90, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe1], // PGE and PSE
      ...READ_ESI,
    ],
    { mode: "protected32" },
    2,
    ["0", "10", "0", "11111111", "22222222", "12000", "0"],
  );
});

Deno.test("a change of CR0.WP counts for the next access", () => {
  compare(
    [
      ...[...PAGING, ...PAGES],
      ...place(0x2_0000, 1),
      ...[0x0f, 0x20, 0xc1, 0x81, 0xe1, 0xff, 0xff, 0xfe, 0xff, 0x0f, 0x22, 0xc1], // WP off
      ...[0x0f, 0x01, 0x3d, ...bytes32(0x4_0000)], // invlpg [40000h]
      ...store(0x4_0000, 0x3333_3333),
      ...[0x81, 0xc9, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xc1], // and on
      ...[0x0f, 0x20, 0xc2], // mov edx, cr0
      ...READ_ESI,
      ...[0x8b, 0x3d, ...bytes32(0x2_0000)], // mov edi, [20000h]
    ],
    { mode: "protected32" },
    1,
    ["0", "80010011", "80010011", "11111111", "33333333", "33333333", "0"],
  );
});

Deno.test("moves of 64-bit code to CR0, CR4 and CR8 leave what was moved", () => {
  compare(
    [
      ...[0x0f, 0x20, 0xc0, 0x48, 0x89, 0xc3], // mov rax, cr0; mov rbx, rax
      ...[0x35, 0x2e, 0x00, 0x05, 0x00], // xor eax, 5002Eh: MP, EM, TS, NE, WP, AM
      ...[0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc1], // mov cr0, rax; mov rcx, cr0
      ...[0x48, 0x31, 0xd9, 0x0f, 0x22, 0xc3], // xor rcx, rbx; mov cr0, rbx
      ...[0x0f, 0x20, 0xe0, 0x48, 0x89, 0xc3], // mov rax, cr4; mov rbx, rax
      ...[0x35, 0x4c, 0x07, 0x00, 0x00], // xor eax, 74Ch: TSD, DE, MCE, PCE, OSFXSR, OSXMMEXCPT
      ...[0x0f, 0x22, 0xe0, 0x0f, 0x20, 0xe2], // mov cr4, rax; mov rdx, cr4
      ...[0x48, 0x31, 0xda, 0x0f, 0x22, 0xe3], // xor rdx, rbx; mov cr4, rbx
      ...[0xb8, 0x05, 0x00, 0x00, 0x00], // mov eax, 5
      ...[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc6], // mov cr8, rax; mov rsi, cr8
      ...[0x31, 0xc0, 0x44, 0x0f, 0x22, 0xc0], // xor eax, eax; mov cr8, rax
      ...[0x44, 0x0f, 0x20, 0xc7, 0x31, 0xdb], // mov rdi, cr8; xor ebx, ebx
    ],
    { mode: "long64" },
    0,
    ["0", "5002e", "74c", "0", "5", "0", "0"],
  );
});
