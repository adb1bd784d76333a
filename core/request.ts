/**
 * Requests: work that a vCPU must do before it enters the guest again.
 *
 * Whoever changes something that a vCPU must take notice of makes a request of it; the run loop
 * handles all requests before each entry, in the order in which the kinds were defined.
 *
 * @module
 */

import { ArgumentError } from "./errors.ts";

/** How many kinds of request there can be. */
export const MAX_REQUESTS = 64;

/** A kind of request. */
export interface VcpuRequest {
  /** For messages and listings. */
  readonly name: string;
  /** Its bit, 0 to 63; the key of the request hook. */
  readonly id: number;
}

const requests: VcpuRequest[] = [];

/**
 * Defines a kind of request. Do so once, in a constant.
 *
 * @throws {ArgumentError} If there are {@linkcode MAX_REQUESTS} kinds already.
 */
export function defineRequest(name: string): VcpuRequest {
  if (requests.length === MAX_REQUESTS) {
    throw new ArgumentError(`request "${name}": all ${MAX_REQUESTS} kinds are taken`);
  }
  const request = Object.freeze({ name, id: requests.length });
  requests.push(request);
  return request;
}

/** Name of the request with a given id, for messages. */
export function requestName(id: number): string {
  return requests[id]?.name ?? `request ${id}`;
}

/** A triple fault: the vCPU shuts down. */
export const tripleFaultRequest: VcpuRequest = defineRequest("triple-fault");

/** Whether an event (exception, NMI, interrupt) can be injected is to be looked at again. */
export const eventRequest: VcpuRequest = defineRequest("event");

/** Whether interrupts are accelerated for this vCPU is to be worked out again. */
export const accelerationRequest: VcpuRequest = defineRequest("acceleration");

/** An INIT or start-up IPI is to be carried out; the vCPU counts as runnable until it is. */
export const initRequest: VcpuRequest = defineRequest("init");
