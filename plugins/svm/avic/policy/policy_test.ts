import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../../../core/mod.ts";
import type { LapicFeatures } from "../../../lapic/mod.ts";
import {
  acceleratedMsrs,
  type AvicCapabilities,
  configuredMaxIndex,
  decideAtCreation,
  flushBothModes,
  flushXavicOnly,
  formerMsrs,
  inhibitTooBig,
  initializeActive,
  initializeAlways,
  ipiVirtualizationAlways,
  ipiVirtualizationByFamily,
  modeMaxIndex,
  readableMsrs,
  refuseTooBig,
  type VcpuIdPolicy,
  x2avicExtendedLimit,
  x2avicFormerLimit,
} from "../mod.ts";

const FEATURES: LapicFeatures = {
  vendor: "amd",
  x2apic: true,
  tscDeadline: false,
  cmci: false,
  eoiSuppression: false,
  extended: false,
};

const hex = (msrs: readonly number[]): string =>
  [...msrs].sort((a, b) => a - b).map((msr) => msr.toString(16)).join(" ");

Deno.test("the lists of x2APIC MSRs are those of KVM's patches", () => {
  assertEquals(hex(acceleratedMsrs.msrs(FEATURES)), "808 80b 830 83f");
  assertEquals(
    hex(readableMsrs.msrs(FEATURES)),
    "802 803 808 80a 80d 80f 810 811 812 813 814 815 816 817 818 819 81a 81b 81c 81d 81e 81f " +
      "820 821 822 823 824 825 826 827 828 830 832 833 834 835 836 837 838 83e",
  );
  assertEquals(readableMsrs.msrs({ ...FEATURES, cmci: true }).includes(0x82f), true);
  assertEquals(
    hex(formerMsrs.msrs(FEATURES)),
    "802 803 808 809 80a 80b 80c 80d 80e 80f 810 818 820 828 830 831 833 834 835 836 837 838 839 83e",
  );
});

const capabilities = (more: Partial<AvicCapabilities>): AvicCapabilities => ({
  avic: true,
  x2avic: true,
  x2avicExtended: false,
  extendedLvt: false,
  family: 0x19,
  ...more,
});

Deno.test("x2AVIC goes to 511, and to 4095 where the processor says so", () => {
  assertEquals(x2avicExtendedLimit.maxId(capabilities({})), 511);
  assertEquals(x2avicExtendedLimit.maxId(capabilities({ x2avicExtended: true })), 4095);
  assertEquals(x2avicFormerLimit.maxId(capabilities({ x2avicExtended: true })), 511);
});

Deno.test("the highest index is the mode's, or that of the configured ids", () => {
  assertEquals(configuredMaxIndex.maxIndex(511, 8), 7);
  assertEquals(configuredMaxIndex.maxIndex(254, 4096), 254);
  assertEquals(modeMaxIndex.maxIndex(511, 8), 511);
});

Deno.test("only family 17h does without IPI virtualization", () => {
  const enabled = (family: number) => ipiVirtualizationByFamily.enabled(capabilities({ family }));
  assertEquals([0x17, 0x18, 0x19, 0x1a].map(enabled), [false, true, true, true]);
  assertEquals(ipiVirtualizationAlways.enabled(capabilities({ family: 0x17 })), true);
});

Deno.test("what activation and initialization do", () => {
  assertEquals([false, true].map((x2avic) => flushBothModes.flushes(x2avic)), [true, true]);
  assertEquals([false, true].map((x2avic) => flushXavicOnly.flushes(x2avic)), [true, false]);
  assertEquals([false, true].map((on) => initializeAlways.initializes(on)), [true, true]);
  assertEquals([false, true].map((held) => initializeActive.initializes(held)), [true, false]);
});

/** What a policy does with a vCPU, in order. */
function steps(policy: VcpuIdPolicy, id: number, permitted = true): string {
  const done: string[] = [];
  let accelerated = false;
  policy.create({
    id,
    limit: 254,
    permitted,
    get accelerated() {
      return accelerated;
    },
    set accelerated(value) {
      accelerated = value;
      done.push(value ? "on" : "off");
    },
    initialize: () => void done.push("initialize"),
    inhibit: () => void done.push("inhibit"),
  });
  return done.join(" ");
}

Deno.test("a vCPU whose id is too big inhibits AVIC, or is refused", () => {
  assertEquals(steps(inhibitTooBig, 254), "on initialize");
  assertEquals(steps(inhibitTooBig, 255), "on inhibit off");
  assertEquals(steps(refuseTooBig, 254), "on initialize");
  assertThrows(() => steps(refuseTooBig, 255), ArgumentError, "vCPU id 255 is above 254");
  // Decided once: nothing has to be taken back.
  assertEquals(steps(decideAtCreation, 254), "initialize on");
  assertEquals(steps(decideAtCreation, 254, false), "initialize off");
  assertEquals(steps(decideAtCreation, 255), "inhibit");
});
