/**
 * Run an image, watch its exits as they happen, and print their profile.
 *
 *     deno run --allow-read examples/01_run_image.ts [IMAGE [ARGUMENTS]]
 */

import {
  createVm,
  describeExit,
  describeRunEnd,
  exitReasonName,
  observeExitHook,
  type Plugin,
} from "@trapline/trapline/core";
import { cpu } from "@trapline/trapline/cpu";
import { debugExit } from "@trapline/trapline/debugexit";
import { loadImage } from "@trapline/trapline/multiboot";
import { pic } from "@trapline/trapline/pic";
import { exitProfile, formatProfile, profile } from "@trapline/trapline/profile";
import { serial } from "@trapline/trapline/serial";
import { svm } from "@trapline/trapline/svm";

const guest = new URL("./guests/exits/exits.elf", import.meta.url).pathname;
const [path = guest, commandLine = "cpuid=3 rdmsr=2 outs=32"] = Deno.args;

// A plugin is a plain object. This one prints the first exits of the VM that it is loaded into.
const printer: Plugin = {
  name: "printer",
  version: "1.0.0",
  setup(ctx) {
    ctx.on(observeExitHook, (vcpu, exit) => {
      if (ctx.vm.exits > 10) return;
      const rip = vcpu.regs.rip.toString(16);
      console.log(
        `exit ${ctx.vm.exits} at ${rip}h: ${exitReasonName(exit.reason)}`,
        describeExit(exit),
      );
    });
  },
};

using vm = await createVm({
  memory: 64 * 2 ** 20,
  plugins: [
    cpu(), // the processors and their memory
    svm(), // the hypervisor
    pic(), // the board: interrupt controllers,
    serial({ output: (bytes) => Deno.stdout.writeSync(bytes) }), // the console,
    debugExit(), // and the port by which a guest ends its run
    profile(), // counts exits
    printer,
  ],
  images: [loadImage(await Deno.readFile(path), { name: path, commandLine })],
});

const result = await vm.run();
console.log(`\n${describeRunEnd(result)}\n`);
console.log(formatProfile(exitProfile(vm)));
