/**
 * Reads the lists of encodings beside this file.
 *
 * @module
 */
import { hex } from "../code.ts";

/** A line of a list: bytes, and the columns behind them. */
export interface Line {
  readonly code: readonly number[];
  readonly columns: readonly string[];
  /** Bytes and text, for messages. */
  readonly name: string;
}

/** The lines of `file` that are no comments. */
export function readList(file: string): readonly Line[] {
  const text = Deno.readTextFileSync(new URL(file, import.meta.url));
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const [bytes, ...columns] = line.split("\t");
    return { code: hex(bytes!), columns, name: `${bytes} ${columns[0]}` };
  });
}

/** Rows of the table: opcode, prefix, ModRM.reg, mnemonic, W, forms, (ND,NF) pairs. */
export interface Row {
  readonly opcode: number;
  readonly pp: number;
  readonly group: number;
  readonly mnemonic: string;
  readonly wides: readonly number[];
  readonly forms: string;
  readonly allows: (nd: number, nf: number) => boolean;
}

/** Instructions of map 4 that CPUID does not report. */
export const NOT_REPORTED: RegExp = /^(WRUSS|WRSS|INVEPT|INVVPID|INVPCID|ENQCMD|URDMSR|UWRMSR)/;
/** Rows whose pairs the source leaves open: by the specification these have no NF form. */
const NO_NF = /^(ADC|SBB|NOT)$/;
/** The rows of map 4, one for each opcode, prefix and extension. */
export function rows(): readonly Row[] {
  return readList("map4.tsv").flatMap(
    ({ columns, name }) => {
      if (!name.startsWith("map4")) return [];
      // The first column is the map; `readList` has taken it for bytes.
      const [opcode, prefix, reg, mnemonic, wide, forms, pairs] = columns as string[];
      const codes = opcode!.endsWith("+cc")
        ? Array.from({ length: 16 }, (_, k) => parseInt(opcode!, 16) + k)
        : [parseInt(opcode!, 16)];
      const allows = (nd: number, nf: number): boolean => {
        const open = pairs!.includes(`(${nd},-)`);
        return (open && !(nf === 1 && NO_NF.test(mnemonic!))) || pairs!.includes(`(${nd},${nf})`);
      };
      return codes.map((code): Row => ({
        opcode: code,
        pp: { NP: 0, 66: 1, F3: 2, F2: 3 }[prefix!]!,
        group: reg === "/r" ? -1 : Number(reg!.slice(1)),
        mnemonic: mnemonic!,
        wides: wide === "W0" ? [0] : wide === "W1" ? [1] : [0, 1],
        forms: forms!,
        allows,
      }));
    },
  );
}
