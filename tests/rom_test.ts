/**
 * Code in a ROM at the reset vector: it runs from there, reads itself, and cannot write itself.
 */

import { assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { firmware } from "../plugins/firmware/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { serial } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const VENDORS: Readonly<Record<string, () => Plugin[]>> = {
  metal: () => [cpu(), metal()],
  svm: () => [cpu(), svm()],
  vmx: () => [cpu({ model: "sapphire-rapids" }), vmx()],
};

const SIZE = 0x1_0000;

/** Prints the byte at CS:[BX], in the ROM: mov al, cs:[bx]; mov dx, 3f8h; out dx, al. */
const PRINT = [0x2e, 0x8a, 0x07, 0xba, 0xf8, 0x03, 0xee];

/** A ROM whose code at F000:0000 tries each way to write and prints what is there after each. */
function rom(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  const code = [
    ...[0xbb, 0x00, 0x40], // mov bx, 4000h
    ...PRINT,
    ...[0x2e, 0xc6, 0x07, 0x58], // mov byte cs:[bx], 'X'
    ...PRINT,
    ...[0x2e, 0xfe, 0x07], // inc byte cs:[bx]
    ...PRINT,
    ...[0xb0, 0x58, 0x2e, 0x86, 0x07], // mov al, 'X'; xchg cs:[bx], al
    ...PRINT,
    ...[0xf0, 0x2e, 0x83, 0x07, 0x01], // lock add word cs:[bx], 1
    ...PRINT,
    // Across the end of a page: what is before it is ROM, too.
    ...[0xbb, 0xff, 0x4f, 0x2e, 0xc7, 0x07, 0x58, 0x58], // mov bx, 4fffh; mov word cs:[bx], 'XX'
    ...PRINT,
    // The copy below 1 MiB is RAM: mov ax, f000h; mov ds, ax; mov bx, 4000h; inc byte [bx]; mov al, [bx]
    ...[0xb8, 0x00, 0xf0, 0x8e, 0xd8, 0xbb, 0x00, 0x40, 0xfe, 0x07, 0x8a, 0x07, 0xee],
    ...[0xb0, 0x00, 0xe6, 0xf4, 0xf4], // mov al, 0; out f4h, al; hlt
  ];
  bytes.set(code);
  bytes[0x4000] = 0x61;
  bytes[0x4fff] = 0x62;
  // The reset vector: a near jump, which stays where CS is after RESET.
  bytes.set([0xe9, 0x0d, 0x00], 0xfff0);
  return bytes;
}

for (const [name, vendor] of Object.entries(VENDORS)) {
  Deno.test(`${name}: a ROM runs from the reset vector and cannot be written`, async () => {
    let text = "";
    const output = (bytes: Uint8Array) => void (text += new TextDecoder().decode(bytes));
    using vm = await createVm({
      memory: 2 ** 21,
      plugins: [...vendor(), debugExit(), serial({ output }), firmware(rom())],
    });
    const result = await vm.run({ instructions: 10_000 });
    assertEquals([result.reason, text], ["exit-code", "aaaaabb"]);
    assertEquals(vm.memory.readU8(2 ** 32 - SIZE + 0x4000), 0x61);
    vm.reset();
    text = "";
    assertEquals([(await vm.run({ instructions: 10_000 })).reason, text], ["exit-code", "aaaaabc"]);
  });
}
