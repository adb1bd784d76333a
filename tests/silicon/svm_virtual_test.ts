/**
 * A guest's own SVM instructions that the processor carries out: virtual GIF (APM vol. 2, 15.33.2) and
 * virtual VMLOAD and VMSAVE (15.33.1), each switched off as well.
 */
import { assertEquals } from "@std/assert";
import type { SvmFeatureName } from "../../plugins/cpu/mod.ts";
import {
  Control,
  IntControl,
  InterceptWord,
  Misc1,
  Misc2,
  Save,
  SaveSegment,
  VirtExt,
  VMCB_BYTES,
} from "../../plugins/cpu/mod.ts";
import { SvmBench, SvmPlace } from "./svm_bench.ts";

/** Benches with a feature and without it; the rest of the processor is the same. */
const benches = (name: SvmFeatureName): readonly (readonly [boolean, SvmBench])[] =>
  [true, false].map((on) => [on, new SvmBench({ features: { [name]: on } })]);

const STGI = "0f 01 dc";
const CLGI = "0f 01 dd";
const VMLOAD = "0f 01 da";
const VMSAVE = "0f 01 db";
const STI = "fb";
const NOP = "90";
const HLT = "f4";
const VECTOR = 0x31;

/** V_IRQ of the highest priority. */
const PENDING = IntControl.V_IRQ | IntControl.V_IGN_TPR | IntControl.V_INTR_MASKING;

function control(bench: SvmBench, bits: number): void {
  bench.setControl64(Control.INT_CONTROL, BigInt(bits >>> 0) | (BigInt(VECTOR) << 32n));
}

function gif(bench: SvmBench): number {
  return bench.control32(Control.INT_CONTROL) & IntControl.V_GIF;
}

for (const [on, bench] of benches("vgif")) {
  Deno.test(`STGI and CLGI change V_GIF ${on ? "without an exit" : "only where there is one"}`, () => {
    for (const enabled of [true, false]) {
      for (const [code, before, after] of [[STGI, 0, 0x200], [CLGI, 0x200, 0]] as const) {
        bench.guest();
        control(bench, (enabled ? IntControl.V_GIF_ENABLE : 0) | before);
        assertEquals(bench.enter(`${code} ${HLT}`), "78");
        assertEquals(gif(bench), on && enabled ? after : before, `${code}, enabled ${enabled}`);
        // The flag has not become the processor's own.
        assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE + 3));
      }
    }
  });

  Deno.test(`intercepts of STGI and CLGI come first, ${on ? "with" : "without"} virtual GIF`, () => {
    for (
      const [code, mask, exit] of [[STGI, Misc2.STGI, "84"], [CLGI, Misc2.CLGI, "85"]] as const
    ) {
      bench.guest();
      const before = code === CLGI ? IntControl.V_GIF : 0;
      control(bench, IntControl.V_GIF_ENABLE | before);
      bench.orControl32(InterceptWord.MISC2, mask);
      assertEquals(bench.enter(`${code} ${HLT}`), exit);
      assertEquals(gif(bench), before);
    }
  });

  Deno.test(`V_GIF holds virtual interrupts back ${on ? "until STGI" : "nowhere"}`, () => {
    const enabled = PENDING | IntControl.V_GIF_ENABLE;
    const cases: readonly (readonly [code: string, bits: number, taken: boolean])[] = [
      // The interrupt is taken behind the shadow of STI, or not at all before HLT exits.
      [`${STI} ${NOP} ${NOP} ${HLT}`, PENDING, true],
      [`${STI} ${NOP} ${NOP} ${HLT}`, enabled | IntControl.V_GIF, true],
      [`${STI} ${NOP} ${NOP} ${HLT}`, enabled, !on],
      [`${STI} ${NOP} ${STGI} ${NOP} ${HLT}`, enabled, true],
      [`${CLGI} ${STI} ${NOP} ${NOP} ${HLT}`, enabled | IntControl.V_GIF, !on],
      [`${CLGI} ${STI} ${NOP} ${STGI} ${HLT}`, enabled | IntControl.V_GIF, true],
    ];
    for (const [code, bits, taken] of cases) {
      bench.guest();
      bench.guestHandlers();
      control(bench, bits);
      // Without virtual GIF a guest's CLGI is the processor's own, and holds everything back.
      if (!on && code.startsWith(CLGI)) continue;
      assertEquals(bench.enter(code), "78", code);
      const inHandler = bench.control64(Save.RIP) === BigInt(bench.guestHandler(VECTOR));
      assertEquals(inHandler, taken, `${code}, ${bits.toString(16)}`);
      const left = bench.control32(Control.INT_CONTROL) & IntControl.V_IRQ;
      assertEquals(left !== 0, !taken);
    }
  });

  Deno.test(`the VINTR exit waits for V_GIF ${on ? "like the interrupt" : "nowhere"}`, () => {
    bench.guest();
    control(bench, PENDING | IntControl.V_GIF_ENABLE);
    bench.orControl32(InterceptWord.MISC1, Misc1.VINTR);
    assertEquals(bench.enter(`${STI} ${NOP} ${NOP} ${STGI} ${NOP} ${HLT}`), "64");
    const stgi = SvmPlace.GUEST_CODE + 3;
    assertEquals(bench.control64(Save.RIP), BigInt(on ? stgi + 3 : stgi - 1));
  });
}

