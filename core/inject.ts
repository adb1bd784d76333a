/**
 * Choosing the event with which a vCPU enters the guest.
 *
 * @module
 */

import { PluginError } from "./errors.ts";
import {
  HELD_EXCEPTION,
  HELD_INTERRUPT,
  HELD_NMI,
  type PendingException,
  Vector,
} from "./event.ts";
import { interruptControllerSlot } from "./interrupt.ts";
import { Gpr } from "./registers.ts";
import { eventRequest } from "./request.ts";
import type { Vcpu } from "./vcpu.ts";

/** What `injectHook` says was injected. */
export type InjectedEvent = "exception" | "nmi" | "interrupt";

const RFLAGS_RF = 1 << 16;

/**
 * Hands the vendor the event with the highest priority, if one can be delivered, and asks for a window
 * where one that waits cannot. In order (the order of KVM's `kvm_check_and_inject_events`): an event
 * whose delivery was interrupted, a pending exception, an NMI, an interrupt.
 *
 * What the vendor holds already, because an entry was put off, is not handed to it again. A pending
 * exception comes before an interrupt or NMI that is to be delivered again, because it
 * belongs to an instruction that came earlier.
 */
export function injectEvents(vcpu: Vcpu): void {
  const { events, vm } = vcpu;
  const vendor = vm.vendor.current;
  const { exception } = events;
  vcpu.clearRequest(eventRequest);

  let free = !events.needsReinjection;
  if (exception.injected) {
    if (events.held !== HELD_EXCEPTION) giveException(vcpu, exception);
  } else if (exception.pending) {
    exception.pending = false;
    exception.injected = true;
    giveException(vcpu, exception);
    free = false;
  } else if (events.nmiInjected) {
    if (events.held !== HELD_NMI) giveNmi(vcpu);
  } else if (events.interruptInjected) {
    if (events.held !== HELD_INTERRUPT) giveInterrupt(vcpu);
  }

  if (events.nmiPending > 0 && free && vendor.nmiAllowed(vcpu)) {
    events.nmiPending--;
    events.nmiInjected = true;
    giveNmi(vcpu);
    free = false;
  }
  if (events.nmiPending > 0) vendor.requestNmiWindow(vcpu);

  if (!hasInjectable(vcpu)) return;
  if (free && vendor.interruptAllowed(vcpu)) {
    events.interruptVector = acknowledge(vcpu);
    events.interruptSoft = false;
    events.interruptInjected = true;
    giveInterrupt(vcpu);
    if (!hasInjectable(vcpu)) return;
  }
  vendor.requestInterruptWindow(vcpu);
}

/** Whether an event could be delivered to a vCPU that has halted. */
export function canDeliver(vcpu: Vcpu): boolean {
  const { events } = vcpu;
  const vendor = vcpu.vm.vendor.current;
  return events.exception.pending || events.needsReinjection ||
    (events.nmiPending > 0 && vendor.nmiAllowed(vcpu)) ||
    (hasInterrupt(vcpu) && vendor.interruptAllowed(vcpu));
}

function giveException(vcpu: Vcpu, exception: PendingException): void {
  const { vector } = exception;
  // A fault's saved RFLAGS has RF set, so that returning to the instruction does not run into its
  // breakpoint again (SDM vol. 3B, 17.3.1.1). #DB decides that by itself; traps and aborts do not.
  const trap = vector === Vector.DB || vector === Vector.BP || vector === Vector.OF;
  if (!trap && vector !== Vector.DF && vector !== Vector.MC) {
    const { regs } = vcpu;
    regs.setPair(Gpr.RFLAGS, regs.lo(Gpr.RFLAGS) | RFLAGS_RF, regs.hi(Gpr.RFLAGS));
  }
  vcpu.events.held = HELD_EXCEPTION;
  vcpu.vm.vendor.current.injectException(vcpu, exception);
  vcpu.vm.points.inject.call(vcpu, "exception", vector);
}

function giveNmi(vcpu: Vcpu): void {
  vcpu.events.held = HELD_NMI;
  vcpu.vm.vendor.current.injectNmi(vcpu);
  vcpu.vm.points.inject.call(vcpu, "nmi", Vector.NMI);
}

function giveInterrupt(vcpu: Vcpu): void {
  const { interruptVector, interruptSoft } = vcpu.events;
  vcpu.events.held = HELD_INTERRUPT;
  vcpu.vm.vendor.current.injectInterrupt(vcpu, interruptVector, interruptSoft);
  vcpu.vm.points.inject.call(vcpu, "interrupt", interruptVector);
}

function hasInterrupt(vcpu: Vcpu): boolean {
  try {
    return vcpu.vm.interruptController.current.hasInterrupt(vcpu);
  } catch (error) {
    throw controllerError(vcpu, error);
  }
}

function hasInjectable(vcpu: Vcpu): boolean {
  const controller = vcpu.vm.interruptController.current;
  if (controller.hasInjectable === undefined) return hasInterrupt(vcpu);
  try {
    return controller.hasInjectable(vcpu);
  } catch (error) {
    throw controllerError(vcpu, error);
  }
}

function acknowledge(vcpu: Vcpu): number {
  try {
    return vcpu.vm.interruptController.current.acknowledge(vcpu);
  } catch (error) {
    throw controllerError(vcpu, error);
  }
}

function controllerError(vcpu: Vcpu, error: unknown): PluginError {
  const plugin = vcpu.vm.slots.providerOf(interruptControllerSlot) ?? "core";
  return PluginError.wrap(plugin, 'slot "interrupt-controller"', vcpu.id, error);
}
