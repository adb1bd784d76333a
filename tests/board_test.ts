/**
 * The board as a whole, under real guest code: serial port, interrupt controllers, debug-exit port and
 * loaders, on the bare processor and under a hypervisor.
 */

import { assertEquals } from "@std/assert";
import { createVm, type Image, type Plugin, type RunResult, type Vm } from "../core/mod.ts";
import { cpu } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { loadImage } from "../plugins/multiboot/mod.ts";
import { pic } from "../plugins/pic/mod.ts";
import { serial, SerialInput, type SerialOptions } from "../plugins/serial/mod.ts";
import { svm } from "../plugins/svm/mod.ts";

const MIB = 2 ** 20;
const VENDORS: Readonly<Record<string, () => Plugin>> = { metal, svm };
const GUESTS = new URL("../examples/guests/", import.meta.url);

/** A VM with the board, and what its guest has printed. */
async function board(
  vendor: () => Plugin,
  image: Image,
  port: SerialOptions = {},
): Promise<{ vm: Vm; printed: () => string }> {
  let text = "";
  const decoder = new TextDecoder();
  const output = (bytes: Uint8Array) => void (text += decoder.decode(bytes, { stream: true }));
  const plugins = [cpu(), vendor(), pic(), debugExit(), serial({ ...port, output })];
  const vm = await createVm({ memory: 16 * MIB, plugins, images: [image] });
  return { vm, printed: () => text };
}

/** How a run ended, in a word. */
function ending(result: RunResult): string {
  return result.reason === "exit-code" ? `code ${result.code}` : result.reason;
}

/** Runs one of the guests; how it ended, and what it printed but for what depends on the machine. */
async function runGuest(vendor: () => Plugin, name: string, port: SerialOptions = {}) {
  const bytes = await Deno.readFile(new URL(`${name}/${name}.elf`, GUESTS));
  const { vm, printed } = await board(vendor, loadImage(bytes, { name: `${name}.elf` }), port);
  using _ = vm;
  const result = await vm.run({ instructions: 200_000_000 });
  const text = printed().replaceAll(/^(?:cpu|memory):.*\n/gm, "");
  return { ending: ending(result), text };
}

const ENDINGS: Readonly<Record<string, string>> = {
  tour: "code 1",
  exits: "code 1",
  hang: "halted",
  triple: "shutdown",
  wildjump: "shutdown",
};

for (const [name, vendor] of Object.entries(VENDORS)) {
  for (const [guest, end] of Object.entries(ENDINGS)) {
    Deno.test(`${name}: the guest "${guest}" prints and ends as it does on a PC`, async () => {
      const expected = await Deno.readTextFile(new URL(`${guest}/${guest}.expected`, GUESTS));
      assertEquals(await runGuest(vendor, guest), { ending: end, text: expected });
    });
  }
}

Deno.test("a serial line that takes its time changes nothing in what a guest prints", async () => {
  const expected = await Deno.readTextFile(new URL("tour/tour.expected", GUESTS));
  const { ending, text } = await runGuest(metal, "tour", { timing: "baud" });
  assertEquals([ending, text], ["code 1", expected]);
});

/** Machine code, as hexadecimal digits. */
function code(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(/\s/g, "").match(/../g) ?? [], (d) => parseInt(d, 16));
}

// At 7C00h in real mode: makes 24h the vector of IRQ 4, unmasks it, turns OUT2 and the receiver's
// interrupt on, and then waits in STI; HLT. The handler echoes what it reads and ends with code 1 at a
// "q".
const ECHO = code(`
  31c0 8ed8 8ed0 bc007c                  xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 7C00h
  c7069000367c a39200                    mov word [90h], handler; mov [92h], ax
  b011 e620 b020 e621 b004 e621          8259: ICW1 to ICW4
  b001 e621 b0ef e621                    and the mask
  bafc03 b00b ee baf903 b001 ee          MCR, IER
  fb f4 ebfc                             sti; hlt; jmp
  bafd03 ec a801 740b                    handler: LSR, bit 0?
  baf803 ec 3c71 7408 ee ebed            echo, unless "q"
  b020 e620 cf                           EOI; iret
  b000 e6f4                              out F4h
`.replaceAll(/ {6,}.*/g, ""));

