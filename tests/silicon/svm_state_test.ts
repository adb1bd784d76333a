/**
 * VMLOAD and VMSAVE field by field (APM vol. 2, 15.5.2), and what is cached under which ASID (15.16).
 */
import { assertEquals } from "@std/assert";
import {
  Control,
  Cr0,
  Cr4,
  InterceptWord,
  S,
  Save,
  SaveSegment,
  Seg,
  Vector,
  VMCB_BYTES,
} from "../../plugins/cpu/mod.ts";
import { Place } from "./bench.ts";
import { hex } from "./code.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

const bench = new SvmBench();

const SEGMENTS: readonly (readonly [string, number, number])[] = [
  ["FS", Save.FS, Seg.FS],
  ["GS", Save.GS, Seg.GS],
  ["LDTR", Save.LDTR, Seg.LDTR],
  ["TR", Save.TR, Seg.TR],
];

const MSRS = [
  ["STAR", Save.STAR, S.star],
  ["LSTAR", Save.LSTAR, S.lstar],
  ["CSTAR", Save.CSTAR, S.cstar],
  ["SFMASK", Save.SFMASK, S.sfmask],
  ["KernelGSBase", Save.KERNEL_GS_BASE, S.kernelGsBase],
  ["SYSENTER_CS", Save.SYSENTER_CS, S.sysenterCs],
  ["SYSENTER_ESP", Save.SYSENTER_ESP, S.sysenterEsp],
  ["SYSENTER_EIP", Save.SYSENTER_EIP, S.sysenterEip],
] as const;

/** Value that belongs to field `k`; a canonical address. */
const value = (k: number): bigint => 0xffff_8000_0000_0000n | (0x1111_1111n * BigInt(k + 1));

/** Runs one SVM instruction of the host on the control block at `address`. */
function execute(text: string, address: number): void {
  bench.write(Place.CODE, hex(`${text} f4`));
  bench.processor.wake();
  bench.state.set(S.rip, BigInt(Place.CODE));
  bench.state.setRegister(0, BigInt(address));
  assertEquals(bench.run(5).events, []);
}

/** Everything that VMLOAD must leave alone. */
function rest(): unknown[] {
  const { state } = bench;
  const segments = [Seg.ES, Seg.CS, Seg.SS, Seg.DS].map((n) => state.segment(n));
  const fields = [S.cr0, S.cr2, S.cr3, S.cr4, S.efer, S.dr6, S.dr7, S.gdtBase, S.idtBase, S.pat]
    .map((field) => state.get(field));
  const registers = Array.from({ length: 15 }, (_, n) => state.register(n + 1));
  return [segments, fields, registers, state.get32(S.cpl), state.get32(S.gif)];
}

Deno.test("VMLOAD loads its fields and nothing else", () => {
  bench.guest();
  bench.fill(SvmPlace.VMCB2, VMCB_BYTES, 0xee);
  bench.vmcb = SvmPlace.VMCB2;
  for (const [k, [, offset]] of SEGMENTS.entries()) {
    bench.setSegment(offset, 0x1230 + k, 0xc93 - k, 0x1234_5600 + k, value(k));
  }
  for (const [k, [, offset]] of MSRS.entries()) bench.setControl64(offset, value(k + 8));
  const before = rest();
  const block = bench.block;
  execute("0f 01 da", SvmPlace.VMCB2);
  for (const [k, [name, , segment]] of SEGMENTS.entries()) {
    const expected = {
      selector: 0x1230 + k,
      attributes: 0xc93 - k,
      limit: 0x1234_5600 + k,
      base: value(k),
    };
    assertEquals(bench.state.segment(segment), expected, name);
  }
  for (const [k, [name, , field]] of MSRS.entries()) {
    assertEquals(bench.state.get(field), value(k + 8), name);
  }
  assertEquals(rest(), before);
  assertEquals(bench.block, block);
  bench.vmcb = SvmPlace.VMCB;
});

Deno.test("VMLOAD makes bases canonical for 57 bits, as a Zen 4 has them", () => {
  bench.host();
  for (const [name, offset, segment] of SEGMENTS) {
    bench.fill(SvmPlace.VMCB2, VMCB_BYTES, 0);
    bench.set64(SvmPlace.VMCB2 + offset + SaveSegment.BASE, 0x7777_8000_0000_0010n);
    execute("0f 01 da", SvmPlace.VMCB2);
    assertEquals(bench.state.segment(segment).base, 0xff77_8000_0000_0010n, name);
  }
});

Deno.test("VMSAVE stores its fields and nothing else", () => {
  bench.guest();
  bench.fill(SvmPlace.VMCB2, VMCB_BYTES, 0xee);
  const expected = new Uint8Array(VMCB_BYTES).fill(0xee);
  const view = new DataView(expected.buffer);
  for (const [k, [, offset, segment]] of SEGMENTS.entries()) {
    const state = {
      selector: 0x40 + k,
      attributes: 0x493 + k,
      limit: 0x9999_0000 + k,
      base: value(k),
    };
    bench.state.setSegment(segment, state);
    view.setUint16(offset + SaveSegment.SELECTOR, state.selector, true);
    view.setUint16(offset + SaveSegment.ATTRIBUTES, state.attributes, true);
    view.setUint32(offset + SaveSegment.LIMIT, state.limit, true);
    view.setBigUint64(offset + SaveSegment.BASE, state.base, true);
  }
  for (const [k, [, offset, field]] of MSRS.entries()) {
    bench.state.set(field, value(k + 16));
    view.setBigUint64(offset, value(k + 16), true);
  }
  execute("0f 01 db", SvmPlace.VMCB2);
  assertEquals(bench.read(SvmPlace.VMCB2, VMCB_BYTES), expected);
  bench.host();
});

