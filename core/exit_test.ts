import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "./errors.ts";
import {
  defineExitReason,
  describeExit,
  exitBytes,
  ExitReason,
  exitReasonName,
  exitReasons,
  MAX_EXIT_REASONS,
  VmExit,
} from "./exit.ts";

Deno.test("reasons are dense and each has its name", () => {
  const numbers = Object.values(ExitReason).sort((a, b) => a - b);
  assertEquals(numbers, Array.from(numbers, (_, i) => i));
  for (const [name, reason] of Object.entries(ExitReason)) {
    assertEquals(exitReasonName(reason), name);
  }
  assertEquals(exitReasonName(MAX_EXIT_REASONS), `reason ${MAX_EXIT_REASONS}`);
});

Deno.test("exits are described by the fields that their reason makes valid", () => {
  const exit = new VmExit();
  const say = (set: (exit: VmExit) => void): string => {
    set(exit);
    return `${exitReasonName(exit.reason)} ${describeExit(exit)}`.trim();
  };
  exit.setMmio(0xfee0_0000, 8, true, 1, 0x8000_0000);
  const cases: [(exit: VmExit) => void, string][] = [
    [(exit) => exit.setIo(0x3f8, 1, true, 0x41), "IO out, port 3f8h, 1 bytes, value 41h"],
    [(exit) => exit.setIo(0x60, 2, false, 0x41), "IO in, port 60h, 2 bytes"],
    [(exit) => {
      exit.setIo(0x1f0, 2, false, 0);
      exit.string = exit.rep = true;
    }, "IO rep ins, port 1f0h, 2 bytes"],
    [
      (exit) => exit.setMmio(0xf_fee0_0000, 8, true, 1, 0x8000_0000),
      "MMIO write, gpa ffee00000h, 8 bytes, value 8000000000000001h",
    ],
    [(exit) => exit.setMmio(0, 4, false, 9, 9), "MMIO read, gpa 0h, 4 bytes"],
    [(exit) => exit.setCpuid(0x8000_000a, 1), "CPUID leaf 8000000ah, subleaf 1h"],
    [(exit) => exit.setMsr(0xc000_0080, false, 1, 2), "RDMSR MSR c0000080h"],
    [(exit) => exit.setMsr(0x830, true, 0x40, 3), "WRMSR MSR 830h, value 300000040h"],
    [(exit) => {
      exit.reason = ExitReason.CR_ACCESS;
      exit.write = true;
      exit.register = 8;
      exit.gpr = 17;
    }, "CR_ACCESS write of CR8, register 17"],
    [(exit) => {
      exit.reason = ExitReason.NESTED_PAGE_FAULT;
      exit.gpa = 0x1234;
      exit.errorCode = 7;
      exit.walk = true;
    }, "NESTED_PAGE_FAULT gpa 1234h, error code 7h, in a page walk"],
    [(exit) => void (exit.reason = ExitReason.HLT), "HLT"],
  ];
  for (const [set, wanted] of cases) assertEquals(say(set), wanted);
});

Deno.test("instruction bytes print as far as they are known", () => {
  const exit = new VmExit();
  exit.bytes.set([0xd5, 0x0f, 1]);
  exit.byteCount = 2;
  assertEquals(exitBytes(exit), "d5 0f");
});

Deno.test("further reasons are defined by name until the numbers are used up", () => {
  const first = defineExitReason("TEST_REASON");
  assertEquals(defineExitReason("TEST_REASON"), first);
  assertEquals(exitReasonName(first), "TEST_REASON");
  assertEquals(defineExitReason("HLT"), ExitReason.HLT);
  const exit = new VmExit();
  exit.reason = first;
  exit.vendorCodeLo = 0x80;
  assertEquals(describeExit(exit), "vendor code 80h, info 0h 0h");

  const known = exitReasons();
  assertEquals(known.find(({ reason }) => reason === first)?.name, "TEST_REASON");
  for (let i = known.length; i < MAX_EXIT_REASONS; i++) defineExitReason(`TEST_${i}`);
  assertThrows(() => defineExitReason("TEST_ONE_TOO_MANY"), ArgumentError, "TEST_ONE_TOO_MANY");
});