/** Fields that VMLOAD and VMSAVE move, and some that they do not. */
const MOVED: readonly number[] = [
  ...[Save.FS, Save.GS, Save.LDTR, Save.TR].map((field) => field + SaveSegment.BASE),
  ...[Save.STAR, Save.LSTAR, Save.CSTAR, Save.SFMASK, Save.KERNEL_GS_BASE],
  ...[Save.SYSENTER_CS, Save.SYSENTER_ESP, Save.SYSENTER_EIP],
];
const OTHERS: readonly number[] = [Save.RIP, Save.CR3, Save.RFLAGS, Save.CR2];

/** A page of the guest's, and the page that nested paging puts behind it. */
const PAGE = 0x14_0000;
const BEHIND = 0x14_8000;
/** What is in one of the fields. */
const mark = (field: number): bigint => 0x1000n + BigInt(field);

/** A guest with virtual VMLOAD and VMSAVE enabled and {@linkcode PAGE} in its RAX. */
function prepare(bench: SvmBench, nested = true): void {
  bench.guest();
  if (nested) bench.nested();
  bench.setControl32(Control.VIRT_EXT, VirtExt.VMLOAD_VMSAVE);
  bench.setControl64(Save.RAX, PAGE);
  const entry = bench.pageEntry(SvmPlace.NPT, PAGE);
  bench.set64(entry, BigInt(BEHIND) | 0x67n);
  for (const page of [PAGE, BEHIND]) bench.fill(page, VMCB_BYTES, 0xaa);
}

