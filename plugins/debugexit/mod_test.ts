import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError, type VmExit } from "../../core/mod.ts";
import { scriptedVm } from "../../core/testing/mod.ts";
import { debugExit, type DebugExitOptions, exitCode } from "./mod.ts";

/** Runs a guest that makes one write, and returns the end of its run. */
function runWrite(port: number, size: number, value: number, options: DebugExitOptions = {}) {
  using machine = scriptedVm({
    plugins: [debugExit(options)],
    guest: function* () {
      yield 3;
      yield (exit: VmExit) => exit.setIo(port, size, true, value);
      yield 1000;
    },
  });
  const { reason, instructions, ...rest } = machine.vm.runSync();
  return { reason, instructions, code: "code" in rest ? rest.code : undefined };
}

Deno.test("a write of any width ends the run with (v << 1) | 1", () => {
  const cases: [size: number, value: number, code: number][] = [
    [1, 0, 1],
    [1, 1, 3],
    [1, 0xff, 0x1ff],
    [2, 0x1234, 0x2469],
    [4, 38, 77],
    [4, 0x7fff_ffff, 0xffff_ffff],
    [4, 0x8000_0000, 1],
  ];
  for (const [size, value, code] of cases) {
    // The write is the guest's last instruction: the fourth.
    assertEquals(runWrite(0xf4, size, value), { reason: "exit-code", instructions: 4, code });
    assertEquals(exitCode(value), code);
  }
});

Deno.test("all four ports end the run, their neighbours do not", () => {
  for (const port of [0xf4, 0xf5, 0xf6, 0xf7]) assertEquals(runWrite(port, 1, 2).code, 5);
  for (const port of [0xf3, 0xf8]) assertEquals(runWrite(port, 1, 2).reason, "halted");
});

Deno.test("the ports can lie elsewhere", () => {
  const options = { base: 0x501, ports: 2 };
  assertEquals(runWrite(0x501, 1, 7, options).code, 15);
  assertEquals(runWrite(0x503, 1, 7, options).reason, "halted");
  assertEquals(runWrite(0xf4, 1, 7, options).reason, "halted");
});

Deno.test("the ports read as 0", () => {
  using machine = scriptedVm({ plugins: [debugExit()] });
  assertEquals(machine.vm.pio.read(0xf4, 4), 0);
  assertEquals(machine.vm.pio.read(0xf8, 1), 0xff);
});

Deno.test("ports that cannot be are refused", () => {
  const cases: [DebugExitOptions, string][] = [
    [{ ports: 0 }, "ports 0 is not an integer from 1 to 4"],
    [{ ports: 5 }, "ports 5"],
    [{ base: -1 }, "base -1 is not a port from 0 to 65532"],
    [{ base: 0xfffd }, "base 65533"],
    [{ base: 1.5 }, "base 1.5"],
  ];
  for (const [options, message] of cases) {
    assertThrows(() => debugExit(options), ArgumentError, message);
  }
});
