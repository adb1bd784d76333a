/**
 * Which handler carries out which form.
 *
 * The interpreter's module holds the microcode and the handlers of the forms most code uses
 * (`hot_forms.ts`). Every other form gets its handler when the decoder first meets it, in a small module
 * of its own that shares memory and table. Compiled modules are kept for all machines of the process.
 *
 * @module
 */
import type { AddressForm, Form, OperandKind } from "../decode/form.ts";
import { defineAccess } from "../memory/access.ts";
import { definePhysical } from "../memory/physical.ts";
import { defineSegmentation } from "../memory/segmentation.ts";
import { defineTlb } from "../memory/tlb.ts";
import { defineWindows } from "../memory/windows.ts";
import { defineWalk } from "../memory/walk.ts";
import { defineBranchTracking } from "../microcode/branch_tracking.ts";
import { defineBreakpoints } from "../microcode/breakpoints.ts";
import { defineCetMsr } from "../microcode/cet_msr.ts";
import { defineControl } from "../microcode/control.ts";
import { defineEvents } from "../microcode/events.ts";
import { defineExtendedState } from "../microcode/extended_state.ts";
import { defineFar } from "../microcode/far.ts";
import { defineInterrupt } from "../microcode/interrupt.ts";
import { defineLastBranch } from "../microcode/last_branch.ts";
import { declareMicrocode, type Microcode } from "../microcode/microcode.ts";
import { defineMode } from "../microcode/mode.ts";
import { defineMsr } from "../microcode/msr.ts";
import { definePort } from "../microcode/port.ts";
import { defineOutside } from "../microcode/outside.ts";
import { defineRaise } from "../microcode/raise.ts";
import { defineSegments } from "../microcode/segments.ts";
import { defineShadowStack } from "../microcode/shadow_stack.ts";
import { defineSystemCall } from "../microcode/system_call.ts";
import { defineTaskSwitch } from "../microcode/task_switch.ts";
import { defineNumericError } from "../microcode/numeric_error.ts";
import { defineVirtual8086 } from "../microcode/virtual_8086.ts";
import { defineFlags } from "../semantics/flags.ts";
import { SEMANTICS } from "../semantics/mod.ts";
import { S } from "../state/cpu_state.ts";
import { defineEvaluation } from "../svm/avic/evaluate.ts";
import { defineIpi } from "../svm/avic/ipi.ts";
import { defineRegisters } from "../svm/avic/registers.ts";
import { defineBusLock } from "../microcode/bus_lock.ts";
import { definePauseFilter } from "../svm/pause_filter.ts";
import { defineSmm } from "../smm/unit.ts";
import { defineSvmHostStub } from "../svm/host_stub.ts";
import { defineSvm } from "../svm/unit.ts";
import { defineVmx } from "../vmx/unit.ts";
import { ModuleBuilder } from "../wasm/mod.ts";
import { BlockHeader } from "./block_layout.ts";
import { digestOf } from "./digest.ts";
import { HOT_FORMS, HOT_PAIRS } from "./hot_forms.ts";
import { defineRun } from "./run.ts";
import { HANDLER_PARAMS } from "./links.ts";
import { buildHandler } from "./tier1.ts";
import { buildUnit, type Unit, unitOf } from "./units.ts";

/** Entries of the function table. */
export const TABLE_SIZE = 16384;
/** Table index of the handler of invalidated blocks. */
export const DEAD_HANDLER = 1;
/** First table index of a form's handler. */
const FIRST_HANDLER = 2;
/** First table index of compiled regions; those of forms end before. */
export const FIRST_REGION = 8192;
/** First table index that is not the interpreter module's. */
const FIRST_LATE: number = FIRST_HANDLER + HOT_FORMS.length + HOT_PAIRS.length;

/** A form as text, by which handlers are found: name, sizes, operands, addressing. */
export function formKey(form: Form): string {
  const operands = form.operands.map(({ kind, bits }) => kind + bits).join(",");
  const address = form.address ?? "-";
  return `${form.name} ${form.bits} ${operands} ${address} ${form.addressBits} ${form.code} ` +
    `${form.stack} ${form.rep}`;
}

/** The form that {@linkcode formKey} made a text of. */
export function parseFormKey(key: string): Form {
  const [name, bits, operands, address, addressBits, code, stack, rep] = key.split(" ");
  return {
    name: name!,
    bits: Number(bits) as Form["bits"],
    operands: operands === "" ? [] : operands!.split(",").map((text) => ({
      kind: text[0] as OperandKind,
      bits: Number(text.slice(1)),
    })),
    address: address === "-" ? undefined : address as AddressForm,
    addressBits: Number(addressBits) as Form["addressBits"],
    code: Number(code) as Form["code"],
    stack: Number(stack) as Form["stack"],
    rep: Number(rep) as Form["rep"],
  };
}

