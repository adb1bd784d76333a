/**
 * Swap a policy in a running VM, and see the exits change.
 *
 * A device asks a policy how long each of its operations takes. The policy is a slot, which has exactly
 * one provider; two plugins provide it, and one takes the place of the other while the guest runs.
 *
 *     deno run examples/03_swap_policy.ts
 */

import { createVm, defineSlot, type Plugin, type Slot } from "@trapline/trapline/core";
import { cpu } from "@trapline/trapline/cpu";
import { flat } from "@trapline/trapline/flat";
import { type ExitProfile, exitProfile, profile, profileSlot } from "@trapline/trapline/profile";
import { svm } from "@trapline/trapline/svm";

/** How often a guest finds the device busy before an operation is done. */
export interface Latency {
  readonly polls: number;
}

/** The policy. */
export const latencySlot: Slot<Latency> = defineSlot("latency");

/** A provider of the policy. All have one name, so that any can take another's place. */
export function latency(polls: number): Plugin {
  return {
    name: "latency",
    version: "1.0.0",
    provides: [latencySlot],
    setup: (ctx) => ctx.provide(latencySlot, { polls }),
  };
}

const OPERATIONS = 1000;

/** The device: a write to E0h begins an operation, bit 0 of E1h says that it is done. */
function device(done: (operations: number) => void): Plugin {
  return {
    name: "device",
    version: "1.0.0",
    requires: [latencySlot],
    setup(ctx) {
      const policy = ctx.use(latencySlot); // live: `current` is whoever provides it now
      let operations = 0;
      let polls = 0;
      ctx.registerPio({
        name: "device",
        base: 0xe0,
        length: 2,
        write() {
          polls = 0;
          done(operations++);
        },
        read: () => polls++ < policy.current.polls ? 0 : 1,
      });
    },
  };
}

// deno-fmt-ignore
const guest = new Uint8Array([
  0xe6, 0xe0, // begin: out  E0h, al
  0xe4, 0xe1, // wait:  in   al, E1h
  0xa8, 0x01, //        test al, 1
  0x74, 0xfa, //        jz   wait
  0xeb, 0xf6, //        jmp  begin
]);

const seen: ExitProfile[] = [];

using vm = await createVm({
  memory: 2 ** 20,
  plugins: [
    cpu(),
    svm(),
    profile(),
    latency(9),
    device((operations) => {
      if (operations !== OPERATIONS && operations !== 2 * OPERATIONS) return;
      // This is inside a run: the swap is made before the guest is entered again.
      seen.push(exitProfile(vm));
      vm.slots.ref(profileSlot).current.clear();
      if (operations === OPERATIONS) vm.swap("latency", latency(0));
      else vm.stop();
    }),
  ],
  images: [flat(guest)],
});

await vm.run();
for (
  const [name, { exits, instructions }] of [["slow", seen[0]!], ["instant", seen[1]!]] as const
) {
  console.log(
    `${name.padEnd(8)}${OPERATIONS} operations, ${exits} exits, ${instructions} instructions: ` +
      `${(exits / OPERATIONS).toFixed(1)} exits an operation`,
  );
}