Deno.test("a guest's own FS base, once loaded, is used by the next instruction", () => {
  bench.guest();
  bench.fill(SvmPlace.VMCB2, VMCB_BYTES, 0);
  bench.set64(SvmPlace.VMCB2 + Save.FS + SaveSegment.BASE, BigInt(SvmPlace.GUEST_DATA));
  bench.set64(SvmPlace.GUEST_DATA + 0x10, 0x1234_5678_9abc_def0n);
  // vmload; mov rbx, fs:[10h]; hlt
  execute("0f 01 da 64 48 8b 1c 25 10 00 00 00", SvmPlace.VMCB2);
  assertEquals(bench.state.register(3), 0x1234_5678_9abc_def0n);
});

// Translations by ASID. A processor may drop translations at any time; this one keeps them as long as it
// may, so that software that forgets a flush is found out.

const PAGE = 0x15_0000;
const OTHER = 0x16_0000;

/** A guest that reads a byte at PAGE, and what it reads. */
function reader(): void {
  bench.guest();
  bench.write(PAGE, [0x11]);
  bench.write(OTHER, [0x22]);
  // Leave nothing cached under the ASIDs in use.
  for (const asid of [1, 2]) assertEquals(look(asid, 3), 0x11);
  bench.write(bench.vmcb + Control.TLB_CONTROL, [0]);
}

function look(asid: number, tlbControl = 0): number {
  bench.setControl32(Control.ASID, asid);
  bench.write(bench.vmcb + Control.TLB_CONTROL, [tlbControl]);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.setControl64(Save.RAX, 0);
  bench.state.setRegister(3, BigInt(PAGE));
  assertEquals(bench.enter("8a 03 f4"), "78");
  assertEquals(bench.read(bench.vmcb + Control.TLB_CONTROL, 1)[0], tlbControl);
  return Number(bench.control64(Save.RAX));
}

/** Maps PAGE elsewhere, behind the processor's back. */
function remap(): void {
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), BigInt(OTHER) | 0x67n);
}

Deno.test("the CR0.WP that VMRUN loads counts at once, whatever the guest has written before", () => {
  reader();
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), BigInt(PAGE) | 0x65n);
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
  const write = (tlbControl = 0): string => {
    bench.write(bench.vmcb + Control.TLB_CONTROL, [tlbControl]);
    bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
    bench.state.setRegister(3, BigInt(PAGE));
    return bench.enter("88 03 f4");
  };
  assertEquals(write(3), "4e");
  bench.clearControl64(Save.CR0, Cr0.WP);
  assertEquals(write(), "78");
  bench.orControl64(Save.CR0, Cr0.WP);
  assertEquals(write(), "4e");
});

Deno.test("so does the CR4.SMEP that VMRUN loads, and CR4.PKE", () => {
  const fetch = (): string => {
    bench.write(bench.vmcb + Control.TLB_CONTROL, [0]);
    bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
    return bench.enter("f4");
  };
  reader();
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
  assertEquals(fetch(), "78");
  // All of the guest's pages are user pages.
  bench.orControl64(Save.CR4, Cr4.SMEP);
  assertEquals(fetch(), "4e");
  bench.clearControl64(Save.CR4, Cr4.SMEP);
  assertEquals(fetch(), "78");
  // The guest clears SMEP by itself, and the host sets it again.
  bench.set64(
    bench.pageEntry(SvmPlace.GUEST_TABLES, SvmPlace.GUEST_CODE),
    BigInt(SvmPlace.GUEST_CODE) | 0x63n,
  );
  bench.orControl64(Save.CR4, Cr4.SMEP);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  // mov rax, cr4; btr eax, 20; mov cr4, rax; jmp rbx, to a HLT on a user page
  bench.write(OTHER, [0xf4]);
  bench.state.setRegister(3, BigInt(OTHER));
  assertEquals(bench.enter("0f 20 e0 0f ba f0 14 0f 22 e0 ff e3"), "78");
  bench.orControl64(Save.CR4, Cr4.SMEP);
  bench.setControl64(Save.RIP, OTHER);
  assertEquals(bench.resume(), "4e");

  reader();
  bench.setControl32(InterceptWord.EXCEPTIONS, 1 << Vector.PF);
  bench.set64(bench.pageEntry(SvmPlace.GUEST_TABLES, PAGE), BigInt(PAGE) | 0x67n | (1n << 59n));
  bench.state.set(S.pkru, 0xcn);
  assertEquals(look(1, 3), 0x11);
  bench.orControl64(Save.CR4, Cr4.PKE);
  bench.write(bench.vmcb + Control.TLB_CONTROL, [0]);
  bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
  bench.state.setRegister(3, BigInt(PAGE));
  assertEquals(bench.enter("8a 03 f4"), "4e");
  bench.state.set(S.pkru, 0n);
  bench.processor.refresh();
});

