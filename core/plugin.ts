/**
 * What a plugin is, and what it is given.
 *
 * @module
 */

import type { IoRegion, MmioRegion } from "./device.ts";
import type { Handler, Hook, HookKind, HookOrder, KeyedHook } from "./hook.ts";
import type { InhibitReason } from "./inhibit.ts";
import type { MemslotOptions } from "./memory.ts";
import type { MsrRegion } from "./msr.ts";
import type { Registration } from "./registration.ts";
import type { Slot, SlotChanged, SlotRef } from "./slot.ts";
import type { StateDefinition, VcpuState, VmState } from "./state.ts";
import type { Timer } from "./timer.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/**
 * A plugin: a plain object, usually made by a function that takes its options.
 *
 * @example A device with one port
 * ```ts
 * import type { Plugin } from "@trapline/trapline/core";
 *
 * export function postCode(show: (code: number) => void): Plugin {
 *   return {
 *     name: "post-code",
 *     version: "1.0.0",
 *     setup(ctx) {
 *       ctx.registerPio({
 *         name: "post code",
 *         base: 0x80,
 *         length: 1,
 *         width: 1,
 *         write: (_offset, _size, value) => show(value),
 *       });
 *     },
 *   };
 * }
 * ```
 */
export interface Plugin {
  /** Identifies the plugin within a VM and in errors, orders and requirements. */
  readonly name: string;
  /** Its own version, for listings. */
  readonly version: string;
  /** What it does, in a sentence, for listings. */
  readonly description?: string;
  /**
   * What must be there: other plugins by name, slots that some plugin must provide. They are set up
   * before this one and cannot leave while it is there.
   */
  readonly requires?: readonly (string | Slot<unknown>)[];
  /** What is set up before this one if it is there at all. */
  readonly optional?: readonly (string | Slot<unknown>)[];
  /** The slots that {@linkcode Plugin.setup} provides. All of them, and no others. */
  readonly provides?: readonly Slot<unknown>[];
  /**
   * Registers everything. What the plugin keeps for a VM is made here, so that one plugin object can
   * serve several VMs. Anything asynchronous happens before, in the function that makes the plugin.
   */
  setup(ctx: PluginContext): void;
}

/** Why a plugin leaves. */
export type LeaveReason = "unload" | "swap" | "close";

/**
 * A plugin's view of the VM that it is loaded into. Everything registered through it is unregistered
 * when the plugin leaves. It may be kept and used after `setup`; once the plugin has left, its methods
 * throw `VmStateError`.
 */
export interface PluginContext {
  /** The VM. While `setup` runs for `createVm`, it has no vCPUs and no RAM yet. */
  readonly vm: Vm;
  /** The plugin itself. */
  readonly plugin: Plugin;

  /**
   * Registers a handler for a hook.
   *
   * Throws `HookOrderError` if the order asked for makes a cycle.
   */
  on<F extends Handler, K extends HookKind>(
    hook: Hook<F, K>,
    handler: NoInfer<F>,
    order?: HookOrder,
  ): Registration;
  /**
   * Registers a handler for one key of a hook.
   *
   * Throws `ArgumentError` if the key is out of range, `HookOrderError` as above.
   */
  on<F extends Handler, K extends HookKind>(
    hook: KeyedHook<F, K>,
    key: number,
    handler: NoInfer<F>,
    order?: HookOrder,
  ): Registration;

  /**
   * Provides a slot that {@linkcode Plugin.provides} names.
   *
   * Throws `SlotError` if it does not, or if the slot has a provider.
   */
  provide<T>(slot: Slot<T>, implementation: NoInfer<T>): void;
  /**
   * The slot's provider, live. Name the slot in {@linkcode Plugin.requires} so that it is there.
   *
   * Throws `SlotError` if the slot has no provider.
   *
   * @param changed Called when the implementation has changed.
   */
  use<T>(slot: Slot<T>, changed?: SlotChanged<NoInfer<T>>): SlotRef<T>;
  /** As {@linkcode PluginContext.use}, for a slot that may have no provider. */
  useOptional<T>(slot: Slot<T>, changed?: SlotChanged<NoInfer<T>>): SlotRef<T | undefined>;

  /**
   * Declares state that exists once.
   *
   * Throws `StateError` if the name is taken, or if state handed over by another plugin is of a
   * version that cannot be taken.
   */
  vmState<T>(definition: StateDefinition<T, Vm>): VmState<T>;
  /** Declares state that exists for each vCPU. Throws as {@linkcode PluginContext.vmState}. */
  vcpuState<T>(definition: StateDefinition<T, Vcpu>): VcpuState<T>;

  /** Registers ports. Throws `OverlapError` naming both owners. */
  registerPio(region: IoRegion): Registration;
  /** Registers device registers in memory. Throws `OverlapError` naming both owners. */
  registerMmio(region: MmioRegion): Registration;
  /** Registers MSRs. Throws `OverlapError` naming both owners. */
  registerMsr(region: MsrRegion): Registration;
  /** Maps host memory into the guest. Throws `OverlapError` naming both owners. */
  addMemslot(options: MemslotOptions): Registration;
  /** Makes a timer; it is not armed. */
  createTimer(name: string, callback: (timer: Timer) => void): Timer;
  /**
   * Sets a reason not to accelerate interrupts, for the VM or for one vCPU. Removing the registration
   * clears it.
   */
  inhibit(reason: InhibitReason, vcpu?: Vcpu): Registration;
  /**
   * Declares that something outside (a terminal, a socket) may wake the VM with `vm.wake()`, or by
   * driving an interrupt. While one is declared, a run in which every vCPU waits goes on waiting
   * instead of ending.
   */
  addWakeSource(name: string): Registration;
  /** Called when the plugin leaves, after everything was unregistered; last registered, first called. */
  onLeave(callback: (reason: LeaveReason) => void): void;
}
