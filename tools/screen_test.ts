import { assertEquals } from "@std/assert";
import { Screen } from "./screen.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

Deno.test("text stands where the cursor was sent", () => {
  const screen = new Screen(4, 10);
  screen.write(
    bytes("old\x1b[2J\x1b[?25l\x1b[1;1H\x1b[7mab\x1b[0mc\x1b[3;4Hdef\x1b[2;9Hlong line"),
  );
  assertEquals(screen.lines, ["abc", "        lo", "   def", ""]);
  screen.write(bytes("\x1b[Hx\r\ny\x08z"));
  assertEquals(screen.lines, ["xbc", "z       lo", "   def", ""]);
});

Deno.test("a sequence may come in pieces, and what is off the screen is lost", () => {
  const screen = new Screen(2, 5);
  for (const byte of bytes("\x1b[2;3Hhi\x1b[9;9Hgone")) screen.write(new Uint8Array([byte]));
  assertEquals(screen.lines, ["", "  hi"]);
});
