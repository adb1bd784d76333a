/**
 * Protection keys (SDM vol. 3A, 4.6.2; APM vol. 2, 5.6.7): each combination of access, page, privilege,
 * rights and CR0.WP, for user pages by PKRU and for supervisor pages by IA32_PKRS.
 */
import { assertEquals } from "@std/assert";
import { Cr0, Cr4, S } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { hex } from "./code.ts";

/** Access-disable and write-disable of a key. */
const AD = 1;
const WD = 2;
const KEY = 5;
/** IA32_PKRS. */
const PKRS = 0x6e1;

/** mov al, [400000h]; mov [400000h], al; jmp rbx */
const ACCESSES = {
  read: "8a 04 25 00 00 40 00",
  write: "88 04 25 00 00 40 00",
  fetch: "ff e3",
} as const;
type Access = keyof typeof ACCESSES;

/** Error code of #PF: what it says of the access, with "present" and, for a key, PK. */
function error(access: Access, cpl: number, key: boolean): string {
  const bits = 1 | (access === "write" ? 2 : 0) | (cpl === 3 ? 4 : 0) |
    (access === "fetch" ? 0x10 : 0) | (key ? 0x20 : 0);
  return `#14(${bits.toString(16)})`;
}

interface Case {
  readonly access: Access;
  readonly cpl: 0 | 3;
  readonly user: boolean;
  readonly rights: number;
  readonly wp: boolean;
  readonly enabled: boolean;
}

const bench = new Bench({ model: "max-intel" });

function run({ access, cpl, user, rights, wp, enabled }: Case): string {
  bench.long(cpl);
  const { state, processor } = bench;
  const entry = Place.TABLES + 0x2000 + 8 * 2;
  bench.set64(entry, 0x40_0000n | (user ? 0xe7n : 0xe3n) | (BigInt(KEY) << 59n));
  bench.fill(0x40_0000, 16, 0x90);
  const cr0 = state.get(S.cr0);
  state.set(S.cr0, wp ? cr0 | BigInt(Cr0.WP) : cr0 & ~BigInt(Cr0.WP));
  if (enabled) state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.PKE | Cr4.PKS));
  state.set(S.pkru, BigInt(user ? rights << (2 * KEY) : 0));
  assertEquals(processor.writeMsr(PKRS, BigInt(user ? 0 : rights << (2 * KEY))), true);
  processor.refresh();
  state.setRegister(3, 0x40_0000n);
  // A jump faults when the instruction at its target is fetched.
  const { events } = bench.execute(hex(ACCESSES[access]), access === "fetch" ? 2 : 1);
  const [first] = events;
  return first === undefined ? "ok" : `#${first.vector}(${first.errorCode?.toString(16)})`;
}

function expected({ access, cpl, user, rights, wp, enabled }: Case): string {
  const data = access !== "fetch";
  const writes = access === "write" && (rights & WD) !== 0 && (cpl === 3 || wp);
  const key = enabled && data && ((rights & AD) !== 0 || writes);
  const rightsOfPage = cpl === 3 && !user;
  return key || rightsOfPage ? error(access, cpl, key) : "ok";
}

for (const user of [true, false]) {
  Deno.test(`keys of ${user ? "user pages (PKRU)" : "supervisor pages (PKRS)"}`, () => {
    for (const access of ["read", "write", "fetch"] as const) {
      for (const cpl of [0, 3] as const) {
        for (const rights of [0, AD, WD, AD | WD]) {
          for (const wp of [false, true]) {
            for (const enabled of [false, true]) {
              const one: Case = { access, cpl, user, rights, wp, enabled };
              assertEquals(run(one), expected(one), JSON.stringify(one));
            }
          }
        }
      }
    }
  });
}

Deno.test("WRPKRU and WRMSR of PKRS take effect at once, on what is in the TLB as well", () => {
  bench.long(0);
  const { state } = bench;
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.PKE | Cr4.PKS));
  bench.set64(Place.TABLES + 0x2010, 0x40_00e7n | (1n << 59n));
  bench.processor.refresh();
  assertEquals(bench.judge(hex(ACCESSES.read)), "ok");
  state.setRegister(0, BigInt(AD << 2));
  state.setRegister(1, 0n);
  state.setRegister(2, 0n);
  assertEquals(bench.judge(hex("0f 01 ef")), "ok");
  assertEquals(bench.judge(hex(ACCESSES.read)), "#14(21)");
  bench.long(0);
  state.set(S.cr4, state.get(S.cr4) | BigInt(Cr4.PKS));
  bench.set64(Place.TABLES + 0x2010, 0x40_00e3n | (1n << 59n));
  bench.processor.refresh();
  assertEquals(bench.judge(hex(ACCESSES.read)), "ok");
  state.setRegister(0, BigInt(AD << 2));
  state.setRegister(1, BigInt(PKRS));
  state.setRegister(2, 0n);
  assertEquals(bench.judge(hex("0f 30")), "ok");
  assertEquals(bench.judge(hex(ACCESSES.read)), "#14(21)");
});

Deno.test("PKRS has 32 bits; without PKS there is none, nor CR4.PKS", () => {
  assertEquals(bench.processor.writeMsr(PKRS, 0xffff_ffffn), true);
  assertEquals(bench.processor.writeMsr(PKRS, 0x1_0000_0000n), false);
  const without = new Bench({ model: "max-intel", features: { pks: false } });
  assertEquals(without.processor.readMsr(PKRS), undefined);
  without.long();
  without.state.setRegister(0, BigInt(Cr4.PAE | Cr4.PKS));
  assertEquals(without.judge(hex("0f 22 e0")), "#13(0)");
});

Deno.test("keys are of long mode: other paging does not look at them", () => {
  const DIRECTORY = 0x5_1000;
  bench.set64(0x5_0000, BigInt(DIRECTORY) | 1n);
  for (let k = 1; k < 4; k++) bench.set64(0x5_0000 + 8 * k, 0n);
  for (let k = 0; k < 4; k++) bench.set64(DIRECTORY + 8 * k, BigInt(k * 0x20_0000) | 0xe7n);
  bench.protect(0, { cr3: 0x5_0000, cr4: Cr4.PAE | Cr4.PKE, efer: 0 });
  bench.state.set(S.pkru, 0xffff_ffffn);
  bench.processor.refresh();
  assertEquals(bench.judge(hex("a0 00 00 40 00")), "ok");
});
