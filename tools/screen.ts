/**
 * The screen of a serial terminal, as far as programs that paint one need it (ECMA-48: CUP and ED).
 *
 * @module
 */

const ESCAPE = 0x1b;
/** Codes of the bytes that end a control sequence. */
const FINAL = { FIRST: 0x40, LAST: 0x7e } as const;

/** Rows of characters, at which a cursor writes. */
export class Screen {
  readonly #rows: string[][];
  readonly #columns: number;
  #row = 0;
  #column = 0;
  /** A control sequence that has begun, without its ESC. */
  #sequence: string | undefined;

  /** Empty. */
  constructor(rows = 25, columns = 80) {
    this.#columns = columns;
    this.#rows = Array.from({ length: rows }, () => this.#blank());
  }

  /** The rows, top first, without the blanks at their ends. */
  get lines(): readonly string[] {
    return this.#rows.map((row) => row.join("").trimEnd());
  }

  /** Takes what a program sends. */
  write(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (this.#sequence !== undefined) this.#control(byte);
      else if (byte === ESCAPE) this.#sequence = "";
      else if (byte === 0x0d) this.#column = 0;
      else if (byte === 0x0a) this.#row++;
      else if (byte === 0x08) this.#column = Math.max(0, this.#column - 1);
      else if (byte >= 0x20) this.#put(String.fromCharCode(byte));
    }
  }

  #blank(): string[] {
    return Array.from({ length: this.#columns }, () => " ");
  }

  #put(character: string): void {
    const row = this.#rows[this.#row];
    if (row !== undefined && this.#column < this.#columns) row[this.#column] = character;
    this.#column++;
  }

  #control(byte: number): void {
    const sequence = this.#sequence + String.fromCharCode(byte);
    this.#sequence = sequence;
    // ESC [ introduces one with parameters; of the others none is longer than a byte.
    if (sequence === "[") return;
    if (sequence.startsWith("[") && (byte < FINAL.FIRST || byte > FINAL.LAST)) return;
    this.#sequence = undefined;
    if (!sequence.startsWith("[")) return;
    const numbers = sequence.slice(1, -1).split(";").map((word) => Number(word) || 0);
    const final = sequence.at(-1);
    if (final === "H" || final === "f") {
      this.#row = Math.max(1, numbers[0] ?? 1) - 1;
      this.#column = Math.max(1, numbers[1] ?? 1) - 1;
    } else if (final === "J" && numbers[0] === 2) {
      for (const row of this.#rows) row.fill(" ");
    }
  }
}
