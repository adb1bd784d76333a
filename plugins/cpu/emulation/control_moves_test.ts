import { assertEquals } from "@std/assert";
import { ControlMove, moveToCr0, moveToCr4, storedCr0 } from "./control_moves.ts";

const { EMULATE, STORE, FLUSH } = ControlMove;
/** A 64-bit kernel: PG, WP, NE, ET, PE; OSXMMEXCPT, OSFXSR, PGE, PAE. */
const LONG = { cr0: 0x8001_0031, cr4: 0x6a0, longMode: true };
const PAE = { ...LONG, longMode: false };

Deno.test("bits of CR0 that nothing follows from are stored, the others are emulated", () => {
  for (
    const [value, move] of [
      [0x8001_0031, STORE], // the same
      [0x8000_0031, STORE], // WP
      [0x8005_003f, STORE], // MP, EM, TS, AM
      [0x8001_0011, STORE], // NE
      [0x8001_0021, STORE], // ET is always set
      [0x0001_0031, EMULATE], // PG
      [0x0001_0030, EMULATE], // PE
      [0xc001_0031, EMULATE], // CD
      [0xa001_0031, EMULATE], // NW without CD: #GP
    ] as const
  ) assertEquals(moveToCr0(LONG, value, 0), move, value.toString(16));
  assertEquals(moveToCr0(LONG, LONG.cr0, 1), EMULATE);
  // With CR4.CET, WP has to be set (SDM vol. 3, 2.5).
  assertEquals(moveToCr0({ ...LONG, cr4: 0x80_06a0 }, 0x8000_0031, 0), EMULATE);
});

Deno.test("bits of CR0 that do not exist are not stored", () => {
  assertEquals(storedCr0(0xffff_ffff | 0), 0xe005_003f);
  assertEquals(storedCr0(0), 0x10);
});

Deno.test("bits of CR4 are stored, where they decide on neither paging nor features", () => {
  for (
    const [value, move] of [
      [0x6a0, STORE], // the same
      [0x7ec, STORE], // TSD, DE, MCE, PCE
      [0x0a0, STORE], // OSFXSR, OSXMMEXCPT
      [0x620, FLUSH], // PGE
      [0x6b0, EMULATE], // PSE
      [0x680, EMULATE], // PAE
      [0x10_06a0, EMULATE], // SMEP
      [0x2_06a0, EMULATE], // PCIDE
      [0x8000_06a0, EMULATE], // reserved: #GP
    ] as const
  ) assertEquals(moveToCr4(LONG, value, 0), move, value.toString(16));
  assertEquals(moveToCr4(LONG, LONG.cr4, 1), EMULATE);
});

Deno.test("where a change of PGE loads page-directory pointers anew, it is emulated", () => {
  assertEquals(moveToCr4(PAE, 0x620, 0), EMULATE);
  assertEquals(moveToCr4({ ...PAE, cr0: 0x1_0031 }, 0x620, 0), FLUSH);
  assertEquals(moveToCr4({ ...PAE, cr4: 0x680 }, 0x600, 0), FLUSH);
});
