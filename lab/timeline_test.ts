import { assert, assertEquals } from "@std/assert";
import { scriptedVm } from "../core/testing/mod.ts";
import { TimelineRecorder } from "./timeline.ts";

Deno.test("every exit is in the timeline, however long the run", () => {
  for (const pause of [1, 1000, 1_000_000]) {
    const recorder = new TimelineRecorder();
    using machine = scriptedVm({
      plugins: [recorder.plugin()],
      guest: function* () {
        for (let k = 0; k < 600; k++) {
          yield pause;
          yield (exit) => exit.setCpuid(k % 3, 0);
          if (k % 2 === 0) yield (exit) => exit.setMsr(0x10, false, 0, 0);
        }
      },
    });
    machine.vm.runSync();
    const { width, steps, lanes } = recorder.take();
    const sum = (reason: string) =>
      lanes.find((lane) => lane.reason === reason)!.counts.reduce((a, b) => a + b, 0);
    assertEquals([sum("CPUID"), sum("RDMSR"), sum("HLT")], [600, 300, 1]);
    const now = machine.vm.clock.current.now();
    assert(steps <= 256 && steps * width >= now, `${steps} steps of ${width} for ${now} ticks`);
    // Evenly spread exits are evenly spread in it.
    const counts = lanes.find(({ reason }) => reason === "CPUID")!.counts.slice(1, -2);
    if (counts.length > 8) assert(Math.max(...counts) <= 2 + 2 * Math.min(...counts));
  }
});
