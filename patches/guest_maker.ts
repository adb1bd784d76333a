/**
 * A guest that is told whose processor it has.
 *
 * @module
 */
import { cpuidHook, type Plugin } from "../core/mod.ts";

/**
 * CPUID leaf 0 names `maker`, twelve characters such as `GenuineIntel`. Family and model stay what they
 * are.
 */
export function guestMaker(maker: string): Plugin {
  const word = (offset: number): number =>
    [0, 1, 2, 3].reduce((sum, k) => sum | (maker.charCodeAt(offset + k) << (8 * k)), 0) >>> 0;
  return {
    name: "guest-maker",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(cpuidHook, 0, (result) => {
        result.ebx = word(0);
        result.edx = word(4);
        result.ecx = word(8);
        return result;
      });
    },
  };
}
