/**
 * The FIFOs of a 16550A.
 *
 * @module
 */

/** Characters that either FIFO holds. */
export const FIFO_DEPTH = 16;

/**
 * Up to 16 characters of 16 bits: data in bits 7:0, and in bits 15:8 the error bits with which a
 * received one came, where the line status register has them.
 */
export class Fifo {
  readonly #characters: Uint16Array = new Uint16Array(FIFO_DEPTH);
  #first = 0;
  #count = 0;

  /** How many characters are in it. */
  get count(): number {
    return this.#count;
  }

  /** The character that comes next; 0 if there is none. */
  get top(): number {
    return this.#count === 0 ? 0 : this.#at(0);
  }

  /** Whether any character has an error bit. */
  get hasErrors(): boolean {
    for (let i = 0; i < this.#count; i++) if (this.#at(i) > 0xff) return true;
    return false;
  }

  /** Adds a character; there must be room. */
  push(character: number): void {
    this.#characters[(this.#first + this.#count++) % FIFO_DEPTH] = character;
  }

  /** Puts a character in the place of the one that was added last. */
  replaceLast(character: number): void {
    this.#characters[(this.#first + this.#count - 1) % FIFO_DEPTH] = character;
  }

  /** Takes the character that comes next; 0 if there is none. */
  shift(): number {
    if (this.#count === 0) return 0;
    const character = this.#at(0);
    this.#first = (this.#first + 1) % FIFO_DEPTH;
    this.#count--;
    return character;
  }

  /** Takes the error bits off the character that comes next: they have been seen. */
  clearTopErrors(): void {
    if (this.#count > 0) this.#characters[this.#first] = this.#at(0) & 0xff;
  }

  /** Empties it. */
  clear(): void {
    this.#count = 0;
  }

  /** The characters in their order. */
  save(): number[] {
    return Array.from({ length: this.#count }, (_, i) => this.#at(i));
  }

  /** Takes what {@linkcode Fifo.save} returned. */
  load(characters: readonly number[]): void {
    this.clear();
    for (const character of characters) this.push(character);
  }

  #at(place: number): number {
    return this.#characters[(this.#first + place) % FIFO_DEPTH] as number;
  }
}