for (const [on, bench] of benches("v_vmsave_vmload")) {
  const [used, other] = on ? [BEHIND, PAGE] : [PAGE, BEHIND];

  Deno.test(`VMSAVE stores to the ${on ? "guest" : "host"} physical page`, () => {
    prepare(bench);
    for (const field of MOVED) bench.setControl64(field, mark(field));
    // The host's VMLOAD is what brings them in.
    assertEquals(bench.enter(`${VMLOAD} ${VMSAVE} ${HLT}`), "78");
    assertEquals(bench.read(other, VMCB_BYTES).every((byte) => byte === 0xaa), true);
    for (const field of OTHERS) assertEquals(bench.get64(used + field), 0xaaaa_aaaa_aaaa_aaaan);
  });

  Deno.test(`VMLOAD loads what VMSAVE stored, from the ${on ? "guest" : "host"} physical page`, () => {
    prepare(bench);
    for (const field of MOVED) bench.set64(used + field, mark(field));
    bench.set64(used + Save.FS, 0x0000_ffff_0093_0018n);
    for (const field of [Save.GS, Save.LDTR, Save.TR]) bench.set64(used + field, 0n);
    const copy = PAGE + 0x1000;
    bench.set64(bench.pageEntry(SvmPlace.NPT, copy), BigInt(copy) | 0x67n);
    bench.fill(copy, VMCB_BYTES, 0);
    // MOV EAX, copy between the two.
    const load = `b8 ${
      [0, 8, 16, 24].map((k) => ((copy >> k) & 255).toString(16).padStart(2, "0")).join(" ")
    }`;
    assertEquals(bench.enter(`${VMLOAD} ${load} ${VMSAVE} ${HLT}`), "78");
    for (const field of MOVED) assertEquals(bench.get64(copy + field), mark(field));
    for (const field of OTHERS) assertEquals(bench.get64(copy + field), 0n);
  });

  Deno.test(`a nested page fault at VMLOAD and VMSAVE ${on ? "exits" : "cannot be"}`, () => {
    const final = 1n << 32n;
    for (
      const [code, bits, error] of [
        [VMLOAD, 0n, 4n],
        [VMSAVE, 0n, 6n],
        [VMSAVE, 0x65n, 7n],
        [VMLOAD, 0x65n, undefined],
      ] as const
    ) {
      prepare(bench);
      bench.fill(BEHIND, VMCB_BYTES, 0);
      bench.fill(PAGE, VMCB_BYTES, 0);
      bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), bits === 0n ? 0n : BigInt(BEHIND) | bits);
      const exits = on && error !== undefined;
      assertEquals(bench.enter(`${code} ${HLT}`), exits ? "400" : "78", `${code} ${bits}`);
      if (!exits) continue;
      assertEquals(bench.info, [error | final, BigInt(PAGE)]);
      assertEquals(bench.control64(Save.RIP), BigInt(SvmPlace.GUEST_CODE));
      // It is data that faulted, so the instruction's bytes are told.
      assertEquals(bench.read(bench.vmcb + Control.FETCHED, 1)[0], 15);
    }
  });

  Deno.test(`without nested paging VMLOAD and VMSAVE ${on ? "exit" : "are executed"}`, () => {
    for (const [code, exit] of [[VMLOAD, "82"], [VMSAVE, "83"]] as const) {
      prepare(bench, false);
      bench.fill(PAGE, VMCB_BYTES, 0);
      assertEquals(bench.enter(`${code} ${HLT}`), on ? exit : "78");
      if (on) assertEquals(bench.control64(Control.NRIP), BigInt(SvmPlace.GUEST_CODE + 3));
      // And not enabled they are executed on the host's page, as ever.
      prepare(bench, false);
      bench.fill(PAGE, VMCB_BYTES, 0);
      bench.setControl32(Control.VIRT_EXT, 0);
      assertEquals(bench.enter(`${code} ${HLT}`), "78");
    }
  });

  Deno.test(`intercepts of VMLOAD and VMSAVE come first, ${on ? "with" : "without"} the feature`, () => {
    for (
      const [code, mask, exit] of [
        [VMLOAD, Misc2.VMLOAD, "82"],
        [VMSAVE, Misc2.VMSAVE, "83"],
      ] as const
    ) {
      prepare(bench);
      bench.orControl32(InterceptWord.MISC2, mask);
      bench.set64(bench.pageEntry(SvmPlace.NPT, PAGE), 0n);
      assertEquals(bench.enter(`${code} ${HLT}`), exit);
    }
  });

  Deno.test(`an rAX that is no page is #GP before anything else, ${on ? "with" : "without"} it`, () => {
    for (const code of [VMLOAD, VMSAVE]) {
      prepare(bench);
      bench.setControl64(Save.RAX, PAGE + 8);
      bench.setControl32(InterceptWord.EXCEPTIONS, 1 << 13);
      assertEquals(bench.enter(`${code} ${HLT}`), "4d");
    }
  });
}
