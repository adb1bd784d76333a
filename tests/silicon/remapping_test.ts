/**
 * What compiled code knows of translations is what the TLB knows: pages of data and of code that are mapped
 * anew, and a page that becomes code.
 */
import { assertEquals } from "@std/assert";
import { Cr4, Save, SvmExit, type Tier } from "../../plugins/cpu/mod.ts";
import { code, dword, hex } from "./code.ts";
import { Lab, refuseOutside } from "./lab.ts";

const TIERS: readonly Tier[] = [1, 2, "auto"];
const PAGE = 0x1000;
const PAGES = 4;
const PROGRAM_AT = 0x10_0000;
const DATA_AT = 0x11_0000;
/** Where the page table that maps the data is mapped itself. */
const TABLE_AT = 0x12_0000;
const STACK_AT = 0x13_0000;
/** Supervisor pages, accessed and dirty. */
const FLAGS = 0x63n;

/** Runs machine code to its INT3 in each tier. */
function runAll(bytes: readonly number[], prepare: (lab: Lab) => void = () => {}): Lab[] {
  return TIERS.map((tier) => {
    const lab = new Lab(refuseOutside(), { tier });
    for (const at of [PROGRAM_AT, DATA_AT, STACK_AT]) lab.map(at, PAGES * PAGE, FLAGS);
    lab.map(TABLE_AT, PAGE, FLAGS);
    lab.memory.writeU64(lab.pte(TABLE_AT), BigInt(lab.pte(DATA_AT) & ~(PAGE - 1)) | FLAGS);
    lab.prepare(64, 0);
    lab.write(PROGRAM_AT, new Uint8Array(bytes));
    lab.set64(Save.RIP, BigInt(PROGRAM_AT));
    lab.setRegister(4, BigInt(STACK_AT + PAGES * PAGE - 64));
    prepare(lab);
    assertEquals(lab.run(10_000_000), BigInt(SvmExit.EXCEPTION + 3));
    return lab;
  });
}

/** Address of the page-table entry for page `k` of the data, as the program sees it. */
const entryAt = (lab: Lab, k: number): number =>
  TABLE_AT + ((lab.pte(DATA_AT) + 8 * k) & (PAGE - 1));

/** Reads two pages again and again, which change places in between; `around` is run before and after that. */
function exchangePages(around: readonly [string, string], cr4: number): void {
  const rounds = 300;
  const steps = 2 * PAGE / 16;
  const lab = new Lab(refuseOutside());
  const [first, second] = [entryAt(lab, 0), entryAt(lab, 1)];
  const bytes = code(
    "31 c0", // xor eax, eax
    "bd",
    dword(rounds), // mov ebp
    "be",
    dword(DATA_AT), // mov esi
    "b9",
    dword(steps), // mov ecx
    "48 8d 04 40", // lea rax, [rax + 2 * rax]
    "48 03 06", // add rax, [rsi]
    "81 c6 10 00 00 00", // add esi, 16
    "ff c9", // dec ecx
    "75 ef", // jnz to the LEA
    around[0],
    "48 8b 3c 25",
    dword(first), // mov rdi, [first]
    "48 8b 14 25",
    dword(second), // mov rdx, [second]
    "48 89 14 25",
    dword(first), // mov [first], rdx
    "48 89 3c 25",
    dword(second), // mov [second], rdi
    "0f 01 3c 25",
    dword(DATA_AT), // invlpg [DATA_AT]
    "0f 01 3c 25",
    dword(DATA_AT + PAGE), // invlpg [DATA_AT + PAGE]
    around[1],
    "ff cd", // dec ebp
    "75", // jnz to the MOV to ESI
    [0xb1 - hex(around.join("")).length],
    "cc",
  );
  const data = new BigUint64Array(PAGES * PAGE / 8);
  for (const k of data.keys()) data[k] = BigInt(k * 12345 + 7);
  let expected = 0n;
  for (let round = 0; round < rounds; round++) {
    for (let step = 0; step < steps; step++) {
      const at = (step * 16) ^ (round & 1 ? PAGE : 0);
      expected = BigInt.asUintN(64, expected * 3n + data[at / 8]!);
    }
  }
  const labs = runAll(bytes, (lab) => {
    lab.write(DATA_AT, new Uint8Array(data.buffer));
    lab.set64(Save.CR4, lab.get64(Save.CR4) | BigInt(cr4));
  });
  for (const [n, lab] of labs.entries()) {
    assertEquals(lab.register(0), expected, `tier ${TIERS[n]}`);
  }
}

Deno.test("a page that is exchanged for another is read anew behind INVLPG", () => {
  exchangePages(["", ""], 0);
});

Deno.test("so it is if other access rights are in force while pages are exchanged", () => {
  exchangePages(["0f 01 cb", "0f 01 ca"], Cr4.SMAP); // STAC, CLAC
});

