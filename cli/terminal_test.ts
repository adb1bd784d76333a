import { assertEquals } from "@std/assert";
import { scriptedVm } from "../core/testing/mod.ts";
import type { CliError } from "./errors.ts";
import { FakeIo } from "./fixture_test.ts";
import { Terminal } from "./terminal.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const BOTH = { stdout: true, stderr: true };

Deno.test("an unfinished line of the guest is ended before anything is said on the same terminal", () => {
  const io = new FakeIo({ terminal: BOTH });
  const terminal = new Terminal(io, () => {});
  terminal.console(bytes("login: "));
  terminal.say("bye\n");
  terminal.console(bytes("done\n"));
  terminal.say("again\n");
  assertEquals(io.log.map(([, text]) => text), ["login: ", "\n", "bye\n", "done\n", "again\n"]);
});

Deno.test("on other outputs nothing is added", () => {
  const io = new FakeIo({ terminal: { stderr: true } });
  const terminal = new Terminal(io, () => {});
  terminal.console(bytes("login: "));
  terminal.say("bye\n");
  assertEquals(io.err, "bye\n");
});

Deno.test("progress comes and goes, but never into the guest's line", async () => {
  using machine = scriptedVm();
  const io = new FakeIo({ terminal: BOTH });
  const terminal = new Terminal(io, () => {});
  const unwatch = terminal.watch(machine.vm);
  terminal.console(bytes("prompt> "));
  await new Promise((resolve) => setTimeout(resolve, 1200));
  assertEquals(io.err, "");
  terminal.console(bytes("\n"));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assertEquals(
    io.err.replace(/\d+ s/, "2 s"),
    "\r\x1b[K2 s, 0 million instructions, 0 exits, 0 MIPS",
  );
  const shown = io.err;
  terminal.console(bytes("x\n"));
  assertEquals(io.err, `${shown}\r\x1b[K`);
  unwatch();
  assertEquals(io.err, `${shown}\r\x1b[K`);
});

Deno.test("without a terminal there is no progress", () => {
  using machine = scriptedVm();
  const io = new FakeIo({ terminal: { stdout: true } });
  // A timer that is left running fails the test.
  new Terminal(io, () => {}).watch(machine.vm);
  assertEquals(io.log, []);
});

Deno.test("that standard output cannot be written is told once, with the reason", () => {
  let broken = 0;
  const io = new FakeIo({ stdoutLimit: 4 });
  const terminal = new Terminal(io, () => void broken++);
  terminal.console(bytes("1234"));
  assertEquals([broken, terminal.closed], [0, false]);
  terminal.console(bytes("5"));
  terminal.console(bytes("6"));
  assertEquals([broken, terminal.closed], [1, true]);
  const full = new FakeIo();
  full.stdout = () => {
    throw new Error("No space left on device (os error 28)");
  };
  let reason: CliError | undefined;
  new Terminal(full, (error) => reason = error).console(bytes("x"));
  assertEquals(
    [reason?.status, reason?.message],
    [74, "standard output: No space left on device (os error 28)"],
  );
});