/** The interpreter's module for memories of one size. */
interface CoreModule {
  readonly module: WebAssembly.Module;
  readonly microcode: Microcode;
  readonly hot: ReadonlyMap<string, number>;
  readonly pairs: ReadonlyMap<number, number>;
  /** Digest of the module. */
  readonly identity: string;
}

const coreModules = new Map<number, CoreModule>();

/** A module made when it was first needed, and the units whose functions it calls. */
interface LateModule {
  readonly module: WebAssembly.Module;
  readonly units: readonly Unit[];
}

function lateModule(builder: ModuleBuilder): LateModule {
  const units = builder.importedNames.map(unitOf).filter((unit) => unit !== undefined);
  return { module: new WebAssembly.Module(builder.encode()), units };
}

/** Modules of units, by memory size and name. */
const unitModules = new Map<string, LateModule>();
/** Modules of forms met later, by memory size and key. */
const lateModules = new Map<string, LateModule>();
/** Table indices of those forms: the same in every machine, so that a module fits all of them. */
const lateIndices = new Map<string, number>();

/** The microcode, in a module for memories of one size that is still to be completed. */
export function buildMicrocode(
  memoryPages: number,
): { readonly module: ModuleBuilder; readonly microcode: Microcode } {
  const module = new ModuleBuilder({ memoryPages, tableSize: TABLE_SIZE });
  const tag = module.tag();
  const mc = declareMicrocode(module);
  defineRaise(mc, tag);
  defineOutside(mc);
  defineBreakpoints(mc);
  defineLastBranch(mc);
  defineMode(mc);
  defineFlags(mc);
  definePhysical(mc);
  defineTlb(mc);
  defineWindows(mc);
  defineWalk(mc);
  defineAccess(mc);
  defineSegmentation(mc);
  defineSegments(mc);
  defineInterrupt(mc);
  defineFar(mc);
  defineShadowStack(mc);
  defineBranchTracking(mc);
  defineCetMsr(mc);
  defineTaskSwitch(mc);
  defineControl(mc);
  defineExtendedState(mc);
  defineMsr(mc);
  definePort(mc);
  defineSystemCall(mc);
  defineVirtual8086(mc);
  defineNumericError(mc);
  defineEvaluation(mc);
  defineIpi(mc);
  defineRegisters(mc);
  definePauseFilter(mc);
  defineBusLock(mc);
  defineSvm(mc);
  defineSvmHostStub(mc);
  defineVmx(mc, tag);
  defineSmm(mc);
  defineEvents(mc);
  defineRun(mc, tag);
  return { module, microcode: mc };
}

function buildCore(memoryPages: number): CoreModule {
  const { module, microcode: mc } = buildMicrocode(memoryPages);
  const dead = module.define("dead", HANDLER_PARAMS, undefined, (f, uop, budget, kind, a, b) => {
    const block = uop.sub(BlockHeader.BYTES);
    S.rip.set(f, f.load64(block, BlockHeader.RIP));
    S.budget.set(f, budget.add(f.load16(block, BlockHeader.COUNT)));
    S.flagsKind.set(f, kind);
    S.flagsA.set(f, a);
    S.flagsB.set(f, b);
  });
  module.element(DEAD_HANDLER, dead);

  const hot = new Map<string, number>();
  for (const key of HOT_FORMS) {
    const index = FIRST_HANDLER + hot.size;
    module.element(index, handler(module, mc, key));
    hot.set(key, index);
  }
  const pairs = new Map<number, number>();
  for (const [first, second] of HOT_PAIRS) {
    const index = FIRST_HANDLER + hot.size + pairs.size;
    module.element(index, handler(module, mc, first, second));
    pairs.set(pairKey(hot.get(first)!, hot.get(second)!), index);
  }
  const code = module.encode();
  const identity = digestOf(code);
  return { module: new WebAssembly.Module(code), microcode: mc, hot, pairs, identity };
}

/** One number for two handlers in a row. */
function pairKey(first: number, second: number): number {
  return first * TABLE_SIZE + second;
}

/** The handler of one form, or of several in a row. */
function handler(
  module: ModuleBuilder,
  mc: Microcode,
  ...keys: readonly string[]
): ReturnType<typeof buildHandler> {
  const parts = keys.map((key) => {
    const form = parseFormKey(key);
    const semantics = SEMANTICS[form.name];
    if (semantics === undefined) throw new Error(`no semantics for ${form.name}`);
    return { form, emit: semantics.emit };
  });
  return buildHandler(module, mc, keys.join(" + "), parts);
}

