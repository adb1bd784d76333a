import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ArgumentError,
  createVm,
  createVmSync,
  describeRunEnd,
  irqLineHook,
  type LeaveReason,
  msiHook,
  type Plugin,
  rawImage,
  type RunEnd,
  SlotError,
  TraplineError,
} from "./mod.ts";
import { flatMemory, ScriptedVendor, scriptedVendor } from "./testing/mod.ts";

const machine = (): Plugin[] => [flatMemory(), scriptedVendor(new ScriptedVendor())];

Deno.test("a VM waits for plugins and images that are on their way", async () => {
  using vm = await createVm({
    name: "test",
    memory: 2 ** 20,
    cpus: [3, 300],
    processors: 1,
    plugins: machine().map((plugin) => Promise.resolve(plugin)),
    images: [
      rawImage("now", 0x1000, new Uint8Array([1, 2])),
      Promise.resolve(rawImage("later", 0x1001, new Uint8Array([9]))),
    ],
  });
  assertEquals([vm.name, vm.processors], ["test", 1]);
  assertEquals(vm.vcpus.map(({ index, id }) => [index, id]), [[0, 3], [1, 300]]);
  assertEquals(vm.memory.readU16(0x1000), 0x901);
});

Deno.test("a plugin that fails on its way fails the VM", async () => {
  await assertRejects(
    () => createVm({ memory: 4096, plugins: [Promise.reject(new TraplineError("no file"))] }),
    TraplineError,
    "no file",
  );
});

Deno.test("options out of range are refused", () => {
  const make =
    (options: { memory?: number; cpus?: number | number[]; processors?: number }) => () =>
      createVmSync({ memory: 4096, plugins: machine(), ...options });
  const cases: [() => unknown, string][] = [
    [make({ cpus: 0 }), "cpus: 0 is not an integer from 1 to 4096"],
    [make({ cpus: 2.5 }), "cpus: 2.5 is not an integer"],
    [make({ cpus: [] }), "at least one vCPU"],
    [make({ cpus: [1, 1] }), "two vCPUs have id 1"],
    [make({ cpus: [-1] }), "vCPU id -1 is not a 32-bit number"],
    [make({ processors: 5000 }), "processors: 5000"],
    [make({ memory: 5 }), "memory of 5 bytes"],
  ];
  for (const [attempt, message] of cases) assertThrows(attempt, ArgumentError, message);
});

Deno.test("a VM needs memory and a vendor; those that were there leave again", () => {
  const left: LeaveReason[] = [];
  const witness: Plugin = {
    name: "witness",
    version: "1.0.0",
    setup: (ctx) => ctx.onLeave((reason) => void left.push(reason)),
  };
  assertThrows(
    () => createVmSync({ memory: 4096, plugins: [witness] }),
    SlotError,
    'slot "host-memory": no plugin provides it',
  );
  assertThrows(
    () => createVmSync({ memory: 4096, plugins: [witness, flatMemory()] }),
    SlotError,
    'slot "vendor": no plugin provides it',
  );
  assertEquals(left, ["close", "close"]);
});

Deno.test("interrupt lines and messages go to those who listen", () => {
  const log: string[] = [];
  const listener: Plugin = {
    name: "listener",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(irqLineHook, (line, level) => void log.push(`${line} ${level}`));
      ctx.on(msiHook, (address, data) => {
        if (address !== 0xfee0_0000) return undefined;
        log.push(`msi ${data}`);
        return true;
      });
    },
  };
  using vm = createVmSync({ memory: 4096, plugins: [...machine(), listener] });
  vm.setIrqLine(4, true);
  vm.setIrqLine(4, false);
  assertEquals([vm.sendMsi(0xfee0_0000, 0x41), vm.sendMsi(0, 1)], [true, false]);
  assertEquals(log, ["4 true", "4 false", "msi 65"]);
});

Deno.test("every end of a run can be said in a line", () => {
  const cases: [RunEnd, string][] = [
    [{ reason: "exit-code", code: 3 }, "the guest ended with code 3"],
    [{ reason: "halted", interruptsEnabled: true }, "the guest halted for good, interrupts on"],
    [{ reason: "halted", interruptsEnabled: false }, "the guest halted for good, interrupts off"],
    [{ reason: "shutdown", vcpuId: 2 }, "triple fault on vCPU 2"],
    [{ reason: "reset" }, "the guest asked for a reset"],
    [{ reason: "powered-off" }, "the guest switched the machine off"],
    [{ reason: "limit" }, "the limit was reached"],
    [{ reason: "stopped", detail: "Ctrl-C" }, "stopped: Ctrl-C"],
    [{ reason: "waiting", sources: ["time", "stdin"] }, "the guest waits for time, stdin"],
    [
      { reason: "error", error: new TraplineError("it broke"), vcpuId: undefined },
      "error: it broke",
    ],
  ];
  for (const [end, text] of cases) assertEquals(describeRunEnd(end), text);
});
