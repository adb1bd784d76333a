import { assertEquals } from "@std/assert";
import { disassemble } from "./disassemble.ts";

const bytesOf = (hex: string) =>
  new Uint8Array(hex.split(" ").map((byte) => Number.parseInt(byte, 16)));

/** Code size, bytes, text; RIP is 1000h. Encodings are those of APM vol. 3 and SDM vol. 2. */
const CASES: readonly (readonly [code: 16 | 32 | 64, bytes: string, text: string])[] = [
  [64, "90", "nop"],
  [64, "0f 0b", "ud2"],
  [64, "f4", "hlt"],
  [64, "0f a2", "cpuid"],
  [64, "48 89 c3", "mov rbx, rax"],
  [64, "44 88 f8", "mov al, r15b"],
  [64, "88 e0", "mov al, ah"],
  [64, "40 88 e0", "mov al, spl"],
  [64, "66 41 89 c0", "mov r8w, ax"],
  [64, "48 8b 44 d8 f0", "mov rax, [rax+rbx*8-10h]"],
  [64, "c7 04 24 0a 00 00 00", "mov dword [rsp], 0ah"],
  [64, "48 c7 c0 f0 ff ff ff", "mov rax, -10h"],
  [64, "48 b8 f0 ff ff ff ff ff ff ff", "mov rax, 0fffffffffffffff0h"],
  [64, "48 83 e4 f0", "and rsp, -10h"],
  [64, "8b 05 10 00 00 00", "mov eax, [1016h]"],
  [64, "65 48 8b 04 25 28 00 00 00", "mov rax, gs:[28h]"],
  [64, "67 8b 00", "mov eax, [eax]"],
  [64, "48 8d 05 00 00 00 80", "lea rax, [0ffffffff80001007h]"],
  [64, "e8 fb ff ff ff", "call 1000h"],
  [64, "ff d0", "call rax"],
  [64, "ff 15 00 01 00 00", "call qword [1106h]"],
  [64, "ff 2c 24", "jmp far [rsp]"],
  [64, "eb fe", "jmp 1000h"],
  [64, "74 10", "je 1012h"],
  [64, "0f 87 00 10 00 00", "ja 2006h"],
  [64, "e3 00", "jrcxz 1002h"],
  [64, "67 e3 00", "jecxz 1003h"],
  [64, "0f 94 c0", "sete al"],
  [64, "0f 4e c1", "cmovle eax, ecx"],
  [64, "f3 48 a5", "rep movsq"],
  [64, "f3 a6", "repe cmpsb"],
  [64, "f2 ae", "repne scasb"],
  [64, "6f", "outsd"],
  [64, "48 6f", "outsd"],
  [64, "f0 48 0f b1 0b", "lock cmpxchg [rbx], rcx"],
  [64, "d3 20", "shl dword [rax], cl"],
  [64, "d1 f8", "sar eax, 1"],
  [64, "0f 20 d8", "mov rax, cr3"],
  [64, "44 0f 22 c0", "mov cr8, rax"],
  [64, "0f 23 f8", "mov dr7, rax"],
  [64, "0f 01 1d 00 00 00 00", "lidt [1007h]"],
  [64, "0f 01 d8", "vmrun"],
  [64, "0f 00 d8", "ltr ax"],
  [64, "8e d8", "mov ds, ax"],
  [64, "8c 18", "mov [rax], ds"],
  [64, "0f a0", "push fs"],
  [64, "e6 f4", "out 0f4h, al"],
  [64, "ed", "in eax, dx"],
  [64, "48 cf", "iretq"],
  [64, "48 98", "cdqe"],
  [64, "48 99", "cqo"],
  [64, "c8 10 00 01", "enter 10h, 1h"],
  [64, "d8 c1", "fadd st, st(1)"],
  [64, "de e9", "fsubp st(1), st"],
  [64, "dc 43 10", "fadd qword [rbx+10h]"],
  [64, "db 2b", "fld tword [rbx]"],
  [64, "dd 33", "fnsave [rbx]"],
  [64, "d9 e8", "fld1"],
  [64, "41 d9 c2", "fld st(2)"],
  [64, "0f fc c1", "paddb mm0, mm1"],
  [64, "45 0f fc 4b 10", "paddb mm1, [r11+10h]"],
  [64, "0f 71 d1 03", "psrlw mm1, 3h"],
  [64, "0f 7e c8", "movd eax, mm1"],
  [64, "f3 0f d6 c1", "movq2dq xmm0, mm1"],
  [64, "c3", "ret"],
  [64, "6a ff", "push -1h"],
  [64, "0f ba e0 05", "bt eax, 5h"],
  [64, "0f a4 c8 03", "shld eax, ecx, 3h"],
  [64, "66 0f 6f 44 24 10", "movdqa xmm0, [rsp+10h]"],
  [64, "f2 44 0f 10 0f", "movsd xmm9, qword [rdi]"],
  [64, "66 48 0f 6e c8", "movq xmm1, rax"],
  [64, "66 0f 70 ca 1b", "pshufd xmm1, xmm2, 1bh"],
  [64, "66 0f 73 da 04", "psrldq xmm2, 4h"],
  [64, "48 0f ae 00", "fxsave64 [rax]"],
  [64, "c5 f4 58 c2", "vaddps ymm0, ymm1, ymm2"],
  [64, "c5 f3 58 07", "vaddsd xmm0, xmm1, qword [rdi]"],
  [64, "c4 c1 f9 6e c7", "vmovq xmm0, r15"],
  [64, "c4 e3 7d 19 c1 01", "vextractf128 xmm1, ymm0, 1h"],
  [64, "c4 e3 71 4a c2 30", "vblendvps xmm0, xmm1, xmm2, xmm3"],
  [64, "c4 e2 6d 90 04 8f", "vpgatherdd ymm0, dword [rdi+ymm1*4], ymm2"],
  [64, "c4 e2 f1 b8 c2", "vfmadd231pd xmm0, xmm1, xmm2"],
  [32, "a1 78 56 34 12", "mov eax, [12345678h]"],
  [32, "40", "inc eax"],
  [32, "9a 78 56 34 12 08 00", "call 8h:12345678h"],
  [32, "60", "pushad"],
  [32, "66 b8 34 12", "mov ax, 1234h"],
  [32, "2e 8b 45 08", "mov eax, cs:[ebp+8h]"],
  [16, "8b 46 fe", "mov ax, [bp-2h]"],
  [16, "8b 00", "mov ax, [bx+si]"],
  [16, "ea 00 7c 00 00", "jmp 0h:7c00h"],
  [16, "e9 fd ef", "jmp 0h"],
  [16, "66 0f b6 c0", "movzx eax, al"],
  [16, "c4 1f", "les bx, [bx]"],
];

