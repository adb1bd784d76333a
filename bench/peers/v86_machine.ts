/**
 * One run of v86, in a process of its own: `WASM IMAGE COMMAND-LINE`. Prints the guest's console and, at the
 * checksum, the milliseconds of its thread since v86 was ready, as JSON.
 *
 * @module
 */
import { ownTime } from "./clock.ts";
import { V86_PACKAGE } from "./v86_package.ts";

interface Emulator {
  add_listener(event: string, listener: (value: number) => void): void;
  run(): void;
}

const [wasm, path, commandLine] = Deno.args as [string, string, string];
const { V86 } = await import(V86_PACKAGE) as { V86: new (options: object) => Emulator };
const emulator = new V86({
  wasm_path: wasm,
  multiboot: { buffer: (await Deno.readFile(path)).buffer },
  cmdline: commandLine,
  memory_size: 64 * 2 ** 20,
  vga_memory_size: 2 * 2 ** 20,
  acpi: true, // with the local APIC
  autostart: false,
});
let start = 0;
let console_ = "";
emulator.add_listener("serial0-output-byte", (byte) => {
  console_ += String.fromCharCode(byte);
  if (!/checksum \w+\r?\n/.test(console_)) return;
  console.log(JSON.stringify({ ms: ownTime() - start, console: console_ }));
  Deno.exit(0);
});
emulator.add_listener("emulator-ready", () => {
  start = ownTime();
  emulator.run();
});
