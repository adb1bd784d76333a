/**
 * The typed errors of the core. Each says in one sentence what was wrong and where, and carries the
 * same facts as fields so that a program need not read the sentence.
 *
 * @module
 */

/** The base of every error the framework throws on purpose. */
export class TraplineError extends Error {
  /** As for `Error`; the name is that of the class. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An argument or option is out of its documented range. */
export class ArgumentError extends TraplineError {}

/** The VM is not in a state in which the call is possible: closed, or running already. */
export class VmStateError extends TraplineError {}

/**
 * Handlers of one hook ask for an order that cannot exist.
 *
 * Thrown by the registration that closes the cycle; that registration is not made.
 */
export class HookOrderError extends TraplineError {
  /** Name of the hook, with the key for a keyed hook. */
  readonly hook: string;
  /** Plugin names along the cycle; the first is repeated at the end. */
  readonly cycle: readonly string[];

  /** Names the hook and the cycle. */
  constructor(hook: string, cycle: readonly string[]) {
    super(`hook "${hook}": the order of handlers has a cycle: ${cycle.join(" -> ")}`);
    this.hook = hook;
    this.cycle = cycle;
  }
}

/** A slot has no provider, or would get a second one. */
export class SlotError extends TraplineError {
  /** Name of the slot. */
  readonly slot: string;

  /** Names the slot; `message` says what is wrong with it. */
  constructor(slot: string, message: string) {
    super(`slot "${slot}": ${message}`);
    this.slot = slot;
  }
}

/**
 * The set of plugins cannot be: a requirement is missing or cyclic, two plugins have one name, or
 * a plugin that others need would leave.
 */
export class RequirementError extends TraplineError {
  /** Names of the plugins concerned, in the order of the message. */
  readonly plugins: readonly string[];

  /** `plugins` are the names that the message mentions. */
  constructor(message: string, plugins: readonly string[]) {
    super(message);
    this.plugins = plugins;
  }
}

/** Saved state cannot be saved, loaded, or handed from one plugin to another. */
export class StateError extends TraplineError {}

/** Two owners claim one address, port, MSR or range. */
export class OverlapError extends TraplineError {
  /** What was to be claimed. */
  readonly claimed: string;
  /** Who has it already. */
  readonly owner: string;

  /** `space` is the kind of address; the other two name the two owners and their ranges. */
  constructor(space: string, claimed: string, owner: string) {
    super(`${space}: ${claimed} overlaps ${owner}`);
    this.claimed = claimed;
    this.owner = owner;
  }
}

/** An access to guest or host physical memory leaves what is backed. */
export class MemoryError extends TraplineError {
  /** First address of the access that cannot be served. */
  readonly address: number;

  /** `address` is the guest or host physical address at fault. */
  constructor(address: number, message: string) {
    super(message);
    this.address = address;
  }
}

/** A request was made of a vCPU and nothing handles requests of that kind. */
export class RequestError extends TraplineError {
  /** Name of the request. */
  readonly request: string;

  /** Names the request; `message` says what is wrong with it. */
  constructor(request: string, message: string) {
    super(`request "${request}": ${message}`);
    this.request = request;
  }
}

/** A VM exit that neither a plugin nor the core knows how to handle. */
export class UnhandledExitError extends TraplineError {
  /** The vCPU that exited. */
  readonly vcpuId: number;
  /** Name of the exit reason. */
  readonly reason: string;

  /** `detail` describes the exit: vendor code, address, instruction bytes. */
  constructor(vcpuId: number, reason: string, detail: string) {
    super(`vCPU ${vcpuId}: nothing handles exit ${reason}${detail === "" ? "" : ` (${detail})`}`);
    this.vcpuId = vcpuId;
    this.reason = reason;
  }
}

/** The processor met an instruction or a feature that it does not implement. */
export class UnimplementedError extends TraplineError {}

/**
 * A plugin threw. Carries who, where, and for which vCPU; `cause` is what was thrown.
 *
 * Thrown out of a hook while a vCPU runs, it stops that vCPU and becomes the result of the run; the
 * VM can then be inspected, resumed or closed.
 */
export class PluginError extends TraplineError {
  /** Name of the plugin whose code threw. */
  readonly plugin: string;
  /** The hook (or other entry point of the plugin) that was being called. */
  readonly hook: string;
  /** Id of the vCPU on whose behalf it was called, or `undefined` when there was none. */
  readonly vcpuId: number | undefined;

  /** Wraps `cause`, whatever was thrown. */
  constructor(plugin: string, hook: string, vcpuId: number | undefined, cause: unknown) {
    const what = cause instanceof Error ? cause.message : String(cause);
    const where = vcpuId === undefined ? "" : ` on vCPU ${vcpuId}`;
    super(`plugin "${plugin}" failed in ${hook}${where}: ${what}`, { cause });
    this.plugin = plugin;
    this.hook = hook;
    this.vcpuId = vcpuId;
  }

  /**
   * Wraps `cause` unless it names its culprit already: an error that passes through several hooks
   * belongs to the innermost.
   */
  static wrap(
    plugin: string,
    hook: string,
    vcpuId: number | undefined,
    cause: unknown,
  ): PluginError {
    return cause instanceof PluginError ? cause : new PluginError(plugin, hook, vcpuId, cause);
  }
}