Deno.test("code is never stale in a page that has been written for long before it became code", () => {
  const rounds = 200;
  const bytes = code(
    "31 db", // xor ebx, ebx
    "b9",
    dword(5000), // mov ecx
    "be",
    dword(DATA_AT), // mov esi
    "89 4e 10", // mov [rsi + 16], ecx
    "89 8e",
    dword(PAGE), // mov [rsi + PAGE], ecx
    "ff c9", // dec ecx
    "75 f3", // jnz to the first store
    // The function at ESI yields an immediate, which changes each time.
    "66 c7 46 05 c3 90", // mov word [rsi + 5], RET; NOP
    "b9",
    dword(rounds), // mov ecx
    "c6 06 b8", // mov byte [rsi], MOV EAX
    "89 4e 01", // mov [rsi + 1], ecx
    "ff d6", // call rsi
    "01 c3", // add ebx, eax
    "ff c9", // dec ecx
    "75 f2", // jnz to the store of the opcode
    "cc",
  );
  for (const [n, lab] of runAll(bytes).entries()) {
    assertEquals(lab.register(3), BigInt(rounds * (rounds + 1) / 2), `tier ${TIERS[n]}`);
  }
});

Deno.test("an indirect call goes where its page is mapped now", () => {
  // Two functions, in two pages that change places every 64 calls.
  const lab = new Lab(refuseOutside());
  const [first, second] = [entryAt(lab, 0), entryAt(lab, 1)];
  const rounds = 2000;
  const bytes = code(
    "31 db", // xor ebx, ebx
    "bd",
    dword(rounds), // mov ebp
    "bf",
    dword(DATA_AT), // mov edi
    "b9 40 00 00 00", // mov ecx, 64
    "ff d7", // call rdi
    "8d 1c 5b", // lea ebx, [rbx + 2 * rbx]
    "01 c3", // add ebx, eax
    "ff c9", // dec ecx
    "75 f5", // jnz to the CALL
    "48 8b 34 25",
    dword(first), // mov rsi, [first]
    "48 8b 14 25",
    dword(second), // mov rdx, [second]
    "48 89 14 25",
    dword(first), // mov [first], rdx
    "48 89 34 25",
    dword(second), // mov [second], rsi
    "0f 01 3f", // invlpg [rdi]
    "ff cd", // dec ebp
    "75 c9", // jnz to the MOV to ECX
    "cc",
  );
  let expected = 0;
  for (let round = 0; round < rounds; round++) {
    for (let k = 0; k < 64; k++) expected = (Math.imul(expected, 3) + 5 + (round & 1)) >>> 0;
  }
  const labs = runAll(bytes, (lab) => {
    lab.write(DATA_AT, new Uint8Array(code("b8 05 00 00 00 c3"))); // mov eax, 5; ret
    lab.write(DATA_AT + PAGE, new Uint8Array(code("b8 06 00 00 00 c3")));
  });
  for (const [n, lab] of labs.entries()) {
    assertEquals(lab.register(3), BigInt(expected), `tier ${TIERS[n]}`);
  }
});

Deno.test("vectors are read from and written to where their page is mapped now", () => {
  const lab = new Lab(refuseOutside());
  const [first, second] = [entryAt(lab, 0), entryAt(lab, 1)];
  const rounds = 200;
  const bytes = code(
    "bd",
    dword(rounds), // mov ebp
    "be",
    dword(DATA_AT), // mov esi
    "b9 80 00 00 00", // mov ecx, 128
    "f3 0f 6f 06", // movdqu xmm0, [rsi]
    "66 0f fe c1", // paddd xmm0, xmm1
    "f3 0f 7f 06", // movdqu [rsi], xmm0
    "66 0f 6f c8", // movdqa xmm1, xmm0
    "83 c6 21", // add esi, 33
    "ff c9", // dec ecx
    "75 e9", // jnz to the load
    "48 8b 3c 25",
    dword(first), // mov rdi, [first]
    "48 8b 14 25",
    dword(second), // mov rdx, [second]
    "48 89 14 25",
    dword(first), // mov [first], rdx
    "48 89 3c 25",
    dword(second), // mov [second], rdi
    "0f 01 3c 25",
    dword(DATA_AT), // invlpg [DATA_AT]
    "0f 01 3c 25",
    dword(DATA_AT + PAGE), // invlpg [DATA_AT + PAGE]
    "ff cd", // dec ebp
    "75 ab", // jnz to the MOV to ESI
    "cc",
  );
  const data = Uint8Array.from({ length: PAGES * PAGE }, (_, k) => k * 37 + (k >> 8));
  const words = new Uint32Array(4);
  const expected = data.slice();
  const view = new DataView(expected.buffer);
  for (let round = 0; round < rounds; round++) {
    const place = (at: number): number => round & 1 && at < 2 * PAGE ? at ^ PAGE : at;
    for (let step = 0; step < 128; step++) {
      for (let k = 0; k < 4; k++) {
        const at = Array.from({ length: 4 }, (_, n) => place(33 * step + 4 * k + n));
        const value = at.reduce((sum, byte, n) => sum + view.getUint8(byte) * 2 ** (8 * n), 0);
        words[k] = value + words[k]!;
        for (const [n, byte] of at.entries()) view.setUint8(byte, words[k]! >>> (8 * n));
      }
    }
  }
  const labs = runAll(bytes, (lab) => {
    lab.write(DATA_AT, data);
    lab.set64(Save.CR4, lab.get64(Save.CR4) | BigInt(Cr4.OSFXSR));
  });
  for (const [n, lab] of labs.entries()) {
    const read = lab.read(DATA_AT, PAGES * PAGE);
    assertEquals(read.findIndex((byte, k) => byte !== expected[k]), -1, `tier ${TIERS[n]}`);
  }
});
