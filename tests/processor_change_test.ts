/**
 * A vCPU that is alone and changes the host processor all the time: what its last processor still has of
 * it, because no other guest came, must come along.
 */
import { assert, assertEquals } from "@std/assert";
import {
  createVm,
  ExitReason,
  observeExitHook,
  type Plugin,
  type Scheduler,
  schedulerSlot,
  type Vm,
} from "../core/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { vmx } from "../plugins/vmx/mod.ts";

const HOSTS: readonly (readonly [string, CpuModel, () => Plugin])[] = [
  ["svm", "zen4", svm],
  ["vmx", "sapphire-rapids", vmx],
];

const ROUNDS = 2000;

/** Counts to {@linkcode ROUNDS} in the x87 register ST(0), in 32-bit code, and writes it to port 80h. */
const COUNT = [
  ...[0xdb, 0xe3], // fninit
  ...[0xd9, 0xee], // fldz
  ...[0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0, 0], // mov ecx, ROUNDS
  ...[0xd9, 0xe8], // fld1
  ...[0xde, 0xc1], // faddp st1, st0
  ...[0xe2, 0xfa], // loop to the fld1
  ...[0xdb, 0x1d, 0, 0, 0x20, 0], // fistp dword [20_0000h]
  ...[0xa1, 0, 0, 0x20, 0], // mov eax, [20_0000h]
  ...[0xe7, 0x80], // out 80h, eax
  ...[0xeb, 0xfe], // jmp to itself
];

/** Puts the vCPU on the other processor every time it is asked. */
class Restless implements Scheduler {
  readonly name = "restless";
  until = 0;
  changes = 0;

  pick(vm: Vm) {
    const vcpu = vm.vcpus[0]!;
    if (vcpu.pcpu >= 0) vcpu.put();
    vcpu.load(this.changes++ % vm.processors);
    this.until = vm.clock.current.now() + 100;
    return vcpu;
  }

  yield(): void {}
}

for (const [name, model, vendor] of HOSTS) {
  Deno.test(`${name}: x87 registers go from processor to processor with a vCPU`, async () => {
    const told: number[] = [];
    const scheduler = new Restless();
    const restless: Plugin = {
      name: "restless",
      version: "1.0.0",
      provides: [schedulerSlot],
      setup(ctx) {
        ctx.provide(schedulerSlot, scheduler);
        ctx.on(observeExitHook, (_, exit) => {
          if (exit.reason === ExitReason.IO && exit.port === 0x80) told.push(exit.lo);
        });
      },
    };
    using vm = await createVm({
      memory: 16 * 2 ** 20,
      processors: 2,
      plugins: [cpu({ model }), vendor(), restless],
      images: [flat(new Uint8Array(COUNT), { address: 2 ** 20, entry: { mode: "protected32" } })],
    });
    await vm.run({ instructions: 4 * ROUNDS });
    assertEquals(told, [ROUNDS]);
    assert(scheduler.changes > 20, `${scheduler.changes} changes`);
  });
}
