/**
 * The virtual machine.
 *
 * @module
 */

import { type Clock, clockSlot } from "./clock.ts";
import { CpuidResult, cpuidSlot, type CpuidSource } from "./cpuid.ts";
import { ArgumentError, OverlapError, PluginError, VmStateError } from "./errors.ts";
import type { MmioRegion } from "./device.ts";
import { Hooks } from "./hook_points.ts";
import { type HostMemory, hostMemorySlot } from "./host_memory.ts";
import { acceleratorSlot, Inhibits } from "./inhibit.ts";
import type { Image } from "./image.ts";
import { type InterruptController, interruptControllerSlot } from "./interrupt.ts";
import { GuestMemory, Memslot } from "./memory.ts";
import { type MemoryRange, withoutHoles } from "./memory_layout.ts";
import { MmioBus } from "./mmio.ts";
import { type MsrAccess, MsrMap } from "./msr.ts";
import { PortBus, type Unclaimed } from "./pio.ts";
import type { Plugin } from "./plugin.ts";
import { Plugins } from "./plugins.ts";
import { Points } from "./points.ts";
import { describeRange, type Range } from "./range_map.ts";
import type { Binding } from "./registration.ts";
import { accelerationRequest, eventRequest, type VcpuRequest } from "./request.ts";
import type { RunEnd, RunLimits, RunOptions, RunResult } from "./result.ts";
import { Pace, Runner } from "./runner.ts";
import { type Scheduler, schedulerSlot } from "./scheduler.ts";
import { type Slot, type SlotChanged, type SlotRef, Slots } from "./slot.ts";
import { TimerQueue } from "./timer.ts";
import { Vcpu } from "./vcpu.ts";
import { type Vendor, vendorSlot } from "./vendor.ts";
import { VendorBinding } from "./vendor_binding.ts";

/** Options of `vm.unload`. */
export interface UnloadOptions {
  /** Take out those that need the plugin, too, instead of refusing. */
  readonly cascade?: boolean;
}

/** RAM is given host memory at the same offset into 2 MiB, so that large pages can map it. */
const LARGE_PAGE: number = 2 ** 21;

/** A virtual machine. Made by `createVm`. */
export class Vm implements Disposable {
  /** For listings. */
  declare readonly name: string;
  /** Number of host processors that vCPUs are placed on. */
  declare readonly processors: number;
  /** Hooks and who registered for them. */
  declare readonly hooks: Hooks;
  /** The core's own hooks, looked up. */
  declare readonly points: Points;
  /** Slots and who provides them. */
  readonly slots: Slots = new Slots();
  /** The loaded plugins. */
  declare readonly plugins: Plugins;
  /** Guest physical memory. */
  declare readonly memory: GuestMemory;
  /** I/O ports. */
  declare readonly pio: PortBus;
  /** Device registers in memory. */
  declare readonly mmio: MmioBus;
  /** Model-specific registers. */
  declare readonly msrs: MsrMap;
  /** Timers in VM time. */
  declare readonly timers: TimerQueue;
  /** Reasons not to accelerate interrupts. */
  declare readonly inhibits: Inhibits;
  /** The virtual processors. */
  declare readonly vcpus: readonly Vcpu[];

  /** Who enters the guest. */
  declare readonly vendor: SlotRef<Vendor>;
  /** VM time. */
  declare readonly clock: SlotRef<Clock>;
  /** Who runs next. */
  declare readonly scheduler: SlotRef<Scheduler>;
  /** Whose output is the vCPUs' interrupt pin. */
  declare readonly interruptController: SlotRef<InterruptController>;
  /** Host physical memory. */
  declare readonly hostMemory: SlotRef<HostMemory>;

  /** Instructions retired by all vCPUs. */
  instructions = 0;
  /** Exits taken by all vCPUs. */
  exits = 0;
  /** When the vCPU that runs must leave the run loop. The run loop's own. */
  readonly pace: Pace = new Pace();

  readonly #vcpus: Vcpu[] = [];
  readonly #wakeSources: Set<{ name: string }> = new Set();
  readonly #cpuidSource: SlotRef<CpuidSource>;
  #cpuidResult: CpuidResult | undefined = new CpuidResult();
  readonly #binding: VendorBinding;
  readonly #runner: Runner;
  readonly #ram: { memory: HostMemory; hpa: number }[] = [];
  #images: readonly Image[] = [];
  #closed = false;

