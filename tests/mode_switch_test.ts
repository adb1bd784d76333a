/** What a guest changes in its mode takes effect at once, and in full, whoever carries it out. */
import { assertEquals } from "@std/assert";
import { createVm, type Plugin, type Vm } from "../core/mod.ts";
import { cpu, type CpuModel, type Tier } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";
import { code, dword } from "./silicon/code.ts";

const CODE = 0x1_0000;
const DIRECTORY = 0x2_0000;
const TABLE = 0x2_1000;
const TOUCHED = 0x3_0000;
const PRESENT_WRITABLE = 3;
const LARGE = 0x80;
const ACCESSED_DIRTY = 0x60;

const VENDORS: readonly (readonly [string, () => Plugin, CpuModel])[] = [
  ["metal", metal, "zen4"],
  ["svm", svm, "zen4"],
  ["vmx", vmx, "sapphire-rapids"],
];

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: no translation from before paging was switched on is used behind it`, async () => {
    const program = code(
      [0xb8, ...dword(DIRECTORY)],
      "0f 22 d8", // mov cr3, eax
      [0xa3, ...dword(TOUCHED)], // mov [TOUCHED], eax
      "0f 20 c0 0d 00 00 00 80 0f 22 c0", // mov eax, cr0; or eax, CR0.PG; mov cr0, eax
      [0xa3, ...dword(TOUCHED)],
      "f4",
    );
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor()],
      images: [
        flat(Uint8Array.from(program), { address: CODE, entry: { mode: "protected32" } }),
      ],
    });
    vm.memory.writeU32(DIRECTORY, TABLE | PRESENT_WRITABLE);
    for (let page = 0; page < 256; page++) {
      vm.memory.writeU32(TABLE + 4 * page, page << 12 | PRESENT_WRITABLE);
    }
    const { reason } = await vm.run({ instructions: 100 });
    assertEquals(reason, "halted");
    const entry = vm.memory.readU32(TABLE + 4 * (TOUCHED >> 12));
    assertEquals(entry & ACCESSED_DIRTY, ACCESSED_DIRTY);
  });
}

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: what a null selector leaves is not usable in real mode either, until it is loaded`, async () => {
    const load = "31 c0 8e e0"; // xor ax, ax; mov fs, ax
    const use = "64 a0 00 00 f4"; // mov al, fs:[0]; hlt
    for (const [text, end] of [[use, "shutdown"], [load + "0f a2" + use, "halted"]] as const) {
      using vm = await createVm({
        memory: 2 ** 20,
        plugins: [cpu({ model }), vendor()],
        images: [flat(Uint8Array.from(code(text)))],
      });
      const vcpu = vm.vcpus[0]!;
      const state = vm.vendor.current.getSystemState(vcpu);
      // As a return to an outer ring leaves it, which keeps the limit. #GP has no handler.
      state.fs = { selector: 0, base: 0n, limit: 0xffff_ffff, attributes: 0 };
      state.idt = { base: 0n, limit: 0 };
      vm.vendor.current.setSystemState(vcpu, state);
      const { reason } = await vm.run({ instructions: 100 });
      assertEquals(reason, end);
    }
  });
}

for (const [name, vendor, model] of VENDORS) {
  Deno.test(`${name}: a state taken behind SYSRET has the CPL in SS`, async () => {
    const target = CODE + 0x100;
    // mov ecx, target; mov r11d, 2; sysretq
    const program = code([0xb9, ...dword(target)], "41 bb 02 00 00 00 48 0f 07");
    using vm = await createVm({
      memory: 2 ** 20,
      plugins: [cpu({ model }), vendor()],
      images: [flat(Uint8Array.from(program), { address: CODE, entry: { mode: "long64" } })],
    });
    const vcpu = vm.vcpus[0]!;
    const { current } = vm.vendor;
    const state = current.getSystemState(vcpu);
    state.efer |= 1n;
    state.star = 0x1bn << 48n;
    // As if an interrupt had come from ring 3: SS is null, and not usable.
    state.ss = { selector: 0, base: 0n, limit: 0, attributes: 0 };
    current.setSystemState(vcpu, state);
    await vm.run({ instructions: 3 });
    assertEquals(vcpu.regs.rip, BigInt(target));
    const { cs, ss } = current.getSystemState(vcpu);
    assertEquals([cs.selector, ss.selector], [0x2b, 0x23]);
    assertEquals((ss.attributes >> 5) & 3, 3);
  });
}

