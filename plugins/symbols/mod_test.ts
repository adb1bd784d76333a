import { assertEquals } from "@std/assert";
import { scriptedVm } from "../../core/testing/mod.ts";
import {
  type GuestSymbol,
  parseSymbolList,
  placeText,
  symbols,
  symbolsSlot,
  SymbolTable,
} from "./mod.ts";

const symbol = (name: string, address: bigint, size = 0n): GuestSymbol => ({ name, address, size });

Deno.test("a sized symbol names its bytes, an unsized one reaches to the next, the last only itself", () => {
  const table = new SymbolTable([
    symbol("end", 0x4000n),
    symbol("label", 0x1000n),
    symbol("main", 0x2000n, 0x10n),
  ]);
  const cases: [bigint, string | undefined][] = [
    [0xfffn, undefined],
    [0x1000n, "label"],
    [0x1fffn, "label+fffh"],
    [0x2000n, "main"],
    [0x200fn, "main+fh"],
    [0x2010n, undefined],
    [0x3fffn, undefined],
    [0x4000n, "end"],
    [0x4001n, undefined],
    [0xffff_ffff_8000_0000n, undefined],
  ];
  for (const [address, text] of cases) {
    assertEquals(placeText(table, address), text, address.toString(16));
  }
  assertEquals(table.size, 3);
  assertEquals(placeText(new SymbolTable([]), 0n), undefined);
});

Deno.test("of several symbols at one address the order of the file does not matter", () => {
  const names = [symbol("zeta", 8n), symbol("sized", 8n, 4n), symbol("alpha", 8n)];
  assertEquals(new SymbolTable(names).find(8n)?.name, "sized");
  assertEquals(new SymbolTable(names.reverse()).find(8n)?.name, "sized");
  assertEquals(new SymbolTable([names[2]!, names[0]!]).find(8n)?.name, "alpha");
});

Deno.test("every address of many symbols is found as by looking at all of them", () => {
  const list = Array.from({ length: 100 }, (_, k) => symbol(`s${k}`, BigInt(7 * k + k % 5), 3n));
  const table = new SymbolTable(list);
  for (let at = 0n; at < 720n; at++) {
    const slow = list.find(({ address, size }) => at >= address && at < address + size);
    assertEquals(table.find(at)?.name, slow?.name, `${at}`);
  }
});

Deno.test("System.map and nm, with and without sizes", () => {
  const text = `ffffffff81000000 T _text
ffffffff81000040 0000000000000023 t local_one
0000000000000000 A absolute
                 U undefined
                 w weak
ffffffff82000000 d data  [module]
a line of prose
`;
  assertEquals(parseSymbolList(text), [
    symbol("_text", 0xffff_ffff_8100_0000n),
    symbol("local_one", 0xffff_ffff_8100_0040n, 0x23n),
    symbol("data", 0xffff_ffff_8200_0000n),
  ]);
  assertEquals(parseSymbolList("no list\n"), []);
});

Deno.test("the plugin provides its table", () => {
  using machine = scriptedVm({ plugins: [symbols([symbol("f", 5n, 2n)])] });
  assertEquals(machine.vm.slots.ref(symbolsSlot).current.find(6n), { name: "f", offset: 1n });
});
