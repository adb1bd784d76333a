/**
 * Building one WebAssembly module: types, imports, functions, the shared table, tags, names, hints.
 *
 * @module
 */
import { ByteSink } from "./bytes.ts";
import { type AnyToken, FunctionBuilder, type TokenValues } from "./function.ts";
import { finish, type LoweredFunction, type Steps } from "./lower.ts";
import type { TypeToken } from "./function.ts";
import type { I32, I64 } from "./value.ts";
import type { V128 } from "./vector.ts";

/** A function type. */
export interface Signature<
  P extends readonly AnyToken[] = readonly AnyToken[],
  R extends AnyToken | undefined = AnyToken | undefined,
> {
  /** Parameter types. */
  readonly params: P;
  /** Result type; `undefined` for none. */
  readonly result: R;
}

/** A function of the module, imported or defined. */
export interface FunctionRef<
  P extends readonly AnyToken[] = readonly AnyToken[],
  R extends AnyToken | undefined = AnyToken | undefined,
> {
  /** Name in stack traces, and the export name of an exported function. */
  readonly name: string;
  /** Its type. */
  readonly signature: Signature<P, R>;
}

/** A reference to a function that some module is to {@linkcode ModuleBuilder.adopt} and others import. */
export function reference<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
  name: string,
  params: P,
  result: R,
): FunctionRef<P, R> {
  return { name, signature: { params, result } };
}

/** An exception tag without payload. */
export interface Tag {
  /** Tag index. */
  readonly index: number;
}

interface Declared {
  ref: FunctionRef;
  exported: boolean;
  body: FunctionBuilder | undefined;
}

/** Where the module's memory and table come from. */
export interface ModuleImports {
  /** Pages of 64 KiB of the imported memory `env.memory` (initial = maximum). */
  readonly memoryPages: number;
  /** Entries of the imported table `env.table`. */
  readonly tableSize: number;
}

/** Collects a module and encodes it. */
export class ModuleBuilder {
  readonly #imports: ModuleImports;
  readonly #types: string[] = [];
  readonly #imported: FunctionRef[] = [];
  readonly #declared: Declared[] = [];
  readonly #places = new Map<FunctionRef, number>();
  readonly #importPlaces = new Map<string, number>();
  readonly #elements: { index: number; ref: FunctionRef }[] = [];
  #tags = 0;

  constructor(imports: ModuleImports) {
    this.#imports = imports;
  }

  /** Index of a signature in the type section. */
  typeIndex(signature: Signature): number {
    const { params, result } = signature;
    const key = [...params.map(({ code }) => code), "-", result?.code ?? ""].join();
    const known = this.#types.indexOf(key);
    return known >= 0 ? known : this.#types.push(key) - 1;
  }

