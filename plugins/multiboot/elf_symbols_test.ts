import { assertEquals } from "@std/assert";
import { assertRefused, elfFile, patch } from "./fixture_test.ts";
import { elfSymbols } from "./mod.ts";

interface SymbolFixture {
  readonly name: string;
  readonly address: bigint;
  readonly size?: bigint;
  /** STT_FUNC if not given. */
  readonly type?: number;
  /** Section 1 if not given. */
  readonly section?: number;
}

interface Parts {
  readonly file: Uint8Array;
  /** Where the table of sections is. */
  readonly sections: number;
  /** Where the symbols are. */
  readonly symbols: number;
}

/** An ELF file of one segment at 1 MiB that the program sees at `virtual`, with symbols. */
function withSymbols(bits: 32 | 64, list: readonly SymbolFixture[], virtual = 0x10_0000n): Parts {
  const wide = bits === 64;
  const plain = elfFile({
    bits,
    segments: [{ physical: 0x10_0000, virtual, bytes: new Uint8Array(64), size: 0x1000 }],
  });
  const text = new TextEncoder();
  const names = list.reduce((all, { name }) => `${all}${name}\0`, "\0");
  const symbolBytes = wide ? 24 : 16;
  const sectionBytes = wide ? 64 : 40;
  const symbols = plain.length;
  const strings = symbols + symbolBytes * list.length;
  const sections = Math.ceil((strings + names.length) / 8) * 8;
  const file = new Uint8Array(sections + 3 * sectionBytes);
  const view = new DataView(file.buffer);
  const word = (at: number, value: bigint) =>
    wide ? view.setBigUint64(at, value, true) : view.setUint32(at, Number(value), true);
  file.set(plain);
  file.set(text.encode(names), strings);
  let nameAt = 1;
  list.forEach(({ name, address, size = 0n, type = 2, section = 1 }, k) => {
    const at = symbols + k * symbolBytes;
    view.setUint32(at, nameAt, true);
    word(at + (wide ? 8 : 4), address);
    word(at + (wide ? 16 : 8), size);
    file[at + (wide ? 4 : 12)] = type | 0x10;
    view.setUint16(at + (wide ? 6 : 14), section, true);
    nameAt += name.length + 1;
  });
  word(wide ? 40 : 32, BigInt(sections));
  view.setUint16(wide ? 58 : 46, sectionBytes, true);
  view.setUint16(wide ? 60 : 48, 3, true);
  const header = (index: number, type: number, at: number, size: number, link: number) => {
    const start = sections + index * sectionBytes;
    view.setUint32(start + 4, type, true);
    word(start + (wide ? 24 : 16), BigInt(at));
    word(start + (wide ? 32 : 20), BigInt(size));
    view.setUint32(start + (wide ? 40 : 24), link, true);
  };
  header(1, 2, symbols, symbolBytes * list.length, 2);
  header(2, 3, strings, names.length, 0);
  return { file, sections, symbols };
}

for (const bits of [32, 64] as const) {
  Deno.test(`ELF ${bits}: what names code or data, and nothing else`, () => {
    const { file } = withSymbols(bits, [
      { name: "first", address: 0n, type: 0, section: 0 },
      { name: "main", address: 0x10_0010n, size: 0x20n },
      { name: "buffer", address: 0x10_0100n, size: 0x80n, type: 1 },
      { name: "label", address: 0x10_0040n, type: 0 },
      { name: "file.c", address: 0n, type: 4, section: 0xfff1 },
      { name: "constant", address: 7n, type: 0, section: 0xfff1 },
      { name: ".text", address: 0x10_0000n, type: 3 },
      { name: "", address: 0x10_0050n },
    ]);
    assertEquals(elfSymbols(file), [
      { name: "main", address: 0x10_0010n, size: 0x20n },
      { name: "buffer", address: 0x10_0100n, size: 0x80n },
      { name: "label", address: 0x10_0040n, size: 0n },
    ]);
  });

  Deno.test(`ELF ${bits}: a program seen elsewhere than it is loaded has its symbols at both places`, () => {
    const virtual = bits === 64 ? 0xffff_ffff_8010_0000n : 0xc010_0000n;
    const { file } = withSymbols(bits, [
      { name: "main", address: virtual + 0x10n, size: 4n },
      { name: "outside", address: 0x5000n, size: 4n },
    ], virtual);
    assertEquals(elfSymbols(file), [
      { name: "main", address: virtual + 0x10n, size: 4n },
      { name: "main", address: 0x10_0010n, size: 4n },
      { name: "outside", address: 0x5000n, size: 4n },
    ]);
  });

  Deno.test(`ELF ${bits}: a broken table is told by its field`, () => {
    const { file, sections, symbols } = withSymbols(bits, [{ name: "main", address: 0x10_0010n }]);
    const wide = bits === 64;
    const size = sections + (wide ? 64 + 32 : 40 + 20);
    assertRefused(
      () => elfSymbols(patch(file, size, 4, 0x10_0000), "k"),
      { field: "sh_size of section 1", offset: size, message: "go beyond the file's end" },
      "too many",
    );
    assertRefused(
      () => elfSymbols(patch(file, symbols, 4, 0x1000), "k"),
      { field: "symbol 0", offset: symbols, message: "its name is not in the file" },
      "name",
    );
    assertRefused(
      () => elfSymbols(patch(file, wide ? 40 : 32, 4, 0x1000_0000), "k"),
      { field: "sh_type of section 0", offset: 0x1000_0004, message: "the file ends" },
      "table",
    );
  });

  Deno.test(`ELF ${bits}: a stripped file has none`, () => {
    assertEquals(elfSymbols(elfFile({ bits })), []);
    const { file } = withSymbols(bits, []);
    assertEquals(elfSymbols(file), []);
  });
}

Deno.test("what is no ELF file has no symbols", () => {
  assertEquals(elfSymbols(new Uint8Array([1, 2, 3])), []);
});
