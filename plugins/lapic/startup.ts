/**
 * INIT and start-up messages, carried out on the vCPU that they are for (APM vol. 2, 14.1.3 and 16.5;
 * SDM vol. 3A, 9.4.4 and 11.6).
 *
 * @module
 */

import { eventRequest, Gpr, MpState, type Vcpu } from "../../core/mod.ts";
import type { Lapic } from "./lapic.ts";

/**
 * Carries out what waits: first an INIT, then a start-up message, which counts only for a vCPU that
 * waits for one. After INIT the boot processor starts at the reset vector.
 */
export function acceptStartup(vcpu: Vcpu, lapic: Lapic): void {
  if (lapic.initPending) {
    lapic.takeInit();
    if (vcpu.vm.vendor.current.keepInit?.(vcpu) !== true) acceptInit(vcpu, lapic);
  }
  const vector = lapic.startupVector;
  if (vector < 0) return;
  lapic.takeStartup();
  if (vcpu.vm.vendor.current.keepStartup?.(vcpu, vector) === true) return;
  if (vcpu.mpState === MpState.INIT_RECEIVED) start(vcpu, vector);
}

/** Carries out an INIT. */
export function acceptInit(vcpu: Vcpu, lapic: Lapic): void {
  vcpu.events.clear();
  vcpu.clearRequest(eventRequest);
  vcpu.vm.vendor.current.resetVcpu(vcpu, true);
  lapic.reset(true);
  vcpu.mpState = vcpu.index === 0 ? MpState.RUNNABLE : MpState.INIT_RECEIVED;
}

/** Real mode at page `vector`: CS selector `vector`00h, base `vector`000h, IP 0. */
function start(vcpu: Vcpu, vector: number): void {
  const vendor = vcpu.vm.vendor.current;
  const state = vendor.getSystemState(vcpu);
  state.cs.selector = vector << 8;
  state.cs.base = BigInt(vector << 12);
  vendor.setSystemState(vcpu, state);
  vcpu.regs.setPair(Gpr.RIP, 0, 0);
  vcpu.mpState = MpState.RUNNABLE;
}
