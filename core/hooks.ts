/**
 * Every hook that the core calls, on one page, in the order in which a VM meets them.
 *
 * Register with `ctx.on(hook, handler)`, or `ctx.on(hook, key, handler)` for a hook with keys.
 *
 * @module
 */

import type { CpuidResult } from "./cpuid.ts";
import { type ExitAction, MAX_EXIT_REASONS, type VmExit } from "./exit.ts";
import { defineHook, defineKeyedHook, type Hook, type KeyedHook } from "./hook.ts";
import type { InjectedEvent } from "./inject.ts";
import type { Memslot } from "./memory.ts";
import type { MsrAccess } from "./msr.ts";
import { MAX_REQUESTS } from "./request.ts";
import type { RunResult } from "./result.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

/**
 * A vCPU was made: its declared state exists, and so do the vendor's part of it and its registers.
 * Vendors and devices that keep something for each vCPU outside of declared state set it up here.
 */
export const vcpuCreatedHook: Hook<(vcpu: Vcpu) => void, "each"> = defineHook({
  name: "vcpu-created",
  kind: "each",
  arity: 1,
});

/** The VM is being reset: devices go back to their power-up state; vCPUs have done so already. */
export const resetHook: Hook<(vm: Vm) => void, "each"> = defineHook({
  name: "reset",
  kind: "each",
  arity: 1,
});

/** The scheduler places a vCPU on host processor `pcpu`; KVM's `vcpu_load`. */
export const vcpuLoadHook: Hook<(vcpu: Vcpu, pcpu: number) => void, "each"> = defineHook({
  name: "vcpu-load",
  kind: "each",
  arity: 2,
});

/**
 * The scheduler takes a vCPU off its host processor, `vcpu.pcpu`; KVM's `vcpu_put`. It halted if
 * `vcpu.mpState` says so, otherwise it makes place for another.
 */
export const vcpuPutHook: Hook<(vcpu: Vcpu) => void, "each"> = defineHook({
  name: "vcpu-put",
  kind: "each",
  arity: 1,
});

/**
 * A request is handled, before the vCPU's next entry. The key is the request's id. A request that has
 * no handler stops the vCPU with an error that names it.
 */
export const requestHook: KeyedHook<(vcpu: Vcpu) => void, "each"> = defineKeyedHook({
  name: "request",
  kind: "each",
  arity: 1,
  keys: MAX_REQUESTS,
});

/** An event is handed to the vendor for the next entry. For those who watch. */
export const injectHook: Hook<
  (vcpu: Vcpu, event: InjectedEvent, vector: number) => void,
  "each"
> = defineHook({ name: "inject", kind: "each", arity: 3 });

/**
 * The vCPU is about to enter the guest: last chance to load what hardware does not switch. A request
 * made here is handled before the entry after all.
 */
export const beforeEnterHook: Hook<(vcpu: Vcpu) => void, "each"> = defineHook({
  name: "before-enter",
  kind: "each",
  arity: 1,
});

/**
 * The vCPU has left the guest, for whatever reason, and nobody has looked at guest state yet: save what
 * hardware does not switch. The counterpart of {@linkcode beforeEnterHook}, also called when only the
 * instruction budget was used up (`ExitReason.BUDGET`). A vendor that handles exits from inside the
 * guest has it called for each of them without leaving.
 */
export const afterExitHook: Hook<(vcpu: Vcpu, exit: VmExit) => void, "each"> = defineHook({
  name: "after-exit",
  kind: "each",
  arity: 2,
});

/**
 * An exit is about to be handled. For those who watch: called once for each exit, and not when only the
 * instruction budget was used up, so that what is seen does not depend on how a run was sliced.
 */
export const observeExitHook: Hook<(vcpu: Vcpu, exit: VmExit) => void, "each"> = defineHook({
  name: "observe-exit",
  kind: "each",
  arity: 2,
});

/**
 * An exit that may be handled at once, ahead of {@linkcode exitHook}. The key is the exit reason. For
 * short handlers of frequent exits; a handler that is not sure answers `undefined`.
 */
export const fastpathHook: KeyedHook<
  (vcpu: Vcpu, exit: VmExit) => ExitAction | undefined,
  "first"
> = defineKeyedHook({ name: "fastpath", kind: "first", arity: 2, keys: MAX_EXIT_REASONS });

/**
 * An exit is handled. The key is the exit reason. The first answer counts; if there is none, the core
 * handles the exit in its own way, or stops the vCPU with an error that names the reason.
 */
export const exitHook: KeyedHook<
  (vcpu: Vcpu, exit: VmExit) => ExitAction | undefined,
  "first"
> = defineKeyedHook({ name: "exit", kind: "first", arity: 2, keys: MAX_EXIT_REASONS });

/**
 * A hypercall from privilege level 0. The key is the number in EAX. Arguments are in RBX, RCX, RDX and
 * RSI and the answer goes into RAX, as KVM has it; the handler answers `true` when it has put it there.
 * A number that nobody handles gives -1000 (`KVM_ENOSYS`).
 */
export const hypercallHook: KeyedHook<(vcpu: Vcpu) => boolean | undefined, "first"> =
  defineKeyedHook({ name: "hypercall", kind: "first", arity: 1, keys: "sparse" });

/**
 * The answer to CPUID passes through. The key is the leaf. Handlers change the record that they are
 * given and return it.
 */
export const cpuidHook: KeyedHook<(result: CpuidResult, vcpu: Vcpu) => CpuidResult, "fold"> =
  defineKeyedHook({ name: "cpuid", kind: "fold", arity: 2, keys: "sparse" });

/**
 * An MSR is accessed that neither a plugin nor the vendor has. Answer `true` if the access is good
 * after all (the value read goes into the access), `false` for #GP at once.
 */
export const unknownMsrHook: Hook<
  (access: MsrAccess, vcpu: Vcpu) => boolean | undefined,
  "first"
> = defineHook({ name: "unknown-msr", kind: "first", arity: 2 });

/**
 * A port or a memory address is accessed that no device claims. For those who watch: reads give all
 * ones, writes are dropped.
 */
export const unclaimedHook: Hook<
  (
    bus: "pio" | "mmio",
    address: number,
    size: number,
    write: boolean,
    value: number,
    vcpu: Vcpu | undefined,
  ) => void,
  "each"
> = defineHook({ name: "unclaimed", kind: "each", arity: 6 });

/**
 * A memslot came (`added`) or went. Vendors drop the nested translations of its range. When one goes,
 * its host memory is still there.
 */
export const memslotHook: Hook<(slot: Memslot, added: boolean) => void, "each"> = defineHook({
  name: "memslot",
  kind: "each",
  arity: 2,
});

/** A device drives an interrupt line (a GSI): ISA lines are 0 to 15. Interrupt controllers listen. */
export const irqLineHook: Hook<(line: number, level: boolean) => void, "each"> = defineHook({
  name: "irq-line",
  kind: "each",
  arity: 2,
});

/**
 * A device sends a message-signalled interrupt: a write of `data` (32 bits) to `address`. Answer
 * whether it was delivered.
 */
export const msiHook: Hook<(address: number, data: number) => boolean | undefined, "first"> =
  defineHook({ name: "msi", kind: "first", arity: 2 });

/** A run of the VM has ended. For tools that report. */
export const runEndedHook: Hook<(result: RunResult, vm: Vm) => void, "each"> = defineHook({
  name: "run-ended",
  kind: "each",
  arity: 2,
});
