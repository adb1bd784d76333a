/**
 * Accesses to device memory by plain moves: hypervisors carry them out by themselves, and nobody can tell.
 */

import { assert, assertEquals } from "@std/assert";
import { createVmSync, observeExitHook, type Plugin, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel, processorsSlot } from "../plugins/cpu/mod.ts";
import { flat, type FlatEntry } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const MEMORY = 2 ** 21;
/** Where device memory begins, right behind RAM. */
const DEVICE = MEMORY;
const DEVICE_BYTES = 0x3000;
const CODE = 0x8000;

const HOSTS: readonly (readonly [name: string, vendor: () => Plugin, model: CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["metal, Intel", metal, "sapphire-rapids"],
  ["vmx", vmx, "sapphire-rapids"],
];

interface Outcome {
  readonly accesses: readonly string[];
  readonly registers: readonly bigint[];
  readonly instructions: number;
  /** How often the hypervisor had a processor carry an instruction out. */
  readonly emulated: number;
}

/** A device that answers reads with something of all bits, and tells what it sees, and when. */
function device(vm: () => Vm, accesses: string[]): Plugin {
  const tell = (what: string): void => {
    const [vcpu] = vm().vcpus;
    accesses.push(`${what} at RIP ${vcpu!.regs.rip.toString(16)}h, ${vcpu!.instructions}`);
  };
  const hex = (value: number): string => (value >>> 0).toString(16);
  let next = 0x9c83_f1e5;
  return {
    name: "device",
    version: "1.0.0",
    setup(ctx) {
      ctx.registerMmio({
        name: "device",
        base: DEVICE,
        length: DEVICE_BYTES,
        read(offset, size) {
          next = (Math.imul(next, 0x0019_660d) + 0x3c6e_f35f) | 0x8080_8080;
          tell(`read ${size} at ${hex(offset)}: ${hex(next)}`);
          return next >>> 0;
        },
        write: (offset, size, value) => tell(`write ${size} at ${hex(offset)}: ${hex(value)}`),
      });
      ctx.registerPio({
        name: "end",
        base: 0xf4,
        length: 1,
        write: () => ctx.vm.stop({ reason: "exit-code", code: 1 }),
      });
    },
  };
}

function run(
  vendor: () => Plugin,
  model: CpuModel,
  code: readonly number[],
  entry: FlatEntry,
): Outcome {
  const accesses: string[] = [];
  using vm: Vm = createVmSync({
    memory: MEMORY,
    plugins: [cpu({ model }), vendor(), device(() => vm, accesses)],
    images: [flat(new Uint8Array([...code, 0xe6, 0xf4]), {
      address: CODE,
      entry,
      registers: {
        ...{ rax: 0x8182_8384_8586_8788n, rcx: 3n, rdx: 0xf1f2_f3f4_f5f6_f7f8n },
        ...{ rbx: BigInt(DEVICE), rsi: 0x10n, rdi: BigInt(DEVICE + 0x800), rsp: 0x7000n },
        ...{ r9: BigInt(DEVICE), r10: 0x0102_0304_0506_0708n },
      },
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
  const result = vm.runSync({ instructions: 10_000 });
  assertEquals(result.reason, "exit-code", JSON.stringify(result));
  const [vcpu] = vm.vcpus;
  const registers = Array.from({ length: 34 }, (_, index) => vcpu!.regs.get(index));
  return { accesses, registers, instructions: result.instructions, emulated };
}

/** Runs `code` behind `before` everywhere; for `code` hypervisors have a processor carry out `most`. */
function compare(
  code: readonly number[],
  entry: FlatEntry,
  most: number,
  before: readonly number[] = [],
): void {
  let expected: Omit<Outcome, "emulated"> | undefined;
  for (const [name, vendor, model] of HOSTS) {
    const { emulated, ...outcome } = run(vendor, model, [...before, ...code], entry);
    assert(outcome.accesses.length > 0);
    expected ??= outcome;
    assertEquals(outcome, expected, name);
    const first = run(vendor, model, before, entry).emulated;
    assertEquals(emulated - first, vendor === metal ? 0 : most, name);
  }
}

/** Moves that code of 32 and 64 bits has in common. */
const MOVES: readonly number[] = [
  ...[0x8b, 0x03], // mov eax, [ebx]
  ...[0x89, 0x43, 0x04], // mov [ebx+4], eax
  ...[0x66, 0x8b, 0x53, 0x08], // mov dx, [ebx+8]
  ...[0x66, 0x89, 0x53, 0x0a], // mov [ebx+10], dx
  ...[0x8a, 0x63, 0x0c], // mov ah, [ebx+12]
  ...[0x88, 0x63, 0x0d], // mov [ebx+13], ah
  ...[0x8a, 0x43, 0x0e], // mov al, [ebx+14]
  ...[0x88, 0x6b, 0x0f], // mov [ebx+15], ch
  ...[0xc6, 0x43, 0x10, 0xf0], // mov byte [ebx+16], F0h
  ...[0x66, 0xc7, 0x43, 0x12, 0x34, 0xf2], // mov word [ebx+18], F234h
  ...[0xc7, 0x44, 0x8b, 0x14, 0x78, 0x56, 0x34, 0xf2], // mov dword [ebx+ecx*4+20], F2345678h
  ...[0x0f, 0xb6, 0x54, 0x33, 0x20], // movzx edx, byte [ebx+esi+32]
  ...[0x0f, 0xb7, 0x97, 0x00, 0xf8, 0xff, 0xff], // movzx edx, word [edi-800h]
  ...[0x0f, 0xbe, 0x2b], // movsx ebp, byte [ebx]
  ...[0x0f, 0xbf, 0x6b, 0x02], // movsx ebp, word [ebx+2]
  ...[0x66, 0x0f, 0xbe, 0x43, 0x05], // movsx ax, byte [ebx+5]
  ...[0x0f, 0xc3, 0x53, 0x40], // movnti [ebx+64], edx
  ...[0x26, 0x8b, 0x43, 0x44], // mov eax, es:[ebx+68]
  ...[0x8b, 0x43, 0x01], // mov eax, [ebx+1]
];

const MOVES_32: readonly number[] = [
  ...[0xa1, 0x00, 0x00, 0x20, 0x00], // mov eax, [200000h]
  ...[0xa2, 0x07, 0x00, 0x20, 0x00], // mov [200007h], al
];

const MOVES_64: readonly number[] = [
  ...[0x48, 0x8b, 0x03], // mov rax, [rbx]
  ...[0x48, 0x89, 0x53, 0x10], // mov [rbx+16], rdx
  ...[0x48, 0xc7, 0x43, 0x18, 0x01, 0x00, 0x00, 0x80], // mov qword [rbx+24], -7FFFFFFFh
  ...[0x48, 0x63, 0x43, 0x20], // movsxd rax, dword [rbx+32]
  ...[0x48, 0x0f, 0xb6, 0x53, 0x24], // movzx rdx, byte [rbx+36]
  ...[0x48, 0x0f, 0xbe, 0x53, 0x25], // movsx rdx, byte [rbx+37]
  ...[0x48, 0x0f, 0xbf, 0x53, 0x26], // movsx rdx, word [rbx+38]
  ...[0x4d, 0x8b, 0x51, 0x28], // mov r10, [r9+40]
  ...[0x45, 0x88, 0x51, 0x30], // mov [r9+48], r10b
  ...[0x41, 0x88, 0x71, 0x31], // mov [r9+49], sil
  ...[0x67, 0x8b, 0x43, 0x34], // mov eax, [ebx+52]
  ...[0x8b, 0x05, 0x02, 0x00, 0x00, 0x00, 0xeb, 0x00], // mov eax, [rip+2] (RAM); jmp +0
  ...[0x48, 0xa1, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00], // mov rax, [200000h]
  ...[0x48, 0x0f, 0xc3, 0x53, 0x48], // movnti [rbx+72], rdx
];

Deno.test("moves of 64-bit code reach devices as on the bare processor", () => {
  compare([...MOVES, ...MOVES_64], { mode: "long64" }, 0);
});

Deno.test("moves relative to RIP do, too", () => {
  const displacement = DEVICE + 0x100 - (CODE + 6);
  const bytes = [0, 8, 16, 24].map((shift) => (displacement >> shift) & 0xff);
  compare([0x8b, 0x05, ...bytes], { mode: "long64" }, 0);
});

Deno.test("moves of 32-bit code without paging do, too", () => {
  compare([...MOVES, ...MOVES_32], { mode: "protected32" }, 0);
});

/** Maps the first 4 MiB by 4 KiB and the rest by 4 MiB, one to one; changes ESP alone. */
const PAGING: readonly number[] = [
  0x60, // pusha
  ...[0xbf, 0x00, 0x00, 0x01, 0x00, 0xb8, 0x83, 0x00, 0x00, 0x00], // mov edi, 10000h; mov eax, 83h
  ...[0xb9, 0x00, 0x04, 0x00, 0x00], // mov ecx, 1024
  ...[0xab, 0x05, 0x00, 0x00, 0x40, 0x00, 0xe2, 0xf8], // stosd; add eax, 400000h; loop
  ...[0xb8, 0x03, 0x00, 0x00, 0x00, 0xb9, 0x00, 0x04, 0x00, 0x00], // mov eax, 3; mov ecx, 1024
  ...[0xab, 0x05, 0x00, 0x10, 0x00, 0x00, 0xe2, 0xf8], // stosd; add eax, 1000h; loop
  ...[0xc7, 0x05, 0x00, 0x00, 0x01, 0x00, 0x03, 0x10, 0x01, 0x00], // mov dword [10000h], 11003h
  ...[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x10, 0x0f, 0x22, 0xe0], // CR4.PSE
  ...[0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f, 0x22, 0xd8], // mov cr3, 10000h
  ...[0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0], // CR0.PG
  0x61, // popa
];

Deno.test("moves of 32-bit code with paging do, too", () => {
  compare(MOVES, { mode: "protected32" }, 0, PAGING);
});

Deno.test("what is no plain move, or more than one, is carried out by a processor", () => {
  const code = [
    ...[0x09, 0x03], // or [rbx], eax
    ...[0x87, 0x53, 0x04], // xchg [rbx+4], edx
    ...[0x48, 0x8b, 0x43, 0xfc], // mov rax, [rbx-4]: half of it is RAM
    ...[0x48, 0x89, 0x83, 0xfd, 0x0f, 0x00, 0x00], // mov [rbx+0FFDh], rax: on two pages
    ...[0xff, 0x33], // push [rbx]
    ...[0x85, 0x43, 0x08], // test [rbx+8], eax
  ];
  compare(code, { mode: "long64" }, 6);
});

Deno.test("a move that is single-stepped traps behind", () => {
  // The IDT has no entries: the trap is a shutdown, behind the access and nothing else.
  const code = [
    ...[0x9c, 0x66, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x9d], // pushf; or word [rsp], 100h; popf
    ...[0x8b, 0x03, 0x89, 0x43, 0x04], // mov eax, [rbx]; mov [rbx+4], eax
  ];
  for (const [name, vendor, model] of HOSTS) {
    const accesses: string[] = [];
    let reasons = 0;
    using vm: Vm = createVmSync({
      memory: MEMORY,
      plugins: [cpu({ model }), vendor(), device(() => vm, accesses), {
        name: "watch",
        version: "1.0.0",
        setup: (ctx) => void ctx.on(observeExitHook, () => void reasons++),
      }],
      images: [flat(new Uint8Array(code), {
        address: CODE,
        entry: { mode: "long64" },
        registers: { rbx: BigInt(DEVICE), rsp: 0x7000n },
      })],
    });
    assertEquals(vm.runSync({ instructions: 100 }).reason, "shutdown", name);
    assertEquals(accesses.length, 1, name);
    assertEquals(vm.vcpus[0]!.regs.rip, BigInt(CODE + 10), name);
  }
});
