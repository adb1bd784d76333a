/**
 * A plugin as somebody else would write it, in one file: a device, a hypercall, and a hook of its own.
 *
 *     deno run examples/02_third_party_plugin.ts
 */

import {
  createVm,
  defineHook,
  describeRunEnd,
  Gpr,
  type Hook,
  hypercallHook,
  type Plugin,
  type Vcpu,
} from "@trapline/trapline/core";
import { cpu } from "@trapline/trapline/cpu";
import { debugExit } from "@trapline/trapline/debugexit";
import { flat } from "@trapline/trapline/flat";
import { svm } from "@trapline/trapline/svm";

// What the plugin exports: a hook of its own. It is a value with a type, so that handlers are checked
// exactly as those of the core's hooks are.

/** The guest reports that it is too warm: `celsius` is the temperature that it read. */
export const tooWarmHook: Hook<(vcpu: Vcpu, celsius: number) => void, "each"> = defineHook({
  name: "too-warm",
  kind: "each",
  arity: 2,
});

/** A thermometer at port 500h, and hypercall 7001h by which the guest says what it read. */
export function thermometer(limit: number): Plugin {
  return {
    name: "thermometer",
    version: "1.0.0",
    setup(ctx) {
      const tooWarm = ctx.vm.hooks.point(tooWarmHook);

      // State that is declared is saved with the VM, and handed over when the plugin is swapped.
      const state = ctx.vmState({
        name: "celsius",
        version: 1,
        init: () => ({ celsius: 20 }),
        save: ({ celsius }) => ({ celsius }),
        load: (saved) => saved as { celsius: number },
      });

      // The device: each reading is three degrees above the last.
      ctx.registerPio({
        name: "thermometer",
        base: 0x500,
        length: 4,
        read: () => state.current.celsius += 3,
      });

      // The hypercall: EBX is the temperature; the answer says whether to go on.
      ctx.on(hypercallHook, 0x7001, (vcpu) => {
        const celsius = vcpu.regs.lo(Gpr.RBX);
        if (celsius > limit) tooWarm.call(vcpu, celsius);
        vcpu.regs.setU32(Gpr.RAX, celsius < limit + 5 ? 1 : 0);
        return true;
      });
    },
  };
}

// Another plugin listens to the first one's hook.
const alarm: Plugin = {
  name: "alarm",
  version: "1.0.0",
  requires: ["thermometer"],
  setup(ctx) {
    ctx.on(tooWarmHook, (vcpu, celsius) => {
      console.log(`vCPU ${vcpu.id} at ${vcpu.regs.rip.toString(16)}h: ${celsius} degrees`);
    });
  },
};

// deno-fmt-ignore
const guest = new Uint8Array([
  0xba, 0x00, 0x05, 0x00, 0x00, //       mov   edx, 500h
  0xed,                         // next: in    eax, dx
  0x89, 0xc3,                   //       mov   ebx, eax
  0xb8, 0x01, 0x70, 0x00, 0x00, //       mov   eax, 7001h
  0x0f, 0x01, 0xd9,             //       vmmcall
  0x85, 0xc0,                   //       test  eax, eax
  0x75, 0xf1,                   //       jnz   next
  0xe6, 0xf4,                   //       out   F4h, al
]);

if (import.meta.main) {
  using vm = await createVm({
    memory: 2 ** 20,
    plugins: [cpu(), svm(), debugExit(), thermometer(30), alarm],
    images: [flat(guest, { entry: { mode: "protected32" } })],
  });
  const result = await vm.run();
  console.log(`${describeRunEnd(result)}, after ${result.exits} exits`);
}
