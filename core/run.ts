/**
 * The run loop: one vCPU, from entry to entry.
 *
 * @module
 */

import { dispatch } from "./dispatch.ts";
import { PluginError, RequestError, TraplineError } from "./errors.ts";
import { ExitReason } from "./exit.ts";
import { injectEvents } from "./inject.ts";
import { accelerationRequest, eventRequest, requestName, tripleFaultRequest } from "./request.ts";
import { MpState, type Vcpu } from "./vcpu.ts";
import { vendorSlot } from "./vendor.ts";

// V8 folds a constant of the module itself into compiled code; an imported one it loads and checks at each use.
const { BUDGET } = ExitReason;
const { RUNNABLE } = MpState;

/** How often requests may bring up further requests before one entry. */
const MAX_REQUEST_ROUNDS = 1000;

/** `eventRequest` is not served: it stays until the event is chosen, right before the entry. */
const EVENT_BIT: number = 1 << eventRequest.id;

/** Runs a vCPU until its budget is used up, it halts, or something wants the loop to end. */
export function runVcpu(vcpu: Vcpu): void {
  const { vm, exit } = vcpu;
  const { points, vendor } = vm;
  try {
    for (;;) {
      if (requested(vcpu)) serveRequests(vcpu);
      const budget = budgetOf(vcpu);
      if (budget === 0) return;
      if (vcpu.hasRequest(eventRequest)) injectEvents(vcpu);
      points.beforeEnter.call(vcpu);
      if (requested(vcpu)) continue;
      vcpu.events.handOver();
      vendor.current.enter(vcpu, budget);
      if (exit.reason === BUDGET) {
        points.afterExit.call(vcpu, exit);
        charge(vcpu, 0);
      } else {
        answerExit(vcpu);
      }
    }
  } catch (error) {
    vm.fail(attributed(vcpu, error), vcpu);
  }
}

/**
 * Handles the exit that `vcpu` is at. The run loop calls it; so does a vendor that meets exits while
 * it is inside the guest.
 *
 * @returns How many instructions may be retired before the vCPU must leave the guest; 0 to leave now.
 */
export function handleExit(vcpu: Vcpu): number {
  answerExit(vcpu);
  return afterwards(vcpu);
}

/** Handles an exit; how long the vCPU may go on behind it is for the caller to find out. */
function answerExit(vcpu: Vcpu): void {
  const { vm, exit } = vcpu;
  const { points } = vm;
  if (points.plain[exit.reason] === 1) {
    charge(vcpu, 1);
  } else {
    points.afterExit.call(vcpu, exit);
    charge(vcpu, 1);
    points.observeExit.call(vcpu, exit);
  }
  dispatch(vcpu, exit);
  chargeAnswer(vcpu);
}

/** The instruction that exited retires when its answer is committed. */
function chargeAnswer(vcpu: Vcpu): void {
  if (vcpu.instructions !== vcpu.charged) charge(vcpu, 0);
}

/** Instructions that may be retired behind an exit without leaving the guest. */
function afterwards(vcpu: Vcpu): number {
  return vcpu.requestsLo !== 0 || vcpu.requestsHi !== 0 ? 0 : budgetOf(vcpu);
}

/**
 * Counts the exit that `vcpu` is at. For a vendor that meets an exit inside of the guest which is plain
 * (`Points.plain`): it may carry out itself what the core would, on the core's buses, without what
 * else {@linkcode handleExit} has to ask. {@linkcode endExit} comes behind that.
 */
export function beginExit(vcpu: Vcpu): void {
  charge(vcpu, 1);
}

/**
 * The end of an exit that {@linkcode beginExit} has begun.
 *
 * @returns As {@linkcode handleExit}.
 */
export function endExit(vcpu: Vcpu): number {
  chargeAnswer(vcpu);
  return afterwards(vcpu);
}

/** How many instructions the vCPU may retire now; 0 if it must not enter. */
function budgetOf(vcpu: Vcpu): number {
  const { vm } = vcpu;
  const { pace } = vm;
  if (pace.leave === true || vcpu.mpState !== RUNNABLE || vm.exits >= pace.exitEnd) return 0;
  const instructions = pace.instructionEnd - vm.instructions;
  if (instructions <= 0) return 0;
  const ticks = vm.clock.current.budget(pace.horizon);
  // A run is cut long before 2^31, and an integer costs less to hand on.
  return (instructions < ticks ? instructions : ticks) | 0;
}

/** Charges what the vCPU did since the last call to the VM and to its clock. */
function charge(vcpu: Vcpu, exits: number): void {
  const { vm } = vcpu;
  const retired = vcpu.instructions - vcpu.charged;
  vcpu.charged = vcpu.instructions;
  vm.instructions += retired;
  vm.exits += exits;
  vm.clock.current.charge(retired, exits);
}

function requested(vcpu: Vcpu): boolean {
  return ((vcpu.requestsLo & ~EVENT_BIT) | vcpu.requestsHi) !== 0;
}

function serveRequests(vcpu: Vcpu): void {
  for (let round = 0; requested(vcpu); round++) {
    const lo = vcpu.requestsLo & ~EVENT_BIT;
    const hi = vcpu.requestsHi;
    const id = lo !== 0 ? 31 - Math.clz32(lo & -lo) : 63 - Math.clz32(hi & -hi);
    if (round === MAX_REQUEST_ROUNDS) {
      throw new RequestError(requestName(id), "requests bring up further requests without end");
    }
    if (id < 32) vcpu.requestsLo &= ~(1 << id);
    else vcpu.requestsHi &= ~(1 << id);
    serveRequest(vcpu, id);
  }
}

function serveRequest(vcpu: Vcpu, id: number): void {
  const { vm, exit } = vcpu;
  const handler = vm.points.request.table[id];
  if (id === tripleFaultRequest.id) {
    exit.reason = ExitReason.SHUTDOWN;
    dispatch(vcpu, exit);
  } else if (id === accelerationRequest.id) {
    vm.inhibits.refresh(vcpu);
  } else if (handler === undefined) {
    throw new RequestError(requestName(id), `nothing handles it (vCPU ${vcpu.id})`);
  }
  handler?.(vcpu);
}

/** Hooks, devices and timers name their plugin themselves; what else throws here is the vendor. */
function attributed(vcpu: Vcpu, error: unknown): TraplineError {
  if (error instanceof TraplineError) return error;
  const plugin = vcpu.vm.slots.providerOf(vendorSlot) ?? "core";
  return PluginError.wrap(plugin, 'slot "vendor"', vcpu.id, error);
}
