import { assertEquals } from "@std/assert";
import { loadVectors, type Vector } from "./read.ts";
import { record } from "./record.ts";

/** Whether this machine can run the recorder at all: x86-64 Linux, a compiler, low mappings. */
async function canRecord(): Promise<boolean> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return false;
  if (Deno.uid() !== 0) return false;
  try {
    const { success } = await new Deno.Command("gcc", { args: ["--version"], stdout: "null" })
      .output();
    return success;
  } catch {
    return false;
  }
}

/** What another processor must agree on. */
function comparable(vector: Vector): Omit<Vector, "rflags"> & { readonly rflags: number } {
  return { ...vector, rflags: vector.rflags & vector.definedFlags };
}

Deno.test({
  name: "record() gives on this processor what was recorded",
  ignore: !(await canRecord()),
  async fn() {
    const committed = await loadVectors("base");
    const seeds = Array.from({ length: 500 }, (_, i) => i * 20 + i % 20);
    const { processor, vectors } = await record(seeds);
    const same = processor.vendor === committed.processor.vendor;
    for (const vector of vectors) {
      if (vector.amd && !same) continue;
      const before = committed.vectors[vector.seed] as Vector;
      assertEquals(comparable(vector), comparable(before), `seed ${vector.seed}`);
    }
  },
});
