/**
 * Each encoding of the list that the processor has is printed with the mnemonic and the registers that the
 * assembler was given.
 */
import { assertEquals } from "@std/assert";
import { disassemble } from "../../../plugins/cpu/mod.ts";
import { readList } from "./lists.ts";

/** Mnemonics that the manuals have and the assembler's list writes differently. */
const SYNONYMS: Readonly<Record<string, string>> = {
  movabs: "mov",
  sal: "shl",
  pushp: "push",
  popp: "pop",
  push2p: "push2",
  pop2p: "pop2",
  movdiri: "movnti",
  movrs: "mov",
  // CPUID does not tell CLFLUSHOPT from CLFLUSH here.
  clflushopt: "clflush",
};

const REGISTER =
  /\b(?:r(?:[12]?\d|3[01])[bwd]?|[re]?(?:ax|bx|cx|dx|si|di|sp|bp)|[abcd]l|sil|dil|spl|bpl|[cdefgs]s|cr\d+|dr\d+)\b/g;

const mnemonic = (text: string): string => {
  const [first] = text.replace(/^\{[a-z0-9]+\} /, "").split(" ");
  return SYNONYMS[first!] ?? first!;
};

Deno.test("encodings are printed as they were written", () => {
  let printed = 0;
  for (const { code, columns, name } of readList("encodings.tsv")) {
    const [written] = columns;
    const shown = disassemble(Uint8Array.from(code), 64, 0x1000n);
    if (shown === undefined) continue;
    assertEquals(shown.length, code.length, name);
    assertEquals(mnemonic(shown.text), mnemonic(written!), `${name}: ${shown.text}`);
    const nf = (text: string): boolean => text.startsWith("{nf}");
    assertEquals(nf(shown.text), nf(written!), `${name}: ${shown.text}`);
    const flags = (text: string): string | undefined => /\{dfv=[^}]*\}/.exec(text)?.[0];
    assertEquals(flags(shown.text), flags(written!), `${name}: ${shown.text}`);
    // The width of a register that gives or takes a selector or a status word is a matter of taste.
    if (
      /rip|nop|rdssp|^mov [cdefgs]s|, [cdefgs]s|^(smsw|lmsw|sldt|lldt|str|ltr|lar|lsl)/.test(
        written!,
      )
    ) {
      printed++;
      continue;
    }
    const registers = (text: string): string[] => {
      const found = text.match(REGISTER) ?? [];
      // Either order of these operands is right, and CL is understood in a shift by it.
      if (/^(\{\w+\} )?(xchg|test)/.test(text)) return found.sort();
      return /sh[lr]d/.test(text) && found.at(-1) === "cl" ? found.slice(0, -1) : found;
    };
    assertEquals(registers(shown.text), registers(written!), `${name}: ${shown.text}`);
    printed++;
  }
  // The rest are instructions of units and features that the processor does not have.
  assertEquals(printed > 980, true, `${printed}`);
});