/** The handlers of one machine. */
export class Handlers {
  /** The functions of the interpreter's module. */
  readonly exports: Record<string, CallableFunction>;
  /** Pages of 64 KiB of the memory. */
  readonly memoryPages: number;
  /** The interpreter's functions, for modules compiled later. */
  readonly microcode: Microcode;
  /** What tells the interpreter from that of another version. */
  readonly identity: string;
  /** The function table. */
  readonly table: WebAssembly.Table;
  readonly #forms = new Map<number, Form>();
  readonly #halves = new Map<number, number>();
  /** What a module compiled later imports as `env`. */
  readonly environment: Record<string, WebAssembly.ImportValue>;
  readonly #indices: Map<string, number>;
  readonly #pairs: ReadonlyMap<number, number>;
  readonly #met = new Map<number, number>();
  readonly #used = new Set<string>();
  readonly #units = new Set<Unit>();

  constructor(
    memory: WebAssembly.Memory,
    table: WebAssembly.Table,
    outside: Record<string, WebAssembly.ImportValue>,
  ) {
    this.memoryPages = memory.buffer.byteLength / 0x1_0000;
    let core = coreModules.get(this.memoryPages);
    if (core === undefined) {
      core = buildCore(this.memoryPages);
      coreModules.set(this.memoryPages, core);
    }
    const instance = new WebAssembly.Instance(core.module, { env: { memory, table, ...outside } });
    this.exports = instance.exports as Record<string, CallableFunction>;
    this.environment = { memory, table, ...outside, ...instance.exports };
    this.microcode = core.microcode;
    this.identity = core.identity;
    this.#indices = new Map(core.hot);
    this.#pairs = core.pairs;
    this.table = table;
    for (const [pair, index] of core.pairs) this.#halves.set(index, Math.floor(pair / TABLE_SIZE));
    for (const [key, index] of core.hot) this.#forms.set(index, parseFormKey(key));
  }

  /** The form that the handler at `index` carries out; of two in a row, the first. */
  formOf(index: number): Form {
    const form = this.#forms.get(this.#halves.get(index) ?? index);
    if (form === undefined) throw new Error(`no form has handler ${index}`);
    return form;
  }

  /** Keys of all forms met so far, hot ones included, in the order they were met. */
  get used(): ReadonlySet<string> {
    return this.#used;
  }

  /** Table index of the handler for two in a row, by their own indices; undefined if there is none. */
  pairOf(first: number, second: number): number | undefined {
    const key = pairKey(first, second);
    this.#met.set(key, (this.#met.get(key) ?? 0) + 1);
    return this.#pairs.get(key);
  }

  /** How many blocks have ended in each pair of forms, by their keys; for `tools/hot_forms.ts`. */
  pairsMet(): { readonly first: string; readonly second: string; readonly blocks: number }[] {
    const keys = new Map(Array.from(this.#indices, ([key, index]) => [index, key]));
    return Array.from(this.#met, ([pair, blocks]) => ({
      first: keys.get(Math.floor(pair / TABLE_SIZE))!,
      second: keys.get(pair % TABLE_SIZE)!,
      blocks,
    }));
  }

  /** Table index of the handler of `form`, which is compiled if need be. */
  indexOf(form: Form): number {
    const key = formKey(form);
    this.#used.add(key);
    return this.#indices.get(key) ?? this.#compile(key);
  }

  #builder(): ModuleBuilder {
    return new ModuleBuilder({ memoryPages: this.memoryPages, tableSize: TABLE_SIZE });
  }

  /** Instantiates a module, and before it the units that it calls and that are not there yet. */
  #instantiate({ module, units }: LateModule): WebAssembly.Instance {
    for (const unit of units) {
      if (this.#units.has(unit)) continue;
      this.#units.add(unit);
      const cacheKey = `${this.memoryPages} ${unit.name}`;
      let late = unitModules.get(cacheKey);
      if (late === undefined) {
        const builder = this.#builder();
        buildUnit(unit, builder, this.microcode);
        late = lateModule(builder);
        unitModules.set(cacheKey, late);
      }
      Object.assign(this.environment, this.#instantiate(late).exports);
    }
    return new WebAssembly.Instance(module, { env: this.environment });
  }

  #compile(key: string): number {
    let index = lateIndices.get(key);
    if (index === undefined) {
      index = FIRST_LATE + lateIndices.size;
      if (index >= FIRST_REGION) throw new Error("the table of handlers is full");
      lateIndices.set(key, index);
    }
    const cacheKey = `${this.memoryPages} ${key}`;
    let late = lateModules.get(cacheKey);
    if (late === undefined) {
      const builder = this.#builder();
      builder.element(index, handler(builder, this.microcode, key));
      late = lateModule(builder);
      lateModules.set(cacheKey, late);
    }
    this.#instantiate(late);
    this.#indices.set(key, index);
    this.#forms.set(index, parseFormKey(key));
    return index;
  }
}