Deno.test("translations outlive VMRUN and #VMEXIT until they are flushed", () => {
  for (const command of [1, 3, 7]) {
    reader();
    remap();
    assertEquals(look(1), 0x11);
    assertEquals(look(1), 0x11);
    assertEquals(look(1, command), 0x22, `TLB_CONTROL ${command}`);
    assertEquals(look(1), 0x22);
  }
});

Deno.test("a flush of one ASID leaves the others alone, a flush of all does not", () => {
  for (const command of [3, 7]) {
    reader();
    remap();
    assertEquals(look(2, command), 0x22);
    assertEquals(look(1), 0x11, `TLB_CONTROL ${command}`);
  }
  reader();
  remap();
  assertEquals(look(2, 1), 0x22);
  assertEquals(look(1), 0x22);
});

Deno.test("an ASID that was not in use has no translations", () => {
  reader();
  remap();
  assertEquals(look(3), 0x22);
  assertEquals(look(1), 0x11);
});

Deno.test("INVLPGA drops one page of one ASID", () => {
  const invlpga = (page: number, asid: number): void => {
    bench.state.setRegister(1, BigInt(asid));
    execute("0f 01 df", page);
  };
  reader();
  remap();
  invlpga(PAGE, 2);
  assertEquals(look(1), 0x11);
  invlpga(PAGE + 0x1000, 1);
  assertEquals(look(1), 0x11);
  // Any address in the page; the upper half of ECX's register does not count.
  bench.state.setRegister(1, 0x1_0000_0001n);
  execute("0f 01 df", PAGE + 0xabc);
  assertEquals(look(1), 0x22);
  assertEquals(look(2), 0x22);
});

Deno.test("INVLPGA with ASID 0 is INVLPG for the host", () => {
  bench.host();
  const entry = Place.TABLES + 0x2000 + 8 * 3;
  const at = 0x60_0000;
  bench.set64(entry, 0x60_0000n | 0xe7n);
  bench.write(0x60_0000, [0x11]);
  bench.write(0x40_0000, [0x22]);
  const readByte = (): bigint => {
    execute("8a 18", at);
    return bench.state.register(3) & 0xffn;
  };
  assertEquals(readByte(), 0x11n);
  bench.set64(entry, 0x40_0000n | 0xe7n);
  assertEquals(readByte(), 0x11n);
  bench.state.setRegister(1, 1n);
  execute("0f 01 df", at);
  assertEquals(readByte(), 0x11n);
  bench.state.setRegister(1, 0n);
  execute("0f 01 df", at);
  assertEquals(readByte(), 0x22n);
  bench.standardTables();
});

Deno.test("a guest flushes its own ASID with CR3, CR4 and INVLPG", () => {
  // Each reads, waits for the exit in which the page is remapped, flushes, reads again.
  const flushes = {
    "mov cr3": "0f 20 d8 0f 22 d8",
    "invlpg": "0f 01 3b",
    "mov cr4": "0f 20 e0 48 35 80 00 00 00 0f 22 e0",
  };
  for (const [name, flush] of Object.entries(flushes)) {
    reader();
    remap();
    bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
    bench.setControl32(Control.ASID, 1);
    bench.orControl64(Save.CR4, Cr4.PGE);
    bench.state.setRegister(3, BigInt(PAGE));
    assertEquals(bench.enter(`8a 0b ${flush} 8a 13 f4`), "78", name);
    assertEquals(bench.state.register(1) & 0xffn, 0x11n, name);
    assertEquals(bench.state.register(2) & 0xffn, 0x22n, name);
    assertEquals(look(2), 0x11, name);
  }
});

Deno.test("an intercepted flush does not flush", () => {
  for (
    const [text, word, mask] of [
      ["0f 22 d8", InterceptWord.CR, 1 << 19],
      ["0f 01 3b", InterceptWord.MISC1, 0x200_0000],
    ] as const
  ) {
    reader();
    remap();
    bench.setControl64(Save.RIP, SvmPlace.GUEST_CODE);
    bench.setControl64(Save.RAX, SvmPlace.GUEST_TABLES);
    bench.setControl32(Control.ASID, 1);
    bench.orControl32(word, mask);
    bench.state.setRegister(3, BigInt(PAGE));
    assertEquals(["13", "79"].includes(bench.enter(text)), true);
    assertEquals(look(1), 0x11);
  }
});

Deno.test("nested translations are cached and flushed alike", () => {
  for (const command of [1, 3]) {
    bench.guest();
    bench.nested();
    bench.write(PAGE, [0x11]);
    bench.write(OTHER, [0x22]);
    assertEquals(look(1, 3), 0x11);
    bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), BigInt(OTHER) | 0x67n);
    assertEquals(look(1), 0x11);
    assertEquals(look(1, command), 0x22);
  }
});
