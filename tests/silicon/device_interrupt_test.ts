/**
 * An interrupt that a device raises while an instruction accesses it is taken behind that instruction,
 * however the decoder has divided and linked the code around it.
 */
import { assertEquals } from "@std/assert";
import { S, Stop } from "../../plugins/cpu/mod.ts";
import { Bench, Place } from "./bench.ts";
import { code, dword } from "./code.ts";

/** Device memory, beyond the bench's. */
const DEVICE = 0x50_0000;

/** Runs `access` in a loop of 20 rounds; the device raises INTR in the last. RIP that it interrupts. */
function interruptedAt(access: readonly number[], at: number = Place.CODE): [number, number] {
  const bench = new Bench({ memory: 0x40_0000 });
  bench.long(0);
  bench.handlers(64);
  let writes = 0;
  bench.outside.deviceRead = () => 0;
  bench.outside.deviceWrite = () => {
    writes++;
    if (writes === 20) bench.processor.setInterruptLine(true);
  };
  bench.outside.acknowledge = () => {
    bench.processor.setInterruptLine(false);
    return 0x30;
  };
  const loop = code(
    access,
    // inc esi; cmp esi, 25; jne
    "ff c6 83 fe 19",
    "75",
    [(-(access.length + 7)) & 0xff],
    "eb fe",
  );
  bench.write(at, new Uint8Array(loop));
  bench.state.setRegister(3, BigInt(DEVICE));
  bench.state.setRegister(6, 0n);
  bench.state.set(S.rip, BigInt(at));
  bench.state.set(S.rflags, 0x202n);
  bench.processor.refresh();
  assertEquals(bench.processor.run(100_000), Stop.HALT);
  const [event] = bench.processor.recentEvents();
  return [Number(event?.rip), Number(bench.state.register(6))];
}

const FORMS: readonly (readonly [string, readonly number[]])[] = [
  ["MOV", code("89 03")],
  ["XCHG", code("87 03")],
  ["STOSD", code("48 89 df 89 07 48 89 df ab")],
  ["REP STOSD", code("48 89 df b9", dword(1), "f3 ab")],
  ["LOCK ADD", code("f0 01 03")],
];

for (const [name, access] of FORMS) {
  Deno.test(`a device's interrupt behind ${name}`, () => {
    // STOSD writes twice a round: once by MOV, once itself.
    const rounds = name === "STOSD" ? 10 : name === "LOCK ADD" ? 20 : 20;
    const [rip, esi] = interruptedAt(access);
    assertEquals([rip, esi], [Place.CODE + access.length, rounds - 1]);
    // And where the instruction is the last of its page.
    const end = Place.CODE + 0x1000 - access.length;
    assertEquals(interruptedAt(access, end), [end + access.length, rounds - 1]);
  });
}