for (const [name, vendor] of Object.entries(VENDORS)) {
  Deno.test(`${name}: a guest that waits for the keyboard in HLT is woken by it`, async () => {
    const input = new SerialInput();
    const { vm, printed } = await board(vendor, flat(ECHO, { name: "echo" }), { input });
    using _ = vm;
    let result: RunResult | undefined;
    const run = vm.run().then((end) => void (result = end));
    const until = async (text: string) => {
      for (let i = 0; i < 200 && printed() !== text; i++) {
        await new Promise((r) => setTimeout(r, 5));
      }
      assertEquals([printed(), result], [text, undefined]);
    };
    await until("");
    input.push("one, ");
    await until("one, ");
    input.push("two");
    await until("one, two");
    input.push("quit");
    await run;
    assertEquals(result === undefined ? "" : ending(result), "code 1");
  });

  Deno.test(`${name}: the same without waiting, from a stream`, async () => {
    const input = ReadableStream.from(
      ["first ", "second", "q"].map((text) => new TextEncoder().encode(text)),
    );
    const { vm, printed } = await board(vendor, flat(ECHO), { input });
    using _ = vm;
    assertEquals([ending(await vm.run()), printed()], ["code 1", "first second"]);
  });

  Deno.test(`${name}: a guest whose keyboard is gone has halted for good`, async () => {
    const input = new SerialInput();
    input.push("abc");
    input.close();
    const { vm, printed } = await board(vendor, flat(ECHO), { input });
    using _ = vm;
    const result = await vm.run();
    assertEquals([result.reason, printed()], ["halted", "abc"]);
    assertEquals(result.reason === "halted" && result.interruptsEnabled, true);
  });

  Deno.test(`${name}: flat binaries run in the mode and with the tables they were promised`, async () => {
    // Loads segments and jumps far, so that the descriptors in memory count: 2Ah to the exit port.
    const protectedCode = code(`
      b810000000 8ed8 8ed0               mov eax, 10h; mov ds, eax; mov ss, eax
      ea100010000800                     jmp 08h:100010h
      bc00900000 6a2a 58 e6f4            mov esp, 9000h; push 2Ah; pop eax; out F4h, al
    `.replaceAll(/ {7,}\S.*/g, ""));
    // The same by RETF, then the halves of a 64-bit number, through memory, added up: 3 + 5.
    const longCode = code(`
      b810000000 8ed0 bc00900000         mov eax, 10h; mov ss, eax; mov esp, 9000h
      6a08 488d0503000000 50 48cb        push 08h; lea rax, [rip + 3]; push rax; retfq
      48b80300000005000000               mov rax, 500000003h
      48890425f8ff3f00                   mov [3FFFF8h], rax
      8b0c25fcff3f00 01c8 e6f4           mov ecx, [3FFFFCh]; add eax, ecx; out F4h, al
    `.replaceAll(/ {7,}\S.*/g, ""));
    const cases: [Image, string][] = [
      [flat(code("b001 e6f4")), "code 3"],
      [flat(code("88d0 e6f4")), "code 257"], // DL: the first disk
      [
        flat(protectedCode, { address: MIB, entry: { mode: "protected32" } }),
        `code ${0x2a << 1 | 1}`,
      ],
      [flat(longCode, { address: 2 * MIB, entry: { mode: "long64" } }), "code 17"],
    ];
    for (const [image, expected] of cases) {
      const { vm } = await board(vendor, image);
      using _ = vm;
      assertEquals(ending(await vm.run({ instructions: 1000 })), expected);
    }
  });
}

Deno.test("a reset in the middle of a guest starts it from the beginning", async () => {
  const bytes = await Deno.readFile(new URL("exits/exits.elf", GUESTS));
  const expected = await Deno.readTextFile(new URL("exits/exits.expected", GUESTS));
  const { vm, printed } = await board(metal, loadImage(bytes));
  using _ = vm;
  assertEquals((await vm.run({ instructions: 30_000 })).reason, "limit");
  const before = printed();
  vm.reset();
  assertEquals(ending(await vm.run()), "code 1");
  assertEquals(printed(), before + expected);
});
