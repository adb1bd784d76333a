/**
 * The pending single step of a guest whose #DB is given back to it.
 *
 * @module
 */
import { ExitAction, exitHook, ExitReason, type Plugin } from "../core/mod.ts";
import { Vector } from "../plugins/cpu/mod.ts";
import {
  pendingDebugInjected,
  pendingDebugReflected,
  pendingDebugSlot,
  pendingDebugStale,
} from "../plugins/vmx/mod.ts";
import type { Patch, PatchScenario } from "./patch.ts";
import { provider } from "./providers.ts";

/**
 * A debugger outside of the hypervisor, as it is with KVM_GUESTDBG: every #DB that exits goes to it, and as
 * none is its own it has it injected.
 */
function debuggerOutside(): Plugin {
  return {
    name: "debugger-outside",
    version: "1.0.0",
    setup(ctx) {
      ctx.on(exitHook, ExitReason.EXCEPTION, (vcpu, exit) => {
        if (exit.vector !== Vector.DB) return undefined;
        vcpu.events.queueDebug(exit.info1Lo);
        return ExitAction.RESUME;
      }, { stage: "pre" });
    },
  };
}

const stepper: Omit<PatchScenario, "name" | "summary"> = {
  guest: "steps",
  commandLine: "nop=5 sti=5",
  vendor: "vmx",
  vmx: { interceptDebug: true },
  sameForGuest: false,
};

/** A #DB that KVM itself gives back. */
export const vmxDebugShadow: Patch = {
  id: "vmx-debug-shadow",
  title: "KVM: VMX: Set vmcs.PENDING_DBG.BS on #DB in STI/MOVSS blocking shadow",
  posted: { author: "Sean Christopherson", where: "kvm and linux-kernel", date: "2022-01-20" },
  state: "merged",
  commits: ["b9bed78e2fa9"],
  changes:
    "Giving an intercepted #DB back to a guest with RFLAGS.TF set and blocking by STI or MOV SS in " +
    "force sets BS in its pending debug exceptions, which the exit of a #DB leaves clear.",
  shows: "A single step over STI: the next VM entry fails (exit 33) -> the guest gets its #DB.",
  before: {
    name: "before",
    summary: "pending debug exceptions stay as the exit left them",
    plugin: provider(pendingDebugSlot, pendingDebugStale),
  },
  after: {
    name: "after",
    summary: "BS is set for a #DB that was intercepted",
    plugin: provider(pendingDebugSlot, pendingDebugReflected),
  },
  others: [],
  scenarios: [
    {
      name: "steps",
      summary: "a guest that single-steps over NOP and STI, and executes INT1",
      ...stepper,
      commandLine: "nop=5 int1=5 sti=5",
    },
  ],
};

/** A #DB from anywhere. */
export const vmxDebugInjected: Patch = {
  id: "vmx-debug-injected",
  title: "KVM: VMX: Refresh GUEST_PENDING_DBG_EXCEPTIONS.BS on all injected #DBs",
  posted: { author: "Sean Christopherson", where: "kvm and linux-kernel", date: "2026-05-15" },
  state: "merged",
  commits: ["c5bad4fa2d5d"],
  changes:
    "The same is done where exceptions are injected, and so for every #DB: also for those of the " +
    "emulator and of a debugger in user space.",
  shows:
    "A single step over STI, its #DB injected by a debugger: the VM entry fails (exit 33) -> the " +
    "guest gets its #DB.",
  before: {
    name: "before",
    summary: "BS is set for a #DB that the hypervisor itself gives back",
    plugin: provider(pendingDebugSlot, pendingDebugReflected),
  },
  after: {
    name: "after",
    summary: "BS is set for every #DB",
    plugin: provider(pendingDebugSlot, pendingDebugInjected),
  },
  others: [],
  scenarios: [
    {
      name: "debugger",
      summary: "a guest that single-steps over NOP and STI, with a debugger that injects each #DB",
      ...stepper,
      plugins: () => [debuggerOutside()],
    },
  ],
};