for (const [code, bytes, text] of CASES) {
  Deno.test(`${code}-bit ${bytes} is ${text}`, () => {
    const array = bytesOf(bytes);
    const exact = disassemble(array, code, 0x1000n);
    assertEquals(exact?.text, text);
    assertEquals(exact?.length, array.length);
    // Neither what follows counts, nor an instruction that is cut off.
    assertEquals(disassemble(new Uint8Array([...array, 0xcc, 0xcc]), code, 0x1000n), exact);
    for (let length = 0; length < array.length; length++) {
      const cut = disassemble(array.subarray(0, length), code, 0x1000n);
      assertEquals(cut?.length === array.length, false);
    }
  });
}

Deno.test("targets of direct branches, in every code size and at every end of the address space", () => {
  const target = (code: 16 | 32 | 64, bytes: string, rip: bigint) =>
    disassemble(bytesOf(bytes), code, rip)?.target;
  assertEquals(target(64, "e8 00 00 00 00", 0xffff_ffff_8000_0000n), 0xffff_ffff_8000_0005n);
  assertEquals(target(64, "eb f0", 0x8n), 0xffff_ffff_ffff_fffan);
  assertEquals(target(32, "eb f0", 0x8n), 0xffff_fffan);
  assertEquals(target(16, "eb f0", 0x8n), 0xfffan);
  assertEquals(target(64, "ff d0", 0n), undefined);
});

Deno.test("what is no instruction has no text", () => {
  for (const bytes of ["0f 24 c0", "06", "f0 90", "f0 01 c0"]) {
    assertEquals(disassemble(bytesOf(bytes), 64, 0n), undefined, bytes);
  }
});
