/**
 * What one plugin has registered in one VM.
 *
 * @module
 */

import { ArgumentError, PluginError, SlotError, StateError, VmStateError } from "./errors.ts";
import type { IoRegion, MmioRegion } from "./device.ts";
import type { Handler, Hook, HookKind, HookOrder, KeyedHook } from "./hook.ts";
import type { InhibitReason } from "./inhibit.ts";
import { Memslot, type MemslotOptions } from "./memory.ts";
import type { MsrRegion } from "./msr.ts";
import type { LeaveReason, Plugin, PluginContext } from "./plugin.ts";
import type { Binding, Registration } from "./registration.ts";
import type { Slot, SlotChanged, SlotRef } from "./slot.ts";
import {
  type SavedState,
  type StateCell,
  type StateDefinition,
  vcpuCell,
  type VcpuState,
  vmCell,
  type VmState,
} from "./state.ts";
import { Timer } from "./timer.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/** A loaded plugin: its context, and what it registered. */
export class Scope implements PluginContext {
  /** The VM. */
  readonly vm: Vm;
  /** The plugin. */
  readonly plugin: Plugin;
  /** Its place in the VM's list of plugins. */
  readonly position: number;
  /** State it declared. */
  readonly cells: StateCell[] = [];
  readonly #handed: ReadonlyMap<string, SavedState>;
  readonly #bindings: Set<Binding> = new Set();
  readonly #leave: ((reason: LeaveReason) => void)[] = [];
  #left = false;

  /** `handed` is state of the plugin that this one takes the place of. */
  constructor(vm: Vm, plugin: Plugin, position: number, handed: readonly SavedState[] = []) {
    this.vm = vm;
    this.plugin = plugin;
    this.position = position;
    this.#handed = new Map(handed.map((state) => [`${state.kind} ${state.name}`, state]));
  }

  /** The plugin's name. */
  get name(): string {
    return this.plugin.name;
  }

  /** See `PluginContext.on`. */
  on<F extends Handler, K extends HookKind>(
    hook: Hook<F, K> | KeyedHook<F, K>,
    keyOrHandler: number | F,
    handlerOrOrder?: F | HookOrder,
    keyedOrder?: HookOrder,
  ): Registration {
    const { hooks } = this.vm;
    if (hook.keys === undefined) {
      if (typeof keyOrHandler !== "function") {
        throw new ArgumentError(wants(hook.name, "a handler"));
      }
      const order = handlerOrOrder as HookOrder | undefined;
      return this.#add(hooks.point(hook).bind(hooks.entry(this, keyOrHandler, order)));
    }
    if (typeof keyOrHandler !== "number" || typeof handlerOrOrder !== "function") {
      throw new ArgumentError(wants(hook.name, "a key and a handler"));
    }
    const entry = hooks.entry(this, handlerOrOrder, keyedOrder);
    return this.#add(hooks.keyedPoint(hook).bind(keyOrHandler, entry));
  }

  /** See `PluginContext.provide`. */
  provide<T>(slot: Slot<T>, implementation: NoInfer<T>): void {
    if (!this.plugin.provides?.includes(slot)) {
      throw new SlotError(slot.name, `plugin "${this.name}" does not name it in "provides"`);
    }
    this.#add(this.vm.slots.provide(slot, implementation, this.name));
  }

  /** See `PluginContext.use`. */
  use<T>(slot: Slot<T>, changed?: SlotChanged<NoInfer<T>>): SlotRef<T> {
    if (!this.vm.slots.filled(slot)) {
      throw new SlotError(
        slot.name,
        `no plugin provides it; plugin "${this.name}" uses it and should name it in "requires"`,
      );
    }
    return this.#use(slot, changed);
  }

  /** See `PluginContext.useOptional`. */
  useOptional<T>(slot: Slot<T>, changed?: SlotChanged<NoInfer<T>>): SlotRef<T | undefined> {
    return this.#use(slot, changed, true);
  }

