import { assertEquals } from "@std/assert";
import {
  createVm,
  ExitReason,
  irqLineHook,
  observeExitHook,
  type Plugin,
  type RunResult,
} from "../../core/mod.ts";
import { cpu } from "../cpu/mod.ts";
import { firmwareVectors, flat } from "../flat/mod.ts";
import { lapic } from "../lapic/mod.ts";
import { metal } from "../metal/mod.ts";
import { pic } from "../pic/mod.ts";
import { ferr } from "./mod.ts";

/** Machine code, as hexadecimal digits. */
function code(digits: string): Uint8Array {
  return Uint8Array.from(digits.replaceAll(/\s/g, "").match(/../g) ?? [], (d) => parseInt(d, 16));
}

/** OUT 80h of a number. */
const tell = (n: number): string => `b0${n.toString(16).padStart(2, "0")} e680`;

/** The 8259s as a BIOS has them, IRQ 2 and 13 not masked. */
const PICS = "b011 e620 e6a0 b008 e621 b070 e6a1 b004 e621 b002 e6a1 b001 e621 e6a1 " +
  "b0fb e621 b0df e6a1";
/** FNINIT; FLDCW of 037Bh, which leaves division by zero unmasked; FLD1; FLDZ; FDIVP: 1 / 0. */
const DIVIDE = "dbe3 d92e0006 d9e8 d9ee def9";
/**
 * INT 75h: OUT 80h of 75h; OUT F0h, 0; FNSTSW AX, OUT 80h of AL; FNCLEX; ends of interrupt; IRET.
 */
const HANDLER = `50 b075 e680 b000 e6f0 dfe0 e680 dbe2 b020 e6a0 e620 58 cf`;

interface Ending {
  readonly result: RunResult;
  /** What was written to port 80h, and levels of line 13. */
  readonly log: readonly (number | string)[];
}

/** Runs real-mode code, with `handler` at F000:1000 as vector 75h. */
async function run(
  digits: string,
  handler = HANDLER,
  parts: readonly Plugin[] = [ferr()],
): Promise<Ending> {
  const log: (number | string)[] = [];
  const watcher: Plugin = {
    name: "watcher",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(observeExitHook, (_, exit) => {
        if (exit.reason === ExitReason.IO && exit.port === 0x80) log.push(exit.lo);
      });
      ctx.on(irqLineHook, (line, level) => {
        if (line === 13) log.push(level ? "up" : "down");
      });
    },
  };
  const image = flat(code(`31 c0 8e d8 8e d0 bc 00 70 ${PICS} ${digits}`), {
    address: 0x7c00,
    entry: { mode: "real" },
  });
  const plugins = [cpu(), metal(), lapic(), pic({ wiring: "apic" }), ...parts, watcher];
  using vm = await createVm({ memory: 2 ** 20, plugins, images: [firmwareVectors(), image] });
  vm.memory.writeU16(0x600, 0x037b);
  vm.memory.writeU32(4 * 0x75, 0xf000_1000);
  vm.memory.write(0xf_1000, code(handler));
  const result = await vm.run({ instructions: 10_000 });
  return { result, log };
}

Deno.test("an x87 exception is IRQ 13 at the next instruction that waits for it", async () => {
  const { result, log } = await run(`fb ${DIVIDE} ${tell(1)} d9e8 ${tell(2)} fa f4`);
  // AL is the status word: ZE, its summary.
  assertEquals(log, [1, "up", 0x75, "down", 0x84, 2]);
  assertEquals(result.reason, "halted");
});

Deno.test("the processor freezes while interrupts are off, and FNCLEX in time avoids it all", async () => {
  const frozen = await run(`fa ${DIVIDE} ${tell(1)} d9e8 ${tell(2)} f4`);
  assertEquals(frozen.log, [1, "up"]);
  assertEquals(frozen.result.reason, "halted");
  const { log } = await run(`fb ${DIVIDE} dbe2 d9e8 ${tell(2)} fa f4`);
  assertEquals(log, [2]);
});

Deno.test("past F0h instructions ignore the exception; the next one is reported again", async () => {
  // OUT 80h of 75h; OUT F0h, 0; ends of interrupt; IRET: the exception stays.
  const handler = "50 b075 e680 b000 e6f0 b020 e6a0 e620 58 cf";
  const { log } = await run(
    `fb ${DIVIDE} d9e8 ${tell(1)} d9e8 dbe2 ${DIVIDE} d9e8 ${tell(2)} fa f4`,
    handler,
  );
  assertEquals(log, ["up", 0x75, "down", 1, "up", 0x75, "down", 2]);
});

Deno.test("with CR0.NE set it is #MF", async () => {
  // mov eax, cr0; or al, 20h; mov cr0, eax. Vector 10h is the firmware's dummy: the fault repeats.
  const { result, log } = await run(
    `0f20c0 0c20 0f22c0 fb ${DIVIDE} ${tell(1)} d9e8 ${tell(2)} f4`,
  );
  assertEquals([log, result.reason], [[1], "limit"]);
});

Deno.test("without the part the machine stops with an error that names the pin", async () => {
  const { result } = await run(`fb ${DIVIDE} d9e8 f4`, HANDLER, []);
  assertEquals(result.reason, "error");
  if (result.reason === "error") assertEquals(result.error.message.includes("FERR#"), true);
});
