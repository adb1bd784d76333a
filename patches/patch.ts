/**
 * What a patch module is.
 *
 * @module
 */
import type { Plugin } from "../core/mod.ts";
import type { CpuOptions } from "../plugins/cpu/mod.ts";
import type { LapicOptions } from "../plugins/lapic/mod.ts";
import type { AvicOptions } from "../plugins/svm/avic/mod.ts";
import type { SvmOptions } from "../plugins/svm/mod.ts";
import type { VmxOptions } from "../plugins/vmx/mod.ts";
import type { GuestName } from "./images.ts";

/** One behaviour: a plugin that provides what the patch changes. */
export interface PatchVariant {
  /** Short name: `before`, `after`, or a version such as `v3`. */
  readonly name: string;
  /** What it does, in a sentence. */
  readonly summary: string;
  /**
   * Makes the plugin. The plugins of all variants of a patch have one name, so that any can take the
   * place of another with `vm.swap`.
   */
  readonly plugin: () => Plugin;
}

/** A machine and a guest that make the difference visible. */
export interface PatchScenario {
  /** Short name, unique in its patch. */
  readonly name: string;
  /** What is looked at, in a sentence. */
  readonly summary: string;
  /** The guest, one of the images that come with the patches. */
  readonly guest: GuestName;
  /** Arguments for the guest. */
  readonly commandLine: string;
  /** Number of vCPUs, or their ids; 1 if not given. */
  readonly cpus?: number | readonly number[];
  /** Number of host processors; as many as vCPUs if not given. */
  readonly processors?: number;
  /** The host's processors. */
  readonly cpu?: CpuOptions;
  /** Whose hypervisor: AMD's if not given. */
  readonly vendor?: "svm" | "vmx";
  /** The hypervisor, if it is svm. */
  readonly svm?: SvmOptions;
  /** The hypervisor, if it is vmx. */
  readonly vmx?: VmxOptions;
  /** Whether there is APICv, if it is vmx; false if not given. */
  readonly apicv?: boolean;
  /** The local APICs. */
  readonly lapic?: LapicOptions;
  /** AVIC, where the processors have it; `false` to do without. */
  readonly avic?: AvicOptions | false;
  /** Further plugins. */
  readonly plugins?: () => Plugin[];
  /**
   * Whether the guest must print the same and end alike under `before` and `after`: so for a patch that
   * saves exits, not for one that repairs what a guest can see.
   */
  readonly sameForGuest: boolean;
}

/** A hypervisor patch as a module: both behaviours, what tells them apart, and where it came from. */
export interface Patch {
  /** Name on the command line. */
  readonly id: string;
  /** Title as posted. */
  readonly title: string;
  /** Where and when it was posted. */
  readonly posted: {
    /** Who posted it, if that is known. */
    readonly author?: string;
    /** The list, and where a copy can be read if that is known. */
    readonly where: string;
    /** ISO date of the post that is meant, as exactly as it is known: day, month or year. */
    readonly date: string;
  };
  /** What has become of it: `merged` with commits of the mainline kernel, or still `posted`. */
  readonly state: "merged" | "posted";
  /** Abbreviated ids of commits; empty if none is known. */
  readonly commits: readonly string[];
  /** What it changes. */
  readonly changes: string;
  /** What a guest or a count shows of it. */
  readonly shows: string;
  /** Behaviour without the patch. */
  readonly before: PatchVariant;
  /** Behaviour with it. */
  readonly after: PatchVariant;
  /** Earlier versions and alternatives. */
  readonly others: readonly PatchVariant[];
  /** Where to look; at least one. */
  readonly scenarios: readonly PatchScenario[];
}

/** All variants of a patch: before, after, then the others. */
export function patchVariants(patch: Patch): readonly PatchVariant[] {
  return [patch.before, patch.after, ...patch.others];
}
