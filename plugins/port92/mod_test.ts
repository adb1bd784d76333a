import { assertEquals } from "@std/assert";
import { scriptedVm } from "../../core/testing/mod.ts";
import { a20Slot, port92 } from "./mod.ts";

Deno.test("bit 1 is the A20 gate, on at power-up and after RESET", () => {
  using machine = scriptedVm({ plugins: [port92()] });
  const { vm } = machine;
  const gate = vm.slots.ref(a20Slot).current;
  assertEquals([vm.pio.read(0x92, 1), gate.enabled], [2, true]);
  vm.pio.write(0x92, 1, 0x08);
  assertEquals([vm.pio.read(0x92, 1), gate.enabled], [8, false]);
  vm.reset();
  assertEquals([vm.pio.read(0x92, 1), gate.enabled], [2, true]);
});

Deno.test("only bit 0's rise asks for a reset", () => {
  const writes: number[] = [];
  using machine = scriptedVm({
    plugins: [port92()],
    guest: function* () {
      for (const value of [0x02, 0x00, 0x03, 0x03]) {
        writes.push(value);
        yield (exit) => exit.setIo(0x92, 1, true, value);
      }
    },
  });
  assertEquals([machine.vm.runSync().reason, writes], ["reset", [0x02, 0x00, 0x03]]);
});