  #use<T>(slot: Slot<T>, changed: SlotChanged<T> | undefined, optional = false): SlotRef<T> {
    const { slots } = this.vm;
    this.#add(slots.use(slot, this.name, optional, changed && this.#attributed(slot, changed)));
    return slots.ref(slot);
  }

  #attributed<T>(slot: Slot<T>, changed: SlotChanged<T>): SlotChanged<T> {
    return (current, previous) => {
      try {
        changed(current, previous);
      } catch (error) {
        throw PluginError.wrap(this.name, `change of slot "${slot.name}"`, undefined, error);
      }
    };
  }

  /** See `PluginContext.vmState`. */
  vmState<T>(definition: StateDefinition<T, Vm>): VmState<T> {
    return this.#declare(vmCell(definition, this.vm, this.#taken("vm", definition.name)));
  }

  /** See `PluginContext.vcpuState`. */
  vcpuState<T>(definition: StateDefinition<T, Vcpu>): VcpuState<T> {
    return this.#declare(vcpuCell(definition, this.vm, this.#taken("vcpu", definition.name)));
  }

  #taken(kind: "vm" | "vcpu", name: string): SavedState | undefined {
    this.#check();
    if (this.cells.some((cell) => cell.kind === kind && cell.name === name)) {
      throw new StateError(`state "${name}": plugin "${this.name}" declares it twice`);
    }
    return this.#handed.get(`${kind} ${name}`);
  }

  #declare<C extends StateCell>(cell: C): C {
    this.cells.push(cell);
    return cell;
  }

  /** See `PluginContext.registerPio`. */
  registerPio(region: IoRegion): Registration {
    return this.#add(this.vm.pio.bind(region, this.name));
  }

  /** See `PluginContext.registerMmio`. */
  registerMmio(region: MmioRegion): Registration {
    return this.#add(this.vm.bindMmio(region, this.name));
  }

  /** See `PluginContext.registerMsr`. */
  registerMsr(region: MsrRegion): Registration {
    return this.#add(this.vm.msrs.bind(region, this.name));
  }

  /** See `PluginContext.addMemslot`. */
  addMemslot(options: MemslotOptions): Registration {
    return this.#add(this.vm.bindMemslot(new Memslot(options, this.name)));
  }

  /** See `PluginContext.createTimer`. */
  createTimer(name: string, callback: (timer: Timer) => void): Timer {
    const { timers } = this.vm;
    const timer = new Timer(timers, name, this.name, callback);
    this.#add(timers.bind(timer));
    return timer;
  }

  /** See `PluginContext.inhibit`. */
  inhibit(reason: InhibitReason, vcpu?: Vcpu): Registration {
    return this.#add(this.vm.inhibits.bind(reason, this.name, vcpu));
  }

  /** See `PluginContext.addWakeSource`. */
  addWakeSource(name: string): Registration {
    return this.#add(this.vm.bindWakeSource(name));
  }

  /** See `PluginContext.onLeave`. */
  onLeave(callback: (reason: LeaveReason) => void): void {
    this.#check();
    this.#leave.push(callback);
  }

  /** Takes everything out, so that {@linkcode Scope.attach} can put it back as it was. */
  detach(): void {
    for (const binding of this.#bindings) binding.detach();
  }

  /** Puts everything back. */
  attach(): void {
    for (const binding of this.#bindings) binding.attach();
  }

  /**
   * Calls what was given to `onLeave`, all of it, and returns the first error. From here on the context
   * is of no use.
   */
  leave(reason: LeaveReason): PluginError | undefined {
    this.#left = true;
    let first: PluginError | undefined;
    for (const callback of this.#leave.reverse()) {
      try {
        callback(reason);
      } catch (error) {
        first ??= PluginError.wrap(this.name, "onLeave", undefined, error);
      }
    }
    return first;
  }

  #add(binding: Binding): Registration {
    this.#check();
    binding.attach();
    this.#bindings.add(binding);
    return {
      remove: () => {
        if (this.#bindings.delete(binding) && !this.#left) binding.detach();
      },
    };
  }

  #check(): void {
    if (this.#left) throw new VmStateError(`plugin "${this.name}" has left the VM`);
  }
}

function wants(hook: string, what: string): string {
  return `hook "${hook}": wanted ${what}`;
}
