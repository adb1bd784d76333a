/**
 * SMRAM behind a chip set: hidden from all but system management mode, on the bare processors of both
 * makers; and vendors that have no such mode.
 */

import { assertEquals } from "@std/assert";
import { createVm, type Plugin } from "../core/mod.ts";
import { acpiPm } from "../plugins/acpipm/mod.ts";
import { cpu, type CpuModel } from "../plugins/cpu/mod.ts";
import { debugExit } from "../plugins/debugexit/mod.ts";
import { flat } from "../plugins/flat/mod.ts";
import { metal } from "../plugins/metal/mod.ts";
import { pci } from "../plugins/pci/mod.ts";
import { svm } from "../plugins/svm/mod.ts";
import { hex } from "./silicon/code.ts";

/** Where the area of each maker has SMBASE, less 30000h. */
const SMBASE_AT = { amd: "00 ff 03 00", intel: "f8 fe 03 00" } as const;

/** A boot sector; see the comments. */
const program = (maker: keyof typeof SMBASE_AT): Uint8Array =>
  new Uint8Array(hex(
    // xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 7000h
    "31c0 8ed8 8ed0 bc0070" +
      // The first handler, from 7c82h, to 38000h.
      "b80038 8ec0 31ff be827c b90e00 fc f3a4" +
      // SMRAM is opened, and the second handler, from 7c90h, goes to A8000h.
      "b34a e85200 b800a8 8ec0 31ff be907c b90600 f3a4" +
      // APMC_EN, and the first SMI: SMBASE becomes A0000h.
      "66b8580b0080 baf80c 66ef b002 baff0c ee e6b2" +
      // SMRAM is closed: what is read at A8001h goes to 502h, what is written before it is lost.
      "b30a e82b00 26a00100 a20205 26c606000055 e6b2" +
      // It is locked, and stays so: the register goes to 503h, the byte to 504h.
      "b31a e81700 b34a e81200 ec a20305 26a00100 a20405 e6b2" +
      // The end.
      "b000 e6f4 f4" +
      // To 72h of the host bridge goes BL.
      "66b870000080 baf80c 66ef 88d8 bafe0c ee c3" +
      // The first handler: mov dword [SMBASE in the area], A0000h; rsm
      `6766c705 ${SMBASE_AT[maker]} 00000a00 0faa` +
      // The second: inc word [500h]; rsm
      "ff060005 0faa",
  ));

/** What the program has left at 500h to 504h, and at A8000h. */
async function run(vendor: Plugin, maker: keyof typeof SMBASE_AT, model?: CpuModel) {
  const plugins = [
    cpu(model === undefined ? {} : { model }),
    vendor,
    pci(),
    acpiPm(),
    debugExit(),
  ];
  const images = [flat(program(maker), { entry: { mode: "real" } })];
  using vm = await createVm({ memory: 16 * 2 ** 20, plugins, images });
  const { reason } = await vm.run({ instructions: 100_000 });
  const { memory } = vm;
  const bytes = [0x500, 0x502, 0x503, 0x504, 0xa_8000].map((gpa) => memory.readU8(gpa));
  return { reason, bytes };
}

for (const [maker, model] of [["amd", "zen4"], ["intel", "sapphire-rapids"]] as const) {
  Deno.test(`${maker}: closed SMRAM is for the handler alone, and locked it stays closed`, async () => {
    assertEquals(await run(metal(), maker, model), {
      reason: "exit-code",
      bytes: [2, 0xff, 0x1a, 0xff, 0xff],
    });
  });
}

Deno.test("without system management mode there is no SMI, and memory stays where it is", async () => {
  assertEquals(await run(svm(), "amd"), {
    reason: "exit-code",
    bytes: [0, 0x06, 0x1a, 0x06, 0x55],
  });
});