  /** Declares an import `env.<name>`. */
  import<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    name: string,
    params: P,
    result: R,
  ): FunctionRef<P, R> {
    const ref: FunctionRef<P, R> = { name, signature: { params, result } };
    this.use(ref);
    return ref;
  }

  /** Makes a function callable here: one that is not of this module is imported by its name. */
  use(ref: FunctionRef): void {
    if (this.#places.has(ref) || this.#importPlaces.has(ref.name)) return;
    this.#importPlaces.set(ref.name, this.#imported.push(ref) - 1);
  }

  /** Index of a function; final once everything has been declared and used. */
  functionIndex(ref: FunctionRef): number {
    const place = this.#places.get(ref);
    if (place !== undefined) return this.#imported.length + place;
    const imported = this.#importPlaces.get(ref.name);
    if (imported === undefined) throw new Error(`function ${ref.name} is not of this module`);
    return imported;
  }

  /** Declares a function whose body is given later, so that functions may call each other. */
  declare<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    name: string,
    params: P,
    result: R,
    exported = false,
  ): FunctionRef<P, R> {
    const ref: FunctionRef<P, R> = { name, signature: { params, result } };
    this.#places.set(ref, this.#declared.length);
    this.#declared.push({ ref, exported, body: undefined });
    return ref;
  }

  /** Declares a function by a reference made beforehand, and exports it. */
  adopt(ref: FunctionRef): void {
    this.#places.set(ref, this.#declared.length);
    this.#declared.push({ ref, exported: true, body: undefined });
  }

  /** Names of the functions that are imported. */
  get importedNames(): readonly string[] {
    return this.#imported.map(({ name }) => name);
  }

  /** Gives a declared function its body. The builder gets the parameters as values. */
  body<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    ref: FunctionRef<P, R>,
    build: (fn: FunctionBuilder, ...params: TokenValues<P>) => void,
  ): void {
    const place = this.#places.get(ref);
    const declared = place === undefined ? undefined : this.#declared[place];
    if (declared === undefined || declared.body !== undefined) {
      throw new Error(`${ref.name} is not a declared function without body`);
    }
    const { params } = ref.signature;
    const fn = new FunctionBuilder(this, params.map(({ code }) => code));
    declared.body = fn;
    const values = params.map((token, i) =>
      fn.parameter(token as TypeToken<I32 | I64 | V128>, i).get()
    );
    build(fn, ...values as TokenValues<P>);
    // A body that returns on every path leaves nothing for the implicit result at its end.
    if (ref.signature.result !== undefined) fn.unreachable();
  }

  /** Declares a function and gives its body. */
  define<const P extends readonly AnyToken[], R extends AnyToken | undefined>(
    name: string,
    params: P,
    result: R,
    build: (fn: FunctionBuilder, ...params: TokenValues<P>) => void,
    exported = false,
  ): FunctionRef<P, R> {
    const ref = this.declare(name, params, result, exported);
    this.body(ref, build);
    return ref;
  }

  /** Declares an exception tag. */
  tag(): Tag {
    return { index: this.#tags++ };
  }

  /** Puts a function into slot `index` of the table when the module is instantiated. */
  element(index: number, ref: FunctionRef): void {
    this.#elements.push({ index, ref });
  }

  /** Encodes the module. */
  encode(): Uint8Array<ArrayBuffer> {
    return finish(this.encodeInSteps(Infinity));
  }

  /** Encodes the module, some `most` nodes of a function in a step. */
  *encodeInSteps(most: number): Steps<Uint8Array<ArrayBuffer>> {
    const lowered: LoweredFunction[] = [];
    for (const { ref, body } of this.#declared) {
      if (body === undefined) throw new Error(`function ${ref.name} was declared without body`);
      this.typeIndex(ref.signature);
      lowered.push(yield* body.encode(most));
    }
    for (const ref of this.#imported) this.typeIndex(ref.signature);
    const empty: Signature = { params: [], result: undefined };
    if (this.#tags > 0) this.typeIndex(empty);

    const out = new ByteSink();
    out.raw([0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]);
    out.section(1, this.#typeSection());
    out.section(2, this.#importSection());
    out.section(
      3,
      this.#vector(this.#declared, (sink, { ref }) => {
        sink.uleb(this.typeIndex(ref.signature));
      }),
    );
    if (this.#tags > 0) {
      out.section(
        13,
        this.#vector(Array.from({ length: this.#tags }), (sink) => {
          sink.u8(0);
          sink.uleb(this.typeIndex(empty));
        }),
      );
    }
    const exported = this.#declared.filter((declared) => declared.exported);
    out.section(
      7,
      this.#vector(exported, (sink, { ref }) => {
        sink.name(ref.name);
        sink.u8(0);
        sink.uleb(this.functionIndex(ref));
      }),
    );
    if (this.#elements.length > 0) out.section(9, this.#elementSection());
    out.section(0, this.#hintSection(lowered));
    out.section(
      10,
      this.#vector(lowered, (sink, { body }) => {
        sink.uleb(body.length);
        sink.raw(body);
      }),
    );
    out.section(0, this.#nameSection());
    return out.bytes();
  }

  #vector<T>(items: readonly T[], write: (sink: ByteSink, item: T) => void): ByteSink {
    const sink = new ByteSink();
    sink.uleb(items.length);
    for (const item of items) write(sink, item);
    return sink;
  }

  #typeSection(): ByteSink {
    return this.#vector(this.#types, (sink, key) => {
      const [params, result] = key.split("-").map((part) =>
        part.split(",").filter((code) => code !== "").map(Number)
      );
      sink.u8(0x60);
      sink.uleb(params!.length);
      sink.raw(params!);
      sink.uleb(result!.length);
      sink.raw(result!);
    });
  }

  #importSection(): ByteSink {
    const sink = new ByteSink();
    sink.uleb(this.#imported.length + 2);
    sink.name("env");
    sink.name("memory");
    sink.raw([0x02, 0x01]);
    sink.uleb(this.#imports.memoryPages);
    sink.uleb(this.#imports.memoryPages);
    sink.name("env");
    sink.name("table");
    sink.raw([0x01, 0x70, 0x00]);
    sink.uleb(this.#imports.tableSize);
    for (const { name, signature } of this.#imported) {
      sink.name("env");
      sink.name(name);
      sink.u8(0);
      sink.uleb(this.typeIndex(signature));
    }
    return sink;
  }

  #elementSection(): ByteSink {
    const sorted = [...this.#elements].sort((a, b) => a.index - b.index);
    const runs: { index: number; ref: FunctionRef }[][] = [];
    for (const element of sorted) {
      const run = runs[runs.length - 1];
      if (run !== undefined && run[0]!.index + run.length === element.index) run.push(element);
      else runs.push([element]);
    }
    return this.#vector(runs, (sink, run) => {
      sink.u8(0);
      sink.u8(0x41);
      sink.sleb32(run[0]!.index);
      sink.u8(0x0b);
      sink.uleb(run.length);
      for (const { ref } of run) sink.uleb(this.functionIndex(ref));
    });
  }

  #hintSection(lowered: readonly LoweredFunction[]): ByteSink {
    const hinted = lowered.map(({ hints }, i) => ({ hints, index: this.#imported.length + i }))
      .filter(({ hints }) => hints.length > 0);
    const sink = new ByteSink();
    sink.name("metadata.code.branch_hint");
    sink.uleb(hinted.length);
    for (const { hints, index } of hinted) {
      sink.uleb(index);
      sink.uleb(hints.length);
      for (const { offset, likely } of hints) {
        sink.uleb(offset);
        sink.u8(1);
        sink.u8(likely);
      }
    }
    return sink;
  }

  #nameSection(): ByteSink {
    const names = new ByteSink();
    const all = [...this.#imported, ...this.#declared.map(({ ref }) => ref)];
    names.uleb(all.length);
    for (const [index, { name }] of all.entries()) {
      names.uleb(index);
      names.name(name);
    }
    const sink = new ByteSink();
    sink.name("name");
    sink.u8(1);
    sink.uleb(names.length);
    sink.raw(names.bytes());
    return sink;
  }
}
