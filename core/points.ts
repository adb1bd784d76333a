/**
 * The core's own hooks in one VM, looked up once so that the run loop calls functions directly.
 *
 * @module
 */

import { MAX_EXIT_REASONS } from "./exit.ts";
import type { Hooks, PointOf } from "./hook_points.ts";
import {
  afterExitHook,
  beforeEnterHook,
  cpuidHook,
  exitHook,
  fastpathHook,
  hypercallHook,
  injectHook,
  irqLineHook,
  memslotHook,
  msiHook,
  observeExitHook,
  requestHook,
  resetHook,
  runEndedHook,
  unclaimedHook,
  unknownMsrHook,
  vcpuCreatedHook,
  vcpuLoadHook,
  vcpuPutHook,
} from "./hooks.ts";

/** The points of the hooks in `hooks.ts`, under the hooks' names. */
export class Points {
  // Fields that are set once are only declared here, not defined as `undefined` first: V8 then knows what they hold.
  /** See `vcpuCreatedHook`. */
  declare readonly vcpuCreated: PointOf<typeof vcpuCreatedHook>;
  /** See `resetHook`. */
  declare readonly reset: PointOf<typeof resetHook>;
  /** See `vcpuLoadHook`. */
  declare readonly vcpuLoad: PointOf<typeof vcpuLoadHook>;
  /** See `vcpuPutHook`. */
  declare readonly vcpuPut: PointOf<typeof vcpuPutHook>;
  /** See `requestHook`. */
  declare readonly request: PointOf<typeof requestHook>;
  /** See `injectHook`. */
  declare readonly inject: PointOf<typeof injectHook>;
  /** See `beforeEnterHook`. */
  declare readonly beforeEnter: PointOf<typeof beforeEnterHook>;
  /** See `afterExitHook`. */
  declare readonly afterExit: PointOf<typeof afterExitHook>;
  /** See `observeExitHook`. */
  declare readonly observeExit: PointOf<typeof observeExitHook>;
  /** See `fastpathHook`. */
  declare readonly fastpath: PointOf<typeof fastpathHook>;
  /** See `exitHook`. */
  declare readonly exit: PointOf<typeof exitHook>;
  /** See `hypercallHook`. */
  declare readonly hypercall: PointOf<typeof hypercallHook>;
  /** See `cpuidHook`. */
  declare readonly cpuid: PointOf<typeof cpuidHook>;
  /** See `unknownMsrHook`. */
  declare readonly unknownMsr: PointOf<typeof unknownMsrHook>;
  /** See `unclaimedHook`. */
  declare readonly unclaimed: PointOf<typeof unclaimedHook>;
  /** See `memslotHook`. */
  declare readonly memslot: PointOf<typeof memslotHook>;
  /** See `irqLineHook`. */
  declare readonly irqLine: PointOf<typeof irqLineHook>;
  /** See `msiHook`. */
  declare readonly msi: PointOf<typeof msiHook>;
  /** See `runEndedHook`. */
  declare readonly runEnded: PointOf<typeof runEndedHook>;

  /**
   * By exit reason: 1 where nobody but the core handles exits, and nobody watches any. `afterExitHook`,
   * `observeExitHook`, `fastpathHook` and `exitHook` then need not be asked, each at its time.
   */
  readonly plain: Uint8Array = new Uint8Array(MAX_EXIT_REASONS).fill(1);

  /** Looks the hooks up. */
  constructor(hooks: Hooks) {
    this.vcpuCreated = hooks.point(vcpuCreatedHook);
    this.reset = hooks.point(resetHook);
    this.vcpuLoad = hooks.point(vcpuLoadHook);
    this.vcpuPut = hooks.point(vcpuPutHook);
    this.request = hooks.keyedPoint(requestHook);
    this.inject = hooks.point(injectHook);
    this.beforeEnter = hooks.point(beforeEnterHook);
    this.afterExit = hooks.point(afterExitHook);
    this.observeExit = hooks.point(observeExitHook);
    this.fastpath = hooks.keyedPoint(fastpathHook);
    this.exit = hooks.keyedPoint(exitHook);
    this.hypercall = hooks.keyedPoint(hypercallHook);
    this.cpuid = hooks.keyedPoint(cpuidHook);
    this.unknownMsr = hooks.point(unknownMsrHook);
    this.unclaimed = hooks.point(unclaimedHook);
    this.memslot = hooks.point(memslotHook);
    this.irqLine = hooks.point(irqLineHook);
    this.msi = hooks.point(msiHook);
    this.runEnded = hooks.point(runEndedHook);
    hooks.whenChanged(() => this.#findPlain());
  }

  #findPlain(): void {
    const { plain, afterExit, observeExit, fastpath, exit } = this;
    const watched = afterExit.entries.length + observeExit.entries.length > 0;
    for (let reason = 0; reason < plain.length; reason++) {
      const handled = fastpath.table[reason] !== undefined || exit.table[reason] !== undefined;
      plain[reason] = watched || handled ? 0 : 1;
    }
  }
}
