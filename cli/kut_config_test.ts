import { assertEquals } from "@std/assert";
import { type KutTest, machineOf, matches, parseUnittests, shellWords } from "./kut_config.ts";

const LIST = `
# A comment
[apic]
file = apic.flat
smp = 2
qemu_params = -cpu qemu64,-x2apic,+tsc-deadline
arch = x86_64
timeout = 60
groups = apic slow

[vmexit_ipi]
file = vmexit.flat
smp = $MAX_SMP
test_args = 'ipi'
accel = kvm
check = /sys/x=1

[old]
file = old.flat
extra_params = -cpu IvyBridge,phys-bits=36 -m 2g -append 'one "two"'

[pit]
file = pit.flat
qemu_params = -machine pit=off

[long]
file = long.flat
qemu_params = """-m 512
  -device edu"""
`;

const byName = (name: string): KutTest =>
  parseUnittests(LIST).find((test) => test.name === name) as KutTest;

Deno.test("the list is read", () => {
  assertEquals(parseUnittests(LIST).map(({ name }) => name), [
    "apic",
    "vmexit_ipi",
    "old",
    "pit",
    "long",
  ]);
  assertEquals(byName("apic"), {
    name: "apic",
    file: "apic.flat",
    smp: 2,
    args: "",
    params: ["-cpu", "qemu64,-x2apic,+tsc-deadline"],
    groups: ["apic", "slow"],
    arch: "x86_64",
    timeout: 60,
  });
  assertEquals([byName("vmexit_ipi").args, byName("vmexit_ipi").smp], ["ipi", 1]);
  assertEquals([byName("old").args, byName("old").params.length], ['one "two"', 4]);
  assertEquals(byName("long").params, ["-m", "512", "-device", "edu"]);
});

Deno.test("what a test asks for", () => {
  const apic = machineOf(byName("apic"));
  assertEquals([apic.memory, apic.processor, apic.unmet], [128 * 2 ** 20, undefined, []]);
  assertEquals([...apic.features], [["x2apic", false], ["tsc-deadline", true]]);
  const old = machineOf(byName("old"));
  assertEquals([old.memory, old.processor, old.unmet], [2 ** 31, "intel", []]);
  assertEquals([old.physicalBits, byName("apic") && machineOf(byName("apic")).physicalBits], [
    36,
    undefined,
  ]);
  const long = machineOf(byName("long"));
  assertEquals([long.memory, long.unmet], [2 ** 29, ["-device edu"]]);
  const pit = machineOf(byName("pit"));
  assertEquals([pit.without, pit.unmet], [["pit"], []]);
  assertEquals(machineOf({ ...byName("apic"), groups: ["vmx"] }).processor, "intel");
  assertEquals(machineOf({ ...byName("apic"), params: ["-cpu", "max,+vmx"] }).processor, "intel");
  const amd = { ...byName("apic"), params: ["-cpu", "Opteron_G1,vendor=AuthenticAMD"] };
  assertEquals(machineOf(amd).processor, "amd");
});

Deno.test("patterns match names and groups, as a whole", () => {
  const test = byName("apic");
  for (const pattern of ["apic", "slow", "a*c", "*"]) assertEquals(matches(test, [pattern]), true);
  for (const pattern of ["api", "x2apic", "a.ic", ""]) {
    assertEquals(matches(test, [pattern]), false);
  }
  assertEquals(matches(test, ["none", "slow"]), true);
});

Deno.test("words as a shell has them", () => {
  assertEquals(shellWords(`a 'b c' d"e f"g  "" 'it is "so"'`), [
    "a",
    "b c",
    "de fg",
    "",
    'it is "so"',
  ]);
});