/** Goes back and forth between 64-bit code at `wide` and 32-bit code at `narrow`, 08h and 10h their selectors. */
async function switching(
  tier: Tier,
  memory: number,
  parts: ReadonlyMap<number, number[]>,
): Promise<Vm> {
  const program = new Uint8Array(0x200);
  for (const [at, bytes] of parts) program.set(bytes, at - CODE);
  const vm = await createVm({
    memory,
    plugins: [cpu({ model: "zen4", tier }), metal()],
    images: [flat(program, { address: CODE, entry: { mode: "long64" } })],
  });
  const descriptors = [[0, 0], [0xffff, 0x00af9b00], [0xffff, 0x00cf9b00], [0xffff, 0x00cf9300]];
  for (const [k, [low, high]] of descriptors.entries()) {
    vm.memory.writeU32(GDT + 8 * k, low!);
    vm.memory.writeU32(GDT + 8 * k + 4, high!);
  }
  const vcpu = vm.vcpus[0]!;
  const state = vm.vendor.current.getSystemState(vcpu);
  state.gdt = { base: BigInt(GDT), limit: 8 * descriptors.length - 1 };
  vm.vendor.current.setSystemState(vcpu, state);
  vcpu.regs.rsp = BigInt(GDT);
  return vm;
}

const ROUNDS = 20_000;
const GDT = 0x2_0000;
const WIDE = CODE + 0x40, NARROW = CODE + 0x80;

for (const tier of [1, 2] as const) {
  Deno.test(`flags of a 64-bit comparison are seen behind a far jump to 32-bit code, tier ${tier}`, async () => {
    using vm = await switching(
      tier,
      2 ** 20,
      new Map([
        // mov rax, 1_0000_0005h; mov ebx, 5; xor edx, edx; xor esi, esi; mov ecx, ROUNDS; jmp WIDE
        [CODE, code("48b80500000001000000 bb05000000 31d2 31f6", [0xb9, ...dword(ROUNDS)], "eb26")],
        // push 10h; push NARROW; cmp rax, rbx; retfq
        [WIDE, code("6a10 68", dword(NARROW), "4839d8 48cb")],
        // mov edi, 1; jmp again; again: setz dl; add esi, edx; sub edi, 1; jae again
        // dec ecx; jz end; jmp 08h:WIDE; end: hlt
        [
          NARROW,
          code("bf01000000 eb00 0f94c2 01d6 83ef01 73f6 49 7407 ea", dword(WIDE), "0800 f4"),
        ],
      ]),
    );
    const { reason } = await vm.run({ instructions: 20 * ROUNDS });
    assertEquals(reason, "halted");
    const { rcx, rsi } = vm.vcpus[0]!.regs;
    // ZF is looked at twice a round, and is set the second time.
    assertEquals([rcx, rsi], [0n, BigInt(ROUNDS)]);
  });

  Deno.test(`32-bit code finds nothing where 64-bit code has been above 4 GiB, tier ${tier}`, async () => {
    const DATA = 0x3_0000, ABOVE = 0x20_0000, TABLES = 0x4_0000;
    using vm = await switching(
      tier,
      2 ** 22,
      new Map([
        // mov rdi, 1_0000_0000h + DATA; xor esi, esi; mov ecx, ROUNDS; jmp WIDE
        [CODE, code("48bf", dword(DATA), dword(1), "31f6", [0xb9, ...dword(ROUNDS)], "eb2d")],
        // add [rdi], ecx; add eax, [rdi]; push 10h; push NARROW; retfq
        [WIDE, code("010f 0307 6a10 68", dword(NARROW), "48cb")],
        // mov eax, 18h; mov ds, eax; add esi, [DATA]; mov [DATA + 4], esi; dec ecx; jz end; jmp 08h:WIDE; end: hlt
        [
          NARROW,
          code(
            "b818000000 8ed8 0335",
            dword(DATA),
            "8935",
            dword(DATA + 4),
            "49 7407 ea",
            dword(WIDE),
            "0800 f4",
          ),
        ],
      ]),
    );
    // Large pages: the first 2 MiB as they are, and ABOVE from 4 GiB on.
    vm.memory.writeU32(TABLES, TABLES + 0x1000 | PRESENT_WRITABLE);
    vm.memory.writeU32(TABLES + 0x1000, TABLES + 0x2000 | PRESENT_WRITABLE);
    vm.memory.writeU32(TABLES + 0x1000 + 4 * 8, TABLES + 0x3000 | PRESENT_WRITABLE);
    vm.memory.writeU32(TABLES + 0x2000, LARGE | PRESENT_WRITABLE);
    vm.memory.writeU32(TABLES + 0x3000, ABOVE | LARGE | PRESENT_WRITABLE);
    const { current } = vm.vendor;
    const state = current.getSystemState(vm.vcpus[0]!);
    state.cr3 = BigInt(TABLES);
    current.setSystemState(vm.vcpus[0]!, state);
    vm.memory.writeU32(DATA, 1);
    const { reason } = await vm.run({ instructions: 20 * ROUNDS });
    assertEquals(reason, "halted");
    assertEquals(vm.vcpus[0]!.regs.rsi, BigInt(ROUNDS));
    assertEquals(vm.memory.readU32(DATA + 4), ROUNDS);
    assertEquals(vm.memory.readU32(DATA + ABOVE + 4), 0);
  });
}