  /** The core's own; use `createVm`. */
  constructor(name: string, processors: number) {
    this.name = name;
    this.processors = processors;
    this.vcpus = this.#vcpus;
    this.hooks = new Hooks((argument) => argument instanceof Vcpu ? argument.id : undefined);
    const points = this.points = new Points(this.hooks);
    const { slots, pace } = this;
    this.vendor = slots.ref(vendorSlot);
    this.clock = slots.ref(clockSlot);
    this.scheduler = slots.ref(schedulerSlot);
    this.interruptController = slots.ref(interruptControllerSlot);
    this.hostMemory = slots.ref(hostMemorySlot);
    this.#cpuidSource = slots.ref(cpuidSlot);

    const unclaimed: Unclaimed = (bus, address, size, write, value, vcpu) =>
      points.unclaimed.call(bus, address, size, write, value, vcpu);
    this.pio = new PortBus(unclaimed);
    this.mmio = new MmioBus(unclaimed);
    this.memory = new GuestMemory(this.hostMemory, (slot, added) => {
      points.memslot.call(slot, added);
    });
    this.msrs = new MsrMap((access, vcpu) => this.#otherMsr(access, vcpu));
    this.timers = new TimerQueue((deadline) => {
      if (deadline < pace.horizon) pace.horizon = deadline;
    });
    this.inhibits = new Inhibits(slots, this.#vcpus);

    this.#binding = new VendorBinding(this);
    this.#runner = new Runner(this);
    this.plugins = new Plugins(this, () => {
      this.#binding.release();
      if (this.#closed) this.#freeRam();
    });
    this.#watch(vendorSlot, (current, previous) => this.#binding.changed(current, previous));
    this.#watch(clockSlot, (current, previous) => {
      if (current !== undefined && previous !== undefined) current.set(previous.now());
    });
    this.#watch(acceleratorSlot, (_, previous) => {
      this.inhibits.acceleratorChanged(previous);
    });
    this.#watch(schedulerSlot, () => {
      for (const vcpu of this.vcpus) if (vcpu.pcpu >= 0) vcpu.put();
    });
    this.#watch(interruptControllerSlot, () => this.requestAll(eventRequest));
  }

  #watch<T>(slot: Slot<T>, changed: SlotChanged<T>): void {
    this.slots.use(slot, "core", true, changed).attach();
  }

  /** Whether {@linkcode Vm.close} was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether the VM has RAM, whose provider must then stay. */
  get hasRam(): boolean {
    return this.#ram.length > 0;
  }

  /** What outside the VM may wake it, by name. Plugins use `ctx.addWakeSource`. */
  get wakeSources(): string[] {
    return [...this.#wakeSources].map(({ name }) => name);
  }

  /** Whether a run is under way. */
  get running(): boolean {
    return this.#runner.running;
  }

  // Running

  /**
   * Runs until the guest ends, a limit is reached or somebody stops it, giving way to the event loop
   * now and then. An error is a result: look at `reason`.
   *
   * @throws {VmStateError} If the VM is closed or runs already.
   * @throws {SlotError} If the VM has no vendor now.
   * @throws {PluginError} If a handler of `runEndedHook` throws.
   */
  run(options: RunOptions = {}): Promise<RunResult> {
    return this.#runner.run(options);
  }

  /**
   * As {@linkcode Vm.run}, without giving way to the event loop. Where that would wait, this ends with
   * reason `"waiting"`.
   *
   * @throws {VmStateError} If the VM is closed or runs already.
   * @throws {SlotError} If the VM has no vendor now.
   * @throws {PluginError} If a handler of `runEndedHook` throws.
   */
  runSync(limits: RunLimits = {}): RunResult {
    return this.#runner.runSync(limits);
  }

  /** Ends the run that is under way before the next entry. Without one, nothing happens. */
  stop(end: RunEnd = { reason: "stopped", detail: "stop() was called" }): void {
    this.#runner.stop(end);
  }

  /** Ends the wait of a run in which every vCPU waits, so that it looks again. */
  wake(): void {
    this.#runner.wake();
  }

  /** Ends the run with an error that came up on behalf of a vCPU. */
  fail(error: unknown, vcpu?: Vcpu): void {
    this.#runner.fail(error, vcpu);
  }

  /** Ends the vCPU's turn: it has nothing useful to do for now, as PAUSE says. */
  yieldVcpu(vcpu: Vcpu): void {
    this.scheduler.current.yield(vcpu);
    this.pace.horizon = 0;
  }

  // Plugins

  /**
   * Loads plugins, all or none of them; from inside a run, before the next entry.
   *
   * @throws {RequirementError} If requirements cannot be met.
   * @throws {SlotError} If a slot would have two providers, or not the one that was declared.
   * @throws {PluginError} If a plugin's `setup` throws.
   */
  load(...plugins: Plugin[]): void {
    this.#change(() => this.plugins.load(plugins));
  }

  /**
   * Unloads a plugin; from inside a run, before the next entry.
   *
   * @throws {RequirementError} If there is no such plugin, or if others need it and `cascade` is not
   * asked for; the error names them.
   * @throws {PluginError} If a plugin throws while it leaves; it has left all the same.
   */
  unload(name: string, options: UnloadOptions = {}): void {
    this.#change(() => this.plugins.unload(name, options.cascade ?? false));
  }

  /**
   * Puts a plugin in the place of another, with the state that both declare under the same name; from
   * inside a run, before the next entry. If anything throws, the old plugin is there as before.
   *
   * @throws {RequirementError} If there is no such plugin, or others would miss something.
   * @throws {StateError} If the new plugin cannot take the state over.
   * @throws {PluginError} If a plugin throws; if that is the old one as it leaves, the swap is done.
   */
  swap(name: string, plugin: Plugin): void {
    this.#change(() => this.plugins.swap(name, plugin));
  }

  #change(action: () => void): void {
    if (this.#closed) throw new VmStateError("the VM is closed");
    this.#runner.betweenEntries(action);
  }

  // vCPUs

  /**
   * Adds a vCPU. The first one runs at once; others wait to be started.
   *
   * @param id Becomes its APIC ID.
   * @throws {ArgumentError} If the id is taken or not a 32-bit number.
   * @throws {PluginError} If a plugin or the vendor throws; there is no new vCPU then.
   */
  addVcpu(id: number): Vcpu {
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 32) {
      throw new ArgumentError(`vCPU id ${id} is not a 32-bit number`);
    }
    if (this.vcpus.some((vcpu) => vcpu.id === id)) {
      throw new ArgumentError(`two vCPUs have id ${id}`);
    }
    const vcpu = new Vcpu(this, this.vcpus.length, id);
    this.plugins.addVcpu(vcpu);
    this.#binding.create(vcpu);
    this.#vcpus.push(vcpu);
    try {
      this.points.vcpuCreated.call(vcpu);
    } catch (error) {
      this.#vcpus.pop();
      this.#binding.destroyLast(vcpu);
      throw error;
    }
    vcpu.request(accelerationRequest);
    // A vCPU that ran alone had no end to its turn.
    this.pace.horizon = 0;
    return vcpu;
  }

  /** Makes a request of every vCPU. */
  requestAll(request: VcpuRequest): void {
    for (const vcpu of this.vcpus) vcpu.request(request);
  }

  /**
   * Answers CPUID as a vCPU would see it. The record may be used again by the next call: copy what is
   * to be kept.
   *
   * @throws {PluginError} If the source or a handler of `cpuidHook` throws.
   */
  cpuid(leaf: number, subleaf: number, vcpu: Vcpu): CpuidResult {
    // A handler may ask for another leaf while it works on its own.
    const result = this.#cpuidResult ?? new CpuidResult();
    this.#cpuidResult = undefined;
    result.leaf = leaf;
    result.subleaf = subleaf;
    try {
      this.#cpuidSource.current.read(result, vcpu);
      return this.points.cpuid.get(leaf)?.(result, vcpu) ?? result;
    } catch (error) {
      const plugin = this.slots.providerOf(cpuidSlot) ?? "core";
      throw PluginError.wrap(plugin, 'slot "cpuid"', vcpu.id, error);
    } finally {
      this.#cpuidResult = result;
    }
  }

  #otherMsr(access: MsrAccess, vcpu: Vcpu): boolean {
    const vendor = this.vendor.current;
    const good = access.write ? vendor.writeMsr(vcpu, access) : vendor.readMsr(vcpu, access);
    return good || this.points.unknownMsr.call(access, vcpu) === true;
  }

  // Interrupts

  /** Drives an interrupt line (a GSI) to a level. */
  setIrqLine(line: number, level: boolean): void {
    this.points.irqLine.call(line, level);
  }

  /** Sends a message-signalled interrupt; returns whether anybody took it. */
  sendMsi(address: number, data: number): boolean {
    return this.points.msi.call(address, data) === true;
  }

  // Memory

  /** For `ctx.registerMmio`: device registers, refused where a memslot is. */
  bindMmio(region: MmioRegion, owner: string): Binding {
    return this.mmio.bind(region, owner, (claim) => {
      refuse("MMIO", claim, this.memory.firstIn(claim.base, claim.length));
    });
  }

  /** For `ctx.addMemslot`: a memslot, refused where device registers are. */
  bindMemslot(memslot: Memslot): Binding {
    return this.memory.bind(memslot, (slot) => {
      refuse("memslot", slot, this.mmio.firstIn(slot.base, slot.length));
    });
  }

  /** For `ctx.addWakeSource`. */
  bindWakeSource(name: string): Binding {
    const source = { name };
    return {
      attach: () => void this.#wakeSources.add(source),
      detach: () => {
        this.#wakeSources.delete(source);
        this.wake();
      },
    };
  }

  /** For `createVm`: allocates RAM and maps it where no device is. */
  addRam(ranges: readonly MemoryRange[]): void {
    const memory = this.hostMemory.current;
    const taken = [...this.memory.slots, ...this.mmio.regions];
    const holes = taken.map(({ base, length }) => ({ gpa: base, size: length }));
    for (const { gpa, size } of withoutHoles(ranges, holes)) {
      const offset = gpa % LARGE_PAGE;
      const hpa = memory.alloc(offset + size, LARGE_PAGE);
      this.#ram.push({ memory, hpa });
      this.bindMemslot(new Memslot({ name: "ram", gpa, size, hpa: hpa + offset }, "core")).attach();
    }
  }

  // Beginning and end

  /** For `createVm`: loads images now, and at each reset. */
  loadImages(images: readonly Image[]): void {
    this.#images = images;
    for (const image of images) image.load(this);
  }

  /**
   * Resets vCPUs and devices and loads the images again; from inside a run, before the next entry. RAM
   * keeps what the images do not overwrite.
   */
  reset(): void {
    this.#change(() => {
      this.#resetMachine();
      this.loadImages(this.#images);
    });
  }

  /**
   * Resets vCPUs and devices and leaves all of RAM as it is, as a machine does that wakes from a sleep
   * in which only RAM kept its power; from inside a run, before the next entry.
   */
  resetKeepingMemory(): void {
    this.#change(() => this.#resetMachine());
  }

  #resetMachine(): void {
    for (const vcpu of this.vcpus) vcpu.reset();
    this.points.reset.call(this);
  }

  /**
   * Ends the VM: stops a run, takes all plugins out, and gives memory back. Doing so twice is harmless.
   *
   * @throws {VmStateError} From inside a run: stop it instead, and close the VM when it has ended.
   * @throws {PluginError} If a plugin throws as it leaves; the VM is closed all the same.
   */
  close(): void {
    if (this.#closed) return;
    if (this.#runner.busy) throw new VmStateError("the VM cannot be closed from inside a run");
    this.stop({ reason: "stopped", detail: "the VM was closed" });
    this.#closed = true;
    this.plugins.close();
  }

  #freeRam(): void {
    for (const { memory, hpa } of this.#ram.splice(0)) memory.free(hpa);
  }

  /** As {@linkcode Vm.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function refuse(space: string, range: Range, other: Range | undefined): void {
  if (other === undefined) return;
  throw new OverlapError(space, describeRange(range), describeRange(other));
}
