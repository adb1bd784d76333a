/**
 * Finding the symbol that an address belongs to.
 *
 * @module
 */

/** A name for an address of the guest. */
export interface GuestSymbol {
  /** The name. */
  readonly name: string;
  /** Its linear address. */
  readonly address: bigint;
  /** Bytes that it names; 0 if that is not known. */
  readonly size: bigint;
}

/** An address in terms of a symbol. */
export interface SymbolPlace {
  /** Name of the symbol. */
  readonly name: string;
  /** Bytes from its address on. */
  readonly offset: bigint;
}

/** Finds symbols by address. */
export interface Symbolizer {
  /** The symbol that an address belongs to, `undefined` if it belongs to none. */
  find(address: bigint): SymbolPlace | undefined;
}

/**
 * Symbols sorted by address. A symbol of known size names so many bytes; one without reaches up to the
 * next, as labels in assembler code do, and the last of all names its own address only, because that is
 * how linkers mark an end.
 *
 * Of several symbols at one address the one with a size is taken, and otherwise the first by name.
 */
export class SymbolTable implements Symbolizer {
  readonly #symbols: readonly GuestSymbol[];

  /** Takes symbols in any order. */
  constructor(symbols: Iterable<GuestSymbol>) {
    const sorted = [...symbols].sort((a, b) =>
      compare(a.address, b.address) || compare(sized(b), sized(a)) || compare(a.name, b.name)
    );
    this.#symbols = sorted.filter(({ address }, k) => sorted[k - 1]?.address !== address);
  }

  /** Number of addresses that have a name. */
  get size(): number {
    return this.#symbols.length;
  }

  /** See {@linkcode Symbolizer.find}. */
  find(address: bigint): SymbolPlace | undefined {
    const symbols = this.#symbols;
    let low = 0;
    let high = symbols.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (symbols[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = symbols[low - 1];
    if (symbol === undefined) return undefined;
    const offset = address - symbol.address;
    const known = symbol.size > 0n ? offset < symbol.size : offset === 0n || low < symbols.length;
    return known ? { name: symbol.name, offset } : undefined;
  }
}

function sized({ size }: GuestSymbol): number {
  return size > 0n ? 1 : 0;
}

function compare<T extends bigint | number | string>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** An address as `name+1fh`, `undefined` if it has no name. */
export function placeText(symbols: Symbolizer, address: bigint): string | undefined {
  const place = symbols.find(address);
  if (place === undefined) return undefined;
  return place.offset === 0n ? place.name : `${place.name}+${place.offset.toString(16)}h`;
}
